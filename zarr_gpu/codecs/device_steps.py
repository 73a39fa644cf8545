"""Where the codecs of a chain run, and how: the step of every codec for batches on a device.

The codec files know nothing of devices.  What a device can do depends on a library (nvCOMP) and on
kernels, not on the codec, so one table here says which step serves which class of codecs; whatever
is not in it runs on host threads, one step of the chain and no more.

Imports the codecs, the chain and the steps; called by the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.base import BytesToBytes
from zarr_gpu.codecs.blosc import BloscCodec
from zarr_gpu.codecs.chain import Program, Step
from zarr_gpu.codecs.device_blosc import BloscStep
from zarr_gpu.codecs.device_blosc_encode import FrameForm
from zarr_gpu.codecs.device_host import HostStep
from zarr_gpu.codecs.device_streams import GzipStep, Lz4Step, ZlibStep, ZstdStep
from zarr_gpu.codecs.gzip import GzipCodec
from zarr_gpu.codecs.lz4 import LZ4
from zarr_gpu.codecs.runtime import DeviceStep
from zarr_gpu.codecs.zlib import Zlib
from zarr_gpu.codecs.zstd import ZstdCodec

__all__ = ["device_step", "make_steps"]

U8 = npt.NDArray[np.uint8]

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_FRAMES = {"lz4": "LZ4", "zstd": "Zstd"}


def _blosc(codec: Any) -> DeviceStep:
    algorithm = _FRAMES.get(codec.cname)
    if algorithm is None:
        return BloscStep(codec, None)
    typesize = codec.typesize or 1
    shuffle = codec.shuffle or ("shuffle" if typesize > 1 else "bitshuffle")
    stored = codec.clevel == 0
    form = FrameForm(algorithm, typesize, _SHUFFLES[shuffle], codec.blocksize, stored)
    return BloscStep(codec, form)


_STEPS: list[tuple[type[BytesToBytes], Callable[[Any], DeviceStep]]] = [
    (BloscCodec, _blosc),
    (GzipCodec, GzipStep),
    (LZ4, Lz4Step),
    (Zlib, ZlibStep),
    (ZstdCodec, lambda codec: ZstdStep(codec, checksum=codec.checksum)),
]


def device_step(codec: BytesToBytes) -> DeviceStep | None:
    """The step of a codec on the device, None where there is none."""
    for kind, make in _STEPS:
        if isinstance(codec, kind):
            return make(codec)
    return None


def _host_step(step: Step, note: str) -> HostStep:
    codec = step.codec

    def decode(data: U8, size: int, out: U8 | None) -> U8:
        return codec.decode(data, limit=size, exact=step.exact, out=out)

    return HostStep(codec.name, decode, codec.encode, exact=step.exact, note=note)


def make_steps(program: Program, *, on_host: Collection[str] = ()) -> list[DeviceStep]:
    """One step for every codec of a program, in the order of encoding: arrays, then bytes.

    Parameters
    ----------
    program
        A compiled chain whose serializer is ``bytes``.
    on_host
        Names of codecs that shall run on host threads.
    """
    found: list[DeviceStep] = []
    for step in program.steps:
        made = None
        if step.codec.name in on_host:
            note = "asked for"
        elif not step.exact:
            note = "the decoded size varies"
        else:
            note = "no kernel and no library"
            made = device_step(step.codec)
        found.append(made or _host_step(step, note))
    return found
