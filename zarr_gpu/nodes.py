"""Nodes of a hierarchy as documents in a store: find, read, list and store them.

Paths are canonical (see ``metadata.paths``); "" is the root.  What comes out is metadata, never an
array or a group object: those are made by ``array`` and ``group`` from it.

Imports metadata, storage, config and errors; called by ``array``, ``group``, ``node_changes`` and
``api``.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from zarr_gpu.config import config
from zarr_gpu.errors import (
    ArrayNotFoundError,
    GroupNotFoundError,
    InvalidKeyError,
    NodeNotFoundError,
    ReadOnlyError,
    ZarrError,
)
from zarr_gpu.extents import ByteRequest, HostMemory
from zarr_gpu.metadata import ArrayMetadata, GroupMetadata, documents, v2, v3
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.keys import check_key, check_keys
from zarr_gpu.storage.pool import map_ahead

_MOST_PROBES = 64
"""Children looked at to find out whether a directory without a document is a group."""

_LEAST_COST = 1024
"""Bytes that a parsed document takes however short it is, roughly."""

__all__ = [
    "DEFINING",
    "DOCUMENTS",
    "Lately",
    "Metadata",
    "change_attributes",
    "check_writable",
    "encode_documents",
    "find_kind",
    "format_around",
    "join",
    "list_kinds",
    "list_members",
    "list_outcomes",
    "parse_node",
    "put_documents",
    "read_array_metadata",
    "read_group_metadata",
    "read_implicit",
    "read_node",
    "where",
    "write_documents",
]

Json = dict[str, Any]
Metadata = ArrayMetadata | GroupMetadata
Kind = Literal["array", "group", "broken"]
M = TypeVar("M", bound=Metadata)
K = TypeVar("K")
V = TypeVar("V")

DOCUMENTS = frozenset(["zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"])
"""Names that are documents and never nodes."""

DEFINING = ("zarr.json", ".zarray", ".zgroup")
"""The documents that make a node exist, in the order in which they are looked for."""


_WANTED: dict[int | None, list[str]] = {
    3: ["zarr.json"],
    2: [".zarray", ".zgroup", ".zattrs"],
    None: ["zarr.json", ".zarray", ".zgroup", ".zattrs"],
}


def join(path: str, name: str) -> str:
    """The path, or key, ``name`` below ``path``."""
    return f"{path}/{name}" if path else name


# ------------------------------------------------------------------------------------- reading


def _get_all(store: Store, keys: list[str]) -> list[bytes | None]:
    """Whole small values; one batch where the store gains from that."""
    if store.concurrency <= 1 or len(keys) <= 1:
        return [store.get(key) for key in keys]
    found = store.fetch(ByteRequest.whole(keys), HostMemory())
    base = np.asarray(found.base)
    return [
        None if size < 0 else base[start : start + size].tobytes()
        for start, size in zip(found.offset.tolist(), found.nbytes.tolist(), strict=True)
    ]


def read_node(store: Store, path: str, zarr_format: int | None = None) -> Metadata | None:
    """The metadata of the node at ``path``, None where there is none.

    Version 3 is looked for first where ``zarr_format`` is None.

    Raises
    ------
    MetadataError
        A document is invalid.
    """
    names = _WANTED[zarr_format]
    keys = [f"{path}/{name}" for name in names] if path else names
    get: Callable[[str], bytes | None]
    if store.concurrency > 1:
        get = dict(zip(keys, _get_all(store, keys), strict=True)).__getitem__
    else:
        get = store.get  # one after the other: mostly the first one is it
    found: dict[str, bytes] = {}
    for name, key in zip(names, keys, strict=True):
        if name == ".zgroup" and found:
            continue
        if name == ".zattrs" and not found:
            break
        value = get(key)
        if value is None:
            continue
        found[name] = value
        if name == "zarr.json":
            break
    return _parse_stored(found, path) if found else None


class Lately(Generic[K, V]):
    """What has been parsed lately, bounded by the bytes of what it was parsed from."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._nbytes = 0
        self._found: dict[K, V] = {}
        self.get = self._found.get

    def put(self, key: K, value: V, nbytes: int) -> None:
        cost = nbytes + _LEAST_COST
        if cost > self._most or key in self._found:
            return
        if self._nbytes + cost > self._most:
            self.clear()
        self._found[key] = value
        self._nbytes += cost

    def clear(self) -> None:
        self._nbytes = 0
        self._found.clear()


