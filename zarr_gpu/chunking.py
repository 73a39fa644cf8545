"""From what a caller says about chunks and shards to chunk shapes.

Pure arithmetic on tuples of ints.  Imports errors only; called by ``creation``.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable
from typing import Any

from zarr_gpu.errors import MetadataError

__all__ = ["choose_chunks", "choose_shards", "guess_chunks", "parse_nbytes", "parse_shape"]

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_MAX_LENGTH = 2**63 - 1
# Bytes that a guessed chunk stays below; chunks in shards are small, since they cost no object.
_LARGEST = 64 * 2**20
_LARGEST_SHARDED = 2**20


def _parse_int(value: Any, what: str) -> int:
    """A Python int; booleans, floats and text are refused."""
    if isinstance(value, bool):
        raise MetadataError(f"{what}: whole numbers are needed, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError as error:
        raise MetadataError(f"{what}: whole numbers are needed, got {value!r}") from error
    if number > _MAX_LENGTH:
        raise MetadataError(f"{what}: {number} does not fit into 64 bits")
    return number


def parse_shape(shape: Any, what: str = "shape") -> tuple[int, ...]:
    """A shape from one whole number or several.

    Raises
    ------
    MetadataError
        A length is negative, too large or no whole number.
    """
    if isinstance(shape, (str, bytes)):
        raise MetadataError(f"{what}: whole numbers are needed, got {shape!r}")
    items = list(shape) if isinstance(shape, Iterable) else [shape]
    parsed = tuple(_parse_int(item, what) for item in items)
    if any(length < 0 for length in parsed):
        raise MetadataError(f"{what}: lengths must not be negative, got {parsed}")
    return parsed


def parse_nbytes(text: str) -> int:
    """Bytes from text such as ``"100MB"``, ``"64 MiB"`` or ``"1.5e6"``.

    Raises
    ------
    MetadataError
        The text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*([kKmMgGtT]?i?)[bB]?\s*", text)
    unit = match.group(2).lower() if match else "?"
    if match is None or unit not in _UNITS or len(text) > 40:
        raise MetadataError(
            f'chunks: a size such as "100MB" or "64MiB" is needed, got {text!r:.60}'
        )
    nbytes = float(match.group(1)) * _UNITS[unit]
    if not 1 <= nbytes <= _MAX_LENGTH:
        raise MetadataError(f"chunks: {text!r} is not between one byte and 2**63")
    return int(nbytes)


