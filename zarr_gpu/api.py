"""The functions at the top of the package: open, create, save, load, copy.

Names, arguments and what ends up in files follow zarr-python 3; ``device=``, ``missing=`` and sizes
as ``chunks="100MB"`` are additions.  What opens is in ``api_open``, what creates in ``api_create``;
all of it is to be had here.  Imports these, ``hierarchy`` and below; called by users.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any

from zarr_gpu.api_create import (
    Options,
    array,
    create,
    create_array,
    create_group,
    create_hierarchy,
    empty,
    empty_like,
    from_array,
    full,
    full_like,
    locate,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from zarr_gpu.api_open import (
    group,
    open,  # noqa: A004
    open_array,
    open_consolidated,
    open_group,
    open_like,
)
from zarr_gpu.array import Array
from zarr_gpu.consolidation import consolidate
from zarr_gpu.errors import MetadataError
from zarr_gpu.group import Group, make_group
from zarr_gpu.hierarchy import Counts, Log, Progress, copy_keys, copy_members, copy_node
from zarr_gpu.storage.opening import StoreLike
from zarr_gpu.trees import Tree

__all__ = [
    "array",
    "consolidate_metadata",
    "copy",
    "copy_all",
    "copy_store",
    "create",
    "create_array",
    "create_group",
    "create_hierarchy",
    "empty",
    "empty_like",
    "from_array",
    "full",
    "full_like",
    "group",
    "load",
    "ones",
    "ones_like",
    "open",
    "open_array",
    "open_consolidated",
    "open_group",
    "open_like",
    "print_debug_info",
    "save",
    "save_array",
    "save_group",
    "tree",
    "zeros",
    "zeros_like",
]


def consolidate_metadata(
    store: StoreLike, path: str | None = None, zarr_format: int | None = None
) -> Group:
    """Gather the metadata of everything below a group in the group, so that it opens at once.

    Later changes below are not noted there: consolidate again.

    Raises
    ------
    GroupNotFoundError
        There is no group.

    Examples
    --------
    >>> import zarr_gpu
    >>> root = zarr_gpu.create_group({})
    >>> _ = root.create_array("x", shape=3, dtype="u1")
    >>> zarr_gpu.consolidate_metadata(root.store).is_consolidated
    True
    """
    opened, at = locate(store, path, None, mode="r+")
    metadata = consolidate(opened, at, zarr_format)
    return make_group(opened, at, metadata, use_consolidated=True)


def tree(grp: Group | StoreLike, expand: bool | None = None, level: int | None = None) -> Tree:
    """Draw what lies below a group; see ``Group.tree``."""
    if not isinstance(grp, Group):
        grp = open_group(grp, mode="r")
    return grp.tree(expand, level)


# ------------------------------------------------------------------------------------- whole arrays


def save_array(
    store: StoreLike,
    arr: Any,
    *,
    zarr_format: int | None = None,
    path: str | None = None,
    storage_options: Options = None,
    **arguments: Any,
) -> None:
    """Store an array, replacing what is there; further arguments are those of ``create``.

    Examples
    --------
    >>> import numpy as np
    >>> import zarr_gpu
    >>> data = {}
    >>> zarr_gpu.save_array(data, np.arange(3))
    >>> zarr_gpu.load(data)
    array([0, 1, 2])
    """
    create(
        store=store,
        path=path,
        data=arr,
        zarr_format=zarr_format,
        storage_options=storage_options,
        **{"overwrite": True, **arguments},
    )


def save_group(
    store: StoreLike,
    *args: Any,
    zarr_format: int | None = None,
    path: str | None = None,
    storage_options: Options = None,
    **named: Any,
) -> None:
    """Store several arrays in a group, positional ones as ``arr_0``, ``arr_1``, ...

    A group that is there is kept, arrays of the same names are replaced.

    Examples
    --------
    >>> import zarr_gpu
    >>> data = {}
    >>> zarr_gpu.save_group(data, [1, 2], mask=[True, False])
    >>> sorted(zarr_gpu.load(data))
    ['arr_0', 'mask']
    """
    arrays = {f"arr_{i}": value for i, value in enumerate(args)}
    if not arrays and not named:
        raise MetadataError("there is no array to save")
    twice = arrays.keys() & named.keys()
    if twice:
        raise MetadataError(f"{sorted(twice)} are given by position and by name")
    at = open_group(
        store, mode="a", path=path, zarr_format=zarr_format, storage_options=storage_options
    )
    for name, value in {**arrays, **named}.items():
        at.create_array(name, data=value, overwrite=True)


def save(
    store: StoreLike,
    *args: Any,
    zarr_format: int | None = None,
    path: str | None = None,
    storage_options: Options = None,
    **named: Any,
) -> None:
    """Store one array, or several in a group.

    One positional argument is stored by ``save_array``, anything else by ``save_group``.

    Examples
    --------
    >>> import zarr_gpu
    >>> data = {}
    >>> zarr_gpu.save(data, [1, 2, 3])
    >>> zarr_gpu.load(data)
    array([1, 2, 3])
    """
    common: dict[str, Any] = {
        "zarr_format": zarr_format,
        "path": path,
        "storage_options": storage_options,
    }
    if len(args) == 1 and not named:
        save_array(store, args[0], **common)
    else:
        save_group(store, *args, **common, **named)


def load(
    store: StoreLike,
    path: str | None = None,
    zarr_format: int | None = None,
    *,
    storage_options: Options = None,
) -> Any:
    """Read a whole array, or all arrays directly in a group as a dict of name -> array.

    Raises
    ------
    NodeNotFoundError
        There is nothing.
    """
    node = open(
        store, mode="r", path=path, zarr_format=zarr_format, storage_options=storage_options
    )
    if isinstance(node, Array):
        return node[...]
    return {name: below[...] for name, below in node.arrays()}


# ------------------------------------------------------------------------------------- copies


def copy(
    source: Any,
    dest: Group,
    name: str | None = None,
    *,
    shallow: bool = False,
    without_attrs: bool = False,
    log: Log = None,
    if_exists: str = "raise",
    dry_run: bool = False,
    **create_arguments: Any,
) -> Counts:
    """Copy an array or a group, with everything below it, into a group.

    Arrays whose stored form stays the same are copied as they are stored, without being decoded.

    Parameters
    ----------
    source
        An array or group, also one of h5py.
    dest
        The group to copy into; in the same or another store, of the same or the other format.
    name
        Name of the copy; that of the source where None.
    shallow
        Of a group, copy the direct members only.
    without_attrs
        Leave attributes out.
    log
        A function, a stream or a file name: told of each node.
    if_exists
        What to do about arrays that are there: "raise", "replace", "skip", or "skip_initialized"
        (replace those with absent chunks).  Groups that are there are filled.
    dry_run
        Count and tell, but write nothing.
    **create_arguments
        Arguments of ``create_array`` for the copies, such as ``chunks`` or ``compressors``.

    Returns
    -------
    copied, skipped, nbytes
        Nodes copied, arrays skipped, decoded bytes copied.

    Raises
    ------
    ContainsArrayError
        An array is there, and ``if_exists`` is "raise".
    InvalidKeyError
        A group would be copied into itself.

    Examples
    --------
    >>> import zarr_gpu
    >>> a, b = zarr_gpu.create_group({}), zarr_gpu.create_group({}, zarr_format=2)
    >>> a["x"] = [1, 2, 3]
    >>> zarr_gpu.copy(a["x"], b, name="y")
    (1, 0, 24)
    >>> b["y"][:]
    array([1, 2, 3])
    """
    return copy_node(
        source,
        dest,
        name,
        shallow=shallow,
        without_attrs=without_attrs,
        log=log,
        if_exists=if_exists,
        dry_run=dry_run,
        **create_arguments,
    )


def copy_all(
    source: Any,
    dest: Group,
    *,
    shallow: bool = False,
    without_attrs: bool = False,
    log: Log = None,
    if_exists: str = "raise",
    dry_run: bool = False,
    **create_arguments: Any,
) -> Counts:
    """Copy all members and the attributes of a group into another group.

    Parameters, returns and errors are those of ``copy``.

    Examples
    --------
    >>> import zarr_gpu
    >>> a, b = zarr_gpu.create_group({}), zarr_gpu.create_group({})
    >>> a["x"], a["y/z"] = [1, 2], [3]
    >>> zarr_gpu.copy_all(a, b)
    (3, 0, 24)
    """
    return copy_members(
        source,
        dest,
        shallow=shallow,
        without_attrs=without_attrs,
        log=log,
        if_exists=if_exists,
        dry_run=dry_run,
        **create_arguments,
    )


def copy_store(
    source: StoreLike,
    dest: StoreLike,
    source_path: str = "",
    dest_path: str = "",
    excludes: str | Iterable[str] = (),
    includes: str | Iterable[str] = (),
    *,
    if_exists: str = "raise",
    dry_run: bool = False,
    log: Log = None,
    progress: Progress = None,
) -> Counts:
    """Copy keys and their bytes from store to store, whatever they hold.

    Parameters
    ----------
    source_path, dest_path
        Where in the stores; the roots by default.
    excludes, includes
        Regular expressions: keys in which one of ``excludes`` is found are left out, and, where
        there are ``includes``, those in which none of them is found.
    if_exists
        What to do about keys that are there: "raise", "replace" or "skip".
    dry_run
        Count and tell, but write nothing.
    log
        A function, a stream or a file name: told of each key.
    progress
        A function of the keys done, the keys in all and the bytes copied.

    Returns
    -------
    copied, skipped, nbytes
        Keys copied, keys skipped, bytes copied.

    Raises
    ------
    ContainsNodeError
        A key is there, and ``if_exists`` is "raise"; nothing has been copied then.

    Examples
    --------
    >>> import zarr_gpu
    >>> a, b = {}, {}
    >>> zarr_gpu.save(a, [1, 2, 3])
    >>> zarr_gpu.copy_store(a, b)[:2]
    (2, 0)
    >>> a == b
    True
    """
    source_store, source_start = locate(source, source_path, None, mode="r")
    dest_store, dest_start = locate(dest, dest_path, None, mode="a")
    return copy_keys(
        source_store,
        dest_store,
        source_start,
        dest_start,
        excludes=excludes,
        includes=includes,
        if_exists=if_exists,
        dry_run=dry_run,
        log=log,
        progress=progress,
    )


def print_debug_info() -> None:
    """Print the versions of this package and of what it rests on, for reports of errors."""
    from importlib.metadata import PackageNotFoundError, version

    lines = [f"platform: {platform.platform()}", f"python: {platform.python_version()}"]
    for name in ("zarr-gpu", "numpy", "numcodecs", "fsspec", "google-crc32c", "ml-dtypes"):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        lines.append(f"{name}: {found}")
    print("\n".join(lines))  # noqa: T201
