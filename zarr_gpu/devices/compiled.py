"""Loops that Numba compiles for the host: whether they shall be used, loading them, what they call.

Loading them (extra ``fast``) costs some tenths of a second: :func:`wanted` tells when that pays.  C
functions are called by their addresses, of which :func:`addresses` makes the table for one thread
and one codec.

Imports config, native codecs and ``compiling``; used by ``host_rows``, ``host_write``,
``staged_files`` and devices.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.native import Decoder
from zarr_gpu.config import config
from zarr_gpu.devices.compiling import compiled_beside
from zarr_gpu.errors import MissingDependencyError

__all__ = [
    "addresses",
    "can_write",
    "load",
    "load_files",
    "prepare",
    "ready",
    "system",
    "wanted",
]

I64 = npt.NDArray[np.int64]

PAYS_AFTER = 4096
"""Rows that Python reads before the loops are loaded: by then that is about to pay."""

_rows_so_far = 0
_loops: Loops | None = None
_lock = threading.Lock()


def wanted(rows: int) -> bool:
    """Whether a read of so many rows should take the compiled loop (setting ``cpu.compiled``).

    With "auto", once enough rows were read: the loops are loaded then.  Where they were never
    compiled, another process begins to do so, and Python goes on reading until it has ended.
    """
    global _rows_so_far
    setting = config.get("cpu.compiled")
    if setting is False or not _supported():
        return False
    if setting is True or _loops is not None:
        return True
    _rows_so_far += rows
    if _rows_so_far <= PAYS_AFTER or not _installed() or not compiled_beside():
        return False
    return _load_or_give_up()


def ready() -> bool:
    """Whether the loop is at hand, or shall be used from the first row on."""
    setting = config.get("cpu.compiled")
    return setting is not False and (setting is True or _loops is not None) and _supported()


def prepare() -> None:
    """Load the loop now, unless it cannot or shall not be used."""
    if config.get("cpu.compiled") is not False and _supported() and _installed():
        load()


def _load_or_give_up() -> bool:
    global _found
    try:
        load()
    except Exception as error:  # noqa: BLE001  Numba may be broken in many ways
        import logging

        # Not an error: everything can be read without.
        logging.getLogger("zarr_gpu").warning("no compiled reading on the CPU: %s", error)
        _found = False
    return _found is not False


def _supported() -> bool:
    return os.name == "posix" and sys.maxsize > 2**32


_found: bool | None = None


def _installed() -> bool:
    global _found
    if _found is None:
        _found = find_spec("numba") is not None
    return _found


class Loops(NamedTuple):
    """The loops of the CPU device."""

    read_rows: Callable[..., int]  # of any plan
    read_box: Callable[..., int]
    write_box: Callable[..., int]


def load() -> Loops:
    """Load the loops, if they are not loaded.

    Raises
    ------
    MissingDependencyError
        Numba is not installed.
    """
    global _loops
    if _loops is None:
        with _lock:
            try:
                from zarr_gpu.kernels import host_box, host_rows, host_write
            except ImportError as cause:
                raise MissingDependencyError(
                    "compiled reading on the CPU needs Numba: pip install 'zarr-gpu[fast]'"
                ) from cause
            _loops = Loops(host_rows.read_rows, host_box.read_box, host_write.write_box)
    return _loops


def load_files() -> Callable[..., int] | None:
    """The loop that reads files for devices with memory of their own; None without one.

    Such devices need Numba anyway, and take it wherever it works.
    """
    if not (_supported() and _installed()):
        return None
    with _lock:
        from zarr_gpu.kernels import host_files

        return host_files.read_files  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------ functions


class _Functions(threading.local):
    """Addresses per thread and decoder: contexts belong to one thread."""

    def __init__(self) -> None:
        self.tables: dict[Decoder | None, I64] = {}


_functions = _Functions()


def _c_library() -> list[int]:
    global _c_addresses
    if _c_addresses is None:
        library = ctypes.CDLL(None)
        errno = next(
            (f for n in ("__errno_location", "__error") if (f := getattr(library, n, None))), None
        )
        functions = [library.open, library.close, library.pread, library.lseek, errno]
        _c_addresses = [
            0 if f is None else ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions
        ]
        _c_addresses.append(os.O_RDONLY | os.O_CLOEXEC)
    return _c_addresses


_c_addresses: list[int] | None = None


def addresses(decoder: Decoder | None) -> I64:
    """What the loop calls from this thread: the C library, and the decoder of a codec."""
    table = _functions.tables.get(decoder)
    if table is None:
        step = [0, 0, 0, 0]
        if decoder is not None:
            context = 0 if decoder.context is None else decoder.context()
            step = [decoder.decode, context, 0, *(decoder.parts or (0,))]
        # Addresses are unsigned; the loop takes them as they are.
        table = np.array([*_c_library(), *step], np.uint64).view(np.int64)
        _functions.tables[decoder] = table
    return table


def can_write() -> bool:
    """Whether the loop that writes can: it needs ``statx``, and variadic calls like others."""
    return ready() and _has_statx()


@cache
def _has_statx() -> bool:
    return sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "statx")


def system() -> I64:
    """What the loop that writes calls from this thread besides."""
    table: I64 | None = getattr(_own, "system", None)
    if table is None:
        library = ctypes.CDLL(None)
        names = ("flock", "statx", "write", "rename", "unlink", "mkdir", "access", "memcmp")
        found = [ctypes.cast(getattr(library, n), ctypes.c_void_p).value or 0 for n in names]
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        table = np.array([*found, flags, 0], np.uint64).view(np.int64)
        _own.system = table
    return table


_own = threading.local()
