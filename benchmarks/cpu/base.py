"""What a workload is.

A workload is prepared once, by this package, in a folder that all engines share.  ``start`` gives
the calls of one run, which are timed one after the other; ``expected`` gives what they must return,
worked out with NumPy.  Imports ``data`` and ``engines``.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.cpu import data
from benchmarks.cpu.data import Scale
from benchmarks.cpu.engines import Layout, Work


@cache
def load(make: Callable[[int], Any], size: int, folder: Path) -> Any:
    """What ``make(size)`` gives, mapped from a file in ``folder``: made once for all processes."""
    file = folder / f"{make.__name__}-{size}.npy"
    if not file.exists():
        np.save(folder / "new.npy", make(size))
        (folder / "new.npy").rename(file)
    return np.load(file, mmap_mode="r")


def digest(results: Iterable[Any]) -> int:
    """A check sum of arrays, or of lists of names and shapes."""
    crc = 0
    for result in results:
        if isinstance(result, list):
            crc = zlib.crc32(repr(result).encode(), crc)
        else:
            crc = zlib.crc32(np.ascontiguousarray(result), crc)
    return crc


class Workload:
    """The base of all; by itself a read of the whole array."""

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    per_call: ClassVar[bool] = False  # latencies of single calls are worth telling
    writes: ClassVar[bool] = False
    edges: ClassVar[tuple[int, ...]] = (8, 8, 8)  # an axis of a cube is cut into so many chunks
    dtype: ClassVar[str] = "u2"
    codec: ClassVar[str | None] = "blosc-lz4"
    zarr_format: ClassVar[int] = 2
    shards: ClassVar[int | None] = None  # an axis is cut into so many
    stored: ClassVar[str] = ""  # name of the workload whose array is read, if another

    def __init__(self, scale: Scale, folder: Path, scratch: Path) -> None:
        self.scale = scale
        self.folder = folder
        self.path = str(folder / (self.stored or self.name))
        self.target = str(scratch / f"{self.name}-{os.getpid()}")

    def load(self, make: Callable[[int], Any], size: int) -> Any:
        return load(make, size, self.folder)

    @property
    def values(self) -> Any:
        """The array as NumPy has it."""
        return self.load(data.microscopy, self.scale.edge)

    def layout(self) -> Layout:
        shape = self.values.shape
        coarse = self.scale.coarse
        chunks = tuple(n * coarse // parts for n, parts in zip(shape, self.edges, strict=True))
        shards = None if self.shards is None else tuple(n // self.shards for n in shape)
        return Layout(shape, chunks, self.dtype, self.codec, self.zarr_format, shards)

    @property
    def nbytes(self) -> int:
        """Decoded bytes that one run moves; 0 where a rate means nothing."""
        return int(self.values.nbytes)

    def prepare(self, engine: Any) -> None:
        """Store the array with our engine, unless it is there from an earlier run."""
        if not os.path.exists(self.path):  # noqa: PTH110
            engine.write_new(f"{self.path}.new", self.layout(), self.values)()
            os.rename(f"{self.path}.new", self.path)  # noqa: PTH104

    def start(self, engine: Any) -> list[Work]:
        return [engine.read(engine.open(self.path), Ellipsis)]

    def expected(self) -> int:
        return digest([self.values])

    def outcome(self, results: list[Any]) -> int:
        """What the calls have come to; compared with ``expected``."""
        return digest(results)

    def finish(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
