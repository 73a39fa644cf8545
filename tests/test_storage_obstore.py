"""Stores of obstore's: against servers of S3 and Azure, and in memory."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_azure import CONTAINER, azure_server
from server_azure import options as azure_options
from server_proxy import Proxy, proxy
from server_s3 import BUCKET, options, s3_server
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, at_once, fetch, in_child

import zarr_gpu
from zarr_gpu.errors import (
    InvalidKeyError,
    MissingDependencyError,
    ReadOnlyError,
    StoreError,
)
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.cloud_options import parse
from zarr_gpu.storage.failures import (
    StoreArgumentError,
    StoreConnectionError,
    StorePermissionError,
    StoreTimeoutError,
)
from zarr_gpu.storage.fsspec import FsspecStore
from zarr_gpu.storage.latency import LatencyStore
from zarr_gpu.storage.obstore import ObstoreStore
from zarr_gpu.storage.opening import open_store
from zarr_gpu.storage.wrappers import CountingStore

obstore = pytest.importorskip("obstore", reason="extra cloud: obstore is not installed")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


class TestS3(StoreSuite, StoreArraySuite):
    title = "S3 (obstore, moto)"
    many_keys = 300
    many_chunks = 200
    many_turns = 3
    in_order = False
    longest_key = 1024 - 37

    @pytest.fixture
    def store(self, s3: str) -> Store:
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        return open_store(url, storage_options=options(s3))[0]

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, ObstoreStore)
        return ObstoreStore(store.store, read_only=True)


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    with azure_server() as endpoint:
        yield endpoint


class TestAzure(StoreSuite, StoreArraySuite):
    title = "Azure (obstore, Azurite)"
    many_keys = 300
    many_chunks = 200
    many_turns = 3
    in_order = False
    longest_key = 1024 - 37

    @pytest.fixture
    def store(self, azure: str) -> Store:
        url = f"az://{CONTAINER}/{uuid.uuid4().hex}"
        return open_store(url, storage_options=azure_options(azure))[0]


class TestObstoreMemory(StoreSuite, StoreArraySuite):
    """A store object that the user made."""

    title = "obstore's MemoryStore"
    in_order = False
    forks = shared = many_writers = durable = spawns = False
    many_keys = 1_000

    test_a_pickled_store_means_the_same = None  # type: ignore[assignment]  # obstore cannot
    cannot_pickle = (TypeError,)

    @pytest.fixture
    def store(self) -> Store:
        return open_store(obstore.store.MemoryStore())[0]


# ---- a server that fails -------------------------------------------------------------------------


@pytest.fixture
def between(s3: str) -> Iterator[Proxy]:
    with proxy(s3) as running:
        yield running


def opened(endpoint: str, **more: Any) -> ObstoreStore:
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    store = open_store(url, storage_options=options(endpoint, **more))[0]
    assert isinstance(store, ObstoreStore)
    return store


def test_a_fifth_of_all_requests_fails(between: Proxy) -> None:
    kinds = ["503", "drop", "truncate", "500"]

    def fault(method: str, path: str, n: int) -> str | None:
        kind = kinds[n // 5 % 4]
        return kind if n % 5 == 0 and (kind != "truncate" or method == "GET") else None

    between.fault = fault
    store = opened(between.url)
    values = np.arange(1600, dtype="i4").reshape(40, 40)
    array = zarr_gpu.create_array(store, name="x", shape=(40, 40), chunks=(4, 4), dtype="i4")
    array[...] = values
    assert np.array_equal(np.asarray(zarr_gpu.open_array(store, path="x")[...]), values)
    assert np.array_equal(np.asarray(array[3:30:7, 5]), values[3:30:7, 5])
    assert len(between.requests) > 250  # 100 chunks written and read, and the fifth again


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("403", StorePermissionError),
        ("401", StorePermissionError),
        ("400", StoreError),
        ("500", StoreError),
        ("503", StoreError),
        ("drop", StoreError),
    ],
)
def test_failures_are_never_missing_values(
    between: Proxy, fault: str, kind: type[StoreError]
) -> None:
    store = opened(between.url, retries=1)
    store.put_many([("a", b"1"), ("b", b"2")])
    between.fault = lambda method, path, n: fault
    for call in (
        lambda: store.get("a"),
        lambda: store.exists("a"),
        lambda: fetch(store, ("a", 0, REST)),
        lambda: fetch(store, ("a", 0, 1), ("b", -1, 1)),
        lambda: store.put("a", b"3"),
        lambda: store.put_if_absent("a", b"3"),
        lambda: list(store.list_prefix()),
        store.list_dir,
    ):
        before = len(between.requests)
        with pytest.raises(kind) as caught:
            call()
        assert not isinstance(caught.value, FileNotFoundError)
        assert "Debug source" not in str(caught.value)
        assert len(between.requests) - before <= 4
    between.reset()
    assert store.get("a") == b"1"


def test_a_server_that_hangs(between: Proxy) -> None:
    store = opened(between.url, retries=0, client_options={"timeout": "300ms"})
    store.put("a", b"1")
    between.delay = 1
    with pytest.raises(StoreTimeoutError, match="'a'"):
        store.get("a")


def test_nobody_there() -> None:
    with pytest.raises(StoreConnectionError, match="'a'"):
        opened("http://127.0.0.1:9", retries=1).get("a")


def test_a_bucket_that_is_not_there(s3: str) -> None:
    store, _ = open_store("s3://no-such-bucket/a", storage_options=options(s3))
    for call in (lambda: store.get("x"), lambda: fetch(store, ("x", 0, 1), ("y", 0, 1))):
        with pytest.raises(StoreError, match="no such bucket"):
            call()
    with pytest.raises(StoreError, match="no such bucket"):
        list(store.list_prefix())


def test_absent_by_other_statuses(between: Proxy) -> None:
    store = opened(between.url, missing_status=(403, 404))
    store.put("a", b"1")
    between.fault = lambda method, path, n: "403" if path.endswith("b") else None
    assert store.get("b") is None
    assert not store.exists("b")
    assert fetch(store, ("a", 0, 1), ("b", 0, 5), ("b", -5, 5)) == [b"1", None, None]
    assert store.get("c") is None


# ---- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 6])
@pytest.mark.parametrize("concurrency", [20, 100])
def test_a_thousand_chunks_of_a_distant_store(threads: int, concurrency: int) -> None:
    """As many requests in flight as declared, for any number of lanes, and none twice."""
    inner = CountingStore(ObstoreStore(obstore.store.MemoryStore()))
    values = np.arange(1000, dtype="i2")
    array = zarr_gpu.create_array(inner, data=values, chunks=(1,), compressors=None, fill_value=-1)
    assert array.nchunks == 1000
    inner.reset()
    distant = LatencyStore(inner, 0.05, concurrency=concurrency)
    with zarr_gpu.config.set(threads=threads):
        got = np.asarray(zarr_gpu.open_array(distant, mode="r", zarr_format=3)[...])
    assert np.array_equal(got, values)
    assert inner.count("read") == distant.requests == 1001
    assert inner.bytes_read == 2000 + len(inner.get("zarr.json") or b"")
    assert 0.8 * concurrency <= distant.peak <= concurrency


def test_requests_that_a_server_sees(between: Proxy) -> None:
    store = opened(between.url, concurrency=20)
    array = zarr_gpu.create_array(store, shape=(200,), chunks=(1,), dtype="i2", compressors=None)
    array[:40] = np.arange(40)
    between.reset()
    between.delay = 0.05  # longer than the machine needs for its side of a request
    got = np.asarray(zarr_gpu.open_array(store, mode="r")[...])
    assert got[:40].tolist() == list(range(40))
    assert not got[40:].any()
    chunks = [path for _, path in between.requests if "/c/" in path]
    assert len(chunks) == len(set(chunks)) == 200
    assert 10 <= between.most <= 25  # 20, and answers that are sent but not yet counted as done


def test_ranges_of_a_shard(between: Proxy) -> None:
    store = opened(between.url)
    values = np.arange(4096, dtype="i2")
    array = zarr_gpu.create_array(
        store, shape=(4096,), chunks=(16,), shards=(2048,), dtype="i2", compressors=None
    )
    array[:] = values
    between.reset()
    assert np.array_equal(np.asarray(array[100:3000]), values[100:3000])
    shards = [path for _, path in between.requests if "/c/" in path]
    assert len(shards) == 6  # two indexes, and a range for each job


# ---- putting what is not there -------------------------------------------------------------------


def test_of_many_only_one_puts(s3: str) -> None:
    store = opened(s3)
    won: list[int] = []

    def claim(i: int) -> None:
        if store.put_if_absent("lock", b"%d" % i):
            won.append(i)

    at_once(*((lambda i=i: claim(i)) for i in range(8)))
    assert len(won) == 1
    assert store.get("lock") == b"%d" % won[0]
    assert not store.put_if_absent("lock", b"x")
    assert store.put_if_absent("other", b"")
    assert store.get("other") == b""
    with pytest.raises(ReadOnlyError):
        ObstoreStore(store.store, read_only=True).put_if_absent("third", b"")


# ---- opening -------------------------------------------------------------------------------------


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No credentials of the machine's."""
    for name in [n for n in os.environ if n.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def test_names_of_fsspec_and_of_obstore(clean: pytest.MonkeyPatch) -> None:
    one = parse(
        "s3://b/p/q/",
        {
            "key": "k",
            "secret": "s",
            "token": "t",
            "client_kwargs": {"endpoint_url": "http://h:1", "region_name": "r"},
            "config_kwargs": {"s3": {"addressing_style": "path"}, "read_timeout": 2},
            "use_listings_cache": False,
            "concurrency": 7,
        },
    )
    assert (one.kind, one.name, one.prefix, one.concurrency) == ("s3", "b", "p/q", 7)
    assert one.config == {
        "access_key_id": "k",
        "secret_access_key": "s",
        "session_token": "t",
        "endpoint": "http://h:1",
        "region": "r",
        "virtual_hosted_style_request": False,
    }
    assert one.client["allow_http"] is True
    assert one.client["read_timeout"] == "2000ms"
    two = parse("S3://b", {"access_key_id": "k", "secret_access_key": "s", "aws_region": "r"})
    assert two.config == {"access_key_id": "k", "secret_access_key": "s", "aws_region": "r"}


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("gs://b/p", {"token": "anon"}, {"skip_signature": True}),
        ("gcs://b", {"token": "a.json"}, {"service_account": "a.json"}),
        ("gs://b", {"token": {"a": 1}, "project": "p"}, {"service_account_key": '{"a": 1}'}),
        ("gs://b", {"token": "google_default"}, {}),
        (
            "az://c/p",
            {"account_name": "a", "anon": True},
            {"account_name": "a", "skip_signature": 1},
        ),
        (
            "abfs://c@a.dfs.core.windows.net/p",
            {"sas_token": "s"},
            {"account_name": "a", "sas_key": "s"},
        ),
        ("abfss://c@a.blob.x.net/p", {}, {"account_name": "a", "endpoint": "https://a.blob.x.net"}),
        (
            "az://c",
            {"account_name": "a", "credential": "k"},
            {"account_name": "a", "account_key": "k"},
        ),
    ],
)
def test_other_clouds(
    clean: pytest.MonkeyPatch, url: str, options: Any, expected: dict[str, Any]
) -> None:
    assert parse(url, options).config == expected


