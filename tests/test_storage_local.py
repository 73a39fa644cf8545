"""The local directory: files, atomic replacement, crashes, links, descriptors."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_arrays import StoreArraySuite
from store_suite import MANY, StoreSuite, ask, blob, fetch, in_child, parts

from zarr_gpu.errors import DataError, InvalidKeyError, ReadOnlyError, StoreError
from zarr_gpu.extents import REST, ByteRequest, HostMemory
from zarr_gpu.storage import atomic
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.failures import StorePermissionError
from zarr_gpu.storage.local import LocalStore

needs_posix = pytest.mark.skipif(os.name == "nt", reason="platform: POSIX only")
may_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store.zarr"


class TestLocalStore(StoreSuite, StoreArraySuite):
    title = "local files"
    exact_keys = sys.platform == "linux"  # other systems fold case or accents

    @pytest.fixture
    def store(self, root: Path) -> Store:
        return LocalStore(root)

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, LocalStore)
        return LocalStore(store.root, read_only=True)


class TestFewDescriptors(StoreSuite):
    """Nothing may depend on holding files open between measuring and reading."""

    title = "local files, two descriptors"
    many_keys = 300

    @pytest.fixture
    def store(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr(LocalStore, "max_open", 2)
        return LocalStore(root)


class TestDurableAndNotFollowing(StoreSuite):
    title = "local files, durable"
    many_keys = 300

    @pytest.fixture
    def store(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr(os, "fsync", lambda fd: None)  # slow, and a test of its own below
        return LocalStore(root, durable=True, follow_symlinks=False)


class TestWithoutModernCalls(StoreSuite):
    """As on Windows: no positional reads, no locks."""

    title = "local files, without positional reads and locks"
    many_keys = 300

    @pytest.fixture
    def store(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr(atomic, "preadv", atomic._seek_and_read)
        monkeypatch.delattr(os, "pread", raising=False)
        monkeypatch.setattr(atomic, "HAS_LOCKS", False)
        return LocalStore(root)


def names(folder: Path) -> list[str]:
    """Everything below a folder, hidden files too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


# ---- files ---------------------------------------------------------------------------------------


def test_values_are_plain_files(root: Path) -> None:
    LocalStore(root).put("a/b/c", b"value")
    assert names(root) == ["a", "a/b", "a/b/c"]
    assert (root / "a/b/c").read_bytes() == b"value"


def test_reading_creates_nothing(root: Path) -> None:
    store = LocalStore(root)
    assert store.get("a") is None
    assert list(store.list_prefix()) == []
    store.delete_many(["a"])
    store.delete_prefix("a")
    store.delete_prefix("")
    assert not root.exists()


def test_a_directory_is_no_value(root: Path) -> None:
    store = LocalStore(root)
    store.put("a/b", b"1")
    assert store.get("a") is None
    assert not store.exists("a")
    assert store.nbytes("a") is None
    assert fetch(store, ("a", 0, REST)) == [None]
    assert fetch(store, ("a", 0, 5), ("a/b", 0, 1), ("a", -4, 4)) == [None, b"1", None]
    store.delete_many(["a"])
    assert store.get("a/b") == b"1"


def test_a_file_is_no_directory(root: Path) -> None:
    store = LocalStore(root)
    store.put("a", b"1")
    assert store.get("a/b") is None
    assert not store.exists("a/b")
    assert store.list_dir("a") == ()
    store.delete_many(["a/b"])
    store.delete_prefix("a/b")
    with pytest.raises(StoreError, match="'a/b'"):
        store.put("a/b", b"2")
    assert names(root) == ["a"]


def test_a_value_cannot_replace_a_directory(root: Path) -> None:
    store = LocalStore(root)
    store.put("a/b", b"1")
    with pytest.raises(StoreError, match="'a'"):
        store.put("a", b"2")
    assert names(root) == ["a", "a/b"]


@pytest.mark.parametrize("make", [str, Path])
def test_a_relative_root_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore(make("rel.zarr"))
    monkeypatch.chdir("/")
    store.put("x", b"1")
    assert (tmp_path / "rel.zarr/x").read_bytes() == b"1"
    assert store.root == tmp_path / "rel.zarr"


@pytest.mark.parametrize("root", ["a\0b", b"bytes"])
def test_roots_that_are_no_paths(root: Any) -> None:
    with pytest.raises(InvalidKeyError):
        LocalStore(root)


def test_names_too_long_for_the_file_system(root: Path) -> None:
    store = LocalStore(root)
    store.put("a/x", b"1")
    key = "a/" + "x" * 400
    for call in (
        lambda: store.get(key),
        lambda: store.exists(key),
        lambda: store.put(key, b""),
        lambda: store.delete_many([key]),
        lambda: fetch(store, (key, 0, 1)),
    ):
        with pytest.raises(InvalidKeyError, match="too long"):
            call()


