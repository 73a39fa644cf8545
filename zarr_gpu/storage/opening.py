"""From what users call a store to a ``Store`` and a path inside it.

Imports the stores themselves, the less common ones on first use; called by everything that opens or
creates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, ReadOnlyError
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import StoreArgumentError
from zarr_gpu.storage.keys import check_prefix
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore, named_memory

__all__ = ["StoreArgumentError", "StoreLike", "open_store", "register_scheme"]

StoreLike = Store | str | os.PathLike[str] | Mapping[str, Any] | None

Opener = Callable[..., "Store | tuple[Store, str]"]
"""Called with the URL and ``read_only=``, ``storage_options=``."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
_DRIVE = re.compile(r"[A-Za-z]:")
_openers: dict[str, Opener] = {}

# Schemes of our own stores: the module in this folder that has a function ``open_url``.  It is
# imported when the first URL of its kind is opened.
_CLOUD = ["s3", "s3a", "s3n", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "wasb", "wasbs"]
_MODULES: dict[str, str] = {
    **dict.fromkeys(_CLOUD, "obstore"),
    **dict.fromkeys(("http", "https"), "http"),
    "reference": "reference",
    "sqlite": "sql",
    "postgresql": "sql",
    "postgres": "sql",
    "postgresql+psycopg": "sql",
    "mysql": "sql",
    "mysql+pymysql": "sql",
    "mariadb": "sql",
    "mariadb+pymysql": "sql",
    "couchdb+http": "couchdb",
    "couchdb+https": "couchdb",
    "dbm": "dbm",
    "lmdb": "lmdb",
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
    "redis": "redis",
    "rediss": "redis",
}

# Schemes that stand before another, as in n5+file:///...: that store, seen in another way.
_VIEWS = {"n5": ("n5", "N5Store"), "nested": ("nested", "NestedStore")}

# Packages whose stores are taken as they are, by the first part of the name of their module.
_PACKAGES = {"obstore": "obstore", "zarr": "zarr_python"}

# The same URLs can be opened through fsspec, where that is asked for or what is needed is missing.
_FSSPEC_TOO = frozenset([*_CLOUD, "http", "https"])


def register_scheme(scheme: str, opener: Opener) -> None:
    """Open URLs ``scheme://...`` with ``opener(url, read_only=..., storage_options=...)``.

    It returns a store, or a store and a path inside it.  Packages register theirs as entry points
    of the group ``zarr_gpu.stores``, named by the scheme.
    """
    _openers[scheme.lower()] = opener


