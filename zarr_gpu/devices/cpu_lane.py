"""One thread's share of a read or write on the CPU.

A lane works through jobs of a few rows with scratch memory of its own that stays warm in the cache:
the encoded bytes of a job, one decoded chunk.  A chunk whose place in the result is contiguous is
decoded straight into it.

Imports placing, the program and ``scratch``; used by the CPU device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.devices.base import Job, Lane
from zarr_gpu.devices.chunk_cache import Keeper
from zarr_gpu.devices.scratch import PAGE, scratch
from zarr_gpu.errors import ChunkDecodeError, CodecError
from zarr_gpu.extents import MISSING, Extents
from zarr_gpu.placing import Placer, copy, put, take

__all__ = ["CpuLane", "damaged"]

Array = npt.NDArray[Any]
U8 = npt.NDArray[np.uint8]


PART_FROM = 1 << 17
"""Decoded bytes of a chunk from which on a part of it may be cheaper to decode."""


class CpuLane(Lane):
    """One thread's share of a read or write."""

    def __init__(
        self,
        program: Program,
        placer: Placer,
        fill_value: Any,
        fields: str | list[str] | None,
        keep_fill_chunks: bool,
        keeper: Keeper | None = None,
    ) -> None:
        self.program = program
        self.keeper = keeper
        self.placer = placer
        self.fill = fill_value
        self.fields = fields
        self.keep_fill_chunks = keep_fill_chunks
        spec = program.spec
        self.shape, self.dtype = spec.shape, spec.dtype
        self.nitems = math.prod(spec.shape)
        plan = placer.plan
        self.straight = placer.plain and all(s.step == 1 for s in plan.sets)
        # What the last bytes step yields is the chunk as it stands in memory.
        self.in_place = (
            bool(program.steps) and program.plain and program.permutation is None and fields is None
        )
        self._spans = (
            placer.spans(program.strides)
            if program.plain and program.steps and placer.plain and fields is None
            else None
        )
        self._fill_check = None if keep_fill_chunks else _FillCheck(fill_value, self.dtype)

    # ---- reading -------------------------------------------------------------------------------

    def decode(self, job: Job, extents: Extents, out: Array) -> None:
        base = extents.base
        rows = zip(
            job.batch.index[job.lo : job.hi].tolist(),
            extents.offset.tolist(),
            extents.nbytes.tolist(),
            strict=True,
        )
        row = job.lo
        try:
            for entries, offset, nbytes in rows:
                data = None if nbytes == MISSING else base[offset : offset + nbytes]
                if self.keeper is None:
                    self._place(entries, data, out)
                else:
                    chunk = None if data is None else self._own_chunk(data)
                    self.keeper.put(tuple(job.batch.coords[row].tolist()), chunk)
                    self.place(entries, chunk, out)
                row += 1
        except (CodecError, MemoryError) as err:
            raise damaged(job, row, err) from err

    def _place(self, entries: list[int], data: U8 | None, out: Array) -> None:
        """Decode one chunk and place it, straight into the result where that is possible."""
        if data is not None and self.in_place and self.straight:
            target = out[self.placer.slices(entries)[1]]
            if (
                target.size == self.nitems
                and target.dtype == self.dtype
                and target.flags.c_contiguous
            ):
                raw = target.reshape(-1).view(np.uint8)
                got = self.program.decode_bytes(data, raw)
                if got.ctypes.data != raw.ctypes.data:
                    raw[...] = got
                return
        chunk = None
        if data is not None:
            chunk = self._part(data, entries)
            if chunk is None:
                chunk = self._chunk(data)
        self.place(entries, chunk, out)

    def _part(self, data: U8, entries: list[int]) -> Array | None:
        """A chunk with only the items that are needed, where that is much cheaper than all."""
        nbytes = self.nitems * self.dtype.itemsize
        if self._spans is None or nbytes < PART_FROM:
            return None
        lo, hi = 0, self.dtype.itemsize
        for (low, high), e in zip(self._spans, entries, strict=True):
            lo += low[e]
            hi += high[e]
        if 4 * (hi - lo) > 3 * nbytes:
            return None
        return self.program.decode_part(data, lo, hi, scratch.chunk.empty(nbytes))

    def place(self, entries: list[int], chunk: Array | None, out: Array) -> None:
        """Place the items of a decoded chunk; None is absent."""
        if chunk is not None and self.fields is not None:
            chunk = chunk[self.fields]
        if self.placer.plain:
            src, dst = self.placer.slices(entries)
            if chunk is None:
                out[dst] = self._fill_of_fields()
            else:
                copy(out[dst], chunk[src])
            return
        src_box, dst_box = self.placer.boxes(entries)
        put(out, dst_box, self._fill_of_fields() if chunk is None else take(chunk, src_box))

    def _chunk(self, data: U8) -> Array:
        program = self.program
        out = None if program.serial_nbytes is None else scratch.chunk.empty(program.serial_nbytes)
        return program.decode(data, out)

    def _own_chunk(self, data: U8) -> Array:
        """A decoded chunk in memory of its own."""
        chunk = np.array(self._chunk(data), order="K")
        chunk.setflags(write=False)
        return chunk

    def _fill_of_fields(self) -> Any:
        return self.fill if self.fields is None else self.fill[self.fields]

    # ---- writing -------------------------------------------------------------------------------

    def encode(self, job: Job, existing: Extents | None, values: Array) -> list[U8 | None]:
        result: list[U8 | None] = []
        index = job.batch.index[job.lo : job.hi].tolist()
        complete = job.batch.complete[job.lo : job.hi].tolist()
        memory, room = self._encoded_memory(len(index))
        for i, entries in enumerate(index):
            old: U8 | None = None
            if existing is not None and existing.nbytes[i] != MISSING:
                start = int(existing.offset[i])
                old = existing.base[start : start + int(existing.nbytes[i])]
            out = None if memory is None else memory[i * room : (i + 1) * room]
            try:
                chunk = self._merge(entries, complete[i] and self.fields is None, old, values)
                if self._fill_check is not None and self._fill_check(chunk):
                    result.append(None)
                    continue
                encoded = self.program.encode(chunk, out)
            except (CodecError, MemoryError) as err:
                raise damaged(job, job.lo + i, err) from err
            if np.may_share_memory(encoded, chunk) and chunk is not values:
                encoded = self._kept(encoded, out)  # the scratch chunk is used for the next row
            result.append(encoded)
        return result

    def _encoded_memory(self, rows: int) -> tuple[U8 | None, int]:
        """Memory for the encoded chunks of a job, and how much of it each has."""
        if self.program.serial_nbytes is None:
            return None, 0
        room = (self.program.encoded_bound + PAGE - 1) // PAGE * PAGE
        return scratch.written.empty(rows * room), room

    @staticmethod
    def _kept(encoded: U8, out: U8 | None) -> U8:
        if out is None:
            return encoded.copy()
        kept = out[: len(encoded)]
        kept[...] = encoded
        return kept

    def _merge(self, entries: list[int], complete: bool, old: U8 | None, values: Array) -> Array:
        """The chunk with its part of ``values`` put in."""
        if complete and self.straight:
            _, dst = self.placer.slices(entries)
            whole: Array = values[dst]
            if whole.size == self.nitems:
                whole = whole.reshape(self.shape)
                if whole.dtype == self.dtype and whole.flags.c_contiguous:
                    return whole
                chunk = self._new_chunk()
                copy(chunk, whole)
                return chunk
        chunk = self._new_chunk()
        if old is not None and not complete:
            decoded = self._decode_into(chunk, old)
            if decoded is not None:
                chunk[...] = decoded
        else:
            chunk[...] = self.fill
        src_box, dst_box = self.placer.boxes(entries)
        part = take(values, dst_box)
        put(chunk if self.fields is None else chunk[self.fields], src_box, part)
        return chunk

    def _decode_into(self, chunk: Array, old: U8) -> Array | None:
        """Decode into ``chunk``; where that is not possible, the decoded chunk."""
        if not self.in_place:
            return self.program.decode(old)
        raw = chunk.reshape(-1).view(np.uint8)
        got = self.program.decode_bytes(old, raw)
        return None if got.ctypes.data == raw.ctypes.data else self._as_chunk(got)

    def _as_chunk(self, data: U8) -> Array:
        return self.program.serializer.decode(data, self.program.serial_spec)

    def _new_chunk(self) -> Array:
        if self.dtype.hasobject or self.dtype.kind == "T":
            return np.empty(self.shape, self.dtype)
        raw = scratch.chunk.empty(self.nitems * self.dtype.itemsize)
        return raw.view(self.dtype).reshape(self.shape)


