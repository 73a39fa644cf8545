"""bz2 through the shared suite."""

from __future__ import annotations

import bz2
from typing import ClassVar

from codec_suite import NOT_LEVELS, NOT_OBJECTS, BytesToBytesSuite, u8

from zarr_gpu.codecs.numcodecs import BZ2


class TestBZ2(BytesToBytesSuite):
    variants: ClassVar = {"1": BZ2(), "9": BZ2(9)}
    numcodecs_id: ClassVar = "bz2"
    fuzz: ClassVar = 60
    bad_configs: ClassVar = [*NOT_OBJECTS, *NOT_LEVELS, {"level": 0}]

    def test_streams_that_follow_each_other(self) -> None:
        frame = bz2.compress(b"one") + bz2.compress(b"") + bz2.compress(b"two")
        assert BZ2().decode(u8(frame), limit=6, exact=True).tobytes() == b"onetwo"
