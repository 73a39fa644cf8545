"""Zip archives inside other stores."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from store_suite import StoreSuite, ask, blob, parts

from zarr_gpu.errors import DataError, InvalidKeyError, NodeNotFoundError, StoreError
from zarr_gpu.extents import ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.opening import open_store
from zarr_gpu.storage.wrappers import CountingStore
from zarr_gpu.storage.zip import ZipStore
from zarr_gpu.storage.zip_nested import NestedZipStore


def archive(values: Iterable[tuple[str, Any]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for key, value in values:
            made.writestr(key, value)
    return file.getvalue()


class TestZipInLocal(StoreSuite):
    title = "zip inside another store"
    writable = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        outer = LocalStore(tmp_path)
        outer.put("data/all.zip", archive([]))
        return NestedZipStore(outer, "data/all.zip")

    def fill(self, store: Store, items: Iterable[tuple[str, Any]]) -> None:
        assert isinstance(store, NestedZipStore)
        store.store.put(store.key, archive(items))
        store._reset()

    def read_only(self, store: Store) -> Store:
        return store


class TestDeflatedInLocal(TestZipInLocal):
    title = "zip inside another store, deflated"

    def fill(self, store: Store, items: Iterable[tuple[str, Any]]) -> None:
        assert isinstance(store, NestedZipStore)
        store.store.put(store.key, archive(items, zipfile.ZIP_DEFLATED))
        store._reset()


def test_ranges_of_the_archive_are_read_together() -> None:
    values = {f"c/{i}": blob(1000, i) for i in range(100)}
    outer = CountingStore(MemoryStore({"a.zip": archive(values.items())}))
    store = NestedZipStore(outer, "a.zip")
    opened = outer.count("read")
    assert opened <= 4
    assert outer.bytes_read < 70_000 + 100 * 60
    outer.reset()
    answer = store.fetch(ByteRequest.whole(list(values)), HostMemory())
    assert parts(answer) == list(values.values())
    assert outer.count("read") <= 4  # headers and values, each as few reads
    outer.reset()
    answer = store.fetch(ask(("c/5", 10, 20), ("c/50", -5, 5)), HostMemory())
    assert parts(answer) == [values["c/5"][10:30], values["c/50"][-5:]]
    assert outer.bytes_read == 25


def test_what_is_no_archive() -> None:
    outer = MemoryStore({"a.zip": b"not a zip"})
    with pytest.raises(StoreError, match="not a readable zip file") as caught:
        NestedZipStore(outer, "a.zip")
    assert caught.value.key == "a.zip"
    with pytest.raises(NodeNotFoundError):
        NestedZipStore(outer, "b.zip")
    with pytest.raises(InvalidKeyError):
        NestedZipStore(outer, "../a.zip")


def test_an_entry_beyond_the_end() -> None:
    data = bytearray(archive([("x", b"1"), ("y", b"2")]))
    at = data.index(b"PK\1\2")
    data[at + 42 : at + 46] = (2**20).to_bytes(4, "little")
    store = NestedZipStore(MemoryStore({"a.zip": bytes(data)}), "a.zip")
    with pytest.raises(DataError):
        store.fetch(ByteRequest.whole(["x", "y"]), HostMemory())
    assert store.get("y") == b"2"


def test_an_archive_that_went_away() -> None:
    outer = MemoryStore({"a.zip": archive([("x", b"1")])})
    store = NestedZipStore(outer, "a.zip")
    outer.delete_many(["a.zip"])
    with pytest.raises(StoreError):
        store.get("x")


def test_urls(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with ZipStore(path, mode="w") as made:
        made.put("group/x", b"1")
    for url, kind in (
        (f"zip://{path}", ZipStore),
        (f"zip://{path}/group", ZipStore),
        (f"zip://group::file://{path}", ZipStore),
        (f"zip://::file://{path}", ZipStore),
    ):
        store, inner = open_store(url, mode="r")
        assert type(store) is kind
        assert inner == ("group" if "group" in url else "")
        assert store.get("group/x") == b"1"
        assert store.read_only
        store.close()
    open_store("memory://nested")[0].put("deep/a.zip", path.read_bytes())
    store, inner = open_store("zip://group::memory://nested/deep/a.zip")
    assert type(store) is NestedZipStore
    assert inner == "group"
    assert store.get("group/x") == b"1"
    assert pickle.loads(pickle.dumps(store)) == store
    for bad in ("zip://", "zip://folder/x", "zip://x::memory://", f"zip://../x::file://{path}"):
        with pytest.raises(InvalidKeyError):
            open_store(bad)
    with open_store(f"zip://{tmp_path}/new.ozx/a/b")[0] as writer:
        writer.put("a/b/x", b"1")
    assert isinstance(open_store(tmp_path / "new.ozx", mode="r")[0], ZipStore)
