"""JSON documents: bytes to plain Python values and back.

Reading refuses what could not be written back unchanged or could harm the reader, always as a
:class:`~zarr_gpu.errors.MetadataError` that names the key: more than ``MAX_NBYTES`` bytes, more
than ``MAX_DEPTH`` levels, duplicate keys, and text that is not UTF-8.  Read as they are: a byte
order mark in front (skipped), the bare words NaN and Infinity (zarr-python writes them in
attributes), and escaped lone surrogates (kept, and escaped again on writing).

Writing has the layout of zarr-python: indented by two, keys in their order, ASCII only.

Imports errors and fill_values (``show``).  Called by the other modules of metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

import numpy as np

from zarr_gpu.errors import MetadataError, ZarrError
from zarr_gpu.fill_values import show

__all__ = [
    "MAX_DEPTH",
    "MAX_NBYTES",
    "MAX_NEW_DEPTH",
    "check_json",
    "dumps",
    "loads",
    "naming",
    "plain_copy",
    "show",
]

MAX_NBYTES = 64 << 20
"""Longest document that is read."""

MAX_DEPTH = 200
"""Most levels of lists and objects in a document that is read."""

MAX_NEW_DEPTH = 128
"""Most levels in attributes that are written: consolidation adds some."""

_SCALARS = (str, int, float, type(None))  # a bool is an int
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = rb'"[^"]*"'
_BOM = b"\xef\xbb\xbf"


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Give errors from inside the key of the document that they are about."""
    try:
        yield
    except ZarrError as error:
        if error.key is None:
            error.key = key
        raise
    except RecursionError as error:
        raise MetadataError(f"document {key!r} is nested too deeply", key=key) from error


def loads(data: bytes | bytearray | memoryview, *, key: str) -> dict[str, Any]:
    """Parse the document stored under ``key``, which must be a JSON object.

    Raises
    ------
    MetadataError
        The document is too long, too deep, not JSON or not an object.

    Examples
    --------
    >>> loads(b'{"zarr_format": 2}', key=".zgroup")
    {'zarr_format': 2}
    """
    data = bytes(data)
    if len(data) > MAX_NBYTES:
        raise MetadataError(
            f"document {key!r} is too long", key=key, expected=MAX_NBYTES, actual=len(data)
        )
    if _depth(data) > MAX_DEPTH:
        raise MetadataError(f"document {key!r} is nested deeper than {MAX_DEPTH} levels", key=key)
    try:
        value = _decoder.decode(str(data.removeprefix(_BOM), "utf-8"))
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"document {key!r} is not valid JSON: {error}", key=key) from error
    if not isinstance(value, dict):
        raise MetadataError(f"document {key!r} is no JSON object but {show(value)}", key=key)
    return value


def _depth(data: bytes) -> int:
    """Levels of nesting; exact only where it can matter."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return 0
    if b"\\" in data:
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    # Most strings are empty by now.  Two quotes that end one string and begin the next may go too:
    # what remains is one string.
    structure = data.translate(None, _NO_STRUCTURE).replace(b'""', b"")
    if b'"' in structure:
        structure = re.sub(_STRING, b"", structure)
    marks = np.frombuffer(structure, np.uint8)
    up = (marks == ord("[")) | (marks == ord("{"))
    down = (marks == ord("]")) | (marks == ord("}"))
    return int(np.cumsum(up.astype(np.int64) - down).max(initial=0))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = [k for k, _ in pairs if k in seen or seen.add(k)]  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {show(twice[0])}")
    return result


_decoder = json.JSONDecoder(
    object_pairs_hook=_object
)  # making one costs more than a small document


def dumps(document: Mapping[str, Any], *, key: str, indent: int | None = 2) -> bytes:
    r"""The bytes of a document, as zarr-python lays them out.

    Raises
    ------
    MetadataError
        A value cannot be written as JSON.

    Examples
    --------
    >>> dumps({"zarr_format": 2}, key=".zgroup")
    b'{\n  "zarr_format": 2\n}'
    """
    try:
        if indent:
            with suppress(_Unusual):
                return _indented(document, "\n", " " * indent).encode()
        return json.dumps(document, indent=indent).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(f"document {key!r} cannot be written: {error}", key=key) from error


class _Unusual(Exception):  # noqa: N818  no error
    """A value of another type than those that parsing yields."""


def _indented(value: Any, start: str, indent: str) -> str:
    """As ``json.dumps`` with an indentation, which takes much longer.

    ``start`` is a line break and the indentation of the line that ``value`` stands on.
    """
    kind = type(value)
    if kind is str:
        return _quote(value)
    if kind is int:
        return repr(value)
    if kind is dict:
        if not value:
            return "{}"
        below = start + indent
        parts = []
        for key, item in value.items():
            if type(key) is not str:
                raise _Unusual
            parts.append(f"{_quote(key)}: {_indented(item, below, indent)}")
        return f"{{{below}{f',{below}'.join(parts)}{start}}}"
    if kind is list:
        if not value:
            return "[]"
        below = start + indent
        parts = [_indented(item, below, indent) for item in value]
        return f"[{below}{f',{below}'.join(parts)}{start}]"
    if value is None or kind is bool or kind is float:
        return json.dumps(value) if kind is float else _WORDS[value]
    raise _Unusual


_WORDS = {None: "null", True: "true", False: "false"}


def check_json(value: Any, what: str) -> None:
    """Refuse values that JSON would change or cannot hold; ``what`` names them in the error.

    Keys of objects must be strings.  Tuples pass: they are written as lists.
    """
    stack: list[tuple[Any, tuple[Any, ...]]] = [(value, ())]
    while stack:
        item, path = stack.pop()
        if len(path) > MAX_NEW_DEPTH:
            raise MetadataError(f"{what} is nested deeper than {MAX_NEW_DEPTH} levels")
        if isinstance(item, dict):
            for key, child in item.items():
                if not isinstance(key, str):
                    where = _where(what, path)
                    raise MetadataError(f"{where} has the key {show(key)}, which is no string")
                if not isinstance(child, _SCALARS):
                    stack.append((child, (*path, key)))
        elif isinstance(item, (list, tuple)):
            stack.extend(
                (child, (*path, i))
                for i, child in enumerate(item)
                if not isinstance(child, _SCALARS)
            )
        elif not isinstance(item, _SCALARS):
            raise MetadataError(
                f"{_where(what, path)} is a {type(item).__name__}, which JSON cannot hold: "
                "convert it first"
            )


def _where(what: str, path: tuple[Any, ...]) -> str:
    return what + "".join(f"[{show(step)}]" for step in path)


def plain_copy(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What a reader will get back from ``value``: a copy with lists in place of tuples.

    Raises
    ------
    MetadataError
        JSON would change the value otherwise, or cannot hold it.
    """
    check_json(value, what)
    try:
        copy: dict[str, Any] = json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(f"{what} cannot be written as JSON: {error}") from error
    return copy
