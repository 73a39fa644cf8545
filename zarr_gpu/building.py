"""New arrays in a store: documents first, then data.

What ``Group.create_array``, ``create_array``, ``from_array`` and their kin have in common.  Imports
``array``, ``creation`` and ``nodes``; called by ``group``, ``hierarchy`` and ``api``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from zarr_gpu.array import Array
from zarr_gpu.config import ArrayConfig
from zarr_gpu.creation import (
    DEFAULT_FILL,
    KEEP_FILL,
    build_metadata,
    describe,
    resolve_dtype,
)
from zarr_gpu.devices import Device
from zarr_gpu.errors import MetadataError
from zarr_gpu.node_changes import create_node
from zarr_gpu.storage.base import Store

__all__ = ["build_array", "build_like", "copy_values"]

_BLOCK_NBYTES = 128 << 20
"""Bytes of one step of a copy between arrays."""


def build_array(
    store: Store,
    path: str,
    *,
    zarr_format: Literal[2, 3],
    shape: Any = None,
    dtype: Any = None,
    data: Any = None,
    filters: Any = "auto",
    object_codec: Any = None,
    order: Any = None,
    config: ArrayConfig | Mapping[str, Any] | None = None,
    device: str | Device | None = None,
    overwrite: bool = False,
    write_data: bool = True,
    parent: str | None = None,
    **arguments: Any,
) -> Array:
    """Create an array and, where ``data`` is given, fill it.

    Parameters
    ----------
    parent
        An ancestor that is known to be a group of this format.
    **arguments
        Further arguments of ``creation.build_metadata``.

    Raises
    ------
    MetadataError
        An argument is invalid; nothing has been written.
    ContainsArrayError, ContainsGroupError
        Something is there already.
    """
    if data is not None and not (hasattr(data, "shape") and hasattr(data, "dtype")):
        data = _as_array(data, dtype)
    given = None if object_codec is None else [object_codec]
    resolved = resolve_dtype(dtype, data, filters if given is None else given)
    if shape is None:
        if data is None:
            raise MetadataError("shape is needed where there is no data to take it from")
        shape = data.shape
    metadata = build_metadata(
        shape=shape,
        dtype=resolved,
        zarr_format=zarr_format,
        filters=filters,
        order=order,
        **arguments,
    )
    if data is not None and tuple(data.shape) != metadata.shape:
        raise MetadataError(f"shape {metadata.shape} differs from that of data, {data.shape}")
    run_time = ArrayConfig.parse(config)
    if order is not None:
        run_time = ArrayConfig.from_dict({**run_time.to_dict(), "order": order})
    array = Array(store, path, metadata, device=device, config=run_time)
    create_node(store, path, metadata, overwrite=overwrite, parent=parent)
    if data is not None and write_data:
        copy_values(data, array)
    return array


def _as_array(data: Any, dtype: Any) -> Any:
    """Lists, scalars and whatever has ``__array__`` as a NumPy array; text stays whole."""
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise MetadataError(f"data: {error}") from error
    if array.dtype.kind in "SU" and dtype is not None and resolve_dtype(dtype, data).vlen:
        return np.asarray(data, dtype=object)  # else trailing NULs would be lost
    return array


def build_like(
    store: Store,
    path: str,
    data: Any,
    *,
    zarr_format: Literal[2, 3],
    chunks: Any = "keep",
    shards: Any = "keep",
    filters: Any = "keep",
    compressors: Any = "keep",
    serializer: Any = "keep",
    fill_value: Any = KEEP_FILL,
    order: Any = None,
    chunk_key_encoding: Any = None,
    dimension_names: Any = None,
    write_data: bool = True,
    **arguments: Any,
) -> Array:
    """Create an array after the pattern of ``data``, and fill it unless ``write_data=False``.

    What is "keep" is taken from ``data`` where that is an array of this package (codecs only if
    the format is the same) or has ``chunks``, and is "auto" otherwise.  So are the fill value, the
    order, the key encoding and the dimension names where they are not given.
    """
    kept: dict[str, Any] = {
        "chunks": chunks,
        "shards": shards,
        "filters": filters,
        "compressors": compressors,
        "serializer": serializer,
    }
    found: dict[str, Any] = {}
    if isinstance(data, Array):
        metadata = data.metadata
        pattern = describe(metadata)
        found["chunks"] = pattern.chunks
        if zarr_format == 3:
            found["shards"] = pattern.shards
        if zarr_format == metadata.zarr_format:
            found |= {
                "filters": pattern.filters,
                "compressors": pattern.compressors,
                "serializer": pattern.serializer,
            }
            if chunk_key_encoding is None:
                chunk_key_encoding = metadata.key_encoding
        if zarr_format == 3 and dimension_names is None:
            dimension_names = metadata.dimension_names
        if fill_value is KEEP_FILL:
            fill_value = metadata.fill_value
        if order is None:
            order = data.order
        if arguments.get("dtype") is None:
            arguments["dtype"] = metadata.dtype
    elif _is_edges(getattr(data, "chunks", None)):
        found["chunks"] = tuple(data.chunks)
    elif not (hasattr(data, "shape") and hasattr(data, "dtype")):
        data = _as_array(data, arguments.get("dtype"))
    for name, value in kept.items():
        if isinstance(value, str) and value == "keep":
            kept[name] = found.get(name, None if name == "shards" else "auto")
    if fill_value is KEEP_FILL:
        fill_value = DEFAULT_FILL
    if arguments.get("shape") is None:
        arguments["shape"] = data.shape
    if arguments.get("dtype") is None:
        arguments["dtype"] = resolve_dtype(None, data)
    return build_array(
        store,
        path,
        zarr_format=zarr_format,
        data=data if write_data else None,
        fill_value=fill_value,
        order=order,
        chunk_key_encoding=chunk_key_encoding,
        dimension_names=dimension_names,
        **kept,
        **arguments,
    )


def _is_edges(chunks: Any) -> bool:
    """Whether ``chunks`` of a foreign array is one edge per axis (dask's are lists of edges)."""
    return isinstance(chunks, tuple) and all(isinstance(edge, int) for edge in chunks)


def copy_values(source: Any, target: Array) -> None:
    """Fill ``target`` from an array of the same shape, in blocks of whole stored objects.

    A source without ``chunks`` holds its values in memory and is written in one go.
    """
    if not hasattr(source, "chunks") or not target.shape:
        target[...] = source[()] if isinstance(source, Array) else np.asarray(source)
        return
    for block in _blocks(target.shape, target.metadata.chunk_shape, target.dtype.itemsize):
        target[block] = source[block]


def _blocks(
    shape: tuple[int, ...], edges: tuple[int, ...], itemsize: int
) -> Iterator[tuple[slice, ...]]:
    """Boxes that cover ``shape``, of whole stored objects and about ``_BLOCK_NBYTES`` each."""
    sizes = list(edges)
    for axis in reversed(range(len(shape))):
        rest = math.prod(sizes) // sizes[axis] * itemsize
        room = _BLOCK_NBYTES // max(rest, 1) // edges[axis]
        whole = -(-shape[axis] // edges[axis])
        sizes[axis] = edges[axis] * max(min(room, whole), 1)
    starts = (range(0, length, size) for length, size in zip(shape, sizes, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(
            slice(start, min(start + size, length))
            for start, size, length in zip(corner, sizes, shape, strict=True)
        )
