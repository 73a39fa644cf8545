"""Requests that take their time, and how many are in flight together."""

from __future__ import annotations

import time

import numpy as np
import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, ask, blob, parts

import zarr_gpu
from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.extents import ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.latency import LatencyStore
from zarr_gpu.storage.memory import MemoryStore


class TestLatencyStore(StoreSuite, StoreArraySuite):
    title = "latency, of memory"
    shared = many_writers = durable = in_order = False
    many_keys = 500

    @pytest.fixture
    def store(self) -> Store:
        return LatencyStore(MemoryStore(), 0.0001, concurrency=8)


@pytest.mark.parametrize("concurrency", [4, 8, 32])
def test_a_thousand_chunks_use_the_declared_concurrency(concurrency: int) -> None:
    inner = MemoryStore()
    array = zarr_gpu.create_array(inner, shape=(1000, 4), chunks=(1, 4), dtype="i4")
    array[...] = np.arange(4000).reshape(1000, 4)
    latency = max(0.004, 0.0005 * concurrency)  # that all may start meanwhile
    store = LatencyStore(inner, latency, concurrency=concurrency)
    array = zarr_gpu.open_array(store, mode="r")
    store.requests = store.peak = 0
    begin = time.monotonic()
    assert np.array_equal(array[...], np.arange(4000).reshape(1000, 4))
    spent = time.monotonic() - begin
    assert store.requests == 1000
    assert store.peak == concurrency  # 1,000 requests that wait: as many as may be are in flight
    assert spent >= latency * 1000 / concurrency


def test_one_at_a_time() -> None:
    store = LatencyStore(MemoryStore({f"{i}": b"1" for i in range(50)}), 0.0002)
    store.fetch(ByteRequest.whole([f"{i}" for i in range(50)]), HostMemory())
    assert (store.requests, store.peak) == (50, 1)


def test_writes_overlap_too() -> None:
    store = LatencyStore(MemoryStore(), 0.01, concurrency=6)
    store.put_many((f"{i}", b"1") for i in range(60))
    assert store.requests == 60
    assert store.peak == 6
    store.peak = 0
    store.delete_many(f"{i}" for i in range(60))
    assert store.peak == 6


def test_every_byte_takes_its_time() -> None:
    store = LatencyStore(MemoryStore({"x": bytes(1000)}), 0.0, per_byte=1e-5)
    for call in (lambda: store.get("x"), lambda: store.put("y", bytes(1000))):
        begin = time.monotonic()
        call()
        assert time.monotonic() - begin >= 0.01


def test_neighbouring_ranges_are_one_request() -> None:
    store = LatencyStore(MemoryStore({"x": blob(1000)}), 0.0)
    ranges = (("x", 0, 10), ("x", 20, 10), ("x", 50, 5))
    assert parts(store.fetch(ask(*ranges), HostMemory())) == [
        blob(1000)[lo : lo + n] for _, lo, n in ranges
    ]
    assert store.requests == 1


def test_it_declares_what_the_store_inside_declares() -> None:
    inner = MemoryStore(read_only=True)
    inner.concurrency, inner.max_gap, inner.supports_listing = 17, 5, False
    store = LatencyStore(inner, 0.0)
    assert (store.concurrency, store.max_gap, store.supports_listing) == (17, 5, False)
    assert store.read_only
    assert LatencyStore(inner, 0.0) == store != LatencyStore(inner, 0.1)


def test_failures_are_no_longer_in_flight() -> None:
    store = LatencyStore(MemoryStore({"x": "no bytes"}), 0.0)
    for _ in range(3):
        with pytest.raises(OSError, match="must be bytes"):
            store.fetch(ByteRequest.whole(["x"]), HostMemory())
    assert store.peak == 1


def test_times_that_make_no_sense() -> None:
    for latency, per_byte in ((-1, 0), (0, -1)):
        with pytest.raises(InvalidKeyError):
            LatencyStore(MemoryStore(), latency, per_byte=per_byte)
