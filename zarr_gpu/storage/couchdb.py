"""Values as attachments of CouchDB documents, over plain HTTP.

The document of a key has the id ``PREFIX/KEY``, the attachment ``v`` with the bytes, and, for
documents of metadata, a field ``json`` with the same as a readable object.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; of others only the standard
library, on first use.
"""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from zarr_gpu.errors import DataError, InvalidKeyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Buffer
from zarr_gpu.storage.batches import BatchStore, Item, blocks
from zarr_gpu.storage.failures import (
    StoreConnectionError,
    StorePermissionError,
    StoreTimeoutError,
    fail,
)
from zarr_gpu.storage.lazy import OnePerProcess
from zarr_gpu.storage.ordered import children_by_page, walk_by_page
from zarr_gpu.storage.urls import Parsers, natural, options_of, seconds, split_fragment, take_query

if TYPE_CHECKING:
    from http.client import HTTPConnection

__all__ = ["CouchStore", "open_url"]

Answer = tuple[int, bytes]

BLOCK_NBYTES = 4 << 20
BLOCK_ITEMS = 200
"""What is sent at once."""

TRIES = 12
"""Writes of one key at the same time refuse each other: all but one try again."""

_JSON = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
_URL_OPTIONS: Parsers = {"prefix": str, "timeout": seconds, "concurrency": natural}
_OPTIONS: Parsers = {**_URL_OPTIONS, "username": str, "password": str}


def open_url(
    url: str, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
) -> tuple[CouchStore, str]:
    """The store at ``couchdb+http://host:port/database?prefix=...#node``, or ``couchdb+https``.

    ``prefix``, ``timeout`` and ``concurrency`` may stand in the URL or, like ``username`` and
    ``password``, in ``storage_options``.
    """
    bare, path = split_fragment(url)
    bare, query = take_query(bare, _URL_OPTIONS)
    options = options_of("a CouchDB store", _OPTIONS, query, storage_options)
    return CouchStore(bare.partition("+")[2], read_only=read_only, **options), path


