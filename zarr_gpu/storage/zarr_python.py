"""Store objects written for zarr-python: its own, icechunk's, VirtualiZarr's, anybody's.

Their methods are coroutines.  One event loop on a thread of its own runs them for the whole
process; many ranges are one call into it.  zarr-python is never imported here: where such an object
exists it is loaded already, and its types of byte ranges and buffers are taken from there.

An event loop does not survive a fork, nor do the threads of libraries below a store.  A forked
child has a loop of its own and uses stores of memory and files as before; fsspec's are made anew;
all others are refused there, as their calls could wait for ever.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; ``asyncio`` on first use.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from zarr_gpu.errors import StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view, gather
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.spans import Span

__all__ = ["ZarrPythonStore", "adapt"]

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_METHODS = ("get", "set", "delete", "list_prefix", "list_dir", "exists", "supports_listing")
_SURVIVE_FORKS = {"LocalStore", "MemoryStore", "ManagedMemoryStore"}


class ZarrPythonStore(Store):
    """A store object of zarr-python 3.

    Parameters
    ----------
    store
        An instance of ``zarr.abc.store.Store``.
    read_only
        Refuse writes, whatever the store itself allows.
    concurrency
        Requests in flight at once.
    """

    max_gap = 64 << 10

    def __init__(self, store: Any, *, read_only: bool = False, concurrency: int = 32) -> None:
        self._store = store
        self._pid = os.getpid()
        self.concurrency = concurrency
        self.supports_listing = bool(store.supports_listing)
        self.supports_writes = bool(store.supports_writes)
        self.read_only = bool(read_only or store.read_only or not self.supports_writes)

    @property
    def store(self) -> Any:
        """The store object, fit for this process.

        Raises
        ------
        StoreError
            This process was forked from the one that opened it, and it is of a kind that waits for
            threads it left behind.
        """
        if self._pid != os.getpid():
            self._store = _after_fork(self._store)
            self._pid = os.getpid()
        return self._store

    # ---- reading -------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        found: Buffer | None = _run(self._read(self.store, key, offset, nbytes))
        return found

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if len(spans) == 1:
            return super().read_spans(spans, memory)
        store = self.store

        async def one(span: Span) -> memoryview | Exception | None:
            key, offset, nbytes = span
            try:
                if nbytes == 0:
                    return memoryview(b"") if await store.exists(key) else None
                data = await self._read(store, key, offset, nbytes)
                if data is None:
                    return None
                return self.check_length(as_bytes_view(data), key, offset, nbytes)
            except Exception as error:  # noqa: BLE001  raised below, with the key
                return error

        values: list[memoryview | None] = []
        for span, answer in zip(spans, _run(_all(one, spans, self.concurrency)), strict=True):
            if isinstance(answer, Exception):
                fail("read", span[0], answer)
            values.append(answer)
        return gather(values, memory)

    @staticmethod
    async def _read(store: Any, key: str, offset: int, nbytes: int) -> Buffer | None:
        types = _types(store)
        wanted = None
        if offset < 0:
            wanted = types.suffix(-offset)
        elif nbytes != REST:
            wanted = types.range(offset, offset + nbytes)
        elif offset:
            wanted = types.offset(offset)
        try:
            found = await store.get(key, types.prototype, wanted)
        except _ABSENT:
            return None
        except Exception:
            # Some refuse ranges that begin or end past the end of a value.
            total = None if wanted is None else await ZarrPythonStore._size(store, key)
            start = max(offset + (total or 0), 0) if offset < 0 else offset
            if total is None or (offset >= 0 and start + max(nbytes, 0) <= total > start):
                raise
            if start >= total:
                return b""
            found = await store.get(key, types.prototype, types.range(start, total))
        if offset < 0 and found is not None and len(found) < -offset:
            # All of a value that is shorter; MemoryStore answers with less.
            found = await store.get(key, types.prototype)
        data: Buffer | None = None if found is None else found.as_numpy_array()
        return data

    def size(self, key: str) -> int | None:
        found: int | None = _run(self._size(self.store, key))
        return found

    @staticmethod
    async def _size(store: Any, key: str) -> int | None:
        try:
            return int(await store.getsize(key))
        except (*_ABSENT, KeyError):
            return None

    # ---- writing -------------------------------------------------------------------------------

    def write(self, key: str, data: memoryview) -> None:
        store = self.store
        value = _types(store).prototype.buffer.from_bytes(bytes(data))
        _run(store.set(key, value))

    def remove(self, key: str) -> None:
        _run(_delete(self.store, key))

    def remove_prefix(self, prefix: str) -> None:
        store, keys = self.store, list(self.walk(prefix))
        if prefix and keys:
            _run(store.delete_dir(prefix))
            return
        _run(_all(lambda key: _delete(store, key), keys, self.concurrency))

    # ---- listing -------------------------------------------------------------------------------

    def walk(self, prefix: str) -> Iterator[str]:
        below = f"{prefix}/" if prefix else ""
        keys = _run(_listed(self.store.list_prefix, below))
        return iter(sorted({key for key in keys if key.startswith(below)}))

    def children(self, prefix: str) -> Iterable[str]:
        names = _run(_listed(self.store.list_dir, prefix))
        return {name.rstrip("/") for name in names} - {""}

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        if self._pid == os.getpid():
            self._store.close()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ZarrPythonStore):
            return NotImplemented
        return bool(self._store == other._store) and self.read_only == other.read_only

    def __hash__(self) -> int:
        return hash((ZarrPythonStore, type(self._store)))

    def __repr__(self) -> str:
        return f"ZarrPythonStore({self._store!r})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pid = os.getpid()


def adapt(store: Any, *, read_only: bool = False) -> Store | None:
    """A store object of zarr-python's kind as a store of ours; None where it is another thing."""
    if all(hasattr(store, name) for name in _METHODS):
        return ZarrPythonStore(store, read_only=read_only)
    return None


