"""Of uncompressed chunks only what is needed is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.errors import ChunkDecodeError
from zarr_gpu.storage import CountingStore, MemoryStore

VALUES = np.arange(40 * 6000, dtype="<i4").reshape(40, 6000)
CHUNK = 20 * 3000 * 4


def counted(**arguments: Any) -> tuple[zarr_gpu.Array, CountingStore]:
    items: dict[str, bytes] = {}
    arguments.setdefault("compressors", None)
    zarr_gpu.create_array(items, data=VALUES, chunks=(20, 3000), **arguments)
    store = CountingStore(MemoryStore(items))
    array = zarr_gpu.open_array(store)
    store.reset()
    return array, store


CASES: list[tuple[Any, int]] = [
    ((25,), 2 * 3000 * 4),
    ((25, slice(2990, 3010)), 2 * 10 * 4),
    ((slice(24, 20, -1), 5), (3 * 3000 + 1) * 4),
    ((39, 5999), 4),
    ((slice(None), slice(None)), 4 * CHUNK),
    ((slice(2, 18, 5), slice(0, 3)), (15 * 3000 + 3) * 4),  # nearly all: the whole chunk
]


@pytest.mark.parametrize(("selection", "nbytes"), CASES)
def test_ranges(selection: Any, nbytes: int) -> None:
    array, store = counted()
    assert np.array_equal(array[selection], VALUES[selection])
    whole = nbytes > 0.5 * CHUNK * store.count("read")
    assert store.bytes_read == (store.count("read") * CHUNK if whole else nbytes)


def test_lookups() -> None:
    array, store = counted()
    assert np.array_equal(array.oindex[[3, 1, 3], 4000:4005], VALUES[[3, 1, 3], 4000:4005])
    assert store.bytes_read == (2 * 3000 + 5) * 4
    store.reset()
    rows, columns = [0, 39, 1], [2, 5999, 0]
    assert np.array_equal(array.vindex[rows, columns], VALUES[rows, columns])
    assert store.bytes_read == (3000 - 2 + 1) * 4 + 4


@pytest.mark.parametrize("order", ["C", "F"])
def test_version_2(order: str) -> None:
    array, store = counted(zarr_format=2, order=order)
    assert np.array_equal(array[:, 7], VALUES[:, 7])
    assert store.bytes_read == (2 * 20 * 4 if order == "F" else 2 * CHUNK)


def test_shards() -> None:
    items: dict[str, bytes] = {}
    array = zarr_gpu.create_array(
        items, data=VALUES, chunks=(20, 3000), shards=(40, 6000), compressors=None
    )
    store = CountingStore(MemoryStore(items))
    array = zarr_gpu.open_array(store)
    store.reset()
    assert np.array_equal(array[25], VALUES[25])
    assert store.bytes_read < CHUNK


def test_absent_chunks_and_damage() -> None:
    array, store = counted(fill_value=7)
    store.remove("c/0/0")
    assert (array[3, :3000] == 7).all()
    good = store.get("c/0/1")
    assert good is not None
    store.put("c/0/1", good[:100])
    assert np.array_equal(array[0, 3000:3003], VALUES[0, 3000:3003])  # this part is there
    with pytest.raises(ChunkDecodeError, match="c/0/1"):
        array[3, 3000:]
