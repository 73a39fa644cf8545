"""``lz4`` of numcodecs: the decoded size in four bytes, little-endian, then one LZ4 block.

Imports base, checks and native; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs import native
from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import DAMAGE, allocate, check_config, check_int, check_size, damaged

__all__ = ["LZ4"]

_LARGEST = 0x7E000000
_RATIO = 255  # a byte of a block yields at most so many


@dataclass(frozen=True)
class LZ4(BytesToBytes):
    """One LZ4 block behind its decoded size.

    Parameters
    ----------
    acceleration
        Larger is faster and compresses less; 0 and less mean 1.

    Examples
    --------
    >>> import numpy as np
    >>> codec = LZ4()
    >>> codec.decode(codec.encode(np.zeros(3, "u1")), limit=3, exact=True)
    array([0, 0, 0], dtype=uint8)
    """

    name: ClassVar[str] = "numcodecs.lz4"
    v2_id: ClassVar[str | None] = "lz4"

    acceleration: int = 1

    def __post_init__(self) -> None:
        value = check_int(self.name, "acceleration", self.acceleration, -(1 << 31), (1 << 31) - 1)
        object.__setattr__(self, "acceleration", value)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("acceleration", 1))

    def to_config(self) -> dict[str, Any]:
        return {"acceleration": self.acceleration}

    def encode(self, data: U8) -> U8:
        return self._encode(data, None)

    def encode_into(self, data: U8, out: U8) -> U8:
        return self._encode(data, out)

    def _encode(self, data: U8, memory: U8 | None) -> U8:
        if len(data) > _LARGEST:
            raise damaged(self.name, f"LZ4 takes at most {_LARGEST} bytes", actual=len(data))
        library = native.lz4()
        acceleration = max(self.acceleration, 1)
        if library is None:
            compress = native.public().lz4.compress
            try:
                return np.frombuffer(compress(data, acceleration), np.uint8)
            except DAMAGE as error:
                raise damaged(self.name, f"cannot compress: {error}", actual=len(data)) from error
        out = allocate(self.name, 4 + library.bound(len(data)), memory)
        out[:4] = np.frombuffer(len(data).to_bytes(4, "little"), np.uint8)
        size = library.compress(data, out[4:], acceleration)
        if size <= 0:
            raise damaged(self.name, f"cannot compress (code {size})", actual=len(data))
        return out[: 4 + size]

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        length = len(data)
        if length < 5:
            raise damaged(self.name, "no room for a size and a block", actual=length)
        nbytes = int.from_bytes(data[:4].tobytes(), "little")
        check_size(self.name, nbytes, limit, exact=exact)
        if nbytes > min(_LARGEST, _RATIO * length):
            raise damaged(
                self.name, f"no block of {length - 4} bytes yields {nbytes}", actual=length
            )
        target = allocate(self.name, nbytes, out)
        if not nbytes:
            if length != 5 or data[4]:
                raise damaged(self.name, "damaged block", expected=0, actual=length)
            return target
        library = native.lz4()
        if library is not None:
            size = library.decompress(data[4:], target)
        else:
            size = self._decode_by_numcodecs(data, target)
        if size != nbytes:
            raise damaged(self.name, f"damaged block (code {size})", expected=nbytes, actual=length)
        return target

    def encoder(self, nbytes: int) -> native.Encoder | None:
        library = native.lz4()
        if library is None or nbytes > _LARGEST:
            return None
        return library.encoder(max(self.acceleration, 1))

    def decoder(self) -> native.Decoder | None:
        library = native.lz4()
        return None if library is None else library.decoder

    def _decode_by_numcodecs(self, data: U8, target: U8) -> int:
        decompress = native.public().lz4.decompress
        try:
            decompress(data, target)
        except DAMAGE as error:
            raise damaged(
                self.name, f"damaged block: {error}", expected=len(target), actual=len(data)
            ) from error
        return len(target)