async def _delete(store: Any, key: str) -> None:
    try:
        await store.delete(key)
    except (*_ABSENT, KeyError):
        return


async def _listed(listing: Callable[[str], Any], prefix: str) -> list[str]:
    try:
        names = listing(prefix)  # some need the running loop already here
        if not hasattr(names, "__aiter__"):
            names = await names
        return [name async for name in names]
    except _ABSENT:
        return []


async def _all(
    work: Callable[[Any], Coroutine[Any, Any, Any]], items: list[Any], concurrency: int
) -> list[Any]:
    """Results in the order of ``items``; so many coroutines take turns with them."""
    import asyncio

    results: list[Any] = [None] * len(items)
    left = iter(enumerate(items))

    async def worker() -> None:
        for i, item in left:
            results[i] = await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(items))):
            group.create_task(worker())
    return results


class _Types:
    """What zarr-python calls ranges and buffers, from where a store's class comes from."""

    def __init__(self, package: str) -> None:
        abc = sys.modules[f"{package}.abc.store"]
        self.range = abc.RangeByteRequest
        self.offset = abc.OffsetByteRequest
        self.suffix = abc.SuffixByteRequest
        self.prototype = sys.modules[f"{package}.core.buffer.cpu"].buffer_prototype


_known_types: dict[str, _Types] = {}


def _types(store: Any) -> _Types:
    home = next(
        (c.__module__ for c in type(store).__mro__ if c.__module__.endswith(".abc.store")), ""
    )
    package = home.removesuffix(".abc.store") or "zarr"
    try:
        return _known_types.setdefault(package, _known_types.get(package) or _Types(package))
    except (KeyError, AttributeError) as cause:
        raise StoreError(
            f"{type(store).__name__} is no store of zarr-python 3: its package has no byte ranges"
        ) from cause


def _after_fork(store: Any) -> Any:
    import pickle

    inner = store
    while hasattr(inner, "_store") and type(inner).__module__.startswith("zarr."):
        inner = inner._store  # noqa: SLF001  zarr-python's wrappers hold it there
    kind = type(inner)
    if kind.__module__.startswith("zarr.") and kind.__name__ in _SURVIVE_FORKS:
        return store
    if kind.__module__.startswith("zarr.") and kind.__name__ == "FsspecStore":
        return pickle.loads(pickle.dumps(store))  # noqa: S301  made in the line itself
    raise StoreError(
        f"{kind.__name__} was opened before this process was forked: open it in the child, or "
        "start processes by spawn or forkserver"
    )


# ----------------------------------------------------------------------------------- loop

_loop: Any = None
_lock = threading.Lock()


def _forget_loop() -> None:
    # Its thread does not exist in a forked child, and the lock may have been held.
    global _loop, _lock
    _loop = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loop)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, run on the loop of this process."""
    import asyncio

    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=_loop.run_forever, name="zarr_gpu-zarr-python", daemon=True
            )
            thread.start()
    future = asyncio.run_coroutine_threadsafe(work, _loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
