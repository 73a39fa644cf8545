"""What a store is: keys and the bytes stored under them.

``Store`` has two halves.  The upper half is what everybody calls (``get``, ``fetch``, ``put_many``,
``list_prefix``, ...): it checks keys and read-only mode, coalesces byte ranges, spreads calls over
threads where that pays, and turns the failures of the layer below into errors that name the key.
The lower half (``read``, ``write``, ``remove``, ``size``, ``walk``, and where worth while
``children``, ``read_spans``, ``remove_prefix``, ``rename_prefix``) is what one kind of store
supplies; its keys are checked already, and only this class and wrapping stores call it.

An absent key is ``None`` or ``MISSING``.  Any other failure is an exception, never a missing value:
what is missing reads as fill values, so a swallowed error would be silent loss of data.

Imports ``errors``, ``extents`` and its siblings ``failures``, ``keys``, ``spans``, ``pool``.
"""

# ruff: noqa: BLE001  whatever goes wrong in a store becomes one kind of error, which names the key

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from zarr_gpu.errors import (
    ContainsNodeError,
    DataError,
    InvalidKeyError,
    NodeNotFoundError,
    ReadOnlyError,
    StoreError,
)
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, Files, Memory, Sink
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.keys import check_key, check_keys, check_prefix
from zarr_gpu.storage.pool import map_ahead
from zarr_gpu.storage.spans import Span, coalesce, place

__all__ = [
    "ALIGNMENT",
    "Buffer",
    "Files",
    "Store",
    "as_bytes_view",
    "gather",
]

Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]
"""Bytes to store, or bytes read: anything contiguous with the buffer protocol."""

I64 = npt.NDArray[np.int64]

ALIGNMENT = 64
"""Spans start at multiples of this in a fetched buffer; a power of two."""


