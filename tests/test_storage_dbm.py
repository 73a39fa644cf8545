"""Reading dbm files."""

from __future__ import annotations

import importlib
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from store_suite import fetch, in_child

import zarr_gpu
from zarr_gpu.errors import InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.dbm import DbmStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.opening import open_store

KINDS = []
for name in ("dbm.dumb", "dbm.gnu", "dbm.ndbm", "dbm.sqlite3"):
    try:
        KINDS.append(pytest.param(importlib.import_module(name), id=name))
    except ImportError:  # of some, Python was built without
        continue


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A group and an array as zarr-python 2 keeps them, with a key that is none."""
    memory = MemoryStore()
    zarr_gpu.create_group(memory, zarr_format=2, attributes={"title": "old"})
    array = zarr_gpu.create_array(
        memory, name="x", shape=(5, 4), chunks=(2, 2), dtype="i4", zarr_format=2
    )
    array[...] = 7
    database = request.param.open(str(tmp_path / "a.dbm"), "n")
    for key, value in memory.items.items():
        database[key.encode()] = value
    database[b"not a \xff key"] = b""
    database[b"empty"] = b""
    database.close()
    return tmp_path / "a.dbm"


def test_it_reads(path: Path) -> None:
    with DbmStore(path) as store:
        assert store.get("empty") == b""
        assert store.get("absent") is None
        assert store.nbytes("absent") is None
        assert store.nbytes("empty") == 0
        assert fetch(store, (".zgroup", 1, 3), (".zgroup", -2, REST), ("absent", 0, 1)) == [
            store.get(".zgroup")[1:4],
            store.get(".zgroup")[-2:],
            None,
        ]
        keys = list(store.list_prefix())
        assert keys == sorted(keys)
        assert "empty" in keys
        assert len(list(store.list_prefix("x"))) == 8
        assert store.list_dir() == (".zattrs", ".zgroup", "empty", "x")
        group = zarr_gpu.open_group(store, mode="r")
        assert group.attrs["title"] == "old"
        assert (group["x"][...] == 7).all()
        copy = MemoryStore()
        zarr_gpu.copy_store(store, copy)
        assert sorted(copy.items) == keys


def test_it_is_read_only(path: Path) -> None:
    with DbmStore(path) as store:
        for call in (
            lambda: store.put("a", b""),
            lambda: store.delete_many(["empty"]),
            lambda: store.delete_prefix(""),
        ):
            with pytest.raises(ReadOnlyError):
                call()


def test_threads_processes_and_copies(path: Path) -> None:
    store, inside = open_store(f"dbm://{path}#x", mode="r")
    assert inside == "x"
    assert store == DbmStore(path)
    assert hash(store) == hash(DbmStore(path))
    expected = store.get(".zgroup")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(store.get(".zgroup")))
    thread.start()
    thread.join()
    assert found == [expected]
    assert in_child(lambda: store.get(".zgroup") == expected)
    assert pickle.loads(pickle.dumps(store)).get(".zgroup") == expected
    store.close()
    assert store.get(".zgroup") == expected
    store.close()


def test_files_that_are_no_databases(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"not a database" * 100)
    for name in ("a", "absent"):
        with pytest.raises(StoreError, match=str(tmp_path / name)):
            DbmStore(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_urls_that_are_refused() -> None:
    with pytest.raises(InvalidKeyError):
        open_store("dbm://host/a")
    with pytest.raises(InvalidKeyError):
        open_store("dbm:///a", storage_options={"x": 1})
