"""The open LMDB databases of this process.

LMDB allows one open environment per file and process, and none may cross a fork, not even to be
closed in the child: that would end transactions of the parent.  So the stores of a process share
environments, and before a fork these are closed; parent and child open them when next needed.

Imports ``storage.failures``; ``lmdb`` on first use; called by ``storage/lmdb.py``.
"""

# Plain system calls, as in the store of plain files.
# ruff: noqa: PTH112, PTH113

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from zarr_gpu.storage.failures import StoreTimeoutError

__all__ = ["Environment", "acquire", "release"]

WAIT_SECONDS = 10
"""How long enlarging the map, or a fork, waits for transactions of this process."""


class Environment:
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
        self.known: dict[str, Environment] = {}


_registry = _Registry()
_inherited: list[_Registry] = []


def acquire(path: str, read_only: bool, map_size: int, durable: bool) -> Environment:
    """The database at ``path``, for one more store; settings count for the first."""
    registry = _registry
    with registry.lock:
        found = registry.known.get(path)
        if found is None:
            found = Environment(path, read_only, map_size, durable)
            registry.known[path] = found
        found.users += 1
        return found


def release(environment: Environment) -> None:
    """One store less: the last one closes the database."""
    with _registry.lock:
        environment.users -= 1
    _close_unused(environment)


def _close_unused(environment: Environment) -> None:
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
