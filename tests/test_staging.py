"""The pipeline: what is fetched when, where it lands, and what becomes of slots after errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from zarr_gpu.config import config
from zarr_gpu.devices import staging
from zarr_gpu.devices.base import Job
from zarr_gpu.devices.sim_runtime import POISON, SimRuntime
from zarr_gpu.devices.staging import FIRST_SLAB, Pipeline, SlabMemory, Staged, present_rows
from zarr_gpu.extents import MISSING, ByteRequest, Extents
from zarr_gpu.plan import Batch

Fetch = Callable[[Job, Any], Extents | None]


def job_of(rows: int, lo: int = 0) -> Job:
    """A job of ``rows`` rows; row ``i`` is known by the key ``str(lo + i)``."""
    n = lo + rows
    index = np.zeros((n, 1), np.int64)
    batch = Batch(index, np.arange(n), index, np.ones(n, np.bool_))
    return Job(batch, ByteRequest.whole([str(i) for i in range(n)]), lo, n)


def content(row: int, size: int) -> np.ndarray:
    return np.full(size, row % 100 + 1, np.uint8)


def fetcher(sizes: Callable[[int], int], *, own_memory: bool = False) -> Fetch:
    """Fetches rows one behind the other; ``sizes`` tells their lengths, MISSING for none."""

    def fetch(job: Job, memory: Any) -> Extents:
        nbytes = np.array([sizes(row) for row in range(job.lo, job.hi)], np.int64)
        room = np.maximum(nbytes, 0)
        total = int(room.sum())
        base = np.empty(total, np.uint8) if own_memory else memory.empty(total)
        offset = np.cumsum(room) - room
        for row, at, n in zip(range(job.lo, job.hi), offset, room, strict=True):
            base[at : at + n] = content(row, n)
        return Extents(base, offset, nbytes)

    return fetch


class Seen:
    """Work that checks every row and notes the order of the jobs."""

    def __init__(self, sizes: Callable[[int], int]) -> None:
        self.sizes = sizes
        self.jobs: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def __call__(self, lane: Any, job: Job, extents: Extents | None) -> None:
        self.jobs.append((job.lo, job.hi))
        self.threads.add(threading.get_ident())
        assert extents is not None
        assert isinstance(extents.base, Staged)
        assert len(extents) == job.hi - job.lo
        for row, at, n in zip(
            range(job.lo, job.hi), extents.offset.tolist(), extents.nbytes.tolist(), strict=True
        ):
            assert n == self.sizes(row)
            for side in (extents.base.device, extents.base.host):
                if n != MISSING:
                    assert np.array_equal(side[at : at + n], content(row, n))


def run(
    jobs: list[Job], fetch: Fetch, work: Any, *, pipeline: Pipeline | None = None
) -> tuple[Pipeline, SimRuntime]:
    pipeline, runtime = pipeline or Pipeline(), SimRuntime("compiled")
    lane: Any = None
    pipeline.run(runtime, jobs, fetch, work, lane)
    return pipeline, runtime


@pytest.mark.parametrize("own_memory", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 7, 50])
def test_every_row_arrives(rows: int, own_memory: bool) -> None:
    jobs = [job_of(rows, lo) for lo in (0, 5, 100)]

    def sizes(row: int) -> int:
        return [0, 1, 63, 64, 65, 1000, MISSING][row % 7]

    seen = Seen(sizes)
    _, runtime = run(jobs, fetcher(sizes, own_memory=own_memory), seen)
    assert seen.jobs == [(job.lo, job.hi) for job in jobs]
    assert seen.threads == {threading.get_ident()}
    assert runtime.counts["uploads"] == len(jobs)  # one copy per job


@pytest.mark.parametrize("own_memory", [False, True])
def test_slabs_grow(own_memory: bool) -> None:
    """Parts that a slab has no room for are brought in by a copy."""

    def sizes(row: int) -> int:
        return FIRST_SLAB // 3 + row

    seen = Seen(sizes)
    pipeline, _ = run([job_of(9), job_of(2)], fetcher(sizes, own_memory=own_memory), seen)
    assert seen.jobs == [(0, 9), (0, 2)]
    assert max(len(slot.host) for slot in pipeline._idle) >= 9 * (FIRST_SLAB // 3)
    before = {id(slot) for slot in pipeline._idle}
    run([job_of(9)], fetcher(sizes), Seen(sizes), pipeline=pipeline)
    assert {id(slot) for slot in pipeline._idle} == before  # and are kept


def test_nothing_to_fetch() -> None:
    """Nothing asked for: no extents and no copy.  Nothing there: extents that are all MISSING."""
    jobs = [job_of(3), job_of(3, 3)]
    seen: list[Any] = []

    def work(lane: Any, job: Job, extents: Extents | None) -> None:
        seen.append(extents)

    _, runtime = run(jobs, lambda job, memory: None, work)
    assert seen == [None, None]
    assert runtime.counts["uploads"] == 0
    seen.clear()
    run(jobs, fetcher(lambda row: MISSING), work)
    assert all((extents.nbytes == MISSING).all() for extents in seen)
    assert [len(present_rows(extents)) for extents in seen] == [0, 0]


def test_some_parts_of_a_job_have_nothing_to_fetch() -> None:
    sizes = [10, MISSING, 20, MISSING, 30, 40]
    plain = fetcher(lambda row: sizes[row])

    def fetch(job: Job, memory: Any) -> Extents | None:
        wanted = [sizes[row] for row in range(job.lo, job.hi)]
        return None if set(wanted) == {MISSING} else plain(job, memory)

    seen = Seen(lambda row: sizes[row])
    with config.set({"gpu.readers": 6}):
        run([job_of(6)], fetch, seen)
    assert seen.jobs == [(0, 6)]


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_jobs_in_flight_are_bounded_by_the_slots(slots: int) -> None:
    drawn, worked, ahead = [0], [0], []

    def jobs() -> Iterator[Job]:
        for n in range(12):
            drawn[0] += 1
            yield job_of(2, 2 * n)

    def work(lane: Any, job: Job, extents: Extents | None) -> None:
        ahead.append(drawn[0] - worked[0])
        worked[0] += 1

    with config.set({"gpu.slots": slots}):
        run(jobs(), fetcher(lambda row: 5), work)  # type: ignore[arg-type]
    assert worked[0] == 12
    assert max(ahead) == slots


def test_the_next_job_is_fetched_while_one_is_worked_on() -> None:
    begun = threading.Event()

    def fetch(job: Job, memory: Any) -> Extents:
        if job.lo >= 4:
            begun.set()
        return fetcher(lambda row: 5)(job, memory)

    def work(lane: Any, job: Job, extents: Extents | None) -> None:
        assert begun.wait(10)  # the job behind this one is on its way already

    run([job_of(4), job_of(4, 4)], fetch, work)


def test_readers_share_the_rows_of_a_job() -> None:
    barrier = threading.Barrier(4)
    pieces: list[tuple[int, int]] = []

    def fetch(job: Job, memory: Any) -> Extents:
        pieces.append((job.lo, job.hi))
        barrier.wait(10)
        return fetcher(lambda row: 7)(job, memory)

    seen = Seen(lambda row: 7)
    with config.set({"gpu.readers": 4}):
        run([job_of(10)], fetch, seen)
    assert sorted(pieces) == [(0, 2), (2, 5), (5, 7), (7, 10)]


def test_how_many_readers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, 8), (2, 8), (10, 8), (12, 10), (16, 14), (64, 16)):
        monkeypatch.setattr(staging, "usable_threads", lambda cores=cores: cores)
        assert staging.reader_count() == expected
    with config.set({"gpu.readers": 3}):
        assert staging.reader_count() == 3


def test_a_single_row_never_leaves_the_thread() -> None:
    where: set[int] = set()

    def fetch(job: Job, memory: Any) -> Extents:
        where.add(threading.get_ident())
        return fetcher(lambda row: 3)(job, memory)

    pipeline, _ = run([job_of(1)], fetch, Seen(lambda row: 3))
    assert where == {threading.get_ident()}
    assert pipeline._pool is None


@pytest.mark.parametrize("bad", [0, 3, 7])
@pytest.mark.parametrize("rows", [1, 4])
def test_errors_of_fetching_come_out_once_all_readers_are_done(bad: int, rows: int) -> None:
    running, lock = [0], threading.Lock()

    def fetch(job: Job, memory: Any) -> Extents:
        with lock:
            running[0] += 1
        try:
            time.sleep(0.002)
            if job.lo <= bad * rows < job.hi:
                raise OSError("the disk is gone")
            return fetcher(lambda row: 9)(job, memory)
        finally:
            with lock:
                running[0] -= 1

    seen = Seen(lambda row: 9)
    pipeline = Pipeline()
    with pytest.raises(OSError, match="disk is gone"):
        run([job_of(rows, n * rows) for n in range(10)], fetch, seen, pipeline=pipeline)
    assert running[0] == 0
    assert seen.jobs == [(n * rows, n * rows + rows) for n in range(bad)]
    assert len(pipeline._idle) <= 2 * config.get("gpu.slots")
    again = Seen(lambda row: 9)
    run([job_of(5), job_of(5, 5)], fetcher(lambda row: 9), again, pipeline=pipeline)
    assert again.jobs == [(0, 5), (5, 10)]


def test_errors_of_work_stop_the_reads_ahead() -> None:
    def work(lane: Any, job: Job, extents: Extents | None) -> None:
        raise ValueError("damaged")

    pipeline = Pipeline()
    for _ in range(5):
        with pytest.raises(ValueError, match="damaged"):
            run(
                [job_of(3, n) for n in range(9)],
                fetcher(lambda row: 4),
                work,
                pipeline=pipeline,
            )
    assert len(pipeline._idle) <= 2 * config.get("gpu.slots")
    seen = Seen(lambda row: 4)
    run([job_of(3)], fetcher(lambda row: 4), seen, pipeline=pipeline)
    assert seen.jobs == [(0, 3)]


@pytest.mark.parametrize("failing", ["fetch", "work"])
def test_slots_survive_failures(failing: str) -> None:
    """What was started on the memory of a slot may still be running: it is not given away."""
    made: list[Any] = []

    class Runtime(SimRuntime):
        def slot(self, nbytes: int) -> Any:
            made.append(super().slot(nbytes))
            return made[-1]

    def fetch(job: Job, memory: Any) -> Extents:
        if failing == "fetch":
            raise OSError("no")
        return fetcher(lambda row: 4)(job, memory)

    def work(lane: Any, job: Job, extents: Extents | None) -> None:
        raise OSError("no")

    pipeline = Pipeline()
    lane: Any = None
    for _ in range(4):
        with pytest.raises(OSError, match="no"):
            pipeline.run(Runtime("compiled"), [job_of(2), job_of(2)], fetch, work, lane)
    assert len(made) == config.get("gpu.slots")
    assert {id(slot) for slot in pipeline._idle} == {id(slot) for slot in made}


def test_slots_too_many_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    runtime = SimRuntime("compiled")

    def note(slot: Any) -> None:
        waited.append(slot)

    monkeypatch.setattr(type(runtime.slot(1)), "wait_unused", note)
    pipeline = Pipeline()
    with pipeline._slots(runtime, 1), pipeline._slots(runtime, 1), pipeline._slots(runtime, 2):
        pass
    assert len(pipeline._idle) == len(waited) == 2
    assert not {id(slot) for slot in waited} & {id(slot) for slot in pipeline._idle}


def test_a_slab_is_not_read_again_once_it_is_released() -> None:
    held: list[np.ndarray] = []

    def work(lane: Any, job: Job, extents: Extents | None) -> None:
        assert extents is not None
        held.append(extents.base.host[extents.offset[0] :][:10])

    run([job_of(1)], fetcher(lambda row: 10), work)
    assert (held[0] == POISON).all()


def test_memory_of_a_slab() -> None:
    slab = np.zeros(300, np.uint8)
    memory = SlabMemory(slab)
    first, second = memory.empty(10), memory.empty(100)
    assert (memory.start_of(first), memory.start_of(second)) == (0, 64)
    assert memory.used == 192
    full = memory.empty(200)  # no room: memory of its own
    assert memory.start_of(full) is None
    assert len(full) == 200
    assert memory.used == 192
    third = memory.empty(64)
    assert memory.start_of(third) == 192
    assert memory.start_of(np.zeros(5, np.uint8)) is None
    third[...] = 7
    assert (slab[192:256] == 7).all()


def test_threads_of_one_slab_get_parts_of_their_own() -> None:
    memory = SlabMemory(np.zeros(1 << 16, np.uint8))
    found: list[int] = []

    def take() -> None:
        for _ in range(50):
            start = memory.start_of(memory.empty(20))
            assert start is not None
            found.append(start)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 400


def test_many_reads_at_once_keep_few_slots() -> None:
    pipeline = Pipeline()
    wrong: list[BaseException] = []

    def read(seed: int) -> None:
        try:
            seen = Seen(lambda row: row % 40)
            run(
                [job_of(5, 5 * n) for n in range(seed, seed + 6)],
                fetcher(lambda row: row % 40),
                seen,
                pipeline=pipeline,
            )
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(pipeline._idle) <= 2 * config.get("gpu.slots")
