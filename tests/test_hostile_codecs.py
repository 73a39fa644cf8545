"""Metadata that want something run or imported: nothing ever is.

The payload is a pickle that would make a folder.  Codecs are looked up by name in a table; a name
in a document never becomes a module, a path or a call.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import (
    LITTLE,
    Items,
    Json,
    items_of,
    read_all,
    refusal,
    sharding,
    unchanged,
    v2_document,
    v3_document,
)

import zarr_gpu
from zarr_gpu.errors import (
    MetadataError,
    UnknownCodecError,
    UnknownDataTypeError,
    ZarrError,
)


class MakesFolder:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def payloads(marker: Path) -> dict[str, bytes]:
    """The pickle as chunks of either format, plain and as the libraries would wrap it."""
    attack = pickle.dumps(MakesFolder(marker))
    array = np.empty(6, object)
    array[:] = [MakesFolder(marker)] * 6
    plain = pickle.dumps(array)
    keys = ["0.0", "0.1", "1.0", "0", "c/0/0", "c/1/0", "c/0", "c"]
    return {key: attack if i % 2 else plain for i, key in enumerate(keys)}


def test_the_payload_works(marker: Path) -> None:
    pickle.loads(pickle.dumps(MakesFolder(marker)))
    assert marker.exists()


PICKLE: list[Json] = [
    {"id": "pickle"},
    {"id": "pickle", "protocol": 5},
    {"id": "Pickle"},
    {"id": "numcodecs.pickle"},
    {"id": "numcodecs.pickles.Pickle"},
    {"id": "msgpack2"},
    {"id": "json2"},
    {"id": "base64"},
    {"id": "categorize", "labels": ["a"], "dtype": "|O", "astype": "|u1"},
    {"id": "dill"},
    {"id": "cloudpickle"},
    {"id": "n5_wrapper"},
]

OBJECT_STORES: list[Json] = [
    *(v2_document(dtype="|O", fill_value=fill, filters=[codec])
      for codec in PICKLE for fill in (None, 0, "")),
    *(v2_document(dtype="|O", fill_value=None, filters=[{"id": first}, codec])
      for first in ("vlen-utf8", "vlen-bytes") for codec in PICKLE),
    *(v2_document(dtype="|O", fill_value=None, filters=[{"id": "vlen-array", "dtype": "u1"}, codec])
      for codec in PICKLE[:2]),
    *(v2_document(dtype="|O", fill_value=None, filters=[codec, {"id": "vlen-utf8"}])
      for codec in PICKLE),
    *(v2_document(dtype="|O", fill_value="", filters=[{"id": "vlen-utf8"}], compressor=codec)
      for codec in PICKLE),
    *(v2_document(dtype="|O", fill_value=None, filters=None, compressor=codec) for codec in PICKLE),
    *(v2_document(compressor=codec) for codec in PICKLE),
    *(v2_document(filters=[codec]) for codec in PICKLE),
    *(v2_document(filters=[{"id": "delta", "dtype": "<i4"}, codec]) for codec in PICKLE),
    *(v2_document(dtype=[["a", "|O"], ["b", "<i4"]], fill_value=None, filters=[codec])
      for codec in PICKLE[:2]),
    v2_document(dtype="|O", fill_value=None),
    v2_document(dtype="|O", fill_value=None, filters=[]),
    v2_document(dtype="O", fill_value=None, filters=[{"id": "pickle"}]),
    v2_document(dtype="object", fill_value=None, filters=[{"id": "pickle"}]),
    v2_document(filters=[{"id": "delta", "dtype": "|O"}]),
    v2_document(filters=[{"id": "fixedscaleoffset", "dtype": "O", "offset": 0, "scale": 1}]),
    v2_document(filters=[{"id": "fixedscaleoffset", "dtype": "<f8", "astype": "|O",
                          "offset": 0, "scale": 1}]),
]  # fmt: skip

NAMES = ["numcodecs.pickle", "pickle", "numcodecs.msgpack2", "numcodecs.json2", "dill"]

V3_STORES: list[Json] = [
    *(v3_document(codecs=[LITTLE, {"name": name}]) for name in NAMES),
    *(v3_document(codecs=[{"name": name}]) for name in NAMES),
    *(v3_document(codecs=[{"name": name}, LITTLE]) for name in NAMES),
    *(v3_document(codecs=[sharding([2, 2], {"name": name})]) for name in NAMES),
    *(v3_document(codecs=[sharding([2, 2], LITTLE, {"name": name})]) for name in NAMES),
    *(v3_document(data_type="string", fill_value="", codecs=["vlen-utf8", name]) for name in NAMES),
    *(v3_document(data_type="string", fill_value="", codecs=[name]) for name in NAMES),
    *(v3_document(data_type=name, fill_value=None) for name in ("object", "O", "|O", "pickle")),
    *(v3_document(data_type={"name": name, "configuration": {}}, fill_value=None)
      for name in ("object", "O", "numpy.object", "pickle")),
]  # fmt: skip


def refused(items: Items) -> ZarrError:
    """The error of opening and reading."""
    with unchanged(items), pytest.raises(ZarrError) as caught:
        zarr_gpu.open_array(items, mode="r")[...]
    with unchanged(items), pytest.raises(ZarrError):
        zarr_gpu.open(items, mode="r+")[...] = 1  # type: ignore[index]
    error: ZarrError = caught.value
    return error


@pytest.mark.parametrize("stores", [OBJECT_STORES, V3_STORES], ids=["v2", "v3"])
def test_pickle_is_never_run_from_metadata(stores: list[Json], marker: Path) -> None:
    assert len(stores) > 40
    for document in stores:
        error = refused(items_of(document) | payloads(marker))
        assert isinstance(error, MetadataError), document
        codec = isinstance(error, UnknownCodecError | UnknownDataTypeError)
        assert codec or error.codec or "dtype" in str(error) or "data type" in str(error), error
        assert isinstance(error, ValueError)
    assert not marker.exists()


def read_members(group: zarr_gpu.Group) -> None:
    for _, node in group.members(max_depth=None):
        if isinstance(node, zarr_gpu.Array):
            node[...]


def test_pickle_is_never_run_through_a_group(marker: Path) -> None:
    chosen = [*OBJECT_STORES[::7], *V3_STORES[::5]]
    for number, document in enumerate(chosen):
        items = items_of(document, "a/b")
        items |= {f"a/b/{key}": value for key, value in payloads(marker).items()}
        v2 = "a/b/.zarray" in items
        group: Any = {"zarr_format": 2} if v2 else {"zarr_format": 3, "node_type": "group"}
        for path in ("", "a/"):
            items[f"{path}.zgroup" if v2 else f"{path}zarr.json"] = json.dumps(group).encode()
        root = zarr_gpu.open_group(items, mode="r")
        assert "a/b" in root, number
        with pytest.raises(ZarrError):
            root["a/b"][...]
        with pytest.raises(ZarrError):
            read_members(root)
        with pytest.raises(ZarrError):
            zarr_gpu.load(items, path="a/b")
        with contextlib.suppress(ZarrError):  # of types that are unknown
            zarr_gpu.consolidate_metadata(dict(items))
    assert not marker.exists()


def test_npy_and_fill_values_are_no_way_in(marker: Path) -> None:
    """Base64 of a pickle as a fill value, and chunks that are saved NumPy objects."""
    import base64
    import io

    attack = base64.b64encode(pickle.dumps(MakesFolder(marker))).decode()
    buffer = io.BytesIO()
    array = np.empty(1, object)
    array[0] = MakesFolder(marker)
    np.save(buffer, array, allow_pickle=True)
    documents = [
        v2_document(dtype="|O", fill_value=attack, filters=[{"id": "vlen-bytes"}]),
        v2_document(dtype="|O", fill_value=attack, filters=[{"id": "vlen-utf8"}]),
        v2_document(dtype="|V8", fill_value=attack),
        v2_document(dtype="|O", fill_value=attack, filters=[{"id": "pickle"}]),
        v3_document(data_type="variable_length_bytes", fill_value=attack, codecs=["vlen-bytes"]),
        v3_document(data_type="string", fill_value=attack, codecs=["vlen-utf8"]),
    ]
    for document in documents:
        for chunks in ({}, {"0.0": buffer.getvalue(), "c/0/0": buffer.getvalue()}):
            items = items_of(document) | chunks
            try:
                zarr_gpu.open_array(items, mode="r")[...]
            except ZarrError:
                continue
    assert not marker.exists()


IDS = [
    "os:system", "os.system", "posix:system", "subprocess:run", "builtins:eval", "builtins.exec",
    "../x", "../../x", "/etc/passwd", "..", ".", "", " ", "\0", "a\0b", "\ud800", "zstd\0", "zstd ",
    " zstd", "ZSTD", "Zstd", "zstd:ZstdCodec", "zstd:json", "zarr_gpu.codecs.zstd",
    "zarr_gpu.codecs.zstd:ZstdCodec", "codecs.zstd", "registry", "registry:load", "base:Codec",
    "native:zstd", "numcodecs.__init__", "numcodecs.", "numcodecs", "numcodecs..", "zstd..",
    "numcodecs.numcodecs.zstd", "numcodecs.registry", "numcodecs.compat_ext", "numcodecs:Zstd",
    "antigravity", "this", "import this", "__import__('os')", "turtle", "idlelib", "pip", "zarr",
    "tensorstore", "pytest:main", "file:///x", "http://localhost/x", "__main__", "sys:modules",
    "%2e%2e", "a/b", "a\\b", "zstd/../zstd", "x" * 100_000, "é" * 1000, "*", "?", "%s", "{0}",
    "${HOME}", "~", "-c", "vlen-array", "bitpack", "categorize", "zarr_gpu.cli:main",
]  # fmt: skip

NOT_STRINGS: list[Any] = [None, 1, True, 1.5, [], ["zstd"], {}, {"id": "zstd"}]


def documents_naming(name: Any) -> list[Json]:
    return [
        v2_document(compressor={"id": name}),
        v2_document(filters=[{"id": name}]),
        v2_document(dtype="|O", fill_value=None, filters=[{"id": name}]),
        v3_document(codecs=[LITTLE, {"name": name}]),
        v3_document(codecs=[LITTLE, name]),
        v3_document(codecs=[{"name": name}]),
        v3_document(codecs=[sharding([2, 2], LITTLE, {"name": name, "configuration": {}})]),
        v3_document(data_type=name),
        v3_document(data_type={"name": name, "configuration": {}}),
        v3_document(chunk_key_encoding={"name": name}),
        v3_document(chunk_grid={"name": name, "configuration": {}}),
        v3_document(storage_transformers=[{"name": name}]),
    ]


def test_names_in_documents_import_nothing() -> None:
    assert len(IDS) + len(NOT_STRINGS) >= 70
    # What opening a good array loads once is loaded.
    for document in (v3_document(codecs=[LITTLE, "zstd"]), v2_document(compressor={"id": "zstd"})):
        zarr_gpu.open_array(items_of(document), mode="r")[...]
    with pytest.raises(UnknownCodecError):  # entry points of installed packages are asked once
        zarr_gpu.open_array(items_of(v3_document(codecs=[LITTLE, "nothing"])), mode="r")[...]
    before = set(sys.modules)
    count = 0
    for name in [*IDS, *NOT_STRINGS]:
        for document in documents_naming(name):
            error = refusal(partial(read_all, items_of(document)), MetadataError, of=str(document))
            assert len(str(error)) < 2000
            count += 1
    assert count >= 800
    assert set(sys.modules) - before <= {"encodings.idna", "stringprep"}


def test_a_fresh_process_imports_nothing_for_unknown_codecs(tmp_path: Path) -> None:
    """The same in a process where nothing else is loaded, with a trap in the working folder."""
    trap = tmp_path / "evil_codec.py"
    trap.write_text("raise SystemExit('imported')")
    (tmp_path / "numcodecs_evil.py").write_text("raise SystemExit('imported')")
    code = """
