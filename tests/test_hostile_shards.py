"""Shards whose index lies, read and written: only our errors, and nothing else touched."""

from __future__ import annotations

import os
import struct
from collections import Counter
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hostile import (
    LITTLE,
    Items,
    Json,
    items_of,
    new_array,
    regular,
    sharding,
    unchanged,
    v3_document,
)

import zarr_gpu
from zarr_gpu.errors import ChunkDecodeError, DataError, ShardIndexError

EMPTY = 2**64 - 1
KEY = "c/0/1"
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
BLOSC = {
    "name": "blosc",
    "configuration": {
        "typesize": 2, "cname": "lz4", "clevel": 1, "shuffle": "shuffle", "blocksize": 0,
    },
}  # fmt: skip

VALUES = np.random.default_rng(1).integers(1, 60000, (16, 16), dtype="u2")


def document(*codecs: Json) -> Json:
    """16 x 16 uint16 in four stored objects of 8 x 8."""
    return v3_document(
        shape=[16, 16], chunk_grid=regular(8, 8), data_type="uint16", codecs=list(codecs)
    )


def pack_index(pairs: list[tuple[int, int]], checksum: bool = True) -> bytes:
    data = b"".join(struct.pack("<2Q", *pair) for pair in pairs)
    return data + struct.pack("<I", google_crc32c.value(data)) if checksum else data


class Shard:
    """A stored shard of four children, in pieces."""

    def __init__(self, data: bytes, location: str = "end", checksum: bool = True) -> None:
        self.location, self.checksum = location, checksum
        self.size = 64 + 4 * checksum
        at = 0 if location == "start" else len(data) - self.size
        self.pairs = [struct.unpack_from("<2Q", data, at + 16 * i) for i in range(4)]
        self.body = data[self.size :] if location == "start" else data[:at]

    def pack(self, pairs: list[Any] | None = None) -> bytes:
        index = pack_index(self.pairs if pairs is None else pairs, self.checksum)
        return index + self.body if self.location == "start" else self.body + index

    def with_pair(self, number: int, *pair: int) -> bytes:
        pairs: list[Any] = list(self.pairs)
        pairs[number] = pair
        return self.pack(pairs)


def others_are_readable(array: zarr_gpu.Array) -> bool:
    return bool((array[:8, :8] == VALUES[:8, :8]).all() and (array[8:] == VALUES[8:]).all())


@pytest.mark.parametrize("inner", ["end", "start"])
@pytest.mark.parametrize("outer", ["end", "start"])
def test_nested_shards_begin_where_the_outer_one_does(outer: str, inner: str) -> None:
    """Two indexes may have the same offset in the same object."""
    codec = sharding([4, 4], sharding([2, 2], LITTLE, location=inner), location=outer)
    array, items = new_array(document(codec), VALUES)
    assert (array[...] == VALUES).all()
    assert (array[:8] == VALUES[:8]).all()
    data = items[KEY]
    assert Shard(Shard(data, outer).body, inner).pairs  # both indexes are where they should be


IMPOSSIBLE = [
    (EMPTY, 8),
    (8, EMPTY),
    (EMPTY, 0),
    (0, EMPTY),
    (EMPTY - 1, EMPTY - 1),
    (2**63, 8),
    (8, 2**63),
    (2**63 - 1, 2**63 - 1),
    (2**63 - 8, 16),
    (2**62, 2**62),
    (2**62 - 1, 2**62 - 1),
    (2**64 - 8, 16),
    (2**64 - 8, 8),
    (2**40, 8),
    (0, 2**40),
    (8, 2**31),
    (0, 2**32 + 8),
    (10_000, 8),
    (0, 10_000),
]


