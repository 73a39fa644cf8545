"""Decoding one chunk by C functions, for the compiled loops of the CPU device.

Frames are looked at as far as is needed to decode a part of them; whatever is not as it should be
is refused, and the caller reads the chunk in the ordinary way, which says what is wrong.

These functions become part of the loops, whose files carry a stamp of this one.  Imports Numba.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from .host_calls import call1, call3, call4, call5, call7, load4, move4  # noqa: TID251 (relative: mapped)

__all__ = [
    "BLOSC",
    "CLOSE",
    "DEFLATE",
    "ERRNO",
    "FLAGS",
    "LSEEK",
    "LZ4",
    "OPEN",
    "PREAD",
    "RAW",
    "ZSTD",
    "as_int",
    "decode",
    "read_frame",
]

# What `codec` may be.
RAW, BLOSC, ZSTD, LZ4, DEFLATE = 0, 1, 2, 3, 4

# Positions in `functions`: addresses of the C library's, flags to open with, the decoder's.
# COUNT is a place for a number that a decoder returns: the array belongs to one thread.  From PARTS
# on come the functions that decode a part, as many as the codec needs; the first is 0 without them.
OPEN, CLOSE, PREAD, LSEEK, ERRNO, FLAGS, DECODE, CONTEXT, COUNT, PARTS = range(10)

_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_BLOCK = 1 << 17  # the most bytes that one block decodes to
_HEAD = 1 << 12  # what is read of a frame in order to see which of its blocks are needed

_options = {"nogil": True, "error_model": "numpy"}


@njit(**_options)
def as_int(result: Any) -> Any:
    """A result of C's type ``int``: the upper half of the word means nothing."""
    low = result & 0xFFFFFFFF
    return low - 0x100000000 if low >= 0x80000000 else low


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
    """Whether bytes ``lo`` to ``hi`` do not lie in all of the blocks."""
    return (hi - 1) // block - lo // block + 1 < (nbytes + block - 1) // block


@njit(**_options)
def _blosc(
    functions: Any, frame: Any, length: Any, out: Any, nbytes: Any, lo: Any, hi: Any, own: Any
) -> Any:
    """Decode a frame, or of it the blocks that bytes ``lo`` to ``hi`` need.

    ``own`` is whether the frame may be changed.
    """
    block = _blosc_block(frame, length, nbytes)
    if block < 0:
        return False
    function = functions[DECODE]
    if not _is_part(block, nbytes, lo, hi) or (load4(frame) >> 16) & 2:
        return as_int(call4(function, frame, out, nbytes, 1)) == nbytes
    first = lo // block
    end = min(nbytes, ((hi - 1) // block + 1) * block)
    if own:
        # The needed blocks as a frame of their own: only where blocks begin has to be moved.
        if end - first * block < block:
            first -= 1  # a frame has one full block at least
        size = end - first * block
        functions[COUNT] = size
        move4(frame + 4, functions.ctypes.data + 8 * COUNT)
        for i in range((size + block - 1) // block):
            move4(frame + 16 + 4 * i, frame + 16 + 4 * (first + i))
        return as_int(call4(function, frame, out + first * block, size, 1)) == size
    part = functions[PARTS]
    if part and 2 * (end - first * block) <= nbytes:  # it decodes elsewhere, and copies
        typesize = (load4(frame) >> 24) & 255
        first = lo // typesize
        count = (hi + typesize - 1) // typesize - first
        got = as_int(call4(part, frame, first, count, out + first * typesize))
        return got == count * typesize
    return as_int(call4(function, frame, out, nbytes, 1)) == nbytes


@njit(**_options)
def read_frame(
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
        if a and a == b and nbytes - a * block < block:
            a -= 1  # see _blosc
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
def _is_plain_frame(frame: Any, length: Any, nbytes: Any) -> Any:
    """Whether this is one frame of Zstandard of ``nbytes`` decoded bytes that ends at ``length``.

    Looks at the headers of the frame and of its blocks.  A frame with a checksum is none: it must
    be decoded as a whole to be checked; nor is one with a dictionary.
    """
    if length < 16 or load4(frame) & 0xFFFFFFFF != _ZSTD_MAGIC:
        return False
    flags = load4(frame + 4) & 255
    single = flags & 32
    kind = flags >> 6
    if flags & 0xF or (kind == 0 and not single):
        return False
    at = frame + (5 if single else 6)
    low = load4(at) & 0xFFFFFFFF
    if kind == 0:
        size, at = low & 255, at + 1
    elif kind == 1:
        size, at = (low & 0xFFFF) + 256, at + 2
    elif kind == 2:
        size, at = low, at + 4
    else:
        size, at = low | load4(at + 4) << 32, at + 8
    if size != nbytes:
        return False
    end = frame + length
    while at + 3 <= end:
        # The byte behind a header of three is there: the last block has one at least.
        head = load4(at) & 0xFFFFFF if at + 4 <= end else 0
        at += 3 + (1 if (head >> 1) & 3 == 1 else head >> 3)
        if head & 1:
            return at == end
    return False


@njit(**_options)
def _zstd_begin(functions: Any, data: Any, length: Any, out: Any, nbytes: Any, hi: Any) -> Any:
    """Decode a plain frame block by block, up to the block that byte ``hi`` lies in or before."""
    context = functions[CONTEXT]
    if call1(functions[PARTS], context):
        return False
    used = got = 0
    while got < hi:
        size = call1(functions[PARTS + 1], context)
        if size <= 0 or size > length - used:
            return False
        made = call5(functions[PARTS + 2], context, out + got, nbytes - got, data + used, size)
        if not 0 <= made <= nbytes - got:
            return False
        used += size
        got += made
    return True


@njit(**_options)
def decode(
    codec: Any,
    functions: Any,
    data: Any,
    length: Any,
    out: Any,
    nbytes: Any,
    lo: Any,
    hi: Any,
    own: Any,
) -> Any:
    """Decode ``length`` bytes at ``data`` to exactly ``nbytes`` at ``out``.

    Only bytes ``lo`` to ``hi`` are needed; the others may be left as they were.  ``own`` is whether
    the bytes at ``data`` may be changed.
    """
    function = functions[DECODE]
    if codec == BLOSC:
        return _blosc(functions, data, length, out, nbytes, lo, hi, own)
    if codec == ZSTD:
        if (
            functions[PARTS]
            and hi + _ZSTD_BLOCK <= nbytes
            and _is_plain_frame(data, length, nbytes)
        ):
            return _zstd_begin(functions, data, length, out, nbytes, hi)
        return call5(function, functions[CONTEXT], out, nbytes, data, length) == nbytes
    if codec == LZ4:  # behind its decoded size
        if length < 4 or load4(data) != nbytes:
            return False
        return as_int(call4(function, data + 4, out, length - 4, nbytes)) == nbytes
    # libdeflate; without a place for the decoded size, anything but nbytes is an error.
    where = functions.ctypes.data + 8 * COUNT
    if as_int(call7(function, functions[CONTEXT], data, length, out, nbytes, where, 0)):
        return False
    return functions[COUNT] == length
