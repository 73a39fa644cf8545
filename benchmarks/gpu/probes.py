"""Questions about a GPU that no other machine can answer.

Each probe answers one and returns figures.  ``RISKY`` ones may take the CUDA context with them and
run in processes of their own, as do those that time how long the first use takes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from backend import GB, Backend
from data import Sizes, microscopy, slab_of, write_slabs
from staging import measure_staging
from streams import Streams, make_streams

import zarr_gpu
from zarr_gpu.codecs.registry import get_codec_class
from zarr_gpu.codecs.runtime import dense
from zarr_gpu.config import usable_threads
from zarr_gpu.storage.pool import map_ahead

Figures = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a probe has to work with."""

    backend: Backend
    sizes: Sizes
    folder: Path


Probe = Callable[[Setting], Figures]


def decompress(backend: Backend, streams: Streams) -> tuple[Callable[[], Any], Any]:
    """(a call that decodes all streams, the memory they are decoded to)."""
    runtime = backend.runtime()
    source = runtime.upload(streams.host)
    size = np.full(len(streams), streams.decoded, np.int64)
    target, total = dense(size)
    room = runtime.empty(total)

    def call() -> Any:
        return backend.runtime().nvcomp.decompress(
            *(backend.runtime(), streams.algorithm, source, streams.offset, streams.nbytes),
            *(room, target, size),
        )

    return call, room


def rate(backend: Backend, streams: Streams) -> float:
    """Decoded GB/s of nvCOMP alone."""
    call, room = decompress(backend, streams)
    status, _ = call()
    if backend.to_host(status).any():
        raise AssertionError(f"statuses {np.unique(backend.to_host(status))}")
    if not np.array_equal(backend.to_host(room[: streams.decoded]), streams.sample):
        raise AssertionError("the streams decode to something else")
    seconds = backend.time(call, repeat=5, limit=1.5)
    backend.release()
    return streams.total / seconds / GB


def lives(backend: Backend) -> bool:
    """Whether the device still does what it is asked."""
    numbers = np.arange(1000)
    return bool((backend.to_host(backend.to_device(numbers) * 2) == numbers * 2).all())


# ---- the library -----------------------------------------------------------------------------


def library(at: Setting) -> Figures:
    """What alignments and scratch nvCOMP asks for with a device at hand."""
    backend = at.backend
    from zarr_gpu.codecs.nvcomp import ALGORITHMS, Options

    nvcomp = backend.runtime().nvcomp
    found: Figures = {"installed": nvcomp is not None}
    if nvcomp is None:
        return found
    for name in ALGORITHMS:
        for way in (False, True):
            need = nvcomp.alignments(name, compress=way)
            found[f"{name} {'compress' if way else 'decompress'} align"] = [
                need.input,
                need.output,
                need.temp,
            ]
        for label, rows, each in (("1024 x 64 KiB", 1024, 65536), ("64 x 4 MiB", 64, 1 << 22)):
            found[f"{name} scratch {label}"] = nvcomp.scratch_nbytes(name, rows, each, rows * each)
        try:
            options = Options()
            options.word[0] = name in ("Deflate", "Gzip")
            found[f"{name} compress scratch 1024 x 64 KiB"] = nvcomp.scratch_nbytes(
                name, 1024, 65536, 1 << 26, options=options
            )
        except zarr_gpu.errors.DeviceError as error:
            found[f"{name} compress scratch 1024 x 64 KiB"] = str(error)
    return found


