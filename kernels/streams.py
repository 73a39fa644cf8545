"""Kernels that decompress: LZ4 blocks and BloscLZ streams, one thread each.

For data that no library on the device decodes.  As in ``moves``: bodies over (thread number,
number of threads, ...), int64 offsets; status 1 for a damaged stream, 2 for a place outside of the
output.  A stream must yield exactly the bytes that are expected of it; what a damaged one has
written by then stays inside of its own place.

Imports NumPy only; reached through ``registry``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIGNATURES = {
    "lz4_decode": ("b i i b i i s", ()),
    "blosclz_decode": ("b i i b i i s", ()),
}

# Where LZ4 lets matches and the last literals end: limits that its own decoder keeps.
_LAST_LITERALS = 5
_MATCH_LIMIT = 12
_TOKEN_ROOM = 8


def lz4_decode(
    tid: int,
    nthreads: int,
    src: Any,
    src_off: Any,
    src_len: Any,
    dst: Any,
    dst_off: Any,
    dst_len: Any,
    status: Any,
) -> None:
    """Decompress LZ4 blocks (no frame, no length in front).

    Accepts what ``LZ4_decompress_safe`` accepts, save for matches at distance 0, which it fills
    with whatever.
    """
    rows = min(len(src_off), len(src_len), len(dst_off), len(dst_len), len(status))
    for row in range(tid, rows, nthreads):
        ip = src_off[row]
        op = dst_off[row]
        if src_len[row] < 1 or ip < 0 or ip > len(src) - src_len[row]:
            status[row] = 1
            continue
        if dst_len[row] < 0 or op < 0 or op > len(dst) - dst_len[row]:
            status[row] = 2
            continue
        iend = ip + src_len[row]
        begin = op
        oend = op + dst_len[row]
        good = False
        while ip < iend:
            token = np.int64(src[ip])
            ip += 1
            length = token >> 4
            if length == 15:
                more = np.int64(255)
                while more == 255 and ip < iend:
                    more = np.int64(src[ip])
                    ip += 1
                    length += more
                if more == 255:
                    break
            if length > iend - ip or length > oend - op:
                break
            for i in range(length):
                dst[op + i] = src[ip + i]
            ip += length
            op += length
            if ip == iend:
                good = op == oend
                break
            if op > oend - _MATCH_LIMIT or ip > iend - _TOKEN_ROOM:
                break
            distance = np.int64(src[ip]) | (np.int64(src[ip + 1]) << 8)
            ip += 2
            length = token & 15
            if length == 15:
                more = np.int64(255)
                while more == 255 and ip < iend:
                    more = np.int64(src[ip])
                    ip += 1
                    length += more
                if more == 255:
                    break
            length += 4
            if distance == 0 or distance > op - begin or length > oend - _LAST_LITERALS - op:
                break
            for i in range(length):
                dst[op + i] = dst[op + i - distance]
            op += length
        if not good:
            status[row] = 1


def blosclz_decode(
    tid: int,
    nthreads: int,
    src: Any,
    src_off: Any,
    src_len: Any,
    dst: Any,
    dst_off: Any,
    dst_len: Any,
    status: Any,
) -> None:
    """Decompress BloscLZ streams as they stand in Blosc frames.

    Accepts what ``blosclz_decompress`` accepts.
    """
    rows = min(len(src_off), len(src_len), len(dst_off), len(dst_len), len(status))
    for row in range(tid, rows, nthreads):
        ip = src_off[row]
        op = dst_off[row]
        if src_len[row] < 1 or ip < 0 or ip > len(src) - src_len[row]:
            status[row] = 1
            continue
        if dst_len[row] < 0 or op < 0 or op > len(dst) - dst_len[row]:
            status[row] = 2
            continue
        iend = ip + src_len[row]
        begin = op
        oend = op + dst_len[row]
        good = False
        # The first byte is a literal run whatever its top bits say.
        control = np.int64(src[ip]) & 31
        ip += 1
        while True:
            if control < 32:
                length = control + 1
                if length > iend - ip or length > oend - op:
                    break
                for i in range(length):
                    dst[op + i] = src[ip + i]
                ip += length
                op += length
                if ip == iend:
                    good = op == oend
                    break
            else:
                length = (control >> 5) - 1
                distance = (control & 31) << 8
                if length == 6:
                    more = np.int64(255)
                    while more == 255 and ip + 1 < iend:
                        more = np.int64(src[ip])
                        ip += 1
                        length += more
                    if more == 255:
                        break
                elif ip + 1 >= iend:
                    break
                code = np.int64(src[ip])
                ip += 1
                length += 3
                if code == 255 and distance == 31 << 8:
                    if ip + 1 >= iend:
                        break
                    distance = (np.int64(src[ip]) << 8) + np.int64(src[ip + 1]) + 8191
                    ip += 2
                else:
                    distance += code
                distance += 1
                if distance > op - begin or length > oend - op:
                    break
                if ip >= iend:  # a match that ends the stream is not carried out
                    good = op == oend
                    break
                for i in range(length):
                    dst[op + i] = dst[op + i - distance]
                op += length
            control = np.int64(src[ip])
            ip += 1
        if not good:
            status[row] = 1
