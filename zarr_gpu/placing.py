"""Placing on the host: boxes of chunks to boxes of results and back, by NumPy indexing.

A box is an index into an array with one entry per axis: slices and integers (cheap: a view) and
tables of positions from index arrays.  Reading is ``put(out, dst, take(chunk, src))``, writing the
same with the sides exchanged.  Imports ``plan``; used by the CPU device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.plan import Plan

__all__ = ["Box", "Placer", "copy", "put", "take"]

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

LONGEST_ROW = 1 << 20
"""Bytes up to which a row is copied as one item; longer ones gain nothing."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box of an array.

    ``basic`` has a slice or integer for every axis (all of the axis where a table follows).
    ``tables`` are (first axis, columns): columns of one table stand for axes that are indexed
    jointly.  Axes count after the integers of ``basic`` have dropped theirs.
    """

    basic: tuple[Any, ...]
    tables: tuple[tuple[tuple[int, ...], tuple[I64, ...]], ...] = ()
    order: tuple[int, ...] | None = None
    """Order of the result's axes, where it is not that of the array's (points put in front)."""


def _mesh(array: Array, tables: tuple[tuple[tuple[int, ...], tuple[I64, ...]], ...]) -> Any:
    """An index that applies several tables orthogonally and keeps the order of the axes."""
    if len(tables) == 1:
        axes, columns = tables[0]
        if axes and axes == tuple(range(axes[0], axes[0] + len(axes))):
            return (*(slice(None),) * axes[0], *columns)
    # Every axis gets an index array along a dimension of its own; jointly indexed axes share one.
    owner: dict[int, int] = {a: i for i, (axes, _) in enumerate(tables) for a in axes}
    dimension: dict[int, int] = {}
    ndims = 0
    for axis in range(array.ndim):
        table = owner.get(axis)
        if table is None:
            dimension[axis] = ndims
            ndims += 1
        elif tables[table][0][0] == axis:
            for a in tables[table][0]:
                dimension[a] = ndims
            ndims += 1
    index: list[I64] = []
    for axis in range(array.ndim):
        table = owner.get(axis)
        if table is None:
            values = np.arange(array.shape[axis])
        else:
            axes, columns = tables[table]
            values = columns[axes.index(axis)]
        shape = [1] * ndims
        shape[dimension[axis]] = len(values)
        index.append(values.reshape(shape))
    return tuple(index)


def _full(order: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """``order`` with the axes that items have of their own (fields of several elements)."""
    return (*order, *range(len(order), ndim))


def take(array: Array, box: Box) -> Array:
    """The items of a box; a view where the box has no tables."""
    # The ellipsis keeps an index of nothing but integers a view; an object would be taken out.
    view: Array = array[(*box.basic, ...)]
    if not box.tables:
        return view
    result: Array = view[_mesh(view, box.tables)]
    return result if box.order is None else result.transpose(_full(box.order, result.ndim))


def copy(target: Array, source: Array) -> None:
    """``target[...] = source``, faster where both lie in memory as runs of the same items.

    NumPy copies item by item within a row of a strided array.  Seen as one item per row, rows are
    copied as a whole: up to three times as fast.
    """
    dtype, shape = target.dtype, target.shape
    if (
        len(shape) > 1
        and shape == source.shape
        and dtype == source.dtype
        and dtype.names is None  # between the fields that are meant lie others
        and shape[-1] > 1
        and not dtype.hasobject
        and dtype.kind != "T"
        and target.strides[-1] == source.strides[-1] == dtype.itemsize
        and shape[-1] * dtype.itemsize <= LONGEST_ROW
    ):
        row = f"V{shape[-1] * dtype.itemsize}"
        target, source = target.view(row), source.view(row)
    target[...] = source


def put(array: Array, box: Box, values: Any) -> None:
    """Assign to a box; ``values`` has the shape that ``take`` would give, or is a scalar."""
    view: Array = array[(*box.basic, ...)]
    if not box.tables:
        if isinstance(values, np.ndarray):
            copy(view, values)
        else:
            view[...] = values
        return
    if box.order is not None and np.ndim(values):
        values = values.transpose(np.argsort(_full(box.order, values.ndim)))
    view[_mesh(view, box.tables)] = values


class Placer:
    """Makes the boxes of a plan's placements; the parts per axis are made once per plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.plain = all(s.src_index is None for s in plan.sets)
        if self.plain:
            # An axis that is dropped has one chunk and one item.
            self._src: list[Sequence[Any]] = [
                s.src.tolist() if s.out_axis is None else s.src_slices for s in plan.sets
            ]
            self._dst = [s.dst_slices for s in plan.sets if s.out_axis is not None]
            self._kept = [i for i, s in enumerate(plan.sets) if s.out_axis is not None]
            self._all_kept = len(self._kept) == len(plan.sets)
        else:
            # `take` yields axes in the chunk's order, the result wants those of the sets.
            kept = [s for s in plan.sets if s.out_axis is not None]
            by_axis = sorted(range(len(kept)), key=lambda i: min(kept[i].axes, default=0))
            order = tuple(by_axis.index(i) for i in range(len(kept)))
            self._order = order if order != tuple(range(len(kept))) else None

    def slices(self, entries: list[int]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """(index into the chunk, index into the result) of a plan without tables."""
        src = tuple([table[e] for table, e in zip(self._src, entries, strict=True)])
        if not self._all_kept:
            entries = [entries[i] for i in self._kept]
        # The ellipsis keeps an index of nothing but integers a view.
        return src, (*[table[e] for table, e in zip(self._dst, entries, strict=True)], ...)

    def spans(self, strides: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        """Per set of a plan without tables: the lowest and the highest byte of each chunk.

        ``strides`` are bytes from item to item in the chunk.  Summed over the sets they are those
        of the first and of the last item that a placement needs.
        """
        spans = []
        for s in self.plan.sets:
            first = s.src * strides[s.axes[0]]
            last = first + (s.count - 1) * (s.step * strides[s.axes[0]])
            spans.append((np.minimum(first, last).tolist(), np.maximum(first, last).tolist()))
        return spans

    def boxes(self, entries: list[int]) -> tuple[Box, Box]:
        """(box of the chunk, box of the result) of one placement."""
        if self.plain:
            src, dst = self.slices(entries)
            return Box(src), Box(dst[:-1])
        plan = self.plan
        basic: list[slice | int] = [slice(None)] * plan.ndim
        tables: list[tuple[tuple[int, ...], tuple[I64, ...]]] = []
        out_basic: list[slice | int] = [slice(None)] * len(plan.work_shape)
        out_tables: list[tuple[tuple[int, ...], tuple[I64, ...]]] = []
        for s, e in zip(plan.sets, entries, strict=True):
            if s.src_index is not None:
                tables.append((s.axes, s.src_tables[e]))
            elif s.out_axis is None:
                basic[s.axes[0]] = int(s.src[e])
            else:
                basic[s.axes[0]] = s.src_slices[e]
            if s.out_axis is not None:
                target = s.dst_slices[e]
                if s.dst_index is not None:
                    out_tables.append(((s.out_axis,), (target,)))  # type: ignore[arg-type]
                else:
                    out_basic[s.out_axis] = target  # type: ignore[assignment]
        # Tables are applied to the view that `basic` leaves: integers have dropped their axes.
        kept = [a for a in range(plan.ndim) if not isinstance(basic[a], int)]
        place = {a: i for i, a in enumerate(kept)}
        moved = tuple((tuple(place[a] for a in axes), cols) for axes, cols in tables)
        src_box = Box(tuple(basic), moved, self._order)
        return src_box, Box(tuple(out_basic), tuple(out_tables))
