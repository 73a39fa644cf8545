"""Values as rows of a table: SQLite, PostgreSQL, MariaDB and MySQL, through SQLAlchemy.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers, ``storage.sql_dialects`` and
``storage.sql_engine``; ``sqlalchemy`` on first use.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from zarr_gpu.errors import InvalidKeyError, StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, as_bytes_view, gather
from zarr_gpu.storage.batches import BatchStore, Item, blocks
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.lazy import OnePerProcess
from zarr_gpu.storage.ordered import bounds, children_by_page, walk_by_page
from zarr_gpu.storage.pool import map_ahead
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.sql_dialects import Dialect
from zarr_gpu.storage.sql_engine import (
    check_file,
    dispose,
    make_engine,
    parse,
    passing,
    translate,
)
from zarr_gpu.storage.urls import (
    Parsers,
    flag,
    natural,
    options_of,
    seconds,
    split_fragment,
    take_query,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["SqlStore", "open_url"]

T = TypeVar("T")

BLOCK_NBYTES = 8 << 20
BLOCK_ITEMS = 1000
"""What is sent at once: at most two blocks of a batch are in memory."""

_LARGEST = 1 << 40
"""No limit."""

SQLITE_PAGE = 32 << 10
"""Chunks are large: with SQLite's usual 4 KiB, writing takes twice as long."""

TRIES = 4
"""For what another transaction or a lost connection undid as a whole."""

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")
_URL_OPTIONS: Parsers = {
    "table": str,
    "timeout": seconds,
    "concurrency": natural,
    "durable": flag,
}
_OPTIONS: Parsers = {**_URL_OPTIONS, "username": str, "password": str, "connect_args": dict}


def open_url(
    url: str, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
) -> tuple[SqlStore, str]:
    """The store at ``sqlite:///file.db``, ``postgresql://user@host/database``, ``mariadb://...``.

    ``?table=`` names the table, ``#a/b`` a node inside; ``timeout``, ``concurrency`` and
    ``durable`` may stand in the URL or, like ``username``, ``password`` and ``connect_args`` (for
    the driver), in ``storage_options``.  The rest of the query goes to the driver.
    """
    bare, path = split_fragment(url)
    bare, query = take_query(bare, _URL_OPTIONS)
    options = options_of("an SQL store", _OPTIONS, query, storage_options)
    return SqlStore(bare, read_only=read_only, **options), path