def open_store(
    store_like: StoreLike = None,
    *,
    mode: str | None = None,
    read_only: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[Store, str]:
    """Open a store.

    Parameters
    ----------
    store_like
        A ``Store``; a directory or ``*.zip`` or ``*.ozx`` file as ``str`` or path; a URL:
        ``file://``, ``memory://name/path``, ``zip://file.zip/path``, ``zip://path::URL`` of a zip
        file anywhere, ``s3://``, ``gs://``, ``az://``, ``http://``, ``https://``,
        ``reference://``, or of any kind that fsspec or a registered opener knows; a mapping of
        keys to bytes, fsspec's included; a store object of obstore's or of zarr-python's kind;
        None for a fresh store in memory.
    mode
        "r" opens read-only; "w" makes a zip file anew.
    read_only
        Whether writes are refused; by default where ``mode`` is "r" or the store itself says so.
    storage_options
        For URLs: handed to whatever opens them.

    Returns
    -------
    store, path
        ``path`` is "" or, for URLs that name one, the path of a node inside the store.

    Raises
    ------
    StoreArgumentError
        ``store_like`` is of another type, or ``storage_options`` came without a URL.
    InvalidKeyError
        The URL is malformed or of an unknown kind.
    MissingDependencyError
        The package for this kind of URL is not installed.

    Examples
    --------
    >>> open_store({"zarr.json": b"{}"})[0].get("zarr.json")
    b'{}'
    >>> open_store("memory://example/a/b")[1]
    'a/b'
    """
    refuse = mode == "r" if read_only is None else read_only
    if isinstance(store_like, str) and ("::" in store_like or _URL.match(store_like)):
        store, path = _open_url(store_like, mode, refuse, storage_options)
    else:
        if storage_options:
            raise StoreArgumentError(
                f"storage_options are for URLs, not for {_describe(store_like)}"
            )
        store, path = _open_other(store_like, mode, refuse), ""
    if refuse and not store.read_only:
        from zarr_gpu.storage.wrappers import ReadOnlyStore

        store = ReadOnlyStore(store)
    if store.read_only and (mode in {"w", "w-", "x"} or read_only is False):
        raise ReadOnlyError(f"{store!r} is read-only")
    return store, path


def _open_other(store_like: Any, mode: str | None, refuse: bool) -> Store:
    if store_like is None:
        return MemoryStore(read_only=refuse)
    if isinstance(store_like, Store):
        return store_like
    if isinstance(store_like, str | os.PathLike):
        return _open_path(os.fspath(store_like), mode, refuse)
    if isinstance(store_like, Mapping):
        if type(store_like).__module__ == "fsspec.mapping":
            from zarr_gpu.storage.fsspec import FsspecStore

            mapper: Any = store_like
            return FsspecStore(mapper.fs, mapper.root, read_only=refuse)
        return MemoryStore(store_like, read_only=refuse)
    adapted = _adapt(store_like, refuse)
    if adapted is not None:
        return adapted
    raise StoreArgumentError(
        f"{_describe(store_like)} is not a store: give a Store, a path, a URL or a mapping"
    )


def _adapt(thing: Any, refuse: bool) -> Store | None:
    """The store object of another package as one of ours."""
    packages = {kind.__module__.partition(".")[0] for kind in type(thing).__mro__}
    module = next((name for package, name in _PACKAGES.items() if package in packages), None)
    if module is None:
        return None
    if module == "zarr_python" and type(thing).__name__ == "ObjectStore":
        # obstore's own store is inside: used at first hand it is faster, and survives a fork.
        inner = _adapt(thing.store, refuse or thing.read_only)
        if inner is not None:
            return inner
    adapt: Callable[..., Store | None] = import_module(f"zarr_gpu.storage.{module}").adapt
    return adapt(thing, read_only=refuse)


def _open_path(path: str, mode: str | None, refuse: bool) -> Store:
    if not isinstance(path, str):
        raise StoreArgumentError(f"a path must be text, not {_describe(path)}")
    if not path:
        raise InvalidKeyError("an empty path; write '.' for the working directory")
    if path.lower().endswith((".zip", ".ozx")) and not os.path.isdir(path):  # noqa: PTH112
        return _open_zip(path, mode, refuse)
    if path.lower().endswith(".n5"):
        from zarr_gpu.storage.n5 import N5Store

        return N5Store(LocalStore(path, read_only=True))
    return LocalStore(path, read_only=refuse)


def _open_zip(path: str, mode: str | None, refuse: bool) -> Store:
    from zarr_gpu.storage.zip import ZipStore

    if refuse:
        return ZipStore(path, mode="r")
    return ZipStore(path, mode="w" if mode == "w" else "a")


def _open_url(
    url: str, mode: str | None, refuse: bool, options: Mapping[str, Any] | None
) -> tuple[Store, str]:
    if url.lower().startswith("zip::"):
        url = f"zip://{url[3:]}"
    match = _URL.match(url)
    if match and match.group(1).lower() == "zip":
        return _open_zip_url(url, mode, refuse, options)
    scheme = match.group(1).lower() if match and "::" not in url else ""
    rest = url[match.end() :] if match else ""
    view, plus, _ = scheme.partition("+")
    if plus and view in _VIEWS:
        store, path = _open_url(url[len(view) + 1 :], "r", True, options)
        module, name = _VIEWS[view]
        kind: Any = getattr(import_module(f"zarr_gpu.storage.{module}"), name)
        return (store if type(store) is kind else kind(store)), path
    opener = _openers.get(scheme)
    if opener is None and scheme in _FSSPEC_TOO:
        return _open_remote(url, scheme, refuse, options), ""
    opener = opener or _built_in(scheme) or _entry_point(scheme)
    if opener is not None:
        opened = opener(url, read_only=refuse, storage_options=options)
        return (opened, "") if isinstance(opened, Store) else opened
    if scheme in {"file", "local", "memory"} and options:
        raise StoreArgumentError(f"{scheme}:// takes no storage_options")
    if scheme in {"file", "local"}:
        return _open_path(_path_of_file_url(url, rest), mode, refuse), ""
    if scheme == "memory":
        name, _, path = rest.partition("/")
        return named_memory(name, read_only=refuse), check_prefix(path)
    from zarr_gpu.storage.fsspec import FsspecStore

    return FsspecStore.from_url(url, storage_options=options, read_only=refuse), ""


def _open_remote(url: str, scheme: str, refuse: bool, options: Mapping[str, Any] | None) -> Store:
    """What both a store of ours and fsspec can open: ours, unless fsspec is all that is there."""
    from zarr_gpu.storage.fsspec import FsspecStore

    given = dict(options or {})
    backend = given.pop("backend", None)
    names = {None, "fsspec", _MODULES[scheme]}
    if backend not in names:
        wanted = " or ".join(repr(name) for name in sorted(filter(None, names)))
        raise StoreArgumentError(f"the backend of {scheme}:// is {wanted}, not {backend!r}")
    if backend == "fsspec":
        return FsspecStore.from_url(url, storage_options=given, read_only=refuse)
    opener: Any = _built_in(scheme)
    try:
        store: Store = opener(url, read_only=refuse, storage_options=given)
    except MissingDependencyError as missing:
        if backend is not None:
            raise
        try:
            store = FsspecStore.from_url(url, storage_options=given, read_only=refuse)
        except MissingDependencyError:
            raise missing from missing.__cause__
    return store


def _open_zip_url(
    url: str, mode: str | None, refuse: bool, options: Mapping[str, Any] | None
) -> tuple[Store, str]:
    """``zip://FOLDER/FILE.zip/NODE``, or ``zip://NODE::URL`` for an archive that lies elsewhere."""
    rest = url.partition("://")[2]
    inner, chained, outer = rest.partition("::")
    if chained and not outer.lower().startswith(("file://", "local://")):
        folder, _, name = outer.rpartition("/")
        if not name or folder.endswith(("/", ":")):
            raise InvalidKeyError(f"{url!r} names no file in a store")
        from zarr_gpu.storage.zip_nested import NestedZipStore

        store, prefix = open_store(folder, mode="r", storage_options=options)
        return NestedZipStore(store, f"{prefix}/{name}".lstrip("/")), check_prefix(inner)
    if options:
        raise StoreArgumentError("zip:// takes no storage_options")
    if chained:
        match = _URL.match(outer)
        path = _path_of_file_url(outer, outer[match.end() :] if match else "")
        return _open_zip(path, mode, refuse), check_prefix(inner)
    found = re.match(r"(.*?\.(?:zip|ozx))(?:/(.*))?$", rest, re.IGNORECASE)
    if found is None:
        raise InvalidKeyError(f"{url!r} names no file that ends in .zip or .ozx")
    return _open_zip(found.group(1), mode, refuse), check_prefix(found.group(2) or "")


def _path_of_file_url(url: str, rest: str) -> str:
    from urllib.parse import unquote

    host, slash, path = rest.partition("/")
    if host not in {"", "localhost"} or not slash:
        raise InvalidKeyError(
            f"{url!r} names the host {host!r}: write three slashes before an absolute path"
        )
    path = unquote(path)
    return path if _DRIVE.match(path) and os.name == "nt" else f"/{path}"


def _built_in(scheme: str) -> Opener | None:
    module = _MODULES.get(scheme)
    if module is None:
        return None
    opener: Opener = import_module(f"zarr_gpu.storage.{module}").open_url
    return opener


def _entry_point(scheme: str) -> Opener | None:
    if not scheme or scheme in {"file", "local", "memory"}:
        return None
    from importlib.metadata import entry_points

    for point in entry_points(group="zarr_gpu.stores", name=scheme):
        try:
            opener: Opener = point.load()
        except ImportError as cause:
            raise MissingDependencyError(
                f"{scheme}:// is opened by {point.value}, which cannot be imported: {cause}"
            ) from cause
        register_scheme(scheme, opener)
        return opener
    return None


def _describe(thing: object) -> str:
    return f"an object of type {type(thing).__name__}"
