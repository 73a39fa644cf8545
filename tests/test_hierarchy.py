"""Copies between hierarchies and stores."""

from __future__ import annotations

import io

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.errors import (
    ContainsArrayError,
    ContainsNodeError,
    InvalidKeyError,
    MetadataError,
    ReadOnlyError,
)
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


@pytest.fixture
def source(zarr_format):
    root = zarr_gpu.create_group({}, zarr_format=zarr_format, attributes={"of": "root"})
    root.create_array(
        "g/x", data=np.arange(12, dtype="i4").reshape(3, 4), chunks=(2, 2), attributes={"of": "x"}
    )
    root.create_array("g/h/y", data=np.arange(5.0), chunks=2, fill_value=7)
    root["g"].attrs["of"] = "g"
    root.create_array("z", shape=4, dtype="u1")
    return root


def contents(group):
    return {
        name: (dict(node.attrs), node[...].tolist() if isinstance(node, zarr_gpu.Array) else None)
        for name, node in group.members(max_depth=None)
    }


def everything(store):
    return {key: store.get(key) for key in store.list_prefix()}


@pytest.mark.parametrize("dest_format", [2, 3])
def test_copying_a_group(source, dest_format):
    dest = zarr_gpu.create_group({}, zarr_format=dest_format)
    assert zarr_gpu.copy(source["g"], dest) == (4, 0, 12 * 4 + 5 * 8)
    assert contents(dest["g"]) == contents(source["g"])
    assert dict(dest["g"].attrs) == {"of": "g"}
    assert dest["g/h/y"].fill_value == 7
    assert dest["g/x"].chunks == (2, 2)
    assert zarr_gpu.copy(source["g"], dest, name="p/q")[0] == 4
    assert contents(dest["p/q"]) == contents(source["g"])


def test_copying_all(source):
    dest = zarr_gpu.create_group({}, zarr_format=source.zarr_format)
    assert zarr_gpu.copy_all(source, dest) == (5, 0, 12 * 4 + 5 * 8 + 4)
    assert everything(dest.store) == everything(source.store)


def test_copying_what_is_the_root_needs_a_name(source):
    dest = zarr_gpu.create_group({})
    with pytest.raises(MetadataError, match="name"):
        zarr_gpu.copy(source, dest)
    zarr_gpu.copy(source, dest, "all")
    assert contents(dest["all"]) == contents(source)


def test_an_array_is_copied_as_it_is_stored(source):
    dest = zarr_gpu.create_group({}, zarr_format=source.zarr_format)
    before = sorted(key for key in source.store.list_prefix("g/x"))
    counting = CountingStore(dest.store)
    zarr_gpu.copy(source["g/x"], zarr_gpu.open_group(counting), name="g/x")
    assert sorted(dest.store.list_prefix("g/x")) == before
    for key in before:
        assert dest.store.get(key) == source.store.get(key)
    # The document that makes it an array comes last.
    name = "zarr.json" if source.zarr_format == 3 else ".zarray"
    assert counting.keys_written[-1] == f"g/x/{name}"


def test_copies_may_be_stored_anew(source):
    dest = zarr_gpu.create_group({}, zarr_format=source.zarr_format)
    zarr_gpu.copy(source["g"], dest, chunks="auto", compressors=None)
    assert dest["g/x"].chunks == (3, 4)
    assert dest["g/x"].compressors == ()
    assert contents(dest["g"]) == contents(source["g"])


def test_shallow(source):
    dest = zarr_gpu.create_group({})
    assert zarr_gpu.copy(source["g"], dest, shallow=True)[0] == 3
    assert sorted(contents(dest)) == ["g", "g/h", "g/x"]
    dest = zarr_gpu.create_group({})
    assert zarr_gpu.copy_all(source, dest, shallow=True)[0] == 2
    assert sorted(contents(dest)) == ["g", "z"]


def test_without_attributes(source):
    dest = zarr_gpu.create_group({}, zarr_format=source.zarr_format)
    zarr_gpu.copy_all(source, dest, without_attrs=True)
    assert all(attrs == {} for attrs, _ in contents(dest).values())
    assert dict(dest.attrs) == {}
    zarr_gpu.copy_all(source, dest, if_exists="replace")
    assert contents(dest) == contents(source)


