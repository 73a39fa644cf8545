"""The engine: the one place where the stages meet.

    read    plan -> locate -> fetch -> decode -> place
    write   plan -> locate -> fetch what is covered only partly -> merge -> encode -> put

Both work through batches of rows that are bounded in number, so that memory does not grow with the
selection beyond its result.  The device decides how many jobs run at a time.

Imports everything below ``array``; called by ``array``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.devices.base import Device, Job, Lane, Options
from zarr_gpu.errors import ChunkNotFoundError, DataError, ShardIndexError
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, Memory
from zarr_gpu.layout import Layout
from zarr_gpu.locate import IndexSource, Locator
from zarr_gpu.plan import Batch, Plan
from zarr_gpu.shards import assemble, explode
from zarr_gpu.stages import stage
from zarr_gpu.storage.base import Store
from zarr_gpu.write_locks import hold

__all__ = ["located_batches", "read", "write"]

Array = npt.NDArray[Any]
Coords = tuple[int, ...]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

BATCH_ROWS = 8192
"""Rows that are planned and located at a time."""

SMALL_NBYTES = 256 << 10
"""Decoded bytes below which a read or write stays on the caller's thread."""

MAX_LOCKED = 64
"""Objects that a write locks one by one; a write of more locks the array."""

GROUP_NBYTES = 128 << 20
"""Decoded bytes of the shards that are written together."""

_PLAINLY = Options()


# --------------------------------------------------------------------------------- read


def read(
    layout: Layout,
    store: Store,
    device: Device,
    plan: Plan,
    out: Any,
    *,
    fields: str | list[str] | None = None,
    missing: str = "fill",
    options: Options = _PLAINLY,
) -> None:
    """Read the chunks of ``plan`` into ``out``.

    Parameters
    ----------
    layout, store
        The array and where it is.
    device
        Where to decode; ``out`` lives there.
    plan
        What to read.
    out
        Result memory of ``plan.work_shape``; every item of it is written.
    fields
        Fields of a structured type to read.
    missing
        ``"fill"``: an absent chunk reads as the fill value; ``"error"``: it raises.
    options
        How it is done.

    Raises
    ------
    ChunkDecodeError, ShardIndexError
        Stored bytes are damaged; names the key.
    ChunkNotFoundError
        A chunk is absent and ``missing="error"``.
    StoreError
        The store failed.
    """
    program = layout.program
    source = device.source(store)
    rows_per_job = device.rows_per_job(program, requests=store.concurrency)
    indexes = store if options.cache is None else options.cache.indexes(store)

    def fetch(job: Job, memory: Memory) -> Extents:
        with stage("fetch"):
            return _fetch(source, job, memory)

    def decode(lane: Lane, job: Job, extents: Extents | None) -> None:
        if extents is not None:
            if missing == "error":
                _refuse_missing(job, extents)
            lane.decode(job, extents, out)

    device.run(
        _cut(located_batches(layout, indexes, plan), rows_per_job),
        fetch,
        decode,
        device.lane_maker(
            program,
            plan,
            fill_value=layout.fill_value,
            fields=fields,
            keep_fill_chunks=True,
            options=options,
        ),
        lanes=_lanes(layout, store, plan.nchunks),
        source=source,
    )


def _lanes(layout: Layout, store: Store, nchunks: int) -> int:
    """1 where handing work to another thread would cost more than it saves."""
    small = nchunks * max(layout.chunk_nbytes, 4096) <= SMALL_NBYTES
    return 1 if nchunks <= 1 or (small and store.concurrency == 1) else 0


def located_batches(
    layout: Layout, store: IndexSource, plan: Plan
) -> Iterator[tuple[Batch, ByteRequest]]:
    """Batches of a plan with the byte ranges of their rows."""
    locator = Locator(layout, store)
    if not layout.levels:
        for batch in plan.batches(BATCH_ROWS):
            yield batch, locator.locate(batch.coords)
        return
    for index in _rows_by_object(layout, plan):
        locator.forget()
        for lo in range(0, len(index), BATCH_ROWS):
            batch = plan.batch(index[lo : lo + BATCH_ROWS])
            yield batch, locator.locate(batch.coords)


