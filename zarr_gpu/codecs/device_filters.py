"""Steps that change elements: shuffle, packbits, delta, fixedscaleoffset, casts.

Kernels compute in the machine's byte order; elements in the other order are turned before and
after.  A pair of types that no kernel serves, or that the CPU codec refuses, has no step here (the
functions return None), and the codec runs on the host.

Imports the codecs concerned, the device helpers and the protocol of runtimes; used by
``device_steps``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.astype import AsType
from zarr_gpu.codecs.base import ArrayToArray, ChunkSpec
from zarr_gpu.codecs.delta import Delta
from zarr_gpu.codecs.device_rows import Output, as_words, copy_rows, live_rows, on_device, status_of
from zarr_gpu.codecs.fixedscaleoffset import FixedScaleOffset
from zarr_gpu.codecs.packbits import packed_size
from zarr_gpu.codecs.quantize import Quantize
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts, dense
from zarr_gpu.errors import CodecError

__all__ = [
    "ELEMENTWISE",
    "ElementStep",
    "ElementTypes",
    "PackBitsStep",
    "SameStep",
    "ShuffleStep",
    "filter_step",
]

ELEMENTWISE = (AsType, Delta, FixedScaleOffset, Quantize)
"""Codecs that ``filter_step`` may know a kernel for."""

I64 = npt.NDArray[np.int64]


class _FixedStep(DeviceStep):
    """A step whose rows have known sizes on both sides."""

    def _check(self, batch: DeviceBatch, size: int, verdicts: Verdicts) -> I64:
        """Rows of ``size`` bytes; the others are refused."""
        rows = live_rows(batch, verdicts)
        wrong = batch.nbytes[rows] != size
        for row in rows[wrong].tolist():
            actual = int(batch.nbytes[row])
            verdicts.refuse(row, self.codec, "wrong size", expected=size, actual=actual)
        good: I64 = rows[~wrong]
        return good


class ShuffleStep(_FixedStep):
    """Numcodecs' shuffle by elements of ``typesize`` bytes."""

    def __init__(self, codec: str, typesize: int) -> None:
        self.codec = codec
        self._typesize = typesize

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        rows = self._check(batch, size, verdicts)
        if self._typesize <= 1 or not size:
            return batch
        if size % self._typesize:
            for row in rows.tolist():
                message = f"no whole number of elements of {self._typesize} bytes"
                verdicts.refuse(row, self.codec, message, actual=size)
            return batch
        batch = on_device(runtime, batch)
        out = Output.make(runtime, len(batch), size)
        count = len(rows)
        if not count:
            return out.batch()
        # A row is a block of Blosc that is made of one part, stored as it is.
        number, one = np.arange(count, dtype=np.int64), np.ones(count, np.int64)
        flags = as_words(np.ones(count, np.uint8))
        tables = [out.offset[rows], one * size, number, one, batch.offset[rows], flags]
        tables += [0 * one, one * self._typesize, one]
        device = runtime.upload_tables(tables)
        device[5] = device[5].view(np.uint8)[:count]
        status = status_of(runtime, count)
        words = out.base.view(np.uint64)
        args = (batch.base, batch.base, *device, out.base, words, status)
        runtime.launch_rows("blosc_assemble", count, *args)
        verdicts.watch(self.codec, status, rows)
        return out.batch()

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        if self._typesize <= 1 or not len(batch) or not batch.nbytes.any():
            return batch
        if (batch.nbytes % self._typesize).any():
            raise CodecError(
                f"no whole number of elements of {self._typesize} bytes", codec=self.codec
            )
        batch = on_device(runtime, batch)
        count = len(batch)
        offset, total = dense(batch.nbytes)
        out = runtime.empty(total)
        one = np.ones(count, np.int64)
        tables = [batch.offset, batch.nbytes, one * self._typesize, one, offset]
        src, nbytes, size, mode, dst = runtime.upload_tables(tables)
        status = status_of(runtime, count)
        args = (batch.base, src, nbytes, size, mode, out, dst, status)
        runtime.launch_rows("shuffle_blocks", count, *args)
        return DeviceBatch(out, offset, batch.nbytes)