@pytest.mark.parametrize("pair", IMPOSSIBLE)
@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("checksum", [True, False])
def test_entries_that_point_outside(pair: tuple[int, int], location: str, checksum: bool) -> None:
    codec = sharding([4, 4], location=location, checksum=checksum)
    array, items = new_array(document(codec), VALUES)
    shard = Shard(items[KEY], location, checksum)
    items[KEY] = shard.with_pair(2, *pair)
    with unchanged(items):
        for act in (
            lambda: array[...],
            lambda: array[4, 8],
            lambda: array.vindex[[5, 0], [9, 0]],
            lambda: array.__setitem__((0, 15), 1),  # another chunk of the same shard
        ):
            with pytest.raises(ShardIndexError) as caught:
                act()
            assert caught.value.key == KEY
            assert KEY in str(caught.value)
            assert isinstance(caught.value, ValueError)
        assert others_are_readable(array)
        if max(pair) < 2**62:  # an entry that can be looked at harms only its own chunk
            assert (array[:4, 8:] == VALUES[:4, 8:]).all()
    array[:8, 8:] = VALUES[:8, 8:]
    assert (array[...] == VALUES).all()


@pytest.mark.parametrize("pair", IMPOSSIBLE)
@pytest.mark.parametrize("inner", ["start", "end"])
def test_entries_of_nested_shards_that_point_outside(pair: tuple[int, int], inner: str) -> None:
    array, items = new_array(document(sharding([4, 4], sharding([2, 2], location=inner))), VALUES)
    outer = Shard(items[KEY])
    start, size = outer.pairs[1]
    nested = Shard(outer.body[start : start + size], inner).with_pair(3, *pair)
    outer.body = outer.body[:start] + nested + outer.body[start + size :]
    items[KEY] = outer.pack()
    with unchanged(items):
        for act in (
            lambda: array[...],
            lambda: array[3, 15],
            lambda: array.__setitem__((0, 12), 1),
        ):
            with pytest.raises(ShardIndexError) as caught:
                act()
            assert caught.value.key == KEY
        assert others_are_readable(array)
        assert (array[:8, 8:12] == VALUES[:8, 8:12]).all()


def test_a_nested_shard_may_not_read_its_neighbour() -> None:
    """In range of the object, but not of the shard that the entry is in."""
    array, items = new_array(document(sharding([4, 4], sharding([2, 2]))), VALUES)
    outer = Shard(items[KEY])
    start, size = outer.pairs[0]
    nested = Shard(outer.body[start : start + size])
    outer.body = nested.with_pair(0, size + 8, 8) + outer.body[size:]
    items[KEY] = outer.pack()
    with unchanged(items), pytest.raises(ShardIndexError, match="nested"):
        array[0, 8]


@pytest.mark.parametrize("pair", [(0, 0), (8, 1), (0, 31), (0, 33)])
def test_entries_of_wrong_size_are_an_error_of_the_chunk(pair: tuple[int, int]) -> None:
    array, items = new_array(document(sharding([4, 4])), VALUES)
    items[KEY] = Shard(items[KEY]).with_pair(2, *pair)
    with unchanged(items):
        with pytest.raises(ChunkDecodeError) as caught:
            array[...]
        assert caught.value.key == KEY
        assert caught.value.codec == "bytes"
        assert (caught.value.expected, caught.value.actual) == (32, pair[1])
        assert (array[:4] == VALUES[:4]).all()
        assert others_are_readable(array)
    # Bytes of the chunks that are not written stay as they are, readable or not.
    array[0, 8] = 7
    assert array[0, 8] == 7
    with pytest.raises(ChunkDecodeError):
        array[4, 8]
    array[4:8, 8:12] = VALUES[4:8, 8:12]
    array[0, 8] = VALUES[0, 8]
    assert (array[...] == VALUES).all()


def test_an_index_of_nothing_but_ones_is_empty() -> None:
    array, items = new_array(document(sharding([4, 4])), VALUES)
    items[KEY] = pack_index([(EMPTY, EMPTY)] * 4)
    assert (array[:8, 8:] == 0).all()
    assert others_are_readable(array)
    items[KEY] = Shard(items["c/0/0"]).with_pair(0, EMPTY, EMPTY)
    assert (array[:4, 8:12] == 0).all()
    assert (array[4:8, 8:] == VALUES[4:8, :8]).all()


