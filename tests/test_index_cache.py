"""Parsed shard indexes that are kept as long as a store can tell that the shard is the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarr_gpu
from zarr_gpu.shards import IndexCache
from zarr_gpu.storage import LocalStore


def test_indexes_of_settled_shards_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched once, until the file is another one; a file just written is not trusted."""
    array = zarr_gpu.create_array(tmp_path, shape=8, shards=8, chunks=2, dtype="u1")
    array[:] = range(8)
    array = zarr_gpu.open_array(tmp_path, mode="r")
    fetched: list[int] = []
    fetch = LocalStore.fetch

    def counted(self: LocalStore, request: Any, memory: Any) -> Any:
        fetched.append(len(request))
        return fetch(self, request, memory)

    monkeypatch.setattr(LocalStore, "fetch", counted)
    with zarr_gpu.config.set({"cpu.compiled": False}):
        for _ in range(2):
            assert array[3] == 3
        assert fetched == [1, 1, 1, 1]
        shard = tmp_path / "c" / "0"
        os.utime(shard, (1, 1))
        for _ in range(3):
            fetched.clear()
            assert array[3] == 3
        assert fetched == [1]  # the chunk alone
        zarr_gpu.open_array(tmp_path, mode="r+")[:] = [9, 9, 9, 7, 9, 9, 9, 9]
        assert array[3] == 7
        os.utime(shard, (1, 1))  # as old as the other one was, but another file
        assert array[3] == 7


def test_a_cache_that_is_full_starts_anew() -> None:
    parsed = np.zeros((4, 2), np.int64)  # 64 bytes
    cache = IndexCache(150)
    cache.put("a", 1, parsed)
    cache.put("b", 1, parsed)
    assert cache.get("a", 1) is parsed
    assert cache.get("a", 2) is None
    cache.put("c", 1, parsed)
    assert cache.get("a", 1) is None
    assert cache.get("c", 1) is parsed
    cache.put("d", 1, np.zeros((400, 2), np.int64))
    assert cache.get("d", 1) is None


def test_nothing_of_a_shard_is_nothing() -> None:
    array = zarr_gpu.create_array({}, shape=(8, 8), shards=(8, 8), chunks=(2, 2), dtype="u1")
    assert array[0:0, 3].shape == (0,)
    assert array.explain((slice(0, 0), 3)).chunks == 0
