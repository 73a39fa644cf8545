"""Arrays and groups that other implementations have written.

Every array of the shared data that two independent readers agree on must come out bit for bit.
What this release cannot read yet stands in ``WAITING`` with the codec or type that is missing, and
must be refused by its name; an entry that has come to work must leave the table.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.errors import (
    ArrayNotFoundError,
    MetadataError,
    UnknownDataTypeError,
    ZarrError,
)
from zarr_gpu.metadata.documents import loads
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.zip import ZipStore

SOURCES = {  # arrays by status; a folder that has lost some must not pass
    "Rarr": {"confirmed": 16},
    "anndata": {"confirmed": 81},
    "gdal": {"confirmed": 29, "majority": 4, "no-reader": 1, "single-reader": 1},
    "jzarr": {"confirmed": 2},
    "n5-zarr": {"confirmed": 2},
    "netcdf-c": {"confirmed": 3},
    "neuroglancer": {"confirmed": 33},
    "tensorstore": {"single-reader": 2},
    "vitessce": {"confirmed": 74},
    "zarr-java": {"confirmed": 7},
    "zarr-python-v2-fixture": {"confirmed": 94, "single-reader": 7},
    "zarr.js": {"confirmed": 6},
    "zarr_implementations": {"confirmed": 3},
    "zarrita.js": {"confirmed": 48, "single-reader": 1},
    "zarrs": {"confirmed": 25, "majority": 3, "single-reader": 8},
}

WAITING: dict[tuple[str, str], tuple[type[ZarrError], str]] = {
    ("zarrita.js", "v2/data.zarr/1d.contiguous.json2.O"): (UnknownDataTypeError, "json2"),
}
"""(source, path) -> the error, and the codec or type that it must name."""

REFUSED: dict[tuple[str, str], tuple[type[ZarrError], str]] = {
    ("gdal", "array_attrs.zarr"): (MetadataError, "not valid JSON"),
    ("tensorstore", "driver/n5/testdata/gzip"): (ArrayNotFoundError, "no array"),  # N5
    ("tensorstore", "driver/n5/testdata/raw"): (ArrayNotFoundError, "no array"),  # N5
}
"""What no reader of Zarr can open."""

Entry = dict[str, Any]


@cache
def entries(folder: Path, source: str) -> list[Entry]:
    """What is expected of the arrays of one source."""
    text = (folder / f"{source}.expected.json").read_text()
    arrays: list[Entry] = json.loads(text)["arrays"]
    return arrays


def unzip(path: Path) -> dict[str, bytes]:
    """The values in a zip file; of entries of one name the last one counts."""
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist() if not info.is_dir()}


def open_entry(folder: Path, source: str, entry: Entry) -> zarr_gpu.Array:
    place = folder / source / entry["path"]
    if entry["kind"] == "zip":
        return zarr_gpu.open_array(unzip(place), path=entry["inner"], mode="r")
    return zarr_gpu.open_array(LocalStore(place, read_only=True), path=entry["inner"], mode="r")


def digest(values: np.ndarray[Any, Any]) -> tuple[str, int]:
    """SHA-256 as the expected values have it: of little-endian bytes, of JSON for text."""
    if values.dtype.kind in "OTU":
        text = json.dumps(values.ravel().tolist(), ensure_ascii=True, separators=(",", ":"))
        data = text.encode()
    else:
        data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return hashlib.sha256(data).hexdigest(), len(data)


def expected_dtype(text: str) -> np.dtype[Any]:
    if text.startswith("["):
        return np.dtype([tuple(field) for field in json.loads(text)])
    return np.dtype(text)


def differences(array: zarr_gpu.Array, entry: Entry) -> list[str]:
    """What of ``array`` is not as expected."""
    wrong: list[str] = []
    values = np.asarray(array[...])
    if array.shape != tuple(entry["shape"]) or values.shape != array.shape:
        wrong.append(f"shape {array.shape}, read {values.shape}, expected {entry['shape']}")
    if values.dtype != array.dtype:
        wrong.append(f"dtype {array.dtype}, read {values.dtype}")
    if entry["dtype"] == "string/object":
        if values.dtype.kind not in "TUO":
            wrong.append(f"dtype {values.dtype} is not text")
    elif values.dtype.newbyteorder("<") != expected_dtype(entry["dtype"]):
        wrong.append(f"dtype {values.dtype}, expected {entry['dtype']}")
    if digest(values) != (entry["sha256"], entry["nbytes"]):
        wrong.append(f"values: {digest(values)}, expected {entry['sha256']} {entry['nbytes']}")
    # A part of it, across chunks where there are several.
    part = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in values.shape)
    if digest(np.asarray(array[part])) != digest(values[part]):
        wrong.append(f"values of the part {part}")
    return wrong


@pytest.mark.parametrize("source", SOURCES)
def test_every_array_reads_as_others_read_it(shared_data: Path, source: str) -> None:
    failures: list[str] = []
    count: dict[str, int] = {}
    for entry in entries(shared_data, source):
        name = (source, entry["path"])
        count[entry["status"]] = count.get(entry["status"], 0) + 1
        if name in REFUSED:
            continue
        try:
            wrong = differences(open_entry(shared_data, source, entry), entry)
        except ZarrError as error:
            kind, word = WAITING.get(name, (None, ""))
            if type(error) is kind and word in str(error):
                continue
            wrong = [f"{type(error).__name__}: {error}"]
        else:
            if name in WAITING:
                wrong = ["can be read now: remove it from the table WAITING"]
        failures += [f"{entry['path']} {entry['inner']}: {text}" for text in wrong]
    assert not failures, "\n".join(failures)
    assert count == SOURCES[source]


def test_tables_name_arrays_that_exist(shared_data: Path) -> None:
    here = {
        path.name.removesuffix(".expected.json") for path in shared_data.glob("*.expected.json")
    }
    assert here - {"numcodecs"} == SOURCES.keys()
    names = {(s, entry["path"]) for s in SOURCES for entry in entries(shared_data, s)}
    assert (WAITING.keys() | REFUSED.keys()) <= names
    unread = {
        (source, entry["path"])
        for source in SOURCES
        for entry in entries(shared_data, source)
        if entry["status"] == "no-reader" or entry["kind"] == "n5"
    }
    assert unread == REFUSED.keys()


@pytest.mark.parametrize(("source", "path"), REFUSED)
def test_what_no_reader_opens_is_refused(shared_data: Path, source: str, path: str) -> None:
    kind, text = REFUSED[source, path]
    with pytest.raises(kind, match=text):
        zarr_gpu.open_array(shared_data / source / path, mode="r")


@pytest.mark.parametrize("source", ["anndata", "netcdf-c"])
def test_zip_files_read_through_the_zip_store(shared_data: Path, source: str) -> None:
    failures = []
    paths = {e["path"] for e in entries(shared_data, source) if e["kind"] == "zip"}
    assert paths
    for path in sorted(paths):
        with ZipStore(shared_data / source / path, mode="r") as store:
            for entry in entries(shared_data, source):
                if entry["path"] == path:
                    array = zarr_gpu.open_array(store, path=entry["inner"], mode="r")
                    failures += [f"{entry['inner']}: {w}" for w in differences(array, entry)]
    assert not failures, "\n".join(failures)


def array_documents(root: Path) -> Iterator[Path]:
    for path in root.rglob(".zarray"):
        yield path.parent
    for path in root.rglob("zarr.json"):
        if json.loads(path.read_text()).get("node_type") == "array":
            yield path.parent


@pytest.mark.parametrize("source", SOURCES)
def test_no_array_on_disk_is_left_out(shared_data: Path, source: str) -> None:
    root = shared_data / source
    found = {path.relative_to(root).as_posix() for path in array_documents(root)}
    listed = {e["path"] for e in entries(shared_data, source) if e["kind"] == "dir"}
    assert found == listed


# -------------------------------------------------------------------------------- groups


def group_roots(root: Path) -> Iterator[tuple[Path, int]]:
    """(folder, format) of every group document below ``root``."""
    for path in root.rglob(".zgroup"):
        yield path.parent, 2
    for path in root.rglob("zarr.json"):
        if json.loads(path.read_text()).get("node_type") == "group":
            yield path.parent, 3


def children_of(folder: Path, zarr_format: int) -> dict[str, str]:
    """Name -> "array" or "group" of what lies directly in a folder."""
    found: dict[str, str] = {}
    for child in folder.iterdir():
        if zarr_format == 2:
            if (child / ".zarray").is_file():
                found[child.name] = "array"
            elif (child / ".zgroup").is_file():
                found[child.name] = "group"
        elif (child / "zarr.json").is_file():
            found[child.name] = json.loads((child / "zarr.json").read_text())["node_type"]
    return found


def stored_attributes(folder: Path, zarr_format: int) -> dict[str, Any]:
    if zarr_format == 3:
        found: dict[str, Any] = json.loads((folder / "zarr.json").read_text())
        return dict(found.get("attributes", {}))
    path = folder / ".zattrs"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


GROUPS = {
    "gdal": 15,
    "jzarr": 3,
    "n5-zarr": 1,
    "netcdf-c": 1,
    "neuroglancer": 9,
    "vitessce": 65,
    "zarr-java": 8,
    "zarr-python-v2-fixture": 15,
    "zarr_implementations": 1,
    "zarrita.js": 3,
    "zarrs": 5,
}


@pytest.mark.parametrize("source", GROUPS)
def test_every_group_opens_with_its_attributes_and_members(shared_data: Path, source: str) -> None:
    groups = list(group_roots(shared_data / source))
    assert len(groups) == GROUPS[source]
    for folder, zarr_format in groups:
        group = zarr_gpu.open_group(
            folder, mode="r", zarr_format=zarr_format, use_consolidated=False
        )
        assert group.zarr_format == zarr_format
        assert group.attrs.asdict() == stored_attributes(folder, zarr_format), folder
        expected = children_of(folder, zarr_format)
        found = dict.fromkeys(group.array_keys(), "array")
        found |= dict.fromkeys(group.group_keys(), "group")
        assert found == expected, folder
        for name, kind in expected.items():
            path = (folder / name).relative_to(shared_data / source).as_posix()
            if WAITING.get((source, path), (None,))[0] is not UnknownDataTypeError:
                assert isinstance(group[name], zarr_gpu.Array) == (kind == "array")


@pytest.mark.parametrize(
    ("source", "path", "count"),
    [
        ("anndata", "v0.11.4/adata.zarr.zip", 10),
        ("anndata", "v0.7.0/adata.zarr.zip", 107),
    ],
)
def test_groups_in_zip_files(shared_data: Path, source: str, path: str, count: int) -> None:
    values = unzip(shared_data / source / path)
    with ZipStore(shared_data / source / path, mode="r") as store:
        for place in (values, store):
            members = dict(zarr_gpu.open_group(place, mode="r").members(max_depth=None))
            documents = {k.rpartition("/") for k in values}
            nodes = {d for d, _, name in documents if name in (".zarray", ".zgroup")} - {""}
            assert members.keys() == nodes
            assert len(nodes) == count
            for name, node in members.items():
                raw = values.get(f"{name}/.zattrs", b"{}")
                assert node.attrs.asdict() == loads(raw, key=name)


CONSOLIDATED = [
    ("gdal", "array_dimensions.zarr"),
    ("gdal", "byte_cf1.zarr"),
    ("gdal", "group_with_zmetadata.zarr"),
    ("netcdf-c", "ref_data.zarr"),
    ("neuroglancer", "datasource/zarr/ome_zarr/simple_0.4"),
    ("neuroglancer", "datasource/zarr/ome_zarr/simple_0.5"),
    ("neuroglancer", "datasource/zarr/zarr_v2/from_zarr-python/data.zarr"),
    ("zarrita.js", "v2/data.zarr"),
]


def test_every_consolidated_document_is_listed(shared_data: Path) -> None:
    found = set()
    for source in SOURCES:
        root = shared_data / source
        places = [path.parent for path in root.rglob(".zmetadata")]
        places += [
            path.parent
            for path in root.rglob("zarr.json")
            if json.loads(path.read_text()).get("consolidated_metadata") is not None
        ]
        found |= {(source, place.relative_to(root).as_posix()) for place in places}
    assert found == set(CONSOLIDATED)


@pytest.mark.parametrize(("source", "path"), CONSOLIDATED)
def test_consolidated_metadata_say_what_the_store_says(
    shared_data: Path, source: str, path: str
) -> None:
    place = shared_data / source / path
    quick = zarr_gpu.open_group(place, mode="r", use_consolidated=True)
    assert quick.is_consolidated
    plain = zarr_gpu.open_group(place, mode="r", use_consolidated=False)
    assert not plain.is_consolidated
    described, stored = dict(nodes_below(quick)), dict(nodes_below(plain))
    assert described.keys() == stored.keys()
    for name, node in described.items():
        other = stored[name]
        assert type(node) is type(other)
        if isinstance(node, ZarrError):
            assert type(node) is WAITING[source, f"{path}/{name}"][0]
            continue
        assert node.attrs.asdict() == other.attrs.asdict()
        if isinstance(node, zarr_gpu.Array):
            assert (node.shape, node.dtype) == (other.shape, other.dtype)
            if (source, f"{path}/{name}") not in WAITING:
                assert node.chunks == other.chunks
                assert digest(np.asarray(node[...])) == digest(np.asarray(other[...]))


def nodes_below(group: zarr_gpu.Group, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, node) of all members; in place of a node the error of opening it."""
    for name in group.keys():  # noqa: SIM118  the method is what is tested
        below = f"{path}/{name}" if path else name
        try:
            node = group[name]
        except ZarrError as error:
            yield below, error
            continue
        yield below, node
        if isinstance(node, zarr_gpu.Group):
            yield from nodes_below(node, below)
