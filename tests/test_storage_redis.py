"""The Redis store, against a real server."""

# ruff: noqa: E402  what is optional is asked for first

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from server_redis import redis_server
from servers import find, free_port, running
from store_arrays import StoreArraySuite
from store_databases import check_bounded_memory, check_unreachable
from store_suite import StoreSuite, fetch, in_child

import zarr_gpu
from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import (
    StorePermissionError,
    StoreTimeoutError,
)
from zarr_gpu.storage.opening import open_store

redis = pytest.importorskip("redis")

from redis.backoff import NoBackoff
from redis.retry import Retry

from zarr_gpu.storage import redis as module
from zarr_gpu.storage.redis import RedisStore

__all__ = ["redis_server"]  # a fixture

numbers = itertools.count()


class TestRedis(StoreSuite, StoreArraySuite):
    title = "Redis"

    @pytest.fixture
    def store(self, redis_server: str) -> Iterator[Store]:
        with RedisStore(f"{redis_server}/0", prefix=f"s{next(numbers)}") as store:
            yield store

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, RedisStore)
        return RedisStore(store._url, prefix=store.prefix, read_only=True)


@pytest.fixture
def store(redis_server: str) -> Iterator[RedisStore]:
    with RedisStore(f"{redis_server}/0", prefix=f"t{next(numbers)}") as store:
        yield store


@pytest.fixture
def client(redis_server: str) -> Iterator[Any]:
    with closing(redis.Redis.from_url(f"{redis_server}/0")) as client:
        yield client


def commands(client: Any, name: str) -> int:
    """How often the server was asked for a command."""
    return int(client.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])


def test_how_it_is_stored(store: RedisStore, client: Any) -> None:
    store.put_many([("a/x", b"1"), ("b", b"")])
    assert client.get(f"{store.prefix}:a/x") == b"1"
    assert client.zrange(store.prefix, 0, -1) == [b"", b"a/x", b"b"]
    store.delete_many(["a/x", "b"])
    assert client.keys(f"{store.prefix}*") == [store.prefix.encode()]


def test_many_keys_take_few_commands(store: RedisStore, client: Any) -> None:
    store.put_many((f"k/{i}", b"%d" % i) for i in range(1000))
    before = {name: commands(client, name) for name in ("mget", "get", "exec", "scan")}
    assert fetch(store, *((f"k/{i}", 0, REST) for i in range(1000))) == [
        b"%d" % i for i in range(1000)
    ]
    assert len(list(store.list_prefix("k"))) == 1000
    assert store.list_dir() == ("k",)
    fetch(store, *((f"k/{i}", 0, 1) for i in range(640)))
    after = {name: commands(client, name) - n for name, n in before.items()}
    assert after == {"mget": 16, "get": 0, "exec": 10, "scan": 0}


