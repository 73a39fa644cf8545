"""The rule of conftest.py that a skip fails under ``FORBID_SKIPS=1``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = """
import pytest

def test_missing(): pytest.importorskip("no_such_package")
@pytest.mark.skipif(True, reason="platform: not here")
def test_platform(): pass
def test_server(): pytest.skip("server: redis-server is not installed")
@pytest.mark.gpu
def test_gpu(): pytest.skip("no CUDA device")
@pytest.mark.xfail(strict=True)
def test_known(): assert False
"""


@pytest.mark.parametrize(
    ("ci", "optional", "summary", "code"),
    [
        ("0", "0", "4 skipped, 1 xfailed", 0),
        ("1", "0", "2 failed, 2 skipped, 1 xfailed", 1),
        ("1", "1", "1 failed, 3 skipped, 1 xfailed", 1),
    ],
)
def test_skips_fail_in_ci(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ci: str,
    optional: str,
    summary: str,
    code: int,
) -> None:
    monkeypatch.setenv("SERVERS_OPTIONAL", optional)
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n", encoding="utf-8")
    (tmp_path / "test_sample.py").write_text(SAMPLE, encoding="utf-8")
    done = run_pytest(tmp_path, ci)
    assert done.returncode == code, done.stdout
    assert summary in done.stdout


def test_a_skipped_file_fails_in_ci(tmp_path: Path) -> None:
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    sample = "import pytest\npytest.importorskip('no_such_package')\ndef test_it(): pass\n"
    (tmp_path / "test_sample.py").write_text(sample, encoding="utf-8")
    done = run_pytest(tmp_path, "1")
    assert done.returncode != 0
    assert "forbids skipping" in done.stdout


def run_pytest(folder: Path, ci: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env=os.environ | {"FORBID_SKIPS": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