_seen: Lately[tuple[tuple[str, bytes], ...], Metadata] = Lately(4 << 20)
_kinds_seen: Lately[bytes, ArrayMetadata] = Lately(1 << 20)


def _parse_stored(found: dict[str, bytes], path: str) -> Metadata | None:
    """As ``parse_node``, for documents as they are stored; remembers those it has seen.

    Arrays of one kind often have the same document, and the same node is often opened again.
    """
    seen_as = tuple(found.items())
    metadata = _seen.get(seen_as)
    if metadata is not None:
        return metadata
    loaded = {name: documents.loads(data, key=join(path, name)) for name, data in found.items()}
    metadata = parse_node(loaded, path)
    if metadata is not None:
        _seen.put(seen_as, metadata, sum(map(len, found.values())))
    return metadata


def parse_node(found: Mapping[str, Json], path: str) -> Metadata | None:
    """The metadata that documents of one node amount to; keys are names within the node."""
    document = found.get("zarr.json")
    if document is not None:
        if document.get("node_type") != "array":
            return v3.parse(document, key=join(path, "zarr.json"))
        mark = _fingerprint(document)
        known = _kinds_seen.get(mark)
        if known is not None:
            metadata = v3.parse_alike(document, known)
            if metadata is not None:
                return metadata
        return _remember(mark, v3.parse(document, key=join(path, "zarr.json")))
    attributes = found.get(".zattrs", {})
    document = found.get(".zarray")
    if document is not None:
        mark = _fingerprint(document)
        known = _kinds_seen.get(mark)
        if known is not None:
            metadata = v2.parse_alike(document, attributes, known)
            if metadata is not None:
                return metadata
        return _remember(mark, v2.parse_array(document, attributes, key=join(path, ".zarray")))
    if ".zgroup" in found:
        return v2.parse_group(found[".zgroup"], attributes, key=join(path, ".zgroup"))
    return None


def _remember(mark: bytes, metadata: M) -> M:
    if isinstance(metadata, ArrayMetadata):
        _kinds_seen.put(mark, metadata, len(mark))
    return metadata


def _fingerprint(document: Json) -> bytes:
    """Bytes that are equal only for documents that are equal but for what ``parse_alike`` reads.

    In most hierarchies a few kinds of arrays make up all; parsing each anew costs several times as
    much as recognising it.  Version 2 keeps object identity out.
    """
    rest = document.copy()
    for name in ("shape", "attributes", "dimension_names"):
        if name in rest:
            rest[name] = None
    return marshal.dumps(rest, 2)


def where(store: Store, path: str) -> str:
    """Node and store in words, for messages."""
    return f"at {path!r} in {store!r}" if path else f"in {store!r}"


def read_array_metadata(store: Store, path: str, zarr_format: int | None = None) -> ArrayMetadata:
    """The metadata of the array at ``path``.

    Raises
    ------
    ArrayNotFoundError
        There is nothing, or a group.
    MetadataError
        A document is invalid.
    """
    metadata = read_node(store, path, zarr_format)
    if isinstance(metadata, ArrayMetadata):
        return metadata
    if metadata is None:
        raise ArrayNotFoundError(f"there is no array {where(store, path)}", key=path)
    raise ArrayNotFoundError(f"there is a group, not an array, {where(store, path)}", key=path)


