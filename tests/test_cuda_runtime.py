"""The runtime of CUDA devices as far as it goes without one: on a CuPy that is pretended.

The pretended arrays are NumPy's, kernels run on the host and streams only note what is asked of
them; so every line runs, but nothing is said of CuPy, Numba or a GPU.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("numba", reason="platform: Numba is not installed")

from step_suite import as_batch, codec, payload, program, rows_of

from zarr_gpu.codecs.device_steps import make_steps
from zarr_gpu.codecs.nvcomp_host import HostNvComp
from zarr_gpu.codecs.runtime import ALREADY, Verdicts
from zarr_gpu.devices import cuda_runtime
from zarr_gpu.devices.cuda_runtime import CudaRuntime, KernelArgument, cuda_problem, launch_shape
from zarr_gpu.devices.sim_runtime import SimRuntime
from zarr_gpu.errors import DeviceError


class Memory:
    """``ndarray.data`` of CuPy."""

    def __init__(self, array: np.ndarray) -> None:
        self.ptr = int(array.__array_interface__["data"][0])
        self.mem = SimpleNamespace(ptr=self.ptr)
        self._nbytes = array.nbytes

    def copy_from_host_async(self, address: int, nbytes: int, stream: Stream) -> None:
        assert type(address) is int
        assert nbytes <= self._nbytes
        assert isinstance(stream, Stream)
        stream.log.append("copy")
        ctypes.memmove(self.ptr, address, nbytes)


class Array(np.ndarray):
    """NumPy's array with what is CuPy's own."""

    number = 0

    @property
    def data(self) -> Memory:
        return Memory(self)

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=self.number)

    def copy(self) -> Array:  # type: ignore[override]
        copied = np.array(self).view(Array)
        copied.number = 0  # the current one
        return copied

    def set(self, host: Any, stream: Any = None) -> None:
        assert type(host) is np.ndarray
        assert host.flags.c_contiguous
        assert (host.dtype, host.shape) == (self.dtype, self.shape)
        assert isinstance(stream, Stream)
        stream.log.append("copy")
        self[...] = host

    def get(self, stream: Any = None) -> np.ndarray:
        assert isinstance(stream, Stream)
        stream.log.append("synchronize")
        return np.array(self)


class Stream:
    current: ClassVar[list[Stream]] = []

    def __init__(self, ptr: int = 64, non_blocking: bool = False, priority: int = 0) -> None:
        self.ptr = ptr + priority
        self.log: list[Any] = []

    def __enter__(self) -> None:
        Stream.current.append(self)

    def __exit__(self, *_: object) -> None:
        Stream.current.pop()

    def wait_event(self, event: Event) -> None:
        self.log.append(("wait", event))


class Event:
    made: ClassVar[list[Event]] = []

    def __init__(self, disable_timing: bool = False) -> None:
        assert disable_timing
        self.done = False
        self.log: list[Any] = []
        Event.made.append(self)

    def record(self, stream: Stream) -> None:
        self.log.append(stream)

    def synchronize(self) -> None:
        self.log.append("synchronize")


class Launcher:
    """A kernel whose launches run on the host."""

    shapes: ClassVar[list[Any]] = []

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, shape: tuple[int, int, Any]) -> Any:
        def run(*args: Any) -> None:
            Launcher.shapes.append(shape)
            plain = []
            for arg in args:
                assert not isinstance(arg, np.ndarray)
                plain.append(
                    arg._owner.view(np.ndarray) if isinstance(arg, KernelArgument) else arg
                )
            self.kernel.njit(*plain)

        return run


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> CudaRuntime:
    from numba import cuda
    from zarr_gpu.kernels import registry

    Stream.current[:] = [Stream()]

    def empty(shape: Any, dtype: Any) -> Array:
        return np.empty(shape, dtype).view(Array)

    pretended = SimpleNamespace(
        ndarray=Array,
        empty=empty,
        asarray=lambda given: given.__cuda_array_interface__["array"],
        from_dlpack=lambda given: given.array,
        concatenate=lambda parts: np.concatenate(parts).view(Array),
        cuda=SimpleNamespace(
            Stream=Stream,
            Event=Event,
            get_current_stream=lambda device: Stream.current[-1],
            alloc_pinned_memory=lambda nbytes: bytearray(nbytes + 7),
            runtime=SimpleNamespace(getDeviceCount=lambda: 1),
            nvtx=SimpleNamespace(available=False),
        ),
    )
    kernels = registry.get
    monkeypatch.setattr(cuda_runtime, "_cupy", lambda: pretended)
    monkeypatch.setattr(cuda_runtime, "cuda_problem", lambda: None)
    monkeypatch.setattr(cuda, "external_stream", lambda ptr: ("external", ptr))
    monkeypatch.setattr(
        registry,
        "get",
        lambda name: SimpleNamespace(cuda=Launcher(kernels(name)), njit=kernels(name).njit),
    )
    monkeypatch.setattr(CudaRuntime, "_staged", type(CudaRuntime._staged)())
    monkeypatch.setattr(cuda_runtime, "_of_thread", threading.local())
    Event.made.clear()
    Launcher.shapes.clear()
    made = CudaRuntime()
    made.nvcomp = HostNvComp()
    return made


# ---- without any CUDA ----------------------------------------------------------------------------


def test_a_reason_where_there_is_no_device() -> None:
    problem = cuda_problem()
    if problem is None:
        pytest.skip("platform: there is a CUDA device")
    with pytest.raises((DeviceError, ImportError)):
        CudaRuntime()


@pytest.mark.parametrize("threads", [0, 1, 31, 4000, 4096, 10_000, 65_536, 1_000_000, 10**9])
def test_launch_shape(threads: int) -> None:
    blocks, block = launch_shape(threads)
    assert blocks * block >= threads
    assert block % 32 == 0
    assert 32 <= block <= 256
    assert 128 <= blocks < 2**31


def test_few_threads_are_spread() -> None:
    assert launch_shape(2000) == (128, 32)
    assert launch_shape(100_000)[0] > 256


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i4", "i8", "f4", "f8"])
def test_arguments_have_the_types_that_kernels_are_compiled_for(dtype: str) -> None:
    from numba import from_dtype, types

    array = np.zeros(5, dtype).view(Array)
    argument = KernelArgument(array)
    assert argument._numba_type_ == types.Array(from_dtype(np.dtype(dtype)), 1, "C")
    told = argument.__cuda_array_interface__
    assert told["data"] == (array.data.ptr, False)
    assert told["shape"] == (5,)
    assert told["typestr"] == np.dtype(dtype).str
    assert told["stream"] is None


# ---- on a pretended CuPy -------------------------------------------------------------------------


class Tensor:
    """An array of another library, on device ``number`` or in memory of another kind."""

    def __init__(self, kind: int, number: int = 0) -> None:
        self.array = np.arange(4.0).view(Array)
        self.array.number = number
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.array.number


class Described:
    """An array that tells where it is by ``__cuda_array_interface__`` alone."""

    def __init__(self, *, read_only: bool = False) -> None:
        array = np.arange(4.0).view(Array)
        self.__cuda_array_interface__ = {"data": (array.data.ptr, read_only), "array": array}


def test_arrays_of_other_libraries_are_adopted(runtime: CudaRuntime) -> None:
    own = runtime.empty(4)
    assert runtime.adopt(own) is own
    for given in (Tensor(2), Tensor(13), Described(), Described(read_only=True)):
        found = runtime.adopt(given)
        assert type(found) is Array
        assert found.tolist() == [0, 1, 2, 3]
    tensor = Tensor(2)
    assert runtime.adopt(tensor) is tensor.array  # the very memory
    far = Tensor(2, number=1)
    near = runtime.adopt(far)
    assert near is not far.array
    assert (near.device.id, near.tolist()) == (0, [0, 1, 2, 3])
    for host in (Tensor(1), Tensor(3), np.arange(4), 5, [1, 2]):  # 3: page-locked memory
        assert runtime.adopt(host) is None


def test_results_go_to_arrays_of_other_libraries(runtime: CudaRuntime) -> None:
    own = runtime.empty(4)
    assert runtime.target(own) is own
    for given in (Tensor(2), Described()):
        assert type(runtime.target(given)) is Array
    for wrong, why in (
        (np.empty(4), "must be an array on device 0, not a ndarray"),
        (Tensor(1), "not a Tensor"),
        (Tensor(2, number=1), "out is on device 1"),
        (Described(read_only=True), "may not be written"),
    ):
        with pytest.raises(TypeError, match=why):
            runtime.target(wrong)


def test_addresses(runtime: CudaRuntime) -> None:
    memory = runtime.empty(16)
    assert runtime.address(memory[3:]) == runtime.address(memory) + 3


def test_unknown_devices(runtime: CudaRuntime) -> None:
    for number in (-1, 1):
        with pytest.raises(DeviceError, match="there are 1"):
            CudaRuntime(number)


def test_uploads_and_downloads(runtime: CudaRuntime) -> None:
    for host in (
        np.arange(7),
        np.arange(6.0).reshape(2, 3).T,
        np.empty(0, "i8"),
        np.arange(9)[::2],
    ):
        device = runtime.upload(host)
        assert type(device) is Array
        assert (device.dtype, device.shape) == (host.dtype, host.shape)
        assert (runtime.download(device) == host).all()
    assert runtime.counts == {"uploads": 4, "downloads": 4}
    tables = runtime.upload_tables([np.arange(3), np.arange(2, dtype="u8"), np.arange(0)])
    assert [t.tolist() for t in tables] == [[0, 1, 2], [0, 1], []]
    assert tables[1].dtype == np.uint64


def test_page_locked_memory_is_kept_until_it_was_copied(runtime: CudaRuntime) -> None:
    runtime.upload(np.arange(3))
    runtime.upload(np.arange(4))
    assert len(runtime._staged) == 2
    assert all(event.log == [runtime.cupy_stream] for event, _ in runtime._staged)
    runtime._staged[1][0].done = True  # one before it is not
    runtime.upload(np.arange(5))
    assert len(runtime._staged) == 3
    for event, _ in runtime._staged:
        event.done = True
    runtime.upload(np.arange(6))
    assert len(runtime._staged) == 1


def test_large_uploads_are_not_staged(
    runtime: CudaRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_runtime, "STAGED_NBYTES", 100)
    assert (runtime.upload(np.arange(100)) == np.arange(100)).all()
    assert not runtime._staged


def test_empty_memory_has_an_address(runtime: CudaRuntime) -> None:
    memory = runtime.empty(0)
    assert len(memory) == 0
    assert memory.data.ptr


@pytest.mark.parametrize(
    "chain",
    [
        [codec("blosc", typesize=4, cname="lz4")],
        [codec("numcodecs.delta", dtype="<i4"), codec("zstd"), codec("crc32c")],
        [codec("numcodecs.shuffle", elementsize=4), codec("gzip")],
        [codec("numcodecs.bz2"), codec("numcodecs.adler32")],
    ],
    ids=lambda chain: chain[0].name,
)
def test_steps(runtime: CudaRuntime, chain: Any) -> None:
    """The same result and the same counts as on the stand-in."""
    prog = program(chain, (2000,), "<i4")
    rows = [payload(np.random.default_rng(i), 8000, 0) for i in range(5)]
    encoded = [prog.encode(row.view("<i4")) for row in rows]
    counts = []
    for each in (runtime, SimRuntime()):
        batch, verdicts = as_batch(each, encoded), Verdicts()
        for step, of in zip(reversed(make_steps(prog)), reversed(prog.steps), strict=True):
            batch = step.decode(each, batch, of.limit, verdicts)
        assert all((a == b).all() for a, b in zip(rows_of(batch), rows, strict=True))
        assert not verdicts.on_host
        assert not any(status.any() for _, status, _ in verdicts.on_device)
        for step in make_steps(prog):
            batch = step.encode(each, batch)
        back = [prog.decode_bytes(row.view(np.ndarray)) for row in rows_of(batch)]
        assert all((a == b).all() for a, b in zip(back, rows, strict=True))
        counts.append({**each.counts, "launches": 0})
    # What several threads share takes two launches where one thread alone takes one.
    assert counts[0] == counts[1]
    assert all(stream == ("external", 64) for _, _, stream in Launcher.shapes)


@pytest.mark.parametrize(
    "chain",
    [
        [codec("blosc", typesize=4, cname="lz4")],
        [codec("blosc", typesize=4, cname="zstd")],
        [codec("zstd")],
        [codec("gzip"), codec("crc32c")],
    ],
    ids=lambda chain: chain[0].name,
)
def test_headers_on_the_device_are_read_beside_other_work(runtime: CudaRuntime, chain: Any) -> None:
    prog = program(chain, (2000,), "<i4")
    rows = [payload(np.random.default_rng(i), 8000, 0) for i in range(5)]
    batch = as_batch(runtime, [prog.encode(row.view("<i4")) for row in rows], at_hand=False)
    written, main = runtime.record(), runtime.cupy_stream
    main.log.clear()
    Launcher.shapes.clear()
    verdicts = Verdicts()
    batch = replace(batch, since=written)
    for step, of in zip(reversed(make_steps(prog)), reversed(prog.steps), strict=True):
        batch = step.decode(runtime, batch, of.limit, verdicts)
    assert all((a == b).all() for a, b in zip(rows_of(batch), rows, strict=True))
    assert "synchronize" not in main.log[:-1]  # but by this test
    aside: Any = runtime._aside
    assert aside.cupy_stream.log[0] == ("wait", written)
    assert "synchronize" in aside.cupy_stream.log
    assert ("external", 59) in {stream for _, _, stream in Launcher.shapes}
    assert Stream.current == [main]


def test_what_is_there_already_is_not_waited_for(runtime: CudaRuntime) -> None:
    with runtime.beside(ALREADY) as aside, runtime.beside(ALREADY) as again:
        assert again is aside is not runtime
        assert aside.cupy_stream.log == []
        assert aside.counts is runtime.counts
    with runtime.beside(None) as same:
        assert same is runtime
    with CudaRuntime().beside(ALREADY) as other:  # another read, on the same thread
        assert other is not aside
        assert other.cupy_stream is aside.cupy_stream


def test_slots(runtime: CudaRuntime) -> None:
    slot: Any = runtime.slot(5000)
    assert len(slot.host) == 1 << 20
    slot.wait_free()
    slot.host[:10] = np.arange(10)
    device = slot.send(10)
    assert device.tolist() == list(range(10))
    # The copy waits for work on the memory, later work for the copy.
    assert slot._copies.log == [("wait", slot._used), "copy"]
    assert runtime.cupy_stream.log[-1] == ("wait", slot._copied)
    assert slot._copied.log[-1] is slot._copies
    slot.release()
    assert slot._used.log[-1] is runtime.cupy_stream
    slot.wait_unused()
    assert slot._copied.log[-1] == slot._used.log[-1] == "synchronize"
    slot.grow(3 << 20)
    assert len(slot.host) == 4 << 20
    assert slot.sent is slot._copied
    other = CudaRuntime()
    slot.adopt(other)
    with pytest.raises(DeviceError, match="no other device"):
        slot.adopt(SimRuntime())
