"""Stores that fail or lie: an error that says so, never fill values, never half a change."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hostile import LITTLE, items_of, regular, sharding, unchanged, v2_document, v3_document

import zarr_gpu
from zarr_gpu.errors import ChunkNotFoundError, DataError, NodeNotFoundError, StoreError
from zarr_gpu.storage.base import Buffer
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import FaultyStore

VALUES = np.arange(1, 65, dtype="i4").reshape(8, 8)
LAYOUTS = {
    "plain": v3_document(shape=[8, 8], chunk_grid=regular(4, 4), codecs=[LITTLE, "crc32c"]),
    "raw": v3_document(shape=[8, 8], chunk_grid=regular(4, 4)),
    "sharded": v3_document(shape=[8, 8], chunk_grid=regular(4, 4), codecs=[sharding([2, 2])]),
    "start": v3_document(
        shape=[8, 8], chunk_grid=regular(4, 4), codecs=[sharding([2, 2], location="start")]
    ),
    "nested": v3_document(
        shape=[8, 8], chunk_grid=regular(8, 8), codecs=[sharding([4, 4], sharding([2, 2]))]
    ),
    "v2": v2_document(shape=[8, 8], chunks=[4, 4], compressor={"id": "zlib", "level": 1}),
}


def filled(layout: str) -> MemoryStore:
    store = MemoryStore(items_of(LAYOUTS[layout]))
    zarr_gpu.open_array(store, mode="r+")[...] = VALUES
    return store


def is_chunk(key: str) -> bool:
    return key.rpartition("/")[2] not in ("zarr.json", ".zarray", ".zattrs", ".zgroup")


# ---------------------------------------------------------------------------- failing stores

FAILURES: list[BaseException] = [
    OSError("disk on fire"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ESTALE, "stale handle"),
    OSError(errno.ENAMETOOLONG, "name too long"),
    TimeoutError("too slow"),
    ConnectionResetError("gone"),
    ConnectionRefusedError("closed"),
    BrokenPipeError("broken"),
    PermissionError("not yours"),
    BlockingIOError("busy"),
    InterruptedError("interrupted"),
    RuntimeError("HTTP 403"),
    RuntimeError("HTTP 429"),
    RuntimeError("HTTP 500"),
    ValueError("HTTP 503"),
    KeyError("a bug of the store"),
    FileNotFoundError("the answer of a server that lies"),
    MemoryError("no memory"),
    StopIteration("odd"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f"{type(f).__name__} {f}")
def test_a_failing_store_never_gives_fill_values(layout: str, failure: BaseException) -> None:
    store = filled(layout)
    faulty = FaultyStore(store, failure, when=lambda method, key: is_chunk(key))
    array = zarr_gpu.open_array(faulty, mode="r+")
    reads: list[Callable[[], Any]] = [
        lambda: array[...],
        lambda: array[0, 0],
        lambda: array.oindex[[0, 5], :],
        lambda: array.vindex[[0, 5], [1, 1]],
        lambda: array.blocks[0, 0],
        lambda: array.__setitem__((0, 0), 5),  # needs the rest of the chunk
    ]
    with unchanged(dict(store.items)):
        for read in reads:
            with pytest.raises(StoreError) as caught:
                read()
            assert isinstance(caught.value, OSError)
            assert is_chunk(str(caught.value.key))
            assert str(caught.value.key) in str(caught.value)
            assert caught.value.__cause__ is failure
            for kind in (PermissionError, TimeoutError, ConnectionError):
                assert isinstance(caught.value, kind) == isinstance(failure, kind)
            if isinstance(failure, OSError):
                assert caught.value.errno == failure.errno


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_single_failure_on_the_way_is_told(layout: str) -> None:
    """The n-th call fails, for every n: no wrong result, nothing lost, and a retry succeeds."""
    actions: list[Callable[[zarr_gpu.Array], Any]] = [
        lambda array: np.testing.assert_array_equal(array[...], VALUES),
        lambda array: np.testing.assert_array_equal(array[1:7, ::3], VALUES[1:7, ::3]),
        lambda array: array.__setitem__((slice(1, 6), slice(2, 7)), -5),
        lambda array: array.__setitem__(..., VALUES + 1),
        lambda array: array.__setitem__((slice(0, 4), slice(0, 4)), 0),
        lambda array: array.attrs.update(a=1),
        lambda array: array.resize((5, 12)),
        lambda array: array.append(np.ones((2, 8), "i4")),
    ]
    for action in actions:
        n = 0
        while True:
            n += 1
            store = filled(layout)
            faulty = FaultyStore(store, OSError(errno.EIO, "hiccup"), nth=n)
            before = dict(store.items)
            try:
                array = zarr_gpu.open_array(faulty, mode="r+")
                action(array)
            except StoreError as error:
                assert error.errno == errno.EIO
                again = zarr_gpu.open_array(store, mode="r+")
                now = np.asarray(again[:8, :8])
                old = VALUES[: now.shape[0], : now.shape[1]]
                new = (now == -5) | (now == old + 1) | (now == 0)
                assert ((now == old) | new).all()  # old or new values, never others
                assert before.keys() - store.items.keys() <= set(filter(is_chunk, before))
                action(zarr_gpu.open_array(faulty, mode="r+"))
                continue
            break
        assert n > 2, "no call ever failed"


def test_opening_tells_failures_from_absence() -> None:
    store = filled("plain")
    for failure in FAILURES:
        faulty = FaultyStore(store, failure)
        for opened in (zarr_gpu.open, zarr_gpu.open_array, zarr_gpu.open_group, zarr_gpu.load):
            options: dict[str, Any] = {} if opened is zarr_gpu.load else {"mode": "r"}
            with pytest.raises(StoreError) as caught:
                opened(faulty, **options)
            assert not isinstance(caught.value, NodeNotFoundError)
        # Nothing is created over what could not be looked at.
        before = dict(store.items)
        for create in (
            lambda faulty=faulty: zarr_gpu.open_array(faulty, mode="a", shape=3, dtype="i4"),
            lambda faulty=faulty: zarr_gpu.open_group(faulty, mode="a"),
            lambda faulty=faulty: zarr_gpu.create_array(faulty, shape=3, dtype="i4"),
            lambda faulty=faulty: zarr_gpu.create_group(faulty),
        ):
            with pytest.raises(StoreError):
                create()
        assert dict(store.items) == before


def test_failures_of_a_mapping_are_not_absence() -> None:
    class Mapping(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            if is_chunk(key):
                raise self.failure
            return super().__getitem__(key)

    items = dict(filled("plain").items)
    for failure in (OSError("x"), TimeoutError("x"), RuntimeError("x"), LookupError("x")):
        mapping = Mapping(items)
        mapping.failure = failure  # type: ignore[attr-defined]
        with pytest.raises(StoreError):
            zarr_gpu.open_array(mapping, mode="r")[...]
    mapping.failure = KeyError("x")  # type: ignore[attr-defined]
    assert (zarr_gpu.open_array(mapping, mode="r")[...] == 0).all()  # that is what absence is


# ---------------------------------------------------------------------------- lying stores


class LyingStore(MemoryStore):
    """Changes what is read of chunks."""

    def __init__(self, items: Any, lie: Callable[[bytes, int, int], Any]) -> None:
        super().__init__(items)
        self.lie = lie

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        data = super().read(key, offset, nbytes)
        if data is None or not is_chunk(key):
            return data
        answer: Buffer | None = self.lie(bytes(data), offset, nbytes)
        return answer


LIES: dict[str, Callable[[bytes, int, int], Any]] = {
    "a byte short": lambda data, offset, nbytes: data[:-1],
    "the half": lambda data, offset, nbytes: data[: len(data) // 2],
    "nothing": lambda data, offset, nbytes: b"",
    "a byte long": lambda data, offset, nbytes: data + b"x",
    "twice": lambda data, offset, nbytes: data + data,
    "a page": lambda data, offset, nbytes: b"<html>Service unavailable</html>" * 9,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lie", LIES)
def test_short_and_long_answers_are_refused(layout: str, lie: str) -> None:
    items = dict(filled(layout).items)
    array = zarr_gpu.open_array(LyingStore(items, LIES[lie]), mode="r+")
    reads: list[Callable[[], Any]] = [
        lambda: array[...],
        lambda: array[0, 0],
        lambda: array[::2, 5],
    ]
    if array.shards is None or lie not in ("a byte long", "twice"):
        # A shard is written whole, and more bytes between its chunks and its index mean nothing.
        reads.append(lambda: array.__setitem__((0, 0), 5))
    with unchanged(items):
        for read in reads:
            with pytest.raises(DataError) as caught:
                read()
            assert is_chunk(str(caught.value.key))
            assert caught.value.expected is not None or caught.value.actual is not None


@pytest.mark.parametrize("layout", ["sharded", "start", "nested"])
def test_a_server_that_ignores_ranges_is_refused(layout: str) -> None:
    items = dict(filled(layout).items)
    whole: dict[int, bytes] = {}

    def ignore_range(data: bytes, offset: int, nbytes: int) -> bytes:
        key = next(k for k in items if is_chunk(k))
        whole[0] = items[key]
        return items[key]

    array = zarr_gpu.open_array(LyingStore(items, ignore_range), mode="r")
    with pytest.raises(DataError) as caught:
        array[0, 0]
    assert is_chunk(str(caught.value.key))
    assert caught.value.actual == len(whole[0])
    assert caught.value.expected is not None
    assert caught.value.expected < caught.value.actual


@pytest.mark.parametrize("answer", ["text", 5, 1.5, [1, 2], Ellipsis, {"a": 1}, True], ids=repr)
def test_values_that_are_no_bytes(answer: Any) -> None:
    items: dict[str, Any] = dict(filled("plain").items)
    items["c/0/0"] = answer
    array = zarr_gpu.open_array(items, mode="r")
    with pytest.raises(StoreError, match="c/0/0"):
        array[0, 0]
    assert array[7, 7] == 64
    with pytest.raises(StoreError, match=r"zarr\.json"):
        zarr_gpu.open({"zarr.json": answer}, mode="r")


def test_absent_chunks_can_be_an_error() -> None:
    store = filled("plain")
    store.delete_many(["c/1/0"])
    array = zarr_gpu.open_array(store, mode="r", missing="error")
    assert (array[:4] == VALUES[:4]).all()
    with pytest.raises(ChunkNotFoundError, match="c/1/0") as caught:
        array[...]
    assert isinstance(caught.value, KeyError)
    assert caught.value.key == "c/1/0"
    assert (zarr_gpu.open_array(store, mode="r")[4:, :4] == 0).all()