def test_what_exists(source):
    dest = zarr_gpu.create_group({}, zarr_format=source.zarr_format)
    dest.create_array("g/x", data=np.zeros(1), chunks=1)
    dest.create_array("z", shape=(2,), dtype="u1", chunks=1)[0] = 1
    dest["g"].create_array("kept", shape=1, dtype="u1")
    with pytest.raises(ContainsArrayError):
        zarr_gpu.copy(source["g"], dest)
    assert dest["g/x"].shape == (1,)
    assert "g/h" not in dest

    assert zarr_gpu.copy_all(source, dest, if_exists="skip")[1] == 2
    assert dest["g/x"].shape == (1,)
    assert dest["g/h/y"].shape == (5,)

    dest["g/x"].store.delete_prefix("g/x/0")
    counts = zarr_gpu.copy_all(source, dest, if_exists="skip_initialized")
    assert counts[1] == 2 - (dest["g/x"].shape == (3, 4))
    assert dest["z"].shape == (4,)

    assert zarr_gpu.copy_all(source, dest, if_exists="replace")[1] == 0
    assert dest["g/x"].shape == (3, 4)
    assert "g/kept" in dest
    with pytest.raises(MetadataError, match="if_exists"):
        zarr_gpu.copy(source["g"], dest, if_exists="perhaps")


def test_arrays_and_groups_in_each_others_place(source):
    dest = zarr_gpu.create_group({}, zarr_format=source.zarr_format)
    dest.create_array("g", shape=1, dtype="u1")
    dest.create_group("z/deep")
    with pytest.raises(ContainsNodeError):
        zarr_gpu.copy(source["g"], dest)
    with pytest.raises(ContainsNodeError):
        zarr_gpu.copy(source["z"], dest)
    assert zarr_gpu.copy_all(source, dest, if_exists="skip")[:2] == (0, 2)
    zarr_gpu.copy_all(source, dest, if_exists="replace")
    assert contents(dest) == contents(source)


def test_dry_runs_write_nothing(source):
    dest = zarr_gpu.create_group({})
    dest["z"] = [1]
    before = everything(dest.store)
    lines = []
    counts = zarr_gpu.copy_all(source, dest, dry_run=True, if_exists="skip", log=lines.append)
    assert counts == (4, 1, 12 * 4 + 5 * 8)
    assert everything(dest.store) == before
    assert all(line.startswith("dry run: ") for line in lines)
    assert any("/g/h/y" in line for line in lines)


def test_logs(source, tmp_path):
    stream = io.StringIO()
    zarr_gpu.copy(source["g"], zarr_gpu.create_group({}), log=stream)
    zarr_gpu.copy(source["g"], zarr_gpu.create_group({}), log=str(tmp_path / "log"))
    assert stream.getvalue() == (tmp_path / "log").read_text()
    assert stream.getvalue().splitlines()[-1] == "done: 4 copied, 0 skipped, 88 bytes"
    with pytest.raises(MetadataError, match="log"):
        zarr_gpu.copy(source["g"], zarr_gpu.create_group({}), log=3)


def test_a_group_is_not_copied_into_itself(source):
    for dest, name in ((source, "g/copy"), (source["g"], "copy"), (source["g/h"], "copy")):
        with pytest.raises(InvalidKeyError):
            zarr_gpu.copy(source["g"], dest, name)
    with pytest.raises(InvalidKeyError):
        zarr_gpu.copy_all(source, source["g"])
    assert zarr_gpu.copy(source["g"], source, "copy")[0] == 4
    assert contents(source["copy"]) == contents(source["g"])


def test_what_is_no_node(source):
    with pytest.raises(MetadataError):
        zarr_gpu.copy(3, zarr_gpu.create_group({}), "x")
    with pytest.raises(MetadataError):
        zarr_gpu.copy(source["g"], source["z"], "x")
    with pytest.raises(MetadataError):
        zarr_gpu.copy_all(source["g"], {})
    with pytest.raises(ReadOnlyError):
        zarr_gpu.copy(source["g"], zarr_gpu.open_group(source.store.items, mode="r"), "x")


