"""Passing failures are tried again, lasting ones are not."""

from __future__ import annotations

import errno
import time
from typing import Any

import numpy as np
import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, blob, fetch

import zarr_gpu
from zarr_gpu.errors import DataError, InvalidKeyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import StorePermissionError, StoreTimeoutError
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.retry import RetryStore, is_transient
from zarr_gpu.storage.wrappers import CountingStore, FaultyStore


def gone(method: str, key: str) -> Exception:
    """Each time another one: an exception keeps what was at work when it was raised."""
    return ConnectionResetError(f"{method} {key}")


class TestRetryStore(StoreSuite, StoreArraySuite):
    """Over a store of which a fifth of all calls fails."""

    title = "retry, of memory that fails every fifth call"
    shared = many_writers = durable = False
    many_keys = 2_000

    @pytest.fixture
    def store(self) -> Store:
        unsteady = FaultyStore(MemoryStore(), gone, rate=0.2, seed=1)
        return RetryStore(unsteady, attempts=20, delay=1e-5)


class Overlapping(MemoryStore):
    concurrency = 16


def test_a_fifth_of_all_calls_fails_and_everything_is_right() -> None:
    faulty = FaultyStore(Overlapping(), lambda method, key: TimeoutError(key), rate=0.2, seed=3)
    store = RetryStore(faulty, attempts=15, delay=1e-4)
    data = np.random.default_rng(0).integers(0, 1000, (1000, 8))
    array = zarr_gpu.create_array(store, shape=data.shape, chunks=(1, 8), dtype=data.dtype)
    array[...] = data
    assert np.array_equal(zarr_gpu.open_array(store, mode="r")[...], data)
    assert faulty.nfailed > 200
    assert store.retries >= 200
    for i in range(0, 1000, 7):
        assert np.array_equal(array[i], data[i])
    store.move("c", "d")
    assert len(store.list_dir("d")) == 1000
    store.delete_prefix("d")
    assert store.list_dir() == ("zarr.json",)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "denied"),
        FileNotFoundError("not really"),
        KeyError("not really"),
        OSError(errno.ENOSPC, "full"),
        RuntimeError("HTTP 403"),
        DataError("damaged"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_lasting_failures_are_raised_at_once(error: Exception) -> None:
    faulty = FaultyStore(MemoryStore({"x": b"1", "y": b"2"}), error)
    store = RetryStore(faulty, delay=10)
    calls: list[Any] = [
        lambda: store.get("x"),
        lambda: store.nbytes("x"),
        lambda: store.put("x", b"2"),
        lambda: store.delete_many(["x"]),
        lambda: list(store.list_prefix()),
        store.list_dir,
        lambda: fetch(store, ("x", 0, REST), ("y", 0, REST)),
    ]
    for n, call in enumerate(calls, 1):
        with pytest.raises((StoreError, DataError)) as caught:
            call()
        assert caught.value.key in {"x", "", None}
        assert faulty.ncalls == n
    assert store.retries == 0


def test_a_failure_that_does_not_pass_is_raised_in_the_end() -> None:
    faulty = FaultyStore(MemoryStore({"x": b"1"}), TimeoutError("late"))
    store = RetryStore(faulty, attempts=4, delay=1e-4)
    with pytest.raises(StoreTimeoutError, match=r"cannot read, in 4 attempts, 'x': late") as caught:
        store.get("x")
    assert caught.value.key == "x"
    assert faulty.ncalls == 4
    with pytest.raises(StoreTimeoutError, match="'x'"):
        store.fetch(ByteRequest.whole(["x"]), HostMemory())
    assert faulty.ncalls == 4 + 5  # together once, then by itself
    with pytest.raises(StoreTimeoutError):
        list(store.list_prefix())
    assert faulty.ncalls == 13
    once = RetryStore(FaultyStore(MemoryStore(), TimeoutError("late")), attempts=1, delay=10)
    for call in (
        lambda: once.get("x"),
        lambda: once.fetch(ByteRequest.whole(["x"]), HostMemory()),
        lambda: once.put("x", b""),
    ):
        with pytest.raises(StoreTimeoutError):
            call()


def test_waits_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    store = RetryStore(
        FaultyStore(MemoryStore(), TimeoutError("late")), attempts=7, delay=1.0, most_delay=5.0
    )
    with pytest.raises(StoreTimeoutError):
        store.get("x")
    assert len(waits) == 6
    for wait, most in zip(waits, (1, 2, 4, 5, 5, 5), strict=True):
        assert most / 2 <= wait <= most


def test_batches_are_read_together_while_all_is_well() -> None:
    class Batched(MemoryStore):
        batches = 0

        def read_spans(self, spans: Any, memory: Any) -> Any:
            type(self).batches += 1
            return super().read_spans(spans, memory)

    values = {f"{i}": blob(10, i) for i in range(50)}
    counting = CountingStore(Batched(values))
    store = RetryStore(counting)
    assert fetch(store, *((key, 0, REST) for key in values)) == list(values.values())
    assert Batched.batches == 1
    assert counting.count("read") == 50


def test_a_listing_goes_on_where_it_broke_off() -> None:
    class Breaking(MemoryStore):
        left = 3

        def walk(self, prefix: str) -> Any:
            for n, key in enumerate(super().walk(prefix)):
                if n == 5 * (4 - self.left) and self.left:
                    self.left -= 1
                    raise ConnectionResetError("gone")
                yield key

    values = {f"{i:02}": b"" for i in range(40)}
    store = RetryStore(Breaking(values), delay=1e-5)
    assert list(store.list_prefix()) == sorted(values)
    assert store.retries == 3


def test_a_move_that_seemed_to_fail_is_not_made_twice() -> None:
    class Late(MemoryStore):
        def rename_prefix(self, source: str, target: str) -> None:
            super().rename_prefix(source, target)
            raise TimeoutError("no answer, but it is done")

    store = RetryStore(Late({"a/x": b"1"}), delay=1e-5)
    store.move("a", "b")
    assert list(store.list_prefix()) == ["b/x"]


def test_which_failures_may_pass() -> None:
    class AnswerError(Exception):
        def __init__(self, status: Any) -> None:
            self.status = status

    passing = [
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        AnswerError(503),
        AnswerError(429),
    ]
    passing += [OSError(errno.ETIMEDOUT, ""), StoreTimeoutError("late")]
    lasting = [
        PermissionError(13, ""),
        KeyError(),
        AnswerError(403),
        AnswerError("503"),
        ValueError(),
    ]
    lasting += [OSError(errno.ENOSPC, ""), StorePermissionError("no"), FileNotFoundError(2, "")]
    assert all(is_transient(error) for error in passing)
    assert not any(is_transient(error) for error in lasting)
    wrapped = StoreError("cannot read 'x'")
    wrapped.__cause__ = AnswerError(500)
    assert is_transient(wrapped)


def test_ones_own_judgement() -> None:
    faulty = FaultyStore(MemoryStore({"x": b"1"}), PermissionError("for now"), nth=1)
    store = RetryStore(faulty, delay=1e-5, transient=lambda error: True)
    assert store.get("x") == b"1"
    for options in ({"attempts": 0}, {"delay": -1}, {"most_delay": -1}):
        with pytest.raises(InvalidKeyError):
            RetryStore(faulty, **options)
