"""Checksums on the device: crc32, crc32c, adler32, computed for all rows of a batch together.

Taking a checksum off a row is re-addressing; nothing is copied.  Where what follows trusts its
input (nvCOMP does), the comparison is waited for, and bad rows go no further.

Imports device_rows, device_host and the protocol of runtimes; used by the other device steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.base import BytesToBytes
from zarr_gpu.codecs.device_rows import copy_rows, decode_all, live_rows, on_device, read_rows
from zarr_gpu.codecs.device_rows import status_of as zeros
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts, dense

__all__ = ["ChecksumStep", "check_stored", "checksums"]

I64 = npt.NDArray[np.int64]

_REFLECTED = {"crc32": 0xEDB88320, "crc32c": 0x82F63B78}


def checksums(runtime: Runtime, kind: str, base: Any, offset: I64, nbytes: I64) -> Any:
    """Checksum of every row, uint32[n] on the device; ``kind``: crc32, crc32c or adler32."""
    count = len(offset)
    if kind != "adler32" and runtime.nvcomp is not None:
        return runtime.nvcomp.crc32(runtime, base, offset, nbytes, kind)
    found = runtime.empty(4 * count).view(np.uint32)
    if not count:
        return found
    tpr = runtime.threads_per_row
    at, sizes = runtime.upload_tables([offset, nbytes])
    status = zeros(runtime, count)
    if kind == "adler32":
        sums = runtime.empty(16 * count * tpr).view(np.int64)
        runtime.launch_rows("adler32_rows", count, base, at, sizes, sums, status)
        runtime.launch("adler32_join", count, tpr, sizes, sums, found)
        return found
    from zarr_gpu.kernels.checksums import crc_tables

    table, powers = (runtime.upload(part) for part in crc_tables(_REFLECTED[kind]))
    parts = runtime.empty(4 * count * tpr).view(np.uint32)
    ones = 0xFFFFFFFF
    runtime.launch_rows("crc_rows", count, base, at, sizes, table, powers, ones, parts, status)
    runtime.launch("crc_join", count, tpr, parts, ones, found)
    return found


def check_stored(
    runtime: Runtime, base: Any, at: I64, computed: Any, *, big_endian: bool = False
) -> Any:
    """int32[n] on the device, not 0 where the four bytes at ``at[i]`` are not ``computed[i]``."""
    status = zeros(runtime, len(at))
    places = runtime.upload(at)
    runtime.launch("check_stored_u32", len(at), base, places, computed, int(big_endian), status)
    return status


class ChecksumStep(DeviceStep):
    """Four bytes before or behind the data that must agree with them.

    Parameters
    ----------
    codec
        The CPU codec, for messages and for rows that are too short.
    kind
        "crc32", "crc32c" or "adler32".
    at_end
        Whether the checksum stands behind the data.
    wait
        Whether bad rows must be known before the next step decodes.
    exact
        Whether the decoded size is known.
    """

    def __init__(
        self, codec: BytesToBytes, kind: str, *, at_end: bool, wait: bool, exact: bool
    ) -> None:
        self.codec = codec.name
        self._codec, self._kind, self._at_end, self._wait = codec, kind, at_end, wait
        self._exact = exact

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        batch = on_device(runtime, batch)
        rows = live_rows(batch, verdicts)
        payload = batch.nbytes - 4
        wrong = (payload != size) if self._exact else (payload < 0) | (payload > size)
        self._refuse(runtime, batch, rows[wrong[rows]], size, verdicts)
        rows = rows[~wrong[rows]]
        start = batch.offset if self._at_end else batch.offset + 4
        result = replace(batch, offset=start, nbytes=np.maximum(payload, 0))
        if not len(rows):
            return result
        place = batch.offset + (payload if self._at_end else 0)

        def check(runtime: Runtime) -> Any:
            computed = checksums(runtime, self._kind, batch.base, start[rows], payload[rows])
            return check_stored(runtime, batch.base, place[rows], computed)

        if not self._wait:
            verdicts.watch(self.codec, check(runtime), rows)
            return result
        with runtime.beside(batch.since) as aside:
            bad = aside.download(check(aside)) != 0
        self._refuse(runtime, batch, rows[bad], size, verdicts)
        return result

    def _refuse(
        self, runtime: Runtime, batch: DeviceBatch, rows: I64, size: int, verdicts: Verdicts
    ) -> None:
        """Note rows with what the CPU codec says of them."""
        if len(rows):

            def decode(data: Any) -> Any:
                return self._codec.decode(data, limit=size, exact=self._exact)

            decode_all(self.codec, decode, read_rows(runtime, batch, rows), rows, verdicts)
            for row in rows.tolist():
                verdicts.refuse(row, self.codec, "checksum mismatch")

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        batch = on_device(runtime, batch)
        nbytes = batch.nbytes + 4
        offset, total = dense(nbytes)
        out = runtime.empty(total)
        start = offset if self._at_end else offset + 4
        copy_rows(runtime, batch.base, batch.offset, out, start, batch.nbytes)
        if len(batch):
            computed = checksums(runtime, self._kind, batch.base, batch.offset, batch.nbytes)
            place = offset + (batch.nbytes if self._at_end else 0)
            copy_rows(
                runtime,
                computed.view(np.uint8),
                np.arange(len(batch), dtype=np.int64) * 4,
                out,
                place,
                np.full(len(batch), 4, np.int64),
            )
        return DeviceBatch(out, offset, nbytes)
