"""Values in S3, Google Cloud Storage or Azure, or any other store of obstore's.

Requests are plain calls of obstore from the threads of ``storage/pool.py``: with many small values
that takes a fifth of the processor time of its asynchronous calls.  The bytes that obstore received
are copied once, into the memory asked for; a single value is not copied at all.

obstore retries what may pass (5xx, dropped connections, timeouts of reads) with growing pauses.
Only 404 is an absent key, unless ``missing_status`` says more; a missing bucket is an error.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; ``obstore`` on first use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from zarr_gpu.errors import StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.attempts import retrying
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.cloud_options import CONCURRENCY, Bucket, parse
from zarr_gpu.storage.failures import StoreArgumentError
from zarr_gpu.storage.obstore_library import functions, generation, native
from zarr_gpu.storage.pool import map_ahead

__all__ = ["ObstoreStore", "adapt", "open_url"]

_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_CLASSES = {"s3": "S3Store", "gcs": "GCSStore", "azure": "AzureStore"}
_BULK = {"S3Store": 1000, "AzureStore": 256}  # keys that one request can delete
_PART = 32 << 20  # values up to this size are one request
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S+")


class _CutOffError(ConnectionError):
    """An answer ended before its end."""


class ObstoreStore(Store):
    """Values in a store of obstore's.

    Parameters
    ----------
    store
        An ``obstore.store.S3Store``, ``GCSStore``, ``AzureStore``, ``LocalStore``, ...  Where the
        Zarr store begins is its ``prefix``.
    read_only
        Refuse writes.
    concurrency
        Requests in flight at once, by all readers of this process that use this number.
    missing_status
        HTTP statuses that mean an absent key.  Some buckets answer 403 for absent keys where the
        caller may not list: only ``(403, 404)`` makes these fill values.

    A process forked from one that has used obstore opens its stores anew by itself; a
    ``MemoryStore`` of obstore's cannot be taken along.

    Examples
    --------
    >>> from obstore.store import MemoryStore
    >>> store = ObstoreStore(MemoryStore())
    >>> store.put("a/x", b"0123456789")
    >>> store.get("a/x"), store.put_if_absent("a/x", b"other")
    (b'0123456789', False)
    """

    atomic_put_if_absent = True
    max_gap = 1 << 20

    def __init__(
        self,
        store: Any,
        *,
        read_only: bool = False,
        concurrency: int = CONCURRENCY,
        missing_status: tuple[int, ...] = (404,),
    ) -> None:
        self._store = store
        self._made = 0  # by the library that is imported, in a forked child too
        self.read_only = read_only
        self.concurrency = concurrency
        self.missing_status = missing_status

    @classmethod
    def from_url(
        cls, url: str, *, storage_options: Mapping[str, Any] | None = None, read_only: bool = False
    ) -> ObstoreStore:
        """The store at ``s3://bucket/path``, ``gs://...``, ``az://...`` and the like.

        Raises
        ------
        MissingDependencyError
            obstore is not installed.
        StoreArgumentError
            A storage option is unknown.
        InvalidKeyError
            The URL names no bucket.
        """
        bucket = parse(url, storage_options)
        return cls(
            _make(bucket),
            read_only=read_only,
            concurrency=bucket.concurrency,
            missing_status=bucket.missing_status,
        )

    @property
    def store(self) -> Any:
        """Obstore's store; one of its own in a forked child."""
        if self._made != generation():
            self._store, self._made = native(self._store, self._made), generation()
        return self._store

    # ---- reading -------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        # obstore tries again what failed before the answer began, not what was cut off.
        return retrying(
            lambda: self._read(key, offset, nbytes),
            retries=4,
            passing=lambda error: isinstance(error, _CutOffError),
        )

    def _read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        library, store = functions(), self.store
        try:
            if nbytes != REST:
                data: Buffer = library.get_range(store, key, start=offset, length=nbytes)
                return data
            if offset == 0:
                return library.get(store, key).bytes()  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001  obstore's errors have no common root of ours
            return self._past_the_end(key, offset, error)
        try:
            wanted = {"offset": offset} if offset > 0 else {"suffix": -offset}
            return library.get(store, key, options={"range": wanted}).bytes()  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001
            if offset < 0 and type(error).__name__ == "NotSupportedError":  # Azure
                return self._suffix(key, offset)
            return self._past_the_end(key, offset, error)

    def _suffix(self, key: str, offset: int) -> Buffer | None:
        total = self.size(key)
        if not total:
            return None if total is None else b""
        start = max(total + offset, 0)
        return self._read(key, start, total - start)

    def _past_the_end(self, key: str, offset: int, error: Exception) -> Buffer | None:
        """The answer to a range that failed: servers refuse those that begin at or past the end."""
        if self._absent(key, error):
            return None
        if _status(error) in {None, 416} and "range" in str(error).lower():
            total = self.size(key)
            if total is not None and (offset >= total or total == 0):
                return b""
        return _raise(error)

    def size(self, key: str) -> int | None:
        try:
            return int(functions().head(self.store, key)["size"])
        except Exception as error:  # noqa: BLE001
            if self._absent(key, error):
                return None
            _raise(error)

    def _absent(self, key: str, error: Exception) -> bool:
        self._check_bucket(key, error)
        if _not_found(error):
            return 404 in self.missing_status
        return _status(error) in self.missing_status

    def _check_bucket(self, key: str, error: Exception) -> None:
        if any(mark in str(error) for mark in _NO_BUCKET):
            raise StoreError(
                f"cannot reach {key!r}: {self!r}: there is no such bucket", key=key or None
            ) from error

    # ---- writing -------------------------------------------------------------------------------

    def write(self, key: str, data: memoryview) -> None:
        value = self._kept(data)
        try:
            functions().put(self.store, key, value, use_multipart=data.nbytes > _PART)
        except Exception as error:  # noqa: BLE001
            _raise(error)

    def write_if_absent(self, key: str, data: memoryview) -> bool:
        value = self._kept(data)
        try:
            functions().put(self.store, key, value, mode="create", use_multipart=False)
        except Exception as error:  # noqa: BLE001
            if isinstance(error, FileExistsError) or type(error).__name__ in {
                "AlreadyExistsError",
                "PreconditionError",
            }:
                return False
            _raise(error)
        return True

    def _kept(self, data: memoryview) -> Buffer:
        # obstore's MemoryStore keeps the buffer itself, which its owner may change.
        return bytes(data) if type(self.store).__name__ == "MemoryStore" else data

    def remove(self, key: str) -> None:
        self._delete_all(key)

    def remove_prefix(self, prefix: str) -> None:
        keys = list(self.walk(prefix))
        size = _BULK.get(type(self.store).__name__, 1)
        if size == 1:
            for _ in map_ahead(self.remove, keys, self.concurrency):
                pass
        for lo in range(0, len(keys) if size > 1 else 0, size):
            self._delete_all(keys[lo : lo + size])

    def _delete_all(self, keys: str | list[str]) -> None:
        """Deleting again what is deleted already does no harm, so that it can be tried again."""

        def delete() -> None:
            try:
                functions().delete(self.store, keys)
            except Exception as error:  # noqa: BLE001
                if not self._absent(str(keys)[:100], error):
                    _raise(error)

        retrying(delete, retries=3, passing=lambda e: isinstance(e, ConnectionError | TimeoutError))

    def rename_prefix(self, source: str, target: str) -> None:
        def copy(key: str) -> None:
            try:
                functions().copy(self.store, key, target + key[len(source) :])
            except Exception as error:  # noqa: BLE001
                _raise(error)

        for _ in map_ahead(copy, list(self.walk(source)), self.concurrency):
            pass
        self.remove_prefix(source)

    # ---- listing -------------------------------------------------------------------------------

    def walk(self, prefix: str) -> Iterator[str]:
        below = f"{prefix}/" if prefix else ""
        try:
            pages = list(functions().list(self.store, prefix or None, chunk_size=1000))
        except Exception as error:  # noqa: BLE001
            self._unlisted(prefix, error)
            return iter(())
        keys = (meta["path"] for page in pages for meta in page)
        return iter(sorted(key for key in keys if key.startswith(below)))

    def children(self, prefix: str) -> Iterable[str]:
        below = f"{prefix}/" if prefix else ""
        try:
            found = functions().list_with_delimiter(self.store, prefix or None)
        except Exception as error:  # noqa: BLE001
            self._unlisted(prefix, error)
            return ()
        paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return {
            path.rstrip("/")[len(below) :]
            for path in paths
            if path.startswith(below) and len(path.rstrip("/")) > len(below)
        }

    def _unlisted(self, prefix: str, error: Exception) -> None:
        self._check_bucket(prefix, error)
        if not _not_found(error):
            _raise(error)

    # ---- the rest ------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObstoreStore):
            return NotImplemented
        same = bool(self._store == other._store)
        return same and (self.read_only, self.missing_status) == (
            other.read_only,
            other.missing_status,
        )

    def __hash__(self) -> int:
        return hash((ObstoreStore, repr(self._store)))

    def __repr__(self) -> str:
        return f"ObstoreStore({self._store!r})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._made = 0  # unpickling makes stores of the library that is imported


