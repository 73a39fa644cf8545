"""The benchmark for GPU machines, with tiny sizes on the stand-in: every line of it runs here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
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
    parts = [run.FIRST, *run.SAFE_PROBES, *run.RISKY_PROBES, *run.LINES]
    names = ["tests", *parts]
    done = subprocess.run(
        [*command, "--minutes", "60", "--folder", str(tmp_path), "--only", *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert found["lines"].keys() == set(run.LINES)
    assert found["probes"].keys() == set(parts) - set(run.LINES)
    assert found["tests"]["sim"]["passed"]
    assert found["tests"]["sim"]["counts"]["passed"] > 3
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


def some_tests(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "test_some.py"
    path.write_text(text)
    return path


def test_runs_of_tests(run: Any, tmp_path: Path) -> None:
    some = some_tests(tmp_path, "def test_a(): pass\ndef test_b(): assert False\n")
    found = run.run_tests([some], [], 600)
    assert (found["passed"], found["finished"]) == (False, True)
    assert found["counts"] == {"failed": 1, "passed": 1}
    assert "assert False" in found["output"]
    nothing = run.run_tests([some], ["-k", "other"], 600)
    assert (nothing["passed"], nothing["exit_status"]) == (False, 5)


def test_tests_that_take_too_long_are_counted(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = tmp_path / "reached"
    slow = some_tests(
        tmp_path,
        "import pathlib, subprocess, time\ndef test_a(): pass\n"
        "def test_b():\n    child = subprocess.Popen(['sleep', '600'])\n"
        f"    pathlib.Path({str(reached)!r}).write_text(str(child.pid))\n    time.sleep(600)\n",
    )

    class Impatient(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            while timeout is not None:
                assert self.poll() is None
                if reached.exists() and reached.read_text():
                    raise subprocess.TimeoutExpired("pytest", timeout)
                time.sleep(0.02)
            return super().wait()

    monkeypatch.setattr(run.subprocess, "Popen", Impatient)
    found = run.run_tests([slow], [], 1)
    assert (found["passed"], found["finished"]) == (False, False)
    assert found["counts"] == {"passed": 1, "failed": 0}
    child = Path("/proc", reached.read_text())
    if Path("/proc/self").exists():  # what it had started is gone too
        assert not child.exists() or "Z (zombie)" in (child / "status").read_text()


SANITIZER = """#!/usr/bin/env bash
echo "========= COMPUTE-SANITIZER $1 $2 $3 $4 $5 $6"
while [[ $1 == --* ]]; do shift 2; done
"$@" || exit
if [[ -n $BAD ]]; then echo "========= Invalid __global__ read of size 1 bytes"; exit 86; fi
"""


def test_compute_sanitizer(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "compute-sanitizer" / "compute-sanitizer"
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    if not Path("/usr/local/cuda").exists():
        assert "nvidia-cuda-sanitizer-api" in run.sanitized(5)["note"]
    tool.parent.mkdir()
    tool.write_text(SANITIZER)
    tool.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert run.sanitizer() == str(tool)
    # The tests that it would run are those of a GPU; here one that says how it was called.
    seen = some_tests(tmp_path, "def test_a(): pass\n")
    ran = run.run_tests
    monkeypatch.setattr(
        run,
        "run_tests",
        lambda files, chosen, seconds, under: ran([seen], [], seconds, under=under),
    )
    found = run.sanitized(600)
    assert (found["passed"], found["reports"]) == (True, [])
    assert "--tool memcheck --target-processes all --error-exitcode 86" in found["output"]
    monkeypatch.setenv("BAD", "1")
    found = run.sanitized(600)
    assert (found["passed"], found["exit_status"]) == (False, 86)
    assert found["reports"] == ["Invalid __global__ read of size 1 bytes"]


def test_tests_with_damaged_data_have_a_process_of_their_own(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        run, "run_tests", lambda files, *rest: calls.append([p.name for p in files])
    )
    found = run.all_tests(run.Clock(100), sim=False)
    assert list(found) == ["gpu", "damage"]
    assert calls[1] == ["test_device_damage.py"]
    assert "test_device_cuda.py" in calls[0]
    assert "test_device_damage.py" not in calls[0]


def test_a_dead_device_ends_its_process(run: Any, tmp_path: Path) -> None:
    require("sim")
    worker = run.Worker(["--sim", "--folder", str(tmp_path)])
    try:
        assert "dead" not in worker.ask({"kind": "probe", "name": "no such"}, 60)
        process = worker._process
        worker.ask({"kind": "facts"}, 60)
        assert worker._process is process  # an error alone does not end it
        answers = iter(['{"error": "illegal address", "dead": true}'])
        worker._lines.get = lambda timeout: next(answers)
        assert worker.ask({"kind": "facts"}, 60) == {"error": "illegal address"}
        assert worker._process is None
        assert "facts" in worker.ask({"kind": "facts"}, 60)
    finally:
        worker.stop()


def test_parts_must_exist(run: Any, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "--sim", "--only", "blosc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "no such part: 'blosc'" in done.stderr


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
    good_run = {"passed": True, "finished": True, "counts": {"passed": 3}, "seconds": 1.0}
    bad_run = {**good_run, "passed": False, "exit_status": 1, "reports": ["Invalid read"]}
    fine = {"tests": {"gpu": good_run}, "lines": lines, "probes": {}}
    assert run.table.is_good(fine)
    assert run.table.is_good({**fine, "probes": {"damaged Zstd": {"error": "the context is gone"}}})
    assert not run.table.is_good({**fine, "probes": {"copies": {"error": "no"}}})
    assert not run.table.is_good({**fine, "tests": {"gpu": good_run, "damage": bad_run}})
    assert not run.table.is_good({**fine, "sanitizer": bad_run})
    assert run.table.is_good({**fine, "sanitizer": {"note": "not installed"}})
    said = run.table.test_text({**fine, "sanitizer": bad_run}).splitlines()
    assert said == [
        "tests (gpu): passed: 3 passed in 1 s",
        "compute-sanitizer: FAILED (exit status 1): 3 passed in 1 s; 1 reports",
        "  Invalid read",
    ]
    unfinished = {**good_run, "passed": False, "finished": False, "exit_status": None}
    assert "NOT FINISHED in time: 3 passed" in run.table.test_text({"tests": {"gpu": unfinished}})
    assert "not installed" in run.table.test_text({"sanitizer": {"note": "not installed"}})
    assert not run.table.is_good({**fine, "lines": {"raw": {"error": "no"}}})


def test_what_is_for_gpus_alone_runs_on_a_pretended_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines and probes, with the sizes of the stand-in; the peers have no time."""
    require("sim")
    import fake_cupy

    fake_cupy.install(monkeypatch)
    for folder in (FOLDER.parent, FOLDER):
        monkeypatch.syspath_prepend(str(folder))
    own = ("backend", "data", "lines", "probes", "staging", "streams")
    for name in own:
        monkeypatch.delitem(sys.modules, name, raising=False)
    lines, probes, data = map(importlib.import_module, ("lines", "probes", "data"))
    backend = importlib.import_module("backend").Backend(sim=False)
    pinned = backend.pinned
    monkeypatch.setattr(backend, "pinned", lambda nbytes: pinned(min(nbytes, 1 << 20)))
    sizes = data.Sizes.sim()
    at = probes.Setting(backend, sizes, tmp_path)
    for name in ("library", "host times", "kernels", "settings", "first use", "damaged LZ4"):
        assert probes.PROBES[name](at)
    assert "upload by kernel, beside a copy_us" in probes._uploads_beside_a_copy(backend)
    bench = lines.Bench(backend, sizes, tmp_path, pinned_rate=1e9)
    for name in ("blosc-lz4", "raw", "small", "cached", "writing", "patches", "sharded"):
        assert lines.LINES[name].measure(bench, lines.LINES[name])["seconds"] > 0
    for name in own:
        sys.modules.pop(name, None)


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
