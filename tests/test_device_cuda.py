"""The CUDA device on a GPU."""

from __future__ import annotations

import pytest
from device_suite import DeviceSuite


@pytest.mark.gpu
class TestCuda(DeviceSuite):
    name = "cuda"
