"""A store that keeps what it has read, in memory or in a folder.

What is kept are stored bytes, before decoding: whole values and byte ranges.  Imports
``storage.base``, ``storage.cache_space`` and ``storage.wrapper``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.extents import REST, HostMemory, Memory
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view, gather
from zarr_gpu.storage.cache_space import ABSENT, FolderSpace, MemorySpace
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.wrapper import Wrapper

__all__ = ["CacheStore"]


class CacheStore(Wrapper):
    """``store``, of which at most ``max_bytes`` bytes that were read are kept.

    What was used longest ago goes first.  A range is answered from the whole value or from a larger
    range, if one of them is kept.  What is written, deleted or moved through this store is
    forgotten at once; what others change behind its back is not noticed: ``clear`` forgets all.

    Parameters
    ----------
    store
        Where values come from.
    max_bytes
        Bound of what is kept: bytes of values, and of the names they are kept under.
    folder
        Keep the values in files of this folder, which outlive the process, instead of in memory.
        Several processes may share it; each sees to the bound for itself.
    cache_missing
        Keep, too, that a key is absent.

    Attributes
    ----------
    hits, misses
        How many ranges were answered without asking ``store``, and how many were not.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> store = CacheStore(MemoryStore({"x": b"123"}), max_bytes=1000)
    >>> store.get("x"), store.get("x"), store.hits, store.misses
    (b'123', b'123', 1, 1)
    """

    def __init__(
        self,
        store: Store,
        max_bytes: int,
        *,
        folder: str | os.PathLike[str] | None = None,
        cache_missing: bool = False,
    ) -> None:
        if max_bytes < 0:
            raise InvalidKeyError("a cache has no negative size")
        self.max_bytes = max_bytes
        self.folder = None if folder is None else os.path.abspath(os.fspath(folder))  # noqa: PTH100
        self.cache_missing = cache_missing
        super().__init__(store)

    def _renew(self) -> None:
        super()._renew()
        self.hits = self.misses = 0
        self._version = 0  # of the store, as far as it was changed here
        self._space: MemorySpace | FolderSpace = (
            MemorySpace(self.max_bytes)
            if self.folder is None
            else FolderSpace(self.max_bytes, self.folder, repr(self.store))
        )

    def _settings(self) -> tuple[Any, ...]:
        return self.max_bytes, self.folder, self.cache_missing

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_space"}

    @property
    def nbytes_kept(self) -> int:
        """Bytes kept at the moment."""
        return self._space.held

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._version += 1
            self._space.clear()

    # ---- reading -------------------------------------------------------------------------------

    def _look_up(self, span: Span) -> bytes | object | None:
        """What is kept of a span: bytes, ABSENT, or None."""
        with self._lock:
            found = self._space.find(*span)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
            return found

    def _keep(self, span: Span, data: bytes | None, version: int) -> None:
        if data is None and not self.cache_missing:
            return
        with self._lock:
            if version == self._version:  # else it may be what was there before a change
                self._space.add(*span, ABSENT if data is None else data)

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        version = self._version
        found = self._look_up((key, offset, nbytes))
        if found is ABSENT:
            return None
        if isinstance(found, bytes):
            return found
        data = self.store.read(key, offset, nbytes)
        if data is None:
            self._keep((key, 0, REST), None, version)
            return None
        whole = bytes(self.check_length(as_bytes_view(data), key, offset, nbytes))
        self._keep((key, offset, nbytes), whole, version)
        return whole

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        version = self._version
        found = [self._look_up(span) for span in spans]
        wanted = [i for i, data in enumerate(found) if data is None]
        values: list[memoryview | None] = [
            memoryview(data) if isinstance(data, bytes) else None for data in found
        ]
        if wanted:
            missed = [spans[i] for i in wanted]
            base, starts, lengths = self.store.read_spans(missed, HostMemory())
            view = memoryview(base)
            for i, lo, n in zip(wanted, starts, lengths, strict=True):
                key = spans[i][0]
                if n < 0:
                    self._keep((key, 0, REST), None, version)
                    continue
                values[i] = view[lo : lo + n]
                if spans[i][2] != 0:
                    self._keep(spans[i], bytes(view[lo : lo + n]), version)
        return gather(values, memory)

    def size(self, key: str) -> int | None:
        with self._lock:
            found = self._space.find(key, 0, REST)
        if found is ABSENT:
            return None
        return len(found) if isinstance(found, bytes) else self.store.size(key)

    # ---- writing -------------------------------------------------------------------------------

    def _forget(self, key: str) -> None:
        with self._lock:
            self._version += 1
            self._space.drop(key)

    def write(self, key: str, data: memoryview) -> None:
        try:
            self.store.write(key, data)
        finally:
            self._forget(key)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        try:
            return self.store.write_if_absent(key, data)
        finally:
            self._forget(key)

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        self._check_writable()
        changed: list[str] = []

        def noted() -> Iterator[tuple[str, Buffer]]:
            for key, data in items:
                changed.append(check_key(key))
                yield key, data

        try:
            self.store.put_many(noted())
        finally:
            for key in changed:
                self._forget(key)

    def delete_many(self, keys: Iterable[str]) -> None:
        self._check_writable()
        changed: list[str] = []

        def noted() -> Iterator[str]:
            for key in keys:
                changed.append(check_key(key))
                yield key

        try:
            self.store.delete_many(noted())
        finally:
            for key in changed:
                self._forget(key)

    def remove(self, key: str) -> None:
        try:
            self.store.remove(key)
        finally:
            self._forget(key)

    def remove_prefix(self, prefix: str) -> None:
        try:
            self.store.remove_prefix(prefix)
        finally:
            self.clear()

    def rename_prefix(self, source: str, target: str) -> None:
        try:
            self.store.rename_prefix(source, target)
        finally:
            self.clear()