def open_url(
    url: str, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
) -> Store:
    """Open ``s3://``, ``gs://``, ``az://`` and the like."""
    return ObstoreStore.from_url(url, storage_options=storage_options, read_only=read_only)


def adapt(store: Any, *, read_only: bool = False) -> Store | None:
    """A store object of obstore's as a store of ours; None where it is another thing."""
    known = all(hasattr(store, name) for name in ("get", "get_range", "put", "list"))
    return ObstoreStore(store, read_only=read_only) if known else None


def _make(bucket: Bucket) -> Any:
    functions()  # says what to install where obstore is missing
    import obstore.store

    config = bucket.config
    if bucket.provider is not None:
        config = {**config, "credential_provider": bucket.provider}
    try:
        return getattr(obstore.store, _CLASSES[bucket.kind])(
            bucket.name,
            prefix=bucket.prefix or None,
            client_options=bucket.client,
            retry_config=bucket.retry,
            **config,
        )
    except Exception as error:
        if type(error).__name__ == "UnknownConfigurationKeyError":
            key = re.search(r"key: '([^']*)'", str(error))
            name = key.group(1) if key else "?"
            raise StoreArgumentError(
                f"the storage option {name!r} is not known for {bucket.kind} stores; "
                "{'backend': 'fsspec'} hands all options to fsspec"
            ) from error
        raise StoreArgumentError(
            f"cannot open the {bucket.kind} bucket {bucket.name!r}: {_text(error)}"
        ) from error


