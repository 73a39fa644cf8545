"""What holds for every device: one suite, which a test class per device inherits.

A class says by ``name`` what ``get_device`` knows its device by.  Results are compared bit by bit
with values that NumPy alone made; what is written on a device is read back on the CPU, and the
other way round.

Environment:

``TEST_DEVICE_EXAMPLES``  Hypothesis examples per property and device (12 unless set)
``TEST_SIMULATOR=full``   every case in the CUDA simulator, not a choice of them
"""

from __future__ import annotations

import math
import os
import pickle
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import pytest
from hostile import LITTLE, Json, check_error, items_of, regular, sharding, v2_document, v3_document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_strategies import (
    LAYOUTS,
    MODES,
    assigned,
    build_metadata,
    cases,
    expected_items,
    new_values,
    picked,
    random_values,
)

import zarr_gpu
from zarr_gpu.array import Array
from zarr_gpu.config import ArrayConfig, config
from zarr_gpu.devices import Device, get_device
from zarr_gpu.devices.cuda_runtime import cuda_problem
from zarr_gpu.errors import (
    BoundsError,
    ChunkDecodeError,
    ChunkNotFoundError,
    DeviceError,
    ReadOnlyError,
    SelectionError,
)
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore

EXAMPLES = int(os.environ.get("TEST_DEVICE_EXAMPLES", "12"))

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
"""Whether this process runs kernels in Numba's CUDA simulator."""

FEW = SIMULATED and os.environ.get("TEST_SIMULATOR") != "full"
"""Whether tests with many cases run a choice of them: in the simulator launches take long."""

SIM = "sim:simulator" if SIMULATED else "sim:compiled"

BATCHED = (SIM, pytest.param("cuda", marks=pytest.mark.gpu))
"""The devices with memory of their own, for tests that are about them alone."""

# Inherited properties run on several classes.
few = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)

OUTS = ("plain", "F order", "gaps", "wider")

HELD = (
    *("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"),
    *("f2", "f4", "f8", "c8", "c16"),
)
"""Types whose items a device can hold."""

HOST_ONLY = ("M8[ns]", "m8[s]", "U3", "S4", "V5", "string", "bytes", "struct")
"""Types that come back as NumPy arrays from every device."""


def require(name: str) -> None:
    """Skip, with the reason, where a device cannot be used."""
    if name.startswith("sim") and find_spec("numba") is None:
        pytest.skip("device 'sim' needs Numba: pip install 'zarr-gpu[sim]'")
    if name.startswith("cuda"):
        problem = cuda_problem()
        if problem is not None:
            pytest.skip(problem)


def some(items: Iterable[Any], every: int) -> list[Any]:
    """All of the items, or one of ``every``."""
    return list(items)[:: every if FEW else 1]


def is_held(dtype: np.dtype[Any]) -> bool:
    """Whether items of ``dtype`` can live on every device."""
    return dtype.kind in "biufc"


def to_host(value: Any) -> np.ndarray:
    """A result as a NumPy array, wherever it lives."""
    if type(value).__module__.partition(".")[0] in {"cupy", "fake_cupy"}:
        return np.asarray(value.get())
    return np.asarray(value)


def native(values: Any) -> np.ndarray:
    """``values`` in the machine's byte order; of text and objects as they are."""
    array = np.asarray(values)
    return array.astype(array.dtype.newbyteorder("=")) if is_held(array.dtype) else array


def same_bits(got: Any, expected: Any) -> bool:
    """Equal in shape and every bit; numbers in the machine's byte order."""
    one, two = to_host(got), np.asarray(expected)
    if one.shape != two.shape:
        return False
    if one.dtype.names is not None:
        return two.dtype.names == one.dtype.names and all(
            same_bits(one[name], two[name]) for name in one.dtype.names
        )
    if two.dtype.kind in "OT":  # of which a scalar is a plain Python object
        return bool(one.tolist() == two.tolist())
    if one.shape == () and one.dtype.kind == two.dtype.kind:
        if one.dtype.kind in "SU":
            one = one.astype(two.dtype)  # a scalar of text is as long as its text
        elif one.dtype.kind in "mM":
            two = two.astype(two.dtype.newbyteorder("="))  # a scalar has the machine's byte order
    if is_held(two.dtype):
        if one.dtype.newbyteorder("=") != two.dtype.newbyteorder("="):
            return False
        one, two = native(one), native(two)
    elif one.dtype != two.dtype:
        return False
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(two).tobytes()


def keys_of(array: Array) -> set[str]:
    """What is stored of an array besides its metadata."""
    return {k for k in array.store.list_prefix("") if not k.endswith((".json", ".zarray"))}


# ---- codecs ------------------------------------------------------------------------------------

NUMBERS = (np.arange(24 * 20, dtype="i4") ** 3 % 2551 - 700).reshape(24, 20)
FLOATS = (np.arange(24 * 20) % 97 / 8 - 3).reshape(24, 20)
TRUTHS = NUMBERS % 3 == 0


def named(name: str, **configuration: Any) -> Json:
    return {"name": name, "configuration": configuration}


def blosc(cname: str, shuffle: str, *, clevel: int = 5, blocksize: int = 0) -> Json:
    return named(
        "blosc", typesize=4, cname=cname, clevel=clevel, shuffle=shuffle, blocksize=blocksize
    )


_SCALE: Json = {"offset": 1, "scale": 8, "dtype": "<f8", "astype": "<i4"}
_BIG: Json = named("bytes", endian="big")

