"""What use leaves behind, and what other threads and processes may do meanwhile.

Counts and bytes, never times: file descriptors, threads, peak memory; forked and spawned processes;
many threads on one array.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import operator
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_suite import in_child

import zarr_gpu
from zarr_gpu.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

MIB = 2**20
FDS = Path("/proc/self/fd")

needs_proc = pytest.mark.skipif(not FDS.is_dir(), reason="platform: no /proc/self/fd")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
may_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}


def numbers(*shape: int, dtype: str = "u2") -> np.ndarray:
    return (np.arange(int(np.prod(shape))) * 2654435761 % 65521).astype(dtype).reshape(shape)


@pytest.fixture
def several_threads() -> Iterator[None]:
    """Four lanes, whatever the machine has."""
    with zarr_gpu.config.set({"threads": 4}):
        yield


def volume(store: Any, **arguments: Any) -> zarr_gpu.Array:
    """64 chunks of 16 KiB: more than one thread takes part in reading them."""
    arguments.setdefault("chunks", (16, 512))
    return zarr_gpu.create_array(store, data=numbers(256, 2048), **arguments)


# ------------------------------------------------------------------------------ descriptors


def open_descriptors() -> int:
    gc.collect()
    return len(list(FDS.iterdir()))


@needs_proc
@pytest.mark.parametrize(("kind", "cycles"), [("local", 300), ("zip", 100), ("fsspec", 100)])
def test_descriptors_are_given_back(kind: str, cycles: int, tmp_path: Path) -> None:
    path = tmp_path / ("a.zip" if kind == "zip" else "a.zarr")
    expected = numbers(20, 30)
    if kind == "zip":
        with ZipStore(path, mode="w") as store:
            zarr_gpu.create_array(store, data=expected, chunks=(7, 30))
    else:
        zarr_gpu.create_array(path, data=expected, chunks=(7, 30))
    where: Any = FsspecStore.from_url(f"local://{path}") if kind == "fsspec" else path

    def cycle() -> None:
        with zarr_gpu.open_array(where, mode="r") as array:
            np.testing.assert_array_equal(array[3:9], expected[3:9])

    cycle()  # libraries may open what they keep
    before = open_descriptors()
    for _ in range(cycles):
        cycle()
    assert open_descriptors() == before


@needs_proc
def test_descriptors_are_given_back_without_closing(tmp_path: Path) -> None:
    zarr_gpu.create_array(tmp_path / "a", data=numbers(20, 30), chunks=(7, 30))
    zarr_gpu.open_array(tmp_path / "a")[3:9]
    before = open_descriptors()
    arrays = [zarr_gpu.open_array(tmp_path / "a") for _ in range(50)]
    for array in arrays:
        array[:5] = array[10:15]
    del array, arrays
    assert open_descriptors() == before


def test_no_resource_warning_at_exit(tmp_path: Path) -> None:
    """Neither with arrays left open nor with threads of the pool still there."""
    volume(tmp_path / "a.zarr")
    with ZipStore(tmp_path / "a.zip", mode="w") as store:
        volume(store)
    code = """
