"""Values as files below a directory.

Reads are plain positional reads into the buffer of the caller: no memory maps, no scattering.  A
write goes to a temporary name in the same directory and is then renamed, so that readers and
crashes see the old value or the new one, never a part.

Imports ``errors``, ``extents``, ``storage.base`` and ``storage.atomic``.
"""

# Plain system calls: a Path object costs more than reading a small file.
# ruff: noqa: PTH100, PTH108, PTH112, PTH114, PTH116, PTH120, PTH106, PTH208

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from zarr_gpu.errors import DataError, InvalidKeyError, StoreError
from zarr_gpu.extents import MISSING, REST, Files, Memory, Sink
from zarr_gpu.storage import atomic
from zarr_gpu.storage.base import ALIGNMENT, Buffer, Store
from zarr_gpu.storage.failures import StorePermissionError, fail
from zarr_gpu.storage.spans import Span

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LocalStore"]

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_SETTLED = 2_000_000_000
"""Nanoseconds after which another change must show in the time of change, on any file system."""

_SUSPICIOUS = 1 << 32
"""Some file systems report absurd ends for directories: above this, look twice."""


class _OutOfDescriptors(Exception):  # noqa: N818  no error: a call for fewer
    """The system gives no more descriptors while ``held`` are held."""

    def __init__(self, held: int) -> None:
        super().__init__(held)
        self.held = held


