"""Groups: members, creation below, deletion, moving, consolidated metadata, zarr-python."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.errors import (
    ArrayNotFoundError,
    ContainsArrayError,
    ContainsGroupError,
    ContainsNodeError,
    GroupNotFoundError,
    IncompatibleArrayError,
    InvalidKeyError,
    MemberNotFoundError,
    MetadataError,
    ReadOnlyError,
    UnknownDataTypeError,
)
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore, FaultyStore


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "data.zarr")


@pytest.fixture
def root(store, zarr_format):
    """``a/b/c`` and ``x`` are arrays, ``a``, ``a/b`` and ``empty`` groups."""
    root = zarr_gpu.create_group(store, zarr_format=zarr_format, attributes={"of": "root"})
    root.create_array("a/b/c", data=np.arange(6, dtype="i4").reshape(2, 3), chunks=(1, 3))
    root.create_array("x", shape=(3,), dtype="u1", attributes={"of": "x"})
    root.create_group("empty")
    return root


ALL = ["a", "a/b", "a/b/c", "empty", "x"]


def names(group, depth=None):
    return sorted(name for name, _ in group.members(max_depth=depth))


# ------------------------------------------------------------------------------------- reading


def test_members(root):
    assert list(root) == list(root.keys()) == ["a", "empty", "x"]
    assert len(root) == root.nmembers() == 3
    assert root.nmembers(max_depth=None) == 5
    assert names(root, 0) == ["a", "empty", "x"]
    assert names(root, 1) == ["a", "a/b", "empty", "x"]
    assert names(root) == ALL
    assert [name for name, _ in root.members(max_depth=None)] == ["a", "empty", "x", "a/b", "a/b/c"]
    assert list(root.group_keys()) == ["a", "empty"]
    assert list(root.array_keys()) == ["x"]
    assert [g.path for _, g in root.groups()] == ["a", "empty"]
    assert [g.path for g in root.group_values()] == ["a", "empty"]
    assert [(name, z.shape) for name, z in root.arrays()] == [("x", (3,))]
    assert [z.path for z in root.array_values()] == ["x"]
    assert dict(root["x"].attrs) == {"of": "x"}
    with pytest.raises(MetadataError):
        root.members(max_depth=-1)


def test_an_empty_group_is_true_and_empty(root):
    assert root["empty"]
    assert len(root["empty"]) == 0
    assert list(root["empty"].arrays()) == []


def test_looking_up(root):
    assert root["a"]["b"]["c"][1, 2] == root["a/b/c"][1, 2] == root["/a//b/c/"][1, 2] == 5
    assert root[""] == root
    for path in ALL:
        assert path in root
        assert root.get(path) is not None
    for path in ("nothing", "a/nothing", "a/b/c/d", "x/0", ".zgroup", "zarr.json"):
        assert path not in root
        assert root.get(path, 5) == 5
        with pytest.raises(MemberNotFoundError) as caught:
            root[path]
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, FileNotFoundError)
        assert path in str(caught.value)
    for path in ("..", "a/../x", "a\0", "."):
        assert path not in root
        with pytest.raises(InvalidKeyError):
            root[path]
    assert 3 not in root


def test_get_array_and_get_group(root):
    assert root.get_array("x").shape == (3,)
    assert root.get_group("a").path == "a"
    with pytest.raises(ArrayNotFoundError):
        root.get_array("a")
    with pytest.raises(GroupNotFoundError):
        root.get_group("x")
    with pytest.raises(KeyError):
        root.get_group("nothing")


def test_what_a_group_is(root, zarr_format):
    group = root["a/b"]
    assert (root.path, root.name, root.basename) == ("", "/", "")
    assert (group.path, group.name, group.basename) == ("a/b", "/a/b", "b")
    assert group.zarr_format == group.metadata.zarr_format == zarr_format
    assert not group.read_only
    assert group.store is root.store
    assert repr(group) == f"<Group {root.store!r}/a/b>"
    assert "Group" in repr(group.info)
    assert "No. members : 5" in repr(root.info_complete())
    assert "No. arrays  : 2" in repr(root.info_complete())
    assert "<table>" in root._repr_html_()
    assert group == root["a"]["b"]
    assert group != root
    assert group != "a/b"
    assert len({group, root["a/b"], root}) == 2


def test_tree(root):
    lines = ["/", "├── a", "│   └── b", "│       └── c (2, 3) int32", "├── empty"]
    expected = "\n".join([*lines, "└── x (3,) uint8"])
    assert repr(root.tree()) == str(zarr_gpu.tree(root)) == expected
    assert repr(root.tree(level=1)) == "/\n├── a\n├── empty\n└── x (3,) uint8"
    assert repr(root["a"].tree()).splitlines()[0] == "/a"
    assert repr(root.tree(max_nodes=2)).splitlines()[-1] == "... (more than 2 members)"
    assert "<b>c</b> (2, 3) int32" in root.tree()._repr_html_()
    assert str(zarr_gpu.tree(root.store)) == expected


def test_a_broken_member_is_listed_and_fails_only_when_opened(root, zarr_format):
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    root.store.put(f"broken/{name}", b"{")
    document = json.loads(root.store.get(f"x/{name}"))
    document["data_type" if zarr_format == 3 else "dtype"] = "float99"
    root.store.put(f"strange/{name}", json.dumps(document).encode())
    assert list(root) == ["a", "broken", "empty", "strange", "x"]
    assert "broken" in root
    assert len(root) == 5
    with pytest.raises(MetadataError, match="broken"):
        root["broken"]
    with pytest.raises(UnknownDataTypeError, match="float99"):
        root["strange"]
    with pytest.raises(MetadataError):
        root.members()
    assert "cannot be opened" in repr(root.tree())
    assert root["x"].shape == (3,)


def test_what_is_no_node_is_not_listed(root):
    root.store.put("README.md", b"hello")
    root.store.put("notes/today.txt", b"hello")
    assert list(root) == ["a", "empty", "x"]
    assert "notes" not in root
    assert "README.md" not in root


def test_implicit_groups_of_v3_are_found():
    root = zarr_gpu.create_group({})
    root.create_array("a/b/c", shape=3, dtype="u1")
    root.store.delete_many(["a/b/zarr.json"])
    assert root["a"]["b"]["c"].shape == (3,)
    assert list(root["a"].group_keys()) == ["b"]
    assert "a/b" in root
    assert "a/b/c/d" not in root
    assert names(root) == ["a", "a/b", "a/b/c"]
    root["a/b"].attrs["now"] = "explicit"
    assert root.store.exists("a/b/zarr.json")
    root.store.delete_many(["zarr.json"])
    assert list(zarr_gpu.open_group(root.store, mode="r")) == ["a"]


# ------------------------------------------------------------------------------------- creating


def test_create_group(root):
    made = root["a"].create_group("new/deep", attributes={"k": 1})
    assert made.path == "a/new/deep"
    assert dict(root["a/new/deep"].attrs) == {"k": 1}
    assert isinstance(root["a/new"], zarr_gpu.Group)
    with pytest.raises(ContainsGroupError):
        root.create_group("a")
    with pytest.raises(ContainsArrayError):
        root.create_group("x")
    with pytest.raises(ContainsArrayError):
        root.create_group("x/below")
    root.create_group("a", overwrite=True)
    assert names(root) == ["a", "empty", "x"]
    root.create_group("x", overwrite=True)
    assert list(root.array_keys()) == []


def test_require_group(root):
    assert root.require_group("a") == root["a"]
    assert root.require_group("p/q").path == "p/q"
    assert [g.path for g in root.require_groups("a", "r")] == ["a", "r"]
    assert root.require_groups() == ()
    with pytest.raises(ContainsArrayError):
        root.require_group("x")
    assert list(root.require_group("a", overwrite=True)) == []


def test_create_array_replaces_only_when_told(root):
    with pytest.raises(ContainsArrayError):
        root.create_array("x", shape=(9,), dtype="u1")
    with pytest.raises(ContainsGroupError):
        root.create_array("a", shape=(9,), dtype="u1")
    with pytest.raises(ContainsArrayError):
        root.create_array("x/below", shape=(9,), dtype="u1")
    assert root["x"].shape == (3,)
    root["x"][:] = 7
    assert root.create_array("x", shape=(9,), dtype="u1", overwrite=True)[:].tolist() == [0] * 9
    root.create_array("a", shape=(9,), dtype="u1", overwrite=True)
    assert names(root) == ["a", "empty", "x"]


def test_nothing_is_written_for_invalid_arguments(root):
    before = sorted(root.store.list_prefix())
    for arguments in (
        {"shape": (-1,), "dtype": "u1"},
        {"shape": (1,), "dtype": "nothing"},
        {"shape": (1,), "dtype": "u1", "compressors": "nothing"},
        {"shape": (1,), "dtype": "u1", "attributes": {"a": b""}},
        {"shape": (1,), "dtype": "u1", "storage_options": {"a": 1}},
    ):
        with pytest.raises(MetadataError):
            root.create_array("deep/down/new", **arguments)
        with pytest.raises(MetadataError):
            root.create_array("x", overwrite=True, **arguments)
    assert sorted(root.store.list_prefix()) == before


@pytest.mark.parametrize(
    "name", ["", "/", "..", "a/..", "zarr.json", "p/.zarray", "...", "a\0b", 3]
)
def test_names_that_no_node_may_have(root, name):
    before = sorted(root.store.list_prefix())
    for create in (
        lambda: root.create_group(name),
        lambda: root.create_array(name, shape=1, dtype="u1"),
        lambda: root.move("x", name),
    ):
        with pytest.raises(InvalidKeyError):
            create()
    assert sorted(root.store.list_prefix()) == before


def test_names_with_two_underscores_are_reserved_in_v3():
    with pytest.raises(InvalidKeyError):
        zarr_gpu.create_group({}).create_group("__a")
    assert "__a" in zarr_gpu.create_group({}, zarr_format=2).require_group("__a").path


def test_require_array(root):
    assert root.require_array("x", shape=3, dtype="u1") == root["x"]
    assert root.require_array("x", shape=(3,)) == root["x"]
    assert root.require_array("new", shape=(2, 2), dtype="i2", chunks=(1, 2)).chunks == (1, 2)
    assert root.require_array("plain", shape=2).dtype == "f8"
    for arguments in (
        {"shape": 4},
        {"shape": (3, 1)},
        {"shape": 3, "dtype": "f8"},
        {"shape": 3, "dtype": "bool", "exact": True},
    ):
        with pytest.raises(IncompatibleArrayError) as caught:
            root.require_array("x", **arguments)
        assert isinstance(caught.value, TypeError)
    assert root.require_array("x", shape=3, dtype="bool").dtype == "u1"
    with pytest.raises(ContainsGroupError):
        root.require_array("a", shape=3)


def test_filled_arrays(root):
    assert root.zeros(name="z", shape=3)[:].tolist() == [0.0] * 3
    assert root.ones(name="o", shape=3, dtype="u1")[:].tolist() == [1] * 3
    assert root.full(name="f", shape=3, fill_value=7, dtype="i2")[:].tolist() == [7] * 3
    assert root.empty(name="e", shape=(2, 2)).dtype == "f8"
    pattern = root["a/b/c"]
    for made, value in (
        (root.zeros_like(name="zl", data=pattern), 0),
        (root.ones_like(name="ol", data=pattern), 1),
        (root.empty_like(name="el", data=pattern), 0),
        (root.full_like(name="fl", data=pattern, fill_value=9), 9),
    ):
        assert (made.shape, made.dtype, made.chunks) == ((2, 3), "i4", (1, 3))
        assert made.nchunks_initialized == 0
        assert (made[:] == value).all()
    assert root.zeros_like(name="n", data=np.ones((2, 2), "c8")).dtype == "c8"


def test_setitem_stores_arrays(root):
    root["new/list"] = [1, 2, 3]
    assert root["new/list"][:].tolist() == [1, 2, 3]
    root["x"] = np.arange(4.0)
    assert root["x"][:].tolist() == [0, 1, 2, 3]
    root["copy"] = root["a/b/c"]
    assert root["copy"].chunks == (1, 3)
    assert (root["copy"][:] == root["a/b/c"][:]).all()
    root["scalar"] = 5
    assert root["scalar"][()] == 5
    root["text"] = np.array(["a", "bcd"])
    assert root["text"][:].tolist() == ["a", "bcd"]
    root["objects"] = np.array(["a", "bcd\0"], object)
    assert list(root["objects"][:]) == ["a", "bcd\0"]


def test_settings_are_handed_down(store, zarr_format):
    root = zarr_gpu.create_group(
        store,
        zarr_format=zarr_format,
        device="cpu",
        config={"order": "F", "write_empty_chunks": True},
    )
    made = root.create_group("g").create_array("x", shape=(2, 2), dtype="u1")
    assert made.config == root.config
    assert root["g/x"].config.write_empty_chunks
    assert root["g/x"].device == root.device
    other = root.with_config({"read_missing_chunks": False})
    with pytest.raises(KeyError):
        other["g/x"][:]
    assert root.to("cpu")["g"].device.name == "cpu"
    assert root.create_array("c", shape=1, dtype="u1", config={"order": "C"}).config.order == "C"


# ------------------------------------------------------------------------------------- changing


def test_delete(root):
    del root["a/b"]
    assert names(root) == ["a", "empty", "x"]
    assert [key for key in root.store.list_prefix() if key.startswith("a/b")] == []
    del root["x"]
    for name in ("x", "a/b", "nothing", ""):
        with pytest.raises(MemberNotFoundError):
            del root[name]
    assert names(root) == ["a", "empty"]


def test_move(root):
    values = root["a/b/c"][:]
    root.move("a/b", "moved/here")
    assert names(root) == ["a", "empty", "moved", "moved/here", "moved/here/c", "x"]
    assert (root["moved/here/c"][:] == values).all()
    root.move("x", "y")
    assert dict(root["y"].attrs) == {"of": "x"}
    root["moved"].move("here/c", "c")
    assert (root["moved/c"][:] == values).all()
    with pytest.raises(MemberNotFoundError):
        root.move("nothing", "z")
    with pytest.raises(ContainsNodeError):
        root.move("y", "moved")
    with pytest.raises(ContainsArrayError):
        root.move("empty", "y/below")
    for source, dest in (("moved", "moved/inside"), ("moved", "moved")):
        with pytest.raises((InvalidKeyError, ContainsNodeError)):
            root.move(source, dest)
    assert names(root) == ["a", "empty", "moved", "moved/c", "moved/here", "y"]


def test_create_hierarchy(root, zarr_format):
    x, group = root["x"].metadata, root["a"].metadata
    made = dict(root["a"].create_hierarchy({"p/q/r": x, "s": group}))
    assert list(made) == ["p", "p/q", "p/q/r", "s"]
    assert made["p/q/r"].path == "a/p/q/r"
    assert root["a/p/q/r"].shape == (3,)
    before = sorted(root.store.list_prefix())
    with pytest.raises(ContainsGroupError):
        root.create_hierarchy({"new": x, "a": group})
    with pytest.raises(MetadataError):
        root.create_hierarchy({"new": x, "new/below": group})
    other = zarr_gpu.create_group({}, zarr_format=5 - zarr_format)
    with pytest.raises(MetadataError):
        root.create_hierarchy({"new": other})
    assert sorted(root.store.list_prefix()) == before
    dict(root.create_hierarchy({"a": group}, overwrite=True))
    assert list(root["a"]) == []


def test_read_only(root):
    before = {key: root.store.get(key) for key in root.store.list_prefix()}
    source = root.store.items if isinstance(root.store, MemoryStore) else root.store.root
    group = zarr_gpu.open_group(source, mode="r")
    assert group.read_only
    assert group["a"].read_only
    for change in (
        lambda: group.create_group("new"),
        lambda: group.create_group("a", overwrite=True),
        lambda: group.create_array("new", shape=1, dtype="u1"),
        lambda: group.require_group("new"),
        lambda: group.__delitem__("x"),
        lambda: group.__setitem__("x", 1),
        lambda: group.move("x", "y"),
        lambda: group.zeros_like(name="y", data=group["x"]),
        lambda: group.create_hierarchy({"new": group.metadata}),
        lambda: group["a"].attrs.update(a=1),
        lambda: group["x"].__setitem__(0, 1),
    ):
        with pytest.raises(ReadOnlyError):
            change()
    assert {key: root.store.get(key) for key in root.store.list_prefix()} == before
    assert group.require_group("a").path == "a"


def test_pickling(root):
    for node in (root, root["a"]):
        again = pickle.loads(pickle.dumps(node))
        assert again == node
        assert again.config == node.config
        assert names(again) == names(node)
    zarr_gpu.consolidate_metadata(root.store)
    again = pickle.loads(pickle.dumps(zarr_gpu.open_group(root.store)))
    assert again.is_consolidated
    assert (again["a/b/c"][:] == root["a/b/c"][:]).all()


def test_context_manager(tmp_path):
    with zarr_gpu.open_group(tmp_path / "data.zip", mode="w") as root:
        root["x"] = [1, 2, 3]
    with zarr_gpu.open_group(tmp_path / "data.zip", mode="r") as root:
        assert root["x"][:].tolist() == [1, 2, 3]


def test_refresh_and_class_methods(store, zarr_format):
    one = zarr_gpu.Group.from_store(store, attributes={"a": 1}, zarr_format=zarr_format)
    two = zarr_gpu.Group.open(store)
    one.attrs["a"] = 2
    assert two.attrs["a"] == 1
    assert two.refresh().attrs["a"] == 2
    with pytest.raises(ContainsGroupError):
        zarr_gpu.Group.from_store(store)
    with pytest.raises(GroupNotFoundError):
        zarr_gpu.Group.open({})


# ------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_failure_on_the_way_leaves_the_old_or_nothing(zarr_format):
    """The n-th call of the store fails, for every n until none does."""

    def prepare():
        store = MemoryStore()
        root = zarr_gpu.create_group(store, zarr_format=zarr_format)
        root["old"] = [1, 2, 3]
        root["gone"] = [1, 2, 3]
        return store

    def change(root):
        root.create_array("old", data=[4, 5, 6, 7], overwrite=True)
        root.create_array("deep/new", data=[8], attributes={"a": 1})
        del root["gone"]

    for nth in range(1, 200):
        store = prepare()
        faulty = FaultyStore(store, OSError("no"), nth=nth)
        failed = True
        try:
            change(zarr_gpu.open_group(faulty, mode="r+"))
            failed = False
        except OSError:
            pass
        root = zarr_gpu.open_group(store, mode="r+")
        for name in ("old", "gone", "deep/new"):
            node = root.get(name)
            assert node is None or node[:].shape in {(3,), (4,), (1,)}
        if not failed:
            break
        change_again = zarr_gpu.open_group(store, mode="r+")
        for name in ("deep", "gone"):
            if name in change_again:
                del change_again[name]
        change_again["gone"] = [1]
        change(change_again)
        assert zarr_gpu.open_group(store)["old"][:].tolist() == [4, 5, 6, 7]
    assert not failed
    assert nth > 10


# ------------------------------------------------------------------------------------- consolidated


def test_consolidated_metadata_answer_without_the_store(root, zarr_format):
    made = zarr_gpu.consolidate_metadata(root.store)
    assert made.is_consolidated
    counting = CountingStore(root.store)
    group = zarr_gpu.open_group(counting)
    counting.reset()
    assert list(group) == ["a", "empty", "x"]
    assert names(group) == ALL
    assert group["a"]["b/c"].shape == (2, 3)
    assert group["a/b"].is_consolidated
    assert "a/b" in group
    assert "nothing" not in group
    assert group.get("nothing") is None
    assert len(group["empty"]) == 0
    assert dict(group["x"].attrs) == {"of": "x"}
    assert repr(group.tree()) == repr(root.tree())
    with pytest.raises(MemberNotFoundError, match="consolidated"):
        group["nothing"]
    assert counting.calls == []
    assert (group["a/b/c"][:] == root["a/b/c"][:]).all()


def test_use_consolidated(root, zarr_format):
    with pytest.raises(FileNotFoundError):
        zarr_gpu.open_group(root.store, use_consolidated=True)
    with pytest.raises(FileNotFoundError):
        zarr_gpu.open_consolidated(root.store)
    assert not zarr_gpu.open_group(root.store).is_consolidated
    zarr_gpu.consolidate_metadata(root.store)
    assert zarr_gpu.open_consolidated(root.store).is_consolidated
    assert zarr_gpu.open_group(root.store, use_consolidated=True).is_consolidated
    assert not zarr_gpu.open_group(root.store, use_consolidated=False).is_consolidated
    if zarr_format == 2:
        root.store.put("other", root.store.get(".zmetadata"))
        root.store.delete_many([".zmetadata"])
        assert zarr_gpu.open_group(root.store, use_consolidated="other").is_consolidated
        assert not zarr_gpu.open_group(root.store).is_consolidated
        with pytest.raises(FileNotFoundError):
            zarr_gpu.open_group(root.store, use_consolidated="another")
    else:
        with pytest.raises(MetadataError):
            zarr_gpu.open_group(root.store, use_consolidated="other")
    with pytest.raises(MetadataError):
        zarr_gpu.open_group(root.store, use_consolidated=3)
    with pytest.raises(MetadataError):
        zarr_gpu.open_consolidated(root.store, use_consolidated=False)


def test_changes_are_seen_behind_consolidated_metadata(root):
    zarr_gpu.consolidate_metadata(root.store)
    group = zarr_gpu.open_group(root.store)
    below = group["a"]
    group.create_array("new", shape=1, dtype="u1")
    assert "new" in group
    assert group["new"].shape == (1,)
    assert not below.is_consolidated
    del group["x"]
    assert names(below) == ["b", "b/c"]
    assert "x" not in group
    stale = zarr_gpu.open_group(root.store)
    assert "x" in stale  # until consolidated anew
    assert names(zarr_gpu.consolidate_metadata(root.store)) == ["a", "a/b", "a/b/c", "empty", "new"]


def test_consolidating_a_group_below(root):
    group = zarr_gpu.consolidate_metadata(root.store, path="a")
    assert group.path == "a"
    assert names(group) == ["b", "b/c"]
    assert group["b/c"].path == "a/b/c"
    assert zarr_gpu.open_group(root.store, path="a").is_consolidated
    assert not zarr_gpu.open_group(root.store).is_consolidated
    assert not root["a"].is_consolidated


def test_members_from_the_store_behind_consolidated_metadata(root):
    zarr_gpu.consolidate_metadata(root.store)
    root.create_group("late")
    group = zarr_gpu.open_group(root.store)
    found = group.members(max_depth=None, use_consolidated_for_children=False)
    assert sorted(name for name, _ in found) == sorted([*ALL, "late"])
    assert names(group) == ALL


def test_attributes_keep_consolidated_metadata(root):
    zarr_gpu.consolidate_metadata(root.store)
    zarr_gpu.open_group(root.store).attrs["a"] = 1
    group = zarr_gpu.open_group(root.store)
    assert group.is_consolidated
    assert group.attrs["a"] == 1
    assert names(group) == ALL


def test_consolidating_what_is_not_there(store, zarr_format):
    with pytest.raises(GroupNotFoundError):
        zarr_gpu.consolidate_metadata(store)
    zarr_gpu.create_array(store, shape=1, dtype="u1", zarr_format=zarr_format)
    with pytest.raises(GroupNotFoundError):
        zarr_gpu.consolidate_metadata(store)


def test_listing_asks_once_for_each_node(zarr_format):
    counting = CountingStore(MemoryStore())
    root = zarr_gpu.create_group(counting, zarr_format=zarr_format)
    for i in range(20):
        root.create_array(f"x{i}", shape=1, dtype="u1")
    counting.reset()
    assert len(root.members()) == 20
    assert counting.count("list") == 1
    assert len(set(counting.keys_read)) == len(counting.keys_read)
    assert len(counting.calls) == 1 + 20 * (1 if zarr_format == 3 else 2)
    counting.reset()
    assert len(root) == 20
    assert len(counting.calls) == 1 + 20


# ------------------------------------------------------------------------------------- zarr-python


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr")


@pytest.mark.parametrize("consolidated", [False, True])
def test_zarr_python_opens_our_groups(zarr, tmp_path, zarr_format, consolidated):
    root = zarr_gpu.open_group(
        tmp_path / "ours", mode="w", zarr_format=zarr_format, attributes={"of": "root"}
    )
    root.create_array("a/b/c", data=np.arange(6, dtype="i4").reshape(2, 3), chunks=(1, 3))
    root.create_array("x", shape=(3,), dtype="u1", attributes={"of": "x"})
    root.create_group("empty")
    if consolidated:
        zarr_gpu.consolidate_metadata(tmp_path / "ours")
    theirs = zarr.open_group(
        str(tmp_path / "ours"), mode="r", use_consolidated=consolidated, zarr_format=zarr_format
    )
    assert sorted(name for name, _ in theirs.members(max_depth=None)) == ALL
    assert dict(theirs.attrs) == {"of": "root"}
    assert dict(theirs["x"].attrs) == {"of": "x"}
    assert (theirs["a/b/c"][:] == np.arange(6).reshape(2, 3)).all()


@pytest.mark.parametrize("consolidated", [False, True])
def test_we_open_groups_of_zarr_python(zarr, tmp_path, zarr_format, consolidated):
    theirs = zarr.open_group(
        str(tmp_path / "theirs"), mode="w", zarr_format=zarr_format, attributes={"of": "root"}
    )
    theirs.create_array("a/b/c", data=np.arange(6, dtype="i4").reshape(2, 3), chunks=(1, 3))
    theirs.create_array("x", shape=(3,), dtype="u1", attributes={"of": "x"})
    theirs.create_group("empty")
    if consolidated:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(str(tmp_path / "theirs"))
    ours = zarr_gpu.open_group(tmp_path / "theirs", mode="r", use_consolidated=consolidated)
    assert names(ours) == ALL
    assert dict(ours.attrs) == {"of": "root"}
    assert dict(ours["x"].attrs) == {"of": "x"}
    assert (ours["a/b/c"][:] == np.arange(6).reshape(2, 3)).all()


def test_consolidated_documents_are_those_of_zarr_python(zarr, tmp_path, zarr_format):
    root = zarr_gpu.open_group(tmp_path / "ours", mode="w", zarr_format=zarr_format)
    for path in ("B/x", "a/b/c", "x", "Z"):
        root.create_array(path, shape=3, dtype="u1", attributes={"p": path})
    root.create_group("e", attributes={"p": 1})
    shutil.copytree(tmp_path / "ours", tmp_path / "theirs")
    zarr_gpu.consolidate_metadata(tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(tmp_path / "theirs"))
    name = ".zmetadata" if zarr_format == 2 else "zarr.json"
    ours, theirs = (json.loads((tmp_path / d / name).read_bytes()) for d in ("ours", "theirs"))
    assert json.dumps(ours) == json.dumps(theirs)
