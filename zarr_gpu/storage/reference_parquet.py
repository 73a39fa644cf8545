"""Reference sets of kerchunk in Parquet: a folder of metadata and tables of references.

``.zmetadata`` holds all metadata documents and ``record_size``; ``<array>/refs.<n>.parq`` the
references of chunks ``n * record_size`` on, in the order of the chunk grid: columns ``path``,
``offset``, ``size`` (0: the whole file) and ``raw`` (a value in the table itself).

Imports ``errors`` and its sibling ``reference_documents``; ``pyarrow`` on first use.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from zarr_gpu.errors import MetadataError, MissingDependencyError
from zarr_gpu.storage.reference_documents import Reference

__all__ = ["ParquetReferences"]

KEPT_TABLES = 32
MAX_TABLE_NBYTES = 256 << 20
"""Bytes of a table in memory: a hostile one may unpack to far more than it has on disk."""

Table = tuple[list[Any], list[Any], list[Any], list[Any]]


class ParquetReferences:
    """References by key, read a table at a time.

    Parameters
    ----------
    read
        The bytes of a file of the folder, None where it is absent.

    Raises
    ------
    MetadataError
        ``.zmetadata`` is absent or malformed.
    """

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read
        text = read(".zmetadata")
        if text is None:
            raise MetadataError("a folder of references has a .zmetadata; there is none")
        try:
            tree = json.loads(text)
            documents, size = tree["metadata"], int(tree["record_size"])
            self.documents = {str(key): json.dumps(value) for key, value in documents.items()}
            self._grids = {
                key.removesuffix(".zarray").rstrip("/"): _grid(value)
                for key, value in documents.items()
                if key == ".zarray" or key.endswith("/.zarray")
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
            raise MetadataError(f"the .zmetadata of references is malformed: {cause!r}") from cause
        if size < 1:
            raise MetadataError(f"record_size is {size}")
        self.record_size = size
        self._tables: OrderedDict[tuple[str, int], Table | None] = OrderedDict()

    def get(self, key: str) -> Reference | bytes | None:
        """The reference of one key, None where the key is absent."""
        if key in self.documents:
            return self.documents[key]
        array, _, chunk = key.rpartition("/")
        grid, separator = self._grids.get(array, (None, "."))
        if grid is None and separator == ".":
            # Chunks whose numbers are joined by "/" lie deeper than their array.
            for name, (shape, sep) in self._grids.items():
                start = f"{name}/" if name else ""
                if sep == "/" and key.startswith(start):
                    array, grid, chunk = name, shape, key[len(start) :].replace("/", ".")
        if grid is None:
            return None
        number = _chunk_number(chunk, grid)
        if number is None:
            return None
        table = self._table(array, number // self.record_size)
        return None if table is None else _row(key, table, number % self.record_size)

    def keys(self) -> Iterator[str]:
        """All keys, in no order."""
        yield from self.documents
        for array, (grid, separator) in self._grids.items():
            start = f"{array}/" if array else ""
            for record in range(-(-math.prod(grid) // self.record_size)):
                table = self._table(array, record)
                for row in range(0 if table is None else len(table[0])):
                    number = record * self.record_size + row
                    if number < math.prod(grid) and _row(array, table, row) is not None:
                        yield start + _chunk_name(number, grid, separator)

    def _table(self, array: str, record: int) -> Table | None:
        where = (array, record)
        tables = self._tables
        try:
            table = tables[where]
        except KeyError:
            name = f"{array}/refs.{record}.parq" if array else f"refs.{record}.parq"
            data = self._read(name)
            table = tables[where] = None if data is None else _load(name, data)
            while len(tables) > KEPT_TABLES:
                try:
                    tables.popitem(last=False)
                except KeyError:
                    break
        return table


def _grid(document: Any) -> tuple[tuple[int, ...], str]:
    shape, chunks = document["shape"], document["chunks"]
    sizes = tuple(-(-int(n) // max(1, int(c))) for n, c in zip(shape, chunks, strict=True))
    return sizes, document.get("dimension_separator", ".")


def _chunk_number(chunk: str, grid: tuple[int, ...]) -> int | None:
    """Position in C order, None where this is no chunk of the grid."""
    numbers = chunk.split(".")
    if not grid:
        return 0 if chunk == "0" else None
    if len(numbers) != len(grid) or not all(n.isascii() and n.isdigit() for n in numbers):
        return None
    position = 0
    for text, size in zip(numbers, grid, strict=True):
        if int(text) >= size:
            return None
        position = position * size + int(text)
    return position


def _chunk_name(number: int, grid: tuple[int, ...], separator: str) -> str:
    names = []
    for size in reversed(grid):
        number, index = divmod(number, size)
        names.append(str(index))
    return separator.join(reversed(names)) or "0"


def _load(name: str, data: bytes) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as cause:
        raise MissingDependencyError(
            "references in Parquet need pyarrow: pip install 'zarr-gpu[reference]'"
        ) from cause
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > MAX_TABLE_NBYTES:
            raise MetadataError(f"the table of references {name!r} is too large", key=name)
        table = file.read()
        columns = set(table.column_names)
        n = table.num_rows
        path, offset, size, raw = (
            table[column].to_pylist() if column in columns else [None] * n
            for column in ("path", "offset", "size", "raw")
        )
    except (pa.ArrowException, OSError, ValueError) as cause:
        raise MetadataError(
            f"cannot read the table of references {name!r}: {cause}", key=name
        ) from (cause)
    return path, offset, size, raw


def _row(key: str, table: Table | None, row: int) -> Reference | bytes | None:
    if table is None or row >= len(table[0]):
        return None
    path, offset, size, raw = (column[row] for column in table)
    if raw is not None:
        return raw if isinstance(raw, bytes) else str(raw)
    if path is None or path == "":
        return None
    if not size:
        return [str(path)]
    offset, size = int(offset or 0), int(size)
    if offset < 0 or size < 0:
        raise MetadataError(f"reference {key!r} has offset {offset} and length {size}", key=key)
    return [str(path), offset, size]
