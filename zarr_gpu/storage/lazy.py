"""What a store holds open: made on first use, and made anew in a forked child.

A connection, and most libraries' handles, must not be used on both sides of a ``fork``, nor closed
in the child.  Imports nothing of ours; called by stores.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

__all__ = ["OnePerProcess"]

T = TypeVar("T")

_living: WeakValueDictionary[int, OnePerProcess[Any]] = WeakValueDictionary()
_inherited: list[object] = []
"""What the parent had open: kept, so that nothing of it is ever closed here."""


class OnePerProcess(Generic[T]):
    """One thing for each process that asks for it.

    Parameters
    ----------
    make
        Makes the thing; called under a lock.  It must not refer to the holder's owner, or that
        lives until the next run of the garbage collector.
    close
        Gives it back; called at most once for each thing, in the process that made it.

    Examples
    --------
    >>> made = OnePerProcess(lambda: [1], list.clear)
    >>> made.get() is made.get()
    True
    >>> made.close()
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], object]) -> None:
        self._make = make
        self._close = close
        self._made: tuple[T] | None = None
        self._lock = threading.Lock()
        _living[id(self)] = self

    def get(self) -> T:
        """The thing, made where there is none yet."""
        made = self._made
        if made is None:
            with self._lock:
                made = self._made
                if made is None:
                    made = self._made = (self._make(),)
        return made[0]

    def close(self) -> None:
        """Give the thing back, if there is one; ``get`` makes another."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            self._close(made[0])

    def forget(self) -> None:
        """Leave the thing to the parent process."""
        if self._made is not None:
            _inherited.append(self._made)
            self._made = None
        self._lock = threading.Lock()  # a thread of the parent may have held the old one

    def __del__(self) -> None:
        if getattr(self, "_made", None) is not None:
            with contextlib.suppress(Exception):
                self.close()


def _forget_all() -> None:
    for holder in list(_living.values()):
        holder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
