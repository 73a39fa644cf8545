"""From results to a table and two files.  Needs nothing but Python, like ``run.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TITLES = {
    "blosc-lz4": "Blosc-LZ4-shuffle u2, 64^3",
    "blosc-zstd": "Blosc-Zstd-shuffle f4, 1 MiB",
    "zstd": "v3 zstd f4, 1 MiB",
    "gzip": "gzip u2, 64^3",
    "lz4": "LZ4 u2, 64^3",
    "raw": "uncompressed u2, 64^3",
    "sharded": "sharded u2, 64^3 in 512^3",
    "patches": "256 random 128^3 patches",
    "cached": "Blosc-LZ4 from the cache",
    "cached zstd": "v3 zstd from the cache",
    "writing": "writing Blosc-LZ4 u2, 64^3",
    "small": "one chunk of 64^3, Blosc-LZ4",
    "series": "1-D f4, zstd, 1 MiB",
}
"""In the order of the table."""

COLUMNS = (
    *("", "decoded GiB", "compressed to", "GB/s", "x floor", "floor is"),
    *("x own CPU", "x TensorStore", "x zarr-python"),
)

TEXT = """\
Read end to end into device memory from files in the page cache (`writing`: from device memory to
files); each figure is the median of a few runs. `x floor` is our time over the larger of two times:
the encoded bytes over the rate of page-locked copies, and what nvCOMP takes for the same streams
when they lie on the device (goal: at most 1.25; from the cache the floor is nvCOMP alone). The last
three columns say how many times as fast we are as our CPU device followed by a copy, as TensorStore
on all cores followed by `cupy.asarray` (goal: 4), and as zarr-python with `enable_gpu()` (goal:
10); these read a half, a half and an eighth of the array. One slab of an array is compressed; the
others are links to its files.
"""


def number(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if isinstance(value, int | float) else "-"


def row_of(name: str, found: dict[str, Any]) -> list[str]:
    if "error" in found:
        reason = found["error"].strip().splitlines()[-1][:60]
        return [TITLES[name], f"failed: {reason}", *[""] * (len(COLUMNS) - 2)]
    speed = found["gb_s"]
    floor = "-"
    if "nvcomp_alone_s" in found:
        floor = "nvCOMP" if found["nvcomp_alone_s"] >= found["copy_s"] else "copy"
    ratios = [
        number(speed / found[f"{peer}_gb_s"]) if found.get(f"{peer}_gb_s") else "-"
        for peer in ("own_cpu", "tensorstore", "zarr_python")
    ]
    row = [
        TITLES[name],
        number(found["decoded_nbytes"] / 2**30),
        f"{found['encoded_nbytes'] / found['decoded_nbytes']:.0%}",
        number(speed),
        number(found.get("ratio")),
        floor,
        *ratios,
    ]
    if name == "small":
        latency = found["latency_ms"]
        row[3] = f"{latency:.2f} ms"
        row[6] = f"CPU {found['cpu_latency_ms']:.2f} ms"
    return row


def rows_of(lines: dict[str, Any]) -> list[list[str]]:
    return [row_of(name, lines[name]) for name in TITLES if name in lines]


def markdown(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    width = [max(len(row[i]) for row in [list(columns), *rows]) for i in range(len(columns))]

    def line(cells: Any) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, width, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in width) + "|"
    return "\n".join([line(columns), rule, *map(line, rows)])


def probe_text(probes: dict[str, Any]) -> str:
    found = []
    for name, figures in probes.items():
        found.append(f"{name}:")
        for key, value in figures.items():
            shown = number(value, 4) if isinstance(value, float) else value
            if key == "error":
                shown = value.strip().splitlines()[-1]
            found.append(f"  {key}: {shown}")
    return "\n".join(found)


def run_text(found: dict[str, Any]) -> str:
    verdict = "passed" if found["passed"] else f"FAILED (exit status {found['exit_status']})"
    if not found["finished"]:
        verdict = "NOT FINISHED in time"
    counts = ", ".join(f"{n} {word}" for word, n in found["counts"].items())
    return f"{verdict}: {counts} in {found['seconds']:.0f} s"


def test_text(results: dict[str, Any]) -> str:
    """A line for every run of tests."""
    lines = [f"tests ({name}): {run_text(f)}" for name, f in results.get("tests", {}).items()]
    found = results.get("sanitizer")
    if found is not None:
        said = found.get("note") or f"{run_text(found)}; {len(found['reports'])} reports"
        lines.append(f"compute-sanitizer: {said}")
        lines += [f"  {line}" for line in (found or {}).get("reports", ())]
    return "\n".join(lines) or "tests: not run"


def is_good(results: dict[str, Any]) -> bool:
    """Whether tests passed and nothing failed but what may end badly."""
    tests = [*results.get("tests", {}).values()]
    tests += [f for f in (results.get("sanitizer"),) if f is not None and "note" not in f]
    risky = ("damaged ", "zstd frame: ")
    parts = [found for name, found in results["probes"].items() if not name.startswith(risky)]
    parts += results["lines"].values()
    return all(found["passed"] for found in tests) and not any("error" in part for part in parts)


def write(results: dict[str, Any], folder: Path) -> str:
    """Write ``gpu.json`` and ``gpu.md``; returns what is to be printed, the table at its end."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(results, indent=2, default=str) + "\n")
    shown = markdown(COLUMNS, rows_of(results["lines"]))
    tests, probes = test_text(results), probe_text(results["probes"])
    facts = [
        f"- Command: `{results['command']}`, {results['seconds']:.0f} s",
        "- Device: " + ", ".join(f"{k} {v}" for k, v in results["facts"].items()),
        f"- Page-locked copies: {results['pinned_rate'] / 1e9:.1f} GB/s",
        "- Machine: " + ", ".join(f"{k} {v}" for k, v in results["machine"].items()),
        "- Versions: " + ", ".join(f"{k} {v}" for k, v in results["versions"].items()),
    ]
    title = "# gpu" + (" (the stand-in on the host: no figure means anything)" * results["sim"])
    parts = [title, TEXT.strip(), shown, "\n".join(facts), tests, f"```\n{probes}\n```"]
    (folder / "gpu.md").write_text("\n\n".join(parts) + "\n")
    end = [probes, *facts, tests]
    runs = [*results.get("tests", {}).values(), results.get("sanitizer", {})]
    end = [run["output"] for run in runs if not run.get("passed", True)] + end
    return "\n".join([*end, "", shown])
