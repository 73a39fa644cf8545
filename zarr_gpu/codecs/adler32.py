"""``adler32`` of numcodecs: zlib's Adler-32 checksum, four bytes, little-endian.

Imports base, checks and framing; called through the chain.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import check_config
from zarr_gpu.codecs.framing import attach_checksum, check_location, detach_checksum

__all__ = ["Adler32"]


def _checksum(data: U8) -> int:
    return zlib.adler32(data.data)


@dataclass(frozen=True)
class Adler32(BytesToBytes):
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

    location: str = "start"

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", check_location(self.name, self.location))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("location", "start"))

    def to_config(self) -> dict[str, Any]:
        return {"location": self.location}

    def encoded_size(self, nbytes: int) -> int:
        return nbytes + 4

    def encoded_bound(self, nbytes: int) -> int:
        return nbytes + 4

    def encode(self, data: U8) -> U8:
        return attach_checksum(data, _checksum(data), self.location)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        return detach_checksum(self.name, data, _checksum, self.location, limit=limit, exact=exact)
