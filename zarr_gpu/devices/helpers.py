"""Helper threads of the CPU device.

A call that has work for several threads (:func:`together`) does it on its own thread at once, and
says so in a queue: helpers that are free join in.  The call ends when its own part and those of
helpers that have begun have ended; a helper that comes too late finds nothing to do.  Handing over
costs a few microseconds that way, and the caller never waits for a helper to wake up.  Work of
another kind, that need not be done at once, is begun beside the caller's (:func:`begin`).

Imports config; used by the CPU device, and for what goes on beside coding.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from zarr_gpu.config import usable_threads

__all__ = ["begin", "together"]


class _Team:
    """Those who work on one call."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._active = 0
        self._closed = False
        self._idle: threading.Lock | None = None
        self.errors: list[BaseException] = []

    def help(self) -> None:
        """A helper's part."""
        with self._lock:
            if self._closed:
                return
            self._active += 1
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  raised by the caller's thread
            self.errors.append(error)
        finally:
            with self._lock:
                self._active -= 1
                if self._idle is not None and not self._active:
                    self._idle.release()

    def close(self) -> None:
        """Let nobody join any more; return when those who did have ended."""
        with self._lock:
            self._closed = True
            if not self._active:
                return
            self._idle = threading.Lock()
            self._idle.acquire()
        self._idle.acquire()  # released by the last helper


class _Task:
    """Work for one thread, whoever is first to take it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._taken = False
        self._done = threading.Event()
        self._error: BaseException | None = None

    def help(self) -> None:
        """Do the work, unless somebody does."""
        with self._lock:
            if self._taken:
                return
            self._taken = True
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  raised by whoever waits
            self._error = error
        finally:
            self._done.set()

    def finish(self) -> None:
        """Return when the work is done; raises what it raised, at every call."""
        self.help()
        self._done.wait()
        if self._error is not None:
            raise self._error


_calls: SimpleQueue[_Team | _Task] = SimpleQueue()
_nthreads = 0
_lock = threading.Lock()


def _forget() -> None:
    # The threads of the parent do not exist in a forked child.
    global _calls, _nthreads, _lock
    _calls, _nthreads, _lock = SimpleQueue(), 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _serve(calls: SimpleQueue[_Team | _Task]) -> None:
    while True:
        calls.get().help()


def _start(count: int) -> None:
    global _nthreads
    with _lock:
        while _nthreads < count:
            _nthreads += 1
            name = f"zarr_gpu-lane-{_nthreads}"
            # Daemons: they hold nothing, and must not keep the process alive.
            threading.Thread(target=_serve, args=(_calls,), name=name, daemon=True).start()


def together(work: Callable[[], None], threads: int) -> None:
    """Call ``work`` on this thread and on up to ``threads - 1`` helpers, at the same time.

    Raises what the call on this thread raised, else the first error of a helper.
    """
    helpers = threads - 1
    if helpers <= 0:
        work()
        return
    if _nthreads < helpers:
        _start(helpers)
    team = _Team(work)
    for _ in range(helpers):
        _calls.put(team)
    try:
        work()
    finally:
        team.close()
    if team.errors:
        raise team.errors[0]


def begin(work: Callable[[], None]) -> Callable[[], None]:
    """Have a helper do ``work``; what is returned waits for its end, and raises what it raised.

    If no helper has begun by then, whoever waits does the work.
    """
    task = _Task(work)
    if usable_threads() > 1:
        if not _nthreads:
            _start(1)
        _calls.put(task)
    return task.finish
