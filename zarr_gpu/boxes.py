"""Boxes: basic selections over few chunks, which need no plan.

Patches of volumes are read by the thousand, a few chunks each; there a plan takes as long as
decoding.  A box is a handful of numbers per axis; a device that can works out the rest as it reads.

Imports ``grid``, ``select`` and key encodings; used by the engine and by devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from zarr_gpu.grid import ChunkGrid
from zarr_gpu.metadata.keys import KeyEncoding
from zarr_gpu.select import AxisRange, Selection

__all__ = ["Box", "BoxAxis", "Objects", "make_box"]


class BoxAxis(NamedTuple):
    """A range of items along one axis, none of its steps longer than a chunk."""

    start: int
    nitems: int
    step: int
    edge: int  # items of a chunk
    out_axis: int | None  # None: the result does not have it
    first: int  # chunk of the first item; with a negative step the one highest up
    nchunks: int

    def objects(self, ratio: int) -> range:
        """Coordinates of the stored objects, of ``ratio`` chunks each, in the order of chunks."""
        down = -1 if self.step < 0 else 1
        last = self.first + down * (self.nchunks - 1)
        return range(self.first // ratio, last // ratio + down, down)


class Box(NamedTuple):
    """The outer product of ranges."""

    axes: tuple[BoxAxis, ...]
    nchunks: int

    def covers(self, lengths: tuple[int, ...]) -> bool:
        """Whether of every chunk all is selected that lies in an array of such lengths."""
        for axis, length in zip(self.axes, lengths, strict=True):
            stop = axis.start + axis.nitems
            ends = stop == length or stop % axis.edge == 0
            if axis.step != 1 or axis.start % axis.edge or not ends:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Objects:
    """How the stored objects of an array follow from its chunks.

    ``ratio`` are the chunks of an object along each axis, ``weight`` what one chunk more along an
    axis adds to the number of a chunk within its object.
    """

    prefix: str
    key_encoding: KeyEncoding
    ratio: tuple[int, ...]
    weight: tuple[int, ...]

    def keys(self, box: Box) -> list[str]:
        """Keys of the objects that a box touches, in C order."""
        pairs = zip(box.axes, self.ratio, strict=True)
        return self.key_encoding.grid([axis.objects(ratio) for axis, ratio in pairs], self.prefix)


def make_box(selection: Selection, grid: ChunkGrid, most: int) -> Box | None:
    """Cut a selection; None where it is no box of ``most`` chunks or fewer, or one of nothing.

    Examples
    --------
    >>> from zarr_gpu.select import select
    >>> box = make_box(select((slice(2, 9), 0), (10, 4)), ChunkGrid.regular((10, 4), (4, 4)), 8)
    >>> box.nchunks, list(box.axes[0].objects(2))
    (3, [0, 1])
    """
    total = 1
    axes = []
    for part, axis in zip(selection.parts, grid.axes, strict=False):
        if not isinstance(part, AxisRange) or not part.count:
            return None
        start, count, edge = part.start, part.count, axis.edge
        step = part.step if count > 1 else 1
        first = start // edge
        nchunks = abs((start + (count - 1) * step) // edge - first) + 1
        total *= nchunks
        if total > most or not -edge <= step <= edge:
            return None
        axes.append(BoxAxis(start, count, step, edge, part.out_axis, first, nchunks))
    return Box(tuple(axes), total) if axes else None
