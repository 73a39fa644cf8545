"""The loop that Numba compiles for the CPU: whether it shall be used, loading it, what it calls.

Loading it (extra ``fast``) costs some tenths of a second, and compiling it some seconds once per
installation: :func:`wanted` tells when that pays.  C functions are called by their addresses, of
which :func:`addresses` makes the table for one thread and one codec.

Imports config and native codecs; used by ``host_rows`` and the CPU device.
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

__all__ = ["addresses", "load_box", "load_rows", "prepare", "ready", "wanted"]

I64 = npt.NDArray[np.int64]

PAYS_AFTER = 16384
"""Rows that Python reads before the compiled loop is loaded: about the time that loading takes."""

PAYS_TO_COMPILE = 16 * PAYS_AFTER
"""The same where it must be compiled first."""

_NO_NUMBA = "compiled reading on the CPU needs Numba: pip install 'zarr-gpu[fast]'"

_rows_so_far = 0
_loop: Callable[..., int] | None = None
_box_loop: Callable[..., int] | None = None
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


def ready() -> bool:
    """Whether the loop is at hand, or shall be used from the first row on."""
    setting = config.get("cpu.compiled")
    return setting is not False and (setting is True or _loop is not None) and _supported()


def prepare() -> None:
    """Load the loop now, unless it cannot or shall not be used."""
    if config.get("cpu.compiled") is not False and _supported() and _installed():
        load_rows()
        load_box()


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


def load_rows() -> Callable[..., int]:
    """The loop over rows of any plan.

    Raises
    ------
    MissingDependencyError
        Numba is not installed.
    """
    global _loop
    if _loop is None:
        with _lock:
            try:
                from zarr_gpu.kernels.host_rows import read_rows
            except ImportError as cause:
                raise MissingDependencyError(_NO_NUMBA) from cause
            _loop = read_rows
    return _loop


def load_box() -> Callable[..., int]:
    """The loop over the chunks of a box; raises as :func:`load_rows`."""
    global _box_loop
    if _box_loop is None:
        with _lock:
            try:
                from zarr_gpu.kernels.host_box import read_box
            except ImportError as cause:
                raise MissingDependencyError(_NO_NUMBA) from cause
            _box_loop = read_box
    return _box_loop


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
