"""The runtime of real CUDA devices: CuPy memory and streams, Numba kernels, nvCOMP.

The only file that imports CuPy.  All work goes to the stream that is current in CuPy when the
runtime is made; nothing ever waits for the whole device.  Memory comes from CuPy's current
allocator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs import nvcomp
from zarr_gpu.codecs.runtime import Runtime, Slot
from zarr_gpu.errors import DeviceError, MissingDependencyError

__all__ = ["CudaRuntime", "cuda_problem", "pinned"]

BLOCK = 256


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as err:
        raise MissingDependencyError(
            "device 'cuda' needs CuPy: pip install 'zarr-gpu[cuda13]' (or [cuda12])"
        ) from err
    return cupy


def cuda_problem() -> str | None:
    """Why CUDA cannot be used here, None where it can.  Never raises."""
    try:
        cupy = _cupy()
        if not cupy.cuda.is_available():
            return "CuPy finds no CUDA device (is there a driver?)"
        from numba import cuda

        if not cuda.is_available():
            return "Numba finds no CUDA device"
    except MissingDependencyError as err:
        return str(err)
    except Exception as err:  # noqa: BLE001  (whatever a broken installation raises)
        return f"{type(err).__name__}: {err}"
    return None


def pinned(nbytes: int) -> npt.NDArray[np.uint8]:
    """Page-locked host memory, 1-D uint8; ``nbytes`` should be a power of two."""
    memory = _cupy().cuda.alloc_pinned_memory(nbytes)
    return np.frombuffer(memory, np.uint8, nbytes)


class CudaRuntime(Runtime):
    """One CuPy stream of one device; made for one read or write on the caller's thread."""

    def __init__(self, device_id: int = 0) -> None:
        super().__init__()
        problem = cuda_problem()
        if problem is not None:
            raise DeviceError(f"device 'cuda' cannot be used: {problem}")
        self.xp = _cupy()
        self.device_id = device_id
        self.cupy_stream = self.xp.cuda.get_current_stream()
        self.nvcomp: Any = nvcomp.load()
        self._numba_stream: Any = None

    @property
    def stream(self) -> int:
        return int(self.cupy_stream.ptr)

    @property
    def threads_per_row(self) -> int:
        return BLOCK

    def empty(self, nbytes: int) -> Any:
        return self.xp.empty(nbytes, self.xp.uint8)

    def upload(self, host: npt.NDArray[Any]) -> Any:
        self.counts["uploads"] += 1
        device = self.xp.empty(host.shape, host.dtype)
        # From pageable memory this copies to a driver buffer first; slabs are pinned.
        device.set(np.ascontiguousarray(host), stream=self.cupy_stream)
        return device

    def download(self, device: Any) -> npt.NDArray[Any]:
        self.counts["downloads"] += 1
        host: npt.NDArray[Any] = device.get(stream=self.cupy_stream)
        return host

    def slot(self, nbytes: int) -> Slot:
        return _CudaSlot(self, nbytes)

    def launch(self, kernel: str, threads: int, *args: Any) -> None:
        from numba import cuda

        from zarr_gpu.kernels import registry

        self.counts["launches"] += 1
        if self._numba_stream is None:
            self._numba_stream = cuda.external_stream(self.stream)
        block = min(BLOCK, -(-threads // 32) * 32)
        grid = -(-threads // block)
        registry.get(kernel).cuda[grid, block, self._numba_stream](*args)


class _CudaSlot(Slot):
    """A pinned slab, its twin on the device, and the events that order their use.

    Copies run on a stream of their own, so that the copy of one slot overlaps the decoding of
    another.
    """

    def __init__(self, runtime: CudaRuntime, nbytes: int) -> None:
        self._runtime = runtime
        cupy = runtime.xp
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._copied = cupy.cuda.Event(disable_timing=True)
        self._used = cupy.cuda.Event(disable_timing=True)
        self.grow(nbytes)

    def grow(self, nbytes: int) -> None:
        size = 1 << max(20, (nbytes - 1).bit_length())  # pinned memory comes in powers of two
        self.host = pinned(size)
        self._device = self._runtime.empty(size)
        # The memory may have been used on the caller's stream a moment ago.
        self._used.record(self._runtime.cupy_stream)

    def adopt(self, runtime: Runtime) -> None:
        if not isinstance(runtime, CudaRuntime):
            raise DeviceError("a slot of a CUDA device serves no other device")
        self._runtime = runtime

    def wait_free(self) -> None:
        self._copied.synchronize()

    def send(self, nbytes: int) -> Any:
        self._runtime.counts["uploads"] += 1
        self._copies.wait_event(self._used)
        device = self._device[:nbytes]
        device.set(self.host[:nbytes], stream=self._copies)
        self._copied.record(self._copies)
        self._runtime.cupy_stream.wait_event(self._copied)
        return device

    def release(self) -> None:
        self._used.record(self._runtime.cupy_stream)
