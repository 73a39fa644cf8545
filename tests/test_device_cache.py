"""Encoded chunks in device memory: what is found and fetched, what gives way, what is dropped."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="device 'sim' needs Numba: pip install 'zarr-gpu[sim]'")

import zarr_gpu
from zarr_gpu.array import Array
from zarr_gpu.codecs.device_rows import copy_rows
from zarr_gpu.config import config
from zarr_gpu.devices import get_device
from zarr_gpu.devices.cache import CELL, DeviceCache, IndexShelf
from zarr_gpu.devices.cuda import BatchDevice
from zarr_gpu.devices.sim_runtime import SimRuntime, enter
from zarr_gpu.errors import ChunkDecodeError, ChunkNotFoundError, DeviceError
from zarr_gpu.extents import MISSING, REST, ByteRequest, Extents, HostMemory
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore

ZSTD = [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}]
BLOSC = [
    {
        "name": "blosc",
        "configuration": {
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "shuffle",
            "typesize": 4,
            "blocksize": 0,
        },
    }
]


class Case:
    """An array in a counting store, read on a device of its own with a cache."""

    def __init__(
        self,
        nbytes: int = 1 << 20,
        *,
        shape: tuple[int, ...] = (64, 64),
        array_config: dict[str, Any] | None = None,
        **codecs: Any,
    ) -> None:
        self.store = CountingStore(MemoryStore())
        codecs = {"chunks": (16, 16), "compressors": ZSTD, **codecs}
        made = zarr_gpu.create_array(
            self.store, shape=shape, dtype="u4", fill_value=9, device="cpu", **codecs
        )
        self.values = np.arange(1, np.prod(shape) + 1, dtype="u4").reshape(shape)
        made[...] = self.values
        self.plain = made
        self.device = BatchDevice("sim", "sim", SimRuntime, enter)
        self.cache = DeviceCache(nbytes)
        self.array: Array = made.to(self.device).with_cache(self.cache)
        if array_config is not None:
            self.array = self.array.with_config(array_config)
        self.store.reset()

    def read(self, selection: Any = ...) -> tuple[Any, int]:
        """(what was read, reads of the store); the values are checked."""
        self.store.reset()
        self.device.counts.clear()
        got = self.array[selection]
        np.testing.assert_array_equal(got, self.values[selection])
        return got, self.store.count("read")

    def used(self) -> tuple[int, int]:
        """Hits and misses since the last call."""
        found = self.cache.hits, self.cache.misses
        before = getattr(self, "_before", (0, 0))
        self._before = found
        return found[0] - before[0], found[1] - before[1]


# ---- reading again -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codecs",
    [
        {"compressors": None},
        {"compressors": ZSTD},
        {"compressors": BLOSC},
        {"compressors": [*ZSTD, {"name": "crc32c"}]},
        {"compressors": [{"name": "gzip", "configuration": {"level": 1}}]},
        {"compressors": ZSTD, "shards": (32, 32)},
        {
            "compressors": BLOSC,
            "filters": [{"name": "transpose", "configuration": {"order": [1, 0]}}],
        },
        {"zarr_format": 2, "compressors": {"id": "lz4", "acceleration": 1}},
        {"zarr_format": 2, "compressors": {"id": "bz2", "level": 1}},
    ],
)
def test_what_was_read_is_not_fetched_again(codecs: dict[str, Any]) -> None:
    case = Case(**codecs)
    assert case.read()[1] > 0
    assert case.used() == (0, 16)
    for _ in range(2):
        assert case.read()[1] == 0
        assert not case.store.calls
        assert case.used() == (16, 0)


def test_only_what_is_missing_is_fetched() -> None:
    case = Case()
    assert case.read(np.s_[:32])[1] == 8
    assert case.read(np.s_[16:48, 16:64])[1] == 3
    assert sorted(case.store.keys_read) == ["c/2/1", "c/2/2", "c/2/3"]
    assert case.read()[1] == 16 - 8 - 3
    assert case.read(np.s_[::-3, 5])[1] == 0
    assert case.used() == (8 - 4 - 1 + 11 + 4, 16)


def test_counts_do_not_depend_on_the_number_of_chunks() -> None:
    seen = []
    for length in (64, 1024):
        case = Case(4 << 20, shape=(length, 64))
        case.read()
        first = dict(case.device.counts)
        case.read()
        seen.append((first, dict(case.device.counts)))
    assert seen[0] == seen[1]
    first, again = seen[0]
    assert first["nvcomp_calls"] == again["nvcomp_calls"] == 1
    assert again["uploads"] <= first["uploads"]


def test_keeping_costs_one_upload_and_one_launch() -> None:
    case = Case()
    case.read()
    kept = dict(case.device.counts)
    case.array = case.array.with_cache(None)
    case.read()
    plain = dict(case.device.counts)
    assert kept["launches"] == plain["launches"] + 1
    assert kept["uploads"] == plain["uploads"] + 1
    assert kept["downloads"] == plain["downloads"]


def test_many_jobs() -> None:
    case = Case()
    with config.set({"gpu.job_bytes": 3000}):  # two chunks
        case.read(np.s_[:, :40])
        assert case.read()[1] == 4
        assert case.read()[1] == 0


def test_absent_chunks_stay_absent() -> None:
    case = Case()
    case.store.store.delete_many(["c/0/0", "c/3/3"])
    case.values[:16, :16] = case.values[48:, 48:] = 9
    case.read()
    assert case.used() == (0, 16)
    assert case.read()[1] == 0
    assert case.used() == (16, 0)
    strict = case.array.with_config({"read_missing_chunks": False})
    for _ in range(2):
        with pytest.raises(ChunkNotFoundError, match="c/0/0"):
            strict[...]
    np.testing.assert_array_equal(strict[16:32], case.values[16:32])


def test_absence_is_an_error_on_the_first_read_too() -> None:
    case = Case(array_config={"read_missing_chunks": False})
    case.store.store.delete_many(["c/2/1"])
    for _ in range(2):
        with pytest.raises(ChunkNotFoundError, match="c/2/1"):
            case.array[...]


def test_absent_chunks_of_shards_ask_for_nothing() -> None:
    case = Case(shards=(32, 32))
    case.plain[:16, :16] = 9
    case.plain[32:, 32:] = 9
    case.values[:16, :16] = case.values[32:, 32:] = 9
    case.read()
    assert case.used() == (0, 11)
    assert case.read()[1] == 0
    assert case.used() == (11, 0)


def test_empty_selections() -> None:
    case = Case()
    assert case.read(np.s_[:0])[1] == 0
    assert case.used() == (0, 0)


# ---- writing and damage --------------------------------------------------------------------------


def test_what_is_written_is_dropped() -> None:
    case = Case()
    case.read()
    case.array[3:5, 3:5] = case.values[3:5, 3:5] = 7
    assert case.cache.nbytes_used == 0
    assert case.read()[1] == 16
    assert case.read()[1] == 0


def test_a_write_through_another_handle_with_the_cache_is_seen() -> None:
    case = Case()
    case.read()
    other = zarr_gpu.open_array(case.store, device=case.device, cache=case.cache)
    other[0, 0] = case.values[0, 0] = 12345
    assert case.read()[1] == 16


def test_other_arrays_keep_their_entries() -> None:
    one, two = Case(), Case()
    two.cache, two.device = one.cache, one.device
    two.array = two.array.to(one.device).with_cache(one.cache)
    one.read()
    two.read()
    one.array[...] = one.values
    assert two.read()[1] == 0
    assert one.read()[1] == 16


def test_shapes_change() -> None:
    case = Case()
    case.read()
    case.array.resize((40, 64))
    assert case.cache.nbytes_used == 0
    case.array.resize((64, 64))
    case.values[48:] = 9
    case.read()
    case.array.attrs["a"] = 1
    assert case.read()[1] == 0
    case.array.refresh()
    assert case.read()[1] == 16


def test_a_reader_that_was_overtaken_by_a_writer_keeps_nothing() -> None:
    case = Case()
    part = case.cache.part(case.store, "")
    fetch = case.store.store.read_spans

    def overtaken(*args: Any) -> Any:
        found = fetch(*args)
        part.drop()  # what a write does at its end
        return found

    case.store.read_spans = overtaken  # type: ignore[method-assign]
    case.array[...]
    assert case.cache.nbytes_used == 0


def test_damaged_chunks_are_read_again() -> None:
    case = Case(compressors=[*ZSTD, {"name": "crc32c"}])
    items = case.store.store.items  # type: ignore[attr-defined]
    good = items["c/1/2"]
    items["c/1/2"] = good[:-3] + b"xyz"
    for _ in range(2):
        with pytest.raises(ChunkDecodeError, match="c/1/2"):
            case.array[...]
    items["c/1/2"] = good
    case.read()


# ---- room ----------------------------------------------------------------------------------------


def test_the_oldest_give_way() -> None:
    case = Case(16 * 1024, compressors=None)  # 1024 bytes a chunk: all 16 fit
    case.read()
    assert case.read()[1] == 0
    assert case.cache.nbytes_used == case.cache.nbytes
    more = Case(compressors=None, shape=(16, 64))
    more.array = more.array.to(case.device).with_cache(case.cache)
    more.array[...]
    case.used()
    assert case.read(np.s_[16:])[1] == 0
    assert case.read(np.s_[:16])[1] == 4


def test_a_cache_that_is_too_small_is_still_right() -> None:
    for nbytes in (CELL, 1000, 1024, 1500, 5000, 10_000):
        case = Case(nbytes, compressors=None)
        for _ in range(3):
            case.read()
            assert case.cache.nbytes_used <= case.cache.nbytes <= nbytes


@pytest.mark.parametrize("seed", range(8))
def test_random_traffic(seed: int) -> None:
    """Many arrays and selections in a cache that is too small for them."""
    rng = np.random.default_rng(seed)
    cases = [Case(compressors=c) for c in (None, ZSTD, BLOSC)]
    cache = DeviceCache(int(rng.integers(600, 20_000)))
    for case in cases:
        case.array = case.array.to(cases[0].device).with_cache(cache)
    with config.set({"gpu.job_bytes": int(rng.integers(1, 6)) * 1024}):
        for _ in range(40):
            case = cases[rng.integers(3)]
            lo, hi = np.sort(rng.integers(0, 65, (2, 2)), axis=0)
            where = (slice(lo[0], hi[0]), slice(lo[1], hi[1]))
            if rng.random() < 0.15:
                case.array[where] = case.values[where] = rng.integers(1000)
            case.read(where)
            live = sum(
                max(entry.nbytes, 0)
                for part in cache._parts.values()
                for entry in part.entries.values()
            )
            assert live == cache.nbytes_used <= cache.nbytes


def ring(nbytes: int = 4 * CELL) -> tuple[Any, Any, SimRuntime]:
    cache = DeviceCache(nbytes)
    return cache, cache.part(MemoryStore(), ""), SimRuntime()


def put(part: Any, runtime: SimRuntime, *names: str, nbytes: int = CELL) -> None:
    request = ByteRequest.whole(list(names))
    base = np.concatenate([np.full(nbytes, ord(name), np.uint8) for name in names])
    sizes = np.full(len(names), nbytes)
    part.keep(runtime, request, base, Extents(base, np.cumsum(sizes) - sizes, sizes), part.epoch)


def there(part: Any) -> str:
    return "".join(sorted(name for name, _, _ in part.entries))


def test_ring() -> None:
    _, part, runtime = ring()
    put(part, runtime, "a", "b", "c")
    put(part, runtime, "d")
    assert there(part) == "abcd"
    put(part, runtime, "e")
    assert there(part) == "bcde"
    put(part, runtime, "F", nbytes=2 * CELL)
    assert there(part) == "Fde"
    put(part, runtime, "G", nbytes=3 * CELL)  # no room before the end
    assert there(part) == "G"
    put(part, runtime, "H", nbytes=5 * CELL)
    assert there(part) == "G"
    put(part, runtime, "a", "b", "c", "d", "e")  # the last has no place left in this job
    assert there(part) == "abcd"
    for entry in part.entries.values():
        held = part.arena.memory[entry.start : entry.start + entry.nbytes]
        assert (held == ord(entry.name[0])).all()


def test_what_is_in_use_is_not_replaced() -> None:
    _, part, runtime = ring()
    put(part, runtime, "a", "b", "c", "d")
    hold = part.hold(ByteRequest.whole(["a", "x"]), "sim")
    assert hold.ready.tolist() == [True, False]
    put(part, runtime, "e")
    assert there(part) == "abcd"
    with hold.reading(runtime) as (memory, _):
        start = int(hold.start[0])
        assert (memory[start : start + CELL] == ord("a")).all()
    put(part, runtime, "e")
    assert there(part) == "bcde"


def test_what_is_in_use_is_let_go_after_an_error() -> None:
    _, part, runtime = ring()
    put(part, runtime, "a", "b", "c", "d")
    hold = part.hold(ByteRequest.whole(["a"]), "sim")
    with pytest.raises(ZeroDivisionError), hold.reading(runtime):
        _ = 1 / 0
    put(part, runtime, "e")
    assert there(part) == "bcde"


def test_a_copy_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, part, runtime = ring()

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("zarr_gpu.devices.cache.copy_rows", fail)
    with pytest.raises(MemoryError):
        put(part, runtime, "a", "b")
    assert there(part) == ""
    assert cache.nbytes_used == 0
    monkeypatch.setattr("zarr_gpu.devices.cache.copy_rows", copy_rows)
    put(part, runtime, "a", "b", "c", "d")
    assert there(part) == "abcd"


class Streamed(SimRuntime):
    """A runtime that writes down which events it waits for."""

    def __init__(self, stream: int) -> None:
        super().__init__()
        self._stream = stream
        self.made, self.waited = 0, []  # type: ignore[var-annotated]

    @property
    def stream(self) -> int:
        return self._stream

    def record(self) -> Any:
        self.made += 1
        return (self._stream, self.made)

    def wait(self, event: Any) -> None:
        self.waited.append(event)


def test_streams_wait_for_each_other() -> None:
    _, part, _ = ring()
    one, two = Streamed(1), Streamed(2)
    put(part, one, "a")
    hold = part.hold(ByteRequest.whole(["a"]), "sim")
    with hold.reading(two):
        assert two.waited == [(1, 1)]  # the copy into the arena
    put(part, one, "b", "c", "d")
    assert one.waited == [(1, 1), (2, 1)]  # the read of the other stream, before its place is used
    with part.hold(ByteRequest.whole(["b"]), "sim").reading(two):
        assert two.waited[-1] == (1, 2)


# ---- handles -------------------------------------------------------------------------------------


def test_clear() -> None:
    case = Case()
    case.read()
    assert case.cache.nbytes_used > 0
    case.cache.clear()
    assert case.cache.nbytes_used == 0
    assert case.read()[1] == 16
    assert case.read()[1] == 0
    assert "16 hits" in repr(case.cache)


def test_handles_keep_the_cache() -> None:
    case = Case()
    assert case.array.cache is case.cache
    assert case.array.with_config({"order": "F"}).cache is case.cache
    assert case.array.to("sim").cache is case.cache
    assert case.array.to("cpu").cache is None
    assert case.array.with_cache(None).cache is None
    assert pickle.loads(pickle.dumps(case.array.to("sim"))).cache is None
    again = pickle.loads(pickle.dumps(case.cache))
    assert (again.nbytes, again.nbytes_used) == (case.cache.nbytes, 0)


def test_the_cpu_has_no_use_for_a_cache() -> None:
    cache, data = DeviceCache(1000), {}
    z = zarr_gpu.create_array(data, shape=4, dtype="u1", device="cpu")
    before = dict(data)
    with pytest.raises(DeviceError, match="memory of a GPU"):
        z.with_cache(cache)
    for mode in ("r", "w"):
        with pytest.raises(DeviceError, match="cpu"):
            zarr_gpu.open_array(data, mode=mode, shape=8, dtype="u2", device="cpu", cache=cache)
    assert data == before
    with pytest.raises(TypeError, match="DeviceCache"):
        zarr_gpu.open_array(data, device="sim", cache=1 << 20)


def test_open_array_with_a_cache() -> None:
    cache, data = zarr_gpu.DeviceCache(1 << 16), {}
    made = zarr_gpu.open_array(
        data, mode="w", shape=8, chunks=4, dtype="u1", device="sim", cache=cache
    )
    made[...] = 5
    assert made.cache is cache
    opened = zarr_gpu.open_array(data, device="sim", cache=cache)
    assert opened[...].tolist() == made[...].tolist() == [5] * 8
    assert (cache.hits, cache.misses) == (2, 2)  # one mapping, two handles


@pytest.mark.parametrize("nbytes", [0, -1, True, 1.5, "8", CELL - 1])
def test_sizes_that_are_none(nbytes: Any) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        DeviceCache(nbytes)


def test_one_device_only() -> None:
    case = Case()
    case.read()
    elsewhere = BatchDevice("sim", "sim:compiled", SimRuntime, enter)
    with pytest.raises(DeviceError, match="sim:compiled"):
        case.array.to(elsewhere)[...]
    assert case.read()[1] == 0


def test_types_that_no_device_holds_do_without() -> None:
    cache = DeviceCache(1 << 16)
    z = zarr_gpu.create_array({}, shape=3, dtype="string", device="sim").with_cache(cache)
    z[...] = ["a", "b", "c"]
    assert z[...].tolist() == ["a", "b", "c"]
    assert (cache.hits, cache.misses) == (0, 0)


def test_places(tmp_path: Any) -> None:
    """What is one place is one part; stores in memory are told apart by their mapping."""
    cache = DeviceCache(1 << 16)
    assert cache.part(LocalStore(tmp_path), "a") is cache.part(LocalStore(tmp_path), "a")
    assert cache.part(LocalStore(tmp_path), "a") is not cache.part(LocalStore(tmp_path), "b")
    assert cache.part(LocalStore(tmp_path / "x"), "a") is not cache.part(LocalStore(tmp_path), "a")
    items: dict[str, Any] = {"a": b"1"}
    assert cache.part(MemoryStore(items), "") is cache.part(MemoryStore(items), "")
    assert cache.part(MemoryStore(items), "") is not cache.part(MemoryStore(dict(items)), "")
    one, two = CountingStore(MemoryStore(items)), CountingStore(MemoryStore(items))
    assert cache.part(one, "") is cache.part(one, "")
    assert cache.part(one, "") is not cache.part(two, "")


def test_threads_share_a_cache() -> None:
    case = Case(9000, compressors=None)  # too small for all of them
    get_device("sim")
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(15):
                row = int(rng.integers(0, 48))
                np.testing.assert_array_equal(
                    case.array[row : row + 16], case.values[row : row + 16]
                )
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert all(
        entry.users == 0 for part in case.cache._parts.values() for entry in part.entries.values()
    )


# ---- indexes of shards ---------------------------------------------------------------------------


def test_indexes_are_fetched_in_part() -> None:
    cache, store = DeviceCache(1 << 16), CountingStore(MemoryStore({"a": b"12", "b": b"345"}))
    source = cache.part(store, "").indexes(store)

    def fetch(*keys: str) -> list[bytes | None]:
        found = source.fetch(ByteRequest.whole(list(keys)), HostMemory())
        pairs = zip(found.offset.tolist(), found.nbytes.tolist(), strict=True)
        return [None if n == MISSING else bytes(found.base[at : at + n]) for at, n in pairs]

    assert fetch("a", "x") == [b"12", None]
    store.reset()
    assert fetch("x", "b", "a") == [None, b"345", b"12"]
    assert store.keys_read == ["b"]
    assert source.nbytes("b") == 3
    cache.clear()
    store.reset()
    assert fetch("a") == [b"12"]
    assert store.keys_read == ["a"]


def test_the_shelf_is_bounded() -> None:
    shelf = IndexShelf(1000)
    part: Any = object()
    for i in range(20):
        shelf.put(part, {(str(i), 0, REST): bytes(100)})
    names = [(str(i), 0, REST) for i in range(20)]
    assert list(shelf.find(part, names)) == names[-3:]
    shelf.drop(part)
    assert shelf.find(part, names) == {}
