"""The top of the package: modes, places, saving and loading, arrays after a pattern, imports."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zarr_gpu
from zarr_gpu.errors import (
    ArrayNotFoundError,
    ContainsArrayError,
    ContainsGroupError,
    ContainsNodeError,
    DeviceError,
    GroupNotFoundError,
    InvalidKeyError,
    MetadataError,
    NodeNotFoundError,
    ReadOnlyError,
    ZarrError,
    ZarrUserWarning,
)
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore

MODES = ["r", "r+", "a", "w", "w-"]


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr")


def snapshot(folder: Path):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    } | {str(p.relative_to(folder)): None for p in folder.rglob("*") if p.is_dir()}


def fill(place, kind, zarr_format):
    """An array of threes, a group with one member, or nothing."""
    if kind == "array":
        z = zarr_gpu.create_array(place, shape=(3,), dtype="u1", zarr_format=zarr_format)
        z[:] = 3
    elif kind == "group":
        group = zarr_gpu.create_group(place, zarr_format=zarr_format, attributes={"old": 1})
        group["member"] = [1, 2]


# ------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("kind", ["array", "group", "nothing"])
@pytest.mark.parametrize("mode", MODES)
def test_modes_of_open_group(tmp_path, mode, kind, zarr_format):
    place = tmp_path / "data"
    fill(place, kind, zarr_format)
    before = snapshot(tmp_path)
    expected = {
        ("r", "array"): GroupNotFoundError,
        ("r+", "array"): GroupNotFoundError,
        ("a", "array"): ContainsArrayError,
        ("w-", "array"): ContainsArrayError,
        ("w-", "group"): ContainsGroupError,
        ("r", "nothing"): GroupNotFoundError,
        ("r+", "nothing"): GroupNotFoundError,
    }.get((mode, kind))
    if expected is not None:
        with pytest.raises(expected):
            zarr_gpu.open_group(place, mode=mode)
        assert snapshot(tmp_path) == before
        return
    group = zarr_gpu.open_group(place, mode=mode)
    assert group.read_only == (mode == "r")
    kept = kind == "group" and mode != "w"
    assert dict(group.attrs) == ({"old": 1} if kept else {})
    assert list(group) == (["member"] if kept else [])
    if kept:
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["array", "group", "nothing"])
@pytest.mark.parametrize("mode", MODES)
def test_modes_of_open_array(tmp_path, mode, kind, zarr_format):
    place = tmp_path / "data"
    fill(place, kind, zarr_format)
    before = snapshot(tmp_path)
    expected = {
        ("r", "group"): ArrayNotFoundError,
        ("r+", "group"): ArrayNotFoundError,
        ("a", "group"): ContainsGroupError,
        ("w-", "array"): ContainsArrayError,
        ("w-", "group"): ContainsGroupError,
        ("r", "nothing"): ArrayNotFoundError,
        ("r+", "nothing"): ArrayNotFoundError,
    }.get((mode, kind))
    if expected is not None:
        with pytest.raises(expected):
            zarr_gpu.open_array(place, mode=mode, shape=(5,), dtype="i4")
        assert snapshot(tmp_path) == before
        return
    z = zarr_gpu.open_array(place, mode=mode, shape=(5,), dtype="i4")
    assert z.read_only == (mode == "r")
    kept = kind == "array" and mode != "w"
    assert z[:].tolist() == ([3, 3, 3] if kept else [0] * 5)
    if kept:
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["array", "group", "nothing"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wanted", ["array", "group"])
def test_modes_of_open(tmp_path, mode, kind, wanted, zarr_format):
    place = tmp_path / "data"
    fill(place, kind, zarr_format)
    before = snapshot(tmp_path)
    arguments = {"shape": (5,), "dtype": "i4"} if wanted == "array" else {}
    creates = mode == "w" or (kind == "nothing" and mode in {"a", "w-"})
    if not creates and (kind == "nothing" or mode == "w-"):
        expected = NodeNotFoundError if kind == "nothing" else ContainsNodeError
        with pytest.raises(expected):
            zarr_gpu.open(place, mode=mode, **arguments)
        assert snapshot(tmp_path) == before
        return
    node = zarr_gpu.open(place, mode=mode, **arguments)
    assert isinstance(node, zarr_gpu.Array) == ((wanted if creates else kind) == "array")
    assert node.read_only == (mode == "r")
    if not creates:
        assert snapshot(tmp_path) == before


def test_unknown_modes(tmp_path):
    for open_ in (zarr_gpu.open, zarr_gpu.open_group, zarr_gpu.open_array):
        arguments = {} if open_ is zarr_gpu.open_group else {"shape": 1}
        for mode in ("rw", "", 3, "W"):
            with pytest.raises(MetadataError, match="mode"):
                open_(tmp_path / "data", mode=mode, **arguments)
    assert snapshot(tmp_path) == {}
    assert zarr_gpu.open_group(tmp_path / "data", mode="x").zarr_format == 3


def test_reading_never_creates(tmp_path):
    for name in ("absent", "absent/deeper"):
        for open_ in (zarr_gpu.open, zarr_gpu.open_group, zarr_gpu.open_array):
            with pytest.raises(NodeNotFoundError):
                open_(tmp_path / name, mode="r")
        with pytest.raises(NodeNotFoundError):
            zarr_gpu.load(tmp_path / name)
    assert snapshot(tmp_path) == {}


def test_a_mode_is_guessed_from_the_store():
    data = {}
    fill(data, "array", 3)
    assert not zarr_gpu.open(data).read_only
    assert zarr_gpu.open(MemoryStore(data, read_only=True)).read_only
    assert zarr_gpu.open_array(MemoryStore(data, read_only=True)).read_only
    with pytest.raises(ReadOnlyError):
        zarr_gpu.open_array(MemoryStore(data, read_only=True), mode="w", shape=1)
    with pytest.raises(ReadOnlyError):
        zarr_gpu.create_group(MemoryStore(read_only=True))


def test_mode_r_makes_a_writable_store_read_only():
    store = MemoryStore()
    fill(store, "array", 3)
    z = zarr_gpu.open_array(store, mode="r")
    with pytest.raises(ReadOnlyError):
        z[:] = 1
    assert not store.read_only


def test_formats_are_found_out(zarr_format):
    for kind in ("array", "group"):
        data = {}
        fill(data, kind, zarr_format)
        assert zarr_gpu.open(data, mode="r").zarr_format == zarr_format
        assert zarr_gpu.open(data, mode="r", zarr_format=zarr_format).zarr_format == zarr_format
        with pytest.raises(NodeNotFoundError):
            zarr_gpu.open(data, mode="r", zarr_format=5 - zarr_format)


def test_v3_comes_before_v2():
    data = {}
    fill(data, "array", 2)
    two = dict(data)
    data.clear()
    fill(data, "array", 3)
    data.update(two)
    assert zarr_gpu.open(data, mode="r").zarr_format == 3
    assert zarr_gpu.open(data, mode="r", zarr_format=2).zarr_format == 2


def test_the_other_format_is_not_hidden(zarr_format):
    data = {}
    fill(data, "array", zarr_format)
    before = dict(data)
    other = 5 - zarr_format
    with pytest.raises(ContainsArrayError):
        zarr_gpu.create_group(data, zarr_format=other)
    with pytest.raises(ContainsArrayError):
        zarr_gpu.create_array(data, shape=1, dtype="u1", zarr_format=other)
    with pytest.raises(ContainsArrayError):
        zarr_gpu.create_array(data, name="below", shape=1, dtype="u1", zarr_format=other)
    assert data == before


def test_overwriting_deletes_everything_below(zarr_format):
    data = {}
    fill(data, "group", zarr_format)
    zarr_gpu.create_array(data, shape=1, dtype="u1", overwrite=True)
    assert [key for key in data if "member" in key] == []
    assert set(data) == {"zarr.json"}
    z = zarr_gpu.open(data, mode="w", shape=2, dtype="u1", zarr_format=zarr_format)
    assert z.zarr_format == zarr_format
    assert isinstance(zarr_gpu.group(data, overwrite=True), zarr_gpu.Group)
    assert isinstance(zarr_gpu.group(data), zarr_gpu.Group)


def test_groups_are_written_above_a_new_node(zarr_format):
    data = {}
    zarr_gpu.create_array(data, name="a/b/c", shape=1, dtype="u1", zarr_format=zarr_format)
    name = "zarr.json" if zarr_format == 3 else ".zgroup"
    assert {name, f"a/{name}", f"a/b/{name}"} <= set(data)
    for path in ("", "a", "a/b"):
        assert isinstance(zarr_gpu.open(data, path=path, mode="r"), zarr_gpu.Group)
    zarr_gpu.create_group(data, path="a/x/y", zarr_format=zarr_format)
    assert sorted(zarr_gpu.open(data, path="a")) == ["b", "x"]
    with pytest.raises(ContainsArrayError):
        zarr_gpu.create_group(data, path="a/b/c/d", zarr_format=zarr_format)


def test_new_nodes_have_the_format_of_the_group_around_them(zarr_format):
    data = {}
    fill(data, "group", zarr_format)
    before = dict(data)
    for create in (
        lambda: zarr_gpu.create_group(data, path="a/b", zarr_format=5 - zarr_format),
        lambda: zarr_gpu.create_array(
            data, name="a", shape=1, dtype="u1", zarr_format=5 - zarr_format
        ),
    ):
        with pytest.raises(ContainsGroupError, match=f"zarr_format={zarr_format}"):
            create()
    assert data == before
    for made in (
        zarr_gpu.create_group(data, path="a/b"),
        zarr_gpu.open_group(data, path="c"),
        zarr_gpu.create(3, store=data, path="d"),
        zarr_gpu.open(data, path="e/f", shape=2),
        zarr_gpu.from_array(data, name="g", data=[1]),
        zarr_gpu.zeros_like([1], store=data, path="h"),
    ):
        assert made.zarr_format == zarr_format
    assert sorted(zarr_gpu.open_group(data)) == ["a", "c", "d", "e", "g", "h", "member"]


def test_open_array_of_a_path_in_a_group():
    data = {}
    fill(data, "group", 3)
    assert zarr_gpu.open_array(data, path="member")[:].tolist() == [1, 2]
    assert zarr_gpu.open(data, path="/member/")[0] == 1
    with pytest.raises(InvalidKeyError):
        zarr_gpu.open(data, path="../member")


def test_missing_chunks():
    data = {}
    z = zarr_gpu.create_array(data, shape=4, chunks=2, dtype="u1")
    z[:2] = 1
    assert zarr_gpu.open(data, missing="fill")[:].tolist() == [1, 1, 0, 0]
    strict = zarr_gpu.open_array(data, missing="error")
    assert strict[:2].tolist() == [1, 1]
    with pytest.raises(KeyError, match="c/1"):
        strict[:]
    with pytest.raises(KeyError):
        zarr_gpu.open(data, config={"read_missing_chunks": False})[:]
    with pytest.raises(MetadataError, match="missing"):
        zarr_gpu.open(data, missing="perhaps")
    root = {}
    zarr_gpu.create_group(root).create_array("x", shape=1, dtype="u1")
    with pytest.raises(KeyError):
        zarr_gpu.open_group(root, missing="error")["x"][:]


def test_devices():
    data = {}
    for made in (
        zarr_gpu.create_array(data, shape=1, dtype="u1", device="cpu"),
        zarr_gpu.open(data, device="cpu"),
        zarr_gpu.open_array(data, device="auto"),
        zarr_gpu.create_group({}, device="cpu"),
        zarr_gpu.open_group({}, device="cpu").create_array("x", shape=1, dtype="u1"),
        zarr_gpu.zeros(3, device="cpu"),
        zarr_gpu.from_array({}, data=[1], device="cpu"),
    ):
        assert made.device.kind == "cpu"
    with pytest.raises(DeviceError):
        zarr_gpu.open(data, device="abacus")
    fresh = {}
    with pytest.raises(DeviceError):
        zarr_gpu.create_array(fresh, shape=1, dtype="u1", device="abacus")
    with pytest.raises(DeviceError):
        zarr_gpu.create_group(fresh, device="abacus")
    assert fresh == {}


def test_arguments_without_effect_warn():
    with pytest.warns(ZarrUserWarning, match="synchronizer"):
        zarr_gpu.open_group({}, synchronizer=1)
    with pytest.warns(ZarrUserWarning, match="cache_attrs"):
        zarr_gpu.group({}, cache_attrs=True)
    with pytest.raises(TypeError):
        zarr_gpu.group({}, foo=True)
    with pytest.warns(ZarrUserWarning, match="meta_array"):
        zarr_gpu.open_array({}, shape=1, mode="w", meta_array=1)


# ------------------------------------------------------------------------------------- places


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (
        tmp_path / "one",
        str(tmp_path / "two"),
        (tmp_path / "three").as_uri(),
        "four",
        LocalStore(tmp_path / "five"),
        "memory://test_places/six",
        {},
        MemoryStore(),
        tmp_path / "seven.zip",
        CountingStore(MemoryStore()),
    ):
        with zarr_gpu.open_group(place, mode="w") as root:
            root["x"] = [1, 2, 3]
            if not isinstance(place, Path) or place.suffix != ".zip":
                assert zarr_gpu.open(place, path="x", mode="r")[:].tolist() == [1, 2, 3]
    assert {p.name for p in tmp_path.iterdir()} == {
        "one", "two", "three", "four", "five", "seven.zip",
    }  # fmt: skip
    assert zarr_gpu.load(tmp_path / "seven.zip", "x").tolist() == [1, 2, 3]
    root = zarr_gpu.open_group("memory://test_places", mode="r")
    assert root["six/x"][:].tolist() == [1, 2, 3]


def test_what_is_no_place():
    for place in (3, object(), b"bytes", ["a"]):
        with pytest.raises(ZarrError):
            zarr_gpu.open(place)
    with pytest.raises(ZarrError):
        zarr_gpu.open({}, storage_options={"a": 1})


def test_without_a_place_it_is_memory():
    assert zarr_gpu.create(3)[:].tolist() == [0, 0, 0]
    assert list(zarr_gpu.group()) == []
    assert zarr_gpu.open_group().store != 0
    assert list(zarr_gpu.open(mode="w")) == []


# ------------------------------------------------------------------------------------- hierarchy


def test_create_hierarchy(zarr, zarr_format):
    pattern = zarr_gpu.create_group({}, zarr_format=zarr_format)
    pattern.create_array("x", shape=(3,), dtype="i4", attributes={"a": 1})
    document = pattern["x"].metadata.to_dict()
    if zarr_format == 2:
        document["attributes"] = {"a": 1}
    theirs = zarr.create_array({}, shape=(3,), dtype="i4", zarr_format=zarr_format).metadata
    group = zarr.create_group({}, zarr_format=zarr_format, attributes={"g": 1}).metadata
    data = {}
    nodes = {
        "a/b": pattern["x"],
        "a/c": pattern["x"].metadata,
        "d": document,
        "e": theirs,
        "f": group,
    }
    made = dict(zarr_gpu.create_hierarchy(store=data, nodes=nodes))
    assert sorted(made) == ["", "a", "a/b", "a/c", "d", "e", "f"]
    root = zarr_gpu.open_group(data, mode="r")
    for path in ("a/b", "a/c", "d"):
        assert dict(root[path].attrs) == {"a": 1}
        assert root[path].shape == (3,)
    assert root["e"].dtype == "i4"
    assert dict(root["f"].attrs) == {"g": 1}


@pytest.mark.parametrize(
    "nodes",
    [
        {"a": 3},
        {"a": {}},
        {"a": {"zarr_format": 3}},
        {"a": {"zarr_format": 2, "shape": [1]}},
        {"a": {"zarr_format": 3, "node_type": "group", "strange": {}}},
        {"a": {"zarr_format": 3, "node_type": "group", "attributes": {"x": object()}}},
        {
            "a": {"zarr_format": 3, "node_type": "group"},
            "/a/": {"zarr_format": 3, "node_type": "group"},
        },
        {"a": {"zarr_format": 3, "node_type": "group"}, "b": {"zarr_format": 2}},
    ],
)
def test_invalid_hierarchies(nodes):
    data = {}
    with pytest.raises(MetadataError):
        zarr_gpu.create_hierarchy(store=data, nodes=nodes)
    assert data == {}


def test_hierarchy_at_a_path_of_a_url():
    group = {"zarr_format": 3, "node_type": "group"}
    made = zarr_gpu.create_hierarchy(store="memory://test_hierarchy/p", nodes={"a/b": group})
    assert [path for path, _ in made] == ["", "a", "a/b"]
    assert zarr_gpu.open("memory://test_hierarchy/p/a/b", mode="r").path == "p/a/b"


# ------------------------------------------------------------------------------------- save, load


def test_save_and_load_one_array(tmp_path, zarr_format):
    values = np.arange(6.0).reshape(2, 3)
    zarr_gpu.save(tmp_path / "a", values, zarr_format=zarr_format)
    assert zarr_gpu.open(tmp_path / "a").zarr_format == zarr_format
    assert (zarr_gpu.load(tmp_path / "a") == values).all()
    zarr_gpu.save_array(tmp_path / "b", [1, 2], chunks=1, path="below", zarr_format=zarr_format)
    assert zarr_gpu.load(tmp_path / "b", path="below").tolist() == [1, 2]
    with pytest.raises(ContainsArrayError):
        zarr_gpu.save_array(tmp_path / "a", [1, 2], path="below")


def test_save_and_load_several_arrays(zarr_format):
    data = {}
    zarr_gpu.save(data, [1, 2], np.float32(3), named=["a", "b"], zarr_format=zarr_format)
    loaded = zarr_gpu.load(data)
    assert sorted(loaded) == ["arr_0", "arr_1", "named"]
    assert loaded["arr_0"].tolist() == [1, 2]
    assert loaded["arr_1"] == np.float32(3)
    assert loaded["named"].tolist() == ["a", "b"]
    zarr_gpu.save_group(data, [5], path="deep/er")
    assert zarr_gpu.load(data, "deep/er")["arr_0"].tolist() == [5]
    assert "arr_1" in zarr_gpu.open(data)
    for arguments in (((), {}), (([1],), {"arr_0": [1]})):
        with pytest.raises(MetadataError):
            zarr_gpu.save_group({}, *arguments[0], **arguments[1])


def test_saved_data_are_those_of_zarr_python(zarr, tmp_path, zarr_format):
    zarr_gpu.save(tmp_path / "ours", np.arange(5), z=np.ones(2), zarr_format=zarr_format)
    group = zarr.open_group(str(tmp_path / "ours"), mode="r")
    assert group["arr_0"][:].tolist() == [0, 1, 2, 3, 4]
    assert group["z"][:].tolist() == [1, 1]


@pytest.mark.parametrize(
    "values",
    [
        np.array("abc"),
        np.array(["a", "äöü", ""], "U5"),
        np.array(["a", "äöü", "\0"], object),
        np.array([b"a", b"\0"], object),
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        np.zeros((0, 3), "f4"),
        np.array(5),
        np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
        np.array([[True, False]]),
        np.array([1 + 2j]),
        np.arange(6, dtype=">i4").reshape(2, 3).T,
        5,
        "text",
        [[1, 2], [3, 4]],
    ],
    ids=repr,
)
def test_values_come_back(values, zarr_format):
    data = {}
    zarr_gpu.save(data, values, zarr_format=zarr_format)
    loaded = zarr_gpu.load(data)
    expected = np.asarray(values)
    assert np.shape(loaded) == expected.shape
    if expected.dtype.kind in "mM":
        assert np.array_equal(loaded, expected, equal_nan=True)
    else:
        assert np.array_equal(np.asarray(loaded, expected.dtype), expected)


# ------------------------------------------------------------------------------------- patterns


def test_filled_arrays():
    assert zarr_gpu.zeros((2, 2))[:].tolist() == [[0, 0], [0, 0]]
    assert zarr_gpu.ones(2, dtype="u1")[:].tolist() == [1, 1]
    assert zarr_gpu.full(2, 7)[:].tolist() == [7, 7]
    assert zarr_gpu.empty(2).dtype == "f8"
    assert zarr_gpu.full((), "x", dtype=str)[()] == "x"
    assert zarr_gpu.array([1, 2], chunks=1).chunks == (1,)
    assert zarr_gpu.array([1, 2], dtype="f4")[:].dtype == "f4"
    assert zarr_gpu.array(np.array([1, 2]), zarr_format=2).zarr_format == 2


@pytest.fixture
def pattern(zarr_format):
    more = {"shards": (4, 6), "dimension_names": ["y", "x"]} if zarr_format == 3 else {}
    z = zarr_gpu.create_array(
        {},
        shape=(5, 7),
        dtype=">i4" if zarr_format == 2 else "i4",
        chunks=(2, 3),
        fill_value=7,
        compressors={"id": "zlib", "level": 3},
        filters=[{"id": "delta", "dtype": ">i4"}] if zarr_format == 2 else None,
        attributes={"a": 1},
        zarr_format=zarr_format,
        order="F",
        chunk_key_encoding=("v2", "/"),
        **more,
    )
    z[1:, 2:] = np.arange(20).reshape(4, 5)
    return z


def without(document, *names):
    return {key: value for key, value in document.items() if key not in names}


def test_from_array_keeps_what_is_not_given(pattern):
    data = {}
    copy = zarr_gpu.from_array(data, data=pattern)
    assert (copy[:] == pattern[:]).all()
    ours, theirs = copy.metadata.to_dict(), pattern.metadata.to_dict()
    assert without(ours, "attributes") == without(theirs, "attributes")
    assert dict(copy.attrs) == {}
    assert copy.order == "F"


def test_from_array_changes_what_is_given(pattern, zarr_format):
    copy = zarr_gpu.from_array(
        {}, data=pattern, chunks=(5, 7), shards=None, compressors=None, fill_value=0, name="a/b"
    )
    assert copy.path == "a/b"
    assert copy.chunks == (5, 7)
    assert copy.shards is None
    assert copy.compressors == ()
    assert copy.fill_value == 0
    assert len(copy.filters) == (1 if zarr_format == 2 else 0)
    assert (copy[:] == pattern[:]).all()


def test_from_array_to_the_other_format(pattern, zarr_format):
    copy = zarr_gpu.from_array({}, data=pattern, zarr_format=5 - zarr_format)
    assert copy.zarr_format == 5 - zarr_format
    assert copy.chunks == (2, 3)
    assert copy.fill_value == 7
    assert (copy[:] == pattern[:]).all()


def test_from_array_without_data(pattern):
    copy = zarr_gpu.from_array({}, data=pattern, write_data=False)
    assert copy.nchunks_initialized == 0
    assert copy.shape == pattern.shape


def test_from_array_of_anything(zarr, tmp_path):
    assert zarr_gpu.from_array({}, data=[[1, 2]])[:].tolist() == [[1, 2]]
    assert zarr_gpu.from_array({}, data=5)[()] == 5
    theirs = zarr.create_array({}, data=np.arange(100).reshape(10, 10), chunks=(3, 4))
    copy = zarr_gpu.from_array(tmp_path / "x", data=theirs)
    assert copy.chunks == (3, 4)
    assert (copy[:] == theirs[:]).all()

    class Chunked:  # as dask has it
        shape, dtype, chunks = (4,), np.dtype("i4"), ((2, 2),)

        def __getitem__(self, selection):
            return np.arange(4, dtype="i4")[selection]

    assert zarr_gpu.from_array({}, data=Chunked())[:].tolist() == [0, 1, 2, 3]


def test_large_copies_go_block_by_block(monkeypatch):
    monkeypatch.setattr("zarr_gpu.building._BLOCK_NBYTES", 1000)
    values = np.arange(60 * 50).reshape(60, 50)
    source = zarr_gpu.create_array({}, data=values, chunks=(7, 9))
    largest = []
    real = zarr_gpu.Array.__getitem__

    def spy(self, selection):
        result = real(self, selection)
        largest.append(result.nbytes)
        return result

    monkeypatch.setattr(zarr_gpu.Array, "__getitem__", spy)
    copy = zarr_gpu.from_array({}, data=source, chunks=(5, 5))
    assert max(largest) <= 1000
    assert sum(largest) == values.nbytes
    monkeypatch.undo()
    assert (copy[:] == values).all()


def test_arrays_like_others(pattern, zarr_format):
    for made, value in (
        (zarr_gpu.zeros_like(pattern), 0),
        (zarr_gpu.ones_like(pattern), 1),
        (zarr_gpu.empty_like(pattern), 0),
        (zarr_gpu.full_like(pattern), 7),
        (zarr_gpu.full_like(pattern, fill_value=9), 9),
    ):
        assert (made.shape, made.dtype, made.chunks) == (pattern.shape, pattern.dtype, (2, 3))
        assert made.zarr_format == zarr_format
        assert made.compressors == pattern.compressors
        assert made.nchunks_initialized == 0
        assert (made[:] == value).all()
    other = zarr_gpu.zeros_like(pattern, zarr_format=5 - zarr_format, shape=(3, 3), dtype="u1")
    assert (other.zarr_format, other.shape, other.dtype) == (5 - zarr_format, (3, 3), "u1")
    assert zarr_gpu.zeros_like(np.ones((2, 3), "i2")).dtype == "i2"
    data = {}
    assert zarr_gpu.ones_like([1, 2], store=data, path="a").path == "a"
    assert "a/zarr.json" in data
    assert (zarr_gpu.array(pattern)[:] == pattern[:]).all()


def test_open_like(tmp_path, pattern):
    z = zarr_gpu.open_like(pattern, tmp_path / "x", mode="w")
    assert (z.shape, z.dtype, z.chunks) == (pattern.shape, pattern.dtype.newbyteorder("="), (2, 3))
    z[:] = 3
    assert zarr_gpu.open_like(pattern, tmp_path / "x", mode="r")[0, 0] == 3
    data = {}
    assert zarr_gpu.open_like(np.zeros((2, 2)), "a/b", store=data).path == "a/b"
    with pytest.raises(ArrayNotFoundError):
        zarr_gpu.open_like(pattern, tmp_path / "nothing", mode="r")


# ------------------------------------------------------------------------------------- stress


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["group", "array", "delete", "move", "consolidate", "attrs"]),
            st.sampled_from(["a", "b", "a/b", "a/c", "b/a/c"]),
            st.sampled_from(["a", "c", "b/c", "a/d"]),
        ),
        max_size=12,
    ),
    st.sampled_from([2, 3]),
)
def test_a_hierarchy_behaves_like_a_dict_of_paths(steps, zarr_format):
    root = zarr_gpu.create_group({}, zarr_format=zarr_format)
    model: dict[str, str] = {}

    def ancestors(path):
        parts = path.split("/")
        return ["/".join(parts[:n]) for n in range(1, len(parts))]

    def may_create(path):
        return path not in model and all(model.get(p) != "array" for p in ancestors(path))

    for action, path, other in steps:
        if action in {"group", "array"}:
            create = root.create_group if action == "group" else root.create_array
            arguments = {} if action == "group" else {"shape": 1, "dtype": "u1"}
            if may_create(path):
                create(path, **arguments)
                model.update(dict.fromkeys(ancestors(path), "group"), **{path: action})
            else:
                with pytest.raises(ContainsNodeError):
                    create(path, **arguments)
        elif action == "delete":
            if path in model:
                del root[path]
                model = {p: k for p, k in model.items() if not f"{p}/".startswith(f"{path}/")}
            else:
                with pytest.raises(KeyError):
                    del root[path]
        elif action == "move":
            inside = f"{other}/".startswith(f"{path}/")
            if path in model and may_create(other) and not inside:
                root.move(path, other)
                moved = {p: k for p, k in model.items() if f"{p}/".startswith(f"{path}/")}
                model = {p: k for p, k in model.items() if p not in moved}
                model.update(dict.fromkeys(ancestors(other), "group"))
                model.update({other + p[len(path) :]: k for p, k in moved.items()})
            else:
                with pytest.raises(ZarrError):
                    root.move(path, other)
        elif action == "consolidate":
            root = zarr_gpu.consolidate_metadata(root.store)
        elif path in model:
            root[path].attrs["k"] = path
        found = {
            name: "array" if isinstance(node, zarr_gpu.Array) else "group"
            for name, node in root.members(max_depth=None)
        }
        assert found == model
        fresh = zarr_gpu.open_group(root.store, mode="r", use_consolidated=False)
        assert {name for name, _ in fresh.members(max_depth=None)} == set(model)


# ------------------------------------------------------------------------------------- the package


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=60,
    ).stdout


def test_importing_imports_nothing_else():
    loaded = run_python(
        "import sys, zarr_gpu\n"
        "print([m for m in sys.modules if m.startswith('zarr') or m == 'numpy'])"
    )
    assert loaded.strip() == "['zarr_gpu']"


def test_heavy_packages_are_imported_on_first_use_only():
    heavy = run_python(
        "import sys, zarr_gpu\n"
        "z = zarr_gpu.create_array({}, shape=(4, 4), chunks=2, dtype='i4', compressors=None)\n"
        "z[1:3] = 1; z[:]\n"
        "names = 'numcodecs fsspec google_crc32c asyncio ml_dtypes typer rich zarr'.split()\n"
        "print([m for m in names if m in sys.modules])"
    )
    assert heavy.strip() == "[]"


def test_public_names():
    assert zarr_gpu.__version__ == "0.1.0"
    for name in zarr_gpu.__all__:
        assert getattr(zarr_gpu, name) is not None
        assert name in dir(zarr_gpu)
    assert len(set(zarr_gpu.__all__)) == len(zarr_gpu.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        zarr_gpu.nothing  # noqa: B018
    assert isinstance(zarr_gpu.codecs, types.ModuleType)
    assert isinstance(zarr_gpu.storage, types.ModuleType)
    assert isinstance(zarr_gpu.errors, types.ModuleType)


@pytest.mark.parametrize("first", ["array", "group", "config", "api", "codecs.registry"])
def test_modules_never_hide_functions_of_the_same_name(first):
    shown = run_python(
        f"import zarr_gpu.{first}, zarr_gpu\n"
        "from zarr_gpu.array import Array\n"
        "from zarr_gpu import array, config, group, Group\n"
        "print(callable(zarr_gpu.array), callable(group), config.get('array.order'),\n"
        "      zarr_gpu.Array is Array, zarr_gpu.array([1])[0], zarr_gpu.config is config)"
    )
    assert shown.split() == ["True", "True", "C", "True", "1", "True"]


def test_the_names_of_zarr_python_are_there(zarr):
    missing = {
        name
        for name in zarr.__all__
        if not name.startswith("Async") and not hasattr(zarr_gpu, name)
    }
    assert missing == set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {name for name in dir(zarr.Group) if not name.startswith("_")}
    older = {
        "array",
        "create_dataset",
        "require_dataset",
        "synchronizer",
        "update_attributes_async",
    }
    assert theirs - older - set(dir(zarr_gpu.group())) == set()


def test_print_debug_info(capsys):
    zarr_gpu.print_debug_info()
    shown = capsys.readouterr().out
    assert "numpy: " in shown
    assert "python: " in shown


def test_handles_pickle_in_another_process(tmp_path):
    root = zarr_gpu.open_group(tmp_path / "data", mode="w")
    root["x"] = [1, 2, 3]
    (tmp_path / "pickle").write_bytes(pickle.dumps((root, root["x"])))
    shown = run_python(
        "import pickle, pathlib\n"
        f"root, x = pickle.loads(pathlib.Path({str(tmp_path / 'pickle')!r}).read_bytes())\n"
        "print(x[:].tolist(), root['x'][:].tolist())"
    )
    assert shown.strip() == "[1, 2, 3] [1, 2, 3]"


def test_documents_are_laid_out_as_zarr_python_does(tmp_path):
    zarr_gpu.create_array(tmp_path / "x", shape=1, dtype="u1")
    text = (tmp_path / "x" / "zarr.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2)
