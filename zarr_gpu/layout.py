"""Layouts: metadata compiled once, when an array is opened.

After this no code asks which version of the format an array has, or whether it is sharded.
Imports ``metadata``, ``grid``, ``codecs.chain`` and ``shards``; used by everything above.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.boxes import Objects
from zarr_gpu.codecs.base import ChunkSpec, Codec
from zarr_gpu.codecs.chain import Program, compile_program, make_chain, make_codecs
from zarr_gpu.codecs.registry import registrations
from zarr_gpu.codecs.sharding import ShardingCodec
from zarr_gpu.config import config
from zarr_gpu.dtypes import default_fill
from zarr_gpu.errors import CodecError, MetadataError
from zarr_gpu.grid import ChunkGrid
from zarr_gpu.metadata import ArrayMetadata, KeyEncoding
from zarr_gpu.shards import IndexCache, ShardLevel, inline_shards, make_level
from zarr_gpu.storage.keys import MAX_KEY_BYTES

__all__ = ["Layout", "compile_layout"]

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where the chunks of an array are and how they are decoded.

    ``grid`` is the grid of chunks (the leaves), ``object_grid`` that of stored objects; they differ
    where the array is sharded.
    """

    grid: ChunkGrid
    object_grid: ChunkGrid
    levels: tuple[ShardLevel, ...]  # outermost first
    program: Program
    dtype: np.dtype[Any]
    fill_value: Any  # a scalar of dtype; what a chunk that is absent holds
    prefix: str  # of the array's keys in its store, "" or ending in "/"
    key_encoding: KeyEncoding
    codecs: tuple[Codec, ...]  # as the metadata has them

    @cached_property
    def chunks_per_object(self) -> tuple[int, ...]:
        """Chunks of a stored object along each axis."""
        pairs = zip(self.object_grid.chunk_shape, self.grid.chunk_shape, strict=True)
        return tuple(o // c for o, c in pairs)

    @cached_property
    def keys_fit(self) -> bool:
        """Whether a store takes the keys of all objects: those far out may be too long."""
        if len(self.prefix) + 22 * self.grid.ndim < MAX_KEY_BYTES // 4:
            return True  # however long its coordinates, in however many bytes per character
        last = tuple(max(n - 1, 0) for n in self.object_grid.shape)
        return len(self.key(last).encode(errors="surrogatepass")) <= MAX_KEY_BYTES

    @cached_property
    def objects(self) -> Objects | None:
        """How stored objects follow from chunks; None where shards are nested, or without axes."""
        if len(self.levels) > 1 or not self.grid.axes or not self.keys_fit:
            return None
        ndim = self.grid.ndim
        if not self.levels:
            return Objects(self.prefix, self.key_encoding, (1,) * ndim, (0,) * ndim)
        weight = self.levels[0].number_of(np.eye(ndim, dtype=np.int64)).tolist()
        return Objects(self.prefix, self.key_encoding, self.chunks_per_object, tuple(weight))

    @cached_property
    def indexes(self) -> IndexCache:
        """Indexes of shards that reads of this array have parsed."""
        return IndexCache()

    @property
    def chunk_nbytes(self) -> int:
        """Decoded size of a chunk in bytes; for variable-length types that of its references."""
        return self.program.spec.nbytes

    def keys(self, coords: I64) -> list[str]:
        """Store keys of stored objects (n, ndim)."""
        return self.key_encoding.keys(coords, self.prefix)

    def key(self, coords: tuple[int, ...]) -> str:
        """Store key of one stored object."""
        return self.prefix + self.key_encoding.key(coords)


def compile_layout(metadata: ArrayMetadata, path: str) -> Layout:
    """Compile ``metadata`` of the array at node ``path``.

    Raises
    ------
    UnknownCodecError, MetadataError
        The codecs are unknown, badly configured or do not fit the array.
    """
    key = f"{path}/zarr.json" if metadata.zarr_format == 3 else f"{path}/.zarray"
    key = key.lstrip("/")
    try:
        return _compile(metadata, f"{path}/" if path else "")
    except (MetadataError, CodecError) as err:
        if err.key is None:
            err.key = key
        raise


def _compile(metadata: ArrayMetadata, prefix: str) -> Layout:
    codecs, levels, program = _compiled_codecs(metadata)
    object_grid = ChunkGrid.regular(metadata.shape, metadata.chunk_shape)
    grid = ChunkGrid.regular(metadata.shape, program.spec.shape) if levels else object_grid
    return Layout(
        grid=grid,
        object_grid=object_grid,
        levels=levels,
        program=program,
        dtype=program.spec.dtype,
        fill_value=program.spec.fill_value,
        prefix=prefix,
        key_encoding=metadata.key_encoding,
        codecs=codecs,
    )


_Compiled = tuple[tuple[Codec, ...], tuple[ShardLevel, ...], Program]

_MOST_COMPILED = 128
_compiled: dict[tuple[Any, ...], tuple[_Compiled, ArrayMetadata]] = {}


def _compiled_codecs(metadata: ArrayMetadata) -> _Compiled:
    """Codecs, shards and program; shared by arrays that share the parts they are made from.

    Arrays opened again, resized, or of one kind with others do: metadata are parsed so.
    """
    limit = config.get("decode.max_variable_bytes")
    parts = (metadata.codecs, metadata.fill_value, metadata.dtype)
    key = (*map(id, parts), metadata.chunk_shape, limit, registrations())
    found = _compiled.get(key)
    if found is not None:
        return found[0]
    dtype = metadata.dtype
    fill = default_fill(dtype) if metadata.fill_value is None else metadata.fill_value
    codecs = tuple(make_codecs(metadata.codecs))
    spec = ChunkSpec(metadata.chunk_shape, dtype.numpy, fill)
    made = (codecs, *_compile_codecs(codecs, spec, limit))
    if len(_compiled) >= _MOST_COMPILED:
        _compiled.clear()
    _compiled[key] = made, metadata  # kept, so that no other part gets one of these ids
    return made


def _compile_codecs(
    codecs: tuple[Codec, ...], spec: ChunkSpec, limit: int
) -> tuple[tuple[ShardLevel, ...], Program]:
    """Peel off the shards that can be addressed; what remains is the program of the chunks."""
    permutation = tuple(range(len(spec.shape)))
    levels: list[ShardLevel] = []
    current: list[Codec] = list(codecs)
    while True:
        chain = make_chain(current)
        sharding = chain.serializer
        if not isinstance(sharding, ShardingCodec) or chain.compressors:
            break
        orders = [order for codec in chain.arrays if (order := codec.permutation(spec)) is not None]
        if len(orders) < len(chain.arrays):
            break  # a codec that changes values stands around the shard
        for codec, order in zip(chain.arrays, orders, strict=True):
            permutation = tuple(permutation[i] for i in order)
            spec = codec.encoded_spec(spec)
        levels.append(make_level(sharding, spec.shape, permutation, variable_limit=limit))
        spec = replace(spec, shape=tuple(sharding.chunk_shape))
        current = make_codecs(sharding.codecs)
    program = compile_program(
        make_chain(inline_shards(current, limit)),
        spec,
        variable_limit=limit,
        permutation=permutation,
    )
    # Children of an outer level are shards themselves: count their chunks.
    ratio = (1,) * len(spec.shape)
    for i in range(len(levels) - 1, -1, -1):
        levels[i] = replace(levels[i], ratio=ratio)
        ratio = tuple(r * c for r, c in zip(ratio, levels[i].counts, strict=True))
    return tuple(levels), program
