"""Node paths: the canonical form, and what is refused."""

from __future__ import annotations

import pytest

from zarr_gpu.errors import InvalidKeyError
from zarr_gpu.metadata import normalize_path
from zarr_gpu.metadata.paths import check_path


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        (None, ""),
        ("", ""),
        ("/", ""),
        ("//", ""),
        ("a", "a"),
        ("/a/", "a"),
        ("a//b", "a/b"),
        ("a\\b", "a/b"),
        ("\\a\\", "a"),
        ("a/b/c", "a/b/c"),
        ("...", "..."),
        ("a b", "a b"),
        ("é", "é"),
        ("c/0", "c/0"),
        ("__x", "__x"),
        (".zarray", ".zarray"),
    ],
)
def test_canonical_form(path, canonical):
    assert normalize_path(path) == canonical
    assert normalize_path(canonical) == canonical


@pytest.mark.parametrize(
    "path",
    [".", "..", "a/..", "../a", "a/./b", "a\\..\\b", "/..", "a\0b", "\ud800", 3, b"a", ["a"]],
)
def test_refused_always(path):
    with pytest.raises(InvalidKeyError, match="path"):
        normalize_path(path)


@pytest.mark.parametrize(
    "path", ["zarr.json", "a/zarr.json/b", ".zarray", "a/.zgroup", "...", "a/...."]
)
@pytest.mark.parametrize("zarr_format", [None, 2, 3])
def test_refused_for_new_nodes(path, zarr_format):
    with pytest.raises(InvalidKeyError):
        normalize_path(path, creating=True, zarr_format=zarr_format)


def test_underscores_are_reserved_in_v3():
    assert normalize_path("a/__b", creating=True, zarr_format=2) == "a/__b"
    for zarr_format in (None, 3):
        with pytest.raises(InvalidKeyError, match="__"):
            normalize_path("a/__b", creating=True, zarr_format=zarr_format)
    assert normalize_path("_a/b__", creating=True) == "_a/b__"


def test_paths_in_documents_must_be_canonical():
    assert check_path("a/b") == "a/b"
    for path in ("/a", "a/", "a//b", "a\\b", "a/../b"):
        with pytest.raises(InvalidKeyError):
            check_path(path)
