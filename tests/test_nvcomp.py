"""The seam to nvCOMP: layouts and argument orders, the library itself as far as it goes without a
driver, and the stand-in below the same seam."""

from __future__ import annotations

import ctypes
import re
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from zarr_gpu.codecs import nvcomp
from zarr_gpu.codecs.nvcomp import (
    ALGORITHMS,
    Alignments,
    CrcOptions,
    KernelConf,
    NvComp,
    Options,
    sub_batches,
)
from zarr_gpu.codecs.nvcomp_host import HostNvComp
from zarr_gpu.codecs.nvcomp_snappy import DamagedStreamError, snappy_compress, snappy_decode
from zarr_gpu.codecs.runtime import dense
from zarr_gpu.devices.sim_runtime import POISON, SimRuntime
from zarr_gpu.errors import DeviceError

needs_numba = pytest.mark.skipif(
    find_spec("numba") is None, reason="platform: Numba is not installed"
)


@pytest.fixture(scope="module")
def library() -> NvComp:
    found = nvcomp.load()
    if found is None:
        pytest.skip("platform: nvCOMP is not installed")
    return found


@pytest.fixture(scope="module")
def headers() -> Path:
    for folder in (spec.submodule_search_locations if (spec := find_spec("nvidia")) else ()) or ():
        path = Path(folder, "libnvcomp", "include", "nvcomp")
        if path.is_dir():
            return path
    pytest.skip("platform: the headers of nvCOMP are not installed")


# ---- layouts and argument orders -----------------------------------------------------------------


def test_layouts() -> None:
    assert ctypes.sizeof(Options) == 64
    assert ctypes.sizeof(Alignments) == 24
    assert [getattr(Alignments, f).offset for f in ("input", "output", "temp")] == [0, 8, 16]
    assert ctypes.sizeof(CrcOptions) == 128
    assert CrcOptions.conf.offset == 32
    assert CrcOptions.reserved.offset == 64
    spec = nvcomp.CrcSpec
    fields = ("poly", "init", "ref_in", "ref_out", "xorout", "reserved")
    assert [getattr(spec, f).offset for f in fields] == [0, 4, 8, 9, 12, 16]
    assert ctypes.sizeof(spec) == ctypes.sizeof(KernelConf) == 32
    fields = ("kind", "bytes_per_read", "blocks_per_message", "reserved")
    assert [getattr(KernelConf, f).offset for f in fields] == [0, 4, 8, 12]


def test_argument_orders() -> None:
    """As written down from the documentation: p pointer, n size, o options, m out size, a out
    alignments, s stream."""
    letters = {
        ctypes.c_void_p: "p",
        ctypes.c_size_t: "n",
        Options: "o",
        ctypes.POINTER(ctypes.c_size_t): "m",
        ctypes.POINTER(Alignments): "a",
        CrcOptions: "c",
        ctypes.c_int: "i",
        ctypes.POINTER(KernelConf): "k",
    }
    orders = {
        "DecompressGetRequiredAlignments": "oa",
        "DecompressGetTempSize": "nnomnp",
        "DecompressAsync": "ppppnpnpopp",
        "CompressGetRequiredAlignments": "oa",
        "CompressGetTempSize": "nnomnp",
        "CompressGetMaxOutputChunkSize": "nom",
        "CompressAsync": "ppnnpnppopp",
    }
    expected = {f"nvcompBatched{a}{name}": o for a in ALGORITHMS for name, o in orders.items()}
    expected["nvcompBatchedCRC32Async"] = "ppnpcipp"
    expected["nvcompBatchedCRC32GetHeuristicConf"] = "pnknp"
    found = {
        name: "".join(letters[t] for t in types) for name, types in nvcomp.signatures().items()
    }
    assert found == expected


