"""What a process makes once, on first use."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest
from store_suite import in_child

from zarr_gpu.storage.lazy import OnePerProcess


class Thing:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_made_once_and_closed_once() -> None:
    made: list[Thing] = []
    holder = OnePerProcess(lambda: made.append(Thing()) or made[-1], Thing.close)
    assert made == []
    assert holder.get() is holder.get()
    assert len(made) == 1
    holder.close()
    holder.close()
    assert made[0].closed == 1
    assert holder.get() is made[1]
    assert made[1].closed == 0


def test_threads_get_the_same() -> None:
    started = threading.Barrier(8)
    holder = OnePerProcess(Thing, Thing.close)
    got: list[Thing] = []

    def work() -> None:
        started.wait()
        got.append(holder.get())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(map(id, got))) == 1


def test_an_error_in_the_making_is_not_kept() -> None:
    errors = [OSError("first")]

    def make() -> Thing:
        if errors:
            raise errors.pop()
        return Thing()

    holder = OnePerProcess(make, Thing.close)
    with pytest.raises(OSError, match="first"):
        holder.get()
    assert holder.get() is holder.get()


def test_what_nobody_holds_is_closed() -> None:
    holder = OnePerProcess(Thing, Thing.close)
    thing = holder.get()
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None
    assert thing.closed == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
def test_a_child_makes_its_own_and_closes_nothing_of_the_parent() -> None:
    holder = OnePerProcess(Thing, Thing.close)
    mine = holder.get()

    def child() -> bool:
        other = holder.get()
        fresh = other is not mine
        holder.close()
        return fresh and other.closed == 1 and mine.closed == 0

    assert in_child(child)
    assert holder.get() is mine
    assert mine.closed == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_lock_that_another_thread_held_at_the_fork() -> None:
    making, done = threading.Event(), threading.Event()

    def make() -> Thing:
        making.set()
        done.wait(10)
        return Thing()

    holder = OnePerProcess(make, Thing.close)
    thread = threading.Thread(target=holder.get)
    thread.start()
    making.wait(10)

    def child() -> bool:
        done.set()
        return isinstance(holder.get(), Thing)

    assert in_child(child)
    done.set()
    thread.join()
