"""Trying again what may pass: with growing pauses, and not for ever.

Imports nothing of ours; called by stores whose library does not do it itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PASSING_STATUS", "pause", "retrying"]

T = TypeVar("T")

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be others the next time."""

BUDGET = 60.0
"""Seconds after which nothing is tried again."""


def pause(attempt: int, *, first: float = 0.1, most: float = 2.0) -> float:
    """Seconds to wait after the failure of an attempt, counted from 0; varied by half."""
    return min(most, first * float(2**attempt)) * (0.5 + random.random() / 2)  # noqa: S311  no secret


def retrying(call: Callable[[], T], *, retries: int, passing: Callable[[Exception], bool]) -> T:
    """The result of ``call``, tried again up to ``retries`` times after errors that may pass.

    An error that knows how long to wait says so, in seconds, by an attribute ``retry_after``.
    """
    began = time.monotonic()
    for attempt in range(retries):
        try:
            return call()
        except Exception as error:
            wait = min(getattr(error, "retry_after", None) or pause(attempt), 10.0)
            if not passing(error) or time.monotonic() - began + wait > BUDGET:
                raise
        time.sleep(wait)
    return call()
