"""The runtime of CUDA devices as far as it goes without one: on a CuPy that is pretended.

Kernels run on the host and streams only note what is asked of them; so every line runs, but nothing
is said of a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fake_cupy
import numpy as np
import pytest

pytest.importorskip("numba", reason="platform: Numba is not installed")

from fake_cupy import Event, Launcher, get_current_stream
from step_suite import as_batch, codec, payload, program, rows_of

from zarr_gpu.codecs.device_steps import make_steps
from zarr_gpu.codecs.runtime import ALREADY, Verdicts
from zarr_gpu.devices import cuda_runtime
from zarr_gpu.devices.cuda_runtime import CudaRuntime, KernelArgument, cuda_problem, launch_shape
from zarr_gpu.devices.sim_runtime import SimRuntime
from zarr_gpu.errors import DeviceError


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> CudaRuntime:
    fake_cupy.install(monkeypatch)
    return CudaRuntime()


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

    array = fake_cupy.zeros(5, dtype)
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
        self.array = fake_cupy.ndarray._of(np.arange(4.0), number)
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.array._number


class Described:
    """An array that tells where it is by ``__cuda_array_interface__`` alone."""

    def __init__(self, *, read_only: bool = False) -> None:
        self.array = fake_cupy.ndarray._of(np.arange(4.0))
        described = self.array.__cuda_array_interface__
        self.__cuda_array_interface__ = {**described, "data": (described["data"][0], read_only)}


def test_arrays_of_other_libraries_are_adopted(runtime: CudaRuntime) -> None:
    own = runtime.empty(4)
    assert runtime.adopt(own) is own
    for given in (Tensor(2), Tensor(13), Described(), Described(read_only=True)):
        found = runtime.adopt(given)
        assert type(found) is fake_cupy.ndarray
        assert found.get().tolist() == [0, 1, 2, 3]
    tensor = Tensor(2)
    assert runtime.adopt(tensor) is tensor.array  # the very memory
    far = Tensor(2, number=1)
    near = runtime.adopt(far)
    assert near is not far.array
    assert (near.device.id, near.get().tolist()) == (0, [0, 1, 2, 3])
    for host in (Tensor(1), Tensor(3), np.arange(4), 5, [1, 2]):  # 3: page-locked memory
        assert runtime.adopt(host) is None


def test_results_go_to_arrays_of_other_libraries(runtime: CudaRuntime) -> None:
    own = runtime.empty(4)
    assert runtime.target(own) is own
    for given in (Tensor(2), Described()):
        assert type(runtime.target(given)) is fake_cupy.ndarray
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
        assert type(device) is fake_cupy.ndarray
        assert (device.dtype, device.shape) == (host.dtype, host.shape)
        assert (runtime.download(device) == host).all()
    assert runtime.counts == {"uploads": 4, "downloads": 4}
    tables = runtime.upload_tables([np.arange(3), np.arange(2, dtype="u8"), np.arange(0)])
    assert [t.get().tolist() for t in tables] == [[0, 1, 2], [0, 1], []]
    assert tables[1].dtype == np.uint64


def test_page_locked_memory_is_kept_until_it_was_copied(
    runtime: CudaRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Event, "late", True)
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
    assert (runtime.upload(np.arange(100)).get() == np.arange(100)).all()
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
        assert not any(each.download(status).any() for _, status, _ in verdicts.on_device)
        for step in make_steps(prog):
            batch = step.encode(each, batch)
        back = [prog.decode_bytes(row) for row in rows_of(batch)]
        assert all((a == b).all() for a, b in zip(back, rows, strict=True))
        counts.append({**each.counts, "launches": 0})
    # What several threads share takes two launches where one thread alone takes one.
    assert counts[0] == counts[1]
    assert all(stream == ("external", 0) for _, _, stream in Launcher.shapes)


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
    assert "synchronize" not in main.log
    assert all((a == b).all() for a, b in zip(rows_of(batch), rows, strict=True))
    aside: Any = runtime._aside
    assert aside.cupy_stream.log[0] == ("wait", written)
    assert "synchronize" in aside.cupy_stream.log
    assert ("external", aside.stream) in {stream for _, _, stream in Launcher.shapes}
    assert aside.cupy_stream.priority < 0
    assert get_current_stream() is main


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
    # The copy waits for work on the memory, later work for the copy.
    assert slot._copies.log == [("wait", slot._used), "copy"]
    assert runtime.cupy_stream.log[-1] == ("wait", slot._copied)
    assert device.get().tolist() == list(range(10))
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
