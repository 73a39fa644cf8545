"""Memory that is used again."""

from __future__ import annotations

import gc

import numpy as np

import zarr_gpu
from zarr_gpu.devices.scratch import PAGE, ResultPool, ScratchMemory, aligned


def test_memory_begins_at_a_page() -> None:
    for nbytes in (1, PAGE, 1 << 20):
        memory = aligned(nbytes)
        assert len(memory) == nbytes
        assert memory.ctypes.data % PAGE == 0
    scratch = ScratchMemory()
    first = scratch.empty(1000)
    assert scratch.empty(900).ctypes.data == first.ctypes.data
    assert first.ctypes.data % PAGE == 0
    array = zarr_gpu.create_array({}, data=np.zeros((1 << 21,), "u1"))
    assert array[...].ctypes.data % PAGE == 0


def test_results_that_are_gone_are_used_again() -> None:
    pool = ResultPool()
    first = pool.take(5000, 1 << 20)
    view = first[10:20].reshape(2, 5)
    where = first.ctypes.data
    del first
    gc.collect()
    assert pool.nbytes == 0  # somebody looks at it still
    assert pool.take(5000, 1 << 20).ctypes.data != where
    view[...] = 3
    del view
    gc.collect()
    assert pool.nbytes > 0
    second = pool.take(4000, 1 << 20)
    assert len(second) == 4000
    assert pool.take(100, 1 << 20).ctypes.data != second.ctypes.data


def test_no_more_is_kept_than_allowed() -> None:
    pool = ResultPool()
    blocks = [pool.take(5000, 12_000) for _ in range(4)]
    del blocks
    gc.collect()
    assert pool.nbytes == 10_000
    large = pool.take(50_000, 12_000)
    del large
    gc.collect()
    assert pool.nbytes <= 12_000


def test_reading_with_recycled_results() -> None:
    values = np.arange(1 << 20, dtype="u2").reshape(1024, 1024)
    array = zarr_gpu.create_array({}, data=values, chunks=(256, 256))
    with zarr_gpu.config.set({"cpu.recycle_bytes": 64 << 20}):
        kept = array[...]
        for _ in range(3):
            assert np.array_equal(array[::-1], values[::-1])
        assert np.array_equal(kept, values)
