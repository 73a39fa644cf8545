"""What README.md shows is run: its Python as it stands, its commands through the command line."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
INSTALLING = [
    "pip install '.[cli]' && zarr-gpu demo",
    "pip install -e '.[test]' && pytest -q -n 2 --dist worksteal",
]


def test_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order and in one folder: later blocks look at what earlier ones wrote."""
    pytest.importorskip("typer")
    from zarr_gpu.cli import main

    monkeypatch.chdir(tmp_path)
    installing = []
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
            continue
        assert language == "sh", f"a block of {language} is not run by this test"
        for line in text.splitlines():
            if line.startswith("zarr-gpu "):
                assert main(shlex.split(line)[1:]) == 0, line
            else:
                installing.append(line)
    assert installing == INSTALLING
    out = capsys.readouterr().out
    assert "blosc(" in out
    assert (tmp_path / "cells.png").is_file()


def test_enough_is_shown() -> None:
    assert [language for language, _ in BLOCKS].count("python") >= 5


def test_linked_files_exist() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "docs/README.md"):
        page = ROOT / name
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{name} links to {target}"


def test_codecs_named_are_the_registered_ones() -> None:
    from zarr_gpu.codecs import registry

    (row,) = re.findall(r"^\| codecs \| (.*) \|$", README, flags=re.MULTILINE)
    v3, _, numcodecs = row.partition("as v2 compressors and filters")
    shown = set(re.findall(r"`([^`]+)`", v3))
    shown |= {f"numcodecs.{name}" for name in re.findall(r"`([^`]+)`", numcodecs)}
    shown.remove("numcodecs.numcodecs.*")
    assert shown == set(registry._TABLE) - {"endian"}  # a name of drafts, only read


def test_python_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    assert "Needs Python 3.11 to 3.14" in README