import sys, zarr_gpu
zarr_gpu.config.set({"threads": 4})
for path in sys.argv[1:]:
    z = zarr_gpu.open_array(path, mode="r")
    assert z[...].any()
    group = zarr_gpu.open_group({})
    group.create_array("x", data=[1, 2, 3])
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code]
        + [str(tmp_path / name) for name in ("a.zarr", "a.zip")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("several_threads")
def test_threads_do_not_pile_up() -> None:
    array = volume({})
    assert array[...].any()
    before = threading.active_count()
    for _ in range(50):
        array[:200] = array[56:]
    assert threading.active_count() == before
    with zarr_gpu.config.set({"threads": 2}):
        assert array[...].any()
    assert threading.active_count() <= before


# ------------------------------------------------------------------------------ processes


@needs_fork
@may_fork
@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("kind", ["local", "memory", "sharded"])
def test_fork_after_use(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else LocalStore(tmp_path / "a")
    array = volume(store, shards=(64, 1024) if kind == "sharded" else None)
    expected = numbers(256, 2048)
    np.testing.assert_array_equal(array[...], expected)  # the threads of the pool are there

    def child(number: int) -> bool:
        # What children before this one wrote lies in the rows above.
        if not np.array_equal(array[number * 16 :], expected[number * 16 :]):
            return False
        array[number * 16 : (number + 1) * 16] = number
        part = array[number * 16 : (number + 1) * 16]
        return bool((part == number).all())

    assert [in_child(partial(child, number)) for number in range(10)] == [True] * 10
    np.testing.assert_array_equal(array[160:], expected[160:])
    if kind != "memory":  # which every process has for itself
        assert (array[:160:16, 0] == np.arange(10)).all()


@needs_fork
@may_fork
@pytest.mark.usefixtures("several_threads")
def test_fork_while_another_thread_reads(tmp_path: Path) -> None:
    array = volume(tmp_path / "a", compressors=BLOSC)
    expected = numbers(256, 2048)
    stop = threading.Event()
    failures: list[BaseException] = []

    def read_on() -> None:
        try:
            while not stop.is_set():
                np.testing.assert_array_equal(array[...], expected)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        right = [in_child(lambda: np.array_equal(array[...], expected)) for _ in range(10)]
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert (right, failures) == ([True] * 10, [])


SELECTIONS = [(slice(16 * i, 16 * i + 40), slice(i, None, 3)) for i in range(8)]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.usefixtures("several_threads")
def test_pickled_array_in_worker_processes(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("platform: no such start method")
    array = volume(tmp_path / "a", shards=(64, 1024))
    expected = array[...]
    with multiprocessing.get_context(method).Pool(2) as pool:
        parts = pool.map(partial(operator.getitem, array), SELECTIONS)
        pool.close()
        pool.join()
    for selection, part in zip(SELECTIONS, parts, strict=True):
        np.testing.assert_array_equal(part, expected[selection])


@pytest.mark.parametrize("store", ["local", "memory", "zip"])
def test_pickled_array_in_a_fresh_process(store: str, tmp_path: Path) -> None:
    where: Any = {
        "local": lambda: LocalStore(tmp_path / "a"),
        "memory": MemoryStore,
        "zip": lambda: ZipStore(tmp_path / "a.zip", mode="w"),
    }[store]()
    array = zarr_gpu.create_array(where, data=numbers(50, 60), chunks=(7, 60), attributes={"a": 1})
    if store == "zip":
        where.close()
        array = zarr_gpu.open_array(ZipStore(tmp_path / "a.zip"), mode="r")
    code = """
import pickle, sys
array = pickle.load(sys.stdin.buffer)
pickle.dump((array[5:, ::2], dict(array.attrs), array.name), sys.stdout.buffer)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(array), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    values, attributes, name = pickle.load(io.BytesIO(done.stdout))
    np.testing.assert_array_equal(values, numbers(50, 60)[5:, ::2])
    assert (attributes, name) == ({"a": 1}, array.name)


# ------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("kind", ["local", "memory"])
@pytest.mark.usefixtures("several_threads")
def test_thread_storm(kind: str, tmp_path: Path) -> None:
    """16 threads read and write small boxes of one array, each in chunks of its own."""
    store = MemoryStore() if kind == "memory" else LocalStore(tmp_path / "a")
    array = zarr_gpu.create_array(
        store, shape=(16 * 20, 40), chunks=(10, 10), dtype="i4", fill_value=-1, compressors=BLOSC
    )
    start = threading.Barrier(16)

    def work(number: int) -> np.ndarray:
        rng = np.random.default_rng(number)
        rows = slice(number * 20, (number + 1) * 20)
        mine = np.full((20, 40), -1, "i4")
        start.wait()
        for turn in range(20):
            top, left = rng.integers(0, 20), rng.integers(0, 40)
            bottom, right = rng.integers(top + 1, 21), rng.integers(left + 1, 41)
            box = (slice(top, bottom), slice(left, right))
            mine[box] = value = number * 1000 + turn
            array[number * 20 + top : number * 20 + bottom, left:right] = value
            np.testing.assert_array_equal(array[rows][box], mine[box])
        return mine

    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(work, range(16)))
    np.testing.assert_array_equal(array[...], np.concatenate(parts))


class HeldItems(dict[str, Any]):
    """Holds whoever first asks for ``key`` until it is let go."""

    def __init__(self, items: dict[str, Any], key: str) -> None:
        super().__init__(items)
        self.key = key
        self.held = threading.Event()
        self.let_go = threading.Event()

    def __getitem__(self, key: str) -> Any:
        if key == self.key and not self.held.is_set():
            self.held.set()
            assert self.let_go.wait(60)
        return super().__getitem__(key)


@pytest.mark.parametrize("shards", [None, (64, 1024)])
@pytest.mark.usefixtures("several_threads")
def test_reads_and_writes_go_on_beside_one_that_hangs(shards: Any) -> None:
    items: dict[str, Any] = {}
    key = volume(items, shards=shards).metadata.key_encoding.key((0, 0))
    expected = numbers(256, 2048)
    store = HeldItems(items, key)
    array = zarr_gpu.open_array(store)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: array[:64])
        assert store.held.wait(60)
        try:
            second = pool.submit(lambda: array[...])
            np.testing.assert_array_equal(second.result(60), expected)
            pool.submit(lambda: array.set_basic_selection(slice(128, None), 7)).result(60)
            assert not first.done()
        finally:
            store.let_go.set()
        np.testing.assert_array_equal(first.result(60), expected[:64])
    assert (array[128:] == 7).all()


@pytest.mark.usefixtures("several_threads")
def test_failed_read_leaves_the_array_usable() -> None:
    memory: dict[str, Any] = {}
    array = volume(memory, compressors=BLOSC)
    key = array.metadata.key_encoding.key((3, 2))
    whole = memory[key]
    for _ in range(20):
        memory[key] = bytes(whole)[:-1]
        with pytest.raises(zarr_gpu.errors.ChunkDecodeError, match=key):
            array[...]
        memory[key] = whole
        np.testing.assert_array_equal(array[...], numbers(256, 2048))


# ------------------------------------------------------------------------------ memory


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Call the result for the peak, in bytes, of what Python and NumPy allocate inside."""
    gc.collect()
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - base
    finally:
        tracemalloc.stop()


def vast(rows: int, shards: Any = None) -> zarr_gpu.Array:
    """100 chunks of 10 items in every row, none of them stored."""
    return zarr_gpu.create_array(
        {}, shape=(rows, 1000), chunks=(1, 10), dtype="u1", fill_value=9, shards=shards
    )


@pytest.mark.parametrize("shards", [None, (100, 100)])
def test_opening_many_chunks_takes_little_memory(shards: Any, tmp_path: Path) -> None:
    stored = vast(1000, shards)
    zarr_gpu.copy_store(stored.store, tmp_path)
    zarr_gpu.open_array(tmp_path)[0, 0]  # modules are loaded, once
    with traced() as peak:
        array = zarr_gpu.open_array(tmp_path)
        assert array.nchunks == 100_000
        assert array.info is not None
        assert array[-1, -1] == 9
        assert peak() < 5 * MIB


@pytest.mark.parametrize("shards", [None, (100, 100)])
def test_memory_of_a_read_is_its_result_and_a_bound(shards: Any) -> None:
    """Plans, keys and byte ranges exist for the batch in hand only."""
    array = vast(200, shards)
    assert array[0, 0] == 9
    with traced() as peak:
        result = array[...]
        assert peak() < result.nbytes + 12 * MIB
    assert (result == 9).all()


def test_memory_of_a_read_does_not_grow_with_the_number_of_chunks() -> None:
    peaks = []
    for rows in (200, 400):  # three batches, five batches
        array = vast(rows)
        out = np.empty(array.shape, "u1")
        with traced() as peak:
            array.get_basic_selection(out=out)
            peaks.append(peak())
    assert peaks[1] < 1.25 * peaks[0]


def test_memory_of_decoding_is_bounded() -> None:
    """32 MiB in chunks of 512 KiB, into memory of the caller."""
    array = zarr_gpu.create_array(
        {}, shape=(64, 512, 512), chunks=(1, 512, 512), dtype="u2", compressors=BLOSC
    )
    for plane in range(64):
        array[plane] = plane
    out = np.empty(array.shape, array.dtype)
    with traced() as peak:
        array.get_basic_selection(out=out)
        assert peak() < 8 * MIB
    assert (out[:, 5, 7] == np.arange(64)).all()


def test_memory_of_iterating_is_that_of_a_row_of_chunks() -> None:
    array = vast(30)
    peaks = []
    for _ in range(3):  # what other threads of the process allocate meanwhile counts too
        with traced() as peak:
            assert sum(int(row[0]) for row in array) == 270
            peaks.append(peak())
    assert min(peaks) < 2 * MIB


def test_memory_of_writing_is_bounded() -> None:
    """A value that broadcasts is never made as large as the selection."""
    array = zarr_gpu.create_array({}, shape=(4096, 4096), chunks=(256, 256), dtype="f8")
    with traced() as peak:
        array[...] = 0  # 128 MiB of fill value: nothing to store
        assert peak() < 16 * MIB
