"""Parts of chunks decoded by lanes: what is not needed is left, and results are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zarr_gpu
from zarr_gpu import config
from zarr_gpu.codecs.blosc import BloscCodec
from zarr_gpu.codecs.zstd import ZstdCodec
from zarr_gpu.errors import ChunkDecodeError

SHAPE = (64, 64, 64)
VALUES = np.random.default_rng(5).integers(0, 700, SHAPE).astype("u2")
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
BLOSC = {
    "name": "blosc",
    "configuration": {"typesize": 2, "cname": "lz4", "clevel": 5, "shuffle": "shuffle",
                      "blocksize": 1 << 15},
}  # fmt: skip
TURNED = [{"name": "transpose", "configuration": {"order": [2, 0, 1]}}]


@pytest.fixture(autouse=True, scope="module")
def _by_lanes() -> Iterator[None]:
    with config.set({"cpu.compiled": False}):
        yield


class Parts:
    """How each call of ``decode_part`` ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[bool] = []
        for codec in (BloscCodec, ZstdCodec):
            monkeypatch.setattr(codec, "decode_part", self._spied(codec.decode_part))

    def _spied(self, decode_part: Any) -> Any:
        def spied(codec: Any, data: Any, lo: int, hi: int, out: Any) -> bool:
            out[...] = 255
            self.done.append(decode_part(codec, data, lo, hi, out))
            return self.done[-1]

        return spied


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


def array_of(codec: Any, **arguments: Any) -> zarr_gpu.Array:
    return zarr_gpu.create_array({}, data=VALUES, chunks=SHAPE, compressors=codec, **arguments)


@pytest.mark.parametrize("codec", [ZSTD, BLOSC])
@pytest.mark.parametrize(
    "filters", [None, [{"name": "transpose", "configuration": {"order": [2, 0, 1]}}]]
)
@given(data=st.data())
def test_parts_equal(codec: Any, filters: Any, data: st.DataObject) -> None:
    array = _ARRAYS.setdefault(repr((codec, filters)), array_of(codec, filters=filters))
    selection = []
    for n in SHAPE:
        lo, hi = sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
        step = data.draw(st.sampled_from([1, 2, -1, -3]))
        part = slice(lo, hi + 1, step) if step > 0 else slice(hi, lo - 1 if lo else None, step)
        selection.append(data.draw(st.sampled_from([part, part, lo])))
    with pytest.MonkeyPatch.context() as patch:
        Parts(patch)
        assert np.array_equal(array[tuple(selection)], VALUES[tuple(selection)])


_ARRAYS: dict[str, zarr_gpu.Array] = {}


def test_of_zstd_the_blocks_behind_are_left(parts: Parts) -> None:
    array = array_of(ZSTD)
    assert np.array_equal(array[3:40], VALUES[3:40])
    assert np.array_equal(array[60], VALUES[60])
    assert np.array_equal(array[:, 3], VALUES[:, 3])
    assert parts.done == [True, False]  # of the last, every block is needed


def test_of_blosc_half_of_the_blocks_must_not_be_needed(parts: Parts) -> None:
    array = array_of(BLOSC)
    assert np.array_equal(array[3:30], VALUES[3:30])
    assert np.array_equal(array[3:40], VALUES[3:40])
    assert np.array_equal(array[60], VALUES[60])
    assert parts.done == [True, False, True]


@pytest.mark.parametrize("checksum", [True, False])
def test_damage_behind_is_seen_where_there_is_a_checksum(checksum: bool, tmp_path: Path) -> None:
    codec = {"name": "zstd", "configuration": {"level": 1, "checksum": checksum}}
    array = zarr_gpu.create_array(tmp_path, data=VALUES, chunks=SHAPE, compressors=codec)
    path = tmp_path / "c" / "0" / "0" / "0"
    frame = bytearray(path.read_bytes())
    frame[-3000:-1000] = bytes(2000)
    path.write_bytes(frame)
    if checksum:
        with pytest.raises(ChunkDecodeError, match="zstd"):
            array[:8]
    else:
        assert np.array_equal(array[:8], VALUES[:8])
    with pytest.raises(ChunkDecodeError, match="zstd"):
        array[...]


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b + b])
@pytest.mark.parametrize("codec", [ZSTD, BLOSC])
def test_frames_that_do_not_end_where_they_should_are_refused(
    codec: Any, change: Any, tmp_path: Path
) -> None:
    array = zarr_gpu.create_array(tmp_path, data=VALUES, chunks=SHAPE, compressors=codec)
    path = tmp_path / "c" / "0" / "0" / "0"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ChunkDecodeError, match="c/0/0/0"):
        array[:8]
