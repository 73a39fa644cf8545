"""Boxes of chunks and of results, for the compiled loops of the CPU device: loops over addresses.

Every box is a product of sets, outermost first.  Entry ``e`` of set ``s`` is row ``at[s] + e`` of
``entries``: (start in the chunk, start in the result, count), both in bytes, with ``steps[s]`` =
(step in the chunk, step in the result, 0, column of the set in ``index``).  Where ``steps[s, 2]``
is 1 the set goes by tables: the first column of its entries is then the first of ``count``
positions in ``src_table`` and ``dst_table``.

These functions become part of the loops, whose files carry a stamp of this one: see
``tests/kernel_stamps.py``.

Imports Numba; called by the loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .host_calls import (  # noqa: TID251 (relative: a mapped package)
    fill,
    move,
    move1,
    move2,
    move4,
    move8,
)

__all__ = [
    "CHUNKS",
    "EDGE",
    "FAR",
    "FIRST",
    "ITEMS",
    "NEAR",
    "RATIO",
    "START",
    "STEP",
    "WEIGHT",
    "box_of",
    "cut_box",
    "place",
    "span_of",
    "spread",
]

# Columns of `axes`: the range (first item, items, step), the edge of a chunk, bytes from one item
# to the next in the chunk and in the result, the first chunk and how many, chunks per stored object
# and what a step to the next chunk adds to the number of a chunk in its object.
START, ITEMS, STEP, EDGE, NEAR, FAR, FIRST, CHUNKS, RATIO, WEIGHT = range(10)

_options = {"nogil": True, "error_model": "numpy"}


@njit(**_options)
def cut_box(axes: Any, order: Any) -> Any:
    """(entries, at, steps) of the ranges ``axes`` (ndim, 10), and how many objects along each axis.

    ``order`` says which axis each set is of.
    """
    ndim = len(axes)
    at, spans = np.empty(ndim, np.int64), np.empty(ndim, np.int64)
    steps = np.zeros((ndim, 4), np.int64)
    entries = np.empty((axes[:, CHUNKS].sum(), 3), np.int64)
    used = 0
    for s in range(ndim):
        a = order[s]
        start, items, step, edge = axes[a, START], axes[a, ITEMS], axes[a, STEP], axes[a, EDGE]
        near, far, first = axes[a, NEAR], axes[a, FAR], axes[a, FIRST]
        chunks, ratio = axes[a, CHUNKS], axes[a, RATIO]
        down = -1 if step < 0 else 1
        at[s] = used
        steps[s, 0], steps[s, 1], steps[s, 3] = near * step, far, a
        spans[a] = abs((first + down * (chunks - 1)) // ratio - first // ratio) + 1
        for i in range(chunks):
            low = (first + down * i) * edge
            # Item j is at start + j * step: the first in the chunk, and the first behind it.
            head, tail = (low, low + edge - 1) if step > 0 else (low + edge - 1, low)
            j = max(0, -((start - head) // step))
            entries[used, 0] = (start + j * step - low) * near
            entries[used, 1] = j * far
            entries[used, 2] = min(items, (tail - start) // step + 1) - j
            used += 1
    return entries, at, steps, spans


@njit(**_options)
def box_of(index: Any, row: Any, entries: Any, at: Any, steps: Any, box: Any) -> Any:
    """Fill ``box`` (k, 5) with the loops of a row, outermost first; returns (k, start, start).

    A loop is (count, step, step, whether by table, first in the tables).  Loops over one item and
    loops that continue the one inside them disappear.
    """
    k = 0
    src = 0
    dst = 0
    for s in range(len(at)):
        e = at[s] + index[row, steps[s, 3]]
        count = entries[e, 2]
        if steps[s, 2]:
            box[k, 0], box[k, 1], box[k, 2], box[k, 3], box[k, 4] = count, 0, 0, 1, entries[e, 0]
            k += 1
            continue
        src += entries[e, 0]
        dst += entries[e, 1]
        if count == 1:
            continue
        a, b = steps[s, 0], steps[s, 1]
        if k and not box[k - 1, 3] and box[k - 1, 1] == count * a and box[k - 1, 2] == count * b:
            box[k - 1, 0] *= count
            box[k - 1, 1], box[k - 1, 2] = a, b
            continue
        box[k, 0], box[k, 1], box[k, 2], box[k, 3], box[k, 4] = count, a, b, 0, 0
        k += 1
    return k, src, dst


@njit(**_options)
def span_of(box: Any, k: Any, src: Any, itemsize: Any, table: Any) -> Any:
    """(first byte, byte after the last) of the chunk that a row needs."""
    low = src
    high = src
    for i in range(k):
        if box[i, 3]:
            least = table[box[i, 4]]
            most = least
            for j in range(box[i, 4], box[i, 4] + box[i, 0]):
                least = min(least, table[j])
                most = max(most, table[j])
            low += least
            high += most
        else:
            reach = (box[i, 0] - 1) * box[i, 1]
            if reach < 0:
                low += reach
            else:
                high += reach
    return low, high + itemsize


@njit(**_options)
def _items(dst: Any, src: Any, count: Any, ds: Any, ss: Any, itemsize: Any) -> None:
    """Copy ``count`` items that lie ``ds`` and ``ss`` bytes apart."""
    if itemsize == 1:
        for _ in range(count):
            move1(dst, src)
            dst += ds
            src += ss
    elif itemsize == 2:
        for _ in range(count):
            move2(dst, src)
            dst += ds
            src += ss
    elif itemsize == 4:
        for _ in range(count):
            move4(dst, src)
            dst += ds
            src += ss
    elif itemsize == 8:
        for _ in range(count):
            move8(dst, src)
            dst += ds
            src += ss
    else:
        for _ in range(count):
            move(dst, src, itemsize)
            dst += ds
            src += ss


@njit(**_options)
def _looked_up(dst: Any, src: Any, first: Any, count: Any, dt: Any, st: Any, itemsize: Any) -> None:
    """Copy items whose places come from tables."""
    if itemsize == 1:
        for j in range(first, first + count):
            move1(dst + dt[j], src + st[j])
    elif itemsize == 2:
        for j in range(first, first + count):
            move2(dst + dt[j], src + st[j])
    elif itemsize == 4:
        for j in range(first, first + count):
            move4(dst + dt[j], src + st[j])
    elif itemsize == 8:
        for j in range(first, first + count):
            move8(dst + dt[j], src + st[j])
    else:
        for j in range(first, first + count):
            move(dst + dt[j], src + st[j], itemsize)


@njit(**_options)
def _turn(box: Any, at: Any, i: Any) -> Any:
    """Go on to the next position of loops 0 to ``i``; False where there is none."""
    while i >= 0:
        at[i] += 1
        if at[i] < box[i, 0]:
            return True
        at[i] = 0
        i -= 1
    return False


@njit(**_options)
def place(
    box: Any, k: Any, src: Any, dst: Any, itemsize: Any, src_table: Any, dst_table: Any, at: Any
) -> None:
    """Copy a box; ``at`` (k,) is scratch for the positions of the outer loops."""
    if k == 0:
        move(dst, src, itemsize)
        return
    run = 0
    last = k - 1
    count, ss, ds = box[last, 0], box[last, 1], box[last, 2]
    if not box[last, 3] and ss == itemsize and ds == itemsize:
        run = count * itemsize
    for i in range(last):
        at[i] = 0
    while True:
        s = src
        d = dst
        for i in range(last):
            if box[i, 3]:
                s += src_table[box[i, 4] + at[i]]
                d += dst_table[box[i, 4] + at[i]]
            else:
                s += at[i] * box[i, 1]
                d += at[i] * box[i, 2]
        inner = last - 1
        # The innermost of the outer loops runs here, without working out the others again.
        rows_by_table = inner < 0 or box[inner, 3] != 0
        rows, a, b = 1, 0, 0
        if not rows_by_table:
            rows, a, b = box[inner, 0], box[inner, 1], box[inner, 2]
        for _ in range(rows):
            if run:
                move(d, s, run)
            elif box[last, 3]:
                _looked_up(d, s, box[last, 4], count, dst_table, src_table, itemsize)
            else:
                _items(d, s, count, ds, ss, itemsize)
            s += a
            d += b
        if not _turn(box, at, inner if rows_by_table else inner - 1):
            return


@njit(**_options)
def spread(box: Any, k: Any, dst: Any, item: Any, itemsize: Any, dst_table: Any, at: Any) -> None:
    """Fill a box of the result with one item."""
    run = 0
    last = k - 1
    if k and not box[last, 3] and box[last, 2] == itemsize:
        run = box[last, 0]
    same = True
    for i in range(1, itemsize):
        same = same and item[i] == item[0]
    value = item.ctypes.data
    for i in range(k):
        at[i] = 0
    while True:
        d = dst
        for i in range(k):
            if box[i, 3]:
                d += dst_table[box[i, 4] + at[i]]
            else:
                d += at[i] * box[i, 2]
        if run and same:
            fill(d, int(item[0]), run * itemsize)
        elif run:
            for j in range(run):
                move(d + j * itemsize, value, itemsize)
        else:
            move(d, value, itemsize)
        if not _turn(box, at, last - 1 if run else last):
            return