class Store(ABC):
    """Keys and values.

    A store may be used from many threads at once, across ``fork`` and after pickling.  Two stores
    are equal when they mean the same place.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> store = MemoryStore()
    >>> store.put_many([("a/x", b"one"), ("a/y", b"two")])
    >>> store.get("a/x"), store.get("a/z"), list(store.list_prefix("a"))
    (b'one', None, ['a/x', 'a/y'])
    """

    read_only: bool = False
    concurrency: int = 1
    """Requests worth having in flight at once; 1 means plain calls on the caller's thread."""

    supports_listing: bool = True
    supports_writes: bool = True

    atomic_put_if_absent: bool = False
    """Whether of several ``put_if_absent`` of one key at a time exactly one succeeds."""

    max_gap: int = 16 << 10
    """Ranges of one key at most this many bytes apart are read as one."""

    max_coalesced: int = 16 << 20
    """Coalescing stops at reads of this many bytes."""

    # ---- upper half: for everybody -------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        """The whole value, or None where the key is absent.

        Raises
        ------
        InvalidKeyError
            ``key`` is malformed or would leave the store.
        StoreError
            The store failed.
        """
        check_key(key)
        try:
            data = self.read(key, 0, REST)
        except Exception as cause:
            fail("read", key, cause)
        return data if data is None or isinstance(data, bytes) else bytes(data)

    def fetch(self, request: ByteRequest, memory: Memory) -> Extents:
        """Read many byte ranges into one buffer.

        Neighbouring and overlapping ranges of a key are read once.  ``memory`` must be addressable
        by the host.  For a single whole value of a store that holds its values in memory the buffer
        may be that (read-only) memory itself.

        Raises
        ------
        DataError
            A value is shorter than a range asked of it; names the key and the byte counts.
        InvalidKeyError, StoreError
            As ``get``.
        """
        lengths = request.nbytes
        n = len(lengths)
        if n == 1:
            return self._fetch_one(request, memory)
        ids = request.key_id.tolist()
        keys = request.keys
        live = None
        if n == 0 or int(lengths.min()) == MISSING or (lengths == MISSING).any():
            live = np.flatnonzero(lengths != MISSING)
            rows = live.tolist()
            if not rows:
                return Extents(memory.empty(0), np.zeros(n, np.int64), np.full(n, MISSING))
            names = [keys[ids[row]] for row in rows]
            offset, nbytes = request.offset[live], lengths[live]
        else:
            names = [keys[i] for i in ids]
            offset, nbytes = request.offset, lengths
        check_keys(names)

        base, at, got = self._fetch_live(names, offset, nbytes, memory)
        if live is not None:
            all_at, all_got = np.zeros(n, np.int64), np.full(n, MISSING, np.int64)
            all_at[live], all_got[live] = at, got
            at, got = all_at, all_got
        return Extents(base, at, got)

    def files(self) -> Files | None:
        """Where values lie, for lanes that read them by system calls of their own.

        None where that is not possible, or where reads must pass through the store.
        """
        return None

    def sink(self) -> Sink | None:
        """How values may be written without the help of this store; None: not at all."""
        return None

    def version(self, key: str) -> Hashable | None:
        """What changes whenever the value does, where that costs less than reading a little.

        None where there is no such thing, or where the value is so new that it might change again
        without a trace.
        """
        return None

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        """Store values, each replacing the old one as a whole.

        ``items`` is drawn as values are written, so that a generator may make them on the way.
        After an error some of the values may be stored.
        """
        self._check_writable()
        for _ in map_ahead(self._put, items, self.concurrency):
            pass

    def put(self, key: str, data: Buffer) -> None:
        """Store one value."""
        self._check_writable()
        self._put((key, data))

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Store one value unless the key is there already; whether it was stored.

        Of several callers at a time exactly one succeeds where ``atomic_put_if_absent`` is true;
        other stores look first and then write.
        """
        self._check_writable()
        check_key(key)
        try:
            return self.write_if_absent(key, as_bytes_view(data))
        except Exception as cause:
            fail("write", key, cause)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove keys; absent ones are no error."""
        self._check_writable()
        for _ in map_ahead(self._delete, keys, self.concurrency):
            pass

    def exists(self, key: str) -> bool:
        """Whether a value is stored under ``key``."""
        return self.nbytes(key) is not None

    def nbytes(self, key: str) -> int | None:
        """Size of the value in bytes, None where the key is absent."""
        check_key(key)
        try:
            return self.size(key)
        except Exception as cause:
            fail("get the size of", key, cause)

    def list_prefix(self, prefix: str = "") -> Iterator[str]:
        """All keys below ``prefix``, sorted: they begin with ``prefix + "/"``; all keys for ""."""
        prefix = check_prefix(prefix)
        self._check_listing()
        return self._list(prefix)

    def list_dir(self, prefix: str = "") -> tuple[str, ...]:
        """Names directly below ``prefix``, sorted: the next segment of every key there."""
        prefix = check_prefix(prefix)
        self._check_listing()
        try:
            return tuple(sorted(self.children(prefix)))
        except Exception as cause:
            fail("list", prefix, cause)

    def delete_prefix(self, prefix: str) -> None:
        """Remove all keys below ``prefix``; "" empties the store."""
        prefix = check_prefix(prefix)
        self._check_writable()
        self._check_listing()
        try:
            self.remove_prefix(prefix)
        except Exception as cause:
            fail("delete", prefix, cause)

    def move(self, source: str, target: str) -> None:
        """Give all keys below ``source`` the prefix ``target`` instead.

        Raises
        ------
        NodeNotFoundError
            There is nothing below ``source``.
        ContainsNodeError
            There is something at or below ``target`` already.
        InvalidKeyError
            One of the prefixes is empty or lies inside the other.
        """
        source, target = check_key(check_prefix(source)), check_key(check_prefix(target))
        self._check_writable()
        self._check_listing()
        if f"{source}/".startswith(f"{target}/") or f"{target}/".startswith(f"{source}/"):
            raise InvalidKeyError(f"cannot move {source!r} to {target!r}: one contains the other")
        if next(self.list_prefix(source), None) is None:
            raise NodeNotFoundError(f"nothing is stored below {source!r}", key=source)
        if self.exists(target) or next(self.list_prefix(target), None) is not None:
            raise ContainsNodeError(f"something is stored at {target!r} already", key=target)
        try:
            self.rename_prefix(source, target)
        except Exception as cause:
            fail("move", source, cause)

    def close(self) -> None:  # noqa: B027  most stores hold nothing open
        """Give back what the store holds open.  Closing twice is no error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- lower half: for the kinds of store ----------------------------------------------------

    @abstractmethod
    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        """One range of one value, None where the key is absent.

        The conventions are those of :class:`ByteRequest`: ``nbytes`` is a length or ``REST``; where
        ``offset`` is negative the last ``-offset`` bytes are meant, and ``nbytes`` is ``REST``.
        Where the value ends early the result is shorter.  It may be the store's own memory, as
        long as that does not change.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Size of one value, None where the key is absent."""

    @abstractmethod
    def walk(self, prefix: str) -> Iterator[str]:
        """All keys below ``prefix`` ("" or without trailing slash), sorted."""

    def write(self, key: str, data: memoryview) -> None:
        """Replace one value; ``data`` is a contiguous view of bytes, valid until return."""
        raise ReadOnlyError(f"{self!r} cannot be written to", key=key)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        """Store one value unless the key is there; whether it was stored."""
        if self.size(key) is not None:
            return False
        self.write(key, data)
        return True

    def remove(self, key: str) -> None:
        """Remove one key, if there."""
        raise ReadOnlyError(f"{self!r} cannot be written to", key=key)

    def children(self, prefix: str) -> Iterable[str]:
        """Distinct names directly below ``prefix``, in any order."""
        skip = len(prefix) + 1 if prefix else 0
        return {key[skip:].split("/", 1)[0] for key in self.walk(prefix)}

    def remove_prefix(self, prefix: str) -> None:
        """Remove all keys below ``prefix``."""
        for _ in map_ahead(self._delete, list(self.walk(prefix)), self.concurrency):
            pass

    def rename_prefix(self, source: str, target: str) -> None:
        """Move all keys; nothing lies below ``target``.  Here: copy all of them, then delete."""

        def copy(key: str) -> None:
            data = self.read(key, 0, REST)
            if data is not None:
                self.write(target + key[len(source) :], as_bytes_view(data))

        for _ in map_ahead(copy, list(self.walk(source)), self.concurrency):
            pass
        self.remove_prefix(source)

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        """Read spans into one buffer: (buffer, start of each, length of each or ``MISSING``).

        Stores that can read straight into the buffer override this.
        """
        if len(spans) == 1 and memory.kind == "host":
            data = self._read_span(spans[0])
            if data is None:
                return memory.empty(0), [0], [MISSING]
            whole = np.frombuffer(data, np.uint8)
            return whole, [0], [whole.nbytes]
        return gather(map_ahead(self._read_span, spans, self.concurrency), memory)

    @staticmethod
    def check_length(view: memoryview, key: str, offset: int, nbytes: int) -> memoryview:
        """Return ``view``, the answer to one span, unless it is longer than what was asked for."""
        most = -offset if offset < 0 else nbytes
        if most >= 0 and view.nbytes > most:
            raise DataError(
                "the store answered more bytes than it was asked for",
                key=key,
                expected=most,
                actual=view.nbytes,
            )
        return view

    # ---- internals -----------------------------------------------------------------------------

    def _fetch_one(self, request: ByteRequest, memory: Memory) -> Extents:
        """``fetch`` for one range: with plain numbers, as NumPy costs more than the reading."""
        key = request.keys[request.key_id.item(0)]
        offset, nbytes = request.offset.item(0), request.nbytes.item(0)
        if nbytes == MISSING:
            return Extents(memory.empty(0), np.array((0,)), np.array((MISSING,)))
        check_key(key)
        if offset >= 0:
            base, (start,), (got,) = self.read_spans([(key, offset, nbytes)], memory)
            short = nbytes if 0 <= got < nbytes else MISSING
        else:
            base, (start,), (got,) = self.read_spans([(key, offset, REST)], memory)
            short = -offset if 0 <= got < -offset else MISSING
            if got >= 0 and nbytes != REST:
                got = min(got, nbytes)
        if short != MISSING:
            raise _too_short(key, short, got)
        return Extents(base, np.array((start,)), np.array((got,)))

    def _fetch_live(
        self, names: list[str], offset: I64, nbytes: I64, memory: Memory
    ) -> tuple[Any, I64, I64]:
        """``fetch`` for ranges of which none is MISSING."""
        from_end = int(offset.min()) < 0
        if len(set(names)) != len(names) or (
            from_end and ((offset < 0) & (nbytes != REST) & (nbytes != -offset)).any()
        ):
            plan = coalesce(
                names, offset, nbytes, max_gap=self.max_gap, max_coalesced=self.max_coalesced
            )
            base, starts, lengths = self.read_spans(plan.spans, memory)
            got = np.array(lengths, np.int64)
            at, got = place(plan, names, np.array(starts, np.int64), got)
            return base, at, got

        # Every range has a key of its own: ranges are spans, and nothing is to be computed.
        sizes = nbytes
        if from_end:
            sizes = np.where(offset < 0, -offset, nbytes)
            nbytes = np.where(offset < 0, REST, nbytes)
        spans = list(zip(names, offset.tolist(), nbytes.tolist(), strict=True))
        base, starts, lengths = self.read_spans(spans, memory)
        got = np.array(lengths, np.int64)
        wrong = (got != sizes) & (sizes >= 0) & (got >= 0)
        if wrong.any():
            row = int(wrong.argmax())
            raise _too_short(names[row], int(sizes[row]), lengths[row])
        return base, np.array(starts, np.int64), got

    def _read_span(self, span: Span) -> memoryview | None:
        key, offset, nbytes = span
        try:
            if nbytes == 0:
                # A range of no bytes: whether the key is there is all that is asked.
                return None if self.size(key) is None else memoryview(b"")
            data = self.read(key, offset, nbytes)
        except Exception as cause:
            fail("read", key, cause)
        if data is None:
            return None
        return self.check_length(as_bytes_view(data), key, offset, nbytes)

    def _list(self, prefix: str) -> Iterator[str]:
        try:
            yield from self.walk(prefix)
        except Exception as cause:
            fail("list", prefix, cause)

    def _put(self, item: tuple[str, Buffer]) -> None:
        key, data = item
        check_key(key)
        try:
            self.write(key, as_bytes_view(data))
        except Exception as cause:
            fail("write", key, cause)

    def _delete(self, key: str) -> None:
        check_key(key)
        try:
            self.remove(key)
        except Exception as cause:
            fail("delete", key, cause)

    def _check_writable(self) -> None:
        if self.read_only or not self.supports_writes:
            raise ReadOnlyError(f"{self!r} was opened read-only")

    def _check_listing(self) -> None:
        if not self.supports_listing:
            raise StoreError(f"{self!r} cannot list its keys")


