"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "zarr_gpu"
NAMES = sorted(
    ".".join(p for p in path.relative_to(PACKAGE.parent).with_suffix("").parts if p != "__init__")
    for path in PACKAGE.rglob("*.py")
)


NEEDS = {"zarr_gpu.storage.obstore": "obstore", "zarr_gpu.storage.sql": "sqlalchemy"}
"""Packages, of extras, that the examples of a module cannot do without."""


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"extra: {NEEDS[name]} is not installed")
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = 0
    for name in NAMES:
        found = finder.find(importlib.import_module(name))
        examples += sum(len(test.examples) for test in found)
    assert examples > 20
