"""Selections: what a user writes between brackets, turned into ranges and index tables.

Every index mode ends in the same small description: one :class:`AxisRange` or :class:`AxisLookup`
per axis, or one :class:`JointLookup` for axes that are indexed together.  Nothing here knows of
chunks except :func:`select_blocks`.  Shapes, drops and insertions follow NumPy; ``oindex`` treats
every axis on its own (as ``numpy.ix_``).

Imports ``errors`` and ``grid``; used by planning.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.errors import BoundsError, SelectionError
from zarr_gpu.grid import ChunkGrid
from zarr_gpu.stages import staged

__all__ = [
    "AxisLookup",
    "AxisRange",
    "JointLookup",
    "Selection",
    "select",
    "select_basic",
    "select_blocks",
    "select_coordinates",
    "select_mask",
    "select_orthogonal",
    "split_fields",
]

I64 = npt.NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AxisRange:
    """``count`` items ``start, start + step, ...`` of one axis; an integer is a range of one."""

    axis: int
    out_axis: int | None  # None: the axis is dropped from the result (an integer)
    start: int
    count: int
    step: int


@dataclass(frozen=True, slots=True)
class AxisLookup:
    """Arbitrary items of one axis, in any order, with repeats."""

    axis: int
    out_axis: int
    index: I64  # (m,), not negative


@dataclass(frozen=True, slots=True)
class JointLookup:
    """Points given by coordinates on several axes at once."""

    axes: tuple[int, ...]
    out_axis: int
    index: I64  # (m, len(axes)), not negative


Part = AxisRange | AxisLookup | JointLookup


@dataclass(frozen=True, slots=True)
class Selection:
    """A selection of an array.

    ``work_shape`` has one axis per part that is not dropped.  ``shape`` is what the user gets: the
    same items in the same order, with the axes of an index array spread out and new axes inserted.
    """

    parts: tuple[Part, ...]
    work_shape: Shape
    shape: Shape


# ---------------------------------------------------------------------------- pieces


_PLAIN = {int, slice}


def _is_integer(item: object) -> bool:
    if isinstance(item, bool | np.bool_):
        return False
    if isinstance(item, int | np.integer):
        return True
    return isinstance(item, np.ndarray) and item.ndim == 0 and item.dtype.kind in "iu"


def _is_sequence(item: object) -> bool:
    """A list or array that indexes (0-d integer arrays count as integers)."""
    if type(item) in _PLAIN:  # what most selections are made of
        return False
    if isinstance(item, np.ndarray):
        return item.ndim > 0
    if isinstance(item, list | range):
        return True
    # Arrays of other libraries, and our own arrays: an index by another array.
    return hasattr(item, "__array__") and getattr(item, "ndim", 0) > 0


def _as_array(item: Any) -> npt.NDArray[Any]:
    """Lists, and whatever else indexes, as an array."""
    try:
        return np.asarray(item)
    except (TypeError, ValueError) as err:  # lists of unequal lengths
        raise SelectionError(f"{str(item)[:60]} does not make an index array: {err}") from err


def _as_index_array(item: Any, axis: int) -> npt.NDArray[Any]:
    """An index array of integers or booleans."""
    array = _as_array(item)
    if array.size == 0 and array.dtype.kind == "f" and not isinstance(item, np.ndarray):
        array = array.astype(np.int64)  # an empty list
    if array.dtype.kind not in "iub":
        raise SelectionError(
            f"axis {axis}: an index array must hold integers or booleans, not {array.dtype}"
        )
    return array


def _tuple(selection: Any) -> tuple[Any, ...]:
    return selection if isinstance(selection, tuple) else (selection,)


def _expand(selection: Any, ndim: int) -> list[Any]:
    """The selection with its ellipsis (explicit or implied) replaced by full slices."""
    items = list(_tuple(selection))
    used = 0
    ellipsis: int | None = None
    for i, item in enumerate(items):
        if item is Ellipsis or isinstance(item, EllipsisType):
            if ellipsis is not None:
                raise SelectionError("a selection can have only one ellipsis ('...')")
            ellipsis = i
        elif item is None:
            pass
        elif _is_sequence(item) and _is_boolean(item):
            used += np.ndim(item)
        else:
            used += 1
    if used > ndim:
        raise SelectionError(
            f"too many indices: the array has {ndim} dimensions, but {used} were indexed"
        )
    fill = [slice(None)] * (ndim - used)
    if ellipsis is None:
        return items + fill
    return items[:ellipsis] + fill + items[ellipsis + 1 :]


def _is_boolean(item: Any) -> bool:
    if isinstance(item, np.ndarray):
        return bool(item.dtype.kind == "b")
    return _is_sequence(item) and bool(_as_array(item).dtype.kind == "b")


def _integer(item: Any, axis: int, length: int) -> int:
    index = operator.index(item.item() if isinstance(item, np.ndarray) else item)
    if not -length <= index < length:
        raise BoundsError(
            f"index {index} is out of bounds for axis {axis} with size {length}", key=None
        )
    return index + length if index < 0 else index


def _slice(item: slice, axis: int, length: int) -> tuple[int, int, int]:
    """(start, count, step) of a slice."""
    try:
        items = range(*item.indices(length))
    except (TypeError, ValueError) as err:
        raise SelectionError(f"axis {axis}: {item!r} is not a valid slice: {err}") from err
    return items.start, len(items), items.step


def _wrap(index: npt.NDArray[Any], axis: int, length: int) -> I64:
    """Integer indices without negative ones; BoundsError names the first that does not fit."""
    if index.dtype.kind == "u" and index.size and int(index.max()) >= length:
        bad = int(index[index >= length].flat[0])
        raise BoundsError(f"index {bad} is out of bounds for axis {axis} with size {length}")
    wide = index.astype(np.int64)
    if wide.size:
        low, high = int(wide.min()), int(wide.max())
        if low < -length or high >= length:
            bad = int(wide[(wide < -length) | (wide >= length)].flat[0])
            raise BoundsError(f"index {bad} is out of bounds for axis {axis} with size {length}")
        if low < 0:
            wide = np.where(wide < 0, wide + length, wide)
    return wide


def _refuse(item: object, axis: int, allowed: str) -> SelectionError:
    return SelectionError(
        f"axis {axis}: cannot index with {type(item).__name__} {str(item)[:60]!r}; use {allowed}"
    )


# ----------------------------------------------------------------------------- modes


@staged("select")
def select_basic(selection: Any, shape: Shape) -> Selection:
    """Integers, slices with any step, ``...`` and ``None``."""
    return _per_axis(selection, shape, arrays=False)


@staged("select")
def select_orthogonal(selection: Any, shape: Shape) -> Selection:
    """As :func:`select_basic`; also lists, index arrays and boolean vectors, each on its axis."""
    return _per_axis(selection, shape, arrays=True)


def _per_axis(selection: Any, shape: Shape, *, arrays: bool) -> Selection:
    parts: list[Part] = []
    work_shape: list[int] = []
    out_shape: list[int] = []
    axis = 0
    for item in _expand(selection, len(shape)):
        if item is None:
            out_shape.append(1)
            continue
        length = shape[axis]
        if isinstance(item, slice):
            start, count, step = _slice(item, axis, length)
            parts.append(AxisRange(axis, len(work_shape), start, count, step))
        elif _is_integer(item):
            parts.append(AxisRange(axis, None, _integer(item, axis, length), 1, 1))
            axis += 1
            continue
        elif arrays and _is_sequence(item):
            index = _vector(item, axis, length)
            parts.append(AxisLookup(axis, len(work_shape), index))
            count = len(index)
        else:
            allowed = "integers, slices, '...' or None"
            raise _refuse(item, axis, f"{allowed}, lists or vectors" if arrays else allowed)
        work_shape.append(count)
        out_shape.append(count)
        axis += 1
    return Selection(tuple(parts), tuple(work_shape), tuple(out_shape))


def _vector(item: Any, axis: int, length: int) -> I64:
    array = _as_index_array(item, axis)
    if array.ndim != 1:
        raise SelectionError(
            f"axis {axis}: an orthogonal index must be one-dimensional, not {array.ndim}-D"
        )
    if array.dtype.kind == "b":
        if len(array) != length:
            raise BoundsError(
                f"boolean index of length {len(array)} does not fit axis {axis} with size {length}"
            )
        return np.flatnonzero(array)
    return _wrap(array, axis, length)


@staged("select")
def select_coordinates(selection: Any, shape: Shape) -> Selection:
    """Index arrays that broadcast against each other, mixed with slices, as NumPy does it."""
    items = _expand(selection, len(shape))
    advanced: list[tuple[int, npt.NDArray[Any]]] = []  # (axis, index array)
    positions: list[int] = []  # of the advanced items in `items`, boolean ones counted once
    axis = 0
    axis_of: list[int] = []
    for position, item in enumerate(items):
        axis_of.append(axis)
        if item is None:
            continue
        if isinstance(item, slice):
            axis += 1
        elif _is_integer(item):
            advanced.append((axis, np.asarray(_integer(item, axis, shape[axis]))))
            positions.append(position)
            axis += 1
        elif _is_sequence(item) or (isinstance(item, Sequence) and not isinstance(item, str)):
            array = _as_index_array(item, axis)
            positions.append(position)
            if array.dtype.kind == "b":
                _check_mask(array, axis, shape)
                advanced.extend((axis + i, index) for i, index in enumerate(array.nonzero()))
                axis += array.ndim
            else:
                advanced.append((axis, _wrap(array, axis, shape[axis])))
                axis += 1
        else:
            raise _refuse(item, axis, "integers, index arrays, masks, slices, '...' or None")
    if not any(index.ndim for _, index in advanced):
        return select_basic(tuple(items), shape)
    try:
        broadcast = np.broadcast_arrays(*(index for _, index in advanced))
    except ValueError as err:
        shapes = ", ".join(str(index.shape) for _, index in advanced)
        raise SelectionError(f"index arrays of shapes {shapes} cannot be broadcast") from err
    points_shape = broadcast[0].shape
    points = np.stack([b.reshape(-1) for b in broadcast], axis=1)

    # NumPy's rule: the points' axes stand where the first index array stood if all of them were
    # neighbours, else in front of everything.  An ellipsis parts them even where it stands for no
    # axis, so the selection is looked at as it was given.
    plain = (slice, EllipsisType, type(None))
    given = [i for i, item in enumerate(_tuple(selection)) if not isinstance(item, plain)]
    together = given == list(range(given[0], given[-1] + 1))
    parts: list[Part] = []
    work_shape: list[int] = []
    out_shape: list[int] = []

    def put_points() -> None:
        axes = tuple(a for a, _ in advanced)
        index = np.ascontiguousarray(points, np.int64)
        parts.append(JointLookup(axes, len(work_shape), index))
        work_shape.append(len(index))
        out_shape.extend(points_shape)

    if not together:
        put_points()
    for position, item in enumerate(items):
        if item is None:
            out_shape.append(1)
        elif isinstance(item, slice):
            a = axis_of[position]
            start, count, step = _slice(item, a, shape[a])
            parts.append(AxisRange(a, len(work_shape), start, count, step))
            work_shape.append(count)
            out_shape.append(count)
        elif together and position == positions[0]:
            put_points()
    return Selection(tuple(parts), tuple(work_shape), tuple(out_shape))


def _check_mask(mask: npt.NDArray[Any], axis: int, shape: Shape) -> None:
    for i, n in enumerate(mask.shape):
        if axis + i >= len(shape) or n != shape[axis + i]:
            raise BoundsError(
                f"boolean index of shape {mask.shape} does not fit axis {axis + i} of shape {shape}"
            )


@staged("select")
def select_mask(mask: Any, shape: Shape) -> Selection:
    """The items where a boolean array of the array's own shape is true, in C order."""
    if isinstance(mask, tuple) and len(mask) == 1:
        mask = mask[0]
    array = _as_array(mask)
    if array.dtype.kind != "b":
        raise SelectionError(f"a mask must hold booleans, not {array.dtype}")
    if array.shape != shape:
        raise BoundsError(f"mask of shape {array.shape} does not fit the array's shape {shape}")
    if not shape:  # NumPy: a 0-d mask selects nothing or the one item
        if array:
            return Selection((), (), (1,))
        return Selection((JointLookup((), 0, np.empty((0, 0), np.int64)),), (0,), (0,))
    return select_coordinates(array, shape)