class SameStep(_FixedStep):
    """A codec that stores elements as they will be decoded; nothing here encodes."""

    encodes = False

    def __init__(self, codec: str) -> None:
        self.codec = codec

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        self._check(batch, size, verdicts)
        return batch

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        raise CodecError("the device does not encode this", codec=self.codec)


class PackBitsStep(_FixedStep):
    """Numcodecs' packbits."""

    def __init__(self, codec: str) -> None:
        self.codec = codec

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        rows = self._check(batch, packed_size(size), verdicts)
        out = Output.make(runtime, len(batch), size)
        if not len(rows):
            return out.batch()
        batch = on_device(runtime, batch)
        sizes = np.full(len(rows), size, np.int64)
        tables = [batch.offset[rows], batch.nbytes[rows], out.offset[rows], sizes]
        src, nbytes, dst, items = runtime.upload_tables(tables)
        status = status_of(runtime, len(rows))
        args = (batch.base, src, nbytes, out.base, dst, items, status)
        runtime.launch_rows("packbits_decode", len(rows), *args)
        verdicts.watch(self.codec, status, rows)
        return out.batch()

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        if not len(batch):
            return batch
        batch = on_device(runtime, batch)
        nbytes = 1 + (batch.nbytes + 7) // 8
        offset, total = dense(nbytes)
        out = runtime.empty(total)
        src, items, dst = runtime.upload_tables([batch.offset, batch.nbytes, offset])
        status = status_of(runtime, len(batch))
        args = (batch.base, src, items, out, dst, status)
        runtime.launch_rows("packbits_encode", len(batch), *args)
        return DeviceBatch(out, offset, nbytes)


@dataclass(frozen=True, slots=True)
class ElementTypes:
    """Types on both sides of an element-wise codec.

    ``decoded`` and ``stored`` are the codec's own; ``outer`` and ``inner`` those of the bytes
    before and behind it, which differ from them at most in byte order, or are only viewed.
    """

    outer: np.dtype[Any]
    decoded: np.dtype[Any]
    stored: np.dtype[Any]
    inner: np.dtype[Any]

    @property
    def swap_outer(self) -> bool:
        """Whether decoded elements are in the other byte order."""
        return _foreign(self.outer, self.decoded)

    @property
    def swap_inner(self) -> bool:
        """Whether stored elements are in the other byte order."""
        return _foreign(self.inner, self.stored)


def _foreign(bytes_: np.dtype[Any], own: np.dtype[Any]) -> bool:
    same = bytes_.kind == own.kind and bytes_.itemsize == own.itemsize
    chosen = bytes_ if same else own
    return chosen.newbyteorder("=") != chosen


