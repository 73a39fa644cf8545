"""Calls in flight together: order, bounds, errors, forks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
from store_suite import in_child

from zarr_gpu.storage import pool
from zarr_gpu.storage.pool import map_ahead


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_come_in_order(workers: int) -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.005 if i % 4 == 0 else 0)
        return i * i

    assert list(map_ahead(slow_first, range(50), workers)) == [i * i for i in range(50)]
    assert list(map_ahead(slow_first, [], workers)) == []


def test_one_worker_is_the_caller() -> None:
    assert set(map_ahead(lambda _: threading.current_thread(), range(3), 1)) == {
        threading.current_thread()
    }


def test_as_many_calls_at_once_as_asked() -> None:
    lock = threading.Lock()
    active = most = 0

    def work(_: int) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.002)
        with lock:
            active -= 1

    list(map_ahead(work, range(60), 6))
    assert 2 <= most <= 6


def test_items_are_drawn_on_the_way() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for i in range(1000):
            drawn.append(i)
            yield i

    results = map_ahead(lambda i: i, items(), 4)
    assert next(results) == 0
    assert len(drawn) <= 9
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_stops_what_has_not_begun(workers: int) -> None:
    begun = []

    def work(i: int) -> None:
        begun.append(i)
        if i == 3:
            raise KeyError(i)
        time.sleep(0.001)

    with pytest.raises(KeyError):
        list(map_ahead(work, range(1000), workers))
    time.sleep(0.02)
    assert len(begun) < 20


def test_an_error_of_the_items_surfaces() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda i: i, items(), 4))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    def use() -> bool:
        return list(map_ahead(lambda i: i + 1, range(20), 3)) == list(range(1, 21))

    assert use()
    with pool._lock:  # as if another thread were just making a pool
        assert in_child(use)
    assert use()
