"""``crc32`` of numcodecs: zlib's CRC-32, four bytes, little-endian.

Imports base and checksum; called through the chain.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

from zarr_gpu.codecs.base import U8
from zarr_gpu.codecs.checksum import PlacedChecksum

__all__ = ["CRC32"]


@dataclass(frozen=True)
class CRC32(PlacedChecksum):
    """Adds a CRC-32 of the bytes and refuses bytes that do not match theirs.

    Parameters
    ----------
    location
        "start" or "end": where the checksum stands.

    Examples
    --------
    >>> import numpy as np
    >>> CRC32(location="end").encode(np.frombuffer(b"123456789", "u1"))[-4:].tobytes().hex()
    '2639f4cb'
    """

    name: ClassVar[str] = "numcodecs.crc32"
    v2_id: ClassVar[str | None] = "crc32"

    @staticmethod
    def checksum(data: U8) -> int:
        return zlib.crc32(data.data)
