"""Reading byte ranges of many files into one slab, without the GIL.

What a reader of a device does file by file in Python (open, ask for the size, read, close), done by
one call for all that it can get hold of: threads that are in the loop at the same time share the
rows and the slab by two counters.  C functions are called by address.  As in ``host_rows`` the loop
never reports an error: a range that is not as it should be is left to the caller (``AGAIN``).

Imports Numba; called by the readers of devices with memory of their own.
"""

# Imports stamped: 91104e796ff0

from __future__ import annotations

from typing import Any

from numba import njit, types

from .host_calls import call0, call1, call2, call3, call4, draw, load4, move  # noqa: TID251
from .host_decode import CLOSE, ERRNO, FLAGS, LSEEK, OPEN, PREAD, as_int  # noqa: TID251
from .host_reads import MEMORY, PATHS  # noqa: TID251  (relative: a mapped package)

__all__ = ["AGAIN", "read_files"]

AGAIN = -3
"""In the place of a length: left to the caller."""

_MISSING, _REST = -1, -2
_ENOENT = 2
_SPAN = 4 << 20  # neighbours of a value are read together up to this many bytes
_GAP = 1 << 14  # with at most this many bytes between them
_ALIGNMENT = 64

_options = {"nogil": True, "error_model": "numpy"}

_i, _b = types.int64[::1], types.uint8[::1]
_n, _ii = types.int64, types.int64[:, ::1]
_SIGNATURE = types.int64(
    *(_i, _n, _n, _n, _n, _b, _n, _b, _i, _ii),
    *(_i, _i, _i, _n, _i, _b, _i, _i),
)


@njit(**_options)
def _fill(kind: Any, functions: Any, fd: Any, target: Any, source: Any, nbytes: Any) -> Any:
    """Whether ``nbytes`` from ``source`` (an offset, or an address) came to ``target``."""
    if kind == MEMORY:
        move(target, source, nbytes)
        return True
    done = 0
    while done < nbytes:
        got = call4(functions[PREAD], fd, target + done, nbytes - done, source + done)
        if got <= 0:
            return False
        done += got
    return True


@njit(_SIGNATURE, cache=True, **_options)
def read_files(
    counters: Any,
    hi: Any,
    group: Any,
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
    most: Any,
    functions: Any,
    slab: Any,
    at: Any,
    got: Any,
) -> Any:
    """Read ranges, ``group`` at a time, until all up to ``hi`` are taken.

    Parameters
    ----------
    counters
        (2,) the next range that nobody has taken yet, and bytes of the slab that are given away:
        more than it has where it is too small.  Shared by all threads.
    kind, source, path, prefix, keys, key_at, values
        Where the values lie; see ``host_rows.read_rows``.  ``path`` belongs to one thread.
    key_id, offset, nbytes
        (n,) the ranges.
    most
        Bytes that a range may have; longer ones are left to the caller.
    functions
        Addresses of the C library's functions.
    slab
        uint8, where the bytes go.
    at, got
        (n,) where each range is in the slab, and its length; MISSING and AGAIN.

    Returns
    -------
    How many ranges were left to the caller by this call.
    """
    counter = counters.ctypes.data
    begin = slab.ctypes.data
    room = len(slab)
    fd = source
    opened = -1
    total = 0  # bytes of the value
    again = 0
    lo = draw(counter, group)
    while lo < hi:
        end = min(lo + group, hi)
        row = lo
        while row < end:
            key, size, first = key_id[row], nbytes[row], offset[row]
            at[row] = 0
            got[row] = AGAIN
            start = 0
            absent = size == _MISSING
            ok = absent or first >= 0
            if not absent and kind != PATHS:
                start, total = values[key, 0], values[key, 1]
                absent = total == _MISSING
                ok = absent or (ok and total >= 0)
            elif not absent and opened != key:
                if opened >= 0:
                    call1(functions[CLOSE], fd)
                opened = key
                n = key_at[key + 1] - key_at[key]
                for i in range(n):
                    path[prefix + i] = keys[key_at[key] + i]
                fd = as_int(call2(functions[OPEN], path.ctypes.data, functions[FLAGS]))
                if fd < 0:
                    opened = -1
                    errno = functions[ERRNO]
                    absent = errno != 0 and as_int(load4(call0(errno))) == _ENOENT
                    ok = absent
                else:
                    total = call3(functions[LSEEK], fd, 0, 2)
            if absent:
                got[row] = _MISSING
                row += 1
                continue
            if ok and size == _REST:
                size = total - first
                ok = size > 0
            # So checked, sums stay far from what a word can hold.
            ok = ok and 0 <= size <= most and size <= total and first <= total - size
            # The ranges behind it of the same value, as far as they follow it closely.
            last = row + 1
            stop = first + size
            if ok and nbytes[row] >= 0:
                while last < end and key_id[last] == key and 0 <= nbytes[last] <= most:
                    gap = offset[last] - stop
                    grown = offset[last] + nbytes[last]
                    if gap < 0 or gap > _GAP or grown - first > _SPAN or grown > total:
                        break
                    stop = grown
                    last += 1
            if ok:
                length = stop - first
                place = draw(counter + 8, (length + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT)
                ok = place + length <= room and _fill(
                    kind, functions, fd, begin + place, start + first, length
                )
                if ok:
                    for i in range(row, last):
                        at[i] = place + offset[i] - first
                        got[i] = stop - first if nbytes[i] == _REST else nbytes[i]
            if not ok:
                for i in range(row, last):
                    at[i] = 0
                    got[i] = AGAIN
                again += last - row
            row = last
        lo = draw(counter, group)
    if kind == PATHS and opened >= 0:
        call1(functions[CLOSE], fd)
    return again
