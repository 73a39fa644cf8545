"""The measured lines of the table.

Every line reads from a warm page cache and ends with the values in device memory.  ``ratio`` is our
time over the larger of two floors: the encoded bytes over the rate of page-locked copies, and what
nvCOMP takes for the same streams when they are on the device already.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from backend import GB, Backend, Recorder
from data import (
    Json,
    Sizes,
    encoded_nbytes,
    microscopy,
    random_boxes,
    slab_of,
    touch,
    write_slabs,
)

import zarr_gpu
from zarr_gpu.config import config

Values = np.ndarray[Any, Any]
Figures = dict[str, Any]

BLOSC_LZ4: Json = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}


def blosc3(cname: str, typesize: int, clevel: int = 5) -> Json:
    configuration = {
        "cname": cname,
        "clevel": clevel,
        "shuffle": "shuffle",
        "typesize": typesize,
        "blocksize": 0,
    }
    return {"name": "blosc", "configuration": configuration}


def zstd3(level: int) -> Json:
    return {"name": "zstd", "configuration": {"level": level, "checksum": False}}


@dataclass
class Bench:
    """What a line has to work with."""

    backend: Backend
    sizes: Sizes
    folder: Path
    pinned_rate: float
    deadline: float = 0.0

    def left(self) -> float:
        """Seconds that the line may still take."""
        return self.deadline - time.perf_counter()

    def slabs(self, slab: Values) -> int:
        """Slabs of which the array, and what decoding needs, fits in device memory."""
        room = min(self.sizes.nbytes, self.backend.free_nbytes() // 4)
        return max(1, room // slab.nbytes)


@dataclass(frozen=True)
class Line:
    """One line: what is stored, and by which call it is measured.  Titles are in ``table``."""

    measure: Callable[[Bench, Line], Figures]
    kind: str = "volume"
    arguments: Callable[[Sizes], Json] = lambda _: {}
    tensorstore: bool = True  # whether TensorStore reads the format


def v2(compressor: Json | None) -> Callable[[Sizes], Json]:
    return lambda sizes: {"zarr_format": 2, "chunks": sizes.chunk, "compressors": compressor}


def v3(codecs: list[Json] | None, chunk: str = "chunk") -> Callable[[Sizes], Json]:
    def arguments(sizes: Sizes) -> Json:
        found: Any = getattr(sizes, chunk)
        return {"chunks": found if isinstance(found, tuple) else (found,), "compressors": codecs}

    return arguments


# ---- the parts of a measurement ------------------------------------------------------------------


@contextlib.contextmanager
def stored(bench: Bench, line: Line) -> Iterator[tuple[Path, zarr_gpu.Array, Values]]:
    """The array of a line in the page cache, and its first slab."""
    slab = slab_of(line.kind, bench.sizes, bench.folder)
    path = bench.folder / "array.zarr"
    array = write_slabs(path, slab, bench.slabs(slab), line.arguments(bench.sizes))
    touch(path)
    try:
        yield path, array, slab
    finally:
        shutil.rmtree(path, ignore_errors=True)
        bench.backend.release()


def check(bench: Bench, slab: Values, got: Any) -> None:
    """A part of the result is what was written."""
    part = bench.backend.to_host(got[-slab.shape[0] :][:3])
    if not np.array_equal(part, slab[:3]):
        raise AssertionError("the values read are not those written")


def floor_of(bench: Bench, encoded: int, read: Callable[[], Any]) -> tuple[float, Figures]:
    """(seconds of the floor, its parts)."""
    with Recorder(bench.backend) as recorder:
        read()
    alone = recorder.time(repeat=3, limit=min(5, bench.left() / 4))
    copy = encoded / bench.pinned_rate
    calls = len(recorder.calls)
    recorder.calls.clear()
    bench.backend.release()
    return max(alone, copy), {
        "nvcomp_alone_s": alone,
        "copy_s": copy,
        "nvcomp_calls_recorded": calls,
    }


def compare(
    bench: Bench, figures: Figures, peers: dict[str, Callable[[], Callable[[], int]]]
) -> None:
    """Speed of the peers; each returns a call that reads a part and says how many bytes."""
    for name, make in peers.items():
        if bench.left() < 3:
            figures[f"{name}_note"] = "out of time"
            continue
        try:
            call = make()
            nbytes = call()
            seconds = bench.backend.time(call, repeat=3, limit=bench.left() / 6)
        except ImportError:
            figures[f"{name}_note"] = "not installed"
        except Exception as error:  # noqa: BLE001  what a peer cannot do is no failure of ours
            figures[f"{name}_note"] = f"{type(error).__name__}: {error}"[:200]
        else:
            figures[f"{name}_gb_s"] = nbytes / seconds / GB
        bench.backend.release()


def part_of(shape: tuple[int, ...], share: int) -> tuple[slice, ...]:
    return (slice(0, max(1, shape[0] // share)),)


def readers(
    bench: Bench, path: Path, array: zarr_gpu.Array, boxes: list[Any], line: Line
) -> dict[str, Callable[[], Callable[[], int]]]:
    """The peers reading ``boxes`` into device memory."""
    backend = bench.backend

    def total(results: Iterator[Any]) -> int:
        return sum(int(result.nbytes) for result in results)

    def own_cpu() -> Callable[[], int]:
        cpu = array.to("cpu")
        return lambda: total(backend.to_device(cpu[box]) for box in boxes)

    def zarr_python() -> Callable[[], int]:
        import zarr

        if not backend.sim:
            zarr.config.enable_gpu()
        theirs = zarr.open_array(path, mode="r")
        # Much slower: a part is enough.
        some = boxes[: max(1, len(boxes) // 8)]
        if len(boxes) == 1:
            some = [part_of(array.shape, 8)]
        return lambda: total(theirs[box] for box in some)

    def tensorstore() -> Callable[[], int]:
        if not line.tensorstore:
            raise RuntimeError("cannot read this format")
        import tensorstore as ts

        driver = "zarr" if array.zarr_format == 2 else "zarr3"
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(path)}}
        theirs = ts.open(spec, open=True, read=True).result()

        def read() -> int:
            waiting = [theirs[box].read() for box in boxes]
            return total(backend.to_device(one.result()) for one in waiting)

        return read

    return {"own_cpu": own_cpu, "tensorstore": tensorstore, "zarr_python": zarr_python}


# ---- the measurements ----------------------------------------------------------------------------


def whole(bench: Bench, line: Line) -> Figures:
    """The whole array at once."""
    with stored(bench, line) as (path, on_cpu, slab):
        array = on_cpu.to(bench.backend.device)
        encoded = encoded_nbytes(path)
        check(bench, slab, array[...])
        before = dict(bench.backend.device.counts)
        seconds = bench.backend.time(
            lambda: array[...], repeat=bench.sizes.repeat, limit=min(6, bench.left() / 4)
        )
        figures = figures_of(array.nbytes, seconds, encoded)
        figures["counts"] = count_since(bench, before)
        floor, parts = floor_of(bench, encoded, lambda: array[...])
        figures |= parts
        figures["ratio"] = seconds / floor
        compare(bench, figures, readers(bench, path, array, [part_of(array.shape, 2)], line))
        return figures


def patches(bench: Bench, line: Line) -> Figures:
    """Random boxes, one read after the other."""
    with stored(bench, line) as (path, on_cpu, _):
        array = on_cpu.to(bench.backend.device)
        boxes = random_boxes(array.shape, bench.sizes.patch, bench.sizes.patches)
        nbytes = math.prod(bench.sizes.patch) * array.dtype.itemsize * len(boxes)

        def read() -> Any:
            return [array[box] for box in boxes]

        for got, box in zip(read()[:2], boxes, strict=False):
            assert np.array_equal(bench.backend.to_host(got), on_cpu[box])
        encoded = sum(array.explain(box).nbytes for box in boxes[:32]) / len(boxes[:32])
        seconds = bench.backend.time(read, repeat=3, limit=min(8, bench.left() / 4))
        figures = figures_of(nbytes, seconds, int(encoded * len(boxes)))
        floor, parts = floor_of(bench, figures["encoded_nbytes"], read)
        figures |= parts
        figures["ratio"] = seconds / floor
        figures["ms_per_patch"] = 1e3 * seconds / len(boxes)
        compare(bench, figures, readers(bench, path, array, boxes, line))
        return figures


def cached(bench: Bench, line: Line) -> Figures:
    """The whole array, again and again, from the cache of encoded chunks in device memory."""
    with stored(bench, line) as (path, on_cpu, slab):
        encoded = encoded_nbytes(path)
        cache = zarr_gpu.DeviceCache(int(encoded * 1.1) + (1 << 20))
        array = on_cpu.to(bench.backend.device).with_cache(cache)
        check(bench, slab, array[...])
        check(bench, slab, array[...])
        if not cache.hits:
            raise AssertionError("nothing was found in the cache")
        seconds = bench.backend.time(
            lambda: array[...], repeat=bench.sizes.repeat, limit=min(6, bench.left() / 4)
        )
        figures = figures_of(array.nbytes, seconds, encoded)
        plain = array.with_cache(None)
        _, parts = floor_of(bench, 0, lambda: plain[...])
        figures |= parts
        figures["ratio"] = seconds / max(parts["nvcomp_alone_s"], 1e-9)
        figures["share_of_nvcomp"] = parts["nvcomp_alone_s"] / seconds
        return figures


def writing(bench: Bench, line: Line) -> Figures:
    """From an array in device memory to files."""
    slab = slab_of(line.kind, bench.sizes, bench.folder)
    values = bench.backend.to_device(slab)
    path, theirs = bench.folder / "written.zarr", bench.folder / "theirs.zarr"
    arguments = {"shape": slab.shape, "dtype": slab.dtype, **line.arguments(bench.sizes)}
    try:
        array = zarr_gpu.create_array(path, device=bench.backend.device, **arguments)

        def write() -> None:
            array[...] = values

        write()
        assert np.array_equal(array.to("cpu")[:3], slab[:3])
        encoded = encoded_nbytes(path)
        with Recorder(bench.backend) as recorder:
            write()
        alone = recorder.time(repeat=3, limit=3)
        seconds = bench.backend.time(write, repeat=3, limit=min(8, bench.left() / 4))
        figures = figures_of(slab.nbytes, seconds, encoded)
        figures |= {"nvcomp_alone_s": alone, "copy_s": encoded / bench.pinned_rate}
        figures["ratio"] = seconds / max(alone, figures["copy_s"])
        some = part_of(slab.shape, 4)

        def zarr_python() -> Callable[[], int]:
            import zarr

            if not bench.backend.sim:
                zarr.config.enable_gpu()
            made = zarr.create_array(theirs, overwrite=True, **arguments)

            def write_theirs() -> int:
                made[some] = values[some]
                return int(values[some].nbytes)

            return write_theirs

        def own_cpu() -> Callable[[], int]:
            cpu = array.to("cpu")

            def write_cpu() -> int:
                cpu[...] = bench.backend.to_host(values)
                return int(values.nbytes)

            return write_cpu

        compare(bench, figures, {"own_cpu": own_cpu, "zarr_python": zarr_python})
        return figures
    finally:
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(theirs, ignore_errors=True)


def small(bench: Bench, line: Line) -> Figures:
    """One chunk: how long one read takes, beside the CPU device's."""
    edge = bench.sizes.chunk
    values = microscopy(tuple(2 * n for n in edge))
    path = bench.folder / "small.zarr"
    arguments = line.arguments(bench.sizes)
    made = zarr_gpu.create_array(
        path, shape=values.shape, dtype=values.dtype, device="cpu", **arguments
    )
    made[...] = values
    encoded = (path / "0.0.0").stat().st_size
    box = tuple(slice(0, n) for n in edge)
    there = made.to(bench.backend.device)
    repeat = 3 if bench.backend.sim else 200
    with config.set({"cpu.compiled": True}):  # as after `warmup`
        assert np.array_equal(bench.backend.to_host(there[box]), values[box])
        assert np.array_equal(made[box], values[box])
        seconds = bench.backend.time(lambda: there[box], repeat=repeat, limit=5)
        on_cpu = bench.backend.time(lambda: made[box], repeat=repeat, limit=5)
    with config.set({"gpu.host_rule": "device"}):
        forced = bench.backend.time(lambda: there[box], repeat=repeat, limit=5)
    shutil.rmtree(path)
    figures = figures_of(values[box].nbytes, seconds, encoded)
    figures |= {
        "latency_ms": 1e3 * seconds,
        "latency_on_device_ms": 1e3 * forced,
        "cpu_latency_ms": 1e3 * on_cpu,
        "latency_over_cpu": seconds / on_cpu,
    }
    return figures


