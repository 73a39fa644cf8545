"""What the checks of every store share: helpers, and what a store promises.

``StoreChecks`` declares the promises as class attributes.  A check that needs one which a store
does not make is no test of that store at all (``needs``); what such a store does instead is
asserted by ``test_what_it_does_not_promise_is_refused``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from zarr_gpu.errors import StoreError
from zarr_gpu.extents import MISSING, ByteRequest, Extents, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.wrappers import CountingStore, ReadOnlyStore

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/./b",
    "./a",
    "a\\b",
    "..\\a",
    "a\0b",
    "C:",
    "c:/a",
    "C:\\a",
    "%2e%2e/a",
    "a/%2E./b",
    "a/.%2e",
    "a%2f..%2fb",
    "a\udcffb",
    "x" * 1025,
    "é" * 513,
]

MANY = 100  # more keys than a store may hold open at a time


class RecordingMemory(HostMemory):
    """Hands out slices of one larger buffer, as a lane's reused scratch does."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def empty(self, nbytes: int) -> Any:
        self.asked.append(nbytes)
        return np.full(nbytes + 100, 0xEE, np.uint8)


class PinnedMemory(RecordingMemory):
    """Memory that the store may not replace by its own."""

    kind = "pinned"


def ask(*ranges: tuple[str, int, int]) -> ByteRequest:
    """A request of (key, offset, nbytes); equal keys share one entry of ``keys``."""
    keys = list(dict.fromkeys(key for key, _, _ in ranges))
    number = {key: i for i, key in enumerate(keys)}
    return ByteRequest(
        keys,
        np.array([number[key] for key, _, _ in ranges], np.int64),
        np.array([offset for _, offset, _ in ranges], np.int64),
        np.array([nbytes for _, _, nbytes in ranges], np.int64),
    )


def parts(extents: Extents) -> list[bytes | None]:
    """The bytes of each extent, None where missing."""
    assert extents.offset.dtype == extents.nbytes.dtype == np.int64
    result: list[bytes | None] = []
    for lo, n in zip(extents.offset.tolist(), extents.nbytes.tolist(), strict=True):
        if n == MISSING:
            result.append(None)
        else:
            assert 0 <= lo <= lo + n <= len(extents.base)
            result.append(bytes(extents.base[lo : lo + n]))
    return result


def fetch(store: Store, *ranges: tuple[str, int, int]) -> list[bytes | None]:
    return parts(store.fetch(ask(*ranges), HostMemory()))


def reads(store: CountingStore) -> list[tuple[str, int, int]]:
    """What was read, sorted: calls of stores that work in parallel have no fixed order."""
    return sorted((call.key, call.offset, call.nbytes) for call in store.of("read"))


def blob(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, n, np.uint8).tobytes()


def in_child(function: Callable[[], bool]) -> bool:
    """Run ``function`` in a forked child; whether it returned True there within a minute."""
    return in_children([function])


def in_children(functions: Iterable[Callable[[], bool]]) -> bool:
    """Run functions in forked children at the same time; whether all returned True in time."""
    children = []
    for function in functions:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if function() else 1
            finally:
                os._exit(code)
        children.append(pid)
    good = True
    for pid in children:
        done = threading.Event()
        killer = threading.Timer(60, lambda d=done, p=pid: None if d.is_set() else os.kill(p, 9))
        killer.start()
        _, status = os.waitpid(pid, 0)
        done.set()
        killer.cancel()
        good = good and status == 0
    return good


def at_once(*functions: Callable[[], object]) -> None:
    """Run functions in threads at the same time; raises what one of them raised."""
    failures: list[BaseException] = []
    gate = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        try:
            gate.wait()
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def about(case: object) -> Iterator[None]:
    """Have a failure inside say which of several cases it is of.

    Cases that leave the store as it was share one: to make it takes longer than most of them.
    """
    try:
        yield
    except BaseException as error:
        error.add_note(f"case: {case!r}")
        raise


T = TypeVar("T", bound=Callable[..., Any])


