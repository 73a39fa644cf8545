"""The file beside a zip file that says that it is being written.

``.NAME.log.zg~`` exists from the first change of ``NAME`` until its directory is written.  Its
first line holds how long the file was before, which is how much of it is a whole archive, and a
checksum of that archive's end, by which a journal of another file of this name is told.  Every
deletion adds a line.  The writer holds a lock on the journal; one without a lock was left by a
writer that died, and from it the next writer recovers what that one had written.  On systems
without file locks every journal is taken for a dead writer's.

Plain files; imports ``errors`` and ``storage.atomic``; called by ``storage/zip.py``.
"""

# ruff: noqa: PTH108, PTH116, PTH118  system calls on one path

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from zarr_gpu.errors import StoreError
from zarr_gpu.storage import atomic

T = TypeVar("T")

__all__ = ["BusyError", "Journal", "Record", "journal_path", "read_journal", "replay"]


class BusyError(StoreError):
    """Another writer is at work."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a journal says."""

    start: int  # bytes of the archive before it was changed; 0 where there was none
    end_crc: int  # CRC-32 of the last bytes of that archive
    deleted: list[tuple[int, str]]  # (bytes of the file at that time, key)


def journal_path(path: str) -> str:
    """Where the journal of the zip file ``path`` lies."""
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) > 240:  # of 255 bytes
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}.log.zg~")


def read_journal(path: str) -> Record | None:
    """What the journal of the zip file ``path`` says; None where nobody has changed the file."""
    try:
        fd = os.open(journal_path(path), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    try:
        return _read(fd)
    finally:
        os.close(fd)


def replay(record: Record, entries: dict[str, T], found: Iterable[tuple[str, T, int]]) -> int:
    """Do to ``entries`` what a journal and the file beside it tell of.

    Parameters
    ----------
    found
        Name, entry and end of each complete value behind the old archive, in their order.

    Returns
    -------
    int
        Where the last of them ends.
    """
    done = record.start
    deleted = deque(sorted(record.deleted))
    for name, entry, end in found:
        while deleted and deleted[0][0] <= done:  # made before this value was stored
            entries.pop(deleted.popleft()[1], None)
        entries[name] = entry
        done = end
    for at, key in deleted:
        if at <= done:
            entries.pop(key, None)
    return done


def _read(fd: int) -> Record | None:
    data = bytearray()
    os.lseek(fd, 0, os.SEEK_SET)
    while piece := os.read(fd, 1 << 20):
        data += piece
    lines = bytes(data).split(b"\n")[:-1]  # a line that was cut short was not acted on
    if not lines:
        return None
    try:
        head = json.loads(lines[0])
        start, end_crc = int(head["start"]), int(head["end_crc"])
        deleted = [(int(at), str(key)) for at, key in map(json.loads, lines[1:])]
    except (ValueError, TypeError, KeyError) as cause:
        raise StoreError(f"the journal of an unfinished zip file is damaged: {cause}") from cause
    return Record(start, end_crc, deleted)


class Journal:
    """The right to write one zip file."""

    def __init__(self, path: str) -> None:
        self.path = journal_path(path)
        self.fd = -1
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            fd = os.open(self.path, flags, 0o666)
            if not atomic.lock(fd):
                os.close(fd)
                raise BusyError(f"{path!r} is being written by another process or store")
            if _still_named(fd, self.path):  # else its writer has just finished
                break
            os.close(fd)
        self.fd = fd
        try:
            self.left = _read(fd)  # what a writer that died had noted
        except BaseException:
            self.release()
            raise

    def begin(self, start: int, end_crc: int) -> None:
        """Note how much of the file is a whole archive; before anything of it is changed."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        os.write(self.fd, json.dumps({"start": start, "end_crc": end_crc}).encode() + b"\n")

    def delete(self, end: int, keys: list[str]) -> None:
        """Note that keys were deleted when the file was ``end`` bytes long."""
        lines = b"".join(json.dumps([end, key]).encode() + b"\n" for key in keys)
        os.lseek(self.fd, 0, os.SEEK_END)
        os.write(self.fd, lines)

    def finish(self) -> None:
        """The file is a whole archive again."""
        if not atomic.HAS_LOCKS:  # Windows cannot remove what is open
            self.release()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.release()

    def release(self) -> None:
        """Give the lock back, and leave the journal where it is."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _still_named(fd: int, path: str) -> bool:
    mine = os.fstat(fd)
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)
