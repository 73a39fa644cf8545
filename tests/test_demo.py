"""The demo: its volume, its boxes, its comparisons and its figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu import demo
from zarr_gpu.demo_volume import make_volume, save_picture
from zarr_gpu.errors import DataError, NodeNotFoundError


def volume_of(shape: tuple[int, int, int], **options: int) -> np.ndarray:
    return np.concatenate([counts for _, counts in make_volume(shape, **options)])


def test_volume_does_not_depend_on_the_slabs() -> None:
    shape = (20, 64, 80)
    whole = volume_of(shape, slab=20)
    assert whole.shape == shape
    assert whole.dtype == np.uint16
    np.testing.assert_array_equal(whole, volume_of(shape, slab=7))
    assert not np.array_equal(whole, volume_of(shape, seed=8))


def test_volume_looks_like_microscopy() -> None:
    volume = volume_of((64, 128, 128)).astype(float)
    dark = np.median(volume)
    assert 100 < dark < 130  # the camera's offset and a haze
    assert volume.max() > 4 * dark  # nuclei
    assert (volume < 1.3 * dark).mean() > 0.6  # most of it is background
    background = volume[volume < dark + 10]
    assert 1 < background.std() < 10  # noise


def test_picture(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    volume = volume_of((8, 40, 60))
    assert save_picture(volume, tmp_path / "a.png")
    with image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (60 + 8 + 60, 40)
        pixels = np.asarray(picture)
    assert pixels[:, :60].max() == 255
    assert pixels[:, :60].min() == 0
    assert (pixels[:, 68:] > 0).mean() > 0.5


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 5)),
        np.full((4, 5), np.nan),
        np.array([[np.inf, -np.inf], [np.nan, 1.0]]),
        np.eye(4, dtype=bool),
        np.arange(2000 * 3, dtype="i8").reshape(2000, 3),
        np.ones((1, 4, 5), "f2"),
        np.arange(2 * 3 * 4 * 5, dtype=">u4").reshape(2, 3, 4, 5),
    ],
)
def test_picture_of_anything_numeric(tmp_path: Path, values: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image")
    assert save_picture(values, tmp_path / "a.png")
    with image.open(tmp_path / "a.png") as picture:
        assert max(picture.size) <= 2 * 768 + 8


@pytest.mark.parametrize(
    "values", [np.zeros(4), np.zeros((0, 4)), np.array([["a"]]), np.ones((2, 2), "c8")]
)
def test_no_picture(tmp_path: Path, values: np.ndarray) -> None:
    assert not save_picture(values, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("shape", "chunks", "limit"),
    [
        ((100, 100, 100), (10, 10, 10), 10_000),
        ((100, 100, 100), (64, 64, 64), 1),
        ((7,), (2,), 3),
        ((5, 1000), (5, 1), 100),
        ((0, 5), (1, 5), 10),
        ((), (), 1),
        ((10, 10), (10, 10), 1000),
    ],
)
def test_bounded_box(shape: tuple[int, ...], chunks: tuple[int, ...], limit: int) -> None:
    box = demo.bounded_box(shape, chunks, 1, limit)
    edges = [b.stop - b.start for b in box]
    for b, length, chunk in zip(box, shape, chunks, strict=True):
        assert 0 <= b.start <= b.stop <= length
        assert b.start % chunk == 0
    assert np.prod(edges) <= limit or all(e <= c for e, c in zip(edges, chunks, strict=True))
    if np.prod(shape) <= limit:
        assert edges == list(shape)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (40, 50), (7, 8, 9), (2, 3, 40, 50, 60), (0, 3)])
def test_patches_lie_inside(shape: tuple[int, ...]) -> None:
    patch = demo.patch_shape_of(shape)
    assert len(patch) == len(shape)
    values = np.zeros(shape)
    for box in demo.draw_patches(shape, patch, 20, seed=0):
        assert values[box].shape == patch
        assert all(b.start >= 0 for b in box)


def test_patches_reach_every_place() -> None:
    starts = {box[0].start for box in demo.draw_patches((10,), (8,), 100, seed=0)}
    assert starts == {0, 1, 2}


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1, 3]), False),
        (np.array([1, 2]), np.array([[1, 2]]), False),
        (np.array([1, 2], "i4"), np.array([1, 2], "i8"), False),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.array([np.nan]), np.array([0.0]), False),
        (np.array(["NaT"], "M8[s]"), np.array(["NaT"], "M8[s]"), True),
        (np.array(["a", None], object), np.array(["a", None], object), True),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), False),
    ],
)
def test_same(a: np.ndarray, b: np.ndarray, equal: bool) -> None:
    assert demo.same(a, b) is equal


def test_generated(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    heard: list[tuple[str, float]] = []
    report = demo.run_on_generated(
        "small",
        picture=tmp_path / "demo.png",
        progress=lambda text, done: heard.append((text, done)),
    )
    assert report.equal
    assert [m.name for m in report.arrays] == ["blosc-lz4", "zstd"]
    for measured in report.arrays:
        assert measured.nbytes == 64 * 256 * 256 * 2
        assert measured.ratio > 1.3
        assert measured.shards == (64, 128, 128)
        assert measured.read_nbytes == measured.nbytes
        assert len(measured.patch_seconds) > 1
        assert measured.patch_quantile(0.5) <= measured.patch_quantile(0.99)
        assert {step.where for step in measured.steps} == {"cpu"}
    assert "blosc" in {step.codec for step in report.arrays[0].steps}
    assert "zstd" in {step.codec for step in report.arrays[1].steps}
    assert (tmp_path / "demo.png").stat().st_size > 1000
    assert [done for _, done in heard] == sorted(done for _, done in heard)
    assert heard[-1][1] == pytest.approx(1.0)
    json.dumps(report.to_dict(), allow_nan=False)


def test_wrong_values_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = zarr_gpu.Array.__getitem__

    def flip(array: zarr_gpu.Array, selection: object) -> np.ndarray:
        values = np.array(original(array, selection))
        values.flat[-1] ^= 1
        return values

    monkeypatch.setattr(zarr_gpu.Array, "__getitem__", flip)
    assert not demo.run_on_generated("small").equal


def test_store(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    group = zarr_gpu.open_group(str(tmp_path / "g.zarr"), mode="w")
    group.create_array("small", shape=(3,), chunks=(3,), dtype="i4")
    big = group.create_array("deep/big", shape=(9, 60, 70), chunks=(4, 16, 16), dtype="f4")
    big[...] = np.random.default_rng(0).random(big.shape)
    big[0, 0, 0] = np.nan
    report = demo.run_on_store(str(tmp_path / "g.zarr"), picture=tmp_path / "x.png", limit=50_000)
    (measured,) = report.arrays
    assert report.equal
    assert measured.name == "deep/big"
    assert measured.shape == (9, 60, 70)
    assert measured.read_nbytes <= 50_000
    assert report.picture == tmp_path / "x.png"
    assert report.picture.is_file()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array(["a", "bc", ""], dtype=object), "string"),
        (np.array(5), "i4"),
        (np.zeros((0, 3)), "f8"),
        (np.array(["2020-01-01", "NaT"], "M8[s]"), "M8[s]"),
    ],
)
def test_store_of_other_types(tmp_path: Path, values: np.ndarray, dtype: str) -> None:
    path = str(tmp_path / "a.zarr")
    array = zarr_gpu.create_array(path, shape=values.shape, dtype=dtype)
    array[...] = values
    report = demo.run_on_store(path, picture=tmp_path / "x.png")
    assert report.equal
    assert report.picture is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_group_without_arrays(tmp_path: Path) -> None:
    zarr_gpu.create_group(str(tmp_path / "g.zarr"))
    with pytest.raises(NodeNotFoundError, match="no array"):
        demo.run_on_store(str(tmp_path / "g.zarr"))


def test_damaged_store(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    array = zarr_gpu.create_array(str(path), shape=(8,), chunks=(4,), dtype="f8")
    array[:] = 1
    (path / "c" / "1").write_bytes(b"damaged")
    with pytest.raises(DataError, match="c/1"):
        demo.run_on_store(str(path))
