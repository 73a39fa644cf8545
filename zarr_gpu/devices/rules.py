"""The rule by which few large streams are decompressed on the host instead of the device.

A stream is decoded by one thread or one warp, so that a device is fast only with many streams at a
time.  With ``S`` streams of ``b`` bytes, a device that decodes one at ``d`` bytes a second takes
``b / d`` as long as all of them fit on it, and a host with ``T`` threads of ``h`` bytes a second
takes ``S * b / (T * h)``: the device wins from ``S = T * h / d`` streams on, however large they
are, save that small ones are over before it matters.  Hence two numbers per kind of stream: how
many are few, and how large is large.

**The numbers below are not measured yet.**  They are set low on purpose: what they send to the host
would leave a device nearly idle.  The settings ``gpu.host_rule``, ``gpu.host_below_streams`` and
``gpu.host_stream_bytes`` override them; ``Array.explain`` tells what the rule decides.

The rule looks at whole jobs (one codec, all rows) and at decoding alone.  Chunks that are on the
device already (those of a cache) and arrays read with ``strict`` are decoded on the device,
whatever their number, unless ``gpu.host_rule`` says ``"host"``.

Imports the chain and ``config``; used by the lanes and by ``explain``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from zarr_gpu.codecs.base import Codec
from zarr_gpu.codecs.chain import Program
from zarr_gpu.config import config

__all__ = ["KINDS", "THRESHOLDS", "HostRule", "Threshold"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Fewer streams than ``below_streams``, of ``stream_bytes`` decoded bytes or more: the host."""

    below_streams: int
    stream_bytes: int


KINDS = {
    "blosc": "blosc",
    "gzip": "deflate",
    "numcodecs.blosc": "blosc",
    "numcodecs.gzip": "deflate",
    "numcodecs.lz4": "lz4",
    "numcodecs.zlib": "deflate",
    "numcodecs.zstd": "zstd",
    "zstd": "zstd",
}
"""Kind of the streams of a codec.  Codecs that are not here have no streams: filters, checksums."""

THRESHOLDS = {
    "blosc": Threshold(16, 64 << 10),
    "deflate": Threshold(64, 1 << 20),
    "lz4": Threshold(32, 1 << 20),
    "zstd": Threshold(32, 1 << 20),
}
"""Guesses, see above."""

_BLOSC_STREAM = 128 << 10
"""Blosc cuts a chunk into blocks and these into streams, which are seldom larger than this."""


@dataclass(frozen=True, slots=True)
class HostRule:
    """Decides for one job where its streams are decoded.

    Parameters
    ----------
    mode
        ``"auto"`` by number and size of the streams; ``"device"`` never on the host; ``"host"``
        always there.
    below_streams, stream_bytes
        In the place of those of ``THRESHOLDS``; None keeps them.

    Examples
    --------
    >>> from zarr_gpu.codecs.registry import get_codec_class
    >>> zstd = get_codec_class("zstd").from_config({})
    >>> HostRule().reason(zstd, 4, 64 << 20)
    '4 streams of 67108864 bytes: cheaper on the host (fewer than 32)'
    >>> HostRule().reason(zstd, 4096, 256 << 10) is None
    True
    """

    mode: str = "auto"
    below_streams: int | None = None
    stream_bytes: int | None = None

    @classmethod
    def from_config(cls) -> Self:
        """The rule that the settings ask for."""
        return cls(
            config.get("gpu.host_rule"),
            config.get("gpu.host_below_streams"),
            config.get("gpu.host_stream_bytes"),
        )

    def reason(self, codec: Codec, rows: int, nbytes: int) -> str | None:
        """Why ``rows`` rows that decode to ``nbytes`` each belong on the host, None if not."""
        kind = KINDS.get(codec.name)
        if kind is None or self.mode == "device":
            return None
        if self.mode == "host":
            return "asked for by gpu.host_rule"
        streams = rows
        if kind == "blosc":
            streams = rows * max(1, -(-nbytes // _BLOSC_STREAM))
            nbytes = min(nbytes, _BLOSC_STREAM)
        threshold = THRESHOLDS[kind]
        few = threshold.below_streams if self.below_streams is None else self.below_streams
        large = threshold.stream_bytes if self.stream_bytes is None else self.stream_bytes
        if streams >= few or nbytes < large:
            return None
        return f"{streams} streams of {nbytes} bytes: cheaper on the host (fewer than {few})"

    def reasons(self, program: Program, rows: int) -> dict[str, str]:
        """Name of every codec of a program that belongs on the host -> why."""
        found = {}
        for step in program.steps:
            why = self.reason(step.codec, rows, step.limit) if step.exact and rows else None
            if why is not None:
                found[step.codec.name] = why
        return found
