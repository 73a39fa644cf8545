"""The short way of files to a slab: one compiled loop opens, measures, reads and closes them.

Reader threads that fetch file by file in Python wait for each other's turn at the interpreter, and
for that of the thread that decodes.  Here each calls ``kernels.host_files`` once for a job; in it
they share the rows, without the interpreter.  Nothing is ever reported from there: what is not as
it should be is left to ``fetch``, which says what is wrong.

Imports ``host_rows`` for where values lie; used by staging.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.devices.base import Job
from zarr_gpu.devices.compiled import addresses, load_files
from zarr_gpu.devices.host_rows import ENCODED_SLACK, Places, places_of
from zarr_gpu.extents import Files
from zarr_gpu.stages import stage
from zarr_gpu.storage.base import Store

__all__ = ["FileLoop", "FileRead"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

AGAIN = -3
"""As a length: left to ``fetch``; see ``kernels.host_files``."""

MOST_AT_ONCE = 32
"""Rows that a thread takes at a time, at most: small ones are not worth a look at the counter."""


class FileLoop:
    """Reads the rows of jobs of one store.

    Parameters
    ----------
    files
        Where values lie.
    read_files
        The compiled loop.
    most
        Bytes that a row may have.
    """

    def __init__(self, files: Files, read_files: Callable[..., int], most: int) -> None:
        self._files, self._read_files, self._most = files, read_files, most
        self._keys: list[str] | None = None
        self._places: Places | None = None

    @classmethod
    def of(cls, source: Store | None, program: Program) -> FileLoop | None:
        """None where values lie in no files, or the loop cannot be used."""
        files = None if source is None else source.files()
        read_files = None if files is None else load_files()
        if files is None or read_files is None:
            return None
        return cls(files, read_files, program.encoded_bound + ENCODED_SLACK)

    def begin(self, job: Job, readers: int) -> FileRead:
        """A read of a job by up to so many threads."""
        if self._places is None or self._keys is not job.request.keys:
            self._keys = job.request.keys
            self._places = places_of(self._files, self._keys)
        return FileRead(self._read_files, self._places, job, self._most, readers)


class FileRead:
    """The rows of one job on their way to a slab.

    Attributes
    ----------
    threads
        How many may share the work.
    at, nbytes
        (rows,) where in the slab each row is, and its length; MISSING and AGAIN.
    """

    def __init__(
        self,
        read_files: Callable[..., int],
        places: Places,
        job: Job,
        most: int,
        readers: int,
    ) -> None:
        self._read_files, self._places, self._most = read_files, places, most
        request = job.request.take(job.lo, job.hi)
        self._ranges = [
            np.ascontiguousarray(a) for a in (request.key_id, request.offset, request.nbytes)
        ]
        rows = len(request)
        self.at, self.nbytes = np.empty(rows, np.int64), np.empty(rows, np.int64)
        self._counters = np.zeros(2, np.int64)
        self._group = max(1, min(rows // (4 * readers), MOST_AT_ONCE))
        self.threads = min(readers, -(-rows // self._group))

    def run(self, slab: U8) -> None:
        """Take part until all rows are taken."""
        places = self._places
        with stage("fetch"):
            self._read_files(
                *(self._counters, len(self.at), self._group),
                *(places.kind, places.descriptor, places.path.copy(), places.prefix),
                *(places.keys, places.key_at, places.values),
                *(*self._ranges, self._most, addresses(None), slab, self.at, self.nbytes),
            )

    @property
    def wanted(self) -> int:
        """Bytes that the slab needs for what was found; more than it has if it was too small."""
        return int(self._counters[1])

    def again(self) -> None:
        """Begin anew, for another slab."""
        self._counters[:] = 0

    @property
    def left(self) -> I64:
        """Rows that ``fetch`` must get."""
        return np.flatnonzero(self.nbytes == AGAIN)
