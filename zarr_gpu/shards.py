"""Shards as bytes: their index, taking them apart and putting them together.

A shard is a stored object with an index of ``(offset, nbytes)`` pairs, one per child, and the
children's bytes in any order.  A child is a chunk or, where shards are nested, another shard.
:class:`ShardLevel` is one ``sharding_indexed`` codec compiled; addresses are resolved with it by
``locate``, and writing takes objects apart and together with :func:`explode` and :func:`assemble`.

:class:`InlineShard` covers the rare chains where a shard cannot be addressed from outside (a
compressor around it, an element-mixing codec before it): the whole object is then one chunk.

Imports ``codecs.chain`` and the sharding codec's configuration; used by ``layout``, ``locate`` and
the engine.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.base import ArrayToBytes, ChunkSpec, Codec
from zarr_gpu.codecs.chain import Program, compile_program, make_chain, make_codecs
from zarr_gpu.codecs.sharding import ShardingCodec
from zarr_gpu.errors import CodecError, MetadataError, ShardIndexError
from zarr_gpu.extents import MISSING

__all__ = [
    "IndexCache",
    "InlineShard",
    "ShardLevel",
    "assemble",
    "explode",
    "inline_shards",
    "make_level",
]

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Coords = tuple[int, ...]

EMPTY = np.uint64(2**64 - 1)
"""Both fields of the index entry of an absent child."""


@dataclass(frozen=True)
class ShardLevel:
    """One level of sharding, outermost first in a layout.

    ``counts`` children per shard and ``ratio`` chunks per child, both along the axes of the array.
    ``permutation``: stored axis ``i`` is array axis ``permutation[i]``; the index is in C order of
    the stored axes.
    """

    counts: tuple[int, ...]
    ratio: tuple[int, ...]
    permutation: tuple[int, ...]
    index_program: Program
    index_nbytes: int
    at_end: bool

    @property
    def nchildren(self) -> int:
        n = 1
        for count in self.counts:
            n *= count
        return n

    def shard_of(self, chunk: I64) -> I64:
        """(n, ndim) coordinates of the shard, in the grid of shards, of chunks (n, ndim)."""
        return chunk // (np.array(self.counts, np.int64) * np.array(self.ratio, np.int64))

    def number_of(self, chunk: I64) -> I64:
        """(n,) position in the index of the child that holds each chunk (n, ndim)."""
        number = np.zeros(len(chunk), np.int64)
        for axis in self.permutation:
            child = chunk[:, axis] // self.ratio[axis] % self.counts[axis]
            number = number * self.counts[axis] + child
        return number

    def coords_of(self, number: int) -> Coords:
        """Coordinates within the shard, along the array's axes, of a child."""
        coords = [0] * len(self.counts)
        for axis in reversed(self.permutation):
            number, coords[axis] = divmod(number, self.counts[axis])
        return tuple(coords)

    def parse_index(self, data: U8, *, key: str | None = None) -> I64:
        """(nchildren, 2) offset and nbytes of every child, nbytes MISSING where it is absent.

        Raises
        ------
        ShardIndexError
            The index is damaged (wrong size, checksum) or holds numbers that no file can have.
        """
        try:
            index = self.index_program.decode(data)
        except CodecError as err:
            raise ShardIndexError(
                f"the index of a shard cannot be decoded: {err}",
                key=key,
                codec=err.codec,
                expected=err.expected,
                actual=err.actual,
            ) from err
        pairs = np.ascontiguousarray(index).reshape(-1, 2)
        if len(pairs) and int(pairs.max()) < 2**62:  # no child is absent, nothing is impossible
            return pairs.astype(np.int64)
        offset, nbytes = pairs[:, 0], pairs[:, 1]
        absent = (offset == EMPTY) & (nbytes == EMPTY)
        half = np.uint64(2**62)  # far beyond any file; keeps every sum inside int64
        wrong = ~absent & ((offset >= half) | (nbytes >= half))
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise ShardIndexError(
                f"entry {i} of a shard index is impossible: "
                f"offset {int(offset[i])}, nbytes {int(nbytes[i])}",
                key=key,
            )
        parsed = pairs.astype(np.int64)
        parsed[absent] = 0, MISSING
        return parsed

    def encode_index(self, offset: I64, nbytes: I64) -> U8:
        """The inverse of :meth:`parse_index`."""
        pairs = np.empty((self.nchildren, 2), np.uint64)
        absent = nbytes == MISSING
        pairs[:, 0] = np.where(absent, EMPTY, offset.astype(np.uint64))
        pairs[:, 1] = np.where(absent, EMPTY, nbytes.astype(np.uint64))
        return self.index_program.encode(pairs.reshape(self.index_program.spec.shape))


