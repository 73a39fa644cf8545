"""The CPU device: NumPy results, one thread per lane.

A lane works through jobs of a few rows with scratch memory of its own that stays warm in the cache:
the encoded bytes of a job, one decoded chunk.  A chunk whose place in the result is contiguous is
decoded straight into it.  Lanes draw jobs from one shared iterator and the calling thread is one of
them, so that a small read never leaves it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.bytes import BytesCodec
from zarr_gpu.codecs.chain import Program
from zarr_gpu.config import config
from zarr_gpu.devices.base import Device, Job, Lane, Options, StepPlace
from zarr_gpu.errors import ChunkDecodeError, CodecError
from zarr_gpu.extents import MISSING, Extents, Memory
from zarr_gpu.placing import Placer, put, take
from zarr_gpu.plan import Plan
from zarr_gpu.storage.base import Store

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["CpuDevice", "CpuLane"]

Array = npt.NDArray[Any]
U8 = npt.NDArray[np.uint8]

JOB_NBYTES = 1 << 20
"""Decoded bytes per job: small enough to stay in the cache, large enough to outweigh Python."""

MAX_ROWS_PER_JOB = 64

LANES_PER_THREAD = 4
"""Lanes for each thread's worth of decoding, of stores that answer several requests at a time."""

KEPT_SCRATCH = 64 << 20
"""Scratch memory that a thread keeps from one read to the next."""


class ScratchMemory:
    """Host memory that is used again and again; grows as needed."""

    kind = "host"

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def empty(self, nbytes: int) -> U8:
        if len(self._buffer) < nbytes:
            self._buffer = np.empty(max(nbytes, min(2 * len(self._buffer), KEPT_SCRATCH)), np.uint8)
        result = self._buffer[:nbytes]
        if len(self._buffer) > KEPT_SCRATCH:
            self._buffer = np.empty(0, np.uint8)
        return result


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.encoded = ScratchMemory()
        self.chunk = ScratchMemory()


_scratch = _Scratch()


class CpuLane(Lane):
    """One thread's share of a read or write."""

    def __init__(
        self,
        program: Program,
        placer: Placer,
        fill_value: Any,
        fields: str | list[str] | None,
        keep_fill_chunks: bool,
    ) -> None:
        self.program = program
        self.placer = placer
        self.fill = fill_value
        self.fields = fields
        self.keep_fill_chunks = keep_fill_chunks
        spec = program.spec
        self.shape, self.dtype = spec.shape, spec.dtype
        self.nitems = int(np.prod(spec.shape, dtype=object))
        plan = placer.plan
        self.straight = placer.plain and all(s.step == 1 for s in plan.sets)
        # What the last bytes step yields is the chunk as it stands in memory.
        self.in_place = (
            bool(program.steps)
            and not program.arrays
            and program.permutation is None
            and isinstance(program.serializer, BytesCodec)
            and program.serializer.stored_dtype(self.dtype) == self.dtype
            and fields is None
        )
        self._fill_check = None if keep_fill_chunks else _FillCheck(fill_value, self.dtype)

    # ---- reading -------------------------------------------------------------------------------

    def decode(self, job: Job, extents: Extents, out: Array) -> None:
        base = extents.base
        rows = zip(
            job.batch.index[job.lo : job.hi].tolist(),
            extents.offset.tolist(),
            extents.nbytes.tolist(),
            strict=True,
        )
        row = job.lo
        try:
            for entries, offset, nbytes in rows:
                if nbytes == MISSING:
                    self._place(entries, None, out)
                else:
                    self._place(entries, base[offset : offset + nbytes], out)
                row += 1
        except (CodecError, MemoryError) as err:
            raise damaged(job, row, err) from err

    def _place(self, entries: list[int], data: U8 | None, out: Array) -> None:
        if self.placer.plain:
            src, dst = self.placer.slices(entries)
            target = out[dst]
            if data is None:
                target[...] = self._fill_of_fields()
            elif (
                self.in_place
                and self.straight
                and target.size == self.nitems
                and target.dtype == self.dtype
                and target.flags.c_contiguous
            ):
                raw = target.reshape(-1).view(np.uint8)
                got = self.program.decode_bytes(data, raw)
                if got.ctypes.data != raw.ctypes.data:
                    raw[...] = got
            else:
                target[...] = self._chunk(data)[src]
            return
        src_box, dst_box = self.placer.boxes(entries)
        if data is None:
            put(out, dst_box, self._fill_of_fields())
        else:
            put(out, dst_box, take(self._chunk(data), src_box))

    def _chunk(self, data: U8) -> Array:
        program = self.program
        out = None if program.serial_nbytes is None else _scratch.chunk.empty(program.serial_nbytes)
        chunk = program.decode(data, out)
        return chunk if self.fields is None else chunk[self.fields]

    def _fill_of_fields(self) -> Any:
        return self.fill if self.fields is None else self.fill[self.fields]

    # ---- writing -------------------------------------------------------------------------------

    def encode(self, job: Job, existing: Extents | None, values: Array) -> list[U8 | None]:
        result: list[U8 | None] = []
        index = job.batch.index[job.lo : job.hi].tolist()
        complete = job.batch.complete[job.lo : job.hi].tolist()
        for i, entries in enumerate(index):
            old: U8 | None = None
            if existing is not None and existing.nbytes[i] != MISSING:
                start = int(existing.offset[i])
                old = existing.base[start : start + int(existing.nbytes[i])]
            try:
                chunk = self._merge(entries, complete[i] and self.fields is None, old, values)
                if self._fill_check is not None and self._fill_check(chunk):
                    result.append(None)
                    continue
                encoded = self.program.encode(chunk)
            except (CodecError, MemoryError) as err:
                raise damaged(job, job.lo + i, err) from err
            if np.may_share_memory(encoded, chunk) and chunk is not values:
                encoded = encoded.copy()  # the scratch chunk is used again for the next row
            result.append(encoded)
        return result

    def _merge(self, entries: list[int], complete: bool, old: U8 | None, values: Array) -> Array:
        """The chunk with its part of ``values`` put in."""
        if complete and self.straight:
            _, dst = self.placer.slices(entries)
            whole: Array = values[dst]
            if whole.size == self.nitems:
                return whole.reshape(self.shape).astype(self.dtype, copy=False)
        chunk: Array
        if old is not None and not complete:
            decoded = self.program.decode(old)
            chunk = self._new_chunk()
            chunk[...] = decoded
        else:
            chunk = self._new_chunk()
            chunk[...] = self.fill
        src_box, dst_box = self.placer.boxes(entries)
        part = take(values, dst_box)
        put(chunk if self.fields is None else chunk[self.fields], src_box, part)
        return chunk

    def _new_chunk(self) -> Array:
        if self.dtype.hasobject or self.dtype.kind == "T":
            return np.empty(self.shape, self.dtype)
        raw = _scratch.chunk.empty(self.nitems * self.dtype.itemsize)
        return raw.view(self.dtype).reshape(self.shape)


