"""Kernels for ``packbits`` of numcodecs: booleans as bits.

The first byte is the number of bits that do not count, at the end; then eight items to a byte, the
first one in the highest bit.  As in ``moves``: bodies over (thread number, number of threads, ...),
``tpr`` threads for each row, int64 offsets, status 1 for bad input and 2 for a place outside of
the output.

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIGNATURES = {
    "packbits_decode": ("n b i i b i i s", ()),
    "packbits_encode": ("n b i i b i s", ()),
}


def packbits_decode(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    src_off: Any,
    src_len: Any,
    dst: Any,
    dst_off: Any,
    row_items: Any,
    status: Any,
) -> None:
    """Bits to bytes of 0 and 1; a row must hold ``row_items`` of them."""
    rows = min(len(src_off), len(src_len), len(dst_off), len(row_items), len(status))
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        a = src_off[row]
        nbytes = src_len[row]
        b = dst_off[row]
        n = row_items[row]
        if nbytes < 1 or a < 0 or a > len(src) - nbytes:
            status[row] = 1
            continue
        if n < 0 or b < 0 or b > len(dst) - n:
            status[row] = 2
            continue
        if max(8 * (nbytes - 1) - np.int64(src[a]), 0) != n:
            status[row] = 1
            continue
        for i in range(v - row * tpr, n, tpr):
            dst[b + i] = (np.int64(src[a + 1 + i // 8]) >> (7 - i % 8)) & 1


def packbits_encode(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    src_off: Any,
    row_items: Any,
    dst: Any,
    dst_off: Any,
    status: Any,
) -> None:
    """Bytes to bits: ``1 + ceil(row_items / 8)`` bytes for each row; all but 0 is true."""
    rows = min(len(src_off), len(row_items), len(dst_off), len(status))
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        a = src_off[row]
        n = row_items[row]
        b = dst_off[row]
        if n < 0 or a < 0 or a > len(src) - n:
            status[row] = 1
            continue
        nbytes = (n + 7) // 8
        if b < 0 or b > len(dst) - 1 - nbytes:
            status[row] = 2
            continue
        lane = v - row * tpr
        if lane == 0:
            dst[b] = 8 * nbytes - n
        for o in range(lane, nbytes, tpr):
            x = 0
            for k in range(8):
                x = x << 1
                if 8 * o + k < n and src[a + 8 * o + k] != 0:
                    x |= 1
            dst[b + 1 + o] = x
