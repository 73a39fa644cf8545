"""Reading the entries of a zip archive, wherever its bytes lie.

Stored entries, the usual case, are byte ranges of the archive; deflated ones are decoded piece by
piece, so that a range costs the memory of the range.  Checksums are verified where a whole value is
read by itself, and for deflated values whenever they are decoded to their end.  Imports ``errors``,
``extents`` and ``storage.base``; called by the stores of zip files.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterator

from zarr_gpu.errors import DataError, InvalidKeyError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.zip_directory import DEFLATED, Directory, Entry

__all__ = ["ZipReader", "check_length", "entry_range"]

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
