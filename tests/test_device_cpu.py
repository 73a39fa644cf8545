"""The CPU device does what every device does."""

from __future__ import annotations

from device_suite import DeviceSuite


class TestCpu(DeviceSuite):
    name = "cpu"
