"""The MongoDB store, against a double of the client: no server is to be had for tests."""

# ruff: noqa: E402  what is optional is asked for first

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from servers import free_port
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, blob, fetch

import zarr_gpu
from zarr_gpu.errors import DataError, InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import (
    StoreConnectionError,
    StorePermissionError,
    StoreTimeoutError,
)
from zarr_gpu.storage.opening import open_store

pytest.importorskip("pymongo")
mongomock = pytest.importorskip("mongomock")

from mongomock.collection import BulkOperationBuilder
from mongomock.store import ServerStore
from pymongo import errors

from zarr_gpu.storage import mongodb
from zarr_gpu.storage.mongodb import MongoStore

URL = "mongodb://host/db"

# pymongo hands over an argument, always None here, that the double does not know yet.
add_replace = BulkOperationBuilder.add_replace


def add_replace_with_sort(self: Any, *arguments: Any, sort: None = None, **settings: Any) -> None:
    add_replace(self, *arguments, **settings)


BulkOperationBuilder.add_replace = add_replace_with_sort
server = ServerStore()


def connect(url: str, **settings: Any) -> Any:
    """A client of one server for all of this process."""
    return mongomock.MongoClient(_store=server)


lock = threading.RLock()


class LockedStore(MongoStore):
    """For the double, which empties a document before it fills it with what replaces it."""

    def _ranges(self, *arguments: Any) -> Any:
        with lock:
            return super()._ranges(*arguments)

    def _store(self, *arguments: Any) -> None:
        with lock:
            super()._store(*arguments)

    def _delete_documents(self, *arguments: Any) -> None:
        with lock:
            super()._delete_documents(*arguments)

    def _page(self, *arguments: Any) -> Any:
        with lock:
            return super()._page(*arguments)


@pytest.fixture
def client() -> Iterator[Any]:
    client = connect(URL)
    yield client
    client.drop_database("db")


@pytest.fixture
def store(client: Any) -> Iterator[MongoStore]:
    with LockedStore(URL, make_client=connect) as store:
        yield store


class TestMongo(StoreSuite, StoreArraySuite):
    title = "MongoDB (a double)"
    shared = many_writers = durable = spawns = False  # the double lives in this process
    large_nbytes = 5 << 20  # more than the 4 MiB of one document

    many_keys = 1000  # the double looks at all documents for each
    many_chunks = 100

    def read_only(self, store: Store) -> Store:
        return MongoStore(URL, make_client=connect, read_only=True)


class TestMongoParts(StoreSuite):
    """Where nearly every value has parts."""

    title = "MongoDB (a double), in parts"
    shared = many_writers = durable = spawns = False
    large_nbytes = 100_000

    many_keys = 200

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mongodb, "WHOLE_NBYTES", 64)
        monkeypatch.setattr(mongodb, "PART_NBYTES", 300)

    @pytest.mark.parametrize("n", [0, 1, 100, 7000])
    def test_a_value_comes_back(self, store: Store, n: int) -> None:
        store.put("x", blob(n))
        assert store.get("x") == blob(n)

    def test_any_request_against_slices(self, store: Store) -> None:
        super().test_any_request_against_slices(store)


def test_how_it_is_stored(store: MongoStore, client: Any) -> None:
    text = b'{"zarr_format":  3, "node_type": "group", "attributes": {"a.b": [1.50]}}'
    store.put_many([("g/zarr.json", text), ("g/c/0", b"\x01\x02")])
    documents = {one["_id"]: one for one in client["db"]["zarr"].find()}
    assert documents == {
        "g/c/0": {"_id": "g/c/0", "n": 2, "v": b"\x01\x02"},
        "g/zarr.json": {
            "_id": "g/zarr.json",
            "n": len(text),
            "v": text,
            "json": {"zarr_format": 3, "node_type": "group", "attributes": {"a.b": [1.5]}},
        },
    }
    assert store.get("g/zarr.json") == text  # to the byte
    assert client["db"]["zarr"].count_documents({"json.node_type": "group"}) == 1


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[1]",
        b'{"a": 123456789012345678901234567890}',
        b'{"a\\u0000": 1}',
        b"\xff",
        b"[" * 9999,
    ],
)
def test_metadata_that_mongodb_would_not_take(store: MongoStore, client: Any, text: bytes) -> None:
    store.put("zarr.json", text)
    assert store.get("zarr.json") == text
    assert "json" not in client["db"]["zarr"].find_one()


def test_large_values_have_parts(store: MongoStore, client: Any) -> None:
    value = blob(17_000_000)
    store.put_many([("x", value), ("y", b"1")])
    parts = client["db"]["zarr.parts"]
    assert parts.count_documents({}) == 17
    assert store.get("x") == value
    assert store.nbytes("x") == len(value)
    assert fetch(store, ("x", 1_048_570, 20), ("x", -3, REST), ("y", 0, REST)) == [
        value[1_048_570:1_048_590],
        value[-3:],
        b"1",
    ]
    store.put("x", value[:5_000_000])
    assert parts.count_documents({}) == 5
    assert store.get("x") == value[:5_000_000]
    store.put("x", b"small")
    assert parts.count_documents({}) == 0
    assert store.get("x") == b"small"
    store.put("x", value[:5_000_000])
    store.delete_many(["x"])
    assert parts.count_documents({}) == 0
    store.put("d/x", value[:5_000_000])
    store.move("d", "e")
    assert store.get("e/x") == value[:5_000_000]
    store.delete_prefix("e")
    assert parts.count_documents({}) == 0


