"""The Redis store, against a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from server_redis import redis_server
from store_arrays import StoreArraySuite
from store_suite import StoreSuite

from zarr_gpu.storage.base import Store

pytest.importorskip("redis")

from zarr_gpu.storage.redis import RedisStore

__all__ = ["redis_server"]  # a fixture

numbers = itertools.count()


class TestRedis(StoreSuite, StoreArraySuite):
    @pytest.fixture
    def store(self, redis_server: str) -> Iterator[Store]:
        with RedisStore(f"{redis_server}/0", prefix=f"s{next(numbers)}") as store:
            yield store

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, RedisStore)
        return RedisStore(store._url, prefix=store.prefix, read_only=True)
