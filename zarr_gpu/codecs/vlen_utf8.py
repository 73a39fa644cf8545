"""``vlen-utf8``: strings of any length, each as its UTF-8 bytes behind their number.

Imports base, checks and framing; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import U8, Array, ArrayToBytes, ChunkSpec
from zarr_gpu.codecs.checks import check_config, damaged
from zarr_gpu.codecs.framing import read_items, write_items
from zarr_gpu.errors import MetadataError

__all__ = ["VLenUTF8Codec"]


@dataclass(frozen=True)
class VLenUTF8Codec(ArrayToBytes):
    """Strings of any length.

    Examples
    --------
    >>> import numpy as np
    >>> spec = ChunkSpec((2,), np.dtypes.StringDType())
    >>> data = VLenUTF8Codec().encode(np.array(["a", "bc"], spec.dtype), spec)
    >>> VLenUTF8Codec().decode(data, spec).tolist()
    ['a', 'bc']
    """

    name: ClassVar[str] = "vlen-utf8"
    v2_id: ClassVar[str | None] = "vlen-utf8"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        check_config(cls.name, config, ())
        return cls()

    def to_config(self) -> dict[str, Any]:
        return {}

    def evolve(self, spec: ChunkSpec) -> Self:
        _check_dtype(spec)
        return self

    def encode(self, array: Array, spec: ChunkSpec) -> U8:
        items: list[bytes] = []
        try:
            for item in array.reshape(-1).tolist():
                # None and 0 are what v2 arrays of objects hold where nothing was written.
                text = "" if item is None or (type(item) is int and item == 0) else item
                items.append(text.encode())
        except (AttributeError, UnicodeEncodeError) as error:
            raise damaged(self.name, f"item {len(items)} is no text: {error}") from error
        return write_items(self.name, items)

    def decode(self, data: U8, spec: ChunkSpec) -> Array:
        _check_dtype(spec)
        items = read_items(self.name, data, prod(spec.shape))
        try:
            texts = [item.decode() for item in items]
        except UnicodeDecodeError as error:
            raise damaged(self.name, f"invalid UTF-8: {error}", actual=len(data)) from error
        return np.array(texts, spec.dtype).reshape(spec.shape)


def _check_dtype(spec: ChunkSpec) -> None:
    if spec.dtype.kind not in "TO":
        raise MetadataError(
            f"codec 'vlen-utf8' stores strings of variable length, not {spec.dtype}",
            codec="vlen-utf8",
        )