def _too_short(key: str, expected: int, actual: int) -> DataError:
    return DataError(
        "the value is too short for the byte range asked of it",
        key=key,
        expected=expected,
        actual=actual,
    )


def gather(values: Iterable[memoryview | None], memory: Memory) -> tuple[Any, list[int], list[int]]:
    """Values in one buffer: (buffer, start of each, length of each or ``MISSING``)."""
    values = list(values)
    starts, lengths, total = [], [], 0
    for value in values:
        starts.append(total)
        if value is None:
            lengths.append(MISSING)
        else:
            lengths.append(value.nbytes)
            total += (value.nbytes + ALIGNMENT - 1) & -ALIGNMENT
    base = memory.empty(total)
    view = memoryview(base)  # type: ignore[arg-type]
    for value, start, length in zip(values, starts, lengths, strict=True):
        if value is not None:
            view[start : start + length] = value
    return base, starts, lengths


def as_bytes_view(data: Buffer) -> memoryview:
    """``data`` as a contiguous 1-D view of unsigned bytes, copied only where it has gaps."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except (TypeError, ValueError) as cause:
        raise StoreError(f"a stored value must be bytes, not {type(data).__name__}") from cause
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if not view.c_contiguous or view.nbytes == 0:  # the latter cannot be cast
        return memoryview(view.tobytes())
    return view.cast("B")
