"""What a read or write on the batch device costs, whatever its size.

Launches, calls of nvCOMP and copies each way are counted for arrays of 10 and of 1,000 chunks.  The
numbers must be the same, so that a slide back to one call per chunk fails here; and they must not
exceed ``MOST``, so that none creeps in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from device_suite import BATCHED, FEW, blosc, named, require, same_bits
from hostile import LITTLE, Json, items_of, regular, sharding, v2_document, v3_document

import zarr_gpu
from zarr_gpu.array import Array
from zarr_gpu.devices import get_device
from zarr_gpu.devices.cuda import BatchDevice

ROWS = (3, 20) if FEW else (10, 1000)
"""Numbers of chunks that are compared."""

EDGE = 16 if FEW else 64

_SCALE: Json = {"offset": 1, "scale": 8, "dtype": "<f8", "astype": "<i4"}

# Codecs behind "bytes" (or all of them) -> most launches, calls of nvCOMP, uploads, downloads of a
# read of the whole array.
CHAINS: dict[str, tuple[list[Any], tuple[int, int, int, int]]] = {
    "raw": ([LITTLE], (1, 0, 4, 1)),
    "big endian": ([named("bytes", endian="big")], (1, 0, 4, 1)),
    "transpose": ([named("transpose", order=[1, 0]), LITTLE], (1, 0, 4, 1)),
    "zstd": ([LITTLE, named("zstd", level=1, checksum=False)], (1, 1, 5, 1)),
    "gzip": ([LITTLE, named("gzip", level=1)], (2, 2, 7, 1)),
    "zlib": ([LITTLE, named("numcodecs.zlib", level=1)], (5, 1, 8, 1)),
    "lz4": ([LITTLE, "numcodecs.lz4"], (1, 1, 5, 1)),
    "blosc lz4": ([LITTLE, blosc("lz4", "shuffle")], (2, 1, 7, 1)),
    "blosc zstd bits": ([LITTLE, blosc("zstd", "bitshuffle")], (2, 1, 7, 1)),
    "blosc blosclz": ([LITTLE, blosc("blosclz", "noshuffle")], (2, 0, 5, 1)),
    "blosc zlib": ([LITTLE, blosc("zlib", "shuffle")], (6, 1, 10, 1)),
    "crc32c": ([LITTLE, "crc32c"], (2, 1, 6, 1)),
    "zstd crc32c": ([LITTLE, named("zstd", level=1), "crc32c"], (2, 2, 7, 2)),
    "shuffle lz4": (
        [LITTLE, named("numcodecs.shuffle", elementsize=4), "numcodecs.lz4"],
        (2, 1, 6, 1),
    ),
    "delta zstd": (
        [named("numcodecs.delta", dtype="<i4"), LITTLE, named("zstd", level=1)],
        (3, 1, 6, 1),
    ),
    "adler32": ([LITTLE, "numcodecs.adler32"], (4, 0, 6, 1)),
    "bz2 on the host": ([LITTLE, named("numcodecs.bz2", level=1)], (1, 0, 5, 1)),
    "fletcher32 on the host": ([LITTLE, "numcodecs.fletcher32"], (1, 0, 5, 1)),
}

KINDS = ("launches", "nvcomp_calls", "uploads", "downloads")
MOST = 40
"""No read or write of these tests needs more of anything."""


def document(codecs: list[Any], chunks: int, *, shard: int = 0) -> Json:
    """An array of so many chunks side by side."""
    if shard:
        codecs = [sharding([8, EDGE // 8], *codecs)]
    return v3_document(
        shape=[8, chunks * EDGE // 8],
        chunk_grid=regular(8, EDGE // 8 * (shard or 1)),
        codecs=codecs,
        fill_value=-1,
    )


def counted(device: BatchDevice, call: Callable[[], Any]) -> tuple[dict[str, int], Any]:
    device.counts.clear()
    result = call()
    counts = {kind: device.counts[kind] for kind in KINDS}
    assert max(counts.values()) <= MOST
    return counts, result


@pytest.fixture(params=BATCHED)
def device(request: pytest.FixtureRequest) -> BatchDevice:
    require(request.param)
    found = get_device(request.param)
    assert isinstance(found, BatchDevice)
    return found


def values_of(array: Array) -> np.ndarray:
    return (np.arange(array.size, dtype="i4") ** 3 % 2551).reshape(array.shape)


def filled(device: BatchDevice, doc: Json) -> Array:
    array = zarr_gpu.open_array(items_of(doc), mode="r+", device="cpu")
    array[...] = values_of(array)
    return array.to(device)


@pytest.mark.parametrize("chain", CHAINS)
def test_reads(device: BatchDevice, chain: str) -> None:
    codecs, most = CHAINS[chain]
    seen = []
    for chunks in ROWS:
        array = filled(device, document(codecs, chunks))
        counts, got = counted(device, lambda: array[...])  # noqa: B023
        assert same_bits(got, values_of(array))
        seen.append(counts)
    assert seen[0] == seen[1]
    # On a GPU more threads share a row, and alignments are those that nvCOMP asks for there.
    slack = 0 if device.kind == "sim" else 2
    assert all(n <= limit + slack for n, limit in zip(seen[0].values(), most, strict=True)), seen


@pytest.mark.parametrize("chain", CHAINS)
def test_writes(device: BatchDevice, chain: str) -> None:
    """Whole chunks, then a part of each: these are decoded first."""
    codecs, _ = CHAINS[chain]
    whole, partly = [], []
    for chunks in ROWS:
        array = zarr_gpu.open_array(items_of(document(codecs, chunks)), mode="r+", device=device)
        values = values_of(array)
        counts, _ = counted(device, lambda: array.set_basic_selection(..., values))  # noqa: B023
        whole.append(counts)
        counts, _ = counted(device, lambda: array.set_basic_selection(2, 5))  # noqa: B023
        partly.append(counts)
        values[2] = 5
        assert same_bits(array.to("cpu")[...], values)
    assert whole[0] == whole[1]
    assert partly[0] == partly[1]
    assert whole[0]["downloads"] <= 4


SELECTIONS: dict[str, Callable[[Array], Any]] = {
    "backwards, every second": lambda a: a[::-1, ::-2],
    "one row": lambda a: a[3],
    "unsorted rows": lambda a: a.oindex[[5, 0, 5, 2]],
    "points": lambda a: a.vindex[np.arange(a.shape[1]) % 8, np.arange(a.shape[1]) * 7 % a.shape[1]],
    "mask": lambda a: a.get_mask_selection(np.arange(a.size).reshape(a.shape) % 3 == 0),
    "blocks": lambda a: a.blocks[0, :],
}


@pytest.mark.parametrize("how", SELECTIONS)
def test_selections(device: BatchDevice, how: str) -> None:
    seen = []
    for chunks in ROWS:
        array = filled(device, document(CHAINS["blosc lz4"][0], chunks))
        counts, got = counted(device, lambda: SELECTIONS[how](array))  # noqa: B023
        assert same_bits(got, SELECTIONS[how](array.to("cpu")))
        seen.append(counts)
    assert seen[0] == seen[1]


def test_absent_chunks_and_shards(device: BatchDevice) -> None:
    codecs = CHAINS["zstd"][0]
    for shard in (0, 10):
        seen = []
        for chunks in (10, 40 if FEW else 1000):
            array = filled(device, document(codecs, chunks, shard=shard))
            stored = array.store.items  # type: ignore[attr-defined]
            if not shard:
                del stored["c/0/3"], stored["c/0/7"]
            counts, got = counted(device, lambda: array[...])  # noqa: B023
            assert same_bits(got, array.to("cpu")[...])
            seen.append(counts)
        assert seen[0] == seen[1]
    array = zarr_gpu.open_array(items_of(document(codecs, 50)), device=device)
    counts, got = counted(device, lambda: array[...])
    assert (counts["nvcomp_calls"], counts["launches"]) == (0, 1)
    assert same_bits(got, np.full(array.shape, -1, "i4"))


def test_damage_costs_no_more_than_a_second_look(device: BatchDevice) -> None:
    """Chunks that are refused before anything runs are looked at by the CPU, all together."""
    seen = []
    for chunks in ROWS:
        array = filled(device, document(CHAINS["zstd"][0], chunks))
        stored = array.store.items  # type: ignore[attr-defined]
        for n in range(0, chunks, 2):
            stored[f"c/0/{n}"] = stored[f"c/0/{n}"][:-2]

        def read() -> None:
            with pytest.raises(zarr_gpu.errors.ChunkDecodeError, match="c/0/0"):
                array[...]  # noqa: B023

        seen.append(counted(device, read)[0])
    assert seen[0] == seen[1]


def test_v2_chains(device: BatchDevice) -> None:
    for filters, compressor in (
        (None, {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}),
        ([{"id": "delta", "dtype": "<i4"}], {"id": "zlib", "level": 1}),
        ([{"id": "shuffle", "elementsize": 4}], {"id": "bz2", "level": 1}),
    ):
        seen = []
        for chunks in ROWS:
            doc = v2_document(
                shape=[8, chunks * EDGE // 8],
                chunks=[8, EDGE // 8],
                filters=filters,
                compressor=compressor,
            )
            array = filled(device, doc)
            counts, got = counted(device, lambda: array[...])  # noqa: B023
            assert same_bits(got, values_of(array))
            seen.append(counts)
        assert seen[0] == seen[1], compressor
