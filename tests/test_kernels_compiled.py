"""Every kernel against NumPy, numcodecs or zlib, compiled for the CPU with checked indices."""

from __future__ import annotations

import kernel_suite
import pytest

pytest.importorskip("numba", reason="Numba is not installed: pip install 'zarr-gpu[sim]'")


@pytest.mark.parametrize("name", list(kernel_suite.CASES))
def test_compiled(name: str) -> None:
    kernel_suite.run_case(name, kernel_suite.run_njit, simulated=False)
