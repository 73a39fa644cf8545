"""Reading the entries of a zip archive, wherever its bytes lie.

Stored entries, the usual case, are byte ranges of the archive; deflated ones are decoded piece by
piece, so that a range costs the memory of the range.  Checksums are verified where a whole value is
read by itself, and for deflated values whenever they are decoded to their end.  Imports ``errors``,
``extents``, ``storage.base`` and ``storage.atomic``; called by the stores of zip files.
"""

from __future__ import annotations

import os
import threading
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from zarr_gpu.errors import DataError, InvalidKeyError
from zarr_gpu.extents import MISSING, REST, Files, Memory
from zarr_gpu.storage import atomic
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.zip_directory import DEFLATED, STORED, Directory, Entry

__all__ = ["ZipFileReader", "ZipReader", "check_length", "entry_range"]

_PIECE = 1 << 18


class ZipReader(Store):
    """Entries of a zip archive as values; subclasses supply the directory and the bytes."""

    # ---- for subclasses ------------------------------------------------------------------------

    @abstractmethod
    def _load(self) -> Directory:
        """The directory, read when it is first asked for."""

    @abstractmethod
    def _pread(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the archive; fewer only where it ends."""

    # ---- the lower half of a store -------------------------------------------------------------

    @property
    def comment(self) -> bytes:
        """The comment of the archive; that of a zipped OME-Zarr (``.ozx``) is JSON."""
        return self._load().comment

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        entry = self._find(key)
        if entry is None:
            return None
        lo, length = entry_range(entry, offset, nbytes)
        if entry.method == DEFLATED:
            return self._inflate(key, entry, lo, length)
        data = self._pread(entry.data + lo, length)
        check_length(key, length, len(data))
        if length == entry.size:
            _check_crc(key, entry, zlib.crc32(data))
        return data

    def size(self, key: str) -> int | None:
        entry = self._load().entries.get(key)
        return None if entry is None else entry.size

    def walk(self, prefix: str) -> Iterator[str]:
        start = f"{prefix}/" if prefix else ""
        names = list(self._load().entries)
        return iter(sorted(k for k in names if k.startswith(start) and _is_key(k)))

    # ---- internals -----------------------------------------------------------------------------

    def _find(self, key: str) -> Entry | None:
        directory = self._load()
        entry = directory.entries.get(key)
        if entry is not None and entry.data < 0:
            entry.data = directory.locate(key, entry, self._pread)
        return entry

    def _inflate(self, key: str, entry: Entry, lo: int, length: int) -> Buffer:
        """Bytes ``lo`` to ``lo + length`` of a deflated value."""
        if lo == 0 and length == entry.size:
            packed = self._pread(entry.data, entry.stored)
            check_length(key, entry.stored, len(packed))
            try:  # one byte more shows what is too long
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.size + 1)
            except zlib.error as cause:
                raise DataError(f"the zip entry is damaged: {cause}", key=key) from cause
            check_length(key, entry.size, len(data))
            _check_crc(key, entry, zlib.crc32(data))
            return data
        kept = bytearray()
        crc = total = 0
        for piece in self._pieces(key, entry):
            crc = zlib.crc32(piece, crc)
            kept += piece[max(lo - total, 0) : max(lo + length - total, 0)]
            total += len(piece)
            if total > entry.size:
                break
            if len(kept) == length and total < entry.size:
                return bytes(kept)
        check_length(key, entry.size, total)
        _check_crc(key, entry, crc)
        return bytes(kept)

    def _pieces(self, key: str, entry: Entry) -> Iterator[bytes]:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        stop = entry.data + entry.stored
        for at in range(entry.data, stop, _PIECE):
            packed = self._pread(at, min(_PIECE, stop - at))
            check_length(key, min(_PIECE, stop - at), len(packed))
            while packed and not stream.eof:
                try:
                    yield stream.decompress(packed, _PIECE)
                except zlib.error as cause:
                    raise DataError(f"the zip entry is damaged: {cause}", key=key) from cause
                packed = stream.unconsumed_tail
        yield stream.flush()


class _Descriptor:
    """A descriptor of one's own for a file that is open; closed with the last reference."""

    fd = -1

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class ZipFileReader(ZipReader):
    """Entries of an archive that is an open file; subclasses open it."""

    _fd: int
    _lock: threading.Lock | threading.RLock

    def _pread(self, offset: int, nbytes: int) -> bytes:
        if hasattr(os, "pread"):
            return atomic.read_bytes(self._fd, nbytes, offset)
        with self._lock:
            return atomic.read_bytes(self._fd, nbytes, offset)

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if not hasattr(os, "pread"):
            return super().read_spans(spans, memory)
        starts, lengths, places, total = [], [], [], 0
        for key, offset, nbytes in spans:
            try:
                entry = self._find(key)
            except OSError as cause:
                fail("read", key, cause)
            starts.append(total)
            if entry is None:
                lengths.append(-1)
                places.append(0)
                continue
            if entry.method != STORED:
                return super().read_spans(spans, memory)
            lo, length = entry_range(entry, offset, nbytes)
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
                check_length(key, length, got)
        return base, starts, lengths

    def files(self) -> Files | None:
        if not hasattr(os, "pread"):
            return None
        self._load()
        if self._fd < 0:
            return None
        # Values stay where they are, and new ones come behind them; but the store may be closed, or
        # begin to write, while others read.
        try:
            held = _Descriptor(self._fd)
        except OSError:
            return None  # no descriptor is to be had: what opens none can still read
        return Files(descriptor=held.fd, values=lambda keys: (self._places(keys), held))

    def _places(self, keys: list[str]) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = []
        for key in keys:
            try:
                entry = self._find(key)
            except OSError as cause:
                fail("read", key, cause)
            if entry is None:
                places.append((0, MISSING))
            elif entry.method != STORED:
                places.append((0, REST))
            else:
                places.append((entry.data, entry.size))
        return places


def entry_range(entry: Entry, offset: int, nbytes: int) -> tuple[int, int]:
    """Start and length, inside the value, of a range with the conventions of ``ByteRequest``."""
    lo = max(entry.size + offset, 0) if offset < 0 else min(offset, entry.size)
    return lo, entry.size - lo if nbytes == REST else min(nbytes, entry.size - lo)


def check_length(key: str, expected: int, actual: int) -> None:
    """Complain of bytes that are not there."""
    if actual != expected:
        raise DataError(
            "the zip entry is damaged or cut short", key=key, expected=expected, actual=actual
        )


def _check_crc(key: str, entry: Entry, crc: int) -> None:
    if crc != entry.crc:
        raise DataError("the zip entry's checksum is wrong", key=key)


def _is_key(name: str) -> bool:
    """Names that would leave the store are not keys."""
    try:
        check_key(name)
    except InvalidKeyError:
        return False
    return True
