"""Raw Snappy streams in plain Python, for the stand-in of nvCOMP: no library here has them.

Imports NumPy only; called by ``nvcomp_host``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["DamagedStreamError", "snappy_compress", "snappy_decode"]

U8 = npt.NDArray[np.uint8]


class DamagedStreamError(ValueError):
    """A stream that its format forbids."""


def snappy_decode(data: U8, room: int) -> U8:
    """Decode a raw Snappy stream to at most ``room`` bytes."""
    raw = data.tobytes()
    size = shift = at = 0
    while True:
        if at >= len(raw) or shift > 28:
            raise DamagedStreamError("no length")
        byte = raw[at]
        at += 1
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if size > room:
        raise DamagedStreamError("too large")
    out = bytearray()
    while at < len(raw):
        tag = raw[at]
        at += 1
        kind, length = tag & 3, tag >> 2
        if kind == 0:
            if length >= 60:
                width = length - 59
                length = int.from_bytes(raw[at : at + width], "little")
                at += width
            length += 1
            part = raw[at : at + length]
            at += length
        else:
            if kind == 1:
                length, high, width = (tag >> 2 & 7) + 4, tag >> 5 << 8, 1
            else:
                length, high, width = length + 1, 0, 2 if kind == 2 else 4
            distance = high + int.from_bytes(raw[at : at + width], "little")
            at += width
            if not 0 < distance <= len(out):
                raise DamagedStreamError("distance")
            piece = bytes(out[-distance:])
            part = (piece * (length // len(piece) + 1))[:length]
        out += part
        if at > len(raw) or len(out) > size:
            raise DamagedStreamError("cut or too long")
    if len(out) != size:
        raise DamagedStreamError("cut")
    return np.frombuffer(bytes(out), np.uint8)


def snappy_compress(data: U8) -> U8:
    """A raw Snappy stream of literals: legal, and no shorter than ``data``."""
    parts, size = [], len(data)
    while True:
        parts.append(bytes([size & 127 | (128 if size > 127 else 0)]))
        size >>= 7
        if not size:
            break
    raw = data.tobytes()
    for at in range(0, len(raw), 1 << 16):
        piece = raw[at : at + (1 << 16)]
        parts += [b"\xf4" + (len(piece) - 1).to_bytes(2, "little"), piece]
    return np.frombuffer(b"".join(parts), np.uint8)