def damaged(job: Job, row: int, err: CodecError | MemoryError) -> ChunkDecodeError:
    """The error of one codec with the key of the chunk it happened in.

    Whoever writes metadata chooses the size of a chunk, so a lack of memory is one of them.
    """
    key = job.key(row)
    if isinstance(err, MemoryError):
        return ChunkDecodeError(f"no memory to code chunk {key!r}: {err}", key=key)
    where = ""
    if int(job.request.nbytes[row]) >= 0:
        where = f" (bytes {int(job.request.offset[row])} on)"
    return ChunkDecodeError(
        f"chunk {key!r}{where} cannot be coded by {err.codec!r}: {err.message}",
        key=key,
        codec=err.codec,
        expected=err.expected,
        actual=err.actual,
    )


class _FillCheck:
    """Whether a chunk is nothing but fill value, bit by bit (so -0.0 is not 0.0, NaN is NaN)."""

    def __init__(self, fill: Any, dtype: np.dtype[Any]) -> None:
        self.by_value = dtype.hasobject or dtype.kind == "T"
        self.fill = fill
        size = dtype.itemsize
        self.unit = np.dtype(f"u{size}") if size in (1, 2, 4, 8) else None
        if not self.by_value:
            scalar = np.empty(1, dtype)
            scalar[0] = fill
            self.bits = scalar.view(self.unit if self.unit is not None else np.uint8)

    def __call__(self, chunk: Array) -> bool:
        if self.by_value:
            return bool((chunk == self.fill).all())
        if self.unit is not None:
            bits = chunk.view(self.unit)
            # Most chunks differ in their first item already.
            if bits.size and bits[(0,) * bits.ndim] != self.bits[0]:
                return False
            return bool((bits == self.bits[0]).all())
        raw = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)
        return bool((raw.reshape(-1, len(self.bits)) == self.bits).all())


# ------------------------------------------------------------------------------ threads

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


def _forget_pool() -> None:
    # The threads of the parent do not exist in a forked child.
    global _pool, _pool_lock
    _pool = None
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _lane_pool(workers: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < workers:
            from concurrent.futures import ThreadPoolExecutor

            # A pool that became too small ends with the calls that still use it.
            _pool, _pool_size = ThreadPoolExecutor(workers, "zarr_gpu-lane"), workers
        return _pool


def usable_threads() -> int:
    """Threads to decode with: the setting ``threads``, else the cores this process may use."""
    wanted = config.get("threads")
    if wanted:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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

    def __repr__(self) -> str:
        return "CpuDevice()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuDevice)

    def __hash__(self) -> int:
        return hash(self.kind)

    def output(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> Array:
        # np.empty asks for huge pages; touching fresh small pages would cost more than decoding.
        return np.empty(shape, dtype, order="F" if order == "F" else "C")

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
        placer = Placer(plan)
        return lambda: CpuLane(program, placer, fill_value, fields, keep_fill_chunks)

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
    ) -> None:
        shared = _SharedJobs(jobs)
        most = _lanes(1 if source is None else source.concurrency)
        lanes = min(lanes, most) if lanes else most

        def lane_loop() -> None:
            lane: Lane | None = None
            memory = _scratch.encoded
            try:
                while (job := shared.next()) is not None:
                    lane = lane or make_lane()
                    work(lane, job, fetch(job, memory))
            except BaseException:
                shared.stopped = True
                raise

        if lanes == 1:
            lane_loop()
            return
        pool = _lane_pool(lanes - 1)
        helpers: list[Future[None]] = [pool.submit(lane_loop) for _ in range(lanes - 1)]
        try:
            lane_loop()
        finally:
            # A helper that has not begun by now (a busy pool) is not needed any more.
            errors = [f.exception() for f in helpers if not f.cancel()]
        for error in errors:
            if error is not None:
                raise error

    def places(self, program: Program, *, rows: int | None = None) -> Sequence[StepPlace]:
        steps = [StepPlace(codec.name, "cpu") for codec in program.codecs]
        if program.permutation is not None:
            steps.insert(0, StepPlace("transpose", "view", "costs only strides"))
        return steps
