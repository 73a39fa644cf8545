"""``packbits`` of numcodecs: eight booleans to a byte.

The first byte is the number of bits at the end that do not count; then come the elements in C
order, the first of eight in the highest bit.  Imports base and checks; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import U8, Array, ArrayToArray, BytesToBytes, ChunkSpec
from zarr_gpu.codecs.checks import allocate, check_config, check_size, damaged
from zarr_gpu.errors import MetadataError

__all__ = ["PackBits", "PackBitsFilter", "packed_size"]


def packed_size(items: int) -> int:
    """Bytes that so many booleans are packed to."""
    return 1 + -(-items // 8)


def _pack(items: Array) -> U8:
    """1-D booleans, or bytes of which all but 0 are true."""
    bits = np.packbits(items)
    return np.concatenate([np.array([8 * len(bits) - len(items)], np.uint8), bits])


def _unpack(data: U8, name: str) -> U8:
    """Bytes of 0 and 1."""
    if not len(data):
        raise damaged(name, "no bytes at all", actual=0)
    items = max(8 * (len(data) - 1) - int(data[0]), 0)
    return np.unpackbits(data[1:], count=items)


@dataclass(frozen=True)
class PackBits(ArrayToArray):
    """Booleans as bits.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([True, False, True])
    >>> PackBits().encode(x, ChunkSpec(x.shape, x.dtype))
    array([  5, 160], dtype=uint8)
    """

    name: ClassVar[str] = "numcodecs.packbits"
    v2_id: ClassVar[str | None] = "packbits"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        check_config(cls.name, config, None)
        return cls()

    def to_config(self) -> dict[str, Any]:
        return {}

    def encoded_spec(self, spec: ChunkSpec) -> ChunkSpec:
        check_booleans(spec.dtype)
        return ChunkSpec((packed_size(spec.nbytes),), np.dtype(np.uint8))

    def encode(self, array: Array, spec: ChunkSpec) -> Array:
        return _pack(np.ascontiguousarray(array).reshape(-1))

    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        items = _unpack(np.ascontiguousarray(array).view(np.uint8), self.name)
        if len(items) != spec.nbytes:
            raise damaged(self.name, "wrong size", expected=spec.nbytes, actual=len(items))
        return items.view(np.bool_).reshape(spec.shape)

    def as_filter(self, dtype: np.dtype[Any] | None) -> BytesToBytes:
        return PackBitsFilter(dtype)


def check_booleans(dtype: np.dtype[Any]) -> None:
    """Raise MetadataError for elements of which only the truth would be kept."""
    if dtype != np.bool_:
        raise MetadataError(
            f"codec {PackBits.name!r} packs booleans and cannot encode {dtype}", codec=PackBits.name
        )


class PackBitsFilter(BytesToBytes):
    """The codec in v2, whose filters work on bytes: it knows their type from the array."""

    name: ClassVar[str] = PackBits.name

    def __init__(self, dtype: np.dtype[Any] | None = None) -> None:
        self.dtype = dtype

    def evolve(self, spec: ChunkSpec) -> PackBitsFilter:
        dtype = spec.dtype if self.dtype is None else self.dtype
        check_booleans(dtype)
        return PackBitsFilter(dtype)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        PackBits.from_config(config)
        return cls()

    def to_config(self) -> dict[str, Any]:
        return {}

    def encoded_size(self, nbytes: int) -> int:
        return packed_size(nbytes)

    def encode(self, data: U8) -> U8:
        return _pack(data)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        if not len(data):
            raise damaged(self.name, "no bytes at all", actual=0)
        size = max(8 * (len(data) - 1) - int(data[0]), 0)
        check_size(self.name, size, limit, exact=exact)
        target = allocate(self.name, size, out)
        target[...] = _unpack(data, self.name)
        return target
