"""Threads that write parts of one stored object lose nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.write_locks import hold


@pytest.mark.parametrize(
    "layout",
    [{"chunks": (4, 64)}, {"chunks": (2, 8), "shards": (4, 64)}],
    ids=["chunk", "shard"],
)
def test_writers_of_one_object(layout: dict[str, Any]) -> None:
    store = MemoryStore()
    array = zarr_gpu.create_array(store, shape=(4, 64), dtype="i4", fill_value=-1, **layout)
    barrier = threading.Barrier(16)

    def write(thread: int) -> None:
        handle = zarr_gpu.open_array(store)  # every thread has its own
        barrier.wait()
        for i in range(16):
            row, start = divmod(thread * 16 + i, 64)
            handle[row, start] = thread * 16 + i

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    assert (array[...] == np.arange(256).reshape(4, 64)).all()


def test_a_write_of_whole_chunks_waits_for_nobody() -> None:
    store = MemoryStore()
    array = zarr_gpu.create_array(store, shape=8, chunks=4, dtype="u1")
    with hold(store, array.layout.prefix, None):
        array[:4] = 1  # would hang if it wanted a lock
    assert array[:].tolist() == [1] * 4 + [0] * 4


def test_locks_are_released_after_an_error() -> None:
    store = MemoryStore()
    with pytest.raises(KeyError), hold(store, "", ["a", "b"]):
        raise KeyError

    def take_all() -> bool:
        with hold(store, "", None):
            return True

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(take_all).result(5)
