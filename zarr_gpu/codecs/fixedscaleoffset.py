"""``fixedscaleoffset`` of numcodecs: ``round((x - offset) * scale)``.

The arithmetic is that of numcodecs, step by step.  Imports base and checks; called through the
chain, on whole arrays (v3) or flat bytes (v2).
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
    check_number,
    damaged,
    flatten_as,
    recast,
    unflatten_as,
)
from zarr_gpu.errors import MetadataError

__all__ = ["FixedScaleOffset"]

_KINDS = "biuf"


@dataclass(frozen=True)
class FixedScaleOffset(ArrayToArray):
    """Scaled and rounded values: lossy.

    Parameters
    ----------
    offset, scale
        Encoding gives ``round((x - offset) * scale)``, decoding ``x / scale + offset``.
    dtype
        Type of the elements; None (v3 only): that of the array.
    astype
        Type in which they are stored; None: ``dtype``.  Values that it cannot hold are lost.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1000.0, 1000.26], "f8")
    >>> FixedScaleOffset(1000, 10, "f8", "u1").encode(x, ChunkSpec(x.shape, x.dtype))
    array([0, 3], dtype=uint8)
    """

    name: ClassVar[str] = "numcodecs.fixedscaleoffset"
    v2_id: ClassVar[str | None] = "fixedscaleoffset"

    offset: float
    scale: float
    dtype: np.dtype[Any] | None = None
    astype: np.dtype[Any] | None = None

    def __post_init__(self) -> None:
        values: dict[str, Any] = {
            field: check_number(self.name, field, getattr(self, field))
            for field in ("offset", "scale")
        }
        if not values["scale"]:
            raise MetadataError(f"scale of codec {self.name!r} must not be 0", codec=self.name)
        for field in ("dtype", "astype"):
            if getattr(self, field) is not None:
                values[field] = check_dtype(self.name, field, getattr(self, field), _KINDS)
        if self.astype is None and "dtype" in values:
            values["astype"] = values["dtype"]
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, None)
        fields = ("offset", "scale", "dtype", "astype")
        offset, scale, dtype, astype = (config.get(field) for field in fields)
        return cls(offset, scale, dtype, astype)  # type: ignore[arg-type]

    def to_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"scale": self.scale, "offset": self.offset}
        if self.dtype is not None:
            config["dtype"] = self.dtype.str
        if self.astype is not None:
            config["astype"] = self.astype.str
        return config

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
        try:
            with np.errstate(all="ignore"):
                scaled = (flat - self.offset) * self.scale
                encoded: Array = np.around(scaled).astype(stored, copy=False)
        except (OverflowError, TypeError, ValueError) as error:
            raise damaged(self.name, f"cannot scale {decoded}: {error}") from error
        return encoded.reshape(array.shape)

    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        decoded, stored = self._dtypes(spec.dtype)
        flat = flatten_as(array, stored)
        try:
            with np.errstate(all="ignore"):
                values = (flat / self.scale) + self.offset
                result: Array = values.astype(decoded, copy=False)
        except (OverflowError, TypeError, ValueError) as error:
            raise damaged(self.name, f"cannot scale {stored}: {error}") from error
        return unflatten_as(result, spec)

    def stored_dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]] | None:
        return None if self.dtype is None else self._dtypes(self.dtype)

    def _dtypes(self, default: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
        decoded = default if self.dtype is None else self.dtype
        return decoded, decoded if self.astype is None else self.astype
