"""``bz2``: bzip2 streams.

Imports base, checks and framing; called through the chain.
"""

from __future__ import annotations

import bz2
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import check_config, check_int
from zarr_gpu.codecs.framing import decode_streams

__all__ = ["BZ2"]


@dataclass(frozen=True)
class BZ2(BytesToBytes):
    """bzip2.

    Parameters
    ----------
    level
        1 (blocks of 100 kB) to 9.

    Examples
    --------
    >>> import numpy as np
    >>> codec = BZ2(level=1)
    >>> codec.decode(codec.encode(np.zeros(3, "u1")), limit=3, exact=True)
    array([0, 0, 0], dtype=uint8)
    """

    name: ClassVar[str] = "numcodecs.bz2"
    v2_id: ClassVar[str | None] = "bz2"

    level: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", check_int(self.name, "level", self.level, 1, 9))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("level", 1))

    def to_config(self) -> dict[str, Any]:
        return {"level": self.level}

    def encode(self, data: U8) -> U8:
        return np.frombuffer(bz2.compress(data.data, self.level), np.uint8)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        return decode_streams(
            self.name,
            data,
            bz2.BZ2Decompressor,
            limit=limit,
            exact=exact,
            out=out,
            many=True,
        )
