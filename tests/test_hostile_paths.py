"""Keys and node paths that try to leave the store: refused by the store and by the group."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import items_of, refusal, tree_hash, v2_document, v3_document

import zarr_gpu
from zarr_gpu.errors import InvalidKeyError, MemberNotFoundError, StoreError, ZarrError
from zarr_gpu.extents import ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.local import LocalStore
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.wrappers import ReadOnlyStore
from zarr_gpu.storage.zip import ZipStore

ESCAPES = [
    "..", "../x", "../../etc/passwd", "a/../../b", "a/..", "a/../b", ".", "./a", "a/./b",
    "/etc/passwd", "/", "//", "a//b", "a/", "", "a\\b", "..\\x", "\\\\server\\share", "C:/x",
    "c:\\x", "C:", "a\0b", "\0", "%2e%2e/x", "a/%2E%2e/b", "%2e%2e%2fx", "..%2fx",
    "\ud800", "x" * 5000, "a/" * 600 + "b",
]  # fmt: skip


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A store in a folder, beside a secret that it must not reach."""
    outside = tmp_path / "x"
    (tmp_path / "secret.txt").write_bytes(b"secret")
    for place in (outside, tmp_path / "b"):
        place.mkdir()
        (place / "zarr.json").write_text(json.dumps(v3_document(fill_value=13)))
    root = tmp_path / "store"
    zarr_gpu.create_group(root).create_array("a", shape=3, dtype="u1")
    return root


def stores_of(root: Path) -> Iterator[Store]:
    yield LocalStore(root)
    yield MemoryStore({"a/x": b"1", "../x": b"secret", "/etc/passwd": b"secret", "a//b": b"secret"})
    archive = root.parent / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("a/x", "../x", "/etc/passwd", "a/../../b"):
            file.writestr(name, b"secret")
    yield ZipStore(archive, mode="r")
    yield ReadOnlyStore(LocalStore(root))


@pytest.mark.parametrize("key", [*ESCAPES, "../secret.txt"])
def test_keys_that_leave_are_refused_by_every_store(inside: Path, key: str) -> None:
    stores = list(stores_of(inside))  # makes an archive beside the store
    before = tree_hash(inside.parent)
    for store in stores:
        calls: list[Callable[[], Any]] = [
            lambda store=store: store.get(key),
            lambda store=store: store.exists(key),
            lambda store=store: store.nbytes(key),
            lambda store=store: store.fetch(ByteRequest.whole([key]), HostMemory()),
            lambda store=store: store.fetch(ByteRequest.whole(["a/x", key]), HostMemory()),
        ]
        if key not in ("", "a/"):  # as prefixes these are fine
            calls += [
                lambda store=store: list(store.list_prefix(key)),
                lambda store=store: store.list_dir(key),
            ]
        if not store.read_only:
            calls += [
                lambda store=store: store.put(key, b"overwritten"),
                lambda store=store: store.put_many([(key, b"overwritten")]),
                lambda store=store: store.delete_many([key]),
            ]
            if key not in ("", "a/"):
                calls += [
                    lambda store=store: store.delete_prefix(key),
                    lambda store=store: store.move("a", key),
                    lambda store=store: store.move(key, "b"),
                ]
        for call in calls:
            with pytest.raises(InvalidKeyError) as caught:
                call()
            assert isinstance(caught.value, ValueError)
            assert len(str(caught.value)) < 1000
        store.close()
    assert tree_hash(inside.parent) == before


LEAVING = [
    "..",
    "../x",
    "a/..",
    "a/../../b",
    "./a",
    ".",
    "..\\x",
    "a\0b",
    "\ud800",
    "b/./c",
    "x/../a",
]


