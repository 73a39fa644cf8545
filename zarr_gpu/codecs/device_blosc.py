"""Blosc frames on the device: one flat list of streams, one call per compressor, one unshuffle.

The headers are walked where the bytes are: on the host by the compiled kernel where they are still
at hand, else on the device, with two downloads of tables.  All splits of all frames then form one
batch for each compressor that occurs; splits that are stored as they are cost nothing, since the
unshuffle reads them where they lie.

A frame that the walk refuses, or with inner streams that are not plain, is decoded by the CPU
codec.  Imports the device helpers, the encoder and the protocol of runtimes; used by
``device_steps``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs import device_frames as frames
from zarr_gpu.codecs.base import BytesToBytes
from zarr_gpu.codecs.device_blosc_encode import FrameForm, encode_frames
from zarr_gpu.codecs.device_checks import check_stored, checksums
from zarr_gpu.codecs.device_host import HostStep
from zarr_gpu.codecs.device_rows import (
    Output,
    as_words,
    decode_on_host,
    live_rows,
    on_device,
    peek,
    status_of,
    watch_results,
)
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts, dense

__all__ = ["BloscStep"]

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

BLOSCLZ, LZ4, SNAPPY, ZLIB, ZSTD = range(5)

_NVCOMP = {LZ4: "LZ4", SNAPPY: "Snappy", ZLIB: "Deflate", ZSTD: "Zstd"}
_KERNELS = {BLOSCLZ: "blosclz_decode", LZ4: "lz4_decode"}


@dataclass(slots=True)
class Splits:
    """Streams and stored bytes of all frames; see ``blosc_walk_fill``."""

    src: I64
    csize: I64
    dst: I64
    length: I64
    raw: U8
    row: I64  # of the batch
    codec: I64


@dataclass(slots=True)
class Blocks:
    """What the shuffle works on; see ``blosc_walk_fill``."""

    dst: I64
    length: I64
    split: I64
    nsplits: I64
    typesize: I64
    mode: I64
    row: I64  # of the batch


class BloscStep(DeviceStep):
    """Blosc frames.

    Parameters
    ----------
    codec
        The CPU codec.
    form
        How frames are made on the device; None: by the CPU codec.
    """

    def __init__(self, codec: BytesToBytes, form: FrameForm | None) -> None:
        self.codec = codec.name
        self._codec, self._form = codec, form
        self._host = HostStep(codec.name, self._decode_row, codec.encode)

    def host_reason(self, runtime: Runtime, *, encode: bool) -> str | None:
        if not encode:
            return None  # some frames at least have kernels of our own
        if self._form is None:
            return "the device has no encoder for its streams"
        return "nvCOMP is not installed" if runtime.nvcomp is None else None

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        return _decode_frames(runtime, self._codec, batch, size, verdicts)

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        if self._form is not None and runtime.nvcomp is not None:
            found = encode_frames(runtime, self._form, batch)
            if found is not None:
                return found
        return self._host.encode(runtime, batch)

    def _decode_row(self, data: U8, size: int, out: U8 | None) -> U8:
        return self._codec.decode(data, limit=size, exact=True, out=out)


def _decode_frames(
    runtime: Runtime, codec: BytesToBytes, batch: DeviceBatch, size: int, verdicts: Verdicts
) -> DeviceBatch:
    out = Output.make(runtime, len(batch), size)
    rows = live_rows(batch, verdicts)
    left = np.ones(len(batch), np.bool_)
    if size and len(rows):
        batch = on_device(runtime, batch)
        splits, blocks, good = _walk(runtime, batch, rows, out)
        good &= _plain_rows(runtime, batch, splits)
        left[good] = False

    def decode(data: Any) -> Any:
        return codec.decode(data, limit=size, exact=True)

    decode_on_host(runtime, codec.name, decode, batch, rows[left[rows]], out, verdicts)
    if not left.all():
        splits, blocks = _kept(splits, blocks, good)
        _decode_splits(runtime, codec.name, batch, splits, blocks, out, verdicts)
    return out.batch()


# ---- the walk ------------------------------------------------------------------------------------


def _walk(
    runtime: Runtime, batch: DeviceBatch, rows: I64, out: Output
) -> tuple[Splits, Blocks, Bools]:
    """(splits, blocks, rows of the batch whose headers and lengths are right)."""
    count = len(rows)
    frame = [batch.offset[rows], batch.nbytes[rows], np.full(count, out.size, np.int64)]
    walk = partial(_device_walk, runtime) if batch.host is None else _host_walk
    (nblocks, nsplits, codec), _, bad = walk(
        batch, "blosc_walk_count", frame, [count] * 3, (), count
    )
    first_block = np.concatenate([[0], np.cumsum(nblocks)])
    first_split = np.concatenate([[0], np.cumsum(nsplits)])
    nblock, nsplit = int(first_block[-1]), int(first_split[-1])
    tables, (raw,), wrong = walk(
        batch,
        "blosc_walk_fill",
        [*frame, out.offset[rows], first_block, first_split],
        [nsplit] * 4 + [nblock] * 6,
        (nsplit,),
        count,
    )
    src, csize, dst, length, block_dst, block_len, block_split, block_nsplits, ts, mode = tables
    split_row, block_row = np.repeat(rows, nsplits), np.repeat(rows, nblocks)
    splits = Splits(src, csize, dst, length, raw, split_row, np.repeat(codec, nsplits))
    blocks = Blocks(block_dst, block_len, block_split, block_nsplits, ts, mode, block_row)
    good = np.zeros(len(batch), np.bool_)
    good[rows[(bad == 0) & (wrong == 0)]] = True
    return splits, blocks, good


def _order(kernel: str, words: list[Any], flags: list[Any]) -> list[Any]:
    """Arguments in the order of the kernel: its one table of bytes is the fifth of ``fill``."""
    return [*words[:4], *flags, *words[4:]] if kernel == "blosc_walk_fill" else words


def _host_walk(
    batch: DeviceBatch,
    kernel: str,
    given: list[I64],
    sizes: list[int],
    flag_sizes: tuple[int, ...],
    count: int,
) -> tuple[list[I64], list[U8], I32]:
    """Run a walk on the host's bytes: (int64 tables, uint8 tables, status)."""
    from zarr_gpu.kernels import registry

    words = [np.zeros(size, np.int64) for size in sizes]
    flags = [np.zeros(size, np.uint8) for size in flag_sizes]
    status = np.zeros(count, np.int32)
    registry.get(kernel).njit(batch.host, *given, *_order(kernel, words, flags), status)
    return words, flags, status


