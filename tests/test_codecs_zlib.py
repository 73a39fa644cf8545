"""zlib through the shared suite."""

from __future__ import annotations

import zlib
from typing import ClassVar

import pytest
from codec_suite import NOT_LEVELS, NOT_OBJECTS, BytesToBytesSuite, u8

from zarr_gpu.codecs.numcodecs import Zlib
from zarr_gpu.errors import CodecError


class TestZlib(BytesToBytesSuite):
    variants: ClassVar = {"default": Zlib(), "store": Zlib(0), "best": Zlib(9), "-1": Zlib(-1)}
    numcodecs_id: ClassVar = "zlib"
    checksummed: ClassVar = True
    bad_configs: ClassVar = [*NOT_OBJECTS, *NOT_LEVELS]

    def test_a_second_stream_is_an_error(self) -> None:
        frame = u8(zlib.compress(b"one") + zlib.compress(b"two"))
        for limit, exact in ((6, True), (3, True), (9, False)):
            with pytest.raises(CodecError):
                Zlib().decode(frame, limit=limit, exact=exact)
