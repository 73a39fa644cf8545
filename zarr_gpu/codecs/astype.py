"""``astype`` of numcodecs: elements stored in another type.

Imports base and checks; called through the chain, on whole arrays (v3) or flat bytes (v2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import Array, ArrayToArray, ChunkSpec
from zarr_gpu.codecs.checks import (
    check_config,
    check_dtype,
    damaged,
    flatten_as,
    recast,
    unflatten_as,
)
from zarr_gpu.errors import MetadataError

__all__ = ["AsType"]

_KINDS = "biufcmM"


@dataclass(frozen=True)
class AsType(ArrayToArray):
    """Elements stored in another type, as ``numpy.ndarray.astype`` casts them.

    Parameters
    ----------
    encode_dtype
        Type in which they are stored.
    decode_dtype
        Type of the elements; None (v3 only): that of the array.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.5, 300], "f8")
    >>> AsType("u2", "f8").encode(x, ChunkSpec(x.shape, x.dtype))
    array([  1, 300], dtype=uint16)
    """

    name: ClassVar[str] = "numcodecs.astype"
    v2_id: ClassVar[str | None] = "astype"

    encode_dtype: np.dtype[Any]
    decode_dtype: np.dtype[Any] | None = None

    def __post_init__(self) -> None:
        for field in ("encode_dtype", "decode_dtype"):
            value = getattr(self, field)
            if field == "encode_dtype" or value is not None:
                object.__setattr__(self, field, check_dtype(self.name, field, value, _KINDS))
        if self.decode_dtype is not None:
            self._check(self.decode_dtype)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, None)
        return cls(config.get("encode_dtype"), config.get("decode_dtype"))  # type: ignore[arg-type]

    def to_config(self) -> dict[str, Any]:
        config = {"encode_dtype": self.encode_dtype.str}
        if self.decode_dtype is not None:
            config["decode_dtype"] = self.decode_dtype.str
        return config

    def evolve(self, spec: ChunkSpec) -> Self:
        return self if self.decode_dtype is not None else replace(self, decode_dtype=spec.dtype)

    def encoded_spec(self, spec: ChunkSpec) -> ChunkSpec:
        decoded = self._decoded(spec.dtype)
        if spec.dtype.itemsize != decoded.itemsize or spec.dtype.hasobject:
            raise MetadataError(
                f"codec {self.name!r} is made for {decoded} and cannot encode {spec.dtype}",
                codec=self.name,
            )
        self._check(decoded)
        return recast(spec, self.encode_dtype)

    def encode(self, array: Array, spec: ChunkSpec) -> Array:
        decoded = self._decoded(spec.dtype)
        return self._cast(flatten_as(array, decoded), self.encode_dtype).reshape(array.shape)

    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        flat = flatten_as(array, self.encode_dtype)
        return unflatten_as(self._cast(flat, self._decoded(spec.dtype)), spec)

    def stored_dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]] | None:
        return None if self.decode_dtype is None else (self.decode_dtype, self.encode_dtype)

    def _decoded(self, default: np.dtype[Any]) -> np.dtype[Any]:
        return default if self.decode_dtype is None else self.decode_dtype

    def _check(self, decoded: np.dtype[Any]) -> None:
        if (decoded.kind == "c") != (self.encode_dtype.kind == "c"):
            raise MetadataError(
                f"codec {self.name!r} cannot store {decoded} as {self.encode_dtype}",
                codec=self.name,
            )

    def _cast(self, flat: Array, dtype: np.dtype[Any]) -> Array:
        try:
            with np.errstate(all="ignore"):
                return flat.astype(dtype, copy=False)
        except (OverflowError, TypeError, ValueError) as error:
            raise damaged(self.name, f"cannot cast {flat.dtype} to {dtype}: {error}") from error
