"""Stores around another store: counting, read-only, below a prefix, failing on purpose.

They work with every kind of store and are as useful to users as to tests.  Imports ``extents``,
``storage.base`` and ``storage.wrapper``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from zarr_gpu.errors import ReadOnlyError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.keys import check_key, check_prefix
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.wrapper import Wrapper

__all__ = ["Call", "CountingStore", "FaultyStore", "PrefixStore", "ReadOnlyStore"]


class ReadOnlyStore(Wrapper):
    """``store``, of which nothing can be changed.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> ReadOnlyStore(MemoryStore({"x": b"1"})).get("x")
    b'1'
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.read_only = True
        self.supports_writes = False

    def write(self, key: str, data: memoryview) -> None:
        raise ReadOnlyError(f"{self!r} was opened read-only", key=key)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        raise ReadOnlyError(f"{self!r} was opened read-only", key=key)

    def remove(self, key: str) -> None:
        raise ReadOnlyError(f"{self!r} was opened read-only", key=key)

    def remove_prefix(self, prefix: str) -> None:
        raise ReadOnlyError(f"{self!r} was opened read-only", key=prefix)

    def rename_prefix(self, source: str, target: str) -> None:
        raise ReadOnlyError(f"{self!r} was opened read-only", key=source)


class PrefixStore(Wrapper):
    """What lies below ``prefix`` of ``store``, as a store of its own.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> below = PrefixStore(MemoryStore({"a/x": b"1", "ab/x": b"2"}), "a")
    >>> below.get("x"), list(below.list_prefix())
    (b'1', ['x'])
    """

    def __init__(self, store: Store, prefix: str) -> None:
        super().__init__(store)
        self.prefix = check_prefix(prefix)
        self._start = f"{self.prefix}/" if self.prefix else ""

    def _settings(self) -> tuple[Any, ...]:
        return (self.prefix,)

    def _below(self, prefix: str) -> str:
        return self._start + prefix if prefix else self.prefix

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        return self.store.read(self._start + key, offset, nbytes)

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        start = self._start
        return self.store.read_spans([(start + key, lo, n) for key, lo, n in spans], memory)

    def size(self, key: str) -> int | None:
        return self.store.size(self._start + key)

    def write(self, key: str, data: memoryview) -> None:
        self.store.write(self._start + key, data)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        return self.store.write_if_absent(self._start + key, data)

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        self._check_writable()
        self.store.put_many((self._start + check_key(key), data) for key, data in items)

    def delete_many(self, keys: Iterable[str]) -> None:
        self._check_writable()
        self.store.delete_many(self._start + check_key(key) for key in keys)

    def remove(self, key: str) -> None:
        self.store.remove(self._start + key)

    def walk(self, prefix: str) -> Iterator[str]:
        skip = len(self._start)
        return (key[skip:] for key in self.store.walk(self._below(prefix)))

    def children(self, prefix: str) -> Iterable[str]:
        return self.store.children(self._below(prefix))

    def remove_prefix(self, prefix: str) -> None:
        self.store.remove_prefix(self._below(prefix))

    def rename_prefix(self, source: str, target: str) -> None:
        self.store.rename_prefix(self._start + source, self._start + target)

    def __repr__(self) -> str:
        return f"PrefixStore({self.store!r}, {self.prefix!r})"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a primitive."""

    method: str  # "read", "write", "remove", "size", "list", "remove_prefix", "rename_prefix"
    key: str
    offset: int = 0
    nbytes: int = REST  # asked for or written; REST where that has no meaning
    answered: int | None = None  # bytes read, None where the key was absent or nothing was read


class CountingStore(Wrapper):
    """Records every primitive call that reaches ``store``, after coalescing.

    Attributes
    ----------
    calls
        The calls so far, in order; ``reset`` forgets them.  Reads that the store does together
        count one by one.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> store = CountingStore(MemoryStore({"x": b"123"}))
    >>> store.get("x"), store.count("read"), store.bytes_read
    (b'123', 1, 3)
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.calls: list[Call] = []

    def reset(self) -> None:
        """Forget all calls."""
        self.calls.clear()

    def of(self, method: str) -> list[Call]:
        """The calls of one method."""
        return [call for call in self.calls if call.method == method]

    def count(self, method: str) -> int:
        """How often ``method`` was called."""
        return len(self.of(method))

    @property
    def keys_read(self) -> list[str]:
        """Key of every read, in order, absent ones too."""
        return [call.key for call in self.of("read")]

    @property
    def keys_written(self) -> list[str]:
        """Key of every write, in order."""
        return [call.key for call in self.of("write")]

    @property
    def bytes_read(self) -> int:
        """Bytes that all reads brought."""
        return sum(call.answered or 0 for call in self.of("read"))

    @property
    def bytes_written(self) -> int:
        """Bytes written."""
        return sum(call.nbytes for call in self.of("write"))

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        data = self.store.read(key, offset, nbytes)
        answered = None if data is None else memoryview(data).nbytes  # type: ignore[arg-type]
        self.calls.append(Call("read", key, offset, nbytes, answered))
        return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        answer = self.store.read_spans(spans, memory)
        self.calls += [
            Call("read", key, offset, nbytes, got if got >= 0 else None)
            for (key, offset, nbytes), got in zip(spans, answer[2], strict=True)
        ]
        return answer

    def size(self, key: str) -> int | None:
        self.calls.append(Call("size", key))
        return self.store.size(key)

    def write(self, key: str, data: memoryview) -> None:
        self.calls.append(Call("write", key, 0, data.nbytes))
        self.store.write(key, data)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        self.calls.append(Call("write", key, 0, data.nbytes))
        return self.store.write_if_absent(key, data)

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        self._check_writable()

        def noted() -> Iterator[tuple[str, Buffer]]:
            for key, data in items:
                call = Call("write", check_key(key), 0, as_bytes_view(data).nbytes)
                self.calls.append(call)
                yield key, data

        self.store.put_many(noted())

    def delete_many(self, keys: Iterable[str]) -> None:
        self._check_writable()

        def noted() -> Iterator[str]:
            for key in keys:
                self.calls.append(Call("remove", check_key(key)))
                yield key

        self.store.delete_many(noted())

    def remove(self, key: str) -> None:
        self.calls.append(Call("remove", key))
        self.store.remove(key)

    def walk(self, prefix: str) -> Iterator[str]:
        self.calls.append(Call("list", prefix))
        return self.store.walk(prefix)

    def children(self, prefix: str) -> Iterable[str]:
        self.calls.append(Call("list", prefix))
        return self.store.children(prefix)

    def remove_prefix(self, prefix: str) -> None:
        self.calls.append(Call("remove_prefix", prefix))
        self.store.remove_prefix(prefix)

    def rename_prefix(self, source: str, target: str) -> None:
        self.calls.append(Call("rename_prefix", source))
        self.store.rename_prefix(source, target)


