"""Consolidated metadata of both versions."""

from __future__ import annotations

import json

import pytest

from zarr_gpu.dtypes import from_user
from zarr_gpu.errors import MetadataError, UnsupportedExtensionError
from zarr_gpu.metadata import NamedConfig, v2, v3
from zarr_gpu.metadata.consolidated import (
    read_inline,
    read_zmetadata,
    write_inline,
    write_zmetadata,
)

I4 = from_user("i4")
ARRAY3 = v3.build_array(shape=2, chunk_shape=2, dtype=I4, codecs=[NamedConfig("bytes")]).to_dict()
GROUP3 = v3.build_group({"g": 1}).to_dict()
ARRAY2 = v2.build_array(shape=2, chunks=2, dtype=I4, fill_value=0).to_dict()
GROUP2 = {"zarr_format": 2}
EMPTY = {"kind": "inline", "must_understand": False, "metadata": {}}


def test_inline_round_trip():
    documents = {"b": ARRAY3, "a": GROUP3, "a/z": ARRAY3, "B": GROUP3, "a/B": ARRAY3}
    inline = write_inline({p: {"zarr.json": d} for p, d in documents.items()})
    assert list(inline) == ["kind", "must_understand", "metadata"]
    assert list(inline["metadata"]) == ["a", "B", "b", "a/B", "a/z"]
    assert inline["metadata"]["b"] == ARRAY3
    assert list(inline["metadata"]["a"]) == [
        "attributes",
        "zarr_format",
        "consolidated_metadata",
        "node_type",
    ]
    assert inline["metadata"]["a"]["consolidated_metadata"] == EMPTY
    read = read_inline(inline)
    assert set(read) == set(documents)
    assert read["b"] == {"zarr.json": ARRAY3}


def test_nested_and_null_consolidated_metadata_is_not_written_again():
    nested = GROUP3 | {"consolidated_metadata": EMPTY | {"metadata": {"x": ARRAY3}}}
    array = ARRAY3 | {"consolidated_metadata": None}
    inline = write_inline({"a": {"zarr.json": nested}, "b": {"zarr.json": array}})
    assert inline["metadata"]["a"]["consolidated_metadata"] == EMPTY
    assert inline["metadata"]["b"] == ARRAY3


def test_inline_in_a_group():
    group = v3.build_group({"x": 1}, {"a": {"zarr.json": ARRAY3}})
    assert list(group.document) == [
        "attributes",
        "zarr_format",
        "consolidated_metadata",
        "node_type",
    ]
    again = v3.parse(json.loads(group.to_documents()["zarr.json"]))
    assert again == group
    assert again.consolidated == {"a": {"zarr.json": ARRAY3}}
    kept = again.with_attributes({"y": 2})
    assert kept.consolidated == again.consolidated
    assert kept == v3.parse(kept.to_dict())
    bare = kept.with_consolidated(None)
    assert "consolidated_metadata" not in bare.document
    assert bare.consolidated is None
    other = again.with_consolidated({"b": {"zarr.json": ARRAY3}})
    assert list(other.document["consolidated_metadata"]["metadata"]) == ["b"]
    assert v2.build_group().with_consolidated({"": {".zgroup": GROUP2}}).document == GROUP2


def test_inline_that_says_nothing():
    assert read_inline(None) is None
    assert read_inline({"kind": "other", "must_understand": False}) is None
    assert read_inline({"kind": "inline", "metadata": {}}) == {}


@pytest.mark.parametrize(
    "value",
    [1, [], "x", {}, {"kind": "other"}, {"kind": "inline"}, {"kind": "inline", "metadata": []}]
    + [{"kind": "inline", "metadata": {"a": d}} for d in (None, [], 1, "x")]
    + [
        {"kind": "inline", "metadata": {p: {}}}
        for p in ("..", "a/../b", "/a", "a/", "a//b", "a\\b")
    ]
    + [{"kind": "inline", "metadata": {p: {}}} for p in ("a\0", "\ud800", ".", "")],
    ids=str,
)
def test_bad_inline(value):
    with pytest.raises(MetadataError):
        read_inline(value)
    document = GROUP3 | {"consolidated_metadata": value}
    with pytest.raises(MetadataError) as info:
        v3.parse(document, key="g/zarr.json")
    assert info.value.key == "g/zarr.json"


def test_unknown_kind_is_an_unsupported_extension():
    with pytest.raises(UnsupportedExtensionError, match="'manifest'"):
        read_inline({"kind": "manifest", "must_understand": True})


def test_zmetadata_round_trip():
    documents = {
        "": {".zgroup": GROUP2, ".zattrs": {"r": 1}},
        "b": {".zarray": ARRAY2, ".zattrs": {"x": 1}},
        "a": {".zgroup": GROUP2},
        "a/c": {".zarray": ARRAY2},
        "stray": {".zattrs": {"lost": 1}},
    }
    data = write_zmetadata(documents)
    parsed = json.loads(data)
    assert data == json.dumps(parsed).encode()
    assert list(parsed) == ["metadata", "zarr_consolidated_format"]
    assert list(parsed["metadata"]) == [
        ".zgroup", ".zattrs", "a/.zattrs", "a/.zgroup", "b/.zattrs", "b/.zarray", "a/c/.zattrs",
        "a/c/.zarray",
    ]  # fmt: skip
    read = read_zmetadata(parsed)
    assert read["b"] == documents["b"]
    assert read["a/c"] == {".zarray": ARRAY2, ".zattrs": {}}
    assert read[""] == documents[""]
    assert "stray" not in read
    v2.parse_group(read["a"][".zgroup"], read["a"][".zattrs"])
    v2.parse_array(read["b"][".zarray"], read["b"][".zattrs"])


def test_zmetadata_ignores_other_documents():
    metadata = {".zgroup": GROUP2, "a/.nczarr": 1, "a/.zattrs": {}, ".zmetadata": None}
    read = read_zmetadata({"zarr_consolidated_format": 1, "metadata": metadata, "x": 1})
    assert read == {"": {".zgroup": GROUP2}, "a": {".zattrs": {}}}


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"metadata": {}}]
    + [{"zarr_consolidated_format": v, "metadata": {}} for v in (0, 2, True, "1", 1.0, None)]
    + [
        {"zarr_consolidated_format": 1, "metadata": m}
        for m in (None, [], {".zgroup": 1}, {"a/.zarray": []})
    ]
    + [
        {"zarr_consolidated_format": 1, "metadata": {p + "/.zarray": {}}}
        for p in ("..", "a/../b", "/a", "a/", "a//b", "a\\b", "")
    ],
    ids=str,
)
def test_bad_zmetadata(document):
    with pytest.raises(MetadataError) as info:
        read_zmetadata(document, key="g/.zmetadata")
    assert info.value.key == "g/.zmetadata"
