"""``delta`` of numcodecs: differences between neighbours, in C order of the chunk.

The sums and casts are those of numcodecs, integers that wrap around included.  Imports base and
checks; called through the chain, on whole arrays (v3) or flat bytes (v2).
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

__all__ = ["Delta"]

_KINDS = "biufcm"


@dataclass(frozen=True)
class Delta(ArrayToArray):
    """Differences between neighbours; the first element stays.

    Parameters
    ----------
    dtype
        Type of the elements; None (v3 only): that of the array.
    astype
        Type in which the differences are stored; None: ``dtype``.  Differences that it cannot hold
        wrap around or are lost; a first element that it cannot hold is an error.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([10, 12, 15], "i4")
    >>> Delta("i4", "i1").encode(x, ChunkSpec(x.shape, x.dtype))
    array([10,  2,  3], dtype=int8)
    """

    name: ClassVar[str] = "numcodecs.delta"
    v2_id: ClassVar[str | None] = "delta"

    dtype: np.dtype[Any] | None = None
    astype: np.dtype[Any] | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None:
            object.__setattr__(self, "dtype", check_dtype(self.name, "dtype", self.dtype, _KINDS))
        if self.astype is not None:
            stored = check_dtype(self.name, "astype", self.astype, _KINDS)
            object.__setattr__(self, "astype", stored)
        if self.dtype is None:
            return
        decoded, stored = self._dtypes(self.dtype)
        object.__setattr__(self, "astype", stored)
        if (decoded.kind == "c") != (stored.kind == "c"):
            raise MetadataError(
                f"codec {self.name!r} cannot store {decoded} as {stored}", codec=self.name
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, None)
        return cls(config.get("dtype"), config.get("astype"))

    def to_config(self) -> dict[str, Any]:
        if self.dtype is None:
            return {} if self.astype is None else {"astype": self.astype.str}
        decoded, stored = self._dtypes(self.dtype)
        return {"dtype": decoded.str, "astype": stored.str}

    def evolve(self, spec: ChunkSpec) -> Self:
        return self if self.dtype is not None else replace(self, dtype=spec.dtype)

    def encoded_spec(self, spec: ChunkSpec) -> ChunkSpec:
        decoded, stored = self._dtypes(spec.dtype)
        if spec.dtype.itemsize != decoded.itemsize or spec.dtype.hasobject:
            raise MetadataError(
                f"codec {self.name!r} is made for {decoded} and cannot encode {spec.dtype}",
                codec=self.name,
            )
        return recast(spec, stored)

    def encode(self, array: Array, spec: ChunkSpec) -> Array:
        decoded, stored = self._dtypes(spec.dtype)
        flat = flatten_as(array, decoded)
        encoded = np.empty(flat.shape, stored)
        if flat.size:
            try:
                with np.errstate(all="ignore"):
                    encoded[0] = flat[0]
                    encoded[1:] = np.diff(flat)
            except (OverflowError, TypeError, ValueError) as error:
                raise damaged(self.name, f"cannot store {decoded} as {stored}: {error}") from error
        return encoded.reshape(array.shape)

    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        decoded, stored = self._dtypes(spec.dtype)
        flat = np.empty(array.size, decoded)
        try:
            with np.errstate(all="ignore"):
                np.cumsum(flatten_as(array, stored), out=flat)
        except (TypeError, ValueError) as error:
            raise damaged(self.name, f"cannot sum {stored} to {decoded}: {error}") from error
        return unflatten_as(flat, spec)

    def stored_dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]] | None:
        return None if self.dtype is None else self._dtypes(self.dtype)

    def _dtypes(self, default: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
        decoded = default if self.dtype is None else self.dtype
        return decoded, decoded if self.astype is None else self.astype
