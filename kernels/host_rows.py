"""Reading the rows of a batch in one compiled loop, without the GIL.

What a lane of the CPU device does row by row in Python, done for many rows by one call.  Rows that
cannot be read are left to the caller; see ``host_reads``.

Imports Numba; called by the CPU device.
"""

# Imports stamped: 91104e796ff0

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from .host_boxes import box_of, spread  # noqa: TID251 (relative: a mapped package)
from .host_calls import draw  # noqa: TID251
from .host_reads import (  # noqa: TID251
    DONE,
    MISSING,
    PATHS,
    close,
    held,
    near,
    open_file,
    read_row,
)

__all__ = ["read_rows"]

_i, _b = types.int64[::1], types.uint8[::1]
_n, _ii = types.int64, types.int64[:, ::1]
_ROWS = types.int64(
    *(_i, _n, _ii, _ii, _i, _ii, _i, _i),
    *(_n, _n, _b, _n, _b, _i, _ii),
    *(_i, _i, _i, _n, _i, _b, _n, _n, _b, _b, _i),
)


@njit(_ROWS, cache=True, nogil=True, error_model="numpy")
def read_rows(
    turn: Any,
    run: Any,
    index: Any,
    entries: Any,
    at: Any,
    steps: Any,
    src_table: Any,
    dst_table: Any,
    kind: Any,
    source: Any,
    path: Any,
    prefix: Any,
    keys: Any,
    key_at: Any,
    values: Any,
    key_id: Any,
    offset: Any,
    nbytes: Any,
    codec: Any,
    functions: Any,
    item: Any,
    chunk_nbytes: Any,
    out: Any,
    encoded: Any,
    decoded: Any,
    status: Any,
) -> Any:
    """Read rows of a batch into the result, together with other threads that make the same call.

    Parameters
    ----------
    turn, run
        (1,) the next row that nobody has drawn yet, changed by all threads; and how many rows to
        draw at a time.
    index
        (n, nsets) entries of the sets, per row.
    entries, at, steps, src_table, dst_table
        The boxes; see ``host_boxes``.
    kind, source, path, prefix, keys, key_at, values
        Where the values lie.  PATHS: ``path`` holds the first ``prefix`` bytes of every path, and
        ``keys`` the rest of each, from ``key_at`` on and behind it a NUL.  DESCRIPTOR: of
        ``source``, key ``k`` is ``values[k]``: (offset, nbytes).  MEMORY: the same with addresses.
    key_id, offset, nbytes
        (n,) where in the values the rows lie.
    codec, functions
        The one step of the program, and the addresses of the C functions.
    item
        Bytes of one item of fill value.
    chunk_nbytes
        Of a chunk once decoded.
    out
        Address of the result.
    encoded, decoded
        uint8 scratch memory; ``decoded`` holds a chunk.
    status
        (n,) becomes DONE for each row that is done, and stays as it is for others.

    Returns
    -------
    How many rows are done.
    """
    nrows, nsets = len(index), len(at)
    box = np.empty((nsets + 1, 5), np.int64)
    position = np.empty(nsets + 1, np.int64)
    have = np.full(3, -1, np.int64)
    opened = np.array([source, -1])
    itemsize = len(item)
    coding, memory = (codec, functions, chunk_nbytes, itemsize), (encoded, have, decoded)
    done = row = stop = 0
    while True:
        row += 1
        if row >= stop:
            row = draw(turn.ctypes.data, run)
            if row >= nrows:
                break
            stop = min(row + run, nrows)
        k, src, dst = box_of(index, row, entries, at, steps, box)
        key, begin, size = key_id[row], offset[row], nbytes[row]
        start, total = 0, -1
        fd = opened[0]
        if size != MISSING and kind != PATHS:
            start, total = values[key, 0], values[key, 1]
            if total == MISSING:
                size = MISSING
            elif total < 0:
                continue
        elif size != MISSING and opened[1] != key:
            n = key_at[key + 1] - key_at[key]
            for i in range(n):
                path[prefix + i] = keys[key_at[key] + i]
            fd = open_file(functions, path, key, opened)
            if fd == MISSING:
                size = MISSING
            elif fd < 0:
                continue
        if size == MISSING:
            spread(box, k, out + dst, item, itemsize, dst_table, position)
            status[row] = DONE
            done += 1
            continue
        reach = begin + size
        if size >= 0 and not held(have, key, begin, reach):
            # Neighbours in the same file come with it.
            for j in range(row + 1, stop):
                if key_id[j] != key or not near(begin, reach, offset[j], nbytes[j]):
                    break
                reach = max(reach, offset[j] + nbytes[j])
        if read_row(
            coding,
            (kind, fd, key, start, total),
            (begin, size, reach),
            memory,
            (box, k, src, out + dst, src_table, dst_table, position),
        ):
            status[row] = DONE
            done += 1
    if kind == PATHS:
        close(functions, opened)
    return done
