"""The CPU device does what every device does, also where the compiled loop reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from device_suite import DeviceSuite

from zarr_gpu import config


class TestCpu(DeviceSuite):
    name = "cpu"


class TestCpuCompiled(DeviceSuite):
    name = "cpu"

    @pytest.fixture(autouse=True)
    def _compiled(self) -> Iterator[None]:
        pytest.importorskip("numba", reason="needs Numba: pip install 'zarr-gpu[fast]'")
        with config.set({"cpu.compiled": True}):
            yield
