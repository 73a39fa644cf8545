"""Runs the workloads: workers, rounds, comparison of results, ratios.

Every engine lives in one worker.  All must return for a workload what NumPy does before any of them
is timed.  Then they take turns, in an order that rotates, and medians over the rounds are kept.
Imports ``engines``, ``workloads``; called by ``__main__``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cpu.data import Scale
from benchmarks.cpu.engines import ENGINES, OURS
from benchmarks.cpu.workloads import IMPORT, WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 10.0  # after two rounds of more seconds than these an engine sits out the rest

Row = dict[str, Any]


class Worker:
    """The process of one engine."""

    def __init__(self, engine: str, scale: Scale, folder: Path, scratch: Path) -> None:
        arguments = [engine, json.dumps(asdict(scale)), str(folder), str(scratch)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cpu.worker", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, workload: str) -> Row:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "workload": workload}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        reply: Row = json.loads(line) if line else {"error": "the worker has died"}
        return reply

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


def compare(name: str, scale: Scale, folder: Path, scratch: Path, workers: dict[str, Worker], *,
            rounds: int) -> Row:  # fmt: skip
    """All engines on one workload."""
    workload = WORKLOADS[name](scale, folder, scratch)
    workload.prepare(ENGINES[OURS]())
    expected = workload.expected()
    rows: dict[str, Row] = {}
    for engine, worker in workers.items():
        reply = worker.ask("check", name)
        if "digest" in reply and reply["digest"] != expected:
            reply = {"error": "not what NumPy has"}
        rows[engine] = reply
    live = [engine for engine, row in rows.items() if "digest" in row]
    runs: dict[str, list[Row]] = {engine: [] for engine in live}
    for turn in range(rounds):
        for i in range(len(live)):
            engine = live[(i + turn) % len(live)]
            done = runs[engine]
            if len(done) >= 2 and sum(sum(run["laps"]) for run in done) > PATIENCE:
                continue
            reply = workers[engine].ask("run", name)
            if "laps" not in reply:
                rows[engine] |= reply
                live = [other for other in live if other != engine]
                break
            done.append(reply)
    for worker in workers.values():
        worker.ask("finish", name)
    for engine, done in runs.items():
        if done and "error" not in rows[engine]:
            rows[engine] = summary(done, workload.nbytes, per_call=workload.per_call)
    relate(rows)
    return {"title": workload.title, "nbytes": workload.nbytes, "engines": rows}


def summary(runs: Sequence[Row], nbytes: int, *, per_call: bool) -> Row:
    """Medians over the rounds."""
    totals = [sum(run["laps"]) for run in runs]
    seconds = statistics.median(totals)
    row = {
        "rounds": len(runs),
        "seconds": seconds,
        "fastest": min(totals),
        "slowest": max(totals),
        "cpu_seconds": statistics.median(run["cpu"] for run in runs),
        "growth_bytes": int(statistics.median(run["growth"] for run in runs)),
    }
    if nbytes:
        row["gb_per_second"] = nbytes / seconds / 1e9
    if per_call:
        # the median over rounds of each call, then percentiles over the calls
        laps = sorted(
            statistics.median(calls) for calls in zip(*(run["laps"] for run in runs), strict=True)
        )
        row["p50_seconds"] = laps[len(laps) // 2]
        row["p99_seconds"] = laps[min(len(laps) - 1, len(laps) * 99 // 100)]
    return row


def relate(rows: dict[str, Row]) -> None:
    """Add ``ratio``: time as a multiple of the fastest peer's."""
    peers = [row["seconds"] for engine, row in rows.items() if engine != OURS and "seconds" in row]
    if peers:
        for row in rows.values():
            if "seconds" in row:
                row["ratio"] = row["seconds"] / min(peers)


def import_times(engines: Sequence[str], rounds: int) -> Row:
    """Import in fresh interpreters; NumPy, which all of them need, for comparison."""
    code = {engine: f"import {ENGINES[engine].module}" for engine in engines}
    code = {name: text for name, text in code.items() if "(" not in name}
    if "zarrs" in code:
        code["zarrs"] = "import zarr, zarrs"
    code |= {"(numpy)": "import numpy", "(nothing)": "pass"}
    laps: dict[str, list[float]] = {name: [] for name in code}
    for turn in range(rounds + 1):
        for name, text in code.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True)
            if turn:  # the first one compiles
                laps[name].append(time.perf_counter() - begin)
    nothing = statistics.median(laps.pop("(nothing)"))
    rows: dict[str, Row] = {
        name: {
            "rounds": rounds,
            "seconds": max(statistics.median(times) - nothing, 0.0),
            "fastest": max(min(times) - nothing, 0.0),
            "slowest": max(times) - nothing,
        }
        for name, times in laps.items()
    }
    numpy = rows.pop("(numpy)")
    relate(rows)
    title = f"import beyond a bare interpreter; NumPy alone {numpy['seconds'] * 1e3:.0f} ms"
    return {"title": title, "nbytes": 0, "engines": rows, "numpy_seconds": numpy["seconds"]}


def run_all(
    names: Sequence[str], engines: Sequence[str], scale: Scale, folder: Path, scratch: Path, *,
    rounds: int, tell: Any = print,
) -> dict[str, Row]:  # fmt: skip
    """Name of each workload -> its rows."""
    found: dict[str, Row] = {}
    workers = {engine: Worker(engine, scale, folder, scratch) for engine in engines}
    try:
        for name in names:
            begin = time.perf_counter()
            if name == IMPORT:
                found[name] = import_times(engines, rounds)
            else:
                found[name] = compare(name, scale, folder, scratch, workers, rounds=rounds)
            tell(f"{name}: {time.perf_counter() - begin:.0f} s")
    finally:
        for worker in workers.values():
            worker.close()
    return found
