"""crc32c, crc32, adler32, fletcher32 through the shared suite."""

from __future__ import annotations

import sys
import zlib
from typing import ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, PAYLOADS, BytesToBytesSuite, u8

from zarr_gpu.codecs import Crc32cCodec
from zarr_gpu.codecs.base import BytesToBytes
from zarr_gpu.codecs.numcodecs import CRC32, CRC32C, Adler32, Fletcher32
from zarr_gpu.errors import CodecError, MissingDependencyError

NOT_PLACES = [{"location": v} for v in ("middle", 1, None, True, [])]


class ChecksumSuite(BytesToBytesSuite):
    checksummed: ClassVar = True
    bad_configs: ClassVar = [*NOT_OBJECTS, *NOT_PLACES]

    def test_every_flipped_bit_is_noticed(self, codec: BytesToBytes) -> None:
        payload = PAYLOADS["odd"][:61]
        frame = codec.encode(payload)
        for bit in range(8 * len(frame)):
            mutant = frame.copy()
            mutant[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CodecError, match="checksum"):
                codec.decode(mutant, limit=len(payload), exact=True)

    def test_decoding_is_a_view(self, codec: BytesToBytes) -> None:
        frame = codec.encode(PAYLOADS["odd"])
        got = codec.decode(frame, limit=len(frame) - 4, exact=True)
        assert np.shares_memory(got, frame)


class TestCrc32c(ChecksumSuite):
    variants: ClassVar = {"v3": Crc32cCodec()}
    numcodecs_id: ClassVar = "crc32c"
    bad_configs: ClassVar = [*NOT_OBJECTS, {"location": "end"}]

    def test_known_value(self) -> None:
        assert Crc32cCodec().encode(u8(b"123456789"))[-4:].view("<u4") == 0xE3069283

    def test_package_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "google_crc32c", None)
        with pytest.raises(MissingDependencyError, match="google-crc32c"):
            Crc32cCodec().encode(u8(b"x"))


class TestCRC32C(ChecksumSuite):
    variants: ClassVar = {"end": CRC32C(), "start": CRC32C("start")}
    numcodecs_id: ClassVar = "crc32c"

    def test_the_plain_one_is_that_of_v3(self) -> None:
        np.testing.assert_array_equal(CRC32C().encode(u8(b"ab")), Crc32cCodec().encode(u8(b"ab")))


class TestCRC32(ChecksumSuite):
    variants: ClassVar = {"start": CRC32(), "end": CRC32("end")}
    numcodecs_id: ClassVar = "crc32"

    def test_known_value(self) -> None:
        assert CRC32().encode(u8(b"123456789"))[:4].view("<u4") == zlib.crc32(b"123456789")


class TestAdler32(ChecksumSuite):
    variants: ClassVar = {"start": Adler32(), "end": Adler32("end")}
    numcodecs_id: ClassVar = "adler32"


class TestFletcher32(ChecksumSuite):
    variants: ClassVar = {"default": Fletcher32()}
    numcodecs_id: ClassVar = "fletcher32"
    checksummed: ClassVar = False  # words 0 and 65535 are the same to this sum
    bad_configs: ClassVar = NOT_OBJECTS

    @pytest.mark.parametrize("size", [1, 2, 3, 719, 720, 721, 131071, 131072, 131073, 400001])
    @pytest.mark.parametrize("value", [0, 1, 255, None])
    def test_equals_numcodecs_at_every_block_edge(self, size: int, value: int | None) -> None:
        rng = np.random.default_rng(size)
        data = rng.integers(0, 256, size, dtype="u1") if value is None else np.full(size, value)
        data = data.astype("u1")
        expected = u8(numcodecs.get_codec({"id": "fletcher32"}).encode(data))
        np.testing.assert_array_equal(Fletcher32().encode(data), expected)
