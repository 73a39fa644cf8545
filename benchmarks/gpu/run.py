"""Everything that has to be seen on a GPU machine, in one command.

    python benchmarks/gpu/run.py            about eight minutes on a GPU, no network needed
    python benchmarks/gpu/run.py --sim      the same with tiny sizes on the stand-in, no GPU needed

Runs the tests marked ``gpu``, answers the questions in ``probes.py``, measures the lines in
``lines.py``, writes ``gpu.json`` and ``gpu.md``, and prints the table last.  Each probe that may
end badly has a process of its own; a line that fails, or takes too long, costs itself only.

Exit status: 1 if tests failed or lines went wrong, 0 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import table
from report import RESULTS, machine, versions

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MARK = "RESULT "
PACKAGES = (
    *("zarr-gpu", "numpy", "cupy-cuda12x", "cupy-cuda13x", "numba", "numba-cuda"),
    *("nvidia-libnvcomp-cu12", "nvidia-libnvcomp-cu13", "kvikio-cu12", "kvikio-cu13"),
    *("numcodecs", "zarr", "tensorstore"),
)
FIRST = "first use"
SAFE_PROBES = (
    *("library", "copies", "throughput", "host times", "kernels", "kvikio"),
    "crossover",
)
RISKY_PROBES = (
    *("zstd frame: checksum", "zstd frame: no size"),
    *("zstd frame: two frames", "zstd frame: skippable"),
    *("damaged LZ4", "damaged Zstd", "damaged Snappy", "damaged Deflate", "damaged Gzip"),
)
LINES = (
    *("blosc-lz4", "zstd", "blosc-zstd", "raw", "sharded", "patches", "small", "writing"),
    *("cached", "cached zstd", "lz4", "gzip", "series"),
)


class Worker:
    """A process that answers requests; started when it is needed, and again once it is gone."""

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._listeners: list[threading.Thread] = []

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "worker.py"), *self._options]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),  # so that the source folder does not hide the package
        )
        lines: queue.Queue[str | None] = queue.Queue()
        errors: list[str] = []

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(MARK):
                    lines.put(line.removeprefix(MARK))
            lines.put(None)

        def keep_errors() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                errors.append(line)
                del errors[:-20]

        self._listeners = [threading.Thread(target=work) for work in (listen, keep_errors)]
        for thread in self._listeners:
            thread.start()
        self._lines, self._errors = lines, errors
        return process

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer, or ``{"error": ...}``."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = self._start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._lines.get(timeout=max(seconds, 1))
        except queue.Empty:
            self.stop()
            return {"error": f"took longer than {seconds:.0f} s"}
        except OSError:
            answer = None
        if answer is None:
            status, errors = self._process.wait(), self._errors
            self.stop()  # then all that it said has been heard
            return {"error": f"the process ended with {status}: {''.join(errors)[-800:]}"}
        found: dict[str, Any] = json.loads(answer)
        return found

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for thread in self._listeners:
            thread.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not read any more
                    pipe.close()


def gpu_tests() -> list[Path]:
    """Files with tests that need a GPU: others may want libraries that are not there."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [p for p in files if re.search(r"mark\.gpu|BATCHED", p.read_text(encoding="utf-8"))]


def run_tests(seconds: float, *, sim: bool) -> dict[str, Any]:
    """The tests that need a GPU; of the stand-in a few."""
    chosen = ["-k", "test_fill_values_keep_every_bit"] if sim else ["-m", "gpu"]
    files = [ROOT / "tests" / "test_device_sim.py"] if sim else gpu_tests()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    command += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *map(str, files)]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(seconds, 1),
            cwd=tempfile.gettempdir(),
        )
        text, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text, code = output.decode() if isinstance(output, bytes) else output, -1
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text[-400:])
    }
    # "No test ran" is no success.
    passed = code == 0 and counts.get("passed", 0) > 0
    return {
        "passed": passed,
        "exit_status": code,
        "counts": counts,
        "seconds": time.perf_counter() - begin,
        "output": text[-4000:],
    }


