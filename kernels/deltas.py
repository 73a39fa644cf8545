"""Kernels for ``delta`` of numcodecs: running sums and differences of typed rows.

As in ``moves``: bodies over (thread number, number of threads, ...), offsets in items as int64,
status 1 for bad input and 2 for a place outside of the output.

Integers are passed as unsigned types of their width; ``signed`` tells what they stand for.  Their
sums wrap around, so that any order of adding is right and ``tpr`` threads share a row: first
``delta_sums``, then ``delta_decode``.  Sums of floats depend on the order; one thread adds a row
from first to last, as NumPy does.

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_UNSIGNED = ("u1", "u2", "u4", "u8")
_PAIRS = tuple(f"{a} {b}" for a in _UNSIGNED for b in _UNSIGNED)
SIGNATURES = {
    "delta_sums": ("n T i i n q s", _UNSIGNED),
    "delta_decode": ("n T D i i i n q s", _PAIRS),
    "delta_decode_float": ("T D i i i n s", ("f4 f4", "f8 f8", "f4 f8", "i2 f4", "i4 f8")),
    "delta_encode": ("n T D i i i n n s", _PAIRS),
    "delta_encode_float": ("n T D i i i n s", ("f4 f4", "f8 f8", "f8 f4", "f4 f8")),
}

_1 = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ZERO = np.uint64(0)


def _wide(value: Any, width: int, signed: int) -> Any:
    """An integer of ``width`` bytes as 64 bits in two's complement, in uint64."""
    x = np.uint64(value)
    if signed != 0 and width < 8:
        bits = np.uint64(8 * width)
        if (x >> (bits - _1)) & _1 != _ZERO:
            x = x | (_ALL << bits)
    return x


def _kept(value: Any, width: int) -> Any:
    """The low ``width`` bytes."""
    if width == 8:
        return value
    return value & (_ALL >> np.uint64(64 - 8 * width))


def _bad_row(nsrc: int, ndst: int, a: int, b: int, n: int) -> int:
    """The status of a row of ``n`` items from ``a`` to ``b``."""
    if n < 0 or a < 0 or a > nsrc - n:
        return 1
    if b < 0 or b > ndst - n:
        return 2
    return 0


def delta_sums(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    src_start: Any,
    row_items: Any,
    signed: int,
    sums: Any,
    status: Any,
) -> None:
    """``sums[r * tpr + lane]``: sum of the lane's part of row ``r``; not needed for ``tpr`` 1."""
    rows = min(len(src_start), len(row_items), len(status))
    width = src.itemsize
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        n = row_items[row]
        a = src_start[row]
        bad = _bad_row(len(src), n, a, 0, n)
        if bad != 0 or v >= len(sums):
            status[row] = max(bad, 1)
            continue
        part = (n + tpr - 1) // tpr
        begin = (v - row * tpr) * part
        total = np.uint64(0)
        for i in range(begin, min(begin + part, n)):
            total = total + _wide(src[a + i], width, signed)
        sums[v] = total


def delta_decode(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    signed: int,
    sums: Any,
    status: Any,
) -> None:
    """Running sums of integers; ``signed`` tells whether those of ``src`` are.

    ``sums`` is what ``delta_sums`` has made with the same ``tpr``; any array where ``tpr`` is 1.
    """
    rows = min(len(src_start), len(dst_start), len(row_items), len(status))
    width = src.itemsize
    into = dst.itemsize
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        n = row_items[row]
        a = src_start[row]
        b = dst_start[row]
        bad = _bad_row(len(src), len(dst), a, b, n)
        if bad == 0 and tpr > 1 and v >= len(sums):
            bad = 1
        if bad != 0:
            status[row] = bad
            continue
        part = (n + tpr - 1) // tpr
        begin = (v - row * tpr) * part
        total = np.uint64(0)
        for before in range(row * tpr, v):
            total = total + np.uint64(sums[before])
        for i in range(begin, min(begin + part, n)):
            total = total + _wide(src[a + i], width, signed)
            dst[b + i] = _kept(total, into)


def delta_decode_float(
    tid: int,
    nthreads: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    single: int,
    status: Any,
) -> None:
    """Running sums in floats, one thread per row, in order.

    ``single``: NumPy adds in float32 (the common type of ``src`` and ``dst``), else in float64.
    ``dst`` are floats.
    """
    rows = min(len(src_start), len(dst_start), len(row_items), len(status))
    for row in range(tid, rows, nthreads):
        n = row_items[row]
        a = src_start[row]
        b = dst_start[row]
        bad = _bad_row(len(src), len(dst), a, b, n)
        if bad != 0:
            status[row] = bad
            continue
        total = np.float64(0)
        for i in range(n):
            x = np.float64(src[a + i])
            if i == 0:
                total = x
            else:
                # The sum of two float32 in float64 and then rounded is their sum in float32.
                total += x
                if single != 0:
                    total = np.float64(np.float32(total))
            dst[b + i] = total


def delta_encode(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    signed: int,
    dst_signed: int,
    status: Any,
) -> None:
    """Differences of integers; the first item stays.

    As with NumPy, differences wrap around in the type of ``src`` and are then cut to that of
    ``dst``; a first item that a signed ``dst`` cannot hold is bad input.
    """
    rows = min(len(src_start), len(dst_start), len(row_items), len(status))
    width = src.itemsize
    into = dst.itemsize
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        n = row_items[row]
        a = src_start[row]
        b = dst_start[row]
        bad = _bad_row(len(src), len(dst), a, b, n)
        if bad != 0:
            status[row] = bad
            continue
        for i in range(v - row * tpr, n, tpr):
            x = _wide(src[a + i], width, signed)
            if i > 0:
                x = x - _wide(src[a + i - 1], width, signed)
                x = _wide(_kept(x, width), width, signed)
                dst[b + i] = _kept(x, into)
            else:
                first = _kept(x, into)
                dst[b] = first
                if dst_signed != 0:
                    again = _wide(first, into, 1)
                    above = signed == 0 and x >> np.uint64(63) != _ZERO
                    if again != x or above:
                        status[row] = 1


def delta_encode_float(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    single: int,
    status: Any,
) -> None:
    """Differences of floats, taken in the type of ``src`` (``single``: float32)."""
    rows = min(len(src_start), len(dst_start), len(row_items), len(status))
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        n = row_items[row]
        a = src_start[row]
        b = dst_start[row]
        bad = _bad_row(len(src), len(dst), a, b, n)
        if bad != 0:
            status[row] = bad
            continue
        for i in range(v - row * tpr, n, tpr):
            x = np.float64(src[a + i])
            if i > 0:
                x -= np.float64(src[a + i - 1])
                if single != 0:
                    x = np.float64(np.float32(x))
            dst[b + i] = x