class LocalStore(Store):
    """Values as files below ``root``.

    Parameters
    ----------
    root
        A directory.  It need not exist; the first write creates it.
    read_only
        Refuse writes.
    durable
        Force every value to disk before it gets its name, and then the name: slower, but a value
        that was acknowledged survives a loss of power.  Without it, values survive the death of
        the process, and a crash of the machine may undo the newest ones.
    follow_symlinks
        Links that point out of ``root`` are followed by default, as people do place arrays on other
        disks that way.  False refuses them: use it for directories from untrusted sources.

    A directory is not a value: reading one finds nothing.  Removing the last value of a directory
    removes the directory.  Names that are not valid Unicode, and the temporary names of writers,
    are not listed; nor are links, where they are not followed.

    Network file systems may report a full disk only when a file is closed, after it has its name:
    use ``durable=True`` there.
    """

    max_open = 64
    """Most files that one call holds open at a time."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        read_only: bool = False,
        durable: bool = False,
        follow_symlinks: bool = True,
    ) -> None:
        text = os.fspath(root)
        if not isinstance(text, str) or "\0" in text:
            raise InvalidKeyError(f"a directory must be given as text without NUL, not {text!r}")
        # Made absolute once: the store keeps its meaning when the working directory changes.
        self._root = os.path.abspath(text)
        self._prefix = self._root if self._root.endswith(os.sep) else self._root + os.sep
        self.read_only = read_only
        self.durable = durable
        self.follow_symlinks = follow_symlinks

    @property
    def root(self) -> Path:
        """The directory."""
        from pathlib import Path

        return Path(self._root)

    # ---- reading -------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        opened = self._open(key)
        if opened is None:
            return None
        fd, size = opened
        try:
            lo, length = _resolve(offset, nbytes, size)
            if length <= 0:
                return b""
            data = atomic.read_bytes(fd, length, lo)
        except IsADirectoryError:
            return None
        except OSError as cause:
            fail("read", key, cause)
        finally:
            os.close(fd)
        if len(data) < length:
            raise DataError(
                "the file became shorter while being read",
                key=key,
                expected=length,
                actual=len(data),
            )
        return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        limit = self.max_open
        for _ in range(12):
            try:
                result = self._try_read_spans(spans, memory, limit)
            except _OutOfDescriptors as shortage:
                limit = shortage.held // 2
                continue
            if result is not None:
                return result
        raise StoreError(
            f"files below {self._root!r} are being replaced faster than they can be read",
            key=spans[0][0],
        )

    def _try_read_spans(
        self, spans: list[Span], memory: Memory, limit: int
    ) -> tuple[Any, list[int], list[int]] | None:
        """None where a file that was not held open has changed between measuring and reading."""
        # Measure all files, holding the first ``limit`` open; then the buffer can be made.
        prefix, plain = self._prefix, self.follow_symlinks
        files: dict[str, tuple[int, int]] = {}  # key -> (descriptor or -1, size or MISSING)
        held: list[int] = []
        places: list[tuple[int, int]] = []  # (descriptor, offset in the file) of each span
        starts: list[int] = []
        lengths: list[int] = []
        total = 0
        try:
            for key, offset, nbytes in spans:
                file = files.get(key)
                if file is None:
                    if plain and len(held) < limit:  # _measure without its calls
                        try:
                            fd = os.open(prefix + key, _FLAGS)
                            held.append(fd)
                            file = fd, os.lseek(fd, 0, os.SEEK_END)
                        except FileNotFoundError:
                            file = -1, MISSING
                        except OSError:
                            file = -1, 0
                    if file is None or (not 0 < file[1] < _SUSPICIOUS and file[1] != MISSING):
                        file = self._measure(key, held, limit)
                    files[key] = file
                fd, size = file
                if size < 0:
                    lo, length = 0, MISSING
                elif nbytes == REST and offset == 0:
                    lo, length = 0, size
                else:
                    lo, length = _resolve(offset, nbytes, size)
                places.append((fd, lo))
                starts.append(total)
                lengths.append(length)
                if length > 0:
                    total += (length + ALIGNMENT - 1) & -ALIGNMENT
            base = memory.empty(total)
            view = memoryview(base)  # type: ignore[arg-type]
            for i, (fd, lo) in enumerate(places):
                length = lengths[i]
                if length <= 0:
                    continue
                start = starts[i]
                target = view[start : start + length]
                key = spans[i][0]
                if fd >= 0:
                    try:
                        got = atomic.preadv(fd, [target], lo)
                    except OSError:
                        got = 0
                    if got != length:
                        lengths[i] = self._read_open(fd, target, lo, key)
                else:
                    again = self._open(key)
                    if again is None:
                        return None
                    try:
                        if again[1] != files[key][1]:
                            return None
                        lengths[i] = self._read_open(again[0], target, lo, key)
                    finally:
                        os.close(again[0])
        finally:
            for fd in held:
                os.close(fd)
        return base, starts, lengths

    def _measure(self, key: str, held: list[int], limit: int) -> tuple[int, int]:
        """(descriptor or -1 where enough are held, size or ``MISSING``)."""
        if len(held) < limit:
            try:
                opened = self._open(key)
            except StoreError as error:
                if held and error.errno in {errno.EMFILE, errno.ENFILE}:
                    raise _OutOfDescriptors(len(held)) from error
                raise
            if opened is None:
                return -1, MISSING
            held.append(opened[0])
            return opened
        size = self.size(key)
        return -1, MISSING if size is None else size

    def _read_open(self, fd: int, target: memoryview, offset: int, key: str) -> int:
        """Fill ``target``; ``MISSING`` where the descriptor is that of a directory."""
        try:
            got = atomic.read_into(fd, target, offset)
        except IsADirectoryError:
            return MISSING
        except OSError as cause:
            self._fail("read", key, cause)
        if got < len(target):
            raise DataError(
                "the file became shorter while being read",
                key=key,
                expected=len(target),
                actual=got,
            )
        return got

    def _open(self, key: str) -> tuple[int, int] | None:
        """(descriptor, size), None where there is no such file."""
        path = self._prefix + key
        if not self.follow_symlinks:
            self._refuse_escape(path, key)
        try:
            fd = os.open(path, _FLAGS)
        except _ABSENT:
            return None
        except OSError as cause:
            if os.name == "nt" and os.path.isdir(path):
                return None
            self._fail("read", key, cause)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)  # several times cheaper than fstat
            if 0 < size < _SUSPICIOUS:
                return fd, size
            status = os.fstat(fd)
        except OSError as cause:
            os.close(fd)
            self._fail("read", key, cause)
        if stat.S_ISREG(status.st_mode):
            return fd, status.st_size
        os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            return None
        raise StoreError("not a regular file", key=key)

    def size(self, key: str) -> int | None:
        path = self._prefix + key
        if not self.follow_symlinks:
            self._refuse_escape(path, key)
        try:
            status = os.stat(path)
        except _ABSENT:
            return None
        except OSError as cause:
            self._fail("get the size of", key, cause)
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def files(self) -> Files | None:
        # A subclass that reads in another way wants to be asked, and links are looked at one by
        # one where they may not lead out of the folder.
        plain = type(self) is LocalStore and self.follow_symlinks
        return Files(os.fsencode(self._prefix)) if plain else None

    def sink(self) -> Sink | None:
        plain = type(self) is LocalStore and self.follow_symlinks
        if not plain or self.read_only or self.durable or not atomic.HAS_LOCKS:
            return None
        return Sink(os.fsencode(self._prefix), os.fsencode(atomic.TEMPORARY_END))

    def version(self, key: str) -> Hashable | None:
        if type(self) is not LocalStore or not self.follow_symlinks:
            return None
        try:
            status = os.stat(self._prefix + key)
        except OSError:
            return None
        age = time.time_ns() - status.st_mtime_ns
        if age < _SETTLED:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev

    # ---- writing -------------------------------------------------------------------------------

    def write(self, key: str, data: memoryview) -> None:
        path = self._prefix + key
        if atomic.is_temporary(key.rpartition("/")[2]):
            raise InvalidKeyError("the name is reserved for temporary files", key=key)
        if not self.follow_symlinks:
            self._refuse_escape(path, key)
        try:
            atomic.replace_file(path, data, durable=self.durable)
        except OSError as cause:
            self._fail("write", key, cause)

    def remove(self, key: str) -> None:
        path = self._prefix + key
        if not self.follow_symlinks:
            self._refuse_escape(path, key)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as cause:
            if os.path.isdir(path) and not os.path.islink(path):
                return  # not a value
            self._fail("delete", key, cause)
        if self.durable:
            atomic.sync_directory(os.path.dirname(path))
        self._prune(path)

    def remove_prefix(self, prefix: str) -> None:
        if prefix:
            path = self._prefix + prefix
            if not self.follow_symlinks:
                self._refuse_escape(path, prefix)
            atomic.remove_tree(path, durable=self.durable)
            self._prune(path)
            return
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return
        for name in names:
            path = self._prefix + name
            if os.path.isdir(path) and not os.path.islink(path):
                atomic.remove_tree(path, durable=self.durable)
            else:
                os.unlink(path)

    def rename_prefix(self, source: str, target: str) -> None:
        old, new = self._prefix + source, self._prefix + target
        if not self.follow_symlinks:
            self._refuse_escape(old, source)
            self._refuse_escape(new, target)
        try:
            atomic.rename_directory(old, new, durable=self.durable)
        except OSError as cause:
            if cause.errno != errno.EXDEV:
                self._fail("move", source, cause)
            super().rename_prefix(source, target)  # a link leads to another disk
        self._prune(old)

    def _prune(self, path: str) -> None:
        """Remove directories that a removal has left empty, so that they are no longer listed."""
        parent = os.path.dirname(path)
        while len(parent) > len(self._root):
            try:
                os.rmdir(parent)
            except OSError:
                return  # not empty, or gone already
            parent = os.path.dirname(parent)

    # ---- listing -------------------------------------------------------------------------------

    def walk(self, prefix: str) -> Iterator[str]:
        path = self._prefix + prefix if prefix else self._root
        if not self.follow_symlinks and prefix:
            self._refuse_escape(path, prefix)
        return self._walk(path, f"{prefix}/" if prefix else "", frozenset())

    def _walk(self, path: str, start: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        found: list[tuple[str, bool]] = []  # names, those of directories with a slash; is it a link
        for entry in self._scan(path):
            if entry.is_dir(follow_symlinks=self.follow_symlinks):
                found.append((f"{entry.name}/", entry.is_symlink()))
            elif entry.is_file(follow_symlinks=self.follow_symlinks):
                found.append((entry.name, False))
        for name, linked in sorted(found):
            if not name.endswith("/"):
                yield start + name
                continue
            below = f"{path}{os.sep}{name[:-1]}"
            seen = above
            if linked:
                # A link to a directory above would go round for ever.
                status = os.stat(below)
                place = (status.st_dev, status.st_ino)
                if place in above or _contains(below, path):
                    continue
                seen = above | {place}
            yield from self._walk(below, start + name, seen)

    def children(self, prefix: str) -> Iterable[str]:
        path = self._prefix + prefix if prefix else self._root
        if not self.follow_symlinks and prefix:
            self._refuse_escape(path, prefix)
        return [entry.name for entry in self._scan(path)]

    def _scan(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(path) as entries:
                return [e for e in entries if not atomic.is_temporary(e.name) and _is_text(e.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    # ---- the rest ------------------------------------------------------------------------------

    def _refuse_escape(self, path: str, key: str) -> None:
        home = os.path.realpath(self._root)
        real = os.path.realpath(path)
        if os.path.commonpath((home, real)) != home:
            raise StorePermissionError(
                "a symbolic link leads out of the store, and follow_symlinks is False", key=key
            )

    def _fail(self, verb: str, key: str, cause: OSError) -> NoReturn:
        if cause.errno == errno.ENAMETOOLONG:
            raise InvalidKeyError("the name is too long for this file system", key=key) from cause
        fail(verb, key, cause)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LocalStore):
            return NotImplemented
        return self._root == other._root and self.read_only == other.read_only

    def __hash__(self) -> int:
        return hash((LocalStore, self._root))

    def __repr__(self) -> str:
        return f"LocalStore({self._root!r})"


def _resolve(offset: int, nbytes: int, size: int) -> tuple[int, int]:
    """Where a span begins and how long it is, in a file of ``size`` bytes."""
    if offset < 0:
        lo = max(size + offset, 0)
        return lo, size - lo
    there = max(size - offset, 0)
    return offset, there if nbytes == REST else min(nbytes, there)


def _contains(folder: str, path: str) -> bool:
    home, real = os.path.realpath(folder), os.path.realpath(path)
    return os.path.commonpath((home, real)) == home


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)
