"""Decoded chunks kept in memory, so that overlapping reads decode them once.

    cache   bounded in bytes, the chunk used longest ago goes first; shared by arrays and threads
    part    the chunks of one array
    keeper  takes what one read decodes, unless the array was written to meanwhile

Imports stores and devices.base; used by the CPU device and by arrays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.devices.base import Job
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.memory import MemoryStore

__all__ = ["CachedRows", "ChunkCache", "ChunkPart", "Keeper"]

Array = npt.NDArray[Any]
Coords = tuple[int, ...]

ENTRY = 500
"""Bytes that an entry counts for besides its items; an absent chunk has no items."""

_UNKNOWN: Any = object()


class ChunkCache:
    """Decoded chunks in memory.

    For reads that overlap: patches, planes one after the other, single items.  A read takes the
    chunks that are there and leaves those that it decodes.  A cache serves any number of arrays and
    threads; the chunk used longest ago goes first.

    What is written through an array that uses the cache is dropped from it.  Other writers are not
    seen: use ``clear`` after them.

    Parameters
    ----------
    nbytes
        The most bytes that the chunks may take.

    Examples
    --------
    >>> import zarr_gpu
    >>> cache = zarr_gpu.ChunkCache(100 << 20)
    >>> store = zarr_gpu.create_array({}, data=range(8), chunks=4).store
    >>> array = zarr_gpu.open_array(store, device="cpu", cache=cache)
    >>> array[1:3], array[0:2], cache.hits, cache.misses
    (array([1, 2]), array([0, 1]), 1, 1)
    """

    def __init__(self, nbytes: int) -> None:
        if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 1:
            raise ValueError(f"a cache needs a number of bytes, 1 or more, not {nbytes!r}")
        self.nbytes = nbytes
        self.hits = self.misses = self.nbytes_used = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[ChunkPart, Coords], Array | None] = OrderedDict()
        self._parts: dict[Any, ChunkPart] = {}

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self.nbytes_used = 0
            for part in self._parts.values():
                part.epoch += 1

    def part(self, store: Store, path: str) -> ChunkPart:
        """The chunks of the array at ``path`` of ``store``."""
        # Equal stores are the same place, save for those in memory, which are equal by contents.
        place: Any = id(store.items) if isinstance(store, MemoryStore) else store
        with self._lock:
            found = self._parts.get((place, path))
            if found is None:
                found = self._parts[place, path] = ChunkPart(self, store)
            return found

    def find(self, part: ChunkPart, coords: list[Coords]) -> list[Any]:
        """For every chunk: its items, None where it is known to be absent, or ``UNKNOWN``."""
        entries = self._entries
        with self._lock:
            found = [entries.get((part, c), _UNKNOWN) for c in coords]
            for c, chunk in zip(coords, found, strict=True):
                if chunk is _UNKNOWN:
                    self.misses += 1
                else:
                    self.hits += 1
                    entries.move_to_end((part, c))
        return found

    def put(self, part: ChunkPart, epoch: int, coords: Coords, chunk: Array | None) -> None:
        """Keep a chunk, if nothing was dropped since ``epoch``."""
        size = ENTRY + _nbytes(chunk)
        if size > self.nbytes:
            return
        with self._lock:
            if epoch != part.epoch:
                return
            name = part, coords
            if name in self._entries:
                return
            self._entries[name] = chunk
            self.nbytes_used += size
            while self.nbytes_used > self.nbytes:
                _, oldest = self._entries.popitem(last=False)
                self.nbytes_used -= ENTRY + _nbytes(oldest)

    def drop(self, part: ChunkPart) -> None:
        """Drop the chunks of one array."""
        with self._lock:
            part.epoch += 1
            for name in [name for name in self._entries if name[0] is part]:
                self.nbytes_used -= ENTRY + _nbytes(self._entries.pop(name))

    def __repr__(self) -> str:
        return (
            f"<ChunkCache {self.nbytes_used} of {self.nbytes} bytes, "
            f"{self.hits} hits, {self.misses} misses>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkCache, (self.nbytes,)  # its chunks do not travel


def _nbytes(chunk: Array | None) -> int:
    if chunk is None:
        return 0
    if chunk.dtype.hasobject:
        return chunk.nbytes + sum(len(item) for item in chunk.flat if hasattr(item, "__len__"))
    return chunk.nbytes


class ChunkPart:
    """The chunks of one array.

    ``epoch`` changes whenever chunks are dropped: what was read before may be out of date.
    """

    def __init__(self, cache: ChunkCache, store: Store) -> None:
        self.cache = cache
        self.store = store  # alive as long as its name is in use
        self.epoch = 0

    def drop(self) -> None:
        """Drop all of them."""
        self.cache.drop(self)

    def indexes(self, store: Store) -> Store:
        """Where shard indexes are fetched from: they are not kept here."""
        return store

    def keeper(self) -> Keeper:
        """Takes the chunks of a read that begins now."""
        return Keeper(self)


class Keeper:
    """Takes the chunks that one read decodes."""

    def __init__(self, part: ChunkPart) -> None:
        self._part, self._epoch = part, part.epoch

    def put(self, coords: Coords, chunk: Array | None) -> None:
        """Keep a chunk, None where it is absent; nobody may change it any more."""
        self._part.cache.put(self._part, self._epoch, coords, chunk)


class CachedRows:
    """Reads the rows whose chunks are in a cache."""

    def __init__(
        self,
        part: ChunkPart,
        rows: int,
        place: Callable[[list[int], Array | None], None],
    ) -> None:
        self._part, self._rows, self._place = part, rows, place

    def rows_per_job(self, lanes: int) -> int:
        """As many as in the ordinary way, which does what is not found here."""
        return self._rows

    def read(self, job: Job) -> Sequence[Job]:
        """Place what is found; what remains must be fetched."""
        coords = [tuple(c) for c in job.batch.coords[job.lo : job.hi].tolist()]
        found = self._part.cache.find(self._part, coords)
        index = job.batch.index[job.lo : job.hi].tolist()
        missing = []
        for row, chunk in enumerate(found):
            if chunk is _UNKNOWN:
                missing.append(row)
            else:
                self._place(index[row], chunk)
        if not missing:
            return ()
        return (job,) if len(missing) == len(found) else (job.take(np.array(missing)),)
