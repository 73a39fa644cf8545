"""``shuffle``: the first bytes of all elements, then the second, and so on.

Imports base and checks; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from zarr_gpu.codecs.base import U8, BytesToBytes, ChunkSpec
from zarr_gpu.codecs.checks import allocate, check_config, check_int, check_size, damaged

__all__ = ["Shuffle"]


@dataclass(frozen=True)
class Shuffle(BytesToBytes):
    """Bytes of elements sorted by their place in the element.

    Parameters
    ----------
    elementsize
        Bytes of one element; 0 and 1 change nothing, None is taken from the data type.

    Examples
    --------
    >>> import numpy as np
    >>> Shuffle(2).encode(np.array([1, 2, 3, 4], "u1"))
    array([1, 3, 2, 4], dtype=uint8)
    """

    name: ClassVar[str] = "numcodecs.shuffle"
    v2_id: ClassVar[str | None] = "shuffle"

    elementsize: int | None = None

    def __post_init__(self) -> None:
        if self.elementsize is not None:
            value = check_int(self.name, "elementsize", self.elementsize, 0, (1 << 31) - 1)
            object.__setattr__(self, "elementsize", value)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("elementsize"))

    def to_config(self) -> dict[str, Any]:
        return {"elementsize": self._size}

    def evolve(self, spec: ChunkSpec) -> Self:
        if self.elementsize is not None or spec.dtype.hasobject or spec.dtype.kind == "T":
            return self
        return replace(self, elementsize=spec.dtype.itemsize)

    def encoded_size(self, nbytes: int) -> int:
        return nbytes

    def encoded_bound(self, nbytes: int) -> int:
        return nbytes

    def encode(self, data: U8) -> U8:
        if self._size <= 1:
            return data
        count = self._count(data)
        out = allocate(self.name, len(data), None)
        out.reshape(self._size, count)[...] = data.reshape(count, self._size).T
        return out

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        check_size(self.name, len(data), limit, exact=exact)
        if self._size <= 1:
            return data
        count = self._count(data)
        target = allocate(self.name, len(data), out)
        elements, planes = target.reshape(count, self._size), data.reshape(self._size, count)
        if self._size > count:
            elements[...] = planes.T
        else:  # five times as fast, because NumPy's inner loop is long
            for place in range(self._size):
                elements[:, place] = planes[place]
        return target

    @property
    def _size(self) -> int:
        return 4 if self.elementsize is None else self.elementsize  # numcodecs' default

    def _count(self, data: U8) -> int:
        count, rest = divmod(len(data), self._size)
        if rest:
            raise damaged(
                self.name, f"no whole number of elements of {self._size} bytes", actual=len(data)
            )
        return count
