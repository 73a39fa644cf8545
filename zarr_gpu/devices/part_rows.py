"""Parts of uncompressed chunks: of each chunk only the bytes that a selection needs are read.

A chunk that is stored as it is can be read from the first byte that is needed to the last, which of
large chunks, over a network above all, is far less than all of them.  A value that is too short for
its part is read in the ordinary way, which says what is wrong with it.

Imports plan, the program and storage; used by the CPU device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.devices.base import Job
from zarr_gpu.devices.scratch import scratch
from zarr_gpu.errors import DataError
from zarr_gpu.extents import MISSING, ByteRequest
from zarr_gpu.plan import AxisSet, Plan
from zarr_gpu.storage.base import Store

__all__ = ["PartRows", "make_part_rows"]

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

PAYS_BELOW = 0.5
"""The share of a chunk up to which reading a part of it is worth a request with a range."""

LEAST_SAVED = 16 << 10
"""Bytes of every chunk that must be saved, for fewer cost nothing."""


def make_part_rows(
    program: Program,
    plan: Plan,
    store: Store,
    rows: int,
    place: Callable[[list[int], Array | None], None],
) -> PartRows | None:
    """The reader, None where chunks are not stored as they are or are needed as a whole."""
    if program.steps or not program.plain or not program.spec.nbytes:
        return None
    bounds = [_bounds(s, program.strides) for s in plan.sets]
    # The longest part of all: what the best chunk needs says little.
    most = sum(int((high - low).max()) for low, high in bounds) + program.spec.dtype.itemsize
    saved = program.spec.nbytes - most
    if most > PAYS_BELOW * program.spec.nbytes or saved < max(LEAST_SAVED, store.max_gap):
        return None
    return PartRows(program, store, bounds, rows, place)


def _bounds(s: AxisSet, strides: tuple[int, ...]) -> tuple[I64, I64]:
    """Offsets in the chunk, in bytes, of the first and the last item of every entry of a set."""
    if s.src_index is None:
        one = s.src * strides[s.axes[0]]
        other = one + (s.count - 1) * s.step * strides[s.axes[0]]
        return np.minimum(one, other), np.maximum(one, other)
    offset = s.src_index @ np.array([strides[axis] for axis in s.axes], np.int64)
    return np.minimum.reduceat(offset, s.src), np.maximum.reduceat(offset, s.src)


class PartRows:
    """Reads of every chunk of a plan what it needs."""

    def __init__(
        self,
        program: Program,
        store: Store,
        bounds: list[tuple[I64, I64]],
        rows: int,
        place: Callable[[list[int], Array | None], None],
    ) -> None:
        self._program, self._store, self._bounds = program, store, bounds
        self._rows, self._place = rows, place

    def rows_per_job(self, lanes: int) -> int:
        """As many as in the ordinary way."""
        return self._rows

    def read(self, job: Job) -> Sequence[Job]:
        """Fetch and place the parts; where a value is too short, all of the job remains."""
        index = job.batch.index[job.lo : job.hi]
        low = np.zeros(len(index), np.int64)
        high = np.full(len(index), self._program.spec.dtype.itemsize, np.int64)
        for i, (first, last) in enumerate(self._bounds):
            low += first[index[:, i]]
            high += last[index[:, i]]
        whole = job.request.take(job.lo, job.hi)
        # A chunk in a shard has an offset and a length of its own, or is known to be absent.
        nbytes = np.where(whole.nbytes == MISSING, MISSING, high - low)
        if bool(((whole.nbytes >= 0) & (whole.nbytes != self._program.spec.nbytes)).any()):
            return (job,)
        request = ByteRequest(whole.keys, whole.key_id, whole.offset + low, nbytes)
        try:
            raw = scratch.chunk.empty(self._program.spec.nbytes)
            extents = self._store.fetch(request, scratch.encoded)
        except (DataError, MemoryError):
            return (job,)
        chunk = self._program.decode(raw)
        starts, lengths = extents.offset.tolist(), extents.nbytes.tolist()
        for row, entries in enumerate(index.tolist()):
            if lengths[row] == MISSING:
                self._place(entries, None)
                continue
            part = extents.base[starts[row] : starts[row] + lengths[row]]
            at = int(low[row])
            raw[at : at + len(part)] = part
            self._place(entries, chunk)
        return ()
