"""What is timed: one class for each workload.

A workload is prepared once, by this package, in a folder that all engines share.  ``start`` gives
the calls of one run, which are timed one after the other; ``expected`` gives what they must return,
worked out with NumPy.  Imports ``data`` and ``engines``.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.cpu import data
from benchmarks.cpu.data import Scale
from benchmarks.cpu.engines import OURS, Layout, Work


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


class OpenOne(Workload):
    name, title, stored = "open", "open read-blosc and read one item", "read-blosc"
    per_call, nbytes = True, 0

    def points(self) -> Iterator[tuple[int, ...]]:
        rng = np.random.default_rng(12)
        for _ in range(self.scale.opens):
            yield tuple(int(n) for n in rng.integers(0, self.scale.edge, 3))

    def start(self, engine: Any) -> list[Work]:
        def open_and_read(point: tuple[int, ...]) -> Any:
            return engine.read(engine.open(self.path), point)()

        return [partial(open_and_read, point) for point in self.points()]

    def expected(self) -> int:
        return digest(self.values[point] for point in self.points())


class Members(Workload):
    """A group of groups of arrays."""

    name, title, stored = "list", "list all members of 10 groups of 100 arrays", "groups"
    nbytes = 0
    consolidated: ClassVar[bool] = False
    opens: ClassVar[bool] = False

    def names(self) -> list[str]:
        scale = self.scale
        return [f"g{i}/a{j:02}" for i in range(scale.groups) for j in range(scale.arrays)]

    def prepare(self, engine: Any) -> None:
        if os.path.exists(self.path):  # noqa: PTH110
            return
        zarr = engine.zarr
        root = zarr.create_group(f"{self.path}.new")
        for i, name in enumerate(self.names()):
            shape = (100 + i % self.scale.arrays, 10)
            root.create_array(name, shape=shape, chunks=(50, 10), dtype="f4")
        zarr.consolidate_metadata(f"{self.path}.new")
        os.rename(f"{self.path}.new", self.path)  # noqa: PTH104

    def start(self, engine: Any) -> list[Work]:
        if not self.opens:
            return [engine.list_group(self.path, consolidated=self.consolidated)]
        return [engine.open_members(self.path, self.names(), consolidated=self.consolidated)]

    def expected(self) -> int:
        if self.opens:
            return digest([[(100 + i % self.scale.arrays, 10) for i in range(len(self.names()))]])
        return digest([sorted([*(f"g{i}" for i in range(self.scale.groups)), *self.names()])])


class MembersConsolidated(Members):
    name, title, consolidated = "list-consolidated", "as list, metadata consolidated", True


class OpenMembers(Members):
    name, title, opens = "open-members", "open the 1,000 arrays from the root by path", True


class OpenMembersConsolidated(OpenMembers):
    name, title = "open-members-consolidated", "as open-members, metadata consolidated"
    consolidated = True


ReadBack = Callable[[str], Any]


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
        from benchmarks.cpu.engines import ENGINES

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


WORKLOADS: dict[str, type[Workload]] = {
    workload.name: workload
    for workload in (
        *(ReadBlosc, ReadZstd, ReadRaw, ReadSmall, ReadTiny, ReadGzip, ReadZip),
        *(Crops, Planes, ShardBlosc, ShardZstd, ShardCrops, ShardCropsZstd, Orthogonal, Points),
        *(Write, WriteZstd, Unaligned, Append),
        *(OpenOne, Members, MembersConsolidated, OpenMembers, OpenMembersConsolidated),
    )
}
IMPORT = "import"
"""The one workload that is not in the table: it needs no data, but fresh interpreters."""
