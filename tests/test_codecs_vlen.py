"""vlen-utf8 and vlen-bytes: against numcodecs; lengths that lie."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToBytesSuite, u8

from zarr_gpu.codecs import VLenBytesCodec, VLenUTF8Codec, get_codec_class
from zarr_gpu.codecs.base import ArrayToBytes, ChunkSpec
from zarr_gpu.errors import CodecError, MetadataError

STRING = np.dtypes.StringDType()
WORDS = ["", "a", "äöü", "日本語", "\x00inner\x00", "🦓" * 9, "x" * 300, "end"]
BLOBS = [b"", b"a", b"\xff\xfe", b"\x00\x00", b"x" * 300, b"end\x00"]


def objects(items: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


class TestVLenUTF8(ArrayToBytesSuite):
    variants: ClassVar = {"default": VLenUTF8Codec()}
    arrays: ClassVar = {
        "strings": np.array(WORDS, STRING).reshape(4, 2),
        "objects": objects(WORDS, (2, 4)),
        "none": np.empty((0, 3), STRING),
        "0-d": np.array("ä", STRING),
    }
    bad_configs: ClassVar = [*NOT_OBJECTS, {"encoding": "latin-1"}]

    def test_equals_numcodecs(self) -> None:
        data = u8(numcodecs.VLenUTF8().encode(objects(WORDS, (8,))))
        spec = ChunkSpec((8,), STRING)
        np.testing.assert_array_equal(VLenUTF8Codec().encode(np.array(WORDS, STRING), spec), data)
        assert VLenUTF8Codec().decode(data, spec).tolist() == WORDS
        got = VLenUTF8Codec().decode(data, ChunkSpec((8,), np.dtype(object)))
        assert [type(item) for item in got] == [str] * 8

    @pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe6\x97"])
    def test_invalid_utf8(self, bad: bytes) -> None:
        data = u8(struct.pack("<2I", 1, len(bad)) + bad)
        with pytest.raises(CodecError, match="UTF-8"):
            VLenUTF8Codec().decode(data, ChunkSpec((1,), STRING))

    @pytest.mark.parametrize("item", [3, 1.5, b"bytes", [], "\ud800", np.nan])
    def test_items_that_are_no_text(self, item: Any) -> None:
        array = objects([item], (1,))
        with pytest.raises(CodecError, match="no text"):
            VLenUTF8Codec().encode(array, ChunkSpec((1,), array.dtype))

    def test_missing_items_are_empty(self) -> None:
        array = objects([None, 0, "x"], (3,))
        data = VLenUTF8Codec().encode(array, ChunkSpec((3,), array.dtype))
        assert data.tobytes() == bytes(numcodecs.VLenUTF8().encode(array))


class TestVLenBytes(ArrayToBytesSuite):
    variants: ClassVar = {"default": VLenBytesCodec()}
    arrays: ClassVar = {
        "objects": objects(BLOBS, (3, 2)),
        "none": np.empty((0, 3), object),
        "0-d": objects([b"x"], ()),
    }
    bad_configs: ClassVar = [*NOT_OBJECTS, {"x": 1}]

    def test_equals_numcodecs(self) -> None:
        array = objects(BLOBS, (6,))
        data = u8(numcodecs.VLenBytes().encode(array))
        spec = ChunkSpec((6,), array.dtype)
        np.testing.assert_array_equal(VLenBytesCodec().encode(array, spec), data)
        got = VLenBytesCodec().decode(data, spec)
        assert got.tolist() == BLOBS
        assert [type(item) for item in got] == [bytes] * 6

    def test_items(self) -> None:
        array = objects([None, 0, bytearray(b"x"), memoryview(b"y"), np.bytes_(b"z")], (5,))
        spec = ChunkSpec((5,), array.dtype)
        got = VLenBytesCodec().decode(VLenBytesCodec().encode(array, spec), spec)
        assert got.tolist() == [b"", b"", b"x", b"y", b"z"]
        for item in ("text", 1, 1.5, [], False):
            with pytest.raises(CodecError, match="not bytes"):
                VLenBytesCodec().encode(objects([item], (1,)), ChunkSpec((1,), array.dtype))


@pytest.mark.parametrize(
    ("codec", "dtype"), [(VLenUTF8Codec(), STRING), (VLenBytesCodec(), np.dtype(object))], ids=str
)
class TestLies:
    def test_counts_and_lengths(self, codec: ArrayToBytes, dtype: np.dtype) -> None:
        spec = ChunkSpec((2,), dtype)
        pack = struct.pack
        good = pack("<2I", 2, 1) + b"a" + pack("<I", 1) + b"b"
        assert codec.decode(u8(good), spec).shape == (2,)
        for bad in (
            b"",
            good[:-1],
            good + b"\0",
            pack("<I", 3) + good[4:],
            pack("<I", 1) + good[4:],
            pack("<I", 2**32 - 1) + good[4:],
            good[:4] + pack("<I", 2**32 - 1) + good[8:],
            good[:4] + pack("<I", 2) + good[8:],
            good[:4] + pack("<I", 0) + good[8:],
        ):
            with pytest.raises(CodecError) as caught:
                codec.decode(u8(bad), spec)
            assert caught.value.codec == codec.name
            assert caught.value.actual == len(bad)

    def test_an_enormous_chunk_allocates_nothing(
        self, codec: ArrayToBytes, dtype: np.dtype
    ) -> None:
        data = u8(struct.pack("<I", 2**32 - 1) + bytes(100))
        for shape in ((2**32 - 1,), (2**62, 2**62)):
            with pytest.raises(CodecError, match="too short"):
                codec.decode(data, ChunkSpec(shape, dtype))

    def test_other_types(self, codec: ArrayToBytes, dtype: np.dtype) -> None:
        spec = ChunkSpec((1,), np.dtype("<i4"))
        with pytest.raises(MetadataError):
            codec.evolve(spec)
        with pytest.raises(MetadataError):
            codec.decode(u8(struct.pack("<2I", 1, 0)), spec)

    def test_names(self, codec: ArrayToBytes, dtype: np.dtype) -> None:
        assert codec.to_dict() == {"name": codec.name}
        assert get_codec_class(f"numcodecs.{codec.name}") is type(codec)
