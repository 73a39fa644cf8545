"""What can be asked of a device: strict, verify, streams, memory, the host rule, kvikio, warmup."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest

pytest.importorskip("numba", reason="device 'sim' needs Numba: pip install 'zarr-gpu[sim]'")

import zarr_gpu
from zarr_gpu import devices, stages
from zarr_gpu.array import Array
from zarr_gpu.codecs.device_streams import ZstdStep
from zarr_gpu.codecs.registry import get_codec_class
from zarr_gpu.codecs.runtime import DeviceBatch
from zarr_gpu.config import config
from zarr_gpu.devices import cuda as cuda_device
from zarr_gpu.devices import cuda_runtime, get_device
from zarr_gpu.devices.cuda import BatchDevice
from zarr_gpu.devices.rules import KINDS, THRESHOLDS, HostRule
from zarr_gpu.devices.sim_runtime import SimRuntime, enter
from zarr_gpu.errors import (
    ChunkDecodeError,
    DataError,
    DeviceError,
    MissingDependencyError,
    StoreError,
)
from zarr_gpu.storage import kvikio as kvikio_store
from zarr_gpu.storage.kvikio import KvikioStore
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore, ReadOnlyStore

ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 1}}
BZ2 = {"id": "bz2", "level": 1}


def sim(nvcomp: bool = True) -> BatchDevice:
    """A device of its own, with counts of its own."""

    def make() -> SimRuntime:
        runtime = SimRuntime()
        if not nvcomp:
            runtime.nvcomp = None
        return runtime

    return BatchDevice("sim", "sim", make, enter)


def array(store: Any = None, *, nvcomp: bool = True, **given: Any) -> tuple[Array, Any]:
    """(an array on a device of its own, its values)."""
    given = {"shape": (40, 24), "chunks": (10, 8), "dtype": "f4", "compressors": [ZSTD], **given}
    made = zarr_gpu.create_array({} if store is None else store, device="cpu", **given)
    values = np.arange(made.size).reshape(made.shape).astype(made.dtype)
    made[...] = values
    return made.to(sim(nvcomp)), values


# ---- strict --------------------------------------------------------------------------------------


def test_strict_reads_and_writes_what_the_device_can() -> None:
    z, values = array(compressors=[ZSTD, {"name": "crc32c"}])
    strict = z.with_config({"strict": True})
    np.testing.assert_array_equal(strict[3:, ::-2], values[3:, ::-2])
    strict[5] = values[5] = 1
    np.testing.assert_array_equal(z[...], values)


@pytest.mark.parametrize(
    ("given", "says", "reads", "writes"),
    [
        ({"zarr_format": 2, "compressors": BZ2}, "bz2", False, False),
        ({"zarr_format": 2, "compressors": {"id": "zlib", "level": 1}}, "zlib", True, False),
        (
            {"compressors": [{**ZSTD, "configuration": {"level": 1, "checksum": True}}]},
            "zstd",
            True,
            False,
        ),
        ({"dtype": "S4"}, r"S4", False, False),
    ],
)
def test_strict_names_what_the_cpu_would_do(
    given: dict[str, Any], says: str, reads: bool, writes: bool
) -> None:
    z, values = array(**given)
    before = dict(z.store.items)  # type: ignore[attr-defined]
    strict = z.with_config({"strict": True})
    for allowed, work in (
        (reads, lambda: strict.with_config({"strict": True})._options(encode=False)),
        (writes, lambda: strict.__setitem__(slice(None), 0)),
    ):
        if not allowed:
            with pytest.raises(DeviceError, match=says):
                work()
        else:
            work()
    assert dict(z.store.items) == before  # type: ignore[attr-defined]
    np.testing.assert_array_equal(z[...], values)


def test_strict_is_a_setting() -> None:
    with config.set({"array.strict": True}):
        z = zarr_gpu.create_array({}, shape=4, dtype="string", device="sim")
        with pytest.raises(DeviceError, match="strict"):
            z[...]


def test_strict_without_nvcomp() -> None:
    z, values = array(nvcomp=False)
    with pytest.raises(DeviceError, match=r"'zstd': nvCOMP is not installed"):
        z.with_config({"strict": True})[...]
    np.testing.assert_array_equal(z[...], values)
    lz4, values = array(nvcomp=False, zarr_format=2, compressors={"id": "lz4", "acceleration": 1})
    np.testing.assert_array_equal(lz4.with_config({"strict": True})[...], values)


def two_frames(z: Array, key: str) -> None:
    """Make of a Zstandard chunk one of two frames, which no device decodes."""
    items = z.store.items  # type: ignore[attr-defined]
    codec = get_codec_class("zstd").from_config({})
    raw = codec.decode(np.frombuffer(items[key], np.uint8), limit=320, exact=True)
    items[key] = codec.encode(raw[:100]).tobytes() + codec.encode(raw[100:]).tobytes()


def test_streams_that_only_the_cpu_can_decode(caplog: pytest.LogCaptureFixture) -> None:
    z, values = array()
    two_frames(z, "c/2/1")
    with caplog.at_level(logging.INFO, "zarr_gpu"):
        for _ in range(3):
            np.testing.assert_array_equal(z[...], values)
    assert len(caplog.records) == 1
    assert "'zstd' of 1 chunks" in caplog.text
    with pytest.raises(DeviceError, match="'zstd' of 1 chunks") as caught:
        z.with_config({"strict": True})[...]
    assert (caught.value.key, caught.value.codec) == ("c/2/1", "zstd")


# ---- one line of log -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [({"zarr_format": 2, "compressors": BZ2}, "bz2"), ({"dtype": "S4"}, "the whole array")],
)
def test_one_line_tells_of_the_cpu(
    given: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    z, values = array(**given)
    with caplog.at_level(logging.INFO, "zarr_gpu"):
        for _ in range(3):
            np.testing.assert_array_equal(z[...], values)
        z[...] = values
    assert [(r.name, r.levelno) for r in caplog.records] == [("zarr_gpu", logging.INFO)]
    assert says in caplog.text


def test_no_line_where_the_device_does_it_all(caplog: pytest.LogCaptureFixture) -> None:
    z, _ = array()
    on_cpu = z.to("cpu")
    with caplog.at_level(logging.INFO, "zarr_gpu"):
        assert (z[...] == on_cpu[...]).all()
    assert not caplog.records


# ---- verify --------------------------------------------------------------------------------------


@contextmanager
def wrong_zstd(*, row: int, status: int, byte: int | None) -> Iterator[None]:
    """A device that decodes one row of every batch wrongly, or says so."""
    decode = ZstdStep.decode

    def broken(self: Any, runtime: Any, batch: DeviceBatch, size: int, verdicts: Any) -> Any:
        result = decode(self, runtime, batch, size, verdicts)
        if byte is not None:
            result.base[result.offset[row] + byte] ^= 0xFF
        told = np.full(1, status, np.int32)
        verdicts.watch(self.codec, told, np.array([row]))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZstdStep, "decode", broken)
        yield


@pytest.mark.parametrize("verify", [True, "all"])
def test_verify_changes_nothing_where_all_is_well(verify: Any) -> None:
    for given in ({}, {"compressors": [GZIP, {"name": "crc32c"}]}, {"compressors": None}):
        z, values = array(**given)
        np.testing.assert_array_equal(z.with_config({"verify": verify})[...], values)
    filters = [{"id": "delta", "dtype": "<i4"}, {"id": "shuffle", "elementsize": 4}]
    z, values = array(
        zarr_format=2, dtype="i4", filters=filters, compressors={"id": "zstd", "level": 1}
    )
    np.testing.assert_array_equal(z.with_config({"verify": verify})[...], values)


@pytest.mark.parametrize("verify", [False, True, "all"])
def test_a_row_that_is_wrong_and_said_to_be(verify: Any) -> None:
    z, _ = array()
    with (
        wrong_zstd(row=4, status=1, byte=3),
        pytest.raises(ChunkDecodeError, match="c/1/1") as caught,
    ):
        z.with_config({"verify": verify})[...]
    assert caught.value.codec == "zstd"
    assert ("make different bytes" in str(caught.value)) == bool(verify)


@pytest.mark.parametrize(("verify", "right"), [(False, False), (True, True), ("all", True)])
def test_a_row_that_is_right_but_said_to_be_wrong(verify: Any, right: bool) -> None:
    z, values = array()
    with wrong_zstd(row=4, status=1, byte=None):
        if right:
            np.testing.assert_array_equal(z.with_config({"verify": verify})[...], values)
        else:
            with pytest.raises(ChunkDecodeError, match="c/1/1"):
                z.with_config({"verify": verify})[...]


@pytest.mark.parametrize(("verify", "found"), [(False, False), (True, False), ("all", True)])
def test_a_row_that_is_wrong_but_said_to_be_right(verify: Any, found: bool) -> None:
    z, values = array()
    with wrong_zstd(row=4, status=0, byte=3):
        if found:
            with pytest.raises(ChunkDecodeError, match=r"c/1/1.*different bytes") as caught:
                z.with_config({"verify": verify})[...]
            assert (caught.value.key, caught.value.codec) == ("c/1/1", "zstd")
        else:
            assert (z.with_config({"verify": verify})[...] != values).sum() == 1


def test_verify_of_damaged_chunks_gives_the_error_of_the_cpu() -> None:
    z, _ = array(compressors=[GZIP])
    items = z.store.items  # type: ignore[attr-defined]
    items["c/0/1"] = items["c/0/1"][:-5] + b"12345"
    says = []
    for config_ in ({"verify": True}, {"verify": "all"}):
        with pytest.raises(ChunkDecodeError, match="c/0/1") as caught:
            z.with_config(config_)[...]
        says.append(caught.value.message.partition("by")[2])
    with pytest.raises(ChunkDecodeError) as caught:
        z.to("cpu")[...]
    assert set(says) == {caught.value.message.partition("by")[2]}


def test_verify_of_chunks_in_a_cache() -> None:
    z, values = array()
    cached = z.with_cache(zarr_gpu.DeviceCache(1 << 16)).with_config({"verify": "all"})
    for _ in range(2):
        np.testing.assert_array_equal(cached[...], values)
    with wrong_zstd(row=0, status=0, byte=0), pytest.raises(ChunkDecodeError, match="c/0/0"):
        cached[...]


# ---- streams -------------------------------------------------------------------------------------


class Stream:
    """What can be entered as CuPy's streams can."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __enter__(self) -> None:
        self.log.append("enter")

    def __exit__(self, *_: object) -> None:
        self.log.append("exit")


