"""Reading and writing by selection: the part of an array that has brackets.

Every index mode ends in the same two methods: a selection becomes a plan, the plan goes to the
engine.  Imports ``select``, ``plan``, ``engine``; ``Array`` is the only subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zarr_gpu import engine
from zarr_gpu.box_engine import read_box, write_box
from zarr_gpu.config import ArrayConfig
from zarr_gpu.devices import Device, get_device
from zarr_gpu.devices.base import Options
from zarr_gpu.errors import DeviceError, SelectionError
from zarr_gpu.explain import Explanation, explain_read
from zarr_gpu.indexers import BlockIndex, OIndex, VIndex
from zarr_gpu.layout import Layout
from zarr_gpu.plan import make_plan
from zarr_gpu.select import (
    Selection,
    select,
    select_basic,
    select_blocks,
    select_coordinates,
    select_mask,
    select_orthogonal,
    split_fields,
)
from zarr_gpu.storage.base import Store

if TYPE_CHECKING:
    from zarr_gpu.devices import Cache
    from zarr_gpu.devices.cache import CachePart
    from zarr_gpu.devices.chunk_cache import ChunkPart

__all__ = ["Fields", "Selectable", "as_values"]

Fields = str | list[str] | None
Shape = tuple[int, ...]


class Selectable(ABC):
    """What can be read and written by selection."""

    store: Store
    path: str
    device: Device
    config: ArrayConfig
    cache: Cache | None

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The metadata compiled."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Length of each axis."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of the items of results."""

    @property
    @abstractmethod
    def order(self) -> str:
        """Memory order of results."""

    @property
    def worker(self) -> Device:
        """The device that does the work: the CPU for what ``device`` cannot hold."""
        return self.device if self.device.holds(self.layout.program) else get_device("cpu")

    @cached_property
    def _fallbacks(self) -> dict[bool, tuple[str, ...]]:
        """What ``device`` leaves to the CPU when it reads (False) and when it writes (True)."""
        program = self.layout.program
        return {way: tuple(self.device.fallbacks(program, encode=way)) for way in (False, True)}

    @property
    def _cached(self) -> CachePart | ChunkPart | None:
        return None if self.cache is None else self.cache.part(self.store, self.path)

    def _options(self, *, encode: bool) -> Options:
        """How to read or write.  Raises DeviceError where ``strict`` forbids it."""
        found = self._fallbacks[encode]
        if found and self.config.strict:
            raise DeviceError(
                f"strict: device {self.device.name!r} would leave to the CPU: {'; '.join(found)}"
            )
        for line in found:
            self._tell(line)
        return Options(self.config.strict, self.config.verify, self._cached, self._tell)

    def _tell(self, line: str) -> None:
        """Log, once per handle, what the CPU does for a device."""
        told: set[str] = self.__dict__.setdefault("_told", set())
        if line in told:
            return
        told.add(line)
        import logging

        where = f"{self.path!r} of {self.store!r}"
        logging.getLogger("zarr_gpu").info("array %s: the CPU does %s", where, line)

    @abstractmethod
    def check_writable(self) -> None:
        """Raise ReadOnlyError where writing is refused."""

    # ---- reading -------------------------------------------------------------------------------

    @property
    def oindex(self) -> OIndex:
        """Orthogonal indexing: ``z.oindex[[0, 3], :, mask]``."""
        return OIndex(self)

    @property
    def vindex(self) -> VIndex:
        """Index arrays that broadcast, as in NumPy: ``z.vindex[[0, 3], [1, 1]]``."""
        return VIndex(self)

    @property
    def blocks(self) -> BlockIndex:
        """Whole stored objects: ``z.blocks[0, 1:3]``."""
        return BlockIndex(self)

    def __getitem__(self, selection: Any) -> Any:
        """Index arrays on every axis select points, mixed with slices they select orthogonally.

        Integers, slices with any step, ``...``, ``None``, masks and field names work as in NumPy.
        A result without axes is a scalar.
        """
        rest, fields = split_fields(selection)
        return self._read(select(rest, self.shape), fields=fields)

    def get_basic_selection(
        self,
        selection: Any = Ellipsis,
        *,
        out: npt.NDArray[Any] | None = None,
        prototype: object = None,
        fields: Fields = None,
        stream: Any = None,
    ) -> Any:
        """Read by integers and slices.

        Parameters
        ----------
        selection
            Integers, slices with any step, ``...`` and ``None``.
        out
            Array of the result's shape to read into.
        prototype
            Accepted for compatibility; results live on ``device``.
        fields
            Name, or list of names, of fields of a structured type.
        stream
            CUDA stream to work on, from CuPy or another library; the current one where None.

        Raises
        ------
        SelectionError, BoundsError
            The selection does not fit the array.
        TypeError
            The device has no streams, but one was given.
        ChunkDecodeError, ShardIndexError
            Stored bytes are damaged.
        """
        return self._read(
            select_basic(selection, self.shape), out=out, fields=fields, stream=stream
        )

    def get_orthogonal_selection(
        self,
        selection: Any,
        *,
        out: npt.NDArray[Any] | None = None,
        prototype: object = None,
        fields: Fields = None,
        stream: Any = None,
    ) -> Any:
        """Read with every axis indexed on its own; see ``get_basic_selection``."""
        return self._read(
            select_orthogonal(selection, self.shape), out=out, fields=fields, stream=stream
        )

    def get_coordinate_selection(
        self,
        selection: Any,
        *,
        out: npt.NDArray[Any] | None = None,
        prototype: object = None,
        fields: Fields = None,
        stream: Any = None,
    ) -> Any:
        """Read points by index arrays that broadcast; see ``get_basic_selection``."""
        return self._read(
            select_coordinates(selection, self.shape), out=out, fields=fields, stream=stream
        )

    def get_mask_selection(
        self,
        mask: Any,
        *,
        out: npt.NDArray[Any] | None = None,
        prototype: object = None,
        fields: Fields = None,
        stream: Any = None,
    ) -> Any:
        """Read the items where a boolean array of this shape is true, in C order."""
        return self._read(select_mask(mask, self.shape), out=out, fields=fields, stream=stream)

    def get_block_selection(
        self,
        selection: Any,
        *,
        out: npt.NDArray[Any] | None = None,
        prototype: object = None,
        fields: Fields = None,
        stream: Any = None,
    ) -> Any:
        """Read whole stored objects by their position in the grid."""
        chosen = select_blocks(selection, self.layout.object_grid)
        return self._read(chosen, out=out, fields=fields, stream=stream)

    def _read(
        self,
        selection: Selection,
        *,
        out: npt.NDArray[Any] | None = None,
        fields: Fields = None,
        stream: Any = None,
    ) -> Any:
        with self.device.active(stream):
            worker = self.worker
            if worker is self.device or not self.device.takes(self.dtype):
                return self._read_on(worker, selection, out, fields)
            # Read on the worker; results live where the array's device has them all the same.
            target = None
            if out is not None:
                target = self.device.target(out)
                self._check_out(target, selection.shape, self.dtype)
            host = np.asarray(self._read_on(worker, selection, None, fields))
            result = self.device.upload(host)
            if target is not None:
                target[...] = result
                return out
            return result if selection.shape else result[()]

    def _read_on(
        self, device: Device, selection: Selection, out: npt.NDArray[Any] | None, fields: Fields
    ) -> Any:
        options = self._options(encode=False)
        dtype = self._dtype_of(fields)
        shape = (*selection.shape, *dtype.shape)
        work: Any = None
        target: Any = None
        if out is not None:
            target = device.target(out)
            self._check_out(target, shape, dtype)
            work = device.view(target, dtype, (*selection.work_shape, *dtype.shape))
        direct = work is not None
        if work is None:
            work = device.output(selection.work_shape, dtype, self.order)
        if 0 not in selection.work_shape:
            self._read_into(work, selection, device, fields, options)
        if out is not None:
            if not direct:
                target[...] = work.reshape(shape)
            return out
        result = work if work.shape == shape else work.reshape(shape)
        return result[()] if shape == () else result

    def _check_out(self, out: Any, shape: Shape, dtype: np.dtype[Any]) -> None:
        """Raise ValueError or TypeError where a result does not fit into ``out``."""
        if out.shape != shape:
            raise ValueError(f"out has shape {out.shape}, the selection {shape}")
        if not np.can_cast(dtype.base, out.dtype, "same_kind"):
            raise TypeError(f"cannot read items of {dtype} into an array of {out.dtype}")

    def _read_into(
        self, work: Any, selection: Selection, device: Device, fields: Fields, options: Options
    ) -> None:
        layout = self.layout
        plainly = fields is None and options.cache is None and self.config.read_missing_chunks
        if device.kind != "cpu":  # others may leave it to the host
            plainly = plainly and not (options.strict or options.verify)
        if plainly and read_box(layout, self.store, device, selection, work):
            return
        engine.read(
            layout,
            self.store,
            device,
            make_plan(selection, layout.grid),
            work,
            fields=fields,
            missing="fill" if self.config.read_missing_chunks else "error",
            options=options,
        )

    def _dtype_of(self, fields: Fields) -> np.dtype[Any]:
        if fields is None:
            return self.dtype
        names = self.dtype.names
        wanted = fields if isinstance(fields, list) else [fields]
        unknown = [f for f in wanted if f not in (names or ())]
        if names is None or unknown:
            raise SelectionError(
                f"no field {unknown or wanted} in {self.dtype}; fields are {list(names or ())}"
            )
        if not wanted or len(set(wanted)) != len(wanted):
            raise SelectionError(f"fields must name each field once, and one at least: {wanted}")
        return self.dtype[fields]

    def explain(self, selection: Any = Ellipsis) -> Explanation:
        """What reading ``selection`` would fetch, and where each step of its decoding runs.

        Shard indexes and sizes are read, chunks are not.

        Examples
        --------
        >>> import zarr_gpu
        >>> z = zarr_gpu.create_array({}, shape=8, chunks=4, dtype="u1", compressors=None)
        >>> z[:4] = 1
        >>> plan = z.explain()
        >>> plan.chunks, plan.missing, plan.requests
        (2, 1, (('c/0', 0, 4),))
        """
        rest, _ = split_fields(selection)
        plan = make_plan(select(rest, self.shape), self.layout.grid)
        return explain_read(self.layout, self.store, self.worker, plan)

    # ---- writing -------------------------------------------------------------------------------

    def __setitem__(self, selection: Any, value: Any) -> None:
        """Assign; ``value`` broadcasts as in NumPy."""
        rest, fields = split_fields(selection)
        self._write(select(rest, self.shape), value, fields)

    def set_basic_selection(
        self, selection: Any, value: Any, *, fields: Fields = None, prototype: object = None
    ) -> None:
        """Write by integers and slices.

        Parameters
        ----------
        selection
            Integers, slices with any step, ``...`` and ``None``.
        value
            Scalar or array that broadcasts to the selection's shape.
        fields
            Name, or list of names, of fields of a structured type; the others keep their values.

        Raises
        ------
        ReadOnlyError
            The store is read-only.
        SelectionError, BoundsError
            The selection does not fit the array.
        ValueError
            ``value`` does not broadcast to the selection.
        """
        self._write(select_basic(selection, self.shape), value, fields)

    def set_orthogonal_selection(
        self, selection: Any, value: Any, *, fields: Fields = None, prototype: object = None
    ) -> None:
        """Write with every axis indexed on its own; see ``set_basic_selection``."""
        self._write(select_orthogonal(selection, self.shape), value, fields)

    def set_coordinate_selection(
        self, selection: Any, value: Any, *, fields: Fields = None, prototype: object = None
    ) -> None:
        """Write points by index arrays that broadcast; of repeated points the last counts."""
        self._write(select_coordinates(selection, self.shape), value, fields)

    def set_mask_selection(
        self, mask: Any, value: Any, *, fields: Fields = None, prototype: object = None
    ) -> None:
        """Write the items where a boolean array of this shape is true."""
        self._write(select_mask(mask, self.shape), value, fields)

    def set_block_selection(
        self, selection: Any, value: Any, *, fields: Fields = None, prototype: object = None
    ) -> None:
        """Write whole stored objects by their position in the grid."""
        self._write(select_blocks(selection, self.layout.object_grid), value, fields)

    def _write(
        self,
        selection: Selection,
        value: Any,
        fields: Fields = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Assign; ``ready`` is called before something is stored, and waits until it may be."""
        self.check_writable()
        dtype = self._dtype_of(fields)
        device = self.worker
        options = self._options(encode=True)
        with self.device.active():
            values = self.device.adopt(value)
            if values is not None and device is not self.device:
                value, values = self.device.download(values), None
            if values is None:
                values = as_values(value, dtype)
                if not device.takes(values.dtype):
                    values = values.astype(dtype)
                values = device.upload(values)
            values = _broadcast(values, (*selection.shape, *dtype.shape))
            if 0 in selection.work_shape:
                return
            values = values.reshape((*selection.work_shape, *dtype.shape))
            where = self.layout, self.store, device
            empty = self.config.write_empty_chunks
            try:
                if fields is None and write_box(
                    *where,
                    selection,
                    values,
                    write_empty_chunks=empty,
                    options=options,
                    ready=ready,
                ):
                    return
                engine.write(
                    *where,
                    make_plan(selection, self.layout.grid),
                    values,
                    fields=fields,
                    write_empty_chunks=empty,
                    options=options,
                    ready=ready,
                )
            finally:
                if options.cache is not None:
                    options.cache.drop()  # after a failure too: some chunks may be new


def as_values(value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """What is assigned, as an array; converted at once only where NumPy must see all of it."""
    base = dtype.base
    in_bits = not (base.hasobject or base.kind == "T")
    # Numbers are cast chunk by chunk.  Casting others (text to numbers, say) may fail at one item,
    # which must be known before the first chunk is written.
    if (
        in_bits
        and isinstance(value, np.ndarray)
        and (value.dtype == base or value.dtype.kind in "biufcmM")
    ):
        return value
    if base.hasobject and isinstance(value, bytes | bytearray | str):
        array = np.empty((), object)
        array[()] = value
        return array
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        return np.asarray(value).astype(base, copy=False)
    return np.asarray(value, dtype=base)


def _broadcast(values: npt.NDArray[Any], shape: Shape) -> npt.NDArray[Any]:
    """``values`` seen in ``shape``; axes of length 1 in front may be too many, as in NumPy."""
    while values.ndim > len(shape) and values.shape[0] == 1:
        values = values[0, ...]  # an array still, of objects too
    try:
        return np.broadcast_to(values, shape)
    except ValueError as err:
        raise ValueError(
            f"cannot assign an array of shape {values.shape} to a selection of shape {shape}"
        ) from err
