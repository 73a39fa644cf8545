"""The CouchDB store, against PouchDB's server, and against a server that answers as told."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from server_pouchdb import pouchdb
from servers import free_port
from store_arrays import StoreArraySuite
from store_databases import check_unreachable
from store_suite import StoreSuite, fetch

from zarr_gpu.errors import DataError, InvalidKeyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.couchdb import CouchStore
from zarr_gpu.storage.failures import (
    StorePermissionError,
    StoreTimeoutError,
)
from zarr_gpu.storage.opening import open_store

__all__ = ["pouchdb"]  # a fixture

numbers = itertools.count()


@pytest.fixture
def store(pouchdb: str) -> Iterator[CouchStore]:
    store, _ = open_store(f"{pouchdb}/suite?prefix=s{next(numbers)}")
    assert isinstance(store, CouchStore)
    yield store
    store.close()


class TestCouch(StoreSuite, StoreArraySuite):
    title = "CouchDB (PouchDB)"

    many_keys = 1000
    many_chunks = 100
    many_turns = 4

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, CouchStore)
        url = f"couchdb+http://{store._host}:{store._port}/{store._database}?prefix={store.prefix}"
        return open_store(url, mode="r")[0]


def test_how_it_is_stored(store: CouchStore) -> None:
    text = b'{"zarr_format":  3, "node_type": "group"}'
    store.put_many([("g/zarr.json", text), ("g/c/0", b"\x01\x02"), ("zarr.json", b"{")])
    document = store._json("GET", store._path(f"{store.prefix}/g/zarr.json"))
    assert document["json"] == {"zarr_format": 3, "node_type": "group"}
    assert store.get("g/zarr.json") == text  # to the byte
    assert store.get("zarr.json") == b"{"
    document = store._json("GET", store._path(f"{store.prefix}/g/c/0"))
    assert document["_attachments"]["v"]["content_type"] == "application/octet-stream"
    assert "json" not in document


def test_other_prefixes_are_other_stores(store: CouchStore, pouchdb: str) -> None:
    other, _ = open_store(f"{pouchdb}/suite?prefix={store.prefix}x")
    store.put("a", b"1")
    other.put("b", b"2")
    assert list(store.list_prefix()) == ["a"]
    assert list(other.list_prefix()) == ["b"]
    assert other != store
    other.close()


def test_no_database(pouchdb: str) -> None:
    with open_store(f"{pouchdb}/absent")[0] as store:
        assert store.get("x") is None
        assert store.list_dir() == ()
        store.delete_many(["x"])
    with (
        open_store(f"{pouchdb}/absent", mode="r")[0] as store,
        pytest.raises(StoreError, match="no such database") as caught,
    ):
        store.get("x")
    assert caught.value.key == "x"


def test_no_server() -> None:
    with open_store(f"couchdb+http://zarr:secret@127.0.0.1:{free_port()}/db")[0] as store:
        check_unreachable(store, "refused")


Handler = Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]


@pytest.fixture
def answering() -> Iterator[Callable[..., tuple[CouchStore, list[Any]]]]:
    """A store on a server that answers with what a function of the request says."""
    opened: list[Any] = []

    def start(handler: Handler, **options: Any) -> tuple[CouchStore, list[Any]]:
        seen: list[Any] = []

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                self.document = json.loads(body) if body else None
                seen.append((self.command, self.path, dict(self.headers), self.document))
                status, answer = handler(self)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_PUT = do_POST = do_GET  # noqa: N815  the class's usage

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        store = CouchStore(f"http://127.0.0.1:{server.server_port}/db", **options)
        opened.append((store, server, thread))
        return store, seen

    yield start
    for store, server, thread in opened:
        store.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_ranges_are_asked_for(answering: Any) -> None:
    """As CouchDB answers them; PouchDB's server sends all there is."""
    value = bytes(range(100))

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        asked = request.headers.get("Range")
        if asked is None:
            return 200, value
        lo, _, hi = asked.removeprefix("bytes=").partition("-")
        if not lo:
            return 206, value[-int(hi) :]
        return (206, value[int(lo) : int(hi) + 1 if hi else None]) if int(lo) < 100 else (416, b"")

    store, seen = answering(answer)
    ranges = (("x", 10, 5), ("y", -7, REST), ("z", 90, REST), ("u", 0, REST), ("v", 100, REST))
    assert fetch(store, *ranges) == [value[10:15], value[-7:], value[90:], value, b""]
    assert sorted(str(headers.get("Range")) for _, _, headers, _ in seen) == [
        "None",
        "bytes=-7",
        "bytes=10-14",
        "bytes=100-",
        "bytes=90-",
    ]
    assert seen[0][1].startswith("/db/zarr%2F")


