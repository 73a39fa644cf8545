"""``bytes``: the elements in C order, in one byte order.

Decoding costs nothing: the result is a view of the data.  Imports base and errors; called through
the chain.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

import numpy as np

from zarr_gpu.codecs.base import U8, Array, ArrayToBytes, ChunkSpec
from zarr_gpu.codecs.checks import check_choice, check_config, damaged
from zarr_gpu.errors import MetadataError

__all__ = ["BytesCodec", "Endian"]

_CHARACTER: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}


class Endian(StrEnum):
    """Byte orders of :class:`BytesCodec`; plain strings serve as well."""

    little = "little"
    big = "big"


@dataclass(frozen=True, kw_only=True)
class BytesCodec(ArrayToBytes):
    """Elements in C order.

    Parameters
    ----------
    endian
        Byte order of the stored elements, of each part of a complex number and of each field of
        a structure; None for types without a byte order, and for v2, where the type itself says it.

    Examples
    --------
    >>> import numpy as np
    >>> BytesCodec(endian="big").encode(np.array([1], "<u2"), ChunkSpec((1,), np.dtype("<u2")))
    array([0, 1], dtype=uint8)
    """

    name: ClassVar[str] = "bytes"
    endian: str | None = sys.byteorder

    def __post_init__(self) -> None:
        if self.endian is not None:
            endian = check_choice(self.name, "endian", self.endian, tuple(_CHARACTER))
            object.__setattr__(self, "endian", endian)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, ("endian",))
        return cls(endian=config.get("endian"))

    def to_config(self) -> dict[str, Any]:
        return {} if self.endian is None else {"endian": self.endian}

    def evolve(self, spec: ChunkSpec) -> Self:
        """Without ``endian`` where the type has no byte order, as zarr-python writes it."""
        _check_plain(spec.dtype)
        dtype = spec.dtype
        if self.endian is not None and (
            dtype.itemsize == 1 or dtype.newbyteorder("<") == dtype.newbyteorder(">")
        ):
            return replace(self, endian=None)
        return self

    def encoded_size(self, spec: ChunkSpec) -> int:
        _check_plain(spec.dtype)
        return spec.nbytes

    def encode(self, array: Array, spec: ChunkSpec) -> U8:
        stored = self.stored_dtype(spec.dtype)
        if array.dtype.hasobject or array.dtype.kind == "T":
            raise damaged(self.name, f"cannot store elements of type {array.dtype}")
        if not spec.nbytes:
            return np.empty(0, np.uint8)
        return np.ascontiguousarray(array, dtype=stored).reshape(-1).view(np.uint8)

    def decode(self, data: U8, spec: ChunkSpec) -> Array:
        stored = self.stored_dtype(spec.dtype)
        expected = spec.nbytes
        if len(data) != expected:
            raise damaged(
                self.name,
                f"a chunk of shape {spec.shape} and type {spec.dtype} has another size",
                expected=expected,
                actual=len(data),
            )
        if not expected:
            return np.ndarray(spec.shape, stored)
        return data.view(stored).reshape(spec.shape)

    def stored_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Type of the elements as stored, byte order included."""
        _check_plain(dtype)
        return dtype if self.endian is None else dtype.newbyteorder(_CHARACTER[self.endian])


def _check_plain(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject or dtype.kind == "T":
        raise MetadataError(
            f"codec 'bytes' cannot store elements of variable length ({dtype}); "
            "use 'vlen-utf8' or 'vlen-bytes'",
            codec="bytes",
        )
