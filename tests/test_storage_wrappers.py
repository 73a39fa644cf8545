"""Stores around stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, ask, fetch, parts

from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.cache import CacheStore
from zarr_gpu.storage.latency import LatencyStore
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.logs import LoggingStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.retry import RetryStore
from zarr_gpu.storage.wrappers import (
    Call,
    CountingStore,
    FaultyStore,
    PrefixStore,
    ReadOnlyStore,
)


class TestPrefixOfMemory(StoreSuite, StoreArraySuite):
    title = "prefix, of memory"
    longest_key = 1000  # the prefix counts
    shared = many_writers = durable = False

    @pytest.fixture
    def store(self) -> Store:
        inner = MemoryStore({"be": b"", "below": b"", "below/it": b"", "beside/x": b""})
        return PrefixStore(inner, "be/low")


class TestPrefixOfLocal(StoreSuite, StoreArraySuite):
    title = "prefix, of local files"
    longest_key = 1000
    many_keys = 1_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        outer = LocalStore(tmp_path)
        outer.put_many([("beside/x", b""), ("be/lower/x", b"")])
        return PrefixStore(outer, "be/low")


class TestRedundantWrappers(StoreSuite):
    """Of all that only look on, one around the other."""

    title = "logging, counting, read again, of local files"
    many_keys = 1_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LoggingStore(CountingStore(RetryStore(LocalStore(tmp_path / "a"))))


class Remote(MemoryStore):
    """Calls worth having in flight together."""

    concurrency = 8


class TestConcurrentCalls(StoreSuite):
    """Of a counting store, over a store whose calls overlap."""

    title = "counting, of memory with 8 calls at once"
    many_keys = 1_000
    shared = many_writers = durable = in_order = False

    @pytest.fixture
    def store(self) -> Store:
        return CountingStore(Remote())

    def test_a_failure_at_some_calls_leaves_whole_values(self, store: Store) -> None:
        keys = [f"k/{i}" for i in range(6)]
        store.put_many([(key, b"old") for key in keys])
        failing = FaultyStore(store, OSError("now"), every=7)
        for _ in range(20):
            try:
                failing.put_many([(key, b"new") for key in keys])
                parts(failing.fetch(ByteRequest.whole(keys), HostMemory()))
            except StoreError:
                assert all(store.get(key) in {b"old", b"new"} for key in keys)


def test_an_empty_prefix_is_the_store_itself() -> None:
    store = PrefixStore(MemoryStore({"a/x": b"1", "y": b"2"}), "")
    assert list(store.list_prefix()) == ["a/x", "y"]
    assert store.list_dir() == ("a", "y")
    store.put("z", b"3")
    store.delete_prefix("")
    assert list(store.list_prefix()) == []


def test_a_prefix_store_stays_below_its_prefix() -> None:
    inner = MemoryStore({"a/x": b"1", "ab/x": b"2", "x": b"3"})
    store = PrefixStore(inner, "a/")
    store.delete_prefix("")
    assert sorted(inner.items) == ["ab/x", "x"]
    for key in ("../x", "/x", "b/../../x"):
        with pytest.raises(InvalidKeyError):
            store.get(key)
    with pytest.raises(InvalidKeyError):
        PrefixStore(inner, "..")


def test_wrappers_are_equal_where_they_wrap_the_same() -> None:
    inner = MemoryStore()
    assert PrefixStore(inner, "a") == PrefixStore(inner, "a")
    assert PrefixStore(inner, "a") != PrefixStore(inner, "b")
    assert ReadOnlyStore(inner) == ReadOnlyStore(inner) != inner
    assert CountingStore(inner) == CountingStore(inner)


def test_a_read_only_store_cannot_be_written_through_its_primitives() -> None:
    store = ReadOnlyStore(MemoryStore({"x": b"1"}))
    for call in (
        lambda: store.write("x", memoryview(b"")),
        lambda: store.remove("x"),
        lambda: store.remove_prefix(""),
        lambda: store.rename_prefix("a", "b"),
        lambda: CountingStore(store).put("x", b""),
    ):
        with pytest.raises(ReadOnlyError):
            call()


def test_every_call_is_recorded() -> None:
    store = CountingStore(MemoryStore({"a/x": b"12345"}))
    store.get("a/x")
    store.get("no")
    store.exists("a/x")
    store.put("a/y", b"123")
    fetch(store, ("a/x", 1, 3), ("a/x", 4, 1), ("a/y", -2, 2), ("no", 0, REST))
    store.list_dir("a")
    list(store.list_prefix("a"))
    store.delete_many(["a/y"])
    store.delete_prefix("a")
    assert store.calls == [
        Call("read", "a/x", 0, REST, 5),
        Call("read", "no", 0, REST, None),
        Call("size", "a/x"),
        Call("write", "a/y", 0, 3),
        Call("read", "a/x", 1, 4, 4),
        Call("read", "no", 0, REST, None),
        Call("read", "a/y", -2, REST, 2),
        Call("list", "a"),
        Call("list", "a"),
        Call("remove", "a/y"),
        Call("remove_prefix", "a"),
    ]
    assert store.bytes_read == 11
    assert store.bytes_written == 3
    assert store.keys_read == ["a/x", "no", "a/x", "no", "a/y"]
    assert store.keys_written == ["a/y"]
    assert store.count("read") == 5
    store.reset()
    assert store.calls == []


def test_faults_where_they_were_asked_for() -> None:
    inner = MemoryStore({"x": b"1", "y": b"2"})
    store = FaultyStore(inner, lambda method, key: OSError(f"{method} of {key}"), every=2)
    assert store.get("x") == b"1"
    with pytest.raises(StoreError, match="read of y"):
        store.get("y")
    assert store.get("y") == b"2"

    picky = FaultyStore(inner, OSError("no"), when=lambda method, key: key == "y")
    assert picky.get("x") == b"1"
    with pytest.raises(StoreError, match="'y'"):
        fetch(picky, ("x", 0, REST), ("y", 0, REST))
    assert FaultyStore(inner, KeyboardInterrupt(), nth=5).get("x") == b"1"
    with pytest.raises(KeyboardInterrupt):
        FaultyStore(inner, KeyboardInterrupt()).get("x")


@pytest.mark.parametrize("answer", [b"0123456789", b"01234567890123456789"])
@pytest.mark.parametrize(("offset", "nbytes"), [(2, 3), (-4, 4), (0, 9)])
def test_a_server_that_ignores_ranges(answer: bytes, offset: int, nbytes: int) -> None:
    class Careless(MemoryStore):
        def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
            return answer

    store: Any = Careless({"x": answer})
    for ranges in ([("x", offset, nbytes)], [("x", offset, nbytes), ("y", 0, REST)]):
        with pytest.raises(DataError, match="more bytes than") as caught:
            store.fetch(ask(*ranges), HostMemory())
        assert caught.value.key == "x"
        assert caught.value.expected == nbytes


class Batched(MemoryStore):
    """Notes how many values and keys each of its batches has, as a database's transaction would."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def put_many(self, items: Any) -> None:
        drawn = list(items)
        self.batches.append(len(drawn))
        super().put_many(drawn)

    def delete_many(self, keys: Any) -> None:
        drawn = list(keys)
        self.batches.append(-len(drawn))
        super().delete_many(drawn)


