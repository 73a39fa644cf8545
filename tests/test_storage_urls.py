"""URLs of stores and their options."""

from __future__ import annotations

from typing import Any

import pytest

from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.storage.urls import (
    flag,
    natural,
    options_of,
    seconds,
    split_fragment,
    take_query,
)

KNOWN = {"name": str, "count": natural, "wait": seconds, "on": flag}


def test_the_path_behind_a_hash() -> None:
    assert split_fragment("x://h/d") == ("x://h/d", "")
    assert split_fragment("x://h/d#") == ("x://h/d", "")
    assert split_fragment("x://h/d?q=1#a/b/") == ("x://h/d?q=1", "a/b")
    assert split_fragment("x://h#%C3%A9/a%20b") == ("x://h", "é/a b")
    for bad in ("x#..", "x#a//b", "x#%2e%2e", "x#a%5Cb"):
        with pytest.raises(InvalidKeyError):
            split_fragment(bad)


def test_the_query_is_shared_out() -> None:
    assert take_query("x://h/d", KNOWN) == ("x://h/d", {})
    assert take_query("x://h/d?name=a%20b&count=2", KNOWN) == (
        "x://h/d",
        {"name": "a b", "count": "2"},
    )
    assert take_query("x://h?ssl=%2Fa&name=&x", KNOWN) == ("x://h?ssl=%2Fa&x", {"name": ""})


def test_of_several_the_last_counts() -> None:
    options = options_of("a store", KNOWN, {"name": "a", "count": "3"}, None, {"name": "b"})
    assert options == {"name": "b", "count": 3}
    assert options_of("a store", KNOWN) == {}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("on", True, True),
        ("on", "yes", True),
        ("on", "0", False),
        ("on", "False", False),
        ("wait", "1.5", 1.5),
        ("wait", 3, 3.0),
        ("count", "7", 7),
    ],
)
def test_values(name: str, value: Any, expected: Any) -> None:
    assert options_of("a store", KNOWN, {name: value}) == {name: expected}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on", "maybe"),
        ("on", 2),
        ("wait", 0),
        ("wait", "-1"),
        ("wait", "nan"),
        ("wait", "inf"),
        ("wait", None),
        ("count", 0),
        ("count", 1.5),
        ("count", "many"),
        ("other", 1),
    ],
)
def test_values_that_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidKeyError, match=f"'{name}'"):
        options_of("a store", KNOWN, {name: value})
