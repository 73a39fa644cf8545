"""The cache: what it answers, what it forgets, and how large it grows."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, ask, at_once, blob, fetch, in_child, parts

from zarr_gpu.errors import DataError, InvalidKeyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.cache import CacheStore
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore, FaultyStore


class TestCacheInMemory(StoreSuite, StoreArraySuite):
    title = "cache in memory, of memory"
    shared = many_writers = durable = False

    @pytest.fixture
    def store(self) -> Store:
        return CacheStore(MemoryStore(), 50_000, cache_missing=True)


class TestCacheInFolder(StoreSuite, StoreArraySuite):
    title = "cache in a folder, of local files"
    many_writers = False  # what another process writes is not noticed
    many_keys = 1_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return CacheStore(LocalStore(tmp_path / "a"), 100_000, folder=tmp_path / "cache")


@pytest.fixture(params=["memory", "folder"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"folder": tmp_path / "cache"} if request.param == "folder" else {}


def counted(values: dict[str, Any], max_bytes: int, **options: Any) -> tuple[Any, Any]:
    inner = CountingStore(MemoryStore(values))
    return inner, CacheStore(inner, max_bytes, **options)


def test_what_is_kept_is_not_asked_for_again(options: dict[str, Any]) -> None:
    value = blob(1000)
    inner, store = counted({"x": value, "y": b"12345"}, 10_000, **options)
    for _ in range(3):
        assert store.get("x") == value
        assert fetch(store, ("x", 10, 20), ("y", 1, 3), ("x", -5, 5)) == [
            value[10:30],
            b"234",
            value[-5:],
        ]
        assert fetch(store, ("y", 1, 3)) == [b"234"]
        assert fetch(store, ("y", 2, 1)) == [b"3"]  # part of a range that is kept
        assert store.nbytes("x") == 1000
    assert sorted(inner.keys_read) == ["x", "y"]
    assert inner.count("size") == 0
    assert store.misses == 2
    assert store.hits == 3 * 6 - 2


def test_ranges_do_not_stand_for_more_than_they_are(options: dict[str, Any]) -> None:
    value = blob(100)
    inner, store = counted({"x": value}, 10_000, **options)
    assert fetch(store, ("x", 10, 20)) == [value[10:30]]
    assert fetch(store, ("x", -20, 20)) == [value[-20:]]
    for offset, nbytes in ((5, 10), (25, 10), (0, REST), (30, 1)):
        before = inner.count("read")
        want = value[offset:] if nbytes == REST else value[offset : offset + nbytes]
        store.clear()
        assert fetch(store, ("x", 10, 20)) == [value[10:30]]
        assert fetch(store, ("x", offset, nbytes)) == [want]
        assert inner.count("read") == before + 2
    with pytest.raises(DataError):
        fetch(store, ("x", 90, 20))


def test_it_stays_within_its_bound(options: dict[str, Any]) -> None:
    values = {f"k{i:03}": blob(1000, i) for i in range(50)}
    inner, store = counted(values, 10_500, **options)
    for key, value in values.items():
        assert store.get(key) == value
        assert store.nbytes_kept <= 10_500
    assert store.nbytes_kept > 9_000
    inner.reset()
    assert store.get("k049") == values["k049"]
    assert inner.calls == []
    assert store.get("k000") == values["k000"]
    assert inner.keys_read == ["k000"]


def test_what_was_used_longest_ago_goes_first(options: dict[str, Any]) -> None:
    values = {key: bytes(1000) for key in "abcde"}
    inner, store = counted(values, 3300, **options)
    for key in "abcabad":  # c is the one not used of late
        store.get(key)
    inner.reset()
    for key in "abd":
        store.get(key)
    assert inner.calls == []
    store.get("c")
    assert inner.keys_read == ["c"]


def test_what_does_not_fit_is_not_kept(options: dict[str, Any]) -> None:
    inner, store = counted({"large": bytes(5000), "small": b"1"}, 2000, **options)
    store.get("small")
    for _ in range(2):
        assert store.get("large") == bytes(5000)
    store.get("small")
    assert inner.keys_read == ["small", "large", "large"]
    inner, store = counted({"small": b"1"}, 0, **options)
    assert [store.get("small") for _ in range(3)] == [b"1"] * 3
    assert inner.count("read") == 3


def test_absent_keys_are_kept_if_asked_to(options: dict[str, Any]) -> None:
    for keep in (False, True):
        inner, store = counted({"x": b"1"}, 1000, cache_missing=keep, **options)
        store.clear()
        for _ in range(3):
            assert store.get("no") is None
            assert fetch(store, ("no", 0, 5), ("nor", 0, REST)) == [None, None]
        assert inner.count("read") == (2 if keep else 9)
        inner.reset()
        assert store.exists("no") is False
        assert inner.count("size") == (0 if keep else 1)
        store.put("no", b"now")
        assert store.get("no") == b"now"
        assert store.exists("no")


def test_changes_through_it_are_seen(options: dict[str, Any]) -> None:
    _, store = counted({"a/x": b"old", "a/y": b"2"}, 1000, **options)
    assert fetch(store, ("a/x", 0, 2), ("a/x", 0, REST)) == [b"ol", b"old"]
    store.put("a/x", b"newer")
    assert fetch(store, ("a/x", 0, 2), ("a/x", 0, REST)) == [b"ne", b"newer"]
    store.delete_many(["a/x"])
    assert store.get("a/x") is None
    assert store.get("a/y") == b"2"
    store.move("a", "b")
    assert (store.get("a/y"), store.get("b/y")) == (None, b"2")
    store.delete_prefix("b")
    assert store.get("b/y") is None


def test_a_write_that_failed_is_not_trusted(options: dict[str, Any]) -> None:
    inner = MemoryStore({"x": b"old"})

    def write_then_fail(method: str, key: str) -> bool:
        if method == "write":
            inner.items["x"] = b"half"  # type: ignore[index]
        return method == "write"

    store = CacheStore(FaultyStore(inner, OSError("no"), when=write_then_fail), 1000, **options)
    assert store.get("x") == b"old"
    with pytest.raises(StoreError):
        store.put("x", b"new")
    assert store.get("x") == b"half"


def test_a_read_that_began_before_a_write_is_not_kept() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
            data = super().read(key, offset, nbytes)
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                go_on.wait(10)
            return data

    store = CacheStore(Slow({"x": b"old"}), 1000)
    reader = threading.Thread(target=store.get, args=("x",))
    reader.start()
    begun.wait(10)
    store.put("x", b"new")
    go_on.set()
    reader.join()
    assert store.get("x") == b"new"


def test_a_folder_outlives_its_process(tmp_path: Path) -> None:
    LocalStore(tmp_path / "a").put_many([("x", b"1" * 100), ("y", b"2" * 100)])
    first = CacheStore(LocalStore(tmp_path / "a"), 10_000, folder=tmp_path / "cache")
    assert first.get("x") == b"1" * 100
    assert fetch(first, ("y", 5, 10)) == [b"2" * 10]
    for again in (
        CacheStore(LocalStore(tmp_path / "a"), 10_000, folder=tmp_path / "cache"),
        pickle.loads(pickle.dumps(first)),
    ):
        assert again.nbytes_kept == first.nbytes_kept
        assert again.get("x") == b"1" * 100
        assert fetch(again, ("y", 5, 10)) == [b"2" * 10]
        assert (again.hits, again.misses) == (2, 0)
    other = CacheStore(LocalStore(tmp_path / "b"), 10_000, folder=tmp_path / "cache")
    assert other.get("x") is None  # of another store
    small = CacheStore(LocalStore(tmp_path / "a"), 100, folder=tmp_path / "cache")
    assert small.nbytes_kept <= 100


def test_damaged_and_lost_files_are_read_anew(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    inner, store = counted({"x": b"1" * 100}, 10_000, folder=folder)
    store.get("x")
    (file,) = folder.iterdir()
    good = file.read_bytes()
    for damage in (good[:50], b"", good[:20] + b"?" + good[21:], None):
        store.get("x")
        (file,) = folder.iterdir()
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        inner.reset()
        assert store.get("x") == b"1" * 100
        assert inner.keys_read == ["x"]
        assert store.nbytes_kept <= 10_000
    (folder / "not.ours.txt").write_bytes(b"")
    store.clear()
    assert [path.name for path in folder.iterdir()] == ["not.ours.txt"]


@pytest.mark.skipif(os.name == "nt", reason="platform: POSIX only")
def test_a_folder_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, store = counted({"x": b"1"}, 1000, folder=tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_bytes(b"in the way")
    for _ in range(2):
        assert store.get("x") == b"1"
    assert inner.count("read") == 2
    assert store.nbytes_kept == 0


def test_many_threads(options: dict[str, Any]) -> None:
    values = {f"k{i}": blob(200, i) for i in range(40)}
    inner, store = counted(dict(values), 4_000, **options)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            keys = [f"k{i}" for i in rng.integers(0, 40, 5)]
            answer = parts(store.fetch(ask(*((key, 0, REST) for key in keys)), HostMemory()))
            for key, got in zip(keys, answer, strict=True):
                assert got == values[key]
            if rng.integers(4) == 0:
                store.put(keys[0], values[keys[0]])

    at_once(*(lambda s=s: work(s) for s in range(6)))  # type: ignore[misc]
    assert store.nbytes_kept <= 4_000
    assert store.hits + store.misses >= inner.count("read")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_lock_held_while_forking_holds_nobody_up() -> None:
    store = CacheStore(MemoryStore({"x": b"1"}), 1000)
    with store._lock:
        assert in_child(lambda: store.get("x") == b"1")


def test_misses_are_read_together() -> None:
    class Batched(MemoryStore):
        batches: list[int] = []

        def read_spans(self, spans: Any, memory: Any) -> Any:
            self.batches.append(len(spans))
            return super().read_spans(spans, memory)

    store = CacheStore(Batched({f"{i}": b"1" for i in range(10)}), 1000)
    store.get("3")
    store.fetch(ByteRequest.whole([f"{i}" for i in range(10)]), HostMemory())
    assert Batched.batches == [9]


def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(InvalidKeyError):
        CacheStore(MemoryStore(), -1)
