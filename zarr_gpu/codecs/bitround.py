"""``bitround`` of numcodecs: floats rounded to a number of bits of their mantissa.

Rounding is to the nearest, ties to even.  What is stored are floats, so decoding changes nothing.
Imports base and checks; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import U8, Array, ArrayToArray, BytesToBytes, ChunkSpec
from zarr_gpu.codecs.checks import check_config, check_int, check_size, damaged
from zarr_gpu.errors import MetadataError

__all__ = ["BitRound", "BitRoundFilter"]

_MANTISSA = {2: 10, 4: 23, 8: 52}  # bytes of a float: bits of its mantissa


@dataclass(frozen=True)
class BitRound(ArrayToArray):
    """Floats whose low bits are rounded away: lossy.

    Parameters
    ----------
    keepbits
        Bits of the mantissa that are kept, as many as it has at the most (10, 23 or 52).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.1, 3.14159], "f4")
    >>> BitRound(3).encode(x, ChunkSpec(x.shape, x.dtype))
    array([1.125, 3.25 ], dtype=float32)
    """

    name: ClassVar[str] = "numcodecs.bitround"
    v2_id: ClassVar[str | None] = "bitround"

    keepbits: int

    def __post_init__(self) -> None:
        kept = check_int(self.name, "keepbits", self.keepbits, 0, max(_MANTISSA.values()))
        object.__setattr__(self, "keepbits", kept)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("keepbits"))  # type: ignore[arg-type]

    def to_config(self) -> dict[str, Any]:
        return {"keepbits": self.keepbits}

    def encoded_spec(self, spec: ChunkSpec) -> ChunkSpec:
        self.check(spec.dtype)
        return spec

    def encode(self, array: Array, spec: ChunkSpec) -> Array:
        return self.rounded(array)

    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        return array.astype(spec.dtype, copy=False)

    def as_filter(self, dtype: np.dtype[Any] | None) -> BytesToBytes:
        return BitRoundFilter(self, dtype)

    def check(self, dtype: np.dtype[Any]) -> None:
        """Raise MetadataError unless elements of ``dtype`` can be rounded."""
        bits = _MANTISSA.get(dtype.itemsize) if dtype.kind == "f" else None
        if bits is None or self.keepbits > bits:
            raise MetadataError(
                f"codec {self.name!r} cannot keep {self.keepbits} bits of the mantissa of {dtype}",
                codec=self.name,
            )

    def rounded(self, array: Array) -> Array:
        """A rounded copy in the same type; ``array`` itself where all bits are kept."""
        width = array.dtype.itemsize
        lost = _MANTISSA[width] - self.keepbits
        if not lost:
            return array
        native = np.array(array, array.dtype.newbyteorder("="), order="C", ndmin=1)
        # Signed, as numcodecs computes: what is rounded beyond the largest float wraps around.
        bits = native.view(f"i{width}")
        unit = bits.dtype.type
        bits += ((bits >> unit(lost)) & unit(1)) + unit((1 << (lost - 1)) - 1)
        bits &= unit(-1 << lost)
        return native.reshape(array.shape).astype(array.dtype, copy=False)


class BitRoundFilter(BytesToBytes):
    """The codec in v2, whose filters work on bytes: it knows their type from the array."""

    def __init__(self, codec: BitRound, dtype: np.dtype[Any] | None) -> None:
        self.codec, self.dtype = codec, dtype
        self.name = codec.name  # type: ignore[misc]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BitRoundFilter:
        return cls(BitRound.from_config(config), None)

    def to_config(self) -> dict[str, Any]:
        return self.codec.to_config()

    def evolve(self, spec: ChunkSpec) -> BitRoundFilter:
        dtype = spec.dtype if self.dtype is None else self.dtype
        self.codec.check(dtype)
        return BitRoundFilter(self.codec, dtype)

    def encoded_size(self, nbytes: int) -> int:
        return nbytes

    def encoded_bound(self, nbytes: int) -> int:
        return nbytes

    def encode(self, data: U8) -> U8:
        if self.dtype is None or len(data) % self.dtype.itemsize:
            raise damaged(self.name, f"no whole number of {self.dtype} items", actual=len(data))
        aligned = data if data.ctypes.data % self.dtype.alignment == 0 else data.copy()
        return np.ascontiguousarray(self.codec.rounded(aligned.view(self.dtype))).view(np.uint8)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        check_size(self.name, len(data), limit, exact=exact)
        return data
