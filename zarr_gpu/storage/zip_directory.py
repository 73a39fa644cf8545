"""The zip format: the central directory, local headers, and both of them written.

Whatever a directory says is checked against the file before it is used: sizes, places, overlaps and
names.  No input or output: bytes come through a function ``read(offset, nbytes)``.  Imports
``errors``; called by the stores of zip files.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from zarr_gpu.errors import DataError, StoreError

__all__ = [
    "DEFLATED",
    "STORED",
    "Directory",
    "Entry",
    "directory_bytes",
    "header_size",
    "local_header",
    "parse",
    "scan",
]

STORED, DEFLATED = 0, 8

Read = Callable[[int, int], bytes]
"""``nbytes`` bytes from ``offset``; fewer only where the file ends."""

_LOCAL = struct.Struct("<4s5H3I2H")
_RECORD = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_LOCAL_MAGIC, _RECORD_MAGIC, _END_MAGIC = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END64_MAGIC, _LOCATOR64_MAGIC = b"PK\6\6", b"PK\6\7"

_BIG, _MANY = 0xFFFFFFFF, 0xFFFF
_UTF8, _ENCRYPTED, _SIZES_FOLLOW = 0x800, 0x2041, 0x8
_DATE = 0x21  # 1 January 1980: equal contents make equal files
_MOST_DEFLATED = 1100
"""No deflate stream grows by more than this factor: entries that claim so are lies."""


@dataclass(slots=True)
class Entry:
    """One value in the file."""

    header: int  # offset of the local header
    method: int
    stored: int  # bytes in the file
    size: int  # bytes of the value
    crc: int
    flags: int
    data: int = -1  # offset of the data, once known


@dataclass(slots=True)
class Directory:
    """What the end of a zip file says of it."""

    entries: dict[str, Entry] = field(default_factory=dict)
    """By name; of equal names the last."""

    comment: bytes = b""
    starts: list[int] = field(default_factory=list)
    """Sorted: where every local header begins, those of replaced entries too, and the end."""

    shift: int = 0
    """Bytes before the archive proper."""

    def locate(self, key: str, entry: Entry, read: Read) -> int:
        """Offset of an entry's data, once everything said about it has been checked.

        Raises
        ------
        StoreError
            It is encrypted or of an unknown method.
        DataError
            Its sizes contradict each other, its local header is another's, or it overlaps the next.
        """
        if entry.flags & _ENCRYPTED:
            raise StoreError("the zip entry is encrypted", key=key)
        if entry.method not in {STORED, DEFLATED}:
            raise StoreError(f"zip compression method {entry.method} is not supported", key=key)
        if (entry.method == STORED and entry.stored != entry.size) or (
            entry.size > entry.stored * _MOST_DEFLATED + 64
        ):
            raise DataError(
                "the zip entry's sizes contradict each other",
                key=key,
                expected=entry.size,
                actual=entry.stored,
            )
        name = _raw_name(key, entry.flags)
        header = read(entry.header, _LOCAL.size + len(name)) if entry.header >= 0 else b""
        if len(header) < _LOCAL.size + len(name) or header[:4] != _LOCAL_MAGIC:
            raise DataError("the zip entry's local header is damaged", key=key)
        *_, name_length, extra_length = _LOCAL.unpack_from(header)
        if name_length != len(name) or header[_LOCAL.size :] != name:
            raise DataError("the zip entry's local header names another entry", key=key)
        data = int(entry.header + _LOCAL.size + name_length + extra_length)
        i = bisect_right(self.starts, entry.header)
        limit = self.starts[i] if i < len(self.starts) else entry.header
        shared = i >= 2 and self.starts[i - 2] == entry.header
        if shared or data + entry.stored > limit:
            raise DataError(
                "the zip entry overlaps another one",
                key=key,
                expected=data + entry.stored,
                actual=limit,
            )
        return data


def header_size(key: str, entry: Entry) -> int:
    """Bytes that ``Directory.locate`` reads of the local header."""
    return _LOCAL.size + len(_raw_name(key, entry.flags))


# ---- reading -----------------------------------------------------------------------------------


def parse(read: Read, size: int) -> Directory:
    """Read the directory of a zip file of ``size`` bytes.

    Bytes before the first entry are allowed, as of programs that unpack themselves; bytes after
    the end are not.

    Raises
    ------
    StoreError
        This is no zip file, it was cut short, or its directory is damaged.
    """
    tail_start = max(size - _END.size - _MANY, 0)
    tail = read(tail_start, size - tail_start)
    at = len(tail)
    while True:
        at = tail.rfind(_END_MAGIC, 0, at)
        if at < 0:
            raise StoreError("the end of its directory is missing")
        if at + _END.size <= len(tail):
            _, disk, first_disk, here, count, nbytes, offset, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == len(tail):
                break
    comment = tail[at + _END.size :]
    end = tail_start + at
    many = False
    if end >= _LOCATOR64.size:
        magic, _, where, disks = _LOCATOR64.unpack(read(end - _LOCATOR64.size, _LOCATOR64.size))
        if magic == _LOCATOR64_MAGIC:
            many = True
            end, (disk, first_disk, here, count, nbytes, offset) = _end64(read, end, where)
            if disks > 1:
                raise StoreError("it is one of several volumes")
    if disk or first_disk or here != count:
        raise StoreError("it is one of several volumes")
    begin = end - nbytes
    shift = begin - offset  # bytes before the archive proper
    if begin < 0 or shift < 0:
        raise StoreError(f"its directory of {nbytes} bytes cannot end at byte {end}")
    return _records(read(begin, nbytes), count, begin, shift, comment, many=many)


def _end64(read: Read, end: int, where: int) -> tuple[int, tuple[int, ...]]:
    """The 64-bit end of the directory: where it begins, and the numbers in it."""
    # Its place is right before the locator, unless it has a tail; bytes before the archive shift
    # what the locator says.
    for at in (end - _LOCATOR64.size - _END64.size, where):
        data = read(at, _END64.size) if at >= 0 else b""
        if len(data) == _END64.size and data[:4] == _END64_MAGIC:
            return at, _END64.unpack(data)[4:]
    raise StoreError("the 64-bit end of its directory is missing")


def _records(
    data: bytes, count: int, begin: int, shift: int, comment: bytes, *, many: bool
) -> Directory:
    entries: dict[str, Entry] = {}
    starts = [begin]
    at, seen = 0, 0
    while at < len(data):
        if at + _RECORD.size > len(data) or data[at : at + 4] != _RECORD_MAGIC:
            raise StoreError(f"entry {seen} of its directory is damaged")
        numbers = _RECORD.unpack_from(data, at)
        _, _, _, flags, method, _, _, crc, stored, size = numbers[:10]
        n_name, n_extra, n_comment, _, _, _, place = numbers[10:]
        lo = at + _RECORD.size
        hi = lo + n_name
        at = hi + n_extra + n_comment
        if at > len(data):
            raise StoreError(f"entry {seen} of its directory is damaged")
        if _BIG in (size, stored, place):
            size, stored, place = _extra64(data[hi : hi + n_extra], size, stored, place, seen)
        seen += 1
        place += shift
        starts.append(place)
        raw = data[lo:hi]
        if raw[-1:] != b"/":  # a folder is no value
            name = raw.decode("utf-8" if flags & _UTF8 else "cp437", "surrogateescape")
            entries[name] = Entry(place, method, stored, size, crc, flags)
    if seen != count and (many or seen & _MANY != count):
        raise StoreError(f"its directory has {seen} entries instead of {count}")
    starts.sort()
    return Directory(entries, comment, starts, shift)


def _extra64(extra: bytes, size: int, stored: int, place: int, number: int) -> tuple[int, int, int]:
    """Fill in those of three numbers that did not fit their 32 bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
            numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
            try:
                size = next(numbers) if size == _BIG else size
                stored = next(numbers) if stored == _BIG else stored
                place = next(numbers) if place == _BIG else place
            except StopIteration:
                break
            return size, stored, place
        at += 4 + length
    raise StoreError(f"entry {number} of its directory lacks its 64-bit sizes")


