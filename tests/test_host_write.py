"""Boxes written by the compiled loop: what is stored is what the ordinary way stores."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_strategies import basic_selections

import zarr_gpu
from zarr_gpu import config
from zarr_gpu.devices import compiled, host_write
from zarr_gpu.errors import ChunkDecodeError, StoreError
from zarr_gpu.storage import LocalStore, atomic

pytest.importorskip("numba", reason="the compiled loop needs Numba: pip install 'zarr-gpu[fast]'")
if not compiled._supported():
    pytest.skip("platform: the compiled loop needs POSIX", allow_module_level=True)

CODECS: dict[str, Any] = {
    "raw": None,
    "blosc": {"name": "blosc", "configuration": {"typesize": 2, "cname": "zstd", "clevel": 1,
                                                 "shuffle": "bitshuffle", "blocksize": 64}},
    "zstd": {"name": "zstd", "configuration": {"level": 3, "checksum": True}},
    "lz4": {"name": "numcodecs.lz4", "configuration": {"acceleration": 2}},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> Iterator[None]:
    with config.set({"cpu.compiled": True}):
        compiled.prepare()
        yield


class Writes:
    """The rows that the loop has left, for each box that it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: list[list[int]] = []
        write = host_write.BoxWriter.__call__

        def spied(writer: Any, *arguments: Any) -> Any:
            rows = write(writer, *arguments)
            self.left.append(rows.tolist())
            return rows

        monkeypatch.setattr(host_write.BoxWriter, "__call__", spied)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    return Writes(monkeypatch)


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def names(folder: Path) -> list[str]:
    """What a folder contains."""
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("keys", ["default", "v2"])
@given(data=st.data())
def test_what_is_stored_is_the_same(
    codec: str, keys: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """File by file: what one and the other way leave behind after a few writes."""
    folder = tmp_path_factory.mktemp("writes")
    shape = data.draw(st.sampled_from([(23,), (9, 14), (5, 6, 7)]))
    dtype = data.draw(st.sampled_from(["u1", "<u2", "f4", "c16", "S3"]))
    fill = data.draw(st.sampled_from([0, 3])) if dtype != "S3" else b"ab"
    empty = data.draw(st.booleans())
    arrays = [
        zarr_gpu.create_array(
            folder / way,
            name="a",
            shape=shape,
            chunks=(4, 3, 5)[: len(shape)],
            dtype=dtype,
            fill_value=fill,
            compressors=CODECS[codec],
            chunk_key_encoding={"name": keys},
            config={"write_empty_chunks": empty},
        )
        for way in ("compiled", "ordinary")
    ]
    values = np.full(shape, fill, dtype)
    boxes = 0
    with pytest.MonkeyPatch.context() as patch:
        spy = Writes(patch)
        for _ in range(data.draw(st.integers(1, 4))):
            selection = data.draw(basic_selections(shape))
            part = values[selection]
            new = np.array(fill, dtype)
            if data.draw(st.booleans()):
                rng = np.random.default_rng(data.draw(st.integers(0, 9)))
                order = data.draw(st.sampled_from("CF"))
                new = np.array(rng.integers(0, 99, part.shape)).astype(dtype, order=order)
            for array, loop in zip(arrays, (True, False), strict=True):
                with config.set({"cpu.compiled": loop}):
                    array[selection] = new
            values[selection] = new
            boxes += bool(part.size)
        assert len(spy.left) == boxes
    assert files(folder / "compiled") == files(folder / "ordinary")
    assert np.array_equal(arrays[0][...], values)


def test_whole_chunks_lie_as_they_are(writes: Writes, tmp_path: Path) -> None:
    """Nothing is read, and nothing is left, of the first write and of the second."""
    values = np.random.default_rng(1).integers(0, 999, (40, 30), "u2")
    array = zarr_gpu.create_array(tmp_path, shape=(40, 30), chunks=(8, 30), dtype="u2")
    for _ in range(2):
        array[...] = values
    assert writes.left == [[], []]
    assert np.array_equal(array[...], values)
    assert names(tmp_path / "c" / "0") == ["0"]  # no temporary file


def test_values_that_are_broadcast(writes: Writes, tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, shape=(20, 30), chunks=(7, 8), dtype="f8", fill_value=1)
    expected = np.ones((20, 30))
    row = np.arange(30.0)
    array[3:17] = expected[3:17] = row
    array[:, 4:20] = expected[:, 4:20] = 2.5
    array[5, ::-2] = expected[5, ::-2] = row[::2]
    assert np.array_equal(array[...], expected)
    assert all(left == [] for left in writes.left)
    assert len(writes.left) == 3


def test_chunks_of_fill_value_are_removed(writes: Writes, tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, shape=40, chunks=10, dtype="i4", fill_value=7)
    array[5:35] = np.arange(30, dtype="i4")
    array[10:30] = 7
    assert names(tmp_path / "c") == ["0", "3"]
    assert writes.left == [[], [0, 1]]  # there were chunks to remove
    array[10:30] = 7
    assert writes.left[2:] == [[]]
    assert np.array_equal(array[4:11], [7, 0, 1, 2, 3, 4, 7])


# ---------------------------------------------------------------------------- what goes wrong


def test_a_damaged_chunk_is_named_and_kept(writes: Writes, tmp_path: Path) -> None:
    array = zarr_gpu.create_array(
        tmp_path, data=np.arange(40), chunks=10, compressors=CODECS["zstd"]
    )
    (tmp_path / "c" / "3").write_bytes(b"no frame")
    writes.left.clear()
    with pytest.raises(ChunkDecodeError, match="c/3"):
        array[5:35] = np.arange(30)
    assert writes.left == [[3]]
    assert (tmp_path / "c" / "3").read_bytes() == b"no frame"
    array[30:] = np.arange(10)  # all of it: what was there does not matter
    assert np.array_equal(array[30:], np.arange(10))


def test_what_dead_writers_left_is_taken_over(writes: Writes, tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, shape=20, chunks=10, dtype="u1")
    array[...] = 1
    (tmp_path / "c" / atomic.temporary_name("1")).write_bytes(b"half of it")
    array[...] = 2
    assert writes.left == [[], [1]]
    assert names(tmp_path / "c") == ["0", "1"]
    assert np.array_equal(array[...], np.full(20, 2))


def test_a_writer_that_is_at_it_is_left_alone(writes: Writes, tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, shape=20, chunks=10, dtype="u1")
    array[...] = 1
    name = tmp_path / "c" / atomic.temporary_name("1")
    with name.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        array[...] = 2
        assert name.exists()
    assert writes.left == [[], [1]]
    assert np.array_equal(array[...], np.full(20, 2))


def test_a_folder_in_place_of_a_chunk_is_an_error(tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, shape=20, chunks=10, dtype="u1")
    (tmp_path / "c" / "1" / "x").mkdir(parents=True)
    with pytest.raises(StoreError, match="c/1"):
        array[...] = 2
    assert names(tmp_path / "c") == ["0", "1"]


def test_durable_and_odd_stores_write_in_their_own_way(writes: Writes, tmp_path: Path) -> None:
    class Own(LocalStore):
        pass

    for store in (LocalStore(tmp_path, durable=True), Own(tmp_path), {}):
        array = zarr_gpu.create_array(store, shape=20, chunks=10, dtype="u1", overwrite=True)
        array[3:] = 1
        assert array[:5].tolist() == [0, 0, 0, 1, 1]
    assert not writes.left


def test_threads_that_write_parts_of_chunks_take_turns(tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, shape=(8, 64), chunks=(8, 16), dtype="u2")

    def write(row: int) -> None:
        for n in range(20):
            array[row] = np.full(64, 100 * row + n, "u2")

    threads = [threading.Thread(target=write, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(array[:, ::63], [[100 * r + 19] * 2 for r in range(8)])