def damaged(job: Job, row: int, err: CodecError | MemoryError) -> ChunkDecodeError:
    """The error of one codec with the key of the chunk it happened in.

    Whoever writes metadata chooses the size of a chunk, so a lack of memory is one of them.
    """
    key = job.key(row)
    if isinstance(err, MemoryError):
        return ChunkDecodeError(f"no memory to code chunk {key!r}: {err}", key=key)
    where = ""
    if int(job.request.nbytes[row]) >= 0:
        where = f" (bytes {int(job.request.offset[row])} on)"
    return ChunkDecodeError(
        f"chunk {key!r}{where} cannot be coded by {err.codec!r}: {err.message}",
        key=key,
        codec=err.codec,
        expected=err.expected,
        actual=err.actual,
    )


class _FillCheck:
    """Whether a chunk is nothing but fill value, bit by bit (so -0.0 is not 0.0, NaN is NaN)."""

    def __init__(self, fill: Any, dtype: np.dtype[Any]) -> None:
        self.by_value = dtype.hasobject or dtype.kind == "T"
        self.fill = fill
        size = dtype.itemsize
        self.unit = np.dtype(f"u{size}") if size in (1, 2, 4, 8) else None
        if not self.by_value:
            scalar = np.empty(1, dtype)
            scalar[0] = fill
            self.bits = scalar.view(self.unit if self.unit is not None else np.uint8)

    def __call__(self, chunk: Array) -> bool:
        if self.by_value:
            return bool((chunk == self.fill).all())
        if self.unit is not None:
            bits = chunk.view(self.unit)
            # Most chunks differ in their first item already.
            if bits.size and bits[(0,) * bits.ndim] != self.bits[0]:
                return False
            return bool((bits == self.bits[0]).all())
        raw = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)
        return bool((raw.reshape(-1, len(self.bits)) == self.bits).all())
