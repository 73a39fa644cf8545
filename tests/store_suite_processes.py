"""What holds for every store used by threads and processes at once, and after one of them died."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_suite_base import StoreChecks, at_once, blob, fetch, in_child, in_children, needs, parts

from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store

CHILD = Path(__file__).with_name("store_child.py")

may_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")


def spawn(store: Store, job: str, *arguments: Any) -> subprocess.Popen[bytes]:
    """A fresh interpreter that does a job of ``store_child.py`` with a pickled ``store``."""
    paths = [str(CHILD.parent), str(CHILD.parents[1]), *sys.path]
    child = subprocess.Popen(
        [sys.executable, str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert child.stdin is not None
    child.stdin.write(pickle.dumps((job, pickle.dumps(store), arguments)))
    child.stdin.close()
    child.stdin = None
    return child


class ProcessChecks(StoreChecks):
    """Threads, copies, forked and spawned children."""

    # ---- threads -------------------------------------------------------------------------------

    def test_concurrent_readers(self, store: Store) -> None:
        values = {f"a/{i}": blob(2000 + i, i) for i in range(20)}
        self.fill(store, values.items())

        def read(seed: int) -> Callable[[], None]:
            rng = np.random.default_rng(seed)

            def run() -> None:
                for _ in range(self.many_turns):
                    ranges = [(f"a/{k}", int(lo), 100) for k, lo in rng.integers(0, 20, (15, 2))]
                    wanted = [values[key][lo : lo + n] for key, lo, n in ranges]
                    assert fetch(store, *ranges) == wanted
                    key = f"a/{rng.integers(20)}"
                    assert store.get(key) == values[key]
                    assert store.get("no") is None

            return run

        at_once(*(read(seed) for seed in range(8)))

    @needs("writable")
    def test_concurrent_writers_of_one_key(self, store: Store) -> None:
        size = 30_000
        store.put("a/x", bytes(size))
        done = threading.Event()
        left = iter(range(3, -1, -1))  # writers still at work once one has ended

        def write(i: int) -> None:
            try:
                for _ in range(15):
                    store.put("a/x", bytes([i]) * size)
            finally:
                if next(left) == 0:
                    done.set()

        def read() -> None:
            while not done.is_set():
                for value in (store.get("a/x"), *fetch(store, ("a/x", 0, REST))):
                    assert value is not None
                    assert len(value) == size
                    assert value == value[:1] * size

        at_once(*((lambda i=i: write(i)) for i in range(4)), read, read)
        value = store.get("a/x")
        assert value is not None
        assert value == value[:1] * size
        self.check_keys(store, ["a/x"])

    @needs("writable")
    def test_a_reader_of_ranges_beside_a_writer(self, store: Store) -> None:
        """Two ranges that are read as one are of one value; each range is always of one."""
        size = 50_000
        store.put("x", bytes(size))
        done = threading.Event()

        def write() -> None:
            try:
                for i in range(40):
                    store.put("x", bytes([i]) * size)
            finally:
                done.set()

        def read() -> None:
            while not done.is_set():
                for answer in fetch(store, ("x", 0, 30_000), ("x", -16, 16)):
                    assert answer is not None
                    assert answer == answer[:1] * len(answer)
                near = fetch(store, ("x", 10, 5), ("x", 20, 5))
                assert near[0] == near[1]

        at_once(write, read, read)

    @needs("writable")
    def test_threads_on_keys_of_their_own(self, store: Store) -> None:
        def work(i: int) -> None:
            for j in range(2 * self.many_turns):
                key = f"d/{i}/{j % 3}"
                store.put(key, b"%d-%d" % (i, j))
                assert store.get(key) == b"%d-%d" % (i, j)
                store.delete_many([key])
            store.put(f"d/{i}/end", b"%d" % i)

        at_once(*((lambda i=i: work(i)) for i in range(8)))
        assert [store.get(f"d/{i}/end") for i in range(8)] == [b"%d" % i for i in range(8)]
        self.check_keys(store, [f"d/{i}/end" for i in range(8)])

    @needs("writable")
    def test_batches_from_several_threads(self, store: Store) -> None:
        n = 6 * self.many_turns

        def write(t: int) -> None:
            store.put_many((f"{t}/{i}", blob(100, 1000 * t + i)) for i in range(n))
            store.delete_many(f"{t}/{i}" for i in range(0, n, 2))

        at_once(*((lambda t=t: write(t)) for t in range(4)))
        kept = {f"{t}/{i}": blob(100, 1000 * t + i) for t in range(4) for i in range(1, n, 2)}
        answer = store.fetch(ByteRequest.whole(list(kept)), HostMemory())
        assert parts(answer) == list(kept.values())
        self.check_keys(store, kept)

    @needs("writable")
    def test_many_who_store_a_new_key_at_once(self, store: Store) -> None:
        for n in range(5):
            stored: list[bytes] = []

            def put(i: int, n: int = n, stored: list[bytes] = stored) -> None:
                if store.put_if_absent(f"k/{n}", b"%d" % i * 1000):
                    stored.append(b"%d" % i * 1000)

            at_once(*((lambda i=i, put=put: put(i)) for i in range(6)))
            assert store.get(f"k/{n}") in stored
            assert len(stored) == 1 or not store.atomic_put_if_absent
            assert not store.put_if_absent(f"k/{n}", b"late")
            assert store.get(f"k/{n}") in stored

    # ---- copies --------------------------------------------------------------------------------

    def test_a_pickled_store_means_the_same(self, store: Store) -> None:
        self.fill(store, [("a/x", b"1"), ("b", b"2")])
        self.settle(store)
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert hash(copy) == hash(store)
        self.check_keys(copy, ["a/x", "b"])
        assert fetch(copy, ("a/x", 0, REST), ("b", 0, 1)) == [b"1", b"2"]
        assert copy.read_only == store.read_only
        again = pickle.loads(pickle.dumps(copy))  # a copy of a copy that was used
        assert again.get("b") == b"2"
        again.close()
        copy.close()

    @needs("writable", "shared", "many_writers")
    def test_a_copy_and_its_original_see_each_other(self, store: Store) -> None:
        store.put("a", b"1")
        copy = pickle.loads(pickle.dumps(store))
        try:
            assert copy.get("a") == b"1"
            copy.put_many([("b", b"2"), ("c", b"3")])
            assert fetch(store, ("b", 0, REST), ("c", 0, 1)) == [b"2", b"3"]
            store.delete_many(["b"])
            store.put("a", b"longer")
            assert fetch(copy, ("b", 0, REST), ("a", 0, REST)) == [None, b"longer"]
            self.check_keys(copy, ["a", "c"])
        finally:
            copy.close()

    # ---- processes -----------------------------------------------------------------------------

    @needs("forks")
    @needs_fork
    @may_fork
    def test_a_forked_child_reads(self, store: Store) -> None:
        values = {f"a/{i}": blob(1000, i) for i in range(20)}
        self.fill(store, values.items())

        def read_all() -> bool:
            answer = store.fetch(ByteRequest.whole(list(values)), HostMemory())
            return parts(answer) == list(values.values()) and store.get("a/3") == values["a/3"]

        assert read_all()  # whatever the store makes lazily exists before the fork
        assert in_child(read_all)
        assert read_all()

    @needs("writable", "forks", "shared", "many_writers")
    @needs_fork
    @may_fork
    def test_forked_children_write_keys_of_their_own(self, store: Store) -> None:
        store.put("d/before", b"1")

        def work(i: int) -> bool:
            for j in range(10):
                store.put(f"d/{i}/{j}", blob(500, 10 * i + j))
            store.delete_many([f"d/{i}/0"])
            return store.get(f"d/{i}/9") == blob(500, 10 * i + 9) and store.get("d/before") == b"1"

        assert in_children((lambda i=i: work(i)) for i in range(3))
        kept = {f"d/{i}/{j}": blob(500, 10 * i + j) for i in range(3) for j in range(1, 10)}
        assert fetch(store, *((key, 0, REST) for key in kept)) == list(kept.values())
        self.check_keys(store, [*kept, "d/before"])

    @needs("writable", "forks", "shared", "many_writers")
    @needs_fork
    @may_fork
    def test_forked_children_write_one_key(self, store: Store) -> None:
        size = 20_000
        store.put("x", bytes(size))

        def whole(value: bytes | None) -> bool:
            return value is not None and len(value) == size and value == value[:1] * size

        def work(i: int) -> bool:
            for j in range(10):
                store.put("x", bytes([10 * i + j]) * size)
                if not whole(store.get("x")):
                    return False
            return True

        assert in_children((lambda i=i: work(i)) for i in range(3))
        assert whole(store.get("x"))
        self.check_keys(store, ["x"])

    @needs("spawns")
    def test_a_spawned_child_reads(self, store: Store) -> None:
        values = {f"a/{i}": blob(1000, i) for i in range(20)}
        self.fill(store, values.items())
        self.settle(store)
        child = spawn(store, "read", list(values))
        answer, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        assert pickle.loads(answer) == list(values.values())

    @needs("writable", "shared", "spawns")
    def test_what_a_spawned_child_writes_is_seen(self, store: Store) -> None:
        values = {f"a/{i}": blob(1000, i) for i in range(20)}
        store.put("a/0", b"old")
        self.settle(store)
        child = spawn(store, "write", values)
        answer, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        assert pickle.loads(answer) == len(values)
        assert fetch(store, *((key, 0, REST) for key in values)) == list(values.values())
        self.check_keys(store, values)

    @needs("writable", "shared", "spawns", "durable")
    def test_what_was_stored_survives_kill_9(self, store: Store) -> None:
        """Of a writer killed in the middle, all that it was told is stored is there, and whole."""
        store.put("before", b"1")
        self.settle(store)
        child = spawn(store, "write until killed")
        assert child.stdout is not None
        told = 0
        while told < 25:
            line = child.stdout.readline()
            assert line, "the child ended by itself"
            told = int(line)
        child.kill()
        rest = child.stdout.read()  # not communicate(): lines that were read ahead count too
        child.stdout.close()
        child.wait(60)
        told = max([told, *map(int, rest.split(b"\n")[:-1])])
        assert store.get("before") == b"1"
        for i in range(told + 1):
            assert store.get(f"k/{i}") == blob(3000, i)
        last = store.get("same")
        assert last in {blob(9000, i) for i in range(told, told + 3)}
        assert store.get("deleted") is None
        extra = store.get(f"k/{told + 1}")
        assert extra in {None, blob(3000, told + 1)}
        store.put("same", b"after")
        store.put("k/0", b"after")
        assert fetch(store, ("same", 0, REST), ("k/0", 0, REST)) == [b"after", b"after"]
        if self.listable:
            found = set(store.list_prefix())
            known = {"before", "same", *(f"k/{i}" for i in range(told + 1))}
            assert known <= found <= known | {f"k/{told + 1}", f"k/{told + 2}"}
