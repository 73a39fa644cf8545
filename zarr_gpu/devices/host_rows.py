"""Rows read straight from files by one compiled loop, on the CPU.

Where the values of a store lie in files (or in memory), chunks are plain arrays and their one codec
has C functions, a lane need not fetch and decode row by row in Python: ``kernels.host_rows`` does
all rows of a job in one call, without the GIL.  :class:`Chunks` says how chunks are decoded,
:class:`RowLoop` turns a plan into the numbers that the loop takes, :func:`read_single` does without
a plan.  Rows that the loop refuses are read in the ordinary way, which finds the error.

Imports plan, the program and ``compiled``; used by the CPU device.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.codecs.native import Decoder
from zarr_gpu.config import usable_threads
from zarr_gpu.devices.base import Job, Range
from zarr_gpu.devices.compiled import addresses, load
from zarr_gpu.devices.scratch import scratch
from zarr_gpu.extents import REST, Files
from zarr_gpu.plan import AxisSet, Plan

__all__ = ["Chunks", "Places", "RowLoop", "places_of", "read_single"]

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

ENCODED_SLACK = 1 << 16
"""Room beyond the usual size of an encoded chunk, also for small neighbours read with it."""

MOST_SINGLE = 64 << 20
"""Decoded bytes of a chunk that is read without a plan: of larger ones a plan costs nothing."""

JOB_NBYTES = 1 << 20
MAX_ROWS = 1024
"""Decoded bytes of a job at least, where chunks are many, and its rows at most."""

LONGEST_KEY = 2048
"""Room for a key, in bytes; stores refuse keys of more than 1,024."""

# Numbers that kernels.host_rows knows codecs and sources by.
_CODECS = {"": 0, "blosc": 1, "zstd": 2, "lz4": 3, "zlib": 4, "gzip": 4}
_PATHS, _DESCRIPTOR, _MEMORY = range(3)

_FIRST = np.zeros(1, np.int64)
_REST_OF_IT = np.full(1, REST, np.int64)
_NO_VALUES = np.empty((0, 2), np.int64)
_NO_BYTES = np.empty(0, np.uint8)
_NO_STARTS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the values of some keys lie, as the loop wants to be told."""

    kind: int
    descriptor: int
    path: U8  # the beginning of every path, with room for the rest
    prefix: int  # bytes of that beginning
    keys: U8  # the rest of each path and a NUL
    key_at: I64  # (n + 1,) where each begins
    values: I64  # (n, 2) (offset or address, nbytes)
    keep: Any = None  # what must stay alive as long as the addresses are used


@dataclass(frozen=True, slots=True)
class Boxes:
    """What of which chunk goes where; see ``kernels.host_rows``."""

    entries: I64  # (e, 3)
    at: I64  # (nsets,)
    steps: I64  # (nsets, 4)
    src_table: I64  # of lookups, empty where there is none
    dst_table: I64


@dataclass(frozen=True, slots=True)
class Chunks:
    """How the loop decodes the chunks of an array, and what absent ones hold."""

    program: Program
    decoder: Decoder | None  # of the program's one step, None where there is none
    item: U8  # bytes of one item of fill value

    @classmethod
    def of(cls, program: Program, fill_value: Any) -> Chunks | None:
        """None where the loop cannot decode them."""
        if len(program.steps) > 1 or not program.plain:
            return None
        decoder = None
        for step in program.steps:
            decoder = step.codec.decoder() if step.exact else None
            if decoder is None:
                return None
        item = np.empty(1, program.spec.dtype)
        item[0] = fill_value
        return cls(program, decoder, item.view(np.uint8))

    def read(
        self,
        lo: int,
        hi: int,
        index: I64,
        boxes: Boxes,
        places: Places,
        ranges: tuple[I64, I64, I64],
        out: int,
    ) -> list[int]:
        """Read rows ``lo`` to ``hi``; those that must be read in the ordinary way.

        ``index`` (n, nsets) are the entries of the sets, ``ranges`` (n,) each the key, the offset
        and the length of every row, ``out`` is the address of the result.
        """
        nbytes = self.program.spec.nbytes
        room = 0 if self.decoder is None else self.program.encoded_bound + ENCODED_SLACK
        try:
            encoded, decoded = scratch.encoded.empty(room), scratch.chunk.empty(nbytes)
        except MemoryError:
            return list(range(lo, hi))
        status = np.empty(hi - lo, np.int64)
        again = load()(
            *(lo, hi, index),
            *(boxes.entries, boxes.at, boxes.steps, boxes.src_table, boxes.dst_table),
            *(places.kind, places.descriptor, places.path, places.prefix),
            *(places.keys, places.key_at, places.values),
            *ranges,
            _CODECS["" if self.decoder is None else self.decoder.codec],
            addresses(self.decoder),
            *(self.item, nbytes, out, encoded, decoded, status),
        )
        return (lo + np.flatnonzero(status)).tolist() if again else []


