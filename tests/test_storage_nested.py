"""Nested directories of zarr-python 2 whose metadata do not say that they are nested."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from store_suite import fetch

import zarr_gpu
from zarr_gpu.errors import MetadataError, ReadOnlyError
from zarr_gpu.extents import REST
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.nested import NestedStore
from zarr_gpu.storage.opening import open_store

VALUES = np.arange(35).reshape(5, 7)


@pytest.fixture(params=[False, True], ids=["plain", "consolidated"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """As zarr-python before 2.8 wrote it."""
    root = zarr_gpu.create_group(str(tmp_path), zarr_format=2)
    array = root.create_array(
        "g/x",
        shape=(5, 7),
        chunks=(2, 3),
        dtype="i8",
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    array[...] = VALUES
    if request.param:
        zarr_gpu.consolidate_metadata(str(tmp_path))

    path = tmp_path / "g" / "x" / ".zarray"
    document = json.loads(path.read_text())
    del document["dimension_separator"]
    path.write_text(json.dumps(document))
    if request.param:
        path = tmp_path / ".zmetadata"
        document = json.loads(path.read_text())
        del document["metadata"]["g/x/.zarray"]["dimension_separator"]
        path.write_text(json.dumps(document))
    return tmp_path


def test_it_reads(folder: Path) -> None:
    plain = zarr_gpu.open_group(str(folder), mode="r")["g/x"]
    assert (plain[...] == 0).all()  # its chunks are not where the metadata say
    group = zarr_gpu.open_group(f"nested+file://{folder}", mode="r")
    assert np.array_equal(group["g/x"][...], VALUES)
    copy = MemoryStore()
    zarr_gpu.copy_store(group.store, copy)
    assert np.array_equal(zarr_gpu.open_group(copy)["g/x"][...], VALUES)


def test_the_store(folder: Path) -> None:
    store = NestedStore(LocalStore(folder))
    inner = store.store
    for key in store.list_prefix():
        assert store.nbytes(key) == len(store.get(key) or b"")
        if key.rpartition("/")[2] not in {".zarray", ".zmetadata"}:
            assert store.get(key) == inner.get(key)
    assert list(store.list_prefix()) == list(inner.list_prefix())
    assert store.list_dir("g/x") == inner.list_dir("g/x")
    document = store.get("g/x/.zarray")
    assert document is not None
    chunk = inner.get("g/x/0/1")
    assert fetch(store, ("g/x/.zarray", 1, 3), ("g/x/0/1", 0, REST)) == [document[1:4], chunk]
    assert store.get("absent/.zarray") is None
    assert pickle.loads(pickle.dumps(store)) == store
    with pytest.raises(ReadOnlyError):
        store.put("x", b"")


@pytest.mark.parametrize("name", [".zarray", ".zmetadata"])
@pytest.mark.parametrize("document", [b"{", b"[]", b"5", b"\xff"])
def test_documents_that_are_none(name: str, document: bytes) -> None:
    store = NestedStore(MemoryStore({name: document}))
    with pytest.raises(MetadataError) as caught:
        store.get(name)
    assert caught.value.key == name


def test_what_says_something_is_left_alone() -> None:
    document = {"dimension_separator": ".", "shape": [1]}
    store = NestedStore(MemoryStore({".zarray": json.dumps(document).encode()}))
    assert json.loads(store.get(".zarray") or b"") == document


def test_urls(tmp_path: Path) -> None:
    store, path = open_store(f"nested+file://{tmp_path}")
    assert store == NestedStore(LocalStore(tmp_path, read_only=True))
    assert path == ""
    assert store.read_only
