"""The obstore package, also in a forked child.

obstore's requests are made by threads of its own, which a forked child does not have: there every
call would wait for ever.  A child of a process that has used obstore therefore loads a second copy
of the compiled library, which starts with threads of its own, and makes its stores anew with it.

Imports ``errors``; called by ``storage/obstore.py``.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from zarr_gpu.errors import MissingDependencyError, StoreError

__all__ = ["functions", "generation", "native"]

_generation = 0
_copy: Any = None
_left_behind: list[Any] = []  # what a parent made is never freed here: that may need its threads
_lock = threading.Lock()


def _forked() -> None:
    global _generation, _copy, _lock
    _lock = threading.Lock()
    if "obstore" in sys.modules:
        _generation += 1
        _left_behind.append(_copy)
        _copy = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def generation() -> int:
    """Changes when stores must be made anew."""
    return _generation


def functions() -> Any:
    """The module with ``get``, ``put``, ...

    Raises
    ------
    MissingDependencyError
        obstore is not installed.
    """
    global _copy
    if _generation == 0:
        try:
            import obstore
        except ImportError as cause:
            raise MissingDependencyError(
                "object stores need obstore: pip install 'zarr-gpu[cloud]'"
            ) from cause
        return obstore
    with _lock:
        if _copy is None:
            _copy = _load_copy(sys.modules["obstore"]._obstore)  # noqa: SLF001
        return _copy


def native(store: Any, made: int) -> Any:
    """``store``, an object of obstore's made in generation ``made``, for use in this process.

    Raises
    ------
    StoreError
        It cannot be made anew in a forked child.
    """
    if made == _generation:
        return store
    library = functions()
    kind = type(store).__name__
    _left_behind.append(store)
    try:
        args, kwargs = store.__getnewargs_ex__()
        return getattr(library._store, kind)(*args, **kwargs)  # noqa: SLF001
    except Exception as cause:
        raise StoreError(
            f"obstore's {kind} was made before this process was forked and cannot be made anew: "
            "open it in the child, or start processes by spawn or forkserver"
        ) from cause


def _load_copy(module: Any) -> Any:
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path
    from tempfile import TemporaryDirectory

    content = Path(module.__file__).read_bytes()

    def load(path: str) -> Any:
        # The name decides which function of the library is called to make the module.
        name = module.__name__
        spec = spec_from_file_location(name, path, loader=ExtensionFileLoader(name, path))
        if spec is None or spec.loader is None:
            raise StoreError("cannot load obstore a second time in a forked child")
        copy = module_from_spec(spec)
        spec.loader.exec_module(copy)
        return copy

    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("obstore", os.MFD_CLOEXEC)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(content)
            return load(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    with TemporaryDirectory() as folder:
        path = Path(folder) / Path(module.__file__).name
        path.write_bytes(content)
        return load(str(path))
