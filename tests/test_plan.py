"""Plans against brute force: every item once, from the right place to the right place."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_strategies import basic_selections, orthogonal_selections, vindex_selections

from zarr_gpu.grid import ChunkAxis, ChunkGrid
from zarr_gpu.plan import AxisSet, Plan, make_plan
from zarr_gpu.select import (
    Selection,
    select_basic,
    select_coordinates,
    select_mask,
    select_orthogonal,
)

LIMIT = 2**63 - 1
Shape = tuple[int, ...]


def plan_of(selection: Selection, chunks: Shape, shape: Shape) -> Plan:
    return make_plan(selection, ChunkGrid.regular(shape, chunks))


def source_positions(part: AxisSet, entry: int) -> np.ndarray:
    """(count, axes) positions in the array of the items of one entry."""
    count = int(part.count[entry])
    if part.src_index is None:
        within = (part.src[entry] + np.arange(count) * part.step)[:, None]
    else:
        within = part.src_index[part.src[entry] : part.src[entry] + count]
    return within


def target_positions(part: AxisSet, entry: int) -> np.ndarray:
    run = np.arange(part.dst[entry], part.dst[entry] + part.count[entry])
    return run if part.dst_index is None else part.dst_index[run]


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, Selection, Shape, Shape]:
    """(plan, its selection, shape of the array, of the chunks)."""
    ndim = draw(st.integers(0, 4))
    longest = (0, 20, 8, 5, 4)[ndim]
    shape = tuple(draw(st.integers(1, longest)) for _ in range(ndim))
    if ndim and draw(st.integers(0, 9)) == 9:
        shape = (*shape[1:], 0)
    chunks = tuple(draw(st.integers(1, longest)) for _ in range(ndim))
    functions: Any = [
        (select_basic, basic_selections),
        (select_orthogonal, orthogonal_selections),
        (select_coordinates, vindex_selections),
    ]
    function, strategy = draw(st.sampled_from(functions))
    selection = function(draw(strategy(shape)), shape)
    return plan_of(selection, chunks, shape), selection, shape, chunks


@given(plans())
def test_every_item_goes_to_its_place_once(case: tuple[Plan, Selection, Shape, Shape]):
    plan, selection, shape, chunks = case
    # What the parts select, by the numbers of the items in C order: (one per place of the result).
    expected = np.full(plan.work_shape, -1)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    got = expected.copy()
    for place in np.ndindex(*plan.work_shape):
        where = [0] * len(shape)
        for part in selection.parts:
            j = 0 if part.out_axis is None else place[part.out_axis]
            if hasattr(part, "start"):
                where[part.axis] = part.start + j * part.step
            elif hasattr(part, "axes"):
                for axis, value in zip(part.axes, part.index[j].tolist(), strict=True):
                    where[axis] = value
            else:
                where[part.axis] = int(part.index[j])
        expected[place] = numbers[tuple(where)]

    seen = set()
    for batch in plan.batches(3):
        assert len(batch) <= 3
        assert batch.row.tolist() == list(range(len(batch)))
        for row in range(len(batch)):
            coords = tuple(batch.coords[row].tolist())
            assert coords not in seen
            seen.add(coords)
            touched = set()
            entries = batch.index[row].tolist()
            sources = [source_positions(s, e) for s, e in zip(plan.sets, entries, strict=True)]
            for combination in itertools.product(*(range(len(source)) for source in sources)):
                where = [0] * len(shape)
                place = [0] * len(plan.work_shape)
                for s, e, source, j in zip(plan.sets, entries, sources, combination, strict=True):
                    for axis, within in zip(s.axes, source[j].tolist(), strict=True):
                        assert 0 <= within < chunks[axis]
                        where[axis] = coords[axis] * chunks[axis] + within
                    if s.out_axis is not None:
                        place[s.out_axis] = int(target_positions(s, e)[j])
                number = numbers[tuple(where)]  # an IndexError would be beyond the array
                assert got[tuple(place)] == -1, "an item of the result is written twice"
                got[tuple(place)] = number
                touched.add(int(number))
            box = tuple(slice(c * n, (c + 1) * n) for c, n in zip(coords, chunks, strict=True))
            assert batch.complete[row] == (len(touched) == numbers[box].size)
    assert len(seen) == plan.nchunks
    assert np.array_equal(got, expected)


@given(plans(), st.data())
def test_objects_cover_every_row_once(
    case: tuple[Plan, Selection, Shape, Shape], data: st.DataObject
):
    plan, _, shape, _ = case
    ratio = tuple(data.draw(st.integers(1, 4)) for _ in shape)
    objects, rows = [], []
    for coords, index in plan.objects(ratio):
        objects.append(coords)
        assert len(index) > 0
        batch = plan.batch(index)
        owner = batch.coords // np.array(ratio, np.int64)
        assert (owner == np.array(coords, np.int64)).all()
        rows.extend(map(tuple, index.tolist()))
    assert len(set(objects)) == len(objects)
    assert len(set(rows)) == len(rows) == plan.nchunks
    every = plan.rows(0, plan.nchunks).index.tolist()
    assert set(rows) == set(map(tuple, every))


@given(plans(), st.integers(0, 30), st.integers(-3, 30))
def test_runs_of_rows_are_parts_of_all_rows(
    case: tuple[Plan, Selection, Shape, Shape], lo: int, n: int
):
    plan = case[0]
    every = plan.rows(0, plan.nchunks)
    some = plan.rows(lo, lo + n)
    assert np.array_equal(some.coords, every.coords[lo : max(lo, lo + n)])
    assert np.array_equal(some.index, every.index[lo : max(lo, lo + n)])
    assert np.array_equal(some.complete, every.complete[lo : max(lo, lo + n)])


@pytest.mark.parametrize(
    ("index", "complete"),
    [
        ([0, 1, 2], [True]),
        ([2, 0, 1, 1], [True]),
        ([0, 0, 1], [False]),
        ([0, 0, 0, 0], [False]),
        ([4, 3, 3, 0, 1], [False, True]),  # the last chunk has two items
        ([4, 4, 0, 2, 1], [True, False]),
    ],
)
def test_repeated_items_count_once(index: list[int], complete: list[bool]):
    plan = plan_of(select_orthogonal(index, (5,)), (3,), (5,))
    assert plan.rows(0, 5).complete.tolist() == complete
    pairs = (np.repeat(index, 2), np.tile([0, 1], len(index)))
    plan = plan_of(select_coordinates(pairs, (5, 2)), (3, 2), (5, 2))
    assert plan.rows(0, 5).complete.tolist() == complete
    plan = plan_of(select_coordinates(pairs, (5, 3)), (3, 3), (5, 3))
    assert not plan.rows(0, 5).complete.any()


@pytest.mark.parametrize(("step", "complete"), [(1, True), (-1, True), (2, False), (-2, False)])
def test_a_step_leaves_chunks_incomplete(step: int, complete: bool):
    plan = plan_of(select_basic(slice(None, None, step), (9,)), (3,), (9,))
    assert plan.rows(0, 5).complete.tolist() == [complete] * 3
    plan = plan_of(select_basic(slice(None, None, step), (9,)), (1,), (9,))
    assert plan.rows(0, 9).complete.all()


# --------------------------------------------------------------------------------- hostile sizes


@given(
    length=st.sampled_from([LIMIT, LIMIT - 1, 2**62 + 1]),
    edge=st.sampled_from([2**53, 2**62 - 1, 2**62, 2**62 + 1, LIMIT - 1, LIMIT]),
    step=st.sampled_from([1, -1, 2**60, -(2**60), 2**62, -(2**62), 2**62 - 1, LIMIT, -LIMIT]),
    start=st.sampled_from([0, 1, 2**61, 2**62, LIMIT - 2, LIMIT - 1]),
)
def test_long_axes_and_steps(length: int, edge: int, step: int, start: int):
    items = range(length)[start::step]
    if len(items) > 64:
        items = items[:64] if step > 0 else items[-64:]
    if not len(items):
        return
    stop: Any = items.stop if items.stop >= 0 else None
    plan = plan_of(select_basic(slice(items.start, stop, step), (length,)), (edge,), (length,))
    (s,) = plan.sets
    assert plan.shape == (len(items),)
    got = {}
    for entry in range(len(s)):
        origin = int(s.chunk[entry, 0]) * edge
        assert 0 < int(s.extent[entry, 0]) <= min(edge, length - origin)
        for j in range(int(s.count[entry])):
            within = int(s.src[entry]) + j * s.step
            assert 0 <= within < int(s.extent[entry, 0])
            got[int(s.dst[entry]) + j] = origin + within
    assert [got[j] for j in range(len(items))] == list(items)


@pytest.mark.parametrize("step", [2**63, -(2**63), 2**70, -(2**70)])
def test_a_step_beyond_64_bits_selects_one_item(step: int):
    plan = plan_of(select_basic(slice(None, None, step), (LIMIT,)), (7,), (LIMIT,))
    assert plan.shape == (1,)
    item = 0 if step > 0 else LIMIT - 1
    batch = plan.rows(0, 5)
    assert batch.coords.tolist() == [[item // 7]]
    assert plan.sets[0].src.tolist() == [item % 7]
    empty = plan_of(select_basic(slice(3, 3, step), (LIMIT,)), (7,), (LIMIT,))
    assert empty.nchunks == 0


def test_points_of_the_longest_axes():
    far = LIMIT - 1
    shape, chunks = (LIMIT, LIMIT, LIMIT), (1, 3, 2**40)
    # The number of chunks does not fit 64 bits.
    index = ([far, 0, far, 0], [far, 0, far, far], [0, far, 0, far])
    plan = plan_of(select_coordinates(index, shape), chunks, shape)
    batch = plan.rows(0, 10)
    assert batch.coords.tolist() == [
        [0, 0, far // 2**40],
        [0, far // 3, far // 2**40],
        [far, far // 3, 0],
    ]
    assert plan.sets[0].count.tolist() == [1, 1, 2]
    assert plan.sets[0].dst_index is not None
    assert plan.sets[0].dst_index.tolist() == [1, 3, 0, 2]
    assert not batch.complete.any()


def test_the_last_chunk_of_the_longest_axis():
    axis = ChunkAxis(LIMIT, 2**40)
    last = np.array([axis.nchunks - 1])
    assert axis.extent(last).tolist() == [LIMIT - int(last[0]) * 2**40]
    selection = select_basic(slice(-int(axis.extent(last)[0]), None), (LIMIT,))
    batch = plan_of(selection, (2**40,), (LIMIT,)).rows(0, 9)
    assert batch.coords.tolist() == [last.tolist()]
    assert batch.complete.tolist() == [True]


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2**62)])
def test_nothing_selected_of_nothing(shape: Shape):
    plan = plan_of(select_basic(..., shape), (2,) * len(shape), shape)
    assert plan.nchunks == plan.nitems == 0
    assert list(plan.batches(10)) == []
    assert list(plan.objects((2,) * len(shape))) == []
    assert len(plan.rows(0, 10)) == 0


def test_an_array_without_axes_is_one_chunk():
    plan = plan_of(select_basic((), ()), (), ())
    assert plan.nchunks == plan.nitems == 1
    batch = plan.rows(0, 10)
    assert batch.coords.shape == (1, 0)
    assert batch.complete.tolist() == [True]
    ((coords, index),) = plan.objects(())
    assert coords == ()
    assert index.shape == (1, 0)
    nothing = plan_of(select_mask(np.array(False), ()), (), ())
    assert nothing.nitems == 0


# ---------------------------------------------------------------------------------------- memory


def peak_of(function: Any) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_plan_of_a_million_chunks_is_small():
    shape, chunks = (1000 * 64, 1000 * 64), (64, 64)
    grid = ChunkGrid.regular(shape, chunks)

    def plan_all() -> None:
        plan = make_plan(select_basic(slice(3, -3, 2), shape), grid)
        assert plan.nchunks == 10**6
        assert plan.rows(500_000, 500_010).coords[0].tolist() == [500, 0]

    plan_all()
    assert peak_of(plan_all) < 400_000

    def plan_cube() -> None:
        cube = (100 * 8,) * 3
        plan = make_plan(select_orthogonal([5, 700, 9], cube), ChunkGrid.regular(cube, (8, 8, 8)))
        assert plan.nchunks == 3 * 100 * 100

    assert peak_of(plan_cube) < 100_000


def test_batches_are_made_one_at_a_time():
    shape, chunks = (1000, 1000), (1, 1)
    plan = plan_of(select_basic(..., shape), chunks, shape)

    def walk() -> None:
        rows = sum(len(batch) for batch in plan.batches(1000))
        assert rows == 10**6

    assert peak_of(walk) < 500_000

    def walk_objects() -> None:
        rows = sum(len(index) for _, index in plan.objects((20, 20)))
        assert rows == 10**6

    assert peak_of(walk_objects) < 500_000
