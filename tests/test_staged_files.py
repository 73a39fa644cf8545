"""The compiled loop that fills slabs: equal to the ordinary way, in values and errors."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed: pip install 'zarr-gpu[sim]'")

import zarr_gpu
from zarr_gpu import config
from zarr_gpu.codecs.chain import Program
from zarr_gpu.devices import compiled
from zarr_gpu.devices.base import Job
from zarr_gpu.devices.sim_runtime import SimRuntime
from zarr_gpu.devices.staged_files import AGAIN, FileLoop, FileRead
from zarr_gpu.devices.staging import Pipeline
from zarr_gpu.errors import ShardIndexError, StoreError, ZarrError
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, Files
from zarr_gpu.plan import Batch
from zarr_gpu.storage import LocalStore, MemoryStore, Store, ZipStore

LARGEST = 1 << 20


def job_of(keys: list[str], ranges: list[tuple[int, int, int]]) -> Job:
    """A job of (key, offset, nbytes)."""
    key_id, offset, nbytes = (np.array(a, np.int64) for a in zip(*ranges, strict=True))
    index = np.zeros((len(ranges), 1), np.int64)
    batch = Batch(index, np.arange(len(ranges)), index, np.ones(len(ranges), np.bool_))
    return Job(batch, ByteRequest(keys, key_id, offset, nbytes), 0, len(ranges))


def loop_of(store: Store, most: int = LARGEST) -> FileLoop:
    files, read_files = store.files(), compiled.load_files()
    assert files is not None
    assert read_files is not None
    return FileLoop(files, read_files, most)


def read(store: Store, job: Job, room: int = LARGEST, readers: int = 1, **kw: Any) -> FileRead:
    found = loop_of(store, **kw).begin(job, readers)
    slab = np.full(room, 0xA5, np.uint8)
    threads = [threading.Thread(target=found.run, args=(slab,)) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.slab = slab  # type: ignore[attr-defined]
    return found


def row(found: Any, i: int) -> bytes | None:
    n = int(found.nbytes[i])
    at = int(found.at[i])
    return None if n == MISSING else bytes(found.slab[at : at + n])


def values_of(count: int) -> dict[str, bytes]:
    rng = np.random.default_rng(count)
    sizes = rng.integers(1, 3000, count).tolist()
    return {f"c/{i}": rng.bytes(n) for i, n in enumerate(sizes)}


STORES = ["local", "memory", "zip"]


def filled(kind: str, folder: Path, items: dict[str, bytes]) -> Store:
    if kind == "memory":
        return MemoryStore(dict(items))
    if kind == "local":
        local = LocalStore(folder / "store")
        for key, data in items.items():
            local.put(key, data)
        return local
    with ZipStore(folder / "store.zip", mode="w") as made:
        for key, data in items.items():
            made.put(key, data)
    return ZipStore(folder / "store.zip", mode="r")


# ---- the loop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("readers", [1, 5])
def test_whole_values(kind: str, readers: int, tmp_path: Path) -> None:
    items = values_of(200)
    store = filled(kind, tmp_path, {k: v for k, v in items.items() if not k.endswith("7")})
    keys = list(items)
    found = read(store, job_of(keys, [(i, 0, REST) for i in range(200)]), readers=readers)
    for i, key in enumerate(keys):
        assert row(found, i) == (None if key.endswith("7") else items[key])
    assert len(found.left) == 0
    ends = sorted((a, a + n) for a, n in zip(found.at, found.nbytes, strict=True) if n > 0)
    assert all(a % 64 == 0 for a, _ in ends)
    assert all(a[1] <= b[0] for a, b in pairwise(ends))
    assert ends[-1][1] <= found.wanted <= LARGEST


@pytest.mark.parametrize("kind", STORES)
def test_ranges(kind: str, tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(50_000)
    store = filled(kind, tmp_path, {"a": data, "b": data[:100]})
    ranges = [
        *((0, 0, 10), (0, 10, 20), (0, 30, 0), (0, 50, 1000)),  # neighbours, near enough
        *((0, 40_000, 10_000), (0, 5, 5), (1, 0, 100), (1, 99, 1), (0, 49_999, 1)),
        *((0, 20_000, REST), (1, 40, REST), (2, 3, 4), (0, 0, MISSING)),
    ]
    found = read(store, job_of(["a", "b", "none"], ranges), readers=1)
    for i, (key, start, n) in enumerate(ranges):
        value = [data, data[:100], None][key]
        if n == MISSING or value is None:
            assert row(found, i) is None
        else:
            assert row(found, i) == (value[start:] if n == REST else value[start : start + n])
    # The first three, a group, were read at once: they lie as they do in the value.
    assert (found.at[:3] - found.at[0]).tolist() == [0, 10, 30]


@pytest.mark.parametrize("kind", STORES)
def test_what_is_not_as_it_should_be_is_left(kind: str, tmp_path: Path) -> None:
    store = filled(kind, tmp_path, {"a": bytes(1000), "b": bytes(3000)})
    most = 1 << 62
    ranges = [
        *((0, 0, 1001), (0, 990, 20), (0, 1001, 1), (0, 1000, REST), (0, 1001, REST)),
        *((0, -10, REST), (0, 0, most), (0, most, most), (0, most, REST), (1, 0, REST)),
        *((0, 5, 10),),
    ]
    found = read(store, job_of(["a", "b"], ranges), most=2000)
    assert found.left.tolist() == list(range(10))
    assert row(found, 10) == bytes(10)
    assert found.wanted <= 4096  # nothing was set aside for what was refused


def test_files_that_are_none(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "file").write_bytes(b"1234")
    keys = ["folder", "empty", "file", "file/below", "loop"]
    (tmp_path / "loop").symlink_to("loop")
    found = read(store, job_of(keys, [(i, 0, REST) for i in range(5)]))
    assert found.left.tolist() == [0, 1, 3, 4]
    assert row(found, 2) == b"1234"


def test_a_slab_that_is_too_small(tmp_path: Path) -> None:
    items = values_of(40)
    store = filled("local", tmp_path, items)
    job = job_of(list(items), [(i, 0, REST) for i in range(40)])
    found = read(store, job, room=20_000, readers=3)
    assert found.wanted > 20_000
    assert 0 < len(found.left) < 40
    for i in np.flatnonzero(found.nbytes != AGAIN).tolist():
        assert row(found, i) == items[f"c/{i}"]
    slab = np.zeros(found.wanted, np.uint8)
    found.again()
    found.run(slab)
    found.slab = slab  # type: ignore[attr-defined]
    assert [row(found, i) for i in range(40)] == list(items.values())


def test_rows_are_taken_in_groups(tmp_path: Path) -> None:
    loop = loop_of(MemoryStore({}))
    for rows, readers, threads, group in ((256, 8, 8, 8), (3, 8, 3, 1), (4096, 4, 4, 32)):
        found = loop.begin(job_of(["a"], [(0, 0, REST)] * rows), readers)
        assert (found.threads, found._group) == (threads, group)


def test_where_values_lie_is_worked_out_once_per_batch(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def places(keys: list[str]) -> tuple[list[tuple[int, int]], None]:
        asked.append(keys)
        return [(0, MISSING)] * len(keys), None

    read_files = compiled.load_files()
    assert read_files is not None
    loop = FileLoop(Files(values=places), read_files, LARGEST)
    job = job_of(["a", "b"], [(0, 0, REST), (1, 0, REST)])
    for _ in range(3):
        loop.begin(job, 1)
    assert len(asked) == 1
    loop.begin(job_of(["b"], [(0, 0, REST)]), 1)
    assert asked == [["a", "b"], ["b"]]


# ---- in the pipeline -----------------------------------------------------------------------------


def through(store: Store, jobs: list[Job], fetch: Any, loop: FileLoop | None) -> list[list[Any]]:
    """The rows of all jobs, from the device's side."""
    seen: list[list[Any]] = []

    def work(lane: Any, job: Job, extents: Extents | None) -> None:
        assert extents is not None
        device, host = extents.base.device, extents.base.host
        pairs = list(zip(extents.offset.tolist(), extents.nbytes.tolist(), strict=True))
        assert all(bytes(device[a : a + n]) == bytes(host[a : a + n]) for a, n in pairs if n >= 0)
        seen.append([None if n == MISSING else bytes(device[a : a + n]) for a, n in pairs])

    lane: Any = None
    with config.set({"gpu.readers": 3}):
        Pipeline().run(SimRuntime("compiled"), jobs, fetch, work, lane, loop=loop)
    return seen


