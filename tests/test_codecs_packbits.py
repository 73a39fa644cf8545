"""packbits: equal to numcodecs, in both places of a chain."""

from __future__ import annotations

from typing import ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToArraySuite
from hostile import items_of, v2_document

import zarr_gpu
from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.numcodecs import PackBits
from zarr_gpu.codecs.packbits import PackBitsFilter
from zarr_gpu.errors import CodecError, MetadataError


class TestPackBits(ArrayToArraySuite):
    variants: ClassVar = {"plain": PackBits()}
    specs: ClassVar = [
        ChunkSpec((4, 5), np.dtype("?")),
        ChunkSpec((8,), np.dtype("?")),
        ChunkSpec((), np.dtype("?")),
        ChunkSpec((0,), np.dtype("?")),
    ]
    bad_configs: ClassVar = NOT_OBJECTS


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 1001])
def test_equals_numcodecs(size: int) -> None:
    array = np.random.default_rng(size).random(size) < 0.5
    expected = np.asarray(numcodecs.PackBits().encode(array)).tobytes()
    spec = ChunkSpec(array.shape, array.dtype)
    codec = PackBits()
    assert codec.encode(array, spec).tobytes() == expected
    assert codec.encoded_spec(spec).nbytes == len(expected)
    np.testing.assert_array_equal(codec.decode(np.frombuffer(expected, "u1"), spec), array)
    flat = PackBitsFilter.from_config({})
    assert flat.encode(array.view("u1") * np.uint8(200)).tobytes() == expected  # all but 0
    assert flat.encoded_size(size) == len(expected)
    for out in (None, np.full(size, 9, "u1")):
        got = flat.decode(np.frombuffer(expected, "u1"), limit=size, exact=True, out=out)
        np.testing.assert_array_equal(got, array.view("u1"))


@pytest.mark.parametrize("order", ["C", "F"])
def test_v2(order: str) -> None:
    array = np.random.default_rng(1).random((13, 11)) < 0.3
    document = v2_document(
        shape=[13, 11],
        chunks=[5, 4],
        dtype="|b1",
        order=order,
        filters=[{"id": "packbits"}],
        compressor={"id": "zlib", "level": 1},
    )
    items = items_of(document)
    z = zarr_gpu.open_array(items, mode="r+", device="cpu")
    z[...] = array
    np.testing.assert_array_equal(z[...], array)
    packed = numcodecs.Zlib().decode(items["0.0"])
    chunk = np.asarray(numcodecs.PackBits().decode(packed)).reshape((5, 4), order=order)
    np.testing.assert_array_equal(chunk, array[:5, :4])


def test_damage() -> None:
    spec = ChunkSpec((10,), np.dtype("?"))
    good = PackBits().encode(np.ones(10, "?"), spec)
    for bad in (good[:0], good[:1], good[:2], np.append(good, good[:1]), good + np.uint8(1)):
        with pytest.raises(CodecError):
            PackBits().decode(bad, spec)
        with pytest.raises(CodecError):
            PackBitsFilter().decode(bad, limit=10, exact=True)
    with pytest.raises(CodecError, match="at most 9"):
        PackBitsFilter().decode(good, limit=9, exact=False)
    numbers = ChunkSpec((1,), np.dtype("u1"))
    for refuse in (PackBits().encoded_spec, PackBitsFilter().evolve):
        with pytest.raises(MetadataError, match="booleans"):
            refuse(numbers)
    with pytest.raises(MetadataError, match="booleans"):
        PackBitsFilter(np.dtype("i2")).evolve(ChunkSpec((1,), np.dtype("?")))
