"""A process that measures what ``run.py`` asks for, one line of JSON at a time.

It is a process of its own because a kernel that goes wrong takes the whole CUDA context with it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import probes
from backend import Backend
from data import Sizes
from lines import LINES, Bench

MARK = "RESULT "


def lives(backend: Backend) -> bool:
    """Whether the device still does what this process asks; a bad kernel ends that for good."""
    try:
        return probes.lives(backend)
    except Exception:  # noqa: BLE001  whatever a dead context raises
        return False


def answer(request: dict[str, Any], backend: Backend, sizes: Sizes, folder: Path) -> dict[str, Any]:
    if request["kind"] == "facts":
        return {"facts": backend.facts(), "pinned_rate": backend.copy_rate()}
    if request["kind"] == "probe":
        return probes.PROBES[request["name"]](probes.Setting(backend, sizes, folder))
    line = LINES[request["name"]]
    deadline = time.perf_counter() + request["seconds"]
    bench = Bench(backend, sizes, folder, request["pinned_rate"], deadline)
    return line.measure(bench, line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sim", action="store_true")
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    backend = Backend(sim=arguments.sim)
    sizes = Sizes.sim() if arguments.sim else Sizes.gpu(arguments.gib)
    for text in sys.stdin:
        begin = time.perf_counter()
        try:
            found = answer(json.loads(text), backend, sizes, arguments.folder)
        except Exception:  # noqa: BLE001  told to whoever asked
            found = {"error": traceback.format_exc(limit=-4)[-1500:], "dead": not lives(backend)}
        found["took_s"] = time.perf_counter() - begin
        print(MARK + json.dumps(found, default=str), flush=True)


if __name__ == "__main__":
    main()