@needs_posix
def test_names_up_to_the_limit_of_the_file_system(root: Path) -> None:
    store = LocalStore(root)
    for key in ("a/" + "x" * 255, "é" * 127):
        store.put(key, b"1")
        assert store.get(key) == b"1"
    store.delete_prefix("a")
    assert names(root) == ["é" * 127]


@needs_posix
def test_special_files_are_errors(root: Path) -> None:
    root.mkdir()
    os.mkfifo(root / "fifo")
    writer = os.open(root / "fifo", os.O_RDWR)  # else opening it would wait
    try:
        store = LocalStore(root)
        assert not store.exists("fifo")
        assert list(store.list_prefix()) == []
        with pytest.raises(StoreError):
            store.get("fifo")
        with pytest.raises(StoreError):
            fetch(store, ("fifo", 0, REST), ("x", 0, REST))
    finally:
        os.close(writer)


@needs_posix
def test_names_that_are_no_text_are_not_listed(root: Path) -> None:
    root.mkdir()
    (root / "good").write_bytes(b"1")
    try:
        (root / os.fsdecode(b"bad\xff")).write_bytes(b"")
    except OSError:
        pytest.skip("platform: the file system refuses such names")
    assert list(LocalStore(root).list_prefix()) == ["good"]
    assert LocalStore(root).list_dir() == ("good",)


# ---- atomic replacement --------------------------------------------------------------------------


def test_temporary_names_are_hidden_and_reserved(root: Path) -> None:
    store = LocalStore(root)
    store.put("a/x", b"1")
    strays = [
        atomic.temporary_name("x"),
        ".x.0011aabb.zg~",
        ".old.zgx~",
        "x." + "0f" * 16 + ".partial",
        "x.__lock",
    ]
    for name in strays:
        (root / "a" / name).write_bytes(b"half")
        assert atomic.is_temporary(name)
        with pytest.raises(InvalidKeyError, match="reserved"):
            store.put(f"a/{name}", b"1")
    assert list(store.list_prefix()) == ["a/x"]
    assert store.list_dir("a") == ("x",)
    for name in ("x", ".x", "x~", ".zarray", "x.partial", "0f.partial", "x.zg~"):
        assert not atomic.is_temporary(name)


@needs_posix
def test_the_next_writer_removes_what_a_dead_one_left(root: Path) -> None:
    store = LocalStore(root)
    store.put("a/x", b"1")
    (root / "a" / atomic.temporary_name("x")).write_bytes(b"half a value")
    store.put("a/x", b"2")
    assert names(root) == ["a", "a/x"]
    assert store.get("a/x") == b"2"


@needs_posix
def test_a_living_writer_is_left_alone(root: Path) -> None:
    store = LocalStore(root)
    store.put("a/x", b"1")
    fd, temporary = atomic._open_temporary(str(root / "a"), "x", durable=False)
    try:
        os.write(fd, b"the slow ")
        begun = time.monotonic()
        store.put("a/x", b"the quick one")
        assert time.monotonic() - begun < 5
        assert store.get("a/x") == b"the quick one"
        os.write(fd, b"one")
        Path(temporary).replace(root / "a/x")
    finally:
        os.close(fd)
    assert store.get("a/x") == b"the slow one"
    assert names(root) == ["a", "a/x"]


