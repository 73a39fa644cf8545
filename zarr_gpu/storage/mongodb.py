"""Values as documents of MongoDB.

A document is ``{_id: key, n: size, v: bytes}``; a large value is ``{_id: key, n: size, g:
version}`` and documents ``{k: key, g: version, i: number, v: bytes}`` in a collection of parts.
Documents of metadata have a field ``json`` besides: the same as a subdocument, for queries.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; ``pymongo`` on first use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn

from zarr_gpu.errors import DataError, InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, gather
from zarr_gpu.storage.batches import BatchStore, Item, blocks
from zarr_gpu.storage.failures import (
    StoreConnectionError,
    StorePermissionError,
    StoreTimeoutError,
    fail,
)
from zarr_gpu.storage.lazy import OnePerProcess
from zarr_gpu.storage.ordered import bounds, children_by_page, walk_by_page
from zarr_gpu.storage.pool import map_ahead
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.urls import Parsers, natural, options_of, seconds, split_fragment, take_query

__all__ = ["MongoStore", "open_url"]

Document = dict[str, Any]

BLOCK_NBYTES = 8 << 20
BLOCK_ITEMS = 500
"""What is sent at once."""

WHOLE_NBYTES = 4 << 20
PART_NBYTES = 1 << 20
"""Values up to the one are one document; larger ones have parts of the other, so that a range of
bytes needs only the parts that it touches.  MongoDB itself takes documents up to 16 MiB."""

READ_KEYS = 16
TRIES = 20

_JSON = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
_URL_OPTIONS: Parsers = {"collection": str, "timeout": seconds, "concurrency": natural}
_OPTIONS: Parsers = {
    **_URL_OPTIONS,
    "database": str,
    "username": str,
    "password": str,
    "client": dict,
}


def open_url(
    url: str, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
) -> tuple[MongoStore, str]:
    """The store at ``mongodb://host:port/database?collection=...#node``, or ``mongodb+srv://``.

    ``collection``, ``timeout`` and ``concurrency`` may stand in the URL or, like ``database``,
    ``username``, ``password`` and ``client`` (arguments of ``MongoClient``), in
    ``storage_options``.  The rest of the query goes to ``MongoClient``.
    """
    bare, path = split_fragment(url)
    bare, query = take_query(bare, _URL_OPTIONS)
    options = options_of("a MongoDB store", _OPTIONS, query, storage_options)
    return MongoStore(bare, read_only=read_only, **options), path


class MongoStore(BatchStore):
    """Values as documents of a MongoDB collection.

    Parameters
    ----------
    url
        ``mongodb://user:password@host:port/database``, as ``pymongo.MongoClient`` takes it.
    database
        Its name, where the URL has none.
    collection
        Its name.
    read_only
        Refuse writes.
    timeout
        Seconds to wait for a server, a connection, or an answer.
    concurrency
        Requests in flight at once for one read of many keys.
    username, password
        Kept out of the URL.
    client
        Further arguments of ``MongoClient``.
    make_client
        Makes the client in place of ``pymongo.MongoClient``, which it must be like.

    Each value is replaced as a whole; a batch is not one transaction, as MongoDB has these on
    replica sets only, and a writer that dies may leave parts behind that nobody reads.

    Collections of zarr-python 2's ``MongoDBStore``, with documents ``{key, value}``, are recognised
    and read-only.

    Raises
    ------
    MissingDependencyError
        The package ``pymongo`` is not installed.
    InvalidKeyError
        The URL is malformed, or names no database.
    """

    concurrency = 4

    def __init__(
        self,
        url: str,
        *,
        database: str | None = None,
        collection: str = "zarr",
        read_only: bool = False,
        timeout: float = 30,
        concurrency: int | None = None,
        username: str | None = None,
        password: str | None = None,
        client: Mapping[str, Any] | None = None,
        make_client: Callable[..., Any] | None = None,
    ) -> None:
        try:
            from pymongo.errors import PyMongoError
            from pymongo.uri_parser import parse_uri
        except ImportError as cause:
            raise MissingDependencyError(
                "MongoDB needs a package: pip install 'zarr-gpu[mongodb]'"
            ) from cause
        try:
            # The hosts of mongodb+srv are looked up when the client is made.
            parsed = parse_uri(url.replace("mongodb+srv://", "mongodb://", 1))
        except (PyMongoError, ValueError) as cause:
            raise InvalidKeyError(f"the URL of MongoDB cannot be read: {cause}") from cause
        name = database or parsed["database"]
        if not name:
            raise InvalidKeyError("which database? write mongodb://host/DATABASE")
        self.database: str = name
        self.collection = collection
        self.read_only = read_only
        self.timeout = timeout
        if concurrency is not None:
            self.concurrency = concurrency
        self._url = url
        hosts = ",".join(f"{host}:{port}" for host, port in parsed["nodelist"])
        self._shown = f"mongodb://{hosts}/{name}"
        self._settings: dict[str, Any] = dict(client or {})
        if username is not None:
            self._settings["username"] = username
        if password is not None:
            self._settings["password"] = password
        self._make_client = make_client
        self._start()

    def _start(self) -> None:
        self._old: bool | None = None
        self._ready = False
        self._client: OnePerProcess[Any] = OnePerProcess(
            partial(_connect, self._make_client, self._url, self.timeout, self._settings),
            _disconnect,
        )

    @property
    def _values(self) -> Any:
        return self._client.get()[self.database][self.collection]

    @property
    def _parts(self) -> Any:
        return self._client.get()[self.database][f"{self.collection}.parts"]

    def _refuse(self, cause: Exception) -> NoReturn:
        """Raise the client's error as one of ours."""
        from pymongo import errors

        kind = StoreError
        code = getattr(cause, "code", None)
        text = " ".join(str(cause).split())
        if code in {13, 18}:
            kind = StorePermissionError
        elif isinstance(cause, errors.NetworkTimeout | errors.ExecutionTimeout):
            kind = StoreTimeoutError
        elif isinstance(cause, errors.ConnectionFailure):  # no server can be found, too
            kind = StoreConnectionError
            text = text.partition(", Timeout:")[0]  # the rest tells the client's inner state
        raise kind(f"{self!r}: {type(cause).__name__}: {text}") from cause

    def _is_old(self) -> bool:
        """Whether zarr-python 2 wrote the collection."""
        if self._old is None:
            document = self._values.find_one({}, {"_id": 1, "key": 1})
            if document is None:
                return False  # empty: it may become either
            self._old = "key" in document and not isinstance(document["_id"], str)
        return self._old

    # ---- reading -------------------------------------------------------------------------------

    def _documents(self, keys: list[str]) -> dict[str, Document]:
        if self._is_old():
            found = self._values.find({"key": {"$in": keys}}, {"_id": 0})
            return {one["key"]: {"v": one["value"], "n": len(one["value"])} for one in found}
        found = self._values.find({"_id": {"$in": keys}}, {"json": 0})
        return {one["_id"]: one for one in found}

    def _ranges(self, spans: list[Span]) -> list[bytes | memoryview | None]:
        from pymongo.errors import PyMongoError

        try:
            documents = self._documents(list(dict.fromkeys(key for key, _, _ in spans)))
            return [self._range(documents.get(span[0]), span) for span in spans]
        except PyMongoError as cause:
            self._refuse(cause)

    def _range(self, document: Document | None, span: Span) -> bytes | memoryview | None:
        key, offset, nbytes = span
        for _ in range(TRIES):
            if document is None:
                return None
            if "g" not in document:
                value = memoryview(document["v"])
                return value[offset:] if nbytes == REST else value[offset : offset + nbytes]
            size = document["n"]
            lo = max(size + offset, 0) if offset < 0 else min(offset, size)
            hi = size if nbytes == REST else min(lo + nbytes, size)
            data = self._joined(key, document["g"], lo, hi)
            if data is not None:
                return data
            document = self._documents([key]).get(key)  # replaced meanwhile
        raise DataError("parts of the value are missing", key=key)

    def _joined(self, key: str, version: Any, lo: int, hi: int) -> memoryview | None:
        """Bytes of a value that has parts; None where one is gone."""
        first, last = lo // PART_NBYTES, max(hi - 1, lo) // PART_NBYTES
        if hi <= lo:
            return memoryview(b"")
        found = self._parts.find(
            {"k": key, "g": version, "i": {"$gte": first, "$lte": last}}, {"_id": 0, "i": 1, "v": 1}
        ).sort("i", 1)
        parts = [(one["i"], one["v"]) for one in found]
        if [i for i, _ in parts] != list(range(first, last + 1)):
            return None
        whole = memoryview(b"".join(data for _, data in parts))
        start = lo - first * PART_NBYTES
        return whole[start : start + hi - lo]

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        (data,) = self._ranges([(key, offset, nbytes)])
        return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if len(spans) == 1 and memory.kind == "host":
            return super().read_spans(spans, memory)

        def ask(block: list[Span]) -> list[bytes | memoryview | None]:
            try:
                return self._ranges(block)
            except StoreError as cause:
                fail("read", block[0][0], cause)

        values: list[memoryview | None] = []
        parts = [spans[a : a + READ_KEYS] for a in range(0, len(spans), READ_KEYS)]
        for answers in map_ahead(ask, parts, self.concurrency):
            values += [None if data is None else memoryview(data) for data in answers]
        return gather(values, memory)

    def size(self, key: str) -> int | None:
        from pymongo.errors import PyMongoError

        try:
            if self._is_old():
                document = self._documents([key]).get(key)
            else:
                document = self._values.find_one({"_id": key}, {"n": 1})
        except PyMongoError as cause:
            self._refuse(cause)
        return None if document is None else int(document["n"])

    # ---- listing -------------------------------------------------------------------------------

    def _page(self, lo: str, hi: str | None, n: int) -> list[str]:
        from pymongo.errors import PyMongoError

        try:
            name = "key" if self._is_old() else "_id"
            limits = {"$gte": lo} if hi is None else {"$gte": lo, "$lt": hi}
            found = self._values.find({name: limits}, {name: 1}).sort(name, 1).limit(n)
            return [one[name] for one in found]
        except PyMongoError as cause:
            self._refuse(cause)

    def walk(self, prefix: str) -> Iterator[str]:
        return walk_by_page(self._page, prefix)

    def children(self, prefix: str) -> Iterable[str]:
        return children_by_page(self._page, prefix)

    # ---- writing -------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self._is_old():
            raise StoreError(
                f"{self!r} was written by zarr-python 2 and is only read: copy it to another store"
            )
        if not self._ready:
            self._parts.create_index([("k", 1), ("g", 1), ("i", 1)])
            self._ready = True

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        """Store values, up to 8 MiB in one request."""
        self._check_writable()
        for block in blocks(items, nbytes=BLOCK_NBYTES, count=BLOCK_ITEMS):
            self._put_block(block)

    def _put_block(self, items: list[Item]) -> None:
        try:
            self._store(items)
        except StoreError as cause:
            fail("write", items[0][0], cause)

    def _store(self, items: list[Item]) -> None:
        from bson import ObjectId
        from pymongo import ReplaceOne
        from pymongo.errors import PyMongoError

        try:
            self._prepare()
            version = ObjectId()
            for key, value in items:
                if len(value) > WHOLE_NBYTES:
                    self._put_parts(key, value, version)
            keys = [key for key, _ in items]
            apart = {one["_id"] for one in self._with_parts({"$in": keys})}
            changes = []
            for key, value in items:
                document = _document(key, value, version)
                if "g" in document or key in apart:
                    # What it replaces is known for certain then: parts of a value that another
                    # writer is about to store are not taken for old ones.
                    old = self._values.find_one_and_replace(
                        {"_id": key}, document, {"g": 1}, upsert=True
                    )
                    self._drop_parts([old] if old else [])
                else:
                    changes.append(ReplaceOne({"_id": key}, document, upsert=True))
            if changes:
                self._values.bulk_write(changes, ordered=False)
        except PyMongoError as cause:
            self._refuse(cause)

    def _with_parts(self, keys: Document) -> list[Document]:
        return list(self._values.find({"_id": keys, "g": {"$exists": True}}, {"g": 1}))

    def _drop_parts(self, documents: list[Document]) -> None:
        """Remove the parts of documents that are no longer there."""
        for old in documents:
            if "g" in old:
                self._parts.delete_many({"k": old["_id"], "g": old["g"]})

    def _put_parts(self, key: str, value: bytes, version: Any) -> None:
        view = memoryview(value)
        for a in range(0, len(value), BLOCK_NBYTES):
            some = range(a, min(a + BLOCK_NBYTES, len(value)), PART_NBYTES)
            self._parts.insert_many(
                [
                    {
                        "k": key,
                        "g": version,
                        "i": lo // PART_NBYTES,
                        "v": bytes(view[lo : lo + PART_NBYTES]),
                    }
                    for lo in some
                ]
            )

    def write(self, key: str, data: memoryview) -> None:
        self._store([(key, bytes(data))])

    def remove_many(self, keys: list[str]) -> None:
        """Remove keys, 500 in one request."""
        from pymongo.errors import PyMongoError

        try:
            self._prepare()
            for a in range(0, len(keys), BLOCK_ITEMS):
                self._delete_documents({"$in": keys[a : a + BLOCK_ITEMS]})
        except PyMongoError as cause:
            self._refuse(cause)

    def _delete_documents(self, keys: Document) -> None:
        old = self._with_parts(keys)
        self._values.delete_many({"_id": keys})
        self._drop_parts(old)

    def remove_prefix(self, prefix: str) -> None:
        from pymongo.errors import PyMongoError

        lo, hi = bounds(prefix)
        limits = {"$gte": lo} if hi is None else {"$gte": lo, "$lt": hi}
        try:
            self._prepare()
            self._delete_documents(limits)
        except PyMongoError as cause:
            self._refuse(cause)

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all connections; they are made again when needed."""
        self._client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in {"_client", "_old", "_ready"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MongoStore):
            return NotImplemented
        mine = (self._url, self.database, self.collection, self.read_only)
        return mine == (other._url, other.database, other.collection, other.read_only)

    def __hash__(self) -> int:
        return hash((MongoStore, self._url, self.database, self.collection))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown!r}, collection={self.collection!r})"


def _document(key: str, value: bytes, version: Any) -> Document:
    if len(value) > WHOLE_NBYTES:
        return {"_id": key, "n": len(value), "g": version}
    document: Document = {"_id": key, "n": len(value), "v": value}
    if key.rpartition("/")[2] in _JSON:
        readable = _readable(value)
        if readable is not None:
            document["json"] = readable
    return document


def _readable(value: bytes) -> Any:
    """A JSON object as a subdocument, or None where MongoDB would not take it."""
    import bson

    try:
        found = json.loads(value)
        if isinstance(found, dict):
            bson.encode(found)
            return found
    except (ValueError, OverflowError, RecursionError, bson.errors.BSONError):
        return None  # a number too large, a name with a NUL, ...: the bytes are what counts
    return None


def _connect(
    make_client: Callable[..., Any] | None, url: str, timeout: float, settings: dict[str, Any]
) -> Any:
    from pymongo import MongoClient

    milliseconds = max(int(timeout * 1000), 1)
    return (make_client or MongoClient)(
        url,
        **{
            "serverSelectionTimeoutMS": milliseconds,
            "connectTimeoutMS": milliseconds,
            "socketTimeoutMS": milliseconds,
            "appname": "zarr_gpu",
            **settings,
        },
    )


def _disconnect(client: Any) -> None:
    client.close()
