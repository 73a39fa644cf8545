"""What holds for every store: errors that name the key, bad keys, closing, copies of errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from store_suite_base import BAD_KEYS, FAULTS, StoreChecks, about, changes, check_fault, fetch

from zarr_gpu.errors import InvalidKeyError, ReadOnlyError, StoreError, ZarrError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.wrappers import FaultyStore, PrefixStore


class RuleChecks(StoreChecks):
    """What is refused, and how."""

    def test_bad_keys_cannot_be_asked_for(self, store: Store) -> None:
        self.fill(store, [("good", b"1")])
        memory = HostMemory()
        calls: list[Callable[[str], Any]] = [
            store.get,
            store.exists,
            store.nbytes,
            lambda key: store.fetch(ByteRequest.whole([key]), memory),
            lambda key: store.fetch(ByteRequest.whole(["good", key]), memory),
            lambda key: fetch(store, (key, 0, 0)),
            lambda key: fetch(store, (key, -1, 1), ("good", 0, 1)),
        ]
        for key, call in product(BAD_KEYS, calls):
            with about(key), pytest.raises(InvalidKeyError) as caught:
                call(key)
            assert isinstance(caught.value, ValueError)
        assert store.get("good") == b"1"

    def test_a_failing_read_is_never_a_missing_value(self, store: Store) -> None:
        self.fill(store, [("a", b"1"), ("b", b"2")])
        calls: list[Callable[[Store], Any]] = [
            lambda failing: failing.get("a"),
            lambda failing: failing.exists("a"),
            lambda failing: failing.nbytes("a"),
            lambda failing: fetch(failing, ("a", 0, REST)),
            lambda failing: fetch(failing, ("a", 0, REST), ("b", 0, 1)),
            lambda failing: fetch(failing, ("a", 0, 1), ("a", -1, 1)),
            lambda failing: fetch(failing, ("a", 0, 0)),
        ]
        for error, call in product(FAULTS, calls):
            with about(error):
                with pytest.raises(StoreError) as caught:
                    call(FaultyStore(store, error))
                check_fault(caught.value, error)
                assert caught.value.key == "a"

    def test_errors_name_the_key(self, store: Store) -> None:
        self.fill(store, [(f"a/{i}", b"12") for i in range(5)])
        failing = FaultyStore(store, OSError("no"), when=lambda method, key: key == "a/3")
        request = ByteRequest.whole([f"a/{i}" for i in range(5)])
        for call in (
            lambda: failing.get("a/3"),
            lambda: failing.nbytes("a/3"),
            lambda: failing.fetch(request, HostMemory()),
        ):
            with pytest.raises(StoreError, match="'a/3'") as caught:
                call()
            assert caught.value.key == "a/3"
        assert failing.get("a/2") == b"12"

    def test_closing_twice(self, store: Store) -> None:
        self.fill(store, [("x", b"1")])
        with store as same:
            assert same is store
            assert store.get("x") == b"1"
        store.close()
        store.close()

    def test_a_closed_store_never_calls_a_value_missing(self, store: Store) -> None:
        self.fill(store, [("x", b"1")])
        store.close()
        try:
            assert store.get("x") == b"1"
        except StoreError as error:
            assert "closed" in str(error)

    def test_it_says_what_it_is(self, store: Store) -> None:
        assert type(store).__name__ in repr(store)
        assert store == store  # noqa: PLR0124
        assert hash(store) == hash(store)
        assert store != PrefixStore(store, "elsewhere")
        assert store != "store"

    def test_errors_pickle(self, store: Store) -> None:
        with pytest.raises(ZarrError) as caught:
            FaultyStore(store, PermissionError(13, "denied")).get("x")
        copy = pickle.loads(pickle.dumps(caught.value))
        assert type(copy) is type(caught.value)
        assert str(copy) == str(caught.value)

    def test_what_it_does_not_promise_is_refused(self, store: Store) -> None:
        self.fill(store, [("a/x", b"1")])
        assert (store.supports_writes and not store.read_only) == self.writable
        assert store.supports_listing == self.listable
        refused: list[tuple[type[Exception], Callable[[], Any]]] = []
        if not self.writable:
            refused += [(ReadOnlyError, call) for call in changes(store)]
        if not self.listable:
            refused += [(StoreError, store.list_prefix), (StoreError, store.list_dir)]
            if self.writable:
                refused += [(StoreError, lambda: store.delete_prefix("a"))]
                refused += [(StoreError, lambda: store.move("a", "b"))]
        for kind, call in refused:
            with pytest.raises(kind) as caught:
                call()
            assert isinstance(caught.value, PermissionError) == (kind is ReadOnlyError)
        assert store.get("a/x") == b"1"
