"""Tables of offsets: everything that placing needs, as numbers for one kernel.

The place of an item in its chunk, and in the result, is a sum with one term per axis set.  The
terms are worked out once per read and uploaded once: steps of either sign, transposes, F order,
index tables and strides of the result all disappear in them.  A placement is then a start and a
count per set.

Imports ``plan`` and the program; used by the CUDA device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.bytes import BytesCodec
from zarr_gpu.codecs.chain import Program
from zarr_gpu.plan import AxisSet, Plan

__all__ = ["WIDE", "ItemFormat", "PlacementTables", "item_format", "unit_nbytes"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

WIDE = np.dtype("u8")
"""The largest unit."""


@dataclass(frozen=True, slots=True)
class ItemFormat:
    """How an item is made of units that a kernel can move.

    ``unit`` is an unsigned type, ``units`` make up an item; ``swap``: every unit is stored in the
    other byte order than that of results, which is the machine's.
    """

    unit: np.dtype[Any]
    units: int
    swap: bool
    result: np.dtype[Any]  # native
    run: int = 1  # items that are one unit, where that is more than one

    def widened(
        self, plan: Plan, program: Program, result_strides: tuple[int, ...], size: int
    ) -> ItemFormat | None:
        """The format whose units are runs of 8 bytes, where every placement of a plan allows that.

        Most reads move whole lines of chunks that begin at multiples of 8 bytes.  A kernel that
        moves them in larger units has less to look up.  ``result_strides`` and ``size``, in units,
        are those of the result.
        """
        run = WIDE.itemsize // self.unit.itemsize
        if run == 1 or self.units > 1 or self.swap or not plan.sets or size % run:
            return None
        strides = np.array(program.strides, np.int64) // self.unit.itemsize
        last = plan.sets[-1]
        if last.src_index is not None or last.dst_index is not None or last.out_axis is None:
            return None
        if (last.step, strides[last.axes[0]], result_strides[last.out_axis]) != (1, 1, 1):
            return None
        if any((part % run).any() for part in (last.src, last.dst, last.count)):
            return None
        for s in plan.sets[:-1]:
            if (strides[list(s.axes)] % run).any():
                return None
            if s.out_axis is not None and result_strides[s.out_axis] % run:
                return None
        return replace(self, unit=WIDE, run=run)

    def fill_units(self, fill_value: Any, *, stored: bool) -> npt.NDArray[Any]:
        """(units,) the fill value in units, in the byte order of results or as stored."""
        scalar = np.empty(1, self.result)
        scalar[0] = fill_value
        bits: npt.NDArray[Any] = np.repeat(scalar, self.run).view(self.unit)
        return bits.byteswap() if stored and self.swap else bits


def unit_nbytes(dtype: np.dtype[Any]) -> int:
    """Bytes of the units of items, 0 for types that only the host can hold."""
    if dtype.kind not in "biufc":
        return 0
    part = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    return part if part in (1, 2, 4, 8) else 0


def item_format(program: Program) -> ItemFormat | None:
    """The format of a program's items, None for types that only the host can hold."""
    dtype = program.spec.dtype
    part = unit_nbytes(dtype)
    if not part or not isinstance(program.serializer, BytesCodec):
        return None
    native = dtype.newbyteorder("=")
    # Array codecs turn the bytes of what they take, and hand on elements of the chunk's own type.
    stored = dtype if program.arrays else program.serializer.stored_dtype(dtype)
    swap = part > 1 and stored.newbyteorder("=") != stored
    return ItemFormat(np.dtype(f"u{part}"), dtype.itemsize // part, swap, native)


class PlacementTables:
    """Offsets of the items of a plan, in units.

    Parameters
    ----------
    plan, program
        What is read or written, and how its chunks are stored.
    units
        Units per item.
    result_strides
        Units from one position to the next along each axis of ``plan.work_shape``; 0 where a value
        is repeated.
    run
        Items that are one unit; see ``ItemFormat.widened``.
    last_only
        Keep the last of items that have the same place in a chunk, for writing: threads do not
        take turns.
    """

    def __init__(
        self,
        plan: Plan,
        program: Program,
        units: int,
        result_strides: tuple[int, ...],
        *,
        run: int = 1,
        last_only: bool = False,
    ) -> None:
        strides = np.array(program.strides, np.int64) // program.spec.dtype.itemsize * units
        src, dst = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        self._start: list[I64] = []
        self._count: list[I64] = []
        at = 0
        for s in plan.sets:
            chunk, result, count = _offsets(s, strides, result_strides)
            if run > 1:
                if s is plan.sets[-1]:
                    chunk, result, count = chunk[::run], result[::run], count // run
                chunk, result = chunk // run, result // run
            if last_only and s.src_index is not None:
                chunk, result, count = _keep_last(chunk, result, count)
            self._start.append(at + np.cumsum(count) - count)
            self._count.append(count)
            at += len(chunk)
            src.append(chunk)
            dst.append(result)
        self.src = np.concatenate(src)  # (sum of counts,) offsets in the chunk
        self.dst = np.concatenate(dst)  # the same in the result
        self.nsets = len(plan.sets)

    def placements(self, index: I64) -> tuple[I64, I64]:
        """Flat (p * nsets,) starts and counts of placements ``index`` (p, nsets)."""
        start, count = np.empty_like(index), np.empty_like(index)
        for s in range(self.nsets):
            start[:, s] = self._start[s][index[:, s]]
            count[:, s] = self._count[s][index[:, s]]
        return start.reshape(-1), count.reshape(-1)


def _offsets(s: AxisSet, strides: I64, result_strides: tuple[int, ...]) -> tuple[I64, I64, I64]:
    """(offset in the chunk, offset in the result) of every item of a set, and items per chunk."""
    entry = np.repeat(np.arange(len(s)), s.count)
    nth = np.arange(len(entry)) - (np.cumsum(s.count) - s.count)[entry]
    if s.src_index is None:
        chunk = (s.src[entry] + nth * s.step) * strides[s.axes[0]]
    else:
        chunk = s.src_index[s.src[entry] + nth] @ strides[list(s.axes)]
    if s.out_axis is None:
        result = np.zeros(len(entry), np.int64)
    else:
        place = s.dst[entry] + nth
        if s.dst_index is not None:
            place = s.dst_index[place]
        result = place * result_strides[s.out_axis]
    return chunk, result, s.count


def _keep_last(chunk: I64, result: I64, count: I64) -> tuple[I64, I64, I64]:
    """Without items that a later one of the same chunk overwrites."""
    entry = np.repeat(np.arange(len(count)), count)
    order = np.lexsort((np.arange(len(chunk)), chunk, entry))
    last = np.ones(len(order), np.bool_)
    last[:-1] = (chunk[order][1:] != chunk[order][:-1]) | (entry[order][1:] != entry[order][:-1])
    kept = np.sort(order[last])
    return chunk[kept], result[kept], np.bincount(entry[kept], minlength=len(count))
