"""What a read of 1,000 chunks asks of a store: requests, bytes, how many in flight, and how long.

``python benchmarks/stores.py URL [URL ...]``; without URLs: memory, a local folder, a zip file and
SQLite in a temporary folder.  ``URL`` may be followed by a space and a JSON object of storage
options.  The array is written below the given place, in a new group that is removed afterwards; a
store that cannot be written to is read as it is, and must hold the array at the URL.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from report import publish

import zarr_gpu
from zarr_gpu.errors import MissingDependencyError
from zarr_gpu.storage import CountingStore, LatencyStore, PrefixStore, Store, open_store
from zarr_gpu.storage.wrapper import Wrapper

CHUNKS = 1000


class InFlight(Wrapper):
    """Counts the reads that are in flight at once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.now = self.peak = 0

    def read(self, key: str, offset: int, nbytes: int) -> Any:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)
        try:
            return self.store.read(key, offset, nbytes)
        finally:
            with self._lock:
                self.now -= 1

    def read_spans(self, spans: Any, memory: Any) -> Any:
        return Store.read_spans(self, spans, memory)


@contextmanager
def place(url: str, options: dict[str, Any]) -> Iterator[tuple[Store, Any]]:
    """A store that holds nothing but the array, and what to compare the array with."""
    store, path = open_store(url, storage_options=options or None)
    try:
        if store.read_only or not store.supports_writes:
            yield PrefixStore(store, path), None
            return
        below = PrefixStore(store, f"{path}/bench-{uuid.uuid4().hex[:8]}".lstrip("/"))
        data = np.random.default_rng(0).integers(0, 256, (CHUNKS, 1 << 16), np.uint8)
        array = zarr_gpu.create_array(
            below, shape=data.shape, chunks=(1, 1 << 16), dtype="u1", compressors=None
        )
        array[...] = data
        try:
            yield below, data
        finally:
            below.delete_prefix("")
    finally:
        store.close()


def seconds(store: Store, data: Any) -> float:
    array = zarr_gpu.open_array(store, mode="r")
    begin = time.perf_counter()
    result = array[...]
    spent = time.perf_counter() - begin
    assert data is None or np.array_equal(result, data)
    return spent


def measure(store: Store, data: Any, repeat: int, latency: float) -> dict[str, Any]:
    counting = CountingStore(store)
    zarr_gpu.open_array(counting, mode="r")
    counting.reset()
    seconds(counting, data)
    inner: Any = store.store if isinstance(store, PrefixStore) else store
    together = type(inner).read_spans is not Store.read_spans
    probe = InFlight(store)
    if not together:
        seconds(probe, data)
    late = LatencyStore(store, latency)
    spent_late = seconds(late, data)
    return {
        "requests": sum(
            call.method == "read" and call.key != "zarr.json" for call in counting.calls
        ),
        "bytes": counting.bytes_read,
        "concurrency": store.concurrency,
        "together": together,
        "peak": None if together else probe.peak,
        "seconds": statistics.median(seconds(store, data) for _ in range(repeat)),
        "late_peak": late.peak,
        "late_seconds": spent_late,
        "late_ratio": spent_late / (latency * CHUNKS / store.concurrency),
    }


def shown(url: str) -> str:
    """A URL without accounts, ports and folders of this machine."""
    parts = urlsplit(url)
    return f"{parts.scheme}://..." if "://" in url else Path(url).suffix or "folder"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="*", metavar="URL")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.005, help="seconds")
    arguments = parser.parse_args()
    figures, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        own = ["memory://bench", f"{folder}/local", f"{folder}/a.zip", f"sqlite:///{folder}/a.db"]
        for text in arguments.urls or own:
            url, _, options = text.partition(" ")
            try:
                with place(url, json.loads(options) if options else {}) as (store, data):
                    found = measure(store, data, arguments.repeat, arguments.latency)
            except (MissingDependencyError, zarr_gpu.errors.InvalidKeyError) as error:
                print(f"{shown(url)}: left out: {error}")
                continue
            name = shown(url)
            figures[name] = found
            rows.append([
                name,
                f"{found['requests']:,}",
                f"{found['bytes'] / 2**20:.1f}",
                str(found["concurrency"]),
                "read together" if found["together"] else str(found["peak"]),
                f"{1e3 * found['seconds']:.0f}",
                f"{found['bytes'] / found['seconds'] / 2**20:,.0f}",
                str(found["late_peak"]),
                f"{found['late_ratio']:.2f}",
            ])  # fmt: skip
    publish(
        "stores",
        f"Reading {CHUNKS:,} raw chunks of 64 KiB at once. `requests` and `MiB` are what reached "
        "the store after coalescing; `declared` is how many requests it says are worth having in "
        "flight, `in flight` how many there were at most (a store that reads many ranges in one "
        "call of its own is not looked into). The last two columns are of the same read with "
        f"{1e3 * arguments.latency:g} ms added to each request: how many were in flight, and its "
        "time divided by latency x chunks / declared concurrency, which is 1 at best. "
        f"Medians of {arguments.repeat} reads.",
        ["store", "requests", "MiB", "declared", "in flight", "ms", "MiB/s", "late: in flight",
         "late: time / ideal"],
        rows,
        {"repeat": arguments.repeat, "latency": arguments.latency, "stores": figures},
        ["zarr-gpu", "numpy", "fsspec", "obstore", "sqlalchemy"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
