"""From files to a slab: the compiled loop, readers in Python, and plain system calls.

    python benchmarks/gpu/staging.py        2,000 files of 4 KB and of 300 KB; needs no GPU

Warm page cache, ordinary memory.  Besides the time for all files, what Python on another thread
costs meanwhile: the device's thread has launches to prepare while its readers read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from zarr_gpu.config import config, usable_threads
from zarr_gpu.devices.base import Job
from zarr_gpu.devices.compiled import load_files
from zarr_gpu.devices.sim_runtime import SimRuntime, _SimSlot
from zarr_gpu.devices.staged_files import FileLoop
from zarr_gpu.devices.staging import Pipeline
from zarr_gpu.extents import ByteRequest, Extents
from zarr_gpu.plan import Batch
from zarr_gpu.storage.local import LocalStore

ROWS = 256
"""Of a job."""

GB = 1e9
WORK = 500
"""Turns of a loop in Python that take some ten microseconds: what lies between two calls that let
other threads have the interpreter, as launches and copies do."""


class _Slot(_SimSlot):
    """Sends nothing, poisons nothing: only how it is filled takes time."""

    def send(self, nbytes: int) -> Any:
        return self.host[:nbytes]

    def release(self) -> None:
        """The memory stays as it is."""


class _Runtime(SimRuntime):
    def slot(self, nbytes: int) -> Any:
        return _Slot(self, nbytes)


def _python() -> float:
    start = time.perf_counter()
    total = 0
    for _ in range(50):
        for i in range(WORK):
            total += i
        time.sleep(0)
    return time.perf_counter() - start


def _jobs(count: int) -> Iterator[Job]:
    index = np.zeros((count, 1), np.int64)
    batch = Batch(index, np.arange(count), index, np.ones(count, np.bool_))
    request = ByteRequest.whole([str(i) for i in range(count)])
    for lo in range(0, count, ROWS):
        yield Job(batch, request, lo, min(lo + ROWS, count))


def _median(call: Callable[[], Any], repeat: int = 5) -> float:
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _beside(call: Callable[[], Any]) -> float:
    """How many times as long Python takes on this thread while another runs ``call``."""
    alone = statistics.median(_python() for _ in range(9))
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            call()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        times = [_python() for _ in range(25)]
    finally:
        stop.set()
        thread.join()
    return statistics.median(times) / alone


def measure_staging(folder: Path, count: int, nbytes: int, threads: int) -> dict[str, Any]:
    """Figures of every way for so many files of so many bytes."""
    data = np.random.default_rng(1).bytes(nbytes)
    for i in range(count):
        (folder / str(i)).write_bytes(data)
    store = LocalStore(folder)
    slab = memoryview(np.empty((nbytes + 64) * ROWS, np.uint8))
    pipeline, runtime = Pipeline(), _Runtime("compiled")
    lane: Any = None

    def plain(lo: int, hi: int) -> None:
        for i in range(lo, hi):
            file = os.open(f"{folder}/{i}", os.O_RDONLY)
            try:
                size = os.lseek(file, 0, os.SEEK_END)
                start = i % ROWS * (nbytes + 64)
                os.preadv(file, [slab[start : start + size]], 0)
            finally:
                os.close(file)

    def fetch(job: Job, memory: Any) -> Extents:
        return store.fetch(job.request.take(job.lo, job.hi), memory)

    def read(loop: FileLoop | None) -> None:
        with config.set({"gpu.readers": threads}):
            pipeline.run(runtime, _jobs(count), fetch, lambda *_: None, lane, loop=loop)

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads))

        def shared() -> None:
            cuts = [count * i // threads for i in range(threads + 1)]
            list(pool.map(plain, cuts[:-1], cuts[1:]))

        files, read_files = store.files(), load_files()
        ways: dict[str, Callable[[], Any]] = {
            "preadv, 1 thread": lambda: plain(0, count),
            f"preadv, {threads} threads": shared,
            "readers in Python": lambda: read(None),
        }
        if files is not None and read_files is not None:
            loop = FileLoop(files, read_files, 2 * nbytes)
            ways["compiled loop"] = lambda: read(loop)
        found: dict[str, Any] = {"files": count, "nbytes": nbytes, "threads": threads}
        for name, way in ways.items():
            seconds = _median(way)
            found[f"{name}: us per file"] = 1e6 * seconds / count
            found[f"{name}: gb_s"] = count * nbytes / seconds / GB
            found[f"{name}: Python beside it takes times"] = _beside(way)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--nbytes", type=int, nargs="*", default=[4_000, 300_000])
    parser.add_argument("--threads", type=int, default=min(8, usable_threads()))
    arguments = parser.parse_args()
    for nbytes in arguments.nbytes:
        with tempfile.TemporaryDirectory() as folder:
            found = measure_staging(Path(folder), arguments.files, nbytes, arguments.threads)
        for name, value in found.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
        print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
