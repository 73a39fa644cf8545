"""Stores: where keys and their bytes live.

A store's file is imported when its name is first used.  Third parties add stores for URL schemes by
:func:`register_scheme` or by an entry point of group ``zarr_gpu.stores``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarr_gpu.storage.base import Store
    from zarr_gpu.storage.couchdb import CouchStore
    from zarr_gpu.storage.dbm import DbmStore
    from zarr_gpu.storage.fsspec import FsspecStore
    from zarr_gpu.storage.lmdb import LmdbStore
    from zarr_gpu.storage.local import LocalStore
    from zarr_gpu.storage.memory import MemoryStore
    from zarr_gpu.storage.mongodb import MongoStore
    from zarr_gpu.storage.n5 import N5Store
    from zarr_gpu.storage.nested import NestedStore
    from zarr_gpu.storage.opening import StoreLike, open_store, register_scheme
    from zarr_gpu.storage.redis import RedisStore
    from zarr_gpu.storage.sql import SqlStore
    from zarr_gpu.storage.wrappers import CountingStore, FaultyStore, PrefixStore, ReadOnlyStore
    from zarr_gpu.storage.zip import ZipStore

_PUBLIC = {
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
    "LocalStore": "local",
    "MemoryStore": "memory",
    "PrefixStore": "wrappers",
    "ReadOnlyStore": "wrappers",
    "Store": "base",
    "StoreLike": "opening",
    "ZipStore": "zip",
    "open_store": "opening",
    "register_scheme": "opening",
}

__all__ = [
    "CouchStore",
    "CountingStore",
    "DbmStore",
    "FaultyStore",
    "FsspecStore",
    "LmdbStore",
    "LocalStore",
    "MemoryStore",
    "MongoStore",
    "N5Store",
    "NestedStore",
    "PrefixStore",
    "ReadOnlyStore",
    "RedisStore",
    "SqlStore",
    "Store",
    "StoreLike",
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
