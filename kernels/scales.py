"""Kernels for element-wise number filters: casts, ``fixedscaleoffset``.

As in ``moves``: bodies over (thread number, number of threads, ...), ``tpr`` threads for each row,
offsets in items as int64, status 1 for bad input and 2 for a place outside of the output.

All arithmetic is in float64, rounded to float32 after every step where NumPy computes in float32
(``single``): for one sum, difference, product or quotient that gives the same bits.  ``kind`` tells
what ``dst`` holds: 0 floats, 1 signed and 2 unsigned integers.  Integers are passed as unsigned
types of their width where they are written.  Floats that an integer cannot hold become what NumPy
makes of them on x86-64 (for uint32, what it makes of single values: of many it makes others).

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_UNSIGNED = ("u1", "u2", "u4", "u8")
_NUMBERS = ("i1", "i2", "i4", "i8", *_UNSIGNED, "f4", "f8")
_CASTS = (
    *(f"{a} {b}" for a in ("f4", "f8") for b in (*_UNSIGNED, "f4", "f8")),
    *(f"{a} {b}" for a in _NUMBERS[:8] for b in ("f4", "f8")),
)
SIGNATURES = {
    "cast": ("n T D i i i n s", _CASTS),
    "cast_int": ("n T D i i i n s", tuple(f"{a} {b}" for a in _UNSIGNED for b in _UNSIGNED)),
    "fixedscaleoffset_decode": ("n T D i i i x x n n s", _CASTS),
    "fixedscaleoffset_encode": ("n T D i i i x x n n s", _CASTS),
}

_ONE = np.uint64(1)
_TOP = np.uint64(1 << 63)
_MINUS = np.uint64(0xFFFFFFFFFFFFFFFF)


def _integer(x: Any, width: int, kind: int) -> Any:
    """A float as an integer of ``width`` bytes, in the low bytes of a uint64."""
    if width < 4 or (width == 4 and kind == 1):
        whole = np.int64(-2147483648)
        if -2147483649.0 < x < 2147483648.0:
            whole = np.int64(x)
        bits = np.uint64(whole)
    elif -9223372036854775808.0 <= x < 9223372036854775808.0:
        bits = np.uint64(np.int64(x))
    elif kind == 2 and width == 8 and 9223372036854775808.0 <= x < 18446744073709551616.0:
        bits = np.uint64(np.int64(x - 9223372036854775808.0)) | _TOP
    elif kind == 2 and width == 8 and x > 0:
        bits = np.uint64(0)
    else:
        bits = _TOP
    if width < 8:
        bits = bits & (_MINUS >> np.uint64(64 - 8 * width))
    return bits


def _rounded(x: Any) -> Any:
    """The nearest whole number, ties to even, as ``np.rint``."""
    if -4503599627370496.0 < x < 4503599627370496.0 and x != 0.0:
        if x < 0.0:
            x = -((4503599627370496.0 - x) - 4503599627370496.0)
        else:
            x = (4503599627370496.0 + x) - 4503599627370496.0
    return x


def _bad_row(nsrc: int, ndst: int, a: int, b: int, n: int) -> int:
    """The status of a row of ``n`` items from ``a`` to ``b``."""
    if n < 0 or a < 0 or a > nsrc - n:
        return 1
    if b < 0 or b > ndst - n:
        return 2
    return 0


def cast(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    kind: int,
    status: Any,
) -> None:
    """Numbers as another type, where at least one of the two types is a float."""
    rows = min(len(src_start), len(dst_start), len(row_items), len(status))
    width = dst.itemsize
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
            if kind != 0:
                dst[b + i] = _integer(np.float64(src[a + i]), width, kind)
            elif width == 4:
                dst[b + i] = np.float32(src[a + i])
            else:
                dst[b + i] = np.float64(src[a + i])


def cast_int(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    signed: int,
    status: Any,
) -> None:
    """Integers in another width; ``signed`` tells whether those of ``src`` are."""
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
            x = np.uint64(src[a + i])
            if signed != 0 and width < 8 and (x >> np.uint64(8 * width - 1)) & _ONE == _ONE:
                x = x | (_MINUS << np.uint64(8 * width))
            if into < 8:
                x = x & (_MINUS >> np.uint64(64 - 8 * into))
            dst[b + i] = x


def fixedscaleoffset_decode(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    scale: float,
    offset: float,
    single: int,
    kind: int,
    status: Any,
) -> None:
    """``src / scale + offset``, then a cast.

    ``single``: NumPy computes in float32 (items of ``src`` are float32); then ``scale`` and
    ``offset`` must be rounded to it before.
    """
    rows = min(len(src_start), len(dst_start), len(row_items), len(status))
    width = dst.itemsize
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
            x = np.float64(src[a + i]) / scale
            if single != 0:
                x = np.float64(np.float32(x))
            x += offset
            if single != 0:
                x = np.float64(np.float32(x))
            if kind != 0:
                dst[b + i] = _integer(x, width, kind)
            else:
                dst[b + i] = x


def fixedscaleoffset_encode(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    dst: Any,
    src_start: Any,
    dst_start: Any,
    row_items: Any,
    scale: float,
    offset: float,
    single: int,
    kind: int,
    status: Any,
) -> None:
    """``round((src - offset) * scale)``, then a cast; not for integers less an integer."""
    rows = min(len(src_start), len(dst_start), len(row_items), len(status))
    width = dst.itemsize
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
            x = np.float64(src[a + i]) - offset
            if single != 0:
                x = np.float64(np.float32(x))
            x *= scale
            if single != 0:
                x = np.float64(np.float32(x))
            x = _rounded(x)
            if kind != 0:
                dst[b + i] = _integer(x, width, kind)
            else:
                dst[b + i] = x
