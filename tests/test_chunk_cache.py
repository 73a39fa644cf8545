"""Decoded chunks kept in memory: what is found, what is dropped, how much there is."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu import ChunkCache, DeviceCache
from zarr_gpu.errors import ChunkDecodeError, DeviceError
from zarr_gpu.storage import CountingStore, MemoryStore

VALUES = np.arange(20 * 30, dtype="i4").reshape(20, 30)


def cached(nbytes: int = 1 << 20, **arguments: Any) -> tuple[zarr_gpu.Array, CountingStore]:
    items: dict[str, bytes] = {}
    arguments.setdefault("chunks", (5, 10))
    zarr_gpu.create_array(items, data=VALUES, **arguments)
    store = CountingStore(MemoryStore(items))
    array = zarr_gpu.open_array(store, device="cpu", cache=ChunkCache(nbytes))
    store.reset()
    return array, store


def chunk_reads(store: CountingStore) -> int:
    return sum(key.startswith("c/") for key in store.keys_read)


@pytest.mark.parametrize("shards", [None, (10, 30)])
def test_overlapping_reads_decode_once(shards: Any) -> None:
    array, store = cached(shards=shards)
    selections: list[Any] = [..., (slice(3, 9), slice(5, 25)), (slice(None, None, -2), 7), (19, 29)]
    for selection in selections:
        assert np.array_equal(array[selection], VALUES[selection])
    assert np.array_equal(array.oindex[[3, 19, 3], 5:], VALUES[[3, 19, 3], 5:])
    assert np.array_equal(array.vindex[[3, 19], [0, 29]], VALUES[[3, 19], [0, 29]])
    cache: Any = array.cache
    assert cache.misses == 12
    assert cache.hits > 10
    if shards is None:
        assert chunk_reads(store) == 12


def test_absent_chunks_are_known() -> None:
    items: dict[str, bytes] = {}
    array = zarr_gpu.create_array(items, shape=8, chunks=4, dtype="u1", fill_value=7)
    store = CountingStore(MemoryStore(items))
    array = zarr_gpu.open_array(store, device="cpu", cache=ChunkCache(10_000))
    for _ in range(3):
        assert array[...].tolist() == [7] * 8
    assert chunk_reads(store) == 2


def test_results_are_not_the_cache() -> None:
    array, _ = cached()
    array[...][:] = 0
    array[5:10, :10][:] = 0
    assert np.array_equal(array[...], VALUES)


def test_writing_drops() -> None:
    array, _ = cached()
    assert array[0, 0] == 0
    array[0, 0] = 5
    assert array[0, 0] == 5
    other = zarr_gpu.open_array(array.store)
    other[0, 0] = 6
    assert array[0, 0] == 5  # other writers are not seen ...
    cache: Any = array.cache
    cache.clear()
    assert array[0, 0] == 6  # ... until that
    assert cache.nbytes_used > 0


def test_it_stays_within_its_bounds() -> None:
    room = 3 * (5 * 10 * 4 + 500)
    array, store = cached(room + 100)
    cache: Any = array.cache
    for _ in range(2):
        assert np.array_equal(array[...], VALUES)
        assert cache.nbytes_used == room
    assert chunk_reads(store) == 12 + 9  # three were still there
    store.reset()
    assert np.array_equal(array[10:15], VALUES[10:15])  # those read last are there
    assert chunk_reads(store) == 0
    small, store = cached(100)
    for _ in range(2):
        assert np.array_equal(small[...], VALUES)
    assert small.cache is not None
    assert small.cache.nbytes_used == 0


def test_arrays_share_a_cache() -> None:
    cache = ChunkCache(1 << 20)
    stores = [zarr_gpu.create_array({}, data=VALUES + n, chunks=(5, 10)).store for n in (0, 1)]
    arrays = [zarr_gpu.open_array(s, device="cpu", cache=cache) for s in stores]
    for n, array in enumerate(arrays):
        assert np.array_equal(array[...], VALUES + n)
    again = zarr_gpu.open_array(stores[0], device="cpu", cache=cache)
    assert np.array_equal(again[...], VALUES)
    assert (cache.hits, cache.misses) == (12, 24)


def test_what_was_read_before_a_write_is_not_kept() -> None:
    array, _ = cached()
    cache: Any = array.cache
    part = cache.part(array.store, array.path)
    keeper = part.keeper()
    array[...] = 1
    keeper.put((0, 0), np.zeros((5, 10), "i4"))
    assert (array[...] == 1).all()


def test_fields_text_and_structures() -> None:
    dtype = np.dtype([("a", "i2"), ("b", "f4")])
    values = np.array([(i, i / 2) for i in range(10)], dtype)
    array = zarr_gpu.create_array({}, data=values, chunks=4, zarr_format=2)
    array = array.with_cache(ChunkCache(1 << 20))
    for _ in range(2):
        assert np.array_equal(array["b", 2:7], values["b"][2:7])
        assert np.array_equal(array[1:9], values[1:9])
    text = zarr_gpu.create_array({}, shape=5, chunks=2, dtype=str)
    text[...] = np.array(list("abcde"), object)
    text = text.with_cache(ChunkCache(1 << 20))
    for _ in range(2):
        assert text[1:].tolist() == list("bcde")


def test_threads() -> None:
    array, _ = cached(8 * 700)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            a, b = (int(v) for v in rng.integers(0, 15, 2))
            if not np.array_equal(array[a : a + 5, b : b + 9], VALUES[a : a + 5, b : b + 9]):
                wrong.append((a, b))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_damage_is_not_kept() -> None:
    array, store = cached()
    good = store.get("c/0/0")
    assert good is not None
    store.put("c/0/0", good[:-1])
    for _ in range(2):
        with pytest.raises(ChunkDecodeError, match="c/0/0"):
            array[0, 0]
    store.put("c/0/0", good)
    assert array[0, 0] == 0


def test_what_a_cache_is_given() -> None:
    for wrong in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match="bytes"):
            ChunkCache(wrong)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="DeviceCache"):
        zarr_gpu.create_array({}, shape=1, dtype="u1").with_cache(DeviceCache(1 << 20))
    with pytest.raises(TypeError, match="ChunkCache"):
        zarr_gpu.create_array({}, shape=1, dtype="u1").with_cache(10)  # type: ignore[arg-type]
    copy = pickle.loads(pickle.dumps(ChunkCache(1000)))
    assert (copy.nbytes, copy.nbytes_used) == (1000, 0)
    assert "0 of 1000 bytes" in repr(copy)
