"""The top-level functions that open what is there, or create it.

Modes, for everything that opens:

====== ======================================== ===============================
mode   something is there                       nothing is there
====== ======================================== ===============================
``r``  open, nothing can be changed             error
``r+`` open                                     error
``a``  open                                     create
``w``  delete it, create                        create
``w-`` error                                    create
====== ======================================== ===============================

Imports ``api_create``, ``group`` and below; see ``api``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from zarr_gpu.api_create import Config, DeviceLike, Options, create, create_group, locate
from zarr_gpu.array import Array
from zarr_gpu.config import ArrayConfig
from zarr_gpu.devices import check_cache, get_device
from zarr_gpu.errors import ContainsArrayError, ContainsGroupError, MetadataError, NodeNotFoundError
from zarr_gpu.group import Group, make_group
from zarr_gpu.metadata import ArrayMetadata, GroupMetadata
from zarr_gpu.nodes import (
    read_array_metadata,
    read_group_metadata,
    read_implicit,
    read_node,
    where,
)
from zarr_gpu.older_arguments import warn_of_ignored
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.opening import StoreLike

if TYPE_CHECKING:
    from zarr_gpu.devices import Cache

__all__ = ["group", "open", "open_array", "open_consolidated", "open_group", "open_like"]

Mode = Literal["r", "r+", "a", "w", "w-"]

_MODES: tuple[Mode, ...] = ("r", "r+", "a", "w", "w-")


def _check_mode(mode: str | None, store: StoreLike = None) -> Mode:
    if mode is None:
        return "r" if isinstance(store, Store) and store.read_only else "a"
    for known in _MODES:
        if mode == known:
            return known
    if mode == "x":
        return "w-"
    raise MetadataError(f"mode must be one of r, r+, a, w, w-; got {mode!r:.80}")


def _run_time(config: Config, missing: str | None) -> ArrayConfig:
    """``config`` with ``missing`` in it."""
    parsed = ArrayConfig.parse(config)
    if missing is None:
        return parsed
    if missing not in ("fill", "error"):
        raise MetadataError(f'missing must be "fill" or "error", got {missing!r:.80}')
    return ArrayConfig.from_dict({**parsed.to_dict(), "read_missing_chunks": missing == "fill"})


def open(  # noqa: A001
    store: StoreLike = None,
    *,
    mode: Mode | None = None,
    zarr_format: int | None = None,
    path: str | None = None,
    storage_options: Options = None,
    device: DeviceLike = None,
    config: Config = None,
    missing: str | None = None,
    use_consolidated: bool | str | None = None,
    **arguments: Any,
) -> Array | Group:
    """Open an array or a group, whichever is there.

    Parameters
    ----------
    store
        A directory, URL, mapping or ``Store``.
    mode
        See ``open_group``; "a" by default, "r" for a read-only store.  Where something is created
        it is an array if ``shape`` or ``data`` is given, else a group.
    zarr_format
        2 or 3; None finds out.
    path
        Path of the node in the store.
    storage_options
        Options for the opener of a URL.
    device
        Where chunks are decoded: "auto", "cpu", ...
    config, missing
        Run-time behaviour of arrays; ``missing="error"`` refuses to read absent chunks.
    use_consolidated
        See ``open_group``.
    **arguments
        Those of ``create`` or ``create_group``.

    Raises
    ------
    NodeNotFoundError
        There is nothing, and the mode does not create.

    Examples
    --------
    >>> import zarr_gpu
    >>> data = {}
    >>> z = zarr_gpu.open(data, mode="w", shape=(3,), dtype="u1")
    >>> zarr_gpu.open(data, mode="r").shape
    (3,)
    """
    chosen = _check_mode(mode, store)
    run_time = _run_time(config, missing)
    wants_array = arguments.get("shape") is not None or arguments.get("data") is not None
    if chosen in ("r", "r+", "a"):
        opened, at = locate(store, path, storage_options, mode=chosen)
        metadata = read_node(opened, at, zarr_format)
        if metadata is None and chosen != "a" and zarr_format != 2:
            metadata = read_implicit(opened, at)
        if isinstance(metadata, ArrayMetadata):
            return Array(opened, at, metadata, device=device, config=run_time)
        if metadata is not None:
            return make_group(
                opened,
                at,
                metadata,
                use_consolidated=use_consolidated,
                device=device,
                config=run_time,
            )
        if chosen != "a":
            raise NodeNotFoundError(f"there is nothing {where(opened, at)}", key=at)
        store, path, storage_options = opened, at, None
    common: dict[str, Any] = {
        "zarr_format": zarr_format,
        "path": path,
        "storage_options": storage_options,
        "device": device,
        "config": run_time,
    }
    if wants_array:
        return open_array(store, mode=chosen, **common, **arguments)
    return open_group(store, mode=chosen, use_consolidated=use_consolidated, **common, **arguments)


def open_array(
    store: StoreLike = None,
    *,
    mode: Mode | None = None,
    zarr_format: int | None = None,
    path: str | None = "",
    storage_options: Options = None,
    device: DeviceLike = None,
    config: Config = None,
    missing: str | None = None,
    cache: Cache | None = None,
    **arguments: Any,
) -> Array:
    """Open an array, or create one.

    Parameters
    ----------
    store, mode, zarr_format, path, storage_options, device, config, missing
        As for ``open``.
    cache
        Keeps chunks: encoded ones in the memory of a GPU (``DeviceCache``), or decoded ones for
        the CPU (``ChunkCache``).
    **arguments
        Those of ``create``, for modes that create.

    Raises
    ------
    ArrayNotFoundError
        There is none, and the mode does not create or ``shape`` is missing.
    ContainsArrayError, ContainsGroupError
        Something is there, and the mode is "w-"; or a group, and it is "a".
    DeviceError
        A cache was given, but the device is the CPU.

    Examples
    --------
    >>> import zarr_gpu
    >>> data = {}
    >>> z = zarr_gpu.open_array(data, mode="w", shape=(2, 2), dtype="i4", fill_value=7)
    >>> zarr_gpu.open_array(data, mode="r")[0]
    array([7, 7], dtype=int32)
    """
    device = get_device(device)  # names that are none are refused before anything is opened
    check_cache(device, cache)
    chosen = _check_mode(mode, store)
    run_time = _run_time(config, missing)
    creates = arguments.get("shape") is not None or arguments.get("data") is not None
    if chosen in ("r", "r+", "a"):
        opened, at = locate(store, path, storage_options, mode=chosen)
        if chosen == "a" and creates:
            metadata = read_node(opened, at, zarr_format)
            if isinstance(metadata, GroupMetadata):
                raise ContainsGroupError(f"there is a group {where(opened, at)}", key=at)
        else:
            metadata = read_array_metadata(opened, at, zarr_format)
        if isinstance(metadata, ArrayMetadata):
            return Array(opened, at, metadata, device=device, config=run_time, cache=cache)
        store, path, storage_options = opened, at, None
    created = create(
        store=store,
        path=path,
        zarr_format=zarr_format,
        storage_options=storage_options,
        device=device,
        config=run_time,
        overwrite=chosen == "w" or bool(arguments.pop("overwrite", False)),
        **arguments,
    )
    return created if cache is None else created.with_cache(cache)


def open_group(
    store: StoreLike = None,
    *,
    mode: Mode = "a",
    path: str | None = None,
    storage_options: Options = None,
    zarr_format: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    use_consolidated: bool | str | None = None,
    device: DeviceLike = None,
    config: Config = None,
    missing: str | None = None,
    cache_attrs: object = None,
    synchronizer: object = None,
    chunk_store: object = None,
    meta_array: object = None,
) -> Group:
    """Open a group, or create one.

    Parameters
    ----------
    store, zarr_format, path, storage_options, device, config, missing
        As for ``open``; ``device`` and ``config`` are handed to the arrays below.
    mode
        "r" read only; "r+" read and write; "a" (default) the same, and create if there is nothing;
        "w" delete what is there and create; "w-" create, but fail if there is something.
    attributes
        Attributes of a new group.
    use_consolidated
        None uses consolidated metadata where there are some, True insists, False refuses; a string
        names another document than ``.zmetadata`` (format 2).
    cache_attrs, synchronizer, chunk_store, meta_array
        Have no effect.

    Raises
    ------
    GroupNotFoundError
        There is none, and the mode does not create.
    ContainsArrayError, ContainsGroupError
        Something is there, and the mode is "w-"; or an array, and it is "a".

    Examples
    --------
    >>> import zarr_gpu
    >>> data = {}
    >>> root = zarr_gpu.open_group(data, mode="w", attributes={"lab": "Göttingen"})
    >>> zarr_gpu.open_group(data, mode="r").attrs["lab"]
    'Göttingen'
    """
    chosen = _check_mode(mode)
    run_time = _run_time(config, missing)
    warn_of_ignored(
        {
            "cache_attrs": cache_attrs,
            "synchronizer": synchronizer,
            "chunk_store": chunk_store,
            "meta_array": meta_array,
        }
    )
    opened, at = locate(store, path, storage_options, mode=chosen)
    metadata = None
    if chosen in ("r", "r+"):
        metadata = read_group_metadata(opened, at, zarr_format)
    elif chosen == "a":
        found = read_node(opened, at, zarr_format)
        if isinstance(found, ArrayMetadata):
            raise ContainsArrayError(f"there is an array {where(opened, at)}", key=at)
        metadata = found
    if metadata is None:
        return create_group(
            opened,
            path=at,
            zarr_format=zarr_format,
            overwrite=chosen == "w",
            attributes=attributes,
            device=device,
            config=run_time,
        )
    return make_group(
        opened,
        at,
        metadata,
        use_consolidated=use_consolidated,
        device=device,
        config=run_time,
    )


def open_consolidated(*args: Any, use_consolidated: bool | str = True, **arguments: Any) -> Group:
    """``open_group``, insisting on consolidated metadata.

    Raises
    ------
    NodeNotFoundError
        There are none.
    """
    if use_consolidated in (False, None):
        raise MetadataError("use_consolidated must be True or the name of a document")
    arguments.setdefault("mode", "r" if args and getattr(args[0], "read_only", False) else "r+")
    return open_group(*args, use_consolidated=use_consolidated, **arguments)


def open_like(a: Any, path: str, *, store: StoreLike = None, **arguments: Any) -> Array:
    """Open the array at ``path``, or create it with the shape, type and chunks of ``a``.

    Parameters
    ----------
    a
        An array.
    path
        Path of the node in ``store``; without ``store``, the store itself.
    **arguments
        Those of ``open_array``.
    """
    if store is None:
        store, path = path, ""
    if arguments.get("mode") not in ("r", "r+"):
        arguments = {"shape": tuple(a.shape), "dtype": a.dtype, **arguments}
        chunks = getattr(a, "chunks", None)
        if isinstance(chunks, tuple) and "chunks" not in arguments:
            arguments["chunks"] = chunks
    return open_array(store, path=path, **arguments)


def group(
    store: StoreLike = None,
    *,
    overwrite: bool = False,
    path: str | None = None,
    zarr_format: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    storage_options: Options = None,
    device: DeviceLike = None,
    config: Config = None,
    **ignored: Any,
) -> Group:
    """Open a group, or create it where there is none; ``overwrite`` creates it anew.

    Parameters are those of ``create_group``; ``chunk_store``, ``cache_attrs``, ``synchronizer`` and
    ``meta_array`` have no effect.

    Examples
    --------
    >>> import zarr_gpu
    >>> zarr_gpu.group(attributes={"a": 1}).attrs["a"]
    1
    """
    unknown = warn_of_ignored(ignored)
    if unknown:
        raise TypeError(f"unknown arguments: {', '.join(sorted(unknown))}")
    common: dict[str, Any] = {
        "path": path,
        "zarr_format": zarr_format,
        "attributes": attributes,
        "storage_options": storage_options,
        "device": device,
        "config": config,
    }
    if overwrite:
        return create_group(store, overwrite=True, **common)
    return open_group(store, mode="a", **common)
