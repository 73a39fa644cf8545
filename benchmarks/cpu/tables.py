"""Results for people: Markdown tables and a plot.

Imports ``engines`` and, for the plot, Matplotlib (extra ``bench``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cpu.engines import ENGINES, OURS

Report = dict[str, Any]

READING = [
    "Time as a multiple of the fastest of the other implementations: below 1 is faster than all of",
    "them. A time instead where no other took part. Empty: the engine has no such feature.",
]


def _seconds(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def ratio_table(report: Report) -> list[str]:
    """Time of each engine as a multiple of the fastest peer."""
    engines = report["engines"]
    rows = []
    for name, found in report["workloads"].items():
        peers = [
            row["seconds"] for e, row in found["engines"].items() if e != OURS and "seconds" in row
        ]
        cells = [name]
        for engine in engines:
            row = found["engines"].get(engine, {})
            if "ratio" in row:
                cells.append(f"{row['ratio']:.2f}")
            elif "seconds" in row:
                cells.append(_seconds(row["seconds"]))
            else:
                cells.append("failed" if "error" in row else "")
        rows.append([*cells, _seconds(min(peers)) if peers else ""])
    return _rows(["workload", *engines, "fastest peer"], rows)


def detail_table(found: Report) -> list[str]:
    """All figures of one workload."""
    rows = []
    order = sorted(found["engines"].items(), key=lambda item: item[1].get("seconds", 1e9))
    for engine, row in order:
        if "seconds" not in row:
            rows.append([engine, row.get("error") or row.get("unsupported", ""), *[""] * 5])
            continue
        calls = "p50_seconds" in row
        rows.append([
            engine,
            _seconds(row["seconds"]),
            f"{_seconds(row['fastest'])} to {_seconds(row['slowest'])}",
            f"{_seconds(row['p50_seconds'])}, {_seconds(row['p99_seconds'])}" if calls else "",
            f"{row['gb_per_second']:.2f}" if "gb_per_second" in row else "",
            _seconds(row["cpu_seconds"]) if "cpu_seconds" in row else "",
            f"{row['growth_bytes'] / 1e6:.0f}" if "growth_bytes" in row else "",
        ])  # fmt: skip
    head = ["engine", "median", "spread", "p50, p99 of a call", "GB/s", "CPU", "memory, MB"]
    return _rows(head, rows)


def markdown(report: Report) -> str:
    """The whole report."""
    facts = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    lines = [
        f"# {report['title']}",
        "",
        *READING,
        "",
        *ratio_table(report),
        "",
        f"- Command: `{report['command']}`",
        f"- Scale: {report['scale']}; titles tell the sizes of scale full, chunks are the same",
        f"- Machine: {facts}",
        f"- Versions: {versions}",
        *(f"- {name}: {ENGINES[name].settings}" for name in report["engines"]),
        f"- Rounds: {report['rounds']}, in which the engines took turns; figures are medians.",
        "- Memory: growth of the resident memory at its peak.",
        "- All results were equal to NumPy's.",
    ]
    for name, found in report["workloads"].items():
        lines += ["", f"## {name}: {found['title']}", "", *detail_table(found)]
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- table of results: begin -->", "<!-- table of results: end -->"


def insert(report: Report, page: Path) -> None:
    """Put the table of ratios between the two marks of a page, in place of what is there."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has not the marks {BEGIN} and {END}")
    machine, versions = report["machine"], report["versions"]
    lines = [
        f"{report['title']}: scale {report['scale']}, {report['rounds']} rounds,",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']};",
        ", ".join(f"{name} {value}" for name, value in versions.items()) + ".",
        "",
        *ratio_table(report),
    ]
    page.write_text("\n".join([before + BEGIN, *lines, END]) + after)


def plot(report: Report, path: Path) -> None:
    """Ratios as a picture.  Raises ImportError without Matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    named = [
        (name, found["engines"])
        for name, found in report["workloads"].items()
        if any("ratio" in row for row in found["engines"].values())
    ]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.3 * max(len(named), 1)), layout="constrained")
    markers = "osD^v<>P"
    for i, engine in enumerate(report["engines"]):
        places = [k for k, (_, rows) in enumerate(named) if "ratio" in rows.get(engine, {})]
        ratios = [named[k][1][engine]["ratio"] for k in places]
        style: dict[str, Any] = (
            {"s": 70, "zorder": 3} if engine == OURS else {"s": 28, "alpha": 0.8}
        )
        axes.scatter(ratios, places, label=engine, marker=markers[i % len(markers)], **style)
    axes.axvline(1, color="0.5", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(named)), [name for name, _ in named])
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.grid(axis="x", which="both", color="0.9")
    axes.set_xlabel("time, as a multiple of the fastest other implementation (less is better)")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def publish(report: Report, prefix: Path) -> list[Path]:
    """Write ``prefix`` + .json, .md and, with Matplotlib, .png; returns what was written."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    written = [prefix.with_name(f"{prefix.name}.{ending}") for ending in ("json", "md", "png")]
    written[0].write_text(json.dumps(report, indent=1) + "\n")
    written[1].write_text(markdown(report))
    try:
        plot(report, written[2])
    except ImportError:
        print("no plot: pip install 'zarr-gpu[bench]'")
        written.pop()
    return written
