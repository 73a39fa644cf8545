"""``sharding_indexed``: the configuration of a shard.

Sharding is address resolution, not compression: the layout compiles this configuration, locating
reads the index, and no data pass through this file.  Imports base, checks and the metadata's form
of a codec; read by the layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from zarr_gpu.codecs.base import Array, ArrayToBytes, ChunkSpec, Codec
from zarr_gpu.codecs.checks import check_choice, check_config, check_int
from zarr_gpu.errors import MetadataError
from zarr_gpu.metadata.model import NamedConfig
from zarr_gpu.metadata.v3 import parse_named

__all__ = ["ShardingCodec", "ShardingCodecIndexLocation"]

_LOCATIONS = ("start", "end")
_FIELDS = ("chunk_shape", "codecs", "index_codecs", "index_location")
_LITTLE = NamedConfig("bytes", {"endian": "little"})


class ShardingCodecIndexLocation(StrEnum):
    """Values of ``index_location``; plain strings serve as well."""

    start = "start"
    end = "end"


@dataclass(frozen=True, kw_only=True)
class ShardingCodec(ArrayToBytes):
    """Many chunks in one object, behind or before an index of their places.

    Parameters
    ----------
    chunk_shape
        Shape of the chunks inside; divides the shape of the shard.
    codecs
        Codecs of the chunks: codec objects, names, or metadata of codecs.
    index_codecs
        Codecs of the index, which must give it a fixed size.
    index_location
        "start" or "end" of the object.

    Attributes
    ----------
    chunk_shape : tuple of int
    codecs, index_codecs : tuple of NamedConfig
    index_location : str

    Examples
    --------
    >>> codec = ShardingCodec(chunk_shape=(2, 2), codecs=["bytes"])
    >>> [c.name for c in codec.index_codecs]
    ['bytes', 'crc32c']
    """

    name: ClassVar[str] = "sharding_indexed"

    chunk_shape: tuple[int, ...]
    codecs: tuple[NamedConfig, ...] = field(default=(_LITTLE,), hash=False)
    index_codecs: tuple[NamedConfig, ...] = field(
        default=(_LITTLE, NamedConfig("crc32c")), hash=False
    )
    index_location: str = "end"

    def __post_init__(self) -> None:
        shape: Any = self.chunk_shape
        if isinstance(shape, (int, np.integer)):
            shape = (shape,)
        if isinstance(shape, (str, bytes, Mapping)) or not isinstance(shape, Iterable):
            raise MetadataError(
                f"chunk_shape of codec {self.name!r} must be a list of lengths, not {shape!r:.80}",
                codec=self.name,
            )
        lengths = tuple(check_int(self.name, "chunk_shape", n, 1, (1 << 63) - 1) for n in shape)
        object.__setattr__(self, "chunk_shape", lengths)
        object.__setattr__(self, "codecs", _parse_codecs("codecs", self.codecs))
        object.__setattr__(self, "index_codecs", _parse_codecs("index_codecs", self.index_codecs))
        location = check_choice(self.name, "index_location", self.index_location, _LOCATIONS)
        object.__setattr__(self, "index_location", location)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, _FIELDS)
        for required in ("chunk_shape", "codecs", "index_codecs"):
            if required not in config:
                raise MetadataError(f"codec {cls.name!r} lacks {required!r}", codec=cls.name)
        return cls(**config)

    def to_config(self) -> dict[str, Any]:
        return {
            "chunk_shape": list(self.chunk_shape),
            "codecs": [codec.to_dict() for codec in self.codecs],
            "index_codecs": [codec.to_dict() for codec in self.index_codecs],
            "index_location": self.index_location,
        }

    def encode(self, array: Array, spec: ChunkSpec) -> NoReturn:
        _refuse()

    def decode(self, data: Array, spec: ChunkSpec) -> NoReturn:
        _refuse()


def _parse_codecs(field_name: str, value: Any) -> tuple[NamedConfig, ...]:
    name = ShardingCodec.name
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise MetadataError(
            f"{field_name} of codec {name!r} must be a list of codecs, not {value!r:.80}",
            codec=name,
        )
    codecs: list[NamedConfig] = []
    for item in value:
        if isinstance(item, NamedConfig):
            codecs.append(item)
            continue
        json = item.to_dict() if isinstance(item, Codec) else item
        codecs.append(parse_named(json, f"{field_name} of codec {name!r}", optional=True))
    if not codecs:
        raise MetadataError(f"{field_name} of codec {name!r} must not be empty", codec=name)
    return tuple(codecs)


def _refuse() -> NoReturn:
    raise MetadataError(
        "a shard is no block of bytes to encode or decode: layout.py compiles codec "
        "'sharding_indexed', which must be in the place of the array -> bytes codec",
        codec=ShardingCodec.name,
    )
