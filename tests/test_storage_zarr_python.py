"""Store objects of zarr-python and of those who build on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, fetch, in_child

import zarr_gpu
from zarr_gpu.errors import StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.opening import StoreArgumentError, open_store
from zarr_gpu.storage.zarr_python import ZarrPythonStore

zarr = pytest.importorskip("zarr", reason="oracle: zarr-python is not installed")
storage = pytest.importorskip("zarr.storage")


class Adapted(StoreSuite, StoreArraySuite):
    in_order = False
    many_keys = 1_000

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, ZarrPythonStore)
        return ZarrPythonStore(store.store, read_only=True)


class TestMemory(Adapted):
    title = "zarr-python's MemoryStore"
    shared = many_writers = durable = spawns = False

    @pytest.fixture
    def store(self) -> Store:
        return ZarrPythonStore(storage.MemoryStore())


class TestLocal(Adapted):
    """Its folders stay when they are empty, and a file may not become a folder."""

    title = "zarr-python's LocalStore"

    test_a_part_of_a_key_is_no_key = None  # type: ignore[assignment]
    test_deleting_everything = None  # type: ignore[assignment]
    test_emptied_levels_are_not_listed = None  # type: ignore[assignment]
    test_moving_a_level = None  # type: ignore[assignment]

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return ZarrPythonStore(storage.LocalStore(tmp_path / "a.zarr"))


class TestObject(Adapted):
    """Over obstore's memory, which cannot be pickled."""

    title = "zarr-python's ObjectStore"
    forks = shared = many_writers = durable = spawns = False

    test_a_pickled_array_reads = None  # type: ignore[assignment]
    test_a_pickled_store_means_the_same = None  # type: ignore[assignment]

    @pytest.fixture
    def store(self) -> Store:
        obstore = pytest.importorskip("obstore.store", reason="extra cloud: no obstore")
        return ZarrPythonStore(storage.ObjectStore(obstore.MemoryStore()))


# ---- opening -------------------------------------------------------------------------------------


def test_store_objects_are_recognised(tmp_path: Path) -> None:
    memory = storage.MemoryStore()
    for thing in (memory, storage.LocalStore(tmp_path), storage.WrapperStore(memory)):
        store, path = open_store(thing)
        assert isinstance(store, ZarrPythonStore)
        assert (store.store, path, store.read_only) == (thing, "", False)
        assert open_store(thing, mode="r")[0].read_only
    assert open_store(storage.MemoryStore(read_only=True))[0].read_only
    with pytest.raises(StoreArgumentError, match="storage_options"):
        open_store(memory, storage_options={"anon": True})
    with pytest.raises(StoreArgumentError):
        open_store(zarr.create_group(memory))


def test_obstores_own_store_is_used_at_first_hand(tmp_path: Path) -> None:
    obstore = pytest.importorskip("obstore.store", reason="extra cloud: no obstore")
    inner = obstore.LocalStore(tmp_path)
    store, _ = open_store(storage.ObjectStore(inner, read_only=True))
    assert type(store).__name__ == "ObstoreStore"
    assert store.store is inner  # type: ignore[attr-defined]
    assert store.read_only


def test_both_write_and_read_one_store() -> None:
    shared = storage.MemoryStore()
    values = np.arange(100).reshape(10, 10)
    zarr.create_array(shared, name="theirs", data=values, chunks=(3, 4))
    zarr_gpu.create_array(shared, name="ours", data=values, chunks=(4, 3))
    assert np.array_equal(np.asarray(zarr_gpu.open_array(shared, path="theirs")[...]), values)
    assert np.array_equal(zarr.open_array(shared, path="ours")[...], values)


def test_a_stores_own_failure_is_no_missing_value() -> None:
    class Failing(storage.MemoryStore):  # type: ignore[misc,name-defined]
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            if key == "bad":
                raise PermissionError("403")
            return await super().get(key, prototype, byte_range)

    store = ZarrPythonStore(Failing())
    store.put_many([("a", b"1"), ("bad", b"2")])
    for call in (
        lambda: store.get("bad"),
        lambda: fetch(store, ("a", 0, REST), ("bad", 0, REST)),
        lambda: fetch(store, ("bad", 0, 1)),
    ):
        with pytest.raises(PermissionError, match="'bad'"):
            call()


