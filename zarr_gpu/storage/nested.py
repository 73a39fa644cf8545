"""Read-only: arrays of zarr-python 2's ``NestedDirectoryStore``, as their metadata should be.

That store kept the chunks ``0.1`` as ``0/1``, and before version 2.8 did not say so in ``.zarray``.
Read as they stand, such arrays seem to have no chunks at all.

Imports ``errors``, ``extents`` and ``storage.base``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from zarr_gpu.errors import MetadataError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.spans import Span

__all__ = ["NestedStore"]


class NestedStore(Store):
    """A store whose Zarr 2 arrays have ``"dimension_separator": "/"``, where they say nothing.

    Parameters
    ----------
    store
        Holds the files.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> NestedStore(MemoryStore({"x/.zarray": b"{}", "x/0/1": b"chunk"})).get("x/.zarray")
    b'{"dimension_separator": "/"}'
    """

    supports_writes = False
    read_only = True

    def __init__(self, store: Store) -> None:
        self.store = store
        self.concurrency = store.concurrency
        self.supports_listing = store.supports_listing
        self.max_gap = store.max_gap
        self.max_coalesced = store.max_coalesced

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        change = _changes(key)
        if change is None:
            return self.store.read(key, offset, nbytes)
        data = self.store.read(key, 0, REST)
        if data is None:
            return None
        try:
            document = json.loads(bytes(data))
            change(document)
        except (ValueError, TypeError, AttributeError, RecursionError) as cause:
            raise MetadataError(f"not a document of metadata: {cause}", key=key) from cause
        value = json.dumps(document).encode()
        return value[offset:] if nbytes == REST else value[offset : offset + nbytes]

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if any(_changes(key) is not None for key, _, _ in spans):
            return super().read_spans(spans, memory)
        return self.store.read_spans(spans, memory)

    def size(self, key: str) -> int | None:
        if _changes(key) is None:
            return self.store.size(key)
        data = self.read(key, 0, REST)
        return None if data is None else len(data)

    def walk(self, prefix: str) -> Iterator[str]:
        return self.store.walk(prefix)

    def children(self, prefix: str) -> Iterable[str]:
        return self.store.children(prefix)

    def close(self) -> None:
        self.store.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NestedStore) and self.store == other.store

    def __hash__(self) -> int:
        return hash((NestedStore, self.store))

    def __repr__(self) -> str:
        return f"NestedStore({self.store!r})"


def _separate(document: Any) -> None:
    document.setdefault("dimension_separator", "/")


def _separate_all(document: Any) -> None:
    for key, value in document["metadata"].items():
        if key.rpartition("/")[2] == ".zarray":
            _separate(value)


def _changes(key: str) -> Any:
    """What is to be done to a document; None for all other keys."""
    return {".zarray": _separate, ".zmetadata": _separate_all}.get(key.rpartition("/")[2])
