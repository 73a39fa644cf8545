"""The memory store, its named variant, and mappings that users bring."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, ask, parts

from zarr_gpu.errors import ReadOnlyError, StoreError
from zarr_gpu.extents import REST, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.memory import MemoryStore, named_memory


class TestMemoryStore(StoreSuite, StoreArraySuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, MemoryStore)
        return MemoryStore(store.items, read_only=True)


class UserMapping(MutableMapping[str, Any]):
    """As plain as a mapping can be, and with values that are not ``bytes``."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        return np.frombuffer(self.data[key], np.uint8)

    def __setitem__(self, key: str, value: Any) -> None:
        assert type(value) is bytes
        self.data[key] = value

    def __delitem__(self, key: str) -> None:
        del self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data.copy())

    def __len__(self) -> int:
        return len(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserMapping) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


class TestUserMapping(StoreSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(UserMapping())


class TestNamedMemory(StoreSuite):
    @pytest.fixture
    def store(self, request: pytest.FixtureRequest) -> Store:
        return named_memory(request.node.nodeid)


def test_one_value_is_not_copied() -> None:
    value = b"x" * 1000
    extents = MemoryStore({"a": value}).fetch(ask(("a", 10, 500)), HostMemory())
    assert np.shares_memory(extents.base, np.frombuffer(value, np.uint8))
    assert not extents.base.flags.writeable
    assert parts(extents) == [value[:500]]


def test_a_dict_is_changed_in_place() -> None:
    items: dict[str, Any] = {"a": b"1"}
    store = MemoryStore(items)
    store.put("b", bytearray(b"2"))
    store.delete_many(["a"])
    assert items == {"b": b"2"}
    assert type(items["b"]) is bytes


@pytest.mark.parametrize(
    "value", [b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), np.arange(97, 101, dtype="u1")]
)
def test_values_of_a_users_dict_may_be_any_buffer(value: Any) -> None:
    store = MemoryStore({"x": value, "y": b""})
    assert store.get("x") == b"abcd"
    assert store.nbytes("x") == 4
    extents = store.fetch(ask(("x", 1, 2), ("x", -1, 1), ("y", 0, REST)), HostMemory())
    assert parts(extents) == [b"bc", b"d", b""]


@pytest.mark.parametrize("value", ["text", None, 5, {"a": 1}])
def test_values_that_are_no_buffers_are_errors(value: Any) -> None:
    store = MemoryStore({"x": value})
    with pytest.raises(StoreError, match="must be bytes"):
        store.get("x")
    with pytest.raises(StoreError):
        store.fetch(ask(("x", 0, 1)), HostMemory())


def test_keys_that_are_not_text_are_not_listed() -> None:
    assert list(MemoryStore({1: b"", "a": b"", None: b""}).list_prefix()) == ["a"]  # type: ignore[dict-item]


def test_a_mapping_that_cannot_change_is_read_only() -> None:
    frozen: Mapping[str, Any] = MappingProxyType({"a": b"1"})
    store = MemoryStore(frozen)
    assert store.read_only
    assert store.get("a") == b"1"
    with pytest.raises(ReadOnlyError):
        store.put("a", b"2")


@pytest.mark.parametrize("error", [PermissionError("no"), TimeoutError("late"), ValueError("?")])
def test_only_key_error_means_absent(error: Exception) -> None:
    class Broken(UserMapping):
        def __getitem__(self, key: str) -> Any:
            raise error

    store = MemoryStore(Broken())
    with pytest.raises(StoreError) as caught:
        store.get("x")
    assert caught.value.__cause__ is error
    assert caught.value.key == "x"


def test_named_stores_are_one_for_the_process() -> None:
    named_memory("here").put("x", b"1")
    assert named_memory("here").get("x") == b"1"
    assert named_memory("there").get("x") is None
    assert named_memory("here") == named_memory("here")
    assert named_memory("here", read_only=True).read_only
    copy = pickle.loads(pickle.dumps(named_memory("here")))
    copy.put("y", b"2")
    assert named_memory("here").get("y") == b"2"
    named_memory("here").delete_prefix("")


def test_an_unpickled_copy_is_independent() -> None:
    store = MemoryStore({"x": b"1"}, read_only=True)
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy.read_only
    assert copy.items is not store.items


def test_equality_is_by_contents() -> None:
    assert MemoryStore({"x": b"1"}) == MemoryStore({"x": bytearray(b"1")})
    assert MemoryStore({"x": b"1"}) != MemoryStore({"x": b"2"})
    assert MemoryStore({"x": b"1"}) != MemoryStore({"y": b"1"})
    assert MemoryStore({"x": np.zeros(3, "u1")}) == MemoryStore({"x": bytes(3)})
    assert MemoryStore() != MemoryStore(read_only=True)
