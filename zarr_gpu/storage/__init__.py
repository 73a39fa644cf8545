"""Stores: where keys and their bytes live.

A store's file is imported when its name is first used.  Third parties add stores for URL schemes by
:func:`register_scheme` or by an entry point of group ``zarr_gpu.stores``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarr_gpu.storage.base import Store
    from zarr_gpu.storage.fsspec import FsspecStore
    from zarr_gpu.storage.http import HttpStore
    from zarr_gpu.storage.local import LocalStore
    from zarr_gpu.storage.memory import MemoryStore
    from zarr_gpu.storage.obstore import ObstoreStore
    from zarr_gpu.storage.opening import StoreLike, open_store, register_scheme
    from zarr_gpu.storage.reference import ReferenceStore
    from zarr_gpu.storage.wrappers import CountingStore, FaultyStore, PrefixStore, ReadOnlyStore
    from zarr_gpu.storage.zarr_python import ZarrPythonStore
    from zarr_gpu.storage.zip import ZipStore

_PUBLIC = {
    "CountingStore": "wrappers",
    "FaultyStore": "wrappers",
    "FsspecStore": "fsspec",
    "HttpStore": "http",
    "LocalStore": "local",
    "MemoryStore": "memory",
    "ObstoreStore": "obstore",
    "PrefixStore": "wrappers",
    "ReadOnlyStore": "wrappers",
    "ReferenceStore": "reference",
    "Store": "base",
    "StoreLike": "opening",
    "ZarrPythonStore": "zarr_python",
    "ZipStore": "zip",
    "open_store": "opening",
    "register_scheme": "opening",
}

__all__ = [
    "CountingStore",
    "FaultyStore",
    "FsspecStore",
    "HttpStore",
    "LocalStore",
    "MemoryStore",
    "ObstoreStore",
    "PrefixStore",
    "ReadOnlyStore",
    "ReferenceStore",
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
