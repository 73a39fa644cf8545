"""What a device is.

Selection, planning, locating and storage are the same for every device.  A device supplies result
memory, memory for encoded bytes to land in, and the work on a run of rows: decode and place, or
gather and encode.  The engine hands it those runs as jobs; how many at a time, in threads or in
streams, is the device's business (its lanes).

Imports nothing above locating; the devices implement it, the engine calls it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from zarr_gpu.boxes import Box, Objects
from zarr_gpu.codecs.chain import Program
from zarr_gpu.extents import ByteRequest, Extents, Memory
from zarr_gpu.plan import Batch, Plan
from zarr_gpu.storage.base import Store

if TYPE_CHECKING:
    from zarr_gpu.devices.cache import CachePart
    from zarr_gpu.devices.chunk_cache import ChunkPart

__all__ = ["BoxReader", "BoxWriter", "Device", "Job", "Lane", "Options", "RowReader", "StepPlace"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Job:
    """Rows ``lo`` to ``hi`` of a batch, and where their bytes are."""

    batch: Batch
    request: ByteRequest  # one range per row of the whole batch
    lo: int
    hi: int

    def key(self, row: int) -> str:
        """Store key of a row of the batch."""
        return self.request.keys[int(self.request.key_id[row])]

    def take(self, rows: I64) -> Job:
        """A job of some of the rows, counted from ``lo``."""
        at = self.lo + rows
        request = self.request
        return Job(
            self.batch.take(at),
            ByteRequest(request.keys, request.key_id[at], request.offset[at], request.nbytes[at]),
            0,
            len(at),
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How one read or write is done, beyond what it yields.

    ``strict``: leave nothing to the CPU.  ``verify``: hold chunks against the CPU's codecs, those
    reported as damaged (True) or all.  ``cache``: where encoded chunks of the array are kept.
    ``tell``: takes a line on what the CPU had to do instead of the device.
    """

    strict: bool = False
    verify: bool | Literal["all"] = False
    cache: CachePart | ChunkPart | None = None
    tell: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class StepPlace:
    """Where one step of a chain runs, for ``Array.explain``."""

    codec: str
    where: str  # "cpu", "cuda", "sim", or "view" for what costs only strides
    note: str = ""


class Lane(ABC):
    """One worker of a device, doing one job at a time."""

    @abstractmethod
    def decode(self, job: Job, extents: Extents, out: Any) -> None:
        """Decode the rows of ``job`` and place them in ``out``; MISSING rows get the fill value.

        ``extents`` has one entry per row of the job (``job.lo`` first).

        Raises
        ------
        ChunkDecodeError
            Names the key of the first damaged row.
        """

    @abstractmethod
    def encode(self, job: Job, existing: Extents | None, values: Any) -> list[U8 | None]:
        """Encode the rows of ``job`` with their part of ``values`` put in; None: all fill value.

        What is returned may lie in memory that the next call of this thread uses again.
        ``existing`` are the encoded chunks as stored, for rows that ``values`` covers only partly.
        """


class RowReader(Protocol):
    """Reads rows without the help of store and lane, where the device has such a way."""

    def rows_per_job(self, lanes: int) -> int:
        """Rows that one job should have, in so many lanes (0: all)."""

    def read(self, job: Job) -> Sequence[Job]:
        """Read the rows of a job; what it returns must be fetched and decoded."""


class BoxReader(Protocol):
    """Reads a box without plan, jobs and lanes, where the device has such a way."""

    def __call__(
        self, box: Box, objects: Objects, indexes: Sequence[I64 | None] | None, lanes: int
    ) -> bool:
        """Read a box; False: it must be read in the ordinary way.

        ``indexes`` are those of the shards that the box touches, where there are shards; ``lanes``
        as in ``Device.run``.
        """


class BoxWriter(Protocol):
    """Writes a box without plan, jobs and lanes, where the device has such a way."""

    def __call__(
        self,
        box: Box,
        objects: Objects,
        lengths: tuple[int, ...],
        values: Any,
        keep_fill: bool,
        lanes: int,
    ) -> I64:
        """Write a box; the rows, in C order, that must be written in the ordinary way.

        ``lengths`` are those of the array, ``values`` have an axis for each that the box keeps.
        """


