"""Rows read straight from files by one compiled loop, on the CPU.

Where the values of a store lie in files (or in memory), chunks are plain arrays and their one codec
has C functions, a lane need not fetch and decode row by row in Python: ``kernels.host_rows`` does
all rows of a job in one call, without the GIL.  :class:`RowLoop` turns a plan into the numbers that
the loop takes.  Rows that the loop refuses are read in the ordinary way, which finds the error.

The loop is compiled by Numba (extra ``fast``), which costs some tenths of a second to load and some
seconds once per installation: :func:`wanted` tells when that pays.

Imports plan, the program, storage and native codecs; used by the CPU device.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.bytes import BytesCodec
from zarr_gpu.codecs.chain import Program
from zarr_gpu.codecs.native import Decoder
from zarr_gpu.config import config, usable_threads
from zarr_gpu.devices.base import Job
from zarr_gpu.devices.scratch import scratch
from zarr_gpu.errors import MissingDependencyError
from zarr_gpu.extents import REST, Files
from zarr_gpu.plan import AxisSet, Plan

__all__ = [
    "Range",
    "RowLoop",
    "chunk_strides",
    "load",
    "make_row_loop",
    "prepare",
    "read_single",
    "wanted",
]

Array = npt.NDArray[Any]
Range = tuple[int, int, int, bool]
"""Of one axis: first item in the chunk, number of items, step, and whether the result has it."""

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

PAYS_AFTER = 16384
"""Rows that Python reads before the compiled loop is loaded: about the time that loading takes."""

PAYS_TO_COMPILE = 16 * PAYS_AFTER
"""The same where it must be compiled first."""

ENCODED_SLACK = 1 << 16
"""Room beyond the usual size of an encoded chunk, also for small neighbours read with it."""

MOST_SINGLE = 64 << 20
"""Decoded bytes of a chunk that is read without a plan: of larger ones a plan costs nothing."""

JOB_NBYTES = 1 << 20
MAX_ROWS = 1024
"""Decoded bytes of a job at least, where chunks are many, and its rows at most."""

_rows_so_far = 0
_loop: Callable[..., int] | None = None
_lock = threading.Lock()


def wanted(rows: int) -> bool:
    """Whether a read of so many rows should take the compiled loop (setting ``cpu.compiled``)."""
    global _rows_so_far
    setting = config.get("cpu.compiled")
    if setting is False or not _supported():
        return False
    if setting is True or _loop is not None:
        return True
    _rows_so_far += rows
    if _rows_so_far <= PAYS_AFTER or not _installed():
        return False
    return _rows_so_far > PAYS_TO_COMPILE or _compiled_before()


def prepare() -> None:
    """Load the loop now, unless it cannot or shall not be used."""
    if config.get("cpu.compiled") is not False and _supported() and _installed():
        load()


def _compiled_before() -> bool:
    """Whether Numba has the loop on disk beside its source, so that it need not compile it."""
    spec = find_spec("zarr_gpu.kernels")
    folders = (spec and spec.submodule_search_locations) or ()
    return any(
        name.startswith("host_rows.read_rows-") and name.endswith(".nbi")
        for folder in folders
        if os.path.isdir(f"{folder}/__pycache__")  # noqa: PTH112  before pathlib is imported
        for name in os.listdir(f"{folder}/__pycache__")  # noqa: PTH208
    )


def _supported() -> bool:
    return os.name == "posix" and sys.maxsize > 2**32


_found: bool | None = None


def _installed() -> bool:
    global _found
    if _found is None:
        _found = find_spec("numba") is not None
    return _found


def load() -> Callable[..., int]:
    """The compiled loop.

    Raises
    ------
    MissingDependencyError
        Numba is not installed.
    """
    global _loop
    if _loop is None:
        with _lock:
            try:
                from zarr_gpu.kernels import host_rows
            except ImportError as cause:
                raise MissingDependencyError(
                    "compiled reading on the CPU needs Numba: pip install 'zarr-gpu[fast]'"
                ) from cause
            _loop = host_rows.read_rows
    return _loop


# ------------------------------------------------------------------------------ functions


class _Functions(threading.local):
    """Addresses per thread and decoder: contexts belong to one thread."""

    def __init__(self) -> None:
        self.tables: dict[Decoder | None, I64] = {}


_functions = _Functions()


def _c_library() -> list[int]:
    global _c_addresses
    if _c_addresses is None:
        library = ctypes.CDLL(None)
        errno = next(
            (f for n in ("__errno_location", "__error") if (f := getattr(library, n, None))), None
        )
        functions = [library.open, library.close, library.pread, library.lseek, errno]
        _c_addresses = [
            0 if f is None else ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions
        ]
        _c_addresses.append(os.O_RDONLY | os.O_CLOEXEC)
    return _c_addresses


_c_addresses: list[int] | None = None


def _table(decoder: Decoder | None) -> I64:
    table = _functions.tables.get(decoder)
    if table is None:
        step = [0, 0, 0]
        if decoder is not None:
            context = 0 if decoder.context is None else decoder.context()
            step = [decoder.decode, decoder.part, context]
        # Addresses are unsigned; the loop takes them as they are.
        table = np.array([*_c_library(), *step, 0], np.uint64).view(np.int64)
        _functions.tables[decoder] = table
    return table


_CODECS = {"": 0, "blosc": 1, "zstd": 2, "lz4": 3, "zlib": 4, "gzip": 4}

# ----------------------------------------------------------------------------------- rows


def chunk_strides(program: Program) -> list[int]:
    """Bytes from one position to the next along each axis of a chunk, as it is stored."""
    shape = program.spec.shape
    strides = [0] * len(shape)
    step = program.spec.dtype.itemsize
    for axis in reversed(program.permutation or range(len(shape))):
        strides[axis] = step
        step *= shape[axis]
    return strides


def plain_chunks(program: Program) -> bool:
    """Whether a decoded chunk is its items as results hold them, in C order of some axes."""
    dtype = program.spec.dtype
    return (
        not program.arrays
        and not dtype.hasobject
        and dtype.kind != "T"
        and dtype.itemsize > 0
        and isinstance(program.serializer, BytesCodec)
        and program.serializer.stored_dtype(dtype) == dtype
    )


class RowLoop:
    """What the compiled loop needs to know of one read.

    Parameters
    ----------
    program, plan
        What is read.
    decoder
        Of the program's one step, None where there is none.
    files
        Where the values lie.
    fill_value
        Of absent chunks.
    out
        The result, of ``plan.work_shape`` and the program's type.
    """

    def __init__(
        self,
        program: Program,
        plan: Plan,
        decoder: Decoder | None,
        files: Files,
        fill_value: Any,
        out: Array,
    ) -> None:
        self._read = load()
        self._decoder = decoder
        self._codec = _CODECS["" if decoder is None else decoder.codec]
        self._files = files
        self._out = out  # keeps the memory
        self._address = out.ctypes.data
        self.chunk_nbytes = program.spec.nbytes
        self.encoded_nbytes = 0 if decoder is None else program.encoded_bound + ENCODED_SLACK
        self._nchunks = plan.nchunks
        item = np.empty(1, program.spec.dtype)
        item[0] = fill_value
        self._item = item.view(np.uint8)
        self._boxes = _boxes(plan, chunk_strides(program), out.strides)
        path = np.zeros(len(files.prefix) + 4096, np.uint8)
        path[: len(files.prefix)] = np.frombuffer(files.prefix, np.uint8)
        self._path = path
        self._batch: Any = None
        self._of_batch: tuple[Any, ...] = ()
        self._lock = threading.Lock()

    def rows_per_job(self, lanes: int) -> int:
        """Few jobs, as each is a call: for one lane all rows, else several for every lane."""
        nbytes = self.chunk_nbytes
        if lanes == 1:
            return MAX_ROWS
        share = self._nchunks // ((lanes or usable_threads()) * 3)
        least = JOB_NBYTES // nbytes
        return max(1, min(max(share, least), MAX_ROWS, max(8 * JOB_NBYTES // nbytes, 1)))

    def read(self, job: Job) -> Sequence[Job]:
        """Read the rows of a job; what it returns must be read in the ordinary way."""
        try:
            encoded = scratch.encoded.empty(self.encoded_nbytes)
            decoded = scratch.chunk.empty(self.chunk_nbytes)
        except MemoryError:
            return (job,)
        status = np.empty(job.hi - job.lo, np.int64)
        request = job.request
        kind, source, keys, key_at, values, _ = self._located(job)
        again = self._read(
            job.lo,
            job.hi,
            job.batch.index,
            *self._boxes,
            kind,
            source,
            self._path.copy() if kind == 0 else self._path,
            len(self._files.prefix),
            keys,
            key_at,
            values,
            request.key_id,
            request.offset,
            request.nbytes,
            self._codec,
            _table(self._decoder),
            self._item,
            self.chunk_nbytes,
            self._address,
            encoded,
            decoded,
            status,
        )
        if not again:
            return ()
        rows = (job.lo + np.flatnonzero(status)).tolist()
        return [Job(job.batch, request, row, row + 1) for row in rows]

    def _located(self, job: Job) -> tuple[Any, ...]:
        """Where the values of a batch lie; worked out once for all of its jobs."""
        with self._lock:
            if self._batch is not job.request:
                self._of_batch = _locate(self._files, job.request.keys)
                self._batch = job.request
            return self._of_batch


def read_single(
    program: Program, files: Files, key: str, ranges: list[Range], fill_value: Any, out: Array
) -> bool:
    """Read a box of one chunk that is a file of its own; False: to be done in the ordinary way.

    ``out`` is C contiguous and has the program's type.  Much of what a plan costs is saved.
    """
    if files.values is not None or len(program.steps) > 1 or not plain_chunks(program):
        return False
    if program.spec.nbytes > MOST_SINGLE:
        return False
    decoder = None
    if program.steps:
        step = program.steps[0]
        decoder = step.codec.decoder() if step.exact else None
        if decoder is None:
            return False
    n = len(ranges)
    strides = chunk_strides(program)
    result = iter(out.strides)
    entries, steps = [], []
    for axis, (start, count, stride, kept) in enumerate(ranges):
        entries.append((start * strides[axis], 0, count))
        steps.append((stride * strides[axis], next(result) if kept else 0, 0, axis))
    item = np.empty(1, program.spec.dtype)
    item[0] = fill_value
    path = np.frombuffer(bytearray(files.prefix + os.fsencode(key) + b"\0"), np.uint8)
    encoded = 0 if decoder is None else program.encoded_bound + ENCODED_SLACK
    again: int = load()(
        0,
        1,
        np.zeros((1, n), np.int64),
        np.array(entries, np.int64).reshape(n, 3),
        np.arange(n),
        np.array(steps, np.int64).reshape(n, 4),
        _NO_STARTS,
        _NO_STARTS,
        0,
        -1,
        path,
        0,
        path,
        np.array((0, len(path)), np.int64),
        _NO_VALUES,
        _FIRST,
        _FIRST,
        _REST_OF_IT,
        _CODECS["" if decoder is None else decoder.codec],
        _table(decoder),
        item.view(np.uint8),
        program.spec.nbytes,
        out.ctypes.data,
        scratch.encoded.empty(encoded),
        scratch.chunk.empty(program.spec.nbytes),
        np.empty(1, np.int64),
    )
    return not again


_FIRST = np.zeros(1, np.int64)
_REST_OF_IT = np.full(1, REST, np.int64)
_NO_VALUES = np.empty((0, 2), np.int64)
_NO_BYTES = np.empty(0, np.uint8)
_NO_STARTS = np.empty(0, np.int64)


def _locate(files: Files, keys: list[str]) -> tuple[Any, ...]:
    if files.values is None:
        blob = np.frombuffer(bytearray(os.fsencode("\0".join(keys)) + b"\0"), np.uint8)
        ends = np.flatnonzero(blob == 0) + 1
        key_at = np.empty(len(ends) + 1, np.int64)
        key_at[0] = 0
        key_at[1:] = ends
        return 0, -1, blob, key_at, _NO_VALUES, None
    pairs, keep = files.values(keys)
    values = np.array(pairs, np.int64).reshape(len(keys), 2)
    kind = 1 if files.descriptor >= 0 else 2
    return kind, files.descriptor, _NO_BYTES, _NO_STARTS, values, keep


def make_row_loop(
    program: Program, plan: Plan, files: Files, fill_value: Any, out: Array
) -> RowLoop | None:
    """The loop for a read, None where it does not suit."""
    if len(program.steps) > 1 or out.dtype != program.spec.dtype or not plain_chunks(program):
        return None
    decoder = None
    if program.steps:
        if not program.steps[0].exact:
            return None
        decoder = program.steps[0].codec.decoder()
        if decoder is None:
            return None
    return RowLoop(program, plan, decoder, files, fill_value, out)


def _boxes(plan: Plan, strides: list[int], result: tuple[int, ...]) -> tuple[I64, ...]:
    """(entries, at, steps, src_table, dst_table); the set whose items lie closest comes last."""
    entries, steps, sources, targets = [], [], [], []
    at, total = [], 0
    used = 0
    far = [0 if s.out_axis is None else result[s.out_axis] for s in plan.sets]
    for i in sorted(range(len(far)), key=lambda i: -abs(far[i])):
        s, stride = plan.sets[i], far[i]
        n = len(s)
        at.append(total)
        total += n
        part = np.empty((n, 3), np.int64)
        part[:, 2] = s.count
        if s.src_index is None and s.dst_index is None:
            step = strides[s.axes[0]]
            np.multiply(s.src, step, out=part[:, 0])
            np.multiply(s.dst, stride, out=part[:, 1])
            steps.append((step * s.step, stride, 0, i))
        else:
            source, target = _tables(s, strides, stride)
            part[:, 0] = s.src + used
            part[:, 1] = 0
            used += len(source)
            sources.append(source)
            targets.append(target)
            steps.append((0, 0, 1, i))
        entries.append(part)
    return (
        np.concatenate(entries) if entries else np.empty((0, 3), np.int64),
        np.array(at, np.int64),
        np.array(steps, np.int64).reshape(len(steps), 4),
        np.concatenate(sources) if sources else _NO_STARTS,
        np.concatenate(targets) if targets else _NO_STARTS,
    )


def _tables(s: AxisSet, strides: list[int], stride: int) -> tuple[I64, I64]:
    """Offsets in the chunk and in the result of every item of a lookup, in bytes."""
    assert s.src_index is not None  # noqa: S101  only lookups have tables
    source = np.zeros(len(s.src_index), np.int64)
    for k, axis in enumerate(s.axes):
        source += s.src_index[:, k] * strides[axis]
    place = np.arange(len(source)) if s.dst_index is None else s.dst_index
    return source, place * stride
