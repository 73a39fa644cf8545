"""What the log is told."""

from __future__ import annotations

import logging
import re

import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, fetch

from zarr_gpu.errors import StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.logs import LoggingStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import FaultyStore


class TestLoggingStore(StoreSuite, StoreArraySuite):
    title = "logging, of memory"
    shared = many_writers = durable = False

    @pytest.fixture
    def store(self) -> Store:
        return LoggingStore(MemoryStore())


def test_every_call_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zarr_gpu.store")
    store = LoggingStore(MemoryStore({"a/x": b"12345", "secret": b"password"}))
    store.get("a/x")
    store.get("no")
    store.nbytes("a/x")
    store.nbytes("no")
    fetch(store, ("a/x", 0, 2), ("no", 0, REST), ("secret", 1, 3), ("b", 0, 1), ("c", 0, 1))
    store.put("a/y", b"123")
    store.list_dir("a")
    assert list(store.list_prefix()) == ["a/x", "a/y", "secret"]
    store.delete_many(["a/y"])
    store.put_many([("a/z", b"12"), ("a/w", b"3")])
    store.move("a", "d")
    store.delete_prefix("d")
    store.put_if_absent("e", b"1")
    store.put_if_absent("e", b"2")
    told = [re.sub(r" in [\d.]+ ms$", "", record.getMessage()) for record in caplog.records]
    assert told == [
        "read 'a/x': 5 bytes",
        "read 'no': absent",
        "size of 'a/x': 5 bytes",
        "size of 'no': absent",
        "read 5 ranges of 5 keys ('a/x', 'no', 'secret', ...): 5 bytes, 3 absent",
        "write 'a/y': 3 bytes",
        "list 'a': 2 names",
        "list all below '': 3 keys",
        "delete a batch: 1 keys",
        "write a batch: 2 values, 3 bytes",
        "size of 'd': absent",
        "list all below 'd': 0 keys",
        "move 'a' to 'd'",
        "delete all below 'd'",
        "write 'e' if absent: 1 bytes",
        "write 'e' if absent: 1 bytes: it is there already",
    ]
    assert "password" not in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_failures_are_told(caplog: pytest.LogCaptureFixture) -> None:
    store = LoggingStore(
        FaultyStore(MemoryStore(), TimeoutError("late")), logger="mine", level=logging.INFO
    )
    caplog.set_level(logging.INFO, "mine")
    with pytest.raises(StoreError):
        store.get("x")
    (record,) = caplog.records
    assert record.name == "mine"
    assert record.getMessage().startswith("read 'x': TimeoutError: late after ")


def test_a_part_of_a_value(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zarr_gpu.store")
    LoggingStore(MemoryStore({"x": b"12345"})).read("x", 2, 2)
    assert caplog.records[0].getMessage().startswith("read 'x' from 2: 2 bytes in ")
