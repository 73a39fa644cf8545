"""The runtime of real CUDA devices: CuPy memory and streams, Numba kernels, nvCOMP.

The only file that imports CuPy.  All work goes to the stream that is current in CuPy when the
runtime is made, and the device of that stream must stay current while it works; nothing ever waits
for the whole device.  Memory comes from CuPy's current allocator.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from zarr_gpu import stages
from zarr_gpu.codecs import nvcomp
from zarr_gpu.codecs.runtime import ALREADY, Runtime, Slot
from zarr_gpu.errors import DeviceError, MissingDependencyError

__all__ = ["CudaRuntime", "KernelArgument", "active", "cuda_problem", "launch_shape", "pinned"]

LARGEST_BLOCK = 256
SMALLEST_GRID = 128
"""Blocks of a launch at least.  Kernels share out their work by strides, so more do no harm; fewer
make Numba warn."""

STAGED_NBYTES = 8 << 20
"""Uploads up to this size go through page-locked memory, so that the host does not wait."""

MAPPED_NBYTES = 1 << 20
"""Uploads up to this size are made by a kernel that reads page-locked memory.  A device has one
engine for copies from the host, where they would queue behind slabs on their way."""

HIGHEST_PRIORITY = -5
"""Of streams; devices with fewer priorities take their highest for it."""

ON_DEVICE = (2, 13)
"""Kinds of memory in DLPack: CUDA's, and CUDA's managed."""

_NO_CUPY = "device 'cuda' needs CuPy: pip install 'zarr-gpu[cuda13]' (or [cuda12])"

_is_usable = False

_of_thread = threading.local()

_WRITABLE = {"data": (0, False)}

_upload_kernels: dict[str, Any] = {}


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as err:
        raise MissingDependencyError(_NO_CUPY) from err
    return cupy


def cuda_problem() -> str | None:
    """Why CUDA cannot be used here, None where it can.  Never raises."""
    global _is_usable
    if _is_usable:
        return None
    if find_spec("cupy") is None:
        return _NO_CUPY
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "there is no CUDA driver"  # found out without importing CuPy, which takes long
    try:
        cupy = _cupy()
        if not cupy.cuda.is_available():
            return "CuPy finds no CUDA device (is there a driver?)"
        from numba import cuda

        if not cuda.is_available():
            return "Numba finds no CUDA device, or no NVVM (where CUDA_HOME says, or nvidia-nvvm)"
    except MissingDependencyError as err:
        return str(err)
    except Exception as err:  # noqa: BLE001  (whatever a broken installation raises)
        return f"{type(err).__name__}: {err}"
    _is_usable = True
    return None


@contextmanager
def active(device_id: int, stream: Any = None) -> Iterator[None]:
    """A block in which CuPy works on a device, and on ``stream`` of it if there is one.

    ``stream`` is CuPy's, that of another library which follows ``__cuda_stream__``, or an address.
    """
    cupy = _cupy()
    with cupy.cuda.Device(device_id):
        if stream is None:
            yield
            return
        if not isinstance(stream, (cupy.cuda.Stream, cupy.cuda.ExternalStream)):
            if not hasattr(stream, "__cuda_stream__"):
                stream = _ForeignStream(stream)
            stream = cupy.cuda.Stream.from_external(stream)
        with stream:
            yield


class _ForeignStream:
    """An address, or a stream of PyTorch, in the form that CuPy takes."""

    def __init__(self, stream: Any) -> None:
        address = getattr(stream, "cuda_stream", stream)
        if isinstance(address, bool) or not isinstance(address, int):
            raise TypeError(f"{type(stream).__name__} is no CUDA stream")
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


def _watch_stages(cupy: Any) -> None:
    """Show stages in profilers."""
    if getattr(cupy.cuda.nvtx, "available", False):
        stages.watch(cupy.cuda.nvtx.RangePush, cupy.cuda.nvtx.RangePop)


def pinned(nbytes: int) -> npt.NDArray[np.uint8]:
    """Page-locked host memory, 1-D uint8; ``nbytes`` should be a power of two."""
    memory = _cupy().cuda.alloc_pinned_memory(nbytes)
    return np.frombuffer(memory, np.uint8, nbytes)


def _copy(memory: npt.NDArray[np.uint8], device: Any, nbytes: int, stream: Any) -> None:
    """Copy page-locked memory to a contiguous array; the host does not wait."""
    device.data.copy_from_host_async(memory.ctypes.data, nbytes, stream)


def _fetch(memory: npt.NDArray[np.uint8], device: Any, stream: Any) -> None:
    """The same by a kernel: page-locked memory has the same address on every device."""
    cupy = _cupy()
    word = "uint64" if len(memory) % 8 == 0 else "uint8"
    if word not in _upload_kernels:
        _upload_kernels[word] = cupy.ElementwiseKernel(
            f"{word} x", f"{word} y", "y = x", f"zarr_gpu_upload_{word}"
        )
    target = device.view(word)
    there = cupy.cuda.UnownedMemory(memory.ctypes.data, len(memory), memory, device.device.id)
    source = cupy.ndarray(target.shape, word, cupy.cuda.MemoryPointer(there, 0))
    _upload_kernels[word](source, target, stream=stream)


def _side_stream(device_id: int) -> Any:
    """A stream of this thread, ahead of others: kept, as CuPy keeps memory for every stream."""
    streams = vars(_of_thread)
    name = f"side_{device_id}"
    if name not in streams:
        streams[name] = _cupy().cuda.Stream(non_blocking=True, priority=HIGHEST_PRIORITY)
    return streams[name]


def launch_shape(threads: int) -> tuple[int, int]:
    """(blocks, threads of a block) for ``threads`` threads or more.

    Few threads are spread over many small blocks: one long stream each, they want a
    multiprocessor each.
    """
    threads = max(threads, 1)
    block = 32
    while block < LARGEST_BLOCK and threads > 2 * SMALLEST_GRID * block:
        block *= 2
    return max(-(-threads // block), SMALLEST_GRID), block


class KernelArgument:
    """A contiguous CuPy array as Numba takes arrays most cheaply.

    Numba would find out the type anew on every launch and, by DLPack, order streams that are the
    same; here type and address are told and no stream is named.
    """

    __slots__ = ("__cuda_array_interface__", "_numba_type_", "_owner")

    _types: ClassVar[dict[Any, Any]] = {}

    def __init__(self, array: Any) -> None:
        dtype = array.dtype
        if dtype not in self._types:
            from numba import from_dtype, types

            self._types[dtype] = types.Array(from_dtype(dtype), 1, "C")
        self._numba_type_ = self._types[dtype]
        self._owner = array
        # The driver is asked about the address, and an empty part may lie behind its memory.
        address = array.data.ptr if array.size else array.data.mem.ptr
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": dtype.str,
            "data": (int(address), False),
            "strides": None,
            "stream": None,
            "version": 3,
        }


class CudaRuntime(Runtime):
    """One CuPy stream of one device; made for one read or write on the caller's thread."""

    # Page-locked copies of tables on their way, of all runtimes: one that is gone may have left
    # copies that have not been made yet.
    _staged: ClassVar[deque[tuple[Any, Any]]] = deque()
    _staged_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, device_id: int = 0) -> None:
        super().__init__()
        problem = cuda_problem()
        if problem is not None:
            raise DeviceError(f"device 'cuda' cannot be used: {problem}")
        self.xp = _cupy()
        count = self.xp.cuda.runtime.getDeviceCount()
        if not 0 <= device_id < count:
            raise DeviceError(f"there is no device 'cuda:{device_id}'; there are {count}")
        self.device_id = device_id
        self.cupy_stream = self.xp.cuda.get_current_stream(device_id)
        self.nvcomp: Any = nvcomp.load()
        self._numba_stream: Any = None
        self._aside: CudaRuntime | None = None
        _watch_stages(self.xp)

    @property
    def stream(self) -> int:
        return int(self.cupy_stream.ptr)

    @property
    def threads_per_row(self) -> int:
        return LARGEST_BLOCK

    def adopt(self, value: Any) -> Any | None:
        found = self._seen(value)
        if found is None or found.device.id == self.device_id:
            return found
        return found.copy()  # from the other device to the current one

    def target(self, out: Any) -> Any:
        found = self._seen(out)
        if found is None:
            raise TypeError(
                f"out must be an array on device {self.device_id}, not a {type(out).__name__}"
            )
        if found.device.id != self.device_id:
            raise TypeError(
                f"out is on device {found.device.id}, the result will be on {self.device_id}"
            )
        if found is not out and getattr(out, "__cuda_array_interface__", _WRITABLE)["data"][1]:
            raise TypeError("out may not be written to")
        return found

    def _seen(self, value: Any) -> Any | None:
        """An array of another library as CuPy's, in the same memory; None if not on a device."""
        if isinstance(value, self.xp.ndarray):
            return value
        # By DLPack if possible: it orders the streams of the two libraries.
        kind = value.__dlpack_device__()[0] if hasattr(value, "__dlpack_device__") else None
        if kind in ON_DEVICE:
            return self.xp.from_dlpack(value)
        if kind is None and hasattr(value, "__cuda_array_interface__"):
            return self.xp.asarray(value)
        return None

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def empty(self, nbytes: int) -> Any:
        # An array of no bytes would have no address, which neither Numba nor nvCOMP takes.
        return self.xp.empty(max(nbytes, 1), np.uint8)[:nbytes]

    def upload(self, host: npt.NDArray[Any]) -> Any:
        self.counts["uploads"] += 1
        raw = self.empty(host.nbytes)
        device = raw.view(host.dtype).reshape(host.shape)
        if not host.nbytes:
            return device
        if host.nbytes <= STAGED_NBYTES:
            memory = pinned(host.nbytes)
            memory.view(host.dtype).reshape(host.shape)[...] = host
            if host.nbytes <= MAPPED_NBYTES:
                _fetch(memory, raw, self.cupy_stream)
            else:
                _copy(memory, raw, host.nbytes, self.cupy_stream)
            self._keep(memory)
        else:
            device.set(np.ascontiguousarray(host), stream=self.cupy_stream)
        return device

    def _keep(self, memory: Any) -> None:
        """Hold on to page-locked memory until all that is queued now has been done."""
        event = self.xp.cuda.Event(disable_timing=True)
        event.record(self.cupy_stream)
        with self._staged_lock:
            self._staged.append((event, memory))
            while self._staged and self._staged[0][0].done:
                self._staged.popleft()

    def download(self, device: Any) -> npt.NDArray[Any]:
        self.counts["downloads"] += 1
        host: npt.NDArray[Any] = device.get(stream=self.cupy_stream)
        return host

    def slot(self, nbytes: int) -> Slot:
        return _CudaSlot(self, nbytes)

    def record(self) -> Any:
        event = self.xp.cuda.Event(disable_timing=True)
        event.record(self.cupy_stream)
        return event

    @contextmanager
    def beside(self, since: Any) -> Iterator[Runtime]:
        if since is None:
            yield self
            return
        if self._aside is None:
            with _side_stream(self.device_id):
                self._aside = CudaRuntime(self.device_id)
            self._aside.counts, self._aside.nvcomp = self.counts, self.nvcomp
        with self._aside.cupy_stream:  # memory too comes from the allocator of that stream
            if since is not ALREADY:
                self._aside.wait(since)
            yield self._aside

    def wait(self, event: Any) -> None:
        self.cupy_stream.wait_event(event)

    def compile_kernels(self) -> None:
        from zarr_gpu.kernels import registry

        for name in registry.names(usual=True):
            kernel = registry.get(name)
            for signature in kernel.signatures:
                kernel.cuda.compile(signature)

    def launch(self, kernel: str, threads: int, *args: Any) -> None:
        from numba import cuda

        from zarr_gpu.kernels import registry

        self.counts["launches"] += 1
        if self._numba_stream is None:
            self._numba_stream = cuda.external_stream(self.stream)
        array = self.xp.ndarray
        given = [KernelArgument(a) if isinstance(a, array) else a for a in args]
        blocks, block = launch_shape(threads)
        registry.get(kernel).cuda[blocks, block, self._numba_stream](*given)


