"""Workloads that read arrays: whole, in boxes, by lists."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cpu import data
from benchmarks.cpu.base import Workload, digest
from benchmarks.cpu.data import Scale
from benchmarks.cpu.engines import Layout, Work


class ReadZstd(Workload):
    name, title = "read-zstd", "read all, v3 zstd-3, float32, 1 MiB chunks"
    dtype, codec, zarr_format = "f4", "zstd", 3

    @property
    def values(self) -> Any:
        return self.load(data.weather, self.scale.edge)

    def layout(self) -> Layout:
        shape = self.values.shape
        chunks = (1, shape[1] // 2, shape[2] // 2)
        return Layout(shape, chunks, self.dtype, self.codec, self.zarr_format)


class ReadBlosc(Workload):
    name, title = "read-blosc", "read all, v2 blosc-lz4, uint16, 64^3 chunks"


class ReadRaw(ReadZstd):
    name, title = "read-raw", "read all, v3 uncompressed, float32, chunks as read-zstd"
    codec = None


class ReadSmall(Workload):
    name, title = "read-small", "read all, v2 blosc-lz4, uint16, 32^3 chunks"
    edges = (16, 16, 16)


class ReadTiny(Workload):
    name, title = "read-tiny", "read all, v3 uncompressed, uint8, 16^3 chunks (4 KiB)"
    edges, dtype, codec, zarr_format = (16, 16, 16), "u1", None, 3

    @property
    def values(self) -> Any:
        half = self.scale.edge // 2
        return self.load(data.labels, half)


class ReadGzip(Workload):
    name, title = "read-gzip", "read all, v3 gzip-5, uint16, 64^3 chunks"
    codec, zarr_format = "gzip", 3

    @property
    def values(self) -> Any:
        return self.load(data.microscopy, self.scale.edge)[: self.scale.edge // 2]

    edges = (4, 8, 8)


class Boxes(Workload):
    """Random boxes, one call each."""

    per_call = True

    @property
    def size(self) -> tuple[int, int, int]:
        return (self.scale.edge * 3 // 16,) * 3

    @property
    def count(self) -> int:
        return self.scale.crops

    @property
    def nbytes(self) -> int:
        return self.count * int(np.prod(self.size)) * self.values.itemsize

    def boxes(self) -> Iterator[tuple[slice, ...]]:
        rng = np.random.default_rng(7)
        for _ in range(self.count):
            pairs = zip(self.values.shape, self.size, strict=True)
            starts = [int(rng.integers(0, n - size + 1)) for n, size in pairs]
            yield tuple(slice(a, a + n) for a, n in zip(starts, self.size, strict=True))

    def start(self, engine: Any) -> list[Work]:
        array = engine.open(self.path)
        return [engine.read(array, box) for box in self.boxes()]

    def expected(self) -> int:
        return digest(self.values[box] for box in self.boxes())


class Crops(Boxes):
    name, title, stored = "crops", "random 96^3 boxes of read-blosc", "read-blosc"


class Planes(Boxes):
    name, title, stored = "planes", "random 1 x 256 x 256 planes of read-blosc", "read-blosc"

    @property
    def size(self) -> tuple[int, int, int]:
        return (1, self.scale.edge // 2, self.scale.edge // 2)

    @property
    def count(self) -> int:
        return self.scale.planes


class ShardBlosc(Workload):
    name, title = "shard-blosc", "read all, v3 shards 256^3 of 64^3 blosc-lz4 chunks, uint16"
    zarr_format, shards = 3, 2


class ShardZstd(ShardBlosc):
    name, title = "shard-zstd", "read all, v3 shards 256^3 of 64^3 zstd-3 chunks, uint16"
    codec = "zstd"


class ShardCrops(Boxes, ShardBlosc):
    name, title, stored = "shard-crops", "random 96^3 boxes of shard-blosc", "shard-blosc"


class ShardCropsZstd(Boxes, ShardZstd):
    name, title, stored = "shard-crops-zstd", "random 96^3 boxes of shard-zstd", "shard-zstd"

    @property
    def count(self) -> int:
        return max(self.scale.crops // 3, 1)


class Orthogonal(Workload):
    name, title = "orthogonal", "three sorted lists of 160 of 512 items, v3 blosc-zstd labels"
    dtype, codec, zarr_format = "u1", "blosc-zstd", 3

    @property
    def values(self) -> Any:
        return self.load(data.labels, self.scale.edge)

    @property
    def nbytes(self) -> int:
        return self.scale.lines**3

    def lists(self) -> tuple[Any, ...]:
        rng = np.random.default_rng(8)
        n, lines = self.scale.edge, self.scale.lines
        return tuple(np.sort(rng.choice(n, lines, replace=False)) for _ in range(3))

    def start(self, engine: Any) -> list[Work]:
        return [engine.oindex(engine.open(self.path), self.lists())]

    def expected(self) -> int:
        return digest([self.values[np.ix_(*self.lists())]])


class Points(Workload):
    name, title, stored = "points", "random points of all chunks of read-blosc", "read-blosc"

    @property
    def nbytes(self) -> int:
        return self.scale.points * self.values.itemsize

    def lists(self) -> tuple[Any, ...]:
        rng = np.random.default_rng(9)
        return tuple(rng.integers(0, self.scale.edge, self.scale.points) for _ in range(3))

    def start(self, engine: Any) -> list[Work]:
        return [engine.vindex(engine.open(self.path), self.lists())]

    def expected(self) -> int:
        return digest([self.values[self.lists()]])


class ReadZip(Workload):
    name, title = "read-zip", "read all of a zip file, v3 blosc-lz4, uint16, 64^3 chunks"
    zarr_format = 3

    def __init__(self, scale: Scale, folder: Path, scratch: Path) -> None:
        super().__init__(scale, folder, scratch)
        self.path += ".zip"

    def prepare(self, engine: Any) -> None:
        if os.path.exists(self.path):  # noqa: PTH110
            return
        tree = Path(f"{self.path}.tree")
        engine.write_new(str(tree), self.layout(), self.values)()
        with zipfile.ZipFile(f"{self.path}.new", "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(tree.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(tree))
        Path(f"{self.path}.new").rename(self.path)
        shutil.rmtree(tree)
