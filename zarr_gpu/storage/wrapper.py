"""What every store around another store shares.

A wrapper declares what the store inside declares (concurrency, coalescing, what it can do) and
passes every primitive on.  Batches of writes reach the store inside one by one, unless a wrapper
overrides ``put_many`` and ``delete_many``, as those do that only look on.  Imports
``storage.base``; called by the wrapping stores.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from zarr_gpu.extents import Memory
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.spans import Span

__all__ = ["Wrapper"]

# By identity: equal wrappers have locks of their own.
_locked: weakref.WeakValueDictionary[int, Wrapper] = weakref.WeakValueDictionary()


def _renew_locks() -> None:
    for wrapper in list(_locked.values()):
        wrapper._lock = threading.Lock()  # noqa: SLF001  a thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class Wrapper(Store):
    """Passes every primitive on to ``store``."""

    _lock: threading.Lock

    def __init__(self, store: Store) -> None:
        self.store = store
        self.read_only = store.read_only
        self.concurrency = store.concurrency
        self.supports_listing = store.supports_listing
        self.supports_writes = store.supports_writes
        self.atomic_put_if_absent = store.atomic_put_if_absent
        self.max_gap = store.max_gap
        self.max_coalesced = store.max_coalesced
        self._renew()

    def _renew(self) -> None:
        """Make what a copy must not share: called for a new wrapper and for an unpickled one."""
        self._lock = threading.Lock()
        _locked[id(self)] = self

    def _settings(self) -> tuple[Any, ...]:
        """What makes two wrappers of equal stores equal."""
        return ()

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        return self.store.read(key, offset, nbytes)

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        return self.store.read_spans(spans, memory)

    def size(self, key: str) -> int | None:
        return self.store.size(key)

    def write(self, key: str, data: memoryview) -> None:
        self.store.write(key, data)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        return self.store.write_if_absent(key, data)

    def remove(self, key: str) -> None:
        self.store.remove(key)

    def walk(self, prefix: str) -> Iterator[str]:
        return self.store.walk(prefix)

    def children(self, prefix: str) -> Iterable[str]:
        return self.store.children(prefix)

    def remove_prefix(self, prefix: str) -> None:
        self.store.remove_prefix(prefix)

    def rename_prefix(self, source: str, target: str) -> None:
        self.store.rename_prefix(source, target)

    def close(self) -> None:
        self.store.close()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Wrapper)
            and type(self) is type(other)
            and self.store == other.store
            and self._settings() == other._settings()
        )

    def __hash__(self) -> int:
        return hash((type(self), self.store))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._renew()
