"""Version 2 documents."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc

import numpy as np
import pytest

from zarr_gpu.dtypes import from_user, parse_v2
from zarr_gpu.errors import MetadataError, UnknownCodecError, UnknownDataTypeError
from zarr_gpu.metadata import NamedConfig, v2

ZARRAY = {
    "chunks": [5, 2],
    "compressor": {"id": "zlib", "level": 1},
    "dtype": "<f4",
    "fill_value": "NaN",
    "filters": None,
    "order": "C",
    "shape": [10, 4],
    "zarr_format": 2,
}


def doc(**changes):
    result = copy.deepcopy(ZARRAY) | changes
    return {k: v for k, v in result.items() if v is not KeyError}


def parse(**changes):
    return v2.parse_array(doc(**changes), key="a/.zarray")


def test_plain_array():
    array = v2.parse_array(doc(), {"units": "K"}, key="a/.zarray")
    assert (array.zarr_format, array.shape, array.chunk_shape) == (2, (10, 4), (5, 2))
    assert array.dtype == parse_v2("<f4")
    assert np.isnan(array.fill_value)
    assert array.codecs == (
        NamedConfig("bytes", {"endian": "little"}),
        NamedConfig("numcodecs.zlib", {"level": 1}),
    )
    assert (array.key_encoding.kind, array.key_encoding.separator) == ("v2", ".")
    assert array.attributes == {"units": "K"}
    assert array.dimension_names is None
    assert array.ndim == 2


def test_documents_come_back_as_they_were():
    original = doc(extra={"a": [1, None]}, _more="x", dimension_separator="/")
    array = v2.parse_array(original, {"b": 1}, key="k")
    documents = array.to_documents()
    assert list(documents) == [".zarray", ".zattrs"]
    assert documents[".zarray"] == json.dumps(original, indent=2).encode()
    assert documents[".zattrs"] == b'{\n  "b": 1\n}'
    assert array.key_encoding.separator == "/"
    assert array.to_dict() == original


@pytest.mark.parametrize(
    ("dtype", "serializer"),
    [
        ("<i2", {"endian": "little"}), (">i2", {"endian": "big"}), ("|u1", {}), ("|b1", {}),
        ("|S3", {}), (">U3", {"endian": "big"}), ("<M8[s]", {"endian": "little"}),
        (">c16", {"endian": "big"}),
    ],
)  # fmt: skip
def test_serializer_has_the_byte_order(dtype, serializer):
    array = parse(dtype=dtype, fill_value=None)
    assert array.codecs[0] == NamedConfig("bytes", serializer)
    assert array.dtype.numpy == np.dtype(dtype)


def test_struct_raw_and_null_fill():
    array = parse(dtype=[["a", ">i4"], ["b", "<f8", [2]]], fill_value=None, compressor=None)
    assert array.codecs == (NamedConfig("bytes"),)
    assert array.fill_value is None
    assert parse(dtype="|V3", fill_value="AQID").fill_value.tobytes() == b"\1\2\3"


def test_order_f_is_a_transpose_in_front():
    assert parse(order="F").codecs[0] == NamedConfig("transpose", {"order": [1, 0]})
    assert parse(order="F").order == "F"
    one = parse(order="F", shape=[3], chunks=[2])
    assert [c.name for c in one.codecs] == ["bytes", "numcodecs.zlib"]
    assert next(c.name for c in parse(order="F", shape=[], chunks=[]).codecs) == "bytes"
    many = parse(order="F", shape=[2] * 5, chunks=[1] * 5)
    assert many.codecs[0].configuration["order"] == [4, 3, 2, 1, 0]


def test_filters_stand_between_serializer_and_compressor():
    filters = [{"id": "delta", "dtype": "<f4"}, {"id": "shuffle", "elementsize": 4}]
    assert parse(filters=filters).codecs[1:] == (
        NamedConfig("numcodecs.delta", {"dtype": "<f4"}),
        NamedConfig("numcodecs.shuffle", {"elementsize": 4}),
        NamedConfig("numcodecs.zlib", {"level": 1}),
    )
    assert len(parse(filters=[]).codecs) == 2


@pytest.mark.parametrize("codec", ["vlen-utf8", "vlen-bytes"])
def test_objects_through_a_vlen_filter(codec):
    array = parse(dtype="|O", filters=[{"id": codec}], fill_value=0)
    assert array.codecs == (NamedConfig(codec), NamedConfig("numcodecs.zlib", {"level": 1}))
    assert array.fill_value == ("" if codec == "vlen-utf8" else b"")


@pytest.mark.parametrize("codec", ["pickle", "json2", "msgpack2", "categorize", "vlen-array"])
def test_codecs_that_make_objects_are_refused_wherever_they_stand(codec):
    bad, vlen = {"id": codec}, {"id": "vlen-utf8"}
    with pytest.raises(UnknownDataTypeError):
        parse(dtype="|O", filters=[bad])
    for changes in (
        {"dtype": "|O", "filters": [vlen, bad], "fill_value": None},
        {"dtype": "|O", "filters": [vlen], "compressor": bad, "fill_value": None},
        {"filters": [bad]},
        {"filters": [vlen]},
        {"compressor": bad},
    ):
        with pytest.raises(UnknownCodecError, match="refused"):
            parse(**changes)


def test_zero_dimensions_zero_lengths_and_giants():
    scalar = parse(shape=[], chunks=[])
    assert (scalar.shape, scalar.chunk_shape) == ((), ())
    assert parse(shape=[0, 3], chunks=[1, 3]).shape == (0, 3)
    giant = parse(shape=[2**63 - 1, 2**62], chunks=[1, 1])
    assert giant.shape == (2**63 - 1, 2**62)
    tracemalloc.start()
    parse(dtype="<U500000000", fill_value="", chunks=[1, 1])
    parse(dtype="|S2000000000", fill_value=0, chunks=[1, 1])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


BAD_LENGTHS = [
    2**63, 2**64, 2**70, -1, True, 3.0, "4", None, [4], {}, float("inf"), float("nan"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_LENGTHS, ids=str)
def test_hostile_lengths(bad):
    for name in ("shape", "chunks"):
        with pytest.raises(MetadataError, match=name) as info:
            parse(**{name: [4, bad]})
        assert info.value.key == "a/.zarray"


@pytest.mark.parametrize(
    "changes",
    [{n: KeyError} for n in ("zarr_format", "shape", "chunks", "dtype", "fill_value", "order")]
    + [{"zarr_format": z} for z in (3, 1, "2", 2.0, True, None)]
    + [{"shape": s} for s in (None, 10, "10", {}, [10], [10, 4, 1], [1] * 65)]
    + [{"chunks": c} for c in (None, True, 5, [5], [0, 2], [5, 0], [2**40, 2**40])]
    + [{"dtype": d} for d in (None, 1, {}, [], "x", "|O", "<f4 ")]
    + [{"order": o} for o in (None, "A", "c", 1, [], {})]
    + [{"filters": f} for f in ("x", {}, 1, [None], [{}], [{"id": 1}], [[]], ["delta"])]
    + [{"compressor": c} for c in ("x", [], 1, {}, {"id": None}, {"level": 1})]
    + [{"dimension_separator": s} for s in (None, "", "-", 1, [], {})]
    + [{"fill_value": f} for f in ("x", [], {}, True, 1e39)]
    + [{"dtype": "|O", "filters": [{"id": "vlen-utf8", "x": 1}], "fill_value": ""}],
    ids=str,
)
def test_refused(changes):
    with pytest.raises(MetadataError) as info:
        parse(**changes)
    assert info.value.key == "a/.zarray"
    assert "a/.zarray" in str(info.value)


@pytest.mark.parametrize("document", [None, [], "x", 1, {}])
def test_not_even_a_document(document):
    with pytest.raises(MetadataError):
        v2.parse_array(document, key="k")
    with pytest.raises(MetadataError):
        v2.parse_group(document, key="k")


@pytest.mark.parametrize("zattrs", [[], "x", 1, False])
def test_attributes_must_be_an_object(zattrs):
    with pytest.raises(MetadataError, match="attributes"):
        v2.parse_array(doc(), zattrs, key="k")
    with pytest.raises(MetadataError, match="attributes"):
        v2.parse_group({"zarr_format": 2}, zattrs, key="k")


def test_absent_compressor_and_filters():
    assert [c.name for c in parse(compressor=KeyError, filters=KeyError).codecs] == ["bytes"]


def test_groups():
    group = v2.parse_group({"zarr_format": 2, "x": 1}, {"a": 1}, key="g/.zgroup")
    assert group.attributes == {"a": 1}
    assert group.consolidated is None
    assert json.loads(group.to_documents()[".zgroup"]) == {"zarr_format": 2, "x": 1}
    assert group.with_attributes({"b": 2}).to_documents()[".zattrs"] == b'{\n  "b": 2\n}'
    assert v2.build_group({"b": 2}) == v2.parse_group({"zarr_format": 2}, {"b": 2})
    assert v2.build_group() != group


def test_changes_touch_only_their_part():
    array = v2.parse_array(doc(extra=1), {"a": 1}, key="k")
    wider = array.with_shape((20, 4))
    assert wider.to_dict() == doc(extra=1, shape=[20, 4])
    assert list(wider.to_dict()) == list(array.to_dict())
    assert wider == v2.parse_array(doc(extra=1, shape=[20, 4]), {"a": 1})
    assert array.shape == (10, 4)
    other = array.with_attributes({"b": (1, 2)})
    assert other.attributes == {"b": [1, 2]}
    assert other.to_dict() == array.to_dict()
    assert array.attributes == {"a": 1}


@pytest.mark.parametrize(
    "shape", [(1,), (1, 2, 3), (-1, 2), (2**63, 1), ("a", 1), (1.5, 2), (True, 1), 3, None]
)
def test_bad_new_shapes(shape):
    with pytest.raises(MetadataError, match="shape"):
        parse().with_shape(shape)


DTYPES = [
    "bool", "i1", "u8", ">f2", "f4", "c8", ">c16", "S4", ">U3", "V5", "M8[ns]", "m8[10D]",
    [("a", ">i4"), ("b", "f8", (2,)), ("n", [("x", "S2")])], str, bytes,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_built_documents_parse_to_the_same_model(dtype):
    array = v2.build_array(
        shape=(7, np.int64(3)),
        chunks=[2, 2],
        dtype=from_user(dtype),
        fill_value=0 if dtype not in ("M8[ns]", "m8[10D]") else "NaT",
        order="F",
        filters=[{"id": "shuffle", "elementsize": 4}],
        compressor={"id": "zstd", "level": 3},
        dimension_separator="/",
        attributes={"a": (1, 2)},
    )
    documents = {k: json.loads(v) for k, v in array.to_documents().items()}
    again = v2.parse_array(documents[".zarray"], documents[".zattrs"])
    assert again == array
    assert again.dtype == array.dtype
    assert again.codecs == array.codecs
    assert np.asarray(again.fill_value).tobytes() == np.asarray(array.fill_value).tobytes()
    assert pickle.loads(pickle.dumps(array)) == array


def test_build_puts_the_object_codec_in_front_once():
    for filters in (None, [], [{"id": "vlen-utf8"}]):
        array = v2.build_array(shape=2, chunks=1, dtype=from_user(str), filters=filters)
        assert array.to_dict()["filters"] == [{"id": "vlen-utf8"}]
        assert array.fill_value is None


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": -1},
        {"shape": None},
        {"shape": "ab"},
        {"shape": (1, 2)},
        {"chunks": 0},
        {"chunks": 1.5},
        {"order": "K"},
        {"dimension_separator": "x"},
        {"fill_value": "x"},
        {"compressor": {"level": 1}},
        {"filters": [{"x": 1}]},
        {"attributes": {1: 2}},
        {"attributes": {"a": {3}}},
        {"attributes": [1]},
        {"compressor": {"id": "x", "v": np.int64(3)}},
        {"filters": [{"id": "pickle"}]},
    ],
    ids=str,
)
def test_build_refuses(changes):
    good = {"shape": 4, "chunks": 2, "dtype": from_user("i4"), "fill_value": 0}
    v2.build_array(**good)
    with pytest.raises(MetadataError):
        v2.build_array(**good | changes)