def throughput(at: Setting) -> Figures:
    """Decoded GB/s by number and size of the streams, all on the device."""
    backend, sizes = at.backend, at.sizes
    found: Figures = {}
    total = sizes.probe_nbytes
    cases = [("LZ4", 128 << 10, n) for n in (64, 512, 2048, 8192)]
    cases += [("Zstd", 256 << 10, total // (256 << 10)), ("Zstd", 4 << 20, total // (4 << 20))]
    cases += [("Deflate", 64 << 10, total // (64 << 10)), ("Gzip", 64 << 10, total // (64 << 10))]
    cases += [("Gzip", 4 << 20, total // (4 << 20))]
    if backend.sim:
        cases = [(name, decoded >> 7, min(max(count, 2), 16)) for name, decoded, count in cases]
    for algorithm, decoded, count in cases:
        name = f"{algorithm} {decoded >> 10} KiB x {count}"
        try:
            found[name] = rate(backend, make_streams(algorithm, decoded, max(count, 1)))
        except Exception as error:  # noqa: BLE001  that is an answer too
            found[name] = f"{type(error).__name__}: {error}"[:200]
    found |= _lookahead(backend, total)
    return found


def _lookahead(backend: Backend, total: int) -> Figures:
    """Gzip by the algorithm for long streams."""
    from zarr_gpu.codecs import nvcomp

    plain = nvcomp._decompress_options  # noqa: SLF001

    def options() -> Any:
        made = plain()
        made.word[1] = 1
        return made

    decoded = 4 << 20 if not backend.sim else 4 << 10
    nvcomp._decompress_options = options  # noqa: SLF001
    try:
        streams = make_streams("Gzip", decoded, max(2, min(total // decoded, 64)))
        return {f"Gzip lookahead {decoded >> 10} KiB x {len(streams)}": rate(backend, streams)}
    except Exception as error:  # noqa: BLE001
        return {"Gzip lookahead": f"{type(error).__name__}: {error}"[:200]}
    finally:
        nvcomp._decompress_options = plain  # noqa: SLF001


def crossover(at: Setting) -> Figures:
    """From how many streams on the device is quicker than the host's threads."""
    backend, sizes = at.backend, at.sizes
    found: Figures = {}
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    codecs = {"LZ4": "numcodecs.lz4", "Zstd": "zstd", "Gzip": "gzip"}
    for algorithm, name in codecs.items():
        codec: Any = get_codec_class(name).from_config({})
        for decoded in (1 << 10, 16 << 10) if backend.sim else (256 << 10, 4 << 20):
            rows: dict[str, list[float]] = {}
            for count in (1, 4, 16, 64, 256):
                if count * decoded > 2 * sizes.probe_nbytes:
                    break
                streams = make_streams(algorithm, decoded, count, distinct=8 << 20)
                call, _ = decompress(backend, streams)
                call()
                on_device = backend.time(call, repeat=3, limit=0.5)
                encoded = [
                    streams.host[a : a + n]
                    for a, n in zip(streams.offset.tolist(), streams.nbytes.tolist(), strict=True)
                ]
                if algorithm == "LZ4":
                    head = np.array([decoded], "<u4").view(np.uint8)
                    encoded = [np.concatenate([head, part]) for part in encoded]

                def on_host(parts: list[Any] = encoded, size: int = decoded) -> None:
                    for _ in map_ahead(
                        lambda part: codec.decode(part, limit=size, exact=True),  # noqa: B023
                        parts,
                        min(threads, len(parts)),
                    ):
                        pass

                on_host()
                host = backend.time(on_host, repeat=3, limit=0.5)
                rows[str(count)] = [1e3 * on_device, 1e3 * host]
                backend.release()
            found[f"{algorithm} {decoded >> 10} KiB: streams -> [device ms, host ms]"] = rows
    return found


# ---- the host's share ------------------------------------------------------------------------


def host_times(at: Setting) -> Figures:
    """Microseconds on the host of a launch, a table's upload and a call of nvCOMP."""
    backend = at.backend
    runtime = backend.runtime()
    table = np.arange(64, dtype=np.int64)
    count = 20 if backend.sim else 200
    buffer = runtime.empty(64 * 64)
    offset, nbytes, status = runtime.upload_tables([table * 64, table * 0 + 64, table])

    def launch() -> None:
        for _ in range(count):
            runtime.launch_rows(
                *("copy_segments", 64, buffer, offset, buffer, offset, nbytes),
                status.view(np.int32)[:64],
            )

    def upload() -> None:
        for _ in range(count):
            runtime.upload_tables([table, table, table])

    streams = make_streams("LZ4", 1 << 12, 16)
    call, _ = decompress(backend, streams)

    def nvcomp() -> None:
        for _ in range(count):
            call()

    found = {}
    for name, work in (("launch", launch), ("upload", upload), ("nvcomp call", nvcomp)):
        work()
        backend.sync()
        start = time.perf_counter()
        work()
        found[f"{name}_us"] = 1e6 * (time.perf_counter() - start) / count
        backend.sync()
    return found


def copies(at: Setting) -> Figures:
    """GB/s to the device: page-locked, pageable, and files through page-locked memory."""
    backend, sizes, folder = at.backend, at.sizes, at.folder
    nbytes = sizes.probe_nbytes
    start = time.perf_counter()
    slab = backend.pinned(nbytes)
    slab[...] = 1
    found: Figures = {"pin_s_per_gib": (time.perf_counter() - start) / nbytes * 2**30}
    pageable = np.ones(nbytes, np.uint8)
    found["pinned_gb_s"] = backend.copy_rate(nbytes) / GB
    backend.to_device(pageable)
    found["pageable_gb_s"] = (
        nbytes / backend.time(lambda: backend.to_device(pageable), repeat=3, limit=2) / GB
    )
    path = folder / "copies.bin"
    path.write_bytes(pageable.tobytes())
    view = memoryview(slab)
    for threads in (1, 4, 8, 16):

        def read(threads: int = threads) -> None:
            def part(i: int) -> None:
                lo, hi = nbytes * i // threads, nbytes * (i + 1) // threads
                file = os.open(path, os.O_RDONLY)
                try:
                    while lo < hi:
                        lo += os.preadv(file, [view[lo : min(hi, lo + (4 << 20))]], lo)
                finally:
                    os.close(file)

            workers = [threading.Thread(target=part, args=(i,)) for i in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        read()
        found[f"preadv_{threads}_threads_gb_s"] = (
            nbytes / backend.time(read, repeat=3, limit=1) / GB
        )
    path.unlink()
    return found


def staging(at: Setting) -> Figures:
    """Files to page-locked memory, and small uploads while a large copy is on its way."""
    backend = at.backend
    count, nbytes = (40, 3000) if backend.sim else (2000, 300_000)
    threads = min(8, usable_threads())
    with tempfile.TemporaryDirectory(dir=at.folder) as folder:
        found: Figures = measure_staging(Path(folder), count, nbytes, threads)
    if not backend.sim:
        found |= _uploads_beside_a_copy(backend)
    return found


def _uploads_beside_a_copy(backend: Backend) -> Figures:
    """Microseconds until a table is there, with and without a slab being copied meanwhile.

    By the copy engine, which takes one copy after the other, and by a kernel.
    """
    from zarr_gpu.devices import cuda_runtime

    cuda = backend.xp.cuda
    slab = backend.pinned(256 << 20)
    target = backend.xp.empty(len(slab), np.uint8)
    table = np.arange(1 << 13, dtype=np.int64)
    side, own = cuda.Stream(non_blocking=True), cuda.Stream(non_blocking=True)
    found: Figures = {}
    before = cuda_runtime.MAPPED_NBYTES
    try:
        for way, limit in (("kernel", 1 << 20), ("copy engine", 0)):
            cuda_runtime.MAPPED_NBYTES = limit
            with own:
                runtime = backend.runtime()
                runtime.upload(table)
                own.synchronize()
                for busy in (False, True):
                    times = []
                    for _ in range(5):
                        backend.xp.cuda.Device().synchronize()
                        if busy:
                            target.set(slab, stream=side)
                        start = time.perf_counter()
                        runtime.upload(table)
                        own.synchronize()
                        times.append(time.perf_counter() - start)
                    state = "beside a copy" if busy else "alone"
                    found[f"upload by {way}, {state}_us"] = 1e6 * sorted(times)[2]
                side.synchronize()
    finally:
        cuda_runtime.MAPPED_NBYTES = before
    backend.release()
    return found


def settings(at: Setting) -> Figures:
    """GB/s of reading Blosc-LZ4 chunks from files by the settings of the pipeline."""
    backend, sizes = at.backend, at.sizes
    slab = slab_of("volume", sizes, at.folder)
    path = at.folder / "settings.zarr"
    slabs = max(1, min(sizes.nbytes // 2, backend.free_nbytes() // 4) // slab.nbytes)
    blosc = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    arguments = {"zarr_format": 2, "chunks": sizes.chunk, "compressors": blosc}
    array = write_slabs(path, slab, slabs, arguments).to(backend.device)
    found: Figures = {}
    try:
        for mib, slots, readers in (
            *((64, 3, 8), (128, 3, 8), (256, 3, 8), (512, 3, 8)),
            *((128, 2, 8), (128, 5, 8), (128, 3, 4), (128, 3, 16), (256, 3, 16)),
        ):
            chosen = {"gpu.job_bytes": mib << 20, "gpu.slots": slots, "gpu.readers": readers}
            if backend.sim:
                chosen["gpu.job_bytes"] = mib << 6
            with zarr_gpu.config.set(chosen):
                assert array[...].shape == array.shape
                seconds = backend.time(lambda: array[...], repeat=3, limit=1)
            name = f"{mib} MiB, {slots} slots, {readers} readers"
            found[f"{name} gb_s"] = array.nbytes / seconds / GB
            backend.release()
    finally:
        shutil.rmtree(path, ignore_errors=True)
    return found


def kvikio(at: Setting) -> Figures:
    """GB/s of kvikio from the page cache, and whether GPUDirect Storage can be on."""
    backend, sizes, folder = at.backend, at.sizes, at.folder
    found: Figures = {
        "udev_readable": os.access("/run/udev", os.R_OK),
        "nvidia_fs": Path("/proc/driver/nvidia-fs").exists(),
        "installed": find_spec("kvikio") is not None,
    }
    if not found["installed"] or backend.sim:
        return found
    import kvikio as library
    from kvikio import defaults

    found["compat_mode"] = bool(defaults.is_compat_mode_preferred())
    nbytes = sizes.probe_nbytes
    path = folder / "kvikio.bin"
    path.write_bytes(bytes(nbytes))
    target = backend.xp.empty(nbytes, np.uint8)
    backend.sync()
    for threads in (1, 8, 16):
        with defaults.set({"num_threads": threads}), library.CuFile(path, "r") as file:

            def read(file: Any = file) -> None:
                file.pread(target).get()

            read()
            found[f"pread_{threads}_threads_gb_s"] = (
                nbytes / backend.time(read, repeat=3, limit=1.5) / GB
            )
    path.unlink()
    return found


# ---- kernels ---------------------------------------------------------------------------------


def first_use(at: Setting) -> Figures:
    """Seconds of the first read of a process by codec, and of the second.

    The first compiles what is not in Numba's disk cache yet.
    """
    backend = at.backend
    found: Figures = {}
    blosc = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}
    for name, codecs in (
        ("none", None),
        ("blosc", [{"name": "blosc", "configuration": blosc}]),
        ("zstd", [{"name": "zstd", "configuration": {"level": 1}}]),
        ("gzip", [{"name": "gzip", "configuration": {"level": 1}}]),
    ):
        array = zarr_gpu.create_array(
            {}, shape=4096, chunks=1024, dtype="u2", compressors=codecs, device="cpu"
        )
        array[...] = np.arange(4096)
        there = array.to(backend.device)
        for which in ("first", "second"):
            start = time.perf_counter()
            got = backend.to_host(there[...])
            found[f"{name} {which}_s"] = time.perf_counter() - start
            assert np.array_equal(got, np.arange(4096))
    if not backend.sim:
        found["warmup_s"] = zarr_gpu.warmup(backend.device)
    return found


def kernels(at: Setting) -> Figures:
    """GB/s of the decoded side of our kernels, beside a copy on the device."""
    backend, sizes = at.backend, at.sizes
    runtime = backend.runtime()
    nbytes = sizes.probe_nbytes
    rows = max(1, nbytes >> (20 if not backend.sim else 14))
    each = nbytes // rows
    number = np.arange(rows, dtype=np.int64)
    start, size, one = number * each, np.full(rows, each, np.int64), np.ones(rows, np.int64)
    source, target = runtime.empty(nbytes), runtime.empty(nbytes)
    source.fill(7)
    status = backend.xp.zeros(rows, np.int32)
    found: Figures = {}

    def measure(name: str, call: Callable[[], Any]) -> None:
        call()
        found[f"{name}_gb_s"] = nbytes / backend.time(call, repeat=5, limit=1) / GB

    def plain() -> None:
        target[...] = source

    measure("copy", plain)
    tables = runtime.upload_tables([start, start, size])
    measure(
        "copy_segments",
        lambda: runtime.launch_rows(
            *("copy_segments", rows, source, tables[0], target, tables[1], tables[2], status)
        ),
    )
    flags = runtime.upload(np.ones(rows, np.uint8))
    for name, mode, typesize in (
        ("unshuffle 2", 1, 2),
        ("unshuffle 4", 1, 4),
        ("unshuffle 8", 1, 8),
        ("unshuffle 3", 1, 3),
        ("bitunshuffle 4", 2, 4),
    ):
        made = [start, size, number, one, start]
        parts = runtime.upload_tables([*made, 0 * one, one * typesize, one * mode])
        args = (source, source, *parts[:5], flags, *parts[5:], target, target.view(np.uint64))

        def assemble(args: Any = args) -> None:
            runtime.launch_rows("blosc_assemble", rows, *args, status)

        measure(name, assemble)
    swapped = runtime.upload_tables([start // 4, size // 4])
    measure(
        "byteswap 4",
        lambda: runtime.launch_rows("byteswap", rows, target.view(np.uint32), *swapped, status),
    )
    measure("crc32c (nvCOMP)", lambda: runtime.nvcomp.crc32(runtime, source, start, size, "crc32c"))
    found |= _placing(backend, sizes)
    return found


def _placing(backend: Backend, sizes: Sizes) -> Figures:
    """Chunks that are stored as they are: placing alone, and all that a read costs on the host."""
    shape = tuple(4 * n for n in sizes.chunk)
    values = microscopy(shape)
    store: dict[str, bytes] = {}
    made = zarr_gpu.create_array(
        store, shape=shape, chunks=sizes.chunk, dtype="u2", compressors=None, device="cpu"
    )
    made[...] = values
    cache = zarr_gpu.DeviceCache(2 * values.nbytes)
    array = made.to(backend.device).with_cache(cache)
    found: Figures = {}
    for name, box in (
        ("whole", (Ellipsis,)),
        ("off the grid", tuple(slice(3, n - 3) for n in shape)),
        ("every second", tuple(slice(None, None, 2) for _ in shape)),
    ):
        nbytes = values[box].nbytes
        for _ in range(2):
            got = array[box]
        assert np.array_equal(backend.to_host(got), values[box])

        def read(box: Any = box) -> Any:
            return array[box]

        seconds = backend.time(read, repeat=5, limit=1)
        found[f"scatter {name} gb_s"] = nbytes / seconds / GB
    return found


# ---- what may end badly ------------------------------------------------------------------------


def _raw_zstd(data: bytes) -> bytes:
    """A frame that does not tell its size: one block, stored."""
    head = (len(data) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x00\x58" + head + data


def _zstd_frame(kind: str) -> Probe:
    """How nvCOMP takes a Zstandard frame that is not plain."""

    def probe(at: Setting) -> Figures:
        backend = at.backend
        data = (np.arange(1 << 14) % 251).astype(np.uint8)
        encode: Any = get_codec_class("zstd").from_config({"level": 3})
        summed: Any = get_codec_class("zstd").from_config({"level": 3, "checksum": True})
        half = len(data) // 2
        frame = {
            "checksum": lambda: bytes(summed.encode(data)),
            "no size": lambda: _raw_zstd(data.tobytes()),
            "two frames": lambda: (
                bytes(encode.encode(data[:half])) + bytes(encode.encode(data[half:]))
            ),
            "skippable": lambda: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + bytes(encode.encode(data)),
        }[kind]()
        return _one_stream(backend, "Zstd", np.frombuffer(frame, np.uint8), data)

    return probe


def _damaged(algorithm: str) -> Probe:
    """What nvCOMP makes of damaged streams, and whether the device lives on."""

    def probe(at: Setting) -> Figures:
        backend = at.backend
        streams = make_streams(algorithm, 1 << 12, 1)
        encoded = streams.host[: streams.nbytes[0]]
        rng = np.random.default_rng(1)
        outcomes: dict[str, int] = {}
        for number in range(40):
            bad = encoded.copy()
            if number % 2:
                bad = bad[: int(rng.integers(1, len(bad)))]
            else:
                bad[rng.integers(len(bad), size=3)] = rng.integers(0, 256, 3, dtype=np.uint8)
            one = _one_stream(backend, algorithm, bad, streams.sample)
            label = f"status {one['status']}, {'right' if one['equal'] else 'wrong'} values"
            outcomes[label] = outcomes.get(label, 0) + 1
        return {"outcomes": outcomes, "lives": lives(backend)}

    return probe


def _one_stream(backend: Backend, algorithm: str, encoded: Any, data: Any) -> Figures:
    streams = Streams(
        algorithm,
        encoded,
        np.zeros(1, np.int64),
        np.array([len(encoded)], np.int64),
        len(data),
        data,
    )
    call, room = decompress(backend, streams)
    room.fill(0xA5)
    status, actual = call()
    got = backend.to_host(room)[: len(data)]
    return {
        "status": int(backend.to_host(status)[0]),
        "actual": int(backend.to_host(actual).view(np.int64)[0]),
        "expected": len(data),
        "equal": bool(np.array_equal(got, data)),
        "lives": lives(backend),
    }


RISKY: dict[str, Probe] = {
    **{
        f"zstd frame: {kind}": _zstd_frame(kind)
        for kind in ("checksum", "no size", "two frames", "skippable")
    },
    **{f"damaged {name}": _damaged(name) for name in ("LZ4", "Zstd", "Snappy", "Deflate", "Gzip")},
}

PROBES: dict[str, Probe] = {
    "first use": first_use,
    "library": library,
    "copies": copies,
    "staging": staging,
    "throughput": throughput,
    "host times": host_times,
    "kernels": kernels,
    "settings": settings,
    "crossover": crossover,
    "kvikio": kvikio,
    **RISKY,
}