@pytest.mark.parametrize("path", LEAVING)
def test_node_paths_that_leave_are_refused(inside: Path, path: str) -> None:
    before = tree_hash(inside.parent)
    group = zarr_gpu.open_group(inside, mode="r+")
    calls: list[Callable[[], Any]] = [
        lambda: zarr_gpu.open(inside, path=path, mode="r"),
        lambda: zarr_gpu.open_array(inside, path=path, mode="r"),
        lambda: zarr_gpu.open_array(inside, path=path, mode="w", shape=3, dtype="u1"),
        lambda: zarr_gpu.open_group(inside, path=path, mode="r"),
        lambda: zarr_gpu.open_group(inside, path=path, mode="w"),
        lambda: zarr_gpu.create_array(inside, name=path, shape=3, dtype="u1"),
        lambda: zarr_gpu.create_array(inside, name=path, shape=3, dtype="u1", overwrite=True),
        lambda: zarr_gpu.create_group(inside, path=path),
        lambda: zarr_gpu.create_group(inside, path=path, overwrite=True),
        lambda: zarr_gpu.load(inside, path=path),
        lambda: zarr_gpu.save(inside, np.zeros(3), path=path),
        lambda: zarr_gpu.consolidate_metadata(inside, path=path),
        lambda: group[path],
        lambda: group.get(path),
        lambda: group.get_array(path),
        lambda: group.get_group(path),
        lambda: group.create_array(path, shape=3, dtype="u1"),
        lambda: group.create_group(path),
        lambda: group.require_group(path),
        lambda: group.require_array(path, shape=(3,), dtype="u1"),
        lambda: group.__setitem__(path, np.zeros(3)),
        lambda: group.move("a", path),
        lambda: dict(zarr_gpu.create_hierarchy(store=inside, nodes={path: group.metadata})),
    ]
    for number, call in enumerate(calls):
        refusal(call, InvalidKeyError, of=f"call {number}")
    for remove in (lambda: group.__delitem__(path), lambda: group.move(path, "moved")):
        refusal(remove, InvalidKeyError, MemberNotFoundError)
    assert path not in group
    assert tree_hash(inside.parent) == before


@pytest.mark.parametrize("path", [*LEAVING, "/etc/x", "/a", "a//b", "a/", "/"])
def test_consolidated_paths_that_leave_are_refused(inside: Path, path: str) -> None:
    document = {
        "zarr_format": 3,
        "node_type": "group",
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {path: v3_document(), "good": v3_document()},
        },
    }
    (inside / "zarr.json").write_text(json.dumps(document))
    before = tree_hash(inside.parent)
    with pytest.raises(ZarrError) as caught:
        zarr_gpu.open_group(inside, mode="r", use_consolidated=True)
    assert isinstance(caught.value, ValueError)
    assert caught.value.key == "zarr.json"
    with pytest.raises(ZarrError):
        zarr_gpu.open_group(inside, mode="r")
    document = {
        "zarr_consolidated_format": 1,
        "metadata": {
            ".zgroup": {"zarr_format": 2},
            f"{path}/.zarray": v2_document(),
            "good/.zarray": v2_document(),
        },
    }
    items = {".zgroup": b'{"zarr_format": 2}', ".zmetadata": json.dumps(document).encode()}
    with pytest.raises(ZarrError) as caught:
        zarr_gpu.open_group(items, mode="r", use_consolidated=True)
    assert isinstance(caught.value, ValueError)
    assert caught.value.key == ".zmetadata"
    assert tree_hash(inside.parent) == before


def test_names_in_listings_that_are_no_keys_are_passed_over() -> None:
    items = items_of(v3_document(), "good")
    items["zarr.json"] = b'{"zarr_format": 3, "node_type": "group"}'
    for name in ("..", ".", "a\\b", "a\0b", "C:", "\ud800"):
        items[f"{name}/zarr.json"] = items["good/zarr.json"]
    group = zarr_gpu.open_group(items, mode="r")
    assert list(group) == ["good"]
    assert [name for name, _ in group.members(max_depth=None)] == ["good"]
    assert "good" in str(group.tree())


@pytest.mark.skipif(sys.platform == "win32", reason="platform: symbolic links need a privilege")
def test_links_out_of_the_root_are_refused_where_asked(inside: Path) -> None:
    (inside / "link").symlink_to(inside.parent / "x")
    (inside / "a" / "c").mkdir(exist_ok=True)
    (inside / "a" / "c" / "0").symlink_to(inside.parent / "secret.txt")
    before = tree_hash(inside.parent)
    store = LocalStore(inside, follow_symlinks=False)
    with pytest.raises((StoreError, InvalidKeyError)):
        zarr_gpu.open(store, path="link", mode="r")
    with pytest.raises((StoreError, InvalidKeyError)):
        zarr_gpu.open_array(store, path="a", mode="r")[...]
    for write in (
        lambda: store.put("link/y", b"1"),
        lambda: store.delete_prefix("link"),
        lambda: store.delete_many(["link/zarr.json"]),
    ):
        refusal(write, StoreError, InvalidKeyError, of="a write through a link")
    assert (inside.parent / "x" / "zarr.json").is_file()
    assert tree_hash(inside.parent) == before
