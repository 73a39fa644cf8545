"""astype: equal to numcodecs."""

from __future__ import annotations

from typing import ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToArraySuite

from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.numcodecs import AsType
from zarr_gpu.errors import CodecError, MetadataError


class TestAsType(ArrayToArraySuite):
    variants: ClassVar = {
        "narrow": AsType("<i2", "<f8"),
        "big": AsType(">f4", "<f8"),
        "open": AsType("<i4"),
    }
    specs: ClassVar = [
        ChunkSpec((4, 5), np.dtype("<f8")),
        ChunkSpec((), np.dtype("<f8")),
        ChunkSpec((0,), np.dtype("<f8")),
    ]
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        {},
        {"decode_dtype": "<f8"},
        *({"encode_dtype": v} for v in ("O", "S3", "U2", 3, None, "nonsense")),
        {"encode_dtype": "<i4", "decode_dtype": "O"},
        {"encode_dtype": "<c8", "decode_dtype": "<f4"},
        {"encode_dtype": "<f4", "decode_dtype": "<c8"},
    ]


SPECIAL = [0.0, -0.0, 0.5, 1.5, -1.5, 1e-310, 123.456, -7e8, 3e18, np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("stored", ["i1", "u1", "<i2", ">i4", "<u8", "<f2", "<f4", ">f8", "?"])
@pytest.mark.parametrize("decoded", ["<f4", ">f8", "<f2", "<i4", "<u8", "i1", "?"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_equals_numcodecs_bit_for_bit(decoded: str, stored: str) -> None:
    with np.errstate(all="ignore"):
        array = np.array(SPECIAL).astype(decoded)
    spec = ChunkSpec(array.shape, array.dtype)
    ours, theirs = AsType(stored, decoded), numcodecs.AsType(stored, decoded)
    encoded, expected = ours.encode(array, spec), theirs.encode(array)
    assert encoded.dtype == np.dtype(stored)
    assert encoded.tobytes() == expected.tobytes()
    back = ours.decode(encoded, spec)
    assert back.dtype == array.dtype
    assert back.tobytes() == theirs.decode(expected).tobytes()


def test_dates_are_numbers() -> None:
    array = np.array(["2001-02-03", "1970-01-01"], "M8[s]")
    spec = ChunkSpec(array.shape, array.dtype)
    codec = AsType("<i8", "M8[s]")
    np.testing.assert_array_equal(codec.encode(array, spec), array.view("i8"))
    np.testing.assert_array_equal(codec.decode(codec.encode(array, spec), spec), array)
    years = np.array([1 << 62], "i8").view("M8[Y]")
    with pytest.raises(CodecError, match="cannot cast"):
        AsType("M8[as]", "M8[Y]").encode(years, ChunkSpec((1,), years.dtype))


def test_configuration() -> None:
    codec = AsType.from_config({"encode_dtype": "<i2"})
    assert codec.stored_dtypes() is None
    evolved = codec.evolve(ChunkSpec((1,), np.dtype("<f4")))
    assert evolved.stored_dtypes() == (np.dtype("<f4"), np.dtype("<i2"))
    assert evolved.to_config() == {"encode_dtype": "<i2", "decode_dtype": "<f4"}
    with pytest.raises(MetadataError, match="made for"):
        evolved.encoded_spec(ChunkSpec((1,), np.dtype("<f8")))
    with pytest.raises(MetadataError, match="cannot store"):
        codec.encoded_spec(ChunkSpec((1,), np.dtype("<c8")))
