"""Documents compared with those of zarr-python: equal bytes where both write, read both ways."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from zarr_gpu.dtypes import from_user
from zarr_gpu.metadata import KeyEncoding, v2, v3
from zarr_gpu.metadata.consolidated import read_zmetadata, write_zmetadata
from zarr_gpu.metadata.documents import loads

zarr = pytest.importorskip("zarr")
buffers = pytest.importorskip("zarr.core.buffer")
pytestmark = pytest.mark.filterwarnings("ignore")

NAN = np.frombuffer(b"\1\0\xc0\x7f", "<f4")[0]
CASES = [
    ("bool", True), ("i1", -3), ("u8", 2**64 - 1), (">i2", 1), ("f2", 1.5), ("f4", 0.1),
    ("f4", np.nan), ("f8", -np.inf), ("f8", -0.0), (">f8", 1e300), ("c8", complex(1, np.nan)),
    ("c16", complex(-0.0, np.inf)), ("S5", b"ab"), ("U3", "äb"), (">U2", ""), ("V3", b"abc"),
    ("M8[ns]", np.datetime64(5, "ns")), ("M8[10us]", np.datetime64("NaT", "10us")),
    ("m8[D]", np.timedelta64(3, "D")), (str, "äb"), (str, ""),
]  # fmt: skip
STRUCT = np.dtype([("a", "<i4"), ("n", [("x", "S3"), ("y", "u1")]), ("b", "<f8")])


def create(**kwargs):
    store: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(store=store, **kwargs)
    return {key: buffer.to_bytes() for key, buffer in store.items()}


def opened(documents):
    make = buffers.default_buffer_prototype().buffer.from_bytes
    return zarr.open_array({k: make(v) for k, v in documents.items()}, mode="r")


def same(a, b):
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(("dtype", "fill"), CASES, ids=str)
def test_v2_arrays_are_byte_equal(dtype, fill):
    theirs = create(
        shape=(4, 5), chunks=(2, 3), dtype=dtype, fill_value=fill, zarr_format=2, order="F",
        compressors=None, attributes={"é": [1, None], "n": float("nan")},
    )  # fmt: skip
    ours = v2.build_array(
        shape=(4, 5), chunks=(2, 3), dtype=from_user(dtype), fill_value=fill, order="F",
        attributes={"é": [1, None], "n": float("nan")},
    )  # fmt: skip
    assert ours.to_documents() == theirs
    again = v2.parse_array(loads(theirs[".zarray"], key="k"), loads(theirs[".zattrs"], key="k"))
    assert again.to_documents() == theirs
    assert same(again.fill_value, opened(ours.to_documents()).fill_value)


@pytest.mark.parametrize(("dtype", "fill"), CASES, ids=str)
@pytest.mark.parametrize("encoding", [KeyEncoding("default", "/"), KeyEncoding("v2", ".")], ids=str)
def test_v3_arrays_are_byte_equal(dtype, fill, encoding):
    theirs = create(
        shape=(4, 5), chunks=(2, 3), dtype=dtype, fill_value=fill, zarr_format=3,
        attributes={"é": {"b": [1]}}, dimension_names=["x", None],
        chunk_key_encoding={"name": encoding.kind, "separator": encoding.separator},
    )  # fmt: skip
    document = json.loads(theirs["zarr.json"])
    ours = v3.build_array(
        shape=(4, 5), chunk_shape=(2, 3), dtype=from_user(dtype), fill_value=fill,
        codecs=document["codecs"], key_encoding=encoding, attributes={"é": {"b": [1]}},
        dimension_names=["x", None],
    )  # fmt: skip
    assert ours.to_documents() == theirs
    again = v3.parse(loads(theirs["zarr.json"], key="k"))
    assert again.to_documents() == theirs
    assert same(again.fill_value, opened(theirs).fill_value)


def test_variable_length_bytes():
    dtype = zarr.dtype.VariableLengthBytes()
    theirs = create(shape=4, chunks=2, dtype=dtype, fill_value=b"ab", zarr_format=3)
    codecs = json.loads(theirs["zarr.json"])["codecs"]
    ours = v3.build_array(
        shape=4, chunk_shape=2, dtype=from_user(bytes), fill_value=b"ab", codecs=codecs
    )
    assert ours.to_documents() == theirs
    theirs = create(
        shape=4, chunks=2, dtype=dtype, fill_value=b"ab", zarr_format=2, compressors=None
    )
    ours = v2.build_array(shape=4, chunks=2, dtype=from_user(bytes), fill_value=b"ab")
    assert ours.to_documents() == theirs


def test_structs():
    fill = (1, (b"ab", 2), 3.5)
    theirs = create(
        shape=4, chunks=2, dtype=STRUCT, fill_value=fill, zarr_format=2, compressors=None
    )
    ours = v2.build_array(shape=4, chunks=2, dtype=from_user(STRUCT), fill_value=fill)
    assert ours.to_documents() == theirs
    theirs = create(shape=4, chunks=2, dtype=STRUCT, fill_value=fill, zarr_format=3)
    document = loads(theirs["zarr.json"], key="k")
    node = v3.parse(document)
    assert node.dtype.numpy == STRUCT
    assert node.fill_value == np.array([fill], STRUCT)[0]
    ours = v3.build_array(
        shape=4, chunk_shape=2, dtype=from_user(document["data_type"]), fill_value=fill,
        codecs=document["codecs"],
    )  # fmt: skip
    assert ours.to_documents() == theirs


def test_nan_payloads_are_read_by_zarr_python():
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    ours = v3.build_array(
        shape=4, chunk_shape=2, dtype=from_user("f4"), fill_value=NAN, codecs=codecs
    )
    assert ours.document["fill_value"] == "0x7fc00001"
    assert np.isnan(opened(ours.to_documents()).fill_value)


def hierarchy(zarr_format):
    store: dict = {}
    root = zarr.create_group(store, zarr_format=zarr_format, attributes={"é": 1})
    for path in ("b", "Aa", "c/z", "c/B", "ab"):
        root.create_array(path, shape=(2,), dtype="i4", compressors=None, attributes={"p": path})
    root.create_group("empty")
    root.create_group("c/d/e", attributes={"x": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store)
    return {key: buffer.to_bytes() for key, buffer in store.items()}


def nodes(stored, names):
    """Path -> name -> document, as a walk through the store finds them."""
    found: dict = {}
    for key, data in stored.items():
        path, _, name = key.rpartition("/")
        if name in names:
            found.setdefault(path, {})[name] = loads(data, key=key)
    return found


def test_consolidated_v3_is_byte_equal():
    stored = hierarchy(3)
    found = nodes(stored, ["zarr.json"])
    root = found.pop("")["zarr.json"]
    ours = v3.build_group(root["attributes"], found)
    assert ours.to_documents()["zarr.json"] == stored["zarr.json"]
    again = v3.parse(root)
    assert again == v3.parse(root).with_consolidated(found).with_consolidated(again.consolidated)
    assert again.consolidated.keys() == found.keys()


def test_consolidated_v2_is_byte_equal():
    stored = hierarchy(2)
    found = nodes(stored, [".zarray", ".zgroup", ".zattrs"])
    assert write_zmetadata(found) == stored[".zmetadata"]
    read = read_zmetadata(loads(stored[".zmetadata"], key="k"))
    assert read.keys() == found.keys()
    for path, node in found.items():
        assert read[path][".zattrs"] == node[".zattrs"]
        assert read[path].get(".zarray") == node.get(".zarray")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_groups_are_byte_equal(zarr_format):
    store: dict = {}
    zarr.create_group(store, zarr_format=zarr_format, attributes={"é": [1]})
    build = {2: v2.build_group, 3: v3.build_group}[zarr_format]
    assert build({"é": [1]}).to_documents() == {k: b.to_bytes() for k, b in store.items()}