def needs(*promises: str) -> Callable[[T], T]:
    """A check of stores that make all these promises of :class:`StoreChecks`."""

    def mark(check: T) -> T:
        check.needs = promises  # type: ignore[attr-defined]
        return check

    return mark


class StoreChecks:
    """What a store promises; a test class states what its store does not."""

    title = ""
    """What the table of stores calls it; by default the name of the class."""

    writable = True
    """Values can be written.  If not, override ``fill``; every change is a ``ReadOnlyError``."""

    listable = True
    """Keys can be listed.  If not, listing and what rests on it is a ``StoreError``."""

    shared = True
    """A pickled copy, in this process or another, means the same values, not a copy of them."""

    many_writers = True
    """Several processes may write at once, and each sees what the others wrote.  Needs shared."""

    spawns = True
    """A pickled copy reads the same values in a fresh process."""

    durable = True
    """What ``put`` returned from survives kill -9 of the process.  Needs shared."""

    forks = True
    """A forked child can read."""

    in_order = True
    """Its calls of primitives come one after the other, in the order of the items."""

    exact_keys = True
    """Keys that differ in case, in trailing spaces or in how an accent is written differ."""

    many_keys = 10_000
    """How many keys the listing test writes; a slow server may lower it."""

    many_turns = 10
    """How often each of several threads does its work; a slow server may lower it."""

    large_nbytes = 20 << 20
    """Size of the large value; less where the server has a limit, or the stand-in is slow."""

    longest_key = 1024
    """In bytes; less where the server puts something before the key."""

    most_held = 0
    """Values that ``put_many`` may hold back, beyond those whose writing has begun."""

    def fill(self, store: Store, items: Iterable[tuple[str, Any]]) -> None:
        """Put values where ``store`` reads them."""
        store.put_many(items)

    def settle(self, store: Store) -> None:
        """Make what was written visible to a pickled copy."""

    @property
    def some_keys(self) -> int:
        """How many keys are enough for most checks."""
        return min(300, self.many_keys // 3)

    def read_only(self, store: Store) -> Store:
        """The same store opened read-only by its own means."""
        return ReadOnlyStore(store)

    def check_keys(self, store: Store, keys: Iterable[str], prefix: str = "") -> None:
        """The store holds exactly these keys below ``prefix``, as far as it can list."""
        if self.listable:
            assert list(store.list_prefix(prefix)) == sorted(keys)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in {n for base in cls.__mro__ for n in vars(base) if n.startswith("test_")}:
            found = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
            check = next((check for check in found if check is not None), None)
            wanted = getattr(check, "needs", ())
            missing = [promise for promise in wanted if not getattr(cls, promise)]
            if missing:
                setattr(cls, name, None)  # nothing to collect
            elif found[0] is None and name not in vars(cls):
                setattr(cls, name, check)


FAULTS = [
    OSError(5, "input/output error"),
    PermissionError(13, "denied"),
    TimeoutError("too slow"),
    ConnectionResetError("gone"),
    FileNotFoundError("not really"),
    KeyError("not really"),
    RuntimeError("HTTP 503"),
    MemoryError("no"),
]


def check_fault(raised: StoreError, error: Exception) -> None:
    """``raised`` tells of ``error``, and cannot be mistaken for an absent value."""
    assert isinstance(raised, OSError)
    assert not isinstance(raised, FileNotFoundError)
    assert raised.__cause__ is error
    for kind in (PermissionError, TimeoutError, ConnectionError):
        assert isinstance(raised, kind) == isinstance(error, kind)
    if isinstance(error, OSError):
        assert raised.errno == error.errno


def changes(store: Store) -> list[Callable[[], Any]]:
    """Every way to change a store that holds "a/x"."""
    return [
        lambda: store.put("a/x", b"2"),
        lambda: store.put_many([("a/y", b"2")]),
        lambda: store.put_if_absent("a/y", b"2"),
        lambda: store.delete_many(["a/x"]),
        lambda: store.delete_prefix("a"),
        lambda: store.move("a", "b"),
    ]