def _raw_name(name: str, flags: int) -> bytes:
    """The bytes that a name had in the file, or will have."""
    if flags & _UTF8 or name.isascii():
        return name.encode("utf-8", "surrogateescape")
    return name.encode("cp437", "surrogateescape")


# ---- writing -----------------------------------------------------------------------------------


def local_header(name: str, entry: Entry) -> bytes:
    """What stands before the data of an entry."""
    entry.flags = 0 if name.isascii() else _UTF8
    raw = _raw_name(name, entry.flags)
    stored, size, extra, version = entry.stored, entry.size, b"", 20
    if stored >= _BIG or size >= _BIG:
        extra = struct.pack("<2H2Q", 1, 16, size, stored)
        stored = size = _BIG
        version = 45
    head = _LOCAL.pack(
        _LOCAL_MAGIC,
        version,
        entry.flags,
        entry.method,
        0,
        _DATE,
        entry.crc,
        stored,
        size,
        len(raw),
        len(extra),
    )
    return head + raw + extra


def directory_bytes(entries: Iterable[tuple[str, Entry]], begin: int, comment: bytes) -> bytes:
    """The end of a zip file: its directory, to be written at ``begin``, and what follows it."""
    parts = []
    count = 0
    for name, entry in entries:
        raw = _raw_name(name, entry.flags)
        wide = [n for n in (entry.size, entry.stored, entry.header) if n >= _BIG]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        parts += [
            _RECORD.pack(
                _RECORD_MAGIC,
                0x031E,  # made on Unix
                45 if wide else 20,
                entry.flags,
                entry.method,
                0,
                _DATE,
                entry.crc,
                min(entry.stored, _BIG),
                min(entry.size, _BIG),
                len(raw),
                len(extra),
                0,
                0,
                0,
                0o100644 << 16,
                min(entry.header, _BIG),
            ),
            raw,
            extra,
        ]
        count += 1
    nbytes = sum(map(len, parts))
    if count >= _MANY or nbytes >= _BIG or begin >= _BIG:
        end = begin + nbytes
        parts.append(_END64.pack(_END64_MAGIC, 44, 0x031E, 45, 0, 0, count, count, nbytes, begin))
        parts.append(_LOCATOR64.pack(_LOCATOR64_MAGIC, 0, end, 1))
    few = min(count, _MANY)
    parts.append(
        _END.pack(_END_MAGIC, 0, 0, few, few, min(nbytes, _BIG), min(begin, _BIG), len(comment))
    )
    parts.append(comment)
    return b"".join(parts)


