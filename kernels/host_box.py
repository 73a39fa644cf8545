"""Reading a box of chunks in one compiled loop, without the GIL.

As ``host_rows``, for basic selections: which chunks there are, what of them goes where, and the
paths of their files are worked out here.

Imports Numba; called by the CPU device.
"""

# Imports stamped: 91104e796ff0

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from .host_boxes import (  # noqa: TID251 (relative: a mapped package)
    CHUNKS,
    FIRST,
    RATIO,
    STEP,
    WEIGHT,
    box_of,
    cut_box,
    spread,
)
from .host_calls import draw, load8  # noqa: TID251
from .host_reads import (  # noqa: TID251
    DONE,
    MISSING,
    PATHS,
    REST,
    close,
    held,
    near,
    open_file,
    read_row,
)

__all__ = ["enter_object", "extent_of", "read_box", "write_path"]

_options = {"nogil": True, "error_model": "numpy"}

_i, _b = types.int64[::1], types.uint8[::1]
_n, _ii = types.int64, types.int64[:, ::1]
_BOX = types.int64(
    *(_i, _n, _ii, _i, _i),
    *(_n, _n, _b, _n, _n, _ii),
    *(_n, _i, _b, _n, _n, _b, _b, _i),
)


@njit(**_options)
def write_path(path: Any, at: Any, separator: Any, coords: Any) -> Any:
    """Write coordinates in decimal from byte ``at`` on, and a NUL; returns where that is."""
    for a in range(len(coords)):
        if a:
            path[at] = separator
            at += 1
        digits = 1
        rest = coords[a] // 10
        while rest:
            digits += 1
            rest //= 10
        rest = coords[a]
        for i in range(at + digits - 1, at - 1, -1):
            path[i] = 48 + rest % 10
            rest //= 10
        at += digits
    path[at] = 0
    return at


@njit(**_options)
def enter_object(key: Any, axes: Any, spans: Any, owner: Any, part: Any) -> Any:
    """Enter object number ``key``: how many rows it has.

    ``owner`` (ndim,) become its coordinates, ``part`` (ndim, 2) its first chunk along each axis of
    the box and how many.
    """
    rows = 1
    for a in range(len(axes) - 1, -1, -1):
        i = key % spans[a]
        key //= spans[a]
        first, ratio = axes[a, FIRST], axes[a, RATIO]
        down = axes[a, STEP] < 0
        owner[a] = first // ratio - i if down else first // ratio + i
        outside = ratio - 1 - first % ratio if down else first % ratio
        lo = max(0, i * ratio - outside)
        part[a, 0], part[a, 1] = lo, min(axes[a, CHUNKS], (i + 1) * ratio - outside) - lo
        rows *= part[a, 1]
    return rows


@njit(**_options)
def extent_of(row: Any, axes: Any, table: Any, owner: Any, part: Any, index: Any) -> Any:
    """(offset, nbytes) of a row within its object; its chunk along each axis becomes ``index``."""
    number = 0
    for a in range(len(axes) - 1, -1, -1):
        i = part[a, 0] + row % part[a, 1]
        row //= part[a, 1]
        index[0, a] = i
        chunk = axes[a, FIRST] - i if axes[a, STEP] < 0 else axes[a, FIRST] + i
        number += (chunk - owner[a] * axes[a, RATIO]) * axes[a, WEIGHT]
    if table < 0:
        return 0, REST
    if table == 0:
        return 0, MISSING
    return load8(table + 16 * number), load8(table + 16 * number + 8)


@njit(_BOX, cache=True, **_options)
def read_box(
    turn: Any,
    run: Any,
    axes: Any,
    order: Any,
    tables: Any,
    kind: Any,
    source: Any,
    path: Any,
    prefix: Any,
    separator: Any,
    values: Any,
    codec: Any,
    functions: Any,
    item: Any,
    chunk_nbytes: Any,
    out: Any,
    encoded: Any,
    decoded: Any,
    status: Any,
) -> Any:
    """Read a box of chunks into the result, together with other threads that make the same call.

    The stored objects that the box touches are numbered in C order.  Rows are its chunks, one
    object after the other, in C order within each.

    Parameters
    ----------
    turn, run, codec, functions, item, chunk_nbytes, out, encoded, decoded, status
        As for ``read_rows``.
    axes
        (ndim, 10) numbers of each axis: see above.
    order
        (ndim,) the axes, that whose items lie closest in the result last.
    tables
        (objects,) addresses of the parsed indexes, 0 where there is no object; empty where objects
        are chunks.
    kind, source, path, prefix, separator, values
        Where the values lie.  PATHS: ``path`` begins with the ``prefix`` bytes that all have in
        common; the coordinates of the object follow, ``separator`` between them.  Others: as for
        ``read_rows``, by object.

    Returns
    -------
    How many rows are done.
    """
    nrows, ndim = len(status), len(axes)
    entries, at, steps, spans = cut_box(axes, order)
    index = np.empty((1, ndim), np.int64)
    owner, part = np.empty(ndim, np.int64), np.empty((ndim, 2), np.int64)
    nowhere = np.empty(0, np.int64)
    box = np.empty((ndim + 1, 5), np.int64)
    position = np.empty(ndim + 1, np.int64)
    have = np.full(3, -1, np.int64)
    opened = np.array([source, -1])
    itemsize = len(item)
    coding, memory = (codec, functions, chunk_nbytes, itemsize), (encoded, have, decoded)
    done = row = stop = front = behind = 0
    key = -1
    while True:
        row += 1
        if row >= stop:
            row = draw(turn.ctypes.data, run)
            if row >= nrows:
                break
            stop = min(row + run, nrows)
        while row >= behind:
            key += 1
            front = behind
            behind += enter_object(key, axes, spans, owner, part)
        table = tables[key] if len(tables) else -1
        begin, size = extent_of(row - front, axes, table, owner, part, index)
        start, total = 0, -1
        fd = opened[0]
        if size != MISSING and kind != PATHS:
            start, total = values[key, 0], values[key, 1]
            if total == MISSING:
                size = MISSING
            elif total < 0:
                continue
        elif size != MISSING and opened[1] != key:
            write_path(path, prefix, separator, owner)
            fd = open_file(functions, path, key, opened)
            if fd == MISSING:
                size = MISSING
            elif fd < 0:
                continue
        reach = begin + size
        if size >= 0 and not held(have, key, begin, reach):
            # Neighbours in the same file come with it.
            for j in range(row + 1, min(stop, behind)):
                lo, nbytes = extent_of(j - front, axes, table, owner, part, index)
                if not near(begin, reach, lo, nbytes):
                    break
                reach = max(reach, lo + nbytes)
            extent_of(row - front, axes, table, owner, part, index)  # is in `index` again
        k, src, dst = box_of(index, 0, entries, at, steps, box)
        if size == MISSING:
            spread(box, k, out + dst, item, itemsize, nowhere, position)
        elif not read_row(
            coding,
            (kind, fd, key, start, total),
            (begin, size, reach),
            memory,
            (box, k, src, out + dst, nowhere, nowhere, position),
        ):
            continue
        status[row] = DONE
        done += 1
    if kind == PATHS:
        close(functions, opened)
    return done
