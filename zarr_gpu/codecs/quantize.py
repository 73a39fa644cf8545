"""``quantize`` of numcodecs: floats rounded to a number of decimal digits.

The arithmetic is that of numcodecs.  Imports base and checks; called through the chain, on whole
arrays (v3) or flat bytes (v2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import Array, ArrayToArray, ChunkSpec
from zarr_gpu.codecs.checks import (
    check_config,
    check_dtype,
    check_int,
    damaged,
    flatten_as,
    recast,
    unflatten_as,
)
from zarr_gpu.errors import MetadataError

__all__ = ["Quantize"]

_MOST = 300  # more digits than floats can tell apart, and powers of ten that they hold


@dataclass(frozen=True)
class Quantize(ArrayToArray):
    """Floats rounded so that their low bits become 0: lossy.

    Parameters
    ----------
    digits
        Decimal digits after the point that are kept, about.
    dtype
        Type of the elements, floats; None (v3 only): that of the array.
    astype
        Type in which they are stored, floats too; None: ``dtype``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([0.1, 0.123456789], "f8")
    >>> Quantize(2, "f8").encode(x, ChunkSpec(x.shape, x.dtype))
    array([0.1015625, 0.125    ])
    """

    name: ClassVar[str] = "numcodecs.quantize"
    v2_id: ClassVar[str | None] = "quantize"

    digits: int
    dtype: np.dtype[Any] | None = None
    astype: np.dtype[Any] | None = None

    def __post_init__(self) -> None:
        check_int(self.name, "digits", self.digits, -_MOST, _MOST)
        object.__setattr__(self, "digits", int(self.digits))
        for field in ("dtype", "astype"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, check_dtype(self.name, field, value, "f"))
        if self.astype is None and self.dtype is not None:
            object.__setattr__(self, "astype", self.dtype)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, None)
        return cls(config.get("digits"), config.get("dtype"), config.get("astype"))  # type: ignore[arg-type]

    def to_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"digits": self.digits}
        if self.dtype is not None:
            config["dtype"] = self.dtype.str
        if self.astype is not None:
            config["astype"] = self.astype.str
        return config

    def evolve(self, spec: ChunkSpec) -> Self:
        return self if self.dtype is not None else replace(self, dtype=spec.dtype)

    def encoded_spec(self, spec: ChunkSpec) -> ChunkSpec:
        decoded, stored = self._dtypes(spec.dtype)
        if spec.dtype.itemsize != decoded.itemsize or spec.dtype.hasobject or decoded.kind != "f":
            raise MetadataError(
                f"codec {self.name!r} rounds floats and cannot encode {spec.dtype}"
                + ("" if self.dtype is None else f" as {decoded}"),
                codec=self.name,
            )
        return recast(spec, stored)

    def encode(self, array: Array, spec: ChunkSpec) -> Array:
        decoded, stored = self._dtypes(spec.dtype)
        flat = flatten_as(array, decoded)
        try:
            with np.errstate(all="ignore"):
                scale = 2.0 ** self._bits()
                encoded: Array = (np.around(scale * flat) / scale).astype(stored, copy=False)
        except (OverflowError, TypeError, ValueError) as error:
            raise damaged(self.name, f"cannot round {decoded}: {error}") from error
        return encoded.reshape(array.shape)

    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        decoded, stored = self._dtypes(spec.dtype)
        with np.errstate(all="ignore"):
            result = flatten_as(array, stored).astype(decoded, copy=False)
        return unflatten_as(result, spec)

    def stored_dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]] | None:
        return None if self.dtype is None else self._dtypes(self.dtype)

    def _bits(self) -> int:
        """Binary digits that tell as much as the decimal ones."""
        exponent = math.log10(10.0**-self.digits)
        whole = math.floor(exponent) if exponent < 0 else math.ceil(exponent)
        return math.ceil(math.log2(10.0**-whole))

    def _dtypes(self, default: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
        decoded = default if self.dtype is None else self.dtype
        return decoded, decoded if self.astype is None else self.astype
