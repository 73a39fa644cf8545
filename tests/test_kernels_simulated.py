"""Every kernel against NumPy, numcodecs or zlib, in Numba's CUDA simulator.

The simulator is chosen before Numba is imported, so that a process of its own runs all cases once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import kernel_suite
import pytest

pytest.importorskip("numba", reason="Numba is not installed: pip install 'zarr-gpu[sim]'")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What happened to each case."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", kernel_suite.__file__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", list(kernel_suite.CASES))
def test_simulated(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == "ok", outcomes[name]