@pytest.mark.parametrize(
    "wrap",
    [
        CountingStore,
        LoggingStore,
        lambda store: PrefixStore(store, "a"),
        lambda store: CacheStore(store, 1000),
    ],
    ids=["counting", "logging", "prefix", "cache"],
)
def test_batches_stay_batches(wrap: Any) -> None:
    inner = Batched()
    store = wrap(inner)
    assert store.get("k/3") is None
    store.put_many((f"k/{i}", bytes([i])) for i in range(10))
    assert store.get("k/3") == b"\3"
    store.delete_many(f"k/{i}" for i in range(5))
    assert store.get("k/3") is None
    assert inner.batches == [10, -5]
    for key in ("../x", "/x", "C:/x", ""):
        with pytest.raises(InvalidKeyError):
            store.put_many([("good", b""), (key, b"")])
        with pytest.raises(InvalidKeyError):
            store.delete_many([key])
    inner.read_only = True
    closed = wrap(inner)
    for call in (lambda: closed.put_many([("x", b"")]), lambda: closed.delete_many(["x"])):
        with pytest.raises(ReadOnlyError):
            call()


@pytest.mark.parametrize(
    "wrap",
    [
        CountingStore,
        LoggingStore,
        RetryStore,
        lambda store: PrefixStore(store, "a"),
        lambda store: CacheStore(store, 1000, cache_missing=True),
        lambda store: LatencyStore(store, 0.0, per_byte=1e-9),
        lambda store: FaultyStore(store, OSError("no"), nth=99),
    ],
    ids=["counting", "logging", "retry", "prefix", "cache", "latency", "faulty"],
)
def test_wrappers_declare_and_do_what_the_store_inside_does(wrap: Any) -> None:
    class Inner(MemoryStore):
        concurrency = 7
        max_gap = 11
        max_coalesced = 1234
        atomic_put_if_absent = True
        asked = 0

        def write_if_absent(self, key: str, data: memoryview) -> bool:
            type(self).asked += 1
            return super().write_if_absent(key, data)

    store = wrap(Inner())
    assert (store.concurrency, store.max_gap, store.max_coalesced) == (7, 11, 1234)
    assert store.atomic_put_if_absent
    assert store.get("x") is None
    assert store.put_if_absent("x", b"first")
    assert store.get("x") == b"first"
    assert not store.put_if_absent("x", b"second")
    assert store.get("x") == b"first"
    assert Inner.asked == 2
    closed = ReadOnlyStore(store)
    assert closed.atomic_put_if_absent
    for call in (
        lambda: closed.put_if_absent("y", b""),
        lambda: closed.write_if_absent("y", memoryview(b"")),
    ):
        with pytest.raises(ReadOnlyError):
            call()


def test_a_value_stored_by_an_attempt_that_seemed_to_fail() -> None:
    class Late(MemoryStore):
        late = True

        def write_if_absent(self, key: str, data: memoryview) -> bool:
            stored = super().write_if_absent(key, data)
            if self.late:
                self.late = False
                raise TimeoutError("no answer, but it is done")
            return stored

    assert RetryStore(Late(), delay=1e-5).put_if_absent("x", b"mine")
    assert not RetryStore(Late({"x": b"another's"}), delay=1e-5).put_if_absent("x", b"mine")
    with pytest.raises(OSError, match="cannot write"):
        RetryStore(FaultyStore(Late(), PermissionError("no"))).put_if_absent("x", b"mine")


def test_equal_seeds_fail_equal_calls() -> None:
    def failures(seed: int) -> list[int]:
        store = FaultyStore(MemoryStore(), OSError("no"), rate=0.2, seed=seed)
        failed = []
        for i in range(500):
            try:
                store.get("x")
            except StoreError:
                failed.append(i)
        assert store.nfailed == len(failed)
        return failed

    assert failures(1) == failures(1) != failures(2)
    assert 60 < len(failures(3)) < 140
