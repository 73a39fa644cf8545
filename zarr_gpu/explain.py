"""What a read would do: chunks, keys, ranges, bytes, and where every codec runs.

Made by ``Array.explain``; reads shard indexes and sizes, never chunks.  Imports the engine's parts
below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zarr_gpu.devices.base import Device, StepPlace
from zarr_gpu.engine import located_batches
from zarr_gpu.extents import MISSING, REST
from zarr_gpu.layout import Layout
from zarr_gpu.plan import Plan
from zarr_gpu.storage.base import Store

__all__ = ["Explanation", "explain_read"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one read would do.

    Attributes
    ----------
    shape
        Shape of the result.
    device
        Kind of the device that decodes.
    steps
        Every codec in the order of encoding, and where it runs.
    chunks
        Chunks touched; ``missing`` of them are absent and read as the fill value.
    keys, ranges
        Distinct store keys, and byte ranges of them, that would be fetched.
    nbytes
        Encoded bytes that would be fetched.
    decoded_nbytes
        Bytes that decoding would yield (whole chunks); None for variable-length types.
    requests
        (key, offset, nbytes) of every range, at most ``limit`` of them.
    """

    shape: tuple[int, ...]
    device: str
    steps: tuple[StepPlace, ...]
    chunks: int
    missing: int
    keys: int
    ranges: int
    nbytes: int
    decoded_nbytes: int | None
    requests: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        lines = [
            f"result    {self.shape} on {self.device}",
            f"chunks    {self.chunks} ({self.missing} absent: fill value)",
            f"fetch     {self.nbytes} bytes in {self.ranges} ranges of {self.keys} keys",
        ]
        if self.decoded_nbytes is not None:
            lines.append(f"decode    {self.decoded_nbytes} bytes")
        for step in self.steps:
            note = f"  ({step.note})" if step.note else ""
            lines.append(f"codec     {step.codec:<24} {step.where}{note}")
        return "\n".join(lines)


def explain_read(
    layout: Layout, store: Store, device: Device, plan: Plan, *, limit: int = 1000
) -> Explanation:
    """Locate the chunks of ``plan`` and sum up what fetching them would mean."""
    missing = ranges = nbytes = 0
    keys: set[str] = set()
    requests: list[tuple[str, int, int]] = []
    for _, request in located_batches(layout, store, plan):
        rows = zip(
            request.key_id.tolist(), request.offset.tolist(), request.nbytes.tolist(), strict=True
        )
        for key_id, offset, asked in rows:
            key = request.keys[key_id]
            length = _size(store, key) if asked == REST else asked
            if length == MISSING:
                missing += 1
                continue
            keys.add(key)
            ranges += 1
            nbytes += length
            if len(requests) < limit:
                requests.append((key, offset, length))
    spec = layout.program.spec
    return Explanation(
        shape=plan.shape,
        device=device.kind,
        steps=tuple(device.places(layout.program, rows=plan.nchunks - missing)),
        chunks=plan.nchunks,
        missing=missing,
        keys=len(keys),
        ranges=ranges,
        nbytes=nbytes,
        decoded_nbytes=None if _varies(spec.dtype) else (plan.nchunks - missing) * spec.nbytes,
        requests=tuple(requests),
    )


def _size(store: Store, key: str) -> int:
    size = store.nbytes(key)
    return MISSING if size is None else size


def _varies(dtype: np.dtype[Any]) -> bool:
    return dtype.hasobject or dtype.kind == "T"
