"""The top-level functions that create arrays and groups.

Imports ``group``, ``building``, ``node_changes`` and below; see ``api``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from zarr_gpu.array import Array
from zarr_gpu.building import build_array, build_like
from zarr_gpu.config import ArrayConfig
from zarr_gpu.creation import DEFAULT_FILL, KEEP_FILL, as_metadata, parse_format
from zarr_gpu.devices import Device
from zarr_gpu.errors import MetadataError
from zarr_gpu.group import Group, build_group
from zarr_gpu.metadata import ArrayMetadata, normalize_path
from zarr_gpu.node_changes import create_node, create_nodes
from zarr_gpu.nodes import format_around, join
from zarr_gpu.older_arguments import translate_arguments
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.opening import StoreLike, open_store

__all__ = [
    "array",
    "create",
    "create_array",
    "create_group",
    "create_hierarchy",
    "empty",
    "empty_like",
    "from_array",
    "full",
    "full_like",
    "ones",
    "ones_like",
    "zeros",
    "zeros_like",
]

Config = ArrayConfig | Mapping[str, Any] | None
Options = Mapping[str, Any] | None
DeviceLike = str | Device | None


def locate(
    store: StoreLike, path: str | None, storage_options: Options, *, mode: str | None = None
) -> tuple[Store, str]:
    """The store, and the path of the node in it."""
    below = normalize_path(path)
    opened, start = open_store(store, mode=mode, storage_options=storage_options)
    return opened, join(start, below) if below else start


def _locate_new(
    store: StoreLike, path: str | None, storage_options: Options, zarr_format: int | None
) -> tuple[Store, str, Literal[2, 3]]:
    """The store, the path of the new node in it, and its format: by default that around it."""
    if zarr_format is not None:
        zarr_format = parse_format(zarr_format)
    opened, at = locate(store, path, storage_options)
    around = format_around(opened, at) if zarr_format is None else None
    number = parse_format(zarr_format, around)
    normalize_path(path, creating=True, zarr_format=number)
    return opened, at, number


def create_array(
    store: StoreLike,
    *,
    name: str | None = None,
    shape: Any = None,
    dtype: Any = None,
    data: Any = None,
    chunks: Any = "auto",
    shards: Any = None,
    filters: Any = "auto",
    compressors: Any = "auto",
    serializer: Any = "auto",
    fill_value: Any = DEFAULT_FILL,
    order: str | None = None,
    zarr_format: int | None = 3,
    attributes: Mapping[str, Any] | None = None,
    chunk_key_encoding: Any = None,
    dimension_names: Iterable[str | None] | None = None,
    storage_options: Options = None,
    overwrite: bool = False,
    config: Config = None,
    write_data: bool = True,
    device: DeviceLike = None,
) -> Array:
    """Create an array, and groups on the way to it where there are none.

    Parameters
    ----------
    store
        A directory, URL, mapping or ``Store``.
    name
        Path of the array in the store; the root where None.
    shape, dtype
        May be left out where ``data`` is given.
    data
        Anything that NumPy takes for an array; written unless ``write_data`` is False.
    chunks
        Edges, one edge for all axes (-1: the whole axis), "auto", or the largest size of a chunk
        such as ``"100MB"``.
    shards
        Edges of the stored objects that chunks are packed into, multiples of ``chunks`` (-1: as
        many as cover the axis); "auto"; or a mapping with ``shape`` and, if wanted,
        ``index_codecs`` and ``index_location``.
    filters, serializer, compressors
        Codecs, as objects of this package, of numcodecs or of zarr-python, or as their dicts: array
        to array, array to bytes (format 3), bytes to bytes.  None is none, "auto" is zstd alone.
    fill_value
        What absent chunks hold; by default zero, empty or NaT.  None is stored as ``null`` in
        format 2, and is the default in format 3.
    order
        Memory order of results; in format 2 also of stored chunks.
    zarr_format
        2 or 3; None for the configured default.
    chunk_key_encoding
        ``{"name": "default" | "v2", "separator": "/" | "."}``.
    dimension_names
        Names of the axes, None for one without (format 3).
    overwrite
        Delete what is there, with everything below it.
    config
        Run-time behaviour: an ``ArrayConfig`` or a dict.
    device
        Where chunks are decoded: "auto", "cpu", ...

    Raises
    ------
    MetadataError
        An argument is invalid or does not go with another; nothing has been written.
    ContainsArrayError, ContainsGroupError
        Something is there already, or an array lies on the way.
    ReadOnlyError
        The store cannot be written to.

    Examples
    --------
    >>> import zarr_gpu
    >>> z = zarr_gpu.create_array({}, shape=(1000, 1000), dtype="f4")
    >>> z.chunks
    (250, 500)
    >>> z = zarr_gpu.create_array({}, data=[[1, 2], [3, 4]], chunks=(1, 2))
    >>> z[:, 1]
    array([2, 4])
    """
    opened, at, number = _locate_new(store, name, storage_options, zarr_format)
    return build_array(
        opened,
        at,
        zarr_format=number,
        shape=shape,
        dtype=dtype,
        data=data,
        chunks=chunks,
        shards=shards,
        filters=filters,
        compressors=compressors,
        serializer=serializer,
        fill_value=fill_value,
        order=order,
        attributes=attributes,
        chunk_key_encoding=chunk_key_encoding,
        dimension_names=dimension_names,
        overwrite=overwrite,
        config=config,
        write_data=write_data,
        device=device,
    )


def create(
    shape: Any = None,
    *,
    store: StoreLike = None,
    path: str | None = None,
    chunks: Any = None,
    dtype: Any = None,
    zarr_format: int | None = None,
    storage_options: Options = None,
    **arguments: Any,
) -> Array:
    """Create an array, with the older words for the arguments as well.

    Parameters
    ----------
    shape, store, chunks, dtype, zarr_format, storage_options
        As for ``create_array``; ``dtype`` is float64 where there is no ``data``.  Axes left out of
        ``chunks`` are not cut; ``chunks=False`` is one chunk.
    path
        Path of the array in the store.
    **arguments
        The others of ``create_array``, and ``compressor``, ``codecs``, ``chunk_shape``,
        ``dimension_separator``, ``write_empty_chunks`` and ``object_codec``.  ``synchronizer``,
        ``chunk_store``, ``cache_metadata``, ``cache_attrs``, ``read_only`` and ``meta_array`` have
        no effect.

    Raises
    ------
    MetadataError, ContainsArrayError, ContainsGroupError, ReadOnlyError
        As for ``create_array``.

    Examples
    --------
    >>> import zarr_gpu
    >>> zarr_gpu.create((4, 4), chunks=2, compressor=None, zarr_format=2).chunks
    (2, 2)
    """
    given = {"chunks": chunks, "partial_chunks": True}
    translated = translate_arguments(given, arguments)
    if dtype is None and translated.get("data") is None:
        dtype = "float64"
    opened, at, number = _locate_new(store, path, storage_options, zarr_format)
    return build_array(opened, at, zarr_format=number, shape=shape, dtype=dtype, **translated)


def from_array(
    store: StoreLike,
    *,
    data: Any,
    write_data: bool = True,
    name: str | None = None,
    chunks: Any = "keep",
    shards: Any = "keep",
    filters: Any = "keep",
    compressors: Any = "keep",
    serializer: Any = "keep",
    fill_value: Any = KEEP_FILL,
    order: str | None = None,
    zarr_format: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    chunk_key_encoding: Any = None,
    dimension_names: Iterable[str | None] | None = None,
    storage_options: Options = None,
    overwrite: bool = False,
    config: Config = None,
    device: DeviceLike = None,
) -> Array:
    """Create an array with the contents, and if not given anew the chunks and codecs, of another.

    Parameters
    ----------
    data
        An array of this package, or anything that NumPy takes for an array.  Arrays with ``chunks``
        are read and written block by block.
    chunks, shards, filters, compressors, serializer
        As for ``create_array``; "keep" takes them from ``data`` (codecs if the format is the same).
    fill_value, order, zarr_format, chunk_key_encoding, dimension_names
        Those of ``data`` where not given.
    store, write_data, name, attributes, storage_options, overwrite, config, device
        As for ``create_array``.

    Raises
    ------
    MetadataError, ContainsArrayError, ContainsGroupError, ReadOnlyError
        As for ``create_array``.

    Examples
    --------
    >>> import zarr_gpu
    >>> source = zarr_gpu.create_array({}, data=[1, 2, 3, 4], chunks=2)
    >>> zarr_gpu.from_array({}, data=source, chunks=4)[:]
    array([1, 2, 3, 4])
    """
    opened, at, number = _locate_new(store, name, storage_options, _format_like(data, zarr_format))
    return build_like(
        opened,
        at,
        data,
        zarr_format=number,
        chunks=chunks,
        shards=shards,
        filters=filters,
        compressors=compressors,
        serializer=serializer,
        fill_value=fill_value,
        order=order,
        attributes=attributes,
        chunk_key_encoding=chunk_key_encoding,
        dimension_names=dimension_names,
        overwrite=overwrite,
        config=config,
        write_data=write_data,
        device=device,
    )


def _format_like(data: Any, zarr_format: int | None) -> int | None:
    return data.zarr_format if zarr_format is None and isinstance(data, Array) else zarr_format


def array(data: Any, **arguments: Any) -> Array:
    """Create an array filled with ``data``; further arguments are those of ``create``.

    Examples
    --------
    >>> import zarr_gpu
    >>> zarr_gpu.array([1.5, 2.5])[:]
    array([1.5, 2.5])
    """
    if isinstance(data, Array):
        return _like(data, {"write_data": True, **arguments})
    return create(data=data, **arguments)


def empty(shape: Any, **arguments: Any) -> Array:
    """Create an array with the default fill value; further arguments are those of ``create``."""
    return create(shape, **arguments)


def zeros(shape: Any, **arguments: Any) -> Array:
    """Create an array of zeros; further arguments are those of ``create``."""
    return create(shape, fill_value=0, **arguments)


def ones(shape: Any, **arguments: Any) -> Array:
    """Create an array of ones; further arguments are those of ``create``."""
    return create(shape, fill_value=1, **arguments)


def full(shape: Any, fill_value: Any, **arguments: Any) -> Array:
    """Create an array filled with ``fill_value``; further arguments are those of ``create``.

    Examples
    --------
    >>> import zarr_gpu
    >>> zarr_gpu.full(3, 7, dtype="u1")[:]
    array([7, 7, 7], dtype=uint8)
    """
    return create(shape, fill_value=fill_value, **arguments)


def _like(data: Any, arguments: Mapping[str, Any]) -> Array:
    rest = dict(arguments)
    store, path = rest.pop("store", None), rest.pop("path", None)
    options = rest.pop("storage_options", None)
    zarr_format = _format_like(data, rest.pop("zarr_format", None))
    opened, at, number = _locate_new(store, path, options, zarr_format)
    translated = translate_arguments({"write_data": False}, rest)
    return build_like(opened, at, data, zarr_format=number, **translated)


def empty_like(a: Any, **arguments: Any) -> Array:
    """Create an array like ``a`` with the default fill value; arguments are those of ``create``."""
    return _like(a, {"fill_value": DEFAULT_FILL, **arguments})


def zeros_like(a: Any, **arguments: Any) -> Array:
    """Create an array of zeros like ``a``; further arguments are those of ``create``.

    Examples
    --------
    >>> import numpy as np
    >>> import zarr_gpu
    >>> zarr_gpu.zeros_like(np.ones((2, 3), "i2")).dtype
    dtype('int16')
    """
    return _like(a, {"fill_value": 0, **arguments})


def ones_like(a: Any, **arguments: Any) -> Array:
    """Create an array of ones like ``a``; further arguments are those of ``create``."""
    return _like(a, {"fill_value": 1, **arguments})


def full_like(a: Any, fill_value: Any = KEEP_FILL, **arguments: Any) -> Array:
    """Create an array like ``a`` filled with ``fill_value``, by default that of ``a``."""
    return _like(a, {"fill_value": fill_value, **arguments})


def create_group(
    store: StoreLike,
    *,
    path: str | None = None,
    zarr_format: int | None = None,
    overwrite: bool = False,
    attributes: Mapping[str, Any] | None = None,
    storage_options: Options = None,
    device: DeviceLike = None,
    config: Config = None,
) -> Group:
    """Create a group, and groups on the way to it where there are none.

    Parameters
    ----------
    overwrite
        Delete what is there, with everything below it.
    store, path, zarr_format, attributes, storage_options, device, config
        As for ``open_group``.

    Raises
    ------
    ContainsArrayError, ContainsGroupError
        Something is there already, or an array lies on the way.

    Examples
    --------
    >>> import zarr_gpu
    >>> root = zarr_gpu.create_group({}, attributes={"unit": "nm"})
    >>> root.attrs["unit"]
    'nm'
    """
    opened, at, number = _locate_new(store, path, storage_options, zarr_format)
    group = Group(opened, at, build_group(number, attributes), device=device, config=config)
    create_node(opened, at, group.metadata, overwrite=overwrite)
    return group


def create_hierarchy(
    *,
    store: StoreLike,
    nodes: Mapping[str, Any],
    overwrite: bool = False,
    device: DeviceLike = None,
) -> Iterator[tuple[str, Array | Group]]:
    """Create many arrays and groups at once.

    Parameters
    ----------
    nodes
        Path -> metadata: ``ArrayMetadata`` or ``GroupMetadata``, an array or group to take them
        from, or a document (the contents of a ``zarr.json`` or ``.zarray``).
    overwrite
        Delete what is at these paths.

    Returns
    -------
    iterator
        (path, node), groups that had to be created on the way among them.  All are stored already.

    Raises
    ------
    MetadataError
        A document is invalid, formats are mixed, or a node lies below an array.
    ContainsArrayError, ContainsGroupError
        Something is there already; nothing has been written then.

    Examples
    --------
    >>> import zarr_gpu
    >>> group = {"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}
    >>> dict(zarr_gpu.create_hierarchy(store={}, nodes={"x/y": group})).keys()
    dict_keys(['', 'x', 'x/y'])
    """
    parsed = {}
    for path, node in nodes.items():
        metadata = as_metadata(node)
        name = normalize_path(path, creating=True, zarr_format=metadata.zarr_format)
        if name in parsed:
            raise MetadataError(f"{path!r} is given twice")
        parsed[name] = metadata
    if len({metadata.zarr_format for metadata in parsed.values()}) > 1:
        raise MetadataError("the nodes are of both formats")
    opened, start = open_store(store)
    made: dict[str, Any] = {join(start, p) if p else start: m for p, m in parsed.items()}
    made |= create_nodes(opened, made, overwrite=overwrite)
    skip = len(start) + 1 if start else 0
    handles: list[tuple[str, Array | Group]] = []
    for path in sorted(made):
        if start and not f"{path}/".startswith(f"{start}/"):
            continue  # above the path that the store's URL names
        node = Array if isinstance(made[path], ArrayMetadata) else Group
        handles.append((path[skip:], node(opened, path, made[path], device=device)))
    return iter(handles)
