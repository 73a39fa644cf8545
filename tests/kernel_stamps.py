"""Stamps of compiled loops: Numba keeps what it compiled while the file of a function is the same.

It does not look at the files of functions that are called.  So a loop's file carries a stamp of all
that it imports, and becomes another file with them.  Run this file to renew the stamps.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
LOOPS = ("host_box", "host_files", "host_rows", "host_write")  # each behind those that it imports
STAMP = re.compile(r"^# Imports stamped: (\w+)$", re.MULTILINE)


def imported(name: str) -> set[str]:
    """The files that a file of ``kernels`` imports, and those that they import."""
    direct = set(re.findall(r"^from \.(\w+) import", source(name), re.MULTILINE))
    return direct.union(*map(imported, direct))


def source(name: str) -> str:
    """The text of a file of ``kernels``."""
    return (KERNELS / f"{name}.py").read_text(encoding="utf-8")


def stamp(name: str) -> str:
    """The stamp that a file should carry."""
    text = "\0".join(source(other) for other in sorted(imported(name)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    for loop in LOOPS:
        text = STAMP.sub(f"# Imports stamped: {stamp(loop)}", source(loop))
        (KERNELS / f"{loop}.py").write_text(text, encoding="utf-8")