def read_group_metadata(store: Store, path: str, zarr_format: int | None = None) -> GroupMetadata:
    """The metadata of the group at ``path``, which may be implicit.

    Raises
    ------
    GroupNotFoundError
        There is nothing, or an array.
    MetadataError
        A document is invalid.
    """
    metadata = read_node(store, path, zarr_format)
    if metadata is None and zarr_format != 2:
        metadata = read_implicit(store, path)
    if isinstance(metadata, GroupMetadata):
        return metadata
    if metadata is None:
        raise GroupNotFoundError(f"there is no group {where(store, path)}", key=path)
    raise GroupNotFoundError(f"there is an array, not a group, {where(store, path)}", key=path)


def read_implicit(store: Store, path: str) -> GroupMetadata | None:
    """A v3 group without a document: a directory with a node directly below it.

    The specification no longer has such groups, but there are hierarchies with them.
    """
    if path and find_kind(store, path.rpartition("/")[0]) == ("array", 3):
        return None
    return v3.build_group() if _is_implicit(store, path) else None


def _is_implicit(store: Store, path: str) -> bool:
    """Whether one of the first names below ``path`` is a v3 node; a few, as chunks may be there."""
    if not store.supports_listing:
        return False
    names = _node_names(store.list_dir(path))[:_MOST_PROBES]
    return any(store.exists(join(path, f"{name}/zarr.json")) for name in names)


def find_kind(store: Store, path: str) -> tuple[Kind, int] | None:
    """What is stored at ``path``, and in which format, with as little reading as will do."""
    key = join(path, "zarr.json")
    value = store.get(key)
    if value is not None:
        return _kind_of(value), 3
    if store.exists(join(path, ".zarray")):
        return "array", 2
    if store.exists(join(path, ".zgroup")):
        return "group", 2
    return None


def format_around(store: Store, path: str) -> int | None:
    """Format of the nearest group above ``path``, None where there is none."""
    while path:
        path = path.rpartition("/")[0]
        found = find_kind(store, path)
        if found is not None:
            return found[1]
    return None


