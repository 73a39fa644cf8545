"""Attributes: a mapping that writes through, and refuses what JSON would change."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zarr_gpu
from zarr_gpu.attributes import Attributes, plain_attributes
from zarr_gpu.errors import MetadataError, NodeNotFoundError, ReadOnlyError


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


@pytest.fixture(params=["group", "array"])
def node(request, zarr_format):
    if request.param == "group":
        return zarr_gpu.create_group({}, zarr_format=zarr_format)
    return zarr_gpu.create_array({}, shape=(3,), dtype="i4", zarr_format=zarr_format)


def stored(node):
    key = "zarr.json" if node.zarr_format == 3 else ".zattrs"
    document = json.loads(node.store.get(key))
    return document["attributes"] if node.zarr_format == 3 else document


def test_every_change_is_stored(node):
    attrs = node.attrs
    attrs["a"] = 1
    assert stored(node) == {"a": 1}
    attrs.update({"b": [1, 2]}, c=None)
    assert stored(node) == {"a": 1, "b": [1, 2], "c": None} == dict(attrs) == attrs.asdict()
    del attrs["a"]
    assert stored(node) == {"b": [1, 2], "c": None}
    assert attrs.pop("c") is None
    assert attrs.setdefault("d", "x") == "x"
    attrs.put({"only": True})
    assert stored(node) == {"only": True}
    assert len(attrs) == 1
    assert "only" in attrs
    assert list(attrs) == ["only"]
    attrs.clear()
    assert stored(node) == {}


def test_missing_names(node):
    with pytest.raises(KeyError):
        node.attrs["nothing"]
    with pytest.raises(KeyError):
        del node.attrs["nothing"]
    assert node.attrs.get("nothing") is None


def test_update_attributes_returns_the_node(node):
    assert node.update_attributes({"a": 1}) is node
    assert node.attrs["a"] == 1


def test_one_update_is_one_write(node, monkeypatch):
    writes = []
    real = type(node.store).put
    monkeypatch.setattr(
        type(node.store), "put", lambda self, key, data: (writes.append(key), real(self, key, data))
    )
    node.attrs.update({str(i): i for i in range(20)})
    assert len(writes) == 1


def test_two_handles_do_not_undo_each_other(node):
    other = zarr_gpu.open(node.store)
    node.attrs["mine"] = 1
    other.attrs["theirs"] = 2
    assert stored(node) == {"mine": 1, "theirs": 2}
    node.attrs["more"] = 3
    assert node.attrs.asdict() == {"mine": 1, "theirs": 2, "more": 3}


def test_attributes_of_a_resized_array_keep_the_new_shape(zarr_format):
    one = zarr_gpu.create_array({}, shape=(3,), dtype="i4", zarr_format=zarr_format)
    other = zarr_gpu.open(one.store)
    one.resize((9,))
    other.attrs["a"] = 1
    assert zarr_gpu.open(one.store).shape == (9,)
    assert other.shape == (9,)


def test_the_node_is_gone(node):
    node.store.delete_prefix("")
    with pytest.raises(NodeNotFoundError):
        node.attrs["a"] = 1
    assert list(node.store.list_prefix()) == []


def test_read_only(zarr_format):
    data = {}
    zarr_gpu.create_group(data, zarr_format=zarr_format, attributes={"a": 1})
    before = dict(data)
    node = zarr_gpu.open_group(data, mode="r")
    for change in (
        lambda: node.attrs.update(a=2),
        lambda: node.attrs.put({}),
        lambda: node.attrs.__delitem__("a"),
    ):
        with pytest.raises(ReadOnlyError):
            change()
    assert data == before
    assert node.attrs["a"] == 1


def test_what_comes_out_is_a_copy(node):
    node.attrs["list"] = [1, {"deep": []}]
    node.attrs["list"][1]["deep"].append(1)
    node.attrs.asdict()["list"].append(2)
    assert node.attrs["list"] == [1, {"deep": []}] == stored(node)["list"]


def test_numpy_values_become_plain_ones(node):
    node.attrs.update(
        i=np.int64(3), f=np.float32(0.5), b=np.bool_(1), s=np.str_("x"), a=np.arange(3), t=(1, 2)
    )
    plain = {"i": 3, "f": 0.5, "b": True, "s": "x", "a": [0, 1, 2], "t": [1, 2]}
    assert dict(node.attrs) == plain
    assert [type(v) for v in node.attrs.values()] == [type(v) for v in plain.values()]
    assert dict(zarr_gpu.open(node.store).attrs) == plain


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        {1, 2},
        1j,
        np.datetime64("2020-01-01"),
        np.longdouble(1),
        {1: 2},
        {"a": {None: 1}},
        "\ud800",
        {"\ud800": 1},
        [np.array([b"x"])],
        len,
    ],
)
def test_what_json_would_change_is_refused(node, value):
    node.attrs["a"] = 1
    with pytest.raises(MetadataError):
        node.attrs["b"] = value
    assert stored(node) == dict(node.attrs) == {"a": 1}


@pytest.mark.parametrize("name", [1, None, b"a", "\udc00"])
def test_names_are_text(node, name):
    with pytest.raises(MetadataError):
        node.attrs[name] = 1
    assert stored(node) == {}


@pytest.mark.parametrize("attributes", [1, [("a", 1)], "a"])
def test_attributes_are_a_mapping(attributes):
    with pytest.raises(MetadataError):
        zarr_gpu.create_group({}, attributes=attributes)


def test_deep_attributes_are_refused_and_what_is_accepted_can_be_read():
    def nest(levels):
        value = 0
        for _ in range(levels):
            value = [value]
        return value

    group = zarr_gpu.create_group({})
    with pytest.raises(MetadataError):
        group.attrs["deep"] = nest(100_000)
    deepest = max(n for n in range(100, 260) if accepts(group, nest(n)))
    group.attrs["deep"] = nest(deepest)
    assert zarr_gpu.open_group(group.store).attrs["deep"] == nest(deepest)


def accepts(group, value):
    try:
        group.attrs["deep"] = value
    except MetadataError:
        return False
    return True


def test_nan_survives(node):
    node.attrs["nan"] = math.nan
    assert math.isnan(zarr_gpu.open(node.store).attrs["nan"])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8), json_values, max_size=4
    )
)
def test_json_values_round_trip(attributes):
    for zarr_format in (2, 3):
        group = zarr_gpu.create_group({}, attributes=attributes, zarr_format=zarr_format)
        assert zarr_gpu.open_group(group.store).attrs.asdict() == attributes
        array = zarr_gpu.create_array(
            {}, shape=1, dtype="u1", attributes=attributes, zarr_format=zarr_format
        )
        assert zarr_gpu.open_array(array.store).attrs.asdict() == attributes


def test_repr_and_absent_attributes():
    assert plain_attributes(None) == {}
    assert repr(Attributes(lambda: {"a": 1}, lambda change: None)) == "Attributes({'a': 1})"
