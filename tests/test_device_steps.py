"""Batched steps of the codecs against the CPU codecs, on the stand-in device."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="platform: Numba is not installed")

import numcodecs
import numcodecs.blosc
from codec_suite import forget_size, mutants
from step_suite import (
    FULL,
    as_batch,
    codec,
    cpu_decode,
    decode,
    decode_sizes,
    encode,
    examples,
    payload,
    program,
    rows_of,
)

from zarr_gpu.codecs.base import Codec
from zarr_gpu.codecs.device_steps import device_step, make_steps, verify_row
from zarr_gpu.codecs.nvcomp_host import HostNvComp
from zarr_gpu.codecs.nvcomp_snappy import snappy_compress
from zarr_gpu.codecs.registry import get_codec_class
from zarr_gpu.codecs.runtime import DeviceBatch, Verdicts
from zarr_gpu.devices.sim_runtime import SimRuntime
from zarr_gpu.errors import CodecError, MetadataError

CNAMES = ("lz4", "lz4hc", "zstd", "zlib", "blosclz")
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")

COMPRESSORS: dict[str, list[Codec]] = {
    **{
        f"blosc-{cname}-{shuffle}": [
            codec("blosc", typesize=4, cname=cname, shuffle=shuffle, clevel=5, blocksize=4096)
        ]
        for cname, shuffle in product(CNAMES, SHUFFLES)
    },
    "blosc-stored": [codec("blosc", typesize=4, cname="lz4", clevel=0)],
    "lz4": [codec("numcodecs.lz4")],
    "zstd": [codec("zstd", level=3)],
    "zstd-checksum": [codec("zstd", level=3, checksum=True)],
    "gzip": [codec("gzip", level=5)],
    "zlib": [codec("numcodecs.zlib")],
    "bz2": [codec("numcodecs.bz2")],
    "lzma": [codec("numcodecs.lzma")],
    "crc32c": [codec("crc32c")],
    "crc32c-start": [codec("numcodecs.crc32c", location="start")],
    "crc32": [codec("numcodecs.crc32")],
    "adler32": [codec("numcodecs.adler32")],
    "fletcher32": [codec("numcodecs.fletcher32")],
    "shuffle": [codec("numcodecs.shuffle", elementsize=4)],
    "shuffle-1": [codec("numcodecs.shuffle", elementsize=1)],
    "shuffle-zstd-crc32c": [
        codec("numcodecs.shuffle", elementsize=4),
        codec("zstd", level=3),
        codec("crc32c"),
    ],
    "lz4-crc32": [codec("numcodecs.lz4"), codec("numcodecs.crc32")],
    "delta-blosc-adler32": [
        codec("numcodecs.delta", dtype="<u4"),
        codec("numcodecs.blosc", cname="lz4"),
        codec("numcodecs.adler32"),
    ],
    "blosc-zstd": [codec("blosc", typesize=4, cname="lz4"), codec("zstd", level=1)],
    "bz2-lzma": [codec("numcodecs.bz2"), codec("numcodecs.lzma")],
    "nothing": [],
}
UNCHECKED = ("zstd", "blosc-zstd", "blosc-zstd-")
"""Damage that no decoder notices may pass: nvCOMP promises nothing, and there is no checksum."""

SIZES = [0, 4, 12, 1000, 65536, 100_004]

compressors = pytest.mark.parametrize("name", COMPRESSORS)
ways = pytest.mark.parametrize(
    ("nvcomp", "at_hand"),
    [(True, True), (True, False), (False, True), (False, False)],
    ids=["", "from-device", "no-nvcomp", "from-device-no-nvcomp"],
)


def make(name: str, size: int) -> Any:
    return program(COMPRESSORS[name], (size // 4,), "<u4")


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(
        a.shape == b.shape and (a == b).all() for a, b in zip(found, expected, strict=True)
    )


# ---- where steps run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("nothing", []),
        ("blosc-zlib-shuffle", ["device"]),
        ("lz4", ["device"]),
        ("zstd", ["device"]),
        ("gzip", ["device"]),
        ("zlib", ["device"]),
        ("bz2", ["cpu"]),
        ("lzma", ["cpu"]),
        ("fletcher32", ["cpu"]),
        ("shuffle", ["device"]),
        ("shuffle-zstd-crc32c", ["device"] * 3),
        ("delta-blosc-adler32", ["device"] * 3),
        ("blosc-zstd", ["device", "cpu"]),
        ("bz2-lzma", ["cpu", "cpu"]),
    ],
)
def test_places(name: str, places: list[str]) -> None:
    steps = make_steps(make(name, 400))
    assert [step.where for step in steps] == places
    assert [step.codec for step in steps] == [s.codec.name for s in make(name, 400).steps]
    assert all(step.note for step in steps if step.where == "cpu")


def test_steps_can_be_kept_on_the_host() -> None:
    prog = make("shuffle-zstd-crc32c", 400)
    steps = make_steps(prog, on_host=["zstd"])
    assert [step.where for step in steps] == ["device", "cpu", "device"]
    runtime, verdicts = SimRuntime(), Verdicts()
    data = payload(np.random.default_rng(0), 400, 0)
    batch = as_batch(runtime, [prog.encode(data.view("<u4"))])
    for step, size in zip(reversed(steps), reversed(decode_sizes(prog)), strict=True):
        batch = step.decode(runtime, batch, size, verdicts)
    assert same(rows_of(batch), [data])


def test_changed_codecs_have_no_step() -> None:
    """A class that decodes in its own way is not served by the step of the class it comes from."""

    class Changed(get_codec_class("gzip")):  # type: ignore[misc]
        def decode(self, data: Any, **kwargs: Any) -> Any:
            return super().decode(data[1:], **kwargs)

    class Renamed(get_codec_class("gzip")):  # type: ignore[misc]
        name = "renamed"

    class Sums(get_codec_class("numcodecs.delta")):  # type: ignore[misc]
        def decode(self, array: Any, spec: Any) -> Any:
            return super().decode(array, spec) + 1

    assert device_step(Changed()) is None
    assert device_step(Renamed()) is not None
    prog = program([Sums("<i4"), codec("bytes", endian="little")], (10,), "<i4")
    assert [step.where for step in make_steps(prog)] == ["cpu"]
    encoded = prog.encode(np.arange(10, dtype="<i4"))
    assert (decode(prog, [encoded]).rows[0].view("<i4") == np.arange(1, 11)).all()


def test_codecs_without_a_step() -> None:
    assert device_step(codec("numcodecs.bz2")) is None
    assert device_step(codec("zstd"), exact=False) is None
    assert device_step(codec("crc32c"), exact=False) is not None


# ---- decoding and encoding -----------------------------------------------------------------------


@ways
@compressors
def test_decode(name: str, nvcomp: bool, at_hand: bool) -> None:
    rng = np.random.default_rng(11)
    for size, count in product(SIZES, (1, 2, 50)):
        if size * count > 400_000:
            continue
        prog = make(name, size)
        rows = [payload(rng, size) for _ in range(count)]
        encoded = [prog.encode(row.view("<u4")) for row in rows]
        outcome = decode(prog, encoded, nvcomp=nvcomp, at_hand=at_hand)
        assert not outcome.bad, (size, count, outcome.verdicts)
        assert same(outcome.rows, rows), (size, count)


@pytest.mark.parametrize("nvcomp", [True, False], ids=["", "no-nvcomp"])
@compressors
def test_encode(name: str, nvcomp: bool) -> None:
    """What is encoded on the device, the CPU codecs decode."""
    rng = np.random.default_rng(12)
    for size, count in product(SIZES, (1, 2, 50)):
        if size * count > 400_000:
            continue
        prog = make(name, size)
        rows = [payload(rng, size) for _ in range(count)]
        encoded, _ = encode(prog, rows, nvcomp=nvcomp)
        assert same([prog.decode_bytes(row) for row in encoded], rows), (size, count)


def test_odd_sizes_of_blosc() -> None:
    rng = np.random.default_rng(4)
    for size, shuffle, typesize in product((1, 7, 129, 65537, 70_001), SHUFFLES, (1, 3, 8, 300)):
        for cname, blocksize in (("lz4", 0), ("zstd", 1000)):
            blosc = codec(
                "blosc", typesize=typesize, cname=cname, shuffle=shuffle, blocksize=blocksize
            )
            prog = program([blosc], (size,), "u1")
            rows = [payload(rng, size) for _ in range(3)]
            assert same(decode(prog, [prog.encode(row) for row in rows]).rows, rows)
            encoded, _ = encode(prog, rows)
            for row, frame in zip(rows, encoded, strict=True):
                assert numcodecs.blosc.decompress(frame.tobytes()) == row.tobytes()
            assert same(decode(prog, encoded).rows, rows)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("lz4", numcodecs.LZ4()),
        ("zstd", numcodecs.Zstd()),
        ("gzip", numcodecs.GZip()),
        ("blosc-lz4-bitshuffle", numcodecs.Blosc()),
        ("blosc-zstd-shuffle", numcodecs.Blosc()),
        ("blosc-stored", numcodecs.Blosc()),
        ("shuffle", numcodecs.Shuffle(4)),
    ],
)
def test_numcodecs_reads_what_is_encoded(name: str, other: Any) -> None:
    rng = np.random.default_rng(12)
    prog = make(name, 100_000)
    rows = [payload(rng, 100_000, kind) for kind in (0, 1, 2, 3)]
    encoded, counts = encode(prog, rows)
    for row, frame in zip(rows, encoded, strict=True):
        assert bytes(other.decode(frame.tobytes())) == row.tobytes()
    assert counts.get("nvcomp_calls", 0) == (name not in ("blosc-stored", "shuffle"))
    if name != "shuffle":
        assert len(encoded[2]) < 102_000
        assert len(encoded[1]) < 102_000  # noise


def test_frames_made_on_the_device_are_small() -> None:
    """Blocks are compressed, not merely framed."""
    data = np.arange(100_000, dtype="<u4").view("u1")
    for cname in ("lz4", "zstd"):
        prog = program(
            [codec("blosc", typesize=4, cname=cname, shuffle="shuffle")], (100_000,), "<u4"
        )
        (frame,), _ = encode(prog, [data])
        assert len(frame) < len(data) // 10


def test_rows_of_many_sizes_are_encoded() -> None:
    """Chunks of one array have one size; encoded rows that are encoded again do not."""
    rng = np.random.default_rng(5)
    for name in ("blosc-lz4-shuffle", "lz4", "zstd", "gzip", "crc32c", "adler32"):
        prog = make(name, 4000)
        runtime = SimRuntime()
        rows = [payload(rng, int(n)) for n in rng.integers(1, 5000, 20)]
        batch = make_steps(prog)[0].encode(runtime, as_batch(runtime, rows, at_hand=False))
        step = prog.steps[0].codec
        for row, frame in zip(rows, rows_of(batch), strict=True):
            assert (step.decode(frame, limit=len(row), exact=True) == row).all()


def test_rows_too_large_for_nvcomp_are_encoded_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zarr_gpu.codecs.device_streams.LARGEST_INPUT", 1000)
    prog = make("lz4", 4000)
    row = payload(np.random.default_rng(0), 4000)
    encoded, counts = encode(prog, [row])
    assert "nvcomp_calls" not in counts
    assert (prog.decode_bytes(encoded[0]) == row).all()


def test_failed_compression_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status of nvCOMP's compressor sends the batch to the CPU codec."""
    compress = HostNvComp.compress

    def failing(*args: Any, **kwargs: Any) -> Any:
        base, offset, nbytes, status = compress(*args, **kwargs)
        status[0] = 19
        return base, offset, nbytes, status

    monkeypatch.setattr(HostNvComp, "compress", failing)
    for name in ("lz4", "blosc-lz4-shuffle"):
        prog = make(name, 4000)
        row = payload(np.random.default_rng(0), 4000)
        encoded, _ = encode(prog, [row])
        assert (prog.decode_bytes(encoded[0]) == row).all()


