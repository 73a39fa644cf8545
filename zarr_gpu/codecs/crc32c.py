"""``crc32c``: the Castagnoli checksum of the bytes, four of them, little-endian.

Imports base and checks; called through the chain and, for shard indexes, by the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import check_config
from zarr_gpu.codecs.framing import attach_checksum, check_location, detach_checksum
from zarr_gpu.errors import MissingDependencyError

__all__ = ["CRC32C", "Crc32cCodec"]


def _checksum(data: U8) -> int:
    try:
        from google_crc32c import value
    except ImportError as error:
        raise MissingDependencyError(
            f"codec 'crc32c' needs the package google-crc32c: {error}", codec="crc32c"
        ) from error
    return int(value(data))


@dataclass(frozen=True, kw_only=True)
class Crc32cCodec(BytesToBytes):
    """Appends a CRC-32C of the bytes and refuses bytes that do not match theirs.

    Examples
    --------
    >>> import numpy as np
    >>> Crc32cCodec().encode(np.frombuffer(b"123456789", "u1"))[-4:].tobytes().hex()
    '839206e3'
    """

    name: ClassVar[str] = "crc32c"
    v2_id: ClassVar[str | None] = "crc32c"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        check_config(cls.name, config, ())
        return cls()

    def to_config(self) -> dict[str, Any]:
        return {}

    def to_v2_config(self) -> dict[str, Any]:
        return {"location": "end"}

    def encoded_size(self, nbytes: int) -> int:
        return nbytes + 4

    def encoded_bound(self, nbytes: int) -> int:
        return nbytes + 4

    def encode(self, data: U8) -> U8:
        return attach_checksum(data, _checksum(data), self._place())

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        return detach_checksum(self.name, data, _checksum, self._place(), limit=limit, exact=exact)

    def _place(self) -> str:
        return "end"


@dataclass(frozen=True)
class CRC32C(Crc32cCodec):
    """``crc32c`` of numcodecs.

    Parameters
    ----------
    location
        "start" or "end": where the checksum stands.
    """

    name: ClassVar[str] = "numcodecs.crc32c"

    location: str = "end"

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", check_location(self.name, self.location))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("location", "end"))

    def to_config(self) -> dict[str, Any]:
        return {"location": self.location}

    def to_v2_config(self) -> dict[str, Any]:
        return self.to_config()

    def _place(self) -> str:
        return self.location
