"""Memory of the CPU device that is used again: scratch memory of threads, results that are gone.

Imports NumPy only; used by the CPU device and its row loop.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import numpy.typing as npt

__all__ = ["PAGE", "ResultPool", "ScratchMemory", "aligned", "results", "scratch"]

U8 = npt.NDArray[np.uint8]

KEPT_SCRATCH = 64 << 20
"""Scratch memory that a thread keeps from one read to the next."""


PAGE = 4096


def aligned(nbytes: int) -> U8:
    """Fresh memory that begins at a page.

    What ``malloc`` returns for large sizes begins 16 bytes behind one.  The kernel copies from its
    pages to such an address at a third of the speed, as its loads and stores then look alike in
    their last twelve bits.
    """
    raw = np.empty(nbytes + PAGE, np.uint8)
    start = -raw.ctypes.data % PAGE
    return raw[start : start + nbytes]


class ResultPool:
    """Memory of results that are gone, for those to come: fresh pages cost more than decoding.

    A result is a view of a block; the block comes back when the last view of it is gone.
    """

    def __init__(self) -> None:
        self._free: list[U8] = []
        self._lock = threading.Lock()

    def take(self, nbytes: int, most: int) -> U8:
        """Memory for a result, of which up to ``most`` bytes are kept when it is gone."""
        with self._lock:
            for i, raw in enumerate(self._free):
                if nbytes <= len(raw) <= 2 * nbytes:
                    del self._free[i]
                    break
            else:
                raw = aligned(nbytes)
        block = _Block(raw)
        weakref.finalize(block, self._give_back, raw, most)
        memory: U8 = np.asarray(block)
        return memory[:nbytes]

    def _give_back(self, raw: U8, most: int) -> None:
        with self._lock:
            self._free.append(raw)
            while self._free and sum(map(len, self._free)) > most:
                del self._free[0]

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(map(len, self._free))


class _Block:
    """What a result's memory belongs to."""

    def __init__(self, raw: U8) -> None:
        self.__array_interface__ = raw.__array_interface__


results = ResultPool()


class ScratchMemory:
    """Host memory that is used again and again; grows as needed."""

    kind = "host"

    def __init__(self) -> None:
        self._buffer = aligned(0)

    def empty(self, nbytes: int) -> U8:
        if len(self._buffer) < nbytes:
            self._buffer = aligned(max(nbytes, min(2 * len(self._buffer), KEPT_SCRATCH)))
        result = self._buffer[:nbytes]
        if len(self._buffer) > KEPT_SCRATCH:
            self._buffer = aligned(0)
        return result


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.encoded = ScratchMemory()
        self.chunk = ScratchMemory()
        self.written = ScratchMemory()


scratch = _Scratch()
"""Of the calling thread: encoded bytes of a job, one decoded chunk, newly encoded bytes."""
