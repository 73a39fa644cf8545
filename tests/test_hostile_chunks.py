"""Damaged chunks, of every codec: an error that says where, and nothing else touched.

Shards have a file of their own, ``test_hostile_shards.py``.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hostile import (
    LITTLE,
    Items,
    Json,
    check_error,
    new_array,
    sharding,
    unchanged,
    v2_document,
    v3_document,
)

import zarr_gpu
from zarr_gpu.errors import ChunkDecodeError, ZarrError

NUMBERS = (np.arange(48, dtype="i4") ** 3 % 251).reshape(8, 6)
FLOATS = (NUMBERS / 8).astype("f8")
TEXTS = np.array([f"item {'é' * (n % 5)}{n}" for n in NUMBERS.flat]).reshape(8, 6)
BYTES = np.array([b"\0item %d" % n for n in NUMBERS.flat] + [None], object)[:-1].reshape(8, 6)


def blosc(cname: str, shuffle: str) -> Json:
    configuration = {
        "typesize": 4, "cname": cname, "clevel": 5, "shuffle": shuffle, "blocksize": 0,
    }  # fmt: skip
    return {"name": "blosc", "configuration": configuration}


def named(name: str, **configuration: Any) -> Json:
    return {"name": name, "configuration": configuration}


SCALE = {"offset": 0, "scale": 8, "dtype": "<f8", "astype": "<i4"}

V3: dict[str, tuple[list[Any], np.ndarray[Any, Any], bool]] = {
    # codecs, values, whether a checksum covers all data
    "bytes": ([LITTLE], NUMBERS, False),
    "big": ([named("bytes", endian="big")], NUMBERS, False),
    "transpose": ([named("transpose", order=[1, 0]), LITTLE], NUMBERS, False),
    "gzip": ([LITTLE, named("gzip", level=5)], NUMBERS, True),
    "zstd": ([LITTLE, named("zstd", level=3, checksum=False)], NUMBERS, False),
    "zstd sum": ([LITTLE, named("zstd", level=3, checksum=True)], NUMBERS, True),
    "blosc lz4": ([LITTLE, blosc("lz4", "shuffle")], NUMBERS, False),
    "blosc zstd": ([LITTLE, blosc("zstd", "bitshuffle")], NUMBERS, False),
    "blosc blosclz": ([LITTLE, blosc("blosclz", "noshuffle")], NUMBERS, False),
    "blosc zlib": ([LITTLE, blosc("zlib", "shuffle")], NUMBERS, False),
    "crc32c": ([LITTLE, "crc32c"], NUMBERS, True),
    "zstd crc32c": ([LITTLE, "zstd", "crc32c"], NUMBERS, True),
    "vlen-utf8": (["vlen-utf8"], TEXTS, False),
    "vlen-utf8 zstd": (["vlen-utf8", "zstd"], TEXTS, False),
    "vlen-bytes gzip": (["vlen-bytes", named("gzip", level=1)], BYTES, True),
    "zlib": ([LITTLE, named("numcodecs.zlib", level=1)], NUMBERS, True),
    "lz4": ([LITTLE, named("numcodecs.lz4", acceleration=1)], NUMBERS, False),
    "bz2": ([LITTLE, named("numcodecs.bz2", level=1)], NUMBERS, True),
    "lzma": ([LITTLE, named("numcodecs.lzma", preset=1)], NUMBERS, True),
    "shuffle": ([LITTLE, named("numcodecs.shuffle", elementsize=4)], NUMBERS, False),
    "adler32": ([LITTLE, named("numcodecs.adler32")], NUMBERS, True),
    "crc32": ([LITTLE, named("numcodecs.crc32")], NUMBERS, True),
    "fletcher32": ([LITTLE, named("numcodecs.fletcher32")], NUMBERS, True),
    "delta": ([named("numcodecs.delta", dtype="<i4"), LITTLE], NUMBERS, False),
    "fixedscaleoffset": ([named("numcodecs.fixedscaleoffset", **SCALE), LITTLE], FLOATS, False),
    "sharding in zstd": ([sharding([2, 2]), "zstd"], NUMBERS, False),
}

V2: dict[str, tuple[list[Json] | None, Json | None, np.ndarray[Any, Any], bool]] = {
    # filters, compressor, values, whether a checksum covers all data
    "none": (None, None, NUMBERS, False),
    "blosc": (None, {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}, NUMBERS, False),
    "zstd": (None, {"id": "zstd", "level": 1}, NUMBERS, False),
    "gzip": (None, {"id": "gzip", "level": 1}, NUMBERS, True),
    "zlib": (None, {"id": "zlib", "level": 1}, NUMBERS, True),
    "lz4": (None, {"id": "lz4", "acceleration": 1}, NUMBERS, False),
    "bz2": (None, {"id": "bz2", "level": 1}, NUMBERS, True),
    "lzma": (None, {"id": "lzma", "preset": 1}, NUMBERS, True),
    "shuffle": ([{"id": "shuffle", "elementsize": 4}], None, NUMBERS, False),
    "delta": ([{"id": "delta", "dtype": "<i4"}], None, NUMBERS, False),
    "delta zlib": ([{"id": "delta", "dtype": "<i4"}], {"id": "zlib", "level": 1}, NUMBERS, True),
    "scale": ([{"id": "fixedscaleoffset", **SCALE}], None, FLOATS, False),
    "scale bz2": ([{"id": "fixedscaleoffset", **SCALE}], {"id": "bz2"}, FLOATS, True),
    "crc32": ([{"id": "crc32"}], None, NUMBERS, True),
    "crc32c": ([{"id": "crc32c"}], None, NUMBERS, True),
    "adler32": ([{"id": "adler32"}], None, NUMBERS, True),
    "fletcher32": ([{"id": "fletcher32"}], None, NUMBERS, True),
    "vlen-utf8": ([{"id": "vlen-utf8"}], None, TEXTS, False),
    "vlen-bytes zstd": ([{"id": "vlen-bytes"}], {"id": "zstd", "level": 1}, BYTES, False),
}

TYPES = {
    "i": ("int32", "<i4", 0),
    "f": ("float64", "<f8", 0),
    "U": ("string", "|O", ""),
    "O": ("variable_length_bytes", "|O", ""),
}


def document_of(case: str) -> tuple[Json, np.ndarray[Any, Any], bool, list[str]]:
    """(document, values, covered by a checksum, names of the codecs)."""
    version, _, name = case.partition(" ")
    if version == "v3":
        codecs, values, summed = V3[name]
        v3_type, _, fill = TYPES[values.dtype.kind]
        names = [codec if isinstance(codec, str) else codec["name"] for codec in codecs]
        return v3_document(data_type=v3_type, codecs=codecs, fill_value=fill), values, summed, names
    filters, compressor, values, summed = V2[name]
    _, v2_type, fill = TYPES[values.dtype.kind]
    ids = [c["id"] for c in (*(filters or ()), *([compressor] if compressor else ()))]
    document = v2_document(dtype=v2_type, filters=filters, compressor=compressor, fill_value=fill)
    return document, values, summed, ["bytes", *ids, *(f"numcodecs.{i}" for i in ids)]


CASES = [f"v3 {name}" for name in V3] + [f"v2 {name}" for name in V2]

RESIZED = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "last byte cut": lambda data: data[:-1],
    "first byte cut": lambda data: data[1:],
    "junk behind": lambda data: data + b"\xa5junk",
    "twice": lambda data: data + data,
}


def same(one: Any, other: Any) -> bool:
    return bool((np.asarray(one) == np.asarray(other)).all())


def filled(case: str) -> tuple[zarr_gpu.Array, Items, str, np.ndarray[Any, Any], list[str], bool]:
    document, values, summed, names = document_of(case)
    array, items = new_array(document, values)
    assert same(array[...], values)
    key = "c/0/0" if case.startswith("v3") else "0.0"
    return array, items, key, values, names, summed


@pytest.mark.parametrize("case", CASES)
def test_a_chunk_of_another_length_is_refused(case: str) -> None:
    array, items, key, values, names, _ = filled(case)
    good = items[key]
    for what, damage in RESIZED.items():
        if what == "twice" and case == "v3 sharding in zstd":
            continue  # bytes between the chunks of a shard and its index mean nothing
        items[key] = damage(good)
        with unchanged(items):
            for read in (
                lambda: array[...],
                lambda: array[0, 0],
                lambda: array.oindex[[3, 0], [5, 1]],
                lambda: array.vindex[[0, 7], [0, 0]],
                # Half a chunk written needs the other half.
                lambda: array.__setitem__((slice(0, 5), 0), values[:5, 0]),
            ):
                with pytest.raises(ChunkDecodeError) as caught:
                    read()
                check_error(caught.value, key=key)
                assert caught.value.codec in names, (what, str(caught.value))
                assert caught.value.__cause__ is not None
            # The other chunk is as readable as before.
            assert same(array[4:], values[4:])
            assert same(array[7, 5], values[7, 5])
    # Writing all of the chunk needs nothing of what is there.
    array[:4] = values[:4]
    assert same(array[...], values)


@pytest.mark.parametrize("case", CASES)
def test_every_cut_is_refused(case: str) -> None:
    array, items, key, _, _, _ = filled(case)
    good = items[key]
    for length in range(len(good)):
        items[key] = good[:length]
        with pytest.raises(ChunkDecodeError):
            array[0, 0]


@pytest.mark.parametrize("case", CASES)
def test_changed_bytes_are_refused_or_harmless(case: str) -> None:
    """With a checksum nothing may change silently; without one only values may."""
    array, items, key, values, _, summed = filled(case)
    rng = np.random.default_rng(7)
    good = np.frombuffer(items[key], np.uint8)
    for n in range(300 if os.environ.get("HYPOTHESIS_PROFILE") == "full" else 60):
        bad = good.copy()
        if n % 3 == 0:
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        elif n % 3 == 1:
            start = int(rng.integers(len(bad)))
            bad[start : start + 4] = rng.choice([0, 255, 127])
        else:
            bad[rng.integers(len(bad), size=3)] = rng.integers(256, size=3)
        items[key] = bad.tobytes()
        try:
            result = array[...]
        except ChunkDecodeError as error:
            check_error(error, key=key)
            continue
        assert result.shape == values.shape
        assert same(result[4:], values[4:])
        if summed:
            assert same(result, values)


@pytest.mark.parametrize("case", CASES)
def test_noise_is_refused_or_harmless(case: str) -> None:
    array, items, key, values, _, summed = filled(case)
    rng = np.random.default_rng(8)
    length = len(items[key])
    noise = [bytes(length), b"\xff" * length, bytes(1 << 16), b"\xff" * (1 << 16)]
    noise += [rng.bytes(int(rng.integers(1, 200))) for _ in range(20)]
    for data in noise:
        items[key] = data
        try:
            result = array[:4]
        except ChunkDecodeError as error:
            check_error(error, key=key)
            continue
        # Runs of zeros or ones may be their own checksum.
        assert not summed or len(set(data)) == 1
        assert result.shape == (4, 6)
    assert same(array[4:], values[4:])


def test_one_bad_chunk_among_many_is_named() -> None:
    document = v3_document(
        shape=[100, 100],
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": [5, 5]}},
        codecs=[LITTLE, "crc32c"],
    )
    values = np.arange(10_000, dtype="i4").reshape(100, 100)
    array, items = new_array(document, values)
    rng = np.random.default_rng(3)
    for _ in range(20):
        i, j = (int(n) for n in rng.integers(20, size=2))
        key = f"c/{i}/{j}"
        good = items[key]
        items[key] = good[:-1] + bytes([good[-1] ^ 1])
        with pytest.raises(ChunkDecodeError) as caught:
            array[...]
        check_error(caught.value, key=key, codec="crc32c")
        with pytest.raises(ChunkDecodeError):
            array[i * 5, j * 5]
        mask = np.ones((100, 100), bool)
        mask[i * 5 : i * 5 + 5, j * 5 : j * 5 + 5] = False
        assert (array.vindex[mask] == values[mask]).all()
        items[key] = good
    assert (array[...] == values).all()


def test_a_failed_read_leaves_nothing_for_the_next_one() -> None:
    """Scratch memory of a chunk that failed must not show up in another result."""
    array, items, key, values, _, _ = filled("v3 zstd")
    items[key] = items[key][:-3]
    out = np.full((8, 6), -1, "i4")
    with pytest.raises(ChunkDecodeError):
        array.get_basic_selection(..., out=out)
    del items[key]
    assert (array[:4] == 0).all()
    assert (array[4:] == values[4:]).all()


def test_values_too_large_for_a_codec_leave_the_store_as_it_was() -> None:
    array, items, _, values, _, _ = filled("v2 delta")
    with unchanged(items), pytest.raises((ZarrError, ValueError)):
        array[...] = np.array(["x"])
    with unchanged(items), pytest.raises((ZarrError, ValueError)):
        array[...] = values[:3]
    with unchanged(items), pytest.raises(IndexError):
        array[8] = 1
