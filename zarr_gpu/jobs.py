"""What reading and writing share: jobs cut from batches, lanes for them, the target of a write.

Imports devices.base, plan, layout and storage; used by the engine and by shard_writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.devices.base import Device, Job
from zarr_gpu.extents import ByteRequest
from zarr_gpu.layout import Layout
from zarr_gpu.plan import Batch, Plan
from zarr_gpu.storage.base import Store

__all__ = ["Target", "cut_jobs", "lanes_for"]

SMALL_NBYTES = 256 << 10
"""Decoded bytes below which a read or write stays on the caller's thread."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a write carries from stage to stage."""

    layout: Layout
    store: Store
    device: Device
    plan: Plan
    values: Any
    whole_items: bool  # all fields of every item are written
    make_lane: Any
    ready: Callable[[], None]  # waits until something may be stored

    def partial(self, job: Job) -> npt.NDArray[np.bool_]:
        """(rows,) of a job: which chunks must be read first."""
        complete = job.batch.complete[job.lo : job.hi]
        return ~complete if self.whole_items else np.ones(len(complete), np.bool_)


def lanes_for(layout: Layout, store: Store, nchunks: int) -> int:
    """1 where handing work to another thread would cost more than it saves."""
    small = nchunks * max(layout.chunk_nbytes, 4096) <= SMALL_NBYTES
    return 1 if nchunks <= 1 or (small and store.concurrency == 1) else 0


def cut_jobs(batches: Iterable[tuple[Batch, ByteRequest]], rows: int) -> Iterator[Job]:
    """Jobs of at most ``rows`` rows."""
    for batch, request in batches:
        for lo in range(0, len(batch), rows):
            yield Job(batch, request, lo, min(lo + rows, len(batch)))
