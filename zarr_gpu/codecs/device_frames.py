"""Which streams are safe and plain enough for the decoders of a device.

nvCOMP promises nothing about damaged Zstd, Snappy, Deflate and Gzip streams, so whatever can be
seen without decoding is looked at here: magic numbers, sizes told, windows, the chain of blocks.
All streams of a batch are looked at together.  What is not plain (several frames, a checksum that
the device does not verify, an unknown size, damage) is left to the CPU codec.

Arrays only: imports nothing of ours; called by the device steps.  ``heads`` are the first bytes of
every stream, (n, at least HEAD), zeros behind the end of short ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "HEAD",
    "gzip_plain",
    "lz4_plain",
    "snappy_plain",
    "zlib_plain",
    "zstd_blocks_fit",
    "zstd_plain",
]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

HEAD = 24
"""Bytes that the checks may want of the start of a stream."""

_LARGEST_WINDOW = 1 << 27  # what zstd's own decoder takes unless told otherwise
_ZSTD_BLOCK = 1 << 17


def _number(heads: U8, at: int, width: int) -> I64:
    """Little-endian numbers; those of 8 bytes beyond int64 come out negative."""
    number = np.zeros(len(heads), np.int64)
    for k in range(width):
        number |= heads[:, at + k].astype(np.int64) << (8 * k)
    return number


def lz4_plain(heads: U8, nbytes: I64, size: int) -> Bools:
    """Numcodecs' LZ4: the decoded size before the block is the one expected, and possible."""
    told = _number(heads, 0, 4)
    plain: Bools = (nbytes >= 5) & (told == size) & (told <= 255 * nbytes)
    return plain


def snappy_plain(heads: U8, nbytes: I64, sizes: I64) -> Bools:
    """The decoded size at the start is the one expected, and possible."""
    told = np.zeros(len(heads), np.int64)
    more = np.ones(len(heads), np.bool_)
    for k in range(5):
        byte = heads[:, k].astype(np.int64)
        told += np.where(more, (byte & 127) << (7 * k), 0)
        more &= byte >= 128
    # A tag of three bytes yields at most 64.
    plain: Bools = ~more & (told == sizes) & (nbytes >= 2) & (sizes <= 64 * nbytes)
    return plain


def zlib_plain(heads: U8, nbytes: I64) -> Bools:
    """Deflate in a window of at most 32 KiB, no dictionary, room for the checksum."""
    first, second = heads[:, 0].astype(np.int64), heads[:, 1].astype(np.int64)
    plain: Bools = ((first & 15) == 8) & (first >> 4 <= 7)
    plain &= ((first * 256 + second) % 31 == 0) & (second & 32 == 0) & (nbytes >= 8)
    return plain


def gzip_plain(heads: U8, tails: U8, nbytes: I64, size: int) -> Bools:
    """One member, as far as can be seen, with a header of 10 bytes.

    ``tails`` are the last 8 bytes.  A size told at the end that is the one expected could be that
    of a second member behind an empty one: two encodings of nothing are looked for.
    """
    plain: Bools = (heads[:, :4] == np.array([0x1F, 0x8B, 8, 0], np.uint8)).all(axis=1)
    empty = (heads[:, 10:12] == np.array([3, 0], np.uint8)).all(axis=1)
    empty |= (heads[:, 10:15] == np.array([1, 0, 0, 255, 255], np.uint8)).all(axis=1)
    plain &= ~empty & (nbytes >= 20) & (_number(tails, 4, 4) == size & 0xFFFFFFFF)
    return plain


def zstd_plain(heads: U8, nbytes: I64, sizes: I64) -> tuple[Bools, I64]:
    """(plain frames, length of their headers).

    The frame tells the decoded size that is expected, has no dictionary and no checksum, and its
    window is of a size that decoders take.
    """
    flags = heads[:, 4].astype(np.int64)
    single = flags >> 5 & 1
    content_width = np.choose(flags >> 6, [single, 2, 4, 8])
    at = 6 - single  # of the content size: there is no dictionary before it
    content = np.full(len(heads), -1, np.int64)
    for width, start in ((1, 5), (2, 5), (2, 6), (4, 5), (4, 6), (8, 5), (8, 6)):
        chosen = (content_width == width) & (at == start)
        if chosen.any():
            told = _number(heads[chosen], start, width)
            content[chosen] = told + (256 if width == 2 else 0)
    descriptor = heads[:, 5].astype(np.int64)
    # A single segment is its own window.
    window = np.where(single == 1, 0, (8 + (descriptor & 7)) << (7 + (descriptor >> 3)))
    header = at + content_width
    plain = _number(heads, 0, 4) == 0xFD2FB528
    plain &= (flags & 0b1111) == 0  # no dictionary, no checksum, nothing reserved
    plain &= (content == sizes) & (window <= _LARGEST_WINDOW) & (nbytes >= header + 3)
    # One byte of a block can stand for all of it, but no more.
    plain &= sizes <= (nbytes - header) // 4 * _ZSTD_BLOCK + _ZSTD_BLOCK
    return plain, header


def zstd_blocks_fit(host: U8, offset: I64, nbytes: I64, header: I64, sizes: I64) -> Bools:
    """Frames whose blocks, one behind the other, end exactly where the frame does.

    ``host`` holds the frames; those with far more blocks than their size asks for do not pass, so
    that hostile ones cost no time.
    """
    fits = np.zeros(len(offset), np.bool_)
    active = np.arange(len(offset))
    at, end = offset + header, offset + nbytes
    left = sizes.copy()  # decoded bytes that may still come
    rounds = 64 + 4 * (int(sizes.max()) // _ZSTD_BLOCK + 1) if len(sizes) else 0
    for _ in range(rounds):
        active = active[at[active] + 3 <= end[active]]
        if not len(active):
            break
        here = at[active]
        head = host[here].astype(np.int64)
        head |= host[here + 1].astype(np.int64) << 8
        head |= host[here + 2].astype(np.int64) << 16
        last, kind, length = head & 1, head >> 1 & 3, head >> 3
        left[active] -= np.where(kind == 2, 0, length)
        body = np.where(kind == 1, 1, length)
        at[active] += 3 + body
        good = (kind != 3) & (length <= _ZSTD_BLOCK) & (left[active] >= 0)
        good &= (at[active] <= end[active]) & ((kind != 2) | (length >= 2))
        done = good & (last == 1)
        fits[active[done]] = at[active[done]] == end[active[done]]
        active = active[good & (last == 0)]
    return fits
