"""Writing a box of chunks in one compiled loop, without the GIL.

As ``host_box``, the other way: old bytes of chunks that are covered only partly are read and
decoded, the values put in, and the chunk encoded.  Values reach their files as
``zarr_gpu.storage.atomic`` writes them: under a temporary name, locked, which is then renamed.
Chunks that cannot be written so are left to the caller.

Imports Numba; called by the CPU device.
"""

# Imports stamped: 66533f0105f6

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from .host_box import enter_object, extent_of, write_path  # noqa: TID251 (relative: mapped)
from .host_boxes import EDGE, STEP, box_of, cut_box, place  # noqa: TID251
from .host_boxes import FIRST as CHUNK  # noqa: TID251
from .host_calls import (  # noqa: TID251
    call0,
    call1,
    call2,
    call3,
    call4,
    call5,
    call10,
    draw,
    load4,
    move,
    move4,
)
from .host_decode import (  # noqa: TID251
    BLOSC,
    CLOSE,
    ERRNO,
    FLAGS,
    LZ4,
    OPEN,
    PREAD,
    RAW,
    ZSTD,
    as_int,
    decode,
)
from .host_reads import DONE  # noqa: TID251

__all__ = ["write_box"]

# Positions in `system`: addresses of the C library's functions, flags to create a file with, and a
# place for a number, as the array belongs to one thread.
FLOCK, STATX, WRITE, RENAME, UNLINK, MKDIR, ACCESS, MEMCMP, CREATE, NUMBER = range(10)

# Positions in `encoder`: the function, its context, and what else it is called with.
ENCODE, CONTEXT, FIRST = range(3)

_ENOENT, _EAGAIN = 2, 11
_LOCK = 2 | 4  # exclusive, at once
_EMPTY_PATH, _NLINK = 0x1000, 4  # of statx: about the descriptor, how many names
_MODE, _FOLDER_MODE = 0o666, 0o777
_SLASH, _DOT = 47, 46

_options = {"nogil": True, "error_model": "numpy"}

_i, _b = types.int64[::1], types.uint8[::1]
_n, _ii = types.int64, types.int64[:, ::1]
_SIGNATURE = types.int64(
    *(_i, _ii, _i, _i),
    *(_b, _n, _n, _n, _b, _b),
    *(_n, _i, _i, _i),
    *(_b, _n, _n, _n, _b, _b, _i),
)


@njit(**_options)
def _errno(functions: Any) -> Any:
    """Why the last call of the C library failed, 0 where that cannot be known."""
    return as_int(load4(call0(functions[ERRNO]))) if functions[ERRNO] else 0


@njit(**_options)
def _coverage(axes: Any, lengths: Any, order: Any, at: Any, entries: Any, index: Any) -> Any:
    """2 where all of a chunk is selected, 1 where all that lies in the array is, else 0."""
    full = 2
    for s in range(len(order)):
        a = order[s]
        i = index[0, a]
        chunk = axes[a, CHUNK] - i if axes[a, STEP] < 0 else axes[a, CHUNK] + i
        inside = min(axes[a, EDGE], lengths[a] - chunk * axes[a, EDGE])
        count = entries[at[s] + i, 2]
        if count != inside or (abs(axes[a, STEP]) != 1 and inside != 1):
            return 0
        if inside != axes[a, EDGE]:
            full = 1
    return full


@njit(**_options)
def _old(
    codec: Any, functions: Any, path: Any, encoded: Any, chunk: Any, nbytes: Any, item: Any
) -> Any:
    """Make ``chunk`` what is stored, fill value where nothing is; whether that could be done."""
    fd = as_int(call2(functions[OPEN], path.ctypes.data, functions[FLAGS]))
    if fd < 0:
        if _errno(functions) == _ENOENT:
            _fill(chunk, nbytes, item)
            return True
        return False
    enc, room = encoded.ctypes.data, len(encoded)
    if codec == RAW:
        # A byte more would show that the value is too long.
        got = call4(functions[PREAD], fd, enc, nbytes + 1, 0)
        ok = got == nbytes
        if ok:
            move(chunk, enc, nbytes)
    else:
        got = call4(functions[PREAD], fd, enc, room, 0)
        ok = 0 < got < room and decode(codec, functions, enc, got, chunk, nbytes, 0, nbytes, True)
    call1(functions[CLOSE], fd)
    return ok


