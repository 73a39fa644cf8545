"""``adler32`` of numcodecs: zlib's Adler-32 checksum, four bytes, little-endian.

Imports base and checksum; called through the chain.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

from zarr_gpu.codecs.base import U8
from zarr_gpu.codecs.checksum import PlacedChecksum

__all__ = ["Adler32"]


@dataclass(frozen=True)
class Adler32(PlacedChecksum):
    """Adds an Adler-32 checksum of the bytes and refuses bytes that do not match theirs.

    Parameters
    ----------
    location
        "start" or "end": where the checksum stands.

    Examples
    --------
    >>> import numpy as np
    >>> Adler32(location="end").encode(np.frombuffer(b"123456789", "u1"))[-4:].tobytes().hex()
    'de011e09'
    """

    name: ClassVar[str] = "numcodecs.adler32"
    v2_id: ClassVar[str | None] = "adler32"

    @staticmethod
    def checksum(data: U8) -> int:
        return zlib.adler32(data.data)
