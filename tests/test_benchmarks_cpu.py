"""The CPU benchmark: runs on tiny arrays, compares with NumPy, and writes what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cpu import data, driver, engines, tables, workloads  # noqa: E402


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "quick"
    command = [sys.executable, "-W", "error", "-m", "benchmarks.cpu", "--quick"]
    command += ["--engines", "zarr_gpu", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" s\n") == len(workloads.WORKLOADS) + 1
    return json.loads(out.with_suffix(".json").read_text()), out.with_suffix(".md").read_text()


def test_every_workload_agrees_with_numpy_and_is_timed(report):
    found, text = report
    assert set(found["workloads"]) == {*workloads.WORKLOADS, workloads.IMPORT}
    for name, workload in found["workloads"].items():
        row = workload["engines"]["zarr_gpu"]
        assert row["seconds"] > 0 or name == workloads.IMPORT, (name, row)
        assert f"## {name}: {workload['title']}\n" in text
        assert ("p99_seconds" in row) == (name in PER_CALL)
    assert found["versions"]["numpy"]
    assert str(ROOT) not in json.dumps(found)


PER_CALL = {name for name, w in workloads.WORKLOADS.items() if w.per_call}


def small(tmp_path, name):
    """A tiny workload, its data in place."""
    made = workloads.WORKLOADS[name](data.QUICK, tmp_path, tmp_path)
    made.prepare(engines.Ours())
    return made


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_what_is_expected_can_be_missed(tmp_path, name):
    class Wrong(engines.Ours):
        """Answers with what is not there."""

        def read(self, array, selection):
            return lambda: super(Wrong, self).read(array, selection)() + 1

        oindex = vindex = read

        def write_new(self, path, layout, values):
            return super().write_new(path, layout, values + 1)

        def write(self, array, selection, values):
            return super().write(array, selection, values + 1)

        def append(self, array, blocks):
            return super().append(array, [block + 1 for block in blocks])

        def list_group(self, path, *, consolidated):
            return lambda: super(Wrong, self).list_group(path, consolidated=consolidated)()[1:]

        def open_members(self, path, names, *, consolidated):
            return super().open_members(path, names[1:], consolidated=consolidated)

    workload = small(tmp_path, name)
    for engine, same in ((engines.Ours(), True), (Wrong(), False)):
        results = [call() for call in workload.start(engine)]
        assert (workload.outcome(results) == workload.expected()) == same
    workload.finish()


@pytest.mark.parametrize("name", ["zarr-python", "zarrs", "tensorstore (tuned)"])
def test_the_others_get_the_same(tmp_path, name):
    if not engines.ENGINES[name].available():
        pytest.skip(f"{name} is not installed")
    worker = driver.Worker(name, data.QUICK, tmp_path, tmp_path)
    try:
        for workload in ("read-blosc", "write-zstd", "points", "append"):
            made = small(tmp_path, workload)
            assert worker.ask("check", workload) == {"digest": made.expected()}
        assert worker.ask("run", "append")["laps"]
        assert worker.ask("finish", "append") == {}
    finally:
        worker.close()


def test_ratios_are_those_to_the_fastest_other(tmp_path):
    found = {
        "zarr_gpu": {"seconds": 1.0},
        "zarr-python": {"seconds": 4.0},
        "zarrs": {"seconds": 2.0},
    }
    driver.relate(found)
    assert [row["ratio"] for row in found.values()] == [0.5, 2.0, 1.0]
    alone = {"zarr_gpu": {"seconds": 1.0}, "zarrs": {"unsupported": "groups"}}
    driver.relate(alone)
    assert "ratio" not in alone["zarr_gpu"]
    report = {
        "engines": ["zarr_gpu", "zarr-python", "zarrs"],
        "workloads": {
            "crops": {"title": "", "nbytes": 0, "engines": found},
            "list": {"title": "", "nbytes": 0, "engines": alone | {"zarr-python": {"error": "!"}}},
        },
    }
    assert tables.ratio_table(report)[2:] == [
        "| crops | 0.50 | 2.00 | 1.00 | 2.00 s |",
        "| list | 1.00 s | failed |  |  |",
    ]


def test_the_table_of_a_page_is_replaced(report, tmp_path):
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    for _ in range(2):
        tables.insert(report[0], page)
    text = page.read_text()
    before, _, rest = text.partition(tables.BEGIN)
    inside, _, after = rest.partition(tables.END)
    assert inside.count("\n| crops |") == 1
    assert before + tables.BEGIN in (ROOT / "docs" / "performance.md").read_text()
    assert (ROOT / "docs" / "performance.md").read_text().endswith(tables.END + after)
    page.write_text("nothing")
    with pytest.raises(ValueError, match="marks"):
        tables.insert(report[0], page)


def test_summary_takes_medians_of_calls_before_percentiles():
    runs = [{"laps": [1.0, 5.0], "cpu": 1.0, "growth": 8}] * 2
    runs += [{"laps": [9.0, 9.0], "cpu": 3.0, "growth": 9}]
    row = driver.summary(runs, 12 * 10**9, per_call=True)
    assert (row["seconds"], row["fastest"], row["slowest"]) == (6.0, 6.0, 18.0)
    assert (row["p50_seconds"], row["p99_seconds"]) == (5.0, 5.0)
    assert (row["gb_per_second"], row["cpu_seconds"], row["growth_bytes"]) == (2.0, 1.0, 8)


def test_a_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: zarr-gpu[bench]")
    found = {"zarr_gpu": {"seconds": 1.0, "ratio": 0.5}, "zarrs": {"seconds": 2.0, "ratio": 1.0}}
    report = {"engines": list(found), "workloads": {"crops": {"engines": found}}}
    tables.plot(report, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
