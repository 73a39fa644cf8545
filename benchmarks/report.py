"""What every benchmark says of itself: machine, versions, command, and its table.

No paths and no host names: results are read by people who have another machine.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """The parts of the machine that figures depend on."""
    facts: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": f"{platform.system()} {platform.machine()}",
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        facts["cpu"] = names[0] if names else facts["cpu"]
    if hasattr(os, "sysconf"):
        nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        facts["memory_gib"] = round(nbytes / 2**30, 1)
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 1)  # of what else runs there, and of this
    return facts


def versions(*names: str) -> dict[str, str]:
    """Versions of Python and of installed packages; those that are missing are left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """How this benchmark was called, from the root of the repository."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def publish(
    name: str,
    text: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    data: dict[str, Any],
    packages: Sequence[str],
) -> None:
    """Print the table; write it and the figures to ``results/<name>.md`` and ``.json``.

    Parameters
    ----------
    text
        What was measured, and how to read it.
    columns, rows
        The table.
    data
        Figures as numbers, for programs.
    packages
        Distributions whose versions matter.
    """
    facts = {"command": command(), "machine": machine(), "versions": versions(*packages)}
    table = [
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(" --- " for _ in columns) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    print("\n".join(table))
    lines = [
        f"# {name}",
        "",
        text.strip(),
        "",
        *table,
        "",
        f"- Command: `{facts['command']}`",
        "- Machine: " + ", ".join(f"{k} {v}" for k, v in facts["machine"].items()),
        "- Versions: " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps(facts | data, indent=2) + "\n")
