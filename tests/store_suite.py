"""What holds for every store.

A test class inherits ``StoreSuite`` and supplies the fixture ``store``: an empty, writable store.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarr_gpu.errors import (
    ContainsNodeError,
    DataError,
    InvalidKeyError,
    NodeNotFoundError,
    ReadOnlyError,
    StoreError,
    ZarrError,
)
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.wrappers import CountingStore, FaultyStore, PrefixStore, ReadOnlyStore

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/./b",
    "./a",
    "a\\b",
    "..\\a",
    "a\0b",
    "C:",
    "c:/a",
    "C:\\a",
    "%2e%2e/a",
    "a/%2E./b",
    "a/.%2e",
    "a%2f..%2fb",
    "a\udcffb",
    "x" * 1025,
    "é" * 513,
]

MANY = 100  # more keys than a store may hold open at a time


class RecordingMemory(HostMemory):
    """Hands out slices of one larger buffer, as a lane's reused scratch does."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def empty(self, nbytes: int) -> Any:
        self.asked.append(nbytes)
        return np.full(nbytes + 100, 0xEE, np.uint8)


class PinnedMemory(RecordingMemory):
    """Memory that the store may not replace by its own."""

    kind = "pinned"


def ask(*ranges: tuple[str, int, int]) -> ByteRequest:
    """A request of (key, offset, nbytes); equal keys share one entry of ``keys``."""
    keys = list(dict.fromkeys(key for key, _, _ in ranges))
    return ByteRequest(
        keys,
        np.array([keys.index(key) for key, _, _ in ranges], np.int64),
        np.array([offset for _, offset, _ in ranges], np.int64),
        np.array([nbytes for _, _, nbytes in ranges], np.int64),
    )


def parts(extents: Extents) -> list[bytes | None]:
    """The bytes of each extent, None where missing."""
    assert extents.offset.dtype == extents.nbytes.dtype == np.int64
    result: list[bytes | None] = []
    for lo, n in zip(extents.offset.tolist(), extents.nbytes.tolist(), strict=True):
        if n == MISSING:
            result.append(None)
        else:
            assert 0 <= lo <= lo + n <= len(extents.base)
            result.append(bytes(extents.base[lo : lo + n]))
    return result


def fetch(store: Store, *ranges: tuple[str, int, int]) -> list[bytes | None]:
    return parts(store.fetch(ask(*ranges), HostMemory()))


def reads(store: CountingStore) -> list[tuple[str, int, int]]:
    """What was read, sorted: calls of stores that work in parallel have no fixed order."""
    return sorted((call.key, call.offset, call.nbytes) for call in store.of("read"))


def blob(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, n, np.uint8).tobytes()


