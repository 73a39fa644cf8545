"""Where a cache keeps byte ranges: a bounded space in memory or in a folder.

Not thread-safe by itself: the cache holds its lock.  Imports ``extents`` and ``storage.atomic``;
called by ``storage/cache.py``.
"""

# ruff: noqa: PTH108, PTH118  plain system calls

from __future__ import annotations

import hashlib
import os
import zlib
from collections import OrderedDict

from zarr_gpu.extents import REST
from zarr_gpu.storage import atomic

__all__ = ["ABSENT", "FolderSpace", "MemorySpace"]

ABSENT = object()
"""Kept in the place of bytes: the key is absent."""

Place = tuple[str, int, int]


class _Space:
    """Which ranges are kept, in the order of their use, and how many bytes they take."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self._used: OrderedDict[Place, int] = OrderedDict()  # bytes of each range
        self._of: dict[str, set[Place]] = {}

    def find(self, key: str, offset: int, nbytes: int) -> bytes | object | None:
        """Bytes of a range, ABSENT where it is known that the key is absent, None if unknown."""
        token = self._token(key)
        kept = self._of.get(token)
        if not kept:
            return None
        for place in self._candidates(kept, token, offset, nbytes):
            data = self._get(place)
            if data is None:  # lost: somebody else has tidied up the folder
                self._discard(place)
                continue
            self._used.move_to_end(place)
            if data is ABSENT or place[1:] == (offset, nbytes):
                return data
            return _part(data, offset - place[1] if offset >= 0 else offset, nbytes)  # type: ignore[arg-type]
        return None

    @staticmethod
    def _candidates(kept: set[Place], token: str, offset: int, nbytes: int) -> list[Place]:
        likely = dict.fromkeys(((token, offset, nbytes), (token, 0, REST)))
        found = [place for place in likely if place in kept]
        if not found and offset >= 0 and nbytes >= 0:
            found = [
                place
                for place in kept
                if 0 <= place[1] <= offset and place[2] >= 0
                if offset + nbytes <= place[1] + place[2]
            ][:1]
        return found

    def add(self, key: str, offset: int, nbytes: int, data: bytes | object) -> None:
        """Keep a range, if it fits at all."""
        place = (self._token(key), offset, nbytes)
        size = len(place[0]) + (len(data) if isinstance(data, bytes) else 0)
        if place in self._used:
            self._discard(place)
        if size > self.max_bytes:
            return
        while self.held + size > self.max_bytes:
            self._discard(next(iter(self._used)))
        if self._set(place, data):
            self._note(place, size)

    def drop(self, key: str) -> None:
        """Forget all of one key."""
        for place in list(self._of.get(self._token(key), ())):
            self._discard(place)

    def clear(self) -> None:
        """Forget everything."""
        for place in list(self._used):
            self._discard(place)

    def _note(self, place: Place, size: int) -> None:
        self._used[place] = size
        self._of.setdefault(place[0], set()).add(place)
        self.held += size

    def _discard(self, place: Place) -> None:
        self.held -= self._used.pop(place)
        kept = self._of[place[0]]
        kept.discard(place)
        if not kept:
            del self._of[place[0]]
        self._delete(place)

    # ---- for the two kinds ---------------------------------------------------------------------

    def _token(self, key: str) -> str:
        return key

    def _get(self, place: Place) -> bytes | object | None:
        raise NotImplementedError

    def _set(self, place: Place, data: bytes | object) -> bool:
        raise NotImplementedError

    def _delete(self, place: Place) -> None:
        raise NotImplementedError


def _part(data: bytes, lo: int, nbytes: int) -> bytes:
    """A range of a range; shorter where the value ends."""
    if lo < 0:
        lo = max(len(data) + lo, 0)
    return data[lo:] if nbytes == REST else data[lo : lo + nbytes]


class MemorySpace(_Space):
    """Ranges as ``bytes`` in this process."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._data: dict[Place, bytes | object] = {}

    def _get(self, place: Place) -> bytes | object | None:
        return self._data.get(place)

    def _set(self, place: Place, data: bytes | object) -> bool:
        self._data[place] = data
        return True

    def _delete(self, place: Place) -> None:
        self._data.pop(place, None)


class FolderSpace(_Space):
    """Ranges as files, named by a hash of store and key, and by the range.

    A file is its bytes, one byte that tells bytes from ABSENT, and a checksum: what does not agree
    with it counts as lost.  A folder that cannot be written keeps nothing.
    """

    def __init__(self, max_bytes: int, folder: str, name: str) -> None:
        super().__init__(max_bytes)
        self.folder = folder
        self._name = name.encode("utf-8", "surrogateescape")
        atomic.make_directories(folder, durable=False)
        found = []
        with os.scandir(folder) as files:
            for file in files:
                parts = file.name.split(".")
                if len(parts) == 3 and len(parts[0]) == 40:
                    status = file.stat()
                    place = (parts[0], int(parts[1]), int(parts[2]))
                    found.append((status.st_mtime_ns, place, status.st_size - 5 + 40))
        for _, place, size in sorted(found):
            self._note(place, size)
        while self.held > max_bytes:
            self._discard(next(iter(self._used)))

    def _token(self, key: str) -> str:
        text = self._name + b"\0" + key.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=20).hexdigest()

    def _path(self, place: Place) -> str:
        return os.path.join(self.folder, ".".join(map(str, place)))

    def _get(self, place: Place) -> bytes | object | None:
        try:
            with open(self._path(place), "rb") as file:  # noqa: PTH123
                content = file.read()
        except OSError:
            return None
        if len(content) < 5 or zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
            return None
        return ABSENT if content[-5:-4] == b"-" else content[:-5]

    def _set(self, place: Place, data: bytes | object) -> bool:
        content = data + b"+" if isinstance(data, bytes) else b"-"
        content += zlib.crc32(content).to_bytes(4, "little")
        try:
            atomic.replace_file(self._path(place), memoryview(content), durable=False)
        except OSError:
            return False
        return True

    def _delete(self, place: Place) -> None:
        try:
            os.unlink(self._path(place))
        except OSError:
            return
