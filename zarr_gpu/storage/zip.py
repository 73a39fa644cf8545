"""Values as entries of one zip file.

Entries stored without compression, the usual case, are read with positional reads straight into the
buffer of the caller.  Imports ``errors``, ``extents``, ``storage.base`` and ``storage.atomic``;
``zipfile`` on first use.
"""

# Plain system calls: a Path object costs more than reading a small file.
# ruff: noqa: PTH100

from __future__ import annotations

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage import atomic
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.spans import Span

if TYPE_CHECKING:
    from pathlib import Path
    from zipfile import ZipFile, ZipInfo

__all__ = ["ZipStore"]

_STORED, _DEFLATED = 0, 8
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_MOST_DEFLATED = 1100
"""No deflate stream grows by more than this factor: entries that claim so are lies."""


@dataclass(slots=True)
class _Entry:
    header: int  # offset of the local header
    method: int
    stored: int  # bytes in the file
    size: int  # bytes of the value
    crc: int
    encrypted: bool
    data: int = -1  # offset of the data, once known


class ZipStore(Store):
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

    Of several entries with one name the last counts.  Replacing or deleting a value leaves its
    bytes in the file but takes it out of the directory.  The directory is written by ``close``:
    until then the file cannot be opened by others.  Checksums are verified for whole values that
    are read singly or compressed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: str = "r",
        read_only: bool | None = None,
        compression: int = _STORED,
    ) -> None:
        if mode not in {"r", "a", "w", "x"}:
            raise InvalidKeyError(f"mode must be 'r', 'a', 'w' or 'x', not {mode!r}")
        if compression not in {_STORED, _DEFLATED}:
            raise StoreError("zip files are written stored or deflated")
        self._path = os.path.abspath(os.fspath(path))
        self.compression = compression
        self.read_only = mode == "r" if read_only is None else read_only
        self.supports_writes = mode != "r"
        self._reset()
        if mode in {"w", "x"}:
            self._open_writer(mode)
        elif mode == "r":
            self._load()  # complain now, not at the first read

    def _reset(self) -> None:
        self._entries: dict[str, _Entry] | None = None
        self._fd = -1
        self._writer: ZipFile | None = None
        self._writer_pid = 0
        self._lock = threading.RLock()

    @property
    def path(self) -> Path:
        """The zip file."""
        from pathlib import Path

        return Path(self._path)

    # ---- the directory -------------------------------------------------------------------------

    def _load(self) -> dict[str, _Entry]:
        entries = self._entries
        if entries is not None:
            return entries
        with self._lock:
            if self._entries is not None:
                return self._entries
            try:
                fd = os.open(self._path, _FLAGS)
            except FileNotFoundError as cause:
                if self.supports_writes:
                    self._entries = {}
                    return self._entries
                fail("open", self._path, cause)
            except OSError as cause:
                fail("open", self._path, cause)
            try:
                entries = self._read_directory(fd)
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
            self._entries = entries
            return entries

    def _read_directory(self, fd: int) -> dict[str, _Entry]:
        from zipfile import ZipFile

        try:
            with os.fdopen(os.dup(fd), "rb") as file, ZipFile(file) as archive:
                return {info.filename: _entry(info) for info in archive.infolist()}
        except Exception as cause:
            raise StoreError(f"{self._path!r} is not a readable zip file: {cause}") from cause

    def _find(self, key: str) -> _Entry | None:
        entry = self._load().get(key)
        if entry is None:
            return None
        if entry.encrypted:
            raise StoreError("the zip entry is encrypted", key=key)
        if entry.method not in {_STORED, _DEFLATED}:
            raise StoreError(f"zip compression method {entry.method} is not supported", key=key)
        if (entry.method == _STORED and entry.stored != entry.size) or (
            entry.size > entry.stored * _MOST_DEFLATED + 64
        ):
            raise DataError(
                "the zip entry's sizes contradict each other",
                key=key,
                expected=entry.size,
                actual=entry.stored,
            )
        if entry.data < 0:
            entry.data = self._data_offset(entry, key)
        return entry

    def _data_offset(self, entry: _Entry, key: str) -> int:
        header = self._pread(entry.header, _LOCAL_HEADER.size) if entry.header >= 0 else b""
        if len(header) == _LOCAL_HEADER.size:
            magic, name, extra = _LOCAL_HEADER.unpack(header)
            if magic == b"PK\3\4":
                return int(entry.header + _LOCAL_HEADER.size + name + extra)
        raise DataError("the zip entry's local header is damaged", key=key)

    # ---- reading -------------------------------------------------------------------------------

    def _pread(self, offset: int, nbytes: int) -> bytes:
        if hasattr(os, "pread"):
            return atomic.read_bytes(self._fd, nbytes, offset)
        with self._lock:
            return atomic.read_bytes(self._fd, nbytes, offset)

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        entry = self._find(key)
        if entry is None:
            return None
        lo = max(entry.size + offset, 0) if offset < 0 else min(offset, entry.size)
        length = entry.size - lo if nbytes == REST else min(nbytes, entry.size - lo)
        if entry.method == _DEFLATED:
            return self._inflate(entry, key)[lo : lo + length]
        data = self._pread(entry.data + lo, length)
        _check_length(key, length, len(data))
        if length == entry.size:
            _check_crc(key, entry, data)
        return data

    def _inflate(self, entry: _Entry, key: str) -> bytes:
        packed = self._pread(entry.data, entry.stored)
        _check_length(key, entry.stored, len(packed))
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = stream.decompress(packed, entry.size + 1)  # one more shows what is too long
        except zlib.error as cause:
            raise DataError(f"the zip entry is damaged: {cause}", key=key) from cause
        _check_length(key, entry.size, len(data))
        _check_crc(key, entry, data)
        return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        entries = [self._find(key) for key, _, _ in spans]
        if not hasattr(os, "pread") or any(e is not None and e.method != _STORED for e in entries):
            return super().read_spans(spans, memory)
        starts, lengths, places, total = [], [], [], 0
        for entry, (_, offset, nbytes) in zip(entries, spans, strict=True):
            starts.append(total)
            if entry is None:
                lengths.append(-1)
                places.append(0)
                continue
            lo = max(entry.size + offset, 0) if offset < 0 else min(offset, entry.size)
            length = entry.size - lo if nbytes == REST else min(nbytes, entry.size - lo)
            lengths.append(length)
            places.append(entry.data + lo)
            total += (length + 63) & -64
        base = memory.empty(total)
        view = memoryview(base)  # type: ignore[arg-type]
        for (key, _, _), start, length, place in zip(spans, starts, lengths, places, strict=True):
            if length > 0:
                try:
                    got = atomic.read_into(self._fd, view[start : start + length], place)
                except OSError as cause:
                    fail("read", key, cause)
                _check_length(key, length, got)
        return base, starts, lengths

    def size(self, key: str) -> int | None:
        entry = self._load().get(key)
        return None if entry is None else entry.size

    def walk(self, prefix: str) -> Iterator[str]:
        start = f"{prefix}/" if prefix else ""
        return iter(sorted(k for k in list(self._load()) if k.startswith(start) and _is_key(k)))

    # ---- writing -------------------------------------------------------------------------------

    def _open_writer(self, mode: str) -> ZipFile:
        from zipfile import ZipFile

        if self._writer is not None:
            if self._writer_pid != os.getpid():
                raise StoreError("a zip file open for writing cannot be written to after fork")
            return self._writer
        entries = self._load() if mode == "a" else {}
        try:
            writer: ZipFile = ZipFile(self._path, mode, self.compression)  # type: ignore[call-overload]
        except Exception as cause:  # noqa: BLE001  zipfile raises many kinds for damaged files
            fail("open", self._path, cause)
        self._writer = writer
        self._writer_pid = os.getpid()
        if self._fd < 0:
            self._fd = os.open(self._path, _FLAGS)
        self._entries = entries
        return writer

    def write(self, key: str, data: memoryview) -> None:
        self._check_mode(key)
        with self._lock:
            writer = self._open_writer("a")
            self._forget(writer, {key})
            writer.writestr(key, data)
            if writer.fp is not None:
                writer.fp.flush()
            self._load()[key] = _entry(writer.NameToInfo[key])  # until here readers see the old

    def remove(self, key: str) -> None:
        self._check_mode(key)
        with self._lock:
            if key in self._load():
                self._forget(self._open_writer("a"), {key})
                self._load().pop(key, None)

    def remove_prefix(self, prefix: str) -> None:
        self._check_mode(prefix)
        with self._lock:
            keys = set(self.walk(prefix))
            if keys:
                self._forget(self._open_writer("a"), keys)
                for key in keys:
                    self._load().pop(key, None)

    def _forget(self, writer: ZipFile, keys: set[str]) -> None:
        """Take ``keys`` out of the directory to be written, so that no name is there twice."""
        there = {key for key in keys if writer.NameToInfo.pop(key, None) is not None}
        if there:
            writer.filelist[:] = [info for info in writer.filelist if info.filename not in there]
            writer._didModify = True  # type: ignore[attr-defined]  # noqa: SLF001

    def _check_mode(self, key: str) -> None:
        if not self.supports_writes:
            raise ReadOnlyError(f"{self!r} was opened with mode 'r'", key=key)

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        """Write the directory, if anything was written, and give the file back.

        The store can be used again: it then opens the file anew.
        """
        with self._lock:
            writer, self._writer = self._writer, None
            fd, self._fd = self._fd, -1
            self._entries = None
            try:
                if writer is not None and self._writer_pid == os.getpid():
                    writer.close()
            finally:
                if fd >= 0:
                    os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            with contextlib.suppress(Exception):
                self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._writer is not None:
            raise StoreError("close a zip file open for writing before pickling it")
        mine = {"_entries", "_fd", "_writer", "_writer_pid", "_lock"}
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


def _entry(info: ZipInfo) -> _Entry:
    return _Entry(
        info.header_offset,
        info.compress_type,
        info.compress_size,
        info.file_size,
        info.CRC,
        bool(info.flag_bits & 1),
    )


def _is_key(name: str) -> bool:
    """Directory entries and names that would leave the store are not keys."""
    try:
        check_key(name)
    except InvalidKeyError:
        return False
    return True


def _check_length(key: str, expected: int, actual: int) -> None:
    if actual != expected:
        raise DataError(
            "the zip entry is damaged or cut short", key=key, expected=expected, actual=actual
        )


def _check_crc(key: str, entry: _Entry, data: bytes) -> None:
    if zlib.crc32(data) != entry.crc:
        raise DataError("the zip entry's checksum is wrong", key=key)
