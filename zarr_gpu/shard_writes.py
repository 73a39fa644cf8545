"""Writing shards: each stored object is read at most once, and written once.

The rows of a write are grouped by shard.  A shard that is not overwritten as a whole is taken apart
into the encoded bytes of its chunks; those that are written are replaced, the others stay as they
are, and the shard is put together again.

Imports shards, plan, devices.base and storage; called by the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zarr_gpu.devices.base import Job, Lane
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, Memory
from zarr_gpu.jobs import Target, cut_jobs, lanes_for
from zarr_gpu.layout import Layout
from zarr_gpu.plan import Plan
from zarr_gpu.shards import assemble, explode

__all__ = ["write_shards"]

Coords = tuple[int, ...]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

GROUP_NBYTES = 128 << 20
"""Decoded bytes of the shards that are written together."""


@dataclass(slots=True)
class _Shard:
    """One stored object in the making."""

    coords: Coords
    key: str
    index: I64  # (rows, nsets) the rows of the plan that lie in it
    covered: bool  # nothing of what is stored survives
    old: dict[Coords, U8] = field(default_factory=dict)


def write_shards(target: Target) -> None:
    """Write the rows of a plan over a sharded layout."""
    layout, plan = target.layout, target.plan
    group: list[_Shard] = []
    nbytes = 0
    for coords, index in plan.objects(layout.chunks_per_object):
        covered = target.whole_items and _covers(layout, plan, coords, index)
        group.append(_Shard(coords, layout.key(coords), index, covered))
        nbytes += len(index) * layout.chunk_nbytes
        if nbytes >= GROUP_NBYTES:
            _write_group(target, group)
            group, nbytes = [], 0
    if group:
        _write_group(target, group)


def _covers(layout: Layout, plan: Plan, coords: Coords, index: I64) -> bool:
    """Whether the rows are all chunks of the object inside the array, and cover each whole."""
    inside = 1
    for axis, edge, c, per in zip(
        layout.grid.axes,
        layout.object_grid.chunk_shape,
        coords,
        layout.chunks_per_object,
        strict=True,
    ):
        items = min(edge, axis.length - c * edge)
        inside *= min(per, -(-items // axis.edge))
    return len(index) == inside and bool(plan.batch(index).complete.all())


def _write_group(target: Target, group: list[_Shard]) -> None:
    """Fetch old shards, encode all chunks of the group, assemble and store."""
    layout, store, device, plan = target.layout, target.store, target.device, target.plan
    _fetch_old(target, group)

    index = np.concatenate([shard.index for shard in group])
    batch = plan.batch(index)
    owner = np.repeat(np.arange(len(group)), [len(shard.index) for shard in group])
    inner = batch.coords - np.array([s.coords for s in group], np.int64)[owner] * np.array(
        layout.chunks_per_object, np.int64
    )
    places: list[Coords] = [tuple(c) for c in inner.tolist()]
    encoded: list[U8 | None] = [None] * len(batch)

    def fetch(job: Job, memory: Memory) -> Extents | None:
        partial = target.partial(job)
        if not partial.any():
            return None
        old = [
            group[owner[row]].old.get(places[row]) if p else None
            for row, p in zip(range(job.lo, job.hi), partial.tolist(), strict=True)
        ]
        return _gathered(old, memory)

    def encode(lane: Lane, job: Job, existing: Extents | None) -> None:
        for row, data in enumerate(lane.encode(job, existing, target.values), job.lo):
            encoded[row] = None if data is None else data.copy()  # the lane uses its memory again

    # Rows are known by the key of their object; the request serves error messages only.
    request = ByteRequest(
        [shard.key for shard in group],
        owner,
        np.zeros(len(batch), np.int64),
        np.full(len(batch), REST, np.int64),
    )
    lanes = lanes_for(layout, store, len(batch))
    rows = device.rows_per_job(layout.program)
    device.run(cut_jobs([(batch, request)], rows), fetch, encode, target.make_lane, lanes=lanes)

    chunks = [dict(shard.old) for shard in group]
    for row, (shard, place) in enumerate(zip(owner.tolist(), places, strict=True)):
        data = encoded[row]
        if data is None:
            chunks[shard].pop(place, None)
        else:
            chunks[shard][place] = data

    def assembled() -> Iterator[tuple[str, U8]]:
        for shard, parts in zip(group, chunks, strict=True):
            data = assemble(layout.levels, parts)
            if data is not None:
                yield shard.key, data

    target.ready()
    store.put_many(assembled())
    empty = [s.key for s, parts in zip(group, chunks, strict=True) if not parts]
    if empty:
        store.delete_many(empty)


def _fetch_old(target: Target, group: list[_Shard]) -> None:
    """The encoded chunks of the shards that are not overwritten as a whole; one read each."""
    kept = [shard for shard in group if not shard.covered]
    for shard in kept:
        data = target.store.get(shard.key)
        if data is not None:
            old = np.frombuffer(data, np.uint8)
            shard.old = explode(target.layout.levels, old, key=shard.key)


def _gathered(parts: list[U8 | None], memory: Memory) -> Extents:
    """Encoded chunks as one buffer."""
    nbytes = np.array([MISSING if p is None else len(p) for p in parts], np.int64)
    sizes = np.maximum(nbytes, 0)
    # Aligned, since the bytes may be viewed as wider elements.
    room = (sizes + 63) & ~np.int64(63)
    offset = np.cumsum(room) - room
    base = memory.empty(int(room.sum()))
    for part, start in zip(parts, offset.tolist(), strict=True):
        if part is not None:
            base[start : start + len(part)] = part
    return Extents(base, offset, nbytes)