# --------------------------------------------------------------------------------- errors


def _text(error: Exception) -> str:
    """The readable part of an obstore error, without the queries of URLs: some hold signatures."""
    first = str(error).split("\n\nDebug source", 1)[0].strip()
    return _QUERY.sub(r"\1?...", first)[:1000] or type(error).__name__


def _status(error: Exception) -> int | None:
    """The HTTP status that an obstore error speaks of."""
    found = _STATUS.search(str(error))
    return int(found.group(1)) if found else None


def _not_found(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or type(error).__name__ == "NotFoundError"


def _raise(error: Exception) -> NoReturn:
    """Raise a built-in error of the kind that ``error`` means; the store's callers add the key."""
    if isinstance(error, StoreError):
        raise error
    text = _text(error)
    status = _status(error)
    whole = str(error)
    kind: type[Exception] = OSError
    if type(error).__name__ in {"PermissionDeniedError", "UnauthenticatedError"} or status in {
        401,
        403,
    }:
        kind = PermissionError
    elif "timed out" in whole or "TimedOut" in whole or "kind: Timeout" in whole:
        kind = TimeoutError
    elif status is None and "body error" in whole:
        kind = _CutOffError
    elif status is None and ("error sending request" in whole or "kind: Connect" in whole):
        kind = ConnectionError
    raise kind(text) from error
