"""Which strings are keys; the quick test of many agrees with the full test of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_suite import BAD_KEYS

from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.storage import keys
from zarr_gpu.storage.keys import check_key, check_keys, check_prefix, parent_prefixes

GOOD_KEYS = [
    "zarr.json",
    ".zarray",
    "a/.zattrs",
    "a/b/c/0/1/2",
    "0.0.0",
    "a..b",
    "...",
    "a/.../b",
    "..a",
    "a..",
    "é",
    "a b",
    "a:b",
    "a/c:/d",
    "100%",
    "%41",
    "a\nb",
    "-",
    "_",
    "x" * 1024,
    "é" * 512,
]


@pytest.mark.parametrize("key", GOOD_KEYS)
def test_good_keys(key: str) -> None:
    assert check_key(key) is key
    check_keys([key])
    check_keys(["a", key, "b"])


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: ascii(key)[:20])
def test_bad_keys(key: str) -> None:
    for call in (
        lambda: check_key(key),
        lambda: check_keys([key]),
        lambda: check_keys([key, "b"]),
        lambda: check_keys(["a", key]),
        lambda: check_keys(["a", key, "b"]),
        lambda: check_keys(["ü", key]),
    ):
        with pytest.raises(InvalidKeyError):
            call()


@given(st.text(alphabet="aZ0-_./\\:%2e\n\0é\udcff", max_size=12))
def test_all_ways_agree(key: str) -> None:
    fault = keys._fault(key)
    if keys._PLAIN.fullmatch(key):
        assert fault is None
    for call in (lambda: check_key(key), lambda: check_keys(["a", key, "b/c"])):
        if fault is None:
            call()
        else:
            with pytest.raises(InvalidKeyError):
                call()


@given(st.text(alphabet="ab./\\:", max_size=10))
def test_no_accepted_key_leaves_a_folder(key: str) -> None:
    import posixpath

    try:
        check_key(key)
    except InvalidKeyError:
        return
    path = posixpath.normpath(posixpath.join("/root", key))
    assert path == f"/root/{key}"


def test_no_keys() -> None:
    check_keys([])


def test_messages_name_the_key_and_stay_short() -> None:
    with pytest.raises(InvalidKeyError, match=r"'a/\.\./b' has a '\.' or '\.\.' segment") as caught:
        check_key("a/../b")
    assert caught.value.key == "a/../b"
    with pytest.raises(InvalidKeyError) as caught:
        check_key("x" * 100_000)
    assert len(str(caught.value)) < 400


def test_prefixes() -> None:
    assert check_prefix("") == ""
    assert check_prefix("a/b") == "a/b"
    assert check_prefix("a/b/") == "a/b"
    for prefix in ("/", "//", "a//", "/a", ".."):
        with pytest.raises(InvalidKeyError):
            check_prefix(prefix)


def test_parents() -> None:
    assert parent_prefixes("a/b/c") == ["a/b", "a"]
    assert parent_prefixes("a") == []