# ---- counts --------------------------------------------------------------------------------------


@ways
@compressors
def test_counts_do_not_depend_on_rows(name: str, nvcomp: bool, at_hand: bool) -> None:
    rng = np.random.default_rng(1)
    prog = make(name, 20_000)
    rows = [payload(rng, 20_000, 0) for _ in range(40)]
    encoded = [prog.encode(row.view("<u4")) for row in rows]
    few = decode(prog, encoded[:2], nvcomp=nvcomp, at_hand=at_hand).counts
    many = decode(prog, encoded, nvcomp=nvcomp, at_hand=at_hand).counts
    assert few == many
    assert encode(prog, rows[:2], nvcomp=nvcomp)[1] == encode(prog, rows, nvcomp=nvcomp)[1]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("blosc-lz4-shuffle", {"nvcomp_calls": 1, "launches": 1, "uploads": 3}),
        ("blosc-zstd-noshuffle", {"nvcomp_calls": 1, "launches": 1, "uploads": 3}),
        ("blosc-stored", {"launches": 1, "uploads": 1}),
        ("lz4", {"nvcomp_calls": 1, "uploads": 1}),
        ("zstd", {"nvcomp_calls": 1, "uploads": 1}),
        ("nothing", {}),
    ],
)
def test_counts(name: str, counts: dict[str, int]) -> None:
    prog = make(name, 20_000)
    rows = [payload(np.random.default_rng(i), 20_000, 0) for i in range(7)]
    assert decode(prog, [prog.encode(row.view("<u4")) for row in rows]).counts == counts


