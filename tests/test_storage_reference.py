"""References of kerchunk: JSON and Parquet, to local files and a web server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_http import HttpServer, http_server
from store_suite import StoreSuite, blob, fetch

import zarr_gpu
from zarr_gpu.errors import (
    DataError,
    InvalidKeyError,
    MetadataError,
    MissingDependencyError,
    StoreError,
)
from zarr_gpu.extents import REST
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import StoreArgumentError
from zarr_gpu.storage.opening import open_store
from zarr_gpu.storage.reference import ReferenceStore
from zarr_gpu.storage.reference_documents import parse_references
from zarr_gpu.storage.wrappers import CountingStore


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    pytest.importorskip("urllib3", reason="extra http: urllib3 is not installed")
    with http_server(tmp_path_factory.mktemp("served")) as running:
        yield running


class TestReferences(StoreSuite):
    title = "references (JSON)"
    writable = False
    in_order = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        (tmp_path / "refs.json").write_text('{"version": 1, "refs": {}}')
        (tmp_path / "packed").write_bytes(b"")
        return ReferenceStore(tmp_path / "refs.json")

    def fill(self, store: Store, items: Iterable[tuple[str, Any]]) -> None:
        """Values in turn in the document, in a file of their own, and as ranges of one file."""
        assert isinstance(store, ReferenceStore)
        file = Path(str(store.location))
        document = json.loads(file.read_text())
        packed = file.parent / "packed"
        for i, (key, value) in enumerate(items):
            data = bytes(memoryview(value).tobytes())
            if i % 3 == 1 and len(data) < 10_000:
                reference: Any = "base64:" + base64.b64encode(data).decode()
            elif i % 30 == 2 and data:
                (file.parent / f"whole{i}").write_bytes(data)
                reference = [f"whole{i}"]
            else:
                with packed.open("ab") as out:
                    reference = ["packed", out.tell(), len(data)]
                    out.write(data)
            document["refs"][key] = reference
        file.write_text(json.dumps(document))
        store._load()

    def read_only(self, store: Store) -> Store:
        return store


# ---- documents -----------------------------------------------------------------------------------


EXAMPLE = {
    "version": 1,
    "templates": {"u": "server.domain/path", "f": "{{c}}", "s": "{{u}}/{{'%03d' % n}}"},
    "gen": [
        {
            "key": "gen_key{{i}}",
            "url": "http://{{u}}_{{i}}",
            "offset": "{{(i + 1) * 1000}}",
            "length": "1000",
            "dimensions": {"i": {"stop": 5}},
        },
        {
            "key": "g/{{j}}.{{k}}",
            "url": "{{s(n=j)}}",
            "dimensions": {"j": [3, 7], "k": {"start": 2, "stop": 8, "step": 3}},
        },
    ],
    "refs": {
        "key0": "data",
        "key1": ["http://target_url", 10000, 100],
        "key2": ["http://{{u}}", 10000, 100],
        "key3": ["http://{{f(c='text')}}", 10000, 100],
        "key4": ["http://target_url"],
        "key5": {"zarr_format": 2},
    },
}


def test_a_document_of_version_1() -> None:
    assert parse_references(json.dumps(EXAMPLE).encode()) == {
        "key0": "data",
        "key1": ["http://target_url", 10000, 100],
        "key2": ["http://server.domain/path", 10000, 100],
        "key3": ["http://text", 10000, 100],
        "key4": ["http://target_url"],
        "key5": '{"zarr_format": 2}',
        **{
            f"gen_key{i}": [f"http://server.domain/path_{i}", 1000 * (i + 1), 1000]
            for i in range(5)
        },
        **{f"g/{j}.{k}": [f"server.domain/path/00{j}"] for j in (3, 7) for k in (2, 5)},
    }


def test_a_document_of_version_0() -> None:
    document = {"a": "text", "b": ["url", 1, 2], "c": ["url"], "d": "base64:AAE="}
    assert parse_references(document) == document
    store = ReferenceStore(document)
    assert (store.get("a"), store.get("d")) == (b"text", b"\0\1")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"no json", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "object"),
        (b'{"version": 2, "refs": {}}', "version 2"),
        ({"version": 1, "refs": []}, "'refs'"),
        ({"version": 1, "refs": {}, "templates": 5}, "'templates'"),
        ({"a": 5}, "'a'"),
        ({"a": ["url", 1]}, "'a'"),
        ({"a": [5]}, "'a'"),
        ({"a": ["url", -1, 2]}, "-1"),
        ({"a": ["url", 1, 2.5]}, "2.5"),
        ({"a": ["url", 1, 2**70]}, "offset or length"),
        ({"../a": "x"}, "invalid key"),
        ({"a/../../b": "x"}, "invalid key"),
    ],
)
def test_malformed_documents(document: Any, text: str) -> None:
    with pytest.raises(MetadataError, match=text):
        parse_references(document)


@pytest.mark.parametrize(
    "slot",
    [
        "__import__('os').system('false')",
        "u.__class__",
        "u[0]",
        "[1 for i in u]",
        "10 ** 10 ** 10",
        "9999999999 * 9999999999",
        "'a' * 1000000000",
        "'%999999999d' % 1",
        "'%s%s' % u",
        "1 / 0",
        "unknown",
        "f(1)",
        "loop",
        "(",
        "",
        "u if u else u",
        "lambda: 1",
        "1 << 62",
    ],
)
def test_templates_are_no_programs(slot: str) -> None:
    document = {
        "version": 1,
        "templates": {"u": "x", "f": "{{c}}", "loop": "{{loop}}"},
        "refs": {"a": ["{{" + slot + "}}"]},
    }
    with pytest.raises(MetadataError):
        parse_references(document)


@pytest.mark.parametrize(
    "dimensions",
    [
        {"i": {"stop": 10**9}},
        {"i": {"stop": 10**30}},
        {"i": {"stop": 2000}, "j": {"stop": 2000}},
        {"i": {"stop": 5, "step": 0}},
        {"i": 5},
        {"i": {"stop": "5"}},
        5,
    ],
)
def test_what_is_generated_is_bounded(dimensions: Any) -> None:
    rule = {"key": "{{i}}", "url": "u", "dimensions": dimensions}
    with pytest.raises(MetadataError):
        parse_references({"version": 1, "refs": {}, "gen": [rule]})


def test_many_rules_count_together() -> None:
    rules = [{"key": "{{i}}", "url": "u", "dimensions": {"i": {"stop": 40}}}] * 3
    document = {"version": 1, "gen": rules}
    assert len(parse_references(document, max_generated=120)) == 40
    with pytest.raises(MetadataError, match="more than 119"):
        parse_references(document, max_generated=119)


# ---- targets -------------------------------------------------------------------------------------


def test_ranges_of_one_file_are_read_together(tmp_path: Path) -> None:
    data = blob(10_000)
    (tmp_path / "file").write_bytes(data)
    refs = {f"x/{i}": ["file", 100 + 50 * i, 40] for i in range(100)}
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    store = ReferenceStore(tmp_path / "refs.json")
    target, _ = store._target("x/0", "file")
    counting = CountingStore(target)
    store._targets[str(tmp_path)] = counting
    answer = fetch(store, *((key, 5, 10) for key in refs))
    assert answer == [data[105 + 50 * i :][:10] for i in range(100)]
    assert [(c.key, c.offset, c.nbytes) for c in counting.of("read")] == [("file", 105, 4960)]


def test_relative_paths_are_beside_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_bytes(b"0123456789")
    for target in ("data/file", str(tmp_path / "data/file"), f"file://{tmp_path}/data/file"):
        (tmp_path / "refs.json").write_text(json.dumps({"x": [target, 2, 3]}))
        monkeypatch.chdir(tmp_path)
        for url in (f"reference://{tmp_path}/refs.json", "reference://refs.json"):
            assert open_store(url)[0].get("x") == b"234"


def test_targets_on_a_web_server(server: HttpServer, tmp_path: Path) -> None:
    (server.folder / "a b").mkdir()
    data = blob(5000)
    (server.folder / "a b/file").write_bytes(data)
    urls = [f"{server.url}/a%20b/file", f"{server.url}/a%20b/file?sig=1"]
    refs = {f"x{i}": [url, 10 * i, 10] for url in urls for i in range(5)}
    refs["whole"] = [urls[0]]
    store = ReferenceStore(refs, remote_options={"headers": {"X-Mine": "1"}})
    assert store.get("x3") == data[30:40]
    assert fetch(store, ("x0", 0, REST), ("whole", -5, 5), ("x1", 2, 3)) == [
        data[:10],
        data[-5:],
        data[12:15],
    ]
    assert all(headers["x-mine"] == "1" for headers in server.headers)
    assert store.nbytes("whole") == 5000
    short = ReferenceStore({"x": [server.url.removeprefix("http://") + "/a b/file", 0, 3]})
    with pytest.raises(StoreError):
        short.get("x")
    named = ReferenceStore({"x": ["a b/file", 0, 3]}, remote_protocol="http")
    with pytest.raises(InvalidKeyError, match=r"http|host"):
        ReferenceStore({"x": ["/", 0, 3]}, remote_protocol="http").get("x")
    assert named._absolute("x", "h/a") == "http://h/a"


def test_a_target_that_is_gone_or_too_short_is_no_missing_value(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    refs = {"gone": ["nothing", 0, 5], "whole": ["nothing"], "short": ["file", 8, 5]}
    (tmp_path / "refs.json").write_text(json.dumps({**refs, "good": ["file", 0, 2]}))
    store = ReferenceStore(tmp_path / "refs.json")
    for key in ("gone", "whole"):
        for ranges in ([(key, 0, REST)], [("good", 0, REST), (key, 0, REST)]):
            with pytest.raises(StoreError, match="absent") as caught:
                fetch(store, *ranges)
            assert caught.value.key == key
        with pytest.raises(StoreError, match="absent"):
            store.get(key)
    for ranges in ([("short", 0, REST)], [("good", 0, REST), ("short", 0, 5)]):
        with pytest.raises(DataError, match="too short") as wrong:
            fetch(store, *ranges)
        assert wrong.value.key == "short"
    with pytest.raises(DataError, match="too short"):
        store.get("short")
    assert fetch(store, ("good", 0, REST), ("never", 0, REST)) == [b"01", None]


def test_a_failing_server_is_named(server: HttpServer) -> None:
    server.fault = lambda method, path, n: "403"
    store = ReferenceStore({"x": [f"{server.url}/file", 0, 3]})
    with pytest.raises(PermissionError, match="'x'"):
        fetch(store, ("x", 0, REST))
    with pytest.raises(PermissionError, match="'x'"):
        store.get("x")


# ---- references from elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/etc/hostname",
        "file:///etc/hostname",
        "FILE:///etc/hostname",
        "local:///etc/hostname",
        "memory://x/y",
        "zip://x::file:///etc/hostname",
        "filecache::file:///etc/hostname",
        "reference://x.json",
        "sqlite:///etc/x",
        "../../etc/hostname",
        "a/../../b",
    ],
)
def test_references_from_elsewhere_read_no_local_files(server: HttpServer, target: str) -> None:
    (server.folder / "refs.json").write_text(json.dumps({"x": [target], "y": [target, 0, 1]}))
    store, _ = open_store(f"reference://{server.url}/refs.json")
    for key in ("x", "y"):
        with pytest.raises(InvalidKeyError):
            store.get(key)
        with pytest.raises(InvalidKeyError):
            fetch(store, (key, 0, REST))


def test_local_files_on_request(server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    (server.folder / "refs.json").write_text(json.dumps({"x": [f"{tmp_path}/file", 2, 3]}))
    url = f"reference://{server.url}/refs.json"
    assert open_store(url, storage_options={"allow_local": True})[0].get("x") == b"234"


def test_references_beside_their_targets_on_a_server(server: HttpServer) -> None:
    (server.folder / "d").mkdir()
    (server.folder / "d/file").write_bytes(b"0123456789")
    (server.folder / "d/refs.json").write_text(json.dumps({"x": ["file", 2, 3]}))
    assert open_store(f"reference://{server.url}/d/refs.json")[0].get("x") == b"234"


# ---- opening -------------------------------------------------------------------------------------


def test_fsspecs_way_of_opening(tmp_path: Path) -> None:
    refs = {"x": "1"}
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    for fo in (str(tmp_path / "refs.json"), refs):
        store, _ = open_store("reference://", storage_options={"fo": fo, "target_protocol": "file"})
        assert store.get("x") == b"1"
        assert store.read_only
    for options in ({}, {"fo": refs, "unknown": 1}, {"fo": refs, "concurrency": -1}):
        with pytest.raises(StoreArgumentError):
            open_store("reference://", storage_options=options)


def test_absent_references(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="no references"):
        open_store(f"reference://{tmp_path}/nothing.json")
    with pytest.raises(MetadataError, match="no references"):
        open_store(f"reference://{tmp_path}/nothing.parq")


def test_an_array_of_references(tmp_path: Path) -> None:
    values = np.arange(60, dtype="<i4").reshape(6, 10)
    (tmp_path / "data.bin").write_bytes(b"header" + values.tobytes())
    metadata = {
        "zarr_format": 2,
        "shape": [6, 10],
        "chunks": [1, 10],
        "dtype": "<i4",
        "compressor": None,
        "filters": None,
        "fill_value": -1,
        "order": "C",
    }
    refs: dict[str, Any] = {".zgroup": '{"zarr_format": 2}', "x/.zarray": metadata}
    refs |= {f"x/{i}.0": ["data.bin", 6 + 40 * i, 40] for i in range(6) if i != 3}
    (tmp_path / "refs.json").write_text(json.dumps({"version": 1, "refs": refs}))
    opened = zarr_gpu.open_group(f"reference://{tmp_path}/refs.json", mode="r")
    expected = values.copy()
    expected[3] = -1
    assert np.array_equal(np.asarray(opened["x"][...]), expected)
    assert [name for name, _ in opened.members()] == ["x"]


# ---- Parquet -------------------------------------------------------------------------------------


def write_parquet(folder: Path, record_size: int = 4) -> np.ndarray[Any, Any]:
    """As kerchunk writes them: some chunks inline, absent, or whole files."""
    pa = pytest.importorskip("pyarrow", reason="extra reference: pyarrow is not installed")
    import pyarrow.parquet as pq

    values = np.arange(1, 61, dtype="<i4").reshape(6, 10)
    (folder.parent / "data.bin").write_bytes(b"header" + values.tobytes())
    (folder.parent / "alone").write_bytes(values[5, 5:].tobytes())
    array = {
        "zarr_format": 2,
        "shape": [6, 10],
        "chunks": [1, 5],
        "dtype": "<i4",
        "compressor": None,
        "filters": None,
        "fill_value": 0,
        "order": "C",
    }
    scalar = {**array, "shape": [], "chunks": []}
    documents = {".zgroup": {"zarr_format": 2}, "g/x/.zarray": array, "s/.zarray": scalar}
    (folder / "g/x").mkdir(parents=True)
    (folder / "s").mkdir()
    (folder / ".zmetadata").write_text(
        json.dumps({"metadata": documents, "record_size": record_size})
    )
    target = str(folder.parent / "data.bin")
    rows: list[tuple[Any, int, int, Any]] = [(target, 6 + 20 * i, 20, None) for i in range(12)]
    rows[2] = (None, 0, 0, values[1, :5].tobytes())
    rows[7] = (None, 0, 0, None)
    rows[11] = (str(folder.parent / "alone"), 0, 0, None)
    values[3, 5:] = 0

    def write(name: str, part: list[tuple[Any, int, int, Any]]) -> None:
        path, offset, size, raw = zip(*part, strict=True)
        columns = {
            "path": pa.array(path, pa.string()).dictionary_encode(),
            "offset": pa.array(offset, pa.int64()),
            "size": pa.array(size, pa.int64()),
            "raw": pa.array(raw, pa.binary()),
        }
        pq.write_table(pa.table(columns), folder / name)

    for record in range(0, 12, record_size):
        write(f"g/x/refs.{record // record_size}.parq", rows[record : record + record_size])
    write("s/refs.0.parq", [(None, 0, 0, np.int32(7).tobytes())])
    return values


@pytest.mark.parametrize("name", ["refs.parq", "refs"])
def test_parquet(tmp_path: Path, name: str) -> None:
    values = write_parquet(tmp_path / name)
    store, _ = open_store(f"reference://{tmp_path / name}")
    opened = zarr_gpu.open_group(store, mode="r")
    assert np.array_equal(np.asarray(opened["g/x"][...]), values)
    assert np.asarray(opened["s"][...]) == 7
    assert store.nbytes("g/x/0.0") == 20
    assert store.get("g/x/9.0") is None
    assert store.get("g/x/0.0.0") is None
    assert store.get("g/x/a.b") is None
    keys = [f"g/x/{i}.{j}" for i in range(6) for j in range(2) if (i, j) != (3, 1)]
    assert list(store.list_prefix()) == sorted(
        [".zgroup", "g/x/.zarray", "s/.zarray", "s/0", *keys]
    )


def test_parquet_tables_are_read_when_they_are_needed(tmp_path: Path) -> None:
    write_parquet(tmp_path / "refs.parq")
    store = ReferenceStore(tmp_path / "refs.parq")
    assert store._parquet is not None
    asked: list[str] = []
    read = store._parquet._read
    store._parquet._read = lambda name: asked.append(name) or read(name)  # type: ignore[func-returns-value]
    fetch(store, ("g/x/2.1", 0, REST), ("g/x/3.0", 0, REST))
    assert asked == ["g/x/refs.1.parq"]


def test_damaged_parquet(tmp_path: Path) -> None:
    folder = tmp_path / "refs.parq"
    write_parquet(folder)
    (folder / "g/x/refs.0.parq").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(MetadataError, match=r"refs\.0\.parq"):
        ReferenceStore(folder).get("g/x/0.0")
    for text in ("{", "[]", '{"metadata": {}}', '{"metadata": {}, "record_size": 0}', "{}"):
        (folder / ".zmetadata").write_text(text)
        with pytest.raises(MetadataError):
            ReferenceStore(folder)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "refs.parq")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"zarr-gpu\[reference\]"):
        ReferenceStore(tmp_path / "refs.parq").get("g/x/0.0")
