"""Arrays and groups on every store.

A test class inherits ``StoreArraySuite`` and supplies the fixture ``store``: an empty, writable
store.  Where what was written is read in another way (a server of files, a zip file closed and
opened again), ``readable`` makes that reading store; everything is read through it.
"""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import zarr_gpu
from zarr_gpu.errors import ArrayNotFoundError, ChunkDecodeError, ContainsNodeError
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


def ramp(*shape: int, dtype: Any = "int32") -> npt.NDArray[Any]:
    """Distinct values from 1, so that none of them is the fill value."""
    return np.arange(1, 1 + int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)


class StoreArraySuite:
    """Inherit and supply ``store``."""

    many_chunks = 1000
    """How many chunks the test of a large read writes."""

    cannot_pickle: tuple[type[Exception], ...] = ()
    """What pickling raises, where a store that is open for writing cannot be pickled."""

    def readable(self, store: Store) -> Store:
        """The store through which to read what was written to ``store``; itself by default."""
        return store

    def read(self, store: Store, path: str = "", **arguments: Any) -> npt.NDArray[Any]:
        """An array as a whole, opened anew."""
        array = zarr_gpu.open_array(self.readable(store), path=path, mode="r", **arguments)
        return np.asarray(array[...])

    # ---- one array -----------------------------------------------------------------------------

    @FORMATS
    def test_an_array_comes_back(self, store: Store, zarr_format: int) -> None:
        values = ramp(23, 17)
        array = zarr_gpu.create_array(
            store, name="a/b", shape=(23, 17), chunks=(5, 4), dtype="int32", zarr_format=zarr_format
        )
        array[...] = values
        assert np.array_equal(self.read(store, "a/b"), values)
        assert np.array_equal(self.read(store, "a/b", zarr_format=zarr_format), values)

    @FORMATS
    def test_an_array_at_the_root(self, store: Store, zarr_format: int) -> None:
        array = zarr_gpu.create_array(
            store, shape=10, chunks=3, dtype="f8", zarr_format=zarr_format, attributes={"µ": [1]}
        )
        array[:] = ramp(10, dtype="f8")
        opened = zarr_gpu.open(self.readable(store), mode="r")
        assert isinstance(opened, zarr_gpu.Array)
        assert opened.attrs["µ"] == [1]
        assert np.array_equal(opened[2:9:3], ramp(10, dtype="f8")[2:9:3])

    @pytest.mark.parametrize(
        "dtype", ["bool", "uint8", "int16", "float32", "complex64", "datetime64[s]", "U5"]
    )
    def test_types(self, store: Store, dtype: str) -> None:
        values = ramp(12, dtype="int64").astype(dtype)
        array = zarr_gpu.create_array(store, name="x", shape=12, chunks=5, dtype=values.dtype)
        array[:] = values
        assert np.array_equal(self.read(store, "x"), values)

    def test_text_of_any_length(self, store: Store) -> None:
        values = np.array(["", "é", "long" * 500, "\0x"], dtype=object)
        zarr_gpu.create_array(store, name="x", shape=4, chunks=2, dtype=str)[:] = values
        assert self.read(store, "x").tolist() == values.tolist()

    @pytest.mark.parametrize("codec", ["none", "gzip", "zstd", "blosc", "crc32c"])
    def test_codecs(self, store: Store, codec: str) -> None:
        compressors: Any = {
            "none": None,
            "gzip": {"name": "gzip", "configuration": {"level": 1}},
            "zstd": {"name": "zstd", "configuration": {"level": 1, "checksum": True}},
            "blosc": {
                "name": "blosc",
                "configuration": {
                    "cname": "lz4",
                    "clevel": 5,
                    "shuffle": "shuffle",
                    "typesize": 4,
                    "blocksize": 0,
                },
            },
            "crc32c": [{"name": "crc32c"}],
        }[codec]
        array = zarr_gpu.create_array(
            store, name="x", shape=(40, 30), chunks=(13, 30), dtype="i4", compressors=compressors
        )
        array[...] = ramp(40, 30)
        assert np.array_equal(self.read(store, "x"), ramp(40, 30))

    def test_absent_chunks_are_the_fill_value(self, store: Store) -> None:
        array = zarr_gpu.create_array(
            store, name="x", shape=(10, 10), chunks=(4, 4), dtype="i2", fill_value=-7
        )
        array[4:6, 5] = 3
        expected = np.full((10, 10), -7, np.int16)
        expected[4:6, 5] = 3
        assert np.array_equal(self.read(store, "x"), expected)
        assert list(self.readable(store).list_prefix("x/c")) == ["x/c/1/1"]

    def test_parts_of_chunks_are_merged(self, store: Store) -> None:
        expected = ramp(20, 20)
        array = zarr_gpu.create_array(store, name="x", shape=(20, 20), chunks=(8, 8), dtype="i4")
        array[...] = expected
        array[3:15, 7] = expected[3:15, 7] = -1
        array[::6, ::7] = expected[::6, ::7] = -2
        array.oindex[[1, 19], [0, 3, 8]] = 5
        expected[np.ix_([1, 19], [0, 3, 8])] = 5
        assert np.array_equal(self.read(store, "x"), expected)
        opened = zarr_gpu.open_array(self.readable(store), path="x", mode="r")
        assert np.array_equal(opened[5:17, 2:3], expected[5:17, 2:3])
        assert np.array_equal(opened.vindex[[0, 19], [19, 0]], expected[[0, 19], [19, 0]])

    def test_chunks_of_fill_values_leave_the_store(self, store: Store) -> None:
        array = zarr_gpu.create_array(store, name="x", shape=8, chunks=4, dtype="i4")
        array[:] = ramp(8)
        array[:4] = 0
        assert list(self.readable(store).list_prefix("x/c")) == ["x/c/1"]
        assert self.read(store, "x").tolist() == [0, 0, 0, 0, 5, 6, 7, 8]

    @FORMATS
    def test_append_and_resize(self, store: Store, zarr_format: int) -> None:
        array = zarr_gpu.create_array(
            store, name="x", shape=(5, 6), chunks=(2, 4), dtype="i4", zarr_format=zarr_format
        )
        array[...] = ramp(5, 6)
        for _ in range(3):
            array.append(ramp(3, 6))
        expected = np.concatenate([ramp(5, 6), *[ramp(3, 6)] * 3])
        assert np.array_equal(self.read(store, "x"), expected)
        array.resize((4, 3))
        assert np.array_equal(self.read(store, "x"), expected[:4, :3])
        array.resize((4, 6))
        grown = np.zeros((4, 6), np.int32)
        grown[:, :3] = expected[:4, :3]
        read = self.read(store, "x")
        assert read.shape == (4, 6)
        assert np.array_equal(read[:, :3], grown[:, :3])

    def test_a_large_value(self, store: Store) -> None:
        values = np.random.default_rng(0).integers(0, 256, (3, 1 << 21), np.uint8)
        array = zarr_gpu.create_array(
            store, name="x", shape=values.shape, chunks=(1, 1 << 21), dtype="u1", compressors=None
        )
        array[...] = values
        opened = zarr_gpu.open_array(self.readable(store), path="x", mode="r")
        assert np.array_equal(opened[1], values[1])
        assert np.array_equal(opened[:, -5:], values[:, -5:])

    def test_many_chunks_in_one_read(self, store: Store) -> None:
        n = self.many_chunks
        values = ramp(n, 3)
        array = zarr_gpu.create_array(store, name="x", shape=(n, 3), chunks=(1, 3), dtype="i4")
        array[...] = values
        counting = CountingStore(self.readable(store))
        opened = zarr_gpu.open_array(counting, path="x", mode="r")
        counting.reset()
        assert np.array_equal(opened[...], values)
        assert sorted(counting.keys_read) == sorted(f"x/c/{i}/0" for i in range(n))
        assert counting.count("size") == counting.count("list") == 0

    # ---- shards --------------------------------------------------------------------------------

    def sharded(self, store: Store, values: npt.NDArray[Any]) -> zarr_gpu.Array:
        array = zarr_gpu.create_array(
            store,
            name="s",
            shape=values.shape,
            chunks=(4, 4),
            shards=(16, 16),
            dtype=values.dtype,
            compressors={"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        )
        array[...] = values
        return array

    def test_shards(self, store: Store) -> None:
        values = ramp(40, 36)
        self.sharded(store, values)
        assert len(list(self.readable(store).list_prefix("s/c"))) == 9
        assert np.array_equal(self.read(store, "s"), values)
        opened = zarr_gpu.open_array(self.readable(store), path="s", mode="r")
        assert np.array_equal(opened[15:18, ::5], values[15:18, ::5])
        assert np.array_equal(
            opened.oindex[[0, 39], [35, 0, 16]], values[np.ix_([0, 39], [35, 0, 16])]
        )

    def test_a_window_of_a_shard_reads_a_part_of_it(self, store: Store) -> None:
        values = np.random.default_rng(0).integers(0, 1 << 30, (256, 256), np.int32)
        array = zarr_gpu.create_array(
            store,
            name="s",
            shape=(256, 256),
            chunks=(32, 32),
            shards=(256, 256),
            dtype="i4",
            compressors=None,
        )
        array[...] = values
        counting = CountingStore(self.readable(store))
        counting.max_gap = 0
        opened = zarr_gpu.open_array(counting, path="s", mode="r")
        counting.reset()
        assert np.array_equal(opened[32:64, 64:96], values[32:64, 64:96])
        assert set(counting.keys_read) == {"s/c/0/0"}
        assert counting.count("read") == 2  # the index and the chunk
        assert counting.bytes_read == 32 * 32 * 4 + 64 * 16 + 4

    def test_parts_of_shards_are_merged(self, store: Store) -> None:
        values = ramp(40, 36)
        array = self.sharded(store, values)
        array[10:20, 3] = values[10:20, 3] = -1
        array[0:4, 0:4] = values[0:4, 0:4] = 0
        assert np.array_equal(self.read(store, "s"), values)
        array.append(ramp(8, 36))
        assert np.array_equal(self.read(store, "s"), np.concatenate([values, ramp(8, 36)]))

    # ---- groups --------------------------------------------------------------------------------

    @FORMATS
    def test_groups(self, store: Store, zarr_format: int) -> None:
        root = zarr_gpu.create_group(store, zarr_format=zarr_format, attributes={"title": "é"})
        root.create_group("one/two", attributes={"n": 2})
        root.create_array("one/x", shape=3, chunks=3, dtype="i4")[:] = ramp(3)
        root.create_array("y", shape=(), dtype="f4")[...] = 2.5
        opened = zarr_gpu.open_group(self.readable(store), mode="r", use_consolidated=False)
        assert opened.zarr_format == zarr_format
        assert opened.attrs["title"] == "é"
        assert sorted(opened) == ["one", "y"]
        assert sorted(opened.group_keys()) == ["one"]
        assert sorted(opened.array_keys()) == ["y"]
        names = sorted(name for name, _ in opened.members(max_depth=None))
        assert names == ["one", "one/two", "one/x", "y"]
        assert opened["one/two"].attrs["n"] == 2
        assert np.asarray(opened["y"][...]) == np.float32(2.5)
        assert "one/nothing" not in opened
        with pytest.raises(ArrayNotFoundError):
            zarr_gpu.open_array(self.readable(store), path="one/two", mode="r")

    @FORMATS
    def test_consolidated_metadata(self, store: Store, zarr_format: int) -> None:
        root = zarr_gpu.create_group(store, zarr_format=zarr_format)
        for i in range(5):
            root.create_array(f"g/{i}", shape=4, chunks=2, dtype="i4", attributes={"i": i})[:] = i
        zarr_gpu.consolidate_metadata(store)
        counting = CountingStore(self.readable(store))
        opened = zarr_gpu.open_group(counting, mode="r", use_consolidated=True)
        counting.reset()
        assert [opened[f"g/{i}"].attrs["i"] for i in range(5)] == list(range(5))
        assert sorted(opened["g"]) == [str(i) for i in range(5)]
        assert counting.calls == []
        assert opened["g/3"][...].tolist() == [3, 3, 3, 3]

    def test_attributes_change(self, store: Store) -> None:
        array = zarr_gpu.create_array(store, name="x", shape=3, dtype="i4", attributes={"a": 1})
        array.attrs["b"] = {"deep": [1.5, None, "text"]}
        array.attrs["a"] = 2
        opened = zarr_gpu.open_array(self.readable(store), path="x", mode="r")
        assert dict(opened.attrs) == {"a": 2, "b": {"deep": [1.5, None, "text"]}}

    def test_deleting_and_moving(self, store: Store) -> None:
        root = zarr_gpu.create_group(store)
        root.create_array("a/x", shape=6, chunks=2, dtype="i4")[:] = ramp(6)
        root.create_array("b", shape=6, chunks=2, dtype="i4")[:] = 1
        root.move("a", "moved/here")
        del root["b"]
        opened = zarr_gpu.open_group(self.readable(store), mode="r")
        names = sorted(name for name, _ in opened.members(max_depth=None))
        assert names == ["moved", "moved/here", "moved/here/x"]
        assert np.array_equal(opened["moved/here/x"][...], ramp(6))
        keys = list(self.readable(store).list_prefix())
        assert not any(key.startswith(("a/", "b/")) for key in keys)

    def test_overwriting(self, store: Store) -> None:
        zarr_gpu.create_array(store, name="x", shape=6, chunks=2, dtype="i4")[:] = ramp(6)
        with pytest.raises(ContainsNodeError):
            zarr_gpu.create_array(store, name="x", shape=3, dtype="i2")
        zarr_gpu.create_array(store, name="x", shape=3, dtype="i2", overwrite=True)
        assert self.read(store, "x").tolist() == [0, 0, 0]

    # ---- the rest ------------------------------------------------------------------------------

    def test_threads_write_chunks_of_one_array(self, store: Store) -> None:
        array = zarr_gpu.create_array(store, name="x", shape=(8, 50), chunks=(1, 50), dtype="i4")
        failures: list[BaseException] = []

        def work(i: int) -> None:
            try:
                array[i] = i + 1
                assert (np.asarray(array[i]) == i + 1).all()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert np.array_equal(self.read(store, "x"), np.repeat(np.arange(1, 9), 50).reshape(8, 50))

    def test_a_pickled_array_reads(self, store: Store) -> None:
        zarr_gpu.create_array(store, name="x", shape=6, chunks=2, dtype="i4")[:] = ramp(6)
        opened = zarr_gpu.open_array(self.readable(store), path="x", mode="r")
        if self.cannot_pickle:
            with pytest.raises(self.cannot_pickle, match="pickl"):
                pickle.dumps(opened)
            return
        copy = pickle.loads(pickle.dumps(opened))
        assert np.array_equal(copy[...], ramp(6))

    def test_a_damaged_chunk_is_an_error(self, store: Store) -> None:
        array = zarr_gpu.create_array(store, name="x", shape=6, chunks=2, dtype="i4")
        array[:] = ramp(6)
        store.put("x/c/1", b"damaged")
        with pytest.raises(ChunkDecodeError) as caught:
            self.read(store, "x")
        assert caught.value.key == "x/c/1"

    def test_copying_to_memory_and_back(self, store: Store) -> None:
        root = zarr_gpu.create_group(store, attributes={"a": 1})
        root.create_array("g/x", shape=6, chunks=2, dtype="i4")[:] = ramp(6)
        memory = MemoryStore()
        source = self.readable(store)
        copied, _, _ = zarr_gpu.copy_store(source, memory)
        keys = list(source.list_prefix())
        assert copied == len(keys)
        assert list(memory.list_prefix()) == keys
        assert all(memory.get(key) == source.get(key) for key in keys)
        store.delete_prefix("")
        zarr_gpu.copy_store(memory, store)
        assert list(self.readable(store).list_prefix()) == keys
        assert np.array_equal(self.read(store, "g/x"), ramp(6))
