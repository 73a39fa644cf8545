"""Node paths: what users write, made into the path that keys are built from.

Imports errors only.  Called by everything that takes a path, and for the paths in consolidated
metadata.
"""

from __future__ import annotations

import re

from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.fill_values import show

__all__ = ["check_path", "normalize_path"]

_RESERVED = frozenset(["zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"])

_PLAIN = re.compile(r"\.?[A-Za-z0-9_\-]+(?:(?:/\.?|\.)[A-Za-z0-9_\-]+)*")
"""Nearly all paths, and canonical ones only."""


def normalize_path(
    path: str | None, *, creating: bool = False, zarr_format: int | None = None
) -> str:
    r"""The canonical form of a node path: "" for the root, else names joined by "/".

    Backslashes count as slashes, repeated ones as one, those at either end as none.

    Parameters
    ----------
    path
        None is the root.
    creating
        Refuse names too that no new node may have: those of metadata documents, those of dots
        only and, except in v2, those that begin with ``__``.
    zarr_format
        Version of the node to create; None for the rules of v3.

    Raises
    ------
    InvalidKeyError
        The path holds ``.`` or ``..``, a NUL or half a surrogate pair, or a reserved name.

    Examples
    --------
    >>> normalize_path(r"/a\b//c/")
    'a/b/c'
    """
    if path is None:
        return ""
    if not isinstance(path, str):
        raise InvalidKeyError(f"path {show(path)} is no string")
    if not creating and _PLAIN.fullmatch(path):
        return path
    names = [name for name in path.replace("\\", "/").split("/") if name]
    for name in names:
        _check_name(name, path)
        if creating:
            _check_new_name(name, path, zarr_format)
    return "/".join(names)


def check_path(path: str) -> str:
    """``path`` itself where it is canonical already, as paths in documents must be."""
    if path != normalize_path(path):
        raise InvalidKeyError(f"path {show(path)} is not in canonical form")
    return path


def _check_name(name: str, path: str) -> None:
    if name in (".", ".."):
        raise InvalidKeyError(f"path {show(path)} holds the name {name!r}")
    if "\0" in name:
        raise InvalidKeyError(f"path {show(path)} holds a NUL character")
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InvalidKeyError(f"path {show(path)} holds a lone surrogate") from error


def _check_new_name(name: str, path: str, zarr_format: int | None) -> None:
    if name in _RESERVED:
        raise InvalidKeyError(f"path {show(path)}: the name {name!r} is that of a document")
    if not name.strip("."):
        raise InvalidKeyError(f"path {show(path)}: the name {name!r} is of dots only")
    if zarr_format != 2 and name.startswith("__"):
        raise InvalidKeyError(f"path {show(path)}: names that begin with '__' are reserved")
