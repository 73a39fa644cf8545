"""Compiling the loops of the CPU device in a process of its own.

That takes half a minute, once per installation, in which nobody should have to wait: reading goes
on in Python, and the loops are taken from Numba's cache on disk when they are there.

Imports nothing of ours but the kernels, to compile them; used by ``compiled``.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["compile_in_turn", "compiled_beside"]

_LOOPS = (("host_rows", "read_rows"), ("host_box", "read_box"), ("host_write", "write_box"))

_compiled: bool | None = None  # None: not known yet
_compiler: int | None = None  # the process that compiles
_lock = threading.Lock()


def _forget() -> None:
    # The compiler is no child of ours, and a lock that another thread holds is never released.
    global _compiler, _lock
    _compiler, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def compiled_beside() -> bool:
    """Whether the loops are compiled.  If not, a process begins to compile them, once."""
    global _compiled, _compiler
    if _compiled is not None or not _lock.acquire(blocking=False):
        return bool(_compiled)
    try:
        if _compiler is None:
            if on_disk():
                _compiled = True
            else:
                _compiler = _spawn()
                _compiled = None if _compiler else False
        else:
            pid, status = os.waitpid(_compiler, os.WNOHANG)
            if pid:
                _compiled = status == 0
    except OSError:  # no process can be made, or somebody else has waited for it
        _compiled = on_disk()
    finally:
        _lock.release()
    return bool(_compiled)


def _spawn() -> int | None:
    """Begin to compile; None where this interpreter cannot be started again."""
    if not sys.executable or hasattr(sys, "frozen") or not hasattr(os, "posix_spawn"):
        return None
    code = f"from {__name__} import compile_in_turn; compile_in_turn()"
    nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    command = [sys.executable, "-c", code]
    return os.posix_spawn(sys.executable, command, os.environ, file_actions=nothing)


def compile_in_turn() -> None:
    """Compile the loops, after other processes of this user that do so; what they left is used."""
    import fcntl
    import tempfile

    os.nice(10)
    path = f"{tempfile.gettempdir()}/zarr_gpu-{os.getuid()}.compiling"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until the process ends
    from zarr_gpu.kernels import host_box, host_rows, host_write  # noqa: F401  compiled when imported


def on_disk() -> bool:
    """Whether Numba has the loops on disk, newer than their source.

    Numba itself compares contents; where only the time has changed, the process that is begun finds
    nothing to do.
    """
    from pathlib import Path

    spec = find_spec("zarr_gpu.kernels")
    folders = (spec and spec.submodule_search_locations) or ()
    return all(
        any(_is_newer(Path(folder, f"{module}.py"), function) for folder in folders)
        for module, function in _LOOPS
    )


def _is_newer(source: Path, function: str) -> bool:
    """Whether one of the places that Numba uses has a function of a source, newer than that."""
    from pathlib import Path

    try:
        places = [source.parent.glob("__pycache__")]
        elsewhere = os.environ.get("NUMBA_CACHE_DIR")
        if elsewhere:
            places.append(Path(elsewhere).glob("*"))
        cache = os.environ.get("XDG_CACHE_HOME")
        places.append((Path(cache) if cache else Path.home() / ".cache").glob("numba/*"))
        made = source.stat().st_mtime
        return any(
            path.stat().st_mtime >= made
            for place in places
            for folder in place
            for path in folder.glob(f"{source.stem}.{function}-*.nbi")
        )
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False
