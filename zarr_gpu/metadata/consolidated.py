"""Consolidated metadata: the documents of a whole hierarchy in one.

v2 keeps them in a document of its own, ``.zmetadata``; v3 keeps them inside the group's
``zarr.json``.  Both are read into ``path -> key relative to that node -> document``, as parsed and
not checked further: each is parsed when its node is opened.  Both are written as zarr-python does,
ordered by depth and name, so that its readers find what they expect, down to the empty
``consolidated_metadata`` of every group below.

Imports errors, documents and paths.  Called by ``v3`` and by groups.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from zarr_gpu.errors import InvalidKeyError, MetadataError, UnsupportedExtensionError
from zarr_gpu.metadata.documents import dumps, naming, show
from zarr_gpu.metadata.paths import check_path

__all__ = ["read_inline", "read_zmetadata", "write_inline", "write_zmetadata"]

Json = dict[str, Any]
Documents = dict[str, dict[str, Json]]

_V2_KEYS = frozenset([".zarray", ".zgroup", ".zattrs"])


def _checked(path: Any) -> str:
    try:
        return check_path(path)
    except InvalidKeyError as error:
        raise MetadataError(f"consolidated metadata: {error}") from error


def read_inline(value: Any) -> Documents | None:
    """``consolidated_metadata`` of a v3 group; None where there is nothing to use.

    ``null``, which old versions of zarr-python wrote, is nothing.  So is an unknown kind that
    need not be understood.

    Raises
    ------
    MetadataError
        It is malformed, or holds a path that leads out of the group.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MetadataError(f"consolidated_metadata {show(value)} is no object")
    if value.get("kind") != "inline":
        if value.get("must_understand") is False:
            return None
        raise UnsupportedExtensionError(
            f"consolidated_metadata of unknown kind {show(value.get('kind'))}"
        )
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        raise MetadataError(f"consolidated_metadata: metadata {show(metadata)} is no object")
    documents = {}
    for path, document in metadata.items():
        if not isinstance(document, dict):
            raise MetadataError(f"consolidated document of {show(path)} is no object")
        if not path:
            raise MetadataError("consolidated_metadata holds the group itself")
        documents[_checked(path)] = {"zarr.json": document}
    return documents


def read_zmetadata(document: Any, *, key: str = ".zmetadata") -> Documents:
    """The documents in a parsed ``.zmetadata``, with the group's own under ``""``.

    Other keys than those of ``.zarray``, ``.zgroup`` and ``.zattrs`` are left out.

    Raises
    ------
    MetadataError
        It is malformed, or holds a path that leads out of the group.
    """
    with naming(key):
        if not isinstance(document, dict):
            raise MetadataError(f"document {show(document)} is no JSON object")
        version = document.get("zarr_consolidated_format")
        if type(version) is not int or version != 1:
            raise MetadataError(f"zarr_consolidated_format {show(version)} is not 1")
        metadata = document.get("metadata")
        if not isinstance(metadata, dict):
            raise MetadataError(f"metadata {show(metadata)} is no object")
        documents: Documents = {}
        for full, value in metadata.items():
            path, _, name = full.rpartition("/")
            if name not in _V2_KEYS:
                continue
            if not isinstance(value, dict):
                raise MetadataError(f"consolidated document {show(full)} is no object")
            if full.startswith("/"):
                raise MetadataError(f"consolidated metadata: key {show(full)} begins with '/'")
            documents.setdefault(_checked(path), {})[name] = value
        return documents


def _sorted(documents: Mapping[str, Mapping[str, Json]]) -> list[str]:
    """Paths by depth, then by name without regard to case; the group itself is left out."""
    paths = [path for path in documents if path]
    return sorted(
        paths, key=lambda p: (p.count("/"), unicodedata.normalize("NFKC", p).casefold(), p)
    )


def write_inline(documents: Mapping[str, Mapping[str, Json]]) -> Json:
    """``consolidated_metadata`` of a v3 group, the inverse of :func:`read_inline`."""
    metadata = {path: _child(documents[path]["zarr.json"]) for path in _sorted(documents)}
    return {"kind": "inline", "must_understand": False, "metadata": metadata}


def _child(document: Json) -> Json:
    plain = {k: v for k, v in document.items() if k != "consolidated_metadata"}
    if plain.get("node_type") != "group":
        return plain
    empty = {"kind": "inline", "must_understand": False, "metadata": {}}
    child: Json = {}
    for name, value in plain.items():
        if name == "node_type":
            child["consolidated_metadata"] = empty
        child[name] = value
    return child


def write_zmetadata(
    documents: Mapping[str, Mapping[str, Json]], *, key: str = ".zmetadata"
) -> bytes:
    """The bytes of a ``.zmetadata``, the inverse of :func:`read_zmetadata`.

    ``documents`` holds the group's own documents under ``""``.  Nodes without ``.zattrs`` get an
    empty one; paths without a node are left out.
    """
    own = documents.get("", {})
    metadata: Json = {".zgroup": {"zarr_format": 2}, ".zattrs": own.get(".zattrs", {})}
    for path in _sorted(documents):
        node = documents[path]
        if ".zarray" in node:
            name, value = ".zarray", node[".zarray"]
        elif ".zgroup" in node:
            empty = {"metadata": {}, "must_understand": False, "kind": "inline"}
            name, value = ".zgroup", {"zarr_format": 2, "consolidated_metadata": empty}
        else:
            continue
        metadata[f"{path}/.zattrs"] = node.get(".zattrs", {})
        metadata[f"{path}/{name}"] = value
    return dumps({"metadata": metadata, "zarr_consolidated_format": 1}, key=key, indent=None)
