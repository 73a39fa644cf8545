"""Stores: where keys and their bytes live.

A store's file is imported when its name is first used.  Third parties add stores for URL schemes by
:func:`register_scheme` or by an entry point of group ``zarr_gpu.stores``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarr_gpu.storage.base import Store
    from zarr_gpu.storage.cache import CacheStore
    from zarr_gpu.storage.couchdb import CouchStore
    from zarr_gpu.storage.dbm import DbmStore
    from zarr_gpu.storage.fsspec import FsspecStore
    from zarr_gpu.storage.http import HttpStore
    from zarr_gpu.storage.latency import LatencyStore
    from zarr_gpu.storage.lmdb import LmdbStore
    from zarr_gpu.storage.local import LocalStore
    from zarr_gpu.storage.logs import LoggingStore
    from zarr_gpu.storage.memory import MemoryStore
    from zarr_gpu.storage.mongodb import MongoStore
    from zarr_gpu.storage.n5 import N5Store
    from zarr_gpu.storage.nested import NestedStore
    from zarr_gpu.storage.obstore import ObstoreStore
    from zarr_gpu.storage.opening import StoreLike, open_store, register_scheme
    from zarr_gpu.storage.redis import RedisStore
    from zarr_gpu.storage.reference import ReferenceStore
    from zarr_gpu.storage.retry import RetryStore
    from zarr_gpu.storage.sql import SqlStore
    from zarr_gpu.storage.wrappers import CountingStore, FaultyStore, PrefixStore, ReadOnlyStore
    from zarr_gpu.storage.zarr_python import ZarrPythonStore
    from zarr_gpu.storage.zip import ZipStore
    from zarr_gpu.storage.zip_nested import NestedZipStore

_PUBLIC = {
    "CacheStore": "cache",
    "CouchStore": "couchdb",
    "DbmStore": "dbm",
    "LmdbStore": "lmdb",
    "MongoStore": "mongodb",
    "N5Store": "n5",
    "NestedStore": "nested",
    "RedisStore": "redis",
    "SqlStore": "sql",
    "CountingStore": "wrappers",
    "FaultyStore": "wrappers",
    "FsspecStore": "fsspec",
    "HttpStore": "http",
    "LatencyStore": "latency",
    "LocalStore": "local",
    "LoggingStore": "logs",
    "MemoryStore": "memory",
    "NestedZipStore": "zip_nested",
    "ObstoreStore": "obstore",
    "PrefixStore": "wrappers",
    "ReadOnlyStore": "wrappers",
    "ReferenceStore": "reference",
    "RetryStore": "retry",
    "Store": "base",
    "StoreLike": "opening",
    "ZarrPythonStore": "zarr_python",
    "ZipStore": "zip",
    "open_store": "opening",
    "register_scheme": "opening",
}

__all__ = [
    "CacheStore",
    "CouchStore",
    "CountingStore",
    "DbmStore",
    "FaultyStore",
    "FsspecStore",
    "HttpStore",
    "LatencyStore",
    "LmdbStore",
    "LocalStore",
    "LoggingStore",
    "MemoryStore",
    "MongoStore",
    "N5Store",
    "NestedStore",
    "NestedZipStore",
    "ObstoreStore",
    "PrefixStore",
    "ReadOnlyStore",
    "RedisStore",
    "ReferenceStore",
    "RetryStore",
    "SqlStore",
    "Store",
    "StoreLike",
    "ZarrPythonStore",
    "ZipStore",
    "open_store",
    "register_scheme",
]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
