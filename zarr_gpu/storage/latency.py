"""A store that answers late, as a distant one does.

Imports ``storage.base`` and ``storage.wrapper``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.extents import Memory
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.wrapper import Wrapper

__all__ = ["LatencyStore"]


class LatencyStore(Wrapper):
    """``store``, of which every request takes its time.

    The calling thread really sleeps, so that requests in flight together overlap as they would on
    a network.  Every byte range is a request of its own.

    Parameters
    ----------
    store
        Answers the requests.
    latency
        Seconds of every request.
    per_byte
        Seconds for every byte of a value that is read or written.
    concurrency
        Requests to have in flight at once; by default what ``store`` declares.

    Attributes
    ----------
    requests
        How many there were.
    peak
        How many were in flight at once at most.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> store = LatencyStore(MemoryStore({"x": b"1"}), 0.001)
    >>> store.get("x"), store.requests, store.peak
    (b'1', 1, 1)
    """

    def __init__(
        self,
        store: Store,
        latency: float,
        *,
        per_byte: float = 0.0,
        concurrency: int | None = None,
    ) -> None:
        if latency < 0 or per_byte < 0:
            raise InvalidKeyError("latencies are seconds, not negative")
        super().__init__(store)
        self.latency = latency
        self.per_byte = per_byte
        if concurrency is not None:
            self.concurrency = concurrency
        self.requests = 0
        self.peak = 0
        self._in_flight = 0

    def _settings(self) -> tuple[Any, ...]:
        return self.latency, self.per_byte, self.concurrency

    @contextmanager
    def _request(self) -> Iterator[None]:
        with self._lock:
            self.requests += 1
            self._in_flight += 1
            self.peak = max(self.peak, self._in_flight)
        try:
            time.sleep(self.latency)
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def _renew(self) -> None:
        super()._renew()
        self._in_flight = 0

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        with self._request():
            data = self.store.read(key, offset, nbytes)
            if data is not None and self.per_byte:
                time.sleep(self.per_byte * as_bytes_view(data).nbytes)
            return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        return Store.read_spans(self, spans, memory)

    def size(self, key: str) -> int | None:
        with self._request():
            return self.store.size(key)

    def write(self, key: str, data: memoryview) -> None:
        with self._request():
            if self.per_byte:
                time.sleep(self.per_byte * data.nbytes)
            self.store.write(key, data)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        with self._request():
            if self.per_byte:
                time.sleep(self.per_byte * data.nbytes)
            return self.store.write_if_absent(key, data)

    def remove(self, key: str) -> None:
        with self._request():
            self.store.remove(key)

    def walk(self, prefix: str) -> Iterator[str]:
        with self._request():
            return self.store.walk(prefix)

    def children(self, prefix: str) -> Iterable[str]:
        with self._request():
            return self.store.children(prefix)

    def remove_prefix(self, prefix: str) -> None:
        with self._request():
            self.store.remove_prefix(prefix)

    def rename_prefix(self, source: str, target: str) -> None:
        with self._request():
            self.store.rename_prefix(source, target)
