"""Every metadata document that other implementations wrote: read, and written back unchanged."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from zarr_gpu.errors import MetadataError, UnknownDataTypeError
from zarr_gpu.metadata import ArrayMetadata, v2, v3
from zarr_gpu.metadata.consolidated import (
    read_inline,
    read_zmetadata,
    write_inline,
    write_zmetadata,
)
from zarr_gpu.metadata.documents import loads

NAMES = (".zarray", ".zgroup", ".zmetadata", "zarr.json")

REFUSED = {
    "gdal/array_attrs.zarr/.zarray": MetadataError,  # not JSON
    "zarrita.js/v2/data.zarr/1d.contiguous.json2.O/.zarray": UnknownDataTypeError,  # objects
}


def documents_of(root: Path) -> dict[str, bytes]:
    """Key below ``root`` -> bytes, in folders and in zip files."""
    found = {}
    for path in sorted(root.rglob("*")):
        key = path.relative_to(root).as_posix()
        if path.name in (*NAMES, ".zattrs"):
            found[key] = path.read_bytes()
        elif path.suffix == ".zip" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.namelist():
                    if entry.rpartition("/")[2] in (*NAMES, ".zattrs"):
                        found[f"{key}!/{entry}"] = archive.read(entry)
    return found


def parse(key: str, found: dict[str, bytes]):
    folder, _, name = key.rpartition("/")
    document = loads(found[key], key=key)
    attributes = f"{folder}/.zattrs"
    zattrs = loads(found[attributes], key=attributes) if attributes in found else None
    match name:
        case ".zarray":
            return v2.parse_array(document, zattrs, key=key)
        case ".zgroup":
            return v2.parse_group(document, zattrs, key=key)
        case _:
            return v3.parse(document, key=key)


@pytest.fixture(scope="module")
def found(shared_data):
    return documents_of(shared_data)


def test_every_document_parses_and_comes_back(found):
    counts = Counter()
    for key in found:
        name = key.rpartition("/")[2]
        if name not in NAMES or name == ".zmetadata" or key in REFUSED:
            continue
        node = parse(key, found)
        back = node.to_documents()[name]
        assert json.loads(back) == json.loads(found[key].decode()), key
        assert parse(key, found | {key: back}) == node
        counts[type(node).__name__, node.zarr_format] += 1
        if isinstance(node, ArrayMetadata):
            assert node.with_shape(node.shape) == node
    assert counts["ArrayMetadata", 2] > 300
    assert counts["ArrayMetadata", 3] > 40
    assert counts["GroupMetadata", 2] > 100
    assert counts["GroupMetadata", 3] > 5


@pytest.mark.parametrize("key", REFUSED)
def test_documents_that_must_be_refused(found, key):
    with pytest.raises(REFUSED[key]) as info:
        parse(key, found)
    assert info.value.key == key


def test_every_consolidated_document(found):
    inline = 0
    for key, data in found.items():
        document = None
        if key.endswith(".zmetadata"):
            documents = read_zmetadata(loads(data, key=key), key=key)
            again = read_zmetadata(loads(write_zmetadata(documents), key=key), key=key)
            for path, node in documents.items():
                if path and ".zarray" in node:
                    assert again[path] == {".zattrs": {}} | node
                    if f"{key.removesuffix('.zmetadata')}{path}/.zarray" not in REFUSED:
                        v2.parse_array(node[".zarray"], node.get(".zattrs"), key=key)
        elif key.endswith("zarr.json"):
            document = loads(data, key=key)
        documents = read_inline((document or {}).get("consolidated_metadata"))
        if documents is not None:
            inline += 1
            assert read_inline(write_inline(documents)).keys() == documents.keys()
            for path, node in documents.items():
                v3.parse(node["zarr.json"], key=f"{key}:{path}")
    assert inline > 0
