"""Values in an LMDB database: a memory-mapped file with transactions.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers, ``storage.lmdb_environment``;
``lmdb`` on first use.
"""

# Plain system calls, as in the store of plain files.
# ruff: noqa: PTH103, PTH113, PTH118

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, gather
from zarr_gpu.storage.batches import BatchStore, blocks
from zarr_gpu.storage.failures import StorePermissionError, fail
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.lazy import OnePerProcess
from zarr_gpu.storage.lmdb_environment import acquire, release
from zarr_gpu.storage.ordered import bounds, children_by_page, walk_by_page
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.urls import Parsers, flag, natural, options_of, split_fragment, take_query

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LmdbStore", "open_url"]

T = TypeVar("T")

BLOCK_NBYTES = 64 << 20
BLOCK_ITEMS = 100_000
"""A larger batch is several transactions."""

MAP_NBYTES = 1 << 30 if os.name == "nt" else 1 << 40
"""Address space, not disk space, save on Windows, where the file has this size at once."""

_HEAD = 470
"""LMDB's keys have at most 511 bytes: of a longer one this head is kept, and a digest."""

_OPTIONS: Parsers = {"map_size": natural, "durable": flag}


def open_url(
    url: str, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
) -> tuple[LmdbStore, str]:
    """The store at ``lmdb:///absolute/path#node``; options: ``map_size``, ``durable``."""
    from urllib.parse import unquote

    bare, path = split_fragment(url)
    bare, query = take_query(bare, _OPTIONS)
    host, slash, place = bare.partition("://")[2].partition("/")
    if host not in {"", "localhost"} or not slash or "?" in place:
        raise InvalidKeyError(f"{url!r} is no file: write lmdb:///absolute/path?map_size=...")
    options = options_of("an LMDB store", _OPTIONS, query, storage_options)
    return LmdbStore(f"/{unquote(place)}", read_only=read_only, **options), path


class LmdbStore(BatchStore):
    """Values in the LMDB database at ``path``.

    Parameters
    ----------
    path
        A folder that holds, or will hold, ``data.mdb``; or a database in one existing file.
    read_only
        Refuse writes; the database must be there.
    map_size
        The most bytes that the database may have before its map is enlarged, which happens by
        itself; by default 1 TiB of address space.
    durable
        Force the very last transaction to disk too, before it is acknowledged.  Without it
        transactions survive the death of the process, and a crash of the machine may undo the
        newest one.

    ``put_many`` is one transaction for each 64 MiB.  A batch of reads is one transaction without a
    system call: values go from the map straight to the buffer of the caller.

    Databases of zarr-python 2's ``LMDBStore`` are read and written.  Keys longer than LMDB allows
    (511 bytes) are kept in the value.  Network file systems are not for LMDB.

    Raises
    ------
    MissingDependencyError
        The package ``lmdb`` is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        map_size: int = MAP_NBYTES,
        durable: bool = False,
    ) -> None:
        try:
            import lmdb
        except ImportError as cause:
            raise MissingDependencyError(
                "LMDB needs a package: pip install 'zarr-gpu[lmdb]'"
            ) from cause
        del lmdb  # imported to know that it is there
        self._path = os.path.realpath(os.fspath(path))
        self.read_only = read_only
        self.map_size = map_size
        self.durable = durable
        self._start()

    def _start(self) -> None:
        settings = (self._path, self.read_only, self.map_size, self.durable)
        self._environment = OnePerProcess(partial(acquire, *settings), release)

    @property
    def path(self) -> Path:
        """The folder or file."""
        from pathlib import Path

        return Path(self._path)

    # ---- transactions --------------------------------------------------------------------------

    def _there(self) -> bool:
        """Whether there is a database to read."""
        if os.path.isfile(self._path) or os.path.isfile(os.path.join(self._path, "data.mdb")):
            return True
        if self.read_only:
            raise StoreError(f"{self!r}: there is no such database")
        return False

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        import lmdb

        try:
            with self._environment.get().transaction(write=False) as transaction:
                yield transaction
        except (lmdb.Error, OSError) as cause:
            if isinstance(cause, StoreError):
                raise
            raise self._error(cause) from cause

    def _change(self, work: Callable[[Any], T]) -> T:
        """``work`` in a transaction, again with a larger map where the present one is full."""
        import lmdb

        if not os.path.exists(self._path):  # noqa: PTH110
            os.makedirs(self._path, exist_ok=True)
        environment = self._environment.get()
        while True:
            try:
                with environment.transaction(write=True) as transaction:
                    return work(transaction)
            except lmdb.MapFullError:
                environment.grow()
            except lmdb.Error as cause:
                raise self._error(cause) from cause

    def _error(self, cause: Exception) -> StoreError:
        import lmdb

        denied = isinstance(cause, lmdb.ReadonlyError | PermissionError)
        kind = StorePermissionError if denied or "ermission" in str(cause) else StoreError
        return kind(f"{self!r}: {cause}")

    # ---- reading -------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        if not self._there():
            return None
        with self._reading() as transaction:
            view = _find(transaction, key)
            return None if view is None else bytes(_cut(view, offset, nbytes))

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        key, offset, nbytes = spans[0]
        try:
            if not self._there():
                return gather([None] * len(spans), memory)
            with self._reading() as transaction:
                views = []
                for key, offset, nbytes in spans:
                    view = _find(transaction, key)
                    views.append(None if view is None else _cut(view, offset, nbytes))
                return gather(views, memory)
        except StoreError as cause:
            fail("read", key, cause)

    def size(self, key: str) -> int | None:
        if not self._there():
            return None
        with self._reading() as transaction:
            view = _find(transaction, key)
            return None if view is None else view.nbytes

    def _page(self, lo: str, hi: str | None, n: int) -> list[str]:
        with self._reading() as transaction:
            found = _keys(transaction, lo.encode(), None if hi is None else hi.encode(), n)
        return [key.decode() for key in found]

    def walk(self, prefix: str) -> Iterator[str]:
        return walk_by_page(self._page, prefix) if self._there() else iter(())

    def children(self, prefix: str) -> Iterable[str]:
        return children_by_page(self._page, prefix, 100) if self._there() else ()

    # ---- writing -------------------------------------------------------------------------------

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        """Store values, up to 64 MiB in one transaction."""
        self._check_writable()
        for block in blocks(items, nbytes=BLOCK_NBYTES, count=BLOCK_ITEMS):
            self._put_block(dict(block))

    def _put_block(self, block: dict[str, bytes]) -> None:
        now = next(iter(block))

        def put(transaction: Any) -> None:
            nonlocal now
            for now in sorted(block):  # neighbours share pages
                _put(transaction, now, block[now])

        try:
            self._change(put)
        except Exception as cause:  # noqa: BLE001  whatever it was becomes an error with the key
            fail("write", now, cause)

    def write(self, key: str, data: memoryview) -> None:
        self._change(lambda transaction: _put(transaction, key, data))

    def remove_many(self, keys: list[str]) -> None:
        """Remove keys in one transaction."""

        def delete(transaction: Any) -> None:
            for key in keys:
                if _find(transaction, key) is not None:
                    transaction.delete(_stored(key)[0])

        if self._there():
            self._change(delete)

    def rename_prefix(self, source: str, target: str) -> None:
        """Give keys another prefix in one transaction."""
        lo, hi = bounds(source)

        def rename(transaction: Any) -> None:
            end = None if hi is None else hi.encode()
            for found in _keys(transaction, lo.encode(), end, None):
                key = found.decode()
                value = bytes(_find(transaction, key) or b"")
                transaction.delete(_stored(key)[0])
                _put(transaction, target + key[len(source) :], value)

        self._change(rename)

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the database, as soon as no store and no array of this process uses it."""
        self._environment.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_environment"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LmdbStore):
            return NotImplemented
        return self._path == other._path and self.read_only == other.read_only

    def __hash__(self) -> int:
        return hash((LmdbStore, self._path))

    def __repr__(self) -> str:
        return f"LmdbStore({self._path!r})"