def test_keys_of_profiles(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = k\naws_secret_access_key = s\n"
        "[two]\naws_access_key_id = k2\naws_secret_access_key = s2\naws_session_token = t2\n"
    )
    (tmp_path / ".aws/config").write_text(
        "[default]\nregion = r1\n[profile two]\nregion = r2\nendpoint_url = http://h:2\n"
    )
    assert parse("s3://b", None).config == {
        "access_key_id": "k",
        "secret_access_key": "s",
        "region": "r1",
    }
    two = {
        "access_key_id": "k2",
        "secret_access_key": "s2",
        "session_token": "t2",
        "region": "r2",
        "endpoint": "http://h:2",
    }
    assert parse("s3://b", {"profile": "two"}).config == two
    clean.setenv("AWS_PROFILE", "two")
    assert parse("s3://b", None).config == two
    assert parse("s3://b", {"anon": True}).config == {"skip_signature": True}
    clean.setenv("AWS_ACCESS_KEY_ID", "e")
    assert parse("s3://b", None).config == {}
    with pytest.raises(StoreArgumentError, match="three"):
        parse("s3://b", {"profile": "three"})


def test_without_keys_only_amazon_is_asked_with_a_signature(clean: pytest.MonkeyPatch) -> None:
    assert parse("s3://b", None).config == {}
    assert parse("s3://b", {"endpoint_url": "https://s3.eu-west-1.amazonaws.com"}).config == {
        "endpoint": "https://s3.eu-west-1.amazonaws.com"
    }
    clean.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert parse("s3://b", None).config == {
        "endpoint": "http://minio:9000",
        "skip_signature": True,
    }


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("s3://b", {"acess_key": "k"}, "acess_key"),
        ("s3://b", {"client_kwargs": {"proxies": "x"}}, "proxies"),
        ("s3://b", {"config_kwargs": {"signature_version": "s3"}}, "signature_version"),
        ("s3://b", {"s3_additional_kwargs": {}}, "s3_additional_kwargs"),
        ("s3://b", {"concurrency": 0}, "concurrency"),
        ("s3://b", {"retries": -1}, "retries"),
        ("s3://b", {"missing_status": 503}, "missing_status"),
        ("s3://b", {"client_kwargs": {"verify": "/no/such.pem"}}, "certificates"),
        ("gs://b", {"token": 5}, "token"),
        ("az://b", {"credential": object()}, "credential"),
        ("s3://b", {"backend": "boto"}, "backend"),
    ],
)
def test_options_that_are_refused(
    clean: pytest.MonkeyPatch, url: str, options: Any, text: str
) -> None:
    with pytest.raises(StoreArgumentError, match=text):
        open_store(url, storage_options={"region": "r", **options} if "s3" in url else options)


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///x", "s3://key:secret@b/x", "s3://b/../x", "az:///x"]
)
def test_bad_urls(clean: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(InvalidKeyError):
        open_store(url)


def test_through_fsspec(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="extra s3: s3fs is not installed")
    ours = opened(s3)
    ours.put("x", b"123")
    url = f"s3://{BUCKET}/{ours.store.prefix}"
    asked, _ = open_store(url, storage_options=options(s3, backend="fsspec"))
    monkeypatch.setitem(sys.modules, "obstore", None)
    fallen_back, _ = open_store(url, storage_options=options(s3))
    for store in (asked, fallen_back):
        assert isinstance(store, FsspecStore)
        assert store.get("x") == b"123"
        assert store.get("y") is None
        assert fetch(store, ("x", 3, REST), ("y", 1, 1), ("x", -2, 2)) == [b"", None, b"23"]
        assert fetch(store, ("x", 3, REST)) == [b""]
    with pytest.raises(MissingDependencyError, match=r"zarr-gpu\[cloud\]"):
        open_store(url, storage_options=options(s3, backend="obstore"))
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match=r"zarr-gpu\[cloud\]"):
        open_store("gs://bucket/x")


# ---- forked children -----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_children_of_children_and_stores_made_in_them(s3: str) -> None:
    store = opened(s3)
    store.put("x", b"1")

    def child() -> bool:
        store.put("y", b"2")
        fresh = opened(s3)
        fresh.put("z", b"3")
        return fresh.get("z") == b"3" and in_child(lambda: store.get("y") == b"2")

    assert in_child(child)
    assert fetch(store, ("x", 0, 1), ("y", 0, 1)) == [b"1", b"2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_obstores_memory_cannot_be_taken_along() -> None:
    store = ObstoreStore(obstore.store.MemoryStore())
    store.put("x", b"1")

    def refused() -> bool:
        try:
            store.get("x")
        except StoreError as error:
            return "forked" in str(error)
        return False

    assert in_child(refused)
    assert store.get("x") == b"1"
