"""Chunk keys: from grid coordinates to the store key of a chunk, and back.

Keys are relative to the array's node.  Imports errors only.  Called by layout, locating and
listing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["KeyEncoding"]

_DENSE = 1 << 16  # a longer table of one axis is made only for the coordinates that occur


@dataclass(frozen=True, slots=True)
class KeyEncoding:
    """How chunk coordinates become keys.

    ``default`` writes ``c/1/2`` (``c`` for a 0-d array), ``v2`` writes ``1.2`` (``0`` for 0-d).

    Examples
    --------
    >>> KeyEncoding("default", "/").key((1, 2))
    'c/1/2'
    >>> KeyEncoding("v2", ".").keys(np.array([[0, 0], [0, 1]]))
    ['0.0', '0.1']
    >>> KeyEncoding("default", "/").parse("c/1/2")
    (1, 2)
    """

    kind: Literal["default", "v2"]
    separator: Literal["/", "."]

    def key(self, coords: tuple[int, ...]) -> str:
        """The key of one chunk."""
        parts = [str(int(c)) for c in coords]
        if self.kind == "default":
            parts.insert(0, "c")
        return self.separator.join(parts) or "0"

    def keys(self, coords: npt.NDArray[np.int64], prefix: str = "") -> list[str]:
        """The keys of many chunks, each behind ``prefix``.

        ``coords`` is (n, ndim).  Every coordinate is turned into text once per axis, not once per
        row.
        """
        n, ndim = coords.shape
        if ndim == 0:
            return [prefix + self.key(())] * n
        if n == 0:
            return []
        columns = []
        for axis in range(ndim):
            before = prefix + self.lead if axis == 0 else self.separator
            columns.append(_texts(coords[:, axis], before))
        if ndim == 1:
            return columns[0]
        return list(map("".join, zip(*columns, strict=True)))

    @property
    def lead(self) -> str:
        """What stands before the first coordinate."""
        return f"c{self.separator}" if self.kind == "default" else ""

    def grid(self, coords: Sequence[Iterable[int]], prefix: str = "") -> list[str]:
        """The keys of a small grid in C order, given its coordinates along each axis, one or more.

        >>> KeyEncoding("v2", ".").grid([[0, 1], [5]], "a/")
        ['a/0.5', 'a/1.5']
        """
        separator, lead = self.separator, prefix + self.lead
        keys = [f"{lead}{c}" for c in coords[0]]
        for axis in coords[1:]:
            ends = [f"{separator}{c}" for c in axis]
            keys = [key + end for key in keys for end in ends]
        return keys

    def parse(self, key: str, ndim: int | None = None) -> tuple[int, ...] | None:
        """The coordinates of a key, None where it is not the key of a chunk.

        ``v2`` writes ``0`` for a 0-d array and for the first chunk of a 1-d one: pass ``ndim`` to
        tell them apart and to refuse keys of other lengths.
        """
        parts = key.split(self.separator)
        if self.kind == "default":
            if parts.pop(0) != "c":
                return None
        elif ndim == 0:
            return () if key == "0" else None
        if not all(map(_is_number, parts)):
            return None
        if ndim is not None and len(parts) != ndim:
            return None
        return tuple(int(p) for p in parts)

    def to_dict(self) -> dict[str, Any]:
        """``chunk_key_encoding`` of a v3 document."""
        return {"name": self.kind, "configuration": {"separator": self.separator}}


def _is_number(text: str) -> bool:
    """Whether this is how a coordinate is written; coordinates are below 10**19."""
    plain = len(text) < 20 and text.isascii() and text.isdigit()
    return plain and (text[0] != "0" or text == "0")


def _texts(column: npt.NDArray[np.int64], before: str) -> list[str]:
    """``before`` + decimal text of every element of a column."""
    low, high = int(column.min()), int(column.max())
    if high - low < max(len(column), _DENSE) and high - low < 4 * len(column) + 16:
        table = [f"{before}{i}" for i in range(low, high + 1)]
        return list(map(table.__getitem__, (column - low).tolist()))
    values, inverse = np.unique(column, return_inverse=True)
    table = [f"{before}{i}" for i in values.tolist()]
    return list(map(table.__getitem__, inverse.tolist()))
