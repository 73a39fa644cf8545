"""Consolidated metadata: looking nodes up in it, and making it.

Its two stored forms are the business of ``metadata.consolidated``.  Imports ``nodes`` and metadata;
called by ``group`` and ``api``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from zarr_gpu.errors import MetadataError, NodeNotFoundError, ZarrError
from zarr_gpu.metadata import ArrayMetadata, GroupMetadata, consolidated, documents, v3
from zarr_gpu.nodes import (
    Kind,
    Lately,
    Metadata,
    join,
    list_members,
    parse_node,
    read_group_metadata,
    write_documents,
)
from zarr_gpu.storage.base import Store

__all__ = ["Consolidated", "consolidate", "open_consolidated_metadata"]

Json = dict[str, Any]


class _Index:
    """The documents of all nodes below a group, and what has been worked out from them.

    Paths are relative to the group.  Shared by all handles on the same documents, however often
    they are opened: nothing here changes with what is stored.
    """

    def __init__(self, zarr_format: int, found: dict[str, dict[str, Json]]) -> None:
        self.zarr_format = zarr_format
        self.found = found
        self._children: dict[str, list[str]] | None = None
        self._read: dict[str, Metadata] = {}  # what has been parsed
        self._members: dict[str, list[tuple[str, Metadata]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Index, (self.zarr_format, self.found)

    @property
    def children(self) -> dict[str, list[str]]:
        """Path of each group -> names of its members, sorted."""
        if self._children is None:
            below: dict[str, dict[str, None]] = {}
            for path in self.found:
                child = path
                while child:
                    parent, _, name = child.rpartition("/")
                    siblings = below.get(parent)
                    if siblings is not None:
                        siblings[name] = None
                        break  # whoever made this entry has made those above
                    below[parent] = {name: None}
                    child = parent
            self._children = {path: sorted(names) for path, names in below.items()}
        return self._children

    def read(self, path: str, full_path: str) -> Metadata | None:
        """The metadata of one node; ``full_path`` names it in errors."""
        metadata = self._read.get(path)
        if metadata is None:
            metadata = self._parse(path, full_path)
            if metadata is not None:
                self._read[path] = metadata
        return metadata

    def _parse(self, path: str, full_path: str) -> Metadata | None:
        found = self.found.get(path)
        metadata = None if found is None else parse_node(found, full_path)
        if metadata is None and self.zarr_format == 3 and path in self.children:
            return v3.build_group()
        if isinstance(metadata, GroupMetadata) and metadata.consolidated is not None:
            # zarr-python puts an empty one into every group; it must not hide what is above.
            return replace(metadata, consolidated=None)
        return metadata

    def members(self, path: str, full_path: str) -> list[tuple[str, Metadata]]:
        """(name, metadata) of the members of a group."""
        members = self._members.get(path)
        if members is None:
            members = []
            for name in self.children.get(path, ()):
                metadata = self.read(join(path, name), join(full_path, name))
                if metadata is not None:
                    members.append((name, metadata))
            self._members[path] = members
        return members


class Consolidated:
    """The documents of all nodes below a group, shared by the handles made from it.

    Parameters
    ----------
    root
        Path of the group in its store.
    index
        The documents.

    Attributes
    ----------
    valid
        Made false by the first change through one of the handles: from then on the store is asked.
    """

    def __init__(self, root: str, index: _Index) -> None:
        self.root = root
        self.valid = True
        self._index = index

    def _below(self, path: str) -> str:
        return path if not self.root else path[len(self.root) + 1 :]

    def __contains__(self, path: str) -> bool:
        below = self._below(path)
        return below in self._index.found or below in self._index.children

    def read(self, path: str) -> Metadata | None:
        """The metadata of the node at ``path`` (in the store); None where there is none.

        Raises
        ------
        MetadataError
            Its document is invalid.
        """
        return self._index.read(self._below(path), path)

    def list_kinds(self, path: str) -> Iterator[tuple[str, Kind]]:
        """(name, kind) of the members of the group at ``path``."""
        below = self._below(path)
        for name in self._index.children.get(below, ()):
            found = self._index.found.get(join(below, name), {})
            kind: Kind = "group"
            if "zarr.json" in found:
                claimed = found["zarr.json"].get("node_type")
                kind = claimed if claimed in ("array", "group") else "broken"
            elif ".zarray" in found:
                kind = "array"
            elif ".zgroup" not in found and self._index.zarr_format == 2:
                continue
            yield name, kind

    def list_members(self, path: str) -> Iterator[tuple[str, Metadata]]:
        """(name, metadata) of the members of the group at ``path``."""
        return iter(self._index.members(self._below(path), path))

    def list_outcomes(self, path: str) -> Iterator[tuple[str, Metadata | ZarrError]]:
        """(name, metadata, or what is wrong with them) of the members of the group at ``path``."""
        for name, _ in self.list_kinds(path):
            try:
                metadata = self.read(join(path, name))
            except ZarrError as error:
                yield name, error
            else:
                if metadata is not None:
                    yield name, metadata


def open_consolidated_metadata(
    store: Store, path: str, metadata: GroupMetadata, use_consolidated: bool | str | None
) -> Consolidated | None:
    """The consolidated metadata of a group, None where there are none or none are wanted.

    Parameters
    ----------
    use_consolidated
        None takes what there is, True insists, False refuses; a string is the name of another
        document than ``.zmetadata`` (v2 only) and insists.

    Raises
    ------
    NodeNotFoundError
        There are none, but they were insisted on.
    MetadataError
        They are invalid.
    """
    if use_consolidated is False:
        return None
    if use_consolidated is not None and not isinstance(use_consolidated, (bool, str)):
        raise MetadataError(f"use_consolidated: {use_consolidated!r:.80} is no bool or name")
    if metadata.zarr_format == 3:
        if isinstance(use_consolidated, str):
            raise MetadataError("use_consolidated: only format 2 has it under a name of its own")
        found = metadata.consolidated
    else:
        name = use_consolidated if isinstance(use_consolidated, str) else ".zmetadata"
        key = join(path, name)
        data = store.get(key)
        if data is not None:
            return Consolidated(path, _index_zmetadata(data, key))
        found = None
    if found is not None:
        index = metadata.memo.get("index")
        if index is None:
            index = metadata.memo["index"] = _Index(3, found)
        return Consolidated(path, index)
    if use_consolidated is not None:
        raise NodeNotFoundError(f"the group {path!r} has no consolidated metadata", key=path)
    return None


_lately: Lately[bytes, _Index] = Lately(4 << 20)


def _index_zmetadata(data: bytes, key: str) -> _Index:
    index = _lately.get(data)
    if index is None:
        found = consolidated.read_zmetadata(documents.loads(data, key=key), key=key)
        index = _Index(2, found)
        _lately.put(data, index, len(data))
    return index


def consolidate(store: Store, path: str, zarr_format: int | None = None) -> GroupMetadata:
    """Gather the documents of everything below a group into the group; returns its metadata.

    Raises
    ------
    GroupNotFoundError
        There is no group.
    MetadataError
        A document below is invalid.
    """
    group = read_group_metadata(store, path, zarr_format)
    gathered: dict[str, dict[str, Json]] = {}
    if group.zarr_format == 2:
        gathered[""] = {".zattrs": group.attributes}
    level = [""]
    while level:
        below: list[str] = []
        paths = [join(path, parent) if parent else path for parent in level]
        for i, name, member in list_members(store, paths, group.zarr_format):
            node = join(level[i], name)
            if isinstance(member, GroupMetadata):
                below.append(node)
            if group.zarr_format == 3:
                gathered[node] = {"zarr.json": member.document}
            else:
                kind = ".zarray" if isinstance(member, ArrayMetadata) else ".zgroup"
                gathered[node] = {kind: member.document, ".zattrs": member.attributes}
        level = below
    if group.zarr_format == 2:
        store.put(join(path, ".zmetadata"), consolidated.write_zmetadata(gathered))
        return group
    document = dict(group.document)
    node_type = document.pop("node_type")
    document["consolidated_metadata"] = consolidated.write_inline(gathered)
    document["node_type"] = node_type
    new = replace(group, consolidated=gathered, document=document)
    write_documents(store, path, new)
    return new