def test_foreign_arrays_and_groups(zarr_format):
    class Foreign(dict):
        attrs = {"unit": "nm"}
        name = "/files/old"

    dest = zarr_gpu.create_group({}, zarr_format=zarr_format)
    counts = zarr_gpu.copy(Foreign(a=np.arange(3), b=Foreign(c=np.ones(2))), dest)
    assert counts[0] == 4
    assert dict(dest["old"].attrs) == {"unit": "nm"}
    assert dest["old/b/c"][:].tolist() == [1, 1]


# ------------------------------------------------------------------------------------- stores


def test_copying_stores(source, tmp_path):
    data = everything(source.store)
    dest = tmp_path / "copy"
    counts = zarr_gpu.copy_store(source.store, dest)
    assert counts == (len(data), 0, sum(map(len, data.values())))
    assert everything(LocalStore(dest)) == data
    assert contents(zarr_gpu.open_group(dest, mode="r")) == contents(source)


def test_copying_a_part_to_a_part(source):
    dest = {}
    zarr_gpu.copy_store(source.store.items, dest, source_path="/g/", dest_path="p")
    assert set(dest) == {
        "p" + key.removeprefix("g") for key in source.store.list_prefix() if key.startswith("g/")
    }
    assert zarr_gpu.open(dest, path="p/x", mode="r").shape == (3, 4)


def test_keys_that_exist(source):
    dest = MemoryStore()
    zarr_gpu.copy_store(source.store, dest)
    before = everything(dest)
    name = "z/zarr.json" if source.zarr_format == 3 else "z/.zarray"
    dest.put(name, b"other")
    with pytest.raises(ContainsNodeError):
        zarr_gpu.copy_store(source.store, dest)
    assert zarr_gpu.copy_store(source.store, dest, if_exists="skip") == (0, len(before), 0)
    assert dest.get(name) == b"other"
    assert zarr_gpu.copy_store(source.store, dest, if_exists="replace")[0] == len(before)
    assert everything(dest) == before
    with pytest.raises(MetadataError):
        zarr_gpu.copy_store(source.store, dest, if_exists="skip_initialized")


def test_some_keys_only(source):
    dest = {}
    zarr_gpu.copy_store(source.store, dest, excludes=["^g/h/", "^z"])
    assert not [key for key in dest if key.startswith(("g/h", "z/"))]
    assert any(key.startswith("g/x/") for key in dest)
    dest = {}
    zarr_gpu.copy_store(source.store, dest, includes="^g/x/", excludes="zattrs")
    assert {key[:4] for key in dest} == {"g/x/"}
    for patterns in ("(", [3]):
        with pytest.raises(MetadataError):
            zarr_gpu.copy_store(source.store, {}, excludes=patterns)


def test_dry_run_and_log_of_a_store(source):
    lines, dest = [], {}
    counts = zarr_gpu.copy_store(source.store, dest, dry_run=True, log=lines.append)
    assert counts[0] == len(everything(source.store))
    assert len(lines) == counts[0] + 1
    assert dest == {}


def test_a_store_is_not_copied_into_itself(source):
    with pytest.raises(InvalidKeyError):
        zarr_gpu.copy_store(source.store, source.store)
    with pytest.raises(InvalidKeyError):
        zarr_gpu.copy_store(source.store, source.store, dest_path="below")
    assert zarr_gpu.copy_store(source.store, source.store, "g", "copy")[0] > 0
    assert contents(source["copy"]) == contents(source["g"])
    assert zarr_gpu.copy_store({}, {}) == (0, 0, 0)


def test_documents_are_copied_last(source):
    dest = CountingStore(MemoryStore())
    zarr_gpu.copy_store(source.store, dest)
    kinds = [key.rpartition("/")[2].startswith((".z", "zarr.json")) for key in dest.keys_written]
    assert kinds == sorted(kinds)


def test_read_only_destination(source):
    with pytest.raises(ReadOnlyError):
        zarr_gpu.copy_store(source.store, MemoryStore(read_only=True))
