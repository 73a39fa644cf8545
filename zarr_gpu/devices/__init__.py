"""The devices by name.  One file per device; this is the only place that knows them all."""

from __future__ import annotations

from zarr_gpu.config import config
from zarr_gpu.devices.base import Device
from zarr_gpu.errors import DeviceError

__all__ = ["Device", "get_device"]

_devices: dict[str, Device] = {}


def get_device(device: str | Device | None = None) -> Device:
    """The device of this name.

    Parameters
    ----------
    device
        ``"cpu"``; ``"auto"`` for the best device that can be used here; None for the setting
        ``device`` (``"auto"`` unless changed).  A device is returned as it is.

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
        if name not in ("auto", "cpu"):
            raise DeviceError(f"there is no device {name!r}; this release has 'auto' and 'cpu'")
        from zarr_gpu.devices.cpu import CpuDevice

        found = _devices[name] = CpuDevice()
    return found
