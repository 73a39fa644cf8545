"""The device that is measured, or its stand-in, behind one small interface.

Times are wall times around work that ends with a wait for the stream: what a user waits for.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from zarr_gpu.devices import get_device
from zarr_gpu.devices.cuda import BatchDevice

GB = 1e9


class Backend:
    """A batch device and what measurements need of it."""

    def __init__(self, *, sim: bool) -> None:
        self.sim = sim
        device = get_device("sim:compiled" if sim else "cuda")
        assert isinstance(device, BatchDevice)
        self.device = device
        self.xp = device.xp

    def runtime(self) -> Any:
        """A runtime on the current stream."""
        return self.device._make_runtime()  # noqa: SLF001

    def sync(self) -> None:
        if not self.sim:
            self.xp.cuda.get_current_stream().synchronize()

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        if self.sim:
            return np.empty(nbytes, np.uint8)
        from zarr_gpu.devices.cuda_runtime import pinned

        return pinned(nbytes)

    def to_device(self, host: np.ndarray[Any, Any]) -> Any:
        """A plain copy, as a user would make it."""
        return self.xp.asarray(host.copy() if self.sim else host)

    def free_nbytes(self) -> int:
        if self.sim:
            return 1 << 30
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return int(free)

    def release(self) -> None:
        """Give memory that no array uses back."""
        if not self.sim:
            self.xp.get_default_memory_pool().free_all_blocks()

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        return np.asarray(array if self.sim else array.get())

    def time(self, call: Callable[[], Any], *, repeat: int, limit: float) -> float:
        """Median seconds of ``call``, which has run before; at least one run, then up to limits."""
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < repeat and (not times or time.perf_counter() - begin < limit):
            self.sync()
            start = time.perf_counter()
            result = call()
            self.sync()
            times.append(time.perf_counter() - start)
            del result
        return statistics.median(times)

    def facts(self) -> dict[str, Any]:
        """Device, driver, libraries."""
        if self.sim:
            return {"device": "none: the stand-in on the host"}
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(self.device_id)
        name = properties["name"]
        return {
            "device": name.decode() if isinstance(name, bytes) else str(name),
            "multiprocessors": int(properties["multiProcessorCount"]),
            "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
            "driver_cuda": int(runtime.driverGetVersion()),
            "runtime_cuda": int(runtime.runtimeGetVersion()),
            "driver": driver_version(),
        }

    @property
    def device_id(self) -> int:
        return int(self.runtime().device_id)

    def copy_rate(self, nbytes: int = 256 << 20) -> float:
        """Bytes a second from page-locked memory to the device."""
        nbytes = 1 << 20 if self.sim else nbytes
        host = self.pinned(nbytes)
        host[...] = 1
        target = self.xp.empty(nbytes, np.uint8)

        def copy() -> None:
            if self.sim:
                target[...] = host
            else:
                target.set(host, stream=self.xp.cuda.get_current_stream())

        copy()
        return nbytes / self.time(copy, repeat=7, limit=1)


def driver_version() -> str:
    """Version of the kernel driver, as NVIDIA tells it."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:  # noqa: PTH123
            return file.readline().split("Kernel Module")[-1].split()[0]
    except OSError:
        return "unknown"


class Recorder:
    """Notes what nvCOMP is called with, so that the same calls can be timed alone.

    The encoded bytes are copied, since the memory they lie in is used again.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.calls: list[Callable[[Any], Any]] = []

    def __enter__(self) -> Self:
        from zarr_gpu.codecs.nvcomp import NvComp

        self._plain = NvComp.decompress, NvComp.compress
        recorder, (decompress, compress) = self, self._plain

        def noting_decompress(
            nvcomp: Any, runtime: Any, algorithm: str, src: Any, *tables: Any, **kw: Any
        ) -> Any:
            held = src.copy()
            offset, nbytes, dst, dst_offset, dst_nbytes = tables

            def again(fresh: Any) -> Any:
                room = fresh.empty(len(dst))
                args = (offset, nbytes, room, dst_offset, dst_nbytes)
                return decompress(nvcomp, fresh, algorithm, held, *args, **kw)

            recorder.calls.append(again)
            return decompress(nvcomp, runtime, algorithm, src, *tables, **kw)

        def noting_compress(
            nvcomp: Any, runtime: Any, algorithm: str, src: Any, *tables: Any, **kw: Any
        ) -> Any:
            held = src.copy()

            def again(fresh: Any) -> Any:
                return compress(nvcomp, fresh, algorithm, held, *tables, **kw)

            recorder.calls.append(again)
            return compress(nvcomp, runtime, algorithm, src, *tables, **kw)

        NvComp.decompress, NvComp.compress = noting_decompress, noting_compress  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        from zarr_gpu.codecs.nvcomp import NvComp

        NvComp.decompress, NvComp.compress = self._plain  # type: ignore[method-assign]

    def time(self, *, repeat: int, limit: float) -> float:
        """Seconds of all calls, one behind the other; 0 where there were none."""
        if not self.calls:
            return 0.0

        def replay() -> None:
            runtime = self.backend.runtime()
            for call in self.calls:
                call(runtime)

        replay()
        return self.backend.time(replay, repeat=repeat, limit=limit)
