"""Stores made by hand, byte by byte, for the tests of damaged and hostile data.

Nothing here comes from the writing side of the package: the documents are literal, and compressed
data come from the libraries.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.errors import ZarrError

Json = dict[str, Any]
Items = dict[str, bytes]

LITTLE: Json = {"name": "bytes", "configuration": {"endian": "little"}}


def v3_document(**changes: Any) -> Json:
    """A v3 array of 8 x 6 int32 in chunks of 4 x 6; a value of ``...`` leaves a field out."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8, 6],
        "data_type": "int32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [LITTLE],
        "attributes": {"unit": "nm"},
    }
    document |= changes
    return {k: v for k, v in document.items() if v is not ...}


def v2_document(**changes: Any) -> Json:
    """The same as v2."""
    document = {
        "zarr_format": 2,
        "shape": [8, 6],
        "chunks": [4, 6],
        "dtype": "<i4",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    document |= changes
    return {k: v for k, v in document.items() if v is not ...}


def regular(*chunk_shape: Any) -> Json:
    """A v3 chunk grid."""
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}}


def sharding(
    chunk_shape: list[int], *codecs: Any, location: str = "end", checksum: bool = True
) -> Json:
    """A sharding codec; ``codecs`` are those of the chunks, plain bytes where there are none."""
    index_codecs: list[Json] = [LITTLE]
    if checksum:
        index_codecs.append({"name": "crc32c"})
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": chunk_shape,
            "codecs": list(codecs) or [LITTLE],
            "index_codecs": index_codecs,
            "index_location": location,
        },
    }


def items_of(document: Json | bytes, path: str = "", **values: bytes) -> Items:
    """A store that holds one array, or what claims to be one."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    is_v2 = isinstance(document, dict) and "node_type" not in document and "chunks" in document
    name = ".zarray" if is_v2 else "zarr.json"
    return {f"{path}/{name}" if path else name: data, **values}


def read_all(items: Any, **arguments: Any) -> Any:
    """Open what is in a store and read it whole."""
    return np.asarray(zarr_gpu.open_array(items, mode="r", **arguments)[...])


def new_array(document: Json, values: Any = None) -> tuple[zarr_gpu.Array, Items]:
    """An array on a dict, filled with ``values`` where given, and the dict."""
    items = items_of(document)
    array = zarr_gpu.open_array(items, mode="r+")
    if values is not None:
        array[...] = values
    return array, items


@contextmanager
def unchanged(items: Items) -> Iterator[None]:
    """What is stored is the same before and after."""
    before = dict(items)
    yield
    assert items == before


def tree_hash(root: Path) -> str:
    """Of names, types, contents and times of everything below a folder."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        digest.update(
            f"{path.relative_to(root)} {stat.S_IFMT(info.st_mode)} {info.st_mtime_ns}".encode()
        )
        if path.is_file() and not path.is_symlink():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def refusal(call: Callable[[], Any], *kinds: type[Exception], of: str = "") -> Exception:
    """The error, one of ``kinds``, of a call; the test fails by the name of what was accepted."""
    try:
        call()
    except kinds as error:
        return error
    pytest.fail(f"accepted: {of}")


def check_error(error: ZarrError, *, key: str | None = None, codec: str | None = None) -> None:
    """An error of stored data names where it is, which codec refused it, and how many bytes."""
    text = str(error)
    assert isinstance(error, ValueError | OSError), type(error)
    if key is not None:
        assert error.key == key
        assert key in text
    if codec is not None:
        assert error.codec == codec, text
        assert repr(codec) in text
    counts = [n for n in (error.expected, error.actual) if n is not None]
    assert counts, text
    assert all(str(n) in text for n in counts)
