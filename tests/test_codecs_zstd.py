"""zstd through the shared suite; frames that follow each other or do not tell their size."""

from __future__ import annotations

import struct
from typing import ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import (
    NOT_LEVELS,
    NOT_OBJECTS,
    PAYLOADS,
    BytesToBytesSuite,
    forget_size,
    mutants,
    u8,
)

from zarr_gpu.codecs import ZstdCodec
from zarr_gpu.codecs.numcodecs import Zstd
from zarr_gpu.errors import CodecError


class TestZstd(BytesToBytesSuite):
    variants: ClassVar = {
        "default": ZstdCodec(),
        "fast": ZstdCodec(level=-5),
        "checksum": ZstdCodec(level=3, checksum=True),
    }
    numcodecs_id: ClassVar = "zstd"
    native_library: ClassVar = "zstd"
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        *NOT_LEVELS,
        {"level": 23},
        {"checksum": 1},
        {"checksum": None},
        {"windowlog": 3},
    ]

    def test_both_ways_write_the_same(self, codec: ZstdCodec, payload: np.ndarray) -> None:
        theirs = numcodecs.Zstd(codec.level, codec.checksum).encode(payload)
        np.testing.assert_array_equal(codec.encode(payload), u8(theirs))

    def test_checksummed_frames_never_change(self, library: str) -> None:
        payload = PAYLOADS["odd"]
        codec = ZstdCodec(checksum=True)
        for mutant in mutants(codec.encode(payload), 300):
            try:
                got = codec.decode(mutant, limit=len(payload), exact=True)
            except CodecError:
                continue
            if len(mutant) > 5 and mutant[4] & 4:  # else the mutant says it has no checksum
                np.testing.assert_array_equal(got, payload)

    def test_several_frames(self, library: str) -> None:
        codec = ZstdCodec()
        one, two = PAYLOADS["odd"], PAYLOADS["noise"]
        skip = u8(struct.pack("<2I", 0x184D2A53, 5) + b"abcde")
        frame = np.concatenate([skip, codec.encode(one), codec.encode(one[:0]), skip])
        frame = np.concatenate([frame, codec.encode(two)])
        expected = np.concatenate([one, two])
        for exact, limit in ((True, len(expected)), (False, len(expected) + 9)):
            got = codec.decode(frame, limit=limit, exact=exact)
            np.testing.assert_array_equal(got, expected)
        with pytest.raises(CodecError):
            codec.decode(frame, limit=len(expected) - 1, exact=False)

    def test_skippable_frames_alone_hold_nothing(self, library: str) -> None:
        skip = u8(struct.pack("<2I", 0x184D2A50, 3) + b"abc")
        assert not len(ZstdCodec().decode(skip, limit=0, exact=True))
        for cut in range(len(skip)):
            with pytest.raises(CodecError):
                ZstdCodec().decode(skip[:cut], limit=0, exact=True)

    def test_content_size_unknown(self, library: str) -> None:
        codec = ZstdCodec()
        for name in ("empty", "one", "odd", "ramp", "noise"):
            payload = PAYLOADS[name]
            frame = forget_size(codec.encode(payload))
            n = len(payload)
            got = codec.decode(frame, limit=n, exact=True)
            np.testing.assert_array_equal(got, payload)
            got = codec.decode(frame, limit=n + 2**18, exact=False)
            np.testing.assert_array_equal(got, payload)
            for limit, exact in ((n + 1, True), (n - 1, True), (n - 1, False)):
                if limit >= 0:
                    with pytest.raises(CodecError):
                        codec.decode(frame, limit=limit, exact=exact)

    def test_unknown_and_known_sizes_mixed(self, library: str) -> None:
        codec = ZstdCodec()
        one, two = PAYLOADS["odd"], PAYLOADS["noise"]
        frame = np.concatenate([forget_size(codec.encode(one)), codec.encode(two)])
        expected = np.concatenate([one, two])
        got = codec.decode(frame, limit=len(expected), exact=True)
        np.testing.assert_array_equal(got, expected)

    def test_frame_without_last_block(self, library: str) -> None:
        # Of unknown content size and without an end: streaming decoders wait for ever.
        block = struct.pack("<I", 1 << 1 | 40 << 3)[:3] + b"x"
        frame = u8(b"\x28\xb5\x2f\xfd\x00\x58" + block * 207 + b"\0\0\0")
        assert len(frame) == 837
        for exact in (True, False):
            with pytest.raises(CodecError):
                ZstdCodec().decode(frame, limit=207 * 40, exact=exact)

    def test_dictionary_or_reserved_bits(self, library: str) -> None:
        frame = ZstdCodec().encode(PAYLOADS["one"])
        for flags in (frame[4] | 8, frame[4] | 1):
            mutant = frame.copy()
            mutant[4] = flags
            with pytest.raises(CodecError):
                ZstdCodec().decode(mutant, limit=1, exact=True)

    def test_high_levels(self) -> None:
        payload = PAYLOADS["odd"]
        for level in (13, 22):
            frame = ZstdCodec(level=level).encode(payload)
            np.testing.assert_array_equal(u8(numcodecs.Zstd().decode(frame.tobytes())), payload)

    def test_levels_of_numcodecs_are_clamped(self) -> None:
        assert Zstd(99).level == 22
        assert Zstd.from_config({"level": 1, "extra": 3}) == Zstd(1)
