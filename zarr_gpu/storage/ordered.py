"""Listing a store whose keys lie in an ordered index, a page at a time.

Keys are ordered by their UTF-8 bytes, which is the order of ``sorted`` too.  Imports nothing of
ours; called by stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["AFTER_SLASH", "Page", "bounds", "children_by_page", "walk_by_page"]

AFTER_SLASH = "0"
"""The character that follows the slash: all keys below "a" lie between "a/" and "a0"."""

_NEXT = "\1"
"""What makes of a key the smallest one behind it, as none holds a NUL."""

Page = Callable[[str, str | None, int], list[str]]
"""``page(lo, hi, n)``: the first ``n`` keys with ``lo <= key < hi``; no upper bound for None."""


def bounds(prefix: str) -> tuple[str, str | None]:
    """The half-open range of the keys below ``prefix``.

    Examples
    --------
    >>> bounds("a"), bounds("")
    (('a/', 'a0'), ('', None))
    """
    return (f"{prefix}/", prefix + AFTER_SLASH) if prefix else ("", None)


def walk_by_page(page: Page, prefix: str, n: int = 10_000) -> Iterator[str]:
    """All keys below ``prefix`` in order, ``n`` in memory at a time."""
    lo, hi = bounds(prefix)
    while True:
        keys = page(lo, hi, n)
        yield from keys
        if len(keys) < n:
            return
        lo = keys[-1] + _NEXT


def children_by_page(page: Page, prefix: str, n: int = 1000) -> set[str]:
    """Distinct names directly below ``prefix``.

    Where a page ends inside a level, the rest of that level is skipped: the number of pages is
    bounded by the number of names, however many keys lie below them.
    """
    lo, hi = bounds(prefix)
    skip = len(lo)
    names: set[str] = set()
    while True:
        keys = page(lo, hi, n)
        names.update(key[skip:].partition("/")[0] for key in keys)
        if len(keys) < n:
            return names
        end = keys[-1]
        level = end[:skip] + end[skip:].partition("/")[0]
        lo = level + AFTER_SLASH if end.startswith(f"{level}/") else end + _NEXT
