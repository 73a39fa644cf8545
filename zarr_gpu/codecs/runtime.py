"""What a batched codec step may ask of the device it runs on.

Steps are written once, against this protocol.  ``devices/cuda_runtime.py`` implements it with CuPy,
Numba and nvCOMP, ``devices/sim_runtime.py`` with NumPy, the same kernels on the host and stand-ins
for nvCOMP.  Tables of offsets and sizes are known to the host: a step never waits for the device to
learn them.

Imports nothing of ours; used by nvcomp, the device steps and the devices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALIGNMENT",
    "ALREADY",
    "DeviceBatch",
    "DeviceStep",
    "Runtime",
    "Slot",
    "Verdicts",
    "dense",
]

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

ALREADY = object()
"""In the place of an event that has happened."""

ALIGNMENT = 16
"""Rows of dense buffers start at multiples of this many bytes."""


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """``n`` runs of bytes of one device buffer; their places are known to the host.

    ``host`` holds the same bytes at the same offsets in host memory, where they are still at hand
    (as fetched), so that headers can be read without asking the device.  ``since`` is an event
    behind which they are on the device, or ``ALREADY``; None: they are there behind all work that
    was started before.
    """

    base: Any  # device array, 1-D uint8
    offset: I64  # (n,) on the host
    nbytes: I64  # (n,) on the host
    host: U8 | None = None
    since: Any = None

    def __len__(self) -> int:
        return len(self.offset)


def dense(sizes: I64) -> tuple[I64, int]:
    """(offset of every row, total bytes) of a buffer that holds rows of ``sizes`` bytes."""
    room = (sizes + (ALIGNMENT - 1)) & ~np.int64(ALIGNMENT - 1)
    end = np.cumsum(room)
    return end - room, int(end[-1]) if len(end) else 0


@dataclass(slots=True)
class Verdicts:
    """What the steps of one batch found wrong, gathered without waiting for the device.

    ``on_host`` are rows refused before anything ran: row -> (codec, message, expected, actual).
    ``on_device`` are status arrays, 0 where a row is fine, that are read back once at the end.
    ``by_host`` are rows that a step on the device left to the CPU codec, which decoded them.
    """

    on_host: dict[int, tuple[str, str, int | None, int | None]] = field(default_factory=dict)
    on_device: list[tuple[str, Any, I64]] = field(
        default_factory=list
    )  # codec, int32[k], rows (k,)
    by_host: list[tuple[str, I64]] = field(default_factory=list)

    def refuse(
        self,
        row: int,
        codec: str,
        message: str,
        *,
        expected: int | None = None,
        actual: int | None = None,
    ) -> None:
        """Note that a row is damaged; the first word on a row counts."""
        self.on_host.setdefault(row, (codec, message, expected, actual))

    def watch(self, codec: str, status: Any, rows: I64) -> None:
        """Note device statuses: ``status[i]`` is about row ``rows[i]``; rows may repeat."""
        if len(rows):
            self.on_device.append((codec, status, rows))


class DeviceStep(ABC):
    """One codec of a chain, for a whole batch at a time."""

    codec: str
    where: str = "device"  # or "cpu": runs on host threads and uploads
    note: str = ""

    def host_reason(self, runtime: Runtime, *, encode: bool) -> str | None:
        """Why host threads do this step for every row, None where the device does it."""
        return None if self.where == "device" else self.note or "it runs on host threads"

    @abstractmethod
    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        """Every row decoded to exactly ``size`` bytes, rows in the order of ``batch``.

        Damaged rows are noted in ``verdicts``, by their number in ``batch``; what is in their place
        is undefined, and all other rows are right.
        """

    @abstractmethod
    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        """Every row encoded; offsets and sizes of the result are known to the host."""


class Slot(ABC):
    """One stage of the pipeline: a host slab that is filled while other slots are decoded."""

    host: U8

    sent: Any = None
    """The event behind the last copy to the device, for ``Runtime.beside``; None: it is unknown."""

    @abstractmethod
    def adopt(self, runtime: Runtime) -> None:
        """Serve another runtime of the same device from now on."""

    @abstractmethod
    def wait_free(self) -> None:
        """Wait until the host slab has been copied and may be filled again."""

    @abstractmethod
    def send(self, nbytes: int) -> Any:
        """Start one copy of the first ``nbytes`` to the device; later work is ordered after it."""

    @abstractmethod
    def room(self, nbytes: int) -> Any:
        """Device memory of the slot for somebody else to fill, which the host may do at once.

        May be called on another thread; waits until all work on the device copy has been done.
        """

    @abstractmethod
    def release(self) -> None:
        """Say that all work on the device copy has been started."""

    @abstractmethod
    def wait_unused(self) -> None:
        """Wait until nothing works on the memory, which may be given back then."""

    @abstractmethod
    def grow(self, nbytes: int) -> None:
        """A slab of at least ``nbytes`` in place of the present one; its bytes are lost."""


class Runtime(ABC):
    """One stream of one device, or its stand-in.

    ``counts`` counts what costs time whatever its size: ``launches``, ``nvcomp_calls``,
    ``uploads``, ``downloads``.
    """

    xp: Any
    """CuPy or NumPy."""

    nvcomp: Any
    """The batched compressors (see ``nvcomp``), or None where they are not installed."""

    peak_nbytes: int = 0
    """The most memory of ``empty`` that was in use at a time; 0 where nobody counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    @property
    @abstractmethod
    def stream(self) -> int:
        """Pointer of the stream that everything runs on; 0 for the stand-in."""

    def adopt(self, value: Any) -> Any | None:
        """``value`` as an array of this device, None where it does not live on any."""
        return None

    def target(self, out: Any) -> Any:
        """``out`` as an array of this device that may be written to.

        Raises
        ------
        TypeError
            It is none, or may not be written to.
        """
        if not isinstance(out, self.xp.ndarray):
            raise TypeError(f"out must be a {self.xp.__name__} array, not {type(out).__name__}")
        return out

    def address(self, array: Any) -> int:
        """Where the elements of an array begin."""
        return int(array.ctypes.data)

    @abstractmethod
    def empty(self, nbytes: int) -> Any:
        """Device memory, 1-D uint8, contents undefined, aligned to 256 bytes."""

    @abstractmethod
    def upload(self, host: npt.NDArray[Any]) -> Any:
        """A device copy of a host array, of the same type and shape; one copy."""

    @abstractmethod
    def download(self, device: Any) -> npt.NDArray[Any]:
        """A host copy of a device array; waits for the stream."""

    @abstractmethod
    def slot(self, nbytes: int) -> Slot:
        """A slab of host memory for encoded bytes with its twin on the device."""

    def record(self) -> Any:
        """An event behind all work started so far, for ``wait`` of any runtime of the device."""
        return None

    def beside(self, since: Any) -> AbstractContextManager[Runtime]:
        """A runtime for a block that looks at bytes which are there since an event.

        Its work and its downloads do not wait for what this runtime has been told to do; nothing of
        it may be running when the block ends.  ``since=None``: this runtime itself.
        """
        return nullcontext(self)

    def wait(self, event: Any) -> None:  # noqa: B027  the stand-in works at once
        """Let later work start after ``event``; the host does not wait."""

    @abstractmethod
    def launch(self, kernel: str, threads: int, *args: Any) -> None:
        """Run a kernel of ``zarr_gpu.kernels`` on ``threads`` threads or more."""

    @abstractmethod
    def compile_kernels(self) -> None:
        """Compile kernels for the types that they are called with; later runs find them.

        Those of number filters are compiled when they are met, as there are too many.
        """

    @property
    @abstractmethod
    def threads_per_row(self) -> int:
        """Threads that kernels which share a row among threads should be given for one row."""

    def launch_rows(self, kernel: str, rows: int, *args: Any) -> None:
        """Run a kernel that takes ``tpr`` (threads per row) first, for ``rows`` rows."""
        tpr = self.threads_per_row
        self.launch(kernel, max(1, rows) * tpr, tpr, *args)

    def upload_tables(self, tables: Sequence[npt.NDArray[Any]]) -> list[Any]:
        """Device copies of several int64 (or uint64) tables with one copy."""
        sizes = [len(t) for t in tables]
        joined = np.concatenate([np.ascontiguousarray(t).view(np.int64) for t in tables])
        device = self.upload(joined)
        result, at = [], 0
        for table, size in zip(tables, sizes, strict=True):
            part = device[at : at + size]
            result.append(part if table.dtype == np.int64 else part.view(table.dtype))
            at += size
        return result
