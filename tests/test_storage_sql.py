"""SQL stores: SQLite files, and real PostgreSQL and MariaDB servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server_mariadb import mariadb
from server_postgresql import postgresql
from store_arrays import StoreArraySuite
from store_suite import StoreSuite

from zarr_gpu.storage.base import Store

pytest.importorskip("sqlalchemy")

from zarr_gpu.storage.sql import SqlStore

__all__ = ["mariadb", "postgresql"]  # fixtures

class SqlSuite(StoreSuite, StoreArraySuite):
    def read_only(self, store: Store) -> Store:
        assert isinstance(store, SqlStore)
        return SqlStore(store._url, table=store.table, read_only=True)


class TestSqlite(SqlSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with SqlStore(f"sqlite:///{tmp_path}/a.db") as store:
            yield store


class TestPostgresql(SqlSuite):
    @pytest.fixture
    def store(self, postgresql: str) -> Iterator[Store]:
        with SqlStore(postgresql, table="suite") as store:
            store.delete_prefix("")
            yield store


class TestMariadb(SqlSuite):
    @pytest.fixture
    def store(self, mariadb: str) -> Iterator[Store]:
        with SqlStore(mariadb, table="suite") as store:
            store.delete_prefix("")
            yield store