def guess_chunks(
    shape: tuple[int, ...],
    itemsize: int,
    *,
    increment: int = 256 * 1024,
    smallest: int = 128 * 1024,
    largest: float = _LARGEST,
) -> tuple[int, ...]:
    """Chunks of a size that grows slowly with the array, as h5py and zarr-python choose them.

    The wanted size doubles whenever the array becomes ten times larger; axes are halved in turn
    until a chunk is near it.
    """
    itemsize = max(itemsize, 1)
    chunks = [max(length, 1) for length in shape]
    if not chunks:
        return ()
    total = math.prod(chunks) * itemsize
    if total < 2**60:
        wanted = min(max(increment * 2 ** math.log10(total / 2**20), smallest), largest)
    else:
        wanted = largest
    axis = 0
    while True:
        count = math.prod(chunks)
        nbytes = count * itemsize
        near = nbytes < wanted or abs(nbytes - wanted) / wanted < 0.5
        if (near and nbytes < largest) or count == 1:
            return tuple(chunks)
        chunks[axis] = -(-chunks[axis] // 2)
        axis = (axis + 1) % len(chunks)


def fit_chunks(shape: tuple[int, ...], itemsize: int, limit: int) -> tuple[int, ...]:
    """The largest chunks, about as wide along every axis, of at most ``limit`` bytes.

    The longest axis is cut to what fits, but never below the next longest one; so large arrays
    get near-cubic chunks, and arrays that fit stay whole.
    """
    chunks = [max(length, 1) for length in shape]
    items = max(limit // max(itemsize, 1), 1)
    while math.prod(chunks) > items:
        longest = max(chunks)
        tied = [axis for axis, length in enumerate(chunks) if length == longest]
        shorter = max((length for length in chunks if length < longest), default=1)
        rest = math.prod(length for length in chunks if length != longest)
        # What all the longest axes may have together if they stay equal; whole-number root.
        edge = max(items // rest, 1)
        edge = _root(edge, len(tied))
        if edge >= shorter:
            for axis in tied:
                chunks[axis] = edge
            for axis in tied:  # rounding may have left room
                room = items // (math.prod(chunks) // chunks[axis])
                chunks[axis] = min(longest, room)
            break
        for axis in tied:
            chunks[axis] = shorter
    return tuple(chunks)


def _root(value: int, degree: int) -> int:
    """The largest whole number whose ``degree``-th power is at most ``value`` (at least 1)."""
    root: int = max(round(math.pow(value, 1 / degree)), 1)
    while root > 1 and root**degree > value:
        root -= 1
    while (root + 1) ** degree <= value:
        root += 1
    return root


def choose_chunks(
    chunks: Any,
    shape: tuple[int, ...],
    itemsize: int,
    *,
    partial: bool = False,
    sharded: bool = False,
) -> tuple[int, ...]:
    """Chunk shape from "auto", a size, one edge for all axes, or edges.

    ``None`` and ``-1`` as an edge mean the whole axis, and so do axes left out where ``partial``
    allows that; ``False`` means one chunk; ``True`` and ``None`` mean "auto", which makes smaller
    chunks where they are ``sharded``.  A whole axis of length 0 gets the edge 1.

    Raises
    ------
    MetadataError
        ``chunks`` is none of these, or has another number of axes than the array.
    """
    if chunks is None or chunks is True or (isinstance(chunks, str) and chunks == "auto"):
        largest = _LARGEST_SHARDED if sharded else _LARGEST
        return guess_chunks(shape, itemsize, largest=largest)
    whole = tuple(max(length, 1) for length in shape)
    if chunks is False:
        return whole
    if isinstance(chunks, str):
        return fit_chunks(shape, itemsize, parse_nbytes(chunks))
    return _parse_edges(chunks, whole, "chunks", partial=partial)


def _parse_edges(
    chunks: Any, whole: tuple[int, ...], what: str, *, partial: bool = False
) -> tuple[int, ...]:
    """Edges from one for all axes or several; ``whole`` is what ``None`` and ``-1`` stand for."""
    if isinstance(chunks, bytes) or not isinstance(chunks, Iterable):
        edges = [chunks] * len(whole)
        if not edges:
            _parse_int(chunks, what)
    else:
        edges = list(chunks)
    if len(edges) > len(whole) or (len(edges) < len(whole) and not partial):
        raise MetadataError(
            f"{what}: {tuple(edges)} must have as many axes as the shape, {len(whole)}"
        )
    parsed = []
    for axis, length in enumerate(whole):
        edge = edges[axis] if axis < len(edges) else None
        number = length if edge is None else _parse_int(edge, what)
        number = length if number == -1 else number
        if number < 1:
            raise MetadataError(f"{what}: the edge of axis {axis} must be at least 1, got {number}")
        parsed.append(number)
    return tuple(parsed)


def choose_shards(shards: Any, shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Shard shape from "auto" or edges.

    "auto" puts two chunks into a shard along every axis of more than eight chunks, as zarr-python
    does.  ``None`` and ``-1`` as an edge mean as many chunks as cover the axis.

    Raises
    ------
    MetadataError
        An edge is no multiple of the chunk's edge.
    """
    if shards is True or (isinstance(shards, str) and shards == "auto"):
        return tuple(
            2 * edge if length // edge > 8 else edge
            for length, edge in zip(shape, chunks, strict=True)
        )
    if isinstance(shards, str):
        raise MetadataError(f'shards: "auto" or edges are needed, got {shards!r:.60}')
    whole = tuple(
        edge * max(-(-length // edge), 1) for length, edge in zip(shape, chunks, strict=True)
    )
    parsed = _parse_edges(shards, whole, "shards")
    for axis, (outer, inner) in enumerate(zip(parsed, chunks, strict=True)):
        if outer % inner:
            raise MetadataError(
                f"shards: {parsed} is no multiple of the chunks {chunks} along axis {axis}"
            )
    return parsed
