"""Store objects of zarr-python and of those who build on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite

from zarr_gpu.storage.base import Store
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
    title = "zarr-python's LocalStore"

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return ZarrPythonStore(storage.LocalStore(tmp_path / "a.zarr"))


class TestObject(Adapted):
    title = "zarr-python's ObjectStore"
    forks = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        obstore = pytest.importorskip("obstore.store", reason="extra cloud: no obstore")
        return ZarrPythonStore(storage.ObjectStore(obstore.LocalStore(tmp_path)))