class RowLoop:
    """Reads the rows of a plan.

    Parameters
    ----------
    chunks, plan
        What is read.
    files
        Where the values lie.
    out
        The result, of ``plan.work_shape`` and the program's type.
    """

    def __init__(self, chunks: Chunks, plan: Plan, files: Files, out: Array) -> None:
        self._chunks, self._files = chunks, files
        self._out = out  # keeps the memory
        self._address = out.ctypes.data
        self._nchunks = plan.nchunks
        self._boxes = _boxes(plan, chunks.program.strides, out.strides)
        self._request: Any = None
        self._places: Places | None = None
        self._lock = threading.Lock()

    def rows_per_job(self, lanes: int) -> int:
        """Few jobs, as each is a call: for one lane all rows, else several for every lane."""
        nbytes = self._chunks.program.spec.nbytes
        if lanes == 1:
            return MAX_ROWS
        share = self._nchunks // ((lanes or usable_threads()) * 3)
        least = JOB_NBYTES // nbytes
        return max(1, min(max(share, least), MAX_ROWS, max(8 * JOB_NBYTES // nbytes, 1)))

    def read(self, job: Job) -> Sequence[Job]:
        """Read the rows of a job; what it returns must be read in the ordinary way."""
        request = job.request
        ranges = request.key_id, request.offset, request.nbytes
        places = self._located(job)
        again = self._chunks.read(
            job.lo, job.hi, job.batch.index, self._boxes, places, ranges, self._address
        )
        return [Job(job.batch, request, row, row + 1) for row in again]

    def _located(self, job: Job) -> Places:
        """Where the values of a batch lie; worked out once for all of its jobs."""
        with self._lock:
            if self._places is None or self._request is not job.request:
                self._places = places_of(self._files, job.request.keys)
                self._request = job.request
            places = self._places
        if places.kind == _PATHS:  # the loop completes the path in place
            return replace(places, path=places.path.copy())
        return places


def read_single(chunks: Chunks, files: Files, key: str, ranges: list[Range], out: Array) -> bool:
    """Read a box of one chunk that is a file of its own; False: to be done in the ordinary way.

    ``out`` is C contiguous and has the program's type.  Much of what a plan costs is saved.
    """
    if files.values is not None or chunks.program.spec.nbytes > MOST_SINGLE:
        return False
    strides = chunks.program.strides
    result = iter(out.strides)
    entries, steps = [], []
    for axis, (start, count, step, kept) in enumerate(ranges):
        entries.append((start * strides[axis], 0, count))
        steps.append((step * strides[axis], next(result) if kept else 0, 0, axis))
    n = len(ranges)
    boxes = Boxes(
        np.array(entries, np.int64).reshape(n, 3),
        np.arange(n),
        np.array(steps, np.int64).reshape(n, 4),
        _NO_STARTS,
        _NO_STARTS,
    )
    index = np.zeros((1, n), np.int64)
    first = index[0, :1] if n else _FIRST
    return not chunks.read(
        0, 1, index, boxes, places_of(files, [key]), (first, first, _REST_OF_IT), out.ctypes.data
    )


def places_of(files: Files, keys: list[str]) -> Places:
    """Where the values of keys lie; the path is for one thread at a time."""
    if files.values is None:
        blob = np.frombuffer(bytearray(os.fsencode("\0".join(keys)) + b"\0"), np.uint8)
        ends = np.flatnonzero(blob == 0) + 1
        key_at = np.empty(len(ends) + 1, np.int64)
        key_at[0] = 0
        key_at[1:] = ends
        prefix = len(files.prefix)
        path = np.frombuffer(bytearray(files.prefix + bytes(LONGEST_KEY)), np.uint8)
        return Places(_PATHS, -1, path, prefix, blob, key_at, _NO_VALUES)
    pairs, keep = files.values(keys)
    values = np.array(pairs, np.int64).reshape(len(keys), 2)
    kind = _DESCRIPTOR if files.descriptor >= 0 else _MEMORY
    return Places(kind, files.descriptor, _NO_BYTES, 0, _NO_BYTES, _NO_STARTS, values, keep)


def _boxes(plan: Plan, strides: tuple[int, ...], result: tuple[int, ...]) -> Boxes:
    """Of a plan; the set whose items lie closest comes last."""
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
    return Boxes(
        np.concatenate(entries) if entries else np.empty((0, 3), np.int64),
        np.array(at, np.int64),
        np.array(steps, np.int64).reshape(len(steps), 4),
        np.concatenate(sources) if sources else _NO_STARTS,
        np.concatenate(targets) if targets else _NO_STARTS,
    )


def _tables(s: AxisSet, strides: tuple[int, ...], stride: int) -> tuple[I64, I64]:
    """Offsets in the chunk and in the result of every item of a lookup, in bytes."""
    assert s.src_index is not None  # noqa: S101  only lookups have tables
    source = np.zeros(len(s.src_index), np.int64)
    for k, axis in enumerate(s.axes):
        source += s.src_index[:, k] * strides[axis]
    place = np.arange(len(source)) if s.dst_index is None else s.dst_index
    return source, place * stride
