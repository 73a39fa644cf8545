"""fixedscaleoffset: equal to numcodecs, NaN, rounding and overflow included."""

from __future__ import annotations

from typing import Any, ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToArraySuite

from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.numcodecs import FixedScaleOffset
from zarr_gpu.errors import CodecError, MetadataError

GOOD = {"offset": 0, "scale": 1, "dtype": "<f8"}


class TestFixedScaleOffset(ArrayToArraySuite):
    variants: ClassVar = {
        "floats": FixedScaleOffset(10, 2, "<f8", "<i2"),
        "same": FixedScaleOffset(0.5, 0.25, "<f8"),
        "open": FixedScaleOffset(0, 1, None, "<i4"),
    }
    specs: ClassVar = [
        ChunkSpec((4, 5), np.dtype("<f8")),
        ChunkSpec((), np.dtype("<f8")),
        ChunkSpec((0,), np.dtype("<f8")),
    ]
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        {},
        {"offset": 1},
        *({**GOOD, "offset": v} for v in ("1", None, True, [], 1j)),
        *({**GOOD, "scale": v} for v in ("1", None, True, 0, 0.0)),
        *({**GOOD, "dtype": v} for v in ("O", "S3", "c8", "M8[s]", 3, "nonsense")),
        *({**GOOD, "astype": v} for v in ("O", "U3", [])),
    ]


SPECIAL = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 1e-310, 123.456, -7e8, 3e18, 1e300]
SPECIAL += [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("astype", ["i1", "u1", "<i2", ">i4", "<u8", "<f2", "<f4", ">f8", "?"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i4", "<u8", "i1", "?"])
@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1000, 10), (-2.5, 0.1), (1, -3)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_equals_numcodecs_bit_for_bit(dtype: str, astype: str, offset: float, scale: float) -> None:
    with np.errstate(all="ignore"):
        array = np.array(SPECIAL).astype(dtype)
    spec = ChunkSpec(array.shape, array.dtype)
    theirs = numcodecs.FixedScaleOffset(offset, scale, dtype, astype)
    ours = FixedScaleOffset(offset, scale, dtype, astype)
    expected: Any
    try:
        expected = theirs.encode(array)
    except OverflowError:  # an offset that the type cannot hold
        with pytest.raises(CodecError, match="scale"):
            ours.encode(array, spec)
        return
    encoded = ours.encode(array, spec)
    assert encoded.dtype == np.dtype(astype)
    assert encoded.tobytes() == expected.tobytes()
    try:
        expected = theirs.decode(expected)
    except OverflowError:
        with pytest.raises(CodecError, match="scale"):
            ours.decode(encoded, spec)
        return
    decoded = ours.decode(encoded, spec)
    assert decoded.dtype == array.dtype
    assert decoded.tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("error")
def test_no_warnings() -> None:
    array = np.array(SPECIAL, "<f8")
    spec = ChunkSpec(array.shape, array.dtype)
    codec = FixedScaleOffset(1, 10, "<f8", "i1")
    codec.decode(codec.encode(array, spec), spec)


def test_an_enormous_offset_is_an_error_of_ours() -> None:
    array = np.array([1], "<i4")
    with pytest.raises(CodecError):
        FixedScaleOffset(10**400, 1, "<i4").encode(array, ChunkSpec((1,), array.dtype))


def test_configuration() -> None:
    codec = FixedScaleOffset.from_config({"offset": 1, "scale": 2, "astype": "<i2", "more": None})
    assert codec.stored_dtypes() is None
    evolved = codec.evolve(ChunkSpec((1,), np.dtype("<f4")))
    assert evolved.stored_dtypes() == (np.dtype("<f4"), np.dtype("<i2"))
    assert evolved.to_config() == {"scale": 2, "offset": 1, "dtype": "<f4", "astype": "<i2"}
    with pytest.raises(MetadataError):
        evolved.encoded_spec(ChunkSpec((1,), np.dtype("<f8")))
