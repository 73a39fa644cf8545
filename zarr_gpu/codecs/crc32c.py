"""``crc32c``: the Castagnoli checksum of the bytes, four of them, little-endian.

Imports base, checks and checksum; called through the chain and, for shard indexes, by the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from zarr_gpu.codecs.base import U8
from zarr_gpu.codecs.checks import check_config
from zarr_gpu.codecs.checksum import Checksum, PlacedChecksum
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
class Crc32cCodec(Checksum):
    """Appends a CRC-32C of the bytes and refuses bytes that do not match theirs.

    Examples
    --------
    >>> import numpy as np
    >>> Crc32cCodec().encode(np.frombuffer(b"123456789", "u1"))[-4:].tobytes().hex()
    '839206e3'
    """

    name: ClassVar[str] = "crc32c"
    v2_id: ClassVar[str | None] = "crc32c"

    @staticmethod
    def checksum(data: U8) -> int:
        return _checksum(data)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        check_config(cls.name, config, ())
        return cls()

    def to_v2_config(self) -> dict[str, Any]:
        return {"location": "end"}


@dataclass(frozen=True)
class CRC32C(PlacedChecksum):
    """``crc32c`` of numcodecs.

    Parameters
    ----------
    location
        "start" or "end": where the checksum stands.
    """

    name: ClassVar[str] = "numcodecs.crc32c"
    v2_id: ClassVar[str | None] = "crc32c"

    location: str = "end"

    @staticmethod
    def checksum(data: U8) -> int:
        return _checksum(data)
