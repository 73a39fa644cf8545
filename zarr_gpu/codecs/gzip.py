"""``gzip``: DEFLATE in the frame of RFC 1952, several members allowed.

Imports base, checks, framing and native; called through the chain.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs import native
from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import allocate, check_config, check_int
from zarr_gpu.codecs.framing import Inflate, decode_streams

__all__ = ["GZip", "GzipCodec"]

_WBITS = 31  # largest window, gzip frame


@dataclass(frozen=True, kw_only=True)
class GzipCodec(BytesToBytes):
    """DEFLATE in the frame of RFC 1952.

    Parameters
    ----------
    level
        0 (store) to 9 (smallest).

    Examples
    --------
    >>> import numpy as np
    >>> codec = GzipCodec(level=1)
    >>> codec.decode(codec.encode(np.zeros(3, "u1")), limit=3, exact=True)
    array([0, 0, 0], dtype=uint8)
    """

    name: ClassVar[str] = "gzip"
    v2_id: ClassVar[str | None] = "gzip"
    _lowest: ClassVar[int] = 0

    level: int = 5

    def __post_init__(self) -> None:
        level = check_int(self.name, "level", self.level, self._lowest, 9)
        object.__setattr__(self, "level", level)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**check_config(cls.name, config, ("level",)))

    def to_config(self) -> dict[str, Any]:
        return {"level": self.level}

    def encode(self, data: U8) -> U8:
        stream = zlib.compressobj(self.level, zlib.DEFLATED, _WBITS)
        return np.frombuffer(stream.compress(data.data) + stream.flush(), np.uint8)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        library = native.deflate()
        if library is not None and exact:
            target = allocate(self.name, limit, out)
            if library.decompress("gzip", data, target) == limit:
                return target
            # What zlib makes of it decides: members in a row are legal, and errors have a reason.
        return decode_streams(
            self.name,
            data,
            lambda: Inflate(_WBITS),
            limit=limit,
            exact=exact,
            out=out,
            many=True,
            padding=1,
        )

    def decoder(self) -> native.Decoder | None:
        library = native.deflate()
        return None if library is None else library.decoders["gzip"]


@dataclass(frozen=True)
class GZip(GzipCodec):
    """``gzip`` with the defaults of numcodecs."""

    name: ClassVar[str] = "numcodecs.gzip"
    _lowest: ClassVar[int] = -1

    level: int = 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("level", 1))
