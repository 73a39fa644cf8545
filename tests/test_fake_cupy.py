"""The CuPy that is pretended: like the real one, and all tests that want a GPU pass on it."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import pytest

HERE = Path(__file__).resolve().parent

NAMES = [
    *("ndarray", "empty", "zeros", "asarray", "ascontiguousarray", "concatenate"),
    *("broadcast_to", "from_dlpack", "ElementwiseKernel"),
    *(f"cuda.{name}" for name in vars(fake_cupy.cuda) if name not in ("nvtx", "runtime")),
    *("cuda.nvtx.available", "cuda.runtime.getDeviceCount"),
    *(f"cuda.Event.{name}" for name in ("record", "synchronize")),
    *(f"cuda.Stream.{name}" for name in ("null", "from_external", "synchronize", "wait_event")),
    "cuda.MemoryPointer.copy_from_host_async",
    *(
        f"ndarray.{name}"
        for name in (
            *("all", "astype", "copy", "fill", "get", "reshape", "set", "view", "data", "device"),
            *("dtype", "flags", "nbytes", "ndim", "shape", "size", "strides", "T"),
        )
    ),
]


def at(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_names_and_arguments_are_those_of_cupy(name: str) -> None:
    if find_spec("cupy") is None:
        pytest.skip("platform: CuPy is not installed")
    import cupy

    real, own = at(cupy, name), at(fake_cupy, name)
    try:
        wanted = inspect.signature(real).parameters
    except (TypeError, ValueError):  # compiled without; at least there is such a thing
        return
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in wanted.values()):
        return
    given = [p for p in inspect.signature(own).parameters if p not in ("self", "args", "kwargs")]
    assert [p for p in given if p not in wanted] == []


def test_arrays_do_not_turn_into_numpy() -> None:
    array = fake_cupy.zeros(3, "f4")
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(array)
    with pytest.raises(TypeError, match="Unsupported type"):
        array != np.zeros(3)  # noqa: B015
    with pytest.raises(TypeError):
        np.concatenate([array, np.zeros(3)])
    assert type(np.broadcast_to(array, (2, 3))) is fake_cupy.ndarray
    for dtype in ("M8[s]", "longdouble", "S3", "V4", ">i4"):
        with pytest.raises(ValueError, match="Unsupported"):
            fake_cupy.empty(2, dtype)
        with pytest.raises(ValueError, match="Unsupported"):
            fake_cupy.asarray(np.empty(2, dtype))


def test_items_share_memory() -> None:
    array = fake_cupy.zeros((2, 3), "i4")
    item = array[1, 2]
    assert item.shape == ()
    assert item.data.ptr == array.data.ptr + 20
    assert array[1:].data.ptr == array.data.ptr + 12
    assert array.data.mem.size == 24


def test_tests_for_a_gpu_pass_without_one() -> None:
    """Everything of the CUDA device but launches and nvCOMP, which are stood in for."""
    pytest.importorskip("numba", reason="Numba is not installed: pip install 'zarr-gpu[sim]'")
    files = [
        path
        for path in sorted(HERE.glob("test_device_*.py"))
        if re.search(r"mark\.gpu|BATCHED", path.read_text(encoding="utf-8"))
    ]
    environment = {**os.environ, "TEST_DEVICE_EXAMPLES": "4", "FORBID_SKIPS": ""}
    options = ["-q", "-x", "-m", "gpu", "--fake-cuda", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, files)],
        cwd=HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 400
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", done.stdout, re.MULTILINE)
    assert set(reasons) <= {"platform: CuPy is pretended"}
