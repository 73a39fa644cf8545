"""The CUDA device: chunks are decoded in batches where their results live.

It hands the jobs of a read or write to a lane, one after the other, while a pipeline fetches the
next.  The same class, on another runtime, is the device ``sim`` for machines without a GPU.

Imports runtimes through their makers; never CuPy, Numba or nvCOMP themselves.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.boxes import Box, Objects
from zarr_gpu.codecs.chain import Program
from zarr_gpu.codecs.device_steps import make_steps
from zarr_gpu.codecs.runtime import Runtime
from zarr_gpu.config import config
from zarr_gpu.devices.base import BoxReader, Device, Job, Lane, Options, RowReader, StepPlace
from zarr_gpu.devices.cache import CachePart, DeviceCache
from zarr_gpu.devices.compiled import prepare, ready
from zarr_gpu.devices.host_rows import Chunks, read_box
from zarr_gpu.devices.lanes import BatchLane
from zarr_gpu.devices.rules import HostRule
from zarr_gpu.devices.staged_files import FileLoop
from zarr_gpu.devices.staging import Pipeline, Staged
from zarr_gpu.devices.tables import item_format, unit_nbytes
from zarr_gpu.errors import DataError, DeviceError
from zarr_gpu.extents import Extents, Memory
from zarr_gpu.plan import Plan
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.kvikio import KvikioStore, direct_is_on

__all__ = ["BatchDevice"]

I64 = npt.NDArray[np.int64]

COPIED_NBYTES = 1 << 20
"""Chunks that are stored as they are and no larger than this cross to the device by themselves."""


class BatchDevice(Device):
    """A device that works on batches in memory of its own.

    Parameters
    ----------
    kind
        ``"cuda"`` or ``"sim"``.
    name
        What ``get_device`` knows it by.
    make_runtime
        Makes the runtime of one read or write, on the caller's current stream.
    activate
        Makes the device, and a stream of it if given, current for a block.

    Attributes
    ----------
    counts
        Launches, copies and calls of nvCOMP of all reads and writes so far.
    peak_nbytes
        Device memory that the last read or write needed beside its result, on ``"sim"``.
    """

    box_chunks = 1  # one chunk may be left to the host
    cache_type = DeviceCache

    def __init__(
        self,
        kind: str,
        name: str,
        make_runtime: Callable[[], Runtime],
        activate: Callable[[Any], AbstractContextManager[None]],
    ) -> None:
        self.kind = kind
        self._name = name
        self._make_runtime = make_runtime
        self._activate = activate
        self.pipeline = Pipeline()
        self.counts: Counter[str] = Counter()
        self.peak_nbytes = 0

    def active(self, stream: Any = None) -> AbstractContextManager[None]:
        return self._activate(stream)

    @property
    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"<Device {self._name}>"

    def holds(self, program: Program) -> bool:
        return item_format(program) is not None and not _mixes_axes(program)

    def warm(self) -> None:
        with self.active():
            runtime = self._make_runtime()
            runtime.compile_kernels()
            self.pipeline.warm(runtime)
        prepare()

    def source(self, store: Store) -> Store:
        staging = config.get("gpu.staging")
        if staging == "pinned" or (staging == "auto" and not (self.kind == "cuda" and _direct())):
            return store
        return KvikioStore.of(store) or store

    def fallbacks(self, program: Program, *, encode: bool = False) -> Sequence[str]:
        if not self.holds(program):
            dtype = program.spec.dtype
            return [f"the whole array, as no device of this kind holds its items ({dtype})"]
        runtime = self._make_runtime()
        steps = make_steps(program)
        found = [(step.codec, step.host_reason(runtime, encode=encode)) for step in steps]
        return [f"{codec!r}: {reason}" for codec, reason in found if reason is not None]

    def takes(self, dtype: np.dtype[Any]) -> bool:
        return unit_nbytes(dtype) > 0

    def result_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtype.newbyteorder("=")

    @property
    def xp(self) -> Any:
        return self._make_runtime().xp

    def adopt(self, value: Any) -> Any | None:
        return self._make_runtime().adopt(value)

    def upload(self, values: npt.NDArray[Any]) -> Any:
        native = values.astype(self.result_dtype(values.dtype), copy=False)
        return self.xp.asarray(native)

    def download(self, values: Any) -> npt.NDArray[Any]:
        if isinstance(values, np.ndarray | np.generic):
            return np.asarray(values)
        return self._make_runtime().download(values)

    def target(self, out: Any) -> Any:
        return self._make_runtime().target(out)

    def view(self, out: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any | None:
        if out.dtype != self.result_dtype(dtype) or not out.flags.c_contiguous:
            return None
        # Kernels move whole items, which must not start anywhere.
        address = self._make_runtime().address(out)
        return None if address % out.dtype.itemsize else out.reshape(shape)

    def output(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> Any:
        return self.xp.empty(shape, self.result_dtype(dtype), order="F" if order == "F" else "C")

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
        def make() -> Lane:
            runtime = self._make_runtime()
            return BatchLane(runtime, program, plan, fill_value, keep_fill_chunks, options)

        return make

    def box_reader(
        self, program: Program, store: Store, fill_value: Any, out: Any
    ) -> BoxReader | None:
        """A single chunk is decoded on the host and copied, where the rule leaves it to the host.

        Nothing else has to be prepared then, which takes longer than decoding does.
        """
        if not ready():  # the loop of the CPU device is not there yet
            return None
        spec, rule = program.spec, HostRule.from_config()
        reasons = rule.reasons(program, 1)
        if rule.mode == "device" or config.get("gpu.staging") == "kvikio":
            return None
        if not all(step.codec.name in reasons for step in program.steps):
            return None
        if not (program.steps or spec.nbytes <= COPIED_NBYTES):
            return None
        files, chunks = store.files(), Chunks.of(program, fill_value)
        if files is None or chunks is None or out.dtype != self.result_dtype(spec.dtype):
            return None

        def read(
            box: Box, objects: Objects, indexes: Sequence[I64 | None] | None, lanes: int
        ) -> bool:
            host = np.empty(out.shape, spec.dtype)
            if not read_box(chunks, files, host, box, objects, indexes, lanes):
                return False
            runtime = self._make_runtime()
            out[...] = runtime.upload(host.astype(out.dtype, copy=False))
            self.counts.update(runtime.counts)
            return True

        return read

    def rows_per_job(self, program: Program, *, requests: int = 1) -> int:
        # However many requests the store likes: what is in flight must fit on the device.
        return int(max(1, config.get("gpu.job_bytes") // max(1, program.spec.nbytes)))

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
        lane = make_lane()
        if not isinstance(lane, BatchLane):
            raise DeviceError("a lane of another device")
        cache = lane.options.cache
        part = cache if source is not None and isinstance(cache, CachePart) else None
        try:
            if part is not None:
                jobs, work = self._through(part, lane, jobs, work)
            direct = isinstance(source, KvikioStore)
            loop = None if direct else FileLoop.of(source, lane.program)
            self.pipeline.run(lane.runtime, jobs, fetch, work, lane, direct=direct, loop=loop)
            lane.finish()
        except DataError:
            if part is not None:
                part.drop()  # what is damaged may be mended, and must be read again then
            raise
        finally:
            self.counts.update(lane.runtime.counts)
            self.peak_nbytes = lane.runtime.peak_nbytes

    def _through(
        self,
        part: CachePart,
        lane: BatchLane,
        jobs: Iterable[Job],
        work: Callable[[Lane, Job, Extents | None], None],
    ) -> tuple[Iterator[Job], Callable[[Lane, Job, Extents | None], None]]:
        """Jobs of what a cache lacks, and work that leaves it there.

        What the cache has is worked on while jobs are drawn.
        """
        runtime, epoch = lane.runtime, part.epoch

        def lacking() -> Iterator[Job]:
            for job in jobs:
                hold = part.hold(job.request.take(job.lo, job.hi), self._name)
                if not hold.entries:
                    yield job
                    continue
                found, rest = np.flatnonzero(hold.ready), np.flatnonzero(~hold.ready)
                with hold.reading(runtime) as (memory, since):
                    base = Staged(memory, None, since)
                    extents = Extents(base, hold.start[found], hold.nbytes[found])
                    work(lane, job.take(found) if len(rest) else job, extents)
                if len(rest):
                    yield job.take(rest)

        def keeping(lane: Lane, job: Job, extents: Extents | None) -> None:
            work(lane, job, extents)
            if extents is not None:
                request = job.request.take(job.lo, job.hi)
                part.keep(runtime, request, extents.base.device, extents, epoch)

        return lacking(), keeping

    def places(self, program: Program, *, rows: int | None = None) -> Sequence[StepPlace]:
        rule = HostRule.from_config()
        rows = self.rows_per_job(program) if rows is None else min(rows, self.rows_per_job(program))
        reasons = rule.reasons(program, rows)
        found = []
        for step in make_steps(program, on_host=frozenset(reasons)):
            where = self.kind if step.where == "device" else step.where
            found.append(StepPlace(step.codec, where, reasons.get(step.codec, step.note)))
        found.insert(
            len(program.arrays),
            StepPlace(program.serializer.name, "view", "byte order is turned while placing"),
        )
        if program.permutation is not None:
            found.insert(0, StepPlace("transpose", "view", "costs only strides"))
        return found


@functools.cache
def _direct() -> bool:
    return direct_is_on()


def _mixes_axes(program: Program) -> bool:
    """A transpose behind another array codec is real work, which only the host does."""
    return any(codec.permutation(spec) is not None for codec, spec in program.arrays)
