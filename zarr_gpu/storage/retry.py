"""A store that tries again what failed for a passing reason.

Imports ``storage.base``, ``storage.failures`` and ``storage.wrapper``.
"""

# ruff: noqa: BLE001  whatever goes wrong is looked at, and raised unless it may pass

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from zarr_gpu.errors import InvalidKeyError, StoreError, ZarrError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.wrapper import Wrapper

__all__ = ["RetryStore", "is_transient"]

T = TypeVar("T")

_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_PASSING_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


def is_transient(error: BaseException) -> bool:
    """Whether what failed may succeed when tried again.

    So are time-outs, failed connections, the system errors of either, and errors that carry an
    HTTP status 408, 425, 429, 500, 502, 503 or 504 as ``status``, ``status_code`` or ``code``; also
    where one of these is the cause of a ``StoreError``.
    """
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    for name in ("status", "status_code", "code"):
        status = getattr(error, name, None)
        if isinstance(status, int) and status in _PASSING_STATUS:
            return True
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNO:
        return True
    cause = error.__cause__
    return isinstance(error, StoreError) and cause is not None and is_transient(cause)


class RetryStore(Wrapper):
    """``store``, of which calls that fail for a passing reason are made again.

    Parameters
    ----------
    store
        Does the calls.
    attempts
        How often a call is made at most.
    delay
        Seconds before the second attempt; doubled for each further one, and then shortened by a
        random part of up to a half, lest many clients come back at once.
    most_delay
        No wait is longer than these seconds.
    transient
        Tells passing failures from lasting ones, which are raised at once; by default
        :func:`is_transient`.

    Ranges are first read together, as ``store`` does it; if that fails, one by one.  After the last
    attempt the error tells how many there were.

    Attributes
    ----------
    retries
        How many calls were made again.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> from zarr_gpu.storage.wrappers import FaultyStore
    >>> unsteady = FaultyStore(MemoryStore({"x": b"1"}), TimeoutError("late"), nth=1)
    >>> RetryStore(unsteady, delay=0.001).get("x")
    b'1'
    """

    def __init__(
        self,
        store: Store,
        *,
        attempts: int = 10,
        delay: float = 0.05,
        most_delay: float = 2.0,
        transient: Callable[[BaseException], bool] = is_transient,
    ) -> None:
        if attempts < 1 or delay < 0 or most_delay < 0:
            raise InvalidKeyError("there is at least one attempt, and no negative delay")
        super().__init__(store)
        self.attempts = attempts
        self.delay = delay
        self.most_delay = most_delay
        self.transient = transient
        self.retries = 0

    def _settings(self) -> tuple[Any, ...]:
        return self.attempts, self.delay, self.most_delay, self.transient

    def _wait(self, attempt: int, verb: str, key: str, error: Exception) -> None:
        """Wait before the next attempt, or raise ``error`` where there is none."""
        if not self.transient(error):
            raise error
        if attempt >= self.attempts:
            if isinstance(error, ZarrError):
                error.add_note(f"in {self.attempts} attempts")
                raise error
            fail(f"{verb}, in {self.attempts} attempts,", key, error)
        with self._lock:
            self.retries += 1
        wait = min(self.delay * 2.0 ** (attempt - 1), self.most_delay)
        time.sleep(wait * (1 - random.random() / 2))  # noqa: S311  no secrets here

    def _try(self, verb: str, key: str, call: Callable[[], T]) -> T:
        attempt = 1
        while True:
            try:
                return call()
            except Exception as error:
                self._wait(attempt, verb, key, error)
            attempt += 1

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        return self._try("read", key, lambda: self.store.read(key, offset, nbytes))

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        try:
            return self.store.read_spans(spans, memory)
        except Exception as error:
            self._wait(1 if self.attempts > 1 else 2, "read", spans[0][0] if spans else "", error)
        return Store.read_spans(self, spans, memory)

    def size(self, key: str) -> int | None:
        return self._try("get the size of", key, lambda: self.store.size(key))

    def write(self, key: str, data: memoryview) -> None:
        self._try("write", key, lambda: self.store.write(key, data))

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        attempt = 1
        while True:
            try:
                stored = self.store.write_if_absent(key, data)
            except Exception as error:
                self._wait(attempt, "write", key, error)
            else:
                # An attempt that seemed to fail may have stored it after all.
                return stored or (attempt > 1 and self.read(key, 0, REST) == data)
            attempt += 1

    def remove(self, key: str) -> None:
        self._try("delete", key, lambda: self.store.remove(key))

    def walk(self, prefix: str) -> Iterator[str]:
        attempt, last = 1, ""
        while True:
            try:
                for key in self.store.walk(prefix):
                    if key > last:  # keys come sorted: go on where the listing broke off
                        yield key
                        last, attempt = key, 1
            except Exception as error:
                self._wait(attempt, "list", prefix, error)
            else:
                return
            attempt += 1

    def children(self, prefix: str) -> Iterable[str]:
        return self._try("list", prefix, lambda: list(self.store.children(prefix)))

    def remove_prefix(self, prefix: str) -> None:
        self._try("delete", prefix, lambda: self.store.remove_prefix(prefix))

    def rename_prefix(self, source: str, target: str) -> None:
        def rename() -> None:
            # An attempt that seemed to fail may have moved all there was.
            if next(iter(self.store.walk(source)), None) is not None:
                self.store.rename_prefix(source, target)

        self._try("move", source, rename)