def test_steps_on_the_host_do_not_cross_twice() -> None:
    prog = make("bz2-lzma", 4000)
    rows = [payload(np.random.default_rng(i), 4000, 0) for i in range(5)]
    encoded = [prog.encode(row.view("<u4")) for row in rows]
    assert decode(prog, encoded).counts == {"uploads": 1}
    _, counts = encode(prog, rows)
    assert counts == {"uploads": 2, "downloads": 1, "launches": 1}


# ---- data of others ------------------------------------------------------------------------------


def frames_of(shared_data: Path, source: str, kind: str) -> list[tuple[dict[str, Any], np.ndarray]]:
    listed = json.loads((shared_data / f"{source}.frames.json").read_text())["frames"]
    return [
        (frame, np.frombuffer((shared_data / source / frame["path"]).read_bytes(), np.uint8))
        for frame in listed
        if frame["codec"] == kind
    ]


@ways
def test_frames_of_c_blosc(shared_data: Path, nvcomp: bool, at_hand: bool) -> None:
    """All generations in one batch."""
    found = frames_of(shared_data, "c-blosc", "blosc")
    prog = program([codec("blosc", typesize=4)], (4_000_000,), "u1")
    outcome = decode(prog, [row for _, row in found], nvcomp=nvcomp, at_hand=at_hand)
    assert not outcome.bad
    for (frame, _), row in zip(found, outcome.rows, strict=True):
        assert hashlib.sha256(row.tobytes()).hexdigest() == frame["out_sha256"], frame["path"]
    assert len(found) >= 13


