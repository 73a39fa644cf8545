"""The scripts of examples/ run, and do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarr_gpu

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_every_example_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'load("{path.stem}")' in source


def test_patch_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("patch_batches")
    example["main"](["--batches", "3"])
    assert capsys.readouterr().out.count("(4, 32, 48, 48) uint16") == 3
    volumes = [zarr_gpu.open_array(path) for path in example["make_volumes"](str(tmp_path))]
    whole = [volume[...] for volume in volumes]
    boxes = example["random_boxes"]([v.shape for v in volumes], (5, 6, 7), 12, seed=3)
    batches = list(example["batches"](volumes, (5, 6, 7), size=4, n=3, seed=3))
    assert len(batches) == 3
    assert {i for i, _ in boxes} == {0, 1}
    np.testing.assert_array_equal(
        np.concatenate(batches), np.stack([whole[i][box] for i, box in boxes])
    )


def test_volume_pyramid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("volume_pyramid")
    example["main"]([str(tmp_path / "v.zarr")])
    assert "level 2: the same box is (4, 20, 20)" in capsys.readouterr().out
    group = zarr_gpu.open_group(str(tmp_path / "v.zarr"), mode="r")
    top = group["1"][...]
    np.testing.assert_array_equal(top, example["halve"](group["0"][...]))


def test_rechunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("rechunk")
    old = zarr_gpu.create_array(
        str(tmp_path / "old.zarr"),
        shape=(30, 20, 10),
        chunks=(7, 6, 5),
        dtype="f4",
        zarr_format=2,
        attributes={"unit": "m"},
    )
    values = np.random.default_rng(0).random(old.shape, dtype="f4")
    old[...] = values
    arguments = [str(tmp_path / "old.zarr"), str(tmp_path / "new.zarr")]
    example["main"]([*arguments, "--chunks", "4", "4", "5", "--shards", "8", "20", "10"])
    assert "bytes became" in capsys.readouterr().out
    new = zarr_gpu.open_array(str(tmp_path / "new.zarr"), mode="r")
    np.testing.assert_array_equal(new[...], values)
    assert new.metadata.zarr_format == 3
    assert (new.chunks, new.shards) == ((4, 4, 5), (8, 20, 10))
    assert dict(new.attrs) == {"unit": "m"}