def test_entries_that_overlap_within_the_shard_decode() -> None:
    array, items = new_array(document(sharding([4, 4])), VALUES)
    shard = Shard(items[KEY])
    items[KEY] = shard.pack([shard.pairs[0]] * 4)
    block = VALUES[:4, 8:12]
    assert (array[:8, 8:] == np.block([[block, block], [block, block]])).all()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("checksum", [True, False])
def test_every_cut_of_a_shard_is_refused(nested: bool, location: str, checksum: bool) -> None:
    inner = [sharding([2, 2], location=location)] if nested else [LITTLE, ZSTD]
    array, items = new_array(
        document(sharding([4, 4], *inner, location=location, checksum=checksum)), VALUES
    )
    good = items[KEY]
    index_nbytes = 64 + 4 * checksum
    for length in [*range(0, len(good), 7), len(good) - 1]:
        items[KEY] = good[:length]
        with unchanged(items):
            with pytest.raises(DataError) as caught:
                array[:8]
            assert caught.value.key == KEY
            if length < index_nbytes or (checksum and location == "end"):
                assert isinstance(caught.value, ShardIndexError)
            with pytest.raises(DataError):
                array[0, 15] = 1
        assert others_are_readable(array)


def test_a_wrong_checksum_of_the_index_is_named() -> None:
    array, items = new_array(document(sharding([4, 4])), VALUES)
    good = items[KEY]
    for position in range(len(good) - 68, len(good)):
        bad = bytearray(good)
        bad[position] ^= 0x10
        items[KEY] = bytes(bad)
        with unchanged(items), pytest.raises(ShardIndexError, match="checksum") as caught:
            array[0, 8]
        assert caught.value.key == KEY
        assert caught.value.codec == "crc32c"


def test_an_index_longer_than_the_shard() -> None:
    """A shard of many chunks of which the file has fewer bytes than the index alone."""
    big = v3_document(
        shape=[1 << 20], chunk_grid=regular(1 << 20), data_type="uint8", codecs=[sharding([16])]
    )
    for data in (b"", b"x", bytes(1000), b"\xff" * (1 << 16)):
        for location in ("start", "end"):
            big["codecs"] = [sharding([16], location=location)]
            items = items_of(big) | {"c/0": data}
            array = zarr_gpu.open_array(items, mode="r+")
            with unchanged(items):
                with pytest.raises(ShardIndexError) as caught:
                    array[5]
                assert caught.value.key == "c/0"
                assert caught.value.expected == (1 << 16) * 16 + 4
                assert caught.value.actual == len(data)
                with pytest.raises(ShardIndexError):
                    array[5] = 1


def test_a_shard_of_absurdly_many_chunks() -> None:
    """The index alone would not fit in memory."""
    huge = v3_document(
        shape=[1 << 45], chunk_grid=regular(1 << 45), data_type="uint8", codecs=[sharding([32])]
    )
    items = items_of(huge)
    try:
        array = zarr_gpu.open_array(items, mode="r")
        assert array[5] == 0
    except zarr_gpu.errors.MetadataError as error:
        assert error.key == "zarr.json"
    huge["chunk_grid"] = regular(1 << 39)
    array = zarr_gpu.open_array(items_of(huge), mode="r")  # 2**34 chunks: an index of 256 GiB
    assert array[5] == 0
    array = zarr_gpu.open_array(items_of(huge) | {"c/0": bytes(100)}, mode="r")
    with pytest.raises(ShardIndexError):
        array[5]


# ---------------------------------------------------------------------------------- random

NUMBERS = [0, 1, 2, 15, 16, 17, 31, 32, 33, 64, 68, 100, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40,
           2**62 - 1, 2**62, 2**63 - 1, 2**63, EMPTY - 1, EMPTY]  # fmt: skip


def random_number(rng: np.random.Generator, size: int) -> int:
    kind = rng.random()
    if kind < 0.45:
        return NUMBERS[rng.integers(len(NUMBERS))]
    if kind < 0.8:
        return int(rng.integers(size + 20))
    if kind < 0.9:
        return 2**64 - int(rng.integers(1, 200))
    return int(rng.integers(2**64, dtype=np.uint64))


