"""bytes: byte orders of every kind of type, zero-copy decoding."""

from __future__ import annotations

import sys
from typing import ClassVar

import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToBytesSuite

from zarr_gpu.codecs import BytesCodec, Endian, get_codec_class
from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.errors import CodecError, MetadataError

TYPES = [
    *("?", "i1", "u1", "<i2", ">u4", "<i8", ">f2", "<f4", ">f8", "<c8", ">c16"),
    *("S3", "V5", "<U2", ">U2", ">M8[s]", "<m8[us]"),
    [("a", "<i2"), ("b", ">f4"), ("c", [("d", ">c8"), ("e", "u1")]), ("f", "<u2", (2, 3))],
]


def sample(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    n = int(np.prod(shape)) * dtype.itemsize
    raw = (np.arange(n) % 100 + 1).astype("u1")
    if dtype.kind == "U":
        raw = (np.arange(n // 4) % 50 + 65).astype(dtype.newbyteorder("=").str[0] + "u4")
        return np.asarray(raw).view("u1").view(dtype.newbyteorder("=")).astype(dtype).reshape(shape)
    if dtype.kind == "b":
        raw %= 2
    return raw.view(dtype).reshape(shape)


class TestBytes(ArrayToBytesSuite):
    variants: ClassVar = {e: BytesCodec(endian=e) for e in ("little", "big")}
    arrays: ClassVar = {
        str(dtype)[:20]: sample(np.dtype(dtype), (4, 3))
        for dtype in TYPES
        if not isinstance(dtype, list)
    } | {"0-d": np.array(5, "<u4"), "empty": np.empty((0, 3), "<f8")}
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        *({"endian": value} for value in ("Little", "<", 1, True, [], {})),
        {"endianness": "little"},
    ]

    def test_wrong_shape_is_refused(self, codec: BytesCodec, array: np.ndarray) -> None:
        if array.size:
            super().test_wrong_shape_is_refused(codec, array)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: str(t)[:20])
@pytest.mark.parametrize("endian", ["little", "big", None])
def test_every_part_has_the_byte_order(dtype: object, endian: str | None) -> None:
    declared = np.dtype(dtype)  # type: ignore[call-overload]
    array = sample(declared, (2, 5))
    spec = ChunkSpec(array.shape, declared)
    codec = BytesCodec(endian=endian)
    stored = declared
    if endian is not None:
        stored = declared.newbyteorder("<" if endian == "little" else ">")
    data = codec.encode(array.astype(declared.newbyteorder("S")), spec)
    assert data.tobytes() == array.astype(stored).tobytes()
    got = codec.decode(data, spec)
    assert got.dtype == stored
    assert got.astype(declared).tobytes() == array.tobytes()


def test_complex_parts_are_swapped_one_by_one() -> None:
    array = np.array([1 + 2j], "<c8")
    data = BytesCodec(endian="big").encode(array, ChunkSpec((1,), array.dtype))
    assert data.tobytes() == np.array([1, 2], ">f4").tobytes()


def test_decoding_is_a_view() -> None:
    data = np.arange(16, dtype="u1")
    for source in (data[:8], data[1:9]):
        got = BytesCodec(endian="big").decode(source, ChunkSpec((2,), np.dtype("<u4")))
        assert np.shares_memory(got, data)
        assert got.tolist() == np.frombuffer(source.tobytes(), ">u4").tolist()


def test_encoding_contiguous_elements_is_a_view() -> None:
    array = np.arange(6, dtype="<u4").reshape(2, 3)
    spec = ChunkSpec(array.shape, array.dtype)
    assert np.shares_memory(BytesCodec(endian="little").encode(array, spec), array)


def test_the_default_is_the_machine_and_the_metadata_default_is_none() -> None:
    assert BytesCodec().endian == sys.byteorder
    assert BytesCodec.from_config({}).endian is None
    assert BytesCodec.from_config({}).to_dict() == {"name": "bytes"}
    assert BytesCodec(endian=Endian.big).to_config() == {"endian": "big"}
    assert get_codec_class("endian") is BytesCodec


def test_types_without_byte_order_need_no_endian() -> None:
    for dtype in ("u1", "?", "S4", "V8"):
        spec = ChunkSpec((1,), np.dtype(dtype))
        assert BytesCodec(endian="little").evolve(spec).endian is None
    for dtype in ("<u2", ">c8", "U3", "M8[s]"):
        spec = ChunkSpec((1,), np.dtype(dtype))
        assert BytesCodec(endian="little").evolve(spec).endian == "little"


@pytest.mark.parametrize("dtype", [np.dtypes.StringDType(), np.dtype(object)], ids=str)
def test_variable_length_is_refused(dtype: np.dtype) -> None:
    spec = ChunkSpec((1,), dtype)
    codec = BytesCodec()
    for act in (codec.evolve, codec.encoded_size):
        with pytest.raises(MetadataError, match="vlen"):
            act(spec)
    with pytest.raises(MetadataError):
        codec.decode(np.zeros(8, "u1"), spec)
    with pytest.raises(CodecError):
        codec.encode(np.array(["x"], dtype), ChunkSpec((1,), np.dtype("<u4")))


def test_types_of_no_size() -> None:
    for dtype in ("S0", "U0", "V0"):
        spec = ChunkSpec((3,), np.dtype(dtype))
        assert len(BytesCodec().encode(np.ndarray(3, dtype), spec)) == 0
        assert BytesCodec().decode(np.empty(0, "u1"), spec).shape == (3,)