class FaultyStore(Wrapper):
    """Fails where it is told to: for tests of what happens then.

    Parameters
    ----------
    store
        Does the calls that do not fail.
    error
        An exception, or a function that makes one from the method's name and the key.
    nth
        Fail only the n-th call of a primitive (from 1), counted over all of them.
    every
        Fail every n-th call.
    rate
        Fail each call with this probability.
    seed
        Of the random numbers for ``rate``: equal seeds fail equal calls.
    when
        Fail only calls for which this is true of the method's name and the key.

    Without ``nth``, ``every`` and ``rate``, all calls that ``when`` admits fail.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> store = FaultyStore(MemoryStore({"x": b"1"}), OSError("disk on fire"), nth=2)
    >>> store.get("x")
    b'1'
    >>> store.get("x")
    Traceback (most recent call last):
    zarr_gpu.errors.StoreError: cannot read 'x': disk on fire
    >>> store.get("x")
    b'1'
    """

    def __init__(
        self,
        store: Store,
        error: BaseException | Callable[[str, str], BaseException],
        *,
        nth: int | None = None,
        every: int | None = None,
        rate: float | None = None,
        seed: int = 0,
        when: Callable[[str, str], bool] | None = None,
    ) -> None:
        super().__init__(store)
        self.error = error
        self.nth = nth
        self.every = every
        self.rate = rate
        self.when = when
        self.ncalls = 0
        self.nfailed = 0
        self._random = random.Random(seed)  # noqa: S311  no secrets here

    def _maybe_fail(self, method: str, key: str) -> None:
        if self.when is not None and not self.when(method, key):
            return
        with self._lock:
            self.ncalls += 1
            n = self.ncalls
            if (
                (self.nth is not None and n != self.nth)
                or (self.every is not None and n % self.every)
                or (self.rate is not None and self._random.random() >= self.rate)
            ):
                return
            self.nfailed += 1
        raise self.error if isinstance(self.error, BaseException) else self.error(method, key)

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        self._maybe_fail("read", key)
        return self.store.read(key, offset, nbytes)

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        for key, _, _ in spans:
            try:
                self._maybe_fail("read", key)
            except Exception as cause:  # noqa: BLE001  whatever it was told to raise
                fail("read", key, cause)
        return self.store.read_spans(spans, memory)

    def size(self, key: str) -> int | None:
        self._maybe_fail("size", key)
        return self.store.size(key)

    def write(self, key: str, data: memoryview) -> None:
        self._maybe_fail("write", key)
        self.store.write(key, data)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        self._maybe_fail("write", key)
        return self.store.write_if_absent(key, data)

    def remove(self, key: str) -> None:
        self._maybe_fail("remove", key)
        self.store.remove(key)

    def walk(self, prefix: str) -> Iterator[str]:
        self._maybe_fail("list", prefix)
        return self.store.walk(prefix)

    def children(self, prefix: str) -> Iterable[str]:
        self._maybe_fail("list", prefix)
        return self.store.children(prefix)

    def remove_prefix(self, prefix: str) -> None:
        self._maybe_fail("remove_prefix", prefix)
        self.store.remove_prefix(prefix)

    def rename_prefix(self, source: str, target: str) -> None:
        self._maybe_fail("rename_prefix", source)
        self.store.rename_prefix(source, target)