def _c_types(prototype: str) -> list[object]:
    found: list[object] = []
    for argument in prototype.split(","):
        words = argument.replace("*", " * ").split()
        stars, plain = words.count("*"), next(w for w in words if w not in ("*", "const"))
        if stars and plain == "size_t" and "device_" not in argument:
            found.append(ctypes.POINTER(ctypes.c_size_t))
        elif stars and plain == "nvcompAlignmentRequirements_t":
            found.append(ctypes.POINTER(Alignments))
        elif stars and plain == "nvcompCRC32KernelConf_t":
            found.append(ctypes.POINTER(KernelConf))
        elif stars or plain == "cudaStream_t":
            found.append(ctypes.c_void_p)
        elif plain == "nvcompBatchedCRC32Opts_t":
            found.append(CrcOptions)
        elif plain.endswith("Opts_t"):
            found.append(Options)
        else:
            found.append(
                {"size_t": ctypes.c_size_t, "nvcompCRC32SegmentKind_t": ctypes.c_int}[plain]
            )
    return found


def test_argument_orders_of_the_headers(headers: Path) -> None:
    seen = set()
    for path in headers.glob("*.h"):
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for name, arguments in re.findall(r"nvcompStatus_t\s+(\w+)\s*\(([^)]*)\)", text):
            if name in nvcomp.signatures():
                assert _c_types(arguments) == list(nvcomp.signatures()[name]), name
                seen.add(name)
    assert seen == set(nvcomp.signatures())


def test_statuses_of_the_headers(headers: Path) -> None:
    text = (headers / "shared_types.h").read_text(encoding="utf-8")
    pairs = re.findall(r"nvcomp(?:Error)?(\w+) = (\d+),", text)
    assert {int(code): name for name, code in pairs} == nvcomp.STATUS


def test_options_of_the_headers(headers: Path) -> None:
    """The options that are set are the first field; what else there is must stay 0."""
    for algorithm in ALGORITHMS:
        text = (headers / f"{algorithm.lower()}.h").read_text(encoding="utf-8")
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        found = re.findall(
            r"typedef struct\s*\{([^}]*)\}\s*nvcompBatched\w+?(Decompress|Compress)Opts_t", text
        )
        structs = {way: body for body, way in found}
        first = {way: body.split(";")[0].split() for way, body in structs.items()}
        assert first["Decompress"] == ["nvcompDecompressBackend_t", "backend"]
        if algorithm in ("Deflate", "Gzip"):
            assert first["Compress"] == ["int", "algorithm"]
        else:
            assert nvcomp._compress_options(algorithm, 3).word[0] == 0
    assert nvcomp._decompress_options().word[0] == 2  # CUDA
    assert nvcomp._compress_options("Gzip", None).word[0] == 1
    assert nvcomp._compress_options("Deflate", 5).word[0] == 5


# ---- the library without a driver ----------------------------------------------------------------


def test_load_is_cached_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvcomp.load() is nvcomp.load()
    monkeypatch.setattr(nvcomp, "_candidates", lambda: iter(["/nowhere/libnvcomp.so.6"]))
    assert nvcomp.load.__wrapped__() is None
    path = ctypes.util.find_library("c") if hasattr(ctypes, "util") else None
    monkeypatch.setattr(nvcomp, "_candidates", lambda: iter([path or "libc.so.6"]))
    assert nvcomp.load.__wrapped__() is None  # another library: the functions are missing


def test_library_answers_without_a_driver(library: NvComp) -> None:
    for algorithm in ALGORITHMS:
        for compress in (False, True):
            found = library.alignments(algorithm, compress=compress)
            for value in (found.input, found.output, found.temp):
                assert value in (1, 2, 4, 8, 16)
        assert library.encoded_bound(algorithm, 1 << 16) >= 1 << 16
    assert library.alignments("Deflate").input == 4
    one = library.scratch_nbytes("Zstd", 1, 1 << 20, 1 << 20)
    many = library.scratch_nbytes("Zstd", 64, 1 << 20, 64 << 20)
    assert 3 << 20 <= one < many
    assert library.scratch_nbytes("LZ4", 1000, 1 << 16, 1000 << 16) == 0


