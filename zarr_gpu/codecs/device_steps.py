"""Where the codecs of a chain run, and how: the step of every codec for batches on a device.

The codec files know nothing of devices.  What a device can do depends on a library (nvCOMP) and on
kernels, not on the codec, so one table here says which step serves which class of codecs; whatever
is not in it runs on host threads, one step of the chain and no more.

Imports the codecs, the chain and the steps; called by the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.adler32 import Adler32
from zarr_gpu.codecs.base import ArrayToArray, BytesToBytes, ChunkSpec, Codec
from zarr_gpu.codecs.bitround import BitRound, BitRoundFilter
from zarr_gpu.codecs.blosc import BloscCodec
from zarr_gpu.codecs.bytes import BytesCodec
from zarr_gpu.codecs.chain import FlatFilter, Program, Step
from zarr_gpu.codecs.checksum import Checksum
from zarr_gpu.codecs.crc32 import CRC32
from zarr_gpu.codecs.crc32c import CRC32C, Crc32cCodec
from zarr_gpu.codecs.device_blosc import BloscStep
from zarr_gpu.codecs.device_blosc_encode import FrameForm
from zarr_gpu.codecs.device_checks import ChecksumStep
from zarr_gpu.codecs.device_filters import (
    ELEMENTWISE,
    ElementTypes,
    PackBitsStep,
    SameStep,
    ShuffleStep,
    filter_step,
)
from zarr_gpu.codecs.device_host import HostStep
from zarr_gpu.codecs.device_streams import GzipStep, Lz4Step, ZlibStep, ZstdStep
from zarr_gpu.codecs.gzip import GzipCodec
from zarr_gpu.codecs.lz4 import LZ4
from zarr_gpu.codecs.packbits import PackBits, PackBitsFilter
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts
from zarr_gpu.codecs.shuffle import Shuffle
from zarr_gpu.codecs.zlib import Zlib
from zarr_gpu.codecs.zstd import ZstdCodec
from zarr_gpu.errors import CodecError

__all__ = ["device_step", "make_steps", "verify_row"]

U8 = npt.NDArray[np.uint8]

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_FRAMES = {"lz4": "LZ4", "zstd": "Zstd"}
_NO_KERNEL = "no kernel and no library decodes it on the device"


def _blosc(codec: Any) -> DeviceStep:
    algorithm = _FRAMES.get(codec.cname)
    if algorithm is None:
        return BloscStep(codec, None)
    typesize = codec.typesize or 1
    shuffle = codec.shuffle or ("shuffle" if typesize > 1 else "bitshuffle")
    stored = codec.clevel == 0
    form = FrameForm(algorithm, typesize, _SHUFFLES[shuffle], codec.blocksize, stored)
    return BloscStep(codec, form)


def _flat_filter(codec: Any) -> DeviceStep | None:
    inner = codec.codec
    if not any(_is_plain(inner, kind) for kind in ELEMENTWISE):
        return None
    types = ElementTypes(codec.decoded, codec.decoded, codec.encoded, codec.encoded)
    made = filter_step(inner, types)
    return made if made is None or made.encodes else _encoded_by_host(made, codec)


def _encoded_by_host(step: DeviceStep, codec: Any) -> DeviceStep:
    def decode(data: U8, size: int, _out: U8 | None) -> U8:
        result: U8 = codec.decode(data, limit=size, exact=True)
        return result

    return _HostEncode(step, HostStep(codec.name, decode, codec.encode))


_STEPS: list[tuple[type[BytesToBytes], Callable[[Any], DeviceStep | None]]] = [
    (BloscCodec, _blosc),
    (GzipCodec, GzipStep),
    (LZ4, Lz4Step),
    (Zlib, ZlibStep),
    (ZstdCodec, lambda codec: ZstdStep(codec, checksum=codec.checksum)),
    (Shuffle, lambda codec: ShuffleStep(codec.name, codec.to_config()["elementsize"])),
    (FlatFilter, _flat_filter),
    (BitRoundFilter, lambda codec: _encoded_by_host(SameStep(codec.name), codec)),
    (PackBitsFilter, lambda codec: PackBitsStep(codec.name)),
]

_CHECKSUMS: list[tuple[type[Checksum], str]] = [
    (Crc32cCodec, "crc32c"),
    (CRC32C, "crc32c"),
    (CRC32, "crc32"),
    (Adler32, "adler32"),
]

_TRUSTING = (BloscCodec, GzipCodec, Zlib, ZstdCodec)
"""Codecs that nvCOMP decodes without promising anything about damaged input."""


def _is_plain(codec: Codec, kind: type[Any]) -> bool:
    """Whether ``codec`` is of this kind, and not of a class that works in its own way."""
    own: Any = type(codec)
    return isinstance(codec, kind) and own.decode is kind.decode and own.encode is kind.encode


def device_step(codec: BytesToBytes, *, exact: bool = True, wait: bool = True) -> DeviceStep | None:
    """The step of a codec on the device, None where there is none.

    Parameters
    ----------
    codec
        A codec of a program, which knows its element size.
    exact
        Whether the decoded size is known; only checksums can do without.
    wait
        Whether a checksum must be compared before the next step decodes.
    """
    for known, name in _CHECKSUMS:
        if isinstance(codec, known) and _is_plain(codec, known):
            if type(codec).checksum is not known.checksum:
                return None
            at_end = codec.place == "end"
            return ChecksumStep(codec, name, at_end=at_end, wait=wait, exact=exact)
    for kind, make in _STEPS if exact else ():
        if _is_plain(codec, kind):
            return make(codec)
    return None


def _host_step(step: Step, note: str) -> HostStep:
    codec = step.codec

    def decode(data: U8, size: int, out: U8 | None) -> U8:
        return codec.decode(data, limit=size, exact=step.exact, out=out)

    return HostStep(codec.name, decode, codec.encode, exact=step.exact, note=note)


def make_steps(program: Program, *, on_host: Collection[str] = ()) -> list[DeviceStep]:
    """One step for every codec of a program, in the order of encoding: arrays, then bytes.

    Decoded sizes are those of ``program.arrays`` (``spec.nbytes``) and ``program.steps``
    (``limit``).  What comes out of the last step to be decoded are elements of
    ``program.spec.dtype`` where there are array codecs, of the serializer's type otherwise.

    Parameters
    ----------
    program
        A compiled chain whose serializer is ``bytes``.
    on_host
        Names of codecs that shall run on host threads.
    """
    found: list[DeviceStep] = []
    for i, (array_codec, spec) in enumerate(program.arrays):
        found.append(_array_step(program, i, array_codec, spec, forced=array_codec.name in on_host))
    for i, step in enumerate(program.steps):
        made = None
        if step.codec.name in on_host:
            note = "asked for"
        else:
            wait = any(isinstance(before.codec, _TRUSTING) for before in program.steps[:i])
            made = device_step(step.codec, exact=step.exact, wait=wait)
            note = _NO_KERNEL if step.exact else "the decoded size varies"
        found.append(made or _host_step(step, note))
    for inner, outer in pairwise(found):
        if isinstance(inner, HostStep) and isinstance(outer, HostStep):
            outer.decoded_stay = inner.encoded_stay = True
    return found


def verify_row(program: Program, encoded: U8) -> U8:
    """Bytes of a chunk by the CPU codecs, for a row that a device reported as damaged.

    Raises CodecError where the row is damaged; returns what the device should have made of it
    otherwise, as elements of the serializer's type.
    """
    return program.decode_bytes(encoded)


# ---- array codecs --------------------------------------------------------------------------------


def _array_step(
    program: Program, i: int, codec: ArrayToArray, spec: ChunkSpec, *, forced: bool
) -> DeviceStep:
    """The step of ``program.arrays[i]``."""
    encoded = codec.encoded_spec(spec)
    # Bytes between two array codecs are of the type that the inner one decodes to.
    inner = encoded.dtype
    if i + 1 == len(program.arrays) and isinstance(program.serializer, BytesCodec):
        inner = program.serializer.stored_dtype(encoded.dtype)
    made: Any = None
    if forced:
        pass
    elif any(_is_plain(codec, kind) for kind in ELEMENTWISE):
        decoded, stored = codec.stored_dtypes() or (spec.dtype, encoded.dtype)
        made = filter_step(codec, ElementTypes(spec.dtype, decoded, stored, inner))
    elif _is_plain(codec, BitRound) and inner == spec.dtype:
        made = SameStep(codec.name)
    elif _is_plain(codec, PackBits):
        return PackBitsStep(codec.name)
    if made is not None and made.encodes:
        step: DeviceStep = made
        return step

    def decode(data: U8, _size: int, _out: U8 | None) -> U8:
        if len(data) != encoded.nbytes:
            raise CodecError(
                "wrong size", codec=codec.name, expected=encoded.nbytes, actual=len(data)
            )
        array = _elements(data, inner).reshape(encoded.shape)
        return np.ascontiguousarray(codec.decode(array, spec)).reshape(-1).view(np.uint8)

    def encode(data: U8) -> U8:
        array = codec.encode(_elements(data, spec.dtype).reshape(spec.shape), spec)
        return np.ascontiguousarray(array, dtype=inner).reshape(-1).view(np.uint8)

    host = HostStep(codec.name, decode, encode, note="asked for" if forced else _NO_KERNEL)
    return host if made is None else _HostEncode(made, host)


def _elements(data: U8, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return (data if data.ctypes.data % dtype.alignment == 0 else data.copy()).view(dtype)


class _HostEncode(DeviceStep):
    """Decodes on the device; nothing there encodes."""

    def __init__(self, step: DeviceStep, host: HostStep) -> None:
        self.codec = step.codec
        self.note = "encoded on host threads"
        self._step, self._host = step, host

    def host_reason(self, runtime: Runtime, *, encode: bool) -> str | None:
        step = self._host if encode else self._step
        return step.host_reason(runtime, encode=encode)

    def decode(
        self, runtime: Runtime, batch: DeviceBatch, size: int, verdicts: Verdicts
    ) -> DeviceBatch:
        return self._step.decode(runtime, batch, size, verdicts)

    def encode(self, runtime: Runtime, batch: DeviceBatch) -> DeviceBatch:
        return self._host.encode(runtime, batch)