def figures_of(nbytes: int, seconds: float, encoded: int) -> Figures:
    return {
        "decoded_nbytes": nbytes,
        "encoded_nbytes": encoded,
        "seconds": seconds,
        "gb_s": nbytes / seconds / GB,
    }


def count_since(bench: Bench, before: dict[str, int]) -> dict[str, int]:
    counts = bench.backend.device.counts
    return {key: counts[key] - before.get(key, 0) for key in counts}


LINES: dict[str, Line] = {
    "blosc-lz4": Line(whole, arguments=v2(BLOSC_LZ4)),
    "blosc-zstd": Line(
        whole,
        "field",
        v3([blosc3("zstd", 4, 3)], "field_chunk"),
    ),
    "zstd": Line(whole, "field", v3([zstd3(3)], "field_chunk")),
    "lz4": Line(whole, arguments=v2({"id": "lz4", "acceleration": 1}), tensorstore=False),
    "raw": Line(whole, arguments=v3(None)),
    "sharded": Line(
        whole,
        "deep volume",
        lambda sizes: {
            "chunks": sizes.chunk,
            "shards": sizes.shard,
            "compressors": [blosc3("lz4", 2)],
        },
    ),
    "patches": Line(patches, arguments=v2(BLOSC_LZ4)),
    "gzip": Line(
        whole,
        arguments=v3([{"name": "gzip", "configuration": {"level": 1}}]),
    ),
    "cached": Line(cached, arguments=v2(BLOSC_LZ4)),
    "cached zstd": Line(cached, "field", v3([zstd3(3)], "field_chunk")),
    "writing": Line(writing, arguments=v2(BLOSC_LZ4)),
    "small": Line(small, arguments=v2(BLOSC_LZ4)),
    "series": Line(whole, "series", v3([zstd3(3)], "series_chunk")),
}
"""In the order in which they are measured: the most important first."""