@njit(**_options)
def _fill(chunk: Any, nbytes: Any, item: Any) -> None:
    """Fill a chunk with one item, doubling what is there."""
    have = min(len(item), nbytes)
    move(chunk, item.ctypes.data, have)
    while have < nbytes:
        more = min(have, nbytes - have)
        move(chunk + have, chunk, more)
        have += more


@njit(**_options)
def _is_fill(system: Any, chunk: Any, nbytes: Any, item: Any) -> Any:
    """Whether a chunk is nothing but one item, bit by bit."""
    size = len(item)
    if as_int(call3(system[MEMCMP], chunk, item.ctypes.data, size)):
        return False
    return not as_int(call3(system[MEMCMP], chunk, chunk + size, nbytes - size))


@njit(**_options)
def _encode(
    codec: Any, system: Any, encoder: Any, chunk: Any, nbytes: Any, out: Any, room: Any
) -> Any:
    """Encode a chunk at ``out``: how many bytes, 0 or less where that cannot be done."""
    function = encoder[ENCODE]
    if codec == BLOSC:
        level, shuffle, typesize = encoder[FIRST], encoder[FIRST + 1], encoder[FIRST + 2]
        name, block = encoder[FIRST + 3], encoder[FIRST + 4]
        return as_int(
            call10(function, level, shuffle, typesize, nbytes, chunk, out, room, name, block, 1)
        )
    if codec == ZSTD:
        size = call5(function, encoder[CONTEXT], out, room, chunk, nbytes)
        return size if 0 < size <= room else 0
    if codec == LZ4:  # behind its decoded size
        system[NUMBER] = nbytes
        move4(out, system.ctypes.data + 8 * NUMBER)
        size = as_int(call5(function, chunk, out + 4, nbytes, room - 4, encoder[FIRST]))
        return size + 4 if size > 0 else 0
    return 0


@njit(**_options)
def _make_folders(system: Any, path: Any, start: Any, end: Any) -> None:
    """Make the folders of a path that begin behind byte ``start``."""
    for i in range(start, end):
        if path[i] == _SLASH:
            path[i] = 0
            call2(system[MKDIR], path.ctypes.data, _FOLDER_MODE)
            path[i] = _SLASH


@njit(**_options)
def _create(
    functions: Any, system: Any, path: Any, folder: Any, end: Any, temporary: Any, suffix: Any
) -> Any:
    """Create the temporary file of ``path`` and lock it: its descriptor, negative on failure."""
    name = end
    while path[name - 1] != _SLASH:
        name -= 1
    for i in range(name):
        temporary[i] = path[i]
    temporary[name] = _DOT
    for i in range(name, end):
        temporary[i + 1] = path[i]
    for i in range(len(suffix)):
        temporary[end + 1 + i] = suffix[i]
    temporary[end + 1 + len(suffix)] = 0
    at = temporary.ctypes.data
    fd = as_int(call3(functions[OPEN], at, system[CREATE], _MODE))
    if fd < 0 and _errno(functions) == _ENOENT:
        _make_folders(system, path, folder, name)
        fd = as_int(call3(functions[OPEN], at, system[CREATE], _MODE))
    if fd < 0:
        return -1
    status, nothing = np.zeros(256, np.uint8), np.zeros(1, np.uint8)
    place_of, empty = status.ctypes.data, nothing.ctypes.data
    if as_int(call2(system[FLOCK], fd, _LOCK)):
        # Somebody who takes it for a dead writer's holds it, and removes it; or there are no locks.
        if _errno(functions) != _EAGAIN:
            call1(system[UNLINK], at)
    elif as_int(call5(system[STATX], fd, empty, _EMPTY_PATH, _NLINK, place_of)):
        call1(system[UNLINK], at)
    elif load4(place_of + 16) > 0:  # else somebody has removed it meanwhile
        return fd
    call1(functions[CLOSE], fd)
    return -1