@pytest.mark.parametrize("source", ["zstd", "zstd-rs", "klauspost-compress"])
@pytest.mark.parametrize("at_hand", [True, False], ids=["", "from-device"])
def test_zstd_frames(shared_data: Path, source: str, at_hand: bool) -> None:
    """Frames of every shape: several, checksummed, of unknown size, damaged."""
    seen = 0
    for frame, row in frames_of(shared_data, source, "zstd"):
        size = frame.get("out_len") or 1000
        prog = program([codec("zstd")], (size,), "u1")
        expected = cpu_decode(prog, row)
        outcome = decode(prog, [row, row], at_hand=at_hand)
        if expected is None:
            assert outcome.bad == {0, 1}, frame["path"]
        else:
            assert not outcome.bad, frame["path"]
            assert same(outcome.rows, [expected] * 2), frame["path"]
        seen += 1
    assert seen >= 4


def blobs_of_numcodecs(shared_data: Path) -> Iterator[tuple[dict[str, Any], Any, np.ndarray]]:
    """(description, program, encoded bytes) of numcodecs' fixture, where this package has them."""
    listed = json.loads((shared_data / "numcodecs.expected.json").read_text())["encoded"]
    for blob in listed:
        config = dict(blob["config"])
        name = f"numcodecs.{config.pop('id')}"
        if blob["numcodecs"] != "ok" or name == "numcodecs.vlen-utf8":
            continue
        data = np.frombuffer((shared_data / "numcodecs" / blob["encoded"]).read_bytes(), np.uint8)
        try:
            chain = [codec("bytes"), codec(name, **config)]
            yield blob, program(chain, (blob["decoded_len"],), "u1"), data
        except MetadataError:
            continue


def test_blobs_of_numcodecs(shared_data: Path) -> None:
    seen = 0
    for blob, prog, data in blobs_of_numcodecs(shared_data):
        expected = cpu_decode(prog, data)
        for nvcomp in (True, False):
            outcome = decode(prog, [data] * 3, nvcomp=nvcomp)
            if expected is None:
                assert outcome.bad == {0, 1, 2}, blob["encoded"]
                continue
            assert not outcome.bad, blob["encoded"]
            assert same(outcome.rows, [expected] * 3), blob["encoded"]
            digest = hashlib.sha256(outcome.rows[0].tobytes()).hexdigest()
            assert digest == blob["decoded_sha256"], blob["encoded"]
        seen += 1
    assert seen > 300


