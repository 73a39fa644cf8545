"""Plans: which chunks a selection touches, and which of their items go where.

A plan is the outer product of small sets, one per axis (or one for axes indexed jointly).  Its
memory is the sum of the set sizes, not their product: a million chunks take a few kilobytes.  Dense
rows are made only for the batch in hand, by :meth:`Plan.batch`.

    set     the chunks touched along its axes; per chunk: count items, the first at `src` in the
            chunk (then every `step`-th), to be placed from `dst` on in the result
    table   for index arrays `src` and `dst` count entries of `src_index` and `dst_index` instead
    row     one distinct chunk of a batch, decoded once
    placement   one box of a row's chunk going to one box of the result

Imports ``grid`` and ``select``; used by the engine, by locating (coordinates only) and by devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.grid import ChunkAxis, ChunkGrid
from zarr_gpu.select import AxisLookup, AxisRange, Selection
from zarr_gpu.stages import staged

__all__ = ["AxisSet", "Batch", "Plan", "make_plan"]

I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Slice = slice | I64
Coords = tuple[int, ...]

FEW_CHUNKS = 16
"""Chunks along an axis that are cheaper to work out one by one than by NumPy."""

MOST_SLICES = 1 << 14
"""Chunks along one axis up to which all their slices are made ahead."""


@dataclass(frozen=True)
class AxisSet:
    """The chunks touched along one axis, or along several axes indexed jointly.

    With a lookup, ``src`` (``dst``) is the first entry of each chunk in ``src_index``
    (``dst_index``), and ``count`` the number of entries.  ``dst_index`` is None where the entries
    of each chunk stay neighbours in the result; ``dst`` is then a position as for a range.
    """

    axes: tuple[int, ...]
    out_axis: int | None  # None: dropped from the result
    chunk: I64  # (n, len(axes))
    count: I64  # (n,)
    src: I64  # (n,)
    dst: I64  # (n,)
    step: int  # distance in the chunk, negative for reversed ranges; 1 with a lookup
    src_index: I64 | None  # (m, len(axes)), positions within the chunk
    dst_index: I64 | None  # (m,)
    extent: I64  # (n, len(axes)), items of each chunk inside the array

    def __len__(self) -> int:
        return len(self.chunk)

    @cached_property
    def whole(self) -> Bool:
        """(n,) whether every item of the chunk inside the array is selected along these axes."""
        volume = self.extent.prod(axis=1)
        if self.src_index is None:
            result: Bool = (self.count == volume) & ((abs(self.step) == 1) | (volume == 1))
            return result
        # Repeated items must not be counted twice; few chunks have entries enough to look at them.
        enough = self.count >= volume
        entry = np.repeat(np.arange(len(self)), self.count)
        picked = enough[entry]
        rows = np.column_stack((entry[picked], self.src_index[picked]))
        rows = rows[np.lexsort(rows.T[::-1])]
        fresh = np.ones(len(rows), np.int64)
        fresh[1:] = (rows[1:] != rows[:-1]).any(axis=1)
        distinct = np.bincount(rows[:, 0], weights=fresh, minlength=len(self)).astype(np.int64)
        complete: Bool = enough & (distinct == volume)
        return complete

    def nobjects(self, chunks_per_object: tuple[int, ...]) -> int:
        """At most so many stored objects are touched along these axes."""
        if not len(self):
            return 0
        reach = 1
        for k, axis in enumerate(self.axes):
            owner = self.chunk[:, k] // chunks_per_object[axis]
            reach *= int(owner.max()) - int(owner.min()) + 1
        return min(reach, len(self))

    @cached_property
    def src_slices(self) -> Sequence[slice]:
        """Per chunk of a range: what to take from the chunk."""
        return _slices(self.src, self.count, self.step)

    @cached_property
    def src_tables(self) -> list[tuple[I64, ...]]:
        """Per chunk of a lookup: what to take from the chunk, a column per axis."""
        if self.src_index is None:
            return []
        return [tuple(table.T) for table in np.split(self.src_index, self.src[1:])]

    @cached_property
    def dst_slices(self) -> Sequence[Slice]:
        """Per chunk: where its items go along ``out_axis``."""
        if self.dst_index is None:
            return _slices(self.dst, self.count, 1)
        return np.split(self.dst_index, self.dst[1:])


class _LateSlices(Sequence[slice]):
    """Slices made when they are asked for, where all of them would take too much memory."""

    def __init__(self, start: I64, count: I64, step: int) -> None:
        self._start, self._count, self._step = start, count, step

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, i: Any) -> Any:
        return _slice(int(self._start[i]), int(self._count[i]), self._step)


def _slices(start: I64, count: I64, step: int) -> Sequence[slice]:
    if len(start) > MOST_SLICES:
        return _LateSlices(start, count, step)
    pairs = zip(start.tolist(), count.tolist(), strict=True)
    return [_slice(a, n, step) for a, n in pairs]


def _slice(start: int, count: int, step: int) -> slice:
    if step > 0:
        return slice(start, start + (count - 1) * step + 1, step if step != 1 else None)
    stop = start + count * step
    return slice(start, stop if stop >= 0 else None, step)


@dataclass(frozen=True)
class Batch:
    """A bounded run of a plan as dense arrays: ``n`` rows and their ``p`` placements.

    A plain selection has one placement per row (``p == n`` and ``row == arange(n)``).
    """

    coords: I64  # (n, ndim) chunk coordinates in the grid
    row: I64  # (p,) the row of each placement
    index: I64  # (p, nsets) the entry of each set that makes up the placement
    sets: tuple[AxisSet, ...]

    def __len__(self) -> int:
        return len(self.coords)

    @cached_property
    def complete(self) -> Bool:
        """(n,) whether every item of the chunk inside the array is selected."""
        complete = np.ones(len(self), np.bool_)
        for i, s in enumerate(self.sets):
            complete &= s.whole[self.index[:, i]]
        return complete

    def take(self, rows: I64) -> Batch:
        """Some of the rows, of a batch with one placement per row."""
        return Batch(self.coords[rows], np.arange(len(rows)), self.index[rows], self.sets)


@dataclass(frozen=True)
class Plan:
    """The outer product of ``sets`` over a grid.

    Examples
    --------
    >>> from zarr_gpu.select import select
    >>> plan = make_plan(select((slice(2, 9), 0), (10, 4)), ChunkGrid.regular((10, 4), (4, 4)))
    >>> plan.nchunks, plan.shape
    (3, (7,))
    >>> plan.rows(0, 3).coords.tolist()
    [[0, 0], [1, 0], [2, 0]]
    """

    sets: tuple[AxisSet, ...]
    ndim: int
    work_shape: tuple[int, ...]  # one axis per set that is not dropped
    shape: tuple[int, ...]  # of the result

    @cached_property
    def nchunks(self) -> int:
        n = 1
        for s in self.sets:
            n *= len(s)
        return n

    @property
    def nitems(self) -> int:
        n = 1
        for length in self.work_shape:
            n *= length
        return n

    def rows(self, lo: int, hi: int) -> Batch:
        """Rows ``lo`` to ``hi`` in C order of the sets."""
        n = max(0, min(hi, self.nchunks) - lo)
        index = np.empty((n, len(self.sets)), np.int64)
        rest = np.arange(lo, lo + n)
        for i in range(len(self.sets) - 1, -1, -1):
            length = len(self.sets[i])
            if length > 1:
                rest, index[:, i] = np.divmod(rest, length)
            else:
                index[:, i] = 0
        return self.batch(index)

    def batch(self, index: I64) -> Batch:
        """The rows made up of the entries ``index`` (n, nsets) of the sets."""
        n = len(index)
        coords = np.empty((n, self.ndim), np.int64)
        for i, s in enumerate(self.sets):
            entry = index[:, i]
            for k, axis in enumerate(s.axes):
                coords[:, axis] = s.chunk[entry, k]
        return Batch(coords, np.arange(n), index, self.sets)

    def batches(self, max_rows: int) -> Iterator[Batch]:
        """All rows in order, at most ``max_rows`` at a time."""
        for lo in range(0, self.nchunks, max_rows):
            yield self.rows(lo, lo + max_rows)

    def objects(self, chunks_per_object: tuple[int, ...]) -> Iterator[tuple[Coords, I64]]:
        """Rows by stored object: (coordinates of the object, ``index`` of its rows).

        Every object of the plan comes once, in C order of the sets.
        """
        ratio = np.array(chunks_per_object, np.int64)
        groups: list[list[tuple[Coords, I64]]] = []
        for s in self.sets:
            owner = s.chunk // ratio[list(s.axes)]  # (n, k)
            if len(s) == 0:
                return
            order = np.lexsort(owner.T[::-1]) if owner.shape[1] else np.arange(len(s))
            owner = owner[order]
            cut = np.flatnonzero((owner[1:] != owner[:-1]).any(axis=1)) + 1
            heads = [tuple(o) for o in owner[np.concatenate(([0], cut))].tolist()]
            groups.append(list(zip(heads, np.split(order, cut), strict=True)))
        for combination in product(*groups):
            coords = [0] * self.ndim
            for s, (head, _) in zip(self.sets, combination, strict=True):
                for axis, c in zip(s.axes, head, strict=True):
                    coords[axis] = c
            entries = [e for _, e in combination]
            index = np.empty((*(len(e) for e in entries), len(entries)), np.int64)
            for i, e in enumerate(entries):
                index[..., i] = e.reshape((-1,) + (1,) * (len(entries) - 1 - i))
            yield tuple(coords), index.reshape(math.prod(index.shape[:-1]), len(entries))


@staged("plan")
def make_plan(selection: Selection, grid: ChunkGrid) -> Plan:
    """Cut a selection along the chunk grid."""
    sets: list[AxisSet] = []
    nothing = 0 in selection.work_shape  # then no axis touches chunks, however long it is
    for part in selection.parts:
        if isinstance(part, AxisRange):
            chosen = AxisRange(part.axis, part.out_axis, 0, 0, 1) if nothing else part
            sets.append(_cut_range(chosen, grid.axes[part.axis]))
        elif isinstance(part, AxisLookup):
            sets.append(_cut_points((part.axis,), part.out_axis, part.index[:, None], grid))
        else:
            sets.append(_cut_points(part.axes, part.out_axis, part.index, grid))
    return Plan(tuple(sets), grid.ndim, selection.work_shape, selection.shape)


def _cut_range(part: AxisRange, axis: ChunkAxis) -> AxisSet:
    if part.count > 0 and abs(part.step) <= axis.edge:
        last = part.start + (part.count - 1) * part.step
        if abs(last - part.start) < FEW_CHUNKS * axis.edge:
            return _cut_short(part, axis, last)
    start, count, edge = part.start, part.count, axis.edge
    # Between less than two items there is no step; a huge one would not fit 64 bits.
    step = part.step if count > 1 else 1
    last = start + (count - 1) * step
    if count == 0:
        chunk = first = end = np.empty(0, np.int64)
    elif abs(step) <= edge:
        # Every chunk between the first and the last is touched.
        down = -1 if step < 0 else 1
        chunk = np.arange(start // edge, last // edge + down, down, dtype=np.int64)
        low = axis.start(chunk)
        high = low + axis.extent(chunk) - 1  # last item inside; the sum stays inside the array
        near, far = (low, high) if step > 0 else (high, low)
        # Item j is at start + j * step: the first j at or past `near`, the last j not past `far`.
        first = np.maximum(0, -((start - near) // step))
        end = np.minimum(count, (far - start) // step + 1)
    else:
        # A step longer than a chunk never meets the same chunk twice.
        chunk = (start + np.arange(count, dtype=np.int64) * step) // edge
        first = np.arange(count, dtype=np.int64)
        end = first + 1
    src = start + first * step - axis.start(chunk)
    return AxisSet(
        axes=(part.axis,),
        out_axis=part.out_axis,
        chunk=chunk[:, None],
        count=end - first,
        src=src,
        dst=first,
        step=step,
        src_index=None,
        dst_index=None,
        extent=axis.extent(chunk)[:, None],
    )


def _cut_short(part: AxisRange, axis: ChunkAxis, last: int) -> AxisSet:
    """A range over a few chunks, without NumPy's cost per call."""
    start, count, edge, length = part.start, part.count, axis.edge, axis.length
    step = part.step if count > 1 else 1
    rows = []
    down = -1 if step < 0 else 1
    for chunk in range(start // edge, last // edge + down, down):
        low = chunk * edge
        extent = min(edge, length - low)
        # Item j is at start + j * step: the first at or past one end, the last not past the other.
        near, far = (low, low + extent - 1) if down > 0 else (low + extent - 1, low)
        first = max(0, -((start - near) // step))
        items = min(count, (far - start) // step + 1) - first
        rows.append((chunk, items, start + first * step - low, first, extent))
    table = np.array(rows, np.int64).T.copy()
    return AxisSet(
        axes=(part.axis,),
        out_axis=part.out_axis,
        chunk=table[0][:, None],
        count=table[1],
        src=table[2],
        dst=table[3],
        step=step,
        src_index=None,
        dst_index=None,
        extent=table[4][:, None],
    )


def _cut_points(axes: tuple[int, ...], out_axis: int, index: I64, grid: ChunkGrid) -> AxisSet:
    """Group points by chunk with one stable sort, so that later repeats stay later."""
    m = len(index)
    edges = [grid.axes[a].edge for a in axes]
    # A column at a time: NumPy divides by one number several times as fast as by a row of them.
    columns = [index[:, k].copy() for k in range(len(axes))]
    chunks = [column // edge for column, edge in zip(columns, edges, strict=True)]
    order = _order(chunks, [grid.axes[a].nchunks for a in axes], m)
    for column, chunk, edge in zip(columns, chunks, edges, strict=True):
        column -= chunk * edge  # noqa: PLW2901  in place
    if order is not None:
        columns = [column[order] for column in columns]
        chunks = [chunk[order] for chunk in chunks]
    fresh = np.zeros(m, np.bool_)
    fresh[:1] = True
    for chunk in chunks:
        fresh[1:] |= chunk[1:] != chunk[:-1]
    begin = np.flatnonzero(fresh)
    touched = np.empty((len(begin), len(axes)), np.int64)
    extent = np.empty_like(touched)
    within = np.empty((m, len(axes)), np.int64)
    for k, a in enumerate(axes):
        touched[:, k] = chunks[k][begin]
        extent[:, k] = grid.axes[a].extent(touched[:, k])
        within[:, k] = columns[k]
    return AxisSet(
        axes=axes,
        out_axis=out_axis,
        chunk=touched,
        count=np.diff(begin, append=m),
        src=begin,
        dst=begin,
        step=1,
        src_index=within,
        dst_index=order,
        extent=extent,
    )


def _order(chunks: list[I64], counts: list[int], m: int) -> I64 | None:
    """A stable order that brings points of one chunk together; None where they already are."""
    if m < 2 or not counts:
        return None
    total = math.prod(counts)
    if total >= 2**62:
        return np.lexsort(chunks[::-1])  # also stable; the numbers would not fit 64 bits
    number = chunks[0]
    for k in range(1, len(counts)):
        number = number * counts[k] + chunks[k]
    if bool((number[1:] >= number[:-1]).all()):
        return None
    if total <= 1 << 16:
        number = number.astype(np.uint16)  # which NumPy sorts by radix, many times faster
    return np.argsort(number, kind="stable")
