"""Selections as ranges and index tables: what each part holds, without chunks or data."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_strategies import basic_selections, orthogonal_selections, vindex_selections

from zarr_gpu.errors import BoundsError, SelectionError
from zarr_gpu.grid import ChunkGrid
from zarr_gpu.select import (
    AxisLookup,
    AxisRange,
    JointLookup,
    Selection,
    select,
    select_basic,
    select_blocks,
    select_coordinates,
    select_mask,
    select_orthogonal,
    split_fields,
)

LIMIT = 2**63 - 1  # the longest axis there can be


def part_items(selection: Selection, axis: int) -> list[int]:
    """The items that the part of one axis selects, in order."""
    part = next(p for p in selection.parts if not isinstance(p, JointLookup) and p.axis == axis)
    if isinstance(part, AxisRange):
        return [part.start + i * part.step for i in range(part.count)]
    return part.index.tolist()


# ---------------------------------------------------------------------------------------- ranges


@given(
    length=st.sampled_from([0, 1, 7, 2**31, LIMIT - 1, LIMIT]),
    start=st.none() | st.integers(-(2**64), 2**64),
    stop=st.none() | st.integers(-(2**64), 2**64),
    step=st.none() | st.integers(-(2**64), 2**64).filter(bool),
)
def test_slices_are_pythons_ranges(length: int, start: Any, stop: Any, step: Any):
    items = range(length)[slice(start, stop, step)]
    selection = select_basic(slice(start, stop, step), (length,))
    (part,) = selection.parts
    assert isinstance(part, AxisRange)
    assert selection.shape == selection.work_shape == (len(items),)
    assert (part.axis, part.out_axis, part.count) == (0, 0, len(items))
    if len(items):
        last = part.start + (part.count - 1) * part.step
        assert (part.start, last) == (items[0], items[-1])


@pytest.mark.parametrize("length", [1, 5, LIMIT])
def test_integers_at_the_ends_of_an_axis(length: int):
    for index in (0, length - 1, -1, -length):
        for kind in (int, np.int64, np.array):
            (part,) = select_basic(kind(index), (length,)).parts
            assert part == AxisRange(0, None, index % length, 1, 1)
    for index in (length, -length - 1, 2**64, -(2**64)):
        message = f"index {index} is out of bounds for axis 0 with size {length}$"
        with pytest.raises(BoundsError, match=message):
            select_basic(index, (length,))


@pytest.mark.parametrize("index", [LIMIT - 1, -LIMIT, -1])
def test_lookups_at_the_ends_of_the_longest_axis(index: int):
    for values in ([index, 0], np.array([index, 0])):
        (part,) = select_orthogonal((values,), (LIMIT,)).parts
        assert isinstance(part, AxisLookup)
        assert part.index.tolist() == [index % LIMIT, 0]
        (joint,) = select_coordinates((values, [0, 1]), (LIMIT, 2)).parts
        assert isinstance(joint, JointLookup)
        assert joint.index.tolist() == [[index % LIMIT, 0], [0, 1]]


@pytest.mark.parametrize(
    ("index", "bad"),
    [
        ([0, LIMIT], LIMIT),
        ([-LIMIT, -LIMIT - 1], -LIMIT - 1),
        (np.array([1, 2**63], np.uint64), 2**63),
        (np.array([2**64 - 1], np.uint64), 2**64 - 1),
    ],
)
def test_lookups_beyond_the_longest_axis(index: Any, bad: int):
    with pytest.raises(BoundsError, match=f"index {bad} is out of bounds for axis 1 with size"):
        select_orthogonal((0, index), (5, LIMIT))
    with pytest.raises(BoundsError, match=f"index {bad} is out of bounds for axis 1 with size"):
        select_coordinates(([0], index), (5, LIMIT))


def test_unsigned_indices_of_small_types():
    (part,) = select_orthogonal((np.array([255, 0], np.uint8),), (256,)).parts
    assert isinstance(part, AxisLookup)
    assert part.index.tolist() == [255, 0]
    assert part.index.dtype == np.int64


# ---------------------------------------------------------------------------------------- shapes


@given(data=st.data(), shape=st.lists(st.integers(0, 5), max_size=4).map(tuple))
def test_shapes_are_numpys(data: st.DataObject, shape: tuple[int, ...]):
    array = np.empty(shape)
    basic = data.draw(basic_selections(shape))
    assert select_basic(basic, shape).shape == array[basic].shape
    points = data.draw(vindex_selections(shape))
    assert select_coordinates(points, shape).shape == array[points].shape


@given(data=st.data(), shape=st.lists(st.integers(0, 5), max_size=4).map(tuple))
def test_work_shape_has_an_axis_for_every_part_that_stays(
    data: st.DataObject, shape: tuple[int, ...]
):
    drawn = [(select_basic, basic_selections), (select_orthogonal, orthogonal_selections)]
    function, strategy = data.draw(
        st.sampled_from([*drawn, (select_coordinates, vindex_selections)])
    )
    selection = function(data.draw(strategy(shape)), shape)
    kept = [part for part in selection.parts if part.out_axis is not None]
    assert [part.out_axis for part in kept] == list(range(len(kept)))
    counts = [part.count if isinstance(part, AxisRange) else len(part.index) for part in kept]
    assert tuple(counts) == selection.work_shape
    assert np.prod(selection.shape) == np.prod(selection.work_shape)
    axes = [
        a for p in selection.parts for a in (p.axes if isinstance(p, JointLookup) else [p.axis])
    ]
    assert sorted(axes) == list(range(len(shape)))


def test_orthogonal_axes_are_apart():
    mask = np.array([False, True, True])
    selection = select_orthogonal((None, [4, -5, 4], 1, mask, ...), (5, 2, 3, 6))
    assert selection.shape == (1, 3, 2, 6)
    assert selection.work_shape == (3, 2, 6)
    assert part_items(selection, 0) == [4, 0, 4]
    assert part_items(selection, 2) == [1, 2]
    assert selection.parts[1] == AxisRange(1, None, 1, 1, 1)


@pytest.mark.parametrize(
    ("selection", "shape"),
    [
        (([0, 1], [0, 1]), (2, 6)),  # neighbours: where they stand
        ((slice(None), [0, 1], [0, 1]), (4, 2)),
        ((slice(None), [0, 1], 0), (4, 2)),
        (([0, 1], slice(None), [0, 1]), (2, 5)),  # apart: in front
        ((slice(None), 0, [0, 1]), (4, 2)),
        ((0, slice(None), [0, 1]), (2, 5)),
        ((slice(None), [0, 1], None, [0, 1]), (2, 4, 1)),
        ((slice(None), [0, 1], ..., [0, 1]), (2, 4)),  # apart, though `...` stands for no axis
        ((..., [0, 1], [0, 1]), (4, 2)),
        (([[0], [1]], [0, 1, 2]), (2, 3, 6)),
    ],
)
def test_where_the_axes_of_points_go(selection: Any, shape: tuple[int, ...]):
    array = np.empty((4, 5, 6))
    assert array[selection].shape == shape  # NumPy says so too
    assert select_coordinates(selection, array.shape).shape == shape


def test_masks():
    mask = np.array([[True, False], [False, True]])
    (part,) = select_mask(mask, (2, 2)).parts
    assert isinstance(part, JointLookup)
    assert part.index.tolist() == [[0, 0], [1, 1]]
    assert select_mask(np.array(True), ()).shape == (1,)
    assert select_mask(np.array(False), ()).shape == (0,)
    assert select_mask((mask,), (2, 2)).shape == (2,)
    with pytest.raises(BoundsError, match=r"mask of shape \(2, 2\) does not fit .* \(2, 3\)"):
        select_mask(mask, (2, 3))
    with pytest.raises(BoundsError, match=r"axis 1 of shape \(5, 3, 2\)"):
        select_coordinates((0, mask), (5, 3, 2))
    with pytest.raises(SelectionError, match="hold booleans"):
        select_mask([1, 0], (2,))


# ---------------------------------------------------------------------------------------- blocks


def test_blocks_are_slices_of_items():
    grid = ChunkGrid.regular((10, LIMIT), (4, 2**40))
    last = -(-LIMIT // 2**40) - 1
    assert select_blocks((2, last), grid).shape == (2, LIMIT - last * 2**40)
    assert select_blocks((-1, -1), grid) == select_blocks((2, last), grid)
    assert select_blocks((slice(1, None), 0), grid).shape == (6, 2**40)
    assert select_blocks((slice(3, 9), 0), grid).shape == (0, 2**40)
    assert select_blocks((slice(2, 1), 0), grid).shape == (0, 2**40)
    with pytest.raises(BoundsError, match="index 3 is out of bounds for axis 0 with size 3"):
        select_blocks(3, grid)
    with pytest.raises(SelectionError, match="axis 1: a block slice must have step 1"):
        select_blocks((0, slice(None, None, 2)), grid)
    with pytest.raises(SelectionError, match="axis 0: cannot index with list"):
        select_blocks([0], grid)
    with pytest.raises(SelectionError, match="new axes"):
        select_blocks((None, 0), grid)


def test_blocks_of_an_axis_without_items():
    grid = ChunkGrid.regular((0, 3), (4, 2))
    assert select_blocks(..., grid).shape == (0, 3)
    assert select_blocks((slice(0, 5), 1), grid).shape == (0, 1)
    with pytest.raises(BoundsError, match="index 0 is out of bounds for axis 0 with size 0"):
        select_blocks(0, grid)


# ---------------------------------------------------------------------------------------- others


@pytest.mark.parametrize(
    ("selection", "kinds"),
    [
        ((), ["AxisRange", "AxisRange"]),
        (([0], [0]), ["JointLookup"]),
        (([0], 0), ["JointLookup"]),
        (([0],), ["AxisLookup", "AxisRange"]),
        (([0], slice(None)), ["AxisLookup", "AxisRange"]),
        (([True, False], [0]), ["AxisLookup", "AxisLookup"]),
        (np.ones((2, 3), bool), ["JointLookup"]),
        (np.ones(2, bool), ["JointLookup", "AxisRange"]),
        (np.zeros((1, 1), int), ["JointLookup", "AxisRange"]),
        ((slice(None), np.zeros((1, 1), int)), ["AxisRange", "JointLookup"]),
    ],
)
def test_what_brackets_mean(selection: Any, kinds: list[str]):
    assert [type(part).__name__ for part in select(selection, (2, 3)).parts] == kinds


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("x", (..., "x")),
        (["x", "y"], (..., ["x", "y"])),
        (("x", 3), (3, "x")),
        ((3, "x", slice(2)), ((3, slice(2)), "x")),
        (("x", "y", 0), (0, ["x", "y"])),
        ((["x"], 0), (0, ["x"])),
        (("x",), (..., "x")),
        (5, (5, None)),
        ([], ([], None)),
        (([0, 1], 2), (([0, 1], 2), None)),
        ((), ((), None)),
    ],
)
def test_field_names_are_taken_out(selection: Any, expected: Any):
    assert split_fields(selection) == expected


@pytest.mark.parametrize("function", [select, select_basic, select_orthogonal, select_coordinates])
def test_errors_say_which_axis(function: Any):
    with pytest.raises(SelectionError, match=r"axis 1: cannot index with float '1\.5'"):
        function((0, 1.5), (2, 3))
    with pytest.raises(SelectionError, match=r"too many indices: .* 2 dimensions, but 3"):
        function((0, 0, 0), (2, 3))
    with pytest.raises(SelectionError, match="only one ellipsis"):
        function((..., 0, ...), (2, 3))
    with pytest.raises(SelectionError, match=r"axis 0: slice.* is not a valid slice"):
        function(slice(None, None, 0), (2, 3))
    with pytest.raises(BoundsError, match="index 3 is out of bounds for axis 1 with size 3"):
        function((0, 3), (2, 3))


def test_errors_of_index_arrays_say_which_axis():
    with pytest.raises(SelectionError, match="axis 1: an index array must hold integers"):
        select_orthogonal((0, [0.5]), (2, 3))
    with pytest.raises(SelectionError, match="axis 1: an orthogonal index must be one-dimensional"):
        select_orthogonal((0, [[0]]), (2, 3))
    with pytest.raises(BoundsError, match="length 2 does not fit axis 1 with size 3"):
        select_orthogonal((0, [True, False]), (2, 3))
    with pytest.raises(SelectionError, match=r"shapes \(2,\), \(3,\) cannot be broadcast"):
        select_coordinates(([0, 1], [0, 1, 2]), (2, 3))
    with pytest.raises(SelectionError, match="does not make an index array"):
        select_orthogonal(([[0], [1, 2]],), (2, 3))


def test_slices_of_the_longest_axes_cost_nothing():
    tracemalloc.start()
    select((slice(None, None, -1), slice(1, None, 3)), (LIMIT, LIMIT))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000
