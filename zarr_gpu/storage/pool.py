"""Threads shared by all stores whose requests are worth having in flight together.

Pools are made on first use, one for each degree of concurrency, and made anew in a forked child.
Imports nothing of ours; called by ``storage/base.py``.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["map_ahead"]

T = TypeVar("T")
R = TypeVar("R")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def _forget_pools() -> None:
    # The threads of the parent do not exist in a forked child, and its lock may have been held.
    global _lock
    _pools.clear()
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


def _pool(workers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    with _lock:
        pool = _pools.get(workers)
        if pool is None:
            pool = _pools[workers] = ThreadPoolExecutor(workers, "zarr_gpu-store")
        return pool


def map_ahead(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results of ``function`` in the order of ``items``, up to ``2 * workers`` calls ahead.

    With one worker the calls are plain calls on the caller's thread.  ``items`` is drawn no further
    than the calls are ahead.  After an error or an interrupt, calls that have not begun never do.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    pool = _pool(workers)
    ahead: deque[Future[R]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) >= 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()
