"""bitround: equal to numcodecs, in both places of a chain."""

from __future__ import annotations

from typing import Any, ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToArraySuite
from hostile import items_of, v2_document

import zarr_gpu
from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.bitround import BitRoundFilter
from zarr_gpu.codecs.numcodecs import BitRound
from zarr_gpu.errors import CodecError, MetadataError


class TestBitRound(ArrayToArraySuite):
    variants: ClassVar = {"few": BitRound(3), "none": BitRound(0), "all": BitRound(52)}
    specs: ClassVar = [
        ChunkSpec((4, 5), np.dtype("<f8")),
        ChunkSpec((3,), np.dtype(">f8")),
        ChunkSpec((), np.dtype("<f8")),
        ChunkSpec((0,), np.dtype("<f8")),
    ]
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        {},
        *({"keepbits": v} for v in ("3", None, True, 3.0, -1, 53)),
    ]


def values(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    special = [0, -0.0, 1, -1.5, 1e-40, 6e-8, 65504, 1e30, np.nan, np.inf, -np.inf]
    with np.errstate(all="ignore"):
        return np.concatenate([special, rng.standard_normal(500)]).astype(dtype)


@pytest.mark.parametrize(("dtype", "bits"), [("<f2", 10), ("<f4", 23), ("<f8", 52)])
def test_equals_numcodecs_bit_for_bit(dtype: str, bits: int) -> None:
    array = values(dtype)
    big = array.astype(array.dtype.newbyteorder(">"))
    for kept in (0, 1, 3, 7, bits - 1, bits):
        expected = np.asarray(numcodecs.BitRound(kept).encode(array)).tobytes()
        codec = BitRound(kept)
        before = array.copy()
        got = codec.encode(array, ChunkSpec(array.shape, array.dtype))
        assert (got.dtype, got.tobytes()) == (array.dtype, expected)
        assert before.tobytes() == array.tobytes()
        assert codec.encode(big, ChunkSpec(big.shape, big.dtype)).byteswap().tobytes() == expected


@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_v2(dtype: str) -> None:
    array = values(dtype)
    document = v2_document(
        shape=[len(array)], chunks=[100], dtype=dtype, filters=[{"id": "bitround", "keepbits": 5}]
    )
    z = zarr_gpu.open_array(items_of(document), mode="r+", device="cpu")
    z[...] = array
    rounded = BitRound(5).encode(array, ChunkSpec(array.shape, array.dtype))
    assert z[...].astype(dtype).tobytes() == rounded.tobytes()


def test_v2_behind_a_filter_that_changes_the_type() -> None:
    filters: Any = [
        {"id": "astype", "encode_dtype": "<f4", "decode_dtype": "<f8"},
        {"id": "bitround", "keepbits": 4},
    ]
    document = v2_document(shape=[500], chunks=[100], dtype="<f8", filters=filters)
    z = zarr_gpu.open_array(items_of(document), mode="r+", device="cpu")
    array = values("<f8")[11:]
    z[:] = array[:500]
    narrow = array[:500].astype("<f4")
    rounded = BitRound(4).encode(narrow, ChunkSpec(narrow.shape, narrow.dtype))
    np.testing.assert_array_equal(z[...], rounded.astype("f8"))


def test_what_cannot_be_rounded() -> None:
    for dtype in ("<i4", "<c8", "?", "M8[s]", "S4"):
        with pytest.raises(MetadataError, match="mantissa"):
            BitRound(1).encoded_spec(ChunkSpec((1,), np.dtype(dtype)))
        with pytest.raises(MetadataError, match="mantissa"):
            BitRoundFilter(BitRound(1), None).evolve(ChunkSpec((1,), np.dtype(dtype)))
    with pytest.raises(MetadataError, match="cannot keep 24 bits of the mantissa of float32"):
        BitRound(24).encoded_spec(ChunkSpec((1,), np.dtype("<f4")))


def test_bytes_that_are_no_elements() -> None:
    codec = BitRoundFilter.from_config({"keepbits": 3}).evolve(ChunkSpec((2,), np.dtype("<f4")))
    assert codec.to_config() == {"keepbits": 3}
    with pytest.raises(CodecError, match="whole number"):
        codec.encode(np.zeros(7, "u1"))
    with pytest.raises(CodecError, match="decoded size must be 8"):
        codec.decode(np.zeros(7, "u1"), limit=8, exact=True)
    odd = np.zeros(9, "u1")[1:]
    odd[:] = np.array([1.1, 3.3], "<f4").view("u1")
    np.testing.assert_array_equal(codec.encode(odd).view("<f4"), np.array([1.125, 3.25], "f4"))
