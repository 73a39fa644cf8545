"""Read-only: an N5 container as a Zarr 2 hierarchy.

N5 is what zarr-python 2's ``N5Store`` and ``N5FSStore`` wrote, and the format of Java tools.  Axes
and chunk keys are reversed, blocks unpacked and their bytes swapped while they are read, so that to
everything above they are arrays without compressor.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from zarr_gpu.errors import MetadataError
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.keys import parent_prefixes
from zarr_gpu.storage.n5_blocks import Dataset, decode_block, parse_dataset

__all__ = ["N5Store"]

_ATTRIBUTES = "attributes.json"
_OURS = {"n5", "dimensions", "blockSize", "dataType", "compression", "compressionType"}
_CHUNK = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*")
_INDEX = re.compile(r"0|[1-9][0-9]*")


class N5Store(Store):
    """The N5 container in a store, as if it were Zarr 2.

    Parameters
    ----------
    store
        Holds the container: a ``LocalStore``, one behind fsspec, ...

    Compression may be raw, gzip (also with zlib's header), bzip2, xz, lz4, blosc and zstd.  Absent
    blocks are 0.  Paths that end in ``.n5``, and URLs such as ``n5+s3://bucket/container``, are
    opened so.

    Examples
    --------
    >>> from zarr_gpu.storage.memory import MemoryStore
    >>> store = N5Store(MemoryStore({"attributes.json": b'{"n5": "2.0.0", "a": 1}'}))
    >>> store.get(".zattrs"), store.list_dir()
    (b'{"a": 1}', ('.zattrs', '.zgroup'))
    """

    supports_writes = False
    read_only = True

    def __init__(self, store: Store) -> None:
        self.store = store
        self.concurrency = store.concurrency
        self.supports_listing = store.supports_listing
        self._datasets: dict[str, Dataset] = {}

    # ---- attributes ----------------------------------------------------------------------------

    def _attributes(self, path: str) -> dict[str, Any] | None:
        key = f"{path}/{_ATTRIBUTES}" if path else _ATTRIBUTES
        data = self.store.read(key, 0, REST)
        if data is None:
            return None
        try:
            attributes = json.loads(bytes(data))
        except (ValueError, RecursionError) as cause:
            raise MetadataError(f"not JSON: {cause}", key=key) from cause
        if not isinstance(attributes, dict):
            raise MetadataError("the attributes of N5 must be an object", key=key)
        return attributes

    def _dataset(self, path: str, attributes: dict[str, Any] | None = None) -> Dataset | None:
        """What is at ``path``, if that is an array; remembered, as each chunk asks."""
        if attributes is None:
            known = self._datasets.get(path)
            if known is not None:
                return known
            attributes = self._attributes(path)
        if attributes is None or "dimensions" not in attributes:
            return None
        found = parse_dataset(attributes, f"{path}/{_ATTRIBUTES}" if path else _ATTRIBUTES)
        self._datasets[path] = found
        return found

    def _document(self, path: str, name: str) -> bytes | None:
        attributes = self._attributes(path)
        if attributes is None:
            # A group need not say that it is one.
            if name == ".zgroup" and next(iter(self.store.walk(path)), None) is not None:
                return b'{"zarr_format": 2}'
            return None
        dataset = self._dataset(path, attributes)
        if name == ".zattrs":
            others = {k: v for k, v in attributes.items() if k not in _OURS}
            return json.dumps(others).encode() if others else None
        if (name == ".zarray") != (dataset is not None):
            return None
        if dataset is None:
            return b'{"zarr_format": 2}'
        document = {
            "zarr_format": 2,
            "shape": dataset.shape,
            "chunks": dataset.chunks,
            "dtype": np.dtype(dataset.dtype).newbyteorder("<").str,
            "compressor": None,
            "filters": None,
            "fill_value": 0,
            "order": "C",
            "dimension_separator": ".",
        }
        return json.dumps(document).encode()

    # ---- reading -------------------------------------------------------------------------------

    def _value(self, key: str) -> bytes | None:
        path, _, name = key.rpartition("/")
        if name in {".zarray", ".zgroup", ".zattrs"}:
            return self._document(path, name)
        place = self._block(path, name)
        if place is None:
            return None
        block, dataset = place
        data = self.store.read(block, 0, REST)
        return None if data is None else decode_block(bytes(data), dataset, key)

    def _block(self, path: str, name: str) -> tuple[str, Dataset] | None:
        """Where the chunk ``name`` of the array at ``path`` is stored."""
        if not _CHUNK.fullmatch(name):
            return None
        dataset = self._dataset(path)
        indices = name.split(".")
        if dataset is None or len(indices) != len(dataset.shape):
            return None
        return "/".join([*([path] if path else []), *reversed(indices)]), dataset

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        value = self._value(key)
        if value is None:
            return None
        return value[offset:] if nbytes == REST else value[offset : offset + nbytes]

    def size(self, key: str) -> int | None:
        path, _, name = key.rpartition("/")
        place = self._block(path, name)
        if place is not None:
            if self.store.size(place[0]) is None:
                return None
            dataset = place[1]
            return int(np.prod(dataset.chunks)) * np.dtype(dataset.dtype).itemsize
        value = self._value(key)
        return None if value is None else len(value)

    # ---- listing -------------------------------------------------------------------------------

    def walk(self, prefix: str) -> Iterator[str]:
        found: set[str] = set()
        paths = {prefix} if next(iter(self.store.walk(prefix)), None) is not None else set()
        inside = self._array_above(prefix)
        if inside is not None:
            return iter(())  # an array has no levels here
        for key in self.store.walk(prefix):
            path, _, name = key.rpartition("/")
            if name == _ATTRIBUTES:
                paths.add(path)
            else:
                chunk = self._chunk(key)
                if chunk is not None:
                    found.add(chunk)
                    continue
            paths.update(
                p for p in parent_prefixes(key) if p.startswith(f"{prefix}/" if prefix else "")
            )
        if not prefix and paths:
            paths.add("")
        for path in paths:
            for name in (".zarray", ".zattrs", ".zgroup"):
                if self._document(path, name) is not None:
                    found.add(f"{path}/{name}" if path else name)
        return iter(sorted(found))

    def _array_above(self, prefix: str) -> Dataset | None:
        for path in [*parent_prefixes(prefix), ""] if prefix else []:
            dataset = self._dataset(path)
            if dataset is not None:
                return dataset
        return None

    def _chunk(self, key: str) -> str | None:
        """The chunk that a stored block is: "a/2/1/0" -> "a/0.1.2"."""
        segments = key.split("/")
        n = 0
        while n < len(segments) and _INDEX.fullmatch(segments[-1 - n]):
            n += 1
        for count in range(n, 0, -1):
            path = "/".join(segments[:-count])
            dataset = self._dataset(path)
            if dataset is not None and len(dataset.shape) == count:
                name = ".".join(reversed(segments[-count:]))
                return f"{path}/{name}" if path else name
        return None

    def children(self, prefix: str) -> Iterable[str]:
        if self._array_above(prefix) is not None:
            return ()
        if self._dataset(prefix) is not None:
            return super().children(prefix)
        names = set(self.store.children(prefix))
        if not names:
            return ()
        documents = (".zgroup", ".zattrs")
        found = {name for name in documents if self._document(prefix, name) is not None}
        return (names - {_ATTRIBUTES}) | found

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        self.store.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_datasets": {}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, N5Store) and self.store == other.store

    def __hash__(self) -> int:
        return hash((N5Store, self.store))

    def __repr__(self) -> str:
        return f"N5Store({self.store!r})"
