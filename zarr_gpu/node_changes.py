"""Changes of a hierarchy: create, move and delete nodes.

Crash safety rests on order.  The document that makes a node exist is written last and removed
first, so that a crash leaves the old node, no node or the new node, never half of one.  Groups on
the way to a new node are written before it.

Imports ``nodes`` and below; called by ``building``, ``group`` and ``api``.
"""

from __future__ import annotations

from collections.abc import Mapping

from zarr_gpu.errors import (
    ContainsArrayError,
    ContainsGroupError,
    InvalidKeyError,
    MetadataError,
)
from zarr_gpu.metadata import ArrayMetadata, GroupMetadata, v2, v3
from zarr_gpu.nodes import (
    DEFINING,
    Metadata,
    check_writable,
    find_kind,
    join,
    where,
    write_documents,
)
from zarr_gpu.storage.base import Store

__all__ = [
    "create_node",
    "create_nodes",
    "delete_node",
    "move_node",
    "refuse_existing",
]


def refuse_existing(store: Store, path: str) -> None:
    """Raise where something is stored at ``path``, in whichever format.

    Raises
    ------
    ContainsArrayError, ContainsGroupError
        What is there already.
    """
    found = find_kind(store, path)
    if found is None:
        return
    kind, number = found
    cls = ContainsGroupError if kind == "group" else ContainsArrayError
    what = f"{'an array' if kind == 'array' else 'a group' if kind == 'group' else 'a node'}"
    raise cls(
        f"there is {what} of format {number} already, {where(store, path)}; "
        "pass overwrite=True to replace it",
        key=path,
    )


def _missing_ancestors(
    store: Store, path: str, zarr_format: int, known: dict[str, bool]
) -> list[str]:
    """Ancestors of ``path`` that have no group document yet, outermost first.

    ``known`` remembers, over many calls, which paths have been seen to be groups (True) or will be
    written as such (False).

    Raises
    ------
    ContainsArrayError
        An ancestor is an array.
    ContainsGroupError
        An ancestor is a group of the other format, and would be hidden.
    """
    missing = []
    for ancestor in _self_and_ancestors(path)[1:]:
        if ancestor in known:
            break
        found = find_kind(store, ancestor)
        if found is not None and found[0] != "group":
            raise ContainsArrayError(
                f"cannot create {path!r}: there is an array, not a group, {where(store, ancestor)}",
                key=ancestor,
            )
        if found is not None and found[1] != zarr_format:
            own = join(ancestor, "zarr.json" if zarr_format == 3 else ".zgroup")
            if not store.exists(own):
                raise ContainsGroupError(
                    f"cannot create {path!r} in format {zarr_format}: the group "
                    f"{where(store, ancestor)} has format {found[1]}; "
                    f"pass zarr_format={found[1]}",
                    key=ancestor,
                )
        known[ancestor] = found is not None
        if not known[ancestor]:
            missing.append(ancestor)
    return missing[::-1]


def create_node(
    store: Store,
    path: str,
    metadata: Metadata,
    *,
    overwrite: bool = False,
    parent: str | None = None,
) -> None:
    """Store the documents of a new node, and group documents for ancestors that have none.

    Parameters
    ----------
    overwrite
        Delete what is at ``path``, with everything below it.
    parent
        An ancestor that the caller knows to be a group of this format.

    Raises
    ------
    ContainsArrayError, ContainsGroupError
        Something is there already, or an ancestor is an array.
    ReadOnlyError
        The store cannot be written to.
    """
    create_nodes(store, {path: metadata}, overwrite=overwrite, parent=parent)


def _self_and_ancestors(path: str) -> list[str]:
    """``path``, its parent and so on up to the root."""
    names = path.split("/") if path else []
    return ["/".join(names[:depth]) for depth in range(len(names), -1, -1)]


def create_nodes(
    store: Store,
    nodes: Mapping[str, Metadata],
    *,
    overwrite: bool = False,
    parent: str | None = None,
) -> dict[str, GroupMetadata]:
    """Create several nodes at once; nothing is written where one of them cannot be created.

    Returns the groups that were created besides.  Raises as ``create_node``, and MetadataError
    where a node would lie below an array among ``nodes``.
    """
    for path in nodes:
        check_writable(store, path)
    order = sorted(nodes, key=lambda path: (path.count("/") + bool(path), path))
    for path in order:
        for ancestor in _self_and_ancestors(path)[1:]:
            if isinstance(nodes.get(ancestor), ArrayMetadata):
                raise MetadataError(f"{path!r} cannot lie below the array {ancestor!r}")
    if not overwrite:
        for path in order:
            refuse_existing(store, path)
    known = dict.fromkeys(order, False)
    if parent is not None:
        known.update(dict.fromkeys(_self_and_ancestors(parent), True))
    groups: dict[str, GroupMetadata] = {}
    for path in order:
        number = nodes[path].zarr_format
        missing = _missing_ancestors(store, path, number, known)
        if missing:
            group = v3.build_group() if number == 3 else v2.build_group()
            groups |= dict.fromkeys(missing, group)
    if overwrite:
        for path in order:
            delete_node(store, path)
    for path in sorted(groups, key=len):
        write_documents(store, path, groups[path])
    for path in order:
        write_documents(store, path, nodes[path])
    return groups


def delete_node(store: Store, path: str) -> None:
    """Remove the node at ``path``, if any, with everything below it.

    Its documents go first: a crash on the way leaves chunks that nothing points to.
    """
    check_writable(store, path)
    store.delete_many([join(path, name) for name in (*DEFINING, ".zattrs", ".zmetadata")])
    store.delete_prefix(path)


def move_node(store: Store, source: str, target: str, zarr_format: int) -> None:
    """Move the node at ``source``, with everything below it, to ``target``.

    Raises
    ------
    ContainsArrayError, ContainsGroupError
        Something is at ``target`` already, or an array lies on the way to it.
    InvalidKeyError
        One of the two lies inside the other.
    """
    check_writable(store, source)
    if not source or not target or source in _self_and_ancestors(target):
        raise InvalidKeyError(f"cannot move {source!r} to {target!r}, which lies inside of it")
    refuse_existing(store, target)
    group = v3.build_group() if zarr_format == 3 else v2.build_group()
    for ancestor in _missing_ancestors(store, target, zarr_format, {}):
        write_documents(store, ancestor, group)
    store.move(source, target)
