"""Steps of the compressors whose rows are one stream each: LZ4, Zstd, Gzip, Zlib.

Streams that are plain (see ``device_frames``) are decoded by one call of nvCOMP, LZ4 without nvCOMP
by a kernel; all others by the CPU codec.  What a stream became is then held against its size and,
where it has one, its checksum.

Imports the device helpers and the protocol of runtimes; used by ``device_steps``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs import device_frames as frames
from zarr_gpu.codecs.base import BytesToBytes
from zarr_gpu.codecs.device_checks import check_stored, checksums
from zarr_gpu.codecs.device_host import HostStep
from zarr_gpu.codecs.device_rows import (
    Output,
    compressed_sizes,
    decode_on_host,
    live_rows,
    on_device,
    peek,
    status_of,
    watch_results,
)
from zarr_gpu.codecs.nvcomp import LARGEST_INPUT
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts

__all__ = ["GzipStep", "Lz4Step", "StreamStep", "ZlibStep", "ZstdStep"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_NVCOMP = "nvCOMP is not installed"


class StreamStep(DeviceStep):
    """What the steps have in common; ``codec`` is the CPU codec."""

    algorithm: ClassVar[str]
    """nvCOMP's name of the stream within the frame."""

    before: ClassVar[int] = 0
    """Bytes in front of that stream."""

    behind: ClassVar[int] = 0
    """Bytes behind it."""

    encodes: ClassVar[bool] = True
    """Whether frames are also made on the device."""

    def __init__(self, codec: BytesToBytes) -> None:
        self.codec = codec.name
        self._codec = codec
        self._host = HostStep(codec.name, self._decode_row, codec.encode)

    def host_reason(self, runtime: Runtime, *, encode: bool) -> str | None:
        if not encode:
            return None if self._works(runtime) else NO_NVCOMP
        if not self.encodes:
            return "the device has no encoder for it"
        return NO_NVCOMP if runtime.nvcomp is None else None

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        out = Output.make(runtime, len(batch), size)
        rows = live_rows(batch, verdicts)
        plain = np.zeros(len(rows), np.bool_)
        if size and len(rows) and self._works(runtime):
            plain = self._plain(runtime, batch, rows, size)

        def decode(data: Any) -> Any:
            return self._decode_row(data, size, None)

        decode_on_host(runtime, self.codec, decode, batch, rows[~plain], out, verdicts)
        rows = rows[plain]
        if len(rows):
            self._decode_plain(runtime, on_device(runtime, batch), rows, out, verdicts)
        return out.batch()

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        sizes = batch.nbytes
        fits = len(sizes) and sizes.min() > 0 and sizes.max() <= LARGEST_INPUT
        if not (self.encodes and fits and runtime.nvcomp is not None):
            return self._host.encode(runtime, batch)
        batch = on_device(runtime, batch)
        base, offset, nbytes, status = runtime.nvcomp.compress(
            runtime, self.algorithm, batch.base, batch.offset, sizes, room=self.before
        )
        encoded = compressed_sizes(runtime, nbytes, status)
        if encoded is None:
            return self._host.encode(runtime, batch)
        return self._framed(runtime, batch, DeviceBatch(base, offset, encoded))

    def _decode_row(self, data: Any, size: int, out: Any) -> Any:
        return self._codec.decode(data, limit=size, exact=True, out=out)

    def _works(self, runtime: Runtime) -> bool:
        return runtime.nvcomp is not None

    @abstractmethod
    def _plain(self, runtime: Runtime, batch: DeviceBatch, rows: I64, size: int) -> Bools:
        """Which of ``rows`` the device decodes."""

    def _decode_plain(
        self, runtime: Runtime, batch: DeviceBatch, rows: I64, out: Output, verdicts: Verdicts
    ) -> None:
        start = batch.offset[rows] + self.before
        nbytes = batch.nbytes[rows] - (self.before + self.behind)
        sizes = np.full(len(rows), out.size, np.int64)
        status, actual = runtime.nvcomp.decompress(
            *(runtime, self.algorithm, batch.base, start, nbytes),
            *(out.base, out.offset[rows], sizes),
        )
        watch_results(self.codec, status, actual, out.size, rows, verdicts)

    def _framed(self, runtime: Runtime, batch: DeviceBatch, streams: DeviceBatch) -> DeviceBatch:
        """Frames from the streams of the rows of ``batch``."""
        return streams


