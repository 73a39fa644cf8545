"""Which strings are store keys.

A key names one stored value: segments joined by "/", no leading slash.  Keys come from metadata,
from user paths and from files written by others, so every public method of every store checks them
here before anything is touched.  Imports only ``errors``.

``check_keys`` stands on the hot path of reading: it tests all keys of a batch with a handful of
substring searches over their concatenation and looks at single keys only where one of these hits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zarr_gpu.errors import InvalidKeyError

__all__ = ["MAX_KEY_BYTES", "check_key", "check_keys", "check_prefix", "parent_prefixes"]

MAX_KEY_BYTES = 1024
"""Longest key in UTF-8 bytes: what the common object stores allow."""

_PLAIN = re.compile(r"\.?[A-Za-z0-9_\-]+(?:(?:/\.?|\.)[A-Za-z0-9_\-]+)*")
"""Nearly all keys, and valid ones only."""

_DRIVE = re.compile(r"[A-Za-z]:(/|$)")


def check_key(key: str) -> str:
    """Return ``key`` unchanged.

    Raises
    ------
    InvalidKeyError
        ``key`` is empty, absolute or over-long, has an empty, "." or ".." segment (also
        percent-encoded), a backslash, a NUL, a drive letter or an unpaired surrogate.
    """
    if not isinstance(key, str):
        raise InvalidKeyError(f"a store key must be a string, not {type(key).__name__}")
    if key.isascii() and len(key) <= MAX_KEY_BYTES and _PLAIN.fullmatch(key):
        return key
    fault = _fault(key)
    if fault is not None:
        shown = key if len(key) <= 200 else key[:200] + "..."
        raise InvalidKeyError(f"store key {shown!r} {fault}", key=shown)
    return key


def check_keys(keys: Sequence[str]) -> None:
    """Check many keys, at a small fraction of a microsecond each.  Raises as ``check_key``."""
    try:
        text = "\n".join(keys)
    except TypeError:
        for key in keys:
            check_key(key)
        raise
    text = f"\n{text}\n"
    # Whatever makes a key invalid leaves a mark in this text.
    if (
        not text.isascii()
        or "./" in text
        or ".\n" in text
        or "//" in text
        or "\n/" in text
        or "/\n" in text
        or "\n\n" in text
        or "\\" in text
        or "\0" in text
        or ":" in text
        or "%" in text
        or max(map(len, keys), default=0) > MAX_KEY_BYTES
    ):
        for key in keys:
            check_key(key)


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` without trailing slash; "" stands for the whole store.

    Prefixes are whole segments: "a" covers "a/b" and neither "a" nor "ab/c".
    """
    if not isinstance(prefix, str):
        raise InvalidKeyError(f"a store prefix must be a string, not {type(prefix).__name__}")
    if prefix == "":
        return prefix
    prefix = prefix.removesuffix("/")
    return check_key(prefix)


def parent_prefixes(key: str) -> list[str]:
    """Every proper prefix of ``key``, the longest first: "a/b/c" gives ["a/b", "a"]."""
    segments = key.split("/")[:-1]
    return ["/".join(segments[:i]) for i in range(len(segments), 0, -1)]


def _fault(key: str) -> str | None:
    if not key:
        return "is empty"
    if "\0" in key:
        return "contains a NUL"
    if "\\" in key:
        return "contains a backslash"
    if key.startswith("/"):
        return "is absolute"
    segments = key.split("/")
    if "" in segments:
        return "has an empty segment"
    if "." in segments or ".." in segments:
        return "has a '.' or '..' segment and could leave the store"
    if _DRIVE.match(key):
        return "starts with a drive letter"
    if "%" in key:
        # A server, or a path made from a URL, may decode the key once more.
        from urllib.parse import unquote

        decoded = re.split(r"[/\\]", unquote(key))
        if "." in decoded or ".." in decoded:
            return "has a percent-encoded '.' or '..' segment and could leave the store"
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if length > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    return None
