"""Values of a web server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_http import HttpServer, http_server
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, ask, blob, fetch, parts

import zarr_gpu
from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage import attempts
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import (
    StoreArgumentError,
    StoreConnectionError,
    StorePermissionError,
    StoreTimeoutError,
)
from zarr_gpu.storage.http import HttpStore
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.opening import open_store

pytest.importorskip("urllib3", reason="extra http: urllib3 is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    with http_server(tmp_path) as running:
        yield running


@pytest.fixture
def store(server: HttpServer) -> Iterator[HttpStore]:
    with HttpStore(server.url) as opened:
        yield opened


def put(server: HttpServer, **values: bytes) -> None:
    LocalStore(server.folder).put_many(values.items())


class TestHttp(StoreSuite):
    title = "HTTP"
    writable = listable = False
    in_order = False

    @pytest.fixture
    def store(self, server: HttpServer) -> Iterator[Store]:
        self.server = server
        with HttpStore(f"{server.url}/a.zarr") as opened:
            yield opened

    def fill(self, store: Store, items: Iterable[tuple[str, Any]]) -> None:
        LocalStore(self.server.folder / "a.zarr").put_many(items)

    def read_only(self, store: Store) -> Store:
        return store


class ListedHttpStore(HttpStore):
    """Reads over HTTP; the folder that is served tells what keys there are."""

    supports_listing = True

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.folder = folder

    def walk(self, prefix: str) -> Iterator[str]:
        return LocalStore(self.folder).walk(prefix)


class TestArraysOverHttp(StoreArraySuite):
    """Written to files, read over HTTP."""

    @pytest.fixture
    def store(self, server: HttpServer) -> Store:
        self.server = server
        return LocalStore(server.folder / "a.zarr")

    def readable(self, store: Store) -> Store:
        return ListedHttpStore(f"{self.server.url}/a.zarr", self.server.folder / "a.zarr")


# ---- what is asked -------------------------------------------------------------------------------


def test_one_request_for_each_read(server: HttpServer, store: HttpStore) -> None:
    put(server, x=blob(1000))
    assert store.get("x") == blob(1000)
    assert fetch(store, ("x", 5, 10), ("x", 30, 10)) == [blob(1000)[5:15], blob(1000)[30:40]]
    assert fetch(store, ("x", -16, 16)) == [blob(1000)[-16:]]
    assert fetch(store, ("x", 990, REST)) == [blob(1000)[990:]]
    assert store.nbytes("x") == 1000
    assert server.requests == [
        ("GET", "x", ""),
        ("GET", "x", "bytes=5-39"),
        ("GET", "x", "bytes=-16"),
        ("GET", "x", "bytes=990-"),
        ("HEAD", "x", ""),
    ]


def test_connections_are_used_again(server: HttpServer, store: HttpStore) -> None:
    put(server, x=b"1")
    for _ in range(5):
        assert store.get("x") == b"1"
        assert store.get("absent") is None
        assert store.nbytes("x") == 1
    pools = store._connections().pools
    assert sum(pools[key].num_connections for key in pools.keys()) == 1  # noqa: SIM118


def test_requests_in_flight(server: HttpServer) -> None:
    keys = [f"k{i}" for i in range(60)]
    put(server, **{key: key.encode() for key in keys})
    server.delay = 0.02
    with HttpStore(server.url, concurrency=7) as store:
        answer = store.fetch(ByteRequest.whole(keys), HostMemory())
    assert parts(answer) == [key.encode() for key in keys]
    assert len(server.requests) == 60
    assert 4 <= server.most <= 7


def test_names_and_queries(server: HttpServer) -> None:
    LocalStore(server.folder / "a b").put("é+/x?y#z", b"1")
    store = HttpStore(f"{server.url}/a%20b/?sig=a%2Fb&t=1")
    assert store.get("é+/x?y#z") == b"1"
    assert "sig" not in repr(store)


def test_headers_and_credentials(server: HttpServer) -> None:
    put(server, x=b"1")
    options = {"headers": {"X-One": "1"}, "client_kwargs": {"headers": {"X-Two": "2"}}}
    store, _ = open_store(server.url, storage_options={**options, "auth": ("me", "pass")})
    assert store.get("x") == b"1"
    seen = server.headers[-1]
    assert (seen["x-one"], seen["x-two"]) == ("1", "2")
    assert seen["authorization"] == "Basic bWU6cGFzcw=="
    inside = HttpStore(server.url.replace("http://", "http://me:pass@"))
    assert inside.get("x") == b"1"
    assert server.headers[-1]["authorization"] == "Basic bWU6cGFzcw=="
    assert "pass" not in repr(inside)


# ---- servers that misbehave ----------------------------------------------------------------------


def test_a_server_that_ignores_ranges(server: HttpServer, store: HttpStore) -> None:
    value = blob(300_000)
    put(server, x=value, e=b"")
    server.fault = lambda method, path, n: "whole"
    assert fetch(store, ("x", 5, 10), ("x", 290_000, 7)) == [value[5:15], value[290_000:290_007]]
    store.max_gap = 0
    assert fetch(store, ("x", 5, 10), ("x", 290_000, 7)) == [value[5:15], value[290_000:290_007]]
    assert fetch(store, ("x", -16, 16), ("x", 299_999, REST)) == [value[-16:], value[-1:]]
    assert fetch(store, ("e", 0, REST)) == [b""]
    with pytest.raises(DataError) as caught:
        fetch(store, ("x", 299_999, 2))
    assert (caught.value.expected, caught.value.actual) == (2, 1)


@pytest.mark.parametrize("ranges", [[("x", 0, REST)], [("x", 10, 100)], [("x", -50, 50)]])
def test_an_answer_that_is_cut_off(server: HttpServer, ranges: Any) -> None:
    value = blob(1000)
    put(server, x=value)
    store = HttpStore(server.url, retries=2)
    server.fault = lambda method, path, n: "truncate" if n % 3 else None
    expected = fetch(LocalStore(server.folder), *ranges)
    assert fetch(store, *ranges) == expected
    assert len(server.requests) == 3
    server.fault = lambda method, path, n: "truncate"
    with pytest.raises(StoreConnectionError, match="'x'"):
        fetch(store, *ranges)
    assert len(server.requests) == 6


def test_another_range_than_asked(server: HttpServer, store: HttpStore) -> None:
    put(server, x=blob(1000))
    for fault, text in (
        ("shift", "bytes from 11, not from 10"),
        ("no range header", "which range"),
    ):
        server.fault = lambda method, path, n, fault=fault: fault
        with pytest.raises(DataError, match=text) as caught:
            fetch(store, ("x", 10, 20))
        assert caught.value.key == "x"


def test_an_answer_compressed_unasked(server: HttpServer, store: HttpStore) -> None:
    put(server, x=blob(1000))
    server.fault = lambda method, path, n: "encode"
    with pytest.raises(DataError, match="compresses"):
        store.get("x")
    assert server.headers[-1]["accept-encoding"] == "identity"


def test_past_the_end_without_a_length(server: HttpServer, store: HttpStore) -> None:
    put(server, x=b"0123456789")
    server.fault = lambda method, path, n: "no range header"
    assert fetch(store, ("x", 10, REST)) == [b""]
    with pytest.raises(DataError, match="too short"):
        fetch(store, ("x", 10, 1))


def test_sizes_of_servers_that_answer_no_head(server: HttpServer, store: HttpStore) -> None:
    put(server, x=b"12345", e=b"")
    server.fault = lambda method, path, n: "405" if method == "HEAD" else None
    assert (store.nbytes("x"), store.nbytes("e"), store.nbytes("no")) == (5, 0, None)
    server.fault = lambda method, path, n: "no length"
    assert store.nbytes("x") == 5
    server.fault = lambda method, path, n: "whole" if method == "GET" else "405"
    assert store.nbytes("x") == 5


def test_redirects(server: HttpServer, store: HttpStore) -> None:
    put(server, x=blob(100), y=blob(100, 1))
    server.fault = lambda method, path, n: "redirect /y" if path == "x" else None
    assert fetch(store, ("x", 10, 5)) == [blob(100, 1)[10:15]]
    server.fault = lambda method, path, n: "redirect /x"
    with pytest.raises(StoreError, match="too many redirects"):
        store.get("x")


def test_a_redirect_to_another_host_takes_no_credentials(
    server: HttpServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other_folder = tmp_path_factory.mktemp("other")
    with http_server(other_folder) as other:
        put(other, x=b"1")
        server.fault = lambda method, path, n: f"redirect {other.url}/x"
        inside = server.url.replace("http://", "http://me:pass@")
        store = HttpStore(inside, headers={"X-Key": "secret"})
        assert store.get("x") == b"1"
        assert {"authorization", "x-key"} <= set(server.headers[-1])
        assert not {"authorization", "x-key"} & set(other.headers[-1])
        assert fetch(store, ("x", 0, 1)) == [b"1"]
        assert other.requests[-1] == ("GET", "x", "bytes=0-0")
        # A file of another scheme is never opened.
        server.fault = lambda method, path, n: "redirect file:///etc/hostname"
        with pytest.raises(StoreError):
            HttpStore(server.url, retries=0).get("x")


# ---- failures ------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for between attempts."""
    monkeypatch.setattr(attempts, "pause", lambda attempt: 0.001)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "kind", "requests"),
    [
        ("403", StorePermissionError, 1),
        ("401", StorePermissionError, 1),
        ("400", StoreError, 1),
        ("500", StoreError, 3),
        ("503", StoreError, 3),
        ("429", StoreError, 3),
        ("504", StoreTimeoutError, 3),
        ("drop", StoreConnectionError, 3),
        ("hang", StoreTimeoutError, 3),
    ],
)
def test_failures_are_never_missing_values(
    server: HttpServer, fault: str, kind: type[Exception], requests: int
) -> None:
    put(server, x=b"1")
    server.fault = lambda method, path, n: fault
    store = HttpStore(server.url, retries=2, timeout=0.2)
    with pytest.raises(kind) as caught:
        store.get("x")
    assert caught.value.key == "x"  # type: ignore[attr-defined]
    assert len(server.requests) == requests
    for call in (
        lambda: store.exists("x"),
        lambda: fetch(store, ("x", 0, REST)),
        lambda: fetch(store, ("x", 0, 1), ("y", 0, 1)),
        lambda: fetch(store, ("x", -1, 1)),
    ):
        with pytest.raises(StoreError):
            call()