def in_child(function: Callable[[], bool]) -> bool:
    """Run ``function`` in a forked child; whether it returned True there within ten seconds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if function() else 1
        finally:
            os._exit(code)
    done = threading.Event()
    killer = threading.Timer(10, lambda: None if done.is_set() else os.kill(pid, 9))
    killer.start()
    _, status = os.waitpid(pid, 0)
    done.set()
    killer.cancel()
    return status == 0


class StoreSuite:
    """Inherit and supply ``store``."""

    many_keys = 10_000
    """How many keys the listing test writes."""

    def settle(self, store: Store) -> None:
        """Make what was written visible to a pickled copy."""

    # ---- one value -----------------------------------------------------------------------------

    def test_an_absent_key_is_none(self, store: Store) -> None:
        assert store.get("a/b") is None
        assert store.nbytes("a/b") is None
        assert not store.exists("a/b")
        assert fetch(store, ("a/b", 0, REST)) == [None]

    @pytest.mark.parametrize("n", [0, 1, 100, 70_000, 5_000_000])
    def test_a_value_comes_back(self, store: Store, n: int) -> None:
        value = blob(n)
        store.put_many([("a/b/c", value)])
        got = store.get("a/b/c")
        assert type(got) is bytes
        assert got == value
        assert store.nbytes("a/b/c") == n
        assert store.exists("a/b/c")

    def test_a_value_is_replaced_as_a_whole(self, store: Store) -> None:
        for value in (b"long" * 1000, b"short", b"", b"longer" * 1000):
            store.put("x", value)
            assert store.get("x") == value
            assert list(store.list_prefix()) == ["x"]

    def test_an_empty_value_is_not_absent(self, store: Store) -> None:
        store.put("x", b"")
        assert store.get("x") == b""
        assert store.exists("x")
        assert store.nbytes("x") == 0
        assert fetch(store, ("x", 0, REST)) == [b""]
        assert fetch(store, ("x", 0, REST), ("y", 0, REST), ("x", 0, 0)) == [b"", None, b""]

    @pytest.mark.parametrize(
        "value",
        [
            bytearray(b"abcd"),
            memoryview(b"abcd"),
            memoryview(b"a-b-c-d-")[::2],
            np.frombuffer(b"abcd", np.uint8),
            np.frombuffer(b"abcd", np.int16),
            np.frombuffer(b"a-b-c-d-", np.uint8)[::2],
            np.frombuffer(b"acbd", np.uint8).reshape(2, 2).T,
        ],
        ids=["bytearray", "view", "strided view", "u1", "i2", "strided u1", "transposed"],
    )
    def test_any_buffer_can_be_stored(self, store: Store, value: Any) -> None:
        store.put("x", value)
        assert store.get("x") == b"abcd"
        assert store.nbytes("x") == 4

    @pytest.mark.parametrize("value", ["text", 5, None, [1, 2]])
    def test_what_is_no_buffer_cannot_be_stored(self, store: Store, value: Any) -> None:
        with pytest.raises(StoreError, match="must be bytes"):
            store.put("x", value)
        assert store.get("x") is None
        assert list(store.list_prefix()) == []

    def test_an_empty_array_is_an_empty_value(self, store: Store) -> None:
        store.put("x", np.empty((0, 3), np.float32))
        assert store.get("x") == b""

    def test_a_value_is_copied(self, store: Store) -> None:
        value = bytearray(b"before")
        store.put("x", value)
        value[:] = b"after!"
        assert store.get("x") == b"before"

    def test_an_old_answer_survives_a_new_value(self, store: Store) -> None:
        store.put("x", b"before")
        extents = store.fetch(ask(("x", 0, REST)), HostMemory())
        store.put("x", b"after!")
        assert parts(extents) == [b"before"]

    @pytest.mark.parametrize(
        "key",
        [
            "é/ü",
            "数据/块/0",
            "emoji/🙂",
            "with space/ x",
            "a.b.c/.hidden",
            "..a/a../...",
            "a:b/c%d",
            "~",
            "c/0/1/2",
            "-1",
            "a+b&c=d;e,f!",
            "a*b?[c]/{d}",
            "a/" + "n" * 200,
            "/".join(["x" * 128] * 7),
            "50%/2%2g",
        ],
    )
    def test_unusual_keys(self, store: Store, key: str) -> None:
        store.put(key, b"v")
        assert store.get(key) == b"v"
        assert fetch(store, (key, 0, 1), ("other", 0, REST)) == [b"v", None]
        assert list(store.list_prefix()) == [key]
        store.delete_many([key])
        assert store.get(key) is None

    def test_keys_are_case_sensitive_values_apart(self, store: Store) -> None:
        store.put("a/B", b"1")
        assert store.get("a/B") == b"1"
        assert store.get("a/Bx") is None

    # ---- deleting ------------------------------------------------------------------------------

    def test_deleting_twice_is_no_error(self, store: Store) -> None:
        store.put("a/x", b"1")
        store.delete_many(["a/x"])
        store.delete_many(["a/x", "never/there"])
        assert store.get("a/x") is None
        assert list(store.list_prefix()) == []

    def test_deleting_touches_nothing_else(self, store: Store) -> None:
        store.put_many([(f"a/{i}", bytes([i])) for i in range(5)])
        store.delete_many(f"a/{i}" for i in (1, 3))
        assert list(store.list_prefix("a")) == ["a/0", "a/2", "a/4"]

    def test_a_deleted_key_can_be_written_again(self, store: Store) -> None:
        for i in range(3):
            store.put("a/b/c", bytes([i]))
            store.delete_many(["a/b/c"])
            assert store.list_dir() == ()
        store.put("a/b/c", b"last")
        assert store.get("a/b/c") == b"last"

    # ---- byte ranges ---------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("offset", "nbytes", "lo", "hi"),
        [
            (0, REST, 0, 1000),
            (0, 1000, 0, 1000),
            (0, 1, 0, 1),
            (10, 20, 10, 30),
            (999, 1, 999, 1000),
            (10, REST, 10, 1000),
            (1000, REST, 1000, 1000),
            (1500, REST, 1000, 1000),
            (1000, 0, 0, 0),
            (5, 0, 0, 0),
            (-1, 1, 999, 1000),
            (-16, 16, 984, 1000),
            (-16, REST, 984, 1000),
            (-16, 4, 984, 988),
            (-1000, 1000, 0, 1000),
            (-1000, REST, 0, 1000),
        ],
    )
    def test_one_range(self, store: Store, offset: int, nbytes: int, lo: int, hi: int) -> None:
        value = blob(1000)
        store.put_many([("a/x", value), ("a/y", b"other")])
        wanted = value[lo:hi]
        assert fetch(store, ("a/x", offset, nbytes)) == [wanted]
        # as one of several keys, and as one of several ranges of a key
        assert fetch(store, ("a/x", offset, nbytes), ("a/y", 1, 3)) == [wanted, b"the"]
        assert fetch(store, ("a/x", 3, 4), ("a/x", offset, nbytes)) == [value[3:7], wanted]
        assert fetch(store, ("a/x", offset, nbytes), ("a/x", 0, REST)) == [wanted, value]

    def test_ranges_come_back_in_the_order_asked(self, store: Store) -> None:
        one, two = blob(500, 1), blob(500, 2)
        store.put_many([("1", one), ("2", two)])
        assert fetch(
            store,
            ("2", 400, 100),
            ("1", 7, 3),
            ("2", 0, 10),
            ("absent", 5, 5),
            ("1", -5, 5),
            ("1", 0, 10),
            ("2", 395, 10),
        ) == [two[400:], one[7:10], two[:10], None, one[-5:], one[:10], two[395:405]]

    def test_overlapping_and_repeated_ranges(self, store: Store) -> None:
        value = blob(1000)
        store.put("x", value)
        ranges = [(0, 100), (50, 100), (50, 100), (0, 1000), (10, 5), (149, 2), (999, 1)]
        assert fetch(store, *(("x", lo, n) for lo, n in ranges)) == [
            value[lo : lo + n] for lo, n in ranges
        ]

    def test_equal_keys_under_two_numbers(self, store: Store) -> None:
        store.put("x", b"abcdef")
        request = ByteRequest(
            ["x", "y", "x"], np.array([2, 1, 0]), np.array([0, 0, 3]), np.array([3, 1, REST])
        )
        assert parts(store.fetch(request, HostMemory())) == [b"abc", None, b"def"]

    def test_part_of_a_request(self, store: Store) -> None:
        store.put_many([(f"{i}", bytes([i] * i)) for i in range(10)])
        request = ByteRequest.whole([f"{i}" for i in range(12)])
        assert parts(store.fetch(request.take(3, 6), HostMemory())) == [
            b"\3\3\3",
            b"\4\4\4\4",
            b"\5\5\5\5\5",
        ]
        assert parts(store.fetch(request.take(9, 12), HostMemory())) == [b"\t" * 9, None, None]

    def test_narrow_key_numbers(self, store: Store) -> None:
        store.put_many([("a", b"1"), ("b", b"2")])
        request = ByteRequest(
            ["a", "b"],
            np.array([1, 0], np.int32),  # type: ignore[arg-type]
            np.zeros(2, np.int64),
            np.full(2, REST),
        )
        assert parts(store.fetch(request, HostMemory())) == [b"2", b"1"]

    def test_ranges_known_to_be_missing_are_not_asked_for(self, store: Store) -> None:
        store.put("x", b"abc")
        counting = CountingStore(store)
        assert fetch(counting, ("no", 0, MISSING)) == [None]
        assert fetch(counting, ("no", 0, MISSING), ("nor", 5, MISSING)) == [None, None]
        assert counting.calls == []
        wanted = [None, b"c", None, b"a"]
        ranges = (("no", 0, MISSING), ("x", 2, 1), ("x", 0, MISSING), ("x", 0, 1))
        assert fetch(counting, *ranges) == wanted
        assert counting.keys_read == ["x"]

    def test_a_request_for_nothing(self, store: Store) -> None:
        extents = store.fetch(ByteRequest.whole([]), HostMemory())
        assert len(extents) == 0
        assert extents.base.dtype == np.uint8

    def test_many_keys(self, store: Store) -> None:
        values = {f"c/{i // 16}/{i % 16}": blob(50 + i, i) for i in range(MANY)}
        store.put_many(values.items())
        keys = [*values, "c/absent", *reversed(values)]
        request = ByteRequest.whole([*values, "c/absent"])
        assert parts(store.fetch(request, HostMemory())) == [*values.values(), None]
        ranges = [(key, i % 40, 10) for i, key in enumerate(keys)]
        assert fetch(store, *ranges) == [
            values[key][lo : lo + n] if key in values else None for key, lo, n in ranges
        ]

    @pytest.mark.parametrize("kind", [RecordingMemory, PinnedMemory])
    def test_everything_lands_in_one_buffer_of_the_memory(
        self, store: Store, kind: type[RecordingMemory]
    ) -> None:
        store.put_many([("a", b"x" * 1000), ("b", b"y" * 10)])
        memory = kind()
        extents = store.fetch(ask(("a", 0, REST), ("no", 0, 1), ("b", 0, REST)), memory)
        assert len(memory.asked) == 1
        assert len(extents.base) == memory.asked[0] + 100
        assert parts(extents) == [b"x" * 1000, None, b"y" * 10]
        assert extents.offset[2] % 64 == 0

    def test_one_value_lands_in_memory_that_is_not_plain(self, store: Store) -> None:
        store.put("a", b"x" * 1000)
        memory = PinnedMemory()
        extents = store.fetch(ask(("a", 0, REST)), memory)
        assert len(memory.asked) == 1
        assert len(extents.base) == memory.asked[0] + 100
        assert parts(extents) == [b"x" * 1000]

    def test_any_request_against_slices(self, store: Store) -> None:
        values = {f"k/{i}": blob(n, i) for i, n in enumerate((0, 1, 64, 300, 5000))}
        store.put_many(values.items())

        @given(st.data())
        def check(data: st.DataObject) -> None:
            ranges = []
            for _ in range(data.draw(st.integers(0, 12))):
                key = data.draw(st.sampled_from([*values, "absent"]))
                size = len(values.get(key, b"12345678"))
                kind = data.draw(st.sampled_from(["range", "rest", "suffix", "missing"]))
                lo = data.draw(st.integers(0, size))
                n = data.draw(st.integers(0, size - lo))
                if kind == "range":
                    ranges.append((key, lo, n))
                elif kind == "rest":
                    ranges.append((key, lo, REST))
                elif kind == "missing":
                    ranges.append((key, lo, MISSING))
                elif size:
                    back = data.draw(st.integers(1, size))
                    most = data.draw(st.sampled_from([REST, back, max(back - 3, 0)]))
                    ranges.append((key, -back, most))
            gap, most = data.draw(st.sampled_from([(0, 50), (16, 1000), (10_000, 1 << 20)]))
            wrapped = CountingStore(store)
            wrapped.max_gap, wrapped.max_coalesced = gap, most
            expected = []
            for key, lo, n in ranges:
                value = values.get(key)
                if value is None or n == MISSING:
                    expected.append(None)
                elif lo < 0:
                    tail = value[lo:]
                    expected.append(tail if n == REST else tail[:n])
                else:
                    expected.append(value[lo:] if n == REST else value[lo : lo + n])
            assert fetch(wrapped, *ranges) == expected
            assert fetch(store, *ranges) == expected
            plain = [c for c in wrapped.of("read") if c.offset >= 0]
            for key in values:  # no byte twice
                seen = sorted(
                    (c.offset, c.offset + (c.answered or 0)) for c in plain if c.key == key
                )
                assert all(a[1] <= b[0] for a, b in pairwise(seen))

        check()

    # ---- coalescing ----------------------------------------------------------------------------

    def test_neighbouring_ranges_are_one_read(self, store: Store) -> None:
        store.put_many([("a", blob(1000)), ("b", blob(1000))])
        counting = CountingStore(store)
        counting.max_gap = 10
        fetch(counting, ("a", 100, 50), ("b", 0, 10), ("a", 0, 100), ("a", 160, 10), ("b", 10, 10))
        assert reads(counting) == [("a", 0, 170), ("b", 0, 20)]
        assert counting.bytes_read == 190

    def test_distant_ranges_are_apart(self, store: Store) -> None:
        store.put("a", blob(1000))
        counting = CountingStore(store)
        counting.max_gap = 10
        fetch(counting, ("a", 500, 10), ("a", 0, 100), ("a", 111, 9))
        assert reads(counting) == [("a", 0, 100), ("a", 111, 9), ("a", 500, 10)]

    def test_reads_do_not_grow_without_bound(self, store: Store) -> None:
        store.put("a", blob(1000))
        counting = CountingStore(store)
        counting.max_gap, counting.max_coalesced = 10, 250
        fetch(counting, *(("a", i * 100, 100) for i in range(10)))
        assert reads(counting) == [("a", i * 200, 200) for i in range(5)]

    def test_the_rest_of_a_value_swallows_ranges(self, store: Store) -> None:
        value = blob(1000)
        store.put("a", value)
        counting = CountingStore(store)
        counting.max_gap = 10
        ranges = (("a", 900, 50), ("a", 800, REST), ("a", 0, 10), ("a", 795, 2))
        assert fetch(counting, *ranges) == [value[900:950], value[800:], value[:10], value[795:797]]
        assert reads(counting) == [("a", 0, 10), ("a", 795, REST)]

    def test_a_whole_value_swallows_a_suffix(self, store: Store) -> None:
        value = blob(1000)
        store.put("a", value)
        counting = CountingStore(store)
        assert fetch(counting, ("a", -16, 16), ("a", 0, REST)) == [value[-16:], value]
        assert fetch(counting, ("a", -16, 16), ("a", -100, 3)) == [value[-16:], value[-100:-97]]
        assert reads(counting) == [("a", -100, REST), ("a", 0, REST)]

    def test_each_key_is_read_once(self, store: Store) -> None:
        store.put_many([(f"{i}", b"abc") for i in range(50)])
        counting = CountingStore(store)
        counting.fetch(ByteRequest.whole([f"{i}" for i in range(60)]), HostMemory())
        assert sorted(counting.keys_read, key=int) == [f"{i}" for i in range(60)]
        assert counting.count("size") == 0

    # ---- values that are too short -------------------------------------------------------------

    @pytest.mark.parametrize(
        ("offset", "nbytes", "expected", "actual"),
        [(0, 11, 11, 10), (5, 6, 6, 5), (10, 1, 1, 0), (500, 20, 20, 0), (-11, 11, 11, 10)],
    )
    def test_a_range_beyond_the_end_is_an_error(
        self, store: Store, offset: int, nbytes: int, expected: int, actual: int
    ) -> None:
        store.put_many([("a/x", b"0123456789"), ("a/y", b"0123456789")])
        bad = ("a/x", offset, nbytes)
        for ranges in ([bad], [("a/y", 0, 10), bad], [("a/x", 0, 1), bad], [bad, bad]):
            with pytest.raises(DataError) as caught:
                fetch(store, *ranges)
            assert isinstance(caught.value, ValueError)
            assert caught.value.key == "a/x"
            assert caught.value.expected == expected
            assert caught.value.actual == actual

    @pytest.mark.parametrize("other", [[], [("x", 0, 1)]])
    @pytest.mark.parametrize(
        ("offset", "nbytes"), [(2**62, 1), (0, 2**62), (2**40, 2**40), (-(2**62), 2**62)]
    )
    def test_absurd_ranges_cost_nothing(
        self, store: Store, offset: int, nbytes: int, other: list[tuple[str, int, int]]
    ) -> None:
        store.put("x", b"0123456789")
        with pytest.raises(DataError, match="'x'"):
            fetch(store, *other, ("x", offset, nbytes))

    # ---- listing -------------------------------------------------------------------------------

    def test_a_prefix_is_whole_segments(self, store: Store) -> None:
        keys = ["a/b/c", "a/b/d", "a/bc", "ab/c", "z", "a.b/c", "a-/x"]
        store.put_many([(key, b"") for key in keys])
        assert list(store.list_prefix()) == sorted(keys)
        assert list(store.list_prefix("")) == sorted(keys)
        assert list(store.list_prefix("a")) == ["a/b/c", "a/b/d", "a/bc"]
        assert list(store.list_prefix("a/")) == ["a/b/c", "a/b/d", "a/bc"]
        assert list(store.list_prefix("a/b")) == ["a/b/c", "a/b/d"]
        assert list(store.list_prefix("a/b/c")) == []
        assert list(store.list_prefix("z")) == []
        assert list(store.list_prefix("nothing/here")) == []

    def test_names_of_a_level(self, store: Store) -> None:
        store.put_many([(key, b"") for key in ["a/b/c", "a/b/d/e", "a/bc", "ab/c", "z"]])
        assert store.list_dir() == ("a", "ab", "z")
        assert store.list_dir("") == ("a", "ab", "z")
        assert store.list_dir("a") == ("b", "bc")
        assert store.list_dir("a/") == ("b", "bc")
        assert store.list_dir("a/b") == ("c", "d")
        assert store.list_dir("a/b/c") == ()
        assert store.list_dir("z") == ()
        assert store.list_dir("nothing/here") == ()

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert list(store.list_prefix()) == []
        assert store.list_dir() == ()

    def test_emptied_levels_are_not_listed(self, store: Store) -> None:
        store.put_many([("a/b/c/d", b""), ("a/x", b"")])
        store.delete_many(["a/b/c/d"])
        assert store.list_dir("a") == ("x",)
        store.delete_many(["a/x"])
        assert store.list_dir() == ()

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

    # ---- whole levels --------------------------------------------------------------------------

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

    def test_deleting_everything(self, store: Store) -> None:
        store.put_many([(key, b"1") for key in ["a/b/c", "a/bc", "b"]])
        store.delete_prefix("")
        assert list(store.list_prefix()) == []
        store.put("a/b", b"new")
        assert store.get("a/b") == b"new"

    def test_moving_a_level(self, store: Store) -> None:
        store.put_many([("a/x", b"1"), ("a/y/z", b"2"), ("ab/x", b"3")])
        store.move("a", "new/place")
        assert list(store.list_prefix()) == ["ab/x", "new/place/x", "new/place/y/z"]
        assert store.get("new/place/y/z") == b"2"
        store.move("new/place", "a")
        assert list(store.list_prefix()) == ["a/x", "a/y/z", "ab/x"]
        assert store.list_dir() == ("a", "ab")

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

    # ---- keys that would leave the store -------------------------------------------------------

    @pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: ascii(key)[:20])
    def test_bad_keys_are_refused(self, store: Store, key: str) -> None:
        store.put("good", b"1")
        request = ByteRequest.whole([key])
        two = ByteRequest.whole(["good", key])
        memory = HostMemory()
        for call in (
            lambda: store.get(key),
            lambda: store.exists(key),
            lambda: store.nbytes(key),
            lambda: store.fetch(request, memory),
            lambda: store.fetch(two, memory),
            lambda: store.put(key, b"1"),
            lambda: store.put_many([("good", b"2"), (key, b"1")]),
            lambda: store.delete_many([key]),
        ):
            with pytest.raises(InvalidKeyError) as caught:
                call()
            assert isinstance(caught.value, ValueError)
        assert list(store.list_prefix()) == ["good"]

    @pytest.mark.parametrize("prefix", [key for key in BAD_KEYS if key not in {"", "a/"}])
    def test_bad_prefixes_are_refused(self, store: Store, prefix: str) -> None:
        store.put("good/x", b"1")
        for call in (
            lambda: store.list_prefix(prefix),
            lambda: store.list_dir(prefix),
            lambda: store.delete_prefix(prefix),
            lambda: store.move(prefix, "b"),
            lambda: store.move("good", prefix),
        ):
            with pytest.raises(InvalidKeyError):
                call()
        assert list(store.list_prefix()) == ["good/x"]

    @pytest.mark.parametrize("key", [b"x", 5, None, ("a",)])
    def test_keys_are_text(self, store: Store, key: Any) -> None:
        for call in (
            lambda: store.get(key),
            lambda: store.put(key, b""),
            lambda: store.delete_many([key]),
            lambda: store.list_dir(key),
            lambda: store.fetch(ByteRequest.whole(["x", key]), HostMemory()),
            lambda: store.fetch(ByteRequest.whole([key]), HostMemory()),
        ):
            with pytest.raises(InvalidKeyError, match="must be a string"):
                call()

    # ---- read-only -----------------------------------------------------------------------------

    @pytest.mark.parametrize("own", [False, True], ids=["wrapped", "its own means"])
    def test_read_only_refuses_every_change(self, store: Store, own: bool) -> None:
        store.put("a/x", b"1")
        closed = self.read_only(store) if own else ReadOnlyStore(store)
        assert closed.read_only
        assert closed.get("a/x") == b"1"
        assert fetch(closed, ("a/x", 0, 1)) == [b"1"]
        assert list(closed.list_prefix()) == ["a/x"]
        for call in (
            lambda: closed.put("a/x", b"2"),
            lambda: closed.put_many([("a/y", b"2")]),
            lambda: closed.delete_many(["a/x"]),
            lambda: closed.delete_prefix("a"),
            lambda: closed.move("a", "b"),
        ):
            with pytest.raises(ReadOnlyError) as caught:
                call()
            assert isinstance(caught.value, PermissionError)
        assert list(closed.list_prefix()) == ["a/x"]

    def read_only(self, store: Store) -> Store:
        """The same store opened read-only by its own means."""
        return ReadOnlyStore(store)

    # ---- failures ------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "error",
        [
            OSError(5, "input/output error"),
            PermissionError(13, "denied"),
            TimeoutError("too slow"),
            ConnectionResetError("gone"),
            FileNotFoundError("not really"),
            KeyError("not really"),
            RuntimeError("HTTP 503"),
            MemoryError("no"),
        ],
        ids=lambda e: type(e).__name__,
    )
    def test_a_failure_is_never_a_missing_value(self, store: Store, error: Exception) -> None:
        store.put_many([("a", b"1"), ("b", b"2")])
        failing = FaultyStore(store, error)
        for call in (
            lambda: failing.get("a"),
            lambda: failing.exists("a"),
            lambda: failing.nbytes("a"),
            lambda: fetch(failing, ("a", 0, REST)),
            lambda: fetch(failing, ("a", 0, REST), ("b", 0, 1)),
            lambda: fetch(failing, ("a", 0, 1), ("a", -1, 1)),
            lambda: failing.put("a", b"2"),
            lambda: failing.delete_many(["a"]),
            lambda: list(failing.list_prefix()),
            failing.list_dir,
            lambda: failing.delete_prefix("a"),
        ):
            with pytest.raises(StoreError) as caught:
                call()
            assert isinstance(caught.value, OSError)
            assert not isinstance(caught.value, FileNotFoundError)
            assert caught.value.__cause__ is error
            for kind in (PermissionError, TimeoutError, ConnectionError):
                assert isinstance(caught.value, kind) == isinstance(error, kind)
            if isinstance(error, OSError):
                assert caught.value.errno == error.errno
        assert store.get("a") == b"1"

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

    def test_an_error_in_the_items_surfaces(self, store: Store) -> None:
        def items() -> Any:
            yield "a", b"1"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.put_many(items())

    # ---- threads, processes, copies ------------------------------------------------------------

    def test_concurrent_writers_of_one_key(self, store: Store) -> None:
        size = 30_000
        store.put("a/x", bytes(size))
        failures: list[BaseException] = []
        done = threading.Event()

        def write(i: int) -> None:
            try:
                for _ in range(15):
                    store.put("a/x", bytes([i]) * size)
            except BaseException as error:
                failures.append(error)

        def read() -> None:
            try:
                while not done.is_set():
                    for value in (store.get("a/x"), *fetch(store, ("a/x", 0, REST))):
                        assert value is not None
                        assert len(value) == size
                        assert value == value[:1] * size
            except BaseException as error:
                failures.append(error)

        writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in writers + readers:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        assert failures == []
        value = store.get("a/x")
        assert value is not None
        assert value == value[:1] * size
        assert list(store.list_prefix()) == ["a/x"]

    def test_threads_on_keys_of_their_own(self, store: Store) -> None:
        failures: list[BaseException] = []

        def work(i: int) -> None:
            try:
                for j in range(20):
                    key = f"d/{i}/{j % 3}"
                    store.put(key, b"%d-%d" % (i, j))
                    assert store.get(key) == b"%d-%d" % (i, j)
                    store.delete_many([key])
                store.put(f"d/{i}/end", b"%d" % i)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sorted(store.list_prefix("d")) == [f"d/{i}/end" for i in range(8)]

    def test_a_pickled_store_means_the_same(self, store: Store) -> None:
        store.put_many([("a/x", b"1"), ("b", b"2")])
        self.settle(store)
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert hash(copy) == hash(store)
        assert sorted(copy.list_prefix()) == ["a/x", "b"]
        assert fetch(copy, ("a/x", 0, REST), ("b", 0, 1)) == [b"1", b"2"]
        assert copy.read_only == store.read_only
        copy.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_a_forked_child_reads(self, store: Store) -> None:
        values = {f"a/{i}": blob(1000, i) for i in range(20)}
        store.put_many(values.items())

        def read_all() -> bool:
            answer = store.fetch(ByteRequest.whole(list(values)), HostMemory())
            return parts(answer) == list(values.values()) and store.get("a/3") == values["a/3"]

        assert read_all()  # whatever the store makes lazily exists before the fork
        assert in_child(read_all)
        assert read_all()

    # ---- the rest ------------------------------------------------------------------------------

    def test_closing_twice(self, store: Store) -> None:
        with store as same:
            assert same is store
            store.put("x", b"1")
        store.close()
        store.close()

    def test_it_says_what_it_is(self, store: Store) -> None:
        assert type(store).__name__ in repr(store)
        assert store == store  # noqa: PLR0124
        assert store != PrefixStore(store, "elsewhere")
        assert store != "store"

    def test_errors_pickle(self, store: Store) -> None:
        with pytest.raises(ZarrError) as caught:
            FaultyStore(store, PermissionError(13, "denied")).get("x")
        copy = pickle.loads(pickle.dumps(caught.value))
        assert type(copy) is type(caught.value)
        assert str(copy) == str(caught.value)
