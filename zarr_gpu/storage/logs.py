"""A store that tells the log what is asked of it.

Imports ``storage.base`` and ``storage.wrapper``; ``logging`` of the standard library on first use.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.wrapper import Wrapper

if TYPE_CHECKING:
    import logging

__all__ = ["LoggingStore"]


class LoggingStore(Wrapper):
    """``store``, of which every call is logged: method, key, bytes, duration; never a value.

    Parameters
    ----------
    store
        Does the calls.
    logger
        Name of the logger of the standard library.
    level
        Level of the records; 10 is DEBUG.  Calls that fail are logged with their error.

    Examples
    --------
    >>> import logging, sys
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> logging.getLogger("example").addHandler(logging.StreamHandler(sys.stdout))
    >>> store = LoggingStore(MemoryStore({"x": b"123"}), logger="example", level=logging.WARNING)
    >>> store.get("x")  # doctest: +ELLIPSIS
    read 'x': 3 bytes in ... ms
    b'123'
    """

    def __init__(self, store: Store, *, logger: str = "zarr_gpu.store", level: int = 10) -> None:
        super().__init__(store)
        self.logger = logger
        self.level = level

    def _settings(self) -> tuple[Any, ...]:
        return self.logger, self.level

    @property
    def _log(self) -> logging.Logger:
        import logging

        return logging.getLogger(self.logger)

    @contextmanager
    def _call(self, what: str) -> Iterator[list[str]]:
        outcome = [""]
        begin = time.perf_counter()
        try:
            yield outcome
        except Exception as error:
            spent = 1e3 * (time.perf_counter() - begin)
            kind = type(error).__name__
            self._log.log(self.level, "%s: %s: %s after %.2f ms", what, kind, error, spent)
            raise
        spent = 1e3 * (time.perf_counter() - begin)
        self._log.log(self.level, "%s%s in %.2f ms", what, outcome[0], spent)

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        part = "" if (offset, nbytes) == (0, REST) else f" from {offset}"
        with self._call(f"read {key!r}{part}") as outcome:
            data = self.store.read(key, offset, nbytes)
            outcome[0] = ": absent" if data is None else f": {as_bytes_view(data).nbytes} bytes"
        return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        keys = dict.fromkeys(key for key, _, _ in spans)
        shown = ", ".join(map(repr, list(keys)[:3])) + (", ..." if len(keys) > 3 else "")
        with self._call(f"read {len(spans)} ranges of {len(keys)} keys ({shown})") as outcome:
            answer = self.store.read_spans(spans, memory)
            there = [n for n in answer[2] if n >= 0]
            outcome[0] = f": {sum(there)} bytes, {len(spans) - len(there)} absent"
        return answer

    def size(self, key: str) -> int | None:
        with self._call(f"size of {key!r}") as outcome:
            size = self.store.size(key)
            outcome[0] = ": absent" if size is None else f": {size} bytes"
        return size

    def write(self, key: str, data: memoryview) -> None:
        with self._call(f"write {key!r}: {data.nbytes} bytes"):
            self.store.write(key, data)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        with self._call(f"write {key!r} if absent: {data.nbytes} bytes") as outcome:
            stored = self.store.write_if_absent(key, data)
            outcome[0] = "" if stored else ": it is there already"
        return stored

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        self._check_writable()
        drawn = [0, 0]

        def counted() -> Iterator[tuple[str, Buffer]]:
            for key, data in items:
                check_key(key)
                drawn[0] += 1
                drawn[1] += as_bytes_view(data).nbytes
                yield key, data

        with self._call("write a batch") as outcome:
            self.store.put_many(counted())
            outcome[0] = f": {drawn[0]} values, {drawn[1]} bytes"

    def delete_many(self, keys: Iterable[str]) -> None:
        self._check_writable()
        drawn = [0]

        def counted() -> Iterator[str]:
            for key in keys:
                drawn[0] += 1
                yield check_key(key)

        with self._call("delete a batch") as outcome:
            self.store.delete_many(counted())
            outcome[0] = f": {drawn[0]} keys"

    def remove(self, key: str) -> None:
        with self._call(f"delete {key!r}"):
            self.store.remove(key)

    def walk(self, prefix: str) -> Iterator[str]:
        count = 0
        with self._call(f"list all below {prefix!r}") as outcome:
            for key in self.store.walk(prefix):
                count += 1
                yield key
            outcome[0] = f": {count} keys"

    def children(self, prefix: str) -> Iterable[str]:
        with self._call(f"list {prefix!r}") as outcome:
            names = list(self.store.children(prefix))
            outcome[0] = f": {len(names)} names"
        return names

    def remove_prefix(self, prefix: str) -> None:
        with self._call(f"delete all below {prefix!r}"):
            self.store.remove_prefix(prefix)

    def rename_prefix(self, source: str, target: str) -> None:
        with self._call(f"move {source!r} to {target!r}"):
            self.store.rename_prefix(source, target)
