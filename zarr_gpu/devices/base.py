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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.extents import ByteRequest, Extents, Memory
from zarr_gpu.plan import Batch, Plan

__all__ = ["Device", "Job", "Lane", "StepPlace"]

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

        ``existing`` are the encoded chunks as stored, for rows that ``values`` covers only partly.
        """


class Device(ABC):
    """A place where chunks are decoded and results live."""

    kind: str

    @property
    def name(self) -> str:
        """What ``get_device`` knows this device by."""
        return self.kind

    def holds(self, program: Program) -> bool:
        """Whether this device can hold and decode such items; the CPU does what others cannot."""
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

    def view(self, out: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any | None:
        """``out`` seen in another shape, None where a read must not go there straight away.

        Raises
        ------
        TypeError
            ``out`` is no array of this device.
        """
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
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
    ) -> Callable[[], Lane]:
        """Makes the lanes of one read or write."""

    @abstractmethod
    def rows_per_job(self, program: Program) -> int:
        """Rows that one job should have."""

    @abstractmethod
    def run(
        self,
        jobs: Iterable[Job],
        fetch: Callable[[Job, Memory], Extents | None],
        work: Callable[[Lane, Job, Extents | None], None],
        make_lane: Callable[[], Lane],
        *,
        lanes: int = 0,
    ) -> None:
        """Do ``fetch``, then ``work`` with what it fetched, for every job.

        Raises the first error.  ``fetch`` may be called from any thread and for parts of a job;
        ``work`` is called from one thread per lane.  ``lanes``: how many at the most (0: as many as
        the device has); 1 stays on the caller's thread.
        """

    @abstractmethod
    def places(self, program: Program) -> Sequence[StepPlace]:
        """Where the steps of a program run."""
