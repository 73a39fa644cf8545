"""The CPU device: NumPy results, one thread per lane.

A lane works through jobs of a few rows with scratch memory of its own that stays warm in the cache:
the encoded bytes of a job, one decoded chunk.  A chunk whose place in the result is contiguous is
decoded straight into it.  Lanes draw jobs from one shared iterator and the calling thread is one of
them, so that a small read never leaves it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.config import config, usable_threads
from zarr_gpu.devices.base import Device, Job, Lane, Options, Range, RowReader, StepPlace
from zarr_gpu.devices.chunk_cache import CachedRows, ChunkCache, ChunkPart, Keeper
from zarr_gpu.devices.compiled import prepare, wanted
from zarr_gpu.devices.helpers import together
from zarr_gpu.devices.host_rows import Chunks, RowLoop, read_single
from zarr_gpu.devices.part_rows import make_part_rows
from zarr_gpu.devices.scratch import PAGE, aligned, results, scratch
from zarr_gpu.errors import ChunkDecodeError, CodecError
from zarr_gpu.extents import MISSING, Extents, Memory
from zarr_gpu.placing import Placer, copy, put, take
from zarr_gpu.plan import Plan
from zarr_gpu.storage.base import Store

__all__ = ["CpuDevice", "CpuLane"]

Array = npt.NDArray[Any]
U8 = npt.NDArray[np.uint8]

JOB_NBYTES = 1 << 20
"""Decoded bytes per job: small enough to stay in the cache, large enough to outweigh Python."""

MAX_ROWS_PER_JOB = 64

LANES_PER_THREAD = 4
"""Lanes for each thread's worth of decoding, of stores that answer several requests at a time."""

ALIGNED_FROM = 1 << 20
"""Bytes from which on results begin at a page."""


