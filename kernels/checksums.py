"""Kernels that compute and compare checksums: CRCs of 32 bits, Adler-32.

As in ``moves``: bodies over (thread number, number of threads, ...), int64 offsets, status 1 for
bad input, 3 for a checksum that differs.  ``tpr`` threads share a row: ``*_rows`` leaves one part
per thread, ``*_join`` puts the parts of a row together.

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["crc_tables"]

SIGNATURES = {
    "crc_rows": ("n b i i w w n w s", ()),
    "crc_join": ("n w n w", ()),
    "adler32_rows": ("n b i i i s", ()),
    "adler32_join": ("n i i w", ()),
    "check_stored_u32": ("b i w n s", ()),
}

_MOD = 65521
_TOP = 1 << 31
_ALL = (1 << 32) - 1


def _times(a: Any, b: Any, polynomial: Any) -> Any:
    """Product of two reflected polynomials modulo a third."""
    product = np.int64(0)
    for _ in range(32):
        if b & _TOP != 0:
            product ^= a
        b = (b << 1) & _ALL
        a = (a >> 1) ^ polynomial if a & 1 != 0 else a >> 1
    return product


def crc_tables(polynomial: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Tables of a reflected CRC for ``crc_rows``.

    Parameters
    ----------
    polynomial
        Reflected: 0xEDB88320 for CRC-32, 0x82F63B78 for CRC-32C.

    Returns
    -------
    table, powers
        uint32[2048], what a byte with 0 to 7 bytes behind it adds; uint32[65], powers of two of
        bytes as factors, and the polynomial behind them.
    """
    table = np.empty((8, 256), np.uint32)
    x = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        x = (x >> np.uint32(1)) ^ np.where(x & 1, np.uint32(polynomial), np.uint32(0))
    table[0] = x
    for k in range(1, 8):
        table[k] = (table[k - 1] >> np.uint32(8)) ^ table[0][table[k - 1] & np.uint32(255)]
    powers = np.empty(65, np.uint32)
    power = 1 << 23  # x to the 8th: one byte
    for k in range(64):
        powers[k] = power
        power = int(_times(power, power, polynomial))
    powers[64] = polynomial
    return table.reshape(-1), powers


def crc_rows(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    off: Any,
    nbytes: Any,
    table: Any,
    powers: Any,
    init: int,
    parts: Any,
    status: Any,
) -> None:
    """Parts of CRCs: ``parts[r * tpr + lane]``, to be put together by ``crc_join``.

    ``table`` and ``powers`` are those of ``crc_tables``.
    """
    rows = min(len(off), len(nbytes), len(status))
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        lane = v - row * tpr
        start = off[row]
        n = nbytes[row]
        if v >= len(parts):
            status[row] = 1
            continue
        parts[v] = 0
        if n < 0 or start < 0 or start > len(src) - n or len(table) < 2048 or len(powers) < 65:
            status[row] = 1
            continue
        part = (n + tpr - 1) // tpr
        begin = min(lane * part, n)
        end = min(begin + part, n)
        crc = np.int64(0)
        if lane == 0:
            crc = np.int64(init)
        i = start + begin
        stop = start + end
        while i + 8 <= stop:
            crc ^= np.int64(src[i]) | (np.int64(src[i + 1]) << 8)
            crc ^= (np.int64(src[i + 2]) << 16) | (np.int64(src[i + 3]) << 24)
            x = np.int64(table[1792 + (crc & 255)]) ^ np.int64(table[1536 + ((crc >> 8) & 255)])
            x ^= np.int64(table[1280 + ((crc >> 16) & 255)]) ^ np.int64(table[1024 + (crc >> 24)])
            x ^= np.int64(table[768 + np.int64(src[i + 4])])
            x ^= np.int64(table[512 + np.int64(src[i + 5])])
            x ^= np.int64(table[256 + np.int64(src[i + 6])])
            crc = x ^ np.int64(table[np.int64(src[i + 7])])
            i += 8
        while i < stop:
            crc = np.int64(table[(crc ^ np.int64(src[i])) & 255]) ^ (crc >> 8)
            i += 1
        # Every byte behind the part multiplies by x to the 8th.
        behind = n - end
        k = 0
        polynomial = np.int64(powers[64])
        while behind > 0:
            if behind & 1 != 0:
                crc = _times(crc, np.int64(powers[k]), polynomial)
            behind >>= 1
            k += 1
        parts[v] = crc


def crc_join(tid: int, nthreads: int, tpr: int, parts: Any, xorout: int, out: Any) -> None:
    """CRCs from the parts that ``crc_rows`` made with the same ``tpr``."""
    for row in range(tid, min(len(out), len(parts) // tpr), nthreads):
        crc = np.int64(xorout)
        for k in range(row * tpr, (row + 1) * tpr):
            crc ^= np.int64(parts[k])
        out[row] = crc


def adler32_rows(
    tid: int,
    nthreads: int,
    tpr: int,
    src: Any,
    off: Any,
    nbytes: Any,
    parts: Any,
    status: Any,
) -> None:
    """Parts of Adler-32 sums, two for each thread: ``parts`` is int64[2 * rows * tpr]."""
    rows = min(len(off), len(nbytes), len(status))
    for v in range(tid, rows * tpr, nthreads):
        row = v // tpr
        lane = v - row * tpr
        start = off[row]
        n = nbytes[row]
        if 2 * v + 1 >= len(parts):
            status[row] = 1
            continue
        parts[2 * v] = 0
        parts[2 * v + 1] = 0
        if n < 0 or start < 0 or start > len(src) - n:
            status[row] = 1
            continue
        # A byte counts once in the first sum and, in the second, as often as bytes from it on.
        step = np.int64(tpr % _MOD)
        weight = np.int64((n - lane) % _MOD)
        low = np.int64(0)
        high = np.int64(0)
        for i in range(lane, n, tpr):
            x = np.int64(src[start + i])
            low += x
            high += weight * x
            weight -= step
            if weight < 0:
                weight += _MOD
        parts[2 * v] = low % _MOD
        parts[2 * v + 1] = high % _MOD


def adler32_join(tid: int, nthreads: int, tpr: int, nbytes: Any, parts: Any, out: Any) -> None:
    """Adler-32 sums from the parts that ``adler32_rows`` made with the same ``tpr``."""
    rows = min(len(out), len(nbytes), len(parts) // (2 * tpr))
    for row in range(tid, rows, nthreads):
        low = np.int64(1)
        high = np.int64(nbytes[row] % _MOD)
        for k in range(row * tpr, (row + 1) * tpr):
            low += parts[2 * k]
            high += parts[2 * k + 1]
        out[row] = ((high % _MOD) << 16) | (low % _MOD)


def check_stored_u32(
    tid: int,
    nthreads: int,
    src: Any,
    at: Any,
    computed: Any,
    big_endian: int,
    status: Any,
) -> None:
    """Status 3 where the four bytes at ``at[r]`` are not ``computed[r]``."""
    for row in range(tid, min(len(at), len(computed), len(status)), nthreads):
        start = at[row]
        if start < 0 or start > len(src) - 4:
            status[row] = 1
            continue
        stored = np.int64(0)
        for k in range(4):
            place = start + (k if big_endian != 0 else 3 - k)
            stored = (stored << 8) | np.int64(src[place])
        if stored != np.int64(computed[row]):
            status[row] = 3
