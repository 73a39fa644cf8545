"""Boxes: from chunks to results and back, against brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from index_strategies import random_values, same
from test_plan import plans

from zarr_gpu.grid import ChunkGrid
from zarr_gpu.placing import Box, Placer, copy, put, take
from zarr_gpu.plan import Plan, make_plan
from zarr_gpu.select import (
    AxisRange,
    JointLookup,
    Selection,
    select_basic,
    select_coordinates,
    select_orthogonal,
)

Shape = tuple[int, ...]


def chunk_box(coords: Any, chunks: Shape) -> tuple[slice, ...]:
    return tuple(slice(c * n, (c + 1) * n) for c, n in zip(coords, chunks, strict=True))


def read_with(plan: Plan, values: np.ndarray, chunks: Shape) -> np.ndarray:
    """A read by boxes alone: chunks are cut from ``values`` and padded."""
    out = np.full(plan.work_shape, -1, values.dtype)
    placer = Placer(plan)
    for batch in plan.batches(5):
        for coords, entries in zip(batch.coords.tolist(), batch.index.tolist(), strict=True):
            chunk = np.full(chunks, -2, values.dtype)
            part = values[chunk_box(coords, chunks)]
            chunk[tuple(slice(n) for n in part.shape)] = part
            src, dst = placer.boxes(entries)
            piece = take(chunk, src)
            assert piece.shape == take(out, dst).shape
            put(out, dst, piece)
            if placer.plain:
                one, other = placer.slices(entries)
                assert np.array_equal(chunk[one], out[other])
                assert np.shares_memory(out[other], out) or not piece.size
    return out


def parts_of(values: np.ndarray, selection: Selection) -> np.ndarray:
    """What the parts of a selection select, one part at a time."""
    result = np.empty(selection.work_shape, values.dtype)
    for place in np.ndindex(*selection.work_shape):
        where = [0] * values.ndim
        for part in selection.parts:
            j = 0 if part.out_axis is None else place[part.out_axis]
            if isinstance(part, AxisRange):
                where[part.axis] = part.start + j * part.step
            elif isinstance(part, JointLookup):
                for axis, value in zip(part.axes, part.index[j].tolist(), strict=True):
                    where[axis] = value
            else:
                where[part.axis] = int(part.index[j])
        result[place] = values[tuple(where)]
    return result


@given(plans())
def test_reading_by_boxes(case: tuple[Plan, Selection, Shape, Shape]):
    plan, selection, shape, chunks = case
    values = np.arange(math.prod(shape)).reshape(shape)
    assert np.array_equal(read_with(plan, values, chunks), parts_of(values, selection))


@given(plans())
def test_writing_by_boxes_is_the_inverse(case: tuple[Plan, Selection, Shape, Shape]):
    """Written and read again, every item of the result is the last one written to its place."""
    plan, selection, shape, chunks = case
    numbers = np.arange(math.prod(shape)).reshape(shape)
    items = parts_of(numbers, selection)
    new = np.arange(items.size).reshape(items.shape) + 1000
    expected = numbers.copy()
    for item, value in zip(items.reshape(-1).tolist(), new.reshape(-1).tolist(), strict=True):
        expected.reshape(-1)[item] = value
    # Padded to whole chunks, so that a chunk is a view.
    grid = ChunkGrid.regular(shape, chunks)
    room = np.full([n * c for n, c in zip(grid.shape, chunks, strict=True)], -1)
    inside = tuple(slice(n) for n in shape)
    room[inside] = numbers
    placer = Placer(plan)
    for batch in plan.batches(5):
        for coords, entries in zip(batch.coords.tolist(), batch.index.tolist(), strict=True):
            src, dst = placer.boxes(entries)
            chunk = room[(*chunk_box(coords, chunks), ...)]
            put(chunk, src, take(new, dst))
    assert np.array_equal(room[inside], expected)
    room[inside] = -1
    assert (room == -1).all(), "something was written beyond the array"


def test_a_scalar_fills_a_box():
    shape, chunks = (9, 8, 7), (4, 4, 4)
    index = (slice(None), [0, 5, 0], [1, 2, 6])
    for selection in (
        select_basic((0, slice(1, 7, 2)), shape),
        select_orthogonal(index, shape),
        select_coordinates(index, shape),
        select_coordinates(([0, 8, 2], slice(None), [1, 2, 6]), shape),
    ):
        plan = make_plan(selection, ChunkGrid.regular(shape, chunks))
        out = np.zeros(plan.work_shape)
        placer = Placer(plan)
        for entries in plan.rows(0, plan.nchunks).index.tolist():
            put(out, placer.boxes(entries)[1], 5)
        assert (out == 5).all()


@pytest.mark.parametrize(
    "index",
    [
        ([4, 0, 4], slice(None, None, -1), [6, 1, 0]),
        (slice(None, None, -1), [4, 0, 4], slice(1, None, 2), [2, 0, 0]),
        (slice(4), 3, slice(None), [2, 0, 0]),
    ],
)
def test_points_in_front_of_the_axes_between_them(index: tuple[Any, ...]):
    """The points' axis comes first in the result, but not in the chunk."""
    shape = (5, 6, 7, 3)[: len(index)]
    chunks = (2, 4, 3, 2)[: len(index)]
    values = random_values(np.dtype("i4"), shape, 0)
    selection = select_coordinates(index, shape)
    plan = make_plan(selection, ChunkGrid.regular(shape, chunks))
    assert same(read_with(plan, values, chunks), values[index])
    room = np.zeros([-(-n // c) * c for n, c in zip(shape, chunks, strict=True)], "i4")
    placer = Placer(plan)
    new = random_values(np.dtype("i4"), plan.work_shape, 1)
    for batch in plan.batches(7):
        for coords, entries in zip(batch.coords.tolist(), batch.index.tolist(), strict=True):
            src, dst = placer.boxes(entries)
            put(room[chunk_box(coords, chunks)], src, take(new, dst))
    expected = np.zeros_like(values)
    expected[index] = new
    assert same(room[tuple(slice(n) for n in shape)], expected)


def test_an_array_without_axes():
    plan = make_plan(select_basic((), ()), ChunkGrid.regular((), ()))
    placer = Placer(plan)
    src, dst = placer.boxes([])
    out = np.zeros(())
    put(out, dst, take(np.array(3.0), src))
    assert out == 3
    assert placer.slices([]) == ((), (...,))


@pytest.mark.parametrize("value", [b"ab\x00", "text", None, (1, 2)])
def test_objects_stay_objects(value: Any):
    """A box of nothing but integers holds one object; neither side wraps it into an array."""
    plan = make_plan(select_basic((1, 0), (2, 2)), ChunkGrid.regular((2, 2), (2, 2)))
    src, dst = Placer(plan).boxes([0, 0])
    chunk = np.empty((2, 2), object)
    chunk[1, 0] = value
    piece = take(chunk, src)
    assert isinstance(piece, np.ndarray)
    out = np.empty((), object)
    put(out, dst, piece)
    assert out[()] is value
    back = np.empty((2, 2), object)
    put(back, src, take(out, dst))
    assert back[1, 0] is value


def test_fields_of_several_elements_follow_the_axes():
    """Items may have axes of their own; tables and the order of axes leave those alone."""
    values = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    box = Box((slice(None),) * 3, (((0, 2), (np.array([1, 0]), np.array([3, 3]))),), (1, 0))
    piece = take(values, box)
    assert same(piece, values[[1, 0], :, [3, 3]].swapaxes(0, 1))
    out = np.zeros_like(values)
    put(out, box, piece)
    expected = np.zeros_like(values)
    expected[[1, 0], :, [3, 3]] = values[[1, 0], :, [3, 3]]
    assert same(out, expected)


def test_rows_of_some_fields_leave_the_others() -> None:
    dtype = np.dtype([("x", "i4"), ("y", "f8")])
    target = np.ones((3, 4), dtype)
    source = np.zeros((3, 4), dtype)
    source["x"] = 7
    copy(target[["x"]], source[["x"]])
    assert (target["x"] == 7).all()
    assert (target["y"] == 1).all()


@pytest.mark.parametrize("dtype", ["u1", "i2", "f8", "c16", "S3", "M8[s]"])
def test_rows_are_copied(dtype: str) -> None:
    source = np.arange(6 * 8 * 5).reshape(6, 8, 5).astype("i8").astype(dtype)
    target = np.zeros((6, 8, 5), dtype)
    copy(target[1:4, ::2, 1:], source[2:5, ::2, :4])
    expected = np.zeros((6, 8, 5), dtype)
    expected[1:4, ::2, 1:] = source[2:5, ::2, :4]
    assert np.array_equal(target, expected)
