"""``vlen-bytes``: byte strings of any length, each behind its length.

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

__all__ = ["VLenBytesCodec"]


@dataclass(frozen=True)
class VLenBytesCodec(ArrayToBytes):
    """Byte strings of any length.

    Examples
    --------
    >>> import numpy as np
    >>> spec = ChunkSpec((2,), np.dtype(object))
    >>> data = VLenBytesCodec().encode(np.array([b"a", b"bc"], object), spec)
    >>> VLenBytesCodec().decode(data, spec).tolist()
    [b'a', b'bc']
    """

    name: ClassVar[str] = "vlen-bytes"
    v2_id: ClassVar[str | None] = "vlen-bytes"

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
        for item in array.reshape(-1).tolist():
            if isinstance(item, (bytes, bytearray, memoryview)):
                items.append(bytes(item))
            # None and 0 are what v2 arrays of objects hold where nothing was written.
            elif item is None or (type(item) is int and item == 0):
                items.append(b"")
            else:
                raise damaged(self.name, f"item {len(items)} is a {type(item).__name__}, not bytes")
        return write_items(self.name, items)

    def decode(self, data: U8, spec: ChunkSpec) -> Array:
        _check_dtype(spec)
        items = read_items(self.name, data, prod(spec.shape))
        array = np.empty(len(items), object)
        array[:] = items
        return array.reshape(spec.shape)


def _check_dtype(spec: ChunkSpec) -> None:
    if spec.dtype.kind != "O":
        raise MetadataError(
            f"codec 'vlen-bytes' stores byte strings of variable length, not {spec.dtype}",
            codec="vlen-bytes",
        )