def _kind_of(value: bytes) -> Kind:
    """The kind that a ``zarr.json`` claims to be; all else is checked when the node is opened."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return "broken"
    kind = document.get("node_type") if isinstance(document, dict) else None
    return kind if kind in ("array", "group") else "broken"


# ------------------------------------------------------------------------------------- listing


def _node_names(names: Iterable[str]) -> list[str]:
    """Those of the names in a listing that could be nodes."""
    candidates = [name for name in names if name not in DOCUMENTS]
    try:
        check_keys(candidates)
    except InvalidKeyError:
        return [name for name in candidates if _is_key(name)]
    return candidates


def _is_key(name: str) -> bool:
    try:
        check_key(name)
    except InvalidKeyError:
        return False
    return True


def _scan(
    store: Store, paths: Sequence[str], zarr_format: int, *, attributes: bool
) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """(position in ``paths``, name, documents) of all nodes directly below some groups.

    Implicit groups come without documents.  One get for each v3 node; one or two for each v2 node,
    and one for its attributes.  Where a store gains from that, all listings are asked for at once,
    and so are all documents of one name.
    """
    listings = map_ahead(store.list_dir, paths, store.concurrency)
    places = [(i, name) for i, names in enumerate(listings) for name in _node_names(names)]

    def get(places: list[tuple[int, str]], document: str) -> Iterable[bytes | None]:
        keys = [join(paths[i], f"{name}/{document}") for i, name in places]
        return map(store.get, keys) if store.concurrency <= 1 else _get_all(store, keys)

    if zarr_format == 3:
        for (i, name), value in zip(places, get(places, "zarr.json"), strict=True):
            if value is not None:
                yield i, name, {"zarr.json": value}
            elif _is_implicit(store, join(paths[i], name)):
                yield i, name, {}
        return
    found: dict[tuple[int, str], dict[str, bytes]] = {}
    for document in (".zarray", ".zgroup"):
        rest = [place for place in places if place not in found]
        for place, value in zip(rest, get(rest, document), strict=True):
            if value is not None:
                found[place] = {document: value}
    places = sorted(found)
    if attributes:
        for place, value in zip(places, get(places, ".zattrs"), strict=True):
            if value is not None:
                found[place][".zattrs"] = value
    for i, name in places:
        yield i, name, found[i, name]


def list_kinds(store: Store, path: str, zarr_format: int) -> Iterator[tuple[str, Kind]]:
    """(name, kind) of every node directly below a group, sorted by name.

    Documents that cannot be read make a node "broken" here, and an error only when it is opened.
    """
    for _, name, found in _scan(store, [path], zarr_format, attributes=False):
        if "zarr.json" in found:
            yield name, _kind_of(found["zarr.json"])
        else:
            yield name, "array" if ".zarray" in found else "group"


def list_members(
    store: Store, paths: Sequence[str], zarr_format: int
) -> Iterator[tuple[int, str, Metadata]]:
    """(position in ``paths``, name, metadata) of every node directly below some groups.

    In the order of ``paths``, then of names.

    Raises
    ------
    MetadataError
        A document is invalid.
    """
    for i, name, found in _scan(store, paths, zarr_format, attributes=True):
        metadata = _parse_stored(found, join(paths[i], name)) if found else v3.build_group()
        if metadata is not None:
            yield i, name, metadata


def list_outcomes(
    store: Store, path: str, zarr_format: int
) -> Iterator[tuple[str, Metadata | ZarrError]]:
    """(name, metadata, or what is wrong with them) of every node directly below a group."""
    for _, name, found in _scan(store, [path], zarr_format, attributes=True):
        try:
            metadata = _parse_stored(found, join(path, name)) if found else v3.build_group()
        except ZarrError as error:
            yield name, error
        else:
            if metadata is not None:
                yield name, metadata


# ------------------------------------------------------------------------------------- writing


def encode_documents(metadata: Metadata) -> dict[str, bytes]:
    """The documents of a node, the one that makes it exist last."""
    indent = config.get("json_indent")
    if metadata.zarr_format == 3:
        return {"zarr.json": documents.dumps(metadata.document, key="zarr.json", indent=indent)}
    name = ".zarray" if isinstance(metadata, ArrayMetadata) else ".zgroup"
    return {
        ".zattrs": documents.dumps(metadata.attributes, key=".zattrs", indent=indent),
        name: documents.dumps(metadata.document, key=name, indent=indent),
    }


def write_documents(store: Store, path: str, metadata: Metadata) -> None:
    """Store the documents of a node, new or changed."""
    put_documents(store, path, encode_documents(metadata))


def put_documents(store: Store, path: str, documents: Mapping[str, bytes]) -> None:
    """Store the documents of a node, by their names."""
    for name, data in documents.items():
        store.put(join(path, name), data)


def check_writable(store: Store, path: str) -> None:
    """Raise ReadOnlyError where the store refuses writes."""
    if store.read_only:
        raise ReadOnlyError(f"cannot write {where(store, path)}: opened read-only", key=path)


def change_attributes(
    store: Store, path: str, metadata: Metadata, change: Callable[[Json], Json]
) -> Metadata:
    """Apply ``change`` to the attributes as they are stored now; returns the node's new metadata.

    The node is read anew, so that what other handles have changed meanwhile (attributes, shape) is
    kept.

    Raises
    ------
    NodeNotFoundError
        The node is gone.
    ReadOnlyError
        The store cannot be written to.
    MetadataError
        The new attributes are no JSON values.
    """
    check_writable(store, path)
    stored = read_node(store, path, metadata.zarr_format)
    if stored is None and isinstance(metadata, GroupMetadata):
        stored = read_implicit(store, path) if metadata.zarr_format == 3 else None
    if stored is None or type(stored) is not type(metadata):
        raise NodeNotFoundError(f"the node {where(store, path)} is gone", key=path)
    changed = stored.with_attributes(change(dict(stored.attributes)))
    name = "zarr.json" if changed.zarr_format == 3 else ".zattrs"
    store.put(join(path, name), encode_documents(changed)[name])
    return changed
