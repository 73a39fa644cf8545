"""Names for the time that a read or write takes, as a profiler shows them.

``with stage("fetch"): ...`` marks the work of one stage.  It costs next to nothing until a device
says where marks go: the CUDA device sends them to NVTX, so that the stages (select, plan, locate,
fetch, decode, place, encode) appear as ranges in Nsight Systems.

Imports nothing of ours; called by every layer that does the work of a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import TracebackType
from typing import TypeVar

__all__ = ["stage", "staged", "watch"]

_NOTHING: AbstractContextManager[None] = nullcontext()

_push: Callable[[str], object] | None = None
_pop: Callable[[], object] | None = None

Function = TypeVar("Function", bound=Callable[..., object])


def watch(push: Callable[[str], object] | None, pop: Callable[[], object] | None = None) -> None:
    """Send marks there from now on: ``push(name)`` where a stage begins, ``pop()`` at its end.

    Both are called on the thread that does the work.  None: nowhere, as before the first call.
    """
    global _push, _pop
    _push, _pop = (push, pop) if push is not None and pop is not None else (None, None)


class _Stage:
    def __init__(self, name: str, push: Callable[[str], object], pop: Callable[[], object]) -> None:
        self._name, self._push, self._pop = name, push, pop

    def __enter__(self) -> None:
        self._push(self._name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pop()


def stage(name: str) -> AbstractContextManager[None]:
    """A block of work of the stage ``name``."""
    push, pop = _push, _pop
    return _NOTHING if push is None or pop is None else _Stage(name, push, pop)


def staged(name: str) -> Callable[[Function], Function]:
    """Make every call of a function work of the stage ``name``."""

    def mark(function: Function) -> Function:
        @wraps(function)
        def marked(*args: object, **named: object) -> object:
            if _push is None:
                return function(*args, **named)
            with stage(name):
                return function(*args, **named)

        return marked  # type: ignore[return-value]

    return mark
