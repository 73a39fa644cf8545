"""A process of its own for the checks of stores: does one job with a pickled store.

Reads a pickled ``(job, pickled store, arguments)`` from its standard input.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

from store_suite_base import blob, parts

from zarr_gpu.extents import ByteRequest, HostMemory
from zarr_gpu.storage.base import Store


def read(store: Store, keys: list[str]) -> list[bytes | None]:
    return parts(store.fetch(ByteRequest.whole(keys), HostMemory()))


def write(store: Store, values: dict[str, bytes]) -> int:
    for key, value in values.items():
        store.put(key, b"first")
        store.put(key, value)
    assert read(store, list(values)) == list(values.values())
    store.close()
    return len(values)


def write_until_killed(store: Store) -> None:
    """Say the number of every round once all its values are stored."""
    store.put("deleted", b"1")
    store.delete_many(["deleted"])
    for i in range(1_000_000):
        store.put(f"k/{i}", blob(3000, i))
        store.put("same", blob(9000, i))
        sys.stdout.buffer.write(b"%d\n" % i)
        sys.stdout.buffer.flush()


JOBS: dict[str, Callable[..., Any]] = {
    "read": read,
    "write": write,
    "write until killed": write_until_killed,
}


def main() -> None:
    job, store, arguments = pickle.loads(sys.stdin.buffer.read())
    answer = JOBS[job](pickle.loads(store), *arguments)
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
