"""Boxes of few chunks, read and written by devices that need no plan for that.

What a device cannot do so, and errors, are left to the engine.

Imports the engine and ``boxes``; called by ``array``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zarr_gpu.boxes import make_box
from zarr_gpu.devices.base import Device, Options
from zarr_gpu.engine import MAX_LOCKED, make_target, max_shards, write_rows
from zarr_gpu.jobs import lanes_for
from zarr_gpu.layout import Layout
from zarr_gpu.locate import Locator
from zarr_gpu.plan import make_plan
from zarr_gpu.select import Selection
from zarr_gpu.storage.base import Store
from zarr_gpu.write_locks import hold

__all__ = ["read_box", "write_box"]


def read_box(layout: Layout, store: Store, device: Device, selection: Selection, out: Any) -> bool:
    """Read a selection that is a box of few chunks, where the device needs no plan for that.

    False: nothing is read, or not all; ``engine.read`` does it, and finds the errors.  Absent
    chunks read as the fill value.
    """
    objects = layout.objects
    if objects is None:
        return False
    reader = device.box_reader(layout.program, store, layout.fill_value, out)
    box = None if reader is None else make_box(selection, layout.grid, device.box_chunks)
    if reader is None or box is None:
        return False
    indexes = None
    if layout.levels:
        keys = objects.keys(box)
        if len(keys) > max_shards(layout):
            return False
        indexes = Locator(layout, store).outermost(keys)
    return reader(box, objects, indexes, lanes_for(layout, store, box.nchunks))


def write_box(
    layout: Layout,
    store: Store,
    device: Device,
    selection: Selection,
    values: Any,
    *,
    write_empty_chunks: bool = False,
    options: Options,
    ready: Callable[[], None] = lambda: None,
) -> bool:
    """Write a selection that is a box of few chunks, where the device needs no plan for that.

    False: nothing is written, ``engine.write`` does it.  Arguments and errors are those of that.
    """
    objects = None if layout.levels else layout.objects
    if objects is None:
        return False
    writer = device.box_writer(layout.program, store, layout.fill_value, values)
    box = None if writer is None else make_box(selection, layout.grid, device.box_chunks)
    if writer is None or box is None:
        return False
    lengths = layout.grid.array_shape
    changed: list[str] | None = []
    if not box.covers(lengths):
        changed = objects.keys(box) if box.nchunks <= MAX_LOCKED else None
    ready()
    with hold(store, layout.prefix, changed):
        lanes = lanes_for(layout, store, box.nchunks)
        left = writer(box, objects, lengths, values, write_empty_chunks, lanes)
        if len(left):
            plan = make_plan(selection, layout.grid)
            target = make_target(
                (layout, store, device, plan, values), None, write_empty_chunks, options, ready
            )
            write_rows(target, left)
    return True
