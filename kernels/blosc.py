"""Kernels that walk Blosc-1 frames: a batch of frames becomes flat lists of blocks and streams.

A frame is a header of 16 bytes, the places of its blocks (in any order), and the blocks.  A block
is one split or one per byte of an element; a split is its length and then either the bytes
themselves or one stream of the frame's codec.  The walk checks all that does not need decoding.

As in ``moves``: bodies over (thread number, number of threads, ...), int64 offsets, status 1 for
bad input.  One thread per frame; on the CPU this is the fast path for frames in host memory.

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIGNATURES = {
    "blosc_walk_count": ("b i i i i i i s", ()),
    "blosc_walk_fill": ("b i i i i i i i i i i b i i i i i i s", ()),
}

_HEADER = 16
# What is stored without compression has no blocks to share out, so they are made.
_PIECE = 1 << 18
# Limits of c-blosc: blocks must leave room for one length per byte of the largest element.
_LARGEST_BLOCK = ((1 << 31) - 1 - 255 * 4) // 3
_LARGEST_SPLITS = 16
_SMALLEST_SPLIT = 128


def _i32(src: Any, at: int) -> Any:
    """The little-endian signed number at ``at``."""
    value = np.int64(src[at]) | (np.int64(src[at + 1]) << 8)
    value |= (np.int64(src[at + 2]) << 16) | (np.int64(src[at + 3]) << 24)
    if value >= 1 << 31:
        value -= 1 << 32
    return value


def _header(src: Any, start: int, nbytes: int, expected: int) -> Any:
    """(size of a block, blocks, splits of a whole block, splits, codec), blocks -1 where bad.

    The codec is -1 where nothing is compressed.
    """
    bad = (0, -1, 0, 0, -1)
    if start < 0 or nbytes < _HEADER or start > len(src) - nbytes:
        return bad
    flags = np.int64(src[start + 2])
    typesize = np.int64(src[start + 3])
    size = np.int64(_i32(src, start + 4))
    block = np.int64(_i32(src, start + 8))
    if src[start] != 2 or flags & 8 != 0 or flags & 5 == 5 or flags >> 5 > 4 or typesize < 1:
        return bad
    if _i32(src, start + 12) != nbytes or size != expected or size < 0:
        return bad
    if size == 0:
        return (0, 0, 1, 0, -1)
    if block < 1 or block > size or block > _LARGEST_BLOCK:
        return bad
    if flags & 2 != 0:
        if size + _HEADER != nbytes:
            return bad
        blocks = (size + _PIECE - 1) // _PIECE
        return (_PIECE, blocks, 1, blocks, -1)
    if src[start + 1] != 1:
        return bad
    whole = size // block
    blocks = whole
    if size % block != 0:
        blocks += 1
    splits = np.int64(1)
    if flags & 16 == 0 and typesize <= _LARGEST_SPLITS and block // typesize >= _SMALLEST_SPLIT:
        splits = typesize
    if block % splits != 0:
        return bad
    count = whole * splits + (blocks - whole)
    # Every block has a place and every split a length: what a short frame cannot hold is no table.
    if 4 * blocks + 4 * count > nbytes - _HEADER:
        return bad
    return (block, blocks, splits, count, flags >> 5)


def blosc_walk_count(
    tid: int,
    nthreads: int,
    src: Any,
    off: Any,
    nbytes: Any,
    expected: Any,
    nblocks: Any,
    nsplits: Any,
    codec: Any,
    status: Any,
) -> None:
    """Check the headers of frames; tell how many blocks and splits each has.

    Frame ``r`` is ``nbytes[r]`` bytes of ``src`` from ``off[r]`` on and must decode to
    ``expected[r]`` bytes.  ``codec[r]``: 0 blosclz, 1 lz4, 2 snappy, 3 zlib, 4 zstd, -1 none (the
    frame is bad, empty or stored as it is).  Bad frames have no blocks.
    """
    rows = min(
        len(off), len(nbytes), len(expected), len(nblocks), len(nsplits), len(codec), len(status)
    )
    for row in range(tid, rows, nthreads):
        _, blocks, _, splits, kind = _header(src, off[row], nbytes[row], expected[row])
        if blocks < 0:
            status[row] = 1
            blocks = 0
        nblocks[row] = blocks
        nsplits[row] = splits
        codec[row] = kind


def blosc_walk_fill(
    tid: int,
    nthreads: int,
    src: Any,
    off: Any,
    nbytes: Any,
    expected: Any,
    dst_off: Any,
    first_block: Any,
    first_split: Any,
    split_src: Any,
    split_csize: Any,
    split_dst: Any,
    split_len: Any,
    split_raw: Any,
    block_dst: Any,
    block_len: Any,
    block_split: Any,
    block_nsplits: Any,
    block_typesize: Any,
    block_mode: Any,
    status: Any,
) -> None:
    """Fill in the tables of blocks and splits.

    Frame ``r`` has the blocks from ``first_block[r]`` up to ``first_block[r + 1]``, likewise
    splits: running sums of what ``blosc_walk_count`` told, with one entry more than there are
    frames.  ``dst_off[r]`` is where the frame's decoded bytes begin.

    A split is ``split_csize`` bytes at ``split_src`` that become ``split_len`` bytes at
    ``split_dst`` of a buffer laid out as the decoded bytes are; where ``split_raw`` is 1 they are
    these bytes already.  A block is ``block_len`` bytes at ``block_dst``, made of
    ``block_nsplits`` splits from ``block_split`` on; ``block_mode``: 0 as they are, 1 shuffled by
    ``block_typesize``, 2 bit-shuffled.

    A frame that turns out bad gets status 1 and blocks and splits of no bytes.
    """
    nblock = min(len(block_dst), len(block_len), len(block_split), len(block_nsplits))
    nblock = min(nblock, len(block_typesize), len(block_mode))
    nsplit = min(len(split_src), len(split_csize), len(split_dst), len(split_len), len(split_raw))
    rows = min(len(off), len(nbytes), len(expected), len(dst_off), len(status))
    rows = min(rows, len(first_block) - 1, len(first_split) - 1)
    for row in range(tid, rows, nthreads):
        b0 = first_block[row]
        b1 = first_block[row + 1]
        s0 = first_split[row]
        s1 = first_split[row + 1]
        if b0 < 0 or b1 < b0 or b1 > nblock or s0 < 0 or s1 < s0 or s1 > nsplit:
            status[row] = 2
            continue
        if b0 == b1 and s0 == s1:
            continue
        start = off[row]
        n = nbytes[row]
        dst = dst_off[row]
        block, blocks, splits, count, codec = _header(src, start, n, expected[row])
        good = blocks == b1 - b0 and count == s1 - s0 and dst >= 0
        s = s0
        if good:
            flags = np.int64(src[start + 2])
            typesize = np.int64(src[start + 3])
            size = expected[row]
            for b in range(blocks):
                begin = b * block
                length = min(block, size - begin)
                pieces = np.int64(1)
                if length == block:
                    pieces = splits
                mode = 0
                if codec >= 0:
                    if flags & 1 != 0 and typesize > 1:
                        mode = 1
                    elif flags & 4 != 0 and length >= typesize:
                        mode = 2
                block_dst[b0 + b] = dst + begin
                block_len[b0 + b] = length
                block_split[b0 + b] = s
                block_nsplits[b0 + b] = pieces
                block_typesize[b0 + b] = typesize
                block_mode[b0 + b] = mode
                piece = length // pieces
                at = _HEADER + begin
                if codec >= 0:
                    at = np.int64(_i32(src, start + _HEADER + 4 * b))
                for j in range(pieces):
                    csize = piece
                    if codec >= 0:
                        if at < _HEADER + 4 * blocks or at > n - 4:
                            good = False
                            break
                        csize = np.int64(_i32(src, start + at))
                        at += 4
                    if csize < 1 or csize > n - at:
                        good = False
                        break
                    split_src[s] = start + at
                    split_csize[s] = csize
                    split_dst[s] = dst + begin + j * piece
                    split_len[s] = piece
                    split_raw[s] = 1 if csize == piece else 0
                    at += csize
                    s += 1
                if not good:
                    break
        if not good:
            status[row] = 1
            for b in range(b0, b1):
                block_dst[b] = 0
                block_len[b] = 0
                block_split[b] = s0
                block_nsplits[b] = 0
                block_typesize[b] = 1
                block_mode[b] = 0
            for s in range(s0, s1):
                split_src[s] = 0
                split_csize[s] = 0
                split_dst[s] = 0
                split_len[s] = 0
                split_raw[s] = 1
