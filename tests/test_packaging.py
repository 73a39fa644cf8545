"""What gets installed: every package, the kernels, the type marker, and nothing else."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_on_disk() -> set[str]:
    inits = [p.parent for p in (ROOT / "zarr_gpu").rglob("__init__.py")]
    names = {".".join(folder.relative_to(ROOT).parts) for folder in inits}
    kernels = [p.parent for p in (ROOT / "kernels").rglob("__init__.py")]
    return names | {".".join(["zarr_gpu", *folder.relative_to(ROOT).parts]) for folder in kernels}


def test_every_package_is_listed() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_source_file_lies_in_a_package() -> None:
    for path in [*(ROOT / "zarr_gpu").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        assert (path.parent / "__init__.py").is_file(), path


def test_extras_named_in_messages_exist() -> None:
    declared = set(PROJECT["project"]["optional-dependencies"])
    named = set()
    for path in (ROOT / "zarr_gpu").rglob("*.py"):
        named |= set(re.findall(r"zarr-gpu\[(\w+)\]", path.read_text(encoding="utf-8")))
    assert "cli" in named
    assert named <= declared


def test_version() -> None:
    import zarr_gpu

    assert zarr_gpu.__version__ == PROJECT["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {PROJECT['project']['version']}" in changelog


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as built from the source distribution, which must therefore be complete."""
    pytest.importorskip("build")
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("setuptools 77 or later is needed to build")
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("zarr_gpu", "kernels"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", "out", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "out").glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_every_source_file(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "zarr_gpu").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    expected |= {
        "zarr_gpu/" + path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").rglob("*.py")
    }
    assert inside == expected
    assert "zarr_gpu/kernels/__init__.py" in inside
    assert "zarr_gpu/py.typed" in inside


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    top_level = wheel.read(f"{info}/top_level.txt").decode().split()
    assert top_level == ["zarr_gpu"]
    entry_points = configparser.ConfigParser()
    entry_points.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert entry_points["console_scripts"]["zarr-gpu"] == "zarr_gpu.cli:main"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: MIT" in metadata
    assert f"Version: {PROJECT['project']['version']}" in metadata
    assert any(name.endswith("LICENSE") for name in wheel.namelist())
