"""Zip files: written by us, by others, damaged, hostile."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_suite import StoreSuite, blob, fetch, in_child, parts

from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError, ZarrError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.zip import ZipStore


class TestZipStore(StoreSuite):
    many_keys = 2_000
    many_writers = durable = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        with ZipStore(tmp_path / "a.zip", mode="a") as store:
            yield store

    def settle(self, store: Store) -> None:
        store.close()

    def test_it_survives_closing(self, store: Store) -> None:
        values = {f"a/{i}": blob(i, i) for i in range(10)}
        store.put_many(values.items())
        store.delete_many(["a/3"])
        store.close()
        del values["a/3"]
        with ZipStore(str(store.path), mode="r") as again:  # type: ignore[attr-defined]
            assert list(again.list_prefix()) == sorted(values)
            answer = again.fetch(ByteRequest.whole(list(values)), HostMemory())
            assert parts(answer) == list(values.values())


class TestDeflated(StoreSuite):
    many_keys = 1_000
    many_writers = durable = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        path = tmp_path / "a.zip"
        with ZipStore(path, mode="w", compression=zipfile.ZIP_DEFLATED) as store:
            yield store

    def settle(self, store: Store) -> None:
        store.close()

    def test_a_pickled_store_means_the_same(self, store: Store) -> None:
        """A store opened with mode "w" would begin the file anew; see below."""


def write_zip(path: Path, entries: list[tuple[str, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names
        for name, value in entries:
            archive.writestr(name, value)
    return path


# ---- written by others ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_last_of_equal_names_counts(tmp_path: Path, method: int) -> None:
    path = write_zip(
        tmp_path / "a.zip", [("x", b"old" * 50), ("y", b"1"), ("x", b"new")], compression=method
    )
    store = ZipStore(path)
    assert store.get("x") == b"new"
    assert store.nbytes("x") == 3
    assert list(store.list_prefix()) == ["x", "y"]
    assert fetch(store, ("x", 1, 2), ("x", -1, 1), ("y", 0, REST)) == [b"ew", b"w", b"1"]
    store.close()


def test_leading_bytes_and_comments(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"value")])
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hello"
    with ZipStore(path) as store:
        assert store.get("x") == b"value"


def test_large_files_are_addressed_with_64_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x", "w", force_zip64=True) as entry:
        entry.write(b"value")
    with ZipStore(path) as store:
        assert store.get("x") == b"value"


def test_directory_entries_are_not_keys(tmp_path: Path) -> None:
    with ZipStore(write_zip(tmp_path / "a.zip", [("a/", b""), ("a/x", b"1")])) as store:
        assert list(store.list_prefix()) == ["a/x"]
        assert store.list_dir() == ("a",)


def test_mixed_methods_in_one_request(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    value = blob(1000) * 2
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("stored", value, zipfile.ZIP_STORED)
        archive.writestr("deflated", value, zipfile.ZIP_DEFLATED)
    with ZipStore(path) as store:
        assert fetch(
            store, ("stored", 5, 500), ("deflated", 5, 500), ("no", 0, 1), ("deflated", -9, 9)
        ) == [value[5:505], value[5:505], None, value[-9:]]


# ---- writing -------------------------------------------------------------------------------------


def test_replacing_leaves_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with ZipStore(path, mode="w") as store:
        for i in range(100):
            store.put("x", b"%d" % i)
            assert store.get("x") == b"%d" % i
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["x"]
        assert archive.read("x") == b"99"


def test_adding_to_a_file_of_others(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"1"), ("y", b"2"), ("x", b"3")])
    with ZipStore(path, mode="a") as store:
        assert store.get("x") == b"3"
        store.put("z", b"4")
        store.put("x", b"5")
        store.delete_many(["y"])
        assert fetch(store, ("x", 0, REST), ("y", 0, REST), ("z", 0, REST)) == [b"5", None, b"4"]
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["x", "z"]
        assert archive.testzip() is None


def test_only_deleting_is_written_too(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"1"), ("y", b"2")])
    with ZipStore(path, mode="a") as store:
        store.delete_prefix("")
    with ZipStore(path) as store:
        assert list(store.list_prefix()) == []


def test_modes(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with pytest.raises(StoreError, match="cannot open"):
        ZipStore(path)
    with ZipStore(path, mode="a") as store:
        assert store.get("x") is None
        assert not path.exists()
        store.put("x", b"1")
    with pytest.raises(StoreError):
        ZipStore(path, mode="x")
    with ZipStore(path, mode="r") as store:
        assert store.read_only
        with pytest.raises(ReadOnlyError):
            store.put("x", b"2")
        with pytest.raises(ReadOnlyError):
            store.write("x", memoryview(b"2"))
    with ZipStore(path, mode="a", read_only=True) as store, pytest.raises(ReadOnlyError):
        store.put("x", b"2")
    with ZipStore(path, mode="w") as store:
        assert store.get("x") is None
    with pytest.raises(InvalidKeyError, match="mode"):
        ZipStore(path, mode="rb")
    with pytest.raises(StoreError, match="stored or deflated"):
        ZipStore(path, compression=zipfile.ZIP_LZMA)


def test_an_open_writer_is_neither_pickled_nor_forked(tmp_path: Path) -> None:
    import os
    import pickle

    store = ZipStore(tmp_path / "a.zip", mode="a")
    store.put("x", b"1")
    with pytest.raises(StoreError, match="close"):
        pickle.dumps(store)

    def write() -> bool:
        try:
            store.put("y", b"2")
        except StoreError as error:
            return "after fork" in str(error)
        return False

    if hasattr(os, "fork"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert in_child(write)
    store.close()
    with ZipStore(tmp_path / "a.zip") as store:
        assert list(store.list_prefix()) == ["x"]


def test_a_new_file_that_was_closed_is_not_begun_anew(tmp_path: Path) -> None:
    import pickle

    store = ZipStore(tmp_path / "a.zip", mode="w")
    store.put("x", b"1")
    store.close()
    assert store.get("x") == b"1"
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get("x") == b"1"
    copy.put("y", b"2")
    copy.close()
    store.close()
    assert list(store.list_prefix()) == ["x", "y"]
    store.close()


# ---- damaged and hostile -------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_a_named_error(tmp_path: Path) -> None:
    entries = [(f"a/{i}", blob(100, i)) for i in range(20)]
    whole = write_zip(tmp_path / "whole.zip", entries).read_bytes()
    for cut in np.linspace(0, len(whole) - 1, 200).astype(int).tolist():
        path = tmp_path / f"{cut}.zip"
        path.write_bytes(whole[:cut])
        with pytest.raises(StoreError, match="not a readable zip file"):
            ZipStore(path)


def test_flipped_bytes_are_named_errors_or_the_right_values(tmp_path: Path) -> None:
    entries = {"a": blob(60), "b/c": b"text " * 20}
    path = tmp_path / "a.zip"
    rng = np.random.default_rng(0)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        whole = write_zip(path, list(entries.items()), compression=method).read_bytes()
        for n, at in enumerate(rng.integers(0, len(whole), 200).tolist()):
            path = tmp_path / f"{method}-{n}.zip"  # replacing a file is slow on some file systems
            damaged = bytearray(whole)
            damaged[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                with ZipStore(path) as store:
                    for key, value in entries.items():
                        assert store.get(key) in {value, None}
                        fetch(store, (key, 0, REST), ("a", 0, 3))
            except ZarrError:
                pass


def patch_directory(path: Path, offset: int, form: str, *values: int) -> None:
    """Overwrite fields of the first central directory entry."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    struct.pack_into(form, data, at + offset, *values)
    path.write_bytes(data)