import json, sys
import zarr_gpu
from zarr_gpu.errors import MetadataError
for name in ("evil_codec", "evil_codec:Codec", "numcodecs.evil", "numcodecs_evil", "pickle"):
    for document in json.loads(sys.argv[1]):
        text = json.dumps(document).replace("NAME", name)
        key = ".zarray" if "chunks" in document else "zarr.json"
        try:
            zarr_gpu.open_array({key: text.encode()}, mode="r")[...]
        except MetadataError:
            continue
        raise SystemExit(f"accepted {text}")
loaded = [m for m in ("evil_codec", "numcodecs_evil", "numcodecs", "pickle5") if m in sys.modules]
raise SystemExit(f"loaded {loaded}" if loaded else 0)
"""
    documents = json.dumps(
        [
            v2_document(compressor={"id": "NAME"}),
            v3_document(codecs=[LITTLE, {"name": "NAME"}]),
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code, documents],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("configuration", [
    {"level": "1"}, {"level": 10**6}, {"level": -(2**70)}, {"level": True}, {"level": 1.0},
    {"level": None}, {"level": []}, {"level": 1, "__class__": "x"}, {"self": 1}, {"cls": 1},
    {"checksum": "no"}, {"checksum": 1}, {"\0": 1}, {"name": "gzip"},
])  # fmt: skip
def test_configurations_are_checked_when_the_array_is_used(configuration: Json) -> None:
    document = v3_document(codecs=[LITTLE, {"name": "zstd", "configuration": configuration}])
    with pytest.raises(MetadataError) as caught:
        zarr_gpu.open_array(items_of(document), mode="r")[...]
    assert caught.value.codec == "zstd"
    assert caught.value.key == "zarr.json"


@pytest.mark.parametrize("codecs", [
    [], [{"name": "zstd"}], [LITTLE, LITTLE], [{"name": "zstd"}, LITTLE],
    [LITTLE, {"name": "transpose", "configuration": {"order": [1, 0]}}],
    [LITTLE, sharding([2, 2])], [sharding([2, 2]), LITTLE], ["vlen-utf8"], [LITTLE, "vlen-utf8"],
    [{"name": "transpose", "configuration": {"order": [0, 0]}}, LITTLE],
    [{"name": "transpose", "configuration": {"order": [0]}}, LITTLE],
    [{"name": "transpose", "configuration": {"order": [0, 2]}}, LITTLE],
    [{"name": "transpose", "configuration": {"order": "F"}}, LITTLE],
    [{"name": "transpose", "configuration": {"order": [2**70, 0]}}, LITTLE],
    [{"name": "bytes", "configuration": {"endian": "middle"}}],
    [{"name": "bytes", "configuration": {"endian": ["little"]}}],
    [sharding([2, 2], "zstd")], [sharding([2, 2], LITTLE, sharding([1, 1]))],
    [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "codecs": [LITTLE],
      "index_codecs": [LITTLE, "zstd"]}}],
    [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "codecs": [LITTLE],
      "index_codecs": []}}],
    [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "codecs": [LITTLE],
      "index_codecs": [LITTLE], "index_location": "middle"}}],
    [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2]}}],
    [{"name": "sharding_indexed"}],
    [{"name": "numcodecs.shuffle", "configuration": {"elementsize": 0}}, LITTLE],
    [LITTLE, {"name": "numcodecs.shuffle", "configuration": {"elementsize": -1}}],
    [{"name": "numcodecs.delta", "configuration": {"dtype": "<f4, <i2"}}, LITTLE],
    [{"name": "numcodecs.delta", "configuration": {"dtype": "__import__('os')"}}, LITTLE],
    [{"name": "numcodecs.fixedscaleoffset",
      "configuration": {"offset": 0, "scale": 0, "dtype": "<i4", "astype": "<i4"}}, LITTLE],
])  # fmt: skip
def test_chains_that_cannot_be_are_refused(codecs: list[Any]) -> None:
    document = v3_document(codecs=codecs)
    items = items_of(document)
    with pytest.raises(MetadataError) as caught:
        zarr_gpu.open_array(items, mode="r")[...]
    assert caught.value.key == "zarr.json"
    with unchanged(items), pytest.raises(MetadataError):
        zarr_gpu.open_array(items, mode="r+")[...] = 1


def test_a_shard_within_a_shard_within() -> None:
    """Many levels read; thousands are refused as too deep, not by recursion."""
    start, stop = json.dumps(sharding([4, 6], "INNER")).split('"INNER"')
    plain = json.dumps(v3_document(codecs=["INNER"], fill_value=7))
    for levels, accepted in ((5, True), (20, True), (60, True), (100, False), (50_000, False)):
        nested = start * levels + json.dumps(LITTLE) + stop * levels
        items = {"zarr.json": plain.replace('"INNER"', nested).encode()}
        if accepted:
            array = zarr_gpu.open_array(items, mode="r+")
            assert (array[...] == 7).all()
            array[1, 2] = 5
            assert array[1].tolist() == [7, 7, 5, 7, 7, 7]
        else:
            with pytest.raises(MetadataError, match="nested deeper") as caught:
                zarr_gpu.open_array(items, mode="r")
            assert caught.value.key == "zarr.json"