def test_library_takes_options_by_value(library: NvComp) -> None:
    for algorithm in ALGORITHMS:
        pointers = (None, None, None, None, 4, None, 0, None)
        with pytest.raises(DeviceError, match="InvalidValue"):
            library._call(
                f"nvcompBatched{algorithm}DecompressAsync",
                *pointers,
                nvcomp._decompress_options(),
                None,
                None,
            )


def test_stand_in_answers_as_the_library(library: NvComp) -> None:
    host = HostNvComp()
    for algorithm in ALGORITHMS:
        for compress in (False, True):
            asked = library.alignments(algorithm, compress=compress)
            given = host.alignments(algorithm, compress=compress)
            for field in ("input", "output", "temp"):
                assert getattr(asked, field) == getattr(given, field)
        asked_bytes = library.scratch_nbytes(algorithm, 1000, 1 << 16, 1000 << 16)
        given_bytes = host.scratch_nbytes(algorithm, 1000, 1 << 16, 1000 << 16)
        assert abs(asked_bytes - given_bytes) <= asked_bytes // 100


# ---- cutting batches -----------------------------------------------------------------------------


def test_sub_batches() -> None:
    sizes = np.full(100, 1000)

    def scratch(rows: int, largest: int, total: int) -> int:
        return 3 * total + 10 * rows

    assert sub_batches(sizes, scratch, 1 << 30) == [(slice(0, 100), 301_000)]
    parts = sub_batches(sizes, scratch, 50_000)
    assert parts[0][0].start == 0
    assert parts[-1][0].stop == 100
    for (a, need), (b, _) in zip(parts, [*parts[1:], (slice(100, 100), 0)], strict=True):
        assert a.stop == b.start
        assert a.start < a.stop
        assert need == scratch(a.stop - a.start, 1000, 1000 * (a.stop - a.start)) <= 50_000
    assert len(parts) <= 10
    assert sub_batches(np.empty(0, np.int64), scratch, 1) == []


def test_sub_batches_of_uneven_rows() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.choice([1, 10, 5000, 100_000], 500)

    def scratch(rows: int, largest: int, total: int) -> int:
        return 3 * total

    parts = sub_batches(sizes, scratch, 300_000)
    covered = np.concatenate([np.arange(500)[rows] for rows, _ in parts])
    assert covered.tolist() == list(range(500))
    for rows, need in parts:
        assert need == 3 * sizes[rows].sum()
        assert need <= 300_000 or rows.stop - rows.start == 1


# ---- the stand-in --------------------------------------------------------------------------------


