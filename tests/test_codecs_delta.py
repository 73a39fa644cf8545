"""delta: equal to numcodecs, wrap-around and odd pairs of types included."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToArraySuite

from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.numcodecs import Delta
from zarr_gpu.errors import CodecError, MetadataError

INTEGERS = ["?", "i1", "u1", "<i2", ">i2", "<u4", ">i4", "<i8", ">u8"]
FLOATS = ["<f2", "<f4", ">f4", "<f8"]
COMPLEX = ["<c8", ">c16"]


class TestDelta(ArrayToArraySuite):
    variants: ClassVar = {
        "same": Delta("<i4"),
        "narrow": Delta("<i4", "<i2"),
        "wide": Delta("<i4", "<i8"),
        "float": Delta("<f4", "<f8"),
        "open": Delta(),
    }
    specs: ClassVar = [
        ChunkSpec((4, 5), np.dtype("<i4")),
        ChunkSpec((), np.dtype("<i4")),
        ChunkSpec((0,), np.dtype("<u4")),
    ]
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        *({"dtype": v} for v in ("O", "S4", "V8", "U1", "i4,i4", "", "x" * 99, 3, [], "M8[s]")),
        {"dtype": "<i4", "astype": "O"},
        {"dtype": "<f8", "astype": "<c8"},
        {"dtype": "<c8", "astype": "<f8"},
    ]


def values(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    found = rng.integers(0, 256, 96, dtype="u1").view(np.dtype(dtype).newbyteorder("="))
    if dtype == "?":
        found = found.view("u1") % 2 == 1
    return found.astype(dtype)


@pytest.mark.parametrize("astype", INTEGERS + FLOATS)
@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_equals_numcodecs_bit_for_bit(dtype: str, astype: str) -> None:
    compare(dtype, astype)


@pytest.mark.parametrize("astype", COMPLEX)
@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_complex_equals_numcodecs(dtype: str, astype: str) -> None:
    compare(dtype, astype)


def compare(dtype: str, astype: str) -> None:
    array = values(dtype)
    spec = ChunkSpec(array.shape, array.dtype)
    ours, theirs = Delta(dtype, astype), numcodecs.Delta(dtype, astype)
    try:
        expected = theirs.encode(array)
    except (OverflowError, ValueError):  # the first element does not fit
        with pytest.raises(CodecError, match="cannot store"):
            ours.encode(array, spec)
        array[0] = array[1:2].astype("?").astype(dtype)[0]
        expected = theirs.encode(array)
    encoded = ours.encode(array, spec)
    assert encoded.dtype == np.dtype(astype)
    assert encoded.tobytes() == expected.tobytes()
    decoded = ours.decode(encoded, spec)
    assert decoded.dtype == array.dtype
    assert decoded.tobytes() == theirs.decode(expected).tobytes()


@pytest.mark.filterwarnings("error")
def test_no_warnings() -> None:
    array = np.array([0, np.nan, np.inf, -np.inf, 1e300, 1, 2], "<f8")
    spec = ChunkSpec(array.shape, array.dtype)
    codec = Delta("<f8", "<i2")
    codec.decode(codec.encode(array, spec), spec)


def test_order_is_that_of_the_chunk_not_of_memory() -> None:
    array = np.arange(12, dtype="<i4").reshape(3, 4)
    spec = ChunkSpec(array.shape, array.dtype)
    for given in (array, np.asfortranarray(array)):
        encoded = Delta("<i4").encode(given, spec)
        assert encoded.reshape(-1).tolist() == [0] + [1] * 11


def test_another_type_of_the_same_size_is_viewed() -> None:
    array = np.array(["2020-01-01", "2020-01-03"], "<M8[D]")
    spec = ChunkSpec(array.shape, array.dtype)
    codec = Delta("<i8")
    encoded = codec.encode(array, spec)
    assert encoded.tolist() == [18262, 2]
    np.testing.assert_array_equal(codec.decode(encoded, spec), array)
    with pytest.raises(MetadataError):
        codec.encoded_spec(ChunkSpec((2,), np.dtype("<i4")))


def test_time_differences() -> None:
    array = np.array([5, 7, 10], "<m8[s]")
    spec = ChunkSpec(array.shape, array.dtype)
    codec = Delta("<m8[s]")
    np.testing.assert_array_equal(codec.decode(codec.encode(array, spec), spec), array)


def test_types_for_flat_bytes() -> None:
    assert Delta("<i4", "i1").stored_dtypes() == (np.dtype("<i4"), np.dtype("i1"))
    assert Delta("<i4").stored_dtypes() == (np.dtype("<i4"), np.dtype("<i4"))
    assert Delta().stored_dtypes() is None
    assert Delta().evolve(ChunkSpec((1,), np.dtype("<u2"))) == Delta("<u2")
    assert Delta("<i4").to_v2_config() == {"dtype": "<i4", "astype": "<i4"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Delta.from_config({"dtype": "float64", "extra": 0}).dtype == np.dtype("f8")