@njit(_SIGNATURE, cache=True, **_options)
def write_box(
    turn: Any,
    axes: Any,
    lengths: Any,
    order: Any,
    path: Any,
    folder: Any,
    prefix: Any,
    separator: Any,
    temporary: Any,
    suffix: Any,
    codec: Any,
    functions: Any,
    system: Any,
    encoder: Any,
    item: Any,
    keep_fill: Any,
    nbytes: Any,
    values: Any,
    encoded: Any,
    decoded: Any,
    status: Any,
) -> Any:
    """Write a box of chunks, together with other threads that make the same call.

    Rows are the chunks of the box in C order.

    Parameters
    ----------
    turn, axes, order, codec, functions, item, encoded, decoded, status
        As for ``read_box``; ``axes`` lead to and from ``values``.
    lengths
        (ndim,) of the array.
    path, folder, prefix, separator
        The path of every value begins with the ``prefix`` bytes in ``path``; the folder of the
        array, which is there, ends at byte ``folder``.
    temporary, suffix
        Memory for another path, and what temporary names end in.
    system, encoder
        More addresses: see above.
    keep_fill
        Whether chunks of nothing but fill value are stored.
    nbytes
        Of a chunk once decoded.
    values
        Address of the first item to write.

    Returns
    -------
    How many rows are done.
    """
    nrows, ndim = len(status), len(axes)
    entries, at, steps, spans = cut_box(axes, order)
    for e in range(len(entries)):  # from the result to the chunk
        entries[e, 0], entries[e, 1] = entries[e, 1], entries[e, 0]
    for s in range(ndim):
        steps[s, 0], steps[s, 1] = steps[s, 1], steps[s, 0]
    index = np.empty((1, ndim), np.int64)
    owner, part = np.empty(ndim, np.int64), np.empty((ndim, 2), np.int64)
    nowhere = np.empty(0, np.int64)
    box = np.empty((ndim + 1, 5), np.int64)
    position = np.empty(ndim + 1, np.int64)
    itemsize = len(item)
    dec, enc, room = decoded.ctypes.data, encoded.ctypes.data, len(encoded)
    done = 0
    while True:
        row = draw(turn.ctypes.data, 1)
        if row >= nrows:
            break
        enter_object(row, axes, spans, owner, part)
        extent_of(0, axes, -1, owner, part, index)
        end = write_path(path, prefix, separator, owner)
        k, src, dst = box_of(index, 0, entries, at, steps, box)
        whole = _coverage(axes, lengths, order, at, entries, index)
        runs = k == 0 or (k == 1 and box[0, 1] == itemsize and box[0, 2] == itemsize)
        chunk = dec
        if whole == 2 and runs:
            chunk = values + src
        else:
            if whole == 1:
                _fill(dec, nbytes, item)
            elif not whole and not _old(codec, functions, path, encoded, dec, nbytes, item):
                continue
            place(box, k, values + src, dec + dst, itemsize, nowhere, nowhere, position)
        if not keep_fill and _is_fill(system, chunk, nbytes, item):
            # An absent chunk is one of fill value; an older one must be removed.
            if as_int(call2(system[ACCESS], path.ctypes.data, 0)) and _errno(functions) == _ENOENT:
                status[row] = DONE
                done += 1
            continue
        data, size = enc, nbytes
        if codec == RAW:
            data = chunk
        else:
            size = _encode(codec, system, encoder, chunk, nbytes, enc, room)
            if size <= 0:
                continue
        fd = _create(functions, system, path, folder, end, temporary, suffix)
        if fd < 0:
            continue
        written = 0
        while written < size:
            got = call3(system[WRITE], fd, data + written, size - written)
            if got <= 0:
                break
            written += got
        ok = written == size
        if ok:
            ok = not as_int(call2(system[RENAME], temporary.ctypes.data, path.ctypes.data))
        if not ok:
            call1(system[UNLINK], temporary.ctypes.data)
        call1(functions[CLOSE], fd)  # the lock goes last
        if ok:
            status[row] = DONE
            done += 1
    return done
