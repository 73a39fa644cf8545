"""What the engine asks of a store: every needed byte once, no other byte, nothing twice.

Every test runs four times: with the defaults, cut into many small batches and jobs, with four
threads (and a store that likes four requests at a time), and with both.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from index_strategies import LAYOUTS, SHARDED, build_metadata, make_array, same

from zarr_gpu import engine, jobs, locate, shard_writes
from zarr_gpu.config import ArrayConfig, config
from zarr_gpu.devices import cpu
from zarr_gpu.errors import ChunkDecodeError, ChunkNotFoundError
from zarr_gpu.extents import REST
from zarr_gpu.metadata import ArrayMetadata, v3
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import CountingStore

Shape = tuple[int, ...]
PLAIN = ("v2", "v2 F order", "v3", "v3 transposed", "inline shards")
ONE_LEVEL = ("sharded", "sharded, index at start")


@pytest.fixture(autouse=True, params=["defaults", "small batches", "threads", "both"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param in {"small batches", "both"}:
        monkeypatch.setattr(engine, "BATCH_ROWS", 5)
        monkeypatch.setattr(shard_writes, "GROUP_NBYTES", 100)
        monkeypatch.setattr(cpu, "JOB_NBYTES", 16)
    threads = 1
    if request.param in {"threads", "both"}:
        monkeypatch.setattr(jobs, "SMALL_NBYTES", 0)
        monkeypatch.setattr(CountingStore, "concurrency", 4, raising=False)
        threads = 4
    with config.set(threads=threads):
        yield request.param


_contents: dict[str, dict[str, bytes]] = {}


class Counted:
    """An array in a counting store, and what it holds."""

    def __init__(
        self,
        layout: str,
        shape: Shape = (24, 20),
        chunks: Shape = (2, 4),
        *,
        max_gap: int | None = 0,
        filled: bool = True,
        array_config: ArrayConfig | None = None,
        **kw: Any,
    ) -> None:
        self.store = CountingStore(MemoryStore())
        if max_gap is not None:
            self.store.max_gap = max_gap
        kw = {"factors": (3, 2), "index_codecs": 0, **kw}
        self.metadata = build_metadata(layout, shape, chunks, "<i4", **kw)
        self.array = make_array(self.store, self.metadata, array_config)
        self.values = np.zeros(shape, "<i4")
        if filled:
            self.values[...] = np.arange(1, self.values.size + 1).reshape(shape)
            # Written once per layout: the tests are of what comes after.
            name = repr((layout, shape, chunks, kw))
            if name not in _contents:
                self.array[...] = self.values
                _contents[name] = self.items
            inner = self.store.store
            assert isinstance(inner, MemoryStore)
            inner.items.update(_contents[name])  # type: ignore[attr-defined]
            self.store.reset()

    @property
    def items(self) -> dict[str, bytes]:
        inner = self.store.store
        assert isinstance(inner, MemoryStore)
        return dict(inner.items)

    def touched(self, items: np.ndarray, edges: Shape) -> set[Shape]:
        """Coordinates of the boxes of ``edges`` that hold some of the numbered ``items``."""
        where = np.unravel_index(items.reshape(-1), self.values.shape)
        coords = np.stack([w // e for w, e in zip(where, edges, strict=True)], axis=1)
        return set(map(tuple, coords.tolist()))

    def key(self, coords: Shape) -> str:
        return self.metadata.key_encoding.key(coords)

    def check(self) -> None:
        """The array holds what was assigned; this read is not counted."""
        before = list(self.store.calls)
        assert same(self.array[...], self.values)
        self.store.calls[:] = before


SELECTIONS: dict[str, Any] = {
    "all": np.s_[...],
    "box": np.s_[3:9, 5:13],
    "one item": np.s_[7, 11],
    "row": np.s_[13],
    "backwards": np.s_[::-1, ::-3],
    "few": np.s_[::7, ::9],
    "nothing": np.s_[4:4],
}


def numbers_of(case: Counted, selection: Any) -> np.ndarray:
    return np.asarray(np.arange(case.values.size).reshape(case.values.shape)[selection])


def no_more_than_once(case: Counted) -> None:
    """No range of a key is asked for twice, and nothing but reading is done."""
    assert {call.method for call in case.store.calls} <= {"read"}
    asked = Counter((c.key, c.offset, c.nbytes) for c in case.store.calls)
    assert not asked or max(asked.values()) == 1
    for key in set(case.store.keys_read):
        size = len(case.items.get(key, b""))
        covered = np.zeros(size, int)
        for call in case.store.of("read"):
            if call.key == key and call.answered is not None:
                start = call.offset if call.offset >= 0 else size + call.offset
                covered[start : start + call.answered] += 1
        assert size == 0 or covered.max() == 1, f"bytes of {key} are read twice"


# ----------------------------------------------------------------------------------------- reads


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("layout", PLAIN)
def test_every_chunk_that_is_needed_is_read_once(layout: str, name: str):
    case = Counted(layout)
    selection = SELECTIONS[name]
    assert same(case.array[selection], case.values[selection])
    needed = case.touched(numbers_of(case, selection), case.metadata.chunk_shape)
    assert sorted(case.store.keys_read) == sorted(map(case.key, needed))
    no_more_than_once(case)


def test_repeated_and_unsorted_points_read_a_chunk_once():
    case = Counted("v3")
    rows, columns = [23, 0, 23, 1, 0], [19, 19, 0, 3, 19, 0]
    got = case.array.oindex[rows, columns]
    assert same(got, case.values[np.ix_(rows, columns)])
    assert sorted(case.store.keys_read) == ["c/0/0", "c/0/4", "c/11/0", "c/11/4"]
    case.store.reset()
    points = ([5, 22, 5, 4], [19, 0, 19, 18])
    assert same(case.array.vindex[points], case.values[points])
    assert sorted(case.store.keys_read) == ["c/11/0", "c/2/4"]
    case.store.reset()
    mask = case.values % 100 == 7
    assert same(case.array[mask], case.values[mask])
    needed = case.touched(np.flatnonzero(mask), (2, 4))
    assert sorted(case.store.keys_read) == sorted(map(case.key, needed))


def shard_index(data: bytes, counts: Shape, layout: str) -> np.ndarray:
    """(offset, nbytes) by child, read without the package: little-endian, no checksum."""
    size = 16 * math.prod(counts)
    raw = data[:size] if layout == "sharded, index at start" else data[-size:]
    return np.frombuffer(raw, "<u8").reshape(*counts, 2).astype(np.int64)


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(offset, nbytes) with those that touch joined."""
    result: list[tuple[int, int]] = []
    for offset, nbytes in sorted(ranges):
        if result and sum(result[-1]) == offset:
            result[-1] = (result[-1][0], result[-1][1] + nbytes)
        else:
            result.append((offset, nbytes))
    return result


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("layout", ONE_LEVEL)
@pytest.mark.parametrize("compressor", [0, 1])
def test_shards_give_their_index_once_and_every_needed_range_once(
    layout: str, name: str, compressor: int, how: str
):
    counts, chunks = (3, 2), (2, 4)
    case = Counted(layout, compressor=compressor)
    selection = SELECTIONS[name]
    assert same(case.array[selection], case.values[selection])
    items = numbers_of(case, selection)
    index_nbytes = 16 * math.prod(counts)
    expected: dict[str, list[tuple[int, int]]] = {}
    for shard in case.touched(items, case.metadata.chunk_shape):
        expected[case.key(shard)] = []
    for chunk in case.touched(items, chunks):
        key = case.key(tuple(c // n for c, n in zip(chunk, counts, strict=True)))
        index = shard_index(case.items[key], counts, layout)
        inner = tuple(c % n for c, n in zip(chunk, counts, strict=True))
        offset, nbytes = index[inner].tolist()
        expected[key].append((offset, nbytes))

    calls: dict[str, list[tuple[int, int]]] = {key: [] for key in expected}
    for call in case.store.calls:
        assert call.method == "read"
        calls[call.key].append((call.offset, call.nbytes))  # a KeyError: nothing is needed of it
    suffix = (-index_nbytes, REST)
    prefix = (0, index_nbytes)
    for key, needed in expected.items():
        got = calls[key]
        got.remove(suffix if layout == "sharded" else prefix)  # once
        if how in {"defaults", "threads"} and len(case.touched(items, chunks)) <= 64:
            assert sorted(got) == merged(needed)
        else:  # cut into jobs: neighbours of different jobs are read apart
            assert merged(got) == merged(needed)
            assert sum(n for _, n in got) == sum(n for _, n in needed)
            assert len(set(got)) == len(got)
    no_more_than_once(case)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("layout", SHARDED)
def test_no_byte_of_a_shard_is_read_twice(layout: str, name: str):
    """Also of nested shards, with checksums in their indexes; and no byte that is not needed."""
    case = Counted(layout, index_codecs=1)
    selection = SELECTIONS[name]
    assert same(case.array[selection], case.values[selection])
    no_more_than_once(case)
    items = numbers_of(case, selection)
    needed = len(case.touched(items, (2, 4))) * 2 * 4 * 4
    if layout == "nested shards":
        outer = case.touched(items, case.metadata.chunk_shape)
        inner = case.touched(items, (6, 8))
        needed += len(outer) * (16 * 4 + 4) + len(inner) * (16 * 6 + 4)
    else:
        needed += len(case.touched(items, (6, 8))) * (16 * 6 + 4)
    assert case.store.bytes_read == needed


def test_chunks_a_small_gap_apart_are_read_as_one(how: str):
    case = Counted("sharded", max_gap=None, factors=(12, 5))
    assert same(case.array[::4, ::8], case.values[::4, ::8])
    assert case.touched(numbers_of(case, np.s_[...]), case.metadata.chunk_shape) == {(0, 0)}
    if how in {"defaults", "threads"}:
        assert case.store.count("read") == 2  # the index, and all chunks
    assert sum(call.offset < 0 for call in case.store.calls) == 1


def test_many_shards_have_their_indexes_fetched_together(how: str):
    """One request for all indexes of a batch: they come before the first chunk."""
    case = Counted("sharded")
    case.array[...]
    offsets = [call.offset for call in case.store.of("read")]
    if how == "defaults":
        nshards = len(case.items)
        assert all(offset < 0 for offset in offsets[:nshards])
        assert all(offset >= 0 for offset in offsets[nshards:])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_absent_is_asked_for_once(layout: str):
    case = Counted(layout, filled=False)
    assert same(case.array[...], case.values)
    edges = case.metadata.chunk_shape
    every = case.touched(np.arange(case.values.size), edges)
    assert sorted(case.store.keys_read) == sorted(map(case.key, every))
    assert case.store.bytes_read == 0


@pytest.mark.parametrize("layout", SHARDED)
def test_absent_chunks_of_a_shard_are_not_asked_for(layout: str):
    case = Counted(layout, filled=False)
    case.array[3, 5] = case.values[3, 5] = 9
    case.store.reset()
    case.check()
    before = case.array.get_basic_selection(Ellipsis)
    assert same(before, case.values)
    reads = [c for c in case.store.of("read") if c.answered]
    levels = 2 if layout == "nested shards" else 1
    assert len(reads) == levels + 1
    assert reads[-1].nbytes == 2 * 4 * 4 or reads[-1].answered == 2 * 4 * 4
    no_more_than_once(case)


@pytest.mark.parametrize("layout", SHARDED)
def test_an_index_that_fills_the_cache_is_still_read_once(
    layout: str, monkeypatch: pytest.MonkeyPatch
):
    """A single index may be larger than all that is kept of indexes."""
    monkeypatch.setattr(locate, "INDEX_CACHE_BYTES", 10)
    case = Counted(layout, factors=(12, 5), outer_factors=(1, 1))
    assert same(case.array[...], case.values)
    no_more_than_once(case)


# ---------------------------------------------------------------------------------------- writes


COVERING: dict[str, Any] = {
    "all": np.s_[...],
    "to the edge": np.s_[12:, 8:],
    "backwards": np.s_[::-1, ::-1],
    "objects": np.s_[:12, 16:],
}


@pytest.mark.parametrize("name", COVERING)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole_objects_are_written_without_reading(layout: str, name: str):
    case = Counted(layout, (23, 19), outer_factors=(2, 1))
    selection = COVERING[name]
    case.array[selection] = case.values[selection] = -case.values[selection]
    assert case.store.count("read") == case.store.count("size") == case.store.count("list") == 0
    objects = case.touched(numbers_of(case, selection), case.metadata.chunk_shape)
    assert sorted(case.store.keys_written) == sorted(map(case.key, objects))
    assert case.store.count("remove") == 0
    case.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_index_arrays_that_cover_write_without_reading(layout: str):
    case = Counted(layout, (24, 20))
    rows = np.random.default_rng(0).permutation(np.r_[:24, :24])
    values = -np.arange(rows.size * 20).reshape(-1, 20) - 1
    case.array.oindex[rows] = values
    case.values[rows] = values
    assert case.store.count("read") == 0
    case.check()


@pytest.mark.parametrize("name", ["box", "one item", "row", "few", "nothing"])
@pytest.mark.parametrize("layout", PLAIN)
def test_partial_writes_read_each_touched_chunk_once(layout: str, name: str):
    case = Counted(layout)
    selection = SELECTIONS[name]
    case.array[selection] = case.values[selection] = -7
    edges = case.metadata.chunk_shape
    items = numbers_of(case, selection)
    inside = Counter(
        tuple(c) for c in (np.stack(np.unravel_index(items.reshape(-1), case.values.shape), 1)
                           // np.array(edges)).tolist()
    )  # fmt: skip
    partial = [coords for coords, count in inside.items() if count < math.prod(edges)]
    assert sorted(case.store.keys_read) == sorted(map(case.key, partial))
    assert sorted(case.store.keys_written) == sorted(map(case.key, inside))
    assert case.store.count("remove") == 0
    case.check()


@pytest.mark.parametrize("name", ["box", "one item", "row", "few", "nothing"])
@pytest.mark.parametrize("layout", SHARDED)
def test_partial_writes_read_each_touched_shard_once(layout: str, name: str):
    case = Counted(layout)
    selection = SELECTIONS[name]
    case.array[selection] = case.values[selection] = -7
    shards = case.touched(numbers_of(case, selection), case.metadata.chunk_shape)
    assert sorted(case.store.keys_read) == sorted(map(case.key, shards))
    assert sorted(case.store.keys_written) == sorted(map(case.key, shards))
    assert all((call.offset, call.nbytes) == (0, REST) for call in case.store.of("read"))
    case.check()


def test_a_covered_shard_beside_a_partial_one_is_not_read():
    case = Counted("sharded")  # shards of (6, 8)
    case.array[:9, :8] = case.values[:9, :8] = 5
    assert case.store.keys_read == ["c/1/0"]
    assert sorted(case.store.keys_written) == ["c/0/0", "c/1/0"]
    case.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_new_objects_are_read_for_no_more_than_their_absence(layout: str):
    case = Counted(layout, filled=False)
    case.array[5, 6] = case.values[5, 6] = 1
    assert len(case.store.keys_read) <= 1
    assert case.store.bytes_read == 0
    assert case.store.keys_written == list(case.items)
    case.check()


# ----------------------------------------------------------------------------------- fill values


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunks_of_fill_value_are_removed(layout: str):
    case = Counted(layout)
    everything = set(case.items)
    edges = case.metadata.chunk_shape
    box = tuple(slice(e) for e in edges)
    case.array[box] = case.values[box] = 0
    assert case.store.count("read") == case.store.count("write") == 0
    gone = case.key((0, 0))
    assert [call.key for call in case.store.of("remove")] == [gone]
    assert set(case.items) == everything - {gone}
    case.check()
    # Bit by bit: what is left of a chunk after a partial write may be fill value too.
    case.store.reset()
    last = tuple(slice((n - 1) // e * e, n) for n, e in zip(case.values.shape, edges, strict=True))
    part = case.values[last]
    first = (last[0], slice(last[1].start, last[1].start + 1))
    rest = (last[0], slice(last[1].start + 1, last[1].stop))
    case.array[first] = case.values[first] = 0
    assert part.any()
    case.array[rest] = case.values[rest] = 0
    assert case.key(tuple(s.start // e for s, e in zip(last, edges, strict=True))) not in case.items
    case.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_write_empty_chunks_keeps_them(layout: str):
    case = Counted(layout, filled=False, array_config=ArrayConfig(write_empty_chunks=True))
    case.array[...] = 0
    every = case.touched(np.arange(case.values.size), case.metadata.chunk_shape)
    assert set(case.items) == set(map(case.key, every))
    assert case.store.count("read") == case.store.count("remove") == 0
    case.check()
    if layout in ONE_LEVEL:
        for data in case.items.values():
            index = shard_index(data, (3, 2), layout)
            assert (index[..., 1] == 2 * 4 * 4).any()


@pytest.mark.parametrize("layout", ONE_LEVEL)
def test_chunks_of_fill_value_leave_their_shard(layout: str):
    case = Counted(layout)
    case.array[2:4, 4:8] = case.values[2:4, 4:8] = 0
    index = shard_index(case.items["c/0/0"], (3, 2), layout)
    absent = (index.view(np.uint64) == 2**64 - 1).all(axis=-1)
    assert absent.tolist() == [[False, False], [False, True], [False, False]]
    assert len(case.items["c/0/0"]) == 5 * 2 * 4 * 4 + 6 * 16
    assert case.store.count("remove") == 0
    case.check()


def test_minus_zero_is_not_the_fill_value_zero():
    store = MemoryStore()
    metadata = build_metadata("v3", (6,), (2,), "f4", fill_value=np.float32(0))
    array = make_array(store, metadata)
    array[...] = [-0.0, -0.0, 0.0, 0.0, 0.0, -0.0]
    assert sorted(store.items) == ["c/0", "c/2"]
    assert np.signbit(array[...]).tolist() == [True, True, False, False, False, True]
    nan = build_metadata("v3", (4,), (2,), "f4", fill_value=np.float32(np.nan))
    array = make_array(MemoryStore(), nan)
    array[...] = [np.nan, np.nan, np.nan, 1]
    assert list(array.store.items) == ["c/1"]


# --------------------------------------------------------------------------------- kept as it is


def chunk_bytes(metadata: ArrayMetadata, data: bytes) -> dict[Shape, bytes]:
    """Encoded chunks of a shard by their place, read without the package."""
    sharding = metadata.codecs[0].configuration
    counts = tuple(
        s // c for s, c in zip(metadata.chunk_shape, sharding["chunk_shape"], strict=True)
    )
    at_start = sharding.get("index_location") == "start"
    index = shard_index(data, counts, "sharded, index at start" if at_start else "sharded")
    return {
        place: data[index[place][0] : index[place].sum()]
        for place in np.ndindex(*counts)
        if index[place][1] != -1
    }


@pytest.mark.parametrize("layout", ONE_LEVEL)
def test_untouched_chunks_keep_their_encoded_bytes(layout: str):
    """Written with one level of compression, changed with another: the old bytes must stay."""
    case = Counted(layout, compressor=1, chunks=(8, 16), shape=(48, 64))
    case.values[...] = np.random.default_rng(1).integers(0, 9, case.values.shape)
    case.array[...] = case.values
    old = {key: chunk_bytes(case.metadata, data) for key, data in case.items.items()}
    other = v3.parse(_replaced(case.metadata.to_dict(), "level", 19))
    assert isinstance(other, ArrayMetadata)
    array = make_array(case.store, other)
    array[10, 20] = case.values[10, 20] = 77
    array[40:48, 0:16] = case.values[40:48, 0:16] = 5
    changed = set()
    for key, data in case.items.items():
        new = chunk_bytes(case.metadata, data)
        assert new.keys() == old[key].keys()
        base = np.array(case.metadata.key_encoding.parse(key)) * (3, 2)
        for place, chunk in new.items():
            if chunk != old[key][place]:
                changed.add(tuple((base + place).tolist()))
    assert changed == {(1, 1), (5, 0)}
    # The levels do encode to different bytes: rewriting everything changes every chunk.
    array[...] = case.values
    for key, data in case.items.items():
        new = chunk_bytes(case.metadata, data)
        assert all(new[place] != old[key][place] for place in new)
    case.check()


def _replaced(document: Any, name: str, value: Any) -> Any:
    if isinstance(document, dict):
        return {k: value if k == name else _replaced(v, name, value) for k, v in document.items()}
    if isinstance(document, list):
        return [_replaced(item, name, value) for item in document]
    return document


def test_damage_in_untouched_chunks_is_left_alone():
    """An untouched chunk is not decoded: what cannot be read is at least not lost."""
    case = Counted("sharded", compressor=1)
    key = "c/0/0"
    data = bytearray(case.items[key])
    index = shard_index(bytes(data), (3, 2), "sharded")
    start, nbytes = index[2, 1].tolist()
    data[start : start + nbytes] = b"\xee" * nbytes
    case.store.put(key, bytes(data))
    case.array[0, 0] = -1
    assert chunk_bytes(case.metadata, case.items[key])[2, 1] == b"\xee" * nbytes


# ---------------------------------------------------------------------------------------- absent


@pytest.mark.parametrize("layout", LAYOUTS)
def test_absent_chunks_can_be_an_error(layout: str):
    case = Counted(layout, array_config=ArrayConfig(read_missing_chunks=False))
    case.check()
    case.store.remove(case.key((1, 0)))
    edges = case.metadata.chunk_shape
    message = f"absent: key {case.key((1, 0))!r}"
    with pytest.raises(ChunkNotFoundError, match=message) as caught:
        case.array[...]
    assert caught.value.key == case.key((1, 0))
    assert isinstance(caught.value, KeyError)
    assert same(case.array[: edges[0]], case.values[: edges[0]])
    as_fill = make_array(case.store, case.metadata)
    case.values[edges[0] : 2 * edges[0], : edges[1]] = 0
    assert same(as_fill[...], case.values)


@pytest.mark.parametrize("layout", SHARDED)
def test_a_chunk_absent_from_its_shard_is_an_error_too(layout: str):
    case = Counted(layout, array_config=ArrayConfig(read_missing_chunks=False))
    case.array[2:4, 4:8] = 0
    with pytest.raises(ChunkNotFoundError, match=r"chunk \(1, 1\) is absent: key 'c/0/0'"):
        case.array[...]
    assert same(case.array[:2], case.values[:2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_damaged_chunk_is_named_and_the_others_can_be_read(layout: str):
    case = Counted(layout, compressor=1)
    key = case.key((1, 1))
    data = bytearray(case.items[key])
    # Of the first chunk; an index of six chunks comes before it in some layouts.
    start = 16 * 6 if layout in {"nested shards", "sharded, index at start"} else 0
    data[start : start + 20] = b"\xee" * 20
    case.store.put(key, bytes(data))
    with pytest.raises(ChunkDecodeError, match=f"chunk {key!r}") as caught:
        case.array[...]
    assert caught.value.key == key
    assert isinstance(caught.value, ValueError)
    first = case.metadata.chunk_shape[0]
    assert same(case.array[:first], case.values[:first])
    # A write that must read the damaged chunk changes nothing; one that covers it repairs it.
    before = case.items
    with pytest.raises(ChunkDecodeError, match=f"chunk {key!r}"):
        case.array[1::2, 1::2] = 5
    assert case.items[key] == before[key]
    case.array[...] = case.values
    case.check()
