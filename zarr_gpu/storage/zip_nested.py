"""A zip archive that is itself a value in another store, read through byte ranges.

Reading an entry asks the other store for a range of the archive's value, and many entries for many
ranges at once, so that an archive behind HTTP or in object storage is read without being fetched as
a whole.  Imports ``errors``, ``extents``, ``storage.base`` and the ``zip_*`` files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from zarr_gpu.errors import NodeNotFoundError, StoreError
from zarr_gpu.extents import MISSING, ByteRequest, Extents, HostMemory, Memory
from zarr_gpu.storage.base import Store, gather
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.zip_directory import STORED, Directory, header_size, parse
from zarr_gpu.storage.zip_reading import ZipReader, check_length, entry_range

__all__ = ["NestedZipStore"]


class NestedZipStore(ZipReader):
    """The zip archive that ``store`` holds under ``key``, read-only.

    Raises
    ------
    NodeNotFoundError
        There is nothing under ``key``.
    StoreError
        The value is no zip file, or is damaged.

    Examples
    --------
    >>> import io, zipfile
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> file = io.BytesIO()
    >>> with zipfile.ZipFile(file, "w") as archive:
    ...     archive.writestr("a/x", b"value")
    >>> outer = MemoryStore({"all.zip": file.getvalue()})
    >>> NestedZipStore(outer, "all.zip").get("a/x")
    b'value'
    """

    read_only = True
    supports_writes = False

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = check_key(key)
        self.concurrency = store.concurrency
        self.max_gap = store.max_gap
        self.max_coalesced = store.max_coalesced
        self._reset()
        self._load()  # complain now, not at the first read

    def _reset(self) -> None:
        self._directory: Directory | None = None
        self._lock = threading.Lock()

    def _load(self) -> Directory:
        directory = self._directory
        if directory is not None:
            return directory
        size = self.store.nbytes(self.key)
        if size is None:
            raise NodeNotFoundError(f"{self.store!r} holds no {self.key!r}", key=self.key)
        try:
            self._directory = directory = parse(self._pread, size)
        except StoreError as cause:
            raise StoreError(
                f"{self.key!r} is not a readable zip file: {cause}", key=self.key
            ) from cause
        return directory

    def _pread(self, offset: int, nbytes: int) -> bytes:
        if nbytes == 0:
            return b""
        answer = self._ask([offset], [nbytes], HostMemory())
        if answer.nbytes[0] == MISSING:
            raise StoreError("the zip file is gone", key=self.key)
        lo = answer.offset.item(0)
        return bytes(answer.base[lo : lo + nbytes])

    def _ask(self, offsets: list[int], sizes: list[int], memory: Memory) -> Extents:
        request = ByteRequest(
            [self.key],
            np.zeros(len(sizes), np.int64),
            np.array(offsets, np.int64),
            np.array(sizes, np.int64),
        )
        return self.store.fetch(request, memory)

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        self._find_all([key for key, _, _ in spans])
        entries = [self._find(key) for key, _, _ in spans]
        if any(entry is not None and entry.method != STORED for entry in entries):
            return super().read_spans(spans, memory)
        ranges = [
            (0, MISSING) if entry is None else entry_range(entry, offset, nbytes)
            for entry, (_, offset, nbytes) in zip(entries, spans, strict=True)
        ]
        places = [
            0 if entry is None else entry.data + lo
            for entry, (lo, _) in zip(entries, ranges, strict=True)
        ]
        answer = self._ask(places, [length for _, length in ranges], HostMemory())
        values: list[memoryview | None] = []
        for (key, _, _), (_, wanted), lo, got in zip(
            spans, ranges, answer.offset.tolist(), answer.nbytes.tolist(), strict=True
        ):
            check_length(key, wanted, got)
            values.append(None if got == MISSING else memoryview(answer.base[lo : lo + got]))
        return gather(values, memory)  # which aligns them

    def _find_all(self, keys: list[str]) -> None:
        """Read the local headers that were not read yet together."""
        directory = self._load()
        wanted = [
            (key, entry)
            for key in dict.fromkeys(keys)
            if (entry := directory.entries.get(key)) is not None and entry.data < 0
        ]
        if len(wanted) < 2:
            return
        sizes = [header_size(key, entry) for key, entry in wanted]
        try:
            answer = self._ask([entry.header for _, entry in wanted], sizes, HostMemory())
        except ValueError:  # one of them lies beyond the end: reading it alone will tell which
            return
        for (key, entry), lo, n in zip(wanted, answer.offset.tolist(), sizes, strict=True):
            header = bytes(answer.base[lo : lo + n])
            entry.data = directory.locate(key, entry, _answering(header))

    def close(self) -> None:
        self.store.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in {"_directory", "_lock"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NestedZipStore):
            return NotImplemented
        return self.key == other.key and self.store == other.store

    def __hash__(self) -> int:
        return hash((NestedZipStore, self.store, self.key))

    def __repr__(self) -> str:
        return f"NestedZipStore({self.store!r}, {self.key!r})"


def _answering(data: bytes) -> Callable[[int, int], bytes]:
    """A function that reads the one range whose bytes are known already."""
    return lambda _offset, nbytes: data[:nbytes]
