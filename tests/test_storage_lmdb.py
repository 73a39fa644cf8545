"""The LMDB store."""

# ruff: noqa: E402  what is optional is asked for first

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_arrays import StoreArraySuite
from store_databases import check_killed_writer
from store_suite import StoreSuite, blob, fetch, in_child

import zarr_gpu
from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import StoreTimeoutError
from zarr_gpu.storage.opening import open_store

lmdb = pytest.importorskip("lmdb")

from zarr_gpu.storage import lmdb_environment as module
from zarr_gpu.storage.lmdb import LmdbStore


class TestLmdb(StoreSuite, StoreArraySuite):
    title = "LMDB"

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with LmdbStore(tmp_path / "a.lmdb") as store:
            yield store

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, LmdbStore)
        return LmdbStore(store.path, read_only=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    with LmdbStore(tmp_path / "a.lmdb") as store:
        yield store


def test_databases_of_zarr_python_2(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "old"), map_size=1 << 20) as old, old.begin(write=True) as change:
        for key, value in ((".zgroup", b'{"zarr_format": 2}'), ("x/0.0", b"chunk"), ("x/1.0", b"")):
            change.put(key.encode(), value)
    with LmdbStore(tmp_path / "old", read_only=True) as store:
        assert list(store.list_prefix()) == [".zgroup", "x/0.0", "x/1.0"]
        assert fetch(store, ("x/0.0", 1, 3), ("x/1.0", 0, REST)) == [b"hun", b""]
        assert isinstance(zarr_gpu.open(store), zarr_gpu.Group)
    with LmdbStore(tmp_path / "old") as store:
        store.put("x/0.0", b"new")
    with lmdb.open(str(tmp_path / "old")) as old, old.begin() as look:
        assert look.get(b"x/0.0") == b"new"


def test_a_database_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "one.mdb"
    with lmdb.open(str(path), subdir=False) as old, old.begin(write=True) as change:
        change.put(b"x", b"1")
        change.put(b"not \xff a key", b"2")
    with LmdbStore(path) as store:
        assert list(store.list_prefix()) == ["x"]
        store.put("y", b"3")
        assert store.get("y") == b"3"


@pytest.mark.parametrize("length", [510, 511, 512, 1024])
def test_keys_longer_than_lmdb_allows(store: LmdbStore, length: int) -> None:
    keys = [f"{'d' * 300}/{'e' * (length - 303)}{c}{d}" for c in "ab" for d in "cd"]
    keys += ["d", f"{'d' * 300}/a", f"{'d' * 300}/f", "e"]
    store.put_many((key, key[-2:].encode()) for key in keys)
    assert [store.get(key) for key in keys] == [key[-2:].encode() for key in keys]
    assert list(store.list_prefix()) == sorted(keys)
    assert list(store.list_prefix("d" * 300)) == sorted(k for k in keys if "/" in k)
    assert store.list_dir() == ("d", "d" * 300, "e")
    assert store.nbytes(keys[0]) == 2
    assert fetch(store, (keys[0], 1, 1), (keys[1], -1, REST)) == [b"c", b"d"]
    store.delete_many([keys[1]])
    assert store.get(keys[1]) is None
    assert store.get(keys[0]) == b"ac"
    store.move("d" * 300, "new")
    assert next(store.list_prefix("new")) == "new/a"
    store.delete_prefix("new")
    assert list(store.list_prefix()) == ["d", "e"]


def test_pages_do_not_part_long_keys(store: LmdbStore) -> None:
    keys = sorted("x" * 480 + "/" + "y" * (i % 40) + f"{i:03}" for i in range(60))
    store.put_many((key, b"") for key in keys)
    for n in (1, 7, 100):
        found = store._page("", None, n)
        assert found == keys[: len(found)]
        assert len(found) >= min(n, 60)


def test_a_batch_is_one_transaction(store: LmdbStore) -> None:
    store.put("x", b"1")
    with store._reading() as before:
        first = before.id()
    store.put_many((f"k/{i}", b"v") for i in range(1000))
    with store._reading() as after:
        assert after.id() == first + 1

    def items() -> Iterator[tuple[str, bytes]]:
        yield "x", b"2"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.put_many(items())
    assert store.get("x") == b"1"


def test_the_map_grows(tmp_path: Path) -> None:
    with LmdbStore(tmp_path / "a", map_size=1 << 16) as store:
        store.put("x", b"1")
        store.put_many((f"k/{i}", blob(10_000, i)) for i in range(100))
        store.put("big", blob(5_000_000))
        assert store.get("k/99") == blob(10_000, 99)
        assert store.get("big") == blob(5_000_000)
        assert store._environment.get()._map_size > 5_000_000
        with LmdbStore(tmp_path / "a", map_size=1 << 16) as other:  # shares what is open
            assert other.get("x") == b"1"
    with LmdbStore(tmp_path / "a", map_size=1 << 16) as again:
        assert again.get("big") == blob(5_000_000)
        again.put("y", b"2")