def test_a_wrong_checksum(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_zip(tmp_path / "a.zip", [("x", b"value" * 9)], compression=method)
        patch_directory(path, 16, "<I", zlib.crc32(b"other"))
        with ZipStore(path) as store, pytest.raises(DataError, match="checksum") as caught:
            store.get("x")
        assert caught.value.key == "x"


def test_encrypted_entries_and_unknown_methods(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"value")])
    patch_directory(path, 8, "<H", 1)
    with ZipStore(path) as store, pytest.raises(StoreError, match="encrypted"):
        store.get("x")
    path = write_zip(tmp_path / "b.zip", [("x", b"value")])
    patch_directory(path, 10, "<H", 99)
    with ZipStore(path) as store, pytest.raises(StoreError, match="method 99"):
        fetch(store, ("x", 0, REST), ("x", 0, 1))


@pytest.mark.parametrize("size", [2**31, 100_000])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_that_lie_cost_nothing(tmp_path: Path, size: int, method: int) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"value")], compression=method)
    patch_directory(path, 24, "<I", size)
    with ZipStore(path) as store:
        for call in (lambda: store.get("x"), lambda: fetch(store, ("x", 0, 1), ("y", 0, 1))):
            with pytest.raises(DataError, match="contradict"):
                call()


def test_a_stream_longer_than_promised_is_refused_early(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", bytes(10**7))], compression=zipfile.ZIP_DEFLATED)
    patch_directory(path, 24, "<I", 1000)
    with ZipStore(path) as store, pytest.raises(DataError) as caught:
        store.get("x")
    assert (caught.value.expected, caught.value.actual) == (1000, 1001)


@pytest.mark.parametrize("offset", [5, 2**30])
def test_an_entry_that_points_elsewhere(tmp_path: Path, offset: int) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"value"), ("y", b"1")])
    patch_directory(path, 42, "<I", offset)
    with ZipStore(path) as store:
        with pytest.raises(DataError, match="local header"):
            store.get("x")
        assert store.get("y") == b"1"


def test_names_that_would_leave_the_store_are_not_keys(tmp_path: Path) -> None:
    names = ["../x", "/abs", "a/../../x", "a\\b", "C:/x", "good"]
    with ZipStore(write_zip(tmp_path / "a.zip", [(n, b"1") for n in names])) as store:
        assert "good" in list(store.list_prefix())
        assert all(".." not in key and not key.startswith("/") for key in store.list_prefix())
        with pytest.raises(InvalidKeyError):
            store.get("../x")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\5\6" + bytes(10), bytes(1000)])
def test_files_that_are_no_zips(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(StoreError, match="not a readable zip file"):
        ZipStore(tmp_path / "a.zip")


def test_a_directory_is_no_zip(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ZipStore(tmp_path)
