"""Locating: from chunk coordinates to byte ranges of stored objects.

For a whole batch at once.  Without shards a chunk is an object and nothing is read.  With shards
the indexes of all shards of the batch are fetched in one request per level of nesting; they are
small, live on the host and are remembered for the length of one read; longer only where the store
tells cheaply that an object has not changed since, so that a read never sees an index older than
itself.

Imports ``layout``; used by the engine.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zarr_gpu.errors import DataError, ShardIndexError
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, HostMemory, Memory
from zarr_gpu.layout import Layout
from zarr_gpu.stages import staged

__all__ = ["IndexSource", "Locator"]

I64 = npt.NDArray[np.int64]
_Name = tuple[int, str, int]

INDEX_CACHE_BYTES = 32 * 2**20
"""Parsed indexes that one read may keep beyond those of the batch in hand."""


class IndexSource(Protocol):
    """What a locator asks of a store."""

    def version(self, key: str) -> Hashable | None:
        """As ``Store.version``."""

    def fetch(self, request: ByteRequest, memory: Memory) -> Extents:
        """As ``Store.fetch``."""

    def nbytes(self, key: str) -> int | None:
        """As ``Store.nbytes``."""


class Locator:
    """Resolves the chunks of one read.

    Parameters
    ----------
    layout
        Of the array.
    store
        Where shard indexes are fetched from.
    """

    def __init__(self, layout: Layout, store: IndexSource) -> None:
        self.layout = layout
        self.store = store
        # (depth of nesting, key, offset of the shard in the object) -> offset and nbytes of its
        # children, None where there is no object; the first nested shard may begin where the one
        # around it does.
        self._indexes: dict[_Name, I64 | None] = {}
        self._cached = 0

    def forget(self) -> None:
        """Drop all indexes: what is located from now on lies in other objects."""
        self._indexes.clear()
        self._cached = 0

    @staged("locate")
    def locate(self, coords: I64) -> ByteRequest:
        """Byte ranges of chunks ``coords`` (n, ndim), in their order."""
        layout = self.layout
        if not layout.levels:
            return ByteRequest.whole(layout.keys(coords))
        shards = layout.levels[0].shard_of(coords)
        distinct, key_id = _distinct(shards)
        keys = layout.keys(distinct)
        offset, nbytes = self._look_up(coords, keys, key_id)
        for depth in range(1, len(layout.levels)):
            offset, nbytes = self._descend(depth, coords, keys, key_id, offset, nbytes)
        self._refuse_bombs(keys, key_id, nbytes)
        return ByteRequest(keys, key_id, offset, nbytes)

    def _look_up(self, coords: I64, keys: list[str], key_id: I64) -> tuple[I64, I64]:
        """Extents of the children, in the outermost indexes, that hold chunks ``coords``."""
        level = self.layout.levels[0]
        m = len(keys)
        indexes = self.outermost(keys)
        at = level.number_of(coords)
        if m == 1:  # its index may be large: no table
            only = indexes[0]
            found = np.tile((0, MISSING), (len(at), 1)) if only is None else only[at]
        else:
            table = np.empty((m, level.nchildren, 2), np.int64)
            for i, parsed in enumerate(indexes):
                table[i] = (0, MISSING) if parsed is None else parsed
            found = table[key_id, at]
        return found[:, 0].copy(), found[:, 1].copy()

    def outermost(self, keys: list[str]) -> list[I64 | None]:
        """Parsed indexes of objects, None where absent: those kept if unchanged, else fetched."""
        kept = self.layout.indexes
        versions = [self.store.version(key) for key in keys]
        known = [
            None if version is None else kept.get(key, version)
            for key, version in zip(keys, versions, strict=True)
        ]
        wanted = [i for i, parsed in enumerate(known) if parsed is None]
        if not wanted:
            return known
        m = len(wanted)
        # The object itself is the extent that its index lies in.
        fetched = self._fetch(
            0, keys, np.array(wanted), np.zeros(m, np.int64), np.full(m, REST, np.int64)
        )
        for i, parsed in zip(wanted, fetched, strict=True):
            known[i] = parsed
            if parsed is not None and versions[i] is not None:
                kept.put(keys[i], versions[i], parsed)
        return known

    def _descend(
        self,
        depth: int,
        coords: I64,
        keys: list[str],
        key_id: I64,
        offset: I64,
        nbytes: I64,
    ) -> tuple[I64, I64]:
        """From the extents of nested shards (one per chunk) to the extents of their children."""
        child_offset = np.zeros(len(coords), np.int64)
        child_nbytes = np.full(len(coords), MISSING, np.int64)
        present = np.flatnonzero(nbytes != MISSING)
        if not len(present):
            return child_offset, child_nbytes
        level = self.layout.levels[depth]
        pairs = np.stack((key_id[present], offset[present]), axis=1)
        distinct, shard_id = _distinct(pairs)
        first = present[_first_of(shard_id, len(distinct))]  # one chunk of each shard
        indexes = self._fetch(depth, keys, key_id[first], offset[first], nbytes[first])
        number = level.number_of(coords[present])
        order = np.argsort(shard_id, kind="stable")
        cut = np.searchsorted(shard_id[order], np.arange(1, len(distinct)))
        for parsed, rows in zip(indexes, np.split(order, cut), strict=True):
            if parsed is None:
                continue
            here = present[rows]
            child_offset[here] = offset[here] + parsed[number[rows], 0]
            child_nbytes[here] = parsed[number[rows], 1]
        self._check_inside(keys, key_id, offset, nbytes, child_offset, child_nbytes)
        return child_offset, child_nbytes

    def _fetch(
        self, depth: int, keys: list[str], key_id: I64, offset: I64, nbytes: I64
    ) -> list[I64 | None]:
        """Parsed indexes of distinct shards, None where the object is absent; one request."""
        level = self.layout.levels[depth]
        names = [(depth, keys[k], o) for k, o in zip(key_id.tolist(), offset.tolist(), strict=True)]
        wanted = [i for i, name in enumerate(names) if name not in self._indexes]
        if wanted:
            at = np.array(wanted)
            size = level.index_nbytes
            start = offset[at]
            if level.at_end:
                # Of a whole object the size is unknown: ask for its last bytes.
                whole = nbytes[at] == REST
                small = ~whole & (nbytes[at] < size)
                if small.any():
                    i = int(at[np.flatnonzero(small)[0]])
                    raise ShardIndexError(
                        "a nested shard is smaller than its index",
                        key=names[i][1],
                        expected=size,
                        actual=int(nbytes[i]),
                    )
                start = np.where(whole, -size, start + nbytes[at] - size)
            request = ByteRequest(keys, key_id[at], start, np.full(len(at), size, np.int64))
            try:
                extents = self.store.fetch(request, HostMemory())
            except DataError as err:
                raise ShardIndexError(
                    f"the index of a shard is cut off: {err.message}",
                    key=err.key,
                    expected=err.expected,
                    actual=err.actual,
                ) from err
            found = zip(wanted, extents.offset.tolist(), extents.nbytes.tolist(), strict=True)
            for i, o, size_ in found:
                parsed = None
                if size_ != MISSING:
                    data = extents.base[o : o + size_]
                    parsed = level.parse_index(data, key=names[i][1])
                    self._cached += parsed.nbytes
                self._indexes[names[i]] = parsed
            if self._cached > INDEX_CACHE_BYTES:
                self._make_room(set(names))
        return [self._indexes[name] for name in names]

    def _make_room(self, needed: set[_Name]) -> None:
        """Drop the oldest indexes of nested shards; all others serve every batch until `forget`."""
        for name in [n for n in self._indexes if n[0] and n not in needed]:
            parsed = self._indexes.pop(name)
            if parsed is not None:
                self._cached -= parsed.nbytes
            if self._cached <= INDEX_CACHE_BYTES:
                break

    def _check_inside(
        self,
        keys: list[str],
        key_id: I64,
        offset: I64,
        nbytes: I64,
        child_offset: I64,
        child_nbytes: I64,
    ) -> None:
        """A child of a nested shard must lie inside it."""
        inside = (child_nbytes == MISSING) | (child_offset + child_nbytes <= offset + nbytes)
        if not inside.all():
            i = int(np.flatnonzero(~inside)[0])
            raise ShardIndexError(
                "a chunk of a nested shard lies beyond its end",
                key=keys[int(key_id[i])],
                expected=int(child_offset[i] + child_nbytes[i] - offset[i]),
                actual=int(nbytes[i]),
            )

    def _refuse_bombs(self, keys: list[str], key_id: I64, nbytes: I64) -> None:
        """Before memory is set aside for it, hold an unlikely size against that of the object."""
        usual = 2 * self.layout.program.encoded_bound + 65536
        if int(nbytes.max()) <= usual:
            return
        suspects = np.flatnonzero(nbytes > usual)
        for k in np.unique(key_id[suspects]).tolist():
            size = self.store.nbytes(keys[k])
            largest = int(nbytes[suspects][key_id[suspects] == k].max())
            if size is not None and largest > size:
                raise ShardIndexError(
                    "a shard index asks for more bytes than the shard has",
                    key=keys[k],
                    expected=largest,
                    actual=size,
                )


def _distinct(rows: I64) -> tuple[I64, I64]:
    """(distinct rows of (n, k), the position among them of each row); ``n`` is not 0."""
    if bool((rows == rows[0]).all()):
        return rows[:1], np.zeros(len(rows), np.int64)
    spread = [int(m) + 1 for m in rows.max(axis=0)]
    if math.prod(spread) < 2**62:
        number = np.zeros(len(rows), np.int64)
        for k, m in enumerate(spread):
            number = number * m + rows[:, k]
        _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
        return rows[first], inverse.reshape(-1)
    distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
    return distinct, inverse.reshape(-1)


def _first_of(ids: I64, count: int) -> I64:
    """(count,) the position of one row of each id."""
    first = np.empty(count, np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1)
    return first
