"""What tests of several databases share."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable

import pytest
from store_suite import fetch

from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import StoreConnectionError


def check_unreachable(store: Store, match: str | None = None) -> None:
    """Every call fails, names the key and keeps the password to itself."""
    for call in (
        lambda: store.get("x"),
        lambda: fetch(store, ("x", 0, 1), ("y", 0, 1)),
        lambda: store.put("x", b"1"),
        lambda: store.put_many([("x", b"1")]),
        lambda: list(store.list_prefix("x")),
        lambda: store.delete_many(["x"]),
    ):
        with pytest.raises(StoreConnectionError, match=match) as caught:
            call()
        assert caught.value.key == "x"
        assert "secret" not in str(caught.value)


def check_bounded_memory(store: Store, most: int) -> None:
    """A batch of 16 MiB, with blocks of 1 MiB set, takes at most so many bytes at a time."""
    store.put("warm", b"up")
    tracemalloc.start()
    try:
        store.put_many((f"k/{i}", b"\x01" * (1 << 18)) for i in range(64))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(list(store.list_prefix("k"))) == 64
    assert peak < most


def check_killed_writer(make: Callable[[], Store]) -> None:
    """Whoever opens the store after a writer was killed finds batches whole, and the last one."""
    for _ in range(3):
        done, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with make() as store:
                    for i in range(10_000):
                        store.put_many((f"k/{j}", b"%d" % i) for j in range(10))
                        os.write(told, b"%d " % i)
            finally:
                os._exit(1)
        acknowledged = b""
        while acknowledged.count(b" ") < 20:
            acknowledged += os.read(done, 100)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(told)
        while part := os.read(done, 1000):
            acknowledged += part
        os.close(done)
        with make() as store:
            values = {store.get(f"k/{j}") for j in range(10)}
            assert len(values) == 1
            (value,) = values
            assert value is not None
            assert int(value) >= int(acknowledged.split()[-1])
