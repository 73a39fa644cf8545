"""The SQL of each kind of database: one table of keys and values.

Keys compare by their bytes in every database (SQLite's ``BINARY`` and PostgreSQL's ``"C"``
collation, ``VARBINARY`` in MariaDB and MySQL), so ranges of keys come out in one order.  The table
has the columns ``k`` and ``v``, as zarr-python 2 laid them out in SQLite files.

Pure text, no input or output; imports ``extents``, ``storage.spans``; called by ``storage/sql.py``.
"""

# ruff: noqa: S608  what is put into the text are names, checked, and numbers of our own

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zarr_gpu.extents import REST
from zarr_gpu.storage.spans import Span

__all__ = ["DIALECTS", "Dialect"]

Query = tuple[str, tuple[Any, ...]]

_LARGEST = 1 << 30
"""No value is larger in any of these databases; offsets and lengths are cut to it."""


def _lengths(spans: Sequence[Span]) -> list[tuple[int, int]]:
    return [
        (max(min(offset, _LARGEST), -_LARGEST), _LARGEST if n == REST else min(n, _LARGEST))
        for _, offset, n in spans
    ]


class Dialect:
    """SQLite's SQL, and what the others share with it."""

    name = "SQLite"
    driver = "sqlite+pysqlite"
    extra = "sql"
    mark = "?"
    quote = '"'
    begin = "BEGIN IMMEDIATE"
    spans_per_query = 4000
    concurrency = 1
    key: Any = str  # how a key is handed to the driver
    columns = "k TEXT PRIMARY KEY, v BLOB NOT NULL"
    greater = "max"
    never_null = "coalesce({}, x'')"  # SQLite says NULL for a part of an empty value
    limit: str | None = None  # the query for the most bytes that a statement or value may have

    def __init__(self, table: str) -> None:
        self.table = ".".join(f"{self.quote}{part}{self.quote}" for part in table.split("."))

    def create(self) -> list[str]:
        """Statements that make the table."""
        return [f"CREATE TABLE IF NOT EXISTS {self.table} ({self.columns})"]

    def upsert(self) -> str:
        """Takes (key, value)."""
        marks = f"{self.mark}, {self.mark}"
        return (
            f"INSERT INTO {self.table} (k, v) VALUES ({marks}) "
            "ON CONFLICT (k) DO UPDATE SET v = excluded.v"
        )

    def extend(self) -> str:
        """Append to a value; takes (bytes, key)."""
        return f"UPDATE {self.table} SET v = v || {self.mark} WHERE k = {self.mark}"

    def size(self) -> str:
        """Takes (key,)."""
        return f"SELECT length(v) FROM {self.table} WHERE k = {self.mark}"

    def part(self, start: str, length: str) -> str:
        """The expression for one range; where ``start`` is negative, for a suffix."""
        return self.never_null.format(
            f"CASE WHEN {start} < 0 THEN substr(v, {self.greater}(length(v) + {start}, 0) + 1) "
            f"ELSE substr(v, {start} + 1, {length}) END"
        )

    def whole(self, keys: Sequence[str]) -> Query:
        """Rows (key, value) of those of ``keys`` that are there."""
        marks = ", ".join([self.mark] * len(keys))
        statement = f"SELECT k, v FROM {self.table} WHERE k IN ({marks})"
        return statement, tuple(self.key(key) for key in keys)

    def parts(self, spans: Sequence[Span]) -> Query:
        """Rows (position in ``spans``, bytes) of those whose key is there."""
        rows = ", ".join(["(?, ?, ?, ?)"] * len(spans))
        statement = (
            f"WITH w(i, x, lo, n) AS (VALUES {rows}) SELECT i, {self.part('lo', 'n')} "
            f"FROM w CROSS JOIN {self.table} ON k = x"
        )
        values: list[Any] = []
        for i, ((key, _, _), (lo, n)) in enumerate(zip(spans, _lengths(spans), strict=True)):
            values += (i, key, lo, n)
        return statement, tuple(values)

    def _below(self, lo: str, hi: str | None) -> Query:
        if hi is None:
            return f"k >= {self.mark}", (self.key(lo),)
        return f"k >= {self.mark} AND k < {self.mark}", (self.key(lo), self.key(hi))

    def page(self, lo: str, hi: str | None, n: int) -> Query:
        """The first ``n`` keys from ``lo`` up to but without ``hi``, in order."""
        where, values = self._below(lo, hi)
        return f"SELECT k FROM {self.table} WHERE {where} ORDER BY k LIMIT {n:d}", values

    def delete(self) -> str:
        """Takes (key,)."""
        return f"DELETE FROM {self.table} WHERE k = {self.mark}"

    def delete_range(self, lo: str, hi: str | None) -> Query:
        """Remove the keys from ``lo`` up to but without ``hi``."""
        where, values = self._below(lo, hi)
        return f"DELETE FROM {self.table} WHERE {where}", values

    def rename(self, source: str, target: str, lo: str, hi: str | None) -> Query:
        """Replace ``source`` by ``target`` at the start of the keys of a range."""
        where, values = self._below(lo, hi)
        new = self.joined(self.mark, f"substr(k, {len(self.key(source)) + 1:d})")
        return f"UPDATE {self.table} SET k = {new} WHERE {where}", (self.key(target), *values)

    def joined(self, one: str, two: str) -> str:
        """The expression for two keys' parts put together."""
        return f"{one} || {two}"


