"""N5 containers, written here as zarr-python 2 and Java's n5 write them."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import pytest
from store_suite import fetch

import zarr_gpu
from zarr_gpu.errors import DataError, MetadataError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.n5 import N5Store
from zarr_gpu.storage.n5_blocks import TYPES
from zarr_gpu.storage.opening import open_store
from zarr_gpu.storage.wrappers import CountingStore

SHAPE, CHUNKS = (7, 10, 3), (3, 4, 2)


def java_lz4(data: bytes) -> bytes:
    """As LZ4BlockOutputStream writes it: blocks, one of them stored as it is, and an end."""
    half = len(data) // 2
    packed = bytes(numcodecs.LZ4().encode(data[:half]))[4:]
    blocks = [(0x25, packed, half), (0x15, data[half:], len(data) - half), (0x15, b"", 0)]
    return b"".join(
        struct.pack("<8sBIII", b"LZ4Block", token, len(part), size, 0) + part
        for token, part, size in blocks
    )


COMPRESSIONS: dict[str, tuple[Any, Any]] = {
    "raw": ({"type": "raw"}, bytes),
    "gzip": ({"type": "gzip", "level": 1, "useZlib": False}, gzip.compress),
    "zlib": ({"type": "gzip", "level": 1, "useZlib": True}, zlib.compress),
    "bzip2": ({"type": "bzip2", "blockSize": 1}, bz2.compress),
    "xz": ({"type": "xz", "preset": 1}, lzma.compress),
    "blosc": (
        {"type": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
        lambda data: bytes(numcodecs.Blosc().encode(data)),
    ),
    "zstd": ({"type": "zstd", "level": 1}, lambda data: bytes(numcodecs.Zstd(1).encode(data))),
    "lz4 of zarr-python": (
        {"type": "lz4", "id": "lz4", "acceleration": 1},
        lambda data: bytes(numcodecs.LZ4().encode(data)),
    ),
    "lz4 of Java": ({"type": "lz4", "blockSize": 65536}, java_lz4),
}


def write(
    items: dict[str, bytes],
    path: str,
    values: npt.NDArray[Any],
    chunks: tuple[int, ...],
    compression: str = "raw",
    *,
    cut: bool = False,
    mode: int = 0,
    **attributes: Any,
) -> None:
    """An N5 dataset; with ``cut`` blocks at the edge are smaller, as Java writes them."""
    configuration, compress = COMPRESSIONS[compression]
    document = {
        "dimensions": values.shape[::-1],
        "blockSize": chunks[::-1],
        "dataType": values.dtype.name,
        "compression": configuration,
        **attributes,
    }
    items[f"{path}/attributes.json"] = json.dumps(document).encode()
    counts = [range(-(-n // c)) for n, c in zip(values.shape, chunks, strict=True)]
    for index in itertools.product(*counts):
        part = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
        if not cut:
            missing = [(0, c - n) for n, c in zip(part.shape, chunks, strict=True)]
            part = np.pad(part, missing)
        head = struct.pack(f">HH{part.ndim}I", mode, part.ndim, *part.shape[::-1])
        if mode == 1:
            head += struct.pack(">I", part.size)
        data = part.astype(part.dtype.newbyteorder(">")).tobytes()
        name = "/".join([path, *map(str, reversed(index))])
        items[name] = head + compress(data)


def ramp(dtype: str) -> npt.NDArray[Any]:
    return np.arange(1, 1 + int(np.prod(SHAPE))).reshape(SHAPE).astype(dtype)


@pytest.fixture
def container() -> dict[str, bytes]:
    items = {
        "attributes.json": b'{"n5": "2.0.0", "title": "old"}',
        "g/attributes.json": b"{}",
        "g/deep/empty/attributes.json": b"{}",  # "g/deep" does not say that it is a group
    }
    write(items, "g/x", ramp("uint16"), CHUNKS, "gzip", unit="nm")
    write(items, "one", np.arange(5, dtype="float32"), (2,))
    return items


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("cut", [False, True], ids=["padded", "cut"])
def test_compressions(compression: str, cut: bool) -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp("uint16"), CHUNKS, compression, cut=cut)
    array = zarr_gpu.open_array(N5Store(MemoryStore(items)), path="x", mode="r")
    assert array.shape == SHAPE
    assert array.chunks == CHUNKS
    assert np.array_equal(array[...], ramp("uint16"))
    assert np.array_equal(array[5, ::2, 1], ramp("uint16")[5, ::2, 1])


@pytest.mark.parametrize("dtype", sorted(TYPES))
def test_types(dtype: str) -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp(dtype), CHUNKS)
    array = zarr_gpu.open_array(N5Store(MemoryStore(items)), path="x", mode="r")
    assert array.dtype == np.dtype(dtype).newbyteorder("<")
    assert np.array_equal(array[...], ramp(dtype))


def test_blocks_that_count_their_elements() -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp("int32"), CHUNKS, "gzip", cut=True, mode=1)
    array = zarr_gpu.open_array(N5Store(MemoryStore(items)), path="x", mode="r")
    assert np.array_equal(array[...], ramp("int32"))


def test_older_names_of_the_compression() -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp("int32"), CHUNKS, "gzip")
    document = json.loads(items["x/attributes.json"])
    del document["compression"]
    document["compressionType"] = "gzip"
    items["x/attributes.json"] = json.dumps(document).encode()
    array = zarr_gpu.open_array(N5Store(MemoryStore(items)), path="x", mode="r")
    assert np.array_equal(array[...], ramp("int32"))


def test_the_hierarchy(container: dict[str, bytes]) -> None:
    group = zarr_gpu.open_group(N5Store(MemoryStore(container)), mode="r")
    assert dict(group.attrs) == {"title": "old"}
    names = sorted(name for name, _ in group.members(max_depth=None))
    assert names == ["g", "g/deep", "g/deep/empty", "g/x", "one"]
    assert dict(group["g/x"].attrs) == {"unit": "nm"}
    assert group["one"][...].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(group["g/x"][...], ramp("uint16"))


def test_absent_blocks_are_zero(container: dict[str, bytes]) -> None:
    del container["g/x/1/0/0"]
    expected = ramp("uint16")
    expected[:3, :4, 2:] = 0
    array = zarr_gpu.open_array(N5Store(MemoryStore(container)), path="g/x", mode="r")
    assert np.array_equal(array[...], expected)


def test_listing_tells_what_can_be_read(container: dict[str, bytes]) -> None:
    container["g/x/notes.txt"] = b"no chunk"
    container["g/7/8"] = b"numbers below a group"
    store = N5Store(MemoryStore(container))
    keys = list(store.list_prefix())
    assert keys == sorted(keys)
    for key in keys:
        value = store.get(key)
        assert value is not None, key
        assert store.nbytes(key) == len(value)
    assert list(store.list_prefix("one")) == ["one/.zarray", "one/0", "one/1", "one/2"]
    assert store.list_dir("one") == (".zarray", "0", "1", "2")
    assert store.list_dir() == (".zattrs", ".zgroup", "g", "one")
    assert store.list_dir("g") == (".zgroup", "7", "deep", "x")
    assert store.list_dir("g/x/0") == ()
    assert list(store.list_prefix("g/x/0")) == []
    below = list(store.list_prefix("g/x"))
    assert below == [key for key in keys if key.startswith("g/x/")]
    assert len(below) == 2 + 3 * 3 * 2
    assert list(store.list_prefix("nothing")) == []
    assert store.list_dir("nothing") == ()
    assert list(N5Store(MemoryStore()).list_prefix()) == []
    for absent in ("g/x/0.0", "g/x/0.0.0.0", "g/x/0", "g/x/9.9.9", "g/x/.zgroup", "g/.zarray"):
        assert store.get(absent) is None
        assert store.nbytes(absent) is None


def test_ranges(container: dict[str, bytes]) -> None:
    store = N5Store(MemoryStore(container))
    chunk = ramp("uint16")[3:6, :4, :2].astype("<u2").tobytes()
    assert fetch(store, ("g/x/1.0.0", 0, REST), ("g/x/1.0.0", 4, 6), ("g/x/1.0.0", -3, REST)) == [
        chunk,
        chunk[4:10],
        chunk[-3:],
    ]


def test_a_read_asks_for_each_block_once(container: dict[str, bytes]) -> None:
    counting = CountingStore(MemoryStore(container))
    array = zarr_gpu.open_array(N5Store(counting), path="g/x", mode="r")
    counting.reset()
    array[:, :, 0]
    assert sorted(counting.keys_read) == sorted(
        f"g/x/0/{j}/{i}" for j in range(3) for i in range(3)
    )


def test_copies_stay_readable(container: dict[str, bytes], tmp_path: Path) -> None:
    for key, value in container.items():
        path = tmp_path / "a.n5" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
    zarr_gpu.copy_store(str(tmp_path / "a.n5"), str(tmp_path / "b.zarr"))
    group = zarr_gpu.open_group(str(tmp_path / "b.zarr"), mode="r")
    assert np.array_equal(group["g/x"][...], ramp("uint16"))
    assert dict(group["g/x"].attrs) == {"unit": "nm"}


def test_opening(tmp_path: Path) -> None:
    by_path = open_store(str(tmp_path / "a.N5"))[0]
    by_url = open_store(f"n5+file://{tmp_path}/a")[0]
    assert by_path == N5Store(LocalStore(tmp_path / "a.N5", read_only=True))
    assert by_url == N5Store(LocalStore(tmp_path / "a", read_only=True))
    assert open_store(f"n5+file://{tmp_path}/a.n5")[0] == open_store(str(tmp_path / "a.n5"))[0]
    assert by_url.read_only
    assert pickle.loads(pickle.dumps(by_url)) == by_url
    for call in (
        lambda: by_path.put("x", b""),
        lambda: open_store(str(tmp_path / "a.n5"), mode="w"),
    ):
        with pytest.raises(ReadOnlyError):
            call()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_blocks_cut_short(compression: str) -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp("uint16"), CHUNKS, compression)
    whole = items["x/0/0/0"]
    store = N5Store(MemoryStore(items))
    for n in (0, 3, 15, 16, 20, len(whole) // 2, len(whole) - 1):
        items["x/0/0/0"] = whole[:n]
        with pytest.raises(DataError) as caught:
            store.get("x/0.0.0")
        assert caught.value.key == "x/0.0.0"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_blocks_that_claim_another_size(compression: str) -> None:
    for other in ((3, 4, 1), (3, 4, 5), (2**31, 2**31, 2**31), (0, 4, 2)):
        items: dict[str, bytes] = {}
        write(items, "x", ramp("uint16"), CHUNKS, compression)
        whole = items["x/0/0/0"]
        items["x/0/0/0"] = whole[:4] + struct.pack(">3I", *other[::-1]) + whole[16:]
        with pytest.raises(DataError) as caught:
            N5Store(MemoryStore(items)).get("x/0.0.0")
        assert caught.value.key == "x/0.0.0"


@pytest.mark.parametrize("compression", ["gzip", "zlib", "bzip2", "xz", "zstd"])
def test_bombs_are_not_unpacked(compression: str) -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp("uint16"), CHUNKS, compression)
    items["x/0/0/0"] = items["x/0/0/0"][:16] + COMPRESSIONS[compression][1](bytes(2_000_000))
    with pytest.raises(DataError) as caught:
        N5Store(MemoryStore(items)).get("x/0.0.0")
    assert caught.value.key == "x/0.0.0"


@pytest.mark.parametrize(
    ("mode", "ndim", "message"), [(2, 3, "mode 2"), (0, 2, "2 dimensions"), (7, 3, "mode 7")]
)
def test_blocks_of_other_kinds(mode: int, ndim: int, message: str) -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp("uint16"), CHUNKS)
    items["x/0/0/0"] = struct.pack(">HH", mode, ndim) + items["x/0/0/0"][4:]
    with pytest.raises(DataError, match=message):
        N5Store(MemoryStore(items)).get("x/0.0.0")


@pytest.mark.parametrize(
    "changes",
    [
        {"dimensions": [1, 2]},
        {"dimensions": "many"},
        {"dimensions": None},
        {"blockSize": [0, 4, 2]},
        {"blockSize": []},
        {"dataType": "object"},
        {"dataType": ["uint8"]},
        {"compression": {"type": "jpeg"}},
        {"compression": {"type": ["raw"]}},
        {"compression": {}},
        {"compression": 5},
    ],
)
def test_attributes_that_describe_nothing(changes: dict[str, Any]) -> None:
    items: dict[str, bytes] = {}
    write(items, "x", ramp("uint16"), CHUNKS)
    document = {**json.loads(items["x/attributes.json"]), **changes}
    items["x/attributes.json"] = json.dumps(document).encode()
    for key in ("x/.zarray", "x/0.0.0"):
        with pytest.raises(MetadataError) as caught:
            N5Store(MemoryStore(items)).get(key)
        assert caught.value.key == "x/attributes.json"


@pytest.mark.parametrize("document", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_attributes_that_are_no_object(document: bytes) -> None:
    store = N5Store(MemoryStore({"attributes.json": document}))
    with pytest.raises(MetadataError) as caught:
        store.get(".zgroup")
    assert caught.value.key == "attributes.json"


def test_failures_of_the_store_below(container: dict[str, bytes]) -> None:
    class Broken(MemoryStore):
        def read(self, key: str, offset: int, nbytes: int) -> Any:
            raise PermissionError(13, "denied")

    with pytest.raises(StoreError, match="denied") as caught:
        N5Store(Broken(container)).get("g/x/0.0.0")
    assert isinstance(caught.value, PermissionError)
