"""Boxes read by the compiled loop without a plan: equal to NumPy, and what they ask of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from index_strategies import basic_selections

import zarr_gpu
from zarr_gpu import config
from zarr_gpu.boxes import make_box
from zarr_gpu.devices import compiled, cpu
from zarr_gpu.devices.scratch import scratch
from zarr_gpu.errors import ChunkDecodeError
from zarr_gpu.grid import ChunkGrid
from zarr_gpu.select import select
from zarr_gpu.storage import LocalStore, MemoryStore, ZipStore

pytest.importorskip("numba", reason="the compiled loop needs Numba: pip install 'zarr-gpu[fast]'")

ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> Iterator[None]:
    with config.set({"cpu.compiled": True}):
        compiled.prepare()
        yield


class Boxes:
    """Whether each box that was given to the loop was read by it."""

    def __init__(self) -> None:
        self.read: list[bool] = []
        self.loop = cpu.read_box

    def __call__(self, *arguments: Any) -> bool:
        self.read.append(self.loop(*arguments))
        return self.read[-1]


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> Boxes:
    spy = Boxes()
    monkeypatch.setattr(cpu, "read_box", spy)
    return spy


# ------------------------------------------------------------------------------------ values


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, np.ndarray]]:
    """Arrays by name; every third chunk is absent."""
    folder = tmp_path_factory.mktemp("boxes")
    made: dict[str, tuple[Any, np.ndarray]] = {}
    layouts: list[dict[str, Any]] = [
        {"shape": (23,), "chunks": (4,), "shards": (12,)},
        {"shape": (13, 22), "chunks": (3, 5), "chunk_key_encoding": {"name": "v2"}},
        {"shape": (13, 22), "chunks": (3, 5), "shards": (9, 10)},
        {"shape": (9, 11, 7), "chunks": (2, 3, 4), "shards": (4, 9, 8)},
        {"shape": (9, 11, 7), "chunks": (2, 3, 4), "serializer": "transposed"},
    ]
    for place in ("memory", "local", "zip"):
        for i, layout in enumerate(layouts):
            arguments = dict(layout)
            if arguments.pop("serializer", None):
                arguments["filters"] = [
                    {"name": "transpose", "configuration": {"order": [2, 0, 1]}}
                ]
            values = np.random.default_rng(i).integers(1, 9999, layout["shape"], "u2")
            store: Any = MemoryStore()
            if place != "memory":
                path = folder / f"{place}{i}"
                store = LocalStore(path) if place == "local" else ZipStore(path, mode="w")
            array = zarr_gpu.create_array(
                store, name="a/b", dtype="u2", compressors=ZSTD, fill_value=77, **arguments
            )
            grid = ChunkGrid.regular(values.shape, layout["chunks"])
            for n, chunk in enumerate(np.ndindex(grid.shape)):
                if n % 3 == 0:
                    edges = zip(chunk, layout["chunks"], strict=True)
                    values[tuple(slice(c * e, (c + 1) * e) for c, e in edges)] = 77
            array[...] = values
            if place == "zip":
                store.close()
                store = ZipStore(folder / f"zip{i}", mode="r")
            made[f"{place}{i}"] = zarr_gpu.open_array(store, path="a/b", mode="r"), values
    return made


@pytest.mark.parametrize("name", [f"{p}{i}" for p in ("memory", "local", "zip") for i in range(5)])
@example(data=None)
@given(data=st.data())
def test_boxes_equal(name: str, places: dict[str, Any], data: st.DataObject | None) -> None:
    """Steps both ways, integers, new axes; results in either order and given ones."""
    array, values = places[name]
    if data is None:  # all of it, backwards
        selection: Any = (slice(None, None, -1),) * values.ndim
        order = "F"
    else:
        selection = data.draw(basic_selections(values.shape))
        order = data.draw(st.sampled_from("CF"))
    spy = Boxes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "read_box", spy)
        expected = values[selection]
        got = array[selection]
        out = np.zeros(expected.shape, "u2", order=order)
        array.get_basic_selection(selection, out=out)
    assert np.array_equal(got, expected)
    assert np.array_equal(out, expected)
    box = make_box(select(selection, values.shape), array.layout.grid, array.device.box_chunks)
    assert spy.read == ([] if box is None else [True, True])


def test_boxes_of_many_chunks_and_long_steps_are_planned(boxes: Boxes) -> None:
    array = zarr_gpu.create_array({}, data=np.arange(3000), chunks=2)
    assert np.array_equal(array[:2048], np.arange(2048))
    assert np.array_equal(array[1:2049:3], np.arange(1, 2049, 3))
    assert array[2:3:7] == 2
    assert boxes.read == [True, True]
    assert np.array_equal(array[:2049], np.arange(2049))
    assert len(boxes.read) == 2


def test_a_chunk_that_is_damaged_is_named(boxes: Boxes, tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, data=np.arange(60), chunks=10, compressors=ZSTD)
    (tmp_path / "c" / "3").write_bytes(b"no frame")
    with pytest.raises(ChunkDecodeError, match="c/3"):
        array[5:45]
    assert boxes.read == [False]
    assert np.array_equal(array[5:30], np.arange(5, 30))


def test_nothing_is_written_to_what_is_read_only(tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path, data=np.arange(6), chunks=3)
    out = np.zeros(6, np.int64)
    out.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        array.get_basic_selection(out=out)
    assert not out.any()


# ---------------------------------------------------------------------------- parts of frames


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, np.ndarray]]:
    """Chunks of 18 blocks of Blosc and a rest, by inner codec, shuffle and place."""
    folder = tmp_path_factory.mktemp("frames")
    values = (np.arange(2 * 2300) ** 2 % 977).astype("u4")
    made = {}
    for cname in ("lz4", "blosclz", "zstd"):
        for shuffle in ("noshuffle", "shuffle", "bitshuffle"):
            codec = {"typesize": 4, "cname": cname, "clevel": 5, "shuffle": shuffle}
            for shards in (None, values.shape):
                name = f"{cname} {shuffle} {'shard' if shards else 'file'}"
                array = zarr_gpu.create_array(
                    folder / name,
                    data=values,
                    chunks=2300,
                    shards=shards,
                    compressors={"name": "blosc", "configuration": {**codec, "blocksize": 512}},
                )
                items: dict[str, bytes] = {}
                zarr_gpu.copy_store(array.store, items)
                made[name] = array, values
                made[f"{name} in memory"] = zarr_gpu.open_array(items), values
    return made


@given(data=st.data())
def test_parts_of_blosc_frames(framed: dict[str, Any], data: st.DataObject) -> None:
    array, values = framed[data.draw(st.sampled_from(sorted(framed)))]
    lo, hi = sorted(data.draw(st.tuples(*[st.integers(0, len(values))] * 2)))
    step = data.draw(st.sampled_from([1, 1, 1, 2, -1]))
    part = slice(lo, hi) if step > 0 else slice(hi, lo, step)
    spy = Boxes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "read_box", spy)
        assert np.array_equal(array[part][::step], values[part][::step])
    assert all(spy.read)


def blocks(folder: Path, checksum: bool = False) -> tuple[zarr_gpu.Array, np.ndarray, Path]:
    """A chunk of four blocks of Zstandard, of 128 KiB each; the last is damaged."""
    values = np.random.default_rng(3).integers(0, 900, (64, 4096), "u2")
    codec = {"name": "zstd", "configuration": {"level": 1, "checksum": checksum}}
    array = zarr_gpu.create_array(folder, data=values, chunks=values.shape, compressors=codec)
    path = folder / "c" / "0" / "0"
    frame = bytearray(path.read_bytes())
    frame[-2000:-1000] = bytes(1000)
    path.write_bytes(frame)
    return array, values, path


def test_of_a_zstd_frame_blocks_behind_what_is_needed_are_not_decoded(
    boxes: Boxes, tmp_path: Path
) -> None:
    array, values, _ = blocks(tmp_path)
    assert np.array_equal(array[30:48], values[30:48])
    assert np.array_equal(array[5, ::-1], values[5, ::-1])
    assert boxes.read == [True, True]
    with pytest.raises(ChunkDecodeError, match="zstd"):
        array[30:49]


def test_a_zstd_frame_with_a_checksum_is_checked(tmp_path: Path) -> None:
    array, _, _ = blocks(tmp_path, checksum=True)
    with pytest.raises(ChunkDecodeError, match="zstd"):
        array[:16]


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b + b])
def test_a_zstd_frame_that_does_not_end_where_it_should_is_refused(
    change: Any, tmp_path: Path
) -> None:
    array, _, path = blocks(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ChunkDecodeError, match="zstd"):
        array[:16]


def test_the_rest_behind_the_last_full_block_is_read_with_that(
    boxes: Boxes, tmp_path: Path
) -> None:
    """A frame that is made of the rest alone would be none: the block before must be there."""
    values = np.random.default_rng(2).integers(0, 900, 50_000).astype("u4")
    codec = {"typesize": 4, "cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 1 << 15}
    array = zarr_gpu.create_array(
        tmp_path, data=values, chunks=50_000, compressors={"name": "blosc", "configuration": codec}
    )
    scratch.encoded.empty(1 << 19)[:] = 255  # what was read before does not help
    assert np.array_equal(array[-100:], values[-100:])
    assert boxes.read == [True]