class _CudaSlot(Slot):
    """A pinned slab, its twin on the device, and the events that order their use.

    Copies run on a stream of their own, so that the copy of one slot overlaps the decoding of
    another.
    """

    def __init__(self, runtime: CudaRuntime, nbytes: int) -> None:
        self._runtime = runtime
        cupy = runtime.xp
        self._allocator = cupy.cuda.get_allocator()  # of the caller's thread
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._copied = self.sent = cupy.cuda.Event(disable_timing=True)
        self._used = cupy.cuda.Event(disable_timing=True)
        self.grow(nbytes)

    def grow(self, nbytes: int) -> None:
        self._used.synchronize()  # what works on the old memory may do so on another stream
        size = 1 << max(20, (nbytes - 1).bit_length())  # pinned memory comes in powers of two
        self.host = pinned(size)
        self._device = self._runtime.empty(size)
        # The memory may have been used on the caller's stream a moment ago.
        self._used.record(self._runtime.cupy_stream)

    def adopt(self, runtime: Runtime) -> None:
        if not isinstance(runtime, CudaRuntime):
            raise DeviceError("a slot of a CUDA device serves no other device")
        self._runtime = runtime
        self._allocator = runtime.xp.cuda.get_allocator()

    def wait_free(self) -> None:
        self._copied.synchronize()

    def send(self, nbytes: int) -> Any:
        self._runtime.counts["uploads"] += 1
        self._copies.wait_event(self._used)
        device = self._device[:nbytes]
        _copy(self.host, device, nbytes, self._copies)
        self._copied.record(self._copies)
        self._runtime.cupy_stream.wait_event(self._copied)
        return device

    def room(self, nbytes: int) -> Any:
        self._used.synchronize()
        if len(self._device) < nbytes:
            cuda = self._runtime.xp.cuda
            with (
                active(self._runtime.device_id, self._runtime.cupy_stream),
                cuda.using_allocator(self._allocator),
            ):
                self._device = self._runtime.empty(1 << (nbytes - 1).bit_length())
                # Whoever had that memory before may not be done with it.
                self._used.record(self._runtime.cupy_stream)
            self._used.synchronize()
        return self._device[:nbytes]

    def release(self) -> None:
        self._used.record(self._runtime.cupy_stream)

    def wait_unused(self) -> None:
        self._copied.synchronize()
        self._used.synchronize()
