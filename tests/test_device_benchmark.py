"""The benchmark for GPU machines, with tiny sizes on the stand-in: every line of it runs here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from device_suite import require

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def run() -> Any:
    """The module ``run``."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    for name in ("table", "report"):
        del sys.modules[name]


def test_everything_on_the_stand_in(tmp_path: Path, run: Any) -> None:
    require("sim")
    command = [sys.executable, str(FOLDER / "run.py"), "--sim", "--out", str(tmp_path / "out")]
    names = [run.FIRST, *run.SAFE_PROBES, *run.RISKY_PROBES, *run.LINES]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--only", *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert found["lines"].keys() == set(run.LINES)
    assert found["probes"].keys() == set(names) - set(run.LINES)
    wrong = {
        n: f["error"] for n, f in {**found["lines"], **found["probes"]}.items() if "error" in f
    }
    assert wrong == {}
    for name, figures in found["lines"].items():
        assert figures["seconds"] > 0
        if name not in ("raw", "small"):
            assert figures["nvcomp_alone_s"] > 0, name
    # The table stands last, and says of every line what it found.
    rows = done.stdout.strip().splitlines()[-len(run.LINES) :]
    titles = [row.split("|")[1].strip() for row in rows]
    assert titles == list(run.table.TITLES.values())
    assert "failed" not in "".join(rows)
    assert "no figure means anything" in (tmp_path / "out" / "gpu.md").read_text()
    assert found["versions"]["zarr-gpu"]
    assert not list(tmp_path.glob("zarr_gpu-*"))  # stores are removed


def test_a_process_that_dies_costs_its_question_only(run: Any, tmp_path: Path) -> None:
    require("sim")
    worker = run.Worker(["--sim", "--folder", str(tmp_path)])
    try:
        assert "facts" in worker.ask({"kind": "facts"}, 60)
        assert "KeyError" in worker.ask({"kind": "probe", "name": "no such"}, 60)["error"]
        worker._process.kill()
        assert "the process ended" in worker.ask({"kind": "facts"}, 60)["error"]
        assert "facts" in worker.ask({"kind": "facts"}, 60)
        worker._options = ["--no-such-option"]
        worker.stop()
        assert "worker.py: error" in worker.ask({"kind": "facts"}, 60)["error"]
    finally:
        worker.stop()


def test_an_answer_that_takes_too_long(run: Any, tmp_path: Path) -> None:
    require("sim")
    worker = run.Worker(["--sim", "--folder", str(tmp_path)])
    try:
        # One second is not enough to import what is measured.
        found = worker.ask({"kind": "probe", "name": "crossover"}, 0)
        assert "took longer" in found.get("error", "") or "took_s" in found
        assert "facts" in worker.ask({"kind": "facts"}, 60)
    finally:
        worker.stop()


def test_without_the_device_it_says_why(run: Any, tmp_path: Path) -> None:
    from zarr_gpu.devices.cuda_runtime import cuda_problem

    if cuda_problem() is None:
        return  # there is one
    command = [sys.executable, str(FOLDER / "run.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be used" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_table_says_what_failed(run: Any) -> None:
    good = {
        "decoded_nbytes": 1 << 32,
        "encoded_nbytes": 1 << 31,
        "gb_s": 40.0,
        "ratio": 1.2,
        "nvcomp_alone_s": 0.05,
        "copy_s": 0.04,
        "tensorstore_gb_s": 10.0,
        "zarr_python_note": "not installed",
    }
    rows = run.table.rows_of({"zstd": good, "raw": {"error": "Traceback\nValueError: no"}})
    assert rows[0][:6] == ["v3 zstd f4, 1 MiB", "4", "50%", "40", "1.2", "nvCOMP"]
    assert rows[0][6:] == ["-", "4", "-"]
    assert rows[1][1] == "failed: ValueError: no"
    lines = {"zstd": good}
    fine = {"tests": {"passed": True}, "lines": lines, "probes": {}}
    assert run.table.is_good(fine)
    assert run.table.is_good({**fine, "probes": {"damaged Zstd": {"error": "the context is gone"}}})
    assert not run.table.is_good({**fine, "probes": {"copies": {"error": "no"}}})
    assert not run.table.is_good({**fine, "tests": {"passed": False}})
    assert not run.table.is_good({**fine, "lines": {"raw": {"error": "no"}}})


def test_names_agree_between_the_processes(run: Any) -> None:
    """``run`` must not import what is measured, so it knows names by heart."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]);"
        "import lines, probes; print(json.dumps([list(lines.LINES), list(probes.PROBES),"
        " list(probes.RISKY)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)], capture_output=True, text=True, check=True
    )
    lines, probes, risky = json.loads(done.stdout)
    assert set(lines) == set(run.LINES) == set(run.table.TITLES)
    assert set(probes) == {run.FIRST, *run.SAFE_PROBES, *run.RISKY_PROBES}
    assert set(risky) == set(run.RISKY_PROBES)
    assert run.gpu_tests()
