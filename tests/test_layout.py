"""Layouts: what metadata compile to, and shards as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.codecs.sharding import ShardingCodec
from zarr_gpu.errors import MetadataError, ShardIndexError, ZarrError
from zarr_gpu.layout import Layout
from zarr_gpu.shards import InlineShard, assemble, explode

BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
CRC: dict[str, Any] = {"name": "crc32c"}
ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}


def transpose(*order: int) -> dict[str, Any]:
    return {"name": "transpose", "configuration": {"order": list(order)}}


def sharding(chunk_shape: tuple[int, ...], *codecs: Any, **other: Any) -> dict[str, Any]:
    configuration = {
        "chunk_shape": list(chunk_shape),
        "codecs": list(codecs) or [BYTES],
        "index_codecs": [BYTES, CRC],
        "index_location": "end",
    }
    return {"name": "sharding_indexed", "configuration": {**configuration, **other}}


def layout_of(shape: tuple[int, ...], chunks: tuple[int, ...], *codecs: Any) -> Layout:
    return array_of(shape, chunks, *codecs).layout


def array_of(shape: tuple[int, ...], chunks: tuple[int, ...], *codecs: Any) -> zarr_gpu.Array:
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "int32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": list(codecs),
        "attributes": {},
    }
    return zarr_gpu.Array.from_dict({}, document)


def test_plain_chunks() -> None:
    made = layout_of((10, 4), (4, 4), BYTES, ZSTD)
    assert made.levels == ()
    assert made.grid is made.object_grid
    assert made.grid.shape == (3, 1)
    assert made.chunks_per_object == (1, 1)
    assert made.keys(np.array([[0, 0], [2, 0]])) == ["c/0/0", "c/2/0"]


def test_nested_shards_are_levels() -> None:
    inner = sharding((2, 2), BYTES, ZSTD)
    made = layout_of((20, 8), (8, 8), sharding((4, 4), inner))
    assert made.grid.chunk_shape == (2, 2)
    assert made.object_grid.chunk_shape == (8, 8)
    assert [level.counts for level in made.levels] == [(2, 2), (2, 2)]
    assert [level.ratio for level in made.levels] == [(2, 2), (1, 1)]
    assert [c.name for c in made.program.codecs] == ["bytes", "zstd"]


def test_a_transpose_around_a_shard_moves_its_index() -> None:
    made = layout_of((4, 6), (4, 6), transpose(1, 0), sharding((3, 2)))
    (level,) = made.levels
    assert level.permutation == (1, 0)
    assert level.counts == (2, 2)
    assert made.grid.chunk_shape == (2, 3)
    # The index runs over stored axes: the second axis of the array is the slow one.
    chunks = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    assert level.number_of(chunks).tolist() == [0, 1, 2, 3]
    assert [level.coords_of(n) for n in range(4)] == [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize(
    "codecs",
    [
        (sharding((2, 2)), ZSTD),
        (
            {"name": "numcodecs.delta", "configuration": {"dtype": "<i4", "astype": "<i4"}},
            sharding((2, 2)),
        ),
        (sharding((4, 4), sharding((2, 2)), ZSTD),),
    ],
    ids=["compressed", "mixed", "inner compressed"],
)
def test_shards_that_must_be_decoded_whole(codecs: tuple[Any, ...]) -> None:
    array = array_of((8, 8), (8, 8), *codecs)
    assert isinstance(array.layout.program.serializer, InlineShard)
    values = np.arange(64, dtype="i4").reshape(8, 8)
    array[...] = values
    array[2:5, ::3] = -1
    values[2:5, ::3] = -1
    assert (array[...] == values).all()


@pytest.mark.parametrize(
    ("codecs", "words"),
    [
        ((sharding((3, 3)),), "does not divide"),
        ((sharding((4,)),), "axes"),
        ((sharding((4, 4), index_codecs=[BYTES, ZSTD]),), "fixed size"),
        ((sharding((4, 4), BYTES, {"name": "unheard_of"}),), "unheard_of"),
    ],
)
def test_shards_that_are_none(codecs: tuple[Any, ...], words: str) -> None:
    with pytest.raises(MetadataError, match=words) as caught:
        layout_of((8, 8), (8, 8), *codecs)
    assert caught.value.key == "zarr.json"


@pytest.mark.parametrize("location", ["start", "end"])
def test_taking_a_shard_apart_and_together(location: str) -> None:
    inner = sharding((1, 2), index_location=location)
    made = layout_of((4, 8), (4, 8), sharding((2, 4), inner, index_location=location))
    rng = np.random.default_rng(0)
    chunks = {
        coords: rng.integers(0, 256, rng.integers(0, 40), np.uint8)
        for coords in np.ndindex(4, 4)
        if rng.random() < 0.6
    }
    data = assemble(made.levels, chunks)
    assert data is not None
    back = explode(made.levels, data)
    assert back.keys() == chunks.keys()
    assert all((back[coords] == chunks[coords]).all() for coords in chunks)
    assert assemble(made.levels, {}) is None
    for cut in range(len(data)):  # never anything but our errors, or chunks within the bytes left
        part = data[:cut] if location == "end" else data[len(data) - cut :]
        try:
            left = explode(made.levels, part, key="c/0/0")
        except ZarrError as error:
            assert isinstance(error, ShardIndexError)
            assert error.key == "c/0/0"
        else:
            assert sum(map(len, left.values())) <= cut


def test_sharding_has_no_codec_calls() -> None:
    codec = ShardingCodec(chunk_shape=(2,))
    spec = layout_of((2,), (2,), BYTES).program.spec
    with pytest.raises(MetadataError, match="layout"):
        codec.encode(np.zeros(2, "i4"), spec)
