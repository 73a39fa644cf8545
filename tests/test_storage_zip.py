"""Zip files: written by us, by others, damaged, hostile."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_arrays import StoreArraySuite
from store_suite import StoreSuite, blob, fetch, in_child, parts

from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError, ZarrError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage import atomic
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.zip import ZipStore
from zarr_gpu.storage.zip_directory import Entry, directory_bytes, local_header

MEBIBYTE = bytes(1 << 20)


class TestZipStore(StoreSuite, StoreArraySuite):
    title = "zip"
    many_writers = False
    cannot_pickle = (StoreError,)

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


class TestDeflated(StoreSuite, StoreArraySuite):
    title = "zip, deflated"
    many_keys = 1_000
    large_nbytes = 5 << 20  # random bytes are slow to deflate
    many_writers = False
    cannot_pickle = (StoreError,)

    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        path = tmp_path / "a.zip"
        with ZipStore(path, mode="w", compression=zipfile.ZIP_DEFLATED) as store:
            yield store

    def settle(self, store: Store) -> None:
        store.close()


class TestWithoutPositionalReads(StoreSuite):
    """As on Windows."""

    title = "zip, without pread"
    many_keys = 300
    many_writers = forks = spawns = False  # where there is neither

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(atomic, "preadv", atomic._seek_and_read)
        monkeypatch.delattr(os, "pread", raising=False)
        monkeypatch.setattr(atomic, "HAS_LOCKS", False)
        with ZipStore(tmp_path / "a.zip", mode="a") as store:
            yield store

    def settle(self, store: Store) -> None:
        store.close()


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


def test_others_read_what_we_write(tmp_path: Path) -> None:
    values = {"zarr.json": b"{}", "c/0": blob(5000), "é/数": b"text " * 99, "empty": b""}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        with ZipStore(path, mode="w", compression=method) as store:
            store.put_many(values.items())
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == values
            assert all(info.compress_type == method for info in archive.infolist())


def test_equal_contents_make_equal_files(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        with ZipStore(tmp_path / name, mode="w") as store:
            store.put_many((f"c/{i}", blob(i, i)) for i in range(20))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_more_entries_than_16_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    n = 66_000
    with ZipStore(path, mode="w") as store:
        store.put_many((f"c/{i}", b"%d" % i) for i in range(n))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == n
        assert archive.read("c/65999") == b"65999"
    with ZipStore(path) as store:
        assert store.get("c/65999") == b"65999"
        assert len(list(store.list_prefix("c"))) == n


@pytest.mark.skipif(sys.platform != "linux", reason="platform: files with holes")
def test_offsets_and_sizes_beyond_32_bits(tmp_path: Path) -> None:
    """A file of 9 GiB, nearly all of it a hole."""
    path = tmp_path / "a.zip"
    size, far = 4 << 30, 5 << 30
    zeros = zlib.crc32(b"")
    for _ in range(size >> 20):
        zeros = zlib.crc32(MEBIBYTE, zeros)
    large = Entry(0, 0, size, size, zeros, 0)
    small = Entry(far, 0, 5, 5, zlib.crc32(b"value"), 0)
    with path.open("wb") as file:
        file.write(local_header("large", large))
        file.seek(far)
        file.write(local_header("small", small) + b"value")
        begin = file.seek(far * 2 - (1 << 30))
        file.write(directory_bytes({"large": large, "small": small}, begin, b""))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("small") == b"value"
        assert archive.getinfo("large").file_size == size
    with ZipStore(path) as store:
        assert store.nbytes("large") == size
        ranges = (("large", size - 3, 3), ("small", 0, REST), ("large", 5, 2))
        assert fetch(store, *ranges) == [bytes(3), b"value", bytes(2)]
    with ZipStore(path, mode="a") as store:
        store.put("more", b"1")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["large", "small", "more"]
        assert archive.read("more") == b"1"
    with ZipStore(path) as store:
        assert fetch(store, ("more", 0, 1), ("large", 1 << 31, 4)) == [b"1", bytes(4)]


# ---- zipped OME-Zarr -----------------------------------------------------------------------------


def test_zipped_ome_zarr(tmp_path: Path) -> None:
    path = tmp_path / "image.ozx"
    with ZipStore(path, mode="w") as store:
        keys = ("0/c/0/0", "0/zarr.json", "1/c/0/0", "b/c/zarr.json", "zarr.json", "1/zarr.json")
        store.put_many((key, key.encode()) for key in keys)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            "zarr.json",
            "0/zarr.json",
            "1/zarr.json",
            "b/c/zarr.json",
            "0/c/0/0",
            "1/c/0/0",
        ]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.comment)["ome"] == {
            "version": "0.5",
            "zipFile": {"centralDirectory": {"jsonFirst": True}},
        }
    with ZipStore(path) as store:
        assert json.loads(store.comment)["ome"]["version"] == "0.5"
        assert store.get("0/zarr.json") == b"0/zarr.json"


def test_the_comment_is_kept_or_given(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"1")
        archive.comment = b'{"ome":{"version":"0.6"}}'
    with ZipStore(path, mode="a") as store:
        assert store.comment == b'{"ome":{"version":"0.6"}}'
        store.put("y", b"2")
    with ZipStore(path) as store:
        assert store.comment == b'{"ome":{"version":"0.6"}}'
    with ZipStore(path, mode="a", comment=b"mine") as store:
        store.put("z", b"3")
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == b"mine"
        assert archive.namelist() == ["x", "y", "z"]
    with pytest.raises(StoreError, match="65,535"):
        ZipStore(path, comment=bytes(70_000))


# ---- writers that died, and writers at work ------------------------------------------------------

KILLED = """
import os, pickle, sys
store = pickle.loads(sys.stdin.buffer.read())
{}
os.kill(os.getpid(), 9)
"""


def kill_after(store: ZipStore, script: str) -> None:
    """Run statements on ``store`` in a process that kills itself before closing it."""
    child = subprocess.run(
        [sys.executable, "-c", KILLED.format(script)], input=pickle.dumps(store), check=False
    )
    assert child.returncode != 0


def journals(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".zip")


def test_a_killed_writer_leaves_the_old_state_and_the_new_values(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"old"), ("y", b"1"), ("z", b"2")])
    before = path.read_bytes()
    kill_after(
        ZipStore(path, mode="a"),
        "store.put('x', b'new'); store.delete_many(['y', 'x']); store.put('x', b'newer')\n"
        "store.put('w/1', bytes(100_000)); store.put('w/2', b'3'); store.delete_prefix('w')\n"
        "store.put('w/3', b'4')",
    )
    assert path.read_bytes().startswith(before)
    for _ in range(2):  # reading changes nothing
        with ZipStore(path) as store:
            assert list(store.list_prefix()) == ["x", "y", "z"]
            assert fetch(store, ("x", 0, REST), ("y", 0, REST)) == [b"old", b"1"]
    assert journals(tmp_path) == [".a.zip.log.zg~"]
    with ZipStore(path, mode="a") as store:
        assert list(store.list_prefix()) == ["w/3", "x", "z"]
        assert fetch(store, ("x", 0, REST), ("w/3", 0, 1)) == [b"newer", b"4"]
    assert journals(tmp_path) == []
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["z", "x", "w/3"]


def test_a_killed_writer_of_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    kill_after(ZipStore(path, mode="a"), "store.put('x', b'1'); store.put('y', bytes(1000))")
    with pytest.raises(StoreError, match="mode='a' recovers"):
        ZipStore(path)
    kill_after(ZipStore(path, mode="a"), "assert store.get('x') == b'1'; store.put('z', b'3')")
    kill_after(ZipStore(path, mode="a"), "assert store.get('z') == b'3'; store.delete_many(['z'])")
    with ZipStore(path, mode="a") as store:
        assert list(store.list_prefix()) == ["x", "y"]
    with ZipStore(path) as store:
        assert store.get("y") == bytes(1000)


def test_what_a_dying_writer_wrote_in_part_is_dropped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"old")])
    old = path.read_bytes()
    store = ZipStore(path, mode="a")
    store.put("y", blob(100))
    middle = path.stat().st_size
    store.put("x", blob(1000))
    whole = path.read_bytes()
    note = (tmp_path / ".a.zip.log.zg~").read_bytes()
    store.close()
    for cut in range(len(old), len(whole) + 1, 37):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "a.zip").write_bytes(whole[:cut])
        (folder / ".a.zip.log.zg~").write_bytes(note)
        with ZipStore(folder / "a.zip") as store:
            assert list(store.list_prefix()) == ["x"]
            assert store.get("x") == b"old"
        with ZipStore(folder / "a.zip", mode="a") as store:
            assert store.get("y") == (blob(100) if cut >= middle else None)
            assert store.get("x") == (blob(1000) if cut == len(whole) else b"old")
        with zipfile.ZipFile(folder / "a.zip") as archive:
            assert archive.testzip() is None


def test_a_writer_that_died_after_its_last_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    store = ZipStore(path, mode="w")
    store.put("x", b"1")
    note = (tmp_path / ".a.zip.log.zg~").read_bytes()
    store.close()
    (tmp_path / ".a.zip.log.zg~").write_bytes(note)
    with ZipStore(path) as store:
        assert store.get("x") == b"1"
    with ZipStore(path, mode="a") as store:
        assert store.get("x") == b"1"
        store.put("y", b"2")
    assert journals(tmp_path) == []
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["x", "y"]


def test_a_zip_file_as_a_value_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", [("not/here", b"1")]).read_bytes()
    path = tmp_path / "a.zip"
    kill_after(ZipStore(path, mode="a"), f"store.put('value', {inner!r})")
    with pytest.raises(StoreError, match="mode='a' recovers"):
        ZipStore(path)
    with ZipStore(path, mode="a") as store:
        assert list(store.list_prefix()) == ["value"]
        assert store.get("value") == inner
    with ZipStore(path) as store:
        assert store.get("value") == inner


def test_a_journal_of_another_file_is_ignored(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"old")])
    kill_after(ZipStore(path, mode="a"), "store.put('y', b'1'); store.delete_many(['x'])")
    path.unlink()
    write_zip(path, [("x", b"other"), ("more", b"2" * 500)])
    for mode in ("r", "a", "r"):
        with ZipStore(path, mode=mode) as store:
            assert list(store.list_prefix()) == ["more", "x"]
            assert store.get("x") == b"other"
    assert journals(tmp_path) == []


def test_a_damaged_journal_is_an_error(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"old")])
    journal = tmp_path / ".a.zip.log.zg~"
    for content in (b"nonsense\n", b'{"start": 5}\n', b'{"start": 0, "end_crc": 0}\n[1]\n'):
        journal.write_bytes(content)
        for call in (
            lambda: ZipStore(path),
            lambda: ZipStore(path, mode="a").get("x"),
            lambda: ZipStore(path, mode="a").put("x", b"1"),
        ):
            with pytest.raises(StoreError, match="journal"):
                call()
    journal.write_bytes(b'{"sta')  # cut short: nothing had been changed yet
    with ZipStore(path, mode="a") as store:
        assert store.get("x") == b"old"
        store.put("x", b"new")
    with ZipStore(path) as store:
        assert store.get("x") == b"new"


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".zip")
    with ZipStore(path, mode="a") as store:
        store.put("x", b"1")
    with ZipStore(path) as store:
        assert store.get("x") == b"1"
    assert journals(tmp_path) == []


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"old")])
    first, second = ZipStore(path, mode="a"), ZipStore(path, mode="a")
    assert second.get("x") == b"old"
    first.put("x", b"new")
    for call in (
        lambda: second.put("y", b"1"),
        lambda: second.delete_many(["x"]),
        lambda: ZipStore(path, mode="w"),
    ):
        with pytest.raises(StoreError, match="being written by another"):
            call()
    assert second.get("x") == b"old"
    with ZipStore(path, mode="a") as third, ZipStore(path) as fourth:  # opened while it is written
        assert third.get("x") == fourth.get("x") == b"old"
    assert first.get("x") == b"new"
    first.close()
    second.put("y", b"1")  # sees what the first has written
    assert list(second.list_prefix()) == ["x", "y"]
    assert second.get("x") == b"new"
    second.close()
    assert list(first.list_prefix()) == ["x", "y"]
    first.close()


def test_stores_left_open_are_closed_at_the_end(tmp_path: Path) -> None:
    code = (
        "import sys; from zarr_gpu.storage import ZipStore\n"
        "store = ZipStore(sys.argv[1], mode='w'); store.put('x', b'1'); keep = [store]"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.zip")], check=True)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("x") == b"1"
    assert journals(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="platform: /dev/full")
def test_a_full_disk_costs_nothing_that_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"old")])
    store = ZipStore(path, mode="a")
    store.put("y", b"1")
    real = os.write

    def full(fd: int, data: Any) -> int:
        if len(data) > 50:
            real(fd, bytes(data)[:20])
            raise OSError(28, "no space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="no space left") as caught:
        store.put("x", b"n" * 1000)
    assert caught.value.errno == 28
    with pytest.raises(StoreError, match="no space left"):
        store.close()
    monkeypatch.undo()
    with ZipStore(path) as store:
        assert list(store.list_prefix()) == ["x"]
    with ZipStore(path, mode="a") as store:
        assert fetch(store, ("x", 0, REST), ("y", 0, REST)) == [b"old", b"1"]
        store.put("x", b"new")
    with ZipStore(path) as store:
        assert fetch(store, ("x", 0, REST), ("y", 0, REST)) == [b"new", b"1"]


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


def test_entries_that_overlap(tmp_path: Path) -> None:
    """As in a bomb: many entries that all decode the same bytes."""
    path = write_zip(
        tmp_path / "a.zip",
        [("a", bytes(10**6)), ("b", bytes(10**6)), ("c", b"1")],
        compression=zipfile.ZIP_DEFLATED,
    )
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 1)
    struct.pack_into("<I", data, second + 42, 0)  # "b" begins where "a" does
    path.write_bytes(data)
    with ZipStore(path) as store:
        for key in ("a", "b"):
            for call in (lambda key=key: store.get(key), lambda key=key: fetch(store, (key, 0, 1))):
                with pytest.raises(DataError, match=r"overlaps|names another") as caught:
                    call()
                assert caught.value.key == key
        assert store.get("c") == b"1"


def test_an_entry_that_reaches_into_the_next(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("a", b"1" * 50), ("b", b"2" * 50)])
    patch_directory(path, 20, "<II", 100, 100)
    with ZipStore(path) as store:
        with pytest.raises(DataError, match="overlaps") as caught:
            store.get("a")
        assert caught.value.key == "a"
        assert store.get("b") == b"2" * 50


def test_a_local_header_of_another_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("aa", b"1"), ("bb", b"2")])
    data = path.read_bytes().replace(b"aa", b"xx", 1)  # in the local header only
    path.write_bytes(data)
    with ZipStore(path) as store:
        with pytest.raises(DataError, match="names another"):
            store.get("aa")
        assert store.get("bb") == b"2"


@pytest.mark.parametrize(
    ("at", "form", "value", "message"),
    [
        (4, "<H", 1, "volumes"),
        (6, "<H", 3, "volumes"),
        (8, "<H", 7, "volumes"),
        (12, "<I", 2**31, "cannot end"),
        (16, "<I", 2**31, "cannot end"),
        (12, "<I", 10, "damaged"),
        (20, "<H", 5, "missing"),
    ],
)
def test_an_end_of_the_directory_that_lies(
    tmp_path: Path, at: int, form: str, value: int, message: str
) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"1"), ("y", b"2")])
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\5\6") + at, value)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=message):
        ZipStore(path)


def test_counts_that_lie(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"1"), ("y", b"2")])
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, data.index(b"PK\5\6") + 8, 3, 3)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="2 entries instead of 3"):
        ZipStore(path)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", b"1")])
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(StoreError, match="end of its directory is missing"):
        ZipStore(path)


def test_a_range_of_a_deflated_value_costs_the_memory_of_the_range(tmp_path: Path) -> None:
    value = bytes(64 << 20)
    path = write_zip(tmp_path / "a.zip", [("x", value)], compression=zipfile.ZIP_DEFLATED)
    with ZipStore(path) as store:
        tracemalloc.start()
        try:
            assert fetch(store, ("x", (64 << 20) - 10, 10)) == [bytes(10)]
            assert store.read("x", 5, 1000) == bytes(1000)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


def test_ranges_of_damaged_deflated_values(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", [("x", blob(2000))], compression=zipfile.ZIP_DEFLATED)
    patch_directory(path, 24, "<I", 1000)  # longer than it says
    with ZipStore(path) as store, pytest.raises(DataError):
        store.read("x", 900, 100)
    patch_directory(path, 24, "<I", 2500)  # shorter than it says
    with ZipStore(path) as store, pytest.raises(DataError):
        store.read("x", 100, 2400)
    patch_directory(path, 24, "<I", 2000)
    patch_directory(path, 16, "<I", 1)
    with ZipStore(path) as store, pytest.raises(DataError, match="checksum"):
        store.read("x", 100, 1900)


def test_names_in_the_old_code_page(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    entry = Entry(0, 0, 1, 1, zlib.crc32(b"1"), 0)
    header = local_header("caf_", entry).replace(b"caf_", b"caf\x82")
    end = directory_bytes({"caf_": entry}, len(header) + 1, b"").replace(b"caf_", b"caf\x82")
    path.write_bytes(header + b"1" + end)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["café"]
    with ZipStore(path, mode="a") as store:
        assert store.get("café") == b"1"
        store.put("more", b"2")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["café", "more"]
        assert archive.read("café") == b"1"
