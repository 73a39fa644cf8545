"""The CUDA device on the host: kernels compiled with bounds checks."""

from __future__ import annotations

from device_suite import DeviceSuite


class TestSim(DeviceSuite):
    name = "sim:compiled"
