"""References of kerchunk: a Zarr store whose values are byte ranges of other files.

The references are a JSON document or a folder of Parquet (``reference_documents``,
``reference_parquet``).  Their targets are opened by ``open_store``, one store for each bucket, web
server or folder; ranges of one target file that lie close together are read as one.

Who writes references decides what is read.  References that were fetched from elsewhere may
therefore not point to local files or into this process, nor through chained URLs, unless
``allow_local`` says so; ".." and the like are refused as in any store.  A target that is gone or
too short is an error, never a fill value.

Imports ``errors``, ``extents``, ``storage.base``, ``storage.opening`` and its own helpers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zarr_gpu.errors import DataError, InvalidKeyError, MetadataError, StoreError
from zarr_gpu.extents import MISSING, REST, ByteRequest, HostMemory, Memory
from zarr_gpu.storage.base import Buffer, Store, gather
from zarr_gpu.storage.cloud_options import CONCURRENCY, SCHEMES, positive
from zarr_gpu.storage.failures import StoreArgumentError, fail
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.opening import open_store
from zarr_gpu.storage.reference_documents import (
    MAX_GENERATED,
    Reference,
    inline_bytes,
    parse_references,
)
from zarr_gpu.storage.reference_parquet import ParquetReferences
from zarr_gpu.storage.spans import Span

__all__ = ["ReferenceStore", "open_url"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
_REMOTE = frozenset([*SCHEMES, "http", "https", "ftp", "sftp", "hf", "gdrive", "oss", "cos"])
"""Schemes that references from elsewhere may point to."""


class ReferenceStore(Store):
    r"""Values that are ranges of other files; read-only.

    Parameters
    ----------
    references
        Path or URL of a JSON document or of a folder of Parquet, or the parsed JSON itself.
    remote_options
        Storage options of the targets.
    remote_protocol
        Scheme of targets that are written without one.
    target_options
        Storage options of the references themselves.
    allow_local
        Whether references from elsewhere may point to local files.
    concurrency
        Hint to readers how many values to ask for at a time.
    max_references
        References that the ``gen`` of a document may make.

    Targets without scheme are paths, relative to the folder of the references.

    Raises
    ------
    MetadataError
        The references are malformed, or absent.
    InvalidKeyError
        A target may not be read.
    StoreError
        A target cannot be read, or is gone.

    Examples
    --------
    >>> store = ReferenceStore({"x": "text", "y": "base64:AAE="})
    >>> store.get("x"), store.get("y"), store.get("z")
    (b'text', b'\x00\x01', None)
    """

    read_only = True
    supports_writes = False

    def __init__(
        self,
        references: str | os.PathLike[str] | Mapping[str, Any],
        *,
        remote_options: Mapping[str, Any] | None = None,
        remote_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        allow_local: bool = False,
        concurrency: int = CONCURRENCY,
        max_references: int = MAX_GENERATED,
    ) -> None:
        self.concurrency = concurrency
        self._options = dict(remote_options or {})
        self._protocol = remote_protocol
        self._document_options = dict(target_options or {})
        self._allow_local = allow_local
        self._max_references = max_references
        self._targets: dict[str, Store] = {}
        self._folder = ""
        if isinstance(references, Mapping):
            self.location: str | None = None
            self._given: Mapping[str, Any] | None = references
        else:
            self.location, self._given = os.fspath(references), None
        self._load()

    def _load(self) -> None:
        self._parquet: ParquetReferences | None = None
        self._references: dict[str, Reference] = {}
        if self.location is None:
            given = self._given or {}
            self._references = parse_references(given, max_generated=self._max_references)
            return
        location = self.location.rstrip("/")
        if not _SCHEME.match(location):
            location = os.path.abspath(location)  # noqa: PTH100
        self._folder, _, name = location.rpartition("/")
        if not location.endswith((".parq", ".parquet")):
            document = open_store(
                self._folder or "/", mode="r", storage_options=self._document_options or None
            )[0].get(name)
            if document is not None:
                self._references = parse_references(document, max_generated=self._max_references)
                return
        folder = open_store(location, mode="r", storage_options=self._document_options or None)[0]
        if folder.get(".zmetadata") is None:
            raise MetadataError(f"there are no references at {self.location!r}")
        self._parquet = ParquetReferences(folder.get)

    # ---- where values are ----------------------------------------------------------------------

    def _reference(self, key: str) -> bytes | list[Any] | None:
        """What a key stands for: its value, ``[url]``, ``[url, offset, length]``, or nothing."""
        source = self._references if self._parquet is None else self._parquet
        found = source.get(key)
        return inline_bytes(key, found) if isinstance(found, str) else found

    def _target(self, key: str, url: str) -> tuple[Store, str]:
        """The store that holds a target, and its key there."""
        base, name = self._split(key, self._absolute(key, url))
        check_key(name)
        store = self._targets.get(base)
        if store is None:
            options = self._options if _SCHEME.match(base) and not base.startswith("file:") else {}
            store = open_store(base, mode="r", storage_options=options or None)[0]
            store = self._targets.setdefault(base, store)
        return store, name

    def _absolute(self, key: str, url: str) -> str:
        elsewhere = self._folder and _SCHEME.match(self._folder)
        scheme = _SCHEME.match(url)
        if scheme is None and self._protocol not in {None, "file"} and "::" not in url:
            url = f"{self._protocol}://{url.lstrip('/')}"
            scheme = _SCHEME.match(url)
        if scheme is None and "::" not in url and not os.path.isabs(url):  # noqa: PTH117
            return f"{self._folder}/{url}" if self._folder else os.path.abspath(url)  # noqa: PTH100
        if elsewhere and not self._allow_local:
            name = scheme.group(1).lower() if scheme else "file"
            if name not in _REMOTE or "::" in url:
                raise InvalidKeyError(
                    f"reference {key!r} of {self.location!r} points to {url[:200]!r}: references "
                    "from elsewhere may not point to local files (allow_local=True permits it)",
                    key=key,
                )
        return url

    def _split(self, key: str, url: str) -> tuple[str, str]:
        """Where a store begins, and the rest: buckets and web servers are one store each."""
        from urllib.parse import unquote

        scheme = _SCHEME.match(url)
        if scheme is None:
            base, _, name = url.rpartition("/")
            return base or "/", name
        kind = scheme.group(1).lower()
        host, _, path = url[scheme.end() :].partition("/")
        if not path:
            raise InvalidKeyError(f"reference {key!r} points to {url[:200]!r}, no file", key=key)
        plain = "//" not in path and "?" not in path and "#" not in path
        if plain and kind in SCHEMES:
            return f"{kind}://{host}", path
        if plain and kind in {"http", "https"}:
            return f"{kind}://{host}", unquote(path)
        if kind in {"http", "https"} and "?" in path:
            path, _, query = path.partition("?")
            folder, _, name = path.rpartition("/")
            return f"{kind}://{host}/{folder}?{query}", unquote(name)
        base, _, name = url.rpartition("/")
        return base, unquote(name) if kind == "file" else name

    # ---- reading -------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        found = self._reference(key)
        if found is None:
            return None
        if isinstance(found, bytes):
            return found[offset:] if nbytes == REST else found[offset : offset + nbytes]
        start, length = _within(found, offset, nbytes)
        if length == 0:
            return b""
        store, name = self._target(key, found[0])
        data = store.read(name, start, length)
        if data is None:
            raise _gone(key, found[0])
        if len(found) == 3:
            _check(key, found, length, memoryview(data).nbytes)  # type: ignore[arg-type]
        return data

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        """Each target is asked once for all ranges of its files, which it coalesces."""
        values: list[memoryview | None] = [None] * len(spans)
        asked: dict[int, tuple[Store, list[tuple[int, str, int, int]]]] = {}
        for i, (key, offset, nbytes) in enumerate(spans):
            try:
                found = self._reference(key)
                if found is None:
                    continue
                if isinstance(found, bytes):
                    part = found[offset:] if nbytes == REST else found[offset : offset + nbytes]
                    values[i] = memoryview(part)
                    continue
                start, length = _within(found, offset, nbytes)
                if length == 0 and len(found) == 3:
                    values[i] = memoryview(b"")
                    continue
                store, name = self._target(key, found[0])
            except Exception as cause:  # noqa: BLE001  whatever goes wrong names the key
                fail("read", key, cause)
            asked.setdefault(id(store), (store, []))[1].append((i, name, start, length))
        alone = len(asked) == 1 and sum(map(len, (rows for _, rows in asked.values()))) == len(
            spans
        )
        for store, rows in asked.values():
            base, starts, lengths = self._ask(spans, store, rows, memory if alone else HostMemory())
            if alone:
                return base, starts, lengths
            view = memoryview(base)
            for (i, *_), start, length in zip(rows, starts, lengths, strict=True):
                values[i] = view[start : start + length]
        return gather(values, memory)

    def _ask(
        self, spans: list[Span], store: Store, rows: list[tuple[int, str, int, int]], memory: Memory
    ) -> tuple[Any, list[int], list[int]]:
        names = list(dict.fromkeys(name for _, name, _, _ in rows))
        number = {name: i for i, name in enumerate(names)}
        request = ByteRequest(
            names,
            np.array([number[name] for _, name, _, _ in rows], np.int64),
            np.array([start for _, _, start, _ in rows], np.int64),
            np.array([length for _, _, _, length in rows], np.int64),
        )
        try:
            extents = store.fetch(request, memory)
        except DataError as cause:
            # Of several ranges of one file that is too short, the last one certainly is beyond it.
            key = spans[max((r for r in rows if r[1] == cause.key), key=lambda r: r[2] + r[3])[0]][
                0
            ]
            raise DataError(
                f"reference {key!r} and its target {cause.key!r} in {store!r}: {cause.message}",
                key=key,
                expected=cause.expected,
                actual=cause.actual,
            ) from cause
        except StoreError as cause:
            culprit = next((row for row in rows if row[1] == cause.key), rows[0])
            key = spans[culprit[0]][0]
            raise type(cause)(f"cannot read the target of {key!r}: {cause}", key=key) from cause
        lengths = extents.nbytes.tolist()
        for (i, name, _, _), length in zip(rows, lengths, strict=True):
            if length == MISSING:
                raise _gone(spans[i][0], f"{name} in {store!r}")
        return extents.base, extents.offset.tolist(), lengths

    def size(self, key: str) -> int | None:
        found = self._reference(key)
        if found is None or isinstance(found, bytes):
            return None if found is None else len(found)
        if len(found) == 3:
            return int(found[2])
        store, name = self._target(key, found[0])
        total = store.nbytes(name)
        if total is None:
            raise _gone(key, found[0])
        return total

    # ---- the rest ------------------------------------------------------------------------------

    def walk(self, prefix: str) -> Iterator[str]:
        below = f"{prefix}/" if prefix else ""
        keys = self._references if self._parquet is None else self._parquet.keys()
        return iter(sorted(key for key in keys if key.startswith(below)))

    def close(self) -> None:
        for store in self._targets.values():
            store.close()
        self._targets = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ReferenceStore):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash((ReferenceStore, self.location))

    def __repr__(self) -> str:
        where = f"<{len(self._references)} references>" if self.location is None else self.location
        return f"ReferenceStore({where!r})"

    def __getstate__(self) -> dict[str, Any]:
        made = {"_targets", "_references", "_parquet"}
        return {k: v for k, v in vars(self).items() if k not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._targets = {}
        self._load()


def _within(found: list[Any], offset: int, nbytes: int) -> tuple[int, int]:
    """A range of a value as a range of its target: start, length (or ``REST``)."""
    if len(found) == 1:
        return offset, nbytes
    begin, total = found[1], found[2]
    start = max(total + offset, 0) if offset < 0 else min(offset, total)
    length = total - start if nbytes == REST else min(nbytes, total - start)
    return begin + start, length


def _check(key: str, found: list[Any], expected: int, actual: int) -> None:
    if actual != expected:
        raise DataError(
            f"the target of reference {key!r} is too short: {found[0][:200]!r}",
            key=key,
            expected=expected,
            actual=actual,
        )


def _gone(key: str, url: str) -> StoreError:
    return StoreError(f"the target of reference {key!r} is absent: {url[:300]!r}", key=key)


def open_url(
    url: str, *, read_only: bool = True, storage_options: Mapping[str, Any] | None = None
) -> Store:
    """Open ``reference://path.json``, ``reference:///folder.parq``, ``reference://https://...``.

    fsspec's way works too: ``reference://`` with the storage option ``fo``.

    Raises
    ------
    StoreArgumentError
        A storage option is unknown, or nothing says where the references are.
    """
    del read_only
    given = dict(storage_options or {})
    location = given.pop("fo", None)
    location = url.partition("://")[2] or location
    if not location:
        raise StoreArgumentError("reference:// needs a path, or the storage option 'fo'")
    given.pop("target_protocol", None)
    names = ("remote_options", "remote_protocol", "target_options", "allow_local")
    arguments = {name: given.pop(name) for name in names if given.get(name) is not None}
    concurrency = positive(given, "concurrency", CONCURRENCY)
    most = positive(given, "max_references", MAX_GENERATED)
    for name in ("asynchronous", "loop", "skip_instance_cache", "lazy", "cache_size", *names):
        given.pop(name, None)
    for name in given:
        raise StoreArgumentError(f"the storage option {name!r} is not known for references")
    return ReferenceStore(location, concurrency=concurrency, max_references=most, **arguments)
