"""The compiled loop that reads rows from files: equal to the ordinary way, in values and errors."""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zarr_gpu
from zarr_gpu import config
from zarr_gpu.devices import compiled, cpu, host_rows
from zarr_gpu.errors import ChunkDecodeError, ZarrError
from zarr_gpu.storage import LocalStore, MemoryStore

pytest.importorskip("numba", reason="the compiled loop needs Numba: pip install 'zarr-gpu[fast]'")

BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}


@pytest.fixture(autouse=True)
def _compiled() -> Iterator[None]:
    with config.set({"cpu.compiled": True}):
        yield


class Calls:
    """The C library's ``open`` and ``pread``, counted."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self.opened: list[str] = []
        self.reads: list[tuple[int, int]] = []  # (bytes, offset)

        def opens(path: bytes, flags: int) -> int:
            self.opened.append(Path(os.fsdecode(path)).name)
            return os.open(path, flags)

        def preads(fd: int, target: int, nbytes: int, offset: int) -> int:
            self.reads.append((nbytes, offset))
            return os.preadv(fd, [(ctypes.c_char * nbytes).from_address(target)], offset)

        c_int, word = ctypes.c_int, ctypes.c_ssize_t
        self._keep = [
            ctypes.CFUNCTYPE(c_int, ctypes.c_char_p, c_int)(opens),
            ctypes.CFUNCTYPE(word, c_int, ctypes.c_void_p, ctypes.c_size_t, word)(preads),
        ]
        addresses = [ctypes.cast(f, ctypes.c_void_p).value for f in self._keep]
        close = ctypes.cast(library.close, ctypes.c_void_p).value
        seek = ctypes.cast(library.lseek, ctypes.c_void_p).value
        self.addresses = [addresses[0], close, addresses[1], seek, 0, os.O_RDONLY]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    counted = Calls()
    monkeypatch.setattr(compiled, "_c_addresses", counted.addresses)
    monkeypatch.setattr(compiled, "_functions", compiled._Functions())
    return counted


class Ordinary(MemoryStore):
    """A store that lanes cannot read without its help."""

    def files(self) -> None:
        return None


def loops(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects what the loops leave to the ordinary way, an entry per job or box."""
    left: list[Any] = []
    read, read_box = host_rows.RowLoop.read, cpu.read_box

    def spied(self: Any, job: Any) -> Any:
        rest = read(self, job)
        left.append([job.key(j.lo) for j in rest])
        return rest

    def spied_box(*arguments: Any) -> bool:
        done = read_box(*arguments)
        left.append([] if done else ["a box"])
        return done

    monkeypatch.setattr(host_rows.RowLoop, "read", spied)
    monkeypatch.setattr(cpu, "read_box", spied_box)
    return left


# ---------------------------------------------------------------------------------- values

CODECS: dict[str, Any] = {
    "raw": None,
    "blosc": {"name": "blosc", "configuration": {"typesize": 2, "cname": "lz4", "clevel": 5,
                                                 "shuffle": "shuffle", "blocksize": 256}},
    "blosc stored": {"name": "blosc", "configuration": {"typesize": 2, "cname": "lz4", "clevel": 0,
                                                        "shuffle": "noshuffle", "blocksize": 0}},
    "blosc zstd bits": {"name": "blosc", "configuration": {"typesize": 4, "cname": "zstd",
                                                           "clevel": 3, "shuffle": "bitshuffle",
                                                           "blocksize": 128}},
    "zstd": {"name": "zstd", "configuration": {"level": 1, "checksum": True}},
    "gzip": {"name": "gzip", "configuration": {"level": 5}},
    "zlib": {"name": "numcodecs.zlib", "configuration": {"level": 1}},
    "lz4": {"name": "numcodecs.lz4", "configuration": {"acceleration": 1}},
}  # fmt: skip
PLACES = ["memory", "local", "zip"]


def has_deflate() -> bool:
    from zarr_gpu.codecs import native

    return native.deflate() is not None


