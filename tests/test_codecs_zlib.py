"""zlib through the shared suite."""

from __future__ import annotations

from typing import ClassVar

from codec_suite import NOT_LEVELS, NOT_OBJECTS, BytesToBytesSuite

from zarr_gpu.codecs.numcodecs import Zlib


class TestZlib(BytesToBytesSuite):
    variants: ClassVar = {"default": Zlib(), "store": Zlib(0), "best": Zlib(9), "-1": Zlib(-1)}
    numcodecs_id: ClassVar = "zlib"
    checksummed: ClassVar = True
    bad_configs: ClassVar = [*NOT_OBJECTS, *NOT_LEVELS]
