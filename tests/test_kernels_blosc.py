"""Blosc frames, LZ4 blocks and BloscLZ streams through the kernels: many, old ones, damaged ones.

Everything runs compiled for the CPU with checked indices, in batches whose rows have untouched
bytes around them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import kernel_suite
import numcodecs
import numcodecs.blosc
import numpy as np
import pytest
from codec_suite import mutants
from kernel_suite import decode_frames, equal, payload, run_njit

pytest.importorskip("numba", reason="Numba is not installed: pip install 'zarr-gpu[sim]'")

FRAMES = 2000
MUTANTS = 2000


def test_random_frames() -> None:
    """Compressor x shuffle x element size x size x level x block size."""
    rng = np.random.default_rng(1)
    small, large = FRAMES * 9 // 10, FRAMES // 10
    kernel_suite.check_frames(run_njit, rng, batches=small // 100, each=100, largest=12_000)
    kernel_suite.check_frames(run_njit, rng, batches=large // 20, each=20, largest=200_000)


@pytest.mark.parametrize("typesize", [1, 2, 4, 8])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
@pytest.mark.parametrize("cname", ["blosclz", "lz4", "zlib", "zstd"])
def test_blocks_with_a_rest(cname: str, shuffle: int, typesize: int) -> None:
    """Several split blocks and a shorter one at the end, as large arrays have them."""
    rng = np.random.default_rng(2)
    data = np.cumsum(rng.integers(-3, 4, 80_001)).astype("i4").view(np.uint8)[:-1]
    frame = numcodecs.blosc.compress(data, cname.encode(), 5, shuffle, 65_536, typesize)
    assert int.from_bytes(frame[8:12], "little") < len(data)
    rows, status = decode_frames(run_njit, [frame, frame], [len(data)] * 2, 8)
    assert not status.any()
    for row in rows.rows():
        equal(row, data)


def test_frames_of_old_libraries(shared_data: Path) -> None:
    folder = shared_data / "c-blosc"
    listed = json.loads((shared_data / "c-blosc.frames.json").read_text())["frames"]
    valid = [entry for entry in listed if entry["status"] == "valid"]
    assert len(valid) >= 13
    for entry in valid:
        frame = (folder / entry["path"]).read_bytes()
        rows, status = decode_frames(run_njit, [frame], [entry["out_len"]], 4)
        assert not status.any(), entry["path"]
        (row,) = rows.rows()
        assert sha256(row.tobytes()).hexdigest() == entry["out_sha256"]


def stored_frames(folder: Path) -> Iterator[tuple[Path, bytes, int]]:
    """Files that look like one frame of c-blosc 1: path, bytes, decoded size."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        size = path.stat().st_size
        if not 16 <= size < 1 << 24:
            continue
        with path.open("rb") as file:
            head = file.read(16)
            nbytes, cbytes = (int.from_bytes(head[i : i + 4], "little") for i in (4, 12))
            if head[0] == 2 and cbytes == size and nbytes < 1 << 24:
                yield path, head + file.read(), nbytes


def test_frames_in_stores_of_others(shared_data: Path) -> None:
    """Every frame in the shared data that c-blosc decodes."""
    found = list(stored_frames(shared_data))
    assert len(found) > 1000
    compared = 0
    for i in range(0, len(found), 200):
        part = found[i : i + 200]
        rows, status = decode_frames(run_njit, [f for _, f, _ in part], [n for *_, n in part], 4)
        for (path, frame, nbytes), row, bad in zip(part, rows.rows(), status, strict=True):
            try:
                wanted = np.frombuffer(numcodecs.blosc.decompress(frame), np.uint8)
            except RuntimeError:  # damaged on purpose
                assert bad or not nbytes, path
                continue
            assert not bad, path
            equal(row, wanted, str(path))
            compared += 1
    assert compared > 1000


def test_damaged_frames() -> None:
    """A status, or what c-blosc makes of it; other rows of the batch are right."""
    rng = np.random.default_rng(3)
    batches, refused = 20, 0
    for batch in range(batches):
        originals = [kernel_suite.random_frame(rng, 3000) for _ in range(10)]
        damaged = [
            (mutant.tobytes(), len(data))
            for k, (frame, data) in enumerate(originals)
            for mutant in mutants(
                np.frombuffer(frame, np.uint8), MUTANTS // batches // 10, seed=100 * batch + k
            )
        ]
        good_frame, good_data = originals[0]
        group = [(good_frame, len(good_data)), *damaged, (good_frame, len(good_data))]
        frames, sizes = zip(*group, strict=True)
        rows, status = decode_frames(run_njit, list(frames), list(sizes), 3)
        found = list(rows.rows())
        assert status[0] == status[-1] == 0
        for row in (found[0], found[-1]):
            equal(row, good_data)
        for (frame, size), row, bad in zip(damaged, found[1:-1], status[1:-1], strict=True):
            if bad:
                refused += 1
                continue
            if not size:
                continue  # nothing to compare, and numcodecs takes nothing for an error
            wanted = np.zeros(size, np.uint8)
            numcodecs.blosc.decompress(frame, wanted)
            equal(row, wanted, frame[:16].hex())
    assert refused > MUTANTS // 4


@pytest.mark.parametrize("name", ["lz4_decode", "blosclz_decode"])
def test_damaged_streams(name: str) -> None:
    """Refused exactly where the library refuses, equal where it does not."""
    rng = np.random.default_rng(4)
    streams: list[tuple[bytes, int]] = []
    while len(streams) < 100:
        nbytes = int(rng.integers(20, 3000))
        if name == "blosclz_decode":
            streams += kernel_suite.blosclz_streams(rng, nbytes)
        else:
            data = payload(rng, nbytes, int(rng.choice([0, 2, 3])))
            streams.append((kernel_suite.lz4_block(data), nbytes))
    damaged = [
        (mutant.tobytes(), nbytes)
        for k, (stream, nbytes) in enumerate(streams[:100])
        for mutant in mutants(np.frombuffer(stream, np.uint8), MUTANTS // 100, seed=k)
        if len(mutant)
    ]
    rows, status = kernel_suite.decode_streams(run_njit, name, damaged)
    blosclz = name == "blosclz_decode"
    reference = kernel_suite.blosclz_reference if blosclz else kernel_suite.lz4_reference
    accepted = 0
    for (stream, nbytes), row, bad in zip(damaged, rows.rows(), status, strict=True):
        if blosclz and len(stream) == nbytes:
            continue  # in a frame such a stream counts as raw
        wanted = reference(stream, nbytes)
        if bad == 0:
            assert wanted is not None
            equal(row, wanted, stream[:16].hex())
            accepted += 1
    assert 10 < accepted < len(damaged) - 100
