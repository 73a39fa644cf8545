"""The CUDA device without a GPU: everything but the kernels' launches runs as it does on one.

CuPy is pretended (``fake_cupy``), kernels run on the host, nvCOMP is the stand-in.
"""

from __future__ import annotations

import fake_cupy
import pytest
from device_suite import DeviceSuite

pytest.importorskip("numba", reason="Numba is not installed: pip install 'zarr-gpu[sim]'")


class TestFakeCuda(DeviceSuite):
    name = "cuda"

    @pytest.fixture(autouse=True)
    def _usable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy.install(monkeypatch)
