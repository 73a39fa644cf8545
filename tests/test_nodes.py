"""Nodes: how little is asked of a store, and how little is parsed twice."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu import consolidation, layout, nodes
from zarr_gpu.codecs.registry import get_codec_class, register_codec
from zarr_gpu.errors import MetadataError
from zarr_gpu.metadata import documents, v2, v3
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore


@pytest.fixture(autouse=True)
def forget():
    def clear():
        nodes._seen.clear()
        nodes._kinds_seen.clear()
        consolidation._lately.clear()
        layout._compiled.clear()

    clear()
    yield
    clear()


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


@pytest.fixture
def counted(monkeypatch):
    """How often functions of modules are called, by name."""
    counts = Counter()

    def count(module, name):
        function = getattr(module, name)

        def wrapper(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapper)

    count(documents, "loads")
    count(v3, "parse")
    count(v2, "parse_array")
    count(layout, "compile_program")
    return counts


class Slow(MemoryStore):
    """A store that is worth asking for many values at once; counts how often it is asked."""

    concurrency = 8

    def __init__(self, items):
        super().__init__(items)
        self.rounds = []

    def get(self, key):
        self.rounds.append("get")
        return super().get(key)

    def fetch(self, request, memory):
        self.rounds.append(f"fetch {len(request.keys)}")
        return super().fetch(request, memory)

    def list_dir(self, prefix=""):
        self.rounds.append("list")
        return super().list_dir(prefix)


def hierarchy(zarr_format, groups=3, arrays=4):
    """A group of groups of arrays of one kind and several shapes, and empty groups."""
    items = {}
    root = zarr_gpu.create_group(items, zarr_format=zarr_format)
    for i in range(groups):
        group = root.create_group(f"g{i}")
        for j in range(arrays):
            group.create_array(f"a{j}", shape=(10 + j,), chunks=5, dtype="f4")
        group.create_group("empty")
    return root.store.items


# ------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("zarr_format", "asked", "keys"),
    [
        (3, None, ["zarr.json"]),
        (3, 3, ["zarr.json"]),
        (2, None, ["zarr.json", ".zarray", ".zattrs"]),
        (2, 2, [".zarray", ".zattrs"]),
    ],
)
def test_opening_an_array_reads_its_documents_alone(zarr_format, asked, keys):
    store = CountingStore(MemoryStore())
    zarr_gpu.create_array(store, shape=4, chunks=2, dtype="u1", zarr_format=zarr_format)[:] = 7
    for _ in range(2):  # what is remembered saves parsing, never a look at the store
        store.reset()
        array = zarr_gpu.open_array(store, mode="r", zarr_format=asked)
        assert store.keys_read == keys
        assert len(store.calls) == len(keys)
        store.reset()
        assert array[3] == 7
        assert store.keys_read == ["c/1" if zarr_format == 3 else "1"]
        assert len(store.calls) == 1


@pytest.mark.parametrize(
    ("zarr_format", "keys"),
    [(3, ["zarr.json"]), (2, ["zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"])],
)
def test_opening_a_group_reads_its_documents_alone(zarr_format, keys):
    store = CountingStore(MemoryStore())
    zarr_gpu.create_group(store, zarr_format=zarr_format)
    store.reset()
    zarr_gpu.open_group(store, mode="r")
    assert store.keys_read == keys
    assert len(store.calls) == len(keys)


def test_opening_a_file_opens_one_file(tmp_path, monkeypatch):
    zarr_gpu.create_array(tmp_path / "a", shape=4, dtype="u1")
    read = []
    monkeypatch.setattr(
        LocalStore,
        "read",
        lambda self, key, *span, _read=LocalStore.read: read.append(key) or _read(self, key, *span),
    )
    monkeypatch.setattr(LocalStore, "size", None)
    monkeypatch.setattr(LocalStore, "walk", None)
    monkeypatch.setattr(LocalStore, "children", None)
    assert zarr_gpu.open_array(tmp_path / "a", mode="r").shape == (4,)
    assert read == ["zarr.json"]


# ------------------------------------------------------------------------------------- listing


def test_listing_asks_once_for_each_node(zarr_format):
    store = CountingStore(MemoryStore(hierarchy(zarr_format)))
    root = zarr_gpu.open_group(store, mode="r")
    store.reset()
    members = dict(root.members(max_depth=None))
    assert sorted(members) == sorted(
        f"g{i}{below}" for i in range(3) for below in ("", "/empty", *(f"/a{j}" for j in range(4)))
    )
    assert members["g1/a3"].shape == (13,)
    assert store.count("list") == 1 + 3 + 3
    assert set(Counter(store.keys_read).values()) == {1}
    groups, arrays = 6, 12
    reads = groups + arrays if zarr_format == 3 else 3 * groups + 2 * arrays
    assert store.count("read") == reads
    assert len(store.calls) == 7 + reads


def test_slow_stores_are_asked_once_for_each_level(zarr_format):
    store = Slow(hierarchy(zarr_format))
    root = zarr_gpu.open_group(store, mode="r+")
    store.rounds.clear()
    assert len(root.members(max_depth=None)) == 18
    fetches = [n for n in store.rounds if n != "list"]
    assert Counter(store.rounds)["list"] == 7
    if zarr_format == 3:
        assert fetches == ["fetch 3", "fetch 15"]
    else:
        assert fetches == [
            *("fetch 3", "fetch 3", "fetch 3"),  # .zarray, .zgroup, .zattrs
            *("fetch 15", "fetch 3", "fetch 15"),
        ]
    store.rounds.clear()
    zarr_gpu.consolidate_metadata(store)
    opened = ["get"] if zarr_format == 2 else []  # the .zmetadata just written
    assert [n for n in store.rounds if n != "list"] == ["fetch 4", *fetches, *opened]


def test_drawing_asks_slow_stores_once_for_each_group(zarr_format):
    store = Slow(hierarchy(zarr_format))
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    store.items[f"g0/a1/{name}"] = b'{"zarr_format": 3, "node_type": "array"}'
    root = zarr_gpu.open_group(store, mode="r+")
    store.rounds.clear()
    drawn = repr(root.tree()).splitlines()
    assert len(drawn) == 1 + 18
    assert drawn[2].endswith("a0 (10,) float32")
    assert "a1 (cannot be opened: " in drawn[3]
    assert Counter(store.rounds)["list"] == 7
    assert len(store.rounds) - 7 <= (1 + 3) * (1 if zarr_format == 3 else 3)


def test_slow_stores_are_asked_once_for_a_node(zarr_format):
    store = Slow(hierarchy(zarr_format))
    assert zarr_gpu.open_array(store, path="g1/a2", mode="r+").shape == (12,)
    assert store.rounds == ["fetch 4"]


@pytest.mark.parametrize("consolidated", [False, True])
def test_names_of_several_levels_in_order(zarr_format, consolidated):
    items = hierarchy(zarr_format)
    if consolidated:
        zarr_gpu.consolidate_metadata(items)
    for store in (MemoryStore(items), Slow(items)):
        root = zarr_gpu.open_group(store, mode="r")
        assert root.is_consolidated == consolidated
        below = ("a0", "a1", "a2", "a3", "empty")
        assert [name for name, _ in root.members(max_depth=None)] == [
            *("g0", "g1", "g2"),
            *(f"g{i}/{name}" for i in range(3) for name in below),
        ]
        assert [name for name, _ in root["g1"].members()] == list(below)


# ------------------------------------------------------------------------------------- parsing


def test_a_node_opened_again_is_not_parsed_again(counted, zarr_format):
    items = hierarchy(zarr_format)
    counted.clear()
    for _ in range(3):
        root = zarr_gpu.open_group(items, mode="r")
        assert root["g1/a2"].shape == (12,)
    kinds = 2 if zarr_format == 3 else 2 + 2  # v2 has .zattrs as well
    assert counted["loads"] == kinds
    assert counted["parse"] + counted["parse_array"] == (2 if zarr_format == 3 else 1)


def test_a_changed_document_is_parsed_anew(counted):
    items = {}
    array = zarr_gpu.create_array(items, shape=4, dtype="u1")
    store = array.store
    assert zarr_gpu.open_array(store, mode="r").shape == (4,)
    array.resize(5)
    assert zarr_gpu.open_array(store, mode="r").shape == (5,)
    array.attrs["a"] = 1
    assert dict(zarr_gpu.open_array(store, mode="r").attrs) == {"a": 1}


def test_arrays_of_one_kind_are_parsed_and_compiled_once(counted, zarr_format):
    root = zarr_gpu.open_group(hierarchy(zarr_format), mode="r")
    counted.clear()
    arrays = [node for _, node in root.members(max_depth=None) if hasattr(node, "shape")]
    assert len(arrays) == 12
    # All groups have one document, that of the root.
    assert counted["parse_array"] + counted["parse"] == 1
    assert len({id(array.layout.program) for array in arrays}) == 1
    assert [array.layout.grid.array_shape for array in arrays[:4]] == [(10,), (11,), (12,), (13,)]
    assert counted["compile_program"] == 1


def test_consolidated_metadata_opened_again_are_not_parsed_again(counted, zarr_format):
    items = hierarchy(zarr_format)
    zarr_gpu.consolidate_metadata(items)
    names = []
    for turn in range(3):
        counted.clear()
        root = zarr_gpu.open_group(items, mode="r", use_consolidated=True)
        names.append([name for name, _ in root.members(max_depth=None)])
        assert root["g2/a3"].shape == (13,)
        if turn:
            assert not counted
    assert names[0] == names[1] == names[2]


def test_handles_share_documents_and_not_changes(zarr_format):
    store = MemoryStore(hierarchy(zarr_format))
    zarr_gpu.consolidate_metadata(store)
    one, two = zarr_gpu.open_group(store), zarr_gpu.open_group(store)
    one["g1"].attrs["a"] = [1]
    assert not one.is_consolidated
    assert two.is_consolidated
    assert dict(two["g1"].attrs) == {}
    three = zarr_gpu.open_group(store, use_consolidated=False)
    three["g1"].attrs["a"].append(2)
    assert three["g1"].attrs["a"] == [1]


def test_a_broken_member_is_told_of_every_time(zarr_format):
    items = hierarchy(zarr_format)
    zarr_gpu.consolidate_metadata(items)
    name = "zarr.json" if zarr_format == 3 else ".zmetadata"
    root = json.loads(bytes(items[name]))
    found = root["consolidated_metadata"]["metadata"] if zarr_format == 3 else root["metadata"]
    found["g1/a1" if zarr_format == 3 else "g1/a1/.zarray"]["shape"] = [-1]
    items[name] = json.dumps(root).encode()
    for _ in range(2):
        group = zarr_gpu.open_group(items, mode="r")
        with pytest.raises(MetadataError, match="shape") as caught:
            group.members(max_depth=None)
        assert caught.value.key.startswith("g1/a1/")
        assert group["g1/a0"].shape == (10,)


# ------------------------------------------------------------------------------------- likeness

V3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [10, 4],
    "data_type": "float64",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 4]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}
V2 = {
    "zarr_format": 2,
    "shape": [10, 4],
    "chunks": [5, 4],
    "dtype": "<f8",
    "fill_value": 0,
    "order": "C",
    "filters": None,
    "compressor": None,
}
CHANGES = [
    {},
    {"shape": [0, 1]},
    {"shape": [2**63 - 1, 1]},
    {"shape": [2**63, 1]},
    {"shape": [-1, 1]},
    {"shape": [True, 1]},
    {"shape": [1.0, 1]},
    {"shape": ["1", 1]},
    {"shape": [10]},
    {"shape": [10, 4, 1]},
    {"shape": 10},
    {"shape": None},
    {"attributes": {"a": [1]}},
    {"attributes": None},
    {"attributes": []},
    {"dimension_names": ["y", None]},
    {"dimension_names": ["y"]},
    {"dimension_names": ["y", 1]},
    {"dimension_names": "yx"},
    {"dimension_names": None},
    {"fill_value": 0.0},
    {"fill_value": -0.0},
    {"fill_value": False},
    {"fill_value": 1},
    {"zarr_format": True},
    {"zarr_format": 3.0},
    {"unknown": 1},
    {"unknown": {"must_understand": False}},
]


def outcome(parse, document):
    """What parsing comes to: everything but the document, or the error in words."""
    try:
        made = parse(copy.deepcopy(document))
    except MetadataError as error:
        return type(error), str(error)
    fill = None if made.fill_value is None else (type(made.fill_value), made.fill_value.tobytes())
    return (
        *(made.shape, made.chunk_shape, made.dtype, fill, made.codecs, made.key_encoding),
        *(made.attributes, made.dimension_names, made.order, made.document),
    )


@pytest.mark.parametrize("change", CHANGES, ids=repr)
@pytest.mark.parametrize(("name", "document"), [("zarr.json", V3), (".zarray", V2)])
def test_documents_alike_come_to_the_same(name, document, change):
    changed = {**document, **change}
    plain = v3.parse if name == "zarr.json" else v2.parse_array
    expected = outcome(plain, changed)
    for first in (document, changed):
        nodes._kinds_seen.clear()
        outcome(lambda doc: nodes.parse_node({name: doc}, ""), first)
        assert outcome(lambda doc: nodes.parse_node({name: doc}, ""), changed) == expected


def test_the_sign_of_zero_survives_likeness():
    for value in (0.0, -0.0, 0.0):
        made = nodes.parse_node({"zarr.json": {**V3, "fill_value": value}}, "")
        assert math.copysign(1, made.fill_value) == math.copysign(1, value)


def test_memory_is_bounded():
    lately = nodes.Lately(10_000)
    for i in range(100):
        lately.put(i, str(i), 1000)
    assert lately.get(99) == "99"
    assert lately.get(0) is None
    assert sum(lately.get(i) is not None for i in range(100)) <= 4
    lately.put("large", "large", 20_000)
    assert lately.get("large") is None
    assert lately.get(99) == "99"


# ------------------------------------------------------------------------------------- compiling


def test_compiled_codecs_are_shared_and_follow_what_is_registered(counted):
    array = zarr_gpu.create_array({}, shape=(4, 4), chunks=2, dtype="i4", fill_value=3)
    program = array.layout.program
    array.resize((6, 4))
    assert array.layout.program is program
    assert array.layout.grid.array_shape == (6, 4)
    assert zarr_gpu.Array(array.store, "", array.metadata).layout.program is program
    assert counted["compile_program"] == 1
    register_codec("zstd", get_codec_class("zstd"))
    assert zarr_gpu.Array(array.store, "", array.metadata).layout.program is not program
    with zarr_gpu.config.set({"decode.max_variable_bytes": 1000}):
        zarr_gpu.Array(array.store, "", array.metadata).layout  # noqa: B018  compiles
    assert counted["compile_program"] == 3


def test_what_differs_is_compiled_apart():
    store = MemoryStore()
    made = {
        (chunks, dtype, fill): zarr_gpu.create_array(
            store,
            name=f"{chunks}{dtype}{fill}",
            shape=6,
            chunks=chunks,
            dtype=dtype,
            fill_value=fill,
        )
        for chunks in (2, 3)
        for dtype in ("i4", ">i4", "f4")
        for fill in (0, 1)
    }
    for _ in range(2):
        for (chunks, dtype, fill), array in made.items():
            opened = zarr_gpu.open_array(store, path=array.path, mode="r")
            assert opened.layout.grid.chunk_shape == (chunks,)
            assert opened.layout.dtype == np.dtype(dtype).newbyteorder("=")
            assert opened[:].tolist() == [fill] * 6
