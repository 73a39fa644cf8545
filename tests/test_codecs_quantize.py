"""quantize: equal to numcodecs."""

from __future__ import annotations

from typing import ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToArraySuite

from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.numcodecs import Quantize
from zarr_gpu.errors import MetadataError


class TestQuantize(ArrayToArraySuite):
    variants: ClassVar = {
        "same": Quantize(2, "<f8"),
        "narrow": Quantize(0, "<f8", "<f2"),
        "open": Quantize(-1, None, "<f4"),
    }
    specs: ClassVar = [
        ChunkSpec((4, 5), np.dtype("<f8")),
        ChunkSpec((), np.dtype("<f8")),
        ChunkSpec((0,), np.dtype("<f8")),
    ]
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        {},
        *({"digits": v} for v in ("1", None, True, 1.0, 301, -301)),
        *({"digits": 1, "dtype": v} for v in ("O", "<i4", "<c8", "nonsense")),
        *({"digits": 1, "dtype": "<f4", "astype": v} for v in ("O", "<c8", "<i4", [])),
    ]


SPECIAL = [0.0, -0.0, 0.1, 1.15, 2.5, -0.5, 1e-310, 123.456, -7e8, 3e18, 1e300]
SPECIAL += [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("digits", [-300, -2, 0, 1, 3, 10, 300])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
@pytest.mark.parametrize("astype", [None, "<f4", ">f8", "<f2"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_equals_numcodecs_bit_for_bit(digits: int, dtype: str, astype: str | None) -> None:
    with np.errstate(all="ignore"):
        array = np.array(SPECIAL).astype(dtype)
    spec = ChunkSpec(array.shape, array.dtype)
    ours, theirs = Quantize(digits, dtype, astype), numcodecs.Quantize(digits, dtype, astype)
    encoded, expected = ours.encode(array, spec), theirs.encode(array)
    assert encoded.dtype == np.dtype(astype or dtype)
    assert encoded.tobytes() == expected.tobytes()
    back = ours.decode(encoded, spec)
    assert back.dtype == array.dtype
    assert back.tobytes() == theirs.decode(expected).tobytes()


@pytest.mark.filterwarnings("error")
def test_no_warnings() -> None:
    array = np.array(SPECIAL, "<f8")
    spec = ChunkSpec(array.shape, array.dtype)
    codec = Quantize(3, "<f8", "<f2")
    codec.decode(codec.encode(array, spec), spec)


def test_configuration() -> None:
    codec = Quantize.from_config({"digits": 3, "astype": "<f2"})
    assert codec.stored_dtypes() is None
    evolved = codec.evolve(ChunkSpec((1,), np.dtype("<f4")))
    assert evolved.to_config() == {"digits": 3, "dtype": "<f4", "astype": "<f2"}
    assert Quantize(1, "<f8").to_config() == {"digits": 1, "dtype": "<f8", "astype": "<f8"}
    with pytest.raises(MetadataError, match="as float32"):
        evolved.encoded_spec(ChunkSpec((1,), np.dtype("<f8")))
    with pytest.raises(MetadataError, match="rounds floats and cannot encode int32"):
        Quantize(1).encoded_spec(ChunkSpec((1,), np.dtype("<i4")))
