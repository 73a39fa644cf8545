"""Turns for writers of the same stored object, within one process.

Writing a part of a chunk or shard reads it, changes it and stores it whole; two such writes of one
object at the same time would lose one of the changes.  A write therefore holds the locks of the
objects that it changes in part.  Locks are few and shared by hash, so that they cost nothing to
keep: a table of them for each of some arrays, and a write of many objects holds its whole table.
Processes do not see each other's locks.

Imports nothing above storage; called by the engine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from zarr_gpu.storage.base import Store

__all__ = ["hold"]

NTABLES, NLOCKS = 64, 64


def _new_tables() -> list[list[threading.Lock]]:
    return [[threading.Lock() for _ in range(NLOCKS)] for _ in range(NTABLES)]


_tables = _new_tables()


def _renew() -> None:
    # A lock that another thread of the parent held would never be released in a forked child.
    global _tables
    _tables = _new_tables()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def hold(store: Store, prefix: str, keys: Iterable[str] | None) -> Iterator[None]:
    """Keep other writers of ``keys`` waiting for the time of the block.

    ``prefix`` is that of the array's keys; None as ``keys`` means all of them.
    """
    # Stores of the same place have the same text.
    locks = _tables[hash((repr(store), prefix)) % NTABLES]
    chosen = range(NLOCKS) if keys is None else sorted({hash(key) % NLOCKS for key in keys})
    held: list[threading.Lock] = []
    try:
        for number in chosen:  # always in the same order, so that writers never wait in a circle
            locks[number].acquire()
            held.append(locks[number])
        yield
    finally:
        for lock in held:
            lock.release()
