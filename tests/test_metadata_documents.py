"""JSON documents: what is read, what is refused, and how they are written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarr_gpu.errors import MetadataError
from zarr_gpu.metadata.documents import (
    MAX_DEPTH,
    MAX_NBYTES,
    MAX_NEW_DEPTH,
    check_json,
    dumps,
    loads,
    naming,
    plain_copy,
)


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return b'{"a":' + (opening * levels + "1" + closing * levels).encode() + b"}"


def test_reads_objects():
    assert loads(b'{"a": [1, 2.5, null, "x"]}', key="k") == {"a": [1, 2.5, None, "x"]}
    assert loads(memoryview(b"{}"), key="k") == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 1} x',
        b"\xff\xfe{}",
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' + b"1" * 5000 + b"}",
        b'{"a": +1}',
    ],
)
def test_refuses_and_names_the_key(data):
    with pytest.raises(MetadataError, match=r"'some/zarr\.json'") as info:
        loads(data, key="some/zarr.json")
    assert info.value.key == "some/zarr.json"


def test_skips_a_byte_order_mark():
    assert loads(b'\xef\xbb\xbf{"a": 1}', key="k") == {"a": 1}


def test_refuses_duplicate_keys_and_names_them():
    with pytest.raises(MetadataError, match="duplicate key 'shape'"):
        loads(b'{"shape": [1], "x": 2, "shape": [2]}', key="k")
    with pytest.raises(MetadataError, match="duplicate key 'a'"):
        loads(b'{"attributes": {"a": 1, "a": 1}}', key="k")


def test_keeps_lone_surrogates_and_bare_words():
    data = b'{\n  "a": "\\ud800",\n  "b": NaN,\n  "c": -Infinity\n}'
    assert dumps(loads(data, key="k"), key="k") == data


@pytest.mark.parametrize("levels", [1_000, 100_000, 1_000_000])
def test_refuses_deep_documents(levels):
    with pytest.raises(MetadataError, match="deeper"):
        loads(nested(levels), key="k")
    with pytest.raises(MetadataError, match="deeper"):
        loads(nested(levels, '{"a":', "}"), key="k")
    with pytest.raises(MetadataError):
        loads(b'{"a":' + b"[" * levels, key="k")


def test_depth_is_counted_outside_of_strings():
    assert loads(nested(MAX_DEPTH - 1), key="k")
    with pytest.raises(MetadataError, match="deeper"):
        loads(nested(MAX_DEPTH), key="k")
    brackets = {"a": "[" * 1000, "b" + "{" * 1000: '\\"' + "[" * 1000, "c": "\\\\"}
    assert loads(json.dumps(brackets).encode(), key="k") == brackets
    wide = {"a": [[]] * 1000}
    assert loads(json.dumps(wide).encode(), key="k") == wide


def test_refuses_long_documents_before_parsing_them():
    with pytest.raises(MetadataError, match="too long") as info:
        loads(bytes(MAX_NBYTES + 1), key="k")
    assert info.value.actual == MAX_NBYTES + 1


def test_ten_megabytes_of_attributes_round_trip():
    value = {"attributes": {"text": "x" * 5_000_000, "list": list(range(500_000))}}
    assert loads(dumps(value, key="k"), key="k") == value


def test_layout_is_that_of_zarr_python():
    value = {"b": [1, 2], "a": {}, "é": [], "n": None}
    assert dumps(value, key="k") == json.dumps(value, indent=2).encode()
    assert dumps(value, key="k", indent=None) == json.dumps(value).encode()


JSON = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=12,
    ),
)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        {"a": (1, [2], ()), "b": {"c": [{}]}},
        {"a": {1: 2, None: 3, False: 4, 1.5: 5}},
        {"a": Text("b"), Text("c"): 1},
        {"a": np.float64(1.5)},
        {"a": [1e300, -0.0, 5e-324, float("nan"), float("inf"), True, False, None, 10**30]},
    ],
)
@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4])
def test_layout_of_rarer_values(value, indent):
    assert dumps(value, key="k", indent=indent) == json.dumps(value, indent=indent).encode()


@given(JSON, st.integers(1, 4))
def test_layout_of_any_value(value, indent):
    assert dumps(value, key="k", indent=indent) == json.dumps(value, indent=indent).encode()


@pytest.mark.parametrize(
    "value", [{"a": object()}, {"a": np.int64(1)}, {"a": 10**5000}, {"a": {1j: 1}}]
)
def test_what_cannot_be_written(value):
    with pytest.raises(MetadataError, match="'k'"):
        dumps(value, key="k")


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, {"b": np.float32(1)}]}, r"what\['a'\]\[1\]\['b'\] is a float32"),
        ({"a": {1: 2}}, r"what\['a'\] has the key 1"),
        ({None: 2}, "what has the key None"),
        ({"a": {2, 3}}, r"what\['a'\] is a set"),
        ({"a": b"x"}, r"what\['a'\] is a bytes"),
        ({"a": np.arange(3)}, r"what\['a'\] is a ndarray"),
    ],
)
def test_check_json_names_the_place(value, where):
    with pytest.raises(MetadataError, match=where):
        check_json(value, "what")


def test_check_json_limits_depth():
    deep: list = []
    for _ in range(MAX_NEW_DEPTH - 2):
        deep = [deep]
    check_json({"a": deep}, "what")
    for levels in (5, 100_000):
        for _ in range(levels):
            deep = [deep]
        with pytest.raises(MetadataError, match="deeper"):
            check_json({"a": deep}, "what")
    while deep:
        deep = deep.pop()


def test_a_list_that_holds_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(MetadataError, match="deeper"):
        check_json({"a": loop}, "what")


def test_plain_copy_is_what_a_reader_gets():
    value = {"a": (1, 2), "b": np.float64(1.5), "c": True, "d": {"e": [None]}}
    copy = plain_copy(value, "what")
    assert copy == {"a": [1, 2], "b": 1.5, "c": True, "d": {"e": [None]}}
    assert type(copy["b"]) is float
    copy["d"]["e"].append(1)
    assert value["d"] == {"e": [None]}
    with pytest.raises(MetadataError):
        plain_copy({"a": 10**5000}, "what")


def test_naming_adds_the_key_once_and_catches_recursion():
    with pytest.raises(MetadataError) as info, naming("outer"), naming("inner"):
        raise MetadataError("x")
    assert info.value.key == "inner"
    with pytest.raises(MetadataError, match="'k' is nested"), naming("k"):
        raise RecursionError
