"""Batches of random 3-D patches from several volumes, read ahead by one thread.

Run it on your own arrays (equal numbers of dimensions and data types), or on two made ones:

    python examples/patch_batches.py
    python examples/patch_batches.py a.zarr b.zarr --patch 64 96 96 --batch 8 --batches 20
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import zarr_gpu

Batch = npt.NDArray[Any]  # (patch, z, y, x)


def random_boxes(
    shapes: Sequence[tuple[int, ...]], patch: tuple[int, ...], n: int, seed: int
) -> list[tuple[int, tuple[slice, ...]]]:
    """``n`` pairs of (volume, box), spread evenly over all places in all volumes."""
    rng = np.random.default_rng(seed)
    room = np.array(
        [[length - edge + 1 for length, edge in zip(shape, patch, strict=True)] for shape in shapes]
    )
    if (room < 1).any():
        raise SystemExit(f"a volume is smaller than the patch {patch}")
    weight = room.prod(axis=1)
    chosen = rng.choice(len(shapes), size=n, p=weight / weight.sum())
    starts = rng.integers(room[chosen])
    return [
        (int(v), tuple(slice(s, s + edge) for s, edge in zip(start.tolist(), patch, strict=True)))
        for v, start in zip(chosen, starts, strict=True)
    ]


def batches(
    volumes: Sequence[zarr_gpu.Array], patch: tuple[int, ...], size: int, n: int, seed: int = 0
) -> Iterator[Batch]:
    """Yield ``n`` batches; while one is in use the next is being read."""
    boxes = random_boxes([volume.shape for volume in volumes], patch, size * n, seed)

    def read(i: int) -> Batch:
        batch = np.empty((size, *patch), volumes[0].dtype)
        for out, (volume, box) in zip(batch, boxes[i * size : (i + 1) * size], strict=True):
            volumes[volume].get_basic_selection(box, out=out)
        return batch

    with ThreadPoolExecutor(1) as ahead:
        pending = ahead.submit(read, 0)
        for i in range(1, n + 1):
            batch = pending.result()
            if i < n:
                pending = ahead.submit(read, i)
            yield batch


def make_volumes(folder: str) -> list[str]:
    """Two small volumes of different shapes."""
    paths = []
    for name, shape in {"a": (48, 128, 160), "b": (64, 160, 96)}.items():
        paths.append(str(Path(folder, f"{name}.zarr")))
        volume = zarr_gpu.create_array(
            paths[-1], shape=shape, chunks=(16, 32, 32), shards=(64, 64, 64), dtype="uint16"
        )
        volume[...] = np.random.default_rng(len(paths)).poisson(30, shape)
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--patch", nargs="+", type=int, default=[32, 48, 48])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=5)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        paths = chosen.paths or make_volumes(folder)
        volumes = [zarr_gpu.open_array(path, mode="r") for path in paths]
        for i, batch in enumerate(
            batches(volumes, tuple(chosen.patch), chosen.batch, chosen.batches)
        ):
            print(f"batch {i}: {batch.shape} {batch.dtype}, mean {batch.mean():.3f}")


if __name__ == "__main__":
    main()
