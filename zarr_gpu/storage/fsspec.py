"""Values behind any fsspec file system: object stores, HTTP, and many more.

Imports ``errors``, ``extents`` and ``storage.base``; ``fsspec`` only on first use.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.attempts import PASSING_STATUS, retrying
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view, gather
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.spans import Span

__all__ = ["FsspecStore"]

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_EXTRAS = {"s3": "s3", "s3a": "s3"}


class FsspecStore(Store):
    """Values below ``path`` of a file system.

    Parameters
    ----------
    fs
        An ``fsspec.AbstractFileSystem`` (not one made with ``asynchronous=True``).
    path
        Where in the file system the store begins.
    read_only
        Refuse writes.
    concurrency
        Requests in flight at once; by default 32 for file systems that are asynchronous inside
        and 1 for others.
    retries
        How often a read is tried again after 5xx, 429, a broken connection or a timeout.  Many
        file systems do so themselves already.

    Only the file system's own "not found" is an absent key.  Some object stores say "forbidden"
    instead where the caller may not list: that is an error here, as it could hide data.

    Examples
    --------
    >>> import fsspec
    >>> store = FsspecStore(fsspec.filesystem("memory"), "/example.zarr")
    >>> store.put("x", b"1")
    >>> store.get("x")
    b'1'
    """

    def __init__(
        self,
        fs: Any,
        path: str = "",
        *,
        read_only: bool = False,
        concurrency: int | None = None,
        retries: int = 3,
    ) -> None:
        if getattr(fs, "asynchronous", False):
            raise StoreError(
                "a file system made with asynchronous=True belongs to one event loop: "
                "make it without"
            )
        self._fs = fs
        self._pid = os.getpid()
        self.path: str = fs._strip_protocol(path).rstrip("/")  # noqa: SLF001  fsspec's usage
        self._start = f"{self.path}/" if self.path or str(path).startswith("/") else ""
        self._remote = bool(getattr(fs, "async_impl", False))
        self.read_only = read_only
        self.retries = retries
        self.concurrency = concurrency or (32 if self._remote else 1)
        if self._remote:
            self.max_gap = 1 << 20

    @classmethod
    def from_url(
        cls, url: str, *, storage_options: Mapping[str, Any] | None = None, read_only: bool = False
    ) -> FsspecStore:
        """The store at a URL that fsspec knows, chained ones too.

        Of ``storage_options``, ``concurrency`` and ``retries`` are the store's; fsspec takes the
        others.

        Raises
        ------
        MissingDependencyError
            The package for this kind of URL is not installed.
        InvalidKeyError
            No such kind of URL is known.
        """
        import fsspec

        options = dict(storage_options or {})
        own: dict[str, Any] = {
            name: options.pop(name) for name in ("concurrency", "retries") if name in options
        }
        scheme = url.split("::", 1)[0].split("://", 1)[0]
        try:
            fs, path = fsspec.core.url_to_fs(url, **options)
        except ImportError as cause:
            extra = _EXTRAS.get(scheme)
            advice = f": pip install 'zarr-gpu[{extra}]'" if extra else f": {cause}"
            raise MissingDependencyError(
                f"opening {scheme}:// needs a package that is not installed{advice}"
            ) from cause
        except ValueError as cause:
            raise InvalidKeyError(f"cannot open {url!r}: {cause}") from cause
        except Exception as cause:  # noqa: BLE001  anything may come from a file system
            fail("open", url, cause)
        return cls(fs, path, read_only=read_only, **own)

    @property
    def fs(self) -> Any:
        """The file system; one of its own in a forked child, whose event loop did not survive."""
        if self._remote and self._pid != os.getpid():
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options)
            self._pid = os.getpid()
        return self._fs

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        start, end = _limits(offset, nbytes)
        path = self._start + key

        def cat() -> Buffer | None:
            try:
                data: Buffer = self.fs.cat_file(path, start=start, end=end)
            except _ABSENT:
                return None
            except Exception as error:
                if not (start and start > 0 and _refused(error)):
                    raise
                total = self.size(key)
                if total is not None and start < total:
                    raise
                return None if total is None else b""
            return data

        return retrying(cat, retries=self.retries, passing=_passing)

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if not self._remote or len(spans) == 1 or any(nbytes == 0 for _, _, nbytes in spans):
            return super().read_spans(spans, memory)
        limits = [_limits(offset, nbytes) for _, offset, nbytes in spans]
        try:
            answers = self.fs.cat_ranges(
                [self._start + key for key, _, _ in spans],
                [start for start, _ in limits],
                [end for _, end in limits],
                batch_size=self.concurrency,
                on_error="return",
            )
        except Exception as cause:  # noqa: BLE001  anything may come from a file system
            fail("read", spans[0][0], cause)
        values: list[memoryview | None] = []
        for (key, offset, nbytes), answer in zip(spans, answers, strict=True):
            if isinstance(answer, _ABSENT):
                values.append(None)
            elif isinstance(answer, Exception) and (_passing(answer) or _refused(answer)):
                # All the others are there; this one is asked for again, by itself.
                values.append(self._read_span((key, offset, nbytes)))
            elif isinstance(answer, BaseException):
                fail("read", key, answer)
            else:
                values.append(self.check_length(as_bytes_view(answer), key, offset, nbytes))
        return gather(values, memory)

    def size(self, key: str) -> int | None:
        path = self._start + key
        fs = self.fs
        fs.invalidate_cache(fs._parent(path))  # noqa: SLF001  a listing may be old
        try:
            info = fs.info(path)
            if info.get("type") == "directory":
                return None
            if info.get("size") is None:  # some servers do not say
                return len(fs.cat_file(path))
        except _ABSENT:
            return None
        return int(info["size"])

    def write(self, key: str, data: memoryview) -> None:
        path = self._start + key
        fs = self.fs
        value = bytes(data)
        try:
            fs.pipe_file(path, value)
        except FileNotFoundError:  # a file system with real directories
            fs.makedirs(fs._parent(path), exist_ok=True)  # noqa: SLF001
            fs.pipe_file(path, value)
        except NotImplementedError as cause:
            raise ReadOnlyError(f"{self!r} cannot be written to", key=key) from cause

    def remove(self, key: str) -> None:
        try:
            self.fs.rm_file(self._start + key)
        except FileNotFoundError:
            return
        except NotImplementedError as cause:
            raise ReadOnlyError(f"{self!r} cannot be written to", key=key) from cause

    def walk(self, prefix: str) -> Iterator[str]:
        path = self._start + prefix if prefix else self.path
        fs = self.fs
        fs.invalidate_cache(path)
        try:
            found = fs.find(path)
        except _ABSENT:
            return iter(())
        below = self._start + (f"{prefix}/" if prefix else "")
        skip = len(self._start)
        return iter(sorted(name[skip:] for name in found if name.startswith(below)))

    def children(self, prefix: str) -> Iterable[str]:
        path = self._start + prefix if prefix else self.path
        fs = self.fs
        fs.invalidate_cache(path)
        try:
            found = fs.ls(path, detail=False)
        except _ABSENT:
            return ()
        below = self._start + (f"{prefix}/" if prefix else "")
        names = (name.rstrip("/") for name in found)
        return {n[len(below) :] for n in names if n.startswith(below) and len(n) > len(below)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FsspecStore):
            return NotImplemented
        return (self._fs, self.path, self.read_only) == (other._fs, other.path, other.read_only)

    def __hash__(self) -> int:
        return hash((FsspecStore, self.path))

    def __repr__(self) -> str:
        return f"FsspecStore({type(self._fs).__name__}, {self.path!r})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pid = os.getpid()  # unpickling has made the file system anew


_PASSING = {"ServerDisconnectedError", "ClientOSError", "ClientPayloadError", "SlowDown"}
"""Names of errors of the libraries below fsspec."""


def _passing(error: Exception) -> bool:
    """Whether a read that failed may succeed the next time."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    kinds = ConnectionError | TimeoutError
    return isinstance(error, kinds) or status in PASSING_STATUS or type(error).__name__ in _PASSING


def _refused(error: Exception) -> bool:
    """Whether a server may have refused a range because it begins past the end of the value."""
    return getattr(error, "errno", None) == errno.EINVAL or getattr(error, "status", None) == 416


def _limits(offset: int, nbytes: int) -> tuple[int | None, int | None]:
    """A span as fsspec's ``start`` and ``end``."""
    if nbytes == REST:
        return (offset or None), None
    return offset, offset + nbytes
