"""Arrays that other implementations have written, decoded on the batch device.

Every array of the shared data that independent readers agree on and whose items a device can hold
must come out bit for bit as on the CPU, whole and by a part with a negative step.  How many arrays
a source has for that, and what is left out for which reason, stands in ``COMPARED``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_suite import BATCHED, FEW, is_held, require, same_bits, to_host
from test_shared_data import REFUSED, WAITING, digest, entries, open_entry

from zarr_gpu.config import config
from zarr_gpu.devices import get_device

COMPARED = {  # arrays compared; arrays of types that only the host holds
    "Rarr": (15, 1),
    "anndata": (60, 21),
    "gdal": (27, 2),
    "jzarr": (2, 0),
    "n5-zarr": (2, 0),
    "netcdf-c": (3, 0),
    "neuroglancer": (27, 6),
    "vitessce": (53, 21),
    "zarr-java": (7, 0),
    "zarr-python-v2-fixture": (94, 0),
    "zarr.js": (6, 0),
    "zarr_implementations": (3, 0),
    "zarrita.js": (42, 6),
    "zarrs": (24, 1),
}
"""By source, for those of which two independent readers agree."""

SIMULATED_NBYTES = 4096
"""Decoded bytes that the simulator gets through in reasonable time."""


@pytest.mark.parametrize("source", COMPARED)
@pytest.mark.parametrize("name", BATCHED)
def test_equal_to_the_cpu(shared_data: Path, source: str, name: str) -> None:
    require(name)
    compared = left_out = 0
    for entry in entries(shared_data, source):
        place = (source, entry["path"])
        if entry["status"] != "confirmed" or place in WAITING or place in REFUSED:
            continue
        array = open_entry(shared_data, source, entry)
        if not is_held(array.dtype):
            left_out += 1
            continue
        if FEW and array.nbytes > SIMULATED_NBYTES:
            continue
        compared += 1
        there = array.to(name)
        assert there.worker is get_device(name), entry["path"]
        # A single chunk is a single stream, which would be left to the CPU.
        with config.set({"gpu.host_rule": "device"}):
            whole = there[...]
            wanted = array.to("cpu")[...]
            assert same_bits(whole, wanted), entry["path"]
            host = to_host(whole).astype(array.dtype)
            assert digest(host) == (entry["sha256"], entry["nbytes"]), entry["path"]
            part: Any = tuple(slice(None, n // 3 if n > 3 else None, -2) for n in array.shape)
            assert same_bits(there[part], np.asarray(wanted)[part]), entry["path"]
    assert left_out == COMPARED[source][1]
    # As codecs come to work there may be more.
    assert compared >= (0 if FEW else COMPARED[source][0])