def payload(rng: np.random.Generator, size: int) -> np.ndarray:
    return (np.cumsum(rng.integers(0, 3, size)) // 2).astype("u1")


def encode(algorithm: str, data: np.ndarray) -> bytes:
    if algorithm == "Snappy":
        return snappy_compress(data).tobytes()
    if algorithm in ("Deflate", "Gzip"):
        stream = zlib.compressobj(6, zlib.DEFLATED, 31 if algorithm == "Gzip" else -15)
        return stream.compress(data.tobytes()) + stream.flush()
    from numcodecs import LZ4, Zstd

    if algorithm == "LZ4":
        return bytes(LZ4().encode(data))[4:]
    return bytes(Zstd().encode(data))


class Batch:
    """Streams in one device buffer, at odd places."""

    def __init__(self, runtime: SimRuntime, streams: list[bytes], sizes: list[int]) -> None:
        nbytes = np.array([len(s) for s in streams], np.int64)
        self.offset = np.cumsum(nbytes + 3) - nbytes
        host = np.zeros(int(nbytes.sum()) + 3 * len(streams) + 3, np.uint8)
        for at, stream in zip(self.offset.tolist(), streams, strict=True):
            host[at : at + len(stream)] = np.frombuffer(stream, np.uint8)
        self.nbytes = nbytes
        self.src = runtime.upload(host)
        self.sizes = np.array(sizes, np.int64)
        self.dst_offset, total = dense(self.sizes + 32)
        self.dst_offset += 5
        self.dst = runtime.empty(total)
        runtime.counts.clear()

    def arguments(self) -> tuple[object, ...]:
        return (self.src, self.offset, self.nbytes, self.dst, self.dst_offset, self.sizes)

    def row(self, i: int) -> np.ndarray:
        return self.dst[self.dst_offset[i] :][: self.sizes[i]]

    def check_bands(self) -> None:
        """Nothing is written outside of the rows."""
        untouched = np.ones(len(self.dst), bool)
        for at, size in zip(self.dst_offset, self.sizes, strict=True):
            untouched[at : at + size] = False
        assert (self.dst[untouched] == POISON).all()


@needs_numba
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_decompress(algorithm: str, count: int) -> None:
    rng = np.random.default_rng(count)
    runtime = SimRuntime()
    data = [payload(rng, int(n)) for n in rng.integers(1, 3000, count)]
    batch = Batch(runtime, [encode(algorithm, d) for d in data], [len(d) for d in data])
    status, actual = runtime.nvcomp.decompress(runtime, algorithm, *batch.arguments())
    assert status.dtype == np.int32
    assert actual.dtype == np.uint64
    assert not status.any()
    assert (actual == batch.sizes).all()
    for i, expected in enumerate(data):
        assert (batch.row(i) == expected).all()
    batch.check_bands()
    copies = int(algorithm == "Deflate")  # which must be aligned
    assert runtime.counts == {"nvcomp_calls": 1, "uploads": 1 + copies} | (
        {"launches": 1} if copies else {}
    )


@needs_numba
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_decompress_where_much_must_be_aligned(algorithm: str) -> None:
    rng = np.random.default_rng(5)
    runtime = SimRuntime()
    runtime.nvcomp = HostNvComp({algorithm: (8, 16, 8)})
    data = [payload(rng, int(n)) for n in rng.integers(1, 3000, 20)]
    batch = Batch(runtime, [encode(algorithm, d) for d in data], [len(d) for d in data])
    status, _ = runtime.nvcomp.decompress(runtime, algorithm, *batch.arguments())
    assert not status.any()
    for i, expected in enumerate(data):
        assert (batch.row(i) == expected).all()
    batch.check_bands()
    assert runtime.counts == {"nvcomp_calls": 1, "uploads": 3, "launches": 2}


@needs_numba
def test_zstd_is_cut_by_scratch() -> None:
    rng = np.random.default_rng(5)
    runtime = SimRuntime()
    data = [payload(rng, 5000) for _ in range(40)]
    batch = Batch(runtime, [encode("Zstd", d) for d in data], [5000] * 40)
    limit = 10 * (3 * 5000 + 6936)
    status, _ = runtime.nvcomp.decompress(runtime, "Zstd", *batch.arguments(), scratch_limit=limit)
    assert not status.any()
    assert runtime.counts["nvcomp_calls"] == 4
    assert runtime.counts["uploads"] == 1
    for i, expected in enumerate(data):
        assert (batch.row(i) == expected).all()


def test_nothing_is_no_call() -> None:
    runtime = SimRuntime()
    none = np.empty(0, np.int64)
    status, actual = runtime.nvcomp.decompress(
        runtime, "LZ4", runtime.empty(1), none, none, runtime.empty(1), none, none
    )
    assert len(status) == len(actual) == 0
    assert len(runtime.nvcomp.compress(runtime, "LZ4", runtime.empty(1), none, none)[1]) == 0
    assert len(runtime.nvcomp.crc32(runtime, runtime.empty(1), none, none, "crc32")) == 0
    assert not runtime.counts


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(-1, 5), (0, 11), (6, 5), (11, 0), (0, -1), (1 << 62, 1 << 62)]
)
def test_rows_outside_of_their_buffer(offset: int, nbytes: int) -> None:
    runtime = SimRuntime()
    bad, good = (np.array([offset]), np.array([nbytes])), (np.array([0]), np.array([10]))
    buffer, other = runtime.empty(10), runtime.empty(10)
    library = runtime.nvcomp
    with pytest.raises(DeviceError, match="outside"):
        library.decompress(runtime, "LZ4", buffer, *bad, other, *good)
    with pytest.raises(DeviceError, match="outside"):
        library.decompress(runtime, "LZ4", buffer, *good, other, *bad)
    with pytest.raises(DeviceError, match="outside"):
        library.compress(runtime, "LZ4", buffer, *bad)
    with pytest.raises(DeviceError, match="outside"):
        library.crc32(runtime, buffer, *bad, "crc32")


