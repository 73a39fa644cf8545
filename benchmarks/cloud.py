"""Reads from S3 against zarr-python over obstore and TensorStore; what calls of obstore cost.

``python benchmarks/cloud.py`` starts a server (``moto[server]``) on the loopback interface, writes
64 chunks of 1 MiB (float32, Zstandard 3) and reads them all, in turns.  The server shares the
cores: what is compared is the cost of a request and how well fetching and decoding overlap, not
bandwidth.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import publish

import zarr_gpu
from zarr_gpu.storage.pool import map_ahead

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from server_s3 import BUCKET, options, s3_server

SHAPE, CHUNKS = (16, 1024, 1024), (1, 512, 512)
PACKAGES = ("zarr-gpu", "obstore", "zarr", "tensorstore", "moto", "numpy")
Figures = dict[str, tuple[list[float], list[float]]]


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> Figures:
    """Seconds and processor seconds of each call, in rotating order, after one that is not kept."""
    figures: Figures = {name: ([], []) for name in calls}
    names = list(calls)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            wall, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            if i:
                figures[name][0].append(time.perf_counter() - wall)
                figures[name][1].append(time.process_time() - cpu)
    return figures


def readers(endpoint: str) -> dict[str, Callable[[], Any]]:
    """A full read by each of those who take part."""
    import tensorstore
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    url = f"s3://{BUCKET}/data"
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=SHAPE).cumsum(axis=2).astype("f4").round(2)
    zarr_gpu.create_array(
        url,
        data=smooth,
        chunks=CHUNKS,
        compressors={"name": "zstd", "configuration": {"level": 3, "checksum": False}},
        storage_options=options(endpoint),
    )
    ours = zarr_gpu.open_array(url, mode="r", storage_options=options(endpoint))
    inner = S3Store(
        BUCKET,
        prefix="data",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
    )
    zarr.config.set({"async.concurrency": 16})
    theirs = zarr.open_array(ObjectStore(inner, read_only=True), mode="r")
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    spec = {
        "driver": "zarr3",
        "kvstore": {
            "driver": "s3",
            "bucket": BUCKET,
            "path": "data/",
            "endpoint": endpoint,
            "aws_region": "us-east-1",
            "aws_credentials": {"type": "environment"},
        },
    }
    third = tensorstore.open(spec, read=True).result()
    found = {
        "zarr_gpu": lambda: ours[...],
        "zarr-python + obstore": lambda: theirs[...],
        "TensorStore": lambda: third.read().result(),
    }
    for name, read in found.items():
        assert np.array_equal(np.asarray(read()), smooth), name
    return found


def ways_to_call(n: int) -> dict[str, Callable[[], Any]]:
    """``n`` small values of obstore's memory, asked for in threads and as coroutines."""
    import obstore
    from obstore.store import MemoryStore

    store = MemoryStore()
    keys = [f"k/{i}" for i in range(n)]
    for key in keys:
        obstore.put(store, key, bytes(4096))
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def gather() -> None:
        left = iter(keys)

        async def work() -> None:
            for key in left:
                await obstore.get_range_async(store, key, start=0, length=4096)

        await asyncio.gather(*(work() for _ in range(32)))

    def call(key: str) -> Any:
        return obstore.get_range(store, key, start=0, length=4096)

    return {
        "calls in 32 threads": lambda: list(map_ahead(call, keys, 32)),
        "32 coroutines": lambda: asyncio.run_coroutine_threadsafe(gather(), loop).result(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    calls = 2000
    with s3_server() as endpoint:
        reads = take_turns(readers(endpoint), rounds)
    ways = take_turns(ways_to_call(calls), rounds)
    rows = []
    best = min(statistics.median(w) for name, (w, _) in reads.items() if name != "zarr_gpu")
    for name, (wall, cpu) in reads.items():
        median = statistics.median(wall)
        figures = [f"{median * 1e3:.0f} ms", f"{statistics.median(cpu) * 1e3:.0f} ms"]
        rows.append([f"S3, 64 chunks: {name}", *figures, f"{median / best:.2f}"])
    least = min(statistics.median(w) for w, _ in ways.values())
    for name, (wall, cpu) in ways.items():
        each = [statistics.median(part) / calls for part in (wall, cpu)]
        figures = [f"{value * 1e6:.0f} µs" for value in each]
        rows.append([f"one call of obstore: {name}", *figures, f"{each[0] * calls / least:.2f}"])
    publish(
        "cloud",
        "Medians; reads relative to the best of the others, calls relative to the better way.",
        ["what", "time", "processor time", "ratio"],
        rows,
        {"reads": reads, "calls": ways},
        PACKAGES,
    )


if __name__ == "__main__":
    main()
