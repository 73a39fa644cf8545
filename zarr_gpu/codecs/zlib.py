"""``zlib``: DEFLATE in the frame of RFC 1950.

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

__all__ = ["Zlib"]

_WBITS = 15  # largest window, zlib frame


@dataclass(frozen=True)
class Zlib(BytesToBytes):
    """DEFLATE in the frame of RFC 1950.

    Parameters
    ----------
    level
        0 (store) to 9 (smallest), -1 for zlib's own choice.

    Examples
    --------
    >>> import numpy as np
    >>> codec = Zlib(level=1)
    >>> codec.decode(codec.encode(np.zeros(3, "u1")), limit=3, exact=True)
    array([0, 0, 0], dtype=uint8)
    """

    name: ClassVar[str] = "numcodecs.zlib"
    v2_id: ClassVar[str | None] = "zlib"

    level: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", check_int(self.name, "level", self.level, -1, 9))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("level", 1))

    def to_config(self) -> dict[str, Any]:
        return {"level": self.level}

    def encode(self, data: U8) -> U8:
        return np.frombuffer(zlib.compress(data.data, self.level), np.uint8)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        library = native.deflate()
        if library is not None and exact:
            target = allocate(self.name, limit, out)
            if library.decompress("zlib", data, target) == limit:
                return target
            # What zlib makes of it decides: members in a row are legal, and errors have a reason.
        return decode_streams(
            self.name, data, lambda: Inflate(_WBITS), limit=limit, exact=exact, out=out
        )

    def decoder(self) -> native.Decoder | None:
        library = native.deflate()
        return None if library is None else library.decoders["zlib"]