def test_requests_in_flight() -> None:
    import asyncio

    active = most = 0

    class Slow(storage.MemoryStore):  # type: ignore[misc,name-defined]
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.002)
            active -= 1
            return await super().get(key, prototype, byte_range)

    store = ZarrPythonStore(Slow(), concurrency=9)
    store.put_many((f"{i}", b"x") for i in range(100))
    assert fetch(store, *((f"{i}", 0, REST) for i in range(100))) == [b"x"] * 100
    assert most == 9


@pytest.mark.skipif(sys.platform == "win32", reason="platform: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_told_what_it_cannot_use() -> None:
    class Elsewhere(storage.MemoryStore):  # type: ignore[misc,name-defined]
        """Might have threads of its own."""

    store = ZarrPythonStore(Elsewhere())
    store.put("x", b"1")

    def refused() -> bool:
        try:
            store.get("x")
        except StoreError as error:
            return "forked" in str(error)
        return False

    assert in_child(refused)
    wrapped = ZarrPythonStore(storage.WrapperStore(storage.MemoryStore()))
    wrapped.put("x", b"1")
    assert in_child(lambda: wrapped.get("x") == b"1")


def test_zarr_python_is_not_imported() -> None:
    code = (
        "import sys; sys.modules['zarr'] = None; from zarr_gpu.storage import ZarrPythonStore;"
        "import zarr_gpu; zarr_gpu.open({}, mode='a'); print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "fine"


# ---- those who build on it -----------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Any:
    icechunk = pytest.importorskip("icechunk", reason="oracle: icechunk is not installed")
    settings = icechunk.local_filesystem_storage(str(tmp_path / "repository"))
    return icechunk.Repository.create(settings)


def test_icechunk(repository: Any) -> None:
    values = np.arange(400, dtype="f4").reshape(20, 20)
    writing = repository.writable_session("main")
    group = zarr_gpu.open_group(writing.store, mode="w")
    group.create_array("a/x", data=values, chunks=(6, 7), attributes={"µ": 1})
    first = writing.commit("first")
    again = repository.writable_session("main")
    zarr_gpu.open_array(again.store, path="a/x", mode="r+")[2:4, 5] = -1
    again.commit("second")

    changed = values.copy()
    changed[2:4, 5] = -1
    latest = repository.readonly_session(branch="main").store
    for opened in (zarr_gpu.open_group(latest, mode="r"), zarr.open_group(latest, mode="r")):
        assert np.array_equal(np.asarray(opened["a/x"][...]), changed)
        assert dict(opened["a/x"].attrs) == {"µ": 1}
        assert sorted(name for name, _ in opened.members(max_depth=None)) == ["a", "a/x"]
    past = repository.readonly_session(snapshot_id=first).store
    assert np.array_equal(np.asarray(zarr_gpu.open_array(past, path="a/x")[...]), values)
    assert open_store(past)[0].read_only


def test_virtualizarr(tmp_path: Path) -> None:
    manifests = pytest.importorskip("virtualizarr.manifests", reason="oracle: no virtualizarr")
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore

    values = np.arange(60, dtype="<i4").reshape(6, 10)
    (tmp_path / "data.bin").write_bytes(b"header" + values.tobytes())
    url = f"file://{tmp_path}/data.bin"
    from zarr.core.metadata.v3 import ArrayV3Metadata

    metadata = ArrayV3Metadata.from_dict(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [6, 10],
            "data_type": "int32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 10]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "fill_value": 0,
            "attributes": {},
        }
    )
    entries = {f"{i}.0": {"path": url, "offset": 6 + 80 * i, "length": 80} for i in range(3)}
    array = manifests.ManifestArray(
        metadata=metadata, chunkmanifest=manifests.ChunkManifest(entries=entries)
    )
    group = manifests.ManifestGroup(arrays={"x": array})
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    store = manifests.ManifestStore(group, registry=registry)
    opened = zarr_gpu.open_group(store, mode="r")
    assert np.array_equal(np.asarray(opened["x"][...]), values)
    assert np.array_equal(np.asarray(opened["x"][3:5, 2:4]), values[3:5, 2:4])
