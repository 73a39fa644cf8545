"""What users may call a store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import fsspec
import pytest

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, ReadOnlyError, ZarrError
from zarr_gpu.storage import opening
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.fsspec import FsspecStore
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore, named_memory
from zarr_gpu.storage.opening import StoreArgumentError, open_store, register_scheme
from zarr_gpu.storage.wrappers import ReadOnlyStore
from zarr_gpu.storage.zip import ZipStore


def test_nothing_is_fresh_memory() -> None:
    store, path = open_store()
    assert isinstance(store, MemoryStore)
    assert path == ""
    assert not store.read_only
    assert store.items is not open_store()[0].items  # type: ignore[attr-defined]


def test_a_store_is_itself() -> None:
    store = MemoryStore()
    assert open_store(store)[0] is store
    assert open_store(store, mode="a")[0] is store
    closed = open_store(store, mode="r")[0]
    assert isinstance(closed, ReadOnlyStore)
    assert closed.store is store
    assert open_store(closed, mode="r")[0] is closed


def test_mappings() -> None:
    items = {"x": b"1"}
    store, _ = open_store(items)
    store.put("y", b"2")
    assert items == {"x": b"1", "y": b"2"}
    assert open_store(items, mode="r")[0].read_only
    assert open_store(MappingProxyType(items))[0].read_only
    with pytest.raises(ReadOnlyError):
        open_store(MappingProxyType(items), mode="w")


@pytest.mark.parametrize("make", [str, Path])
def test_paths(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    store, path = open_store(make(tmp_path / "a.zarr"))
    assert store == LocalStore(tmp_path / "a.zarr")
    assert path == ""
    assert open_store(make(tmp_path), mode="r")[0] == LocalStore(tmp_path, read_only=True)
    assert open_store(make(tmp_path), read_only=True)[0].read_only
    assert open_store(make(tmp_path / "a%20b"))[0] == LocalStore(tmp_path / "a%20b")


def test_file_urls(tmp_path: Path) -> None:
    for url in (
        f"file://{tmp_path}/with%20space/%C3%A9.zarr",
        f"file://localhost{tmp_path}/with space/é.zarr",
        f"FILE://{tmp_path}/with%20space/é.zarr",
    ):
        assert open_store(url) == (LocalStore(tmp_path / "with space/é.zarr"), "")
    for url in ("file://host/a", "file://relative", "file://"):
        with pytest.raises(InvalidKeyError):
            open_store(url)
    with pytest.raises(InvalidKeyError):
        open_store(f"file://{tmp_path}/a%00b")


def test_memory_urls() -> None:
    store, path = open_store("memory://opening/a/b")
    assert store == named_memory("opening")
    assert path == "a/b"
    store.put("a/b/x", b"1")
    assert open_store("memory://opening")[0].get("a/b/x") == b"1"
    assert open_store("memory://opening/")[1] == ""
    assert open_store("memory://opening", mode="r")[0].read_only
    store.delete_prefix("")
    with pytest.raises(InvalidKeyError):
        open_store("memory://opening/../x")


def test_zip_files(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    store, _ = open_store(str(path))
    assert isinstance(store, ZipStore)
    with store:
        store.put("x", b"1")
    for like in (path, str(path), f"file://{path}"):
        with open_store(like, mode="r")[0] as closed:
            assert isinstance(closed, ZipStore)
            assert closed.read_only
            assert closed.get("x") == b"1"
    with open_store(path)[0] as store:
        assert store.get("x") == b"1"
    with open_store(path, mode="w")[0] as store:
        assert store.get("x") is None
    (tmp_path / "folder.zip").mkdir()
    assert isinstance(open_store(tmp_path / "folder.zip")[0], LocalStore)


def test_mappings_of_fsspec() -> None:
    mapper = fsspec.get_mapper("memory://opening-map/a.zarr")
    store, _ = open_store(mapper)
    assert isinstance(store, FsspecStore)
    store.put("x", b"1")
    assert mapper["x"] == b"1"
    assert open_store(mapper, mode="r")[0].read_only
    mapper.fs.rm("/opening-map", recursive=True)


def test_other_urls_go_to_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def from_url(url: str, **options: Any) -> Store:
        seen.append((url, options))
        return MemoryStore(read_only=options["read_only"])

    monkeypatch.setattr(FsspecStore, "from_url", from_url)
    options = {"anon": True, "backend": "fsspec"}
    open_store("s3://bucket/a.zarr", storage_options=options)
    open_store("simplecache::https://example.org/a.zarr", mode="r")
    assert seen == [
        ("s3://bucket/a.zarr", {"storage_options": {"anon": True}, "read_only": False}),
        ("simplecache::https://example.org/a.zarr", {"storage_options": None, "read_only": True}),
    ]


def test_unknown_urls() -> None:
    with pytest.raises(InvalidKeyError, match="nosuchscheme"):
        open_store("nosuchscheme://a/b")


@pytest.mark.parametrize("like", [{}, None, "a.zarr", Path("a"), MemoryStore(), "memory://m"])
def test_options_are_for_urls(like: Any) -> None:
    with pytest.raises(StoreArgumentError, match="storage_options") as caught:
        open_store(like, storage_options={"anon": True})
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ZarrError)
    open_store(like, storage_options={})


@pytest.mark.parametrize("like", [5, 1.5, b"bytes", [], ("a", "b"), object(), True])
def test_what_is_no_store(like: Any) -> None:
    with pytest.raises(StoreArgumentError, match=type(like).__name__) as caught:
        open_store(like)
    assert isinstance(caught.value, TypeError | ValueError)


def test_an_empty_path_is_a_mistake() -> None:
    with pytest.raises(InvalidKeyError, match="working directory"):
        open_store("")


def test_read_only_stores_are_not_opened_for_writing() -> None:
    closed = MemoryStore(read_only=True)
    assert open_store(closed)[0] is closed
    assert open_store(closed, mode="a")[0] is closed  # reading may be all that is wanted
    for options in ({"mode": "w"}, {"mode": "w-"}, {"read_only": False}):
        with pytest.raises(ReadOnlyError):
            open_store(closed, **options)  # type: ignore[arg-type]


def test_registered_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_openers", {})
    store = MemoryStore()
    register_scheme("Mine", lambda url, *, read_only, storage_options: (store, url[7:]))
    assert open_store("mine://a/b") == (store, "a/b")
    register_scheme("mine", lambda url, *, read_only, storage_options: store)
    assert open_store("mine://a/b", mode="r")[0].read_only


class Point:
    value = "package:opener"

    def __init__(self, opener: Any) -> None:
        self.opener = opener

    def load(self) -> Any:
        if isinstance(self.opener, Exception):
            raise self.opener
        return self.opener


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_openers", {})
    store = MemoryStore()
    points = {"theirs": Point(lambda url, **options: store), "broken": Point(ImportError("no"))}

    def entry_points(*, group: str, name: str) -> list[Point]:
        assert group == "zarr_gpu.stores"
        return [points[name]] if name in points else []

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert open_store("theirs://x")[0] is store
    points.clear()
    assert open_store("theirs://x")[0] is store  # looked up once
    points["broken"] = Point(ImportError("no"))
    with pytest.raises(MissingDependencyError, match="package:opener"):
        open_store("broken://x")


def test_importing_stores_is_cheap() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import zarr_gpu.storage.opening;"
        "heavy = {'fsspec', 'asyncio', 'zipfile', 'concurrent.futures', 'urllib.request',"
        " 'shutil', 'importlib.metadata', 'tempfile'};"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_cloud_scheme_is_opened_by_the_cloud_store() -> None:
    from zarr_gpu.storage import opening
    from zarr_gpu.storage.cloud_options import SCHEMES

    assert {name for name, module in opening._MODULES.items() if module == "obstore"} == set(
        SCHEMES
    )
