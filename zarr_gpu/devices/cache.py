"""Encoded chunks kept in device memory, so that they are decoded again without being read again.

A cache is one arena on the device with a ring of entries: what is new is put behind what was put
last, and takes the place of the oldest entries.  Reads copy what they fetched into the arena with
one launch per job, and decode what they find there from where it lies.

    part    the entries of one array
    hold    what one job finds in the cache; its entries stay until it is let go

All bookkeeping is on the host, under one lock.  Streams are ordered by events: whoever writes to
the arena waits for the reads that other streams have started, whoever reads waits for the writes.

Imports the device helpers and stores; used by the CUDA device and by arrays.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.device_rows import copy_rows
from zarr_gpu.codecs.runtime import ALREADY, Runtime
from zarr_gpu.errors import DeviceError
from zarr_gpu.extents import MISSING, ByteRequest, Extents, Memory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.memory import MemoryStore

__all__ = ["CachePart", "DeviceCache", "Hold"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Name = tuple[str, int, int]  # key, offset, nbytes as asked for

CELL = 64
"""Entries start at multiples of this in the arena; an absent chunk takes one."""

ENTRY = 200
"""What a shard index costs besides its bytes."""

INDEX_SHARE = 16
"""Shard indexes are kept on the host, up to this part of the size of the cache."""


@dataclass(slots=True, eq=False)
class Entry:
    part: CachePart
    name: Name
    start: int
    room: int
    nbytes: int  # MISSING: the chunk is absent
    users: int = 0  # holds, and the job that is putting it in


class Arena:
    """The memory of a cache, and who lies where in it; ``lock`` guards every use."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.lock = threading.RLock()
        self.device: str | None = None
        self.memory: Any = None
        self.hits = self.misses = self.used = 0
        self._head = 0
        self._ring: deque[Entry] = deque()  # oldest first: their places follow each other
        self._written: Any = None  # event behind the last write
        self._reads: dict[int, Any] = {}  # stream -> event behind its last read

    def attach(self, device: str) -> None:
        """Belong to this device; raise DeviceError where it is another one's already."""
        if self.device not in (None, device):
            raise DeviceError(
                f"the cache lives on device {self.device!r} and cannot serve {device!r}"
            )
        self.device = device

    def make_room(self, part: CachePart, name: Name, nbytes: int) -> Entry | None:
        """A place behind the last entry; None where it would have to wait for a read."""
        room = max(CELL, (nbytes + CELL - 1) // CELL * CELL)
        if room > self.nbytes:
            return None
        ring, start = self._ring, self._head
        if start + room > self.nbytes:
            while ring and ring[0].start >= start:  # the oldest lie between here and the end
                if not self._evict():
                    return None
            start = 0
        while ring and ring[0].start < start + room and ring[0].start + ring[0].room > start:
            if not self._evict():
                return None
        # In use, so that what follows in the same job does not take its place.
        entry = Entry(part, name, start, room, nbytes, users=1)
        self._head = start + room
        ring.append(entry)
        return entry

    def _evict(self) -> bool:
        """Remove the oldest entry unless somebody uses it."""
        if self._ring[0].users:
            return False
        self.forget(self._ring.popleft())
        return True

    def add(self, entry: Entry) -> None:
        """Let an entry be found, now that its bytes are on their way."""
        entry.part.entries[entry.name] = entry
        self.used += max(entry.nbytes, 0)

    def forget(self, entry: Entry) -> None:
        """Let an entry be found no more; its place is used again when its turn comes."""
        if entry.part.entries.get(entry.name) is entry:
            del entry.part.entries[entry.name]
            self.used -= max(entry.nbytes, 0)

    def before_read(self, runtime: Runtime) -> Any:
        """Order what comes after what was written; the event behind that."""
        if self._written is None:
            return ALREADY
        runtime.wait(self._written)
        return self._written

    def after_read(self, runtime: Runtime) -> None:
        """All reads of this stream have been started."""
        self._reads[runtime.stream] = runtime.record()

    def write(self, runtime: Runtime, base: Any, source: I64, target: I64, nbytes: I64) -> None:
        """Copy rows of a device buffer into the arena, after all that was done with it before."""
        if self.memory is None:
            self.memory = runtime.empty(self.nbytes)
        self.before_read(runtime)
        for event in self._reads.values():  # of this stream too: its address may have been reused
            runtime.wait(event)
        self._reads.clear()
        copy_rows(runtime, base, source, self.memory, target, nbytes)
        self._written = runtime.record()


class DeviceCache:
    """Encoded chunks in device memory.

    A read looks there first, fetches only what is missing, and leaves what it fetched.  A cache
    belongs to the device that uses it first and may be shared by any number of arrays and threads.
    The oldest entries go first; chunks that are read over and over in the same order need a cache
    that holds all of them.

    What is written through an array that uses the cache is dropped from it.  Other writers are not
    seen: use ``clear`` after them.

    Parameters
    ----------
    nbytes
        Device memory to use, taken on first use and kept as long as the cache lives.

    Examples
    --------
    >>> from zarr_gpu.devices.cache import DeviceCache
    >>> cache = DeviceCache(1 << 20)
    >>> cache.hits, cache.misses, cache.nbytes_used
    (0, 0, 0)
    """

    def __init__(self, nbytes: int) -> None:
        if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < CELL:
            raise ValueError(f"a cache needs a number of bytes, {CELL} or more, not {nbytes!r}")
        self._arena = Arena(nbytes // CELL * CELL)
        self._shelf = IndexShelf(max(1 << 20, nbytes // INDEX_SHARE))
        self._parts: dict[Any, CachePart] = {}

    @property
    def nbytes(self) -> int:
        """Device memory for chunks."""
        return self._arena.nbytes

    @property
    def hits(self) -> int:
        """Chunks found so far; chunks that a shard index names absent do not count."""
        return self._arena.hits

    @property
    def misses(self) -> int:
        """Chunks not found so far."""
        return self._arena.misses

    @property
    def nbytes_used(self) -> int:
        """Bytes of the encoded chunks that are kept."""
        return self._arena.used

    def clear(self) -> None:
        """Drop everything; the memory is kept for what comes next."""
        with self._arena.lock:
            for part in self._parts.values():
                part.drop()

    def part(self, store: Store, path: str) -> CachePart:
        """The entries of the array at ``path`` of ``store``."""
        with self._arena.lock:
            name = (_place_of(store), path)
            found = self._parts.get(name)
            if found is None:
                found = self._parts[name] = CachePart(self._arena, self._shelf, store)
            return found

    def __repr__(self) -> str:
        return (
            f"<DeviceCache {self.nbytes_used} of {self.nbytes} bytes, "
            f"{self.hits} hits, {self.misses} misses>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return DeviceCache, (self.nbytes,)  # device memory does not travel


class CachePart:
    """What a cache keeps of one array.

    Attributes
    ----------
    epoch
        Changes whenever entries are dropped.  What was fetched in an earlier epoch may be older
        than what is stored, and is not kept.
    """

    def __init__(self, arena: Arena, shelf: IndexShelf, store: Store) -> None:
        self.arena, self.shelf = arena, shelf
        self.store = store  # alive as long as its name is in use
        self.entries: dict[Name, Entry] = {}
        self.epoch = 0

    def drop(self) -> None:
        """Drop all entries of this array."""
        with self.arena.lock:
            self.epoch += 1
            for entry in list(self.entries.values()):
                self.arena.forget(entry)
            self.shelf.drop(self)

    def hold(self, request: ByteRequest, device: str) -> Hold:
        """What the cache has of ``request``; let it go after the work on it has been started."""
        arena, keys = self.arena, request.keys
        n = len(request)
        ready = request.nbytes == MISSING
        start, nbytes = np.zeros(n, np.int64), np.full(n, MISSING, np.int64)
        held: list[Entry] = []
        wanted = np.flatnonzero(~ready)
        with arena.lock:
            arena.attach(device)
            for row, name in zip(wanted.tolist(), _names(keys, request, wanted), strict=True):
                entry = self.entries.get(name)
                if entry is not None:
                    entry.users += 1
                    held.append(entry)
                    ready[row] = True
                    start[row], nbytes[row] = entry.start, entry.nbytes
            arena.hits += len(held)
            arena.misses += len(wanted) - len(held)
        return Hold(arena, held, ready, start, nbytes)

    def keep(
        self, runtime: Runtime, request: ByteRequest, base: Any, extents: Extents, epoch: int
    ) -> None:
        """Copy the answer to ``request``, which lies in the device buffer ``base``, to the arena.

        One upload and one launch.  Rows that are too large, or whose place is in use, are left out.
        """
        rows = np.flatnonzero(request.nbytes != MISSING)
        sizes = extents.nbytes[rows].tolist()
        made: list[Entry] = []
        source: list[int] = []
        with self.arena.lock:
            if epoch != self.epoch:
                return
            try:
                for row, name, nbytes in zip(
                    rows.tolist(), _names(request.keys, request, rows), sizes, strict=True
                ):
                    if name not in self.entries:
                        entry = self.arena.make_room(self, name, nbytes)
                        if entry is not None:
                            made.append(entry)
                            source.append(int(extents.offset[row]))
                self._write(runtime, base, source, made)
                for entry in made:
                    self.arena.add(entry)
            finally:
                for entry in made:
                    entry.users -= 1

    def _write(self, runtime: Runtime, base: Any, source: list[int], made: list[Entry]) -> None:
        nbytes = np.array([entry.nbytes for entry in made], np.int64)
        target = np.array([entry.start for entry in made], np.int64)
        some = np.flatnonzero(nbytes > 0)
        if len(some):
            at = np.array(source, np.int64)
            self.arena.write(runtime, base, at[some], target[some], nbytes[some])

    def indexes(self, store: Store) -> CachedIndexes:
        """Fetches the shard indexes of the array, each once."""
        return CachedIndexes(self, store)


def _names(keys: list[str], request: ByteRequest, rows: I64) -> list[Name]:
    ids, offset = request.key_id[rows].tolist(), request.offset[rows].tolist()
    return [
        (keys[k], o, n) for k, o, n in zip(ids, offset, request.nbytes[rows].tolist(), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Hold:
    """What a cache has of one request.

    ``ready`` are the rows that need not be fetched: found, or known to be absent.  ``start`` and
    ``nbytes`` say where they are in the arena, ``nbytes`` being MISSING for absent ones.
    """

    arena: Arena
    entries: list[Entry]
    ready: Bools  # (n,)
    start: I64  # (n,)
    nbytes: I64  # (n,)

    @contextmanager
    def reading(self, runtime: Runtime) -> Iterator[tuple[Any, Any]]:
        """(memory of the cache, None where it has none; the event since which entries are there).

        By the end all reads are started.
        """
        with self.arena.lock:
            since = self.arena.before_read(runtime)
        try:
            yield self.arena.memory, since
        finally:
            with self.arena.lock:
                self.arena.after_read(runtime)
                for entry in self.entries:
                    entry.users -= 1


class IndexShelf:
    """Shard indexes on the host, the oldest of which go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[tuple[CachePart, Name], bytes | None] = {}
        self._nbytes = 0

    def find(self, part: CachePart, names: list[Name]) -> dict[Name, bytes | None]:
        """Those that are there; None: the object is absent."""
        held = self._held
        return {name: held[part, name] for name in names if (part, name) in held}

    def put(self, part: CachePart, found: dict[Name, bytes | None]) -> None:
        """Keep what was fetched."""
        for name, data in found.items():
            self._nbytes += ENTRY + len(data or b"") - self._size(part, name)
            self._held[part, name] = data
        while self._nbytes > self._limit:
            self._remove(*next(iter(self._held)))

    def drop(self, part: CachePart) -> None:
        """Forget the indexes of one array."""
        for owner, name in list(self._held):
            if owner is part:
                self._remove(owner, name)

    def _remove(self, part: CachePart, name: Name) -> None:
        self._nbytes -= self._size(part, name)
        del self._held[part, name]

    def _size(self, part: CachePart, name: Name) -> int:
        if (part, name) not in self._held:
            return 0
        return ENTRY + len(self._held[part, name] or b"")


class CachedIndexes:
    """The store of a locator: answers with indexes that were fetched before."""

    def __init__(self, part: CachePart, store: Store) -> None:
        self._part, self._store = part, store

    def version(self, key: str) -> None:
        """Unknown: what is kept here is kept until the array is written to."""
        return

    def nbytes(self, key: str) -> int | None:
        return self._store.nbytes(key)

    def fetch(self, request: ByteRequest, memory: Memory) -> Extents:
        part = self._part
        names = _names(request.keys, request, np.arange(len(request)))
        with part.arena.lock:
            epoch = part.epoch
            found = part.shelf.find(part, names)
        rows = np.array([i for i, name in enumerate(names) if name not in found], np.int64)
        if len(rows):
            asked = [request.key_id[rows], request.offset[rows], request.nbytes[rows]]
            extents = self._store.fetch(ByteRequest(request.keys, *asked), memory)
            sizes = zip(
                rows.tolist(), extents.offset.tolist(), extents.nbytes.tolist(), strict=True
            )
            fresh = {
                names[i]: None if n == MISSING else extents.base[at : at + n].tobytes()
                for i, at, n in sizes
            }
            found |= fresh
            with part.arena.lock:
                if epoch == part.epoch:
                    part.shelf.put(part, fresh)
        parts = [found[name] for name in names]
        nbytes = np.array([MISSING if p is None else len(p) for p in parts], np.int64)
        room = np.maximum(nbytes, 0)
        joined = np.frombuffer(b"".join(p or b"" for p in parts), np.uint8)
        return Extents(joined, np.cumsum(room) - room, nbytes)


def _place_of(store: Store) -> Any:
    """What tells stores apart: the place for stores that mean one, else the object.

    Stores in memory are equal when their contents are, which change.
    """
    inner: Any = store
    while isinstance(getattr(inner, "store", None), Store):
        inner = inner.store
    if not isinstance(inner, MemoryStore):
        return store
    return ("memory", id(inner.items if inner is store else store))
