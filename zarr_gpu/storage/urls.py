"""URLs of stores: options that a store knows, and the path of a node behind "#".

Imports ``errors`` and ``storage.keys``; called by stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.storage.keys import check_prefix

__all__ = ["Parsers", "flag", "natural", "options_of", "seconds", "split_fragment", "take_query"]

Parsers = Mapping[str, Callable[[Any], Any]]
"""What each option of a store must be: called with a value as given, or with text of a URL."""


def split_fragment(url: str) -> tuple[str, str]:
    """``"scheme://place#a/b"`` -> ``("scheme://place", "a/b")``.

    Raises
    ------
    InvalidKeyError
        The path behind "#" is malformed.
    """
    from urllib.parse import unquote

    bare, _, path = url.partition("#")
    return bare, check_prefix(unquote(path))


def take_query(url: str, names: Parsers) -> tuple[str, dict[str, str]]:
    """The URL without those parts of its query that are options of ours, and these.

    Examples
    --------
    >>> take_query("redis://host/0?prefix=a&ssl=1", {"prefix": str})
    ('redis://host/0?ssl=1', {'prefix': 'a'})
    """
    from urllib.parse import parse_qsl

    bare, mark, query = url.partition("?")
    if not mark:
        return url, {}
    ours: dict[str, str] = {}
    others = []
    for part in query.split("&"):
        for name, value in parse_qsl(part, keep_blank_values=True):
            if name in names:
                ours[name] = value
            else:
                others.append(part)
    return (f"{bare}?{'&'.join(others)}" if others else bare), ours


def options_of(what: str, known: Parsers, *given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options checked; of several mappings the last counts.

    Raises
    ------
    InvalidKeyError
        An option is unknown, or its value malformed.
    """
    result: dict[str, Any] = {}
    for options in given:
        for name, value in (options or {}).items():
            if name not in known:
                raise InvalidKeyError(
                    f"{what} has no option {name!r}: known are {', '.join(sorted(known))}"
                )
            try:
                result[name] = known[name](value)
            except (TypeError, ValueError) as cause:
                raise InvalidKeyError(
                    f"option {name!r} of {what} cannot be {value!r:.80}: {cause}"
                ) from cause
    return result


def flag(value: Any) -> bool:
    """True or False, also as text."""
    if isinstance(value, bool):
        return value
    found = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
        str(value).lower()
    )
    if found is None:
        raise ValueError("it must be true or false")
    return found


def seconds(value: Any) -> float:
    """A positive number of seconds."""
    number = float(value)
    if not 0 < number < 1e9:
        raise ValueError("it must be a positive number of seconds")
    return number


def natural(value: Any) -> int:
    """A positive whole number."""
    number = int(value)
    if number < 1 or number != float(value):
        raise ValueError("it must be a whole number from 1")
    return number
