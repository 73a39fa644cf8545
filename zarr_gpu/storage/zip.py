"""Values as entries of one zip file.

Reading.  The directory is parsed here, and entries are read at their place: no position is shared,
so that threads and forked children read at once.  Entries stored without compression, the usual
case, land straight in the buffer of the caller.

Writing.  New values are appended, and the directory at the end when the store is closed.  Until
then the directory that the file had before stays where it was, and a journal beside the file
(``zip_journal.py``) tells how much of the file is a whole archive.  So after a writer was killed,
with -9 even, and while one is at work:

- mode "r" reads the archive as it was before; where there was none, the error says how to go on;
- mode "a" recovers every value that was stored and every deletion, and goes on from there; closing
  it writes the directory.  While the writer lives, changing the file is refused.
- Other programs do not know the journal.  They may not find the directory until the file has been
  recovered and closed.

This holds for processes that die, not for power that fails: nothing is forced to disk before the
store is closed.  Mode "w" begins anew, and the former archive is gone at once.

Imports ``errors``, ``extents``, ``storage.base``, ``storage.atomic`` and the ``zip_*`` files.
"""

# Plain system calls: a Path object costs more than reading a small file.
# ruff: noqa: PTH100, PTH108

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
import zlib
from typing import TYPE_CHECKING, Any

from zarr_gpu.errors import InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import Files
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.zip_directory import (
    DEFLATED,
    STORED,
    Directory,
    Entry,
    directory_bytes,
    local_header,
    parse,
    scan,
)
from zarr_gpu.storage.zip_journal import BusyError, Journal, Record, read_journal, replay
from zarr_gpu.storage.zip_reading import ZipFileReader

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ZipStore"]

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_OZX_COMMENT = b'{"ome":{"version":"0.5","zipFile":{"centralDirectory":{"jsonFirst":true}}}}'

# By identity: equal stores may be open several times.
_stores: weakref.WeakValueDictionary[int, ZipStore] = weakref.WeakValueDictionary()


def _after_fork() -> None:
    for store in list(_stores.values()):
        store._lock = threading.RLock()  # noqa: SLF001  another thread may have held it
        if store._journal is not None:  # noqa: SLF001
            store._journal.release()  # noqa: SLF001  the right to write stays with the parent


def _close_all() -> None:
    for store in list(_stores.values()):
        if store._journal is not None:  # noqa: SLF001
            store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)


