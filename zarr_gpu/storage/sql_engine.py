"""Connections to SQL databases: URLs, drivers and their settings, and the meaning of their errors.

Imports ``errors``, ``storage.failures`` and ``storage.sql_dialects``; ``sqlalchemy`` and the
drivers on first use; called by ``storage/sql.py``.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.storage.failures import (
    StoreConnectionError,
    StorePermissionError,
    StoreTimeoutError,
)
from zarr_gpu.storage.sql_dialects import DIALECTS, Dialect

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

__all__ = ["check_file", "dispose", "make_engine", "parse", "passing", "translate"]


def dispose(engine: Engine) -> None:
    """Close all connections."""
    engine.dispose()


def parse(url: str, username: str | None, password: str | None) -> tuple[URL, type[Dialect]]:
    """The URL with its driver, and what kind of database it names."""
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as cause:
        raise MissingDependencyError(
            "SQL databases need SQLAlchemy: pip install 'zarr-gpu[sql]'"
        ) from cause
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as cause:
        raise InvalidKeyError(f"the URL of a database cannot be read: {cause}") from cause
    backend, _, driver = parsed.drivername.partition("+")
    kind = DIALECTS.get(backend)
    if kind is None:
        raise InvalidKeyError(f"{backend}:// is no database known here: {', '.join(DIALECTS)} are")
    if kind is Dialect:
        if not parsed.database or parsed.database == ":memory:" or parsed.host:
            raise InvalidKeyError(
                "an SQLite store is a file: sqlite:///relative.db or sqlite:////absolute.db"
            )
        path = os.path.abspath(parsed.database)  # noqa: PTH100
        parsed = parsed.set(database=path)
    if not driver:
        parsed = parsed.set(drivername=kind.driver)
    if username is not None:
        parsed = parsed.set(username=username)
    if password is not None:
        parsed = parsed.set(password=password)
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as cause:
        raise MissingDependencyError(
            f"{kind.name} needs a driver: pip install 'zarr-gpu[{kind.extra}]'"
        ) from cause
    except Exception as cause:  # a driver nobody knows
        raise InvalidKeyError(f"the URL of a database cannot be used: {cause}") from cause
    return parsed, kind


def make_engine(
    url: str,
    file: str | None,
    read_only: bool,
    timeout: float,
    durable: bool,
    concurrency: int,
    connect_args: dict[str, Any],
) -> Engine:
    """A pool of connections; ``file`` is that of SQLite, None for servers."""
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.pool import QueuePool

    parsed = make_url(url)
    arguments: dict[str, Any] = {}
    if file is not None:
        arguments["creator"] = partial(
            _connect_sqlite, file, read_only, timeout, durable, connect_args
        )
    else:
        arguments["connect_args"] = {
            **_server_arguments(parsed.drivername, timeout),
            **connect_args,
        }
    return create_engine(
        parsed,
        poolclass=QueuePool,
        pool_size=concurrency + 2,
        max_overflow=16,
        pool_timeout=timeout,
        pool_recycle=1800,
        # Transactions are begun by name, so that plain reads take one round trip.
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
        **arguments,
    )


def _server_arguments(driver: str, timeout: float) -> dict[str, Any]:
    whole = max(int(timeout), 1)
    if driver.endswith("+psycopg"):
        from psycopg import Cursor
        from psycopg.pq import Format

        class BinaryCursor(Cursor[Any]):  # type: ignore[misc]
            """Values come as they are, not as text of twice their size."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.format = Format.BINARY

        return {
            "connect_timeout": whole,
            "cursor_factory": BinaryCursor,
            "options": f"-c statement_timeout={whole}s -c lock_timeout={whole}s",
            "tcp_user_timeout": whole * 1000,
        }
    if driver.endswith("+pymysql"):
        return {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole}
    return {}


def check_file(file: str, store: str) -> None:
    """SQLite itself takes a file of a few bytes for an empty database, and writes over it."""
    magic = b"SQLite format 3\0"
    try:
        with open(file, "rb") as opened:  # noqa: PTH123  as the rest
            start = opened.read(len(magic))
    except PermissionError as cause:
        raise StorePermissionError(f"{store}: {cause.strerror}") from cause
    except OSError as cause:
        raise StoreError(f"{store}: {cause.strerror}") from cause
    if start not in {b"", magic}:
        raise StoreError(f"{store}: the file is not a database")


def _connect_sqlite(
    file: str, read_only: bool, timeout: float, durable: bool, connect_args: dict[str, Any]
) -> Any:
    import sqlite3
    from urllib.parse import quote

    mode = "mode=ro" if read_only else "mode=rw"
    folder = os.path.dirname(file)  # noqa: PTH120
    if read_only and not os.access(folder, os.W_OK) and not os.path.exists(f"{file}-wal"):  # noqa: PTH110
        mode += "&immutable=1"  # SQLite would want to put a file beside it
    connection = sqlite3.connect(
        f"file:{quote(file)}?{mode}",
        uri=True,
        **{"timeout": timeout, "check_same_thread": False, "isolation_level": None, **connect_args},
    )
    try:
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        if journal != "wal":
            # Else a large transaction would lock out readers before its end, its own thread's too.
            connection.execute("PRAGMA cache_spill = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _codes(cause: Any) -> tuple[str | None, Any]:
    """PostgreSQL's code, and the number of MariaDB."""
    original = getattr(cause, "orig", None)
    args = getattr(original, "args", ())
    number = args[0] if args and isinstance(args[0], int) else None
    return getattr(original, "sqlstate", None), number


def passing(cause: Any) -> bool:
    """Whether the same may succeed when tried again: after a lost connection or a deadlock."""
    state, number = _codes(cause)
    return bool(cause.connection_invalidated) or state in {"40001", "40P01"} or number == 1213


def translate(store: object, cause: Any) -> StoreError:
    """The error of the driver as one of ours, without the statement and its parameters."""
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    original = getattr(cause, "orig", None) or cause
    text = " ".join(str(original).split())
    lower = text.lower()
    state, number = _codes(cause)
    kind = StoreError
    if (
        isinstance(cause, PoolTimeout)
        or state in {"57014", "55P03"}
        or number == 1205
        or "timed out" in lower
        or "timeout expired" in lower
        or "database is locked" in lower
    ):
        kind = StoreTimeoutError
    elif (
        (state or "").startswith("28")
        or state == "42501"
        or number in {1044, 1045, 1142, 1227, 1698}
        or "authentication failed" in lower
        or "no password supplied" in lower
        or "readonly database" in lower
    ):
        kind = StorePermissionError
    elif getattr(cause, "connection_invalidated", False) or (
        number in {2002, 2003, 2006, 2013}
        or (state or "").startswith("08")
        or "connection" in lower
    ):
        kind = StoreConnectionError
    return kind(f"{store!r}: {text}")
