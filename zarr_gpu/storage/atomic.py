"""Files and directories that change as a whole.

Replacing a file, removing and renaming a directory tree: each leaves the old state or the new one
at every instant.  Also positional reads.  Imports nothing of ours; called by stores that keep
files.

Temporary names.  The writer of ``dir/name`` creates ``dir/.name.<host>.zg~`` exclusively and holds
a lock on it.  A temporary file without a lock was left by a dead writer: the next writer of the
same name removes it.  Where the lock is held, another writer of the same key is at work: after a
moment's wait a name of its own is used instead.  As locks of network file systems may not reach
beyond one machine, every machine has names of its own.
"""

# Plain system calls: a Path object costs more than reading a small file.
# ruff: noqa: PTH102, PTH103, PTH104, PTH105, PTH108, PTH112, PTH116, PTH118, PTH120

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS: bool = fcntl is not None

__all__ = [
    "HAS_LOCKS",
    "TEMPORARY_END",
    "is_temporary",
    "lock",
    "preadv",
    "read_bytes",
    "read_into",
    "remove_tree",
    "rename_directory",
    "replace_file",
    "sync_directory",
    "temporary_name",
]

_SUFFIX = ".zg~"
_TRASH = ".zgx~"
_NODE: str = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
_CREATE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
TEMPORARY_END = f".{zlib.crc32(_NODE.encode()):08x}{_SUFFIX}"
"""What names of temporary files of this machine end in."""

_MOST_VANISHED = 200
_ONE_CALL = 1 << 30
"""Bytes per system call: kernels stop short of 2 GiB."""


def is_temporary(name: str) -> bool:
    """Whether ``name`` is that of an unfinished write or removal, ours or a known other's."""
    if name.endswith("~"):
        return name.startswith(".") and name.endswith((_SUFFIX, _TRASH))
    if name.endswith(".partial"):  # zarr-python: name.<32 hex digits>.partial
        parts = name.split(".")
        return len(parts) > 2 and len(parts[-2]) == 32 and not parts[-2].strip("0123456789abcdef")
    return name.endswith(".__lock")  # TensorStore


# ---- reading -----------------------------------------------------------------------------------


def _seek_and_read(fd: int, buffers: Sequence[memoryview], offset: int, /) -> int:
    os.lseek(fd, offset, os.SEEK_SET)
    data = os.read(fd, min(len(buffers[0]), _ONE_CALL))
    buffers[0][: len(data)] = data
    return len(data)


preadv: Callable[[int, Sequence[memoryview], int], int] = getattr(os, "preadv", _seek_and_read)
"""Read into one buffer at an offset; the stand-in is for descriptors that nobody else uses."""


def read_into(fd: int, target: memoryview, offset: int) -> int:
    """Fill ``target`` from ``offset`` of a file; fewer bytes only where the file ends."""
    got = preadv(fd, [target], offset)
    if got == len(target):
        return got
    while got:
        more = preadv(fd, [target[got:]], offset + got)
        if more == 0:
            break
        got += more
        if got == len(target):
            break
    return got


def read_bytes(fd: int, nbytes: int, offset: int) -> bytes:
    """``nbytes`` bytes from ``offset`` of a file; fewer only where the file ends."""
    if nbytes <= _ONE_CALL and hasattr(os, "pread"):
        data = os.pread(fd, nbytes, offset)
        if len(data) == nbytes:
            return data
    whole = bytearray(nbytes)
    got = read_into(fd, memoryview(whole), offset)
    return bytes(whole[:got])


# ---- writing -----------------------------------------------------------------------------------


def replace_file(path: str, data: memoryview, *, durable: bool) -> None:
    """Make ``data`` the contents of the file ``path``; creates the directories above it."""
    folder, name = os.path.split(path)
    fd, temporary = _open_temporary(folder, name, durable)
    named = False
    try:
        _write_all(fd, data)
        if durable:
            os.fsync(fd)
        if not HAS_LOCKS:  # Windows cannot rename what is open
            os.close(fd)
            fd = -1
        _replace(temporary, path)
        named = True
    finally:
        # The lock goes last: whoever gets it may take the temporary name for a dead writer's.
        if not named:
            _unlink_quietly(temporary)
        if fd >= 0:
            os.close(fd)
    if durable:
        sync_directory(folder)


def temporary_name(name: str) -> str:
    """What the writer of the file ``name`` calls it until it is complete."""
    if len(name) > 50 and len(name.encode("utf-8", "surrogateescape")) > 200:  # of 255 bytes
        import hashlib

        name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f".{name}{TEMPORARY_END}"