class Device(ABC):
    """A place where chunks are decoded and results live."""

    kind: str

    box_chunks = 0
    """Chunks of a box that it reads or writes without a plan, at most."""

    cache_type: type | None = None
    """The kind of cache that can keep chunks for it."""

    def uses(self, cache: object) -> bool:
        """Whether a cache is of that kind."""
        return self.cache_type is not None and isinstance(cache, self.cache_type)

    @property
    def name(self) -> str:
        """What ``get_device`` knows this device by."""
        return self.kind

    def holds(self, program: Program) -> bool:
        """Whether this device can hold and decode such items; the CPU does what others cannot."""
        return True

    def fallbacks(self, program: Program, *, encode: bool = False) -> Sequence[str]:
        """What the CPU would do instead of this device, and why: a line each."""
        return ()

    def active(self, stream: Any = None) -> AbstractContextManager[None]:
        """A block in which the caller's thread works on this device.

        ``stream`` is the stream to work on; None: the caller's own.

        Raises
        ------
        TypeError
            ``stream`` is none of this device.
        """
        if stream is not None:
            raise TypeError(f"device {self.name!r} has no streams")
        return nullcontext()

    def warm(self) -> None:  # noqa: B027  most have nothing to prepare
        """Do now what would otherwise take time in the first reads."""

    def source(self, store: Store) -> Store:
        """The store that chunks of ``store`` should be read through."""
        return store

    def takes(self, dtype: np.dtype[Any]) -> bool:
        """Whether arrays of this type can live on the device; others stay NumPy's."""
        return True

    def result_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The type of results for items of ``dtype``."""
        return dtype

    def adopt(self, value: Any) -> Any | None:
        """``value`` as an array of this device, None where it does not live on one."""
        return None

    def upload(self, values: npt.NDArray[Any]) -> Any:
        """An array of this device with the values of a NumPy array."""
        return values

    def download(self, values: Any) -> npt.NDArray[Any]:
        """A NumPy array with the values of an array of this device, or of NumPy."""
        return np.asarray(values)

    def target(self, out: Any) -> Any:
        """``out``, which may be an array of another library, as ``view`` takes it.

        Raises
        ------
        TypeError
            ``out`` is no array of this device.
        """
        return out

    def view(self, out: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any | None:
        """``out`` seen in another shape, None where a read must not go there straight away.

        Raises
        ------
        TypeError
            ``out`` is no array of this device.
        ValueError
            ``out`` cannot be written to.
        """
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
        if not out.flags.writeable:
            raise ValueError("out is read-only")
        if out.shape == shape:
            return out
        seen = out.reshape(shape)
        return seen if np.may_share_memory(seen, out) else None

    @abstractmethod
    def output(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> Any:
        """Result memory, contents undefined."""

    @abstractmethod
    def lane_maker(
        self,
        program: Program,
        plan: Plan,
        *,
        fill_value: Any,
        fields: str | list[str] | None,
        keep_fill_chunks: bool,
        options: Options,
    ) -> Callable[[], Lane]:
        """Makes the lanes of one read or write."""

    def box_reader(
        self, program: Program, store: Store, fill_value: Any, out: Any
    ) -> BoxReader | None:
        """A way to read boxes of ``store`` into ``out``, None where there is none but plans."""
        return None

    def box_writer(
        self, program: Program, store: Store, fill_value: Any, values: Any
    ) -> BoxWriter | None:
        """A way to write ``values`` as a box of ``store``, None where there is none but plans."""
        return None

    def row_reader(
        self,
        program: Program,
        plan: Plan,
        store: Store,
        fill_value: Any,
        out: Any,
        options: Options,
    ) -> RowReader | None:
        """A faster way to read rows of ``store`` into ``out``, None where there is none."""
        return None

    @abstractmethod
    def rows_per_job(self, program: Program, *, requests: int = 1) -> int:
        """Rows that one job should have, where the store likes ``requests`` at a time."""

    @abstractmethod
    def run(
        self,
        jobs: Iterable[Job],
        fetch: Callable[[Job, Memory], Extents | None],
        work: Callable[[Lane, Job, Extents | None], None],
        make_lane: Callable[[], Lane],
        *,
        lanes: int = 0,
        source: Store | None = None,
        reader: RowReader | None = None,
    ) -> None:
        """Do ``fetch``, then ``work`` with what it fetched, for every job.

        Raises the first error.  ``fetch`` may be called from any thread and for parts of a job;
        ``work`` is called from one thread per lane.  ``lanes``: how many at the most (0: as many as
        the device has); 1 stays on the caller's thread.  ``source``: what ``fetch`` reads from,
        where it does nothing but fetch the job's request; a device may then fetch less.  ``reader``
        does jobs without either; what it leaves is fetched.
        """

    @abstractmethod
    def places(self, program: Program, *, rows: int | None = None) -> Sequence[StepPlace]:
        """Where the steps of a program run, for a read of so many rows (None: many)."""