def test_another_process_grows_the_map(tmp_path: Path) -> None:
    with LmdbStore(tmp_path / "a", map_size=1 << 20) as store:
        store.put("x", b"1")
        copy = pickle.dumps(store)

        def child() -> bool:
            with pickle.loads(copy) as mine:
                mine.put("big", blob(5_000_000))
            return True

        store.close()
        assert in_child(child)
        assert store.get("big") == blob(5_000_000)

        def child_while_open() -> bool:
            with pickle.loads(copy) as mine:
                mine.put("bigger", blob(20_000_000))
            return True

        store.get("x")
        assert in_child(child_while_open)
        assert store.get("bigger") == blob(20_000_000)
        store.put("y", b"2")


def test_growing_waits_for_readers_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    with LmdbStore(tmp_path / "a", map_size=1 << 16) as store:
        store.put("x", b"1")
        with store._reading(), pytest.raises(StoreTimeoutError, match="larger map_size") as caught:
            store.put("big", blob(1_000_000))
        assert caught.value.key == "big"
        store.put("big", blob(1_000_000))
        assert store.get("big") == blob(1_000_000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
def test_parent_and_child_write(store: LmdbStore) -> None:
    store.put("x", b"1")

    def child() -> bool:
        with store._reading() as reading:
            assert reading.get(b"x") is not None
            store.put("y", b"2")
        store.close()
        return store.get("x") == b"1"

    assert in_child(child)
    assert store.get("y") == b"2"
    store.put("x", b"3")
    assert in_child(lambda: store.get("x") == b"3")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forks_while_other_threads_read(store: LmdbStore) -> None:
    store.put_many((f"k/{i}", blob(1000, i)) for i in range(50))
    done = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not done.is_set():
                for i in range(50):
                    assert store.get(f"k/{i}") == blob(1000, i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert in_child(lambda: store.get("k/7") == blob(1000, 7))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    check_killed_writer(lambda: LmdbStore(tmp_path / "a"))


def test_stores_of_one_path_share_what_is_open(tmp_path: Path) -> None:
    one, two = LmdbStore(tmp_path / "a"), LmdbStore(tmp_path / "a")
    one.put("x", b"1")
    assert two.get("x") == b"1"
    assert one._environment.get() is two._environment.get()
    one.close()
    assert two.get("x") == b"1"
    two.close()
    assert module._registry.known == {}
    assert one.get("x") == b"1"
    one.close()
    with lmdb.open(str(tmp_path / "a")):  # nobody else has it open
        pass


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with LmdbStore(tmp_path / "deep" / "a") as store:
        assert store.get("x") is None
        assert fetch(store, ("x", 0, REST), ("y", 0, 1)) == [None, None]
        assert store.list_dir() == ()
        store.delete_many(["x"])
        store.delete_prefix("")
    assert list(tmp_path.iterdir()) == []
    with (
        LmdbStore(tmp_path / "a", read_only=True) as store,
        pytest.raises(StoreError, match="no such database") as caught,
    ):
        store.get("x")
    assert caught.value.key == "x"
    assert str(tmp_path) in str(caught.value)


def test_files_that_are_no_databases(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "a" / "data.mdb", tmp_path / "b"):
        path.write_bytes(b"not a database" * 1000)
    for place in (tmp_path / "a", tmp_path / "b"):
        with LmdbStore(place) as store:
            for call in (
                lambda store=store: store.get("x"),
                lambda store=store: fetch(store, ("x", 0, 1), ("y", 0, 1)),
                lambda store=store: store.put("x", b"1"),
                lambda store=store: store.put_many([("x", b"1")]),
                lambda store=store: list(store.list_prefix("x")),
            ):
                with pytest.raises(StoreError, match=str(place)) as caught:
                    call()
                assert caught.value.key == "x"
    assert (tmp_path / "b").read_bytes() == b"not a database" * 1000


def test_urls(tmp_path: Path) -> None:
    store, path = open_store(f"lmdb://{tmp_path}/a%20b?map_size=1048576&durable=1#g/x")
    assert isinstance(store, LmdbStore)
    assert path == "g/x"
    assert store.path == tmp_path / "a b"
    assert (store.map_size, store.durable) == (1048576, True)
    store.put("x", b"1")
    store.close()
    assert open_store(f"lmdb://{tmp_path}/a b", mode="r")[0].get("x") == b"1"


@pytest.mark.parametrize(
    "url",
    ["lmdb://host/path", "lmdb://", "lmdb:///a?map_size=x", "lmdb:///a?other=1", "lmdb:///a#.."],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidKeyError):
        open_store(url)


def test_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingDependencyError, match=r"zarr-gpu\[lmdb\]"):
        open_store("lmdb:///a")