def test_a_batch_of_many_blocks_is_all_or_nothing(
    store: RedisStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_NBYTES", 1000)
    store.put("k/00", b"old")
    seen = []

    def items(error: Exception | None) -> Iterator[tuple[str, bytes]]:
        for i in range(50):
            seen.append(store.get("k/00"))
            yield f"k/{i:02}", b"new" * 100
        if error is not None:
            raise error

    with pytest.raises(ZeroDivisionError):
        store.put_many(items(ZeroDivisionError()))
    assert list(store.list_prefix()) == ["k/00"]
    store.put_many(items(None))
    assert seen == [b"old"] * 100
    assert [store.get(f"k/{i:02}") for i in range(50)] == [b"new" * 100] * 50
    names = client.keys(f"{store.prefix}*")
    assert len(names) == 51  # nothing that was staged is left
    assert all(client.ttl(name) == -1 for name in names)  # and nothing expires


def test_a_batch_takes_bounded_memory(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_NBYTES", 1 << 20)
    check_bounded_memory(store, 8 << 20)


def test_a_refused_batch_leaves_nothing(redis_server: str, client: Any) -> None:
    client.set("taken", b"a string where the index should be")
    with RedisStore(f"{redis_server}/0", prefix="taken") as store:
        with pytest.raises(StoreError, match="choose another prefix") as caught:
            store.put_many([("a", b"1"), ("b", b"2")])
        assert caught.value.key == "a"
        assert repr(store) in str(caught.value)
    assert client.keys("taken*") == [b"taken"]


def test_what_zarr_python_2_wrote(store: RedisStore, client: Any) -> None:
    """Values alone, without an index; and other names that look alike."""
    prefix = f"old[{store.prefix}]*"
    for key, value in ((".zgroup", b'{"zarr_format": 2}'), ("x/0.0", b"chunk"), ("x/é", b"")):
        client.set(f"{prefix}:{key}", value)
    client.set(prefix.replace("*", "?") + ":other", b"")
    client.set(f"{prefix}:bad//key", b"")
    with RedisStore(store._url, prefix=prefix, read_only=True) as old:
        assert list(old.list_prefix()) == [".zgroup", "x/0.0", "x/é"]
        assert list(old.list_prefix("x")) == ["x/0.0", "x/é"]
        assert old.list_dir() == (".zgroup", "x")
        assert fetch(old, ("x/0.0", 1, 3), ("x/é", 0, REST)) == [b"hun", b""]
        assert isinstance(zarr_gpu.open(old), zarr_gpu.Group)
        assert not client.exists(prefix)
    with RedisStore(store._url, prefix=prefix) as old:
        old.put("new", b"1")
        before = commands(client, "scan")
        assert list(old.list_prefix()) == [".zgroup", "new", "x/0.0", "x/é"]
        assert commands(client, "scan") == before
        old.delete_prefix("")


def test_other_prefixes_are_other_stores(store: RedisStore) -> None:
    with RedisStore(store._url, prefix=f"{store.prefix}x") as other:
        store.put("a", b"1")
        other.put("b", b"2")
        assert list(store.list_prefix()) == ["a"]
        assert list(other.list_prefix()) == ["b"]
        assert store != other
        other.delete_prefix("")
        assert store.get("a") == b"1"


def test_a_forked_child_writes(store: RedisStore) -> None:
    store.put("x", b"1")

    def child() -> bool:
        store.put("y", b"2")
        return store.get("x") == b"1"

    assert in_child(child)
    assert store.get("y") == b"2"


def test_no_server() -> None:
    client = {"retry": Retry(NoBackoff(), 3)}  # as many as by default, without its pauses
    with RedisStore(f"redis://127.0.0.1:{free_port()}/0", timeout=2, client=client) as store:
        check_unreachable(store, "refused")


def test_a_wrong_password(redis_server: str) -> None:
    del redis_server  # started by its own means below, with a password
    port = free_port()
    command = [find("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    with running([*command, "--requirepass", "secret"], port):
        url = f"redis://127.0.0.1:{port}/0"
        with RedisStore(url, password="secret") as store:
            store.put("x", b"1")
            assert store.get("x") == b"1"
        for settings in ({}, {"password": "wr0ng"}):
            with (
                RedisStore(url, **settings) as store,
                pytest.raises(StorePermissionError) as caught,
            ):
                store.get("x")
            assert caught.value.key == "x"
            assert "wr0ng" not in str(caught.value) + repr(store)


def test_a_server_that_does_not_answer(store: RedisStore, client: Any) -> None:
    store.put("x", b"1")
    with RedisStore(store._url, prefix=store.prefix, timeout=0.1) as impatient:
        client.client_pause(3000)
        with pytest.raises(StoreTimeoutError) as caught:
            impatient.get("x")
        client.client_unpause()
        assert caught.value.key == "x"
        assert impatient.get("x") == b"1"


def test_lost_connections_are_made_again(store: RedisStore, client: Any) -> None:
    store.put("x", b"1")
    client.client_kill_filter(_type="normal", skipme=True)
    assert store.get("x") == b"1"
    client.client_kill_filter(_type="normal", skipme=True)
    store.put("x", b"2")
    assert store.get("x") == b"2"


def test_values_above_the_servers_limit(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    for call in (store.put, lambda key, data: store.put_many([("a", b"1"), (key, data)])):
        with pytest.raises(StoreError, match="at most 1000 bytes") as caught:
            call("x", bytes(1001))
        assert caught.value.key == "x"
    assert list(store.list_prefix()) == []


def test_urls(redis_server: str) -> None:
    store, path = open_store(f"{redis_server}/3?prefix=p&timeout=3&concurrency=2#a/b")
    assert isinstance(store, RedisStore)
    assert path == "a/b"
    assert (store.prefix, store.timeout, store.concurrency) == ("p", 3, 2)
    assert store != RedisStore(f"{redis_server}/2", prefix="p")
    store.put("x", b"1")
    assert RedisStore(f"{redis_server}/2", prefix="p").get("x") is None
    store.delete_prefix("")
    store.close()
    assert open_store(redis_server, mode="r")[0].read_only


@pytest.mark.parametrize(
    "url", ["redis://host/0?prefix=", "redis://host/0?timeout=0", "redis://host/0#a//b"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidKeyError):
        open_store(url)


def test_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.connection", None)
    with pytest.raises(MissingDependencyError, match=r"zarr-gpu\[redis\]"):
        open_store("redis://host/0")
