"""The LMDB store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite

from zarr_gpu.storage.base import Store

pytest.importorskip("lmdb")

from zarr_gpu.storage.lmdb import LmdbStore


class TestLmdb(StoreSuite, StoreArraySuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with LmdbStore(tmp_path / "a.lmdb") as store:
            yield store

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, LmdbStore)
        return LmdbStore(store.path, read_only=True)