def test_stand_in_refuses_what_is_not_aligned() -> None:
    """Callers below the seam get no copies: this is nvCOMP's contract."""
    host = HostNvComp()
    tables = np.ones(4, np.uint64)  # address 1
    address = tables.ctypes.data
    with pytest.raises(DeviceError, match="Alignment"):
        host._call(
            "nvcompBatchedDeflateDecompressAsync",
            *(address, address, address, address, 1, 0, 0, address),
            *(nvcomp._decompress_options(), address, 0),
        )


@needs_numba
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_damage(algorithm: str) -> None:
    """LZ4 tells; the others leave garbage and may call it success.  Other rows are right."""
    rng = np.random.default_rng(3)
    runtime = SimRuntime()
    data = [payload(rng, 2000) for _ in range(40)]
    streams = [encode(algorithm, d) for d in data]
    damaged = range(0, 40, 2)
    for i in damaged:
        streams[i] = streams[i][: len(streams[i]) * 2 // 3]
    batch = Batch(runtime, streams, [2000] * 40)
    status, actual = runtime.nvcomp.decompress(runtime, algorithm, *batch.arguments())
    batch.check_bands()
    for i in range(1, 40, 2):
        assert status[i] == 0
        assert actual[i] == 2000
        assert (batch.row(i) == data[i]).all()
    told = [int(status[i]) for i in damaged]
    if algorithm == "LZ4":
        # A block may end early and still be one: then the size is what tells.
        assert all(status[i] == 12 or actual[i] != 2000 for i in damaged)
        assert 12 in told
    else:
        assert set(told) == {0, 12}
        unnoticed = [i for i in damaged if status[i] == 0 and actual[i] == 2000]
        assert unnoticed
        assert all((batch.row(i) != data[i]).any() for i in unnoticed)
    again = runtime.nvcomp.decompress(runtime, algorithm, *batch.arguments())
    assert (again[0] == status).all()


@needs_numba
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_too_small_and_too_large(algorithm: str) -> None:
    rng = np.random.default_rng(3)
    runtime = SimRuntime()
    data = payload(rng, 1000)
    batch = Batch(runtime, [encode(algorithm, data)] * 2, [1100, 1000])
    status, actual = runtime.nvcomp.decompress(runtime, algorithm, *batch.arguments())
    assert status.tolist() == [0, 0]
    assert actual.tolist() == [1000, 1000]
    batch = Batch(runtime, [encode(algorithm, data)], [900])
    status, actual = runtime.nvcomp.decompress(runtime, algorithm, *batch.arguments())
    assert status[0] == 12 or algorithm != "LZ4"
    batch.check_bands()


@needs_numba
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_compress(algorithm: str) -> None:
    rng = np.random.default_rng(3)
    runtime = SimRuntime()
    data = [payload(rng, int(n)) for n in rng.integers(1, 5000, 30)]
    batch = Batch(runtime, [d.tobytes() for d in data], [1] * 30)
    buffer, offset, nbytes, status = runtime.nvcomp.compress(
        runtime, algorithm, batch.src, batch.offset, batch.nbytes, room=4
    )
    assert runtime.counts["nvcomp_calls"] == 1
    assert not status.any()
    assert (offset >= 4).all()
    assert (offset % 16 == 0).all()
    streams = [buffer[a : a + int(n)].tobytes() for a, n in zip(offset, nbytes, strict=True)]
    batch = Batch(runtime, streams, [len(d) for d in data])
    status, _ = runtime.nvcomp.decompress(runtime, algorithm, *batch.arguments())
    assert not status.any()
    for i, expected in enumerate(data):
        assert (batch.row(i) == expected).all()


@needs_numba
def test_compress_is_cut_by_scratch() -> None:
    rng = np.random.default_rng(3)
    runtime = SimRuntime()
    data = [payload(rng, 1000) for _ in range(30)]
    batch = Batch(runtime, [d.tobytes() for d in data], [1] * 30)
    buffer, offset, nbytes, _ = runtime.nvcomp.compress(
        runtime, "Gzip", batch.src, batch.offset, batch.nbytes, level=5, scratch_limit=60_000
    )
    assert runtime.counts["nvcomp_calls"] in {3, 4}
    for a, n, expected in zip(offset, nbytes, data, strict=True):
        assert zlib.decompress(buffer[a : a + int(n)].tobytes(), 31) == expected.tobytes()


def test_the_scratch_of_a_part_fits_the_largest_row_of_all() -> None:
    """Every call is told of the largest row of the batch, and may want scratch memory for it."""
    rng = np.random.default_rng(4)
    runtime = SimRuntime()
    data = [payload(rng, size) for size in [9000] + [100] * 105]
    batch = Batch(runtime, [d.tobytes() for d in data], [1] * 106)
    buffer, offset, nbytes, _ = runtime.nvcomp.compress(
        runtime, "Gzip", batch.src, batch.offset, batch.nbytes, scratch_limit=70_000
    )
    assert runtime.counts["nvcomp_calls"] == 2
    for a, n, expected in zip(offset, nbytes, data, strict=True):
        assert zlib.decompress(buffer[a : a + int(n)].tobytes(), 31) == expected.tobytes()


def test_crc32() -> None:
    import google_crc32c

    runtime = SimRuntime()
    rng = np.random.default_rng(0)
    data = [rng.integers(0, 256, n, "u1").tobytes() for n in (0, 1, 9, 1000)]
    batch = Batch(runtime, data, [1] * 4)
    where = (batch.src, batch.offset, batch.nbytes)
    assert runtime.nvcomp.crc32(runtime, *where, "crc32").tolist() == [zlib.crc32(d) for d in data]
    assert runtime.nvcomp.crc32(runtime, *where, "crc32c").tolist() == [
        google_crc32c.value(d) for d in data
    ]
    assert runtime.counts == {"nvcomp_calls": 2, "uploads": 2}


def test_library_on_host_memory_tells_that_there_is_no_driver(library: NvComp) -> None:
    """All the way to the launch, which cannot be without a driver."""
    runtime = SimRuntime()
    batch = Batch(runtime, [b"\x00" * 8], [16])
    for algorithm in ("LZ4", "Zstd", "Snappy", "Gzip"):
        with pytest.raises(DeviceError, match="CudaError"):
            library.decompress(runtime, algorithm, *batch.arguments())


# ---- snappy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 60, 61, 65536, 65537, 200_000])
def test_snappy_literals(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, "u1")
    assert (snappy_decode(snappy_compress(data), size) == data).all()


def test_snappy_copies() -> None:
    # "abcd", then copies with offsets of 1, 2 and 4 bytes, the first of them overlapping
    stream = b"\x1c" + b"\x0cabcd" + b"\x11\x01" + b"\x0e\x04\x00" + b"\x2f\x0c\x00\x00\x00"
    expected = b"abcd"
    expected += expected[-1:] * 8
    expected += expected[-4:]
    expected += expected[-12:]
    stream = bytes([len(expected)]) + stream[1:]
    assert snappy_decode(np.frombuffer(stream, np.uint8), 100).tobytes() == expected


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\x80",
        b"\xff\xff\xff\xff\xff\x01",
        b"\x05",
        b"\x05\x10abcd",
        b"\x04\x0cabcde",
        b"\x08\x0cabcd\x01\x05",
        b"\x08\x0cabcd\x01\x00",
        b"\x08\x0cabcd\x01",
        b"\x02\x0cabcd",
    ],
)
def test_snappy_damage(stream: bytes) -> None:
    with pytest.raises(DamagedStreamError):
        snappy_decode(np.frombuffer(stream, np.uint8), 100)
