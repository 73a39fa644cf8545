"""The stand-in for a CUDA device on machines without one.

Device memory is NumPy's, streams are nothing, and kernels run on the host: in Numba's CUDA
simulator where it is switched on (``NUMBA_ENABLE_CUDASIM=1`` in the environment before Numba is
imported), else as bounds-checked compiled functions.  Device memory is filled with a pattern when
it is made, so that bytes which nothing wrote are seen.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.nvcomp_host import HostNvComp
from zarr_gpu.codecs.runtime import Runtime, Slot
from zarr_gpu.errors import DeviceError, MissingDependencyError

__all__ = ["SimRuntime", "enter"]

POISON = 0xA5

_simulator = threading.Lock()
"""Held while the simulator runs a kernel: it stands in for a module then, and for one thread."""


@contextmanager
def enter(stream: Any = None) -> Iterator[None]:
    """A block of work on ``stream``, which may be anything that can be entered as CuPy's can."""
    if stream is None:
        yield
        return
    if not hasattr(stream, "__enter__"):
        raise TypeError(f"{type(stream).__name__} is no CUDA stream")
    with stream:
        yield


class SimRuntime(Runtime):
    """NumPy in the place of a device.

    Parameters
    ----------
    launcher
        ``"simulator"`` for Numba's CUDA simulator, ``"compiled"`` for the kernels' bodies compiled
        for the host with bounds checks (much faster), None for the simulator where it is on.
    threads_per_row
        How many threads share a row in kernels that can do so; None: few, for they cost time here.
    """

    xp = np

    def __init__(self, launcher: str | None = None, threads_per_row: int | None = None) -> None:
        super().__init__()
        simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
        self.launcher = launcher or ("simulator" if simulated else "compiled")
        if self.launcher not in ("simulator", "compiled"):
            raise DeviceError(f"no launcher {launcher!r}; there are 'simulator' and 'compiled'")
        if self.launcher == "simulator" and not simulated:
            raise DeviceError(
                "the CUDA simulator must be switched on before Numba is imported: "
                "set NUMBA_ENABLE_CUDASIM=1 in the environment"
            )
        self._threads_per_row = threads_per_row or (2 if self.launcher == "simulator" else 1)
        self.nvcomp: Any = HostNvComp()
        self._kernels: dict[str, Any] = {}
        self._memory = _Memory()

    @property
    def peak_nbytes(self) -> int:  # type: ignore[override]
        """The most bytes of device memory that were in use at a time."""
        return self._memory.peak

    @property
    def stream(self) -> int:
        return 0

    @property
    def threads_per_row(self) -> int:
        return self._threads_per_row

    def empty(self, nbytes: int) -> npt.NDArray[np.uint8]:
        room = np.empty(nbytes + 256, np.uint8)
        self._memory.take(room, nbytes)
        start = -room.ctypes.data % 256
        buffer = room[start : start + nbytes]
        buffer[...] = POISON
        return buffer

    def upload(self, host: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.counts["uploads"] += 1
        raw = self.empty(host.nbytes)
        raw[...] = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
        return raw.view(host.dtype).reshape(host.shape)

    def download(self, device: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.counts["downloads"] += 1
        return device.copy()

    def slot(self, nbytes: int) -> Slot:
        return _SimSlot(self, nbytes)

    def compile_kernels(self) -> None:
        if self.launcher == "simulator":
            return  # nothing is ever compiled there
        for name in _registry().names(usual=True):
            kernel = _registry().get(name)
            for codes in kernel.argument_types():
                kernel.njit(*map(_sample, codes))

    def launch(self, kernel: str, threads: int, *args: Any) -> None:
        self.counts["launches"] += 1
        found = self._kernels.get(kernel)
        if found is None:
            found = self._kernels[kernel] = _registry().get(kernel)
        if self.launcher == "compiled":
            found.njit(*args)
        else:
            block = min(max(threads, 1), 64)
            with _simulator:
                found.cuda[-(-max(threads, 1) // block), block](*args)


def _registry() -> Any:
    try:
        from zarr_gpu.kernels import registry
    except ImportError as err:
        raise MissingDependencyError(
            "device 'sim' needs Numba: pip install 'zarr-gpu[sim]'"
        ) from err
    return registry


def _sample(code: str) -> Any:
    """An argument of a kernel that gives it nothing to do: no rows, or the number 1."""
    if code.endswith("[]"):
        return np.empty(0, code.removesuffix("[]"))
    return np.dtype(code).type(1).item()


class _Memory:
    """Counts the memory that is in use."""

    def __init__(self) -> None:
        self._used = self.peak = 0
        self._lock = threading.Lock()

    def take(self, room: npt.NDArray[np.uint8], nbytes: int) -> None:
        with self._lock:
            self._used += nbytes
            self.peak = max(self.peak, self._used)
        weakref.finalize(room, self._give, nbytes).atexit = False

    def _give(self, nbytes: int) -> None:
        with self._lock:
            self._used -= nbytes


class _SimSlot(Slot):
    def __init__(self, runtime: SimRuntime, nbytes: int) -> None:
        self._runtime = runtime
        self.host = np.empty(nbytes, np.uint8)

    def adopt(self, runtime: Runtime) -> None:
        if not isinstance(runtime, SimRuntime):
            raise DeviceError("a slot of the stand-in serves no other device")
        self._runtime = runtime

    def wait_free(self) -> None:
        """Copies are done when ``send`` returns."""

    def send(self, nbytes: int) -> npt.NDArray[np.uint8]:
        device: npt.NDArray[np.uint8] = self._runtime.upload(self.host[:nbytes])
        return device

    def room(self, nbytes: int) -> npt.NDArray[np.uint8]:
        return self._runtime.empty(nbytes)

    def release(self) -> None:
        self.host[...] = POISON  # whoever still reads the slab is found out

    def wait_unused(self) -> None:
        """Nothing is ever left to do."""

    def grow(self, nbytes: int) -> None:
        self.host = np.empty(nbytes, np.uint8)