def _rows_by_object(layout: Layout, plan: Plan) -> Iterator[I64]:
    """Rows (n, nsets) of whole shards, so that every index is needed once.

    A few shards at a time: their indexes are fetched together and must fit in memory.
    """
    index_nbytes = sum(level.index_nbytes for level in layout.levels)
    max_shards = max(1, min(256, (16 << 20) // index_nbytes))
    held: list[I64] = []
    rows = 0
    for _, index in plan.objects(layout.chunks_per_object):
        held.append(index)
        rows += len(index)
        if rows >= BATCH_ROWS or len(held) >= max_shards:
            yield np.concatenate(held)
            held, rows = [], 0
    if held:
        yield np.concatenate(held)


def _cut(batches: Iterable[tuple[Batch, ByteRequest]], rows: int) -> Iterator[Job]:
    for batch, request in batches:
        for lo in range(0, len(batch), rows):
            yield Job(batch, request, lo, min(lo + rows, len(batch)))


def _fetch(store: Store, job: Job, memory: Memory) -> Extents:
    try:
        return store.fetch(job.request.take(job.lo, job.hi), memory)
    except DataError as err:
        if isinstance(err, ShardIndexError):
            raise
        raise ShardIndexError(
            f"a shard is cut off, or its index points beyond its end: {err.message}",
            key=err.key,
            expected=err.expected,
            actual=err.actual,
        ) from err


def _refuse_missing(job: Job, extents: Extents) -> None:
    absent = np.flatnonzero(extents.nbytes == MISSING)
    if len(absent):
        row = job.lo + int(absent[0])
        key = job.key(row)
        coords = tuple(job.batch.coords[row].tolist())
        raise ChunkNotFoundError(f"chunk {coords} is absent: key {key!r}", key=key)


# -------------------------------------------------------------------------------- write


def write(
    layout: Layout,
    store: Store,
    device: Device,
    plan: Plan,
    values: Any,
    *,
    fields: str | list[str] | None = None,
    write_empty_chunks: bool = False,
    options: Options = _PLAINLY,
) -> None:
    """Write ``values`` to the chunks of ``plan``.

    Chunks that ``values`` covers are not read first.  Chunks that end up holding nothing but the
    fill value are removed, unless ``write_empty_chunks``.  A shard is read and written as a whole,
    once; the encoded bytes of chunks that are not touched are kept as they are.  Threads that write
    parts of one object take turns; processes do not.

    Parameters
    ----------
    layout, store, device
        The array, where it is, and where to encode.
    plan
        Where to write.
    values
        Of ``plan.work_shape``, on ``device``; may be a broadcast view.
    fields
        Fields of a structured type to write.
    write_empty_chunks
        Store chunks of fill value too.
    options
        How it is done.

    Raises
    ------
    ChunkDecodeError, ShardIndexError
        A chunk that is covered only partly cannot be read; names the key.
    ReadOnlyError, StoreError
        The store refuses or fails.
    """
    make_lane = device.lane_maker(
        layout.program,
        plan,
        fill_value=layout.fill_value,
        fields=fields,
        keep_fill_chunks=write_empty_chunks,
        options=options,
    )
    target = _Target(layout, store, device, plan, values, fields is None, make_lane)
    with hold(store, layout.prefix, _changed_in_part(target)):
        if layout.levels:
            _write_shards(target)
        else:
            _write_chunks(target)


@dataclass(frozen=True, slots=True)
class _Target:
    """What a write carries from stage to stage."""

    layout: Layout
    store: Store
    device: Device
    plan: Plan
    values: Any
    whole_items: bool  # all fields of every item are written
    make_lane: Any

    def partial(self, job: Job) -> npt.NDArray[np.bool_]:
        """(rows,) of a job: which chunks must be read first."""
        complete = job.batch.complete[job.lo : job.hi]
        return ~complete if self.whole_items else np.ones(len(complete), np.bool_)


def _changed_in_part(target: _Target) -> list[str] | None:
    """Keys of objects that are read before they are written; None where they are many."""
    layout, plan = target.layout, target.plan
    if layout.levels:
        objects = list(islice(plan.objects(layout.chunks_per_object), MAX_LOCKED + 1))
        many = len(objects) > MAX_LOCKED
        return None if many else [layout.key(coords) for coords, _ in objects]
    if target.whole_items and all(s.whole.all() for s in plan.sets):
        return []
    if plan.nchunks > BATCH_ROWS:
        return None
    batch = plan.rows(0, plan.nchunks)
    partial = batch.coords[~batch.complete] if target.whole_items else batch.coords
    return None if len(partial) > MAX_LOCKED else layout.keys(partial)


def _write_chunks(target: _Target) -> None:
    layout, store, device, plan = target.layout, target.store, target.device, target.plan

    def fetch(job: Job, memory: Memory) -> Extents | None:
        partial = target.partial(job)
        if not partial.any():
            return None
        wanted = job.request.take(job.lo, job.hi)
        nbytes = np.where(partial, REST, MISSING)
        request = ByteRequest(wanted.keys, wanted.key_id, wanted.offset, nbytes)
        return store.fetch(request, memory)

    def work(lane: Lane, job: Job, existing: Extents | None) -> None:
        encoded = lane.encode(job, existing, target.values)
        keys = [job.key(row) for row in range(job.lo, job.hi)]
        pairs = list(zip(keys, encoded, strict=True))
        store.put_many((key, data) for key, data in pairs if data is not None)
        # A chunk of fill value is an absent chunk: an older one must not stay behind.
        empty = [key for key, data in pairs if data is None]
        if empty:
            store.delete_many(empty)

    batches = (
        (batch, ByteRequest.whole(layout.keys(batch.coords))) for batch in plan.batches(BATCH_ROWS)
    )
    rows = device.rows_per_job(layout.program)
    lanes = _lanes(layout, store, plan.nchunks)
    device.run(_cut(batches, rows), fetch, work, target.make_lane, lanes=lanes)


@dataclass(slots=True)
class _Shard:
    """One stored object in the making."""

    coords: Coords
    key: str
    index: I64  # (rows, nsets) the rows of the plan that lie in it
    covered: bool  # nothing of what is stored survives
    old: dict[Coords, U8] = field(default_factory=dict)


def _write_shards(target: _Target) -> None:
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


def _write_group(target: _Target, group: list[_Shard]) -> None:
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
        encoded[job.lo : job.hi] = lane.encode(job, existing, target.values)

    # Rows are known by the key of their object; the request serves error messages only.
    request = ByteRequest(
        [shard.key for shard in group],
        owner,
        np.zeros(len(batch), np.int64),
        np.full(len(batch), REST, np.int64),
    )
    lanes = _lanes(layout, store, len(batch))
    rows = device.rows_per_job(layout.program)
    device.run(_cut([(batch, request)], rows), fetch, encode, target.make_lane, lanes=lanes)

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

    store.put_many(assembled())
    empty = [s.key for s, parts in zip(group, chunks, strict=True) if not parts]
    if empty:
        store.delete_many(empty)


def _fetch_old(target: _Target, group: list[_Shard]) -> None:
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