CALLS: dict[str, Any] = {
    "get_basic_selection": np.s_[3:],
    "get_orthogonal_selection": ([1, 5], slice(2, 9)),
    "get_coordinate_selection": ([1, 5], [0, 3]),
    "get_mask_selection": np.eye(40, 24, dtype=bool),
    "get_block_selection": (1, slice(None)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_read_on_a_stream(name: str) -> None:
    z, _ = array()
    stream = Stream()
    got = getattr(z, name)(CALLS[name], stream=stream)
    np.testing.assert_array_equal(got, getattr(z.to("cpu"), name)(CALLS[name]))
    assert stream.log == ["enter", "exit"]
    with pytest.raises(TypeError, match="no streams"):
        getattr(z.to("cpu"), name)(CALLS[name], stream=stream)
    with pytest.raises(TypeError, match="no CUDA stream"):
        getattr(z, name)(CALLS[name], stream="fast")


def test_a_stream_is_left_after_an_error() -> None:
    z, _ = array()
    z.store.items["c/0/0"] = b"no frame"  # type: ignore[attr-defined]
    stream = Stream()
    with pytest.raises(ChunkDecodeError):
        z.get_basic_selection(..., stream=stream)
    assert stream.log == ["enter", "exit"]


# ---- memory and the pipeline ---------------------------------------------------------------------


@pytest.mark.parametrize("compressors", [[ZSTD], [GZIP, {"name": "crc32c"}], None])
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_memory_is_bounded(compressors: Any, slots: int) -> None:
    job, peaks = 8 << 10, []
    for length in (512, 4096):
        z, values = array(shape=(length, 32), chunks=(16, 32), dtype="u4", compressors=compressors)
        with config.set({"gpu.job_bytes": job, "gpu.slots": slots}):
            np.testing.assert_array_equal(z[...], values)
        peaks.append(z.device.peak_nbytes)  # type: ignore[attr-defined]
    # Tables of a job, the placement's among them, come on top of encoded and decoded bytes.
    assert 0 < peaks[1] <= (slots + 3) * job + 24 * 4096 + 8192
    assert peaks[1] < values.nbytes
    assert peaks[1] - peaks[0] <= 24 * (4096 - 512) + 1024  # no more than the tables of an axis


def test_settings_of_the_pipeline() -> None:
    z, values = array(shape=(400, 24))
    names: set[str] = set()
    running, most, lock = [0], [0], threading.Lock()
    fetch = z.store.read_spans
    z.store.files = lambda: None  # type: ignore[method-assign]  else the compiled loop reads

    def watched(*args: Any) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            names.add(threading.current_thread().name)
        try:
            return fetch(*args)
        finally:
            with lock:
                running[0] -= 1

    z.store.read_spans = watched  # type: ignore[method-assign]
    for readers in (2, 5):
        names.clear()
        most[0] = 0
        with config.set({"gpu.readers": readers, "gpu.job_bytes": 4096}):
            np.testing.assert_array_equal(z[...], values)
        assert 1 <= len(names) <= readers
        assert most[0] <= readers


def test_jobs_are_as_large_as_the_setting_says() -> None:
    z, _ = array()
    program, device = z.layout.program, z.device
    assert device.rows_per_job(program) == (128 << 20) // 320
    with config.set({"gpu.job_bytes": 1000}):
        assert device.rows_per_job(program, requests=64) == 3
    with config.set({"gpu.job_bytes": 1}):
        assert device.rows_per_job(program) == 1


def test_statuses_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zarr_gpu.devices.lanes.MAX_PENDING", 3)
    z, values = array()
    with config.set({"gpu.job_bytes": 320}):  # 12 jobs
        np.testing.assert_array_equal(z[...], values)
    assert z.device.counts["downloads"] == 4  # type: ignore[attr-defined]


# ---- the host rule -------------------------------------------------------------------------------


def test_the_rule() -> None:
    zstd, blosc, delta = (
        get_codec_class(name).from_config(given)
        for name, given in (
            ("zstd", {}),
            ("blosc", {"cname": "lz4", "clevel": 1, "shuffle": "noshuffle", "blocksize": 0}),
            ("numcodecs.delta", {"dtype": "<i4"}),
        )
    )
    few, large = THRESHOLDS["zstd"].below_streams, THRESHOLDS["zstd"].stream_bytes
    rule = HostRule()
    assert rule.reason(zstd, few, large) is None
    assert rule.reason(zstd, few - 1, large - 1) is None
    assert f"{few - 1} streams of {large} bytes" in str(rule.reason(zstd, few - 1, large))
    assert rule.reason(blosc, 1, 1 << 30) is None  # many small streams
    assert "8 streams of 131072 bytes" in str(HostRule("auto", 9, 0).reason(blosc, 1, 1 << 20))
    assert HostRule("auto", 8, 0).reason(blosc, 1, 1 << 20) is None
    # A single chunk of 64^3 of two bytes is too little for a device; 27 of them are not.
    assert "4 streams of 131072 bytes" in str(rule.reason(blosc, 1, 1 << 19))
    assert rule.reason(blosc, 27, 1 << 19) is None
    assert rule.reason(blosc, 1, 1 << 15) is None
    assert HostRule("device", 99, 0).reason(zstd, 1, 1 << 30) is None
    assert "gpu.host_rule" in str(HostRule("host").reason(zstd, 10**6, 1))
    for each in (rule, HostRule("host")):
        assert each.reason(delta, 1, 1 << 30) is None
    assert set(KINDS.values()) == set(THRESHOLDS)
    for name in KINDS:
        assert get_codec_class(name).name == name


def nvcomp_calls(z: Array, **settings: Any) -> int:
    before = z.device.counts["nvcomp_calls"]  # type: ignore[attr-defined]
    with config.set({f"gpu.{name}": value for name, value in settings.items()}):
        np.testing.assert_array_equal(z[...], z.to("cpu")[...])
    return int(z.device.counts["nvcomp_calls"] - before)  # type: ignore[attr-defined]


def test_few_large_streams_go_to_the_host() -> None:
    z, _ = array(shape=(3 << 18,), chunks=(1 << 18,), dtype="u4")  # 3 streams of 1 MiB
    assert nvcomp_calls(z) == 0
    assert nvcomp_calls(z, host_rule="device") == 1
    assert nvcomp_calls(z, host_below_streams=3) == 1
    assert nvcomp_calls(z, host_stream_bytes=2 << 20) == 1
    small, _ = array()
    assert nvcomp_calls(small) == 1
    assert nvcomp_calls(small, host_rule="host") == 0
    assert nvcomp_calls(small, host_stream_bytes=0) == 0  # 12 streams
    assert nvcomp_calls(small, host_stream_bytes=0, host_below_streams=12) == 1
    # Job by job: 5 + 5 + 2 streams.
    assert nvcomp_calls(small, host_stream_bytes=0, host_below_streams=3, job_bytes=1600) == 2


def test_the_rule_moves_one_step_alone() -> None:
    z, values = array(compressors=[ZSTD, {"name": "crc32c"}])
    with config.set({"gpu.host_rule": "host"}):
        np.testing.assert_array_equal(z[...], values)
        places = {step.codec: step.where for step in z.explain().steps}
    assert places == {"bytes": "view", "zstd": "cpu", "crc32c": "sim"}
    assert z.device.counts["nvcomp_calls"] == 1  # type: ignore[attr-defined]  # the checksums


def test_what_is_in_a_cache_stays_on_the_device() -> None:
    z, _ = array(shape=(1 << 18,), chunks=(1 << 18,), dtype="u4")
    cached = z.with_cache(zarr_gpu.DeviceCache(4 << 20))
    assert nvcomp_calls(cached) == 0
    assert nvcomp_calls(cached) == 1
    assert nvcomp_calls(cached, host_rule="host") == 0


def test_strict_overrules_the_rule() -> None:
    z, _ = array(shape=(1 << 18,), chunks=(1 << 18,), dtype="u4")
    strict = z.with_config({"strict": True})
    assert nvcomp_calls(strict) == 1
    with config.set({"gpu.host_rule": "host"}), pytest.raises(DeviceError, match="'zstd'"):
        strict[...]


def test_explain_tells_of_the_rule() -> None:
    z, _ = array(shape=(3 << 18,), chunks=(1 << 18,), dtype="u4")
    step = z.explain().steps[-1]
    assert (step.codec, step.where) == ("zstd", "cpu")
    assert "3 streams of 1048576 bytes" in step.note
    with config.set({"gpu.host_rule": "device"}):
        assert z.explain().steps[-1].where == "sim"
    with config.set({"gpu.host_rule": "host"}):
        assert "gpu.host_rule" in str(z.explain())


# ---- arrays of other libraries -------------------------------------------------------------------


class Foreign:
    """An array of another library, in memory that the device can see."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype


class ForeignRuntime(SimRuntime):
    def adopt(self, value: Any) -> Any | None:
        return value.array if isinstance(value, Foreign) else None

    def target(self, out: Any) -> Any:
        return out.array if isinstance(out, Foreign) else super().target(out)


@pytest.mark.parametrize("start", [0, 1])
def test_results_and_values_of_other_libraries(start: int) -> None:
    """In their very memory, wherever it begins."""
    z, values = array()
    z = z.to(BatchDevice("sim", "sim", ForeignRuntime, enter))

    def foreign() -> Foreign:
        raw = np.zeros(values.nbytes + start, np.uint8)[start:]
        return Foreign(raw.view(values.dtype).reshape(values.shape))

    out = foreign()
    assert z.get_basic_selection(..., out=out) is out
    np.testing.assert_array_equal(out.array, values)
    given = foreign()
    given.array[...] = -values
    z[...] = given
    np.testing.assert_array_equal(z[...], -values)
    with pytest.raises(TypeError, match="out must be a numpy array, not list"):
        z.get_basic_selection(..., out=[1])


BLOSC = {
    "name": "blosc",
    "configuration": {
        "cname": "lz4",
        "clevel": 5,
        "shuffle": "shuffle",
        "typesize": 4,
        "blocksize": 0,
    },
}


@pytest.fixture
def compiled() -> Iterator[None]:
    """With the loop of the CPU device."""
    with config.set({"cpu.compiled": True}):
        yield


@pytest.mark.parametrize("dtype", ["f4", "u1", "c8", "bool"])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("compressors", [None, [BLOSC], [ZSTD]], ids=["raw", "blosc", "zstd"])
def test_one_chunk_is_decoded_on_the_host_and_copied(
    compressors: Any, endian: str, dtype: str, tmp_path: Path, compiled: None
) -> None:
    """Where the rule says so; one copy then, and no launch."""
    serializer = {"name": "bytes", "configuration": {"endian": endian}}
    if np.dtype(dtype).itemsize == 1:
        serializer = {"name": "bytes"}
    z, values = array(
        tmp_path,
        shape=(1024, 512),
        chunks=(512, 256),
        dtype=dtype,
        fill_value=1,
        compressors=compressors,
        serializer=serializer,
    )
    z[:512, :256] = values[:512, :256] = 1  # not stored
    device: Any = z.device
    # By the size of a chunk: few large streams are cheaper on the host.
    size = 512 * 256 * np.dtype(dtype).itemsize
    alone = size <= 1 << 20 if compressors is None else compressors == [BLOSC] or size >= 1 << 20
    alone = alone and (endian == "little" or len(serializer) == 1)  # nothing turns bytes on the way
    for box in (
        *(np.s_[512:, 256:], np.s_[600:700:3, 300], np.s_[3:5, 2], np.s_[-1, -1]),
        *(np.s_[1000:600:-7, 511:300:-1], np.s_[:512, :256], np.s_[700, None, 400:402]),
    ):
        device.counts.clear()
        got = z[box]
        assert got.dtype == values.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got, values[box])
        assert (device.counts["launches"] == 0) == alone
        if alone:
            assert device.counts == {"uploads": 1}
    for other, changed in (
        (z.with_config({"strict": True}), {}),
        (z.with_config({"verify": "all"}), {}),
        (z, {"gpu.host_rule": "device"}),
        (z, {"cpu.compiled": False}),
    ):
        device.counts.clear()
        with config.set(changed):
            np.testing.assert_array_equal(other[600:700, 300:], values[600:700, 300:])
        assert device.counts["launches"] > 0


def test_errors_of_one_chunk_are_those_of_the_ordinary_way(tmp_path: Path, compiled: None) -> None:
    z, values = array(tmp_path, shape=(512, 512), chunks=(256, 512), compressors=[BLOSC])
    path = tmp_path / "c" / "1" / "0"
    path.write_bytes(path.read_bytes()[:-50])
    np.testing.assert_array_equal(z[3], values[3])
    with pytest.raises(ChunkDecodeError) as caught:
        z[300]
    assert caught.value.key == "c/1/0"


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "c8", ">u2", "bool"])
@pytest.mark.parametrize(
    "given",
    [
        {"compressors": None},
        {"compressors": [ZSTD]},
        {"compressors": None, "shards": (16, 32)},
        {
            "compressors": None,
            "filters": [{"name": "transpose", "configuration": {"order": [1, 0]}}],
        },
    ],
    ids=["raw", "zstd", "shards", "transposed"],
)
def test_items_are_moved_in_large_units_where_they_can_be(
    dtype: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[int] = []
    launch = SimRuntime.launch

    def noted(self: SimRuntime, kernel: str, threads: int, *args: Any) -> None:
        if kernel == "scatter":
            units.append(args[1].itemsize)
        launch(self, kernel, threads, *args)

    native = np.dtype(dtype).newbyteorder("=")
    if dtype.startswith(">"):
        given = {**given, "serializer": {"name": "bytes", "configuration": {"endian": "big"}}}
    z, _ = array(shape=(32, 64), chunks=(8, 16), dtype=native, fill_value=1, **given)
    values = (np.arange(2048) % 251).reshape(32, 64).astype(native)
    z[...] = values
    z[8:16, 16:32] = values[8:16, 16:32] = 1  # a chunk that is not there
    monkeypatch.setattr(SimRuntime, "launch", noted)
    alone = native.itemsize // 2 if native.kind == "c" else native.itemsize
    large = alone if dtype in ("c8", ">u2") or "filters" in given else 8
    few = 8 // native.itemsize
    for box, wide in (
        (np.s_[...], True),
        (np.s_[3:30:2, 16:56], True),
        (np.s_[::-3], True),
        (np.s_[[5, 1, 30, 5], :48], True),
        (np.s_[4, 8:40], True),
        (np.s_[:, 1:40], few == 1),
        (np.s_[:, ::-1], False),
        (np.s_[:, ::2], False),
        (np.s_[:, [9, 8, 63]], False),
        (np.s_[:, 8 : 40 + few - 1], few == 1),
        (np.s_[:, 5], False),
    ):
        units.clear()
        np.testing.assert_array_equal(z[box], values[box])
        assert set(units) == {large if wide else alone}, box
    # Memory of the caller's that begins in the middle of a unit.
    room = np.zeros(2048 + 1, native)
    out = room[1:].reshape(32, 64)
    units.clear()
    z.get_basic_selection(..., out=out)
    np.testing.assert_array_equal(out, values)
    assert set(units) == {large if native.itemsize == 8 else alone}


def test_one_value_for_all_is_never_spread_out(monkeypatch: pytest.MonkeyPatch) -> None:
    z, _ = array(shape=(1 << 12,), chunks=(1 << 10,), dtype="i2")
    seen: list[int] = []
    real = SimRuntime.address
    monkeypatch.setattr(
        SimRuntime, "address", lambda self, array: seen.append(1) or real(self, array)
    )
    for value in (3, np.float64(-7.0), np.array([[9]])[0]):
        seen.clear()
        z[5:-5] = value
        assert seen == []  # no dense values
        assert z[7] == np.asarray(value).item()
    seen.clear()
    z[:4] = np.arange(4)
    assert seen == [1]


# ---- kvikio --------------------------------------------------------------------------------------


class Future:
    def __init__(self, work: Any) -> None:
        self._work = work

    def get(self) -> int:
        return int(self._work())


class Kvikio(ModuleType):
    """kvikio as far as it is used, reading into NumPy arrays; reads happen in ``get``."""

    def __init__(self, *, compat: bool = True, gds: bool = True, num_threads: int = 1) -> None:
        super().__init__("kvikio")
        self.reads: list[tuple[str, int, int]] = []
        self.open, self.most_open = 0, 0
        self.settings: dict[str, Any] = {"num_threads": num_threads, "auto_direct_io_write": True}
        self.before_read: Any = lambda path: None
        fake = self
        self.defaults = ModuleType("kvikio.defaults")
        self.defaults.get = self.settings.__getitem__  # type: ignore[attr-defined]
        self.defaults.set = self.settings.update  # type: ignore[attr-defined]
        self.defaults.is_compat_mode_preferred = lambda: compat  # type: ignore[attr-defined]
        self.cufile_driver = ModuleType("kvikio.cufile_driver")
        self.cufile_driver.get = {"is_gds_available": gds}.__getitem__  # type: ignore[attr-defined]

        class CuFile:
            def __init__(self, path: str, flags: str = "r") -> None:
                assert flags == "r"
                self._path = path
                self._file = Path(path).open("rb")  # noqa: SIM115
                fake.open += 1
                fake.most_open = max(fake.most_open, fake.open)

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                self._file.close()
                fake.open -= 1

            def pread(self, buf: Any, size: int | None = None, file_offset: int = 0) -> Future:
                assert isinstance(buf, np.ndarray)
                assert len(buf) == size
                fake.reads.append((Path(self._path).name, file_offset, len(buf)))

                def work() -> int:
                    fake.before_read(self._path)
                    assert not self._file.closed
                    self._file.seek(file_offset)
                    data = self._file.read(len(buf))
                    buf[: len(data)] = np.frombuffer(data, np.uint8)
                    return len(data)

                return Future(work)

        self.CuFile = CuFile


@pytest.fixture
def kvikio(monkeypatch: pytest.MonkeyPatch) -> Kvikio:
    return install(Kvikio(), monkeypatch)


def install(fake: Kvikio, monkeypatch: pytest.MonkeyPatch) -> Kvikio:
    monkeypatch.setitem(sys.modules, "kvikio", fake)
    monkeypatch.setitem(sys.modules, "kvikio.cufile_driver", fake.cufile_driver)
    monkeypatch.setitem(sys.modules, "kvikio.defaults", fake.defaults)
    monkeypatch.setattr(kvikio_store, "_is_set_up", False)
    cuda_device._direct.cache_clear()
    return fake


@contextmanager
def staging(how: str, **more: Any) -> Iterator[None]:
    with config.set({"gpu.staging": how, **more}):
        yield


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"compressors": None},
        {"shards": (20, 24)},
        {
            "compressors": [
                {
                    "name": "blosc",
                    "configuration": {
                        "cname": "lz4",
                        "clevel": 5,
                        "shuffle": "shuffle",
                        "typesize": 4,
                        "blocksize": 0,
                    },
                }
            ]
        },
        {"zarr_format": 2, "compressors": BZ2},
    ],
)
def test_files_go_to_the_device(given: dict[str, Any], kvikio: Kvikio, tmp_path: Path) -> None:
    z, values = array(LocalStore(tmp_path), **given)
    with staging("kvikio"):
        np.testing.assert_array_equal(z[...], values)
        counted = len(kvikio.reads)
        assert counted == (2 if "shards" in given else 12)
        with config.set({"gpu.job_bytes": 700}):
            np.testing.assert_array_equal(z[5:35, ::-3], values[5:35, ::-3])
        assert len(kvikio.reads) > counted
    assert kvikio.open == 0
    assert kvikio.settings == {"num_threads": kvikio_store.THREADS, "auto_direct_io_write": False}
    with staging("pinned"):
        before = len(kvikio.reads)
        np.testing.assert_array_equal(z[...], values)
        assert len(kvikio.reads) == before


def test_nothing_is_uploaded_but_tables(kvikio: Kvikio, tmp_path: Path) -> None:
    z, values = array(LocalStore(tmp_path))
    with staging("pinned"):
        z[...]
    pinned = dict(z.device.counts)  # type: ignore[attr-defined]
    z.device.counts.clear()  # type: ignore[attr-defined]
    with staging("kvikio"):
        np.testing.assert_array_equal(z[...], values)
    direct = dict(z.device.counts)  # type: ignore[attr-defined]
    assert direct["nvcomp_calls"] == pinned["nvcomp_calls"] == 1
    # One slab less, and tables to look at the frames, which are no longer at hand.
    assert direct["downloads"] == pinned["downloads"] + 1
    assert direct["uploads"] == pinned["uploads"]


def test_kvikio_with_a_cache_and_absent_chunks(kvikio: Kvikio, tmp_path: Path) -> None:
    z, values = array(LocalStore(tmp_path), fill_value=3)
    (tmp_path / "c/1/1").unlink()
    values[10:20, 8:16] = 3
    cached = z.with_cache(zarr_gpu.DeviceCache(1 << 16))
    with staging("kvikio"):
        np.testing.assert_array_equal(cached[...], values)
        assert len(kvikio.reads) == 11
        np.testing.assert_array_equal(cached[...], values)
        assert len(kvikio.reads) == 11
        with pytest.raises(zarr_gpu.errors.ChunkNotFoundError, match="c/1/1"):
            z.with_config({"read_missing_chunks": False})[...]


def test_few_files_are_open_at_a_time(
    kvikio: Kvikio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "max_open", 5)
    z, values = array(LocalStore(tmp_path))
    with staging("kvikio"):
        np.testing.assert_array_equal(z[...], values)
    assert (kvikio.most_open, kvikio.open) == (5, 0)


def test_other_stores_take_the_usual_way(kvikio: Kvikio, tmp_path: Path) -> None:
    for store in (MemoryStore(), CountingStore(LocalStore(tmp_path / "counted"))):
        z, values = array(store)
        with staging("kvikio"):
            np.testing.assert_array_equal(z[...], values)
    assert kvikio.reads == []
    array(LocalStore(tmp_path / "x"))
    z = zarr_gpu.open_array(ReadOnlyStore(LocalStore(tmp_path / "x")), mode="r", device="sim")
    with staging("kvikio"):
        z[...]
    assert len(kvikio.reads) == 12


def test_auto_uses_kvikio_only_for_direct_storage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    as_cuda = BatchDevice("cuda", "cuda", SimRuntime, enter)
    for compat, gds, expected in (
        (True, True, LocalStore),
        (False, False, LocalStore),
        (False, True, KvikioStore),
    ):
        install(Kvikio(compat=compat, gds=gds), monkeypatch)
        assert type(as_cuda.source(store)) is expected
        assert type(sim().source(store)) is LocalStore
    monkeypatch.setitem(sys.modules, "kvikio", None)
    cuda_device._direct.cache_clear()
    assert type(as_cuda.source(store)) is LocalStore
    cuda_device._direct.cache_clear()
    with staging("kvikio"), pytest.raises(MissingDependencyError, match="kvikio"):
        as_cuda.source(store)


def test_a_number_of_threads_that_was_chosen_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(Kvikio(num_threads=3), monkeypatch)
    KvikioStore(LocalStore(tmp_path))
    assert fake.settings["num_threads"] == 3


def test_failures_of_kvikio(kvikio: Kvikio, tmp_path: Path) -> None:
    z, values = array(LocalStore(tmp_path))

    def fail(path: str) -> None:
        if path.endswith("1/2"):
            raise RuntimeError("cuFile is unhappy")

    kvikio.before_read = fail
    with staging("kvikio"), pytest.raises(StoreError, match=r"c/1/2.*cuFile is unhappy"):
        z[...]
    assert kvikio.open == 0
    kvikio.before_read = lambda path: Path(path).write_bytes(b"")
    with staging("kvikio"), pytest.raises(DataError, match="shorter"):
        z[0, 0]
    kvikio.before_read = lambda path: None
    z[:10, :8] = values[:10, :8]
    with staging("kvikio"):
        np.testing.assert_array_equal(z[...], values)


def test_a_file_that_is_replaced_meanwhile_is_read_again(kvikio: Kvikio, tmp_path: Path) -> None:
    z, values = array(LocalStore(tmp_path), compressors=None)
    done: list[str] = []

    def replace(path: str) -> None:
        if path.endswith("0/0") and len(done) < 2:
            done.append(path)
            Path(path + ".new").write_bytes(np.full(320, len(done), np.uint8).tobytes())
            Path(path + ".new").replace(path)

    kvikio.before_read = replace
    values[:10, :8] = np.full(320, 2, np.uint8).view("f4").reshape(10, 8)
    with staging("kvikio"):
        np.testing.assert_array_equal(z[...], values)
    assert len(done) == 2

    def for_ever(path: str) -> None:
        Path(path).touch()
        stat = Path(path).stat()
        import os

        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))

    kvikio.before_read = for_ever
    with staging("kvikio"), pytest.raises(StoreError, match="replaced faster"):
        z[0, 0]


def test_links_out_of_the_store(kvikio: Kvikio, tmp_path: Path) -> None:
    array(LocalStore(tmp_path / "in"))
    (tmp_path / "in/c/0/0").rename(tmp_path / "out")
    (tmp_path / "in/c/0/0").symlink_to(tmp_path / "out")
    for follow in (True, False):
        store = LocalStore(tmp_path / "in", follow_symlinks=follow)
        z = zarr_gpu.open_array(store, device="sim")
        with staging("kvikio"):
            if follow:
                z[...]
            else:
                with pytest.raises(PermissionError, match="symbolic link"):
                    z[...]


# ---- warmup, auto, stages ------------------------------------------------------------------------


def test_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(SimRuntime, "compile_kernels", lambda self: compiled.append("all"))
    device = sim()
    with config.set({"gpu.slots": 2}):
        assert zarr_gpu.warmup(device) > 0
        assert zarr_gpu.warmup("cpu") > 0
    assert compiled == ["all"]
    assert device.counts["nvcomp_calls"] > 10
    assert len(device.pipeline._idle) == 2
    with pytest.raises(DeviceError, match="no device"):
        zarr_gpu.warmup("tpu")


def test_compile_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variant of every usual kernel is called once, with arguments of its types."""
    from zarr_gpu.kernels import registry

    usual = registry.names(usual=True)
    assert {"scatter", "blosc_assemble", "crc_rows"} < set(usual) < set(registry.names())
    assert not any(name.startswith(("delta", "cast", "fixed")) for name in usual)
    real = {name: registry.get(name).argument_types() for name in usual}
    calls: dict[str, list[tuple[str, ...]]] = {}

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def argument_types(self) -> Any:
            return real[self.name]

        def njit(self, *args: Any) -> None:
            calls.setdefault(self.name, []).append(
                tuple(
                    f"{a.dtype.str[1:]}[]"
                    if isinstance(a, np.ndarray)
                    else {int: "i8", float: "f8"}[type(a)]
                    for a in args
                )
            )

    monkeypatch.setattr(registry, "get", Kernel)
    SimRuntime("compiled").compile_kernels()
    assert calls == real


def test_auto_is_the_cpu_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("a driver that is half installed")

    monkeypatch.setattr(devices, "_devices", {})
    monkeypatch.setattr(cuda_runtime, "_is_usable", False)
    monkeypatch.setattr(cuda_runtime, "find_spec", lambda name: object())
    monkeypatch.setattr(cuda_runtime.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(cuda_runtime, "_cupy", broken)
    assert get_device("auto").kind == "cpu"
    assert get_device().kind == "cpu"
    assert cuda_runtime.cuda_problem() == "OSError: a driver that is half installed"
    with pytest.raises(DeviceError, match="half installed"):
        get_device("cuda")
    monkeypatch.setattr(cuda_runtime.ctypes, "CDLL", _no_library)
    assert cuda_runtime.cuda_problem() == "there is no CUDA driver"
    monkeypatch.setattr(cuda_runtime, "find_spec", lambda name: None)
    assert "pip install" in str(cuda_runtime.cuda_problem())


def _no_library(name: str) -> Any:
    raise OSError(name)


def test_auto_is_cuda_where_it_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_devices", {})
    monkeypatch.setattr(cuda_runtime, "cuda_problem", lambda: None)
    monkeypatch.setattr(cuda_runtime, "CudaRuntime", lambda number: SimRuntime())
    assert (get_device("auto").kind, get_device("auto").name) == ("cuda", "cuda")
    assert get_device("cuda:1").name == "cuda:1"


@pytest.fixture
def marks() -> Iterator[list[tuple[str, str]]]:
    """(thread, stage) of every stage that begins; that each ends is checked."""
    begun: list[tuple[str, str]] = []
    depth = threading.local()

    def push(name: str) -> None:
        depth.now = getattr(depth, "now", 0) + 1
        begun.append((threading.current_thread().name, name))

    def pop() -> None:
        depth.now -= 1

    stages.watch(push, pop)
    try:
        yield begun
    finally:
        stages.watch(None)
    assert depth.now == 0


def test_stages_are_marked(marks: list[tuple[str, str]]) -> None:
    z, _ = array()
    marks.clear()
    z[...]
    assert {name for _, name in marks} == {"select", "plan", "locate", "fetch", "decode", "place"}
    fetching = {thread for thread, name in marks if name == "fetch"}
    assert all(thread.startswith("zarr_gpu-reader") for thread in fetching)
    marks.clear()
    z[...] = 1
    assert {name for _, name in marks} == {"select", "plan", "encode"}
    z.store.items["c/0/0"] = b"no frame"  # type: ignore[attr-defined]
    with pytest.raises(ChunkDecodeError):
        z[...]


def test_stages_cost_nothing_unless_watched() -> None:
    assert stages.stage("fetch") is stages.stage("decode")
    assert stages.staged("plan")(lambda x: x + 1)(1) == 2
