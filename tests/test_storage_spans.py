"""From byte ranges to reads, and back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarr_gpu.errors import DataError
from zarr_gpu.extents import REST
from zarr_gpu.storage import spans
from zarr_gpu.storage.spans import coalesce, place

ROWS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.one_of(st.integers(0, 300), st.integers(-100, -1)),
        st.one_of(st.integers(0, 100), st.just(REST)),
    ),
    min_size=1,
    max_size=20,
)


@given(ROWS, st.integers(0, 60), st.integers(1, 400))
def test_every_range_lies_in_its_span(
    rows: list[tuple[str, int, int]], max_gap: int, max_coalesced: int
) -> None:
    size = 500
    names = [name for name, _, _ in rows]
    offset = np.array([lo for _, lo, _ in rows])
    nbytes = np.array([n if lo >= 0 else -lo for _, lo, n in rows])
    plan = coalesce(names, offset, nbytes, max_gap=max_gap, max_coalesced=max_coalesced)
    assert len(plan.spans) <= len(rows)

    start, got, total = [], [], 0
    reads: dict[str, list[tuple[int, int]]] = {}
    for name, lo, n in plan.spans:
        begin = lo if lo >= 0 else size + lo
        length = size - begin if n == REST else n
        if lo >= 0:
            reads.setdefault(name, []).append((begin, begin + length))
        start.append(total)
        got.append(length)
        total += length
    for of_one_key in reads.values():
        ordered = sorted(of_one_key)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered))
    for name, lo, n in plan.spans:
        hi = size if n == REST else lo + n
        of_span = [
            (a, size if m == REST else a + m)
            for other, a, m in rows
            if other == name and 0 <= lo <= a and (n == REST or (m != REST and a + m <= hi))
        ]
        for cut, _ in of_span:  # where it is too long, it could not have been cut
            assert cut <= lo + max_coalesced or any(a < cut < b for a, b in of_span)

    at, have = place(plan, names, np.array(start), np.array(got))
    for i, (name, lo, n) in enumerate(rows):
        span_name, span_lo, _ = plan.spans[plan.span[i]]
        assert span_name == name
        begin = span_lo if span_lo >= 0 else size + span_lo
        in_value = begin + at[i] - start[plan.span[i]]
        assert in_value == (lo if lo >= 0 else size + lo)
        assert have[i] == (-lo if lo < 0 else size - lo if n == REST else n)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), max_size=30))
def test_running_maximum(pairs: list[tuple[int, int]]) -> None:
    pairs.sort(key=lambda pair: pair[0])
    group = np.array([g for g, _ in pairs], np.int64)
    values = np.array([v for _, v in pairs], np.int64)
    values[values == 50] = spans._END
    expected = []
    for i, (g, _) in enumerate(pairs):
        same = [int(values[j]) for j in range(i + 1) if pairs[j][0] == g]
        expected.append(max(same))
    assert spans._running_max(values, group).tolist() == expected


def test_running_maximum_of_large_numbers() -> None:
    values = np.array([2**59, 5, 3, 2**58, 1], np.int64)
    group = np.array([0, 0, 1, 1, 2], np.int64)
    assert spans._running_max(values, group).tolist() == [2**59, 2**59, 3, 2**58, 1]


def test_a_large_batch_is_quick() -> None:
    import time

    n = 100_000
    names = [f"k/{i // 1000}" for i in range(n)]
    offset = np.arange(n) % 1000 * 4096
    begun = time.process_time()
    plan = coalesce(names, offset, np.full(n, 4000), max_gap=16 << 10, max_coalesced=16 << 20)
    assert len(plan.spans) == 100
    assert time.process_time() - begun < 2  # 0.05 s; a loop over pairs would take minutes


def test_a_range_that_no_value_can_hold() -> None:
    with pytest.raises(DataError, match="'a'"):
        coalesce(
            ["a", "a"],
            np.array([0, 2**62]),
            np.array([1, 2**62]),
            max_gap=0,
            max_coalesced=100,
        )