class PostgreSQL(Dialect):
    """``STORAGE EXTERNAL``: chunks are compressed already, and ``substr`` reads only its part."""

    name = "PostgreSQL"
    driver = "postgresql+psycopg"
    extra = "postgresql"
    mark = "%s"
    begin = "BEGIN"
    spans_per_query = 64
    concurrency = 4
    columns = 'k TEXT COLLATE "C" PRIMARY KEY, v BYTEA NOT NULL'
    greater = "greatest"
    never_null = "{}"

    def create(self) -> list[str]:
        return [*super().create(), f"ALTER TABLE {self.table} ALTER COLUMN v SET STORAGE EXTERNAL"]

    def whole(self, keys: Sequence[str]) -> Query:
        return f"SELECT k, v FROM {self.table} WHERE k = ANY(%s::text[])", (list(keys),)

    def parts(self, spans: Sequence[Span]) -> Query:
        lengths = _lengths(spans)
        statement = (
            f"SELECT (i - 1)::int, {self.part('lo', 'n')} "
            "FROM unnest(%s::text[], %s::int[], %s::int[]) WITH ORDINALITY AS w(x, lo, n, i) "
            f"JOIN {self.table} ON k = x"
        )
        keys = [key for key, _, _ in spans]
        return statement, (keys, [lo for lo, _ in lengths], [n for _, n in lengths])

    def joined(self, one: str, two: str) -> str:
        return f"{one}::text || {two}"


class MariaDB(Dialect):
    """MariaDB and MySQL."""

    name = "MariaDB"
    driver = "mysql+pymysql"
    extra = "mysql"
    mark = "%s"
    quote = "`"
    begin = "START TRANSACTION"
    spans_per_query = 64
    concurrency = 4
    key = staticmethod(str.encode)
    columns = "k VARBINARY(1024) PRIMARY KEY, v LONGBLOB NOT NULL"
    limit = "SELECT @@max_allowed_packet"

    def create(self) -> list[str]:
        return [f"{super().create()[0]} ENGINE=InnoDB ROW_FORMAT=DYNAMIC"]

    def upsert(self) -> str:
        return (
            f"INSERT INTO {self.table} (k, v) VALUES (%s, %s) ON DUPLICATE KEY UPDATE v = VALUES(v)"
        )

    def extend(self) -> str:
        return f"UPDATE {self.table} SET v = concat(v, %s) WHERE k = %s"

    def parts(self, spans: Sequence[Span]) -> Query:
        texts = []
        for i, (lo, n) in enumerate(_lengths(spans)):
            part = f"substr(v, {lo + 1:d}, {n:d})"
            if lo < 0:
                part = f"substr(v, greatest(length(v) - {-lo:d}, 0) + 1)"
            texts.append(f"SELECT {i:d}, {part} FROM {self.table} WHERE k = %s")
        return " UNION ALL ".join(texts), tuple(key.encode() for key, _, _ in spans)

    def joined(self, one: str, two: str) -> str:
        return f"concat({one}, {two})"


DIALECTS: dict[str, type[Dialect]] = {
    "sqlite": Dialect,
    "postgresql": PostgreSQL,
    "postgres": PostgreSQL,
    "mysql": MariaDB,
    "mariadb": MariaDB,
}
