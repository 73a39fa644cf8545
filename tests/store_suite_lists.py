"""What holds for listing, and for changes of whole levels, in every store."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from store_suite_base import (
    BAD_KEYS,
    FAULTS,
    StoreChecks,
    about,
    at_once,
    blob,
    check_fault,
    needs,
    parts,
)

from zarr_gpu.errors import ContainsNodeError, InvalidKeyError, NodeNotFoundError, StoreError
from zarr_gpu.extents import ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.wrappers import FaultyStore


class ListChecks(StoreChecks):
    """Prefixes and the keys below them."""

    @needs("listable")
    def test_a_prefix_is_whole_segments(self, store: Store) -> None:
        keys = ["a/b/c", "a/b/d", "a/bc", "ab/c", "z", "a.b/c", "a-/x"]
        self.fill(store, [(key, b"") for key in keys])
        assert list(store.list_prefix()) == sorted(keys)
        assert list(store.list_prefix("")) == sorted(keys)
        assert list(store.list_prefix("a")) == ["a/b/c", "a/b/d", "a/bc"]
        assert list(store.list_prefix("a/")) == ["a/b/c", "a/b/d", "a/bc"]
        assert list(store.list_prefix("a/b")) == ["a/b/c", "a/b/d"]
        assert list(store.list_prefix("a/b/c")) == []
        assert list(store.list_prefix("z")) == []
        assert list(store.list_prefix("nothing/here")) == []

    @needs("listable")
    def test_names_of_a_level(self, store: Store) -> None:
        self.fill(store, [(key, b"") for key in ["a/b/c", "a/b/d/e", "a/bc", "ab/c", "z"]])
        assert store.list_dir() == ("a", "ab", "z")
        assert store.list_dir("") == ("a", "ab", "z")
        assert store.list_dir("a") == ("b", "bc")
        assert store.list_dir("a/") == ("b", "bc")
        assert store.list_dir("a/b") == ("c", "d")
        assert store.list_dir("a/b/c") == ()
        assert store.list_dir("z") == ()
        assert store.list_dir("nothing/here") == ()

    @needs("listable")
    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert list(store.list_prefix()) == []
        assert store.list_dir() == ()

    @needs("listable", "writable")
    def test_emptied_levels_are_not_listed(self, store: Store) -> None:
        store.put_many([("a/b/c/d", b""), ("a/x", b"")])
        store.delete_many(["a/b/c/d"])
        assert store.list_dir("a") == ("x",)
        store.delete_many(["a/x"])
        assert store.list_dir() == ()

    @needs("listable", "writable")
    def test_ten_thousand_keys(self, store: Store) -> None:
        keys = [f"a/c/{i}/{j}" for i in range(100) for j in range(self.many_keys // 100)]
        store.put_many((key, b"v") for key in keys)
        store.put("b/c", b"stays")
        assert list(store.list_prefix("a")) == sorted(keys)
        assert len(store.list_dir("a/c")) == 100
        extents = store.fetch(ByteRequest.whole(keys[::10]), HostMemory())
        assert (extents.nbytes == 1).all()
        store.delete_prefix("a/c")
        assert list(store.list_prefix()) == ["b/c"]

    @needs("listable", "writable")
    def test_deleting_a_level_spares_its_neighbours(self, store: Store) -> None:
        keys = ["a/b/c", "a/b/d/e", "a/bc", "ab/c", "b"]
        store.put_many([(key, b"1") for key in keys])
        store.delete_prefix("a/b")
        assert list(store.list_prefix()) == ["a/bc", "ab/c", "b"]
        store.delete_prefix("a/b")
        store.delete_prefix("b")  # a value, not a level
        store.delete_prefix("nothing")
        assert list(store.list_prefix()) == ["a/bc", "ab/c", "b"]
        store.delete_prefix("a")
        assert store.list_dir() == ("ab", "b")

    @needs("listable", "writable")
    def test_deleting_everything(self, store: Store) -> None:
        store.put_many([(key, b"1") for key in ["a/b/c", "a/bc", "b"]])
        store.delete_prefix("")
        assert list(store.list_prefix()) == []
        store.put("a/b", b"new")
        assert store.get("a/b") == b"new"

    @needs("listable", "writable")
    def test_moving_a_level(self, store: Store) -> None:
        store.put_many([("a/x", b"1"), ("a/y/z", b"2"), ("ab/x", b"3")])
        store.move("a", "new/place")
        assert list(store.list_prefix()) == ["ab/x", "new/place/x", "new/place/y/z"]
        assert store.get("new/place/y/z") == b"2"
        store.move("new/place", "a")
        assert list(store.list_prefix()) == ["a/x", "a/y/z", "ab/x"]
        assert store.list_dir() == ("a", "ab")

    @needs("listable", "writable")
    def test_moves_that_are_refused(self, store: Store) -> None:
        store.put_many([("a/x", b"1"), ("b/x", b"2"), ("c", b"3")])
        with pytest.raises(NodeNotFoundError):
            store.move("nothing", "d")
        for target in ("b", "c"):
            with pytest.raises(ContainsNodeError):
                store.move("a", target)
        for source, target in (("a", "a"), ("a", "a/b"), ("a/b", "a"), ("", "d"), ("a", "")):
            with pytest.raises(InvalidKeyError):
                store.move(source, target)
        assert list(store.list_prefix()) == ["a/x", "b/x", "c"]
        assert store.get("a/x") == b"1"

    @needs("listable")
    def test_keys_are_sorted_by_code_point(self, store: Store) -> None:
        names = ["Z", "a", "B", "_", "-", "10", "9", "é", "z", "zz", "数", "🙂", "~", " x", "a b"]
        keys = [f"k/{name}/x" for name in names]
        self.fill(store, [(key, b"") for key in keys])
        assert list(store.list_prefix()) == list(store.list_prefix("k")) == sorted(keys)
        assert store.list_dir("k") == tuple(sorted(names))

    @needs("listable")
    def test_patterns_in_a_prefix_are_plain_text(self, store: Store) -> None:
        names = ["a_b", "aXb", "a%b", "a*b", "ab", "a?b", "[ab]", "b", "a.b", "(a|b)", "{a,b}", "'"]
        self.fill(store, [(f"{name}/x", b"") for name in names])
        for name in names:
            assert list(store.list_prefix(name)) == [f"{name}/x"]
            assert store.list_dir(name) == ("x",)

    @needs("listable")
    def test_neighbours_in_the_order_of_keys_are_not_below(self, store: Store) -> None:
        # what sorts just before and just after "a/", and the last that sorts below it
        keys = ["a", "a.", "a.b", "a0", "a/\U0010ffff", "a/ ", "a/!", "a-/x", "b"]
        keys = [f"n{key}" for key in keys if key != "a"]
        self.fill(store, [(key, b"") for key in keys])
        assert list(store.list_prefix("na")) == ["na/ ", "na/!", "na/\U0010ffff"]
        assert store.list_dir("na") == (" ", "!", "\U0010ffff")
        assert list(store.list_prefix()) == sorted(keys)

    @needs("listable")
    def test_a_deep_level(self, store: Store) -> None:
        path = "/".join("abcdefghij" * 5)
        self.fill(store, [(f"{path}/x", b"1")])
        assert list(store.list_prefix(path)) == [f"{path}/x"]
        assert store.list_dir(path) == ("x",)
        assert store.list_dir() == ("a",)

    @needs("listable")
    def test_a_listing_left_half_way(self, store: Store) -> None:
        n = self.some_keys
        self.fill(store, [(f"a/{i}", b"1") for i in range(n)])
        listing = store.list_prefix("a")
        assert next(listing) == "a/0"
        assert store.get("a/1") == b"1"
        assert len(list(store.list_prefix("a"))) == n
        if self.writable:
            store.put("a/x", b"2")
            store.delete_many(["a/0"])
            assert store.get("a/0") is None
        del listing
        assert store.get("a/1") == b"1"

    @needs("listable", "writable")
    def test_deleting_what_a_listing_yields(self, store: Store) -> None:
        n = self.some_keys
        store.put_many((f"a/{i}", b"1") for i in range(n))
        seen = []
        for key in store.list_prefix("a"):
            seen.append(key)
            store.delete_many([key])
        assert sorted(seen) == sorted(f"a/{i}" for i in range(n))
        assert list(store.list_prefix()) == []

    @needs("listable", "writable")
    def test_listing_beside_a_writer(self, store: Store) -> None:
        steady = sorted(f"a/{i}" for i in range(50))
        store.put_many((key, b"1") for key in steady)

        def write() -> None:
            for i in range(60):
                store.put(f"a/new-{i}", b"2")
                store.delete_many([f"a/new-{i - 5}"])

        def watch() -> None:
            for _ in range(12):
                found = list(store.list_prefix("a"))
                assert found == sorted(found)
                assert [key for key in found if "new" not in key] == steady
                assert "a" in store.list_dir()

        at_once(write, watch, watch)
        assert list(store.list_prefix("a")) == sorted(
            steady + [f"a/new-{i}" for i in range(55, 60)]
        )

    @needs("listable", "writable")
    def test_a_replaced_value_is_listed_once(self, store: Store) -> None:
        for i in range(5):
            store.put_many((f"a/{j}", b"%d" % i) for j in range(5))
        assert list(store.list_prefix()) == [f"a/{j}" for j in range(5)]
        assert store.list_dir("a") == tuple("01234")

    @needs("listable", "writable")
    def test_patterns_in_a_deleted_level_are_plain_text(self, store: Store) -> None:
        names = ["a_b", "aXb", "a%b", "a*b", "ab", "a?b", "[ab]", "a.b"]
        for name in ("a_b", "a%b", "a*b", "a?b", "[ab]", "a.b"):
            store.put_many((f"{each}/x", b"1") for each in names)
            store.delete_prefix(name)
            assert list(store.list_prefix()) == sorted(f"{n}/x" for n in names if n != name)

    @needs("listable", "writable")
    def test_moving_many_keys(self, store: Store) -> None:
        values = {f"s/{i % 7}/é{i}": blob(i % 50, i) for i in range(min(200, self.some_keys))}
        store.put_many([*values.items(), ("s2/x", b"stays"), ("r", b"stays")])
        store.move("s", "deep/er")
        moved = {f"deep/er{key[1:]}": value for key, value in values.items()}
        assert list(store.list_prefix()) == sorted([*moved, "s2/x", "r"])
        answer = store.fetch(ByteRequest.whole(list(moved)), HostMemory())
        assert parts(answer) == list(moved.values())
        assert store.list_dir("s") == ()

    @needs("listable")
    def test_bad_prefixes_cannot_be_listed(self, store: Store) -> None:
        self.fill(store, [("good/x", b"1")])
        for prefix in set(BAD_KEYS) - {"", "a/"}:
            for call in (store.list_prefix, store.list_dir):
                with about(prefix), pytest.raises(InvalidKeyError):
                    call(prefix)

    @needs("listable")
    def test_a_failing_listing_is_never_an_empty_one(self, store: Store) -> None:
        self.fill(store, [("a/x", b"1")])
        calls: list[Callable[[Store], Any]] = [
            lambda failing: list(failing.list_prefix("a")),
            lambda failing: failing.list_dir("a"),
        ]
        for error, call in product(FAULTS, calls):
            with about(error):
                with pytest.raises(StoreError) as caught:
                    call(FaultyStore(store, error))
                check_fault(caught.value, error)