def _open_temporary(folder: str, name: str, durable: bool) -> tuple[int, str]:
    path = os.path.join(folder, temporary_name(name))
    deadline = 0.0
    pause = 0.0002
    vanished = 0
    while True:
        try:
            fd = os.open(path, _CREATE, 0o666)
        except FileNotFoundError:
            # A removal elsewhere may take away an empty directory that was just made.
            vanished += 1
            if vanished > _MOST_VANISHED:
                raise
            try:
                make_directories(folder, durable=durable)
            except (FileNotFoundError, FileExistsError):
                if vanished == _MOST_VANISHED:
                    raise
            continue
        except FileExistsError:
            if HAS_LOCKS and _remove_if_dead(path):
                continue
            now = time.monotonic()
            deadline = deadline or now + 0.25
            if HAS_LOCKS and now < deadline:
                time.sleep(pause)
                pause = min(2 * pause, 0.01)
                continue
            path = f"{path.removesuffix(_SUFFIX)}.{os.urandom(6).hex()}{_SUFFIX}"
            continue
        if _own(fd):
            return fd, path
        os.close(fd)


def lock(fd: int) -> bool:
    """Take the lock of a file, and keep it until ``fd`` is closed; False where another holds it.

    Where the system has no locks, or the file system, everybody gets them.
    """
    if not HAS_LOCKS:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _own(fd: int) -> bool:
    """Lock a temporary file just created; False where another writer has removed it meanwhile."""
    return lock(fd) and (not HAS_LOCKS or os.fstat(fd).st_nlink > 0)


def _remove_if_dead(path: str) -> bool:
    """Remove the temporary file of a dead writer; True where creating it may be tried again."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        # The writer may have finished in between: then the name is gone or another file's.
        mine = os.fstat(fd)
        try:
            named = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return True
        if (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino):
            os.unlink(path)
        return True
    finally:
        os.close(fd)


def _write_all(fd: int, data: memoryview) -> None:
    total = len(data)
    done = 0
    while done < total:
        done += os.write(fd, data[done : done + _ONE_CALL] if total > _ONE_CALL or done else data)


def _replace(source: str, target: str) -> None:
    if os.name != "nt":
        os.replace(source, target)
        return
    for attempt in range(10):  # Windows refuses while a reader has the target open
        try:
            os.replace(source, target)
        except PermissionError:
            if attempt == 9:
                raise
            time.sleep(0.001 * 2**attempt)
        else:
            return


def _unlink_quietly(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def make_directories(folder: str, *, durable: bool) -> None:
    """Create ``folder`` and what is missing above it."""
    if not durable:
        os.makedirs(folder, exist_ok=True)
        return
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    for path in reversed(missing):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        sync_directory(os.path.dirname(path))


def sync_directory(folder: str) -> None:
    """Force the names in ``folder`` to disk, where the system can."""
    if os.name == "nt":
        return
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    except OSError as cause:
        if cause.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


# ---- trees -------------------------------------------------------------------------------------


def remove_tree(path: str, *, durable: bool) -> None:
    """Remove a directory and all below it; a link is removed, never followed.

    The directory loses its name first, so that nobody meets a half-removed tree.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        if os.path.isdir(path):
            os.unlink(path)
        return
    if not stat.S_ISDIR(mode):
        return
    folder, name = os.path.split(path)
    stem = name if len(name.encode("utf-8", "surrogateescape")) <= 200 else name[:60]
    trash = f"{folder}{os.sep}.{stem}{_TRASH}"
    _remove_all(trash)  # left by a removal that was killed
    try:
        os.rename(path, trash)
    except FileNotFoundError:
        return
    except OSError:
        trash = path  # another removal is at work, or renaming is not possible here
    if durable:
        sync_directory(folder)
    _remove_all(trash)


def _remove_all(path: str) -> None:
    import shutil

    def ignore_gone(_function: Any, _path: str, info: Any) -> None:
        error = info[1] if isinstance(info, tuple) else info
        if not isinstance(error, FileNotFoundError):
            raise error

    if os.path.lexists(path):
        handler: dict[str, Any] = (
            {"onexc": ignore_gone} if sys.version_info >= (3, 12) else {"onerror": ignore_gone}
        )
        shutil.rmtree(path, **handler)


def rename_directory(source: str, target: str, *, durable: bool) -> None:
    """Rename a directory to ``target``, which is absent or empty; creates what is above that."""
    while True:
        try:
            os.rename(source, target)
            break
        except FileNotFoundError:
            if not os.path.isdir(source):
                raise
            make_directories(os.path.dirname(target), durable=durable)
    if durable:
        sync_directory(os.path.dirname(target))
        sync_directory(os.path.dirname(source))
