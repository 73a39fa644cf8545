"""The process in which one engine lives: answers requests on standard input, one line of JSON each.

Called by ``driver``: ``python -m benchmarks.cpu.worker ENGINE SCALE FOLDER SCRATCH``.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cpu.base import Workload
from benchmarks.cpu.data import Scale
from benchmarks.cpu.engines import ENGINES, Unsupported
from benchmarks.cpu.workloads import WORKLOADS

_STATUS = Path("/proc/self/status")


def resident() -> tuple[int, int]:
    """Resident bytes of this process, now and at most."""
    if not _STATUS.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return 0, peak * (1 if sys.platform == "darwin" else 1024)
    found = {}
    for line in _STATUS.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(rest.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def forget_peak() -> None:
    """Measure the peak anew; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def touch(nbytes: int) -> None:
    """Use memory and free it, so that the pages that a run gets are there.

    Virtual machines give memory that was free for some seconds back to their host.  Touching it
    again then takes ten times as long, and whoever allocates first would pay for it.
    """
    np.empty(nbytes, np.uint8)[::4096] = 0


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(workload: Workload, engine: Any) -> dict[str, Any]:
    """One timed run."""
    calls = workload.start(engine)
    gc.collect()
    touch(min(max(3 * workload.nbytes, 64 << 20), 1536 << 20))
    forget_peak()
    before, cpu = resident()[0], cpu_seconds()
    laps = []
    for call in calls:
        begin = time.perf_counter()
        result = call()
        laps.append(time.perf_counter() - begin)
        del result
    used = cpu_seconds() - cpu
    return {"laps": laps, "cpu": used, "growth": max(0, resident()[1] - before)}


def check(workload: Workload, engine: Any) -> dict[str, Any]:
    """What the calls come to, for the comparison with NumPy."""
    results = [call() for call in workload.start(engine)]
    return {"digest": workload.outcome([] if workload.writes else results)}


def main() -> None:
    name, scale, folder, scratch = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever engines print must not be taken for a reply
    engine = ENGINES[name]()
    workloads: dict[str, Workload] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = request["workload"]
        try:
            if key not in workloads:
                made = WORKLOADS[key](Scale(**json.loads(scale)), Path(folder), Path(scratch))
                workloads[key] = made
            match request["do"]:
                case "check":
                    reply = check(workloads[key], engine)
                case "run":
                    reply = run(workloads[key], engine)
                case _:
                    workloads.pop(key).finish()
                    reply = {}
        except Unsupported as missing:
            reply = {"unsupported": str(missing)}
        except Exception as error:  # noqa: BLE001  an engine's failure is a result
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
