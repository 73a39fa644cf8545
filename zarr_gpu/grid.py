"""The regular chunk grid: which chunk holds an index, and how far a chunk reaches.

Pure integer arithmetic on one axis at a time, vectorised over chunks.  Safe for axes up to
2^63 - 1: no intermediate result leaves the array.  Imports nothing of ours; used by planning and
layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ChunkAxis", "ChunkGrid"]

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChunkAxis:
    """One axis of ``length`` items in chunks of ``edge`` items, the last one possibly cut off."""

    length: int
    edge: int

    @property
    def nchunks(self) -> int:
        return -(-self.length // self.edge)

    def start(self, chunk: I64) -> I64:
        """First item of each chunk."""
        return chunk * self.edge

    def extent(self, chunk: I64) -> I64:
        """Items of each chunk that lie inside the array."""
        # Subtracting first keeps the sum inside int64 for axes near its limit.
        return np.minimum(self.edge, self.length - chunk * self.edge)


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """The outer product of :class:`ChunkAxis`.

    >>> grid = ChunkGrid.regular((10, 4), (4, 4))
    >>> grid.shape, grid.nchunks
    ((3, 1), 3)
    """

    axes: tuple[ChunkAxis, ...]

    @classmethod
    def regular(cls, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> ChunkGrid:
        return cls(tuple(ChunkAxis(n, c) for n, c in zip(shape, chunk_shape, strict=True)))

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(axis.nchunks for axis in self.axes)

    @property
    def nchunks(self) -> int:
        n = 1
        for axis in self.axes:
            n *= axis.nchunks
        return n

    @property
    def array_shape(self) -> tuple[int, ...]:
        return tuple(axis.length for axis in self.axes)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return tuple(axis.edge for axis in self.axes)
