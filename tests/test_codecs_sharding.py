"""sharding_indexed: its configuration, the only thing that this codec is."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, CodecSuite

from zarr_gpu.codecs import (
    BytesCodec,
    Crc32cCodec,
    ShardingCodec,
    ShardingCodecIndexLocation,
    ZstdCodec,
)
from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.errors import MetadataError
from zarr_gpu.metadata.model import NamedConfig

GOOD: dict[str, Any] = {
    "chunk_shape": [2, 3],
    "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, "crc32c"],
    "index_codecs": ["bytes"],
}


class TestSharding(CodecSuite):
    variants: ClassVar = {
        "plain": ShardingCodec(chunk_shape=(2, 3)),
        "start": ShardingCodec.from_config({**GOOD, "index_location": "start"}),
        "nested": ShardingCodec(chunk_shape=(4,), codecs=(ShardingCodec(chunk_shape=(2,)),)),
    }
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        {},
        *({k: v for k, v in GOOD.items() if k != name} for name in GOOD),
        *({**GOOD, "chunk_shape": v} for v in (None, "23", [0], [-1], [True], [1.0], {}, [2**63])),
        *({**GOOD, "codecs": v} for v in (None, [], "bytes", {}, [3], [{}], [{"name": 3}], 7)),
        {**GOOD, "codecs": [{"name": "x", "configuration": 3}]},
        {**GOOD, "codecs": [{"name": "x", "surprise": 3}]},
        *({**GOOD, "index_codecs": v} for v in (None, [], [None])),
        *({**GOOD, "index_location": v} for v in ("middle", 0, None, True)),
        {**GOOD, "index": 3},
    ]

    def test_bad_configuration(self, bad_config: Any) -> None:
        with pytest.raises(MetadataError):
            ShardingCodec.from_config(bad_config)


def test_defaults_are_those_of_zarr_python() -> None:
    codec = ShardingCodec(chunk_shape=(2, np.int64(3)))
    assert codec.to_dict() == {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [2, 3],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": "end",
        },
    }
    assert all(type(n) is int for n in codec.chunk_shape)


def test_codecs_in_every_form() -> None:
    codec = ShardingCodec(
        chunk_shape=5,  # type: ignore[arg-type]
        codecs=[BytesCodec(endian="big"), {"name": "gzip"}, "crc32c", NamedConfig("x")],  # type: ignore[arg-type,list-item]
        index_codecs=(BytesCodec(), Crc32cCodec()),  # type: ignore[arg-type]
        index_location=ShardingCodecIndexLocation.start,
    )
    assert codec.chunk_shape == (5,)
    assert [c.name for c in codec.codecs] == ["bytes", "gzip", "crc32c", "x"]
    assert codec.codecs[0].configuration == {"endian": "big"}
    assert codec.index_location == "start"
    nested = ShardingCodec(chunk_shape=(9,), codecs=(codec, ZstdCodec()))  # type: ignore[arg-type]
    inner = ShardingCodec.from_config(nested.codecs[0].configuration)
    assert inner == codec


def test_optional_codecs_keep_their_mark() -> None:
    config = {**GOOD, "codecs": ["bytes", {"name": "what", "must_understand": False}]}
    codec = ShardingCodec.from_config(config)
    assert [c.must_understand for c in codec.codecs] == [True, False]


def test_data_do_not_pass_here() -> None:
    codec = ShardingCodec(chunk_shape=(2,))
    spec = ChunkSpec((4,), np.dtype("u1"))
    for act in (codec.encode, codec.decode):
        with pytest.raises(MetadataError, match=r"layout\.py"):
            act(np.zeros(4, "u1"), spec)
