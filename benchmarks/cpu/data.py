"""What the benchmark reads and writes: values that compress as the real ones of their kind do.

All of it follows from a seed.  Imports NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Scale:
    """How large everything is; ``edge`` items is the cube that most workloads read."""

    edge: int
    coarse: int  # chunks are so many times as large a part of it
    crops: int
    planes: int
    points: int
    lines: int  # items per axis of an orthogonal selection
    writes: int
    opens: int
    groups: int
    arrays: int  # in each group
    appends: int
    items: int  # of each append


FULL = Scale(512, 1, 200, 300, 100_000, 160, 60, 100, 10, 100, 100, 5000)
HALF = Scale(256, 2, 100, 150, 25_000, 80, 30, 100, 10, 100, 100, 5000)
QUICK = Scale(64, 2, 4, 4, 500, 20, 3, 3, 2, 3, 4, 500)
SCALES = {"full": FULL, "half": HALF, "quick": QUICK}


def _smooth(
    rng: np.random.Generator, shape: tuple[int, ...], coarse: int
) -> npt.NDArray[np.float32]:
    """Random values on a coarse grid, interpolated along each axis."""
    values = rng.random([-(-n // coarse) + 1 for n in shape], dtype=np.float32)
    for axis, n in enumerate(shape):
        at = np.arange(n, dtype=np.float32) / coarse
        low = at.astype(np.int64)
        weight = (at - low).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        values = values.take(low, axis) * (1 - weight) + values.take(low + 1, axis) * weight
    return values


def microscopy(edge: int, seed: int = 1) -> npt.NDArray[np.uint16]:
    """A volume of smooth structures under the noise of a camera, uint16."""
    rng = np.random.default_rng(seed)
    out = np.empty((edge, edge, edge), np.uint16)
    base = _smooth(rng, (edge, edge, edge), max(edge // 16, 2))
    for z in range(edge):
        signal = 100 + 1500 * base[z] ** 3
        noise = rng.standard_normal((edge, edge), dtype=np.float32)
        out[z] = signal + np.sqrt(signal) * noise
    return out


def weather(edge: int, seed: int = 2) -> npt.NDArray[np.float32]:
    """A field over time: smooth in space, rounded to 1/256 as archives do, float32.

    Its shape is ``(edge // 8, 2 * edge, 2 * edge)``.
    """
    rng = np.random.default_rng(seed)
    out = np.empty((edge // 8, 2 * edge, 2 * edge), np.float32)
    base = _smooth(rng, out.shape[1:], max(edge // 8, 2))
    drift = _smooth(rng, out.shape[1:], max(edge // 4, 2))
    for t in range(len(out)):
        noise = 0.02 * rng.standard_normal(out.shape[1:], dtype=np.float32)
        out[t] = np.round((250 + 60 * base + 0.5 * t * drift + noise) * 256) / 256
    return out


def labels(edge: int, seed: int = 3) -> npt.NDArray[np.uint8]:
    """A segmentation: large regions of one value each, uint8."""
    coarse = _smooth(np.random.default_rng(seed), (edge // 4,) * 3, max(edge // 32, 2))
    out = (coarse * 60).astype(np.uint8)
    for axis in range(3):
        out = out.repeat(4, axis)
    return out


def series(n: int, seed: int = 4) -> npt.NDArray[np.int64]:
    """Time stamps in nanoseconds with jitter, increasing, int64."""
    steps = np.random.default_rng(seed).integers(900_000, 1_100_000, n)
    return 1_700_000_000_000_000_000 + np.cumsum(steps)