def test_damaged_data_of_others(shared_data: Path) -> None:
    """Mutants of what other programs wrote, among sound rows."""
    blobs = [
        (f"{blob['encoded']} {blob['config'].get('cname')}", prog, data)
        for blob, prog, data in blobs_of_numcodecs(shared_data)
    ]
    blobs = blobs[:: 1 if FULL else 8]
    for frame, data in frames_of(shared_data, "c-blosc", "blosc"):
        prog = program([codec("blosc", typesize=4)], (4_000_000,), "u1")
        blobs.append((f"blosc/{frame['path']}", prog, data))
    for i, (name, prog, data) in enumerate(blobs):
        sound = cpu_decode(prog, data)
        if sound is None:
            continue
        rows = [data, *mutants(data, 10 if FULL else 2, seed=i), data]
        outcome = decode(prog, rows, at_hand=i % 2 == 0)
        assert not outcome.bad & {0, len(rows) - 1}, name
        assert same([outcome.rows[0], outcome.rows[-1]], [sound] * 2), name
        for k, row in enumerate(rows):
            expected = cpu_decode(prog, row)
            if k in outcome.bad:
                assert expected is None, name
            elif expected is None:
                assert "zstd" in name, name
            else:
                assert same([outcome.rows[k]], [expected]), name


# ---- random and damaged frames -------------------------------------------------------------------


def random_frame(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    size = int(
        rng.choice([0, 1, 7, 16, 127, 128, 129, 1000, 4096, 10_007, 65_536, 100_003, 262_157])
    )
    data = payload(rng, size)
    frame = numcodecs.blosc.compress(
        data.tobytes(),
        str(rng.choice(CNAMES)).encode(),
        int(rng.choice([0, 1, 5, 9])),
        int(rng.integers(3)),
        int(rng.choice([0, 0, 0, 256, 1000, 4096, 1 << 16])),
        int(rng.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32, 255])),
    )
    return data, np.frombuffer(frame, np.uint8)


@ways
def test_random_blosc_frames(nvcomp: bool, at_hand: bool) -> None:
    rng = np.random.default_rng(2024)
    by_size: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for _ in range(examples(150)):
        data, frame = random_frame(rng)
        by_size.setdefault(len(data), []).append((data, frame))
    for size, pairs in by_size.items():
        prog = program([codec("blosc", typesize=1)], (size,), "u1")
        for at in range(0, len(pairs), 50):
            part = pairs[at : at + 50]
            outcome = decode(prog, [f for _, f in part], nvcomp=nvcomp, at_hand=at_hand)
            assert not outcome.bad
            assert same(outcome.rows, [data for data, _ in part])