@staged("select")
def select_blocks(selection: Any, grid: ChunkGrid) -> Selection:
    """Whole chunks by their position in the grid: integers and slices of step 1.

    No axis is dropped: block 3 is the slice of items that chunk 3 holds.
    """
    slices: list[slice] = []
    items = _expand(selection, grid.ndim)
    if any(item is None for item in items):
        raise SelectionError("a block selection cannot insert new axes")
    for number, (item, axis) in enumerate(zip(items, grid.axes, strict=True)):
        if _is_integer(item):
            low = _integer(item, number, axis.nchunks)
            high = low + 1
        elif isinstance(item, slice):
            low, count, step = _slice(item, number, axis.nchunks)
            if step != 1:
                raise SelectionError(f"axis {number}: a block slice must have step 1, not {step}")
            high = low + count
        else:
            raise _refuse(item, number, "integers or slices of blocks")
        slices.append(slice(low * axis.edge, min(high * axis.edge, axis.length)))
    return select_basic(tuple(slices), grid.array_shape)


@staged("select")
def select(selection: Any, shape: Shape) -> Selection:
    """What ``array[selection]`` means.

    Index arrays on every axis (or one mask) select points; index arrays mixed with slices select
    orthogonally; everything else is basic.
    """
    items = _tuple(selection)
    arrays = [item for item in items if _is_sequence(item)]
    if not arrays:
        return select_basic(selection, shape)
    if len(items) == 1 and _is_boolean(items[0]):
        return select_coordinates(selection, shape)
    points = all(_is_integer(item) or _is_sequence(item) for item in items)
    if points and len(items) == len(shape) and not any(_is_boolean(item) for item in arrays):
        return select_coordinates(selection, shape)
    if len(arrays) == 1 and np.ndim(arrays[0]) > 1:
        return select_coordinates(selection, shape)
    return select_orthogonal(selection, shape)


def split_fields(selection: Any) -> tuple[Any, str | list[str] | None]:
    """Field names taken out of a selection: ``array["x", 3:5]`` reads one field, several a list."""
    if isinstance(selection, str):
        return Ellipsis, selection
    if isinstance(selection, list) and selection and all(isinstance(s, str) for s in selection):
        return Ellipsis, selection
    if not isinstance(selection, tuple):
        return selection, None
    fields: list[str] = []
    single = True
    rest: list[Any] = []
    for item in selection:
        if isinstance(item, str):
            fields.append(item)
        elif isinstance(item, list) and item and all(isinstance(s, str) for s in item):
            fields.extend(item)
            single = False
        else:
            rest.append(item)
    if not fields:
        return selection, None
    remaining: Any = rest[0] if len(rest) == 1 else tuple(rest) if rest else Ellipsis
    return remaining, fields[0] if single and len(fields) == 1 else fields
