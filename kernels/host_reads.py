"""Reading one row in a compiled loop: open its file, read, decode and place it.

C functions (of the C library, and of codecs) are called by address.  Errors are not told from each
other: a row that is not as it should be is left to the caller of the loops, who reads it in the
ordinary way and finds out what is wrong.

These functions become part of the loops, whose files carry a stamp of this one.  Imports Numba.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from .host_boxes import place, span_of  # noqa: TID251 (relative: a mapped package)
from .host_calls import call0, call1, call2, call3, call4, load4  # noqa: TID251
from .host_decode import (  # noqa: TID251
    BLOSC,
    CLOSE,
    ERRNO,
    FLAGS,
    LSEEK,
    OPEN,
    PREAD,
    RAW,
    as_int,
    decode,
    read_frame,
)

__all__ = [
    "DESCRIPTOR",
    "DONE",
    "FAILED",
    "MEMORY",
    "MISSING",
    "PATHS",
    "REST",
    "close",
    "held",
    "near",
    "open_file",
    "read_row",
]

# What `files` are: a path for every key, one descriptor, or the values themselves in memory.
PATHS, DESCRIPTOR, MEMORY = 0, 1, 2

DONE = 0
MISSING, REST, FAILED = -1, -2, -3

# Positions in `have`: the key that `encoded` holds bytes of, and which.
_KEY, _LO, _HI = 0, 1, 2

_ENOENT = 2
_SPAN = 1 << 18  # neighbours of a file are read together up to this many bytes
_GAP = 1 << 14  # with at most this many bytes between them

_options = {"nogil": True, "error_model": "numpy"}


@njit(**_options)
def close(functions: Any, opened: Any) -> None:
    """Close the file that was opened last, if any."""
    if opened[1] >= 0:
        call1(functions[CLOSE], opened[0])
        opened[1] = -1


@njit(**_options)
def open_file(functions: Any, path: Any, key: Any, opened: Any) -> Any:
    """The descriptor of the file of a key, MISSING where there is none, or FAILED.

    ``opened`` is (descriptor, key) of the file that was opened before, key -1 where none was.
    """
    close(functions, opened)
    fd = as_int(call2(functions[OPEN], path.ctypes.data, functions[FLAGS]))
    if fd >= 0:
        opened[0], opened[1] = fd, key
        return fd
    if functions[ERRNO] and as_int(load4(call0(functions[ERRNO]))) == _ENOENT:
        return MISSING
    return FAILED


@njit(**_options)
def held(have: Any, key: Any, lo: Any, hi: Any) -> Any:
    """Whether bytes ``lo`` to ``hi`` of a key are in memory."""
    return have[_KEY] == key and have[_LO] <= lo and hi <= have[_HI]


@njit(**_options)
def near(begin: Any, reach: Any, lo: Any, nbytes: Any) -> Any:
    """Whether ``nbytes`` from ``lo`` on are worth reading with the bytes ``begin`` to ``reach``."""
    near = nbytes >= 0 and begin <= lo <= reach + _GAP
    return near and max(reach, lo + nbytes) - begin <= _SPAN


@njit(**_options)
def read_row(coding: Any, value: Any, extent: Any, memory: Any, target: Any) -> Any:
    """Read one row that is there, decode and place it; whether that could be done.

    Parameters
    ----------
    coding
        (codec, functions, bytes of a chunk, bytes of an item).
    value
        (kind, descriptor, key, start, total): the value begins at ``start`` of the file (or at that
        address) and has ``total`` bytes, -1 where that is not known.
    extent
        (begin, size, reach): the chunk is ``size`` bytes (or REST) of the value from ``begin`` on;
        rows to come want bytes up to ``reach``.
    memory
        (encoded, have, decoded).
    target
        (box, loops, first byte in the chunk, address in the result, tables, position).
    """
    codec, functions, nbytes, itemsize = coding
    kind, fd, key, start, total = value
    begin, size, reach = extent
    encoded, have, decoded = memory
    box, k, src, dst, src_table, dst_table, position = target
    low, high = span_of(box, k, src, itemsize, src_table)
    ok = begin >= 0
    if size == REST and ok:
        if codec == RAW and kind == PATHS:
            total = call3(functions[LSEEK], fd, 0, 2)
        if total >= 0:
            size = total - begin
    elif total >= 0:
        ok = ok and begin + size <= total
    if not ok:
        return False
    whole = k == 0 or (k == 1 and not box[0, 3] and box[0, 1] == itemsize and box[0, 2] == itemsize)
    straight = whole and high - low == nbytes
    room, enc = len(encoded), encoded.ctypes.data
    to = dst if straight else decoded.ctypes.data
    if codec == RAW:
        if size != nbytes:
            return False
        if kind == MEMORY:
            to = start + begin
            straight = False
        else:
            # Only what the selection needs.
            need = high - low
            where = start + begin + low
            ok = call4(functions[PREAD], fd, to + (0 if straight else low), need, where) == need
    elif kind == MEMORY:
        ok = decode(codec, functions, start + begin, size, to, nbytes, low, high, False)
    elif codec == BLOSC and 4 * (high - low) <= 3 * nbytes:
        have[_KEY] = -1
        size = read_frame(functions, fd, start + begin, size, enc, room, nbytes, low, high)
        ok = size >= 0 and decode(codec, functions, enc, size, to, nbytes, low, high, True)
    else:
        data = enc
        if size == REST:
            have[_KEY] = -1
            size = call4(functions[PREAD], fd, enc, room, begin)
            ok = 0 <= size < room
        elif held(have, key, begin, begin + size):
            data = enc + begin - have[_LO]
        else:
            end = max(begin + size, min(reach, begin + min(_SPAN, room)))
            if size > room:
                return False
            got = call4(functions[PREAD], fd, enc, end - begin, start + begin)
            have[_KEY], have[_LO], have[_HI] = key, begin, begin + max(got, 0)
            ok = got >= size
        ok = ok and decode(codec, functions, data, size, to, nbytes, low, high, True)
    if ok and not straight:
        place(box, k, to + src, dst, itemsize, src_table, dst_table, position)
    return ok
