"""Values in this process: a dict of bytes, or any mapping a user brings.

Imports ``errors``, ``extents`` and ``storage.base``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.errors import StoreError
from zarr_gpu.extents import MISSING, REST, Files
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view

__all__ = ["MemoryStore", "named_memory"]

_ABSENT: Any = object()

_named: dict[str, MutableMapping[str, Any]] = {}
_named_lock = threading.Lock()


class MemoryStore(Store):
    """Values in a mapping from key to bytes.

    Parameters
    ----------
    store_dict
        Any mapping of ``str`` to bytes-like values; changed in place.  A fresh dict by default.
        A mapping that cannot be changed makes the store read-only.  Of a user's mapping, a
        ``KeyError`` means that the key is absent; every other exception is a failure.
    read_only
        Refuse writes.

    Values are stored as ``bytes``.  Pickling copies the contents.
    """

    def __init__(
        self, store_dict: Mapping[str, Any] | None = None, *, read_only: bool = False
    ) -> None:
        self._items: Mapping[str, Any] = {} if store_dict is None else store_dict
        self._name: str | None = None
        self.supports_writes = isinstance(self._items, MutableMapping)
        self.read_only = read_only or not self.supports_writes

    @property
    def items(self) -> Mapping[str, Any]:
        """The mapping itself."""
        return self._items

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        try:
            value = self._items[key]
        except KeyError:
            return None
        if offset == 0 and nbytes == REST and type(value) is bytes:
            return value
        view = as_bytes_view(value)
        return view[offset:] if nbytes == REST else view[offset : offset + nbytes]

    def files(self) -> Files | None:
        items = self._items
        if type(self) is not MemoryStore or type(items) is not dict:
            return None  # whoever reads in another way wants to be asked
        return Files(values=lambda keys: _addresses(items, keys))

    def size(self, key: str) -> int | None:
        try:
            value = self._items[key]
        except KeyError:
            return None
        return len(value) if type(value) is bytes else as_bytes_view(value).nbytes

    def write(self, key: str, data: memoryview) -> None:
        self._items[key] = bytes(data)  # type: ignore[index]

    def remove(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            del self._items[key]  # type: ignore[attr-defined]

    def walk(self, prefix: str) -> Iterator[str]:
        start = f"{prefix}/" if prefix else ""
        # list() of a dict is one step under the interpreter lock: others may write meanwhile.
        return iter(
            sorted(key for key in list(self._items) if type(key) is str and key.startswith(start))
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryStore):
            return NotImplemented
        if self.read_only != other.read_only:
            return False
        if self._items is other._items:
            return True
        try:
            return _same(self._items, other._items)
        except StoreError:  # what is not bytes is not compared
            return False

    def __hash__(self) -> int:
        return hash(MemoryStore)  # equality is by contents, which change

    def __repr__(self) -> str:
        if self._name is not None:
            return f"MemoryStore(<memory://{self._name}>)"
        return f"MemoryStore(<{type(self._items).__name__} at {id(self._items):#x}>)"

    def __reduce__(self) -> tuple[Any, ...]:
        items = dict(self._items) if type(self._items) is dict else self._items
        return _rebuild, (items, self.read_only, self._name)


def _addresses(items: dict[str, Any], keys: list[str]) -> tuple[list[tuple[int, int]], Any]:
    """(address, nbytes) of values, and what keeps them where they are."""
    views: list[npt.NDArray[np.uint8]] = []
    places: list[tuple[int, int]] = []
    for key in keys:
        value = items.get(key, _ABSENT)
        if value is _ABSENT:
            places.append((0, MISSING))
        elif type(value) is not bytes:
            places.append((0, REST))  # anything else may change or move
        elif value:
            view = np.frombuffer(value, np.uint8)
            views.append(view)
            places.append((view.__array_interface__["data"][0], len(value)))
        else:
            places.append((0, 0))
    return places, views


def _same(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    if one.keys() != two.keys():
        return False
    return all(as_bytes_view(one[key]) == as_bytes_view(two[key]) for key in one)


def named_memory(
    name: str, *, read_only: bool = False, items: MutableMapping[str, Any] | None = None
) -> MemoryStore:
    """The store behind ``memory://name``: one for the whole process, made on first use.

    Parameters
    ----------
    items
        Contents where the name is new to this process (used when unpickling).
    """
    with _named_lock:
        found = _named.setdefault(name, {} if items is None else items)
    store = MemoryStore(found, read_only=read_only)
    store._name = name  # noqa: SLF001  made here
    return store


def _rebuild(items: MutableMapping[str, Any], read_only: bool, name: str | None) -> MemoryStore:
    if name is not None:
        return named_memory(name, read_only=read_only, items=items)
    return MemoryStore(items, read_only=read_only)
