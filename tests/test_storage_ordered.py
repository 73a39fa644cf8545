"""Listing by pages of an ordered index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarr_gpu.storage.ordered import Page, bounds, children_by_page, walk_by_page


def index(keys: list[str], asked: list[int] | None = None) -> Page:
    ordered = sorted(set(keys))

    def page(lo: str, hi: str | None, n: int) -> list[str]:
        if asked is not None:
            asked.append(n)
        return [key for key in ordered if lo <= key and (hi is None or key < hi)][:n]

    return page


segments = st.text(st.sampled_from("ab-./0é~\1🙂"), min_size=1, max_size=3).filter(
    lambda text: "/" not in text
)
keys = st.lists(st.lists(segments, min_size=1, max_size=4).map("/".join), max_size=30)


@given(keys, st.sampled_from(["", "a", "a/b", "é", "a0", "none"]), st.integers(1, 5))
def test_against_the_plain_way(keys: list[str], prefix: str, n: int) -> None:
    start = f"{prefix}/" if prefix else ""
    below = sorted(key for key in set(keys) if key.startswith(start))
    assert list(walk_by_page(index(keys), prefix, n)) == below
    assert children_by_page(index(keys), prefix, n) == {
        key[len(start) :].split("/")[0] for key in below
    }


def test_bounds_are_whole_segments() -> None:
    lo, hi = bounds("a")
    assert hi is not None
    for key in ("a/", "a/b", "a/\U0010ffff", "a//"):
        assert lo <= key < hi
    for key in ("a", "a.", "a0", "ab", "b"):
        assert not lo <= key < hi


@pytest.mark.parametrize("n", [10, 100])
def test_levels_are_skipped(n: int) -> None:
    keys = [f"g/{name}/c/{i}" for name in "abc" for i in range(1000)]
    asked: list[int] = []
    assert children_by_page(index(keys, asked), "g", n) == {"a", "b", "c"}
    assert len(asked) == 4
