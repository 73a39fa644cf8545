"""What holds for every store where ranges of one value are read together."""

from __future__ import annotations

import pytest
from store_suite_base import StoreChecks, about, blob, fetch, reads

from zarr_gpu.errors import DataError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.wrappers import CountingStore


class CoalescingChecks(StoreChecks):
    """Which reads reach a store, and ranges that end beyond the value."""

    def test_neighbouring_ranges_are_one_read(self, store: Store) -> None:
        self.fill(store, [("a", blob(1000)), ("b", blob(1000))])
        counting = CountingStore(store)
        counting.max_gap = 10
        fetch(counting, ("a", 100, 50), ("b", 0, 10), ("a", 0, 100), ("a", 160, 10), ("b", 10, 10))
        assert reads(counting) == [("a", 0, 170), ("b", 0, 20)]
        assert counting.bytes_read == 190

    def test_distant_ranges_are_apart(self, store: Store) -> None:
        self.fill(store, [("a", blob(1000))])
        counting = CountingStore(store)
        counting.max_gap = 10
        fetch(counting, ("a", 500, 10), ("a", 0, 100), ("a", 111, 9))
        assert reads(counting) == [("a", 0, 100), ("a", 111, 9), ("a", 500, 10)]

    def test_reads_do_not_grow_without_bound(self, store: Store) -> None:
        self.fill(store, [("a", blob(1000))])
        counting = CountingStore(store)
        counting.max_gap, counting.max_coalesced = 10, 250
        fetch(counting, *(("a", i * 100, 100) for i in range(10)))
        assert reads(counting) == [("a", i * 200, 200) for i in range(5)]

    def test_the_rest_of_a_value_swallows_ranges(self, store: Store) -> None:
        value = blob(1000)
        self.fill(store, [("a", value)])
        counting = CountingStore(store)
        counting.max_gap = 10
        ranges = (("a", 900, 50), ("a", 800, REST), ("a", 0, 10), ("a", 795, 2))
        assert fetch(counting, *ranges) == [value[900:950], value[800:], value[:10], value[795:797]]
        assert reads(counting) == [("a", 0, 10), ("a", 795, REST)]

    def test_a_whole_value_swallows_a_suffix(self, store: Store) -> None:
        value = blob(1000)
        self.fill(store, [("a", value)])
        counting = CountingStore(store)
        assert fetch(counting, ("a", -16, 16), ("a", 0, REST)) == [value[-16:], value]
        assert fetch(counting, ("a", -16, 16), ("a", -100, 3)) == [value[-16:], value[-100:-97]]
        assert reads(counting) == [("a", -100, REST), ("a", 0, REST)]

    def test_each_key_is_read_once(self, store: Store) -> None:
        self.fill(store, [(f"{i}", b"abc") for i in range(50)])
        counting = CountingStore(store)
        counting.fetch(ByteRequest.whole([f"{i}" for i in range(60)]), HostMemory())
        assert sorted(counting.keys_read, key=int) == [f"{i}" for i in range(60)]
        assert counting.count("size") == 0

    def test_a_range_beyond_the_end_is_an_error(self, store: Store) -> None:
        self.fill(store, [("a/x", b"0123456789"), ("a/y", b"0123456789")])
        for offset, nbytes, expected, actual in (
            (0, 11, 11, 10),
            (5, 6, 6, 5),
            (10, 1, 1, 0),
            (500, 20, 20, 0),
            (-11, 11, 11, 10),
        ):
            bad = ("a/x", offset, nbytes)
            for ranges in ([bad], [("a/y", 0, 10), bad], [("a/x", 0, 1), bad], [bad, bad]):
                with about(ranges), pytest.raises(DataError) as caught:
                    fetch(store, *ranges)
                assert isinstance(caught.value, ValueError)
                assert caught.value.key == "a/x"
                assert (caught.value.expected, caught.value.actual) == (expected, actual), ranges

    def test_absurd_ranges_cost_nothing(self, store: Store) -> None:
        self.fill(store, [("x", b"0123456789")])
        for offset, nbytes in ((2**62, 1), (0, 2**62), (2**40, 2**40), (-(2**62), 2**62)):
            bad = ("x", offset, nbytes)
            for ranges in ([bad], [("x", 0, 1), bad]):
                with about(ranges), pytest.raises(DataError, match="'x'"):
                    fetch(store, *ranges)
