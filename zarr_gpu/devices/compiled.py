"""The loops that Numba compiles for the host: whether to use them, loading them, what they call.

Loading it (extra ``fast``) costs some tenths of a second, and compiling it some seconds once per
installation: :func:`wanted` tells when that pays.  C functions are called by their addresses, of
which :func:`addresses` makes the table for one thread and one codec.  Devices with memory of their
own need Numba anyway, and take their loop (:func:`load_files`) wherever it works.

Imports config and native codecs; used by ``host_rows``, ``staged_files`` and the CPU device.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.native import Decoder
from zarr_gpu.config import config
from zarr_gpu.errors import MissingDependencyError

__all__ = ["addresses", "load", "load_files", "prepare", "wanted"]

I64 = npt.NDArray[np.int64]

PAYS_AFTER = 16384
"""Rows that Python reads before the compiled loop is loaded: about the time that loading takes."""

PAYS_TO_COMPILE = 16 * PAYS_AFTER
"""The same where it must be compiled first."""

_rows_so_far = 0
_loop: Callable[..., int] | None = None
_lock = threading.Lock()


def wanted(rows: int) -> bool:
    """Whether a read of so many rows should take the compiled loop (setting ``cpu.compiled``)."""
    global _rows_so_far
    setting = config.get("cpu.compiled")
    if setting is False or not _supported():
        return False
    if setting is True or _loop is not None:
        return True
    _rows_so_far += rows
    if _rows_so_far <= PAYS_AFTER or not _installed():
        return False
    return _rows_so_far > PAYS_TO_COMPILE or _compiled_before()


def prepare() -> None:
    """Load the loop now, unless it cannot or shall not be used."""
    if config.get("cpu.compiled") is not False and _supported() and _installed():
        load()


def _compiled_before() -> bool:
    """Whether Numba has the loop on disk beside its source, so that it need not compile it."""
    spec = find_spec("zarr_gpu.kernels")
    folders = (spec and spec.submodule_search_locations) or ()
    return any(
        name.startswith("host_rows.read_rows-") and name.endswith(".nbi")
        for folder in folders
        if os.path.isdir(f"{folder}/__pycache__")  # noqa: PTH112  before pathlib is imported
        for name in os.listdir(f"{folder}/__pycache__")  # noqa: PTH208
    )


def _supported() -> bool:
    return os.name == "posix" and sys.maxsize > 2**32


_found: bool | None = None


def _installed() -> bool:
    global _found
    if _found is None:
        _found = find_spec("numba") is not None
    return _found


def load() -> Callable[..., int]:
    """The compiled loop.

    Raises
    ------
    MissingDependencyError
        Numba is not installed.
    """
    global _loop
    if _loop is None:
        with _lock:
            try:
                from zarr_gpu.kernels import host_rows
            except ImportError as cause:
                raise MissingDependencyError(
                    "compiled reading on the CPU needs Numba: pip install 'zarr-gpu[fast]'"
                ) from cause
            _loop = host_rows.read_rows
    return _loop


def load_files() -> Callable[..., int] | None:
    """The compiled loop that reads files, None where it cannot be used."""
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
        step = [0, 0, 0]
        if decoder is not None:
            context = 0 if decoder.context is None else decoder.context()
            step = [decoder.decode, decoder.part, context]
        # Addresses are unsigned; the loop takes them as they are.
        table = np.array([*_c_library(), *step, 0], np.uint64).view(np.int64)
        _functions.tables[decoder] = table
    return table