# ---- recovering --------------------------------------------------------------------------------


def scan(read: Read, start: int, stop: int) -> Iterator[tuple[str, Entry, int]]:
    """Entries that lie between two offsets without a directory: (name, entry, end).

    As far as they are complete: ends before the first whose header or checksum is wrong.
    """
    at = start
    while at + _LOCAL.size <= stop:
        header = read(at, _LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != _LOCAL_MAGIC:
            return
        _, _, flags, method, _, _, crc, stored, size, n_name, n_extra = _LOCAL.unpack(header)
        rest = read(at + _LOCAL.size, n_name + n_extra)
        if len(rest) < n_name + n_extra or flags & (_ENCRYPTED | _SIZES_FOLLOW):
            return
        if _BIG in {stored, size}:
            try:
                size, stored, _ = _extra64(rest[n_name:], size, stored, 0, 0)
            except StoreError:
                return
        data = at + _LOCAL.size + n_name + n_extra
        if data + stored > stop or not _intact(read, data, stored, size, crc, method):
            return
        try:
            name = rest[:n_name].decode()
        except UnicodeDecodeError:
            return
        yield name, Entry(at, method, stored, size, crc, flags, data), data + stored
        at = data + stored


def _intact(read: Read, data: int, stored: int, size: int, crc: int, method: int) -> bool:
    piece = 1 << 20
    found = total = 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if method == DEFLATED else None
    for at in range(data, data + stored, piece):
        packed = read(at, min(piece, data + stored - at))
        while packed:
            try:
                plain = inflate.decompress(packed, piece) if inflate else packed
            except zlib.error:
                return False
            packed = inflate.unconsumed_tail if inflate else b""
            found = zlib.crc32(plain, found)
            total += len(plain)
            if total > size:
                return False
    return found == crc and total == size