class SqlStore(BatchStore):
    """Values as rows of a table with the columns ``k`` (the key) and ``v`` (the bytes).

    Parameters
    ----------
    url
        As SQLAlchemy takes it: ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
        ``postgresql://user:password@host:port/database``, ``mariadb://...`` or ``mysql://...``.
    table
        Its name, behind a schema and a dot if need be.  The first write makes it.
    read_only
        Refuse writes; file and table must be there.
    timeout
        Seconds to wait for a connection, a lock, or an answer.
    concurrency
        Queries in flight at once for one read of many keys; 1 for SQLite and 4 for servers.
    durable
        SQLite only: force each transaction to disk.  Without it a transaction that was
        acknowledged survives the death of the process, and a crash of the machine may undo the
        newest ones.  Servers decide this themselves.
    username, password
        Kept out of the URL.
    connect_args
        Further arguments of the driver's ``connect``.

    ``put_many`` and ``delete_many`` are one transaction each: all values are stored or none, and
    readers never see a part.  Files of zarr-python 2's ``SQLiteStore`` are read and written.

    Raises
    ------
    MissingDependencyError
        SQLAlchemy or the driver is not installed.
    InvalidKeyError
        The URL or the table's name is malformed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, SqlStore(f"sqlite:///{folder}/example.db") as store:
    ...     store.put_many([("a/x", b"one"), ("a/y", b"two")])
    ...     store.get("a/x"), list(store.list_prefix("a"))
    (b'one', ['a/x', 'a/y'])
    """

    def __init__(
        self,
        url: str,
        *,
        table: str = "zarr",
        read_only: bool = False,
        timeout: float = 30,
        concurrency: int | None = None,
        durable: bool = False,
        username: str | None = None,
        password: str | None = None,
        connect_args: Mapping[str, Any] | None = None,
    ) -> None:
        if not _TABLE.fullmatch(table):
            raise InvalidKeyError(
                f"a table's name is letters, digits and underscores, not {table!r:.80}"
            )
        parsed, kind = parse(url, username, password)
        self.table = table
        self.read_only = read_only
        self.timeout = timeout
        self.durable = durable
        self._connect_args = dict(connect_args or {})
        self._dialect = kind(table)
        self.concurrency = concurrency or self._dialect.concurrency
        self._url = parsed.render_as_string(hide_password=False)
        self._shown = parsed.render_as_string(hide_password=True)
        self._file = parsed.database if kind is Dialect else None
        self._start()

    def _start(self) -> None:
        self._has_table = False
        self._limit: int | None = None
        settings = (self._url, self._file, self.read_only, self.timeout, self.durable)
        self._engine: OnePerProcess[Engine] = OnePerProcess(
            partial(make_engine, *settings, self.concurrency, self._connect_args), dispose
        )

    # ---- connections and transactions ----------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, connection: Connection) -> Iterator[None]:
        connection.exec_driver_sql(self._dialect.begin)
        try:
            yield
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            try:
                connection.exec_driver_sql("ROLLBACK")
            except Exception:  # noqa: BLE001  the first error counts; the server rolls back
                connection.invalidate()
            raise

    def _run(self, work: Callable[[Connection], T], *, again: bool = True) -> T:
        """``work`` on a connection; tried again where the database undid it as a whole."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        tries = TRIES if again else 1
        for attempt in range(tries):
            try:
                with self._engine.get().connect() as connection:
                    return work(connection)
            except DBAPIError as cause:
                if attempt + 1 == tries or not passing(cause):
                    raise translate(self, cause) from cause
                time.sleep(0.01 * 4**attempt)
            except SQLAlchemyError as cause:
                raise translate(self, cause) from cause
        raise AssertionError("unreachable")

    def _change(self, work: Callable[[Connection], T], *, again: bool = True) -> T:
        """``work`` in a transaction; the table is there."""

        def inside(connection: Connection) -> T:
            with self._transaction(connection):
                return work(connection)

        self._create()
        return self._run(inside, again=again)

    def _exists(self) -> bool:
        """Whether there is a table to read."""
        if self._has_table:
            return True
        if self._file is not None and not os.path.exists(self._file):  # noqa: PTH110
            if self.read_only:
                raise StoreError(f"{self!r}: there is no such file")
            return False
        if self._file is not None:
            check_file(self._file, repr(self))

        def look(connection: Connection) -> bool:
            from sqlalchemy import inspect

            schema, _, name = self.table.rpartition(".")
            return bool(inspect(connection).has_table(name, schema=schema or None))

        found = self._run(look)
        if not found and self.read_only:
            raise StoreError(f"{self!r}: the database has no table {self.table!r}")
        self._has_table = found
        return found

    def _create(self) -> None:
        if self._exists():
            return
        if self._file is not None:
            os.makedirs(os.path.dirname(self._file), exist_ok=True)  # noqa: PTH103, PTH120
            with open(self._file, "ab"):  # noqa: PTH123  SQLite takes an empty file for a database
                pass

        def create(connection: Connection) -> None:
            if self._file is not None:
                # Readers and a writer do not wait for each other then.  Another process may be
                # doing the same right now, and some file systems cannot.
                from sqlalchemy.exc import DBAPIError

                connection.exec_driver_sql(f"PRAGMA page_size = {SQLITE_PAGE:d}")
                with contextlib.suppress(DBAPIError):
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            with self._transaction(connection):
                for statement in self._dialect.create():
                    connection.exec_driver_sql(statement)

        try:
            self._run(create)
        except StoreError:
            if not self._exists():  # somebody else may have made it in this moment
                raise
        self._has_table = True

    # ---- reading -------------------------------------------------------------------------------

    def _rows(self, query: tuple[str, tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return self._run(lambda connection: list(map(tuple, connection.exec_driver_sql(*query))))

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        if not self._exists():
            return None
        if offset == 0 and nbytes == REST:
            rows = self._rows(self._dialect.whole([key]))
        else:
            rows = self._rows(self._dialect.parts([(key, offset, nbytes)]))
        data: Buffer | None = rows[0][1] if rows else None
        return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if len(spans) == 1 and memory.kind == "host":
            return super().read_spans(spans, memory)
        values: list[memoryview | None] = [None] * len(spans)
        try:
            there = self._exists()
        except StoreError as cause:
            fail("read", spans[0][0], cause)
        if there:
            whole = [i for i, (_, lo, n) in enumerate(spans) if lo == 0 and n == REST]
            parts = [i for i, (_, lo, n) in enumerate(spans) if lo != 0 or n != REST]
            size = self._dialect.spans_per_query
            found: dict[str, Any] = {}
            for rows in map_ahead(self._read_whole, _cut(spans, whole, size), self.concurrency):
                found.update(rows)
            for i in whole:
                data = found.get(spans[i][0])
                values[i] = None if data is None else as_bytes_view(data)
            answers = map_ahead(self._read_parts, _cut(spans, parts, size), self.concurrency)
            for block, found_parts in enumerate(answers):
                for i, data in found_parts:
                    values[parts[block * size + i]] = as_bytes_view(data)
        return gather(values, memory)

    def _read_whole(self, spans: list[Span]) -> list[tuple[str, Any]]:
        try:
            rows = self._rows(self._dialect.whole([key for key, _, _ in spans]))
        except StoreError as cause:
            fail("read", spans[0][0], cause)
        return [(_text(key), data) for key, data in rows]

    def _read_parts(self, spans: list[Span]) -> list[tuple[Any, ...]]:
        try:
            return self._rows(self._dialect.parts(spans))
        except StoreError as cause:
            fail("read", spans[0][0], cause)

    def size(self, key: str) -> int | None:
        if not self._exists():
            return None
        rows = self._rows((self._dialect.size(), (self._dialect.key(key),)))
        return int(rows[0][0]) if rows else None

    def _page(self, lo: str, hi: str | None, n: int) -> list[str]:
        return [_text(key) for (key,) in self._rows(self._dialect.page(lo, hi, n))]

    def walk(self, prefix: str) -> Iterator[str]:
        return walk_by_page(self._page, prefix) if self._exists() else iter(())

    def children(self, prefix: str) -> Iterable[str]:
        return children_by_page(self._page, prefix) if self._exists() else ()

    # ---- writing -------------------------------------------------------------------------------

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        """Store values in one transaction: after an error none of them is stored.

        Two blocks of 8 MiB (or one value, if larger) are in memory at a time.
        """
        self._check_writable()
        drawn = blocks(items, nbytes=BLOCK_NBYTES, count=BLOCK_ITEMS, check=self._check_limit)
        first = next(drawn, None)
        if first is None:
            return
        second = next(drawn, None)
        rest = drawn if second is None else chain([second], drawn)
        now = first

        def write(connection: Connection) -> None:
            nonlocal now
            for now in chain([first], rest):
                self._upsert(connection, now)

        try:
            # What was drawn and sent already cannot be sent again.
            self._change(write, again=second is None)
        except StoreError as cause:
            if len(now) > 1:
                cause.message += f" (one of {len(now)} values of a transaction; none is stored)"
            fail("write", now[0][0], cause)

    def _check_limit(self, key: str, nbytes: int) -> None:
        """Beyond its limit a server closes the connection without a word."""
        query = self._dialect.limit
        if query is None or 2 * nbytes < 1 << 20:
            return
        if self._limit is None:
            self._limit = int(self._rows((query, ()))[0][0])
        if nbytes > self._limit - 1024:
            raise StoreError(
                f"{self!r} takes values of {self._limit - 1024} bytes at most: raise "
                "max_allowed_packet of the server, or make chunks or shards smaller",
                key=key,
                actual=nbytes,
            )

    def _upsert(self, connection: Connection, items: list[Item]) -> None:
        """In order of their keys: transactions that overlap then wait and do not deadlock."""
        dialect = self._dialect
        most = _LARGEST if self._limit is None else self._limit // 4
        rows = [(dialect.key(key), value[:most]) for key, value in sorted(items)]
        connection.exec_driver_sql(dialect.upsert(), rows)
        for key, value in items:
            for a in range(most, len(value), most):
                connection.exec_driver_sql(
                    dialect.extend(), (value[a : a + most], dialect.key(key))
                )

    def write(self, key: str, data: memoryview) -> None:
        value = bytes(data)
        self._check_limit(key, len(value))
        self._change(lambda connection: self._upsert(connection, [(key, value)]))

    def remove_many(self, keys: list[str]) -> None:
        """Remove keys in one transaction."""
        if self._exists():
            rows = [(self._dialect.key(key),) for key in keys]
            self._change(lambda c: c.exec_driver_sql(self._dialect.delete(), rows) and None)

    def remove_prefix(self, prefix: str) -> None:
        if self._exists():
            query = self._dialect.delete_range(*bounds(prefix))
            self._change(lambda c: c.exec_driver_sql(*query) and None)

    def rename_prefix(self, source: str, target: str) -> None:
        query = self._dialect.rename(source, target, *bounds(source))
        self._change(lambda c: c.exec_driver_sql(*query) and None)

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all connections; they are made again when needed."""
        self._engine.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in {"_engine", "_has_table"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SqlStore):
            return NotImplemented
        mine = (self._url, self.table, self.read_only)
        return mine == (other._url, other.table, other.read_only)

    def __hash__(self) -> int:
        return hash((SqlStore, self._url, self.table))

    def __repr__(self) -> str:
        table = "" if self.table == "zarr" else f", table={self.table!r}"
        return f"SqlStore({self._shown!r}{table})"


def _cut(spans: list[Span], rows: list[int], size: int) -> list[list[Span]]:
    """Some of the spans, in blocks of a size."""
    return [[spans[i] for i in rows[a : a + size]] for a in range(0, len(rows), size)]


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)
