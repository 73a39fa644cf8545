"""Kernels that undo and do the shuffles of Blosc, block by block.

As in ``moves``: bodies over (thread number, number of threads, ...), ``tpr`` threads for each row,
int64 offsets, status 1 for bad input and 2 for a place outside of the output.  A row is a block.

Shuffled: byte ``j`` of all elements comes before byte ``j + 1`` of them.  Bit-shuffled: bit 0 of
byte 0 of all elements comes first, eight elements to a byte; only where the number of elements is
a multiple of 8, otherwise nothing is done.  Bytes behind the last whole element stay as they are.

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIGNATURES = {
    "blosc_assemble": ("n b b i i i i i b i i i b q s", ()),
    "shuffle_blocks": ("n b i i i i b i s", ()),
}

_LOW = np.uint64(0xFF)
_BYTE1 = np.uint64(0xFF00)
_BYTE2 = np.uint64(0xFF0000)
_BYTE3 = np.uint64(0xFF000000)
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


def _spread_word(y: Any, typesize: int) -> Any:
    """The same of the lowest bytes of a word."""
    x = y & _LOW
    if typesize == 8:
        return x
    if typesize == 4:
        return x | ((y & _BYTE1) << _24)
    if typesize == 2:
        return x | ((y & _BYTE1) << _8) | ((y & _BYTE2) << _16) | ((y & _BYTE3) << _24)
    return y


def _plane_at(
    split_src: Any, split_raw: Any, split_dst: Any, first: int, nsplits: int, plane: int, size: int
) -> Any:
    """Where a plane of a block begins: place, and whether that is in ``comp``.

    A split is a plane, or the only split holds them all, ``size`` bytes each.
    """
    s = first
    skip = 0
    if nsplits > 1:
        s += plane
    else:
        skip = plane * size
    if split_raw[s] != 0:
        return split_src[s] + skip, True
    return split_dst[s] + skip, False


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


def _plain(
    lane: int,
    tpr: int,
    comp: Any,
    scratch: Any,
    split_src: Any,
    split_raw: Any,
    split_dst: Any,
    first: int,
    nsplits: int,
    begin: int,
    n: int,
    dst: int,
    out: Any,
    out_words: Any,
    aligned: bool,
) -> None:
    """One lane's part of the bytes from ``begin`` on of a block that was not shuffled."""
    length = n // nsplits
    words = 0
    if aligned and begin == 0 and (nsplits == 1 or length % 8 == 0):
        words = n // 8
    for w in range(lane, words, tpr):
        j = 0
        if nsplits > 1:
            j = 8 * w // length
        a, raw = _plane_at(split_src, split_raw, split_dst, first, nsplits, j, 0)
        a += 8 * w - j * length
        out_words[dst // 8 + w] = _eight(comp, a, 1) if raw else _eight(scratch, a, 1)
    for o in range(max(8 * words, begin) + lane, n, tpr):
        j = 0
        if nsplits > 1:
            j = o // length
        a, raw = _plane_at(split_src, split_raw, split_dst, first, nsplits, j, 0)
        a += o - j * length
        out[dst + o] = comp[a] if raw else scratch[a]


def _unshuffle(
    lane: int,
    tpr: int,
    comp: Any,
    scratch: Any,
    split_src: Any,
    split_raw: Any,
    split_dst: Any,
    first: int,
    nsplits: int,
    items: int,
    ts: int,
    dst: int,
    out: Any,
    out_words: Any,
    aligned: bool,
) -> None:
    """One lane's part of the whole elements of a shuffled block."""
    words = 0
    if aligned and 8 % ts == 0:
        words = items * ts // 8
        per = 8 // ts
        step = tpr * per
        w = lane
        while w < words:
            x0 = np.uint64(0)
            x1 = np.uint64(0)
            x2 = np.uint64(0)
            x3 = np.uint64(0)
            four = w + 3 * tpr < words
            for j in range(ts):
                a, raw = _plane_at(split_src, split_raw, split_dst, first, nsplits, j, items)
                a += w * per
                shift = np.uint64(8 * j)
                if raw:
                    x0 |= _spread(comp, a, ts) << shift
                    if four:
                        x1 |= _spread(comp, a + step, ts) << shift
                        x2 |= _spread(comp, a + 2 * step, ts) << shift
                        x3 |= _spread(comp, a + 3 * step, ts) << shift
                else:
                    x0 |= _spread(scratch, a, ts) << shift
                    if four:
                        x1 |= _spread(scratch, a + step, ts) << shift
                        x2 |= _spread(scratch, a + 2 * step, ts) << shift
                        x3 |= _spread(scratch, a + 3 * step, ts) << shift
            place = dst // 8 + w
            out_words[place] = x0
            w += tpr
            if four:
                out_words[place + tpr] = x1
                out_words[place + 2 * tpr] = x2
                out_words[place + 3 * tpr] = x3
                w += 3 * tpr
    for o in range(8 * words + lane, items * ts, tpr):
        i = o // ts
        a, raw = _plane_at(split_src, split_raw, split_dst, first, nsplits, o - i * ts, items)
        out[dst + o] = comp[a + i] if raw else scratch[a + i]


def _unbitshuffle(
    lane: int,
    tpr: int,
    comp: Any,
    scratch: Any,
    split_src: Any,
    split_raw: Any,
    split_dst: Any,
    first: int,
    nsplits: int,
    items: int,
    ts: int,
    dst: int,
    out: Any,
    out_words: Any,
    aligned: bool,
) -> None:
    """One lane's part of the elements of a bit-shuffled block, a multiple of eight."""
    octets = items // 8
    if aligned and 8 % ts == 0:
        # Eight elements are `ts` words.
        skip = np.uint64(64 // ts % 64)
        for g in range(lane, octets, tpr):
            x0 = np.uint64(0)
            x1 = np.uint64(0)
            x2 = np.uint64(0)
            x3 = np.uint64(0)
            x4 = np.uint64(0)
            x5 = np.uint64(0)
            x6 = np.uint64(0)
            x7 = np.uint64(0)
            for j in range(ts):
                a, raw = _plane_at(split_src, split_raw, split_dst, first, nsplits, j, items)
                t = _eight(comp, a + g, octets) if raw else _eight(scratch, a + g, octets)
                t = _transposed(t)
                shift = np.uint64(8 * j)
                x0 |= _spread_word(t, ts) << shift
                if ts > 1:
                    t = t >> skip
                    x1 |= _spread_word(t, ts) << shift
                if ts > 2:
                    t = t >> skip
                    x2 |= _spread_word(t, ts) << shift
                    t = t >> skip
                    x3 |= _spread_word(t, ts) << shift
                if ts > 4:
                    t = t >> skip
                    x4 |= _spread_word(t, ts) << shift
                    t = t >> skip
                    x5 |= _spread_word(t, ts) << shift
                    t = t >> skip
                    x6 |= _spread_word(t, ts) << shift
                    t = t >> skip
                    x7 |= _spread_word(t, ts) << shift
            place = dst // 8 + g * ts
            out_words[place] = x0
            if ts > 1:
                out_words[place + 1] = x1
            if ts > 2:
                out_words[place + 2] = x2
                out_words[place + 3] = x3
            if ts > 4:
                out_words[place + 4] = x4
                out_words[place + 5] = x5
                out_words[place + 6] = x6
                out_words[place + 7] = x7
    else:
        # One byte of eight elements; neighbouring lanes take neighbouring bytes.
        for v in range(lane, octets * ts, tpr):
            g = v // ts
            j = v - g * ts
            a, raw = _plane_at(split_src, split_raw, split_dst, first, nsplits, j, items)
            t = _eight(comp, a + g, octets) if raw else _eight(scratch, a + g, octets)
            t = _transposed(t)
            for r in range(8):
                out[dst + (8 * g + r) * ts + j] = (t >> np.uint64(8 * r)) & _LOW


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
        # A block is one split, or one per byte of an element.
        if ts < 1 or nsplits < 1 or (nsplits > 1 and nsplits != ts) or n % nsplits != 0:
            status[row] = 1
            continue
        if not _splits_fit(
            len(comp), len(scratch), split_src, split_raw, split_dst, first, nsplits, n // nsplits
        ):
            status[row] = 1
            continue
        items = n // ts
        aligned = dst % 8 == 0 and dst // 8 <= len(out_words) - n // 8
        rest = 0
        if mode == 1 and ts > 1:
            rest = items * ts
            _unshuffle(
                lane,
                tpr,
                comp,
                scratch,
                split_src,
                split_raw,
                split_dst,
                first,
                nsplits,
                items,
                ts,
                dst,
                out,
                out_words,
                aligned,
            )
        elif mode == 2 and items % 8 == 0:
            rest = items * ts
            _unbitshuffle(
                lane,
                tpr,
                comp,
                scratch,
                split_src,
                split_raw,
                split_dst,
                first,
                nsplits,
                items,
                ts,
                dst,
                out,
                out_words,
                aligned,
            )
        _plain(
            lane,
            tpr,
            comp,
            scratch,
            split_src,
            split_raw,
            split_dst,
            first,
            nsplits,
            rest,
            n,
            dst,
            out,
            out_words,
            aligned,
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
            for j in range(ts):
                for i in range(lane, items, tpr):
                    out[dst0 + j * items + i] = src[src0 + i * ts + j]
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
