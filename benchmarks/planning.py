"""Planning: from a selection to the keys of its chunks, against zarr-python's indexer alone.

Ours is everything the engine does before the first byte is asked for: the sets of the plan, the
rows of all batches, the store keys and byte ranges.  Theirs is ``list(BasicIndexer(...))``: one
object for each chunk, without keys.  Both run in turns in one process.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from report import publish
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.indexing import BasicIndexer

from zarr_gpu.codecs.bytes import BytesCodec
from zarr_gpu.dtypes import from_user
from zarr_gpu.engine import located_batches
from zarr_gpu.layout import Layout, compile_layout
from zarr_gpu.metadata import v3
from zarr_gpu.plan import make_plan
from zarr_gpu.select import select_basic
from zarr_gpu.storage.memory import MemoryStore

Selection = tuple[slice, ...]

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Selection]] = {
    "whole array, 320 x 320 x 1 chunks": ((3200, 3200, 100), (10, 10, 100), (slice(None),) * 3),
    "whole array, 47 x 47 x 47 chunks": ((470, 470, 470), (10, 10, 10), (slice(None),) * 3),
    "box off the grid, 321 x 320 x 1 chunks": (
        (3300, 3300, 100),
        (10, 10, 100),
        (slice(5, 3207), slice(3, 3197), slice(None)),
    ),
    "every 3rd item, 320 x 320 x 1 chunks": (
        (3200, 3200, 100),
        (10, 10, 100),
        (slice(None, None, 3), slice(None, None, 3), slice(None)),
    ),
}
FIRST = next(iter(CASES))
GOAL = 10


def make_layout(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Layout:
    codec = BytesCodec(endian="little").to_dict()
    metadata = v3.build_array(
        shape=shape, chunk_shape=chunks, dtype=from_user("u2"), codecs=[codec]
    )
    return compile_layout(metadata, "volume")


def plan_sets(layout: Layout, shape: tuple[int, ...], selection: Selection) -> Any:
    return make_plan(select_basic(selection, shape), layout.grid)


def plan_all(layout: Layout, shape: tuple[int, ...], selection: Selection) -> int:
    """Sets, rows, keys and ranges; returns the number of keys."""
    plan = plan_sets(layout, shape, selection)
    return sum(len(request.keys) for _, request in located_batches(layout, MemoryStore(), plan))


def plan_rows(layout: Layout, shape: tuple[int, ...], selection: Selection) -> int:
    """Sets and rows only."""
    return sum(len(batch) for batch in plan_sets(layout, shape, selection).batches(8192))


def plan_theirs(grid: RegularChunkGrid, shape: tuple[int, ...], selection: Selection) -> int:
    return len(list(BasicIndexer(selection, shape, grid)))


def medians(
    calls: dict[str, Callable[[], Any]], repeat: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median wall and CPU seconds of each call; the calls take turns."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeat):
        for name, call in calls.items():
            gc.collect()  # what the others left behind
            start, used = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    median = statistics.median
    return {n: median(v) for n, v in wall.items()}, {n: median(v) for n, v in cpu.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=15, help="runs of which the median is taken")
    repeat = parser.parse_args().repeat

    rows, figures = [], {}
    for name, (shape, chunks, selection) in CASES.items():
        layout, grid = make_layout(shape, chunks), RegularChunkGrid(chunk_shape=chunks)
        nchunks = plan_theirs(grid, shape, selection)
        assert plan_all(layout, shape, selection) == nchunks
        coords = [batch.coords for batch in plan_sets(layout, shape, selection).batches(8192)]
        theirs = [tuple(item.chunk_coords) for item in BasicIndexer(selection, shape, grid)]
        assert np.array_equal(np.concatenate(coords), theirs)
        times, cpu = medians(
            {
                "sets": lambda: plan_sets(layout, shape, selection),  # noqa: B023
                "sets and rows": lambda: plan_rows(layout, shape, selection),  # noqa: B023
                "all": lambda: plan_all(layout, shape, selection),  # noqa: B023
                "zarr-python": lambda: plan_theirs(grid, shape, selection),  # noqa: B023
            },
            repeat,
        )
        ratio = times["zarr-python"] / times["all"]
        cpu_ratio = cpu["zarr-python"] / cpu["all"]
        figures[name] = {
            "chunks": nchunks,
            "ratio": ratio,
            "cpu_ratio": cpu_ratio,
            "seconds": times,
            "cpu_seconds": cpu,
        }
        rows.append(
            [name, f"{nchunks:,}"]
            + [f"{1e3 * times[part]:.2f}" for part in ("sets", "sets and rows", "all")]
            + [f"{1e3 * times['zarr-python']:.1f}", f"{ratio:.1f}", f"{cpu_ratio:.1f}"]
        )
    publish(
        "planning",
        "Milliseconds from a selection to the keys and byte ranges of its chunks (sets, rows and "
        "keys), against `list(BasicIndexer(...))` of zarr-python, which makes no keys. Medians of "
        f"{repeat} runs in turns in one process; `ratio` is zarr-python's time divided by ours. "
        "A busy machine stretches both; the last column is the ratio of CPU time. "
        f"Goal: at least {GOAL} for the first line.",
        ["selection", "chunks", "sets", "+ rows", "+ keys", "zarr-python", "ratio", "CPU ratio"],
        rows,
        {"repeat": repeat, "goal_ratio": GOAL, "cases": figures},
        ["zarr-gpu", "numpy", "zarr"],
    )
    met = figures[FIRST]["ratio"] >= GOAL
    print(f"goal of {GOAL} x: {'met' if met else 'missed'}")


if __name__ == "__main__":
    main()
