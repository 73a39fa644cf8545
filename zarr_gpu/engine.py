"""The engine: the one place where the stages meet.

    read    plan -> locate -> fetch -> decode -> place
    write   plan -> locate -> fetch what is covered only partly -> merge -> encode -> put

Both work through batches of rows that are bounded in number, so that memory does not grow with the
selection beyond its result.  The device decides how many jobs run at a time.

Imports everything below ``array``; called by ``array``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.devices.base import Device, Job, Lane, Options
from zarr_gpu.errors import ChunkNotFoundError, DataError, ShardIndexError
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, Memory
from zarr_gpu.jobs import Target, cut_jobs, lanes_for
from zarr_gpu.layout import Layout
from zarr_gpu.locate import IndexSource, Locator
from zarr_gpu.plan import Batch, Plan
from zarr_gpu.shard_writes import write_shards
from zarr_gpu.stages import stage
from zarr_gpu.storage.base import Store
from zarr_gpu.write_locks import hold

__all__ = [
    "MAX_LOCKED",
    "located_batches",
    "make_target",
    "max_shards",
    "read",
    "write",
    "write_rows",
]

Array = npt.NDArray[Any]
Coords = tuple[int, ...]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

BATCH_ROWS = 8192
"""Rows that are planned and located at a time."""

MAX_LOCKED = 64
"""Objects that a write locks one by one; a write of more locks the array."""

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
    lanes = lanes_for(layout, store, plan.nchunks)
    reader = None
    # Which rows are absent, and which keys no store takes, is known to fetching alone.
    if missing == "fill" and fields is None and layout.keys_fit:
        reader = device.row_reader(program, plan, source, layout.fill_value, out, options)
    if reader is None:
        rows_per_job = device.rows_per_job(program, requests=store.concurrency)
    else:
        rows_per_job = reader.rows_per_job(lanes)
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
        cut_jobs(located_batches(layout, indexes, plan), rows_per_job),
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
        lanes=lanes,
        source=source,
        reader=reader,
    )


def _by_object(request: ByteRequest) -> tuple[ByteRequest, I64 | None]:
    """A request in the order of its keys, and that order, None where it was in order."""
    if len(request.keys) == 1:
        return request, None
    order = np.argsort(request.key_id, kind="stable")
    return (
        ByteRequest(
            request.keys, request.key_id[order], request.offset[order], request.nbytes[order]
        ),
        order,
    )


def located_batches(
    layout: Layout, store: IndexSource, plan: Plan
) -> Iterator[tuple[Batch, ByteRequest]]:
    """Batches of a plan with the byte ranges of their rows."""
    if not plan.nchunks:
        return
    locator = Locator(layout, store)
    if not layout.levels:
        for batch in plan.batches(BATCH_ROWS):
            yield batch, locator.locate(batch.coords)
        return
    most = math.prod(s.nobjects(layout.chunks_per_object) for s in plan.sets)
    if plan.nchunks <= BATCH_ROWS and most <= max_shards(layout):
        # All at once; only then put in order by object, which is what lanes read together.
        batch = plan.rows(0, plan.nchunks)
        request, order = _by_object(locator.locate(batch.coords))
        yield batch if order is None else batch.take(order), request
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
    most = max_shards(layout)
    held: list[I64] = []
    rows = 0
    for _, index in plan.objects(layout.chunks_per_object):
        held.append(index)
        rows += len(index)
        if rows >= BATCH_ROWS or len(held) >= most:
            yield np.concatenate(held)
            held, rows = [], 0
    if held:
        yield np.concatenate(held)


def max_shards(layout: Layout) -> int:
    """How many shards may have their indexes in memory together."""
    index_nbytes = sum(level.index_nbytes for level in layout.levels)
    return max(1, min(256, (16 << 20) // index_nbytes))


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
    ready: Callable[[], None] = lambda: None,
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
    ready
        Called from any lane before it stores something; waits until it may.

    Raises
    ------
    ChunkDecodeError, ShardIndexError
        A chunk that is covered only partly cannot be read; names the key.
    ReadOnlyError, StoreError
        The store refuses or fails.
    """
    target = make_target(
        (layout, store, device, plan, values), fields, write_empty_chunks, options, ready
    )
    if layout.levels:
        with hold(store, layout.prefix, _changed_shards(target)):
            write_shards(target)
        return
    batches: Iterable[tuple[Batch, ByteRequest]] = _whole_objects(layout, plan)
    if plan.nchunks > BATCH_ROWS:
        whole = target.whole_items and all(s.whole.all() for s in plan.sets)
        changed: list[str] | None = [] if whole else None
    else:
        only = next(iter(batches))
        batches, changed = [only], _changed_in_part(target, *only)
    with hold(store, layout.prefix, changed):
        _write_chunks(target, batches)


def make_target(
    what: tuple[Layout, Store, Device, Plan, Any],
    fields: str | list[str] | None,
    write_empty_chunks: bool,
    options: Options,
    ready: Callable[[], None],
) -> Target:
    """What a write of ``(layout, store, device, plan, values)`` carries; see :func:`write`."""
    layout, _, device, plan, _ = what
    make_lane = device.lane_maker(
        layout.program,
        plan,
        fill_value=layout.fill_value,
        fields=fields,
        keep_fill_chunks=write_empty_chunks,
        options=options,
    )
    return Target(*what, fields is None, make_lane, ready)


def write_rows(target: Target, rows: I64) -> None:
    """Write some rows of a plan without shards, the locks of which are held."""
    plan, layout = target.plan, target.layout
    batch = plan.batch(plan.rows(0, plan.nchunks).index[rows])
    _write_chunks(target, [(batch, ByteRequest.whole(layout.keys(batch.coords)))])


def _whole_objects(layout: Layout, plan: Plan) -> Iterator[tuple[Batch, ByteRequest]]:
    for batch in plan.batches(BATCH_ROWS):
        yield batch, ByteRequest.whole(layout.keys(batch.coords))


def _changed_shards(target: Target) -> list[str] | None:
    """Keys of the shards that are written; None where they are many."""
    layout = target.layout
    objects = list(islice(target.plan.objects(layout.chunks_per_object), MAX_LOCKED + 1))
    many = len(objects) > MAX_LOCKED
    return None if many else [layout.key(coords) for coords, _ in objects]


def _changed_in_part(target: Target, batch: Batch, request: ByteRequest) -> list[str] | None:
    """Keys of chunks that are read before they are written; None where they are many."""
    if not target.whole_items:
        partial = request.keys
    elif batch.complete.all():
        partial = []
    else:
        partial = [request.keys[row] for row in np.flatnonzero(~batch.complete).tolist()]
    return None if len(partial) > MAX_LOCKED else partial


def _write_chunks(target: Target, batches: Iterable[tuple[Batch, ByteRequest]]) -> None:
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
        target.ready()
        store.put_many((key, data) for key, data in pairs if data is not None)
        # A chunk of fill value is an absent chunk: an older one must not stay behind.
        empty = [key for key, data in pairs if data is None]
        if empty:
            store.delete_many(empty)

    # Half of what a read takes: old, new and encoded bytes of a job share the cache of a core.
    rows = max(1, device.rows_per_job(layout.program) // 2)
    lanes = lanes_for(layout, store, plan.nchunks)
    device.run(cut_jobs(batches, rows), fetch, work, target.make_lane, lanes=lanes)
