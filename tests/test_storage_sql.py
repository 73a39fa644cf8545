"""SQL stores: SQLite files, and real PostgreSQL and MariaDB servers."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from server_mariadb import mariadb
from server_postgresql import postgresql
from servers import free_port
from store_arrays import StoreArraySuite
from store_databases import check_bounded_memory, check_killed_writer, check_unreachable
from store_suite import StoreSuite, blob, fetch, in_child

import zarr_gpu
from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import (
    StorePermissionError,
    StoreTimeoutError,
)
from zarr_gpu.storage.opening import open_store

pytest.importorskip("sqlalchemy")

from sqlalchemy import event, make_url

from zarr_gpu.storage import sql
from zarr_gpu.storage.sql import SqlStore

__all__ = ["mariadb", "postgresql"]  # fixtures


class SqlSuite(StoreSuite, StoreArraySuite):
    """What holds for every database besides."""

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, SqlStore)
        return SqlStore(store._url, table=store.table, read_only=True)

    @pytest.fixture
    def refusing(self, store: SqlStore) -> Iterator[SqlStore]:
        """The database refuses the key "refused"."""
        store.put("a", b"old")
        table = store._dialect.table
        if store._file is None:
            run(store, f"ALTER TABLE {table} ADD CONSTRAINT no CHECK (k <> 'refused')")
            yield store
            run(store, f"ALTER TABLE {table} DROP CONSTRAINT no")
        else:
            run(
                store,
                f"CREATE TRIGGER no BEFORE INSERT ON {table} WHEN NEW.k = 'refused' "
                "BEGIN SELECT RAISE(ABORT, 'a constraint: no'); END",
            )
            yield store

    def test_a_batch_is_all_or_nothing(self, refusing: SqlStore) -> None:
        items = [("a", b"new"), ("b", b"new"), ("refused", b""), ("z", b"new")]
        with pytest.raises(StoreError, match="no") as caught:
            refusing.put_many(items)
        assert "none is stored" in str(caught.value)
        assert "'a'" in str(caught.value)
        assert repr(refusing) in str(caught.value)
        assert list(refusing.list_prefix()) == ["a"]
        assert refusing.get("a") == b"old"
        with pytest.raises(StoreError) as caught:
            refusing.put("refused", b"1")
        assert caught.value.key == "refused"
        refusing.put_many([("b", b"new")])  # the connection is of use again
        assert refusing.get("b") == b"new"

    def test_a_batch_of_many_blocks_is_all_or_nothing(
        self, store: SqlStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql, "BLOCK_NBYTES", 1000)
        store.put("k/00", b"old")
        seen = []

        def items() -> Iterator[tuple[str, bytes]]:
            for i in range(50):
                seen.append(store.get("k/00"))  # from outside the transaction
                yield f"k/{i:02}", b"new" * 100
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.put_many(items())
        assert seen == [b"old"] * 50
        assert list(store.list_prefix()) == ["k/00"]
        store.put_many((f"k/{i:02}", b"new" * 100) for i in range(50))
        assert [store.get(f"k/{i:02}") for i in range(50)] == [b"new" * 100] * 50

    def test_a_batch_takes_bounded_memory(
        self, store: SqlStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql, "BLOCK_NBYTES", 1 << 20)
        check_bounded_memory(store, 9 << 20)  # two blocks, and what the driver makes of one

    def test_of_equal_keys_in_a_batch_the_last_counts(self, store: Store) -> None:
        store.put_many([("x", b"1"), ("y", b"2"), ("x", b"3")])
        assert store.get("x") == b"3"

    def test_many_keys_take_few_queries(self, store: SqlStore) -> None:
        store.put_many((f"k/{i}", b"%d" % i) for i in range(1000))
        with queries(store) as seen:
            got = fetch(store, *((f"k/{i}", 0, REST) for i in range(1000)))
        assert got == [b"%d" % i for i in range(1000)]
        assert len(seen) == -(-1000 // store._dialect.spans_per_query)
        with queries(store) as seen:
            fetch(store, *((f"k/{i}", 0, 1) for i in range(1000)))
        assert len(seen) == -(-1000 // store._dialect.spans_per_query)
        with queries(store) as seen:
            assert store.list_dir() == ("k",)
        assert len(seen) == 2  # the first page ends inside "k", the second is what follows it

    def test_lists_are_made_by_the_index(self, store: SqlStore) -> None:
        store.put_many((f"k/{i}", b"") for i in range(2000))
        statement, values = store._dialect.page("k/", "k0", 10)
        if store._dialect.name == "PostgreSQL":
            run(store, f"ANALYZE {store._dialect.table}")
        explain = "EXPLAIN QUERY PLAN " if store._file else "EXPLAIN "
        plan = str(store._rows((explain + statement, values)))
        assert "SEARCH" in plan or "Index" in plan or "'range'" in plan, plan

    def test_another_table_is_another_store(self, store: SqlStore) -> None:
        other = SqlStore(store._url, table="other")
        store.put("x", b"1")
        assert other.get("x") is None
        other.put("y", b"2")
        assert list(store.list_prefix()) == ["x"]
        assert list(other.list_prefix()) == ["y"]
        assert other != store
        run(other, f"DROP TABLE {other._dialect.table}")
        other.close()

    def test_no_table_is_an_empty_store_or_an_error(self, store: SqlStore) -> None:
        store.put("x", b"1")
        with SqlStore(store._url, table="nothing") as empty:
            assert empty.get("x") is None
            assert empty.list_dir() == ()
            assert fetch(empty, ("x", 0, REST), ("y", 0, 1)) == [None, None]
            empty.delete_many(["x"])
            empty.delete_prefix("")
            assert not empty._has_table
        with (
            SqlStore(store._url, table="nothing", read_only=True) as closed,
            pytest.raises(StoreError, match="no table 'nothing'") as caught,
        ):
            closed.get("x")
        assert caught.value.key == "x"

    @pytest.mark.parametrize("n", [100, 3_000_000])
    def test_ranges_are_cut_by_the_database(self, store: SqlStore, n: int) -> None:
        value = blob(n)
        store.put("x", value)
        (row,) = store._rows(store._dialect.parts([("x", 10, 20)]))
        assert row == (0, value[10:30])
        (row,) = store._rows(store._dialect.parts([("x", -7, REST)]))
        assert row == (0, value[-7:])

    def test_a_forked_child_writes(self, store: SqlStore) -> None:
        store.put("x", b"1")

        def child() -> bool:
            store.put_many([("x", b"2"), ("y", b"3")])
            return store.get("x") == b"2"

        assert in_child(child)
        assert store.get("y") == b"3"
        store.put("x", b"4")
        assert store.get("x") == b"4"

    def test_writers_of_the_same_keys_do_not_deadlock(self, store: SqlStore) -> None:
        keys = [f"k/{i}" for i in range(30)]
        failures: list[BaseException] = []

        def write(i: int) -> None:
            try:
                order = keys if i % 2 else keys[::-1]
                for _ in range(5):
                    store.put_many((key, bytes([i])) for key in order)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len({store.get(key) for key in keys}) == 1  # whole batches, one after the other


class ServerSuite(SqlSuite):
    def test_a_wrong_password(self, store: SqlStore) -> None:
        with (
            SqlStore(store._url, password="wr0ng") as other,
            pytest.raises(StorePermissionError) as caught,
        ):
            other.get("x")
        assert caught.value.key == "x"
        for secret in ("wr0ng", "secret"):
            assert secret not in str(caught.value)
            assert secret not in repr(other)

    def test_no_server(self, store: SqlStore) -> None:
        url = store._url.replace(f":{make_url(store._url).port}/", f":{free_port()}/")
        with SqlStore(url, timeout=5) as other:
            check_unreachable(other)

    def test_lost_connections_are_made_again(self, store: SqlStore) -> None:
        store.put("x", b"1")
        with SqlStore(store._url, table=store.table) as other:
            if store._dialect.name == "PostgreSQL":
                query = (
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND usename = 'zarr'"
                )
                other._rows((query, ()))
            else:
                query = (
                    "SELECT id FROM information_schema.processlist "
                    "WHERE user = 'zarr' AND id <> connection_id()"
                )
                ids = other._rows((query, ()))
                for (number,) in ids:
                    run(other, f"KILL {number}")
        assert store.get("x") == b"1"
        store.put("x", b"2")
        assert store.get("x") == b"2"


class TestSqlite(SqlSuite):
    title = "SQLite"

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with SqlStore(f"sqlite:///{tmp_path}/a.db") as store:
            yield store


class TestPostgresql(ServerSuite):
    title = "PostgreSQL"

    @pytest.fixture
    def store(self, postgresql: str) -> Iterator[Store]:
        with SqlStore(postgresql, table="suite") as store:
            store.delete_prefix("")
            yield store


class TestMariadb(ServerSuite):
    title = "MariaDB"
    large_nbytes = 15 << 20  # the server takes 16 MiB

    @pytest.fixture
    def store(self, mariadb: str) -> Iterator[Store]:
        with SqlStore(mariadb, table="suite") as store:
            store.delete_prefix("")
            yield store

    def test_values_up_to_the_servers_limit(self, store: SqlStore) -> None:
        """The driver sends a byte as two, so a large value takes several statements."""
        limit = (16 << 20) - 1024  # the server's default
        value = blob(limit)
        store.put_many([("x", value), ("y", b"1")])
        assert fetch(store, ("x", 0, REST), ("y", 0, REST)) == [value, b"1"]
        store.put("x", b"2" * (limit - 1))
        assert store.get("x") == b"2" * (limit - 1)
        for call in (store.put, lambda key, data: store.put_many([(key, data)])):
            with pytest.raises(StoreError, match="max_allowed_packet") as caught:
                call("z", value + b"1")
            assert caught.value.key == "z"
            assert caught.value.actual == limit + 1
        assert list(store.list_prefix()) == ["x", "y"]


def run(store: SqlStore, statement: str) -> None:
    with store._engine.get().connect() as connection:
        connection.exec_driver_sql(statement)


@contextmanager
def queries(store: SqlStore) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engine = store._engine.get()
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


# ----------------------------------------------------------------------------------------- SQLite


def test_files_of_zarr_python_2(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.sqldb")) as old:
        old.execute("CREATE TABLE zarr(k TEXT PRIMARY KEY, v BLOB)")
        items = [(".zgroup", b'{"zarr_format": 2}'), ("x/0.0", b"chunk"), ("x/é", b"")]
        old.executemany("REPLACE INTO zarr VALUES (?, ?)", items)
        old.commit()
    url = f"sqlite:///{tmp_path}/old.sqldb"
    with SqlStore(url, read_only=True) as store:
        assert list(store.list_prefix()) == [".zgroup", "x/0.0", "x/é"]
        assert fetch(store, ("x/0.0", 1, 3), ("x/é", 0, REST)) == [b"hun", b""]
        assert isinstance(zarr_gpu.open(store), zarr_gpu.Group)
    with SqlStore(url) as store:
        store.put("x/0.0", b"new")
    with closing(sqlite3.connect(tmp_path / "old.sqldb")) as old:
        assert old.execute("SELECT v FROM zarr WHERE k = 'x/0.0'").fetchall() == [(b"new",)]
        assert old.execute("PRAGMA journal_mode").fetchone() == ("delete",)  # left as it was


def test_a_copy_within_an_old_file(tmp_path: Path) -> None:
    """Reads and a long transaction in turns, where SQLite would lock readers out."""
    with closing(sqlite3.connect(tmp_path / "old.sqldb")) as old:
        old.execute("CREATE TABLE zarr(k TEXT PRIMARY KEY, v BLOB)")
    with SqlStore(f"sqlite:///{tmp_path}/old.sqldb", timeout=2) as store:
        store.put_many((f"a/{i}", bytes(200_000)) for i in range(100))
        store.put_many((f"b/{i}", store.get(f"a/{i}")) for i in range(100))
        assert len(list(store.list_prefix("b"))) == 100


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"x"])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    for read_only in (False, True):
        with SqlStore(f"sqlite:///{path}", read_only=read_only) as store:
            for call in (lambda: store.get("x"), lambda: list(store.list_prefix("x"))):
                with pytest.raises(StoreError, match="not a database") as caught:
                    call()
                assert caught.value.key == "x"
                assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_reading_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.db"
    with SqlStore(f"sqlite:///{path}") as store:
        assert store.get("x") is None
        assert list(store.list_prefix()) == []
        assert not path.parent.exists()
        store.put("x", b"1")
        assert path.exists()
    missing = SqlStore(f"sqlite:///{tmp_path}/none.db", read_only=True)
    with pytest.raises(StoreError, match="no such file"):
        missing.get("x")
    assert not (tmp_path / "none.db").exists()


def test_no_file_but_the_database_stays_after_close(tmp_path: Path) -> None:
    with SqlStore(f"sqlite:///{tmp_path}/a.db") as store:
        store.put("x", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_a_lock_of_another_is_waited_for_in_bounded_time(tmp_path: Path) -> None:
    with SqlStore(f"sqlite:///{tmp_path}/a.db", timeout=0.1) as store:
        store.put("x", b"1")
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreTimeoutError, match="locked") as caught:
                store.put("x", b"2")
            assert caught.value.key == "x"
            assert store.get("x") == b"1"
            other.execute("ROLLBACK")
        store.put("x", b"2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    check_killed_writer(lambda: SqlStore(f"sqlite:///{tmp_path}/a.db"))


# ------------------------------------------------------------------------------------------- URLs


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, path = open_store("sqlite:///a.db?table=t&timeout=3&durable=yes#group/x")
    assert isinstance(store, SqlStore)
    assert path == "group/x"
    assert (store.table, store.timeout, store.durable) == ("t", 3, True)
    store.put("x", b"1")
    monkeypatch.chdir("/")
    again, path = open_store(f"sqlite:///{tmp_path}/a.db", storage_options={"table": "t"})
    assert path == ""
    assert again == store
    assert again.get("x") == b"1"
    again.close()
    store.close()
    closed, _ = open_store(f"sqlite:///{tmp_path}/a.db?table=t", mode="r")
    assert closed.read_only
    closed.close()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/a.db",
        "sqlite:///a.db?table=a%20b",
        "sqlite:///a.db?table=a;drop",
        "sqlite:///a.db?timeout=-1",
        "sqlite:///a.db?timeout=soon",
        "sqlite:///a.db?concurrency=0",
        "sqlite:///a.db?durable=perhaps",
        "sqlite:///a.db#../x",
        "postgresql://host:port/db",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidKeyError):
        open_store(url)


def test_options_that_are_refused() -> None:
    with pytest.raises(InvalidKeyError, match="no option 'tabel': known are"):
        open_store("sqlite:///a.db", storage_options={"tabel": "x"})
    with pytest.raises(InvalidKeyError, match="oracle"):
        SqlStore("oracle://host/db")
    with pytest.raises(InvalidKeyError):
        SqlStore("sqlite+nothing:///a.db")


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("sqlalchemy", "sqlite:///a.db", "sql"),
        ("psycopg", "postgresql://host/db", "postgresql"),
        ("pymysql", "mariadb://host/db", "mysql"),
        ("pymysql", "mysql://host/db", "mysql"),
    ],
)
def test_missing_packages(
    module: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"zarr-gpu\[{extra}\]"):
        open_store(url)
