"""A microscope volume with its smaller copies: written slab by slab, read by physical position.

python examples/volume_pyramid.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import zarr_gpu

VOXEL_UM = (2.0, 0.65, 0.65)  # z, y, x


def write_plane_stacks(image: zarr_gpu.Array) -> None:
    """Fill an array as a camera would, one stack of planes after the other.

    A stack is as deep as a shard, so that every shard is written once.
    """
    assert image.shards is not None
    depth = image.shards[0]
    rng = np.random.default_rng(0)
    for z in range(0, image.shape[0], depth):
        stop = min(z + depth, image.shape[0])
        image[z:stop] = rng.poisson(40, (stop - z, *image.shape[1:]))


def halve(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean of 2 x 2 x 2 voxels; an odd last plane, row or column is left out."""
    z, y, x = (n // 2 for n in values.shape)
    blocks = values[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2)
    means: npt.NDArray[Any] = np.rint(blocks.mean(axis=(1, 3, 5)))
    return means.astype(values.dtype)


def add_level(group: zarr_gpu.Group, level: int) -> zarr_gpu.Array:
    """Make level ``level`` from the one before it, holding a few planes at a time."""
    source = group[str(level - 1)]
    assert isinstance(source, zarr_gpu.Array)
    shape = tuple(n // 2 for n in source.shape)
    target = group.create_array(
        str(level),
        shape=shape,
        chunks=source.chunks,
        shards=source.shards,
        dtype=source.dtype,
        attributes={"voxel_um": [2**level * edge for edge in VOXEL_UM]},
    )
    assert target.shards is not None
    depth = target.shards[0]
    for z in range(0, shape[0], depth):
        stop = min(z + depth, shape[0])
        target[z:stop] = halve(source[2 * z : 2 * stop])
    return target


def crop_um(
    group: zarr_gpu.Group, level: int, corner: Sequence[float], edge: Sequence[float]
) -> npt.NDArray[Any]:
    """The box at ``corner`` of size ``edge``, both in micrometres, at the resolution of a level."""
    array = group[str(level)]
    assert isinstance(array, zarr_gpu.Array)
    voxel = array.attrs["voxel_um"]
    box = tuple(
        slice(round(c / v), round((c + e) / v)) for c, e, v in zip(corner, edge, voxel, strict=True)
    )
    values: npt.NDArray[Any] = array[box]
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", help="where to write; default: a temporary folder")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        group = zarr_gpu.open_group(chosen.path or f"{folder}/volume.zarr", mode="w")
        image = group.create_array(
            "0",
            shape=(48, 192, 256),
            chunks=(8, 64, 64),
            shards=(16, 128, 128),
            dtype="uint16",
            attributes={"voxel_um": list(VOXEL_UM)},
            dimension_names=("z", "y", "x"),
        )
        write_plane_stacks(image)
        for level in (1, 2):
            add_level(group, level)
        print(group.tree())
        for level in (0, 1, 2):
            crop = crop_um(group, level, corner=(16, 26, 26), edge=(32, 52, 52))
            print(f"level {level}: the same box is {crop.shape}, mean {crop.mean():.2f}")


if __name__ == "__main__":
    main()