@needs_posix
def test_a_stray_removed_between_creation_and_lock(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may take our new temporary file for a stray before we lock it."""
    store = LocalStore(root)
    store.put("a/x", b"1")
    own = atomic._own
    stolen = []

    def steal_once(fd: int) -> bool:
        if not stolen:
            stolen.append(fd)
            assert atomic._remove_if_dead(str(root / "a" / atomic.temporary_name("x")))
        return own(fd)

    monkeypatch.setattr(atomic, "_own", steal_once)
    store.put("a/x", b"2")
    assert len(stolen) == 1
    assert store.get("a/x") == b"2"
    assert names(root) == ["a", "a/x"]


def fail_after(function: Callable[..., Any], nbytes: int, error: OSError) -> Callable[..., Any]:
    """A short write, then an error: what a full disk does."""

    def write(fd: int, data: memoryview) -> int:
        nonlocal nbytes
        if nbytes <= 0:
            raise error
        n = function(fd, data[: min(nbytes, len(data))])
        nbytes -= n
        return n

    return write


@pytest.mark.parametrize("nbytes", [0, 1, 5000])
def test_a_full_disk_leaves_the_old_value(
    root: Path, monkeypatch: pytest.MonkeyPatch, nbytes: int
) -> None:
    store = LocalStore(root)
    store.put("a/x", b"old value")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail_after(os.write, nbytes, full))
        with pytest.raises(StoreError, match="No space left") as caught:
            store.put("a/x", blob(10_000))
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.key == "a/x"
        assert caught.value.__cause__ is full
    assert store.get("a/x") == b"old value"
    assert names(root) == ["a", "a/x"]
    store.put("a/x", b"new")
    assert store.get("a/x") == b"new"


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_any_failing_step_leaves_the_old_value(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = LocalStore(root, durable=True)
    store.put("a/x", b"old value")

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, "bad sector")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match="bad sector"):
            store.put("a/x", b"new")
    assert store.get("a/x") == b"old value"
    assert names(root) == ["a", "a/x"]


def test_an_interrupt_leaves_the_old_value(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(root)
    store.put("x", b"old value")

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.put("x", b"new")
    assert store.get("x") == b"old value"
    assert names(root) == ["x"]


def test_short_writes_are_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = blob(10_000)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:777]))
    store = LocalStore(root)
    store.put("x", value)
    assert store.get("x") == value


@pytest.mark.parametrize("cap", [1, 700])
def test_short_reads_are_continued(root: Path, monkeypatch: pytest.MonkeyPatch, cap: int) -> None:
    value = blob(3_000)
    store = LocalStore(root)
    store.put_many([("x", value), ("y", value)])
    real = atomic.preadv
    monkeypatch.setattr(atomic, "preadv", lambda fd, b, at: real(fd, [b[0][:cap]], at))
    monkeypatch.delattr(os, "pread")
    assert store.get("x") == value
    assert fetch(store, ("x", 0, REST), ("y", 5, 2000)) == [value, value[5:2005]]


def test_durable_writes_are_synchronised_in_order(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "mkdir")}

    def path_of(fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink())

    def record(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            path = {"fsync": lambda: path_of(args[0]), "mkdir": lambda: args[0]}
            what = os.path.relpath(path.get(name, lambda: args[1])(), root)
            steps.append((name, what))
            return real[name](*args, **kwargs)

        return call

    if sys.platform != "linux":
        pytest.skip("platform: reads names of descriptors from /proc")
    for name in real:
        monkeypatch.setattr(os, name, record(name))
    store = LocalStore(root, durable=True)
    store.put("a/b/x", b"1")
    assert steps == [
        ("mkdir", "."),
        ("fsync", ".."),
        ("mkdir", "a"),
        ("fsync", "."),
        ("mkdir", "a/b"),
        ("fsync", "a"),
        ("fsync", f"a/b/{atomic.temporary_name('x')}"),
        ("replace", "a/b/x"),
        ("fsync", "a/b"),
    ]
    steps.clear()
    store.delete_many(["a/b/x"])
    assert steps == [("fsync", "a/b")]
    steps.clear()
    LocalStore(root).put("a/b/x", b"1")
    assert ("replace", "a/b/x") in steps
    assert "fsync" not in {name for name, _ in steps}


@needs_posix
@may_fork
def test_kill_during_a_write_leaves_a_whole_value(root: Path) -> None:
    store = LocalStore(root)
    sizes = {1: 2_000_000, 2: 3_000}
    wanted = {bytes([i]) * n for i, n in sizes.items()}
    store.put("a/x", bytes([1]) * sizes[1])
    rng = random.Random(0)
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            try:
                for i in range(100_000):
                    store.put("a/x", bytes([1 + i % 2]) * sizes[1 + i % 2])
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.001, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        value = store.get("a/x")
        assert value in wanted
        assert fetch(store, ("a/x", 0, REST)) == [value]
        assert list(store.list_prefix()) == ["a/x"]
        assert len(names(root)) <= 3  # a stray or none, never a pile of them
    store.put("a/x", b"clean")
    assert names(root) == ["a", "a/x"]


@needs_posix
@may_fork
def test_processes_that_write_one_key(root: Path) -> None:
    store = LocalStore(root)

    def write(i: int) -> bool:
        for _ in range(30):
            store.put("a/x", bytes([i]) * 100_000)
        return True

    results = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(in_child(lambda: write(i))))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 3
    value = store.get("a/x")
    assert value is not None
    assert value == value[:1] * 100_000
    assert names(root) == ["a", "a/x"]


# ---- reading beside writers ----------------------------------------------------------------------


def test_a_file_replaced_between_measuring_and_reading(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(root)
    store.max_open = 0  # sizes are all that is known before the buffer is made
    store.put_many([("x", b"old"), ("y", b"1")])
    replaced = []

    class Meddling(HostMemory):
        def empty(self, nbytes: int) -> Any:
            if not replaced:
                replaced.append(nbytes)
                store.put("x", b"new and longer")
            return super().empty(nbytes)

    extents = store.fetch(ask(("x", 0, REST), ("y", 0, 1), ("x", -3, 3)), Meddling())
    assert parts(extents) == [b"new and longer", b"1", b"ger"]


def test_a_file_that_changes_for_ever(root: Path) -> None:
    store = LocalStore(root)
    store.max_open = 0
    store.put("x", b"")

    class Meddling(HostMemory):
        n = 0

        def empty(self, nbytes: int) -> Any:
            self.n += 1
            store.put("x", bytes(self.n))
            return super().empty(nbytes)

    store.put("x", b"1" * 50)
    with pytest.raises(StoreError, match="faster than they can be read"):
        store.fetch(ask(("x", 0, REST), ("y", 0, REST)), Meddling())


def test_a_file_cut_while_being_read(root: Path) -> None:
    store = LocalStore(root)
    store.put("x", b"0123456789")

    class Cutting(HostMemory):
        def empty(self, nbytes: int) -> Any:
            os.truncate(root / "x", 4)
            return super().empty(nbytes)

    with pytest.raises(DataError, match="shorter") as caught:
        store.fetch(ask(("x", 0, REST)), Cutting())
    assert (caught.value.key, caught.value.expected, caught.value.actual) == ("x", 10, 4)


@needs_posix
def test_descriptors_are_given_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(root)
    keys = [f"{i}" for i in range(MANY)]
    store.put_many((key, b"abc") for key in keys)
    before = open_files()
    store.fetch(ByteRequest.whole(keys), HostMemory())
    assert store.get("1") == b"abc"
    with pytest.raises(DataError):
        fetch(store, ("1", 0, 3), ("2", 0, 4))

    class Refusing(HostMemory):
        def empty(self, nbytes: int) -> Any:
            assert open_files() <= before + store.max_open + 1
            raise MemoryError

    with pytest.raises(MemoryError):
        store.fetch(ByteRequest.whole(keys), Refusing())
    monkeypatch.setattr(atomic, "preadv", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.fetch(ByteRequest.whole(keys), HostMemory())
    assert open_files() == before


@needs_posix
def test_running_out_of_descriptors(root: Path) -> None:
    import resource

    store = LocalStore(root)
    values = {f"{i}": blob(100, i) for i in range(100)}
    store.put_many(values.items())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 8, hard))
        answer = store.fetch(ByteRequest.whole(list(values)), HostMemory())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert parts(answer) == list(values.values())


# ---- permissions and links -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ELOOP, errno.ESTALE])
def test_errors_of_the_system_are_not_absence(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = LocalStore(root)
    store.put_many([("a/x", b"1"), ("a/y", b"2")])

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number), str(args[0]))

    kind = StorePermissionError if number == errno.EACCES else StoreError
    for name in ("open", "stat", "unlink", "scandir"):
        monkeypatch.setattr(os, name, refuse)
    for call in (
        lambda: store.get("a/x"),
        lambda: store.exists("a/x"),
        lambda: fetch(store, ("a/x", 0, REST)),
        lambda: fetch(store, ("a/x", 0, REST), ("a/y", 0, 1)),
        lambda: store.put("a/x", b"2"),
        lambda: store.delete_many(["a/x"]),
        lambda: list(store.list_prefix()),
        lambda: store.list_dir("a"),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.errno == number
    monkeypatch.undo()
    assert store.get("a/x") == b"1"


@needs_posix
@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="platform: the superuser may do anything"
)
def test_a_folder_without_permission(root: Path) -> None:
    store = LocalStore(root)
    store.put("a/x", b"1")
    (root / "a").chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            store.put("a/x", b"2")
        (root / "a").chmod(0o000)
        with pytest.raises(PermissionError):
            store.get("a/x")
    finally:
        (root / "a").chmod(0o700)
    assert store.get("a/x") == b"1"


@needs_posix
def test_links_are_followed_or_refused(tmp_path: Path, root: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    LocalStore(root).put("inside/x", b"1")
    (root / "out").symlink_to(outside)
    (root / "file").symlink_to(outside / "x")
    (root / "in").symlink_to(root / "inside")

    trusting = LocalStore(root)
    assert trusting.get("out/x") == b"secret"
    assert trusting.get("file") == b"secret"
    assert sorted(trusting.list_prefix()) == ["file", "in/x", "inside/x", "out/x"]

    wary = LocalStore(root, follow_symlinks=False)
    assert wary.get("in/x") == b"1"
    assert sorted(wary.list_prefix()) == ["inside/x"]
    for call in (
        lambda: wary.get("out/x"),
        lambda: wary.get("file"),
        lambda: wary.exists("out/x"),
        lambda: fetch(wary, ("inside/x", 0, 1), ("out/x", 0, 1)),
        lambda: wary.put("out/x", b"2"),
        lambda: wary.delete_many(["out/x"]),
        lambda: wary.delete_prefix("out/sub"),
        lambda: list(wary.list_prefix("out")),
        lambda: wary.list_dir("out"),
    ):
        with pytest.raises(StorePermissionError, match="symbolic link"):
            call()
    assert (outside / "x").read_bytes() == b"secret"


@needs_posix
def test_deleting_a_linked_level_removes_the_link(tmp_path: Path, root: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"precious")
    store = LocalStore(root)
    store.put("a/y", b"1")
    (root / "a/out").symlink_to(outside)
    (root / "out").symlink_to(outside)
    store.delete_prefix("out")
    store.delete_prefix("a")
    assert names(root) == []
    (root / "out").symlink_to(outside)
    store.delete_prefix("")
    assert names(root) == []
    assert (outside / "x").read_bytes() == b"precious"


@needs_posix
def test_links_that_go_round(root: Path) -> None:
    store = LocalStore(root)
    store.put_many([("a/x", b"1"), ("b/y", b"2")])
    (root / "a/up").symlink_to(root)
    (root / "a/self").symlink_to(root / "a")
    (root / "dangling").symlink_to(root / "nothing")
    assert list(store.list_prefix()) == ["a/x", "b/y"]
    (root / "a/b").symlink_to(root / "b")
    (root / "b/a").symlink_to(root / "a")
    assert {"a/x", "b/y", "a/b/y", "b/a/x"} <= set(store.list_prefix())


# ---- levels --------------------------------------------------------------------------------------


def test_a_removal_that_was_killed_is_hidden_and_finished(root: Path) -> None:
    store = LocalStore(root)
    store.put_many([("a/x", b"1"), ("b", b"2")])
    (root / ".a.zgx~").mkdir()
    (root / ".a.zgx~/left").write_bytes(b"")
    assert list(store.list_prefix()) == ["a/x", "b"]
    store.delete_prefix("a")
    assert names(root) == ["b"]


def test_a_level_loses_its_name_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    store = LocalStore(root)
    store.put_many([("a/zarr.json", b"1"), ("a/c/0", b"2"), ("b", b"3")])
    seen = []
    real = shutil.rmtree

    def rmtree(*args: Any, **kwargs: Any) -> None:
        seen.append(list(store.list_prefix()))
        real(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    store.delete_prefix("a")
    assert seen == [["b"]]


def test_a_move_is_one_rename(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(root)
    store.put_many([(f"a/{i}", b"1") for i in range(5)])
    inode = (root / "a").stat().st_ino
    store.move("a", "deep/er/b")
    assert (root / "deep/er/b").stat().st_ino == inode
    assert names(root)[:3] == ["deep", "deep/er", "deep/er/b"]


def test_a_move_to_another_disk_copies(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(root)
    store.put_many([("a/x", b"1"), ("a/y/z", b"2")])
    real = os.rename

    def rename(source: str, target: str) -> None:
        if not target.endswith("~"):
            raise OSError(errno.EXDEV, "other disk")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    store.move("a", "b")
    assert names(root) == ["b", "b/x", "b/y", "b/y/z"]


def test_deleting_never_goes_above_the_root(root: Path) -> None:
    LocalStore(root).put("a/b/x", b"1")
    beside = root.parent / "beside"
    beside.write_bytes(b"")
    below = LocalStore(root / "a/b")
    below.delete_many(["x"])
    assert (root / "a/b").is_dir()
    below.delete_prefix("")
    assert (root / "a/b").is_dir()
    assert beside.exists()


def test_a_read_only_store_changes_nothing(root: Path) -> None:
    LocalStore(root).put("a/x", b"1")
    store = LocalStore(root, read_only=True)
    with pytest.raises(ReadOnlyError):
        store.put("b/y", b"1")
    with pytest.raises(ReadOnlyError):
        store.delete_prefix("")
    assert names(root) == ["a", "a/x"]


def test_equality() -> None:
    assert LocalStore("/a/b") == LocalStore("/a/./b/")
    assert LocalStore("/a/b") != LocalStore("/a/c")
    assert LocalStore("/a") != LocalStore("/a", read_only=True)
    assert repr(LocalStore("/a/b")) == "LocalStore('/a/b')"