class IndexCache:
    """Parsed indexes of objects, each with the version of the object that it belongs to.

    Safe in many threads: entries are replaced as a whole, and a lost one is fetched again.
    """

    def __init__(self, nbytes: int = 32 << 20) -> None:
        self._most, self._nbytes = nbytes, 0
        self._entries: dict[str, tuple[Hashable, I64]] = {}

    def get(self, key: str, version: Hashable) -> I64 | None:
        """The index, if it is that of this version."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] == version else None

    def put(self, key: str, version: Hashable, parsed: I64) -> None:
        """Keep an index; too many, and all others are dropped."""
        size = parsed.nbytes
        if self._nbytes + size > self._most:
            self._entries, self._nbytes = {}, 0
        if size <= self._most:
            self._entries[key] = version, parsed
            self._nbytes += size


def make_level(
    codec: ShardingCodec,
    shape: tuple[int, ...],
    permutation: tuple[int, ...],
    *,
    variable_limit: int,
) -> ShardLevel:
    """Compile one sharding codec.  ``shape``: of the shard, in stored axes.

    ``ratio`` is given as if the children were the chunks; ``layout`` corrects it for nested shards.
    """
    child = tuple(codec.chunk_shape)
    if len(child) != len(shape):
        raise MetadataError(
            f"chunk_shape {child} of a shard does not have the {len(shape)} axes of the array",
            codec=codec.name,
        )
    if any(c < 1 or s % c for s, c in zip(shape, child, strict=True)):
        raise MetadataError(
            f"chunk shape {child} does not divide the shard shape {shape}", codec=codec.name
        )
    stored_counts = tuple(s // c for s, c in zip(shape, child, strict=True))
    nchildren = 1
    for count in stored_counts:
        nchildren *= count
    if nchildren >= 2**40:
        raise MetadataError(f"a shard of {nchildren} chunks is refused", codec=codec.name)
    counts = [1] * len(shape)
    for i, axis in enumerate(permutation):
        counts[axis] = stored_counts[i]
    index = compile_program(
        make_chain(make_codecs(codec.index_codecs)),
        ChunkSpec((*stored_counts, 2), np.dtype(np.uint64), EMPTY),
        variable_limit=variable_limit,
    )
    index_nbytes = index.encoded_nbytes
    if index_nbytes is None:
        names = ", ".join(c.name for c in index.codecs)
        raise MetadataError(
            f"the index codecs of a shard must have a fixed size, which {names} have not",
            codec=codec.name,
        )
    return ShardLevel(
        counts=tuple(counts),
        ratio=(1,) * len(shape),
        permutation=permutation,
        index_program=index,
        index_nbytes=index_nbytes,
        at_end=codec.index_location == "end",
    )


def explode(levels: Sequence[ShardLevel], data: U8, *, key: str | None = None) -> dict[Coords, U8]:
    """The encoded chunks of a stored object by their chunk coordinates within it (views)."""
    level, deeper = levels[0], levels[1:]
    size = level.index_nbytes
    if len(data) < size:
        raise ShardIndexError(
            "a shard is smaller than its index", key=key, expected=size, actual=len(data)
        )
    index = data[len(data) - size :] if level.at_end else data[:size]
    offset, nbytes = level.parse_index(index, key=key).T
    chunks: dict[Coords, U8] = {}
    for number in np.flatnonzero(nbytes != MISSING).tolist():
        start = int(offset[number])
        stop = start + int(nbytes[number])
        if stop > len(data):
            raise ShardIndexError(
                f"entry {number} of a shard index ends at byte {stop}, beyond the shard",
                key=key,
                expected=stop,
                actual=len(data),
            )
        base = level.coords_of(number)
        blob = data[start:stop]
        if not deeper:
            chunks[base] = blob
            continue
        origin = [b * r for b, r in zip(base, level.ratio, strict=True)]
        for inner, chunk in explode(deeper, blob, key=key).items():
            chunks[tuple(o + i for o, i in zip(origin, inner, strict=True))] = chunk
    return chunks


def assemble(levels: Sequence[ShardLevel], chunks: Mapping[Coords, U8]) -> U8 | None:
    """The inverse of :func:`explode`; None where there is no chunk at all.

    Chunks are written in C order.
    """
    if not chunks:
        return None
    level, deeper = levels[0], levels[1:]
    children: list[tuple[Coords, U8]]
    if deeper:
        inner: dict[Coords, dict[Coords, U8]] = {}
        for coords, chunk in chunks.items():
            pairs = [divmod(c, r) for c, r in zip(coords, level.ratio, strict=True)]
            group = inner.setdefault(tuple(p[0] for p in pairs), {})
            group[tuple(p[1] for p in pairs)] = chunk
        blobs = [(c, assemble(deeper, group)) for c, group in sorted(inner.items())]
        children = [(c, blob) for c, blob in blobs if blob is not None]
    else:
        children = sorted(chunks.items())
    at = np.array([c for c, _ in children], np.int64).reshape(len(children), -1)
    number = level.number_of(at * np.array(level.ratio, np.int64))
    sizes = np.array([len(blob) for _, blob in children], np.int64)
    start = 0 if level.at_end else level.index_nbytes
    offset = np.zeros(level.nchildren, np.int64)
    nbytes = np.full(level.nchildren, MISSING, np.int64)
    offset[number] = start + np.cumsum(sizes) - sizes
    nbytes[number] = sizes
    index = level.encode_index(offset, nbytes)
    body = [blob for _, blob in children]
    return np.concatenate([*body, index] if level.at_end else [index, *body])


class InlineShard(ArrayToBytes):
    """A sharding codec whose object is decoded as a whole."""

    def __init__(self, codec: ShardingCodec, variable_limit: int) -> None:
        self.codec = codec
        self.name = codec.name  # type: ignore[misc]
        self.variable_limit = variable_limit

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InlineShard:
        raise MetadataError("an inline shard is made by a layout, not from metadata")

    def to_config(self) -> dict[str, Any]:
        return self.codec.to_config()

    def _compile(self, spec: ChunkSpec) -> tuple[ShardLevel, Program]:
        ndim = len(spec.shape)
        limit = self.variable_limit
        level = make_level(self.codec, spec.shape, tuple(range(ndim)), variable_limit=limit)
        child = ChunkSpec(tuple(self.codec.chunk_shape), spec.dtype, spec.fill_value)
        inner = inline_shards(make_codecs(self.codec.codecs), limit)
        return level, compile_program(make_chain(inner), child, variable_limit=limit)

    def evolve(self, spec: ChunkSpec) -> InlineShard:
        self._compile(spec)  # refuses what does not fit when the array is opened
        return self

    def _box(self, spec: ChunkSpec, coords: Coords) -> tuple[Any, ...]:
        edges = self.codec.chunk_shape
        box = [slice(c * e, (c + 1) * e) for c, e in zip(coords, edges, strict=True)]
        return (*box, ...)  # the ellipsis: an array without axes must stay an array

    def encode(self, array: Array, spec: ChunkSpec) -> U8:
        level, program = self._compile(spec)
        chunks = {
            coords: program.encode(array[self._box(spec, coords)])
            for coords in np.ndindex(*level.counts)
        }
        data = assemble([level], chunks)
        return np.empty(0, np.uint8) if data is None else data  # None only for a shard of nothing

    def decode(self, data: U8, spec: ChunkSpec) -> Array:
        level, program = self._compile(spec)
        array: Array = np.full(spec.shape, spec.fill_value, spec.dtype)
        try:
            chunks = explode([level], data)
        except ShardIndexError as err:  # the caller knows the key
            raise CodecError(
                err.message, codec=self.name, expected=err.expected, actual=err.actual
            ) from err
        for coords, chunk in chunks.items():
            array[self._box(spec, coords)] = program.decode(chunk)
        return array


def inline_shards(codecs: Iterable[Codec], variable_limit: int) -> list[Codec]:
    """``codecs`` with sharding codecs made to decode whole objects."""
    return [InlineShard(c, variable_limit) if isinstance(c, ShardingCodec) else c for c in codecs]