@pytest.mark.parametrize("own_memory", [False, True])
def test_what_is_left_is_fetched(own_memory: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    items = {f"{i}": rng.bytes(1 + 40_000 * (i % 5 == 2) + i) for i in range(60)}
    store = filled("local", tmp_path, {k: v for k, v in items.items() if k not in ("7", "30")})
    jobs = [job_of(list(items), [(i, 0, REST) for i in range(60)])] * 5
    fetched: list[int] = []

    def fetch(job: Job, memory: Any) -> Extents:
        fetched.extend(job.request.key_id[job.lo : job.hi].tolist())
        request = job.request.take(job.lo, job.hi)
        if not own_memory:
            return store.fetch(request, memory)

        class Own:
            kind = "host"

            def empty(self, nbytes: int) -> Any:
                return np.empty(nbytes, np.uint8)

        return store.fetch(request, Own())

    wanted = [items[f"{i}"] if i not in (7, 30) else None for i in range(60)]
    assert through(store, jobs, fetch, loop_of(store, most=10_000)) == [wanted] * 5
    assert fetched == [i for i in range(60) if i % 5 == 2 and i != 7] * 5
    fetched.clear()
    assert through(store, jobs, fetch, loop_of(store)) == [wanted] * 5
    assert not fetched


def test_slabs_grow_and_are_filled_anew(tmp_path: Path) -> None:
    items = {f"{i}": bytes([i]) * 300_000 for i in range(12)}
    store = filled("local", tmp_path, items)
    jobs = [job_of(list(items), [(i, 0, REST) for i in range(12)])] * 4
    lost: Any = None  # nothing is fetched in another way
    assert through(store, jobs, lost, loop_of(store)) == [list(items.values())] * 4


def test_errors_of_the_ordinary_way_come_out(tmp_path: Path) -> None:
    store = filled("local", tmp_path, {"a": bytes(10)})
    job = job_of(["a"], [(0, 0, 5), (0, 5, 6), (0, 2, 1)])

    def fetch(job: Job, memory: Any) -> Extents:
        return store.fetch(job.request.take(job.lo, job.hi), memory)

    with pytest.raises(ZarrError, match="too short"):
        through(store, [job, job], fetch, loop_of(store))


# ---- whole reads ---------------------------------------------------------------------------------


def test_which_stores_have_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program: Program = zarr_gpu.create_array({}, shape=4, chunks=2, dtype="u1").layout.program
    for store in (LocalStore(tmp_path), MemoryStore({})):
        assert FileLoop.of(store, program) is not None
    assert FileLoop.of(None, program) is None
    assert FileLoop.of(LocalStore(tmp_path, follow_symlinks=False), program) is None
    monkeypatch.setattr(compiled, "_supported", lambda: False)
    assert FileLoop.of(LocalStore(tmp_path), program) is None


@pytest.mark.parametrize("kind", ["local", "zip", "memory"])
@pytest.mark.parametrize("shards", [None, (32, 16)])
def test_reads_of_arrays(
    kind: str, shards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(2).integers(0, 50, (64, 48)).astype("u2")
    values[16:24, 8:16] = 0  # chunks that are not there
    store: Any = {"local": tmp_path / "a", "zip": ZipStore(tmp_path / "a.zip", mode="w")}.get(
        kind, MemoryStore({})
    )
    with config.set({"device": "cpu"}):
        made = zarr_gpu.create_array(store, shape=values.shape, chunks=(8, 8), shards=shards,
                                     dtype="u2", fill_value=0)  # fmt: skip
        made[...] = values
    if kind == "zip":
        store.close()
        made = zarr_gpu.open_array(tmp_path / "a.zip", mode="r")
    used: list[int] = []
    run = FileRead.run

    def noted(self: FileRead, slab: Any) -> None:
        used.append(len(self.at))
        run(self, slab)

    monkeypatch.setattr(FileRead, "run", noted)
    there = made.to("sim")
    for box in (np.s_[...], np.s_[3:61:5, ::-1], np.s_[[1, 60, 2], 5:47]):
        used.clear()
        assert np.array_equal(there[box], values[box])
        assert used  # the loop, not the ordinary way


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    made = zarr_gpu.create_array(
        tmp_path, shape=64, chunks=8, shards=64, dtype="u8", compressors=None, device="cpu"
    )
    made[...] = np.arange(64)
    path = tmp_path / "c" / "0"
    data = path.read_bytes()
    path.write_bytes(data[300:])  # the index stands at the end
    with pytest.raises(ShardIndexError, match="c/0"):
        made.to("sim")[...]
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    assert not made.to("sim")[...].any()


def test_files_without_permission(tmp_path: Path) -> None:
    made = zarr_gpu.create_array(
        tmp_path, shape=16, chunks=4, dtype="u2", compressors=None, device="cpu"
    )
    made[...] = np.arange(16)
    path = tmp_path / "c" / "2"
    path.unlink()
    path.symlink_to("2")  # refused to root too
    with pytest.raises(StoreError, match="c/2"):
        made.to("sim")[...]
