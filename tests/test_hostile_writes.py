"""Writes that must not happen: what is stored stays as it was, byte for byte."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import refusal, tree_hash

import zarr_gpu
from zarr_gpu.errors import ReadOnlyError, StoreError, ZarrError
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import ReadOnlyStore
from zarr_gpu.storage.zip import ZipStore

VALUES = np.arange(1, 65, dtype="i4").reshape(8, 8)


def mutations(root: zarr_gpu.Group, store: Any) -> dict[str, Callable[[], Any]]:
    """Every public call that changes what is stored; ``store`` is what to open."""
    array = root["array"]
    sharded = root["deep/sharded"]
    assert isinstance(array, zarr_gpu.Array)
    assert isinstance(sharded, zarr_gpu.Array)
    other = zarr_gpu.create_group({})
    other.create_array("fresh", shape=3, dtype="u1")
    data = np.ones((8, 8), "i4")
    mask = np.ones((8, 8), bool)
    calls: dict[str, Callable[[], Any]] = {
        "setitem": lambda: array.__setitem__(..., 1),
        "setitem of nothing": lambda: array.__setitem__(slice(0, 0), 1),
        "setitem of fill value": lambda: array.__setitem__(..., 0),
        "setitem in a shard": lambda: sharded.__setitem__((0, 0), 1),
        "basic": lambda: array.set_basic_selection(slice(0, 2), 1),
        "orthogonal": lambda: array.set_orthogonal_selection(([0], [1]), 1),
        "coordinate": lambda: array.set_coordinate_selection(([0], [1]), 1),
        "mask": lambda: array.set_mask_selection(mask, 1),
        "block": lambda: array.set_block_selection((0, 0), 1),
        "oindex": lambda: array.oindex.__setitem__(([0], [1]), 1),
        "vindex": lambda: array.vindex.__setitem__(([0], [1]), 1),
        "blocks": lambda: array.blocks.__setitem__((0, 0), 1),
        "resize": lambda: array.resize((4, 4)),
        "resize to the same": lambda: array.resize((8, 8)),
        "shape": lambda: setattr(array, "shape", (16, 8)),
        "append": lambda: array.append(data),
        "append nothing": lambda: array.append(np.ones((0, 8), "i4")),
        "array attrs": lambda: array.attrs.__setitem__("x", 1),
        "array attrs del": lambda: array.attrs.__delitem__("unit"),
        "array attrs put": lambda: array.attrs.put({}),
        "array attrs update": lambda: array.update_attributes({"x": 1}),
        "group attrs": lambda: root.attrs.__setitem__("x", 1),
        "group attrs clear": root.attrs.clear,
        "group attrs update": lambda: root.update_attributes({"x": 1}),
        "create_array": lambda: root.create_array("new", shape=3, dtype="u1"),
        "create_array overwrite": lambda: root.create_array(
            "array", shape=3, dtype="u1", overwrite=True
        ),
        "create_group": lambda: root.create_group("new"),
        "create_group overwrite": lambda: root.create_group("deep", overwrite=True),
        "require_group": lambda: root.require_group("new"),
        "require_groups": lambda: root.require_groups("new", "newer"),
        "require_array": lambda: root.require_array("new", shape=(3,), dtype="u1"),
        "create_hierarchy": lambda: dict(root.create_hierarchy({"new": root.metadata})),
        "zeros": lambda: root.zeros(name="new", shape=3),
        "full": lambda: root.full(name="new", shape=3, fill_value=1),
        "zeros_like": lambda: root.zeros_like(name="new", data=data),
        "setitem group": lambda: root.__setitem__("array", data),
        "del": lambda: root.__delitem__("array"),
        "del group": lambda: root.__delitem__("deep"),
        "move": lambda: root.move("array", "moved"),
        "top create_array": lambda: zarr_gpu.create_array(store, name="new", shape=3, dtype="u1"),
        "top create_array overwrite": lambda: zarr_gpu.create_array(
            store, shape=3, dtype="u1", overwrite=True
        ),
        "top create_group": lambda: zarr_gpu.create_group(store, path="new"),
        "top create_group overwrite": lambda: zarr_gpu.create_group(store, overwrite=True),
        "top create_hierarchy": lambda: dict(
            zarr_gpu.create_hierarchy(store=store, nodes={"new": root.metadata})
        ),
        "from_array": lambda: zarr_gpu.from_array(store, data=data, name="new"),
        "array": lambda: zarr_gpu.array(data, store=store, path="new"),
        "top zeros": lambda: zarr_gpu.zeros(3, store=store, path="new"),
        "save": lambda: zarr_gpu.save(store, data, path="new"),
        "save_array": lambda: zarr_gpu.save_array(store, data),
        "save_group": lambda: zarr_gpu.save_group(store, data),
        "consolidate": lambda: zarr_gpu.consolidate_metadata(store),
        "open w": lambda: zarr_gpu.open(store, mode="w"),
        "open_array w": lambda: zarr_gpu.open_array(store, mode="w", shape=3, dtype="u1"),
        "open_group w": lambda: zarr_gpu.open_group(store, mode="w"),
        "open_group w-": lambda: zarr_gpu.open_group(store, mode="w-", path="new"),
        "open_array a": lambda: zarr_gpu.open_array(
            store, mode="a", path="new", shape=3, dtype="u1"
        ),
        "group overwrite": lambda: zarr_gpu.group(store, overwrite=True),
        "copy": lambda: zarr_gpu.copy(array, root, name="copied"),
        "copy_all": lambda: zarr_gpu.copy_all(other, root),
        "copy_store": lambda: zarr_gpu.copy_store(MemoryStore({"x": b"1"}), root.store),
        "store put": lambda: root.store.put("x", b"1"),
        "store put_many": lambda: root.store.put_many([("x", b"1")]),
        "store delete": lambda: root.store.delete_many(["zarr.json"]),
        "store delete_prefix": lambda: root.store.delete_prefix(""),
        "store move": lambda: root.store.move("deep", "deeper"),
    }
    return calls


def build(place: Any, zarr_format: int) -> None:
    root = zarr_gpu.create_group(place, zarr_format=zarr_format, attributes={"unit": "nm"})
    array = root.create_array(
        "array", shape=(8, 8), chunks=(4, 4), dtype="i4", attributes={"unit": "nm"}
    )
    array[...] = VALUES
    options: dict[str, Any] = {} if zarr_format == 2 else {"shards": (4, 4)}
    sharded = root.create_array("deep/sharded", shape=(8, 8), chunks=(2, 2), dtype="i4", **options)
    sharded[...] = VALUES


OPENED = ["mode r", "read-only store", "wrapped", "zip", "mapping"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("how", OPENED)
def test_read_only_means_that_nothing_changes(how: str, zarr_format: int, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    build(folder, zarr_format)
    place: Any
    if how == "zip":
        place = tmp_path / "data.zip"
        with ZipStore(place, mode="w") as new:
            for key in LocalStore(folder).list_prefix():
                new.put(key, (folder / key).read_bytes())
        place = ZipStore(place, mode="r")
    elif how == "mapping":
        values = {key: (folder / key).read_bytes() for key in LocalStore(folder).list_prefix()}
        place = types.MappingProxyType(values)
    elif how == "wrapped":
        place = ReadOnlyStore(LocalStore(folder))
    elif how == "read-only store":
        place = LocalStore(folder, read_only=True)
    else:
        place = folder
    root = zarr_gpu.open_group(place, mode="r")
    store = root.store if how == "mode r" else place
    before = tree_hash(tmp_path)
    assert root.read_only
    for name, call in mutations(root, store).items():
        error = refusal(call, ReadOnlyError, of=name)
        assert isinstance(error, PermissionError), name
        assert isinstance(error, ValueError), name
    assert tree_hash(tmp_path) == before
    array = root["array"]
    assert isinstance(array, zarr_gpu.Array)
    assert array.shape == (8, 8)
    assert (array[...] == VALUES).all()
    assert root.attrs.asdict() == array.attrs.asdict() == {"unit": "nm"}
    root.store.close()


@pytest.mark.skipif(
    sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="platform: permissions do not bind this user",
)
def test_a_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    build(folder, 3)
    before = tree_hash(tmp_path)
    folders = [p for p in (folder, *folder.rglob("*")) if p.is_dir()]
    for path in folders:
        path.chmod(0o500)
    try:
        array = zarr_gpu.open_array(folder, path="array", mode="r+")
        with pytest.raises(PermissionError):
            array[...] = 1
        with pytest.raises(PermissionError):
            array.attrs["x"] = 1
        (folder / "array" / "c" / "0" / "0").chmod(0)
        with pytest.raises(StoreError):
            array[0, 0]
        (folder / "array" / "c" / "0" / "0").chmod(0o600)
    finally:
        for path in folders:
            path.chmod(0o700)
    assert tree_hash(tmp_path) == before


# ------------------------------------------------- operations that fail before they write


def test_what_is_refused_before_writing_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    build(folder, 3)
    root = zarr_gpu.open_group(folder, mode="r+")
    array = root["array"]
    assert isinstance(array, zarr_gpu.Array)
    before = tree_hash(tmp_path)
    refused: list[Callable[[], Any]] = [
        lambda: array.__setitem__(8, 1),
        lambda: array.__setitem__((0, 0, 0), 1),
        lambda: array.__setitem__("field", 1),
        lambda: array.__setitem__(..., np.ones(3)),
        lambda: array.__setitem__(..., "text"),
        lambda: array.oindex.__setitem__(([9], [0]), 1),
        lambda: array.vindex.__setitem__(([0], [-9]), 1),
        lambda: array.blocks.__setitem__((2, 0), 1),
        lambda: array.set_mask_selection(np.ones((3, 3), bool), 1),
        lambda: array.resize((8,)),
        lambda: array.resize((-1, 8)),
        lambda: array.resize((2**63, 8)),
        lambda: array.resize((True, 8)),
        lambda: array.resize((8.0, 8)),  # type: ignore[arg-type]
        lambda: array.append(np.ones((2, 7), "i4")),
        lambda: array.append(np.ones(8, "i4")),
        lambda: array.append(np.ones((2, 8), "i4"), axis=2),
        lambda: array.attrs.__setitem__("x", object()),
        lambda: array.attrs.__setitem__("x", {1: 2}),
        lambda: array.attrs.__delitem__("absent"),
        lambda: root.attrs.put({"x": {"y": {3, 4}}}),
        lambda: root.create_array("array", shape=3, dtype="u1"),
        lambda: root.create_array("deep", shape=3, dtype="u1"),
        lambda: root.create_array("array/below", shape=3, dtype="u1"),
        lambda: root.create_array("new", shape=(-1,), dtype="u1"),
        lambda: root.create_array("new", shape=3, dtype="nonsense"),
        lambda: root.create_array("new", shape=3, dtype="u1", chunks=(0,)),
        lambda: root.create_array("new", shape=3, dtype="u1", chunks=(2, 2)),
        lambda: root.create_array("new", shape=8, dtype="u1", chunks=3, shards=4),
        lambda: root.create_array("new", shape=3, dtype="u1", compressors="nonsense"),
        lambda: root.create_array("new", shape=3, dtype="u1", fill_value="x"),
        lambda: root.create_array("new", shape=3, dtype="u1", fill_value=256),
        lambda: root.create_array("new", shape=3, dtype="u1", attributes={"x": object()}),
        lambda: root.create_array("new", shape=3, dtype="u1", dimension_names=["a", "b"]),
        lambda: root.create_array("new", data=[[1], [1, 2]]),
        lambda: root.create_array(
            "array", shape=3, dtype="u1", overwrite=True, compressors=[{"name": "nonsense"}]
        ),
        lambda: root.create_array("array", shape=3, dtype="u1", overwrite=True, fill_value="x"),
        lambda: root.create_group("array"),
        lambda: root.create_group("array/below"),
        lambda: root.create_group("new", attributes={"x": object()}),
        lambda: root.__setitem__("array", [[1], [1, 2]]),
        lambda: root.__delitem__("absent"),
        lambda: root.move("absent", "new"),
        lambda: root.move("array", "deep"),
        lambda: root.move("deep", "deep/er"),
        lambda: zarr_gpu.create_array(folder, name="array", shape=3, dtype="u1"),
        lambda: zarr_gpu.create_group(folder, path="array"),
        lambda: zarr_gpu.open_array(folder, mode="w-", path="array", shape=3, dtype="u1"),
        lambda: zarr_gpu.open_array(folder, mode="w", path="array", shape=3, dtype="nonsense"),
        lambda: zarr_gpu.save(folder, path="new"),
    ]
    for number, call in enumerate(refused):
        refusal(call, ZarrError, ValueError, TypeError, IndexError, KeyError, of=f"call {number}")
        assert tree_hash(tmp_path) == before, f"call {number} changed something"
    assert array.shape == (8, 8)
    assert (array[...] == VALUES).all()


class NoDocuments(MemoryStore):
    """A store that refuses documents from some time on, and notes the keys of what is put."""

    refuses = False

    def put(self, key: str, data: Any) -> None:
        if self.refuses and key.endswith("zarr.json"):
            raise StoreError("no room for documents", key=key)
        super().put(key, data)


@pytest.mark.parametrize("shards", [None, (4, 8)])
def test_an_append_whose_document_cannot_be_stored_changes_nothing(shards: Any) -> None:
    store = NoDocuments()
    array = zarr_gpu.create_array(store, data=VALUES, chunks=(2, 4), shards=shards)
    before = {key: bytes(store.get(key) or b"") for key in store.list_prefix("")}
    store.refuses = True
    with pytest.raises(StoreError, match="no room"):
        array.append(VALUES[:3])
    assert {key: bytes(store.get(key) or b"") for key in store.list_prefix("")} == before
    assert array.shape == (8, 8)
    store.refuses = False
    assert array.append(VALUES[:3]) == (11, 8)
    assert np.array_equal(array[...], np.vstack((VALUES, VALUES[:3])))
