"""The devices by name.  One file per device; this is the only place that knows them all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from zarr_gpu.config import config
from zarr_gpu.devices.base import Device
from zarr_gpu.errors import DeviceError

if TYPE_CHECKING:
    from zarr_gpu.devices.cache import DeviceCache
    from zarr_gpu.devices.chunk_cache import ChunkCache

    Cache = ChunkCache | DeviceCache

__all__ = ["Device", "check_cache", "get_device"]

_devices: dict[str, Device] = {}


def get_device(device: str | Device | None = None) -> Device:
    """The device of this name.

    Parameters
    ----------
    device
        ``"cpu"``; ``"cuda"`` or ``"cuda:1"``; ``"auto"`` for CUDA where it can be used and else the
        CPU; ``"sim"`` for the CUDA device on host memory, as tests use it; None for the setting
        ``device`` (``"cpu"`` unless changed).  A device is returned as it is.

    Raises
    ------
    DeviceError
        There is no such device, or it cannot be used on this machine.

    Examples
    --------
    >>> get_device("cpu").kind
    'cpu'
    """
    if isinstance(device, Device):
        return device
    name = config.get("device") if device is None else device
    if not isinstance(name, str):
        raise DeviceError(f"a device is named by a string, not by {type(name).__name__}")
    found = _devices.get(name)
    if found is None:
        found = _devices[name] = _make(name)
    return found


def _make(name: str) -> Device:
    if name == "auto":
        from zarr_gpu.devices.cuda_runtime import cuda_problem

        return get_device("cpu" if cuda_problem() else "cuda")
    if name == "cpu":
        from zarr_gpu.devices.cpu import CpuDevice

        return CpuDevice()
    kind, _, rest = name.partition(":")
    if kind == "cuda" and (not rest or rest.isdecimal()):
        from zarr_gpu.devices.cuda import BatchDevice
        from zarr_gpu.devices.cuda_runtime import CudaRuntime, active

        number = int(rest or 0)
        CudaRuntime(number)  # says at once why CUDA cannot be used
        return BatchDevice("cuda", name, lambda: CudaRuntime(number), partial(active, number))
    if kind == "sim" and rest in ("", "compiled", "simulator"):
        from zarr_gpu.devices.cuda import BatchDevice
        from zarr_gpu.devices.sim_runtime import SimRuntime, enter

        return BatchDevice("sim", name, lambda: SimRuntime(rest or None), enter)
    raise DeviceError(
        f"there is no device {name!r}; there are 'auto', 'cpu', 'cuda', 'cuda:N' and 'sim'"
    )


def check_cache(device: Device, cache: Cache | None) -> None:
    """Raise DeviceError where the device has no use for a cache."""
    if cache is None or device.uses(cache):
        return
    kind = type(cache).__name__
    if kind not in {"ChunkCache", "DeviceCache"}:
        raise TypeError(f"cache must be a ChunkCache or a DeviceCache, not {kind}")
    raise DeviceError(
        f"device {device.name!r} cannot use a {kind}: a DeviceCache keeps encoded chunks in the "
        "memory of a GPU, a ChunkCache decoded ones for the CPU"
    )