class ElementStep(_FixedStep):
    """Delta, fixedscaleoffset or a cast; the rules name the kernels.

    Parameters
    ----------
    codec
        Its name.
    types
        Types on both sides.
    decoding, encoding
        Which kernels do it; where ``encoding`` is None, nothing here encodes.
    """

    def __init__(
        self, codec: str, types: ElementTypes, decoding: Any, encoding: Any | None
    ) -> None:
        self.codec = codec
        self.encodes = encoding is not None
        self._types, self._decoding, self._encoding = types, decoding, encoding

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        types = self._types
        decoded, stored = types.decoded.itemsize, types.stored.itemsize
        rows = self._check(batch, size // decoded * stored, verdicts)
        out = Output.make(runtime, len(batch), size)
        if not len(rows) or not size:
            return out.batch()
        source = (on_device(runtime, batch).base, batch.offset[rows], batch.nbytes[rows])
        target = (out.base, out.offset[rows])
        swaps = (types.swap_inner, types.swap_outer)
        status = _run(runtime, self._decoding, source, target, swaps)
        verdicts.watch(self.codec, status, rows)
        return out.batch()

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        types = self._types
        nbytes = batch.nbytes // types.decoded.itemsize * types.stored.itemsize
        offset, total = dense(nbytes)
        out = runtime.empty(total)
        if total:
            source = (on_device(runtime, batch).base, batch.offset, batch.nbytes)
            swaps = (types.swap_outer, types.swap_inner)
            status = _run(runtime, self._encoding, source, (out, offset), swaps)
            if runtime.download(status).any():
                message = f"cannot store {types.decoded} as {types.stored}"
                raise CodecError(message, codec=self.codec)
        return DeviceBatch(out, offset, nbytes)


def _run(
    runtime: Runtime,
    rule: Any,
    source: tuple[Any, I64, I64],
    target: tuple[Any, I64],
    swaps: tuple[bool, bool],
) -> Any:
    """Run the kernel of a rule over rows; the statuses.

    ``source``: buffer, offset and bytes of the rows; ``target``: buffer and offset, dense;
    ``swaps``: whether either is in the other byte order.
    """
    base, offset, nbytes = source
    out, out_offset = target
    swap_source, swap_target = swaps
    width = rule.src.itemsize
    if swap_source or (offset % width).any():
        places, total = dense(nbytes)
        other = runtime.empty(total)
        copy_rows(runtime, base, offset, other, places, nbytes)
        base, offset = other, places
    count, tpr = len(offset), runtime.threads_per_row
    tables = [offset // width, out_offset // rule.dst.itemsize, nbytes // width]
    start, into, items = runtime.upload_tables(tables)
    status = status_of(runtime, count)
    if swap_source:
        _turn(runtime, base, width, start, items)
    src = base[: len(base) // width * width].view(rule.src)
    dst = out.view(rule.dst)
    args = (src, dst, start, into, items, *rule.scalars)
    if rule.kernel == "delta_decode":
        sums = runtime.empty(8 * count * tpr).view(np.uint64)
        if tpr > 1:
            part = (src, start, items, *rule.scalars, sums, status)
            runtime.launch_rows("delta_sums", count, *part)
        runtime.launch_rows(rule.kernel, count, *args, sums, status)
    elif rule.kernel == "delta_decode_float":
        runtime.launch(rule.kernel, count, *args, status)
    else:
        runtime.launch_rows(rule.kernel, count, *args, status)
    if swap_target:
        _turn(runtime, out, rule.dst.itemsize, into, items)
    return status


def _turn(runtime: Runtime, base: Any, width: int, start: Any, items: Any) -> None:
    """Reverse the bytes of elements in place."""
    units = base.view(np.dtype(f"u{width}"))
    status = status_of(runtime, len(start))
    runtime.launch_rows("byteswap", len(start), units, start, items, status)


def filter_step(codec: ArrayToArray, types: ElementTypes) -> ElementStep | None:
    """The step of an element-wise codec, None where no kernel serves it."""
    from zarr_gpu.kernels import rules

    decoded, stored = types.decoded.newbyteorder("="), types.stored.newbyteorder("=")
    if isinstance(codec, Delta):
        decoding = rules.delta_decode(decoded, stored)
        encoding = rules.delta_encode(decoded, stored)
    elif isinstance(codec, FixedScaleOffset):
        numbers = (codec.scale, codec.offset)
        decoding = rules.scale_decode(decoded, stored, *numbers)
        encoding = rules.scale_encode(decoded, stored, *numbers)
    elif isinstance(codec, AsType):
        decoding, encoding = rules.cast(stored, decoded), rules.cast(decoded, stored)
    elif isinstance(codec, Quantize):
        decoding, encoding = rules.cast(stored, decoded), None
    else:
        return None
    if decoding is None or not _decodes(codec, decoded, stored):
        return None
    return ElementStep(codec.name, types, decoding, encoding)


def _decodes(codec: ArrayToArray, decoded: np.dtype[Any], stored: np.dtype[Any]) -> bool:
    """Whether NumPy has an operation for these types at all."""
    try:
        codec.decode(np.ones(2, stored), ChunkSpec((2,), decoded))
    except CodecError:
        return False
    return True
