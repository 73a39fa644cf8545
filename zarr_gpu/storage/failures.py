"""What the failure of a store means for its caller.

Imports ``errors``; called by ``storage/base.py`` and by stores.
"""

from __future__ import annotations

from typing import NoReturn

from zarr_gpu.errors import StoreError, ZarrError

__all__ = [
    "StoreArgumentError",
    "StoreConnectionError",
    "StorePermissionError",
    "StoreTimeoutError",
    "fail",
]


class StoreArgumentError(ZarrError, TypeError, ValueError):
    """What was given is not something that can be opened as a store."""


class StorePermissionError(StoreError, PermissionError):
    """The store refuses access to a key."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The store did not answer in time."""


class StoreConnectionError(StoreError, ConnectionError):
    """The connection to the store failed."""


def fail(verb: str, key: str, cause: BaseException) -> NoReturn:
    """Raise what ``cause`` means for the caller of a store; keeps its kind and ``errno``."""
    if isinstance(cause, ZarrError):
        if cause.key is None:
            cause.key = key or None
        raise cause
    kind: type[StoreError] = StoreError
    if isinstance(cause, PermissionError):
        kind = StorePermissionError
    elif isinstance(cause, TimeoutError):
        kind = StoreTimeoutError
    elif isinstance(cause, ConnectionError):
        kind = StoreConnectionError
    what = str(cause) or type(cause).__name__
    if not isinstance(cause, OSError):
        what = f"{type(cause).__name__}: {cause}"
    error = kind(f"cannot {verb} {key!r}: {what}", key=key)
    if isinstance(cause, OSError):
        error.errno = cause.errno
        error.strerror = cause.strerror
        error.filename = cause.filename
    raise error from cause
