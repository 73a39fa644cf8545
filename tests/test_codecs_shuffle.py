"""shuffle through the shared suite."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, PAYLOADS, BytesToBytesSuite

from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.numcodecs import Shuffle
from zarr_gpu.errors import CodecError


class TestShuffle(BytesToBytesSuite):
    variants: ClassVar = {str(n): Shuffle(n) for n in (0, 1, 2, 3, 4, 8, 16)}
    numcodecs_id: ClassVar = "shuffle"
    notices_cuts: ClassVar = False
    element: ClassVar = 48
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        *({"elementsize": v} for v in (-1, True, 4.0, "4", [], 2**40)),
    ]

    def test_damage_is_an_error_or_other_bytes(self, codec: Shuffle, library: str) -> None:
        # Any bytes are shuffled bytes; only their number can be wrong, which other tests cover.
        payload = self.fit(PAYLOADS["odd"])
        np.testing.assert_array_equal(
            np.sort(codec.decode(payload, limit=len(payload), exact=True)), np.sort(payload)
        )

    def test_errors_name_codec_and_cause(self, codec: Shuffle, library: str) -> None:
        with pytest.raises(CodecError) as caught:
            codec.decode(np.zeros(11, "u1"), limit=5, exact=True)
        assert caught.value.codec == codec.name


def test_no_whole_number_of_elements() -> None:
    for act in (Shuffle(4).encode, lambda d: Shuffle(4).decode(d, limit=7, exact=True)):
        with pytest.raises(CodecError, match="whole number"):
            act(np.zeros(7, "u1"))


def test_element_size_from_the_data_type() -> None:
    assert Shuffle().evolve(ChunkSpec((1,), np.dtype("f8"))) == Shuffle(8)
    assert Shuffle(2).evolve(ChunkSpec((1,), np.dtype("f8"))) == Shuffle(2)
    assert Shuffle().evolve(ChunkSpec((1,), np.dtype(object))) == Shuffle()
    assert Shuffle().to_config() == {"elementsize": 4}
    assert Shuffle.from_config({"elementsize": None, "more": 1}) == Shuffle()
