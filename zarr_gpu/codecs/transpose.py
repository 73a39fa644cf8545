"""``transpose``: another order of the axes.

Costs nothing: it only exchanges strides, and tells its permutation so that the placing step may
absorb it.  Imports base and errors; called through the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from zarr_gpu.codecs.base import Array, ArrayToArray, ChunkSpec
from zarr_gpu.codecs.checks import check_config, check_int
from zarr_gpu.errors import MetadataError

__all__ = ["TransposeCodec"]

_MOST_AXES = 1024  # far beyond what NumPy allows; only keeps hostile lists short


@dataclass(frozen=True, kw_only=True)
class TransposeCodec(ArrayToArray):
    """Another order of the axes: ``encoded.shape[i] == decoded.shape[order[i]]``.

    Parameters
    ----------
    order
        A permutation of the axis numbers.

    Examples
    --------
    >>> import numpy as np
    >>> codec = TransposeCodec(order=(2, 0, 1))
    >>> spec = ChunkSpec((2, 3, 4), np.dtype("u1"))
    >>> codec.encoded_spec(spec).shape
    (4, 2, 3)
    """

    name: ClassVar[str] = "transpose"
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        order: Any = self.order
        if isinstance(order, (str, bytes, Mapping)) or not isinstance(order, Iterable):
            raise MetadataError(
                f"order of codec 'transpose' must be a list of axis numbers, not {order!r:.80}",
                codec=self.name,
            )
        axes = tuple(check_int(self.name, "order", axis, 0, _MOST_AXES) for axis in order)
        if sorted(axes) != list(range(len(axes))):
            raise MetadataError(
                f"order of codec 'transpose' must name every axis once, not {list(axes)!r:.80}",
                codec=self.name,
            )
        object.__setattr__(self, "order", axes)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, ("order",))
        return cls(order=config.get("order", ""))

    def to_config(self) -> dict[str, Any]:
        return {"order": list(self.order)}

    def encoded_spec(self, spec: ChunkSpec) -> ChunkSpec:
        self._check(spec)
        shape = tuple(spec.shape[axis] for axis in self.order)
        return ChunkSpec(shape, spec.dtype, spec.fill_value)

    def encode(self, array: Array, spec: ChunkSpec) -> Array:
        self._check(spec)
        return array.transpose(self.order)

    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        self._check(spec)
        inverse = [0] * len(self.order)
        for place, axis in enumerate(self.order):
            inverse[axis] = place
        return array.transpose(inverse)

    def permutation(self, spec: ChunkSpec) -> tuple[int, ...]:
        self._check(spec)
        return self.order

    def _check(self, spec: ChunkSpec) -> None:
        if len(self.order) != len(spec.shape):
            raise MetadataError(
                f"order {list(self.order)} of codec 'transpose' has {len(self.order)} axes, "
                f"the chunk {len(spec.shape)}",
                codec=self.name,
            )