@ways
@compressors
def test_mutants(name: str, nvcomp: bool, at_hand: bool) -> None:
    """A damaged row has a verdict or, where the CPU codec takes it too, its bytes; sound rows in
    the same batch are right."""
    rng = np.random.default_rng(3)
    prog = make(name, 20_000)
    sound = [payload(rng, 20_000, kind) for kind in (0, 3)]
    encoded = [prog.encode(row.view("<u4")) for row in sound]
    number = examples(60) // 4
    damaged = [m for k in (0, 1) for m in mutants(encoded[k], number // 2, seed=k)]
    for at in range(0, len(damaged), 40):
        part = damaged[at : at + 40]
        outcome = decode(prog, [encoded[0], *part, encoded[1]], nvcomp=nvcomp, at_hand=at_hand)
        assert not outcome.bad & {0, len(part) + 1}
        assert same([outcome.rows[0], outcome.rows[-1]], sound)
        for i, row in enumerate(part, 1):
            expected = cpu_decode(prog, row)
            if name == "nothing":
                expected = row
            if i in outcome.bad:
                # Only LZ4's own library takes matches at distance 0.
                assert expected is None or "lz4" in name, name
            elif expected is None:
                assert name.startswith(UNCHECKED), name
                assert name != "zstd-checksum"
            else:
                assert same([outcome.rows[i]], [expected])


@pytest.mark.parametrize("name", ["blosc-lz4-shuffle", "lz4", "zstd", "gzip", "crc32c", "shuffle"])
def test_rows_of_no_use(name: str) -> None:
    """Empty rows, noise, and a row of another chunk size."""
    prog, other = make(name, 4000), make(name, 4004)
    good = payload(np.random.default_rng(0), 4000, 0)
    wrong = other.encode(payload(np.random.default_rng(0), 4004, 0).view("<u4"))
    noise = np.random.default_rng(1).integers(0, 256, 3000, "u1")
    rows = [np.empty(0, "u1"), noise, wrong, prog.encode(good.view("<u4")), noise[:3]]
    for nvcomp, at_hand in product((True, False), (True, False)):
        outcome = decode(prog, rows, nvcomp=nvcomp, at_hand=at_hand)
        assert outcome.bad == {0, 1, 2, 4}
        assert same([outcome.rows[3]], [good])
        codec_name, message, _, _ = outcome.verdicts.on_host[2]
        assert codec_name == prog.steps[0].codec.name
        assert message


def test_empty_rows_alone() -> None:
    """Objects of no bytes: there is not one byte in the batch."""
    none = np.zeros(3, np.int64)
    for name in ("blosc-lz4-shuffle", "lz4", "zstd", "gzip", "zlib", "crc32c", "shuffle", "bz2"):
        prog = make(name, 4000)
        for host in (np.empty(0, "u1"), None):
            runtime, verdicts = SimRuntime(), Verdicts()
            batch = DeviceBatch(runtime.empty(0), none, none, host)
            make_steps(prog)[0].decode(runtime, batch, 4000, verdicts)
            assert set(verdicts.on_host) == {0, 1, 2}


def test_batches_of_no_rows() -> None:
    for name in COMPRESSORS:
        prog = make(name, 4000)
        for nvcomp in (True, False):
            assert decode(prog, [], nvcomp=nvcomp).rows == []
            assert encode(prog, [], nvcomp=nvcomp)[0] == []


def test_all_rows_damaged() -> None:
    for name in ("blosc-lz4-shuffle", "zstd", "shuffle-zstd-crc32c", "delta-blosc-adler32"):
        prog = make(name, 4000)
        outcome = decode(prog, [np.zeros(100, "u1")] * 3)
        assert outcome.bad == {0, 1, 2}


# ---- frames that are not plain -------------------------------------------------------------------


def test_zstd_of_every_shape() -> None:
    data = payload(np.random.default_rng(0), 9000, 0)
    plain = np.frombuffer(numcodecs.Zstd(1).encode(data), "u1")
    half = [
        np.frombuffer(numcodecs.Zstd(1).encode(part), "u1") for part in (data[:4000], data[4000:])
    ]
    skippable = np.frombuffer(b"\x50\x2a\x4d\x18\x03\0\0\0abc", "u1")
    rows = [
        plain,
        np.frombuffer(numcodecs.Zstd(1, checksum=True).encode(data), "u1"),
        forget_size(plain),
        np.concatenate(half),
        np.concatenate([skippable, plain]),
        np.concatenate([plain, skippable]),
    ]
    prog = program([codec("zstd")], (9000,), "u1")
    for at_hand in (True, False):
        outcome = decode(prog, rows[: None if at_hand else -1], at_hand=at_hand)
        assert not outcome.bad
        assert same(outcome.rows, [data] * len(outcome.rows))
    assert decode(prog, rows[:1]).counts == {"nvcomp_calls": 1, "uploads": 1}
    assert decode(prog, rows[1:]).counts.get("nvcomp_calls", 0) == 0


def gzip_member(data: bytes, *, name: bool = False) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = stream.compress(data) + stream.flush()
    head = b"\x1f\x8b\x08" + (b"\x08" if name else b"\0") + bytes(6) + (b"name\0" if name else b"")
    tail = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return head + body + tail


def test_gzip_of_every_shape() -> None:
    data = payload(np.random.default_rng(0), 9000, 0).tobytes()
    stored = b"\x1f\x8b\x08\0" + bytes(6) + b"\x01\0\0\xff\xff" + bytes(8)
    rows = [
        gzip_member(data),
        gzip_member(data, name=True),
        gzip_member(data[:4000]) + gzip_member(data[4000:]),
        gzip_member(b"") + gzip_member(data),
        stored + gzip_member(data),
        gzip_member(data) + gzip_member(b""),
        gzip_member(data) + bytes(5),
    ]
    prog = program([codec("gzip")], (9000,), "u1")
    for at_hand in (True, False):
        outcome = decode(prog, [np.frombuffer(r, "u1") for r in rows], at_hand=at_hand)
        assert not outcome.bad, outcome.verdicts
        assert same(outcome.rows, [np.frombuffer(data, "u1")] * len(rows))
    bad = bytearray(gzip_member(data))
    bad[-7] ^= 1  # the checksum, which nvCOMP is not asked for
    assert decode(prog, [np.frombuffer(bytes(bad), "u1")]).bad == {0}


def blosc_frame(
    blocks: list[bytes], *, flags: int, typesize: int, nbytes: int, block: int, order: Any = None
) -> np.ndarray:
    """A frame of blocks that are given as they are stored, in any order."""
    order = list(order or range(len(blocks)))
    at, starts = 16 + 4 * len(blocks), [0] * len(blocks)
    for i in order:
        starts[i] = at
        at += len(blocks[i])
    head = bytes([2, 1, flags, typesize])
    head += b"".join(n.to_bytes(4, "little") for n in (nbytes, block, at, *starts))
    return np.frombuffer(head + b"".join(blocks[i] for i in order), "u1")


@pytest.mark.parametrize("at_hand", [True, False], ids=["", "from-device"])
def test_blosc_with_snappy_and_blocks_out_of_order(at_hand: bool) -> None:
    """numcodecs has no snappy, and writes its blocks in order; older files do neither."""
    rng = np.random.default_rng(0)
    data = payload(rng, 2500, 0)
    blocks = []
    for at in range(0, 2500, 1000):
        part = data[at : at + 1000]
        stream = snappy_compress(part).tobytes()
        blocks.append(len(stream).to_bytes(4, "little") + stream)
    sizes = {"flags": 2 << 5 | 16, "typesize": 1, "nbytes": 2500, "block": 1000}
    mixed = list(blocks)
    mixed[1] = (1000).to_bytes(4, "little") + data[1000:2000].tobytes()  # stored
    rows = [
        blosc_frame(blocks, **sizes),
        blosc_frame(blocks, **sizes, order=(2, 0, 1)),
        blosc_frame(mixed, **sizes, order=(1, 2, 0)),
    ]
    prog = program([codec("blosc", typesize=1)], (2500,), "u1")
    outcome = decode(prog, rows, at_hand=at_hand)
    assert not outcome.bad
    assert same(outcome.rows, [data] * 3)
    assert outcome.counts["nvcomp_calls"] == 1
    damaged = rows[0].copy()
    damaged[16 + 12 + 4] ^= 8  # the length that the first stream tells
    outcome = decode(prog, [damaged, rows[1]], at_hand=at_hand)
    assert outcome.bad == {0}
    assert same(outcome.rows[1:], [data])


def test_blosc_of_many_compressors_in_one_batch() -> None:
    rng = np.random.default_rng(0)
    rows, frames = [], []
    for i in range(40):
        data = payload(rng, 30_000, 0)
        cname = CNAMES[i % len(CNAMES)]
        frames.append(codec("blosc", typesize=4, cname=cname, shuffle=SHUFFLES[i % 3]).encode(data))
        rows.append(data)
    prog = program([codec("blosc", typesize=4)], (30_000,), "u1")
    outcome = decode(prog, frames)
    assert not outcome.bad
    assert same(outcome.rows, rows)
    assert outcome.counts["nvcomp_calls"] == 3  # LZ4, Zstd, Deflate


# ---- safety --------------------------------------------------------------------------------------


def test_bad_checksums_go_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a checksum refuses, nvCOMP never sees."""
    seen: list[np.ndarray] = []
    decompress = HostNvComp.decompress

    def watched(self: Any, runtime: Any, algorithm: str, src: Any, *rest: Any) -> Any:
        seen.extend(src[a : a + n].copy() for a, n in zip(rest[0], rest[1], strict=True))
        return decompress(self, runtime, algorithm, src, *rest)

    monkeypatch.setattr(HostNvComp, "decompress", watched)
    prog = program([codec("zstd"), codec("crc32c")], (4000,), "u1")
    rows = [payload(np.random.default_rng(i), 4000, 0) for i in range(4)]
    encoded = [prog.encode(row) for row in rows]
    encoded[2] = encoded[2].copy()
    encoded[2][100] ^= 4
    for at_hand in (True, False):
        seen.clear()
        outcome = decode(prog, encoded, at_hand=at_hand)
        assert outcome.bad == set(outcome.verdicts.on_host) == {2}
        assert "checksum" in outcome.verdicts.on_host[2][1]
        assert len(seen) == 3
        assert same([outcome.rows[i] for i in (0, 1, 3)], [rows[i] for i in (0, 1, 3)])


def test_checksums_before_safe_decoders_are_not_waited_for() -> None:
    prog = program([codec("numcodecs.lz4"), codec("crc32c")], (4000,), "u1")
    row = prog.encode(payload(np.random.default_rng(0), 4000, 0))
    bad = row.copy()
    bad[50] ^= 1
    outcome = decode(prog, [row, bad])
    assert outcome.bad == {1}
    assert "downloads" not in outcome.counts


def test_refused_rows_are_left_out_of_later_steps() -> None:
    prog = program(
        [
            codec("numcodecs.delta", dtype="<u4"),
            codec("numcodecs.shuffle", elementsize=4),
            codec("zstd"),
            codec("crc32c"),
        ],
        (1000,),
        "<u4",
    )
    rows = [payload(np.random.default_rng(i), 4000, 0) for i in range(3)]
    encoded = [prog.encode(row.view("<u4")) for row in rows]
    encoded[1] = encoded[1][:-5]
    outcome = decode(prog, encoded)
    assert outcome.bad == {1}
    assert same([outcome.rows[0], outcome.rows[2]], [rows[0], rows[2]])


def test_verify_row() -> None:
    prog = make("blosc-zstd-shuffle", 4000)
    data = payload(np.random.default_rng(0), 4000, 0)
    frame = prog.encode(data.view("<u4"))
    assert (verify_row(prog, frame) == data).all()
    with pytest.raises(CodecError):
        verify_row(prog, frame[:-3])


def test_zstd_frames_of_countless_blocks_cost_no_time() -> None:
    """Empty blocks, three bytes each: the walk gives up and the CPU codec decodes."""
    body = bytes(3) * 300_000 + (8 << 3 | 1).to_bytes(3, "little") + b"12345678"
    frame = np.frombuffer(b"\x28\xb5\x2f\xfd\x20\x08" + body, "u1")
    prog = program([codec("zstd")], (8,), "u1")
    outcome = decode(prog, [frame, frame])
    assert not outcome.bad
    assert [row.tobytes() for row in outcome.rows] == [b"12345678"] * 2
    assert "nvcomp_calls" not in outcome.counts


def test_alignments_that_a_device_may_ask_for() -> None:
    prog = make("blosc-zstd-shuffle", 40_000)
    rows = [payload(np.random.default_rng(i), 40_000, 0) for i in range(4)]
    encoded = [prog.encode(row.view("<u4")) for row in rows]
    runtime = SimRuntime()
    runtime.nvcomp = HostNvComp({"Zstd": (8, 8, 8)})
    outcome = decode(prog, encoded, runtime=runtime)
    assert not outcome.bad
    assert same(outcome.rows, rows)


# ---- many threads --------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 7, 256])
def test_threads_that_share_rows(threads: int) -> None:
    """As on a device, but one after the other."""
    rng = np.random.default_rng(0)
    for name in ("blosc-lz4-bitshuffle", "blosc-zlib-shuffle", "zlib", "delta-blosc-adler32"):
        prog = make(name, 5000)
        rows = [payload(rng, 5000) for _ in range(3)]
        encoded = [prog.encode(row.view("<u4")) for row in rows]
        runtime = SimRuntime(threads_per_row=threads)
        outcome = decode(prog, encoded, runtime=runtime)
        assert not outcome.bad
        assert same(outcome.rows, rows)
        bad = encoded[0].copy()
        bad[-1] ^= 1
        outcome = decode(prog, [bad, *encoded[1:]], runtime=SimRuntime(threads_per_row=threads))
        assert same(outcome.rows[1:], rows[1:])


IN_THE_SIMULATOR = """
import numpy as np
from step_suite import decode, encode, payload
from test_device_steps import COMPRESSORS, make, same
from zarr_gpu.devices.sim_runtime import SimRuntime

assert SimRuntime().launcher == "simulator"
rng = np.random.default_rng(0)
for name in COMPRESSORS:
    prog = make(name, 240)
    rows = [payload(rng, 240, kind) for kind in (0, 1)]
    encoded = [prog.encode(row.view("<u4")) for row in rows]
    for nvcomp, at_hand in ((True, True), (False, False)):
        outcome = decode(prog, encoded, nvcomp=nvcomp, at_hand=at_hand)
        assert not outcome.bad, name
        assert same(outcome.rows, rows), name
    found, _ = encode(prog, rows)
    assert same([prog.decode_bytes(row) for row in found], rows), name
print("done")
"""


def test_in_the_simulator() -> None:
    """Every thread of every kernel, with indices checked, in a process of its own."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_THE_SIMULATOR],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "done"
