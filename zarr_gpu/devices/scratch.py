"""Memory that a thread of the CPU device uses again and again, so that it stays in the cache.

Imports NumPy only; used by the CPU device and its row loop.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

__all__ = ["ScratchMemory", "aligned", "scratch"]

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
