"""What importing costs, and what happens where optional packages are missing.

Each check runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SLOW = {
    "PIL",
    "asyncio",
    "concurrent",
    "cupy",
    "fsspec",
    "google_crc32c",
    "http",
    "kvikio",
    "ml_dtypes",
    "multiprocessing",
    "numba",
    "numcodecs",
    "rich",
    "tensorstore",
    "typer",
    "urllib",
    "zarr",
    "zarrs",
}

UNNEEDED = ["api", "cli", "hierarchy", "storage.fsspec", "storage.wrappers", "storage.zip"]
"""Our own modules that reading a local array has no use for."""

HIDE = """
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds this package."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded by ``code``."""
    done = python(f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_import_loads_nothing_slow() -> None:
    loaded = modules_after("import zarr_gpu") - modules_after("import numpy")
    assert "zarr_gpu" in loaded
    assert loaded & SLOW == set()


def test_reading_an_array_loads_what_it_needs(tmp_path: Path) -> None:
    path = str(tmp_path / "a.zarr")
    done = python(f"""
import zarr_gpu
z = zarr_gpu.create_array({path!r}, shape=4, dtype="i2", compressors={{"name": "blosc"}})
z[...] = 1
""")
    assert done.returncode == 0, done.stderr
    code = f"""
import numpy
before = set(sys.modules)
import zarr_gpu
assert zarr_gpu.open_array({path!r}, mode="r")[1] == 1
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = python(f"import json, sys\n{code}")
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "zarr_gpu.codecs.blosc" in loaded
    # Its C library is found without importing numcodecs, which costs as much as NumPy.
    assert {name.partition(".")[0] for name in loaded} & (SLOW | {"html", "importlib"}) == set()
    assert loaded & {f"zarr_gpu.{name}" for name in UNNEEDED} == set()


def test_import_of_the_command_line_loads_nothing_slow() -> None:
    loaded = modules_after("import zarr_gpu.cli") - modules_after("import numpy")
    assert loaded & SLOW - {"http", "urllib"} == set()


def test_the_check_sees_what_is_loaded() -> None:
    assert "numcodecs" in modules_after("import numcodecs")


def test_reading_and_writing_never_imports_another_zarr(tmp_path: Path) -> None:
    code = f"""
import zarr_gpu
z = zarr_gpu.create_array({str(tmp_path / "a.zarr")!r}, shape=(4, 4), chunks=(2, 2), dtype="f4")
z[...] = 1
assert zarr_gpu.open({str(tmp_path / "a.zarr")!r})[...].sum() == 16
"""
    assert modules_after(code) & {"zarr", "zarrs", "tensorstore"} == set()


@pytest.mark.parametrize("hidden", ["typer", "rich"])
def test_command_line_without_its_extra(hidden: str) -> None:
    code = HIDE.format(hidden={hidden})
    code += "from zarr_gpu.cli import main\nsys.exit(main(['--version']))"
    done = python(code)
    assert done.returncode == 1
    assert "pip install 'zarr-gpu[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_picture_without_pillow(tmp_path: Path) -> None:
    code = HIDE.format(hidden={"PIL"})
    code += f"""
import pathlib
import numpy as np
from zarr_gpu.demo_volume import save_picture
from zarr_gpu.errors import MissingDependencyError
try:
    save_picture(np.zeros((4, 4)), pathlib.Path({str(tmp_path / "x.png")!r}))
except MissingDependencyError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "zarr-gpu[cli]" in done.stdout