# ------------------------------------------------------------------------------- keys and values


def _stored(key: str) -> tuple[bytes, bytes]:
    """What stands for a key in LMDB, and what begins its value then."""
    name = key.encode()
    if len(name) <= 511:
        return name, b""
    # No text in UTF-8 has a byte 255.
    digest = hashlib.sha256(name).digest()
    return name[:_HEAD] + b"\xff" + digest, len(name).to_bytes(2, "big") + name


def _find(transaction: Any, key: str) -> memoryview | None:
    """The value in the map, valid until the transaction ends."""
    name, header = _stored(key)
    view = transaction.get(name)
    if view is None:
        return None
    value = memoryview(view)
    if not header:
        return value
    return value[len(header) :] if value[: len(header)] == header else None


def _put(transaction: Any, key: str, data: bytes | memoryview) -> None:
    name, header = _stored(key)
    transaction.put(name, b"".join((header, data)) if header else data)


def _cut(view: memoryview, offset: int, nbytes: int) -> memoryview:
    return view[offset:] if nbytes == REST else view[offset : offset + nbytes]


def _keys(transaction: Any, lo: bytes, hi: bytes | None, n: int | None) -> list[bytes]:
    """At least ``n`` keys from ``lo`` up to but without ``hi``, all for None, in order."""
    found: list[bytes] = []
    alike: list[bytes] = []  # keys with one long head: their digests have another order
    head = None

    def settle() -> None:
        found.extend(sorted(k for k in alike if lo <= k and (hi is None or k < hi)))
        alike.clear()

    cursor = transaction.cursor()
    start = lo[:_HEAD]
    if not (cursor.set_range(start) if start else cursor.first()):
        return []
    for stored, value in cursor:
        name = bytes(stored)
        if name[:_HEAD] != head:
            settle()
            head = name[:_HEAD]
            if (n is not None and len(found) >= n) or (hi is not None and head >= hi):
                return found
        if len(name) > _HEAD and name[_HEAD] == 255:
            name = bytes(value[2 : 2 + int.from_bytes(value[:2], "big")])
        if _is_key(name):
            alike.append(name)
    settle()
    return found


def _is_key(name: bytes) -> bool:
    """Names of others, such as databases inside the database, are no keys."""
    try:
        check_key(name.decode())
    except (UnicodeDecodeError, InvalidKeyError):
        return False
    return True
