"""Chunk keys."""

from __future__ import annotations

import itertools
import pickle
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarr_gpu.metadata import KeyEncoding

ENCODINGS = [KeyEncoding(k, s) for k, s in itertools.product(("default", "v2"), ("/", "."))]

rows = st.integers(0, 4).flatmap(
    lambda ndim: st.lists(
        st.tuples(*[st.integers(0, 2**63 - 1) | st.integers(0, 20)] * ndim), max_size=20
    ).map(lambda r: np.array(r, np.int64).reshape(len(r), ndim))
)


@pytest.mark.parametrize(
    ("kind", "separator", "coords", "key"),
    [
        ("default", "/", (1, 23, 45), "c/1/23/45"), ("default", ".", (1, 23), "c.1.23"),
        ("default", "/", (), "c"), ("default", ".", (), "c"), ("v2", ".", (1, 23), "1.23"),
        ("v2", "/", (1, 23), "1/23"), ("v2", ".", (), "0"), ("v2", "/", (7,), "7"),
    ],
)  # fmt: skip
def test_examples_of_the_specification(kind, separator, coords, key):
    encoding = KeyEncoding(kind, separator)
    assert encoding.key(coords) == key
    assert encoding.parse(key, len(coords)) == coords


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@given(coords=rows)
def test_bulk_equals_single(encoding, coords):
    one_by_one = [encoding.key(tuple(row)) for row in coords.tolist()]
    assert encoding.keys(coords) == one_by_one
    assert encoding.keys(coords, "a/b/") == ["a/b/" + k for k in one_by_one]
    for key, row in zip(one_by_one, coords.tolist(), strict=True):
        assert encoding.parse(key, coords.shape[1]) == tuple(row)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize(
    "key",
    [
        "",
        "c",
        "c/",
        "c//1",
        "/c/1",
        "c/01",
        "c/-1",
        "c/+1",
        "c/1 ",
        "c/\uff11",
        "c/1_0",
        "1.",
        ".1",
        "zarr.json",
        "01",
        "-1",
        "a",
        "1.a",
        "1..2",
        "c/1/zarr.json",
        "c/9" * 3,
        "1" * 40,
        ".zarray",
    ],
)
def test_other_keys_are_no_chunks(encoding, key):
    found = encoding.parse(key, 2)
    assert found is None or encoding.key(found) == key


def test_parse_without_ndim():
    assert KeyEncoding("default", "/").parse("c") == ()
    assert KeyEncoding("default", "/").parse("c/1/2") == (1, 2)
    assert KeyEncoding("v2", ".").parse("0") == (0,)
    assert KeyEncoding("v2", ".").parse("0.1") == (0, 1)
    assert KeyEncoding("v2", ".").parse("0.1", 1) is None
    assert KeyEncoding("v2", ".").parse("1", 0) is None
    assert KeyEncoding("default", ".").parse("c/1") is None


def test_many_keys_are_made_faster_together_than_one_by_one():
    coords = np.stack(np.unravel_index(np.arange(20_480), (32, 16, 40)), axis=1).astype(np.int64)
    encoding = KeyEncoding("default", "/")

    def one_by_one():
        return [encoding.key(tuple(row)) for row in coords.tolist()]

    assert 2 * best_of_five(lambda: encoding.keys(coords)) < best_of_five(one_by_one)


def best_of_five(action):
    def timed():
        start = time.process_time()
        action()
        return time.process_time() - start

    return min(timed() for _ in range(5))


def test_is_a_value():
    encoding = KeyEncoding("default", "/")
    assert pickle.loads(pickle.dumps(encoding)) == encoding
    assert encoding.to_dict() == {"name": "default", "configuration": {"separator": "/"}}
