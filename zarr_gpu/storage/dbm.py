"""Read-only: values in the file of a ``dbm`` database, as zarr-python 2's ``DBMStore`` wrote them.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; ``dbm`` on first use.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zarr_gpu.errors import InvalidKeyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.lazy import OnePerProcess
from zarr_gpu.storage.urls import options_of, split_fragment

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DbmStore", "open_url"]


def open_url(
    url: str,
    *,
    read_only: bool = True,  # noqa: ARG001  it always is
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[DbmStore, str]:
    """The store at ``dbm:///absolute/path#node``, which is read-only."""
    from urllib.parse import unquote

    bare, path = split_fragment(url)
    options_of("a dbm store", {}, storage_options)
    host, slash, place = bare.partition("://")[2].partition("/")
    if host not in {"", "localhost"} or not slash:
        raise InvalidKeyError(f"{url!r} is no file: write dbm:///absolute/path")
    return DbmStore(f"/{unquote(place)}"), path


class DbmStore(Store):
    """Values in a database of any of the kinds that Python's ``dbm`` reads.

    Parameters
    ----------
    path
        As it was given to ``dbm.open``: of some kinds without the ending of the file.

    Listing goes through all keys.
    """

    supports_writes = False
    read_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(os.fspath(path))  # noqa: PTH100
        self._start()
        self._database()  # complain now, not at the first read

    def _start(self) -> None:
        self._lock = threading.Lock()
        # Some kinds belong to the thread that opened them.
        self._handles: OnePerProcess[Any] = OnePerProcess(threading.local, _close)

    @property
    def path(self) -> Path:
        """As given."""
        from pathlib import Path

        return Path(self._path)

    def _database(self) -> Any:
        import dbm

        handles = self._handles.get()
        found = getattr(handles, "database", None)
        if found is None:
            try:
                found = handles.database = dbm.open(self._path, "r")  # noqa: SIM115  kept open
            except dbm.error as cause:
                raise StoreError(f"{self!r} cannot be opened: {cause}") from cause
        return found

    def _value(self, key: str) -> bytes | None:
        database = self._database()
        with self._lock:
            try:
                return bytes(database[key.encode()])
            except KeyError:
                return None

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        value = self._value(key)
        if value is None:
            return None
        return value[offset:] if nbytes == REST else value[offset : offset + nbytes]

    def size(self, key: str) -> int | None:
        value = self._value(key)
        return None if value is None else len(value)

    def walk(self, prefix: str) -> Iterator[str]:
        start = f"{prefix}/" if prefix else ""
        database = self._database()
        with self._lock:
            names = list(database.keys())
        found = []
        for name in names:
            try:
                key = check_key(name.decode())
            except (UnicodeDecodeError, InvalidKeyError):
                continue  # somebody else's
            if key.startswith(start):
                found.append(key)
        return iter(sorted(found))

    def close(self) -> None:
        """Close the file as this thread opened it."""
        self._handles.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DbmStore) and self._path == other._path

    def __hash__(self) -> int:
        return hash((DbmStore, self._path))

    def __repr__(self) -> str:
        return f"DbmStore({self._path!r})"


def _close(handles: Any) -> None:
    database = getattr(handles, "database", None)
    if database is not None:
        database.close()
