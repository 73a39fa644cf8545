"""Chains: codecs by kind, and the sizes that a program knows before it decodes."""

from __future__ import annotations

import numpy as np
import pytest

from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.chain import Program, compile_program, make_chain, make_codecs
from zarr_gpu.errors import CodecError, MetadataError, UnknownCodecError
from zarr_gpu.metadata import NamedConfig

BYTES = NamedConfig("bytes", {"endian": "little"})
GZIP = NamedConfig("gzip", {"level": 1})
CRC = NamedConfig("crc32c")
DELTA = NamedConfig("numcodecs.delta", {"dtype": "<i4", "astype": "<i4"})


def transpose(*order: int) -> NamedConfig:
    return NamedConfig("transpose", {"order": list(order)})


def program(*configs: NamedConfig, shape: tuple[int, ...] = (3, 4), dtype: str = "i4") -> Program:
    spec = ChunkSpec(shape, np.dtype(dtype), np.zeros((), dtype)[()])
    return compile_program(make_chain(make_codecs(configs)), spec, variable_limit=1 << 20)


CHUNK = np.arange(12, dtype="i4").reshape(3, 4)


@pytest.mark.parametrize(
    "configs",
    [
        (BYTES,),
        (NamedConfig("bytes", {"endian": "big"}), GZIP),
        (transpose(1, 0), BYTES, GZIP, CRC),
        (DELTA, transpose(1, 0), BYTES),
        (transpose(1, 0), DELTA, BYTES, GZIP),
        (BYTES, DELTA, GZIP),  # a v2 filter: behind the serializer, on flat bytes
    ],
    ids=lambda configs: "-".join(c.name for c in configs),
)
def test_round_trip(configs: tuple[NamedConfig, ...]) -> None:
    made = program(*configs)
    data = made.encode(CHUNK)
    assert (made.decode(data) == CHUNK).all()
    if made.encoded_nbytes is not None:
        assert len(data) == made.encoded_nbytes


def test_leading_transposes_are_a_view() -> None:
    made = program(transpose(1, 0), transpose(1, 0), BYTES)
    assert made.permutation is None
    assert not made.arrays
    made = program(transpose(2, 0, 1), BYTES, shape=(2, 3, 4))
    assert made.permutation == (2, 0, 1)
    assert not made.arrays
    # Behind a codec that works on values a transpose is work.
    made = program(DELTA, transpose(1, 0), BYTES)
    assert made.permutation is None
    assert len(made.arrays) == 2


def test_every_step_knows_its_size() -> None:
    made = program(BYTES, CRC, GZIP)
    assert [(s.limit, s.exact) for s in made.steps] == [(48, True), (52, True)]
    assert not made.fixed
    assert program(BYTES, CRC).encoded_nbytes == 52
    # What follows a compressor may have any size up to a bound.
    inner = program(BYTES, GZIP, GZIP).steps[1]
    assert not inner.exact
    assert inner.limit >= 48


def test_decoding_stops_at_the_size_of_the_chunk() -> None:
    larger = program(BYTES, GZIP, shape=(1000, 4)).encode(np.zeros((1000, 4), "i4"))
    with pytest.raises(CodecError) as caught:
        program(BYTES, GZIP).decode(larger)
    assert caught.value.codec == "gzip"
    assert caught.value.expected == 48


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ((GZIP, BYTES), "works on bytes"),
        ((BYTES, BYTES), "both turn arrays into bytes"),
        ((transpose(0, 1),), "no array -> bytes codec"),
        ((BYTES, transpose(1, 0)), "cannot follow"),
        ((NamedConfig("bytes"),), "endian"),
    ],
)
def test_chains_that_are_none(configs: tuple[NamedConfig, ...], words: str) -> None:
    with pytest.raises(MetadataError, match=words):
        program(*configs)


def test_a_codec_that_need_not_be_understood() -> None:
    hint = NamedConfig("https://example.org/hint", must_understand=False)
    assert [c.name for c in make_codecs([BYTES, hint])] == ["bytes"]
    with pytest.raises(UnknownCodecError, match=r"example\.org"):
        make_codecs([BYTES, NamedConfig("https://example.org/hint")])