def _device_walk(
    runtime: Runtime,
    batch: DeviceBatch,
    kernel: str,
    given: list[I64],
    sizes: list[int],
    flag_sizes: tuple[int, ...],
    count: int,
) -> tuple[list[I64], list[U8], I32]:
    """The same on the device's bytes, with one upload, one launch and one download."""
    ends = np.cumsum(
        [8 * size for size in sizes] + [4 * count] + [-(-n // 8) * 8 for n in flag_sizes]
    )

    def parts(memory: Any) -> tuple[list[Any], list[Any], Any]:
        starts = [0, *ends[:-1].tolist()]
        k = len(sizes)
        words = [memory[starts[i] : ends[i]].view(np.int64) for i in range(k)]
        status = memory[starts[k] : ends[k]].view(np.int32)
        flags = [memory[starts[k + 1 + i] :][:n] for i, n in enumerate(flag_sizes)]
        return words, flags, status

    with runtime.beside(batch.since) as aside:
        raw = aside.empty(int(ends[-1]))
        raw.fill(0)
        words, flags, status = parts(raw)
        tables = aside.upload_tables(given)
        aside.launch(kernel, count, batch.base, *tables, *_order(kernel, words, flags), status)
        return parts(aside.download(raw))


# ---- what goes to the device ---------------------------------------------------------------------


def _plain_rows(runtime: Runtime, batch: DeviceBatch, splits: Splits) -> Bools:
    """(rows,) whose inner streams all have a decoder on the device and pass its checks."""
    plain = np.ones(len(batch), np.bool_)
    stream = splits.raw == 0
    for codec in np.unique(splits.codec[stream]).tolist():
        which = np.flatnonzero(stream & (splits.codec == codec))
        src, csize, length = splits.src[which], splits.csize[which], splits.length[which]
        if codec not in _KERNELS and (codec not in _NVCOMP or runtime.nvcomp is None):
            plain[splits.row[which]] = False
            continue
        if codec in (BLOSCLZ, LZ4):
            continue
        heads = peek(runtime, batch, src, frames.HEAD, src + csize)
        if codec == SNAPPY:
            good = frames.snappy_plain(heads, csize, length)
        elif codec == ZLIB:
            good = frames.zlib_plain(heads, csize)
        else:
            good, header = frames.zstd_plain(heads, csize, length)
            if batch.host is not None:
                at = np.flatnonzero(good)
                good[at] = frames.zstd_blocks_fit(
                    batch.host, src[at], csize[at], header[at], length[at]
                )
        plain[splits.row[which[~good]]] = False
    return plain


def _kept(splits: Splits, blocks: Blocks, good: Bools) -> tuple[Splits, Blocks]:
    """Splits and blocks of good rows alone."""
    which, chosen = good[splits.row], good[blocks.row]
    if which.all() and chosen.all():
        return splits, blocks
    place = np.cumsum(which) - 1
    blocks = Blocks(*(getattr(blocks, f.name)[chosen] for f in fields(blocks)))
    blocks.split = place[blocks.split]
    return Splits(*(getattr(splits, f.name)[which] for f in fields(splits))), blocks


def _decode_splits(
    runtime: Runtime,
    codec: str,
    batch: DeviceBatch,
    splits: Splits,
    blocks: Blocks,
    out: Output,
    verdicts: Verdicts,
) -> None:
    streams = np.flatnonzero(splits.raw == 0)
    # Room of their own, aligned, so that neither order nor length of the splits matters.
    splits.dst[streams], total = dense(splits.length[streams])
    scratch = runtime.empty(total)
    for inner in np.unique(splits.codec[streams]).tolist():
        which = streams[splits.codec[streams] == inner]
        _decode_streams(runtime, codec, inner, batch, splits, which, scratch, verdicts)
    raw = as_words(splits.raw)
    tables = [blocks.dst, blocks.length, blocks.split, blocks.nsplits]
    tables += [splits.src, raw, splits.dst, blocks.typesize, blocks.mode]
    device = runtime.upload_tables(tables)
    device[5] = device[5].view(np.uint8)[: len(splits.raw)]
    status = status_of(runtime, len(blocks.dst))
    runtime.launch_rows(
        "blosc_assemble",
        len(blocks.dst),
        *(batch.base, scratch, *device, out.base, out.base.view(np.uint64), status),
    )
    verdicts.watch(codec, status, blocks.row)


def _decode_streams(
    runtime: Runtime,
    codec: str,
    inner: int,
    batch: DeviceBatch,
    splits: Splits,
    which: I64,
    scratch: Any,
    verdicts: Verdicts,
) -> None:
    """All streams of one compressor."""
    src, csize, row = splits.src[which], splits.csize[which], splits.row[which]
    dst, length = splits.dst[which], splits.length[which]
    if inner in _KERNELS and (inner == BLOSCLZ or runtime.nvcomp is None):
        tables = runtime.upload_tables([src, csize, dst, length])
        source, sizes, target, room = tables
        status = status_of(runtime, len(which))
        args = (batch.base, source, sizes, scratch, target, room, status)
        runtime.launch(_KERNELS[inner], len(which), *args)
        verdicts.watch(codec, status, row)
        return
    if inner == ZLIB:
        src, csize = src + 2, csize - 6
    status, actual = runtime.nvcomp.decompress(
        *(runtime, _NVCOMP[inner], batch.base, src, csize, scratch, dst, length)
    )
    expected = runtime.upload(length).view(np.uint64)
    watch_results(codec, status, actual, expected, row, verdicts)
    if inner == ZLIB:
        computed = checksums(runtime, "adler32", scratch, dst, length)
        place = splits.src[which] + splits.csize[which] - 4
        status = check_stored(runtime, batch.base, place, computed, big_endian=True)
        verdicts.watch(codec, status, row)
