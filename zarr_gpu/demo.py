"""The main job in one call: write a volume, read it whole and in random patches, compare, measure.

``run_on_generated`` makes its own volume (see ``demo_volume``) in a temporary folder,
``run_on_store`` reads what a user has.  Both return a :class:`Report` and print nothing; ``cli``
shows it.  A user of the public API like any other: imports nothing else of ours.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import zarr_gpu
from zarr_gpu.demo_volume import make_volume, save_picture
from zarr_gpu.errors import ArrayNotFoundError

__all__ = ["SIZES", "Measured", "Report", "Step", "decode_path", "run_on_generated", "run_on_store"]

Host = npt.NDArray[Any]
Selection = tuple[slice, ...]
Progress = Callable[[str, float], None]
"""Called with what is being done and the part of the work that is done, 0 to 1."""

# name -> (shape, chunks, shards)
SIZES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "small": ((64, 256, 256), (32, 64, 64), (64, 128, 128)),  # 8 MiB
    "medium": ((128, 1024, 1024), (32, 128, 128), (128, 512, 512)),  # 256 MiB
    "large": ((256, 2048, 1024), (32, 128, 128), (128, 512, 512)),  # 1 GiB
}

COMPRESSORS: dict[str, dict[str, Any]] = {
    "blosc-lz4": {
        "name": "blosc",
        "configuration": {
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "shuffle",
            "typesize": 2,
            "blocksize": 0,
        },
    },
    "zstd": {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
}

REPEATS = 3  # of the whole read; the quickest counts
PATCHES = 100
PATCH_SECONDS = 10.0  # no new patch is begun later
PATCH_EDGE = {1: 1 << 16, 2: 512, 3: 96}  # by the number of axes that a patch extends over
STORE_LIMIT = 1 << 29  # decoded bytes read of a user's array


@dataclass(frozen=True, slots=True)
class Step:
    """One step of decoding, and where it runs."""

    codec: str
    where: str
    note: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on one array."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    nbytes: int  # decoded
    nbytes_stored: int
    write_seconds: float | None  # None where nothing was written
    read_shape: tuple[int, ...]
    read_nbytes: int
    read_seconds: float
    patch_shape: tuple[int, ...]
    patch_nbytes: int
    patch_seconds: tuple[float, ...]
    equal: bool
    steps: tuple[Step, ...]

    @property
    def ratio(self) -> float:
        """Decoded over stored bytes."""
        return self.nbytes / self.nbytes_stored if self.nbytes_stored else float("nan")

    def patch_quantile(self, q: float) -> float:
        """Seconds that a part ``q`` of the patches took at most."""
        return float(np.quantile(self.patch_seconds, q))

    def to_dict(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "chunks": list(self.chunks),
            "shards": None if self.shards is None else list(self.shards),
            "nbytes": self.nbytes,
            "nbytes_stored": self.nbytes_stored,
            "ratio": self.ratio if self.nbytes_stored else None,
            "write_gb_per_s": gb_per_s(self.nbytes, self.write_seconds),
            "read_shape": list(self.read_shape),
            "read_gb_per_s": gb_per_s(self.read_nbytes, self.read_seconds),
            "patch_shape": list(self.patch_shape),
            "patches": len(self.patch_seconds),
            "patches_per_s": len(self.patch_seconds) / sum(self.patch_seconds),
            "patch_p50_ms": self.patch_quantile(0.5) * 1e3,
            "patch_p99_ms": self.patch_quantile(0.99) * 1e3,
            "equal": self.equal,
            "steps": [{"codec": s.codec, "where": s.where, "note": s.note} for s in self.steps],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What a demo found."""

    device: str
    source: str
    compared_with: str
    arrays: tuple[Measured, ...]
    picture: Path | None

    @property
    def equal(self) -> bool:
        """Whether every read gave the right values."""
        return all(measured.equal for measured in self.arrays)

    def to_dict(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "version": zarr_gpu.__version__,
            "device": self.device,
            "source": self.source,
            "compared_with": self.compared_with,
            "equal": self.equal,
            "picture": None if self.picture is None else str(self.picture),
            "arrays": [measured.to_dict() for measured in self.arrays],
        }


def gb_per_s(nbytes: int, seconds: float | None) -> float | None:
    """Throughput in 1e9 bytes per second."""
    return None if seconds is None else nbytes / max(seconds, 1e-9) / 1e9