class ZipStore(ZipFileReader):
    """Values as entries of the zip file ``path``.

    Parameters
    ----------
    path
        The file.
    mode
        "r" reads; "a" reads and adds, making the file at the first write; "w" begins a new file;
        "x" as "w", but the file must not exist.
    read_only
        Refuse writes; by default where ``mode`` is "r".
    compression
        ``zipfile.ZIP_STORED`` (chunks are compressed already) or ``zipfile.ZIP_DEFLATED``.
    comment
        The comment of the archive; by default what it has, and for a new ``*.ozx`` file what the
        format of zipped OME-Zarr asks for.

    Of several entries with one name the last counts.  Replacing or deleting a value leaves its
    bytes in the file but takes it out of the directory, and so does the former directory of a file
    that is added to; ``copy_store`` to a new file leaves nothing behind.  The directory, with all
    ``zarr.json`` first, is written by ``close`` and, for stores left open, when Python ends.  One
    store writes a file at a time.  Checksums are verified for whole values that are read singly or
    are compressed.

    Raises
    ------
    StoreError
        The file is no zip file, is damaged, or is being written.
    """

    atomic_put_if_absent = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: str = "r",
        read_only: bool | None = None,
        compression: int = STORED,
        comment: bytes | None = None,
    ) -> None:
        if mode not in {"r", "a", "w", "x"}:
            raise InvalidKeyError(f"mode must be 'r', 'a', 'w' or 'x', not {mode!r}")
        if compression not in {STORED, DEFLATED}:
            raise StoreError("zip files are written stored or deflated")
        if comment is not None and len(comment) > 0xFFFF:
            raise StoreError(f"the comment of a zip file has at most 65,535 bytes: {len(comment)}")
        self._path = os.path.abspath(os.fspath(path))
        self.compression = compression
        self.read_only = mode == "r" if read_only is None else read_only
        self.supports_writes = mode != "r"
        self._new_comment = comment
        self._reset()
        if mode in {"w", "x"}:
            self._begin_anew(mode)
        elif mode == "r":
            self._load()  # complain now, not at the first read

    def _reset(self) -> None:
        self._directory: Directory | None = None
        self._fd = -1
        self._journal: Journal | None = None
        self._end = 0  # of what was written so far
        self._seen = (0, 0)  # what file the directory was read from
        self._writer_pid = 0
        self._lock = threading.RLock()
        _stores[id(self)] = self

    @property
    def path(self) -> Path:
        """The zip file."""
        from pathlib import Path

        return Path(self._path)

    # ---- the directory -------------------------------------------------------------------------

    def _load(self) -> Directory:
        directory = self._directory
        if directory is not None:
            return directory
        with self._lock:
            if self._directory is None:
                try:
                    self._directory = self._open()
                except OSError as cause:
                    fail("open", self._path, cause)
            return self._directory

    def _open(self) -> Directory:
        record = read_journal(self._path)
        if record is not None and self.supports_writes and not self.read_only:
            with contextlib.suppress(BusyError):  # then what was there before is read
                return self._recover()
        try:
            self._fd = os.open(self._path, os.O_RDONLY | _BINARY)
        except FileNotFoundError:
            if self.supports_writes:
                self._seen = (0, 0)
                return Directory()
            raise
        try:
            return self._parse_whole(record)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def _parse_whole(self, record: Record | None) -> Directory:
        """The directory of the file, or of the archive that it was before somebody changed it."""
        size = os.fstat(self._fd).st_size
        self._seen = _stamp(self._fd)
        if record is None or (record.start and not self._is_of(record, size)):
            return self._parse(size)
        if record.start:
            return self._parse(record.start)
        with contextlib.suppress(StoreError):  # the writer may have died in its last moment
            directory = self._parse(size)
            if directory.shift == 0:
                return directory
        raise StoreError(
            f"{self._path!r} is being written, or its writer died before closing it: "
            "mode='a' recovers what was stored"
        )

    def _end_crc(self, size: int) -> int:
        return zlib.crc32(self._pread(max(size - 4096, 0), min(size, 4096)))

    def _is_of(self, record: Record, size: int) -> bool:
        """Whether a journal was written for this file."""
        return size >= record.start and self._end_crc(record.start) == record.end_crc

    def _parse(self, size: int) -> Directory:
        try:
            return parse(self._pread, size)
        except StoreError as cause:
            raise StoreError(f"{self._path!r} is not a readable zip file: {cause}") from cause
        except OSError as cause:
            fail("read", self._path, cause)

    def files(self) -> Files | None:
        # A subclass that reads in another way wants to be asked.
        return super().files() if type(self) is ZipStore else None

    # ---- writing -------------------------------------------------------------------------------

    def _begin_anew(self, mode: str) -> None:
        if mode == "x" and os.path.lexists(self._path):
            raise StoreError(f"{self._path!r} exists already")
        try:
            journal = Journal(self._path)
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
                journal.begin(0, 0)
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
            except BaseException:
                journal.finish()
                raise
        except OSError as cause:
            fail("open", self._path, cause)
        self._take(journal, fd, 0)
        self._directory = Directory()

    def _take(self, journal: Journal, fd: int, end: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._journal = journal
        self._end = end
        self._writer_pid = os.getpid()

    def _drop(self) -> None:
        """Undo ``_take`` after a failure; the journal stays."""
        journal, self._journal = self._journal, None
        fd, self._fd = self._fd, -1
        if journal is not None:
            journal.release()
        if fd >= 0:
            os.close(fd)

    def _writer(self) -> tuple[Journal, Directory]:
        """What writing needs; under the lock."""
        directory = self._load()
        if self._journal is None:
            before = self._seen
            journal, size = self._claim(left_is_an_error=True)
            try:
                if size and _stamp(self._fd) != before:  # another store has written it meanwhile
                    directory = self._directory = self._parse(size)
                journal.begin(size, self._end_crc(size))
            except BaseException:
                self._drop()
                self._directory = None
                raise
        elif self._writer_pid != os.getpid():
            raise StoreError("a zip file open for writing cannot be written to after fork")
        return self._journal, directory  # type: ignore[return-value]

    def _claim(self, *, left_is_an_error: bool = False) -> tuple[Journal, int]:
        """Become the file's one writer: its journal, and how long the file is."""
        journal = Journal(self._path)
        try:
            if left_is_an_error and journal.left is not None:
                raise StoreError(  # noqa: TRY301
                    f"another writer left {self._path!r} unfinished: close this store first"
                )
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
        except BaseException:
            journal.release()
            raise
        size = os.fstat(fd).st_size
        self._take(journal, fd, size)
        return journal, size

    def _recover(self) -> Directory:
        """Take over what a dead writer left."""
        journal, size = self._claim()
        try:
            left = journal.left
            if left is None or (left.start and not self._is_of(left, size)):
                # Nothing was changed yet, or another file has taken the place of that one.
                directory = self._parse(size) if size else Directory()
                journal.begin(size, self._end_crc(size))
                return directory
            directory = self._parse(left.start) if left.start else Directory()
            found = scan(self._pread, left.start, size)
            self._end = replay(left, directory.entries, found)
            os.ftruncate(self._fd, self._end)
        except BaseException:
            self._drop()
            raise
        return directory

    def write(self, key: str, data: memoryview) -> None:
        self._check_mode(key)
        packed: bytes | memoryview = data
        if self.compression == DEFLATED:
            stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            packed = stream.compress(data) + stream.flush()
        entry = Entry(0, self.compression, len(packed), data.nbytes, zlib.crc32(data), 0)
        header = local_header(key, entry)
        with self._lock:
            _, directory = self._writer()
            entry.header = self._end
            entry.data = self._end + len(header)
            _write_at(self._fd, self._end, header, packed)
            self._end = entry.data + entry.stored
            directory.entries[key] = entry  # until here readers see the old value

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        self._check_mode(key)
        with self._lock:
            self._writer()  # so that nobody else writes meanwhile
            return super().write_if_absent(key, data)

    def remove(self, key: str) -> None:
        self._check_mode(key)
        with self._lock:
            if key in self._load().entries:
                self._forget([key])

    def remove_prefix(self, prefix: str) -> None:
        self._check_mode(prefix)
        with self._lock:
            keys = list(self.walk(prefix))
            if keys:
                self._forget(keys)

    def _forget(self, keys: list[str]) -> None:
        journal, directory = self._writer()
        journal.delete(self._end, keys)
        for key in keys:
            directory.entries.pop(key, None)

    def _check_mode(self, key: str) -> None:
        if not self.supports_writes:
            raise ReadOnlyError(f"{self!r} was opened with mode 'r'", key=key)

    def _finish(self, journal: Journal, directory: Directory, fd: int) -> None:
        comment = directory.comment if self._new_comment is None else self._new_comment
        if not comment and self._path.lower().endswith(".ozx"):
            comment = _OZX_COMMENT
        _write_at(fd, self._end, directory_bytes(directory.entries, self._end, comment), b"")
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
        os.fsync(fd)
        journal.finish()

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        """Write the directory, if anything was written, and give the file back.

        The store can be used again: it then opens the file anew.
        """
        with self._lock:
            journal, self._journal = self._journal, None
            fd, self._fd = self._fd, -1
            directory, self._directory = self._directory, None
            try:
                if journal is not None and self._writer_pid == os.getpid() and directory:
                    try:
                        self._finish(journal, directory, fd)
                    except OSError as cause:
                        journal.release()  # and leave it: the values can be recovered
                        fail("close", self._path, cause)
            finally:
                if fd >= 0:
                    os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            with contextlib.suppress(Exception):
                self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._journal is not None:
            raise StoreError("close a zip file open for writing before pickling it")
        mine = {"_directory", "_fd", "_journal", "_end", "_seen", "_writer_pid", "_lock"}
        return {name: value for name, value in vars(self).items() if name not in mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ZipStore):
            return NotImplemented
        return self._path == other._path and self.read_only == other.read_only

    def __hash__(self) -> int:
        return hash((ZipStore, self._path))

    def __repr__(self) -> str:
        return f"ZipStore({self._path!r})"


def _write_at(fd: int, offset: int, head: bytes, body: bytes | memoryview) -> None:
    """Write two pieces one after the other; moves the file's position, which only writers use."""
    os.lseek(fd, offset, os.SEEK_SET)
    for piece in (head, body):
        view = memoryview(piece)
        while view.nbytes:
            view = view[os.write(fd, view[: 1 << 30]) :]


def _stamp(fd: int) -> tuple[int, int]:
    """Tells whether a file was replaced or added to."""
    found = os.fstat(fd)
    return found.st_ino, found.st_size
