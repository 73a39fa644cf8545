"""lz4 through the shared suite."""

from __future__ import annotations

import struct
from typing import ClassVar

import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, PAYLOADS, BytesToBytesSuite, u8

from zarr_gpu.codecs import native
from zarr_gpu.codecs.numcodecs import LZ4
from zarr_gpu.errors import CodecError


class TestLZ4(BytesToBytesSuite):
    variants: ClassVar = {"1": LZ4(), "10": LZ4(10), "0": LZ4(0), "-1": LZ4(-1)}
    numcodecs_id: ClassVar = "lz4"
    native_library: ClassVar = "lz4"
    bad_configs: ClassVar = [*NOT_OBJECTS, {"acceleration": 1.5}, {"acceleration": 2**31}]

    def test_both_ways_write_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        direct = LZ4(3).encode(PAYLOADS["ramp"])
        monkeypatch.setattr(native, "lz4", lambda: None)
        np.testing.assert_array_equal(LZ4(3).encode(PAYLOADS["ramp"]), direct)

    def test_nothing(self, library: str) -> None:
        for frame in (b"\0\0\0\0", b"\0\0\0\0\1", b"\0\0\0\0\0\0", b"\0\0\0\0\x10x"):
            for exact in (True, False):
                with pytest.raises(CodecError):
                    LZ4().decode(u8(frame), limit=0, exact=exact)

    def test_impossible_ratio(self) -> None:
        frame = u8(struct.pack("<I", 2**30) + b"\x1f" + b"\xff" * 100)
        with pytest.raises(CodecError, match="yields"):
            LZ4().decode(frame, limit=2**30, exact=True)