def random_pairs(rng: np.random.Generator, shard: Shard) -> list[Any]:
    pairs: list[Any] = []
    for offset, nbytes in shard.pairs:
        if rng.random() < 0.5:
            offset = random_number(rng, len(shard.body) + shard.size)
        if rng.random() < 0.4:
            nbytes = random_number(rng, len(shard.body) + shard.size)
        pairs.append((offset, nbytes))
    return pairs


def random_damage(rng: np.random.Generator, data: bytes, setup: dict[str, Any]) -> bytes:
    kind = rng.random()
    if kind < 0.4:
        shard = Shard(data, setup["location"], setup["checksum"])
        return shard.pack(random_pairs(rng, shard))
    if kind < 0.7 and setup["nested"]:
        outer = Shard(data, setup["location"], setup["checksum"])
        body_at = outer.size if setup["location"] == "start" else 0
        number = int(rng.integers(4))
        start, size = outer.pairs[number]
        start -= body_at
        inner = Shard(outer.body[start : start + size], setup["inner"], True)
        changed = inner.pack(random_pairs(rng, inner))
        outer.body = outer.body[:start] + changed + outer.body[start + size :]
        return outer.pack()
    if kind < 0.85:
        return data[: rng.integers(len(data))]
    bad = np.frombuffer(data, np.uint8).copy()
    bad[rng.integers(len(bad), size=3)] = rng.integers(256, size=3)
    return bad.tobytes() + rng.bytes(int(rng.integers(3)) * 15)


SETUPS: list[dict[str, Any]] = [
    {"codecs": codecs, "location": location, "checksum": checksum, "nested": nested, "inner": inner}
    for codecs, location, checksum, nested, inner in [
        ([LITTLE], "end", True, False, ""),
        ([LITTLE], "start", False, False, ""),
        ([LITTLE, ZSTD], "end", False, False, ""),
        ([LITTLE, BLOSC], "start", True, False, ""),
        ([LITTLE, "crc32c"], "end", True, False, ""),
        ([LITTLE], "end", False, True, "end"),
        ([LITTLE, ZSTD], "start", True, True, "start"),
        ([LITTLE], "start", False, True, "end"),
        ([LITTLE, BLOSC], "end", True, True, "start"),
        ([LITTLE, "crc32c"], "end", False, True, "end"),
    ]
]
FUZZ = 2000 if os.environ.get("HYPOTHESIS_PROFILE") == "full" else 250


@pytest.mark.parametrize("number", range(len(SETUPS)))
def test_random_shards_give_only_our_errors(number: int) -> None:
    """With FUZZ = 250 these are 2,500 damaged shards."""
    setup = SETUPS[number]
    inner = [sharding([2, 2], *setup["codecs"], location=setup["inner"])]
    codec = sharding(
        [4, 4],
        *(inner if setup["nested"] else setup["codecs"]),
        location=setup["location"],
        checksum=setup["checksum"],
    )
    array, items = new_array(document(codec), VALUES)
    good = dict(items)
    rng = np.random.default_rng(number)
    seen: Counter[str] = Counter()
    for _ in range(FUZZ):
        items[KEY] = bad = random_damage(rng, good[KEY], setup)
        i, j = int(rng.integers(8)), int(rng.integers(8, 16))
        try:
            act(array, items, i, j, int(rng.integers(4)))
            seen["fine"] += 1
        except DataError as error:
            seen[type(error).__name__] += 1
            assert error.key == KEY, error
            assert items[KEY] == bad
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}; shard {bad.hex()}")
        assert array[int(rng.integers(8, 16)), j] is not None
        items[KEY] = bad
    items[KEY] = good[KEY]
    assert items == good
    assert (array[...] == VALUES).all()
    assert seen["ShardIndexError"] > FUZZ // 4
    assert seen["fine"] > FUZZ // 50


def act(array: zarr_gpu.Array, items: Items, i: int, j: int, what: int) -> None:
    """Read or write something of the damaged shard."""
    match what:
        case 0:
            assert array[:8, 8:].shape == (8, 8)
        case 1:
            assert array[i, j].shape == ()
        case 2:
            assert array[1:7, 9:12].shape == (6, 3)
        case _:
            array[i, j] = 7
            assert array[i, j] == 7
