"""Groups: the handle a user holds on a level of a hierarchy.

A group knows where it is, its metadata, and the device and run-time settings that it hands to the
arrays below it.  Where it was opened with consolidated metadata, everything below is looked up in
those until something is changed through one of the handles; from then on the store is asked.

Imports ``group_view``, ``building``, ``node_changes`` and below; made by ``api``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, Self

import numpy as np

from zarr_gpu.array import Array
from zarr_gpu.attributes import Attributes, plain_attributes
from zarr_gpu.building import build_array, build_like
from zarr_gpu.chunking import parse_shape
from zarr_gpu.config import ArrayConfig
from zarr_gpu.consolidation import open_consolidated_metadata
from zarr_gpu.creation import DEFAULT_FILL, as_metadata, parse_format
from zarr_gpu.devices import Device
from zarr_gpu.dtypes import from_user
from zarr_gpu.errors import (
    ContainsArrayError,
    ContainsGroupError,
    IncompatibleArrayError,
    InvalidKeyError,
    MemberNotFoundError,
    MetadataError,
    ReadOnlyError,
)
from zarr_gpu.group_view import GroupView
from zarr_gpu.metadata import GroupMetadata, normalize_path, v2, v3
from zarr_gpu.node_changes import create_node, create_nodes, delete_node, move_node
from zarr_gpu.nodes import change_attributes, join, read_group_metadata
from zarr_gpu.older_arguments import translate_arguments
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.opening import StoreLike, open_store

__all__ = ["Group", "build_group", "make_group"]


def build_group(
    zarr_format: Literal[2, 3], attributes: Mapping[str, Any] | None = None
) -> GroupMetadata:
    """The metadata of a new group."""
    plain = plain_attributes(attributes)
    return v3.build_group(plain) if zarr_format == 3 else v2.build_group(plain)


class Group(GroupView):
    """A group of arrays and groups.

    Parameters
    ----------
    store
        Where the group is stored.
    path
        Its node path in the store, "" for the root.
    metadata
        Its parsed metadata.
    device
        Handed to the arrays below: a name or a device.
    config
        Handed to the arrays below; the defaults of ``zarr_gpu.config`` where None.
    consolidated
        Documents of everything below, used instead of the store.

    Examples
    --------
    >>> import zarr_gpu
    >>> root = zarr_gpu.create_group({})
    >>> z = root.create_array("raw/em", shape=(4, 4), dtype="u1")
    >>> root["raw"]["em"].shape, "raw/em" in root, list(root)
    ((4, 4), True, ['raw'])
    >>> print(root.tree())
    /
    └── raw
        └── em (4, 4) uint8
    """

    # ---- attributes ----------------------------------------------------------------------------

    @property
    def attrs(self) -> Attributes:
        """The user's attributes; every change is stored at once."""
        return Attributes(lambda: self.metadata.attributes, self._change_attributes)

    def update_attributes(self, new_attributes: Mapping[str, Any]) -> Self:
        """Add or replace attributes; returns this group."""
        self.attrs.update(new_attributes)
        return self

    def _change_attributes(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._check_writable()
        changed = change_attributes(self.store, self.path, self.metadata, change)
        if isinstance(changed, GroupMetadata):
            self.metadata = changed
        self.forget()

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"group {self.name!r} was opened read-only", key=self.path)

    # ---- creating ------------------------------------------------------------------------------

    def _new_path(self, name: str) -> str:
        self._check_writable()
        below = normalize_path(name, creating=True, zarr_format=self.zarr_format)
        if not below:
            raise InvalidKeyError("a new member needs a name")
        return join(self.path, below)

    def create_group(
        self, name: str, *, overwrite: bool = False, attributes: Mapping[str, Any] | None = None
    ) -> Group:
        """Create a group at ``name``, and groups on the way to it where there are none.

        Parameters
        ----------
        name
            Name, or path below this group.
        overwrite
            Delete what is there, with everything below it.
        attributes
            Its attributes.

        Raises
        ------
        ContainsArrayError, ContainsGroupError
            Something is there already, or an array lies on the way.
        ReadOnlyError
            This group was opened read-only.
        """
        path = self._new_path(name)
        metadata = build_group(self._format, attributes)
        create_node(self.store, path, metadata, overwrite=overwrite, parent=self._parent())
        self.forget()
        return Group(self.store, path, metadata, device=self.device, config=self.config)

    @property
    def _format(self) -> Literal[2, 3]:
        return self.metadata.zarr_format

    def _parent(self) -> str | None:
        """The path, if its document is stored: nothing above needs to be looked at then."""
        name = "zarr.json" if self._format == 3 else ".zgroup"
        return self.path if self.store.exists(join(self.path, name)) else None

    def forget(self) -> None:
        """Look nodes up in the store from now on, through all handles of this hierarchy."""
        if self._shared is not None:
            self._shared.valid = False

    def require_group(self, name: str, *, overwrite: bool = False) -> Group:
        """The group at ``name``, created if there is none.

        Raises
        ------
        ContainsArrayError
            There is an array.
        """
        found = None if overwrite else self._find(name)
        if isinstance(found, Array):
            raise ContainsArrayError(f"{found.name!r} is an array, not a group", key=found.path)
        return self.create_group(name, overwrite=overwrite) if found is None else found

    def require_groups(self, *names: str) -> tuple[Group, ...]:
        """Several groups, those created that are not there."""
        return tuple(self.require_group(name) for name in names)

    def create_array(
        self,
        name: str,
        *,
        shape: Any = None,
        dtype: Any = None,
        data: Any = None,
        chunks: Any = "auto",
        shards: Any = None,
        filters: Any = "auto",
        compressors: Any = "auto",
        serializer: Any = "auto",
        fill_value: Any = DEFAULT_FILL,
        order: Any = None,
        attributes: Mapping[str, Any] | None = None,
        chunk_key_encoding: Any = None,
        dimension_names: Iterable[str | None] | None = None,
        overwrite: bool = False,
        config: ArrayConfig | Mapping[str, Any] | None = None,
        write_data: bool = True,
        **older: Any,
    ) -> Array:
        """Create an array at ``name``, and groups on the way to it where there are none.

        The arguments are those of :func:`zarr_gpu.create_array`; ``**older`` takes those that
        :func:`zarr_gpu.create` has in addition (``compressor``, ``dimension_separator``, ...).

        Raises
        ------
        MetadataError
            An argument is invalid; nothing has been written.
        ContainsArrayError, ContainsGroupError
            Something is there already, or an array lies on the way.
        ReadOnlyError
            This group was opened read-only.
        """
        arguments = {
            "chunks": chunks,
            "shards": shards,
            "filters": filters,
            "compressors": compressors,
            "serializer": serializer,
            "chunk_key_encoding": chunk_key_encoding,
            "config": self.config if config is None else config,
        }
        array = build_array(
            self.store,
            self._new_path(name),
            zarr_format=self._format,
            shape=shape,
            dtype=dtype,
            data=data,
            fill_value=fill_value,
            order=order,
            attributes=attributes,
            dimension_names=dimension_names,
            overwrite=overwrite,
            write_data=write_data,
            device=self.device,
            parent=self._parent(),
            **translate_arguments(arguments, older),
        )
        self.forget()
        return array

    create = create_array

    def require_array(
        self, name: str, *, shape: Any, dtype: Any = None, exact: bool = False, **arguments: Any
    ) -> Array:
        """The array at ``name``, created if there is none.

        Parameters
        ----------
        shape
            Must be that of an array that is there.
        dtype
            Values of this type must fit into an array that is there.
        exact
            The data types must be equal.
        **arguments
            Those of ``create_array``, for a new array.

        Raises
        ------
        IncompatibleArrayError
            An array is there that does not match; also a ``TypeError``.
        ContainsGroupError
            A group is there.
        """
        found = self._find(name)
        if found is None:
            dtype = "float64" if dtype is None and arguments.get("data") is None else dtype
            return self.create_array(name, shape=shape, dtype=dtype, **arguments)
        if isinstance(found, Group):
            raise ContainsGroupError(f"{found.name!r} is a group, not an array", key=found.path)
        if parse_shape(shape) != found.shape:
            raise IncompatibleArrayError(
                f"array {found.name!r} has the shape {found.shape}, not {shape}", key=found.path
            )
        wanted = found.dtype if dtype is None else from_user(dtype).numpy
        if wanted != found.dtype and (exact or not np.can_cast(wanted, found.dtype)):
            raise IncompatibleArrayError(
                f"array {found.name!r} has the data type {found.dtype}, not {wanted}",
                key=found.path,
            )
        return found

    def empty(self, *, name: str, shape: Any, **arguments: Any) -> Array:
        """Create an array with the default fill value, float64 unless ``dtype`` says else."""
        return self.create_array(name, shape=shape, **{"dtype": "float64", **arguments})

    def zeros(self, *, name: str, shape: Any, **arguments: Any) -> Array:
        """Create an array of zeros, float64 unless ``dtype`` says else."""
        return self.full(name=name, shape=shape, fill_value=0, **arguments)

    def ones(self, *, name: str, shape: Any, **arguments: Any) -> Array:
        """Create an array of ones, float64 unless ``dtype`` says else."""
        return self.full(name=name, shape=shape, fill_value=1, **arguments)

    def full(self, *, name: str, shape: Any, fill_value: Any, **arguments: Any) -> Array:
        """Create an array filled with ``fill_value``, float64 unless ``dtype`` says else."""
        return self.empty(name=name, shape=shape, fill_value=fill_value, **arguments)

    def _like(self, name: str, data: Any, arguments: Mapping[str, Any]) -> Array:
        array = build_like(
            self.store,
            self._new_path(name),
            data,
            zarr_format=self._format,
            device=self.device,
            parent=self._parent(),
            **{"config": self.config, "write_data": False, **translate_arguments({}, arguments)},
        )
        self.forget()
        return array

    def empty_like(self, *, name: str, data: Any, **arguments: Any) -> Array:
        """Create an array like ``data``, with the default fill value."""
        return self._like(name, data, {"fill_value": DEFAULT_FILL, **arguments})

    def zeros_like(self, *, name: str, data: Any, **arguments: Any) -> Array:
        """Create an array of zeros like ``data``."""
        return self._like(name, data, {"fill_value": 0, **arguments})

    def ones_like(self, *, name: str, data: Any, **arguments: Any) -> Array:
        """Create an array of ones like ``data``."""
        return self._like(name, data, {"fill_value": 1, **arguments})

    def full_like(self, *, name: str, data: Any, **arguments: Any) -> Array:
        """Create an array like ``data``, filled with ``fill_value``."""
        return self._like(name, data, arguments)

    def create_hierarchy(
        self, nodes: Mapping[str, Any], *, overwrite: bool = False
    ) -> Iterator[tuple[str, Array | Group]]:
        """Create many nodes at once; see :func:`zarr_gpu.create_hierarchy`.

        Paths are relative to this group, and so are those that come back.
        """
        parsed = {self._new_path(name): as_metadata(node) for name, node in nodes.items()}
        for path, metadata in parsed.items():
            if metadata.zarr_format != self.zarr_format:
                raise MetadataError(
                    f"{path!r} has format {metadata.zarr_format}, the group {self.zarr_format}"
                )
        groups = create_nodes(self.store, parsed, overwrite=overwrite, parent=self._parent())
        self.forget()
        skip = len(join(self.path, "x")) - 1
        made = {**groups, **parsed}
        return ((path[skip:], self._wrap(path, made[path])) for path in sorted(made))

    def __setitem__(self, name: str, value: Any) -> None:
        """Store ``value`` as an array at ``name``, replacing what is there."""
        path = self._new_path(name)
        build_like(
            self.store,
            path,
            value,
            zarr_format=self._format,
            overwrite=True,
            parent=self._parent(),
            device=self.device,
            config=self.config,
        )
        self.forget()

    def __delitem__(self, name: str) -> None:
        """Delete the array or group at ``name``, with everything below it.

        Raises
        ------
        MemberNotFoundError
            There is nothing; also a ``KeyError``.
        """
        self._check_writable()
        path = join(self.path, normalize_path(name))
        if path == self.path or name not in self:
            raise MemberNotFoundError(f"group {self.name!r} has no member {name!r}", key=path)
        delete_node(self.store, path)
        self.forget()

    def move(self, source: str, dest: str) -> None:
        """Move the array or group at ``source`` to ``dest``, with everything below it.

        On a local disk this is one renaming; elsewhere all values are copied, then deleted.

        Raises
        ------
        MemberNotFoundError
            There is nothing at ``source``.
        ContainsArrayError, ContainsGroupError
            Something is at ``dest`` already, or an array lies on the way to it.
        InvalidKeyError
            ``dest`` lies inside ``source``.

        Examples
        --------
        >>> import zarr_gpu
        >>> root = zarr_gpu.create_group({})
        >>> _ = root.create_array("draft", shape=3, dtype="u1")
        >>> root.move("draft", "done/final")
        >>> "draft" in root, root["done/final"].shape
        (False, (3,))
        """
        target = self._new_path(dest)
        if source not in self:
            raise MemberNotFoundError(f"group {self.name!r} has no member {source!r}")
        move_node(self.store, join(self.path, normalize_path(source)), target, self._format)
        self.forget()

    # ---- opening -------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        store: StoreLike,
        zarr_format: int | None = None,
        *,
        use_consolidated: bool | str | None = None,
        device: str | Device | None = None,
    ) -> Group:
        """Open the group at the root of a store; see :func:`zarr_gpu.open_group`."""
        opened, path = open_store(store)
        metadata = read_group_metadata(opened, path, zarr_format)
        return make_group(opened, path, metadata, use_consolidated=use_consolidated, device=device)

    @classmethod
    def from_store(
        cls,
        store: StoreLike,
        *,
        attributes: Mapping[str, Any] | None = None,
        zarr_format: int | None = None,
        overwrite: bool = False,
    ) -> Group:
        """Create a group at the root of a store; see :func:`zarr_gpu.create_group`."""
        opened, path = open_store(store)
        metadata = build_group(parse_format(zarr_format), attributes)
        create_node(opened, path, metadata, overwrite=overwrite)
        return cls(opened, path, metadata)


def make_group(
    store: Store,
    path: str,
    metadata: GroupMetadata,
    *,
    use_consolidated: bool | str | None = None,
    device: str | Device | None = None,
    config: ArrayConfig | Mapping[str, Any] | None = None,
) -> Group:
    """The group that ``metadata`` describes, with its consolidated metadata if there are any.

    Raises
    ------
    NodeNotFoundError
        There are none, but ``use_consolidated`` insists.
    """
    found = open_consolidated_metadata(store, path, metadata, use_consolidated)
    return Group(store, path, metadata, device=device, config=config, consolidated=found)
