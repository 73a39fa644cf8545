"""The CUDA device in Numba's CUDA simulator: every thread of every kernel, one after the other.

The simulator must be switched on before Numba is imported, so the suite runs in a process of its
own, which collects this file again, and others whose tests run on whichever stand-in there is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from device_suite import SIMULATED, DeviceSuite, require

ALSO = ("configs", "damage", "shared_data")

if SIMULATED:

    class TestSimulator(DeviceSuite):
        name = "sim:simulator"

else:

    def test_the_suite_in_the_simulator() -> None:
        require("sim")
        environment = {
            **os.environ,
            "NUMBA_ENABLE_CUDASIM": "1",
            "TEST_DEVICE_EXAMPLES": os.environ.get("TEST_SIMULATOR_EXAMPLES", "2"),
        }
        here = Path(__file__).resolve()
        files = [here, *(here.with_name(f"test_device_{name}.py") for name in ALSO)]
        options = ["-q", "-x", "-m", "not gpu", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
        done = subprocess.run(
            command,
            cwd=here.parents[1],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert " passed" in done.stdout
        assert "skipped" not in done.stdout
