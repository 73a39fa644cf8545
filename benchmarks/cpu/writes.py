"""Workloads that write; what was written is read back by our engine, outside of the time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.cpu import data
from benchmarks.cpu.base import Workload, digest
from benchmarks.cpu.engines import ENGINES, OURS, Layout, Work
from benchmarks.cpu.reads import ReadZstd


class Write(Workload):
    """Writes a whole new array; read back by our engine, outside of the time."""

    name, title, writes = "write-blosc", "write all, v2 blosc-lz4, uint16, 64^3 chunks", True

    @cached_property
    def source(self) -> Any:
        """The values in memory."""
        return np.array(self.values)

    def prepare(self, engine: Any) -> None:
        self.values  # noqa: B018  makes the file, before workers look for it

    def start(self, engine: Any) -> list[Work]:
        self.finish()
        return [engine.write_new(self.target, self.layout(), self.source)]

    def outcome(self, results: list[Any]) -> int:
        engine = ENGINES[OURS]()
        return digest([engine.read(engine.open(self.target), Ellipsis)()])


class WriteZstd(Write, ReadZstd):
    name, title = "write-zstd", "write all, v3 zstd-3, float32, 1 MiB chunks"


class Unaligned(Write):
    name, title = "write-boxes", "write random 96^3 boxes into 256^3 uint16, v2 blosc-lz4 64^3"
    per_call = True
    edges = (4, 4, 4)

    @property
    def values(self) -> Any:
        return self.load(data.microscopy, self.scale.edge // 2)

    @property
    def nbytes(self) -> int:
        return self.scale.writes * self._size**3 * 2

    @property
    def _size(self) -> int:
        return self.scale.edge * 3 // 16

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], Any]]:
        rng = np.random.default_rng(10)
        for i in range(self.scale.writes):
            starts = rng.integers(0, self.scale.edge // 2 - self._size + 1, 3)
            values = self.values[(slice(self._size),) * 3] + np.uint16(i)
            yield tuple(slice(int(a), int(a) + self._size) for a in starts), values

    prepare = Workload.prepare

    def start(self, engine: Any) -> list[Work]:
        self.finish()
        shutil.copytree(self.path, self.target)
        array = engine.open(self.target, writable=True)
        return [engine.write(array, box, values) for box, values in self.blocks()]

    def expected(self) -> int:
        values = self.values.copy()
        for box, block in self.blocks():
            values[box] = block
        return digest([values])


class Append(Write):
    name, title = "append", "append 5,000 int64 at a time, v3 blosc-lz4, 65,536-item chunks"
    per_call = True

    @property
    def values(self) -> Any:
        return self.load(data.series, self.scale.appends * self.scale.items)

    def layout(self) -> Layout:
        return Layout((0,), (65536,), "i8", "blosc-lz4")

    def start(self, engine: Any) -> list[Work]:
        self.finish()
        array = engine.create(self.target, self.layout())
        calls: list[Work] = engine.append(array, np.split(self.source, self.scale.appends))
        return calls
