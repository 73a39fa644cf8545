"""Compressed streams for the probes: shuffled floats, as they occur in Blosc frames."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from data import weather

from zarr_gpu.codecs.nvcomp_snappy import snappy_compress
from zarr_gpu.codecs.registry import get_codec_class

U8 = np.ndarray[Any, np.dtype[np.uint8]]


def _codec(name: str, **configuration: Any) -> Callable[[U8], bytes]:
    codec: Any = get_codec_class(name).from_config(configuration)
    return lambda data: bytes(codec.encode(data))


def _deflate(data: U8) -> bytes:
    made = zlib.compressobj(6, zlib.DEFLATED, -15)
    return made.compress(data.tobytes()) + made.flush()


_lz4 = _codec("numcodecs.lz4")
ENCODERS: dict[str, Callable[[U8], bytes]] = {
    "LZ4": lambda data: _lz4(data)[4:],
    "Zstd": _codec("zstd", level=3),
    "Snappy": lambda data: bytes(snappy_compress(data)),
    "Deflate": _deflate,
    "Gzip": lambda data: gzip.compress(data.tobytes(), 6),
}


def shuffled_floats(nbytes: int) -> U8:
    """The bytes of floats, all first bytes before all second ones, in blocks of 512 KiB."""
    edge = 512
    planes = max(1, -(-nbytes // (4 * edge * edge)))
    raw = weather((planes, edge, edge)).reshape(-1).view(np.uint8)
    block = 1 << 19
    raw = raw[: max(len(raw) // block, 1) * block]
    turned = raw.reshape(-1, min(block, len(raw)) // 4, 4).transpose(0, 2, 1)
    return np.ascontiguousarray(turned).reshape(-1)[:nbytes]


@dataclass
class Streams:
    """Encoded streams side by side, with gaps that leave each where it may."""

    algorithm: str
    host: U8
    offset: np.ndarray[Any, np.dtype[np.int64]]
    nbytes: np.ndarray[Any, np.dtype[np.int64]]
    decoded: int  # bytes of each
    sample: U8  # of the first

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def total(self) -> int:
        return len(self) * self.decoded


def make_streams(algorithm: str, decoded: int, count: int, *, distinct: int = 16 << 20) -> Streams:
    """``count`` streams of ``decoded`` bytes; some are encoded, the rest are copies of these."""
    own = max(1, min(count, distinct // decoded))
    raw = shuffled_floats(own * decoded)
    parts = [
        np.frombuffer(ENCODERS[algorithm](raw[i * decoded : (i + 1) * decoded]), np.uint8)
        for i in range(own)
    ]
    sizes = np.array([len(part) for part in parts], np.int64)
    room = (sizes + 7) & ~np.int64(7)
    block = np.zeros(int(room.sum()), np.uint8)
    start = np.cumsum(room) - room
    for at, part in zip(start.tolist(), parts, strict=True):
        block[at : at + len(part)] = part
    copies = -(-count // own)
    offset = (np.arange(copies)[:, None] * len(block) + start).reshape(-1)[:count]
    nbytes = np.tile(sizes, copies)[:count]
    return Streams(algorithm, np.tile(block, copies), offset, nbytes, decoded, raw[:decoded])