def test_a_range_takes_only_its_parts(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("x", blob(6_000_000))
    asked = []
    joined = MongoStore._joined

    def note(self: MongoStore, key: str, version: Any, lo: int, hi: int) -> Any:
        asked.append((lo, hi))
        return joined(self, key, version, lo, hi)

    monkeypatch.setattr(MongoStore, "_joined", note)
    assert fetch(store, ("x", 3_000_000, 10)) == [blob(6_000_000)[3_000_000:3_000_010]]
    assert asked == [(3_000_000, 3_000_010)]


def test_missing_parts_are_an_error(store: MongoStore, client: Any) -> None:
    store.put("x", blob(6_000_000))
    client["db"]["zarr.parts"].delete_one({"i": 3})
    with pytest.raises(DataError, match="missing") as caught:
        store.get("x")
    assert caught.value.key == "x"
    assert fetch(store, ("x", 0, 10)) == [blob(6_000_000)[:10]]


def test_a_write_that_fails_half_way_leaves_the_old_value(
    store: MongoStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = blob(6_000_000)
    store.put("x", old)

    def broken(self: Any, *arguments: Any, **settings: Any) -> None:
        raise errors.AutoReconnect("connection closed")

    monkeypatch.setattr(mongomock.Collection, "find_one_and_replace", broken)
    with pytest.raises(StoreConnectionError, match="connection closed") as caught:
        store.put("x", blob(7_000_000, 1))
    assert caught.value.key == "x"
    assert store.get("x") == old
    monkeypatch.undo()
    store.put("x", old)
    assert store.get("x") == old


def test_parts_of_a_slower_writer_are_kept(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writer stores its value between the two steps of another."""
    first, second = blob(6_000_000, 1), blob(6_000_000, 2)
    put_parts = MongoStore._put_parts

    def slow(self: MongoStore, key: str, value: bytes, version: Any) -> None:
        put_parts(self, key, value, version)
        if value == first:
            store.put("x", second)
            assert store.get("x") == second

    monkeypatch.setattr(MongoStore, "_put_parts", slow)
    store.put("x", first)
    assert store.get("x") == first


def test_what_zarr_python_2_wrote(store: MongoStore, client: Any) -> None:
    items = ((".zgroup", b'{"zarr_format": 2}'), ("x/0.0", b"chunk"), ("x/é", b""))
    for key, value in items:
        client["db"]["zarr"].insert_one({"key": key, "value": value})
    assert list(store.list_prefix()) == [".zgroup", "x/0.0", "x/é"]
    assert list(store.list_prefix("x")) == ["x/0.0", "x/é"]
    assert store.list_dir() == (".zgroup", "x")
    assert fetch(store, ("x/0.0", 1, 3), ("x/é", 0, REST), ("z", 0, 1)) == [b"hun", b"", None]
    assert store.get(".zgroup") == items[0][1]
    assert store.nbytes("x/0.0") == 5
    assert isinstance(zarr_gpu.open(store, mode="r"), zarr_gpu.Group)
    for call in (
        lambda: store.put("a", b"1"),
        lambda: store.put_many([("a", b"1")]),
        lambda: store.delete_many(["a"]),
        lambda: store.delete_prefix("x"),
    ):
        with pytest.raises(StoreError, match="zarr-python 2"):
            call()
    assert client["db"]["zarr"].count_documents({}) == 3


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.OperationFailure("Authentication failed", 18), StorePermissionError),
        (errors.OperationFailure("not authorized", 13), StorePermissionError),
        (errors.OperationFailure("something else", 1), StoreError),
        (errors.NetworkTimeout("timed out"), StoreTimeoutError),
        (errors.ServerSelectionTimeoutError("refused, Timeout: 1s, ..."), StoreConnectionError),
    ],
)
def test_failures(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[StoreError]
) -> None:
    store.put("x", b"1")

    def broken(self: Any, *arguments: Any, **settings: Any) -> None:
        raise error

    for name in ("find", "find_one", "bulk_write", "delete_many"):
        monkeypatch.setattr(mongomock.Collection, name, broken)
    for call in (
        lambda: store.get("x"),
        lambda: store.nbytes("x"),
        lambda: fetch(store, ("x", 0, 1), ("y", 0, 1)),
        lambda: store.put("x", b"2"),
        lambda: store.put_many([("x", b"2")]),
        lambda: store.delete_many(["x"]),
        lambda: list(store.list_prefix("x")),
        lambda: store.delete_prefix("x"),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        assert caught.value.key == "x"
        assert repr(store) in str(caught.value)
        assert caught.value.__cause__ is error
        assert ", Timeout:" not in str(caught.value)


def test_no_server() -> None:
    """With the real client."""
    url = f"mongodb://zarr:secret@127.0.0.1:{free_port()}/db"
    with MongoStore(url, timeout=0.2) as store:
        for call in (lambda: store.get("x"), lambda: store.put("x", b"1")):
            with pytest.raises(StoreConnectionError, match="refused") as caught:
                call()
            assert caught.value.key == "x"
            assert "secret" not in str(caught.value) + repr(store)


def test_urls() -> None:
    url = "mongodb://host:1234/db?collection=c&timeout=3&replicaSet=r#a/b"
    store, path = open_store(url, storage_options={"concurrency": 2})
    assert isinstance(store, MongoStore)
    assert path == "a/b"
    assert store._url == "mongodb://host:1234/db?replicaSet=r"
    assert (store.database, store.collection) == ("db", "c")
    assert (store.timeout, store.concurrency) == (3, 2)
    assert open_store("mongodb://host", storage_options={"database": "d"})[0].database == "d"


@pytest.mark.parametrize(
    "url", ["mongodb://host", "mongodb://", "mongodb://host/db?timeout=0", "mongodb://a:b:c/db"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidKeyError):
        open_store(url)


def test_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymongo.uri_parser", None)
    with pytest.raises(MissingDependencyError, match=r"zarr-gpu\[mongodb\]"):
        open_store(URL)