class Clock:
    """Shares out the time that is left."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    def left(self) -> float:
        return self._end - time.perf_counter()

    def share(self, parts: int, most: float) -> float:
        """Seconds for one of so many parts."""
        return max(0.0, min(most, self.left() / max(parts, 1)))


def run_probes(
    names: tuple[str, ...], worker: Worker, options: list[str], clock: Clock
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in (n for n in SAFE_PROBES if n in names):
        if clock.left() < 5:
            found[name] = {"error": "out of time"}
            continue
        print(f"probe {name} ...", flush=True)
        found[name] = worker.ask({"kind": "probe", "name": name}, min(60, clock.left()))

    def alone(name: str) -> dict[str, Any]:
        own = Worker(options)
        try:
            return own.ask({"kind": "probe", "name": name}, min(60, clock.left()))
        finally:
            own.stop()

    risky = [n for n in RISKY_PROBES if n in names]
    print(f"{len(risky)} probes in processes of their own ...", flush=True)
    with ThreadPoolExecutor(3) as pool:
        found |= dict(zip(risky, pool.map(alone, risky), strict=True))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sim", action="store_true", help="tiny sizes on the stand-in")
    parser.add_argument("--minutes", type=float, default=8.5, help="time for everything")
    parser.add_argument("--gib", type=float, default=4, help="decoded size of a line")
    parser.add_argument("--out", type=Path, help="folder of gpu.json and gpu.md")
    parser.add_argument("--folder", type=Path, help="where stores are written")
    parser.add_argument("--only", nargs="*", help="names of lines and probes, and 'tests'")
    arguments = parser.parse_args()
    wanted = set(arguments.only or ("tests", FIRST, *SAFE_PROBES, *RISKY_PROBES, *LINES))
    clock = Clock(60 * arguments.minutes)
    results: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/gpu/run.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "sim": arguments.sim,
    }
    with tempfile.TemporaryDirectory(prefix="zarr_gpu-", dir=arguments.folder) as folder:
        options = ["--folder", folder, "--gib", str(arguments.gib)]
        options += ["--sim"] if arguments.sim else []
        worker = Worker(options)
        try:
            first = worker.ask({"kind": "facts"}, min(90, clock.left()))
            if "error" in first:
                print(first["error"], file=sys.stderr)
                return 1
            results |= first
            print(f"device: {first['facts']}", flush=True)
            results["probes"] = {}
            if FIRST in wanted:  # before anything else has compiled kernels
                print(f"probe {FIRST} ...", flush=True)
                request = {"kind": "probe", "name": FIRST}
                results["probes"][FIRST] = worker.ask(request, clock.share(3, 120))
            if "tests" in wanted:
                print("tests ...", flush=True)
                results["tests"] = run_tests(clock.share(3, 170), sim=arguments.sim)
            probing = Clock(clock.share(2, 150))
            names = tuple(wanted & {*SAFE_PROBES, *RISKY_PROBES})
            results["probes"] |= run_probes(names, worker, options, probing) if names else {}
            results["lines"] = {}
            todo = [name for name in LINES if name in wanted]
            for number, name in enumerate(todo):
                seconds = clock.share(len(todo) - number, 60)
                if seconds < 4:
                    results["lines"][name] = {"error": "out of time"}
                    continue
                print(f"line {name} ...", flush=True)
                request = {"kind": "line", "name": name, "seconds": seconds * 0.8}
                request["pinned_rate"] = first["pinned_rate"]
                # What overruns its share is stopped only where others would suffer.
                patience = max(seconds, min(2 * seconds, clock.left()))
                results["lines"][name] = worker.ask(request, patience)
        finally:
            worker.stop()
    results["seconds"] = 60 * arguments.minutes - clock.left()
    out = arguments.out or (Path(tempfile.gettempdir()) if arguments.sim else RESULTS)
    text = table.write(results, out)
    print(text)
    return int(not table.is_good(results))


if __name__ == "__main__":
    sys.exit(main())
