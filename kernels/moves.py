"""Kernels that move units of 1, 2, 4 or 8 bytes: chunks to results and back, fills, copies.

Every body is plain Python over (thread number, number of threads, arrays, numbers): a loop whose
stride is the number of threads, so that one thread does all work and thousands share it.  ``tpr``
threads serve one row; any number from 1 is right, and more of them than a block has is fine, since
threads never wait for each other.

Arrays are flat.  Offsets and lengths are int64, ``status`` is int32 with one entry per row, all 0
before: 1 tells bad input, 2 a place outside of the output, 3 a checksum that differs.  A bad row
never writes outside of the output, and writes nothing to the others.

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Products beyond this would not fit 64 bits; as a number of bytes no memory is that large.
_HUGE = 1 << 62
# Units of an item from which on the threads of a warp are busy with one item.
_LONG = 32

# Types of the arguments behind (tid, nthreads), for compiling ahead of time; see `registry`.
SIGNATURES = {
    "scatter": ("n T i i i n i i n n T T s", ("u1", "u2", "u4", "u8")),
    "gather": ("n T i i i n i i n n T s", ("u1", "u2", "u4", "u8")),
    "fill_rows": ("n T i i T n s", ("u1", "u2", "u4", "u8")),
    "copy_segments": ("n T i T i i s", ("u1", "u2", "u4", "u8")),
    "byteswap": ("n T i i s", ("u2", "u4", "u8")),
    "write_u32": ("b i i n s", ()),
}

_8 = np.uint64(8)
_16 = np.uint64(16)
_24 = np.uint64(24)
_32 = np.uint64(32)
_LOW = np.uint64(0xFF)
_EVEN = np.uint64(0x00FF00FF00FF00FF)
_PAIRS = np.uint64(0x0000FFFF0000FFFF)


def _swapped(value: Any, width: int) -> Any:
    """A unit of ``width`` bytes with its bytes in reverse, as uint64."""
    x = np.uint64(value)
    if width == 2:
        return ((x & _LOW) << _8) | (x >> _8)
    if width == 4:
        x = ((x & _EVEN) << _8) | ((x >> _8) & _EVEN)
        return ((x & _PAIRS) << _16) | (x >> _16)
    if width == 8:
        x = ((x & _EVEN) << _8) | ((x >> _8) & _EVEN)
        x = ((x & _PAIRS) << _16) | ((x >> _16) & _PAIRS)
        return (x << _32) | (x >> _32)
    return x


def _move_row(
    row: int,
    lane: int,
    tpr: int,
    take: Any,
    take_origin: int,
    take_tab: Any,
    put: Any,
    put_origin: int,
    put_tab: Any,
    set_start: Any,
    set_count: Any,
    nsets: int,
    units: int,
    swap: int,
    missing: bool,
    fill: Any,
) -> int:
    """One lane's part of one row; the status of the row as far as this lane sees it."""
    width = take.itemsize
    ntake = len(take)
    nput = len(put)
    nfill = len(fill)
    first_set = row * nsets
    if nsets < 0 or units < 1 or first_set + nsets > min(len(set_start), len(set_count)):
        return 1
    if missing and nfill < 1:
        return 1
    ntab = min(len(take_tab), len(put_tab))
    lines = 1
    inner = 1
    last = 0
    for s in range(nsets):
        start = set_start[first_set + s]
        count = set_count[first_set + s]
        if start < 0 or count < 0 or start > ntab - count:
            return 1
        # Long items are lines of their own; else the items of the last set make up a line.
        if s == nsets - 1 and units < _LONG:
            inner = count
            last = start
        else:
            if count > 0 and lines > _HUGE // count:
                return 1
            lines *= count
    if inner == 0 or lines == 0:
        return 0
    if inner > _HUGE // units:
        return 1
    length = inner * units
    outer = nsets if units >= _LONG or nsets == 0 else nsets - 1

    # Neighbouring lanes take neighbouring units of a line.  Groups of lanes share the lines: as
    # many groups as there are lines, down to 32 lanes (one transaction of memory), and fewer lanes
    # where lines are shorter than that.
    group = tpr
    while group > 32 and group % 2 == 0 and tpr // group < lines:
        group //= 2
    while group % 2 == 0 and group // 2 >= length:
        group //= 2

    status = 0
    for line in range(lane // group, lines, tpr // group):
        take_line = take_origin
        put_line = put_origin
        rest = line
        for s in range(outer - 1, -1, -1):
            count = set_count[first_set + s]
            above = rest // count
            entry = set_start[first_set + s] + rest - above * count
            take_line += take_tab[entry]
            put_line += put_tab[entry]
            rest = above
        for k in range(lane % group, length, group):
            unit = k
            a = take_line
            b = put_line
            if outer < nsets:
                item = k
                unit = 0
                if units > 1:
                    item = k // units
                    unit = k - item * units
                a += take_tab[last + item]
                b += put_tab[last + item]
            a += unit
            b += unit
            if b < 0 or b >= nput:
                status = 2
            elif missing:
                put[b] = fill[unit if unit < nfill else unit % nfill]
            elif a < 0 or a >= ntake:
                status = 1
            elif swap != 0:
                put[b] = _swapped(take[a], width)
            else:
                put[b] = take[a]
    return status


def scatter(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    base: Any,
    set_start: Any,
    set_count: Any,
    nsets: int,
    src_tab: Any,
    dst_tab: Any,
    units: int,
    swap: int,
    fill: Any,
    out: Any,
    status: Any,
) -> None:
    """Chunks to their places in the result; a row is a placement.

    ``src``, ``fill`` and ``out`` have the same unsigned type, the unit; an item has ``units`` of
    them.  ``base[p]`` is the first unit of the chunk of placement ``p`` in ``src``, or -1 where the
    chunk is missing: unit ``u`` of every item is then ``fill[u % len(fill)]``.  Set ``s`` of
    placement ``p`` are the entries ``set_start[p * nsets + s]`` and the ``set_count`` following
    ones of the tables, which hold offsets in units.  The item (j0, j1, ...) goes from ``base`` plus
    the sum of its entries in ``src_tab`` to the sum of its entries in ``dst_tab``.  Without sets
    there is one item.  ``swap``: reverse the bytes of every unit.  Where several items have the
    same place, any of them stays.
    """
    for v in range(tid, len(base) * tpr, nthreads):
        row = v // tpr
        if row < len(status):
            origin = base[row]
            bad = 1
            if origin >= -1:
                bad = _move_row(
                    row,
                    v - row * tpr,
                    tpr,
                    src,
                    origin,
                    src_tab,
                    out,
                    0,
                    dst_tab,
                    set_start,
                    set_count,
                    nsets,
                    units,
                    swap,
                    origin < 0,
                    fill,
                )
            if bad != 0:
                status[row] = bad


def gather(
    tid: int,
    nthreads: int,
    tpr: int,
    chunk: Any,
    base: Any,
    set_start: Any,
    set_count: Any,
    nsets: int,
    src_tab: Any,
    dst_tab: Any,
    units: int,
    swap: int,
    values: Any,
    status: Any,
) -> None:
    """Values to their places in chunks: ``scatter`` backwards, with the same tables.

    Rows without a chunk (``base`` below 0) are bad input.
    """
    for v in range(tid, len(base) * tpr, nthreads):
        row = v // tpr
        if row < len(status):
            origin = base[row]
            bad = 1
            if origin >= 0:
                bad = _move_row(
                    row,
                    v - row * tpr,
                    tpr,
                    values,
                    0,
                    dst_tab,
                    chunk,
                    origin,
                    src_tab,
                    set_start,
                    set_count,
                    nsets,
                    units,
                    swap,
                    False,
                    values,
                )
            if bad != 0:
                status[row] = bad


def fill_rows(
    tid: int,
    nthreads: int,
    tpr: int,
    out: Any,
    base: Any,
    count: Any,
    pattern: Any,
    units: int,
    status: Any,
) -> None:
    """``out[base[r] + i] = pattern[i % units]`` for all ``i`` below ``count[r]``."""
    for v in range(tid, len(base) * tpr, nthreads):
        row = v // tpr
        if row >= len(count) or row >= len(status):
            continue
        start = base[row]
        n = count[row]
        if units < 1 or units > len(pattern):
            status[row] = 1
        elif start < 0 or n < 0 or start > len(out) - n:
            status[row] = 2
        elif units == 1:
            for i in range(v - row * tpr, n, tpr):
                out[start + i] = pattern[0]
        else:
            for i in range(v - row * tpr, n, tpr):
                out[start + i] = pattern[i % units]


def copy_segments(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    src_off: Any,
    dst: Any,
    dst_off: Any,
    nbytes: Any,
    status: Any,
) -> None:
    """Copy one segment per row.

    Offsets and lengths count units of the arrays: bytes, or larger units where all is aligned.
    """
    for v in range(tid, len(src_off) * tpr, nthreads):
        row = v // tpr
        if row >= len(dst_off) or row >= len(nbytes) or row >= len(status):
            continue
        a = src_off[row]
        b = dst_off[row]
        n = nbytes[row]
        if n < 0 or a < 0 or a > len(src) - n:
            status[row] = 1
        elif b < 0 or b > len(dst) - n:
            status[row] = 2
        else:
            for i in range(v - row * tpr, n, tpr):
                dst[b + i] = src[a + i]


def byteswap(
    tid: int, nthreads: int, tpr: int, data: Any, start: Any, items: Any, status: Any
) -> None:
    """Reverse the bytes of ``items[r]`` units from ``start[r]`` on, in place."""
    width = data.itemsize
    for v in range(tid, len(start) * tpr, nthreads):
        row = v // tpr
        if row >= len(items) or row >= len(status):
            continue
        first = start[row]
        n = items[row]
        if n < 0 or first < 0 or first > len(data) - n:
            status[row] = 1
        else:
            for i in range(v - row * tpr, n, tpr):
                data[first + i] = _swapped(data[first + i], width)


def write_u32(
    tid: int, nthreads: int, dst: Any, at: Any, value: Any, big_endian: int, status: Any
) -> None:
    """Put the low 32 bits of ``value[r]`` at byte ``at[r]``: sizes and offsets of frames."""
    for row in range(tid, len(at), nthreads):
        if row >= len(value) or row >= len(status):
            continue
        start = at[row]
        if start < 0 or start > len(dst) - 4:
            status[row] = 2
            continue
        x = np.uint64(value[row])
        for k in range(4):
            place = start + (3 - k if big_endian != 0 else k)
            dst[place] = x & _LOW
            x = x >> _8