def to_host(values: Any) -> Host:
    """The values as a NumPy array, from whichever device they are on."""
    return np.asarray(values.get() if hasattr(values, "get") else values)


def same(a: Host, b: Host) -> bool:
    """Equal in shape, type and value; NaN equals itself."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "fcVmM":  # compare bits: NaN and NaT
        return a.tobytes() == b.tobytes()
    return bool(np.array_equal(a, b))


def patch_shape_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A cube over the last three axes at most, one element of the others."""
    extended = min(3, len(shape))
    edge = PATCH_EDGE.get(extended, 1)
    first = len(shape) - extended
    return tuple(
        min(length, 1) if axis < first else min(edge, max(1, length // 2), length)
        for axis, length in enumerate(shape)
    )


def draw_patches(
    shape: tuple[int, ...], patch: tuple[int, ...], n: int, seed: int
) -> Iterator[Selection]:
    """``n`` boxes at random places, anywhere in ``shape``."""
    rng = np.random.default_rng(seed)
    room = [length - edge + 1 for length, edge in zip(shape, patch, strict=True)]
    for _ in range(n):
        start = [int(rng.integers(r)) for r in room]
        yield tuple(slice(s, s + edge) for s, edge in zip(start, patch, strict=True))


def bounded_box(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, limit: int
) -> Selection:
    """A box of whole chunks around the middle of an array, of ``limit`` bytes or one chunk."""
    edges = list(shape)
    while int(np.prod(edges, dtype=np.float64)) * itemsize > limit:
        shrinkable = [a for a in range(len(shape)) if edges[a] > chunks[a]]
        if not shrinkable:
            break
        axis = max(shrinkable, key=lambda a: edges[a] / chunks[a])
        half = -(-edges[axis] // 2)
        edges[axis] = min(-(-half // chunks[axis]) * chunks[axis], edges[axis] - 1)
    box = []
    for length, edge, chunk in zip(shape, edges, chunks, strict=True):
        start = (length - edge) // 2 // chunk * chunk if chunk else 0
        box.append(slice(start, start + edge))
    return tuple(box)


def decode_path(array: zarr_gpu.Array) -> tuple[str, tuple[Step, ...]]:
    """The device of an array and the steps of decoding on it; reads nothing."""
    explained = array.explain(tuple(slice(0, 0) for _ in array.shape))
    steps = tuple(Step(step.codec, step.where, step.note) for step in explained.steps)
    return explained.device, steps


def measure(
    array: zarr_gpu.Array,
    name: str,
    *,
    box: Selection,
    truth: Host | None,
    write_seconds: float | None,
    seed: int,
    progress: Callable[[float], None],
) -> tuple[Measured, Host]:
    """Read ``box`` whole and in patches and compare: with ``truth``, else patches with the whole.

    Returns
    -------
    Measured
        The figures.
    numpy.ndarray
        The values of ``box``.
    """
    read_shape = tuple(side.stop - side.start for side in box)
    patch = patch_shape_of(read_shape)
    empty = 0 in read_shape

    def read(selection: Selection) -> tuple[Any, float]:
        start = time.perf_counter()
        values = array[selection]
        return values, time.perf_counter() - start

    read(tuple(slice(s.start, s.start + p) for s, p in zip(box, patch, strict=True)))  # warm up
    values: Any = None
    quickest = float("inf")
    for i in range(REPEATS):
        values = None  # free the memory before it is asked for again
        values, seconds = read(box)
        quickest = min(quickest, seconds)
        progress(0.5 * (i + 1) / REPEATS)
    whole = to_host(values)
    equal = truth is None or same(whole, truth)
    expected = whole if truth is None else truth

    taken: list[float] = []
    for inner in draw_patches(read_shape, patch, 1 if empty else PATCHES, seed):
        outer = tuple(
            slice(b.start + i.start, b.start + i.stop) for b, i in zip(box, inner, strict=True)
        )
        values, seconds = read(outer)
        taken.append(seconds)
        equal = equal and same(to_host(values), np.asarray(expected[inner]))
        if sum(taken) > PATCH_SECONDS:
            break
        progress(0.5 + 0.5 * len(taken) / PATCHES)
    progress(1.0)
    measured = Measured(
        name=name,
        shape=array.shape,
        dtype=str(array.dtype),
        chunks=array.chunks,
        shards=array.shards,
        nbytes=array.nbytes,
        nbytes_stored=array.nbytes_stored(),
        write_seconds=write_seconds,
        read_shape=read_shape,
        read_nbytes=whole.nbytes,
        read_seconds=quickest,
        patch_shape=patch,
        patch_nbytes=int(np.prod(patch)) * whole.dtype.itemsize,
        patch_seconds=tuple(taken),
        equal=equal,
        steps=decode_path(array)[1],
    )
    return measured, whole


def part_of(progress: Progress, text: str, lo: float, hi: float) -> Callable[[float], None]:
    """``progress`` for the part ``lo`` to ``hi`` of the work."""

    def report(done: float) -> None:
        progress(text, lo + (hi - lo) * done)

    return report


def ignore(_text: str, _done: float) -> None:
    """A progress that nobody watches."""


def run_on_generated(
    size: str = "medium",
    *,
    device: str = "auto",
    picture: Path | None = None,
    seed: int = 7,
    progress: Progress = ignore,
) -> Report:
    """Write a generated volume, sharded, with each of ``COMPRESSORS``; read it back; compare.

    Parameters
    ----------
    size
        One of ``SIZES``.
    device
        Where to decode.
    picture
        PNG file to save a slice to, None for no picture.
    seed
        Of the volume and of the places of the patches.
    progress
        Called as the work goes on.
    """
    shape, chunks, shards = SIZES[size]
    volume = np.empty(shape, np.uint16)
    for planes, counts in make_volume(shape, seed=seed):
        volume[planes] = counts
        progress("imaging", 0.3 * planes.stop / shape[0])
    arrays = []
    where = device
    share = 0.7 / len(COMPRESSORS)
    with tempfile.TemporaryDirectory(prefix="zarr-gpu-demo-") as folder:
        for i, (name, compressor) in enumerate(COMPRESSORS.items()):
            lo = 0.3 + share * i
            progress(f"writing {name}", lo)
            start = time.perf_counter()
            written = zarr_gpu.create_array(
                str(Path(folder, f"{name}.zarr")),
                shape=shape,
                chunks=chunks,
                shards=shards,
                dtype=volume.dtype,
                compressors=compressor,
                dimension_names=("z", "y", "x"),
            )
            written[...] = volume
            seconds = time.perf_counter() - start
            array = zarr_gpu.open_array(str(Path(folder, f"{name}.zarr")), mode="r", device=device)
            where = decode_path(array)[0]
            measured, whole = measure(
                array,
                name,
                box=tuple(slice(0, length) for length in shape),
                truth=volume,
                write_seconds=seconds,
                seed=seed,
                progress=part_of(progress, f"reading {name}", lo + share / 2, lo + share),
            )
            arrays.append(measured)
            if picture is not None and i == 0:
                save_picture(whole, picture)
    return Report(where, "generated volume", "what was written", tuple(arrays), picture)


def largest_array(node: zarr_gpu.Array | zarr_gpu.Group, path: str) -> zarr_gpu.Array:
    """``node`` itself, or the largest array below it.

    Raises
    ------
    ArrayNotFoundError
        There is none.
    """
    if isinstance(node, zarr_gpu.Array):
        return node
    members = node.members(max_depth=None)
    found = [member for _, member in members if isinstance(member, zarr_gpu.Array)]
    if not found:
        raise ArrayNotFoundError(f"no array in the group at {path!r}")
    return max(found, key=lambda array: array.nbytes)


def run_on_store(
    path: str,
    *,
    device: str = "auto",
    picture: Path | None = None,
    limit: int = STORE_LIMIT,
    seed: int = 7,
    progress: Progress = ignore,
) -> Report:
    """Read an array, or the largest of a group: a box of it whole, then patches of that box.

    Nothing is known of what the values should be, so the patches are compared with the whole read.

    Parameters
    ----------
    path
        Whatever ``zarr_gpu.open`` takes.
    device, picture, seed, progress
        As in :func:`run_on_generated`.
    limit
        Decoded bytes to read at most (at least one chunk is read).

    Raises
    ------
    NodeNotFoundError
        No array is there.
    """
    array = largest_array(zarr_gpu.open(path, mode="r", device=device), path)
    measured, whole = measure(
        array,
        array.path or path,
        box=bounded_box(array.shape, array.chunks, array.dtype.itemsize, limit),
        truth=None,
        write_seconds=None,
        seed=seed,
        progress=part_of(progress, "reading", 0.0, 1.0),
    )
    drawn = picture is not None and save_picture(whole, picture)
    return Report(
        decode_path(array)[0], path, "the whole read", (measured,), picture if drawn else None
    )
