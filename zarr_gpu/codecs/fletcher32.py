"""``fletcher32`` of numcodecs, which is that of HDF5: a checksum of 16-bit words behind the data.

Imports base, checks and framing; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import check_config
from zarr_gpu.codecs.framing import attach_checksum, detach_checksum

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
class Fletcher32(BytesToBytes):
    """Appends a Fletcher checksum of the bytes and refuses bytes that do not match theirs.

    Examples
    --------
    >>> import numpy as np
    >>> Fletcher32().encode(np.frombuffer(b"abcde", "u1"))[-4:].tobytes().hex()
    'c729f04f'
    """

    name: ClassVar[str] = "numcodecs.fletcher32"
    v2_id: ClassVar[str | None] = "fletcher32"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        check_config(cls.name, config, None)
        return cls()

    def to_config(self) -> dict[str, Any]:
        return {}

    def encoded_size(self, nbytes: int) -> int:
        return nbytes + 4

    def encoded_bound(self, nbytes: int) -> int:
        return nbytes + 4

    def encode(self, data: U8) -> U8:
        return attach_checksum(data, _checksum(data), "end")

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        return detach_checksum(self.name, data, _checksum, "end", limit=limit, exact=exact)
