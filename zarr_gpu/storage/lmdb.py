"""Values in an LMDB database: a memory-mapped file with transactions.

LMDB allows one open environment per file and process, and none may cross a fork, not even to be
closed in the child: that would end transactions of the parent.  So the stores of a process share
environments, and before a fork these are closed; parent and child open them when next needed.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; ``lmdb`` on first use.
"""

# Plain system calls, as in the store of plain files.
# ruff: noqa: PTH103, PTH112, PTH113, PTH118

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view, gather
from zarr_gpu.storage.failures import StorePermissionError, StoreTimeoutError, fail
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.lazy import OnePerProcess
from zarr_gpu.storage.ordered import bounds, children_by_page, walk_by_page
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.urls import Parsers, flag, natural, options_of, split_fragment, take_query

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LmdbStore", "open_url"]

T = TypeVar("T")

BLOCK_NBYTES = 64 << 20
"""A larger batch is several transactions."""

MAP_NBYTES = 1 << 30 if os.name == "nt" else 1 << 40
"""Address space, not disk space, save on Windows, where the file has this size at once."""

WAIT_SECONDS = 10
"""How long enlarging the map, or a fork, waits for transactions of this process."""

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


class LmdbStore(Store):
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
        self._environment = OnePerProcess(partial(_acquire, *settings), _release)

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
        block: dict[str, bytes] = {}
        nbytes = 0
        for key, data in items:
            check_key(key)
            try:
                value = data if type(data) is bytes else bytes(as_bytes_view(data))
            except StoreError as cause:
                fail("write", key, cause)
            if block and nbytes + len(value) > BLOCK_NBYTES:
                self._put_block(block)
                block, nbytes = {}, 0
            block[key] = value
            nbytes += len(value)
        if block:
            self._put_block(block)

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

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove keys in one transaction."""
        self._check_writable()
        names = [check_key(key) for key in keys]
        if names:
            try:
                self._delete_names(names)
            except Exception as cause:  # noqa: BLE001  see above
                fail("delete", names[0], cause)

    def _delete_names(self, keys: Iterable[str]) -> None:
        def delete(transaction: Any) -> None:
            for key in keys:
                if _find(transaction, key) is not None:
                    transaction.delete(_stored(key)[0])

        if self._there():
            self._change(delete)

    def remove(self, key: str) -> None:
        self._delete_names([key])

    def remove_prefix(self, prefix: str) -> None:
        self._delete_names(list(self.walk(prefix)))

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


# ----------------------------------------------------------------- environments of this process


class _Environment:
    """An open database, with count of its stores and of its transactions.

    The map can only be enlarged, and the database closed, while there is no transaction.
    """

    def __init__(self, path: str, read_only: bool, map_size: int, durable: bool) -> None:
        folder = path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH120
        # Opened for writing where possible, as a store that writes may come later.
        self._read_only = read_only and not os.access(folder, os.W_OK)
        self._map_size = map_size
        self._durable = durable
        self.path = path
        self.users = 0
        self._opened: Any = None
        self._active = 0
        self._paused = False
        self._change = threading.Condition()

    def _enter(self) -> Any:
        """The environment, which stays as it is until ``_leave``."""
        with self._change:
            if not self._change.wait_for(lambda: not self._paused, WAIT_SECONDS):
                raise StoreTimeoutError(f"LmdbStore({self.path!r}): the map is being enlarged")
            if self._opened is None:
                self._opened = self._open()
            self._active += 1
            return self._opened

    def _open(self) -> Any:
        import lmdb

        return lmdb.open(
            self.path,
            map_size=self._map_size,
            subdir=not os.path.isfile(self.path),
            readonly=self._read_only,
            lock=not self._read_only,
            create=not self._read_only,
            metasync=self._durable,
            max_readers=1024,
            meminit=False,
        )

    def _leave(self) -> None:
        with self._change:
            self._active -= 1
            self._change.notify_all()
        if self.users == 0:
            _close_unused(self)

    def _pause(self) -> bool:
        """Wait until there is no transaction; keep new ones waiting until ``resume``."""
        self._paused = True
        return self._change.wait_for(lambda: self._active == 0, WAIT_SECONDS)

    def close(self, *, only_unused: bool) -> bool:
        """Close the database, if nobody uses it; it is opened again when needed."""
        with self._change:
            if self._active or (only_unused and self.users):
                return False
            if self._opened is not None:
                self._opened.close()
                self._opened = None
        return True

    def close_for_fork(self) -> None:
        with self._change:
            if self._pause():
                self.close(only_unused=False)

    def resume(self) -> None:
        with self._change:
            self._paused = False
            self._change.notify_all()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Any]:
        """A transaction; an error undoes what it wrote."""
        import lmdb

        readers_full = 0
        while True:
            environment = self._enter()
            try:
                begun = environment.begin(write=write, buffers=True)
            except lmdb.ReadersFullError:
                environment.reader_check()  # forget those of dead processes
                self._leave()
                readers_full += 1
                if readers_full > 1:
                    raise
                continue
            except lmdb.MapResizedError:  # another process enlarged it
                self._leave()
                self.resize(0)
                continue
            except BaseException:
                self._leave()
                raise
            break
        try:
            with begun as transaction:
                yield transaction
        finally:
            self._leave()

    def grow(self) -> None:
        """Double the map."""
        environment = self._enter()
        try:
            nbytes = 2 * environment.info()["map_size"]
        finally:
            self._leave()
        self.resize(nbytes)

    def resize(self, nbytes: int) -> None:
        """Give the map a size; 0 for the one that another process gave it."""
        with self._change:
            try:
                if not self._pause():
                    raise StoreTimeoutError(
                        f"LmdbStore({self.path!r}): the map cannot be enlarged while a "
                        "transaction goes on: open the store with a larger map_size"
                    )
                if self._opened is not None:
                    self._opened.set_mapsize(nbytes)
                self._map_size = max(self._map_size, nbytes)
            finally:
                self._paused = False
                self._change.notify_all()


class _Registry:
    """The databases of a process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a store may be collected at any moment
        self.known: dict[str, _Environment] = {}


_registry = _Registry()
_inherited: list[_Registry] = []


def _acquire(path: str, read_only: bool, map_size: int, durable: bool) -> _Environment:
    registry = _registry
    with registry.lock:
        found = registry.known.get(path)
        if found is None:
            found = _Environment(path, read_only, map_size, durable)
            registry.known[path] = found
        found.users += 1
        return found


def _release(environment: _Environment) -> None:
    with _registry.lock:
        environment.users -= 1
    _close_unused(environment)


def _close_unused(environment: _Environment) -> None:
    """Until it is closed a database stays known, so that it is not opened a second time."""
    registry = _registry
    with registry.lock:
        known = registry.known.get(environment.path) is environment
        if known and environment.close(only_unused=True):
            del registry.known[environment.path]


def _before_fork() -> None:
    _registry.lock.acquire()
    for environment in _registry.known.values():
        environment.close_for_fork()


def _after_fork_in_parent() -> None:
    for environment in _registry.known.values():
        environment.resume()
    _registry.lock.release()


def _after_fork_in_child() -> None:
    global _registry
    _inherited.append(_registry)  # so that nothing of it is ever closed here
    _registry = _Registry()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
