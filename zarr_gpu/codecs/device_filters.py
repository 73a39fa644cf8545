"""Steps that change elements: shuffle, delta, fixedscaleoffset.

Kernels compute in the machine's byte order; elements in the other order are turned before and
after.  A pair of types that no kernel serves, or that the CPU codec refuses, has no step here (the
functions return None), and the codec runs on the host.

Imports the codecs concerned, the device helpers and the protocol of runtimes; used by
``device_steps``.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.base import ArrayToArray, ChunkSpec
from zarr_gpu.codecs.delta import Delta
from zarr_gpu.codecs.device_rows import Output, as_words, copy_rows, live_rows, on_device, status_of
from zarr_gpu.codecs.fixedscaleoffset import FixedScaleOffset
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts, dense
from zarr_gpu.errors import CodecError

__all__ = ["ElementTypes", "ShuffleStep", "filter_step"]

I64 = npt.NDArray[np.int64]

_KINDS = {"f": 0, "i": 1, "u": 2}
_EXACT = 1 << 53  # whole numbers up to this are floats as well


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


class _ElementStep(_FixedStep):
    """An element-wise codec; subclasses launch the kernels."""

    def __init__(self, codec: str, types: ElementTypes, *, encodes: bool) -> None:
        self.codec = codec
        self.encodes = encodes
        self.types = types
        self.decoded, self.stored = types.decoded, types.stored

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        stored_size = size // self.decoded.itemsize * self.stored.itemsize
        rows = self._check(batch, stored_size, verdicts)
        out = Output.make(runtime, len(batch), size)
        if not len(rows) or not size:
            return out.batch()
        batch = on_device(runtime, batch)
        src, start = _typed(
            *(runtime, batch.base, batch.offset[rows], batch.nbytes[rows]),
            *(self.stored, self.types.swap_inner),
        )
        items = np.full(len(rows), size // self.decoded.itemsize, np.int64)
        target = out.offset[rows] // self.decoded.itemsize
        tables = runtime.upload_tables([start, target, items])
        status = status_of(runtime, len(rows))
        self._decode(runtime, src, _unsigned(out.base, self.decoded), tables, status)
        if self.types.swap_outer:
            _turn(runtime, out.base, self.decoded, tables[1], tables[2])
        verdicts.watch(self.codec, status, rows)
        return out.batch()

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        items = batch.nbytes // self.decoded.itemsize
        nbytes = items * self.stored.itemsize
        offset, total = dense(nbytes)
        out = runtime.empty(total)
        count = len(batch)
        if not total:
            return DeviceBatch(out, offset, nbytes)
        batch = on_device(runtime, batch)
        src, start = _typed(
            *(runtime, batch.base, batch.offset, batch.nbytes),
            *(self.decoded, self.types.swap_outer),
        )
        tables = runtime.upload_tables([start, offset // self.stored.itemsize, items])
        status = status_of(runtime, count)
        self._encode(runtime, src, _unsigned(out, self.stored), tables, status)
        if runtime.download(status).any():
            raise CodecError(f"cannot store {self.decoded} as {self.stored}", codec=self.codec)
        if self.types.swap_inner:
            _turn(runtime, out, self.stored, tables[1], tables[2])
        return DeviceBatch(out, offset, nbytes)

    @abstractmethod
    def _decode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        """From native ``stored`` to ``decoded``, integers as unsigned ones in ``dst``."""

    @abstractmethod
    def _encode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        """From native ``decoded`` to ``stored``."""


def _unsigned(base: Any, dtype: np.dtype[Any]) -> Any:
    """A byte buffer as elements; integers as unsigned ones of their width."""
    if dtype.kind != "f":
        dtype = np.dtype(f"u{dtype.itemsize}")
    return base.view(dtype.newbyteorder("="))


def _typed(
    runtime: Runtime, base: Any, offset: I64, nbytes: I64, dtype: np.dtype[Any], swap: bool
) -> tuple[Any, I64]:
    """(elements in the machine's byte order, first element of every row); copies if it must."""
    size = dtype.itemsize
    if swap or (offset % size).any():
        places, total = dense(nbytes)
        other = runtime.empty(total)
        copy_rows(runtime, base, offset, other, places, nbytes)
        base, offset = other, places
    start = offset // size
    typed = base[: len(base) // size * size].view(dtype.newbyteorder("="))
    if swap:
        _turn(runtime, base, dtype, *runtime.upload_tables([start, nbytes // size]))
    return typed, start


def _turn(runtime: Runtime, base: Any, dtype: np.dtype[Any], start: Any, items: Any) -> None:
    """Reverse the bytes of elements in place."""
    units = base.view(np.dtype(f"u{dtype.itemsize}"))
    status = status_of(runtime, len(start))
    runtime.launch_rows("byteswap", len(start), units, start, items, status)


class _IntegerDelta(_ElementStep):
    """Delta of integers, stored as integers."""

    def _decode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        count, tpr = len(status), runtime.threads_per_row
        start, target, items = tables
        src = src.view(np.dtype(f"u{self.stored.itemsize}"))
        signed = int(self.stored.kind == "i")
        sums = runtime.empty(8 * count * tpr).view(np.uint64)
        if tpr > 1:
            runtime.launch_rows("delta_sums", count, src, start, items, signed, sums, status)
        args = (src, dst, start, target, items, signed, sums, status)
        runtime.launch_rows("delta_decode", count, *args)

    def _encode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        src = src.view(np.dtype(f"u{self.decoded.itemsize}"))
        signs = (int(self.decoded.kind == "i"), int(self.stored.kind == "i"))
        runtime.launch_rows("delta_encode", len(status), src, dst, *tables, *signs, status)


class _FloatDelta(_ElementStep):
    """Delta of floats."""

    def _decode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        single = int(np.result_type(self.stored, self.decoded).itemsize == 4)
        args = (src, dst, *tables, single, status)
        runtime.launch("delta_decode_float", len(status), *args)

    def _encode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        single = int(self.decoded.itemsize == 4)
        args = (src, dst, *tables, single, status)
        runtime.launch_rows("delta_encode_float", len(status), *args)


class _Scale(_ElementStep):
    """Fixedscaleoffset where one of the two types is a float."""

    def __init__(
        self, codec: str, types: ElementTypes, scale: float, offset: float, *, encodes: bool
    ) -> None:
        super().__init__(codec, types, encodes=encodes)
        self._scale, self._offset = float(scale), float(offset)

    def _numbers(self, single: bool) -> tuple[float, float]:
        if not single:
            return self._scale, self._offset
        with np.errstate(over="ignore"):
            return float(np.float32(self._scale)), float(np.float32(self._offset))

    def _run(self, kernel: str, runtime: Runtime, args: Any, source: Any, target: Any) -> None:
        src, dst, tables, status = args
        single = source.kind == "f" and source.itemsize == 4
        scale, offset = self._numbers(single)
        kind = _KINDS[target.kind]
        numbers = (scale, offset, int(single), kind)
        runtime.launch_rows(kernel, len(status), src, dst, *tables, *numbers, status)

    def _decode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        args = (src, dst, tables, status)
        self._run("fixedscaleoffset_decode", runtime, args, self.stored, self.decoded)

    def _encode(self, runtime: Runtime, src: Any, dst: Any, tables: Any, status: Any) -> None:
        args = (src, dst, tables, status)
        self._run("fixedscaleoffset_encode", runtime, args, self.decoded, self.stored)


_FLOAT_SUMS = {("f4", "f4"), ("f8", "f8"), ("f4", "f8"), ("i2", "f4"), ("i4", "f8")}
_FLOAT_DIFFERENCES = {("f4", "f4"), ("f8", "f8"), ("f8", "f4"), ("f4", "f8")}


def filter_step(codec: ArrayToArray, types: ElementTypes) -> _ElementStep | None:
    """The step of an element-wise codec, None where no kernel serves it."""
    decoded, stored = types.decoded, types.stored
    name, integers = codec.name, decoded.kind in "iu" and stored.kind in "iu"
    if decoded.kind not in "iuf" or stored.kind not in "iuf":
        return None
    if decoded.itemsize > 8 or stored.itemsize > 8 or not _decodes(codec, decoded, stored):
        return None
    pair = (decoded.str[1:], stored.str[1:])
    if isinstance(codec, Delta):
        if integers:
            return _IntegerDelta(name, types, encodes=True)
        if pair[::-1] in _FLOAT_SUMS:
            return _FloatDelta(name, types, encodes=pair in _FLOAT_DIFFERENCES)
    if isinstance(codec, FixedScaleOffset) and not integers and "f2" not in pair:
        scale: Any = codec.scale
        offset: Any = codec.offset
        if all(isinstance(x, float) or abs(x) <= _EXACT for x in (scale, offset)):
            # NumPy takes an integer from integers in their own type.
            encodes = decoded.kind == "f" or isinstance(offset, float)
            return _Scale(name, types, scale, offset, encodes=encodes)
    return None


def _decodes(codec: ArrayToArray, decoded: np.dtype[Any], stored: np.dtype[Any]) -> bool:
    """Whether NumPy has an operation for these types at all."""
    try:
        codec.decode(np.ones(2, stored), ChunkSpec((2,), decoded))
    except CodecError:
        return False
    return True
