"""transpose: against NumPy, and orders that are none."""

from __future__ import annotations

from itertools import permutations
from typing import ClassVar

import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, ArrayToArraySuite

from zarr_gpu.codecs import TransposeCodec
from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.errors import MetadataError


class TestTranspose(ArrayToArraySuite):
    variants: ClassVar = {str(p): TransposeCodec(order=p) for p in permutations(range(3))}
    specs: ClassVar = [ChunkSpec((2, 3, 4), np.dtype("<u2")), ChunkSpec((0, 3, 1), np.dtype("f8"))]
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        {},
        *({"order": order} for order in ("C", "F", 3, None, {}, [0, 0], [1], [0, 2], [-1, 0])),
        *({"order": order} for order in ([True, False], [0.0, 1.0], ["0"], [2**70], [[0]])),
        {"order": [0], "axes": 3},
    ]

    def test_equals_numpy(self, codec: TransposeCodec, spec: ChunkSpec) -> None:
        array = self.sample(spec)
        encoded = codec.encode(array, spec)
        np.testing.assert_array_equal(encoded, np.transpose(array, codec.order))
        assert np.shares_memory(encoded, array) or not array.size
        np.testing.assert_array_equal(codec.decode(encoded, spec), array)
        p = codec.permutation(spec)
        assert tuple(spec.shape[axis] for axis in p) == codec.encoded_spec(spec).shape


def test_other_rank_is_refused() -> None:
    codec = TransposeCodec(order=[1, 0])  # type: ignore[arg-type]
    spec = ChunkSpec((2, 3, 4), np.dtype("u1"))
    array = np.zeros(spec.shape, "u1")
    for act in (codec.encoded_spec, codec.permutation):
        with pytest.raises(MetadataError, match="axes"):
            act(spec)
    for run in (codec.encode, codec.decode):
        with pytest.raises(MetadataError, match="axes"):
            run(array, spec)


def test_no_axes() -> None:
    codec = TransposeCodec(order=())
    spec = ChunkSpec((), np.dtype("u1"))
    assert codec.encode(np.array(3, "u1"), spec) == 3
    assert codec.decode(np.array(3, "u1"), spec).shape == ()


def test_cannot_be_a_filter_on_flat_bytes() -> None:
    assert TransposeCodec(order=(0,)).stored_dtypes() is None
