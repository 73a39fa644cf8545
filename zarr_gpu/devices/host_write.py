"""Boxes written straight to files by one compiled loop, on the CPU.

Where the values of a store may be written as files of their own, chunks are plain arrays and their
one codec has C functions, all chunks of a box are merged, encoded and stored without the GIL:
``kernels.host_write``.  Chunks that the loop leaves are written in the ordinary way.

Imports boxes, the program, ``compiled`` and ``host_rows``; used by the CPU device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.boxes import Box, Objects
from zarr_gpu.codecs.chain import Program
from zarr_gpu.codecs.native import Encoder
from zarr_gpu.config import usable_threads
from zarr_gpu.devices.compiled import load, system
from zarr_gpu.devices.helpers import together
from zarr_gpu.devices.host_rows import Chunks, address_of, axes_of, path_memory
from zarr_gpu.extents import Sink

__all__ = ["BoxWriter"]

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BoxWriter:
    """Writes boxes of one array; see ``devices.base.BoxWriter``."""

    chunks: Chunks
    encoder: Encoder | None  # of the program's one step, None where there is none
    sink: Sink

    @classmethod
    def of(cls, program: Program, fill_value: Any, sink: Sink) -> BoxWriter | None:
        """None where the loop cannot encode the chunks."""
        chunks = Chunks.of(program, fill_value)
        if chunks is None:
            return None
        encoder = None
        for step in program.steps:
            encoder = step.codec.encoder(program.spec.nbytes)
            if encoder is None:
                return None
        return cls(chunks, encoder, sink)

    def __call__(
        self,
        box: Box,
        objects: Objects,
        lengths: tuple[int, ...],
        values: Array,
        keep_fill: bool,
        lanes: int,
    ) -> I64:
        chunks, loop = self.chunks, load().write_box
        axes, order = axes_of(box, objects, chunks.program.strides, values.strides)
        folder = self.sink.prefix + os.fsencode(objects.prefix)
        path, prefix = path_memory(folder + os.fsencode(objects.key_encoding.lead))
        suffix = np.frombuffer(bytearray(self.sink.suffix), np.uint8)
        of_array = np.array(lengths, np.int64)
        left, turn = np.ones(box.nchunks, np.int64), np.zeros(1, np.int64)
        address, separator = address_of(values), ord(objects.key_encoding.separator)

        def lane() -> None:
            memory = chunks.memory()
            encoder = self._numbers()
            if memory is None or encoder is None:
                return
            codec, functions, item, nbytes = chunks.coding
            own = path.copy()
            loop(
                *(turn, axes, of_array, order),
                *(own, len(folder), prefix, separator, np.empty_like(own), suffix),
                *(codec, functions, system(), encoder),
                *(item, int(keep_fill), nbytes, address, *memory, left),
            )

        together(lane, lanes or usable_threads())
        return np.flatnonzero(left)

    def _numbers(self) -> I64 | None:
        """What the loop encodes with in this thread; None where there is no context."""
        if self.encoder is None:
            return np.zeros(3, np.int64)
        try:
            context = 0 if self.encoder.context is None else self.encoder.context()
        except (MemoryError, ValueError):  # encoding in the ordinary way tells of it
            return None
        numbers = (self.encoder.encode, context, *self.encoder.numbers)
        return np.array([n % 2**64 for n in numbers], np.uint64).view(np.int64)
