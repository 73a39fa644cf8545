"""Import time of the package beyond that of NumPy, in fresh interpreters that take turns.

The package loads its parts, NumPy among them, on first use.  So what they cost is measured as well:
``EVERYTHING`` is arrays, groups, stores and the functions that open them.

Files are compiled and in the page cache: every module is imported once before anything is measured.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from report import publish

GOAL_MS = 30

EVERYTHING = (
    "from zarr_gpu import Array, Group, create_array, open, open_array, open_group, storage"
)

STATEMENTS = {
    "numpy": ("", "import numpy"),
    "zarr_gpu": ("", "import zarr_gpu"),
    "zarr_gpu, used": ("", EVERYTHING),
    "zarr_gpu, used, after numpy": ("import numpy", EVERYTHING),
    "zarr": ("", "import zarr"),
    "tensorstore": ("", "import tensorstore"),
}

CHILD = """
import time
{first}
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def measure(name: str) -> tuple[float, float]:
    """Wall and CPU milliseconds of one import."""
    first, statement = STATEMENTS[name]
    code = CHILD.format(first=first, statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wall, cpu = done.stdout.split()
    return 1e3 * float(wall), 1e3 * float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=25, help="interpreters per module")
    repeat = parser.parse_args().repeat

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in STATEMENTS}
    for turn in range(repeat + 1):
        for name, runs in times.items():
            run = measure(name)
            if turn:  # the first one compiles
                runs.append(run)
    wall = {name: statistics.median(w for w, _ in runs) for name, runs in times.items()}
    cpu = {name: statistics.median(c for _, c in runs) for name, runs in times.items()}
    beyond = {name: wall[name] - wall["numpy"] for name in ("zarr_gpu", "zarr_gpu, used")}
    rows = [
        [
            name,
            f"{wall[name]:.1f}",
            f"{cpu[name]:.1f}",
            "" if name.endswith("numpy") else f"{wall[name] - wall['numpy']:.1f}",
        ]
        for name in STATEMENTS
    ]
    publish(
        "import_time",
        f"Milliseconds, medians of {repeat} fresh interpreters that took turns. Goal: `import "
        f"zarr_gpu` at most {GOAL_MS} ms beyond `import numpy`. The package loads its parts, NumPy "
        f"among them, on first use; `used` is `{EVERYTHING}`. Compare with the line of NumPy: "
        "a slow or busy machine stretches all of them.",
        ["import", "wall", "CPU", "wall beyond numpy"],
        rows,
        {
            "repeat": repeat,
            "goal_ms": GOAL_MS,
            "wall_ms": wall,
            "cpu_ms": cpu,
            "beyond_numpy_ms": beyond,
        },
        ["zarr-gpu", "numpy", "zarr", "tensorstore"],
    )
    for name, ms in beyond.items():
        print(f"{name}: {'within' if ms <= GOAL_MS else 'not within'} {GOAL_MS} ms ({ms:.1f} ms)")


if __name__ == "__main__":
    main()
