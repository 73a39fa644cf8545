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
import importlib.util
import json
import os
import queue
import re
import shutil
import signal
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
REPORT = re.compile(r"^=+ ((?:Invalid|Program hit|Error:|Address|Host) .*)$", re.MULTILINE)
"""How compute-sanitizer begins to tell of an error."""

DAMAGE = ROOT / "tests" / "test_device_damage.py"
DECODING = "test_codecs_go_both_ways and v3 and (raw or blosc or zstd or gzip or lz4 or delta)"
"""A choice of the tests that decode: each kernel takes many times as long there."""

FIRST = "first use"
SAFE_PROBES = (
    *("library", "copies", "staging", "throughput", "host times", "kernels", "kvikio"),
    *("settings", "crossover"),
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
        if found.pop("dead", False):
            self.stop()  # nothing can be asked of that process any more
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


def run_tests(
    files: list[Path], chosen: list[str], seconds: float, *, under: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What becomes of tests that are ``chosen`` by options, run ``under`` another command."""
    command = [*under, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    command += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *map(str, files)]
    # Libraries of that machine may be newer than ours, and warn: CuPy, say, when it is imported.
    command += ["-W", "default"]
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tempfile.gettempdir(),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # so that what it has started can be ended with it
        )
        try:
            code: int | None = process.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        output.seek(0)
        text = output.read().decode(errors="replace")
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text[-400:])
    }
    if code is None:  # there is no summary: what the rows of letters say
        rows = "".join(re.findall(r"^([.FEsx]+)(?:\s+\[ *\d+%\])?$", text, re.MULTILINE))
        counts = {"passed": rows.count("."), "failed": rows.count("F") + rows.count("E")}
    return {
        # "No test ran" is no success.
        "passed": code == 0 and counts.get("passed", 0) > 0,
        "finished": code is not None,
        "exit_status": code,
        "counts": counts,
        "seconds": time.perf_counter() - begin,
        "reports": REPORT.findall(text)[:20],
        "output": text[-4000:],
    }


def all_tests(clock: Clock, *, sim: bool) -> dict[str, Any]:
    """The tests that need a GPU, those with damaged data in a process of their own.

    Of the stand-in a few.
    """
    if sim:
        one = ROOT / "tests" / "test_device_sim.py"
        return {"sim": run_tests([one], ["-k", "test_fill_values_keep_every_bit"], 600)}
    files = gpu_tests()
    plain = [path for path in files if path != DAMAGE]
    found = {"gpu": run_tests(plain, ["-m", "gpu", *side_by_side()], clock.share(3, 110))}
    # A damaged stream may take the context with it; all that follows in that process fails then.
    found["damage"] = run_tests([DAMAGE], ["-m", "gpu", "--maxfail", "3"], clock.share(6, 30))
    return found


def side_by_side() -> list[str]:
    """Options that let tests run in several processes, where pytest can do that."""
    return ["-n", "4"] if importlib.util.find_spec("xdist") else []


def point_to_cuda() -> str | None:
    """Tell Numba where the CUDA toolkit is, for NVVM; where it was told, or where it looked.

    It finds NVIDIA's wheels by itself, and a toolkit only by ``CUDA_HOME``.
    """
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            return os.environ[name]
    nvcc = shutil.which("nvcc")
    roots = [Path(nvcc).resolve().parents[1]] if nvcc else []
    for root in (*roots, Path("/usr/local/cuda")):
        if (root / "nvvm").is_dir():
            os.environ["CUDA_HOME"] = str(root)
            return str(root)
    return None


def sanitizer() -> str | None:
    """Where compute-sanitizer is: in the search path, in a CUDA toolkit, in NVIDIA's wheel."""
    found = shutil.which("compute-sanitizer")
    if found is not None:
        return found
    roots = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        roots += map(str, sorted(Path(folder).glob("cu*")))
    for root in filter(None, [*roots, "/usr/local/cuda"]):
        path = Path(root, "compute-sanitizer", "compute-sanitizer")
        if path.is_file():
            return str(path)
    return None


def sanitized(seconds: float) -> dict[str, Any]:
    """The decode tests under compute-sanitizer: reads and writes outside of memory."""
    tool = sanitizer()
    if tool is None:
        return {"note": "compute-sanitizer is not installed (wheel nvidia-cuda-sanitizer-api)"}
    under = (tool, "--tool", "memcheck", "--target-processes", "all", "--error-exitcode", "86")
    file = ROOT / "tests" / "test_device_cuda.py"
    found = run_tests([file], ["-m", "gpu", "-k", DECODING], seconds, under=under)
    return {**found, "tool": Path(tool).name}


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
    names: tuple[str, ...], worker: Worker, options: list[str], clock: Clock, *, sim: bool
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
    if sim:  # nothing dies there, and processes take long to start: one is enough
        rest, risky = risky[1:], risky[:1]
        found |= {name: worker.ask({"kind": "probe", "name": name}, 60) for name in rest}
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
    parser.add_argument("--only", nargs="*", help="names of lines and probes, 'tests', 'sanitizer'")
    arguments = parser.parse_args()
    parts = ("tests", "sanitizer", FIRST, *SAFE_PROBES, *RISKY_PROBES, *LINES)
    unknown = sorted(set(arguments.only or ()) - set(parts))
    if unknown:
        parser.error(f"no such part: {unknown[0]!r}; there are {', '.join(parts)}")
    wanted = set(arguments.only or parts)
    cuda_home = None if arguments.sim else point_to_cuda()
    clock = Clock(60 * arguments.minutes)
    results: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/gpu/run.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "sim": arguments.sim,
        "cuda_home": cuda_home,
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
                results["probes"][FIRST] = worker.ask(request, clock.share(4, 90))
            if "tests" in wanted:
                print("tests ...", flush=True)
                results["tests"] = all_tests(clock, sim=arguments.sim)
            if "sanitizer" in wanted and not arguments.sim:
                print("sanitizer ...", flush=True)
                results["sanitizer"] = sanitized(clock.share(5, 60))
            probing = Clock(clock.share(3, 90))
            names = tuple(wanted & {*SAFE_PROBES, *RISKY_PROBES})
            if names:
                results["probes"] |= run_probes(names, worker, options, probing, sim=arguments.sim)
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