def test_nobody_there() -> None:
    store = HttpStore("http://127.0.0.1:9", retries=2)
    began = time.monotonic()
    with pytest.raises(StoreConnectionError, match="'x'"):
        store.get("x")
    assert time.monotonic() - began < 10


def test_absent_by_other_statuses(server: HttpServer) -> None:
    server.fault = lambda method, path, n: "403"
    store, _ = open_store(server.url, storage_options={"missing_status": (403, 404)})
    assert store.get("x") is None
    assert not store.exists("x")
    assert fetch(store, ("x", 0, 10), ("y", -5, 5)) == [None, None]
    server.fault = lambda method, path, n: "410"
    assert HttpStore(server.url).get("x") is None


def test_a_fifth_of_all_requests_fails(server: HttpServer) -> None:
    values = np.arange(40 * 40, dtype="i4").reshape(40, 40)
    array = zarr_gpu.create_array(
        LocalStore(server.folder), shape=(40, 40), chunks=(4, 4), dtype="i4"
    )
    array[...] = values
    kinds = ["503", "drop", "truncate", "500", "429"]
    server.fault = lambda method, path, n: kinds[n // 5 % 5] if n % 5 == 0 else None
    read = zarr_gpu.open_array(server.url, mode="r")[...]
    assert np.array_equal(np.asarray(read), values)
    assert len(server.requests) > 120  # 100 chunks, and the fifth again

    server.fault = lambda method, path, n: "503" if path.endswith("c/3/3") else None
    opened = zarr_gpu.open_array(server.url, mode="r", storage_options={"retries": 2})
    with pytest.raises(StoreError, match=r"'c/3/3'.*503"):
        opened[...]


# ---- opening -------------------------------------------------------------------------------------


def test_groups_by_consolidated_metadata(server: HttpServer) -> None:
    folder = LocalStore(server.folder)
    group = zarr_gpu.create_group(folder)
    group.create_array("a/b", shape=10, chunks=5, dtype="i2")[:] = np.arange(10)
    opened = zarr_gpu.open_group(server.url, mode="r", use_consolidated=False)
    assert np.array_equal(np.asarray(opened["a/b"][:]), np.arange(10))  # a known path
    with pytest.raises(StoreError, match="cannot list"):
        list(opened.members())
    zarr_gpu.consolidate_metadata(folder)
    consolidated = zarr_gpu.open_group(server.url, mode="r")
    assert [name for name, _ in consolidated.members(max_depth=None)] == ["a", "a/b"]


def test_it_cannot_be_written(store: HttpStore) -> None:
    with pytest.raises(ReadOnlyError):
        store.put("x", b"1")
    with pytest.raises(ReadOnlyError):
        open_store(store, mode="w")


@pytest.mark.parametrize("url", ["http://", "https:///path", "ftp://host/x", "http:x"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(InvalidKeyError):
        HttpStore(url)


def test_options(server: HttpServer) -> None:
    store, path = open_store(
        f"{server.url}/a.zarr",
        storage_options={"concurrency": 5, "retries": 1, "timeout": 9, "block_size": 5},
    )
    assert isinstance(store, HttpStore)
    assert (store.concurrency, store.retries, store.timeout, path) == (5, 1, 9, "")
    for bad in (
        {"hedaers": {}},
        {"client_kwargs": {"cookies": 1}},
        {"concurrency": 0},
        {"retries": "many"},
        {"missing_status": 500},
        {"missing_status": "x"},
        {"backend": "obstore"},
    ):
        with pytest.raises(StoreArgumentError, match=next(iter(bad))):
            open_store(server.url, storage_options=bad)


def test_through_fsspec_on_request(server: HttpServer) -> None:
    pytest.importorskip("aiohttp", reason="extra s3: aiohttp is not installed")
    put(server, x=b"123")
    store, _ = open_store(server.url, storage_options={"backend": "fsspec"})
    assert type(store).__name__ == "FsspecStore"
    assert store.get("x") == b"123"
    assert store.get("no") is None
    request = ask(("x", 1, 2), ("no", 0, 1))
    assert parts(store.fetch(request, HostMemory())) == [b"23", None]
