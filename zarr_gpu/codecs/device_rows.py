"""What the device steps do with the rows of a batch: read, copy, decode on the host.

Tables of offsets and sizes are int64 on the host; buffers are of the device.  Whatever the number
of rows, a function here makes a fixed number of copies and launches.

Imports the CPU codecs' base, errors and the protocol of runtimes; called by the device steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.runtime import DeviceBatch, Runtime, Verdicts, dense
from zarr_gpu.config import usable_threads
from zarr_gpu.errors import CodecError, DeviceError
from zarr_gpu.storage.pool import map_ahead

__all__ = [
    "Decode",
    "Output",
    "as_words",
    "compressed_sizes",
    "copy_rows",
    "decode_all",
    "decode_on_host",
    "live_rows",
    "on_device",
    "peek",
    "read_rows",
    "status_of",
    "watch_results",
]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

Decode = Callable[[Any], U8]
"""Decodes one row on the host; raises CodecError."""


def live_rows(batch: DeviceBatch, verdicts: Verdicts) -> I64:
    """Rows that nothing has been found wrong with so far."""
    if not verdicts.on_host:
        return np.arange(len(batch), dtype=np.int64)
    refused = [row for row in verdicts.on_host if row < len(batch)]
    return np.delete(np.arange(len(batch), dtype=np.int64), refused)


def status_of(runtime: Runtime, count: int) -> Any:
    """Statuses for a kernel to write, int32[count] on the device, all 0."""
    raw = runtime.empty(4 * count)
    raw.fill(0)
    return raw.view(np.int32)


def as_words(flags: npt.NDArray[Any]) -> I64:
    """A uint8 table as int64 words, so that it can be uploaded together with other tables.

    The device copy is ``word.view(uint8)[:len(flags)]``.
    """
    words = np.zeros(-(-len(flags) // 8), np.int64)
    words.view(np.uint8)[: len(flags)] = flags
    return words


def on_device(runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
    """``batch`` with its bytes on the device: a step on the host leaves them in host memory."""
    if batch.base is not None:
        return batch
    if batch.host is None:
        raise DeviceError("a batch has neither bytes on the device nor on the host")
    return replace(batch, base=runtime.upload(batch.host))


def copy_rows(
    runtime: Runtime, src: Any, src_offset: I64, dst: Any, dst_offset: I64, nbytes: I64
) -> None:
    """Copy rows between device buffers, in which they must lie."""
    if not len(nbytes):
        return
    source, target, sizes = runtime.upload_tables([src_offset, dst_offset, nbytes])
    status = status_of(runtime, len(nbytes))
    runtime.launch_rows("copy_segments", len(nbytes), src, source, dst, target, sizes, status)


def peek(runtime: Runtime, batch: DeviceBatch, at: I64, width: int, end: I64) -> U8:
    """Bytes ``at[i]`` to ``at[i] + width`` of the batch's buffer, (n, width), on the host.

    Bytes from ``end[i]`` on read as 0.  Costs a launch and a download where the bytes are no longer
    at hand.
    """
    if not len(at) or (batch.host is not None and not len(batch.host)):
        return np.zeros((len(at), width), np.uint8)
    if batch.host is not None:
        index = at[:, None] + np.arange(width)
        found: U8 = batch.host.take(index, mode="clip")
        short = np.flatnonzero(end - at < width)
        found[short] *= (index[short] < end[short, None]).view(np.uint8)
        return found
    sizes = np.clip(end - at, 0, width)
    target = np.arange(len(at), dtype=np.int64) * width
    with runtime.beside(batch.since) as aside:
        device = aside.empty(len(at) * width)
        device.fill(0)
        copy_rows(aside, batch.base, at, device, target, sizes)
        return aside.download(device).reshape(len(at), width)


def read_rows(runtime: Runtime, batch: DeviceBatch, rows: I64) -> list[U8]:
    """The bytes of some rows, on the host."""
    if batch.host is not None:
        offset, nbytes = batch.offset[rows].tolist(), batch.nbytes[rows].tolist()
        return [batch.host[a : a + n] for a, n in zip(offset, nbytes, strict=True)]
    places, total = dense(batch.nbytes[rows])
    device = runtime.empty(total)
    copy_rows(runtime, batch.base, batch.offset[rows], device, places, batch.nbytes[rows])
    host = runtime.download(device)
    sizes = batch.nbytes[rows].tolist()
    return [host[a : a + n] for a, n in zip(places.tolist(), sizes, strict=True)]


@dataclass(frozen=True, slots=True)
class Output:
    """A buffer for rows of one size, and the batch that it becomes."""

    base: Any
    offset: I64
    size: int

    @classmethod
    def make(cls, runtime: Runtime, rows: int, size: int) -> Output:
        """Memory for ``rows`` rows of ``size`` bytes, contents undefined."""
        offset, total = dense(np.full(rows, size, np.int64))
        return cls(runtime.empty(total), offset, size)

    def batch(self) -> DeviceBatch:
        """The rows, once they are written."""
        return DeviceBatch(self.base, self.offset, np.full(len(self.offset), self.size, np.int64))


def decode_all(
    codec: str, decode: Decode, data: Sequence[Any], rows: I64, verdicts: Verdicts
) -> list[U8 | None]:
    """Decode rows on host threads; None where a row is damaged, which is noted."""

    def work(encoded: Any) -> U8 | CodecError:
        try:
            return decode(encoded)
        except CodecError as error:
            return error

    found: list[U8 | None] = []
    workers = min(usable_threads(), max(len(data), 1))
    for row, result in zip(rows.tolist(), map_ahead(work, data, workers), strict=True):
        if isinstance(result, CodecError):
            name = result.codec or codec
            verdicts.refuse(
                row, name, result.message, expected=result.expected, actual=result.actual
            )
            found.append(None)
        else:
            found.append(result)
    return found


def decode_on_host(
    runtime: Runtime,
    codec: str,
    decode: Decode,
    batch: DeviceBatch,
    rows: I64,
    out: Output,
    verdicts: Verdicts,
) -> None:
    """Decode some rows by the CPU codec and put them in their place with one upload.

    For rows whose framing the device does not handle and for rows that are refused: the CPU
    codec then has the last word, and both devices give the same error.
    """
    if not len(rows):
        return
    found = decode_all(codec, decode, read_rows(runtime, batch, rows), rows, verdicts)
    good = np.array([i for i, part in enumerate(found) if part is not None], np.int64)
    if len(good):
        verdicts.by_host.append((codec, rows[good]))
    if not len(good) or not out.size:
        return
    host = np.empty((len(good), out.size), np.uint8)
    for place, i in enumerate(good.tolist()):
        host[place] = found[i]
    device = runtime.upload(host.reshape(-1))
    source = np.arange(len(good), dtype=np.int64) * out.size
    sizes = np.full(len(good), out.size, np.int64)
    copy_rows(runtime, device, source, out.base, out.offset[rows[good]], sizes)


def compressed_sizes(runtime: Runtime, nbytes: Any, status: Any) -> I64 | None:
    """Sizes of compressed rows (uint64 on the device) with one download, None if any failed."""
    count = len(status)
    both = runtime.download(runtime.xp.concatenate([nbytes.view(np.int32), status]))
    if both[2 * count :].any():
        return None
    return np.ascontiguousarray(both[: 2 * count]).view(np.int64)


def watch_results(
    codec: str,
    status: Any,
    actual: Any,
    expected: Any,
    rows: I64,
    verdicts: Verdicts,
) -> None:
    """Note rows whose status is not 0 or whose size (uint64) is not as expected.

    ``expected`` is a number or a device table.
    """
    if len(rows):
        wrong = (status != 0) | (actual != expected)
        verdicts.watch(codec, wrong.astype(np.int32), rows)
