"""Byte ranges in bulk: what is asked of a store and what comes back.

Both types describe ``n`` ranges as arrays of numbers; no Python object exists per chunk.  Used by
locating, storage and devices.  Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["MISSING", "REST", "ByteRequest", "Extents", "Files", "HostMemory", "Memory", "Sink"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

MISSING = -1
"""As ``nbytes``: there is nothing here (in a request: ask for nothing)."""

REST = -2
"""As ``nbytes`` of a request: everything from ``offset`` to the end of the value."""


@dataclass(frozen=True, slots=True)
class ByteRequest:
    """``n`` byte ranges of values in a store.

    ``key_id[i]`` is the position in ``keys`` of the key that range ``i`` belongs to.  ``offset[i]``
    counts from the start of the value or, where negative, from its end (a suffix: ``nbytes`` is
    then ``-offset`` or less).  ``nbytes[i]`` is a length, or ``REST``, or ``MISSING`` for a range
    that is known to be absent and must not be asked for.
    """

    keys: list[str]
    key_id: I64  # (n,)
    offset: I64  # (n,)
    nbytes: I64  # (n,)

    @classmethod
    def whole(cls, keys: list[str]) -> ByteRequest:
        """Ask for the whole value of every key."""
        n = len(keys)
        return cls(keys, np.arange(n), np.zeros(n, np.int64), np.full(n, REST, np.int64))

    def __len__(self) -> int:
        return len(self.key_id)

    def take(self, lo: int, hi: int) -> ByteRequest:
        """The ranges ``lo`` to ``hi``; ``keys`` is shared, so ``key_id`` stays valid."""
        return ByteRequest(self.keys, self.key_id[lo:hi], self.offset[lo:hi], self.nbytes[lo:hi])


@dataclass(frozen=True, slots=True)
class Extents:
    """``n`` byte ranges of one buffer: the answer to a :class:`ByteRequest`, in its order."""

    base: Any  # 1-D uint8 buffer of the kind of memory that was asked for
    offset: I64  # (n,)
    nbytes: I64  # (n,), MISSING where the key is absent

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(frozen=True, slots=True)
class Files:
    """Where the values of a store lie, for lanes that read them without the store's help.

    Either every value is a file of its own, whose path is ``prefix`` and the key; or ``values``
    gives (offset, nbytes) of every key: of one file, ``descriptor``, or, where that is negative, of
    this process's memory (addresses), together with what keeps that memory alive.  Of nbytes,
    MISSING is an absent key, and ``REST`` a value that only the store itself can read.
    """

    prefix: bytes = b""
    descriptor: int = -1
    values: Callable[[list[str]], tuple[list[tuple[int, int]], Any]] | None = None


@dataclass(frozen=True, slots=True)
class Sink:
    """Where the values of a store are files that lanes may write without the store's help.

    The path of a value is ``prefix`` and the key.  It is written under a temporary name, which is
    the value's with a dot before and ``suffix`` behind, with the lock of ``flock`` held, and then
    renamed.
    """

    prefix: bytes
    suffix: bytes


class Memory(Protocol):
    """Where fetched bytes should land."""

    kind: str  # "host", "pinned", "cuda"

    def empty(self, nbytes: int) -> U8:
        """A 1-D uint8 buffer of at least ``nbytes`` bytes, contents undefined.

        The buffer may be reused by the next call on the same memory.
        """


class HostMemory:
    """Fresh host memory at every call."""

    kind = "host"

    def empty(self, nbytes: int) -> U8:
        return np.empty(nbytes, np.uint8)
