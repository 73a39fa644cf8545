"""The reading side of groups: what a group is, what is in it, how it shows itself.

Imports ``array``, ``consolidation``, ``nodes`` and below; :class:`zarr_gpu.Group` adds to it all
that creates and changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from zarr_gpu.array import Array
from zarr_gpu.array_info import ArrayInfo
from zarr_gpu.config import ArrayConfig
from zarr_gpu.consolidation import Consolidated
from zarr_gpu.devices import Device, get_device
from zarr_gpu.errors import (
    ArrayNotFoundError,
    GroupNotFoundError,
    InvalidKeyError,
    MemberNotFoundError,
    MetadataError,
    ZarrError,
)
from zarr_gpu.metadata import ArrayMetadata, GroupMetadata, normalize_path
from zarr_gpu.nodes import (
    Kind,
    Metadata,
    encode_documents,
    find_kind,
    join,
    list_kinds,
    list_members,
    list_outcomes,
    read_group_metadata,
    read_implicit,
    read_node,
)
from zarr_gpu.storage.base import Store
from zarr_gpu.trees import Tree, draw_tree

__all__ = ["GroupView"]


class GroupView:
    """A group of arrays and groups, to be read; see :class:`zarr_gpu.Group`."""

    def __init__(
        self,
        store: Store,
        path: str,
        metadata: GroupMetadata,
        *,
        device: str | Device | None = None,
        config: ArrayConfig | Mapping[str, Any] | None = None,
        consolidated: Consolidated | None = None,
    ) -> None:
        self.store = store
        self.path = path
        self.metadata = metadata
        self.device = get_device(device)
        self.config = ArrayConfig.parse(config)
        self._shared = consolidated

    # ---- what it is ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Absolute node path: "/" for the root, else "/" and the path."""
        return f"/{self.path}"

    @property
    def basename(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def store_path(self) -> str:
        """Store and path in one string, for messages."""
        return f"{self.store!r}/{self.path}" if self.path else repr(self.store)

    @property
    def zarr_format(self) -> int:
        """2 or 3."""
        return self.metadata.zarr_format

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self.store.read_only

    @property
    def is_consolidated(self) -> bool:
        """Whether nodes below are looked up in consolidated metadata."""
        return self._consolidated is not None

    # ---- looking up ----------------------------------------------------------------------------

    def _wrap(self, path: str, metadata: Metadata) -> Array | Self:
        if isinstance(metadata, ArrayMetadata):
            return Array(self.store, path, metadata, device=self.device, config=self.config)
        return type(self)(
            self.store,
            path,
            metadata,
            device=self.device,
            config=self.config,
            consolidated=self._consolidated,
        )

    @property
    def _consolidated(self) -> Consolidated | None:
        """The consolidated metadata while they hold."""
        shared = self._shared
        return shared if shared is not None and shared.valid else None

    def _read(self, path: str) -> Metadata | None:
        if self._consolidated is not None:
            return self._consolidated.read(path)
        metadata = read_node(self.store, path, self.zarr_format)
        if metadata is None and self.zarr_format == 3:
            return read_implicit(self.store, path)
        return metadata

    def _find(self, name: str) -> Array | Self | None:
        path = join(self.path, normalize_path(name))
        metadata = self._read(path)
        return None if metadata is None else self._wrap(path, metadata)

    def __getitem__(self, name: str) -> Array | Self:
        """The array or group at ``name``, which may lead through several levels.

        Raises
        ------
        MemberNotFoundError
            There is nothing; also a ``KeyError`` and a ``FileNotFoundError``.
        """
        found = self._find(name)
        if found is None:
            where = " (in its consolidated metadata)" if self.is_consolidated else ""
            raise MemberNotFoundError(
                f"group {self.name!r} has no member {name!r}{where}", key=join(self.path, name)
            )
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """The array or group at ``name``, or ``default``."""
        found = self._find(name)
        return default if found is None else found

    def get_array(self, name: str) -> Array:
        """The array at ``name``.  Raises ArrayNotFoundError for a group."""
        found = self[name]
        if isinstance(found, Array):
            return found
        raise ArrayNotFoundError(f"{found.name!r} is a group, not an array", key=found.path)

    def get_group(self, name: str) -> Self:
        """The group at ``name``.  Raises GroupNotFoundError for an array."""
        found = self[name]
        if isinstance(found, GroupView):
            return found
        raise GroupNotFoundError(f"{found.name!r} is an array, not a group", key=found.path)

    def __contains__(self, name: object) -> bool:
        try:
            path = join(self.path, normalize_path(name))  # type: ignore[arg-type]
        except InvalidKeyError:
            return False
        if self._consolidated is not None:
            return path in self._consolidated
        found = find_kind(self.store, path)
        if found is not None:
            return found[1] == self.zarr_format
        return self.zarr_format == 3 and read_implicit(self.store, path) is not None

    # ---- listing -------------------------------------------------------------------------------

    def kinds(self) -> Iterator[tuple[str, Kind]]:
        """(name, "array" or "group") of direct members; "broken" where a document is invalid."""
        if self._consolidated is not None:
            return self._consolidated.list_kinds(self.path)
        return list_kinds(self.store, self.path, self.zarr_format)

    def children(self) -> Iterator[tuple[str, Array | Self]]:
        """(name, node) of direct members, read one after the other."""
        for _, name, metadata in self._below([self.path]):
            yield name, self._wrap(join(self.path, name), metadata)

    def _below(self, paths: Sequence[str]) -> Iterator[tuple[int, str, Metadata]]:
        """(position in ``paths``, name, metadata) of the direct members of several groups."""
        consolidated = self._consolidated
        if consolidated is None:
            yield from list_members(self.store, paths, self.zarr_format)
            return
        for i, path in enumerate(paths):
            for name, metadata in consolidated.list_members(path):
                yield i, name, metadata

    def members(
        self, max_depth: int | None = 0, *, use_consolidated_for_children: bool = True
    ) -> tuple[tuple[str, Array | Self], ...]:
        """(path below this group, node) of all members, level by level.

        Parameters
        ----------
        max_depth
            0 for direct members, 1 for their members too, and so on; None for all.
        use_consolidated_for_children
            False reads the store even where metadata are consolidated.

        Raises
        ------
        MetadataError
            The document of a member is invalid; ``keys`` lists it nevertheless.
        """
        if max_depth is not None and max_depth < 0:
            raise MetadataError(f"max_depth must be None or at least 0, got {max_depth}")
        if not use_consolidated_for_children and self._consolidated is not None:
            plain = type(self)(
                self.store, self.path, self.metadata, device=self.device, config=self.config
            )
            return plain.members(max_depth)
        found: list[tuple[str, Array | Self]] = []
        level = [("", self.path)]  # (path below this group, path in the store)
        depth = 0
        while level and (max_depth is None or depth <= max_depth):
            below: list[tuple[str, str]] = []
            for i, name, metadata in self._below([path for _, path in level]):
                prefix, path = level[i]
                prefix, path = join(prefix, name), join(path, name)
                found.append((prefix, self._wrap(path, metadata)))
                if isinstance(metadata, GroupMetadata):
                    below.append((prefix, path))
            level = below
            depth += 1
        return tuple(found)

    def nmembers(self, max_depth: int | None = 0) -> int:
        """Number of members; see ``members`` for ``max_depth``."""
        if max_depth == 0:
            return sum(1 for _ in self.kinds())
        return len(self.members(max_depth))

    def __len__(self) -> int:
        return self.nmembers()

    def __bool__(self) -> bool:
        return True  # an empty group is something

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def keys(self) -> Iterator[str]:
        """Names of all direct members, sorted."""
        return (name for name, _ in self.kinds())

    def group_keys(self) -> Iterator[str]:
        """Names of direct members that are groups."""
        return (name for name, kind in self.kinds() if kind == "group")

    def array_keys(self) -> Iterator[str]:
        """Names of direct members that are arrays."""
        return (name for name, kind in self.kinds() if kind == "array")

    def groups(self) -> Iterator[tuple[str, Self]]:
        """(name, group) of direct members that are groups."""
        return ((name, node) for name, node in self.children() if isinstance(node, GroupView))

    def group_values(self) -> Iterator[Self]:
        """Direct members that are groups."""
        return (group for _, group in self.groups())

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """(name, array) of direct members that are arrays."""
        return ((name, node) for name, node in self.children() if isinstance(node, Array))

    def array_values(self) -> Iterator[Array]:
        """Direct members that are arrays."""
        return (array for _, array in self.arrays())

    # ---- showing -------------------------------------------------------------------------------

    def tree(
        self,
        expand: bool | None = None,
        level: int | None = None,
        *,
        max_nodes: int = 500,
        plain: bool = True,
    ) -> Tree:
        """Draw what lies below; printed as text, shown as HTML in notebooks.

        Parameters
        ----------
        expand, plain
            Accepted for compatibility.
        level
            Deepest level that is drawn; None for all.
        max_nodes
            Most members that are drawn.
        """

        def list_below(path: str) -> Iterator[tuple[str, str | None, str]]:
            for name, found in self._outcomes(path):
                if isinstance(found, GroupMetadata):
                    yield name, join(path, name), ""
                elif isinstance(found, ArrayMetadata):
                    yield name, None, f" {found.shape} {found.dtype.numpy}"
                else:
                    yield name, None, f" (cannot be opened: {found})"

        return draw_tree(self.name, self.path, list_below, level=level, max_nodes=max_nodes)

    def _outcomes(self, path: str) -> Iterator[tuple[str, Metadata | ZarrError]]:
        if self._consolidated is not None:
            return self._consolidated.list_outcomes(path)
        return list_outcomes(self.store, path, self.zarr_format)

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("Name", self.name),
            ("Type", "Group"),
            ("Zarr format", str(self.zarr_format)),
            ("Read-only", str(self.read_only)),
            ("Store", str(self.store)),
            ("Device", self.device.name),
        ]

    @property
    def info(self) -> ArrayInfo:
        """A table of facts; reads nothing."""
        return ArrayInfo(tuple(self._facts()))

    def info_complete(self) -> ArrayInfo:
        """As ``info``, with the number of members on all levels: lists the store."""
        members = self.members(max_depth=None)
        arrays = sum(isinstance(node, Array) for _, node in members)
        counts = [
            ("No. members", str(len(members))),
            ("No. arrays", str(arrays)),
            ("No. groups", str(len(members) - arrays)),
        ]
        return ArrayInfo((*self._facts(), *counts))

    # ---- Python --------------------------------------------------------------------------------

    def refresh(self) -> Self:
        """Read the metadata again, as another handle may have changed them; returns this group."""
        self.metadata = read_group_metadata(self.store, self.path, self.zarr_format)
        return self

    def with_config(self, config: ArrayConfig | Mapping[str, Any]) -> Self:
        """The same group with another run-time behaviour for its arrays."""
        return self._copy(config=ArrayConfig.parse(config))

    def to(self, device: str | Device) -> Self:
        """The same group, its arrays decoded on another device."""
        return self._copy(device=device)

    def _copy(self, **changed: Any) -> Self:
        kept = {"device": self.device, "config": self.config, "consolidated": self._shared}
        return type(self)(self.store, self.path, self.metadata, **{**kept, **changed})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupView):
            return NotImplemented
        return (self.store, self.path, encode_documents(self.metadata)) == (
            other.store,
            other.path,
            encode_documents(other.metadata),
        )

    def __hash__(self) -> int:
        return hash((type(self), self.path))

    def __repr__(self) -> str:
        return f"<Group {self.store_path}>"

    def _repr_html_(self) -> str:
        return self.info.to_html()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            type(self),
            self.store,
            self.path,
            self.metadata,
            self.device.name,
            self.config,
            self._shared,
        )


def _rebuild(
    cls: type[GroupView],
    store: Store,
    path: str,
    metadata: GroupMetadata,
    device: str,
    config: ArrayConfig,
    consolidated: Consolidated | None,
) -> GroupView:
    return cls(store, path, metadata, device=device, config=config, consolidated=consolidated)