class ZstdStep(StreamStep):
    """Zstandard: single frames that tell their size and have no checksum."""

    algorithm = "Zstd"

    def __init__(self, codec: BytesToBytes, *, checksum: bool) -> None:
        super().__init__(codec)
        self._checksum = checksum

    def _plain(self, runtime: Runtime, batch: DeviceBatch, rows: I64, size: int) -> Bools:
        offset, nbytes = batch.offset[rows], batch.nbytes[rows]
        heads = peek(runtime, batch, offset, frames.HEAD, offset + nbytes)
        sizes = np.full(len(rows), size, np.int64)
        plain, header = frames.zstd_plain(heads, nbytes, sizes)
        if batch.host is not None:
            at = np.flatnonzero(plain)
            plain[at] = frames.zstd_blocks_fit(
                batch.host, offset[at], nbytes[at], header[at], sizes[at]
            )
        return plain

    def host_reason(self, runtime: Runtime, *, encode: bool) -> str | None:
        if encode and self._checksum:
            return "the device makes no frames with a checksum"
        return super().host_reason(runtime, encode=encode)

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        if self._checksum:
            return self._host.encode(runtime, batch)
        return super().encode(runtime, batch)


class Lz4Step(StreamStep):
    """Numcodecs' LZ4: the decoded size, then one block."""

    algorithm = "LZ4"
    before = 4

    def _works(self, runtime: Runtime) -> bool:
        return True

    def _plain(self, runtime: Runtime, batch: DeviceBatch, rows: I64, size: int) -> Bools:
        offset, nbytes = batch.offset[rows], batch.nbytes[rows]
        heads = peek(runtime, batch, offset, 4, offset + nbytes)
        return frames.lz4_plain(heads, nbytes, size)

    def _decode_plain(
        self, runtime: Runtime, batch: DeviceBatch, rows: I64, out: Output, verdicts: Verdicts
    ) -> None:
        if runtime.nvcomp is not None:
            super()._decode_plain(runtime, batch, rows, out, verdicts)
            return
        tables = runtime.upload_tables(
            [
                batch.offset[rows] + 4,
                batch.nbytes[rows] - 4,
                out.offset[rows],
                np.full(len(rows), out.size, np.int64),
            ]
        )
        status = status_of(runtime, len(rows))
        source, nbytes, target, sizes = tables
        runtime.launch(
            "lz4_decode", len(rows), batch.base, source, nbytes, out.base, target, sizes, status
        )
        verdicts.watch(self.codec, status, rows)

    def _framed(self, runtime: Runtime, batch: DeviceBatch, streams: DeviceBatch) -> DeviceBatch:
        start = streams.offset - 4
        at, sizes = runtime.upload_tables([start, batch.nbytes])
        status = status_of(runtime, len(batch))
        runtime.launch("write_u32", len(batch), streams.base, at, sizes, 0, status)
        return DeviceBatch(streams.base, start, streams.nbytes + 4)


class GzipStep(StreamStep):
    """Gzip: one member with a plain header, its CRC-32 verified on the device."""

    algorithm = "Gzip"

    def _plain(self, runtime: Runtime, batch: DeviceBatch, rows: I64, size: int) -> Bools:
        offset, nbytes = batch.offset[rows], batch.nbytes[rows]
        end = offset + nbytes
        heads = peek(runtime, batch, offset, frames.HEAD, end)
        tails = peek(runtime, batch, np.maximum(end - 8, offset), 8, end)
        return frames.gzip_plain(heads, tails, nbytes, size)

    def _decode_plain(
        self, runtime: Runtime, batch: DeviceBatch, rows: I64, out: Output, verdicts: Verdicts
    ) -> None:
        super()._decode_plain(runtime, batch, rows, out, verdicts)
        sizes = np.full(len(rows), out.size, np.int64)
        computed = checksums(runtime, "crc32", out.base, out.offset[rows], sizes)
        place = batch.offset[rows] + batch.nbytes[rows] - 8
        verdicts.watch(self.codec, check_stored(runtime, batch.base, place, computed), rows)


class ZlibStep(StreamStep):
    """Zlib: Deflate between two bytes and an Adler-32, which is verified on the device."""

    algorithm = "Deflate"
    before = 2
    behind = 4
    encodes = False

    def _plain(self, runtime: Runtime, batch: DeviceBatch, rows: I64, size: int) -> Bools:
        offset, nbytes = batch.offset[rows], batch.nbytes[rows]
        heads = peek(runtime, batch, offset, 2, offset + nbytes)
        return frames.zlib_plain(heads, nbytes)

    def _decode_plain(
        self, runtime: Runtime, batch: DeviceBatch, rows: I64, out: Output, verdicts: Verdicts
    ) -> None:
        super()._decode_plain(runtime, batch, rows, out, verdicts)
        sizes = np.full(len(rows), out.size, np.int64)
        computed = checksums(runtime, "adler32", out.base, out.offset[rows], sizes)
        place = batch.offset[rows] + batch.nbytes[rows] - 4
        status = check_stored(runtime, batch.base, place, computed, big_endian=True)
        verdicts.watch(self.codec, status, rows)
