"""``fletcher32`` of numcodecs, which is that of HDF5: a checksum of 16-bit words behind the data.

Imports base and checksum; called through the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zarr_gpu.codecs.base import U8
from zarr_gpu.codecs.checksum import Checksum

__all__ = ["Fletcher32"]

_BLOCK = 1 << 17  # bytes: their weighted sum stays far below 2**63
_MODULUS = 0xFFFF
_WEIGHTS = np.arange(_BLOCK // 2, 0, -1)  # of the words of a block, from the first one on


def _checksum(data: U8) -> int:
    """Sums modulo 65535 of the big-endian words, and of these sums; a sum of 0 counts as 65535."""
    first = second = 0
    some = False
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        if len(block) % 2:
            block = np.append(block, np.uint8(0))
        words = block.view(">u2").astype(np.int64)
        count = len(words)
        total = int(words.sum())
        some = some or total > 0
        second += count * first + int(words @ _WEIGHTS[len(_WEIGHTS) - count :])
        first += total
        first, second = first % _MODULUS, second % _MODULUS
    if some:
        first, second = first or _MODULUS, second or _MODULUS
    return second << 16 | first


@dataclass(frozen=True)
class Fletcher32(Checksum):
    """Appends a Fletcher checksum of the bytes and refuses bytes that do not match theirs.

    Examples
    --------
    >>> import numpy as np
    >>> Fletcher32().encode(np.frombuffer(b"abcde", "u1"))[-4:].tobytes().hex()
    'c729f04f'
    """

    name: ClassVar[str] = "numcodecs.fletcher32"
    v2_id: ClassVar[str | None] = "fletcher32"

    @staticmethod
    def checksum(data: U8) -> int:
        return _checksum(data)
