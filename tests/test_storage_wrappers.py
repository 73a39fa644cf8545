"""Stores around stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_suite import StoreSuite, ask, fetch, parts

from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import (
    Call,
    CountingStore,
    FaultyStore,
    PrefixStore,
    ReadOnlyStore,
)


class TestPrefixOfMemory(StoreSuite):
    shared = many_writers = durable = False

    @pytest.fixture
    def store(self) -> Store:
        inner = MemoryStore({"be": b"", "below": b"", "below/it": b"", "beside/x": b""})
        return PrefixStore(inner, "be/low")


class TestPrefixOfLocal(StoreSuite):
    many_keys = 1_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        outer = LocalStore(tmp_path)
        outer.put_many([("beside/x", b""), ("be/lower/x", b"")])
        return PrefixStore(outer, "be/low")


class Remote(MemoryStore):
    """Calls worth having in flight together."""

    concurrency = 8


class TestConcurrentCalls(StoreSuite):
    """Of a counting store, over a store whose calls overlap."""

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
