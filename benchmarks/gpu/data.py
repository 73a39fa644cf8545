"""What the benchmark reads: realistic values, and stores of them that are quick to make.

One slab is generated and compressed; its files are then linked under the keys of further slabs, so
that an array is several gibibytes large while a few hundred mebibytes were compressed.  Every file
is read through its own key all the same.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import zarr_gpu
from zarr_gpu.storage.local import LocalStore

Shape = tuple[int, ...]
Json = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    volume: Shape  # uint16, one slab
    field: Shape  # float32, one slab
    series: int  # float32, one slab
    chunk: Shape  # of volumes
    field_chunk: Shape
    series_chunk: int
    shard: Shape
    nbytes: int  # of an array, about
    patch: Shape
    patches: int
    repeat: int  # timed runs at most
    probe_nbytes: int  # decoded bytes of a probe

    @classmethod
    def gpu(cls, gib: float = 4) -> Sizes:
        return cls(
            volume=(256, 1024, 1024),
            field=(128, 1024, 1024),
            series=1 << 27,
            chunk=(64, 64, 64),
            field_chunk=(1, 512, 512),
            series_chunk=1 << 18,
            shard=(512, 512, 512),
            nbytes=int(gib * 2**30),
            patch=(128, 128, 128),
            patches=256,
            repeat=5,
            probe_nbytes=256 << 20,
        )

    @classmethod
    def sim(cls) -> Sizes:
        return cls(
            volume=(16, 32, 32),
            field=(8, 32, 32),
            series=1 << 13,
            chunk=(8, 8, 8),
            field_chunk=(1, 16, 16),
            series_chunk=1 << 10,
            shard=(32, 16, 16),
            nbytes=1 << 17,
            patch=(12, 12, 12),
            patches=4,
            repeat=1,
            probe_nbytes=1 << 18,
        )


def microscopy(shape: Shape, seed: int = 1) -> np.ndarray[Any, Any]:
    """uint16: soft blobs on a dark background, with shot noise."""
    rng = np.random.default_rng(seed)
    part = tuple(-(-n // 2) for n in shape)
    axes = [np.linspace(0, 1, n, dtype="f4") for n in part]
    mean = np.full(part, 110, "f4")
    for _ in range(6):
        spread = rng.uniform(0.05, 0.25)
        each = [np.exp(-(((axis - rng.uniform(0, 1)) / spread) ** 2)).astype("f4") for axis in axes]
        mean += np.float32(rng.gamma(2, 300)) * np.einsum("i,j,k->ijk", *each, optimize=True)
    noise = rng.standard_normal(part, "f4")
    noise *= np.sqrt(mean)
    corner = (mean + noise).clip(0, 65535).astype("u2")
    # Mirrored, so that there is less to generate.
    for axis in range(3):
        corner = np.concatenate([corner, np.flip(corner, axis)], axis=axis)
    return np.ascontiguousarray(corner[tuple(slice(n) for n in shape)])


def weather(shape: Shape, seed: int = 2) -> np.ndarray[Any, Any]:
    """float32: smooth fields that drift, with small noise, rounded to 1/256."""
    rng = np.random.default_rng(seed)
    nt, ny, nx = shape
    lat = np.linspace(-1.5, 1.5, ny, dtype="f4")[:, None]
    lon = np.linspace(0, 2 * np.pi, nx, dtype="f4")[None, :]
    noise = np.float32(0.02) * rng.standard_normal((ny, nx), "f4")
    out = np.empty(shape, "f4")
    for t in range(nt):
        field = 250 + 45 * np.cos(lat)
        for k in range(1, 4):
            field = field + np.float32(6 / k) * (
                np.sin(k * lon + np.float32(0.1 * t * k)) * np.cos(k * lat)
            )
        out[t] = np.round((field + np.roll(noise, 37 * t, axis=1)) * 256) / 256
    return out


def series(length: int, seed: int = 4) -> np.ndarray[Any, Any]:
    """float32: a random walk, rounded."""
    steps = np.random.default_rng(seed).standard_normal(length, "f4")
    walk = np.cumsum(steps, out=steps)
    return np.round(walk * 64) / np.float32(64)


def slab_of(kind: str, sizes: Sizes, folder: Path) -> np.ndarray[Any, Any]:
    """The values of one slab, generated once."""
    path = folder / f"{kind}.npy"
    if not path.exists():
        made = {
            "volume": lambda: microscopy(sizes.volume),
            "deep volume": lambda: microscopy((sizes.shard[0], *sizes.volume[1:])),
            "field": lambda: weather(sizes.field),
            "series": lambda: series(sizes.series),
        }[kind]()
        np.save(path, made)
    found: np.ndarray[Any, Any] = np.load(path)
    return found


def write_slabs(
    path: Path, slab: np.ndarray[Any, Any], slabs: int, arguments: Json
) -> zarr_gpu.Array:
    """An array of ``slabs`` times the slab along the first axis."""
    shutil.rmtree(path, ignore_errors=True)
    shape = (slab.shape[0] * slabs, *slab.shape[1:])
    array = zarr_gpu.create_array(
        path, shape=shape, dtype=slab.dtype, fill_value=0, device="cpu", **arguments
    )
    array[: slab.shape[0]] = slab
    keys = array.metadata.key_encoding
    edge = (array.shards or array.chunks)[0]
    if slab.shape[0] % edge:
        raise ValueError("the slab ends within a chunk")
    per_slab = slab.shape[0] // edge
    store = array.store
    assert isinstance(store, LocalStore)
    for key in list(store.list_prefix("")):
        coords = keys.parse(key, array.ndim)
        if coords is None:
            continue
        for n in range(1, slabs):
            target = path / keys.key((coords[0] + n * per_slab, *coords[1:]))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path / key, target)
    return zarr_gpu.open_array(path, mode="r", device="cpu")


def encoded_nbytes(path: Path) -> int:
    """Bytes of all chunks, links counted as files."""
    names = {".zarray", ".zattrs", "zarr.json"}
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and p.name not in names)


def touch(path: Path) -> None:
    """Read every file once, so that later reads find it in the page cache."""
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb", buffering=0) as opened:
                while opened.read(1 << 24):
                    pass


def random_boxes(shape: Shape, patch: Shape, count: int, seed: int = 7) -> list[tuple[slice, ...]]:
    """Boxes anywhere, off the chunk grid."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        lo = [int(rng.integers(n - p + 1)) for n, p in zip(shape, patch, strict=True)]
        found.append(tuple(slice(a, a + p) for a, p in zip(lo, patch, strict=True)))
    return found
