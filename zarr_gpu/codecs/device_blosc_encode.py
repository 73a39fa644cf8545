"""Blosc frames made on the device: one shuffle, one call of nvCOMP, a few copies.

The layout is the simplest that every reader of Blosc 1 takes: blocks of whole elements, one split
each (the flag that says so is set), a block that does not become smaller stored as it is after its
shuffle, a chunk that does not become smaller stored as it is.  The sizes of the compressed blocks
are downloaded, once; the bytes stay where they are.

Imports the device helpers and the protocol of runtimes; used by ``device_blosc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.device_rows import compressed_sizes, copy_rows, on_device, status_of
from zarr_gpu.codecs.nvcomp import LARGEST_INPUT
from zarr_gpu.codecs.runtime import DeviceBatch, Runtime, dense

__all__ = ["FrameForm", "encode_frames"]

I64 = npt.NDArray[np.int64]

HEADER = 16
LARGEST = (1 << 31) - 1 - HEADER
BLOCK = 1 << 16  # what nvCOMP is quickest with

_CODECS = {"LZ4": 1, "Zstd": 4}
_MEMCPYED, _ONE_SPLIT = 2, 16
_SHUFFLE_FLAGS = (0, 1, 4)


@dataclass(frozen=True, slots=True)
class FrameForm:
    """How frames are made.  ``shuffle``: 0 none, 1 bytes, 2 bits."""

    algorithm: str  # nvCOMP's name; "LZ4" or "Zstd"
    typesize: int
    shuffle: int
    blocksize: int  # 0: chosen here
    stored: bool  # compress nothing


@dataclass(slots=True)
class _Blocks:
    row: I64
    start: I64  # in the row
    length: I64
    first: I64  # (rows + 1,): of every row

    @classmethod
    def cut(cls, nbytes: I64, blocksize: I64) -> _Blocks:
        count = -(-nbytes // blocksize)
        first = np.concatenate([[0], np.cumsum(count)])
        row = np.repeat(np.arange(len(nbytes), dtype=np.int64), count)
        start = (np.arange(first[-1]) - first[row]) * blocksize[row]
        return cls(row, start, np.minimum(blocksize[row], nbytes[row] - start), first)


def encode_frames(runtime: Runtime, form: FrameForm, batch: DeviceBatch) -> DeviceBatch | None:
    """Frames of all rows; None where rows are empty or too large, or nvCOMP refuses."""
    nbytes = batch.nbytes
    if not len(nbytes) or nbytes.min() < 1 or nbytes.max() > LARGEST:
        return None
    batch = on_device(runtime, batch)
    typesize = form.typesize if form.typesize <= 255 else 1
    unit = 8 * typesize  # so that bits can be shuffled
    wanted = min(form.blocksize or BLOCK, LARGEST_INPUT)
    blocksize = np.minimum(max(wanted // unit * unit, unit), nbytes)
    blocksize = np.where(blocksize > typesize, blocksize // typesize * typesize, blocksize)
    blocks = _Blocks.cut(nbytes, blocksize)
    flags = np.full(len(nbytes), _CODECS[form.algorithm] << 5 | _ONE_SPLIT, np.int64)
    flags |= _SHUFFLE_FLAGS[form.shuffle]
    if form.stored:
        size = blocks.length
        compressed = shuffled = (batch.base, batch.offset[blocks.row])
    else:
        shuffled = _shuffle(runtime, form.shuffle, typesize, batch, blocks)
        base, offset, encoded, status = runtime.nvcomp.compress(
            runtime, form.algorithm, *shuffled, blocks.length
        )
        compressed = (base, offset)
        found = compressed_sizes(runtime, encoded, status)
        if found is None:
            return None
        size = np.minimum(found, blocks.length)
    table = HEADER + 4 * np.diff(blocks.first)
    body = np.add.reduceat(size + 4, blocks.first[:-1])
    whole = table + body >= nbytes + HEADER
    cbytes = np.where(whole, nbytes + HEADER, table + body)
    flags |= np.where(whole, _MEMCPYED, 0)
    frames, total = dense(cbytes)
    out = runtime.empty(total)

    # Where the blocks of a frame begin, counted from its start.
    before = np.cumsum(size + 4) - (size + 4)
    place = table[blocks.row] + before - before[blocks.first[:-1]][blocks.row]
    inside = ~whole[blocks.row]
    words = 2 | 1 << 8 | flags << 16 | typesize << 24
    number = np.arange(len(blocks.row)) - blocks.first[blocks.row]
    at = [frames, frames + 4, frames + 8, frames + 12]
    at += [(frames[blocks.row] + HEADER + 4 * number)[inside], (frames[blocks.row] + place)[inside]]
    _write(runtime, out, at, [words, nbytes, blocksize, cbytes, place[inside], size[inside]])

    target = frames[blocks.row] + place + 4
    small = inside & (size < blocks.length)
    plain = inside & ~small
    _copy_some(runtime, compressed, out, target, size, small)
    _copy_some(runtime, shuffled, out, target, size, plain)
    _copy_some(runtime, (batch.base, batch.offset), out, frames + HEADER, nbytes, whole)
    return DeviceBatch(out, frames, cbytes)


def _shuffle(
    runtime: Runtime, shuffle: int, typesize: int, batch: DeviceBatch, blocks: _Blocks
) -> tuple[Any, I64]:
    """(buffer, offset) of all blocks, shuffled."""
    source = batch.offset[blocks.row] + blocks.start
    if shuffle == 0 or (shuffle == 1 and typesize == 1):
        return batch.base, source
    target, total = dense(blocks.length)
    base = runtime.empty(total)
    count = len(target)
    types = np.full(count, typesize, np.int64)
    mode = np.where((shuffle == 2) & (blocks.length < typesize), 0, shuffle)
    tables = runtime.upload_tables([source, blocks.length, types, mode, target])
    src, length, size, how, dst = tables
    status = status_of(runtime, count)
    runtime.launch_rows(
        "shuffle_blocks", count, batch.base, src, length, size, how, base, dst, status
    )
    return base, target


def _write(runtime: Runtime, out: Any, at: list[I64], value: list[I64]) -> None:
    """Numbers of 32 bits to their places."""
    places, values = np.concatenate(at), np.concatenate(value)
    tables = runtime.upload_tables([places, values])
    status = status_of(runtime, len(places))
    runtime.launch("write_u32", len(places), out, *tables, 0, status)


def _copy_some(
    runtime: Runtime,
    source: tuple[Any, I64],
    out: Any,
    target: I64,
    size: I64,
    which: npt.NDArray[np.bool_],
) -> None:
    base, offset = source
    copy_rows(runtime, base, offset[which], out, target[which], size[which])