class CouchStore(BatchStore):
    """Values as attachments in a database of a CouchDB server.

    Parameters
    ----------
    url
        ``http://user:password@host:port/database``.  The first write makes the database.
    prefix
        Begins the ids of documents, so that one database holds many stores.
    read_only
        Refuse writes; the database must be there.
    timeout
        Seconds to wait for a connection, or an answer.
    concurrency
        Requests in flight at once.
    username, password
        Kept out of the URL.

    Each value is replaced as a whole; a batch is no transaction, as CouchDB has none.  What was
    replaced or deleted takes space until the database is compacted.

    Raises
    ------
    InvalidKeyError
        The URL is malformed.
    """

    concurrency = 16

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "zarr",
        read_only: bool = False,
        timeout: float = 30,
        concurrency: int | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        from urllib.parse import unquote, urlsplit

        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as cause:
            raise InvalidKeyError(f"the URL of CouchDB cannot be read: {cause}") from cause
        name = parts.path.strip("/")
        if parts.scheme not in {"http", "https"} or not parts.hostname or not name or "/" in name:
            raise InvalidKeyError("write couchdb+http://host:port/DATABASE or couchdb+https://...")
        if parts.query:
            raise InvalidKeyError(f"a CouchDB store has no option {parts.query!r}")
        if not prefix or prefix.startswith("_"):
            raise InvalidKeyError("the prefix of a CouchDB store begins with a letter")
        self.prefix = prefix
        self.read_only = read_only
        self.timeout = timeout
        if concurrency is not None:
            self.concurrency = concurrency
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (6984 if self._secure else 5984)
        self._database = unquote(name)
        user = parts.username if username is None else username
        secret = parts.password if password is None else password
        self._account = None if user is None else (unquote(user), unquote(secret or ""))
        self._start()

    def _start(self) -> None:
        self._made = False
        self._idle: OnePerProcess[_Connections] = OnePerProcess(
            partial(_Connections, self._secure, self._host, self._port, self.timeout),
            _Connections.close,
        )

    # ---- requests ------------------------------------------------------------------------------

    def _path(self, *segments: str) -> str:
        from urllib.parse import quote

        return "/" + "/".join(quote(part, safe="") for part in (self._database, *segments))

    def _id(self, key: str) -> str:
        return f"{self.prefix}/{key}"

    def _ask(
        self, method: str, path: str, document: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Status and body of an answer; 404 is one, other refusals are errors."""
        body = None
        sent = {"Accept": "*/*", **(headers or {})}
        if document is not None:
            body = json.dumps(document).encode()
            sent["Content-Type"] = "application/json"
        if self._account is not None:
            token = base64.b64encode(":".join(self._account).encode()).decode()
            sent["Authorization"] = f"Basic {token}"
        status, answer = self._send(method, path, body, sent)
        if status in {401, 403}:
            raise StorePermissionError(f"{self!r}: HTTP status {status}: {_reason(answer)}")
        if status >= 400 and status not in {404, 412, 416}:
            raise StoreError(f"{self!r}: HTTP status {status}: {_reason(answer)}")
        return status, answer

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        from http.client import HTTPException

        idle = self._idle.get()
        while True:
            connection, used = idle.take()
            try:
                connection.request(method, path, body, dict(headers))
                response = connection.getresponse()
                answer = response.status, response.read()
            except (HTTPException, OSError) as cause:
                connection.close()
                # The server may have closed what was idle: on a new connection once more.
                if used and not isinstance(cause, TimeoutError):
                    continue
                self._refuse(cause)
            except BaseException:
                connection.close()
                raise
            idle.put(connection)
            return answer

    def _refuse(self, cause: Exception) -> NoReturn:
        kind = StoreTimeoutError if isinstance(cause, TimeoutError) else StoreConnectionError
        raise kind(f"{self!r}: {str(cause) or type(cause).__name__}") from cause

    def _missing(self, answer: bytes) -> None:
        """What "not found" means: a key may be absent, a database only before the first write."""
        reason = _reason(answer)
        if self.read_only and ("database" in reason.lower() or reason == "no_db_file"):
            raise StoreError(f"{self!r}: there is no such database")

    def _json(self, method: str, path: str, document: Any = None) -> Any:
        """The answer as JSON, None for "not found"."""
        status, answer = self._ask(method, path, document)
        if status == 404:
            self._missing(answer)
            return None
        try:
            return json.loads(answer)
        except ValueError as cause:
            raise StoreError(f"{self!r}: the answer is not JSON: {answer[:80]!r}") from cause

    # ---- reading -------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        headers = {}
        if offset < 0:
            headers["Range"] = f"bytes={offset}"
        elif offset > 0 or nbytes != REST:
            end = "" if nbytes == REST else offset + nbytes - 1
            headers["Range"] = f"bytes={offset}-{end}"
        status, data = self._ask("GET", self._path(self._id(key), "v"), headers=headers)
        if status == 404:
            self._missing(data)
            return None
        if status == 416:  # the range begins behind the end
            return b""
        if status == 206 or not headers:
            return data
        # Some servers answer with all there is.
        return data[offset:] if nbytes == REST else data[offset : offset + nbytes]

    def size(self, key: str) -> int | None:
        document = self._json("GET", self._path(self._id(key)))
        if document is None:
            return None
        try:
            return int(document["_attachments"]["v"]["length"])
        except (KeyError, TypeError, ValueError) as cause:
            raise DataError("the document has no attachment of ours", key=key) from cause

    # ---- listing -------------------------------------------------------------------------------

    def _page(self, lo: str, hi: str | None, n: int) -> list[str]:
        from urllib.parse import urlencode

        end = f"{self.prefix}0" if hi is None else self._id(hi)
        query = {
            "startkey": json.dumps(self._id(lo)),
            "endkey": json.dumps(end),
            "inclusive_end": "false",
            "limit": n,
        }
        found = self._json("GET", f"{self._path('_all_docs')}?{urlencode(query)}")
        skip = len(self.prefix) + 1
        return [] if found is None else sorted(row["id"][skip:] for row in found["rows"])

    def walk(self, prefix: str) -> Iterator[str]:
        return walk_by_page(self._page, prefix, 5000)

    def children(self, prefix: str) -> Iterable[str]:
        return children_by_page(self._page, prefix)

    # ---- writing -------------------------------------------------------------------------------

    def _make(self) -> None:
        if not self._made:
            status, answer = self._ask("PUT", self._path())
            if status == 404:
                raise StoreError(f"{self!r}: the database cannot be made: {_reason(answer)}")
            self._made = True  # 412: it was there

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        """Store values, up to 4 MiB in one request."""
        self._check_writable()
        for block in blocks(items, nbytes=BLOCK_NBYTES, count=BLOCK_ITEMS):
            self._put_block(block)

    def _put_block(self, items: list[Item]) -> None:
        try:
            self._make()
            self._change({key: _document(key, value) for key, value in items})
        except StoreError as cause:
            fail("write", items[0][0], cause)

    def _change(self, documents: dict[str, dict[str, Any]]) -> None:
        """Store the documents of keys, each on top of what is there at that moment."""
        for attempt in range(TRIES):
            versions = self._versions(list(documents))
            sent = []
            for key, document in documents.items():
                version = {"_rev": versions[key]} if key in versions else {}
                if version or "_deleted" not in document:
                    sent.append({"_id": self._id(key), **version, **document})
            if not sent:
                return
            answers = self._json("POST", self._path("_bulk_docs"), {"docs": sent}) or []
            skip = len(self.prefix) + 1
            refused = {}
            for answer in answers:
                if "error" in answer:
                    key = answer["id"][skip:]
                    if answer["error"] != "conflict":
                        raise StoreError(f"{self!r}: {answer['error']}: {answer.get('reason')}")
                    refused[key] = documents[key]
            if len(answers) != len(sent):
                raise StoreError(f"{self!r}: {len(answers)} answers to {len(sent)} documents")
            if not refused:
                return
            documents = refused
            time.sleep(random.uniform(0, 0.005 * 2 ** min(attempt, 6)))  # noqa: S311  no secret
        key = next(iter(documents))
        raise StoreError(f"{self!r}: others write this key again and again", key=key)

    def _versions(self, keys: list[str]) -> dict[str, str]:
        asked = {"keys": [self._id(key) for key in keys]}
        found = self._json("POST", self._path("_all_docs"), asked)
        skip = len(self.prefix) + 1
        return {
            row["id"][skip:]: row["value"]["rev"]
            for row in (found or {"rows": []})["rows"]
            if "error" not in row and row.get("value") and not row["value"].get("deleted")
        }

    def write(self, key: str, data: memoryview) -> None:
        self._make()
        self._change({key: _document(key, bytes(data))})

    def remove_many(self, keys: list[str]) -> None:
        """Remove keys, 200 in one request."""
        for a in range(0, len(keys), BLOCK_ITEMS):
            self._change({key: {"_deleted": True} for key in keys[a : a + BLOCK_ITEMS]})

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all connections; they are made again when needed."""
        self._idle.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in {"_idle", "_made"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _place(self) -> tuple[Any, ...]:
        return self._secure, self._host, self._port, self._database, self.prefix

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CouchStore):
            return NotImplemented
        return self._place() == other._place() and self.read_only == other.read_only

    def __hash__(self) -> int:
        return hash((CouchStore, *self._place()))

    def __repr__(self) -> str:
        scheme = "https" if self._secure else "http"
        place = f"{scheme}://{self._host}:{self._port}/{self._database}"
        return f"CouchStore({place!r}, prefix={self.prefix!r})"


class _Connections:
    """Connections that nobody uses at the moment."""

    def __init__(self, secure: bool, host: str, port: int, timeout: float) -> None:
        self._arguments = (secure, host, port, timeout)
        self._idle: list[HTTPConnection] = []
        self._lock = threading.Lock()

    def take(self) -> tuple[HTTPConnection, bool]:
        """A connection, and whether it was used before."""
        from http.client import HTTPConnection, HTTPSConnection

        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        secure, host, port, timeout = self._arguments
        return (HTTPSConnection if secure else HTTPConnection)(host, port, timeout=timeout), False

    def put(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _document(key: str, value: bytes) -> dict[str, Any]:
    document: dict[str, Any] = {
        "_attachments": {
            "v": {
                "content_type": "application/octet-stream",  # of others, CouchDB serves no ranges
                "data": base64.b64encode(value).decode(),
            }
        }
    }
    if key.rpartition("/")[2] in _JSON:
        try:
            found = json.loads(value)
            json.dumps(found, allow_nan=False)
        except (ValueError, RecursionError):
            return document
        document["json"] = found
    return document


def _reason(answer: bytes) -> str:
    try:
        found = json.loads(answer)
        return str(found.get("reason") or found.get("error"))[:200]
    except (ValueError, AttributeError):
        return repr(answer[:80])
