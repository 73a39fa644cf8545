"""What holds for writing single values into every store."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from store_suite_base import (
    BAD_KEYS,
    FAULTS,
    StoreChecks,
    about,
    ask,
    blob,
    changes,
    check_fault,
    fetch,
    needs,
    parts,
)

from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.wrappers import FaultyStore, ReadOnlyStore


class WriteChecks(StoreChecks):
    """Storing, replacing and deleting values."""

    @needs("writable")
    def test_a_value_is_replaced_as_a_whole(self, store: Store) -> None:
        for value in (b"long" * 1000, b"short", b"", b"longer" * 1000):
            store.put("x", value)
            assert store.get("x") == value
            self.check_keys(store, ["x"])

    @needs("writable")
    def test_any_buffer_can_be_stored(self, store: Store) -> None:
        for value in (
            bytearray(b"abcd"),
            memoryview(b"abcd"),
            memoryview(b"a-b-c-d-")[::2],
            np.frombuffer(b"abcd", np.uint8),
            np.frombuffer(b"abcd", np.int16),
            np.frombuffer(b"a-b-c-d-", np.uint8)[::2],
            np.frombuffer(b"acbd", np.uint8).reshape(2, 2).T,
        ):
            with about(value):
                store.put("x", value)
                assert store.get("x") == b"abcd"
                assert store.nbytes("x") == 4
                store.delete_many(["x"])

    @needs("writable")
    def test_what_is_no_buffer_cannot_be_stored(self, store: Store) -> None:
        values: list[Any] = ["text", 5, None, [1, 2]]
        for value in values:
            with about(value), pytest.raises(StoreError, match="must be bytes"):
                store.put("x", value)
        assert store.get("x") is None
        self.check_keys(store, [])

    @needs("writable")
    def test_an_empty_array_is_an_empty_value(self, store: Store) -> None:
        store.put("x", np.empty((0, 3), np.float32))
        assert store.get("x") == b""

    @needs("writable")
    def test_a_value_is_copied(self, store: Store) -> None:
        value = bytearray(b"before")
        store.put("x", value)
        value[:] = b"after!"
        assert store.get("x") == b"before"

    @needs("writable")
    def test_an_old_answer_survives_a_new_value(self, store: Store) -> None:
        store.put("x", b"before")
        extents = store.fetch(ask(("x", 0, REST)), HostMemory())
        store.put("x", b"after!")
        assert parts(extents) == [b"before"]

    @needs("writable")
    def test_deleting_twice_is_no_error(self, store: Store) -> None:
        store.put("a/x", b"1")
        store.delete_many(["a/x"])
        store.delete_many(["a/x", "never/there"])
        assert store.get("a/x") is None
        self.check_keys(store, [])

    @needs("writable")
    def test_deleting_touches_nothing_else(self, store: Store) -> None:
        store.put_many([(f"a/{i}", bytes([i])) for i in range(5)])
        store.delete_many(f"a/{i}" for i in (1, 3))
        self.check_keys(store, ["a/0", "a/2", "a/4"], "a")

    @needs("writable")
    def test_a_deleted_key_can_be_written_again(self, store: Store) -> None:
        for i in range(3):
            store.put("a/b/c", bytes([i]))
            store.delete_many(["a/b/c"])
            self.check_keys(store, [])
        store.put("a/b/c", b"last")
        assert store.get("a/b/c") == b"last"

    @needs("writable")
    def test_bad_keys_cannot_be_written(self, store: Store) -> None:
        store.put("good", b"1")
        calls: list[Callable[[str], Any]] = [
            lambda key: store.put(key, b"1"),
            lambda key: store.put_many([("good", b"2"), (key, b"1")]),
            lambda key: store.delete_many([key]),
        ]
        for key, call in product(BAD_KEYS, calls):
            with about(key), pytest.raises(InvalidKeyError) as caught:
                call(key)
            assert isinstance(caught.value, ValueError)
        self.check_keys(store, ["good"])

    @needs("writable", "listable")
    def test_bad_prefixes_cannot_be_changed(self, store: Store) -> None:
        store.put("good/x", b"1")
        calls: list[Callable[[str], Any]] = [
            store.delete_prefix,
            lambda prefix: store.move(prefix, "b"),
            lambda prefix: store.move("good", prefix),
        ]
        for prefix, call in product(set(BAD_KEYS) - {"", "a/"}, calls):
            with about(prefix), pytest.raises(InvalidKeyError):
                call(prefix)
        self.check_keys(store, ["good/x"])

    @needs("writable")
    def test_keys_are_text(self, store: Store) -> None:
        keys: list[Any] = [b"x", 5, None, ("a",)]
        calls: list[Callable[[Any], Any]] = [
            store.get,
            lambda key: store.put(key, b""),
            lambda key: store.delete_many([key]),
            store.list_dir,
            lambda key: store.fetch(ByteRequest.whole(["x", key]), HostMemory()),
            lambda key: store.fetch(ByteRequest.whole([key]), HostMemory()),
        ]
        for key, call in product(keys, calls):
            with about(key), pytest.raises(InvalidKeyError, match="must be a string"):
                call(key)

    @needs("writable")
    @pytest.mark.parametrize("own", [False, True], ids=["wrapped", "its own means"])
    def test_read_only_refuses_every_change(self, store: Store, own: bool) -> None:
        store.put("a/x", b"1")
        closed = self.read_only(store) if own else ReadOnlyStore(store)
        assert closed.read_only
        assert closed.get("a/x") == b"1"
        assert fetch(closed, ("a/x", 0, 1)) == [b"1"]
        for call in changes(closed):
            with pytest.raises(ReadOnlyError) as caught:
                call()
            assert isinstance(caught.value, PermissionError)
        self.check_keys(closed, ["a/x"])

    @needs("writable", "in_order")
    def test_a_failure_at_any_call_leaves_whole_values(self, store: Store) -> None:
        old, new = b"old" * 100, b"new" * 100
        keys = [f"k/{i}" for i in range(6)]
        for n in range(1, 20):
            store.put_many([(key, old) for key in keys])
            failing = FaultyStore(store, OSError("now"), nth=n)
            try:
                failing.put_many([(key, new) for key in keys])
                parts(failing.fetch(ByteRequest.whole(keys), HostMemory()))
                failing.delete_many(keys)
            except StoreError:
                assert all(store.get(key) in {old, new, None} for key in keys)
                store.put_many([(key, new) for key in keys])
                assert all(store.get(key) == new for key in keys)
            else:
                assert n == 19
        assert failing.ncalls == 18

    @needs("writable")
    def test_an_error_in_the_items_surfaces(self, store: Store) -> None:
        def items() -> Any:
            yield "a", b"1"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.put_many(items())

    @needs("writable")
    def test_ranges_after_a_replacement(self, store: Store) -> None:
        for n in (1000, 10, 5000, 1):
            value = blob(n, n)
            store.put("x", value)
            assert store.nbytes("x") == n
            assert fetch(store, ("x", -1, 1), ("x", 0, 1)) == [value[-1:], value[:1]]
            assert fetch(store, ("x", 0, REST)) == [value]
            with pytest.raises(DataError):
                fetch(store, ("x", n - 1, 2))

    @needs("writable")
    def test_a_key_that_was_absent_is_seen_once_written(self, store: Store) -> None:
        assert store.get("a/x") is None
        assert fetch(store, ("a/x", 0, 1), ("a/y", 0, 1)) == [None, None]
        store.put("a/x", b"1")
        assert store.get("a/x") == b"1"
        assert fetch(store, ("a/x", 0, 1), ("a/y", 0, 1)) == [b"1", None]
        assert store.exists("a/x")

    @needs("writable")
    def test_a_deleted_value_is_gone_for_every_call(self, store: Store) -> None:
        store.put_many([("a/x", b"123"), ("a/y", b"1")])
        assert fetch(store, ("a/x", 0, 2), ("a/x", -1, 1)) == [b"12", b"3"]
        store.delete_many(["a/x"])
        assert store.get("a/x") is None
        assert store.nbytes("a/x") is None
        assert not store.exists("a/x")
        assert fetch(store, ("a/x", 0, 2)) == fetch(store, ("a/x", -1, 1)) == [None]
        assert fetch(store, ("a/x", 0, 2), ("a/x", 0, REST), ("a/y", 0, 1)) == [None, None, b"1"]

    @needs("writable")
    def test_a_value_unless_there_is_one(self, store: Store) -> None:
        assert store.put_if_absent("a/x", b"first")
        assert not store.put_if_absent("a/x", b"second")
        assert store.get("a/x") == b"first"
        store.put("a/empty", b"")
        assert not store.put_if_absent("a/empty", b"1")
        store.delete_many(["a/x"])
        assert store.put_if_absent("a/x", np.frombuffer(b"th-i-rd", np.uint8)[::3])
        assert store.get("a/x") == b"tid"
        self.check_keys(store, ["a/empty", "a/x"])

    @needs("writable")
    def test_nothing_in_a_batch(self, store: Store) -> None:
        store.put("x", b"1")
        store.put_many([])
        store.put_many(iter(()))
        store.delete_many([])
        self.check_keys(store, ["x"])

    @needs("writable")
    def test_one_key_twice_in_a_batch(self, store: Store) -> None:
        store.put_many([("x", b"1" * 1000), ("y", b"y"), ("x", b"2" * 500), ("x", b"3" * 2000)])
        value = store.get("x")
        assert value in {b"1" * 1000, b"2" * 500, b"3" * 2000}
        assert value == b"3" * 2000 or not self.in_order
        self.check_keys(store, ["x", "y"])

    @needs("writable")
    def test_values_of_a_batch_are_made_as_they_are_written(self, store: Store) -> None:
        """However long the batch, few of its values are held in memory at a time."""
        n = min(200, self.some_keys)
        alive: set[int] = set()
        most = 0

        class Value(np.ndarray[Any, Any]):
            """An array that says when it is gone."""

        def items() -> Iterator[tuple[str, Any]]:
            nonlocal most
            for i in range(n):
                value = np.full(1000, i, np.uint8).view(Value)
                alive.add(i)
                weakref.finalize(value, alive.discard, i)
                most = max(most, len(alive))
                yield f"a/{i}", value
                del value

        store.put_many(items())
        assert most <= 2 * max(store.concurrency, 1) + 3 + self.most_held
        assert store.get(f"a/{n - 1}") == bytes([n - 1]) * 1000

    @needs("writable")
    def test_a_batch_that_fails_leaves_whole_values(self, store: Store) -> None:
        old, new = b"old" * 1000, b"new" * 2000
        keys = [f"k/{i}" for i in range(20)]
        store.put_many((key, old) for key in keys)

        def items() -> Iterator[tuple[str, Any]]:
            for key in keys[:10]:
                yield key, new
            yield "k/bad", "no bytes"

        with pytest.raises(StoreError, match="must be bytes"):
            store.put_many(items())
        assert all(store.get(key) in {old, new} for key in keys[:10])
        assert all(store.get(key) == old for key in keys[10:])
        self.check_keys(store, keys)
        store.put_many((key, new) for key in keys)
        assert all(store.get(key) == new for key in keys)

    @needs("writable")
    def test_keys_to_delete_may_be_made_on_the_way(self, store: Store) -> None:
        store.put_many((f"a/{i}", b"1") for i in range(100))
        store.delete_many(f"a/{i}" for i in range(0, 200, 2))
        self.check_keys(store, [f"a/{i}" for i in range(1, 100, 2)])

    @needs("writable")
    def test_a_failing_change_changes_nothing(self, store: Store) -> None:
        store.put_many([("a/x", b"1"), ("b", b"2")])
        calls: list[Callable[[Store], Any]] = [
            lambda failing: failing.put("a/x", b"2"),
            lambda failing: failing.put_many([("a/x", b"2")]),
            lambda failing: failing.delete_many(["a/x"]),
        ]
        if self.listable:
            calls += [
                lambda failing: failing.delete_prefix("a"),
                lambda failing: failing.move("a", "c"),
            ]
        for error, call in product(FAULTS, calls):
            with about(error):
                with pytest.raises(StoreError) as caught:
                    call(FaultyStore(store, error))
                check_fault(caught.value, error)
        assert store.get("a/x") == b"1"
        assert store.get("b") == b"2"
