"""Compares this package on a CPU with other implementations of Zarr that are installed beside it.

python -m benchmarks.cpu                      everything, some 20 minutes on two cores
python -m benchmarks.cpu --quick              tiny arrays: does it run?
python -m benchmarks.cpu --workloads read-blosc crops --engines zarr_gpu tensorstore
python -m benchmarks.cpu --tables FILE.json   tables and plot again, from earlier results
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.cpu import tables
from benchmarks.cpu.data import SCALES
from benchmarks.cpu.driver import run_all
from benchmarks.cpu.engines import ENGINES, OURS
from benchmarks.cpu.workloads import IMPORT, WORKLOADS
from benchmarks.report import RESULTS, machine, versions

PACKAGES = ("zarr-gpu", "numpy", "numcodecs", "zarr", "zarrs", "tensorstore")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*WORKLOADS, IMPORT]
    parser.add_argument("--scale", choices=list(SCALES), default="full")
    parser.add_argument("--quick", action="store_const", const="quick", dest="scale",
                        help="tiny arrays; times mean nothing")  # fmt: skip
    parser.add_argument("--workloads", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), metavar="NAME",
                        help="those that are installed, by default")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "cpu",
                        help="results: this with .json, .md, .png")  # fmt: skip
    parser.add_argument("--title", default="CPU benchmark")
    parser.add_argument("--folder", type=Path, help="data (3 GB), kept; else made and removed")
    parser.add_argument("--scratch", type=Path, help="where writes go (0.6 GB); a disk in memory")
    parser.add_argument(
        "--tables", type=Path, metavar="JSON", help="run nothing, use these results"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page")
    return parser.parse_args()


def tell(report: tables.Report, out: Path, page: Path | None) -> None:
    """Print the table and write the files."""
    print(*tables.ratio_table(report), sep="\n")
    print(*tables.publish(report, out), sep="\n")
    if page is not None:
        tables.insert(report, page)
        print(page)


def main() -> None:
    arguments = parse()
    out: Path = arguments.out.with_suffix("") if arguments.out.suffix else arguments.out
    if arguments.tables is not None:
        tell(json.loads(arguments.tables.read_text()), out, arguments.page)
        return
    available = [name for name, engine in ENGINES.items() if engine.available()]
    engines = arguments.engines or available
    missing = [name for name in engines if name not in available]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")
    if OURS not in available:
        sys.exit("zarr_gpu, which makes the data, is not installed")
    memory = Path("/dev/shm")  # the disk in memory of Linux
    base = arguments.scratch or (memory if memory.is_dir() else None)
    scratch = Path(tempfile.mkdtemp(prefix="zarr-benchmark-", dir=base))
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="zarr-benchmark-data-"))
    folder = folder / arguments.scale
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = run_all(
            arguments.workloads,
            engines,
            SCALES[arguments.scale],
            folder,
            scratch,
            rounds=arguments.rounds,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if arguments.folder is None:
            shutil.rmtree(folder.parent, ignore_errors=True)
    report = {
        "title": arguments.title,
        "command": shlex.join(["python", "-m", "benchmarks.cpu", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "rounds": arguments.rounds,
        "scale": arguments.scale,
        "engines": engines,
        "workloads": found,
    }
    tell(report, out, arguments.page)
    if any("error" in row for w in found.values() for row in w["engines"].values()):
        sys.exit("an engine failed; see above")


if __name__ == "__main__":
    main()