def stored(
    place: str, folder: Path, values: np.ndarray, **arguments: Any
) -> tuple[zarr_gpu.Array, zarr_gpu.Array]:
    """The same array to be read by the loop, and in the ordinary way."""
    items: dict[str, bytes] = {}
    array = zarr_gpu.create_array(items, shape=values.shape, dtype=values.dtype, **arguments)
    array[...] = values
    ordinary = zarr_gpu.open_array(Ordinary(items))
    if place == "memory":
        return zarr_gpu.open_array(items, mode="r"), ordinary
    where = folder / ("a.zip" if place == "zip" else "a.zarr")
    if place == "zip":
        with zarr_gpu.storage.ZipStore(where, mode="w") as target:
            zarr_gpu.copy_store(items, target)
    else:
        zarr_gpu.copy_store(items, where)
    return zarr_gpu.open_array(where, mode="r"), ordinary


VALUES = (np.arange(40 * 36) ** 2 % 9973).reshape(40, 36)
SELECTIONS: list[Any] = [
    ...,
    (slice(3, 39), slice(1, 30)),
    (slice(None, None, -1), slice(None, None, 3)),
    (slice(30, 2, -7), 17),
    (5, slice(None)),
    (slice(None), 5),
    (39, 35),
    (slice(8, 16), slice(12, 24)),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shards", [None, (16, 24)])
@pytest.mark.parametrize("dtype", ["u1", "<i2", "f4", "f8", "c16"])
def test_reads_equal(
    place: str, codec: str, shards: Any, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = VALUES.astype(dtype)
    values[8:16, 12:24] = 0  # chunks that are absent
    fast, slow = stored(
        place, tmp_path, values, chunks=(8, 12), shards=shards, compressors=CODECS[codec]
    )
    left = loops(monkeypatch)
    for selection in SELECTIONS:
        assert np.array_equal(fast[selection], values[selection])
    rows, columns = np.array([39, 0, 7, 7, 20]), np.array([35, 1, 1, 12, 3])
    assert np.array_equal(fast.oindex[rows, columns], values[np.ix_(rows, columns)])
    assert np.array_equal(fast.oindex[rows], values[rows])
    assert np.array_equal(fast.vindex[rows, columns], values[rows, columns])
    out = np.zeros((40, 72), dtype)[:, ::2]
    fast.get_basic_selection(out=out)
    assert np.array_equal(out, slow[...])
    turned = np.zeros((36, 40), dtype).T
    fast.get_basic_selection(out=turned)
    assert np.array_equal(turned, values)
    # libdeflate is optional, and everything else never needs the ordinary way.
    if codec not in ("gzip", "zlib") or has_deflate():
        assert left
        assert not any(left)


@pytest.mark.parametrize("order", ["C", "F"])
@given(data=st.data())
def test_version_2_and_other_orders(order: str, data: st.DataObject) -> None:
    """Chunks in either order, v2 keys, results in either order."""
    values = VALUES[:20, :18].astype("<i4")
    items: dict[str, bytes] = {}
    array = zarr_gpu.create_array(
        items, data=values, chunks=(8, 5), zarr_format=2, order=order, compressors=BLOSC
    )
    array = zarr_gpu.open_array(items, config={"order": data.draw(st.sampled_from("CF"))})
    step = data.draw(st.sampled_from([1, 2, 3, 9, -1, -2, -11]))
    lo, hi = sorted(data.draw(st.tuples(st.integers(0, 20), st.integers(0, 20))))
    part = slice(lo, hi) if step > 0 else slice(hi, lo, step)
    points = data.draw(st.lists(st.integers(-18, 17), max_size=30))
    assert np.array_equal(array[part, 3:17], values[part, 3:17])
    assert np.array_equal(array.oindex[part, points], values[part][:, points])


def test_no_axes() -> None:
    array = zarr_gpu.create_array({}, shape=(), dtype="f8", fill_value=3)
    assert array[()] == 3
    array[...] = 5
    assert array[()] == 5


def test_fill_values_of_several_bytes(tmp_path: Path) -> None:
    array = zarr_gpu.create_array(
        tmp_path / "a", shape=(20, 30), chunks=(7, 11), dtype="f8", fill_value=1.25
    )
    array[8, 12] = 7
    expected = np.full((20, 30), 1.25)
    expected[8, 12] = 7
    assert np.array_equal(array[...], expected)
    assert np.array_equal(array[::-2, ::3], expected[::-2, ::3])
    assert np.array_equal(array.oindex[[19, 8], [12, 0]], expected[np.ix_([19, 8], [12, 0])])


# ---------------------------------------------------------------------------------- counts


def volume(folder: Path, **arguments: Any) -> tuple[zarr_gpu.Array, np.ndarray]:
    values = np.random.default_rng(0).integers(0, 4000, (64, 64, 64), "u2")
    arguments.setdefault("chunks", (32, 32, 32))
    with config.set({"cpu.compiled": False}):  # calls of writes are not counted
        array = zarr_gpu.create_array(folder / "v", data=values, **arguments)
    return zarr_gpu.open_array(array.store, mode="r"), values


def test_every_file_is_opened_once(calls: Calls, tmp_path: Path) -> None:
    array, values = volume(tmp_path, compressors={"name": "zstd"})
    assert np.array_equal(array[...], values)
    assert len(calls.opened) == 8
    assert len(calls.reads) == 8


def test_a_shard_is_opened_once_by_each_job(calls: Calls, tmp_path: Path) -> None:
    array, values = volume(
        tmp_path, chunks=(8, 8, 8), shards=(32, 32, 32), compressors={"name": "zstd"}
    )
    with config.set({"threads": 1}):
        assert np.array_equal(array[...], values)
    assert len(calls.opened) == 8
    sizes = [array.store.nbytes(key) or 0 for key in array.store.list_prefix("c")]
    # Neighbours are read together, and nothing is read twice.
    assert len(calls.reads) <= sum(-(-size // (1 << 18)) + 1 for size in sizes)
    assert sum(n for n, _ in calls.reads) <= sum(sizes)


def test_of_a_plain_chunk_only_what_is_needed_is_read(calls: Calls, tmp_path: Path) -> None:
    array, values = volume(tmp_path, compressors=None)
    assert np.array_equal(array[40, :, 3:5], values[40, :, 3:5])
    assert len(calls.opened) == 2
    assert [n for n, _ in calls.reads] == [(31 * 32 + 2) * 2] * 2
    assert {at for _, at in calls.reads} == {(8 * 32 * 32 + 3) * 2}


def test_of_a_blosc_frame_only_the_blocks_that_are_needed_are_read(
    calls: Calls, tmp_path: Path
) -> None:
    codec = {
        "name": "blosc",
        "configuration": {**CODECS["blosc"]["configuration"], "blocksize": 8192},
    }
    array, values = volume(tmp_path, compressors=codec, chunks=(64, 64, 64))
    whole = array.store.nbytes("c/0/0/0")
    assert whole is not None
    assert np.array_equal(array[40], values[40])
    assert len(calls.opened) == 1
    assert sum(n for n, _ in calls.reads) < whole // 4
    assert np.array_equal(array[63, 63, 63:], values[63, 63, 63:])


# ---------------------------------------------------------------------------------- damage


def damages(data: bytes) -> Iterator[bytes]:
    yield b""
    yield data[:-1]
    yield data[:7]
    yield data + b"\0"
    yield b"\xff" * len(data)
    for at in range(min(len(data), 40)):
        yield data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("place", ["memory", "local"])
def test_damage_is_what_it_is_in_the_ordinary_way(codec: str, place: str, tmp_path: Path) -> None:
    values = VALUES[:16, :24].astype("<i2")
    fast, slow = stored(place, tmp_path, values, chunks=(8, 24), compressors=CODECS[codec])
    data = slow.store.get("c/1/0")
    assert data is not None
    for bad in damages(data):
        slow.store.put("c/1/0", bad)
        if place == "local":  # in memory they share a dict
            LocalStore(tmp_path / "a.zarr").put("c/1/0", bad)
        for selection in (..., (slice(9, 10), slice(2, 5))):
            got: Any
            expected: Any
            try:
                expected = slow[...][selection]
            except ChunkDecodeError as error:
                expected = error
            try:
                got = fast[selection]
            except ChunkDecodeError as error:
                got = error
            if isinstance(expected, ChunkDecodeError) and selection is ...:
                assert isinstance(got, ChunkDecodeError)
                assert str(got) == str(expected)
                assert got.key == "c/1/0"
            elif not isinstance(expected, ChunkDecodeError):
                assert np.array_equal(got, expected)


def test_several_members_of_gzip_are_read(tmp_path: Path) -> None:
    array = zarr_gpu.create_array(
        tmp_path / "a", shape=8, chunks=8, dtype="u1", compressors={"name": "gzip"}
    )
    halves = []
    for half in (b"abcd", b"efgh"):
        stream = zlib.compressobj(5, zlib.DEFLATED, 31)
        halves.append(stream.compress(half) + stream.flush())
    array.store.put("c/0", b"".join(halves))
    assert bytes(array[...]) == b"abcdefgh"


def test_what_is_no_file_is_absent(tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path / "a", shape=8, chunks=4, dtype="u1", fill_value=9)
    (tmp_path / "a" / "c" / "1").mkdir(parents=True)
    array[:4] = 1
    assert array[...].tolist() == [1] * 4 + [9] * 4


def test_absent_chunks_are_errors_where_that_is_wanted(tmp_path: Path) -> None:
    zarr_gpu.create_array(tmp_path / "a", shape=8, chunks=4, dtype="u1", fill_value=9)
    array = zarr_gpu.open_array(tmp_path / "a", config={"read_missing_chunks": False})
    with pytest.raises(ZarrError, match="c/0"):
        array[...]


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    array = zarr_gpu.create_array(tmp_path / "a", shape=8, chunks=4, dtype="u1", fill_value=9)
    (tmp_path / "a" / "c").mkdir()
    (tmp_path / "a" / "c" / "0").symlink_to("0")  # a link to itself
    with pytest.raises(OSError, match="c/0"):
        array[...]


# ---------------------------------------------------------------------------------- choice


def test_loading_waits_until_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_loops", None)
    monkeypatch.setattr(compiled, "_rows_so_far", 0)
    there = iter([False, True])
    monkeypatch.setattr(compiled, "compiled_beside", lambda: next(there))
    with config.set({"cpu.compiled": "auto"}):
        assert not compiled.wanted(compiled.PAYS_AFTER)
        assert not compiled.ready()
        assert not compiled.wanted(1)  # not compiled yet
        assert compiled.wanted(1)
        assert compiled.ready()
        monkeypatch.setattr(compiled, "_loops", None)
        monkeypatch.setattr(compiled, "_found", False)  # Numba is not installed
        assert not compiled.wanted(1)
    with config.set({"cpu.compiled": False}):
        assert not compiled.wanted(1 << 40)


def test_a_broken_numba_is_told_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("no locator available")

    monkeypatch.setattr(compiled, "_loops", None)
    monkeypatch.setattr(compiled, "_found", True)
    monkeypatch.setattr(compiled, "_rows_so_far", compiled.PAYS_AFTER)
    monkeypatch.setattr(compiled, "compiled_beside", lambda: True)
    monkeypatch.setattr(compiled, "load", broken)
    array = zarr_gpu.create_array({}, data=np.arange(9), chunks=2)
    with config.set({"cpu.compiled": "auto"}):
        for _ in range(2):
            assert np.array_equal(array[...], np.arange(9))
    assert [r.getMessage() for r in caplog.records] == [
        "no compiled reading on the CPU: no locator available"
    ]


def test_warmup_loads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_loops", None)
    zarr_gpu.warmup("cpu")
    assert compiled._loops is not None


def test_a_zip_file_that_is_closed_meanwhile_is_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = VALUES.astype("u2")
    fast, _ = stored("zip", tmp_path, values, chunks=(8, 12), compressors=CODECS["raw"])
    read = host_rows.RowLoop.read

    def closing(self: Any, job: Any) -> Any:
        fast.store.close()
        (tmp_path / "other").write_bytes(bytes(100_000))
        with (tmp_path / "other").open("rb"):  # which gets the descriptor that was given back
            return read(self, job)

    monkeypatch.setattr(host_rows.RowLoop, "read", closing)
    assert np.array_equal(fast[...], values)
    assert np.array_equal(fast[...], values)
