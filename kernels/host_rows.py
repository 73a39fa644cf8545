"""Reading rows of chunks in one compiled loop: open, read, decode and place, without the GIL.

What a lane of the CPU device does chunk by chunk in Python, done for many rows by one call.  C
functions (of the C library, and of codecs) are called by address.  The loop never reports an error:
a row that is not as it should be is left to the caller (``AGAIN``), who reads it in the ordinary
way and finds out what is wrong.

Imports Numba; called by the CPU device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from .host_boxes import box_of, place, span_of, spread  # noqa: TID251 (relative: a mapped package)
from .host_calls import (  # noqa: TID251
    CLOSE,
    CONTEXT,
    COUNT,
    DECODE,
    ERRNO,
    FLAGS,
    LSEEK,
    MEMORY,
    OPEN,
    PART,
    PATHS,
    PREAD,
    as_int,
    call0,
    call1,
    call2,
    call3,
    call4,
    call5,
    call7,
    load4,
)

__all__ = ["AGAIN", "DONE", "read_rows"]

# What `codec` may be.
RAW, BLOSC, ZSTD, LZ4, DEFLATE = 0, 1, 2, 3, 4

DONE, AGAIN = 0, 1

_MISSING, _REST = -1, -2
_ENOENT = 2
_SPAN = 1 << 18  # neighbours of a file are read together up to this many bytes
_GAP = 1 << 14  # with at most this many bytes between them
_HEAD = 1 << 12  # what is read of a frame in order to see which of its blocks are needed

_options = {"nogil": True, "error_model": "numpy"}

_i, _b = types.int64[::1], types.uint8[::1]
_n, _ii = types.int64, types.int64[:, ::1]
_SIGNATURE = types.int64(
    *(_n, _n, _ii, _ii, _i, _ii, _i, _i),
    *(_n, _n, _b, _n, _b, _i, _ii),
    *(_i, _i, _i, _n, _i, _b, _n, _n, _b, _b, _i),
)


@njit(**_options)
def _blosc_block(frame: Any, length: Any, nbytes: Any) -> Any:
    """Bytes per block of a sound frame of ``nbytes`` decoded bytes, -1 where it is not sound.

    Looks at the header only.  The rules are those of the codec, which says what is wrong.
    """
    if length < 16:
        return -1
    word = load4(frame)
    version, flags, typesize = word & 255, (word >> 16) & 255, (word >> 24) & 255
    if not 1 <= version <= 2 or flags & 8 or flags >> 5 > 4 or flags & 5 == 5 or not typesize:
        return -1
    if load4(frame + 4) != nbytes or load4(frame + 12) != length:
        return -1
    block = load4(frame + 8)
    if flags & 2:
        return nbytes if length == nbytes + 16 else -1
    if not 0 < block <= nbytes or 16 + 4 * ((nbytes + block - 1) // block) > length:
        return -1
    return block


@njit(**_options)
def _is_part(block: Any, nbytes: Any, lo: Any, hi: Any) -> Any:
    """Whether bytes ``lo`` to ``hi`` lie in half of the blocks or less."""
    return (hi - 1) // block - lo // block + 1 <= (nbytes + block - 1) // block // 2


@njit(**_options)
def _blosc(functions: Any, frame: Any, length: Any, out: Any, nbytes: Any, lo: Any, hi: Any) -> Any:
    """Decode a frame, or of it what bytes ``lo`` to ``hi`` need if that is far less."""
    block = _blosc_block(frame, length, nbytes)
    if block < 0:
        return False
    part = functions[PART]
    if part and _is_part(block, nbytes, lo, hi):
        typesize = (load4(frame) >> 24) & 255
        first = lo // typesize
        count = (hi + typesize - 1) // typesize - first
        got = as_int(call4(part, frame, first, count, out + first * typesize))
        return got == count * typesize
    return as_int(call4(functions[DECODE], frame, out, nbytes, 1)) == nbytes


@njit(**_options)
def _read_frame(
    functions: Any, fd: Any, at: Any, size: Any, enc: Any, room: Any, nbytes: Any, lo: Any, hi: Any
) -> Any:
    """Read a frame of Blosc from a file, or of it the blocks that bytes ``lo`` to ``hi`` need.

    ``size`` is negative where it is not known.  Returns the length of the frame, -1 where
    something is amiss.
    """
    got = call4(functions[PREAD], fd, enc, min(_HEAD, room), at)
    length = load4(enc + 12) if got >= 16 else -1
    if length > room or length < 16 or (size >= 0 and length != size):
        return -1
    block = _blosc_block(enc, length, nbytes)
    if block < 0:
        return -1
    if size < 0 and call3(functions[LSEEK], fd, 0, 2) - at != length:
        return -1
    first, last = 0, length
    blocks = (nbytes + block - 1) // block
    if not (load4(enc) >> 16) & 2 and _is_part(block, nbytes, lo, hi) and 16 + 4 * blocks <= got:
        # Blocks may lie in any order: one ends where the next one in the file begins.
        a, b = lo // block, (hi - 1) // block
        first, last = length, 0
        for i in range(a, b + 1):
            start = load4(enc + 16 + 4 * i)
            end = length
            for j in range(blocks):
                other = load4(enc + 16 + 4 * j)
                if start < other < end:
                    end = other
            if not 16 + 4 * blocks <= start < length:
                return -1
            first, last = min(first, start), max(last, end)
    first = max(first, min(got, last))
    while first < last:
        more = call4(functions[PREAD], fd, enc + first, last - first, at + first)
        if more <= 0:
            return -1
        first += more
    return length


@njit(**_options)
def _decode(
    codec: Any, functions: Any, data: Any, length: Any, out: Any, nbytes: Any, lo: Any, hi: Any
) -> Any:
    """Decode ``length`` bytes at ``data`` to exactly ``nbytes`` at ``out``."""
    decode = functions[DECODE]
    if codec == BLOSC:
        return _blosc(functions, data, length, out, nbytes, lo, hi)
    if codec == ZSTD:
        return call5(decode, functions[CONTEXT], out, nbytes, data, length) == nbytes
    if codec == LZ4:  # behind its decoded size
        if length < 4 or load4(data) != nbytes:
            return False
        return as_int(call4(decode, data + 4, out, length - 4, nbytes)) == nbytes
    # libdeflate; without a place for the decoded size, anything but nbytes is an error.
    where = functions.ctypes.data + 8 * COUNT
    if as_int(call7(decode, functions[CONTEXT], data, length, out, nbytes, where, 0)):
        return False
    return functions[COUNT] == length


@njit(_SIGNATURE, cache=True, **_options)
def read_rows(
    lo: Any,
    hi: Any,
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
    """Read rows ``lo`` to ``hi`` of a batch into the result.

    Parameters
    ----------
    index
        (n, nsets) entries of the sets, per row of the batch.
    entries, at, steps, src_table, dst_table
        The boxes; see ``host_boxes``.
    kind, source, path, prefix, keys, key_at, values
        Where the values lie.  PATHS: ``path`` holds the first ``prefix`` bytes of every path, and
        ``keys`` the rest of each, from ``key_at`` on and behind it a NUL.  DESCRIPTOR: of
        ``source``, key ``k`` is ``values[k]``: (offset, nbytes).  MEMORY: the same with addresses.
    key_id, offset, nbytes
        (n,) of the batch's request.
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
        (hi - lo,) what became of each row, DONE or AGAIN.

    Returns
    -------
    How many rows are to be done again.
    """
    nsets = len(at)
    box = np.empty((nsets + 1, 5), np.int64)
    turn = np.empty(nsets + 1, np.int64)
    itemsize = len(item)
    room = len(encoded)
    enc, dec = encoded.ctypes.data, decoded.ctypes.data
    fd = source
    opened = have = -1  # keys of the open file and of what `encoded` holds
    have_lo = have_hi = 0
    again = 0
    for row in range(lo, hi):
        status[row - lo] = DONE
        k, src, dst = box_of(index, row, entries, at, steps, box)
        key = key_id[row]
        size = nbytes[row]
        begin = offset[row]
        start = 0
        total = -1  # bytes of the value, where known
        if size != _MISSING and kind != PATHS:
            start, total = values[key, 0], values[key, 1]
            if total == _MISSING:
                size = _MISSING
            elif total < 0:
                status[row - lo] = AGAIN
                again += 1
                continue
        elif size != _MISSING and opened != key:
            if opened >= 0:
                call1(functions[CLOSE], fd)
            opened = key
            n = key_at[key + 1] - key_at[key]
            for i in range(n):
                path[prefix + i] = keys[key_at[key] + i]
            fd = as_int(call2(functions[OPEN], path.ctypes.data, functions[FLAGS]))
            have = -1
            if fd < 0:
                opened = -1
                if functions[ERRNO] and as_int(load4(call0(functions[ERRNO]))) == _ENOENT:
                    size = _MISSING
                else:
                    status[row - lo] = AGAIN
                    again += 1
                    continue
        if size == _MISSING:
            spread(box, k, out + dst, item, itemsize, dst_table, turn)
            continue
        low, high = span_of(box, k, src, itemsize, src_table)
        ok = begin >= 0
        if size == _REST and ok:
            if codec == RAW and kind == PATHS:
                total = call3(functions[LSEEK], fd, 0, 2)
            if total >= 0:
                size = total - begin
        elif total >= 0:
            ok = ok and begin + size <= total
        whole = k == 0 or (
            k == 1 and not box[0, 3] and box[0, 1] == itemsize and box[0, 2] == itemsize
        )
        straight = whole and high - low == chunk_nbytes
        target = out + dst if straight else dec
        if codec == RAW:
            ok = ok and size == chunk_nbytes
            if ok and kind == MEMORY:
                target = start + begin
                straight = False
            elif ok:
                # Only what the selection needs.
                need = high - low
                where = start + begin + low
                ok = call4(functions[PREAD], fd, target + (0 if straight else low), need, where)
                ok = ok == need
        elif ok and kind == MEMORY:
            ok = _decode(codec, functions, start + begin, size, target, chunk_nbytes, low, high)
        elif ok and codec == BLOSC and 2 * (high - low) <= chunk_nbytes:
            have = -1
            size = _read_frame(
                functions, fd, start + begin, size, enc, room, chunk_nbytes, low, high
            )
            ok = size >= 0 and _blosc(functions, enc, size, target, chunk_nbytes, low, high)
        elif ok:
            data = enc
            if size == _REST:
                size = call4(functions[PREAD], fd, enc, room, begin)
                have = -1
                ok = 0 <= size < room
            elif have == key and have_lo <= begin and begin + size <= have_hi:
                data = enc + begin - have_lo
            else:
                # Neighbours in the same file come with it.
                end = begin + size
                j = row + 1
                while j < hi and key_id[j] == key and nbytes[j] >= 0:
                    if not begin <= offset[j] <= end + _GAP:
                        break
                    if max(end, offset[j] + nbytes[j]) - begin > min(_SPAN, room):
                        break
                    end = max(end, offset[j] + nbytes[j])
                    j += 1
                ok = size <= room and begin >= 0
                if ok:
                    got = call4(functions[PREAD], fd, enc, end - begin, start + begin)
                    have, have_lo, have_hi = key, begin, begin + max(got, 0)
                    ok = got >= size
            ok = ok and _decode(codec, functions, data, size, target, chunk_nbytes, low, high)
        if not ok:
            status[row - lo] = AGAIN
            again += 1
        elif not straight:
            place(box, k, target + src, out + dst, itemsize, src_table, dst_table, turn)
    if opened >= 0:
        call1(functions[CLOSE], fd)
    return again
