"""gzip through the shared suite, and its optional parts."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import ClassVar

import numpy as np
from codec_suite import NOT_LEVELS, NOT_OBJECTS, PAYLOADS, BytesToBytesSuite, u8

from zarr_gpu.codecs import GzipCodec
from zarr_gpu.codecs.numcodecs import GZip
from zarr_gpu.errors import CodecError


class TestGzip(BytesToBytesSuite):
    variants: ClassVar = {"default": GzipCodec(), "store": GzipCodec(level=0)}
    numcodecs_id: ClassVar = "gzip"
    checksummed: ClassVar = False  # the header's fields are not covered, the data are: see below
    bad_configs: ClassVar = [*NOT_OBJECTS, *NOT_LEVELS, {"level": -1}, {"levle": 1}]

    def test_optional_header_fields(self) -> None:
        text = b"hello, header"
        stream = zlib.compressobj(5, zlib.DEFLATED, -15)
        body = stream.compress(text) + stream.flush()
        trailer = struct.pack("<2I", zlib.crc32(text), len(text))
        fields = struct.pack("<H", 3) + b"abc" + b"name\0" + b"comment\0"
        header = b"\x1f\x8b\x08" + bytes([2 | 4 | 8 | 16]) + b"\0\0\0\0\0\xff" + fields
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
        codec = GzipCodec()
        frame = u8(header + body + trailer)
        assert codec.decode(frame, limit=len(text), exact=True).tobytes() == text

    def test_members_and_zero_padding(self) -> None:
        frame = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two")
        codec = GzipCodec()
        for data in (frame, frame + b"\0" * 7, gzip.compress(b"one") + b"\0" + frame[23:]):
            expected = gzip.GzipFile(fileobj=io.BytesIO(data)).read()
            got = codec.decode(u8(data), limit=len(expected), exact=True)
            assert got.tobytes() == expected

    def test_a_flipped_bit_of_the_data_is_noticed(self) -> None:
        payload = PAYLOADS["odd"]
        frame = GzipCodec().encode(payload)
        for at in range(10, len(frame), 7):
            mutant = frame.copy()
            mutant[at] ^= 4
            try:
                got = GzipCodec().decode(mutant, limit=len(payload), exact=True)
            except CodecError:
                continue
            np.testing.assert_array_equal(got, payload)

    def test_the_level_of_numcodecs_may_be_minus_one(self) -> None:
        assert GZip.from_config({"level": -1}) == GZip(-1)
        assert GZip().level == 1
        assert GZip().to_dict() == {"name": "numcodecs.gzip", "configuration": {"level": 1}}
