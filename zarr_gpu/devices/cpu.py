"""The CPU device: NumPy results, one thread per lane.

Lanes (``cpu_lane.py``) draw jobs from one shared iterator and the calling thread is one of them, so
that a small read never leaves it.  Where there is a shorter way for some rows, the device knows it:
see ``host_rows``, ``host_write``, ``part_rows`` and ``chunk_cache``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.config import config, usable_threads
from zarr_gpu.devices.base import (
    BoxReader,
    BoxWriter,
    Device,
    Job,
    Lane,
    Options,
    RowReader,
    StepPlace,
)
from zarr_gpu.devices.chunk_cache import CachedRows, ChunkCache, ChunkPart
from zarr_gpu.devices.compiled import can_write, prepare, ready, wanted
from zarr_gpu.devices.cpu_lane import CpuLane
from zarr_gpu.devices.helpers import together
from zarr_gpu.devices.host_rows import Chunks, RowLoop, read_box
from zarr_gpu.devices.host_write import BoxWriter as HostBoxWriter
from zarr_gpu.devices.part_rows import make_part_rows
from zarr_gpu.devices.scratch import aligned, results, scratch
from zarr_gpu.extents import Extents, Memory
from zarr_gpu.placing import Placer
from zarr_gpu.plan import Plan
from zarr_gpu.storage.base import Store

__all__ = ["CpuDevice"]

Array = npt.NDArray[Any]

JOB_NBYTES = 1 << 20
"""Decoded bytes per job: small enough to stay in the cache, large enough to outweigh Python."""

MAX_ROWS_PER_JOB = 64

LANES_PER_THREAD = 4
"""Lanes for each thread's worth of decoding, of stores that answer several requests at a time."""

ALIGNED_FROM = 1 << 20
"""Bytes from which on results begin at a page."""


def _lanes(requests: int) -> int:
    """Lanes for a store that likes so many requests at a time.

    A lane that waits for a distant store leaves its core to another one.
    """
    threads = usable_threads()
    if threads == 1:
        return 1
    return max(threads, min(requests, LANES_PER_THREAD * threads))


class _SharedJobs:
    """Jobs handed out one by one; planning and locating of the next run under the lock."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._lock = threading.Lock()
        self.stopped = False

    def next(self) -> Job | None:
        with self._lock:
            if self.stopped:
                return None
            job = next(self._jobs, None)
            if job is None:
                self.stopped = True
            return job


class CpuDevice(Device):
    """NumPy arrays, decoded by threads."""

    kind = "cpu"
    box_chunks = 1024  # of more, a plan costs little in comparison
    cache_type = ChunkCache

    def __repr__(self) -> str:
        return "CpuDevice()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuDevice)

    def __hash__(self) -> int:
        return hash(self.kind)

    def warm(self) -> None:
        prepare()

    def output(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> Array:
        # np.empty asks for huge pages; touching fresh small pages would cost more than decoding.
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < ALIGNED_FROM or dtype.hasobject or dtype.kind == "T":
            return np.empty(shape, dtype, order="F" if order == "F" else "C")
        most = config.get("cpu.recycle_bytes")
        memory = results.take(nbytes, most) if most else aligned(nbytes)
        return memory.view(dtype).reshape(shape, order="F" if order == "F" else "C")

    def lane_maker(
        self,
        program: Program,
        plan: Plan,
        *,
        fill_value: Any,
        fields: str | list[str] | None,
        keep_fill_chunks: bool,
        options: Options,
    ) -> Callable[[], Lane]:
        placer: list[Placer] = []

        def make() -> Lane:
            if not placer:
                placer.append(Placer(plan))
            return CpuLane(program, placer[0], fill_value, fields, keep_fill_chunks, keeper)

        cache = options.cache
        keeper = cache.keeper() if isinstance(cache, ChunkPart) else None
        return make

    def box_reader(
        self, program: Program, store: Store, fill_value: Any, out: Array
    ) -> BoxReader | None:
        files = store.files() if ready() and out.dtype == program.spec.dtype else None
        chunks = None if files is None else Chunks.of(program, fill_value)
        if files is None or chunks is None:
            return None
        return partial(read_box, chunks, files, out)

    def box_writer(
        self, program: Program, store: Store, fill_value: Any, values: Array
    ) -> BoxWriter | None:
        sink = store.sink() if can_write() and values.dtype == program.spec.dtype else None
        return None if sink is None else HostBoxWriter.of(program, fill_value, sink)

    def row_reader(
        self,
        program: Program,
        plan: Plan,
        store: Store,
        fill_value: Any,
        out: Array,
        options: Options,
    ) -> RowReader | None:
        def place(entries: list[int], chunk: Array | None) -> None:
            lane.place(entries, chunk, out)

        rows = self.rows_per_job(program, requests=store.concurrency)
        if isinstance(options.cache, ChunkPart):
            lane = CpuLane(program, Placer(plan), fill_value, None, keep_fill_chunks=True)
            return CachedRows(options.cache, rows, place)
        files = store.files() if wanted(plan.nchunks) else None
        if files is not None and out.dtype == program.spec.dtype:
            chunks = Chunks.of(program, fill_value)
            if chunks is not None:
                return RowLoop(chunks, plan, files, out)
        if program.steps:
            return None
        lane = CpuLane(program, Placer(plan), fill_value, None, keep_fill_chunks=True)
        return make_part_rows(program, plan, store, rows, place)

    def rows_per_job(self, program: Program, *, requests: int = 1) -> int:
        rows = JOB_NBYTES // max(1, program.spec.nbytes)
        # All lanes together have the requests in flight; some decode meanwhile.
        return max(1, min(MAX_ROWS_PER_JOB, rows), -(-requests // _lanes(requests)))

    def run(
        self,
        jobs: Iterable[Job],
        fetch: Callable[[Job, Memory], Extents | None],
        work: Callable[[Lane, Job, Extents | None], None],
        make_lane: Callable[[], Lane],
        *,
        lanes: int = 0,
        source: Store | None = None,
        reader: RowReader | None = None,
    ) -> None:
        shared = _SharedJobs(jobs)
        most = _lanes(1 if source is None else source.concurrency)
        lanes = min(lanes, most) if lanes else most

        def lane_loop() -> None:
            lane: Lane | None = None
            memory = scratch.encoded
            try:
                while (job := shared.next()) is not None:
                    for part in (job,) if reader is None else reader.read(job):
                        lane = lane or make_lane()
                        work(lane, part, fetch(part, memory))
            except BaseException:
                shared.stopped = True
                raise

        together(lane_loop, lanes)

    def places(self, program: Program, *, rows: int | None = None) -> Sequence[StepPlace]:
        steps = [StepPlace(codec.name, "cpu") for codec in program.codecs]
        if program.permutation is not None:
            steps.insert(0, StepPlace("transpose", "view", "costs only strides"))
        return steps