class CpuLane(Lane):
    """One thread's share of a read or write."""

    def __init__(
        self,
        program: Program,
        placer: Placer,
        fill_value: Any,
        fields: str | list[str] | None,
        keep_fill_chunks: bool,
        keeper: Keeper | None = None,
    ) -> None:
        self.program = program
        self.keeper = keeper
        self.placer = placer
        self.fill = fill_value
        self.fields = fields
        self.keep_fill_chunks = keep_fill_chunks
        spec = program.spec
        self.shape, self.dtype = spec.shape, spec.dtype
        self.nitems = math.prod(spec.shape)
        plan = placer.plan
        self.straight = placer.plain and all(s.step == 1 for s in plan.sets)
        # What the last bytes step yields is the chunk as it stands in memory.
        self.in_place = (
            bool(program.steps) and program.plain and program.permutation is None and fields is None
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
                data = None if nbytes == MISSING else base[offset : offset + nbytes]
                if self.keeper is None:
                    self._place(entries, data, out)
                else:
                    chunk = None if data is None else self._own_chunk(data)
                    self.keeper.put(tuple(job.batch.coords[row].tolist()), chunk)
                    self.place(entries, chunk, out)
                row += 1
        except (CodecError, MemoryError) as err:
            raise damaged(job, row, err) from err

    def _place(self, entries: list[int], data: U8 | None, out: Array) -> None:
        """Decode one chunk and place it, straight into the result where that is possible."""
        if data is not None and self.in_place and self.straight:
            target = out[self.placer.slices(entries)[1]]
            if (
                target.size == self.nitems
                and target.dtype == self.dtype
                and target.flags.c_contiguous
            ):
                raw = target.reshape(-1).view(np.uint8)
                got = self.program.decode_bytes(data, raw)
                if got.ctypes.data != raw.ctypes.data:
                    raw[...] = got
                return
        self.place(entries, None if data is None else self._chunk(data), out)

    def place(self, entries: list[int], chunk: Array | None, out: Array) -> None:
        """Place the items of a decoded chunk; None is absent."""
        if chunk is not None and self.fields is not None:
            chunk = chunk[self.fields]
        if self.placer.plain:
            src, dst = self.placer.slices(entries)
            if chunk is None:
                out[dst] = self._fill_of_fields()
            else:
                copy(out[dst], chunk[src])
            return
        src_box, dst_box = self.placer.boxes(entries)
        put(out, dst_box, self._fill_of_fields() if chunk is None else take(chunk, src_box))

    def _chunk(self, data: U8) -> Array:
        program = self.program
        out = None if program.serial_nbytes is None else scratch.chunk.empty(program.serial_nbytes)
        return program.decode(data, out)

    def _own_chunk(self, data: U8) -> Array:
        """A decoded chunk in memory of its own."""
        chunk = np.array(self._chunk(data), order="K")
        chunk.setflags(write=False)
        return chunk

    def _fill_of_fields(self) -> Any:
        return self.fill if self.fields is None else self.fill[self.fields]

    # ---- writing -------------------------------------------------------------------------------

    def encode(self, job: Job, existing: Extents | None, values: Array) -> list[U8 | None]:
        result: list[U8 | None] = []
        index = job.batch.index[job.lo : job.hi].tolist()
        complete = job.batch.complete[job.lo : job.hi].tolist()
        memory, room = self._encoded_memory(len(index))
        for i, entries in enumerate(index):
            old: U8 | None = None
            if existing is not None and existing.nbytes[i] != MISSING:
                start = int(existing.offset[i])
                old = existing.base[start : start + int(existing.nbytes[i])]
            out = None if memory is None else memory[i * room : (i + 1) * room]
            try:
                chunk = self._merge(entries, complete[i] and self.fields is None, old, values)
                if self._fill_check is not None and self._fill_check(chunk):
                    result.append(None)
                    continue
                encoded = self.program.encode(chunk, out)
            except (CodecError, MemoryError) as err:
                raise damaged(job, job.lo + i, err) from err
            if np.may_share_memory(encoded, chunk) and chunk is not values:
                encoded = self._kept(encoded, out)  # the scratch chunk is used for the next row
            result.append(encoded)
        return result

    def _encoded_memory(self, rows: int) -> tuple[U8 | None, int]:
        """Memory for the encoded chunks of a job, and how much of it each has."""
        if self.program.serial_nbytes is None:
            return None, 0
        room = (self.program.encoded_bound + PAGE - 1) // PAGE * PAGE
        return scratch.written.empty(rows * room), room

    @staticmethod
    def _kept(encoded: U8, out: U8 | None) -> U8:
        if out is None:
            return encoded.copy()
        kept = out[: len(encoded)]
        kept[...] = encoded
        return kept

    def _merge(self, entries: list[int], complete: bool, old: U8 | None, values: Array) -> Array:
        """The chunk with its part of ``values`` put in."""
        if complete and self.straight:
            _, dst = self.placer.slices(entries)
            whole: Array = values[dst]
            if whole.size == self.nitems:
                whole = whole.reshape(self.shape)
                if whole.dtype == self.dtype and whole.flags.c_contiguous:
                    return whole
                chunk = self._new_chunk()
                copy(chunk, whole)
                return chunk
        chunk = self._new_chunk()
        if old is not None and not complete:
            decoded = self._decode_into(chunk, old)
            if decoded is not None:
                chunk[...] = decoded
        else:
            chunk[...] = self.fill
        src_box, dst_box = self.placer.boxes(entries)
        part = take(values, dst_box)
        put(chunk if self.fields is None else chunk[self.fields], src_box, part)
        return chunk

    def _decode_into(self, chunk: Array, old: U8) -> Array | None:
        """Decode into ``chunk``; where that is not possible, the decoded chunk."""
        if not self.in_place:
            return self.program.decode(old)
        raw = chunk.reshape(-1).view(np.uint8)
        got = self.program.decode_bytes(old, raw)
        return None if got.ctypes.data == raw.ctypes.data else self._as_chunk(got)

    def _as_chunk(self, data: U8) -> Array:
        return self.program.serializer.decode(data, self.program.serial_spec)

    def _new_chunk(self) -> Array:
        if self.dtype.hasobject or self.dtype.kind == "T":
            return np.empty(self.shape, self.dtype)
        raw = scratch.chunk.empty(self.nitems * self.dtype.itemsize)
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

    def read_single(
        self,
        program: Program,
        store: Store,
        key: str,
        ranges: list[Range],
        shape: tuple[int, ...],
        fill_value: Any,
    ) -> Array | None:
        if not wanted(1):
            return None
        files, chunks = store.files(), Chunks.of(program, fill_value)
        if files is None or chunks is None:
            return None
        out = np.empty(shape, program.spec.dtype)
        return out if read_single(chunks, files, key, ranges, out) else None

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
