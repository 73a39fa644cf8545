"""The user attributes of a node: a mapping of strings to JSON values that writes through.

Made by ``Array.attrs`` and ``Group.attrs`` at every access; it holds no values of its own but asks
its node for them, so two handles on one object never disagree.  Imports metadata.documents and
errors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from zarr_gpu.errors import MetadataError
from zarr_gpu.metadata.documents import MAX_NEW_DEPTH

__all__ = ["Attributes", "plain_attributes"]


def _check_value(value: Any, where: str, depth: int) -> Any:
    """``value`` made of JSON types alone; numpy scalars and arrays become equal plain values."""
    if depth > MAX_NEW_DEPTH:
        raise MetadataError(f"attribute {where}: nested deeper than {MAX_NEW_DEPTH} levels")
    if value is None or isinstance(value, (str, bool)):
        if isinstance(value, str):
            _check_text(value, where)
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (np.generic, np.ndarray)):
        plain = value.tolist()
        if isinstance(value, np.generic) and type(plain) is type(value):  # longdouble, void
            raise MetadataError(f"attribute {where}: {value.dtype} is no JSON value")
        return _check_value(plain, where, depth)
    if isinstance(value, Mapping):
        checked = {}
        for name, item in value.items():
            if not isinstance(name, str):
                raise MetadataError(f"attribute {where}: the key {name!r} must be a string")
            _check_text(name, where)
            checked[str(name)] = _check_value(item, f"{where}.{name}", depth + 1)
        return checked
    if isinstance(value, (list, tuple)):
        return [_check_value(item, where, depth + 1) for item in value]
    raise MetadataError(
        f"attribute {where}: {type(value).__name__} is no JSON value: {value!r:.80}"
    )


def _check_text(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MetadataError(f"attribute {where!r}: not valid Unicode text") from error


def plain_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of ``attributes`` that a metadata document can hold unchanged.

    Tuples become lists and numpy scalars and arrays plain values, as JSON has no others.

    Raises
    ------
    MetadataError
        A key is no string, or a value is nothing that JSON knows.
    """
    if attributes is None:
        return {}
    if not isinstance(attributes, Mapping):
        raise MetadataError(f"attributes must be a mapping, got {type(attributes).__name__}")
    checked = {}
    for name, value in attributes.items():
        if not isinstance(name, str):
            raise MetadataError(f"the name of an attribute must be a string, got {name!r}")
        _check_text(name, name)
        checked[str(name)] = _check_value(value, name, 1)
    return checked


class Attributes(MutableMapping[str, Any]):
    """Attributes of an array or group; every change is stored at once.

    Parameters
    ----------
    read
        Gives the attributes as they are known to the node.
    write
        Takes a change: a function from the stored attributes to the new ones.  The node applies
        it to what is stored at that moment, so that a change made through another handle is kept.

    Examples
    --------
    >>> import zarr_gpu
    >>> group = zarr_gpu.create_group({})
    >>> group.attrs["unit"] = "nm"
    >>> group.attrs.update(author="Ada", axes=["z", "y", "x"])
    >>> dict(group.attrs)
    {'unit': 'nm', 'author': 'Ada', 'axes': ['z', 'y', 'x']}
    """

    __slots__ = ("_read", "_write")

    def __init__(
        self,
        read: Callable[[], Mapping[str, Any]],
        write: Callable[[Callable[[dict[str, Any]], dict[str, Any]]], None],
    ) -> None:
        self._read = read
        self._write = write

    def __getitem__(self, name: str) -> Any:
        value = self._read()[name]
        # A caller who changes a list in place must not change what the node believes is stored.
        return copy.deepcopy(value) if isinstance(value, (dict, list)) else value

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __delitem__(self, name: str) -> None:
        def remove(stored: dict[str, Any]) -> dict[str, Any]:
            if name not in stored:
                raise KeyError(name)
            return {key: value for key, value in stored.items() if key != name}

        self._write(remove)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._read()))

    def __len__(self) -> int:
        return len(self._read())

    def __contains__(self, name: object) -> bool:
        return name in self._read()

    def update(self, *mappings: Any, **named: Any) -> None:
        """Change several attributes in one write."""
        new: dict[str, Any] = {}
        new.update(*mappings, **named)
        checked = plain_attributes(new)
        self._write(lambda stored: {**stored, **checked})

    def put(self, attributes: Mapping[str, Any]) -> None:
        """Replace all attributes in one write."""
        checked = plain_attributes(attributes)
        self._write(lambda _: checked)

    def clear(self) -> None:
        """Remove all attributes in one write."""
        self.put({})

    def asdict(self) -> dict[str, Any]:
        """A copy of all attributes."""
        return copy.deepcopy(dict(self._read()))

    def __repr__(self) -> str:
        return f"Attributes({dict(self._read())!r})"