# codecs, values, where each runs on a device: "d" on it, "c" on the CPU, "v" a view; "" everything
# on the CPU
V3: dict[str, tuple[list[Any], np.ndarray, str]] = {
    "raw": ([LITTLE], NUMBERS, "v"),
    "big": ([_BIG], NUMBERS, "v"),
    "transpose": ([named("transpose", order=[1, 0]), LITTLE], NUMBERS, "vv"),
    "transpose big": ([named("transpose", order=[1, 0]), _BIG, "zstd"], NUMBERS, "vvd"),
    "gzip": ([LITTLE, named("gzip", level=5)], NUMBERS, "vd"),
    "gzip 0": ([LITTLE, named("gzip", level=0)], NUMBERS, "vd"),
    "zstd": ([LITTLE, named("zstd", level=3, checksum=False)], NUMBERS, "vd"),
    "zstd sum": ([LITTLE, named("zstd", level=3, checksum=True)], NUMBERS, "vd"),
    **{
        f"blosc {cname} {shuffle}": ([LITTLE, blosc(cname, shuffle)], NUMBERS, "vd")
        for cname in ("lz4", "lz4hc", "blosclz", "zlib", "zstd")
        for shuffle in ("noshuffle", "shuffle", "bitshuffle")
    },
    "blosc stored": ([LITTLE, blosc("lz4", "shuffle", clevel=0)], NUMBERS, "vd"),
    "blosc blocks": ([LITTLE, blosc("lz4", "shuffle", blocksize=128)], NUMBERS, "vd"),
    "crc32c": ([LITTLE, "crc32c"], NUMBERS, "vd"),
    "zstd crc32c": ([LITTLE, "zstd", "crc32c"], NUMBERS, "vdd"),
    "crc32c zstd": ([LITTLE, "crc32c", "zstd"], NUMBERS, "vdd"),
    "blosc in gzip": ([LITTLE, blosc("lz4", "shuffle"), "gzip"], NUMBERS, "vdc"),
    "zlib": ([LITTLE, named("numcodecs.zlib", level=1)], NUMBERS, "vd"),
    "lz4": ([LITTLE, named("numcodecs.lz4", acceleration=1)], NUMBERS, "vd"),
    "bz2": ([LITTLE, named("numcodecs.bz2", level=1)], NUMBERS, "vc"),
    "lzma": ([LITTLE, named("numcodecs.lzma", preset=1)], NUMBERS, "vc"),
    "bz2 lzma": ([LITTLE, "numcodecs.bz2", named("numcodecs.lzma", preset=1)], NUMBERS, "vcc"),
    "shuffle": ([LITTLE, named("numcodecs.shuffle", elementsize=4)], NUMBERS, "vd"),
    "shuffle lz4": (
        [LITTLE, named("numcodecs.shuffle", elementsize=4), "numcodecs.lz4"],
        NUMBERS,
        "vdd",
    ),
    "shuffle bz2": (
        [LITTLE, named("numcodecs.shuffle", elementsize=4), "numcodecs.bz2"],
        NUMBERS,
        "vdc",
    ),
    "adler32": ([LITTLE, named("numcodecs.adler32")], NUMBERS, "vd"),
    "crc32": ([LITTLE, named("numcodecs.crc32")], NUMBERS, "vd"),
    "crc32 behind": ([LITTLE, named("numcodecs.crc32", location="end")], NUMBERS, "vd"),
    "fletcher32": ([LITTLE, named("numcodecs.fletcher32")], NUMBERS, "vc"),
    "delta": ([named("numcodecs.delta", dtype="<i4"), LITTLE, "zstd"], NUMBERS, "dvd"),
    "delta big": ([named("numcodecs.delta", dtype="<i4"), _BIG, "zstd"], NUMBERS, "dvd"),
    "delta wide": (
        [named("numcodecs.delta", dtype="<i4", astype="<i8"), LITTLE, "numcodecs.lz4"],
        NUMBERS,
        "dvd",
    ),
    "delta floats": ([named("numcodecs.delta", dtype="<f8"), LITTLE], FLOATS, "dv"),
    "scale": ([named("numcodecs.fixedscaleoffset", **_SCALE), LITTLE, "gzip"], FLOATS, "dvd"),
    "astype": (
        [named("numcodecs.astype", encode_dtype="<i2", decode_dtype="<i4"), LITTLE, "zstd"],
        NUMBERS,
        "dvd",
    ),
    "astype big": (
        [named("numcodecs.astype", encode_dtype=">f8", decode_dtype="<i4"), _BIG],
        NUMBERS,
        "dv",
    ),
    "quantize": (
        [named("numcodecs.quantize", digits=1, dtype="<f8", astype="<f4"), LITTLE],
        FLOATS,
        "dv",
    ),
    "bitround": ([named("numcodecs.bitround", keepbits=12), LITTLE, "gzip"], FLOATS, "dvd"),
    "bitround big": ([named("numcodecs.bitround", keepbits=12), _BIG], FLOATS, "cv"),
    "packbits": ([named("numcodecs.packbits"), LITTLE, "zstd"], TRUTHS, "dvd"),
    "transposed delta": (
        [named("transpose", order=[1, 0]), named("numcodecs.delta", dtype="<i4"), LITTLE],
        NUMBERS,
        "vdv",
    ),
    "delta transposed": (
        [named("numcodecs.delta", dtype="<i4"), named("transpose", order=[1, 0]), LITTLE],
        NUMBERS,
        "",
    ),
    "inline shard": ([sharding([2, 2]), "zstd"], NUMBERS, ""),
}

