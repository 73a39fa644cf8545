"""Blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarr_gpu.errors import InvalidKeyError, StoreError
from zarr_gpu.storage.batches import blocks

items = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.binary(max_size=6)), max_size=20)


@given(items, st.integers(1, 10), st.integers(1, 5))
def test_nothing_is_lost_and_blocks_are_bounded(
    items: list[tuple[str, bytes]], nbytes: int, count: int
) -> None:
    found = list(blocks(items, nbytes=nbytes, count=count))
    assert dict(item for block in found for item in block) == dict(items)
    for block in found:
        keys = [key for key, _ in block]
        assert len(keys) == len(set(keys))
        assert 0 < len(block) <= count
        assert len(block) == 1 or sum(len(value) for _, value in block) <= nbytes


def test_items_are_drawn_as_blocks_are() -> None:
    drawn = []

    def make() -> Iterator[tuple[str, bytes]]:
        for i in range(10):
            drawn.append(i)
            yield f"{i}", b"12345"

    made = blocks(make(), nbytes=10, count=100)
    assert drawn == []
    assert [key for key, _ in next(made)] == ["0", "1"]
    assert drawn == [0, 1, 2]


def test_values_become_bytes() -> None:
    buffer = bytearray(b"before")
    made = list(blocks([("a", buffer), ("b", np.arange(2, dtype="<i2"))], nbytes=100, count=10))
    buffer[:] = b"after!"
    assert made == [[("a", b"before"), ("b", b"\0\0\1\0")]]


def test_what_is_refused() -> None:
    with pytest.raises(InvalidKeyError):
        list(blocks([("../a", b"")], nbytes=1, count=1))
    with pytest.raises(StoreError, match="must be bytes") as caught:
        list(blocks([("a", "text")], nbytes=1, count=1))  # type: ignore[list-item]
    assert caught.value.key == "a"

    def check(key: str, nbytes: int) -> None:
        if nbytes > 3:
            raise StoreError("too large", key=key)

    with pytest.raises(StoreError, match="too large") as caught:
        list(blocks([("a", b"123"), ("b", b"1234")], nbytes=100, count=10, check=check))
    assert caught.value.key == "b"
