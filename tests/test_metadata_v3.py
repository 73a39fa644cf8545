"""Version 3 documents."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from zarr_gpu.dtypes import from_user, parse_v3
from zarr_gpu.errors import MetadataError, UnknownDataTypeError, UnsupportedExtensionError
from zarr_gpu.metadata import ArrayMetadata, GroupMetadata, KeyEncoding, NamedConfig, v3

ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [10, 4],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 2]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": "NaN",
    "codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "gzip", "configuration": {"level": 1}},
    ],
    "attributes": {"a": [1, {"b": None}]},
    "dimension_names": ["x", None],
}
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}
BYTES = [NamedConfig("bytes", {"endian": "little"})]


def doc(**changes):
    result = copy.deepcopy(ARRAY) | changes
    return {k: v for k, v in result.items() if v is not KeyError}


def parse(**changes) -> ArrayMetadata:
    array = v3.parse(doc(**changes), key="a/zarr.json")
    assert isinstance(array, ArrayMetadata)
    return array


def test_plain_array():
    array = parse()
    assert (array.zarr_format, array.shape, array.chunk_shape) == (3, (10, 4), (5, 2))
    assert array.dtype == parse_v3("float32")
    assert np.isnan(array.fill_value)
    assert array.codecs == (*BYTES, NamedConfig("gzip", {"level": 1}))
    assert array.key_encoding == KeyEncoding("default", "/")
    assert array.attributes == {"a": [1, {"b": None}]}
    assert array.dimension_names == ("x", None)
    assert array.order == "C"


def test_short_forms_mean_the_same_and_are_kept():
    short = doc(
        data_type={"name": "float32"},
        chunk_key_encoding="default",
        codecs=["bytes", {"name": "crc32c"}, {"name": "gzip", "configuration": {}}],
        attributes=KeyError,
        dimension_names=KeyError,
        storage_transformers=[],
    )
    array = v3.parse(short)
    assert array.codecs == (NamedConfig("bytes"), NamedConfig("crc32c"), NamedConfig("gzip"))
    assert array.key_encoding == KeyEncoding("default", "/")
    assert array.attributes == {}
    assert array.dimension_names is None
    assert array.to_documents() == {"zarr.json": json.dumps(short, indent=2).encode()}
    assert array.with_shape((3, 3)).to_dict() == short | {"shape": [3, 3]}


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("default", ("default", "/")), ("v2", ("v2", ".")), ({"name": "v2"}, ("v2", ".")),
        ({"name": "default", "configuration": {}}, ("default", "/")),
        ({"name": "default", "configuration": {"separator": "."}}, ("default", ".")),
        ({"name": "v2", "configuration": {"separator": "/"}, "must_understand": True}, ("v2", "/")),
    ],
)  # fmt: skip
def test_key_encodings(encoding, expected):
    assert parse(chunk_key_encoding=encoding).key_encoding == KeyEncoding(*expected)


def test_dimension_names():
    assert parse(dimension_names=["", ""]).dimension_names == ("", "")
    assert parse(dimension_names=[None, "x"]).dimension_names == (None, "x")
    assert parse(dimension_names=None).dimension_names is None
    assert parse(shape=[], dimension_names=[], chunk_grid=grid()).dimension_names == ()


def grid(*chunks):
    return {"name": "regular", "configuration": {"chunk_shape": list(chunks)}}


def test_zero_dimensions_zero_lengths_and_giants():
    assert parse(shape=[], chunk_grid=grid(), dimension_names=KeyError).chunk_shape == ()
    assert parse(shape=[0, 0], chunk_grid=grid(1, 7)).shape == (0, 0)
    assert parse(shape=[2**63 - 1, 2**62], chunk_grid=grid(1, 2**60)).shape == (2**63 - 1, 2**62)
    with pytest.raises(MetadataError, match="bytes"):
        parse(chunk_grid=grid(2**31, 2**30))


def test_unknown_fields():
    optional = {"must_understand": False, "x": [1]}
    array = parse(ours=optional)
    assert array.to_dict()["ours"] == optional
    assert array.with_attributes({}).to_dict()["ours"] == optional
    group = v3.parse(GROUP | {"ours": optional})
    assert group.to_dict()["ours"] == optional
    for value in (1, None, [], "x", {}, {"must_understand": True}, {"must_understand": 0}):
        for document in (doc(ours=value), GROUP | {"ours": value}):
            with pytest.raises(UnsupportedExtensionError, match="'ours'"):
                v3.parse(document, key="k")


def test_known_extensions_open_whatever_they_require():
    for must in (True, False):
        codecs = [{"name": "bytes", "must_understand": must}]
        assert parse(codecs=codecs).codecs[0].must_understand is must
    assert parse(data_type={"name": "float32", "must_understand": True}).dtype.name == "float32"
    assert parse(chunk_grid=grid(5, 2) | {"must_understand": True}).chunk_shape == (5, 2)
    for name in ("data_type", "chunk_grid", "chunk_key_encoding"):
        given = {"name": doc()[name]} if name == "data_type" else doc()[name]
        for must in (False, 1, None, "true"):
            with pytest.raises(MetadataError):
                parse(**{name: given | {"must_understand": must}})


def test_storage_transformers():
    optional = {"name": "x", "must_understand": False}
    assert parse(storage_transformers=[optional]).to_dict()["storage_transformers"] == [optional]
    for value in (["x"], [{"name": "x"}], [{"name": "x", "must_understand": True}]):
        with pytest.raises(UnsupportedExtensionError, match="storage transformer"):
            parse(storage_transformers=value)
    for value in (None, "x", {}, 1, [None], [{}]):
        with pytest.raises(MetadataError):
            parse(storage_transformers=value)


def test_null_consolidated_metadata_of_old_writers():
    assert parse(consolidated_metadata=None).to_dict()["consolidated_metadata"] is None
    group = v3.parse(GROUP | {"consolidated_metadata": None})
    assert group.consolidated is None
    with pytest.raises(UnsupportedExtensionError):
        parse(consolidated_metadata=1)


@pytest.mark.parametrize(
    "bad",
    [2**63, 2**64, 2**70, -1, True, 3.0, "4", None, [4], {}, float("inf"), float("nan")],
    ids=str,
)
def test_hostile_lengths(bad):
    with pytest.raises(MetadataError, match="shape") as info:
        parse(shape=[4, bad])
    assert info.value.key == "a/zarr.json"
    with pytest.raises(MetadataError, match="chunk_shape"):
        parse(chunk_grid=grid(4, bad))


@pytest.mark.parametrize(
    "changes",
    [
        {n: KeyError}
        for n in (
            "zarr_format",
            "node_type",
            "shape",
            "data_type",
            "chunk_grid",
            "fill_value",
            "codecs",
        )
    ]
    + [{"chunk_key_encoding": KeyError}]
    + [{"zarr_format": z} for z in (2, 1, "3", 3.0, True, None)]
    + [{"node_type": n} for n in (None, "Array", [], {}, 1)]
    + [{"shape": s} for s in (None, 10, "10", {}, [10], [10, 4, 1], [1] * 65)]
    + [{"data_type": d} for d in (None, 1, [], {}, "x", {"name": "x"}, "<f4")]
    + [
        {"chunk_grid": g}
        for g in (None, 1, "regular", {}, [], {"name": "regular"}, grid(0, 2), grid(5))
    ]
    + [{"chunk_grid": {"name": "rectilinear", "configuration": {}}}, {"chunk_grid": {"name": 1}}]
    + [{"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 2], "x": 1}}}]
    + [
        {"chunk_grid": grid(5, 2) | {"x": 1}},
        {"chunk_grid": {"name": "regular", "configuration": 1}},
    ]
    + [{"chunk_key_encoding": e} for e in (None, 1, "x", {}, {"name": "suffix"}, {"name": None})]
    + [
        {"chunk_key_encoding": {"name": "default", "configuration": c}}
        for c in (None, [], {"separator": "-"}, {"separator": None}, {"separator": []}, {"x": 1})
    ]
    + [{"fill_value": f} for f in (None, "x", [], {}, True, 1e39)]
    + [{"codecs": c} for c in (None, [], {}, "bytes", 1, [None], [1], [{}], [{"name": None}], [[]])]
    + [{"codecs": [{"name": "bytes", "configuration": c}]} for c in (None, [], "x")]
    + [
        {"codecs": [{"name": "bytes", "x": 1}]},
        {"codecs": [{"name": "bytes", "must_understand": 1}]},
    ]
    + [{"attributes": a} for a in (None, [], "x", 1)]
    + [
        {"dimension_names": d}
        for d in ("xy", {}, 1, ["x"], ["x", "y", "z"], ["x", 1], [["x"], "y"])
    ],
    ids=str,
)
def test_refused(changes):
    with pytest.raises(MetadataError) as info:
        parse(**changes)
    assert info.value.key == "a/zarr.json"
    assert "a/zarr.json" in str(info.value)


@pytest.mark.parametrize("document", [None, [], "x", 1, {}, {"zarr_format": 3}])
def test_not_even_a_document(document):
    with pytest.raises(MetadataError):
        v3.parse(document, key="k")


def test_errors_have_their_class():
    with pytest.raises(UnknownDataTypeError):
        parse(data_type="int3")
    with pytest.raises(UnsupportedExtensionError):
        parse(chunk_grid={"name": "rectilinear"})
    with pytest.raises(UnsupportedExtensionError):
        parse(chunk_key_encoding="suffix")


def test_groups():
    group = v3.parse(GROUP, key="g/zarr.json")
    assert isinstance(group, GroupMetadata)
    assert (group.attributes, group.consolidated) == ({"a": 1}, None)
    assert group.to_documents() == {"zarr.json": json.dumps(GROUP, indent=2).encode()}
    assert v3.parse({"zarr_format": 3, "node_type": "group"}).attributes == {}
    changed = group.with_attributes({"b": (1,)})
    assert changed.to_dict() == GROUP | {"attributes": {"b": [1]}}
    assert changed == v3.parse(changed.to_dict())
    for attributes in (None, [], 1):
        with pytest.raises(MetadataError, match="attributes"):
            v3.parse(GROUP | {"attributes": attributes})


def test_changes_touch_only_their_part():
    array = parse()
    changed = array.with_shape([np.int64(3), 9]).with_attributes({"n": np.float64(0.5)})
    assert changed.to_dict() == doc(shape=[3, 9], attributes={"n": 0.5})
    assert list(changed.to_dict()) == list(ARRAY)
    assert array.to_dict() == ARRAY
    assert changed == v3.parse(changed.to_dict())
    assert changed != array


def test_models_are_values_without_hash():
    array = parse()
    assert array == parse()
    assert pickle.loads(pickle.dumps(array)) == array
    with pytest.raises(TypeError):
        hash(array)
    with pytest.raises(AttributeError):
        array.shape = (1,)


@pytest.mark.parametrize(
    "bad", [{1: 2}, {"a": {3}}, {"a": np.int64(1)}, {"a": b"x"}, [1], None, "x"], ids=str
)
def test_bad_new_attributes(bad):
    for node in (parse(), v3.build_group()):
        with pytest.raises(MetadataError, match="attributes"):
            node.with_attributes(bad)


DTYPES = [
    "bool", "i1", "u8", ">f2", "f4", "c8", ">c16", "S4", ">U3", "V5", "r24", "M8[ns]", "m8[10D]",
    [("a", ">i4"), ("b", "f8"), ("n", [("x", "S2")])], str, bytes, "bytes",
    {"name": "structured", "configuration": {"fields": [["a", "int8"]]}},
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_built_documents_parse_to_the_same_model(dtype):
    array = v3.build_array(
        shape=(7, np.int64(3)),
        chunk_shape=[2, 2],
        dtype=from_user(dtype),
        codecs=[*BYTES, {"name": "crc32c", "configuration": {}}],
        key_encoding=KeyEncoding("v2", "/"),
        attributes={"a": (1, 2)},
        dimension_names=("x", None),
    )
    again = v3.parse(json.loads(array.to_documents()["zarr.json"]))
    assert again == array
    assert again.dtype == array.dtype
    assert again.dtype.numpy.isnative
    assert again.codecs == array.codecs == (*BYTES, NamedConfig("crc32c"))
    assert np.asarray(again.fill_value).tobytes() == np.asarray(array.fill_value).tobytes()
    assert array.attributes == {"a": [1, 2]}


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": -1},
        {"shape": None},
        {"shape": "ab"},
        {"shape": (1, 2)},
        {"chunk_shape": 0},
        {"chunk_shape": 1.5},
        {"fill_value": "x"},
        {"codecs": []},
        {"codecs": [{"x": 1}]},
        {"dimension_names": ["a", "b"]},
        {"dimension_names": [1]},
        {"dimension_names": "ab"},
        {"attributes": {1: 2}},
        {"attributes": {"a": {3}}},
        {"attributes": [1]},
        {"codecs": [NamedConfig("bytes", {"x": np.int64(3)})]},
        {"dtype": from_user([("a", "i4", (2,))])},
    ],
    ids=str,
)
def test_build_refuses(changes):
    good = {"shape": 4, "chunk_shape": 2, "dtype": from_user("i4"), "codecs": BYTES}
    v3.build_array(**good)
    with pytest.raises(MetadataError):
        v3.build_array(**good | changes)


def test_named_extensions():
    assert NamedConfig("a").to_dict() == {"name": "a"}
    assert NamedConfig("a", {"b": 1}).to_dict() == {"name": "a", "configuration": {"b": 1}}
    assert v3.parse_named({"name": "a", "must_understand": False}, "codec", optional=True) == (
        NamedConfig("a", {}, must_understand=False)
    )
