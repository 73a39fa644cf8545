"""A step that runs on host threads, for codecs that no kernel and no library on the device knows.

One download (unless the bytes are still at hand), one row per call of the CPU codec, one upload
(unless another such step follows).

Imports device_rows and the protocol of runtimes; used by ``device_steps``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.device_rows import decode_all, live_rows, on_device, read_rows
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts, dense
from zarr_gpu.config import usable_threads
from zarr_gpu.storage.pool import map_ahead

__all__ = ["HostStep"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


class HostStep(DeviceStep):
    """A codec on host threads.

    Parameters
    ----------
    codec
        Its name, for messages.
    decode
        ``decode(data, size, out)``: one row, decoded to ``size`` bytes (at most that many where
        ``exact`` is False), into ``out`` or not.
    encode
        ``encode(data)``: one row.
    exact
        Whether all rows decode to the same known size.
    note
        Why it is not on the device, for ``explain``.

    Attributes
    ----------
    decoded_stay, encoded_stay
        Leave what was decoded (encoded) on the host, because the next step works there too.
    """

    where = "cpu"

    def __init__(
        self,
        codec: str,
        decode: Callable[[U8, int, U8 | None], U8],
        encode: Callable[[U8], U8],
        *,
        exact: bool = True,
        note: str = "",
    ) -> None:
        self.codec = codec
        self.note = note
        self.decoded_stay = self.encoded_stay = False
        self._decode, self._encode, self._exact = decode, encode, exact

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        rows = live_rows(batch, verdicts)
        data = read_rows(runtime, batch, rows)
        if self._exact:
            offset, total = dense(np.full(len(batch), size, np.int64))
            host = np.empty(total, np.uint8)
            places = [host[at : at + size] for at in offset[rows].tolist()]
            self._decode_rows(list(zip(data, places, strict=True)), size, rows, verdicts)
            result = DeviceBatch(None, offset, np.full(len(batch), size, np.int64), host)
            return result if self.decoded_stay else on_device(runtime, result)
        found = decode_all(self.codec, lambda d: self._decode(d, size, None), data, rows, verdicts)
        parts: list[Any] = [None] * len(batch)
        for row, part in zip(rows.tolist(), found, strict=True):
            parts[row] = part
        result = _packed([np.empty(0, np.uint8) if part is None else part for part in parts])
        return result if self.decoded_stay else on_device(runtime, result)

    def _decode_rows(
        self, work: list[tuple[U8, U8]], size: int, rows: I64, verdicts: Verdicts
    ) -> None:
        def into(item: tuple[U8, U8]) -> U8:
            data, place = item
            result = self._decode(data, size, place)
            if result.ctypes.data != place.ctypes.data:
                place[...] = result
            return place

        decode_all(self.codec, into, work, rows, verdicts)

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        data = read_rows(runtime, batch, np.arange(len(batch), dtype=np.int64))
        workers = min(usable_threads(), max(len(data), 1))
        result = _packed(list(map_ahead(self._encode, data, workers)))
        return result if self.encoded_stay else on_device(runtime, result)


def _packed(parts: list[U8]) -> DeviceBatch:
    """Rows in one host buffer."""
    nbytes = np.array([len(part) for part in parts], np.int64)
    offset, total = dense(nbytes)
    host = np.empty(total, np.uint8)
    for at, part in zip(offset.tolist(), parts, strict=True):
        host[at : at + len(part)] = part
    return DeviceBatch(None, offset, nbytes, host)