def test_the_account(answering: Any) -> None:
    store, seen = answering(lambda _: (200, b"1"), username="zärr", password="s:cret")
    store.get("x")
    assert seen[0][2]["Authorization"] == "Basic esOkcnI6czpjcmV0"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, StorePermissionError),
        (403, StorePermissionError),
        (400, StoreError),
        (409, StoreError),
        (429, StoreError),
        (500, StoreError),
        (503, StoreError),
    ],
)
def test_refusals_are_errors(answering: Any, status: int, kind: type[StoreError]) -> None:
    store, _ = answering(lambda _: (status, b'{"error": "e", "reason": "because"}'))
    for call in (
        lambda: store.get("x"),
        lambda: store.nbytes("x"),
        lambda: fetch(store, ("x", 0, 1), ("x", -1, REST)),
        lambda: store.put("x", b"2"),
        lambda: store.put_many([("x", b"2")]),
        lambda: store.delete_many(["x"]),
        lambda: list(store.list_prefix("x")),
        lambda: store.delete_prefix("x"),
    ):
        with pytest.raises(kind, match="because") as caught:
            call()
        assert type(caught.value) is kind
        assert caught.value.key == "x"
        assert str(status) in str(caught.value)


def test_answers_that_make_no_sense(answering: Any) -> None:
    store, _ = answering(lambda _: (200, b"<html>"))
    for call in (lambda: store.nbytes("x"), lambda: list(store.list_prefix("x"))):
        with pytest.raises(StoreError, match="not JSON"):
            call()
    store, _ = answering(lambda _: (200, b"{}"))
    with pytest.raises(DataError, match="no attachment"):
        store.nbytes("x")


def test_a_server_that_does_not_answer(answering: Any) -> None:
    wait = threading.Event()
    store, _ = answering(lambda _: (wait.wait(10), (200, b""))[1], timeout=0.1)
    with pytest.raises(StoreTimeoutError) as caught:
        store.get("x")
    assert caught.value.key == "x"
    wait.set()


def test_conflicts_are_tried_again_but_not_for_ever(answering: Any) -> None:
    def answer(request: Any) -> tuple[int, bytes]:
        if request.path.endswith("_bulk_docs"):
            rows = [{"id": one["_id"], "error": "conflict"} for one in request.document["docs"]]
            return 201, json.dumps(rows).encode()
        return 200, b'{"rows": []}'

    store, seen = answering(answer)
    with pytest.raises(StoreError, match="again and again") as caught:
        store.put_many([("x", b"1"), ("y", b"2")])
    assert caught.value.key == "x"
    assert sum(path.endswith("_bulk_docs") for _, path, _, _ in seen) == 12


def test_one_refused_document_is_an_error(answering: Any) -> None:
    def answer(request: Any) -> tuple[int, bytes]:
        if request.path.endswith("_bulk_docs"):
            rows = [{"id": one["_id"], "ok": True} for one in request.document["docs"]]
            rows[1] = {"id": "zarr/y", "error": "forbidden", "reason": "not this one"}
            return 201, json.dumps(rows).encode()
        return 200, b'{"rows": []}'

    store, _ = answering(answer)
    with pytest.raises(StoreError, match="not this one"):
        store.put_many([("x", b"1"), ("y", b"2")])


def test_a_closed_connection_is_made_again(answering: Any) -> None:
    def answer(request: Any) -> tuple[int, bytes]:
        request.close_connection = True  # without a word
        return 200, b"1"

    store, seen = answering(answer)
    assert [store.get("x") for _ in range(5)] == [b"1"] * 5
    assert len(seen) == 5


@pytest.mark.parametrize(
    "url",
    [
        "couchdb+http://host",
        "couchdb+http:///db",
        "couchdb+http://host/a/b",
        "couchdb+http://host:port/db",
        "couchdb+http://host/db?prefix=_x",
        "couchdb+http://host/db?prefix=",
        "couchdb+http://host/db?other=1",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidKeyError):
        open_store(url)


def test_urls() -> None:
    store, path = open_store("couchdb+https://u:p@host/db?prefix=p&concurrency=3#a/b")
    assert isinstance(store, CouchStore)
    assert path == "a/b"
    assert (store._port, store._account, store.concurrency) == (6984, ("u", "p"), 3)
    assert open_store("couchdb+http://host/db")[0]._port == 5984  # type: ignore[attr-defined]
