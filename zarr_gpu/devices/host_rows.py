"""Rows read straight from files by one compiled loop, on the CPU.

Where the values of a store lie in files (or in memory), chunks are plain arrays and their one codec
has C functions, a lane need not fetch and decode row by row in Python: ``kernels.host_rows`` does
all rows of a job in one call, without the GIL.  :class:`Chunks` says how chunks are decoded,
:class:`RowLoop` turns a plan into the numbers that the loop takes, :func:`read_box` does without
a plan.  Rows that the loop refuses are read in the ordinary way, which finds the error.

Imports plan, the program and ``compiled``; used by the CPU device.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.boxes import Box, Objects
from zarr_gpu.codecs.chain import Program
from zarr_gpu.codecs.native import Decoder
from zarr_gpu.config import usable_threads
from zarr_gpu.devices.base import Job
from zarr_gpu.devices.compiled import addresses, load
from zarr_gpu.devices.helpers import together
from zarr_gpu.devices.scratch import scratch
from zarr_gpu.extents import Files
from zarr_gpu.plan import AxisSet, Plan

__all__ = [
    "Chunks",
    "Places",
    "RowLoop",
    "address_of",
    "axes_of",
    "path_memory",
    "places_of",
    "read_box",
]

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

ENCODED_SLACK = 1 << 16
"""Room beyond the usual size of an encoded chunk, also for small neighbours read with it."""

RUN_NBYTES = 1 << 18
"""Decoded bytes of the rows that a lane draws at a time from a box."""

JOB_NBYTES = 1 << 20
MAX_ROWS = 1024
"""Decoded bytes of a job at least, where chunks are many, and its rows at most."""

LONGEST_KEY = 2048
"""Room for a key, in bytes; stores refuse keys of more than 1,024."""

# Numbers that kernels.host_rows knows codecs and sources by.
_CODECS = {"": 0, "blosc": 1, "zstd": 2, "lz4": 3, "zlib": 4, "gzip": 4}
_PATHS, _DESCRIPTOR, _MEMORY = range(3)

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
        turn: I64,
        run: int,
        index: I64,
        boxes: Boxes,
        places: Places,
        ranges: tuple[I64, I64, I64],
        out: int,
        left: I64,
    ) -> None:
        """Read rows, ``run`` at a time, until none is left to draw; several threads may do so.

        ``index`` (n, nsets) are the entries of the sets, ``ranges`` (n,) each the key, the offset
        and the length of every row, ``out`` is the address of the result.  ``turn`` (1,) is the
        next row that nobody has drawn; ``left`` (n,) becomes 0 for rows that are done, others are
        to be read in the ordinary way.
        """
        memory = self.memory()
        if memory is None:
            return
        load().read_rows(
            *(turn, run, index),
            *(boxes.entries, boxes.at, boxes.steps, boxes.src_table, boxes.dst_table),
            # The loop completes the path in place.
            *(places.kind, places.descriptor, places.path.copy(), places.prefix),
            *(places.keys, places.key_at, places.values),
            *ranges,
            *(*self.coding, out, *memory, left),
        )

    @property
    def coding(self) -> tuple[int, I64, U8, int]:
        """What the loops take to decode with in this thread."""
        codec = _CODECS["" if self.decoder is None else self.decoder.codec]
        return codec, addresses(self.decoder), self.item, self.program.spec.nbytes

    def memory(self) -> tuple[U8, U8] | None:
        """Scratch memory of this thread, for encoded bytes and for a chunk; None without memory."""
        room = 0 if self.decoder is None else self.program.encoded_bound + ENCODED_SLACK
        try:
            return scratch.encoded.empty(room), scratch.chunk.empty(self.program.spec.nbytes)
        except MemoryError:
            return None


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
        request, lo, hi = job.request, job.lo, job.hi
        left = np.ones(hi - lo, np.int64)
        self._chunks.read(
            np.zeros(1, np.int64),
            hi - lo,
            job.batch.index[lo:hi],
            self._boxes,
            self._located(job),
            (request.key_id[lo:hi], request.offset[lo:hi], request.nbytes[lo:hi]),
            self._address,
            left,
        )
        if not left.any():
            return ()
        rows = (lo + np.flatnonzero(left)).tolist()
        return [Job(job.batch, request, row, row + 1) for row in rows]

    def _located(self, job: Job) -> Places:
        """Where the values of a batch lie; worked out once for all of its jobs."""
        with self._lock:
            if self._places is None or self._request is not job.request:
                self._places = places_of(self._files, job.request.keys)
                self._request = job.request
            return self._places


def read_box(
    chunks: Chunks,
    files: Files,
    out: Array,
    box: Box,
    objects: Objects,
    indexes: Sequence[I64 | None] | None,
    lanes: int,
) -> bool:
    """Read a box into ``out``; see ``devices.base.BoxReader``."""
    program, loop = chunks.program, load().read_box
    lanes = lanes or usable_threads()
    kind, path, prefix, values, keep = _PATHS, _NO_BYTES, 0, _NO_VALUES, None
    if files.values is None:
        path, prefix = path_memory(
            files.prefix + os.fsencode(objects.prefix + objects.key_encoding.lead)
        )
    else:
        kind = _DESCRIPTOR if files.descriptor >= 0 else _MEMORY
        pairs, keep = files.values(objects.keys(box))
        values = np.array(pairs, np.int64).reshape(-1, 2)
    axes, order = axes_of(box, objects, program.strides, out.strides)
    tables = _NO_STARTS
    if indexes is not None:
        tables = np.array([0 if t is None else address_of(t) for t in indexes], np.int64)
    left, turn = np.ones(box.nchunks, np.int64), np.zeros(1, np.int64)
    run = max(1, min(RUN_NBYTES // program.spec.nbytes, box.nchunks // (3 * lanes)))
    address, separator = address_of(out), ord(objects.key_encoding.separator)

    def lane() -> None:
        memory = chunks.memory()
        if memory is not None:
            place = kind, files.descriptor, path.copy(), prefix, separator, values
            loop(turn, run, axes, order, tables, *place, *chunks.coding, address, *memory, left)

    together(lane, lanes)
    del keep  # what the addresses lead to was alive until now
    return not left.any()


def axes_of(
    box: Box, objects: Objects, near: tuple[int, ...], far: tuple[int, ...]
) -> tuple[I64, I64]:
    """(ndim, 10) numbers of a box as the loops want them, and the order of its axes.

    ``near`` and ``far`` are bytes from item to item in a chunk and in the result.
    """
    strides = [0 if a.out_axis is None else far[a.out_axis] for a in box.axes]
    axes = np.array(
        [
            (
                *(a.start, a.nitems, a.step, a.edge, near[i], strides[i]),
                *(a.first, a.nchunks, objects.ratio[i], objects.weight[i]),
            )
            for i, a in enumerate(box.axes)
        ],
        np.int64,
    )
    # The axis whose items lie closest comes last.
    distance = [abs(n) for n in strides if n]
    if distance == sorted(distance, reverse=True):
        return axes, _in_order(len(axes))
    return axes, np.argsort([-abs(n) for n in strides], kind="stable")


@lru_cache(maxsize=64)
def _in_order(ndim: int) -> I64:
    return np.arange(ndim)


def address_of(array: Array) -> int:
    """Where the first item of an array lies."""
    address: int = array.__array_interface__["data"][0]
    return address


@lru_cache(maxsize=16)
def path_memory(prefix: bytes) -> tuple[U8, int]:
    """Memory for paths that begin with ``prefix``, and its length."""
    return np.frombuffer(bytearray(prefix + bytes(LONGEST_KEY)), np.uint8), len(prefix)


def places_of(files: Files, keys: list[str]) -> Places:
    """Where the values of keys lie; threads take copies of the path, which the loop completes."""
    if files.values is None:
        blob = np.frombuffer(bytearray(os.fsencode("\0".join(keys)) + b"\0"), np.uint8)
        ends = np.flatnonzero(blob == 0) + 1
        key_at = np.empty(len(ends) + 1, np.int64)
        key_at[0] = 0
        key_at[1:] = ends
        return Places(_PATHS, -1, *path_memory(files.prefix), blob, key_at, _NO_VALUES)
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
