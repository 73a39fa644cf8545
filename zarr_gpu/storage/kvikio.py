"""Local files read straight into device memory by kvikio, through GPUDirect Storage where it is on.

Only the way of a file's bytes differs from ``LocalStore``: keys, coalescing and errors are the
same.  Where GPUDirect Storage is off, kvikio copies through small page-locked buffers of its own.

The only file that imports kvikio, and only on first use.  Imports ``storage.local``; used by the
CUDA device.
"""

# Plain system calls, as in storage.local.
# ruff: noqa: PTH116

from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack, suppress
from typing import Any

from zarr_gpu.errors import DataError, MissingDependencyError, StoreError
from zarr_gpu.extents import MISSING, REST, Memory
from zarr_gpu.storage.base import ALIGNMENT, Store
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.wrappers import ReadOnlyStore

__all__ = ["KvikioStore", "direct_is_on"]

THREADS = 8
"""Threads of kvikio, unless the user chose a number: its own default is one."""

ATTEMPTS = 12

_lock = threading.Lock()
_is_set_up = False

_File = tuple[int, int, int]  # inode, size, time of the last change: what tells versions apart


def _kvikio() -> Any:
    """The library, set up for reading; raises MissingDependencyError."""
    global _is_set_up
    try:
        import kvikio
        import kvikio.defaults
    except Exception as cause:  # whatever a broken installation raises
        raise MissingDependencyError(
            f"reading files with kvikio needs kvikio and a CUDA driver: {cause}"
        ) from cause
    with _lock:
        if not _is_set_up:
            _is_set_up = True
            if kvikio.defaults.get("num_threads") == 1:
                kvikio.defaults.set({"num_threads": THREADS})
            kvikio.defaults.set({"auto_direct_io_write": False})  # would open every file twice
    return kvikio


def direct_is_on() -> bool:
    """Whether files go to the device without touching host memory.  Never raises.

    A cuFile that can be used is not enough: without its kernel module it copies through host
    memory, and slowly.
    """
    try:
        library = _kvikio()
        import kvikio.cufile_driver

        compat = library.defaults.is_compat_mode_preferred()
        return not compat and bool(kvikio.cufile_driver.get("is_gds_available"))
    except Exception:  # noqa: BLE001  then it is not
        return False


class KvikioStore(LocalStore):
    """A ``LocalStore`` that can read into device memory.

    Parameters
    ----------
    store
        The store to read from.

    Raises
    ------
    MissingDependencyError
        kvikio cannot be imported.
    """

    def __init__(self, store: LocalStore) -> None:
        super().__init__(
            store.root,
            read_only=store.read_only,
            durable=store.durable,
            follow_symlinks=store.follow_symlinks,
        )
        self.max_gap, self.max_coalesced = store.max_gap, store.max_coalesced
        self._kvikio = _kvikio()

    @classmethod
    def of(cls, store: Store) -> KvikioStore | None:
        """The same files as ``store``, None where it is no plain folder of files."""
        inner = store.store if type(store) is ReadOnlyStore else store
        return cls(inner) if type(inner) is LocalStore else None

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if memory.kind != "device":
            return super().read_spans(spans, memory)
        for _ in range(ATTEMPTS):
            files = {key: self._look(key) for key, _, _ in spans}
            base, starts, lengths = self._read_files(spans, files, memory)
            if all(self._look(key) == file for key, file in files.items()):
                return base, starts, lengths
        raise StoreError(
            f"files below {self._root!r} are being replaced faster than they can be read",
            key=spans[0][0],
        )

    def _look(self, key: str) -> _File | None:
        """What is there now, None where there is no such file."""
        path = self._prefix + key
        if not self.follow_symlinks:
            self._refuse_escape(path, key)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as cause:
            self._fail("read", key, cause)
        is_file = stat.S_ISREG(status.st_mode)
        return (status.st_ino, status.st_size, status.st_mtime_ns) if is_file else None

    def _read_files(
        self, spans: list[Span], files: dict[str, _File | None], memory: Memory
    ) -> tuple[Any, list[int], list[int]]:
        starts: list[int] = []
        places: list[tuple[int, int]] = []  # offset in the file, length
        total = 0
        for key, offset, nbytes in spans:
            file = files[key]
            places.append((0, MISSING) if file is None else _place(offset, nbytes, file[1]))
            starts.append(total)
            total += (max(places[-1][1], 0) + ALIGNMENT - 1) & -ALIGNMENT
        base = memory.empty(total)
        for lo in range(0, len(spans), self.max_open):
            part = slice(lo, lo + self.max_open)
            self._read_part(spans[part], places[part], starts[part], base)
        return base, starts, [length for _, length in places]

    def _read_part(
        self, spans: list[Span], places: list[tuple[int, int]], starts: list[int], base: Any
    ) -> None:
        """All reads at once; they use threads of kvikio's."""
        with ExitStack() as opened:
            files: dict[str, Any] = {}
            running: list[tuple[str, int, Any]] = []
            key = ""
            try:
                for (key, _, _), (offset, length), start in zip(spans, places, starts, strict=True):
                    if length <= 0:
                        continue
                    if key not in files:
                        file = self._kvikio.CuFile(self._prefix + key, "r")
                        files[key] = opened.enter_context(file)
                    target = base[start : start + length]
                    running.append((key, length, files[key].pread(target, length, offset)))
            except Exception as cause:  # noqa: BLE001
                _settle(running)
                fail("read", key, cause)
            for i, (key, length, future) in enumerate(running):
                try:
                    got = future.get()
                except Exception as cause:  # noqa: BLE001
                    _settle(running[i + 1 :])
                    fail("read", key, cause)
                if got != length:
                    _settle(running[i + 1 :])
                    raise DataError(
                        "the file became shorter while being read",
                        key=key,
                        expected=length,
                        actual=got,
                    )


def _settle(running: list[tuple[str, int, Any]]) -> None:
    """Wait for reads whose outcome does not count any more: they fill memory that is in use."""
    for _, _, future in running:
        with suppress(Exception):
            future.get()


def _place(offset: int, nbytes: int, size: int) -> tuple[int, int]:
    """Where a span begins and how long it is, in a file of ``size`` bytes."""
    if offset < 0:
        start = max(size + offset, 0)
        return start, size - start
    there = max(size - offset, 0)
    return offset, there if nbytes == REST else min(nbytes, there)
