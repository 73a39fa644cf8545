"""Kernels that undo and do the shuffles of Blosc, block by block.

As in ``moves``: bodies over (thread number, number of threads, ...), ``tpr`` threads for each row,
int64 offsets, status 1 for bad input and 2 for a place outside of the output.  A row is a block.

Shuffled: byte ``j`` of all elements comes before byte ``j + 1`` of them.  Bit-shuffled: bit 0 of
byte 0 of all elements comes first, eight elements to a byte; only where the number of elements is
a multiple of 8, otherwise nothing is done.  Bytes behind the last whole element stay as they are.

Imports NumPy and Numba only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

SIGNATURES = {
    "blosc_assemble": ("n b b i i i i i b i i i b q s", ()),
    "shuffle_blocks": ("n b i i i i b i s", ()),
}

_LOW = np.uint64(0xFF)
_MASK7 = np.uint64(0x00AA00AA00AA00AA)
_MASK14 = np.uint64(0x0000CCCC0000CCCC)
_MASK28 = np.uint64(0x00000000F0F0F0F0)
_7 = np.uint64(7)
_8 = np.uint64(8)
_14 = np.uint64(14)
_16 = np.uint64(16)
_24 = np.uint64(24)
_28 = np.uint64(28)
_32 = np.uint64(32)
_40 = np.uint64(40)
_48 = np.uint64(48)
_56 = np.uint64(56)


def _transposed(x: Any) -> Any:
    """Bit ``c`` of byte ``r`` becomes bit ``r`` of byte ``c``."""
    t = (x ^ (x >> _7)) & _MASK7
    x = x ^ t ^ (t << _7)
    t = (x ^ (x >> _14)) & _MASK14
    x = x ^ t ^ (t << _14)
    t = (x ^ (x >> _28)) & _MASK28
    return x ^ t ^ (t << _28)


def _eight(mem: Any, at: int, stride: int) -> Any:
    """Eight bytes, ``stride`` apart, as one word."""
    x = np.uint64(mem[at])
    x |= np.uint64(mem[at + stride]) << _8
    x |= np.uint64(mem[at + 2 * stride]) << _16
    x |= np.uint64(mem[at + 3 * stride]) << _24
    x |= np.uint64(mem[at + 4 * stride]) << _32
    x |= np.uint64(mem[at + 5 * stride]) << _40
    x |= np.uint64(mem[at + 6 * stride]) << _48
    return x | (np.uint64(mem[at + 7 * stride]) << _56)


def _spread(mem: Any, at: int, typesize: int) -> Any:
    """Neighbouring bytes of one plane, ``typesize`` bytes apart in a word."""
    x = np.uint64(mem[at])
    if typesize == 8:
        return x
    if typesize == 4:
        return x | (np.uint64(mem[at + 1]) << _32)
    if typesize == 2:
        x |= np.uint64(mem[at + 1]) << _16
        x |= np.uint64(mem[at + 2]) << _32
        return x | (np.uint64(mem[at + 3]) << _48)
    return _eight(mem, at, 1)


register_jitable(_transposed)
register_jitable(_eight)
register_jitable(_spread)


def _at(
    comp: Any,
    scratch: Any,
    split_src: Any,
    split_raw: Any,
    split_dst: Any,
    first: int,
    nsplits: int,
    length: int,
    q: int,
) -> Any:
    """Byte ``q`` of the splits of a block, put together."""
    s = first
    if nsplits > 1:
        j = q // length
        s += j
        q -= j * length
    if split_raw[s] != 0:
        return comp[split_src[s] + q]
    return scratch[split_dst[s] + q]


def _splits_fit(
    ncomp: int,
    nscratch: int,
    split_src: Any,
    split_raw: Any,
    split_dst: Any,
    first: int,
    nsplits: int,
    length: int,
) -> bool:
    """Whether all splits of a block lie inside of their buffers."""
    if first < 0 or first > min(len(split_src), len(split_raw), len(split_dst)) - nsplits:
        return False
    for s in range(first, first + nsplits):
        if split_raw[s] != 0:
            if split_src[s] < 0 or split_src[s] > ncomp - length:
                return False
        elif split_dst[s] < 0 or split_dst[s] > nscratch - length:
            return False
    return True


register_jitable(_at)
register_jitable(_splits_fit)


def blosc_assemble(
    tid: int,
    nthreads: int,
    tpr: int,
    comp: Any,
    scratch: Any,
    block_dst: Any,
    block_len: Any,
    block_split: Any,
    block_nsplits: Any,
    split_src: Any,
    split_raw: Any,
    split_dst: Any,
    block_typesize: Any,
    block_mode: Any,
    out: Any,
    out_words: Any,
    status: Any,
) -> None:
    """Undo the shuffle of every block, wherever its splits lie.

    The tables are those of ``blosc_walk_fill``; raw splits are read from ``comp``, where the
    frames are, the others from ``scratch``, where they were decompressed.  ``out_words`` is the
    memory of ``out`` as words of 8 bytes, beginning where ``out`` does; it may be shorter or empty,
    which is slower.  Neighbouring lanes write neighbouring words.  Element sizes 1, 2, 4 and 8 are
    quick in blocks that begin at a multiple of 8 bytes.
    """
    rows = min(len(block_dst), len(block_len), len(block_split), len(block_nsplits))
    rows = min(rows, len(block_typesize), len(block_mode), len(status))
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        lane = v - row * tpr
        n = block_len[row]
        if n == 0:
            continue
        dst = block_dst[row]
        first = block_split[row]
        nsplits = block_nsplits[row]
        ts = block_typesize[row]
        mode = block_mode[row]
        if n < 0 or dst < 0 or dst > len(out) - n:
            status[row] = 2
            continue
        if ts < 1 or nsplits < 1 or n % nsplits != 0:
            status[row] = 1
            continue
        length = n // nsplits
        if not _splits_fit(
            len(comp), len(scratch), split_src, split_raw, split_dst, first, nsplits, length
        ):
            status[row] = 1
            continue
        items = n // ts
        octets = items // 8
        if mode == 2 and items % 8 != 0:
            mode = 0
        if ts == 1 and mode == 1:
            mode = 0

        # Words: the lane's are `tpr` apart.
        words = 0
        if dst % 8 == 0 and dst // 8 <= len(out_words) - n // 8:
            whole = nsplits == 1
            if mode == 0:
                if whole:
                    words = n // 8
            elif 8 % ts == 0 and (whole or nsplits == ts):
                words = items * ts // 8
        word0 = dst // 8
        w = lane
        if mode == 2:
            per = 8 // ts if words > 0 else 1
            while w < words:
                item = w * per
                word = np.uint64(0)
                for j in range(ts):
                    s = first
                    q = item // 8
                    if nsplits > 1:
                        s += j
                    else:
                        q += 8 * j * octets
                    if split_raw[s] != 0:
                        x = _transposed(_eight(comp, split_src[s] + q, octets))
                    else:
                        x = _transposed(_eight(scratch, split_dst[s] + q, octets))
                    if ts == 1:
                        word = x
                    else:
                        x = x >> np.uint64(8 * (item % 8))
                        for r in range(per):
                            byte = (x >> np.uint64(8 * r)) & _LOW
                            word |= byte << np.uint64(8 * (r * ts + j))
                out_words[word0 + w] = word
                w += tpr
        elif words > 0:
            # Plain bytes are one plane of elements of one byte.
            planes = ts if mode == 1 else 1
            per = 8 // planes
            step = tpr * per
            while w < words:
                x0 = np.uint64(0)
                x1 = np.uint64(0)
                x2 = np.uint64(0)
                x3 = np.uint64(0)
                four = w + 3 * tpr < words
                for j in range(planes):
                    s = first
                    a = w * per
                    if nsplits > 1:
                        s += j
                    else:
                        a += j * items
                    shift = np.uint64(8 * j)
                    if split_raw[s] != 0:
                        a += split_src[s]
                        x0 |= _spread(comp, a, planes) << shift
                        if four:
                            x1 |= _spread(comp, a + step, planes) << shift
                            x2 |= _spread(comp, a + 2 * step, planes) << shift
                            x3 |= _spread(comp, a + 3 * step, planes) << shift
                    else:
                        a += split_dst[s]
                        x0 |= _spread(scratch, a, planes) << shift
                        if four:
                            x1 |= _spread(scratch, a + step, planes) << shift
                            x2 |= _spread(scratch, a + 2 * step, planes) << shift
                            x3 |= _spread(scratch, a + 3 * step, planes) << shift
                out_words[word0 + w] = x0
                w += tpr
                if four:
                    out_words[word0 + w] = x1
                    out_words[word0 + w + tpr] = x2
                    out_words[word0 + w + 2 * tpr] = x3
                    w += 3 * tpr

        # Bytes: what is left of the block, or all of it.
        for o in range(8 * words + lane, n, tpr):
            item = o // ts
            j = o - item * ts
            if mode == 2 and item < items:
                x = np.uint64(0)
                for k in range(8):
                    q = (8 * j + k) * octets + item // 8
                    byte = np.uint64(
                        _at(
                            comp,
                            scratch,
                            split_src,
                            split_raw,
                            split_dst,
                            first,
                            nsplits,
                            length,
                            q,
                        )
                    )
                    bit = (byte >> np.uint64(item % 8)) & np.uint64(1)
                    x |= bit << np.uint64(k)
                out[dst + o] = x
            else:
                q = o
                if mode == 1 and item < items:
                    q = j * items + item
                out[dst + o] = _at(
                    comp, scratch, split_src, split_raw, split_dst, first, nsplits, length, q
                )


def shuffle_blocks(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    block_src: Any,
    block_len: Any,
    typesize: Any,
    mode: Any,
    out: Any,
    block_dst: Any,
    status: Any,
) -> None:
    """Shuffle blocks: ``mode`` 0 copies, 1 shuffles bytes, 2 shuffles bits."""
    rows = min(len(block_src), len(block_len), len(typesize), len(mode))
    rows = min(rows, len(block_dst), len(status))
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        lane = v - row * tpr
        n = block_len[row]
        src0 = block_src[row]
        dst0 = block_dst[row]
        ts = typesize[row]
        how = mode[row]
        if n < 0 or src0 < 0 or src0 > len(src) - n or ts < 1:
            status[row] = 1
            continue
        if dst0 < 0 or dst0 > len(out) - n:
            status[row] = 2
            continue
        items = n // ts
        done = 0
        if how == 1 and ts > 1:
            done = items * ts
            for o in range(lane, done, tpr):
                j = o // items
                out[dst0 + o] = src[src0 + (o - j * items) * ts + j]
        elif how == 2 and items % 8 == 0:
            done = items * ts
            octets = items // 8
            # A lane takes one byte of eight elements and writes it to eight rows of bits.
            for o in range(lane, octets * ts, tpr):
                j = o // octets
                e = o - j * octets
                x = _transposed(_eight(src, src0 + 8 * e * ts + j, ts))
                for k in range(8):
                    byte = (x >> np.uint64(8 * k)) & _LOW
                    out[dst0 + (8 * j + k) * octets + e] = byte
        for o in range(done + lane, n, tpr):
            out[dst0 + o] = src[src0 + o]
