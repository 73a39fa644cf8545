"""lzma through the shared suite, and its formats."""

from __future__ import annotations

import lzma
import struct
from typing import Any, ClassVar

import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, PAYLOADS, BytesToBytesSuite, u8

from zarr_gpu.codecs.numcodecs import LZMA
from zarr_gpu.errors import CodecError

RAW: Any = [{"id": lzma.FILTER_DELTA, "dist": 2}, {"id": lzma.FILTER_LZMA2, "preset": 1}]


class TestLZMA(BytesToBytesSuite):
    variants: ClassVar = {
        "xz": LZMA(),
        "alone": LZMA(format=lzma.FORMAT_ALONE, preset=1),
        "raw": LZMA(format=lzma.FORMAT_RAW, filters=RAW),
        "sha256": LZMA(check=lzma.CHECK_SHA256, preset=0),
    }
    numcodecs_id: ClassVar = "lzma"
    fuzz: ClassVar = 40
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        {"format": "xz"},
        {"format": 4},
        {"format": True},
        {"format": 3},
        {"check": 99},
        {"preset": 10},
        {"preset": "x"},
        {"preset": 2**31 | 10},
        {"filters": []},
        {"filters": "x"},
        {"filters": [3]},
        {"filters": [{"id": "x"}]},
        {"filters": RAW, "preset": 3},
        {"filters": RAW * 3},
        {"format": 3, "filters": [{"id": 12345}]},
        {"filters": [{"id": lzma.FILTER_LZMA2, "mode": None}]},
        {"format": 3, "filters": [{"id": lzma.FILTER_LZMA2, "dict_size": 2**40}]},
    ]

    def test_streams_that_follow_each_other(self) -> None:
        one, two = lzma.compress(b"one"), lzma.compress(b"two")
        for frame in (one + two, one + b"\0" * 8 + two):
            assert LZMA().decode(u8(frame), limit=6, exact=True).tobytes() == b"onetwo"
        for frame in (one + b"\0" * 3 + two, one + two + b"\0" * 4, one + two + b"\0"):
            with pytest.raises(CodecError):
                LZMA().decode(u8(frame), limit=6, exact=True)

    def test_filters_of_an_xz_stream_come_from_the_stream(self) -> None:
        codec = LZMA(filters=RAW)
        payload = PAYLOADS["odd"]
        got = codec.decode(codec.encode(payload), limit=len(payload), exact=True)
        np.testing.assert_array_equal(got, payload)

    def test_a_huge_dictionary_is_refused(self) -> None:
        frame = bytearray(lzma.compress(b"one", lzma.FORMAT_ALONE))
        frame[1:5] = struct.pack("<I", 2**32 - 1)
        with pytest.raises(CodecError, match="limit"):
            LZMA(format=lzma.FORMAT_ALONE).decode(u8(frame), limit=3, exact=True)

    def test_a_format_that_only_reads(self) -> None:
        codec = LZMA(format=lzma.FORMAT_AUTO)
        frame = u8(lzma.compress(b"one"))
        assert codec.decode(frame, limit=3, exact=True).tobytes() == b"one"
        with pytest.raises(CodecError):
            codec.encode(u8(b"one"))
