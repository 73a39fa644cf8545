"""The pipeline of a device with memory of its own: fetch ahead, copy once, decode.

A few slots, each a slab of (pinned) host memory with a twin on the device.  Reader threads fill the
slab of one slot with the encoded bytes of a job while the job before it is decoded; a filled slab
crosses in one copy.  Slots are kept from read to read.

Imports ``devices.base``, ``staged_files`` and the runtime; used by the CUDA device.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.runtime import ALREADY, Runtime, Slot
from zarr_gpu.config import config, usable_threads
from zarr_gpu.devices.base import Job, Lane
from zarr_gpu.devices.compiled import load_files
from zarr_gpu.devices.staged_files import FileLoop
from zarr_gpu.extents import MISSING, Extents, Memory

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Pipeline", "Staged", "present_rows"]

U8 = npt.NDArray[np.uint8]
Fetch = Callable[[Job, Memory], Extents | None]

SLAB_ALIGNMENT = 64
FIRST_SLAB = 1 << 20


FEWEST_READERS, MOST_READERS = 8, 16
"""Unless a number is asked for.  A core copies from the page cache at a sixth of what the link to a
device takes or less; one of them is left to the thread that decodes."""


def reader_count() -> int:
    """Threads that fetch, by the setting ``gpu.readers``."""
    wanted: int = config.get("gpu.readers")
    return wanted or min(max(usable_threads() - 2, FEWEST_READERS), MOST_READERS)


@dataclass(frozen=True, slots=True)
class Staged:
    """The base of extents that are on the device.

    ``host`` holds the same bytes for a while; None where they came without touching the host.
    ``since`` is the event behind which they are there (see ``DeviceBatch``).
    """

    device: Any
    host: U8 | None
    since: Any = None


class SlabMemory:
    """Hands out parts of a slab; once it is full, ordinary memory."""

    kind = "host"

    def __init__(self, slab: U8, used: int = 0) -> None:
        self._slab = slab
        self._used = used
        self._lock = threading.Lock()

    def empty(self, nbytes: int) -> U8:
        room = (nbytes + SLAB_ALIGNMENT - 1) & -SLAB_ALIGNMENT
        with self._lock:
            start = self._used
            if start + room > len(self._slab):
                return np.empty(nbytes, np.uint8)
            self._used = start + room
        return self._slab[start : start + nbytes]

    @property
    def used(self) -> int:
        return self._used

    def start_of(self, buffer: U8) -> int | None:
        """Where ``buffer`` starts in the slab, None where it is other memory."""
        at = int(buffer.ctypes.data) - int(self._slab.ctypes.data)
        inside = at >= 0 and at + len(buffer) <= len(self._slab)
        return at if inside and len(buffer) else None


class Pipeline:
    """Slots and reader threads of one device.

    The setting ``gpu.slots`` says how many jobs of a read are in flight: one is being decoded, the
    others are being fetched.  ``gpu.readers`` is the number of threads that fetch parts of a job.
    """

    def __init__(self) -> None:
        self._pool_size = 0
        self._idle: list[Slot] = []
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    def warm(self, runtime: Runtime) -> None:
        """Make slots and threads now, and load the loop that they run."""
        load_files()
        self._readers(reader_count())
        with self._slots(runtime, config.get("gpu.slots")):
            pass

    def run(
        self,
        runtime: Runtime,
        jobs: Iterable[Job],
        fetch: Fetch,
        work: Callable[[Lane, Job, Extents | None], None],
        lane: Lane,
        *,
        direct: bool = False,
        loop: FileLoop | None = None,
    ) -> None:
        """Fetch all but one job of the slots ahead; ``work`` runs here, on the caller's thread.

        ``direct``: ``fetch`` can fill device memory.  ``loop``: a quicker way than ``fetch`` to get
        what it would.
        """
        waiting: deque[tuple[Job, Slot, _Fetching | _Reading]] = deque()
        source = iter(jobs)
        readers = reader_count()
        with self._slots(runtime, config.get("gpu.slots")) as idle:
            try:
                while True:
                    while idle and (job := next(source, None)) is not None:
                        slot = idle.pop()
                        alone = not waiting and job.hi - job.lo == 1
                        pool = None if alone else self._readers(readers)
                        fetching: _Fetching | _Reading
                        if loop is not None and pool is not None and not direct:
                            fetching = _Reading(job, slot, fetch, pool, readers, loop)
                        else:
                            fetching = _Fetching(job, slot, fetch, pool, readers, direct=direct)
                        waiting.append((job, slot, fetching))
                    if not waiting:
                        return
                    job, slot, fetching = waiting.popleft()
                    try:
                        extents = fetching.result()
                        if extents is not None:
                            staged = (
                                Staged(extents.base, None, ALREADY)
                                if direct
                                else Staged(slot.send(fetching.used), slot.host, slot.sent)
                            )
                            extents = Extents(staged, extents.offset, extents.nbytes)
                        work(lane, job, extents)
                    finally:  # after a failure too: what was started still uses the memory
                        slot.release()
                        idle.append(slot)
            finally:
                for _, slot, fetching in waiting:
                    fetching.cancel()
                    idle.append(slot)

    @contextmanager
    def _slots(self, runtime: Runtime, count: int) -> Iterator[list[Slot]]:
        with self._lock:
            taken, self._idle = self._idle[:count], self._idle[count:]
        for slot in taken:
            slot.adopt(runtime)
        taken += [runtime.slot(FIRST_SLAB) for _ in range(count - len(taken))]
        try:
            yield taken
        finally:
            with self._lock:
                self._idle += taken
                extra = self._idle[2 * count :]
                del self._idle[2 * count :]
            for slot in extra:
                slot.wait_unused()

    def _readers(self, count: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pid != os.getpid() or self._pool_size < count:
                from concurrent.futures import ThreadPoolExecutor

                # A pool that became too small ends with the reads that still use it.
                self._pool = ThreadPoolExecutor(count, "zarr_gpu-reader")
                self._pid, self._pool_size = os.getpid(), count
            return self._pool


class RoomMemory:
    """Device memory of a slot, for stores that can fill it."""

    kind = "device"

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def empty(self, nbytes: int) -> Any:
        return self._slot.room(nbytes)


class _Fetching:
    """One job on its way into a slab, in parts; or in one part into device memory."""

    def __init__(
        self,
        job: Job,
        slot: Slot,
        fetch: Fetch,
        pool: ThreadPoolExecutor | None,
        parts: int,
        *,
        direct: bool = False,
    ) -> None:
        self._slot = slot
        self.used = 0
        self._memory = RoomMemory(slot) if direct else SlabMemory(slot.host)
        rows = job.hi - job.lo
        parts = 1 if pool is None or direct else min(parts, rows)
        cuts = [job.lo + rows * i // parts for i in range(parts + 1)]
        self._rows = [hi - lo for lo, hi in pairwise(cuts)]
        pieces = [Job(job.batch, job.request, lo, hi) for lo, hi in pairwise(cuts)]
        self._done: list[Extents | None] = []
        self._futures: list[Future[Extents | None]] = []

        def part(piece: Job) -> Extents | None:
            slot.wait_free()  # here: the caller's thread has better things to do
            return fetch(piece, self._memory)

        if pool is None:
            self._done = [part(piece) for piece in pieces]
        else:
            self._futures = [pool.submit(part, piece) for piece in pieces]

    def cancel(self) -> None:
        """Wait for parts that have begun; the others never do."""
        _cancel(self._futures)

    def result(self) -> Extents | None:
        """All parts in one slab: its extents; None where nothing was to be fetched."""
        try:
            parts = self._done or [future.result() for future in self._futures]
        except BaseException:
            self.cancel()
            raise
        if all(part is None for part in parts):
            return None
        if isinstance(self._memory, RoomMemory):
            return parts[0]
        found = [
            _nothing(rows) if part is None else part
            for part, rows in zip(parts, self._rows, strict=True)
        ]
        starts = [self._memory.start_of(part.base) for part in found]
        self.used = self._memory.used
        if any(len(p.base) for p, s in zip(found, starts, strict=True) if s is None):
            starts, self.used = _bring_in(self._slot, self.used, found, starts)
        offset = [p.offset + (s or 0) for p, s in zip(found, starts, strict=True)]
        return Extents(
            self._slot.host,
            np.concatenate(offset),
            np.concatenate([part.nbytes for part in found]),
        )


class _Reading:
    """One job on its way into a slab by the compiled loop, whatever it leaves by ``fetch``."""

    def __init__(
        self,
        job: Job,
        slot: Slot,
        fetch: Fetch,
        pool: ThreadPoolExecutor,
        readers: int,
        loop: FileLoop,
    ) -> None:
        self._job, self._slot, self._fetch, self._pool = job, slot, fetch, pool
        self._read = loop.begin(job, readers)
        self.used = 0
        self._start()

    def _start(self) -> None:
        def part() -> None:
            self._slot.wait_free()
            self._read.run(self._slot.host)

        self._futures = [self._pool.submit(part) for _ in range(self._read.threads)]

    def cancel(self) -> None:
        """Wait for parts that have begun; the others never do."""
        _cancel(self._futures)

    def result(self) -> Extents:
        """All rows in one slab: its extents."""
        self._finish()
        read, slot = self._read, self._slot
        if read.wanted > len(slot.host):
            slot.grow(read.wanted)
            read.again()
            self._start()
            self._finish()
        self.used = min(read.wanted, len(slot.host))
        left = read.left
        if len(left):
            memory = SlabMemory(slot.host, self.used)
            rest = self._fetch(self._job.take(left), memory)
            if rest is None:
                rest = _nothing(len(left))
            start = memory.start_of(rest.base)
            self.used = memory.used
            if start is None and len(rest.base):
                (start,), self.used = _bring_in(slot, self.used, [rest], [None])
            read.at[left], read.nbytes[left] = rest.offset + (start or 0), rest.nbytes
        return Extents(slot.host, read.at, read.nbytes)

    def _finish(self) -> None:
        try:
            for future in self._futures:
                future.result()
        except BaseException:
            self.cancel()
            raise


def _cancel(futures: Sequence[Future[Any]]) -> None:
    for future in futures:
        if not future.cancel():
            future.exception()


def _bring_in(
    slot: Slot, used: int, parts: Sequence[Extents], starts: Sequence[int | None]
) -> tuple[list[int | None], int]:
    """Copy parts that lie elsewhere behind the used part of a slab, made large enough for them.

    Returns where the parts start, and how much is used then.
    """
    stray = [len(p.base) for p, start in zip(parts, starts, strict=True) if start is None]
    total = used + sum(stray) + SLAB_ALIGNMENT * len(stray)
    if total > len(slot.host):
        kept = slot.host[:used].copy()
        slot.grow(total)
        slot.host[:used] = kept
    result: list[int | None] = []
    for part, start in zip(parts, starts, strict=True):
        result.append(used if start is None else start)
        if start is None:
            slot.host[used : used + len(part.base)] = part.base
            used += (len(part.base) + SLAB_ALIGNMENT - 1) & -SLAB_ALIGNMENT
    return result, used


def _nothing(rows: int) -> Extents:
    """Extents of a part of which nothing had to be fetched."""
    return Extents(
        np.empty(0, np.uint8), np.zeros(rows, np.int64), np.full(rows, MISSING, np.int64)
    )


def present_rows(extents: Extents) -> npt.NDArray[np.int64]:
    """Positions of the extents that are not MISSING."""
    return np.flatnonzero(extents.nbytes != MISSING)
