"""Stores behind fsspec, with its memory and local file systems and an asynchronous one of ours."""

from __future__ import annotations

import asyncio
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, ask, fetch, parts

from zarr_gpu.errors import DataError, InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import StorePermissionError
from zarr_gpu.storage.fsspec import FsspecStore


class ObjectFileSystem(AsyncFileSystem):
    """An object store in memory: asynchronous, no real directories, counts what is in flight."""

    protocol = "zarrgputest"
    cachable = False
    values: dict[str, bytes] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.active = self.most = 0
        self.error: Exception | None = None

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        self.active += 1
        self.most = max(self.most, self.active)
        await asyncio.sleep(0.001)
        self.active -= 1
        if self.error is not None:
            raise self.error
        if path not in self.values:
            raise FileNotFoundError(path)
        return self.values[path][start:end]

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        assert type(value) is bytes
        self.values[path] = value

    async def _rm_file(self, path: str, **_: Any) -> None:
        if self.values.pop(path, None) is None:
            raise FileNotFoundError(path)

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        if path in self.values:
            return {"name": path, "size": len(self.values[path]), "type": "file"}
        if any(name.startswith(f"{path}/") for name in self.values):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        start = f"{path}/" if path else ""
        below = [name for name in self.values if name.startswith(start)]
        if not below:
            raise FileNotFoundError(path)
        names = {start + name[len(start) :].split("/")[0] for name in below}
        if not detail:
            return sorted(names)
        return [await self._info(name) for name in sorted(names)]


fsspec.register_implementation("zarrgputest", ObjectFileSystem)


class TestMemoryFileSystem(StoreSuite, StoreArraySuite):
    title = "fsspec, memory"
    many_writers = spawns = durable = False  # in this process alone

    @pytest.fixture
    def store(self) -> Any:
        fs = fsspec.filesystem("memory")
        root = f"/{uuid.uuid4().hex}/a.zarr"
        yield FsspecStore(fs, root)
        if fs.exists(root):
            fs.rm(root, recursive=True)

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, FsspecStore)
        return FsspecStore(store.fs, store.path, read_only=True)


class TestObjectFileSystem(StoreSuite, StoreArraySuite):
    title = "fsspec, asynchronous objects"
    many_keys = 1_000
    many_writers = spawns = durable = in_order = False

    @pytest.fixture
    def store(self) -> Store:
        return FsspecStore(ObjectFileSystem(), f"bucket/{uuid.uuid4().hex}")


class TestWholeFileSystem(StoreSuite):
    """The store begins at the root of the file system."""

    title = "fsspec, a whole file system"
    many_keys = 1_000
    many_writers = spawns = durable = False

    @pytest.fixture
    def store(self) -> Any:
        ObjectFileSystem.values.clear()
        yield FsspecStore(ObjectFileSystem(), "", concurrency=1)
        ObjectFileSystem.values.clear()


def test_real_directories_are_made(tmp_path: Path) -> None:
    store = FsspecStore(fsspec.filesystem("file"), str(tmp_path / "a.zarr"))
    store.put("a/b/c", b"1")
    assert (tmp_path / "a.zarr/a/b/c").read_bytes() == b"1"
    assert store.get("a/b/c") == b"1"
    assert store.get("a/b") is None
    assert not store.exists("a/b")
    assert list(store.list_prefix()) == ["a/b/c"]
    assert store.list_dir("a") == ("b",)


def test_requests_are_in_flight_together_and_not_too_many() -> None:
    fs = ObjectFileSystem()
    store = FsspecStore(fs, "b", concurrency=6)
    keys = [f"{i}" for i in range(40)]
    store.put_many((key, key.encode()) for key in keys)
    answer = store.fetch(ByteRequest.whole(keys), HostMemory())
    assert parts(answer) == [key.encode() for key in keys]
    assert 2 <= fs.most <= 6