# filters, compressor, dtype, values, where: serializer, filters, compressor
V2: dict[str, tuple[list[Json] | None, Json | None, str, np.ndarray, str]] = {
    "none": (None, None, "<i4", NUMBERS, "v"),
    "big": (None, None, ">i4", NUMBERS, "v"),
    "blosc": (
        None,
        {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
        "<i4",
        NUMBERS,
        "vd",
    ),
    "blosc auto": (
        None,
        {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": -1, "blocksize": 0},
        ">f8",
        FLOATS,
        "vd",
    ),
    "zstd": (None, {"id": "zstd", "level": 1}, ">i4", NUMBERS, "vd"),
    "gzip": (None, {"id": "gzip", "level": 1}, "<i4", NUMBERS, "vd"),
    "zlib": (None, {"id": "zlib", "level": 1}, "<i4", NUMBERS, "vd"),
    "lz4": (None, {"id": "lz4", "acceleration": 1}, ">i4", NUMBERS, "vd"),
    "bz2": (None, {"id": "bz2", "level": 1}, "<i4", NUMBERS, "vc"),
    "lzma": (None, {"id": "lzma", "preset": 1}, "<i4", NUMBERS, "vc"),
    "shuffle": ([{"id": "shuffle", "elementsize": 4}], {"id": "lz4"}, "<i4", NUMBERS, "vdd"),
    "delta": ([{"id": "delta", "dtype": "<i4"}], None, "<i4", NUMBERS, "vd"),
    "delta big": ([{"id": "delta", "dtype": ">i4"}], {"id": "zlib"}, ">i4", NUMBERS, "vdd"),
    "delta shuffle": (
        [{"id": "delta", "dtype": "<i4"}, {"id": "shuffle", "elementsize": 4}],
        {"id": "zstd", "level": 1},
        "<i4",
        NUMBERS,
        "vddd",
    ),
    "scale": ([{"id": "fixedscaleoffset", **_SCALE}], {"id": "bz2"}, "<f8", FLOATS, "vdc"),
    "astype": (
        [{"id": "astype", "encode_dtype": "<f4", "decode_dtype": "<i4"}],
        {"id": "lz4"},
        "<i4",
        NUMBERS,
        "vdd",
    ),
    "quantize": ([{"id": "quantize", "digits": 1, "dtype": "<f8"}], None, "<f8", FLOATS, "vd"),
    "bitround": ([{"id": "bitround", "keepbits": 12}], {"id": "zlib"}, ">f8", FLOATS, "vdd"),
    "packbits": ([{"id": "packbits"}], {"id": "lz4"}, "|b1", TRUTHS, "vdd"),
    "crc32": ([{"id": "crc32"}], None, "<i4", NUMBERS, "vd"),
    "crc32c": ([{"id": "crc32c"}], None, "<i4", NUMBERS, "vd"),
    "adler32": ([{"id": "adler32"}], {"id": "zstd", "level": 1}, "<i4", NUMBERS, "vdd"),
    "fletcher32": ([{"id": "fletcher32"}], None, "<i4", NUMBERS, "vc"),
}

CODECS = [f"v3 {name}" for name in V3] + [f"v2 {name}" for name in V2]

_V3_NAMES = {"b": "bool", "i": "int32", "f": "float64"}


def document_of(case: str) -> tuple[Json, np.ndarray, str]:
    """(document, values, where each codec runs on a device) of a case of ``CODECS``."""
    version, _, name = case.partition(" ")
    if version == "v3":
        codecs, values, where = V3[name]
        document = v3_document(
            shape=[24, 20],
            chunk_grid=regular(6, 8),
            data_type=_V3_NAMES[values.dtype.kind],
            codecs=codecs,
            fill_value=7 if values.dtype.kind != "b" else True,
        )
        return document, values, where
    filters, compressor, dtype, values, where = V2[name]
    document = v2_document(
        shape=[24, 20],
        chunks=[6, 8],
        dtype=dtype,
        filters=filters,
        compressor=compressor,
        fill_value=7 if values.dtype.kind != "b" else True,
    )
    return document, values, where


@contextmanager
def small_jobs(nbytes: int = 64) -> Iterator[None]:
    """Many jobs, in all threads, so that several are in flight."""
    before = config.get("gpu.job_bytes")
    config.set({"gpu.job_bytes": nbytes})
    try:
        yield
    finally:
        config.set({"gpu.job_bytes": before})


class DeviceSuite:
    """Tests of one device."""

    name: ClassVar[str]
    """What ``get_device`` knows it by."""

    @pytest.fixture(autouse=True)
    def _usable(self) -> None:
        require(self.name)

    @pytest.fixture
    def device(self) -> Device:
        return get_device(self.name)

    # ---- helpers -------------------------------------------------------------------------------

    @property
    def batched(self) -> bool:
        """Whether this is a device with memory of its own, or its stand-in."""
        return self.name != "cpu"

    def xp(self, dtype: np.dtype[Any]) -> Any:
        """The library whose arrays hold results of ``dtype``."""
        return get_device(self.name).xp if self.batched and is_held(dtype) else np

    def on_device(self, values: np.ndarray) -> Any:
        """``values`` as an array of the device."""
        return get_device(self.name).upload(values) if self.batched else values

    def check_kind(self, got: Any, dtype: np.dtype[Any]) -> None:
        """A result lives where results of its type live."""
        ndarray = self.xp(dtype).ndarray
        assert isinstance(got, (ndarray, np.generic) if ndarray is np.ndarray else ndarray)

    def open(self, items: Any, **arguments: Any) -> Array:
        return zarr_gpu.open_array(items, device=self.name, **arguments)

    # ---- index modes ---------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", MODES)
    @few
    @given(data=st.data())
    def test_reads_equal_numpy(self, mode: str, data: st.DataObject) -> None:
        case = data.draw(cases())
        selection = data.draw(MODES[mode].draw(case), label="selection")
        out_kind = data.draw(st.sampled_from([None, None, *OUTS]), label="out")
        with case.running(), small_jobs(case.batch_rows * 64 or 1 << 20):
            array, values = case.filled()
            array = Array(array.store, "", case.metadata, device=self.name, config=case.config)
            items = expected_items(MODES[mode], case, selection)
            expected = picked(values, items)
            if out_kind is None:
                got = MODES[mode].get(array, selection)
                self.check_text_or_kind(got, case.dtype)
            else:
                out = self.make_out(out_kind, case.dtype, items.shape)
                expected = native(expected).astype(np.dtype(out.dtype))
                got = MODES[mode].get(array, selection, out=out)
                assert got is out
        assert same_bits(got, expected)

    def check_text_or_kind(self, got: Any, dtype: np.dtype[Any]) -> None:
        if dtype.kind in "OT":
            assert isinstance(got, np.ndarray | str | bytes)
        else:
            self.check_kind(got, dtype)

    def make_out(self, kind: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        """Memory of the caller's to read into."""
        xp = self.xp(dtype)
        own = dtype.newbyteorder("=") if self.batched and is_held(dtype) else dtype
        if kind == "F order":
            return xp.empty(shape, own, order="F")
        if kind == "gaps":
            return xp.empty((*shape, 2), own)[..., 0]
        if kind == "wider" and dtype.kind in "iuf" and dtype.itemsize < 8:
            return xp.empty(shape, f"{dtype.kind}8")
        return xp.empty(shape, own)

    @pytest.mark.parametrize("mode", MODES)
    @few
    @given(data=st.data())
    def test_writes_equal_numpy(self, mode: str, data: st.DataObject) -> None:
        """Over what is there; which chunks are stored afterwards is the same on every device."""
        case = data.draw(cases())
        selection = data.draw(MODES[mode].draw(case), label="selection")
        items = expected_items(MODES[mode], case, selection)
        value, values = data.draw(new_values(case.dtype, items.shape), label="value")
        with case.running(), small_jobs(case.batch_rows * 64 or 1 << 20):
            stored, before = case.filled()
            copied = MemoryStore(dict(stored.store.items))
            array = Array(copied, "", case.metadata, device=self.name, config=case.config)
            MODES[mode].set(array, selection, value)
            MODES[mode].set(stored, selection, value)
        on_cpu = Array(copied, "", case.metadata, device="cpu")
        assert same_bits(np.asarray(on_cpu), assigned(before, items, values))
        assert keys_of(array) == keys_of(stored)

    @few
    @given(data=st.data())
    def test_fields_equal_numpy(self, data: st.DataObject) -> None:
        case = data.draw(cases(structs=True))
        selection = data.draw(MODES["basic"].draw(case), label="selection")
        assert case.dtype.names is not None
        field = data.draw(st.sampled_from(case.dtype.names))
        items = expected_items(MODES["basic"], case, selection)
        array, values = case.filled()
        array = Array(array.store, "", case.metadata, device=self.name)
        got = MODES["basic"].get(array, selection, fields=field)
        assert same_bits(got, picked(values[field], items, case.dtype[field].shape))
        self.check_kind(got, case.dtype)
        MODES["basic"].set(array, selection, 1, fields=field)
        values[field] = assigned(
            values[field], items, np.ones((), case.dtype[field].base), case.dtype[field].shape
        )
        assert same_bits(array.get_basic_selection(...), values)

    # ---- types and layouts ---------------------------------------------------------------------

    @pytest.mark.parametrize("dtype", some(HELD, 4))
    @pytest.mark.parametrize("layout", some(LAYOUTS, 2))
    def test_types_and_layouts_go_both_ways(self, layout: str, dtype: str) -> None:
        rng = np.random.default_rng([len(layout), *dtype.encode()])
        values = random_values(np.dtype(dtype), (7, 5), 3)
        big = bool(rng.integers(2))
        if layout.startswith("v2") and big:
            dtype = np.dtype(dtype).newbyteorder(">").str
        compressor = int(rng.integers(3))
        if layout == "inline shards":
            compressor = 1
        metadata = build_metadata(
            layout, (7, 5), (3, 2), dtype, compressor=compressor, big=big, fill_value=values[1, 1]
        )
        there, here = MemoryStore(), MemoryStore()
        Array(there, "", metadata, device="cpu")[:6, 1:] = values[:6, 1:]
        Array(here, "", metadata, device=self.name)[:6, 1:] = self.on_device(values[:6, 1:])
        expected = np.full((7, 5), values[1, 1])
        expected[:6, 1:] = values[:6, 1:]
        for store in (there, here):
            assert same_bits(Array(store, "", metadata, device="cpu")[...], expected)
            got = Array(store, "", metadata, device=self.name)[...]
            assert same_bits(got, expected)
            self.check_kind(got, np.dtype(dtype))
        part = Array(there, "", metadata, device=self.name)[5:0:-2, [4, 0, 4]]
        assert same_bits(part, expected[5:0:-2][:, [4, 0, 4]])

    @pytest.mark.parametrize("dtype", HOST_ONLY)
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_types_that_only_the_host_holds(self, dtype: str, zarr_format: int) -> None:
        """Read and written as NumPy arrays, by the CPU, whatever the device."""
        kind: Any = [("x", "i4"), ("y", "f8")] if dtype == "struct" else dtype
        if dtype in ("string", "bytes"):
            kind = {"string": str, "bytes": bytes}[dtype]
        array = zarr_gpu.create_array(
            {}, shape=(6, 4), chunks=(4, 3), dtype=kind, zarr_format=zarr_format, device=self.name
        )
        values = random_values(array.dtype, (6, 4), 5)
        array[...] = values
        assert array.device is get_device(self.name)
        assert array.worker is get_device("cpu")
        assert {step.where for step in array.explain().steps} == {"cpu"}
        for selection in ((...,), (slice(1, 5), 2), (slice(None, None, -2),)):
            got = array[selection]
            assert isinstance(got, np.ndarray)
            assert same_bits(got, values[selection])
        out = np.empty((6, 4), array.dtype)
        array.get_basic_selection(..., out=out)
        assert same_bits(out, values)

    @pytest.mark.parametrize("case", some(CODECS, 4))
    def test_codecs_go_both_ways(self, case: str) -> None:
        document, values, where = document_of(case)
        there, here = items_of(document), items_of(document)
        expected = np.full_like(values, 7)
        # Whole chunks, parts of chunks, and a row of chunks that stays absent.
        for array in (zarr_gpu.open_array(there, mode="r+"), self.open(here, mode="r+")):
            array[3:14] = values[3:14]
            array[9:12, 5:19] = values[12:9:-1, 5:19]
        expected[3:14] = values[3:14]
        expected[9:12, 5:19] = values[12:9:-1, 5:19]
        assert there.keys() == here.keys()
        for items in (there, here):
            assert same_bits(zarr_gpu.open_array(items, device="cpu")[...], expected)
            array = self.open(items)
            assert same_bits(array[...], expected)
            assert same_bits(array[20:2:-3, 1::2], expected[20:2:-3, 1::2])
        if not self.batched:
            assert {step.where for step in array.explain().steps} <= {"cpu", "view"}
            return
        places = [step.where for step in array.explain().steps]
        if not where:
            assert array.worker is get_device("cpu")
            assert set(places) == {"cpu"}
            return
        assert array.worker is array.device
        meaning = {"d": array.device.kind, "c": "cpu", "v": "view"}
        assert places == [meaning[letter] for letter in where]
        for step in array.explain().steps:
            assert step.note or step.where == array.device.kind  # a reason not to run on it

    def test_explain_names_device_and_result(self, device: Device) -> None:
        document, values, _ = document_of("v3 blosc lz4 shuffle")
        array = self.open(items_of(document), mode="r+")
        array[6:] = values[6:]
        plan = array.explain(slice(0, 12))
        assert (plan.device, plan.shape) == (device.kind, (12, 20))
        assert (plan.chunks, plan.missing, plan.keys) == (6, 3, 3)
        assert plan.nbytes == sum(n for _, _, n in plan.requests)
        assert plan.decoded_nbytes == 3 * 6 * 8 * 4
        assert [step.codec for step in plan.steps] == ["bytes", "blosc"]
        assert device.kind in str(plan)

    # ---- fill values and absent chunks ---------------------------------------------------------

    FILLS: ClassVar[dict[str, tuple[str, Any, Any]]] = {
        # data type, fill value in a document, its bits
        "NaN": ("float32", "NaN", 0x7FC00000),
        "NaN with a payload": ("float32", "0x7fc00123", 0x7FC00123),
        "signalling NaN": ("float32", "0xff800001", 0xFF800001),
        "-0.0": ("float32", -0.0, 0x80000000),
        "-0.0 as 8 bytes": ("float64", -0.0, 1 << 63),
        "NaN of 8 bytes": ("float64", "0x7ff8000000abcdef", 0x7FF8000000ABCDEF),
        "half": ("float16", "0x7e01", 0x7E01),
        "infinity": ("float64", "-Infinity", 0xFFF0000000000000),
        "largest": ("uint64", 2**64 - 1, 2**64 - 1),
        "least": ("int8", -128, 128),
        "true": ("bool", True, 1),
    }

    @pytest.mark.parametrize("endian", ["little", "big"])
    @pytest.mark.parametrize("which", some(FILLS, 4))
    def test_fill_values_keep_every_bit(self, which: str, endian: str) -> None:
        data_type, fill, bits = self.FILLS[which]
        dtype = np.dtype(data_type)
        codecs = [named("bytes", endian=endian) if dtype.itemsize > 1 else "bytes", "zstd"]
        items = items_of(
            v3_document(data_type=data_type, fill_value=fill, codecs=codecs, shape=[8, 5])
        )
        array = self.open(items, mode="r+")
        unsigned = f"u{dtype.itemsize}"
        whole = np.full((8, 5), bits, unsigned)
        assert same_bits(array[...], whole.view(dtype))
        assert same_bits(array[::-3, 2], whole.view(dtype)[::-3, 2])
        # One item of a chunk that was absent: the others get the fill value.
        array[1, 2] = whole.view(dtype)[1, 2] = data_type != "bool"
        assert same_bits(zarr_gpu.open_array(items, device="cpu")[...], whole.view(dtype))
        assert same_bits(array[...], whole.view(dtype))
        assert len(items) == 2
        # Fill value written over it, bit by bit: the chunk goes.
        array[1, 2] = array[7, 4]
        assert len(items) == 1

    def test_zero_and_minus_zero_are_not_the_same_fill_value(self) -> None:
        items = items_of(v3_document(data_type="float64", fill_value=-0.0, codecs=[LITTLE]))
        array = self.open(items, mode="r+")
        array[...] = 0.0
        assert len(items) == 3
        array[...] = -0.0
        assert len(items) == 1

    @pytest.mark.parametrize("write_empty", [False, True])
    def test_chunks_of_fill_value(self, write_empty: bool) -> None:
        how = ArrayConfig(write_empty_chunks=write_empty)
        metadata = build_metadata("v3", (8, 6), (4, 3), "i2", fill_value=5, compressor=1)
        array = Array(MemoryStore(), "", metadata, device=self.name, config=how)
        values = np.full((8, 6), 5, "i2")
        values[0, 0] = 6
        array[...] = self.on_device(values)
        assert len(keys_of(array)) == (4 if write_empty else 1)
        array[0, 0] = 5
        assert len(keys_of(array)) == (4 if write_empty else 0)
        assert same_bits(array[...], np.full((8, 6), 5, "i2"))

    def test_absent_chunks_as_errors(self) -> None:
        document, values, _ = document_of("v3 zstd")
        items = items_of(document)
        zarr_gpu.open_array(items, mode="r+")[:12] = values[:12]
        array = self.open(items, config={"read_missing_chunks": False})
        assert same_bits(array[:12], values[:12])
        with pytest.raises(ChunkNotFoundError) as caught:
            array[...]
        assert caught.value.key == "c/2/0"
        with pytest.raises(KeyError):
            array.vindex[[0, 23], [0, 19]]
        assert same_bits(array[3:11, ::-1], values[3:11, ::-1])

    @pytest.mark.parametrize("fill", [None, 0])
    def test_v2_without_a_fill_value(self, fill: Any) -> None:
        items = items_of(v2_document(fill_value=fill))
        assert same_bits(self.open(items)[...], np.zeros((8, 6), "i4"))

    # ---- writing -------------------------------------------------------------------------------

    @pytest.mark.parametrize("layout", ["v2 F order", "v3", "sharded", "nested shards"])
    def test_append_and_resize(self, layout: str) -> None:
        metadata = build_metadata(layout, (5, 6), (2, 3), "u2", compressor=2, fill_value=9)
        array = Array(MemoryStore(), "", metadata, device=self.name)
        values = np.arange(30, dtype="u2").reshape(5, 6)
        array[...] = values
        array.append(values[:3])
        array.append(values[:, :2].repeat(2, axis=0)[:8], axis=1)
        expected = np.concatenate([values, values[:3]])
        expected = np.concatenate([expected, values[:, :2].repeat(2, axis=0)[:8]], axis=1)
        assert same_bits(array[...], expected)
        array.resize((4, 8))
        assert same_bits(array[...], expected[:4])
        array.resize((6, 10))
        got = to_host(array[...])
        assert same_bits(got[:4, :8], expected[:4])
        assert (got[:, 8:] == 9).all()
        assert same_bits(np.asarray(array.to("cpu")), got)

    def test_values_of_many_kinds(self) -> None:
        metadata = build_metadata("v3", (6, 4), (4, 3), "f4", compressor=2)
        array = Array(MemoryStore(), "", metadata, device=self.name)
        expected = np.zeros((6, 4), "f4")
        own = self.on_device(np.arange(4, dtype="f4"))
        rows: list[tuple[Any, Any]] = [
            (3, 3),
            (2.5, 2.5),
            (True, 1),
            (np.int8(-3), -3),
            (np.float64(0.1), np.float32(0.1)),
            ([1, 2, 3, 4], [1, 2, 3, 4]),
            (np.arange(4), np.arange(4)),
            (np.arange(4, dtype=">i8"), np.arange(4)),
            (np.arange(8)[::-2], np.arange(8)[::-2]),
            (own, np.arange(4)),
            (own[::-1], np.arange(4)[::-1]),
            (own[1], 1),
            (np.float16(7), 7),
        ]
        for value, meaning in rows:
            array[2:5] = value
            expected[2:5] = meaning
            assert same_bits(array[...], expected), repr(value)
        table = np.arange(24, dtype="i8").reshape(6, 4)
        for value in (table, np.asfortranarray(table), table[::-1][::-1], self.on_device(table)):
            array[...] = 0
            array[...] = value
            assert same_bits(array[...], table.astype("f4"))
        array[:, 1] = self.on_device(table)[:, 2]
        expected = table.astype("f4")
        expected[:, 1] = table[:, 2]
        assert same_bits(array[...], expected)

    @pytest.mark.parametrize("layout", ["v2", "v3", "sharded", "nested shards"])
    def test_of_repeated_indices_the_last_counts(self, layout: str) -> None:
        metadata = build_metadata(layout, (9, 7), (4, 3), "i4", compressor=2)
        array = Array(MemoryStore(), "", metadata, device=self.name)
        expected = np.zeros((9, 7), "i4")
        rng = np.random.default_rng(1)
        for n in range(4):
            rows, columns = rng.integers(0, 9, 40), rng.integers(0, 7, 40)
            values = rng.integers(1, 1000, 40).astype("i4")
            array.vindex[rows, columns] = values
            for row, column, value in zip(rows, columns, values, strict=True):
                expected[row, column] = value
            some = rng.integers(0, 9, 12)
            values = rng.integers(1, 1000, (12, 7)).astype("i4")
            array.oindex[some] = values
            for row, value in zip(some, values, strict=True):
                expected[row] = value
            assert same_bits(array[...], expected), n

    @pytest.mark.parametrize("layout", ["v3", "sharded"])
    def test_a_partial_write_needs_what_is_there(self, layout: str) -> None:
        """A chunk that cannot be read is not written over; a whole one is."""
        metadata = build_metadata(layout, (8, 6), (4, 3), "i4", compressor=2, factors=(1, 2))
        store = MemoryStore()
        array = Array(store, "", metadata, device=self.name)
        array[...] = values = np.arange(48, dtype="i4").reshape(8, 6)
        key = min(keys_of(array))
        before = store.items[key]
        at = len(before) // 4
        store.items[key] = (
            before[:at] + bytes(255 - b for b in before[at : at + 4]) + before[at + 4 :]
        )
        damaged = dict(store.items)
        with pytest.raises(ChunkDecodeError) as caught:
            array[1:3, 1:5] = 1
        assert caught.value.key == key
        if layout == "v3":
            assert {k: v for k, v in store.items.items() if k == key} == {key: damaged[key]}
        else:
            assert store.items == damaged
        array[:4] = values[:4]
        array[5, 1:] = 3
        values[5, 1:] = 3
        assert same_bits(array[...], values)

    def test_read_only(self) -> None:
        document, _, _ = document_of("v3 raw")
        items = items_of(document)
        array = self.open(items, mode="r")
        with pytest.raises(ReadOnlyError):
            array[...] = 1
        assert len(items) == 1

    def test_selections_that_do_not_fit(self) -> None:
        document, values, _ = document_of("v3 raw")
        array = self.open(items_of(document), mode="r+")
        with pytest.raises(BoundsError, match="axis 0 with size 24"):
            array[24]
        with pytest.raises(SelectionError):
            array[0, 0, 0]
        with pytest.raises(ValueError, match="cannot assign"):
            array[:3] = self.on_device(values)
        with pytest.raises(ValueError, match="out has shape"):
            array.get_basic_selection(slice(0, 2), out=self.make_out("plain", array.dtype, (2, 2)))
        with pytest.raises(TypeError):
            array.get_basic_selection(..., out=self.on_device(np.empty((24, 20), "?")))
        with pytest.raises((TypeError, AttributeError)):
            array.get_basic_selection(..., out=[1, 2])

    # ---- shapes --------------------------------------------------------------------------------

    @pytest.mark.parametrize("layout", ["v2", "v3", "sharded", "nested shards"])
    def test_arrays_without_axes(self, layout: str) -> None:
        metadata = build_metadata(layout, (), (), ">i4" if layout == "v2" else "i4", fill_value=-2)
        array = Array(MemoryStore(), "", metadata, device=self.name)
        for value in (None, 5):
            if value is not None:
                array[...] = value
            expected = np.int32(-2 if value is None else value)
            for got in (array[()], array[...], array.vindex[()], array.oindex[()]):
                assert same_bits(got, expected)
            assert same_bits(array[None], np.array([expected]))
        assert int(array[()]) == 5

    @pytest.mark.parametrize("layout", ["v2 F order", "v3", "sharded, transposed"])
    def test_nothing_selected(self, layout: str) -> None:
        metadata = build_metadata(layout, (6, 5), (3, 2), "f8", compressor=2, fill_value=np.nan)
        store = CountingStore(MemoryStore())
        array = Array(store, "", metadata, device=self.name)
        array[...] = 1.0
        before = dict(store.store.items)  # type: ignore[attr-defined]
        for selection, shape in (
            ((slice(0, 0),), (0, 5)),
            ((slice(4, 2), 1), (0,)),
            ((slice(None), slice(9, 20)), (6, 0)),
        ):
            got = array[selection]
            assert got.shape == shape
            self.check_kind(got, array.dtype)
            array[selection] = 3
        assert array.oindex[[], [1, 2]].shape == (0, 2)
        assert array.vindex[[], []].shape == (0,)
        assert array.get_mask_selection(np.zeros((6, 5), bool)).shape == (0,)
        assert array[0:0, None, 0:0].shape == (0, 1, 0)
        array.oindex[[], [1]] = 4
        assert dict(store.store.items) == before  # type: ignore[attr-defined]
        assert same_bits(array[...], np.ones((6, 5)))

    @pytest.mark.parametrize("layout", ["v2", "v3", "sharded", "nested shards"])
    def test_axes_of_length_zero(self, layout: str) -> None:
        metadata = build_metadata(layout, (3, 0, 2), (2, 2, 2), "i4", compressor=1)
        array = Array(MemoryStore(), "", metadata, device=self.name)
        array[...] = 1
        assert array[...].shape == (3, 0, 2)
        assert array[1].shape == (0, 2)
        assert array.oindex[[0, 0, 2], [], 1].shape == (3, 0)
        assert not keys_of(array)
        array.resize((3, 2, 2))
        assert same_bits(array[...], np.zeros((3, 2, 2), "i4"))

    def test_many_axes(self) -> None:
        shape = (2, 3, 2, 2, 3, 2)
        metadata = build_metadata(
            "v3 transposed", shape, (1, 2, 2, 1, 2, 2), "u1", compressor=2, order=(3, 5, 0, 1, 4, 2)
        )
        array = Array(MemoryStore(), "", metadata, device=self.name)
        array[...] = values = np.arange(math.prod(shape), dtype="u1").reshape(shape)
        assert same_bits(array[...], values)
        assert same_bits(array[1, ::-1, :, 0, [2, 0], 1], values[1][::-1, :, 0][:, :, [2, 0], 1])
        index = np.array([[0, 1, 1], [1, 0, 1]])
        assert same_bits(array.vindex[index, index, 0, index], values[index, index, 0, index])

    # ---- handles -------------------------------------------------------------------------------

    def test_to_another_device_and_back(self) -> None:
        document, values, _ = document_of("v3 blosc lz4 shuffle")
        array = zarr_gpu.open_array(items_of(document), mode="r+", device="cpu")
        array[...] = values
        there = array.to(self.name)
        assert there.device is get_device(self.name)
        assert there.metadata is array.metadata
        assert same_bits(there[...], values)
        self.check_kind(there[...], values.dtype)
        assert isinstance(there.to("cpu")[...], np.ndarray)
        assert same_bits(there.to("cpu")[...], values)

    def test_to_numpy(self) -> None:
        """``np.asarray`` brings the values to the host, wherever they are decoded."""
        for case in ("v3 zstd", "v2 big"):
            document, values, _ = document_of(case)
            array = self.open(items_of(document), mode="r+")
            array[...] = values
            got = np.asarray(array)
            assert got.dtype == array.dtype
            assert same_bits(got, values)
            assert np.asarray(array, "f8").dtype == "f8"
        one = self.open(items_of(v3_document(shape=[1, 1], chunk_grid=regular(1, 1))), mode="r+")
        assert not one
        one[...] = 1
        assert one
        assert [to_host(row).tolist() for row in one] == [[1]]

    def test_pickled(self) -> None:
        metadata = build_metadata("sharded", (6, 5), (3, 2), "u2", compressor=2)
        array = Array(MemoryStore(), "", metadata, device=self.name)
        array[...] = values = np.arange(30, dtype="u2").reshape(6, 5)
        other = pickle.loads(pickle.dumps(array))
        assert other.device is get_device(self.name)
        assert same_bits(other[1:, ::2], values[1:, ::2])

    def test_groups_hand_their_device_down(self) -> None:
        root = zarr_gpu.create_group({}, device=self.name)
        array = root.create_array("a/b", shape=(4,), chunks=(3,), dtype="i4")
        array[...] = np.arange(4)
        assert array.device is get_device(self.name)
        assert root["a/b"].device is get_device(self.name)
        assert same_bits(root["a/b"][...], np.arange(4, dtype="i4"))

    def test_results_in_f_order(self) -> None:
        metadata = build_metadata("v3", (6, 5), (4, 3), "i4", compressor=2)
        array = Array(MemoryStore(), "", metadata, device=self.name, config=ArrayConfig(order="F"))
        array[...] = values = np.arange(30, dtype="i4").reshape(6, 5)
        got = array[1:]
        assert got.flags.f_contiguous
        assert same_bits(got, values[1:])
        out = self.make_out("plain", values.dtype, (6, 5))
        array.get_basic_selection(..., out=out)
        assert same_bits(out, values)

    def test_many_threads_at_once(self, device: Device) -> None:
        document, values, _ = document_of("v3 blosc zstd shuffle")
        array = self.open(items_of(document), mode="r+")
        array[...] = values
        wrong: list[Any] = []

        def work(seed: int) -> None:
            rng = np.random.default_rng(seed)
            try:
                for _ in range(2 if FEW else 6):
                    a, b = sorted(rng.integers(0, 25, 2).tolist())
                    step = int(rng.integers(1, 4))
                    if not same_bits(array[a:b:step, ::-1], values[a:b:step, ::-1]):
                        wrong.append((a, b, step))
            except Exception as error:
                wrong.append(error)

        with small_jobs(400):
            threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []

    # ---- damage --------------------------------------------------------------------------------

    def test_a_damaged_chunk_is_named_and_the_others_are_right(self) -> None:
        """Whichever codec notices; the device works on."""
        for case in some([c for c in CODECS if document_of(c)[2]], 9):
            document, values, _ = document_of(case)
            items = items_of(document)
            array = self.open(items, mode="r+")
            array[...] = values
            key = "c/1/1" if case.startswith("v3") else "1.1"
            good = items[key]
            for bad in (good[: len(good) // 2], b"", good + b"\0\1\2"):
                items[key] = bad
                out = self.on_device(np.zeros((24, 20), values.dtype))
                with small_jobs(3 * 6 * 8 * 4), pytest.raises(ChunkDecodeError) as caught:
                    array.get_basic_selection(..., out=out)
                assert caught.value.key == key, case
                assert caught.value.codec, case
                if self.batched:
                    mine = (slice(6, 12), slice(8, 16))
                    got, expected = to_host(out).copy(), native(values).copy()
                    # Jobs behind the damaged one may not have run.
                    got[mine] = expected[mine] = 0
                    assert ((got == expected) | (got == 0)).all(), case
                    assert same_bits(got[:6], expected[:6]), case
                assert same_bits(array[:6], values[:6]), case
                assert same_bits(array[12:, ::3], values[12:, ::3]), case
                assert same_bits(array[6:12, 16:], values[6:12, 16:]), case
            items[key] = good
            assert same_bits(array[...], values), case

    def test_of_several_damaged_chunks_the_first_is_named(self) -> None:
        document, values, _ = document_of("v3 zstd crc32c")
        items = items_of(document)
        array = self.open(items, mode="r+")
        array[...] = values
        for key in ("c/3/1", "c/2/0", "c/2/2"):
            items[key] = items[key][:-1] + bytes([items[key][-1] ^ 1])
        with pytest.raises(ChunkDecodeError) as caught:
            array[...]
        check_error(caught.value, key=caught.value.key, codec="crc32c")
        assert caught.value.key in ("c/3/1", "c/2/0", "c/2/2")
        if self.batched:
            assert caught.value.key == "c/2/0"

    def test_errors_of_the_store_pass_through(self) -> None:
        document, values, _ = document_of("v3 zstd")
        items = items_of(document)
        array = self.open(items, mode="r+")
        array[...] = values

        class Broken(MemoryStore):
            def read(self, *args: Any, **kw: Any) -> Any:
                raise OSError("the disk is gone")

        broken = Array(Broken(dict(items)), "", array.metadata, device=self.name)
        for _ in range(2):
            with small_jobs(), pytest.raises(OSError, match="disk is gone"):
                broken[...]
        assert same_bits(array[...], values)

    def test_unknown_devices_are_refused(self) -> None:
        for name in ("gpu", "cuda:x", "sim:fast", "cpu:1", ""):
            with pytest.raises(DeviceError, match=r"there is no device|cannot be used"):
                get_device(name)
        assert get_device(self.name).name == self.name