@pytest.mark.parametrize("error", [PermissionError("403"), TimeoutError(), RuntimeError("503")])
def test_errors_among_many_requests_surface(error: Exception) -> None:
    fs = ObjectFileSystem()
    store = FsspecStore(fs, "b", retries=0)
    store.put_many([("x", b"1"), ("y", b"2")])
    fs.error = error
    for call in (
        lambda: store.get("x"),
        lambda: store.exists("x"),
        lambda: fetch(store, ("x", 0, REST), ("y", 0, REST)),
        lambda: fetch(store, ("x", 0, REST)),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert isinstance(caught.value.__cause__, type(error))
        assert caught.value.key == "x"
    if isinstance(error, PermissionError):
        assert isinstance(caught.value, StorePermissionError)


def test_what_may_pass_is_tried_again() -> None:
    class Flaky(ObjectFileSystem):
        calls = 0

        async def _cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
            self.calls += 1
            if self.calls % 5 == 0:
                raise ConnectionResetError("gone") if self.calls % 2 else TimeoutError
            return await super()._cat_file(path, start, end)

    fs = Flaky()
    store = FsspecStore(fs, "b")
    keys = [f"{i}" for i in range(40)]
    store.put_many((key, key.encode()) for key in keys)
    answer = store.fetch(ByteRequest.whole(keys), HostMemory())
    assert parts(answer) == [key.encode() for key in keys]
    assert fs.calls == 49  # eight of forty fail, and one of those eight again
    assert [store.get("3") for _ in range(6)] == [b"3"] * 6
    fs.error = ConnectionResetError("for good")
    fs.calls = 0
    with pytest.raises(ConnectionError, match="'3'"):
        FsspecStore(fs, "b", retries=2).get("3")
    assert fs.calls == 3


def test_a_server_that_refuses_ranges_past_the_end() -> None:
    class Strict(ObjectFileSystem):
        async def _cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
            data = await super()._cat_file(path, start, end)
            if start and not data:
                raise OSError(22, "the requested range is not satisfiable")
            if path.endswith("bad"):
                raise OSError(22, "for another reason")
            return data

    store = FsspecStore(Strict(), "b")
    store.put_many([("x", b"0123456789"), ("bad", b"0123456789")])
    for ranges in ([("x", 10, REST)], [("x", 10, REST), ("never", 50, REST)]):
        assert fetch(store, *ranges) == [b"", None][: len(ranges)]
    for ranges in ([("x", 10, 5)], [("x", 10, 5), ("never", 0, 1)]):
        with pytest.raises(DataError, match="too short"):
            fetch(store, *ranges)
    with pytest.raises(StoreError, match="another reason"):
        fetch(store, ("bad", 3, 2))


def test_options_of_the_store_and_of_the_file_system() -> None:
    options = {"concurrency": 3, "retries": 1}
    store = FsspecStore.from_url("zarrgputest://b", storage_options=options)
    assert (store.concurrency, store.retries) == (3, 1)


def test_a_server_that_ignores_ranges() -> None:
    class Careless(ObjectFileSystem):
        async def _cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
            return b"0123456789"

    store = FsspecStore(Careless(), "b")
    for ranges in ([("x", 2, 3)], [("x", 2, 3), ("y", 2, 3)], [("x", -4, 4), ("y", 0, REST)]):
        with pytest.raises(DataError, match="more bytes than"):
            store.fetch(ask(*ranges), HostMemory())


def test_a_server_that_does_not_tell_sizes() -> None:
    class Silent(ObjectFileSystem):
        async def _info(self, path: str, **_: Any) -> dict[str, Any]:
            return {**await super()._info(path), "size": None}

    store = FsspecStore(Silent(), "b")
    store.put("x", b"12345")
    assert store.nbytes("x") == 5


def test_file_systems_that_cannot_write() -> None:
    class Fixed(ObjectFileSystem):
        async def _pipe_file(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError

        async def _rm_file(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError

    store = FsspecStore(Fixed(), "b")
    for call in (lambda: store.put("x", b"1"), lambda: store.delete_many(["x"])):
        with pytest.raises(PermissionError, match="cannot be written"):
            call()


def test_urls() -> None:
    store = FsspecStore.from_url("zarrgputest://bucket/deep/a.zarr", read_only=True)
    assert isinstance(store.fs, ObjectFileSystem)
    assert store.path == "bucket/deep/a.zarr"
    assert store.read_only
    assert store == pickle.loads(pickle.dumps(store)) or not store.fs.cachable


def test_chained_urls(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/y", b"1")
    store = FsspecStore.from_url(f"zip://::file://{tmp_path}/a.zip")
    assert store.get("x/y") == b"1"
    assert list(store.list_prefix()) == ["x/y"]


def test_unknown_and_missing_kinds_of_url(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidKeyError, match="nosuchscheme"):
        FsspecStore.from_url("nosuchscheme://a/b")

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingDependencyError, match=r"zarr-gpu\[s3\]") as caught:
        FsspecStore.from_url("s3://bucket/a.zarr")
    assert isinstance(caught.value, ImportError)
    with pytest.raises(MissingDependencyError, match="Install s3fs"):
        FsspecStore.from_url("other://bucket/a.zarr")


def test_file_systems_of_an_event_loop_are_refused() -> None:
    with pytest.raises(StoreError, match="asynchronous=True"):
        FsspecStore(ObjectFileSystem(asynchronous=True), "b")


def test_a_stale_listing_is_not_believed(tmp_path: Path) -> None:
    fs = fsspec.filesystem("dir", path=str(tmp_path), fs=fsspec.filesystem("file"))
    store = FsspecStore(fs, "")
    assert store.list_dir() == ()
    (tmp_path / "late").write_bytes(b"1")
    assert store.list_dir() == ("late",)
    assert store.exists("late")
    assert os.path.basename(next(iter(store.list_prefix()))) == "late"  # noqa: PTH119
