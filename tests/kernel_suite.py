"""Cases for the kernels: each runs kernels through ``run(name, *args)`` and compares with NumPy.

``run`` is one of the forms of a kernel.  As a script, under ``NUMBA_ENABLE_CUDASIM=1``, this file
runs all cases, made small, in Numba's CUDA simulator and prints what happened to each as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numcodecs
import numcodecs.blosc
import numcodecs.lz4
import numcodecs.zstd
import numpy as np
from zarr_gpu.kernels import registry, rules

Run = Callable[..., None]
GUARD = 0xA5


class Scale:
    """How large a case is: everything in the simulator costs a thousand times as much."""

    def __init__(self, *, simulated: bool) -> None:
        self.simulated = simulated
        self.tprs = (1, 3) if simulated else (1, 2, 3, 8, 256)
        # Every pair of data types is a function for Numba to compile.
        self.full = os.environ.get("HYPOTHESIS_PROFILE") == "full"
        self.units = ("u1", "u2", "u4", "u8") if simulated or self.full else ("u2", "u8")

    def pick(self, small: int, large: int) -> int:
        return small if self.simulated else large


def run_njit(name: str, *args: Any) -> None:
    registry.get(name).njit(*args)


def run_simulated(name: str, *args: Any) -> None:
    registry.get(name).cuda[2, 3](*args)


def i64(values: Any) -> np.ndarray:
    return np.asarray(values, np.int64)


def statuses(n: int) -> np.ndarray:
    return np.zeros(n, np.int32)


def starts(sizes: Any, gap: int = 0) -> np.ndarray:
    """Places one after the other, ``gap`` apart."""
    sizes = i64(sizes) + gap
    return np.cumsum(sizes) - sizes + gap


def words(data: np.ndarray) -> np.ndarray:
    return data[: len(data) // 8 * 8].view(np.uint64)


class Rows:
    """Rows of one array with untouched bytes around each of them."""

    def __init__(self, sizes: Any, dtype: Any = np.uint8, *, align: int = 1) -> None:
        self.sizes = i64(sizes)
        dtype = np.dtype(dtype)
        room = -(-(self.sizes + 16) // align) * align
        self.start = np.cumsum(room) - room + align * -(-8 // align)
        total = int(room.sum()) + 16 * align
        self.data = np.full(total * dtype.itemsize, GUARD, np.uint8).view(dtype)

    def rows(self) -> Iterator[np.ndarray]:
        for a, n in zip(self.start, self.sizes, strict=True):
            yield self.data[a : a + n]

    def check_guards(self) -> None:
        inside = np.zeros(len(self.data), bool)
        for a, n in zip(self.start, self.sizes, strict=True):
            inside[a : a + n] = True
        outside = self.data[~inside].view(np.uint8)
        assert (outside == GUARD).all(), "written outside of the rows"


def equal(got: Any, wanted: Any, what: str = "") -> None:
    """Equal bit by bit."""
    got, wanted = np.ascontiguousarray(got), np.ascontiguousarray(wanted)
    assert got.dtype == wanted.dtype, (what, got.dtype, wanted.dtype)
    assert got.shape == wanted.shape, (what, got.shape, wanted.shape)
    a, b = got.reshape(-1).view(np.uint8), wanted.reshape(-1).view(np.uint8)
    bad = np.flatnonzero(a != b)
    assert not len(bad), (what, len(bad), bad[:3], got.reshape(-1)[bad[:3] // got.dtype.itemsize])


# moves


class Placing:
    """Random placements of boxes of chunks in a result, as tables."""

    def __init__(
        self, rng: np.random.Generator, unit: str, scale: Scale, nsets: int, *, distinct: bool
    ) -> None:
        self.nsets = nsets
        self.nplace = 4
        limit = scale.pick(5, 40 if nsets < 3 else 12)
        self.units = int(rng.choice([1, 2, 3, 40]))
        self.chunk_shape = tuple(int(n) for n in rng.integers(1, limit, nsets))
        self.out_shape = tuple(n + 3 for n in self.chunk_shape)
        self.chunks = self.numbers(rng, unit, (3, *self.chunk_shape, self.units))
        # The chunk of each placement, negative where it is missing.
        self.row = i64([2, 0, 1, -2]) if distinct else rng.integers(-1, 3, self.nplace)
        self.boxes = []
        for _ in range(self.nplace):
            box = []
            for n, m in zip(self.chunk_shape, self.out_shape, strict=True):
                count = int(rng.integers(0, n + 1))
                source = rng.permutation(n)[:count] if distinct else rng.integers(0, n, count)
                box.append((source, rng.permutation(m)[:count]))
            self.boxes.append(box)
        self.out = self.numbers(rng, unit, (self.nplace, *self.out_shape, self.units))
        chunk_size, out_size = self.chunks[0].size, self.out[0].size
        self.base = np.where(self.row < 0, self.row, self.row * chunk_size)
        src, dst, first, count = [], [], [], []
        at = 0
        for p, box in enumerate(self.boxes):
            for s, (a, b) in enumerate(box):
                src.append(a * prod(self.chunk_shape[s + 1 :]) * self.units)
                place = b * prod(self.out_shape[s + 1 :]) * self.units
                dst.append(place + (p * out_size if s == 0 else 0))
                first.append(at)
                count.append(len(a))
                at += len(a)
        if not nsets:  # without sets there is no table to tell placements apart
            self.base, self.row, self.boxes = self.base[:1], self.row[:1], self.boxes[:1]
        empty = np.empty(0, np.int64)
        self.tables = (
            i64(first),
            i64(count),
            nsets,
            np.concatenate([empty, *src]),
            np.concatenate([empty, *dst]),
            self.units,
        )

    @staticmethod
    def numbers(rng: np.random.Generator, unit: str, shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(0, np.iinfo(unit).max, shape, unit, endpoint=True)

    def pairs(self) -> Iterator[tuple[int, tuple[Any, ...], tuple[Any, ...]]]:
        for p, (row, box) in enumerate(zip(self.row, self.boxes, strict=True)):
            yield (
                int(row),
                (*np.ix_(*(a for a, _ in box)), slice(None)),
                (p, *np.ix_(*(b for _, b in box)), slice(None)),
            )


def case_scatter(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    for unit in scale.units:
        for nsets in range(4):
            for tpr in scale.tprs[: 1 if nsets == 0 else None]:
                place = Placing(rng, unit, scale, nsets, distinct=False)
                swap = int(rng.integers(0, 2))
                fill = place.numbers(rng, unit, (int(rng.integers(1, place.units + 1)),))
                wanted = place.out.copy()
                for row, src, dst in place.pairs():
                    if row < 0:
                        wanted[dst] = np.resize(fill, place.units)
                    else:
                        box = place.chunks[row][src]
                        wanted[dst] = box.byteswap() if swap else box
                status = statuses(len(place.base))
                got = place.out.reshape(-1).copy()
                chunks = place.chunks.reshape(-1)
                run("scatter", tpr, chunks, i64(place.base), *place.tables, swap, fill, got, status)
                assert not status.any()
                equal(got, wanted.reshape(-1), f"{unit} {nsets} sets, tpr {tpr}")


def case_gather(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    for unit in scale.units:
        for nsets in range(4):
            for tpr in scale.tprs[: 1 if nsets == 0 else None]:
                # Which of several items with one place stays is left open.
                place = Placing(rng, unit, scale, nsets, distinct=True)
                swap = int(rng.integers(0, 2))
                wanted = place.chunks.copy()
                for row, src, dst in place.pairs():
                    if row >= 0:
                        box = place.out[dst]
                        wanted[row][src] = box.byteswap() if swap else box
                got = place.chunks.reshape(-1).copy()
                values = place.out.reshape(-1)
                status = statuses(len(place.base))
                run("gather", tpr, got, i64(place.base), *place.tables, swap, values, status)
                assert (status != 0).tolist() == (place.base < 0).tolist()
                equal(got, wanted.reshape(-1), f"{unit} {nsets} sets, tpr {tpr}")


def case_moves_out_of_bounds(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    """One bad placement among good ones: a status for it, nothing outside, the others right."""
    big = np.iinfo(np.int64)
    for name in ("scatter", "gather"):
        for argument in ("base", "set_start", "set_count", "src_tab", "dst_tab"):
            for value in (-1, -20, 1 << 20, 1 << 62, big.min, big.max):
                if value == -1 and argument == "src_tab":
                    continue  # inside of the buffer, if not of the chunk
                n = 6
                base = i64([0, n, 2 * n])
                first, count = i64([0, 3, 6]), i64([3, 3, 3])
                src_tab = i64([0, 1, 2, 5, 4, 3, 0, 2, 4])
                dst_tab = i64([0, 1, 2, 3, 4, 5, 6, 7, 8])
                table = {
                    "base": base,
                    "set_start": first,
                    "set_count": count,
                    "src_tab": src_tab,
                    "dst_tab": dst_tab,
                }[argument]
                table[4 if argument.endswith("tab") else 1] = value
                if argument == "base" and value == -1 and name == "scatter":
                    continue  # missing, not bad
                chunk = np.arange(100, 118, dtype=np.uint8)
                out = np.full(9, 7, np.uint8)
                status = statuses(3)
                tables = (base, first, count, 1, src_tab, dst_tab, 1, 0)
                before = chunk.copy()
                with np.errstate(over="ignore"):
                    if name == "scatter":
                        run(name, 2, chunk, *tables, np.zeros(1, np.uint8), out, status)
                        equal(chunk, before)
                        assert out[[0, 1, 2, 6, 7, 8]].tolist() == [100, 101, 102, 112, 114, 116]
                    else:
                        out[:] = np.arange(9)
                        run(name, 2, chunk, *tables, out, status)
                        assert chunk[[0, 1, 2, 12, 14, 16]].tolist() == [0, 1, 2, 6, 7, 8]
                assert (status != 0).tolist() == [False, True, False], (name, argument, value)
    status = statuses(1)
    out = np.zeros(4, np.uint8)
    for nsets, units, fill in ((1, 1, 1), (-1, 1, 1), (0, 0, 1), (0, -1, 1), (0, 1, 0)):
        status[:] = 0
        tables = (i64([-1]), i64([]), i64([]), nsets, i64([]), i64([]), units, 0)
        run("scatter", 1, out, *tables, np.ones(fill, np.uint8), out, status)
        assert status.all()
        assert not out.any()


def case_fill_rows(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    for unit in scale.units:
        for tpr in scale.tprs:
            rows = Rows(rng.integers(0, scale.pick(9, 99), 5), unit)
            pattern = Placing.numbers(rng, unit, (int(rng.integers(1, 4)),))
            status = statuses(5)
            run("fill_rows", tpr, rows.data, rows.start, rows.sizes, pattern, len(pattern), status)
            assert not status.any()
            rows.check_guards()
            for row in rows.rows():
                equal(row, np.resize(pattern, len(row)))
    out = np.zeros(8, np.uint8)
    for base, count, units in ((-1, 2, 1), (7, 2, 1), (0, -1, 1), (0, 9, 1), (0, 2, 0), (0, 2, 3)):
        status = statuses(1)
        run("fill_rows", 1, out, i64([base]), i64([count]), np.ones(2, np.uint8), units, status)
        assert status.all()
        assert not out.any()


def case_copy_segments(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    for unit in scale.units:
        for tpr in scale.tprs:
            rows = Rows(rng.integers(0, scale.pick(9, 999), 5), unit)
            src = Placing.numbers(rng, unit, (1000,))
            at = rng.integers(0, 1001 - rows.sizes)
            status = statuses(5)
            run("copy_segments", tpr, src, at, rows.data, rows.start, rows.sizes, status)
            assert not status.any()
            rows.check_guards()
            for a, row in zip(at, rows.rows(), strict=True):
                equal(row, src[a : a + len(row)])
    for a, b, n, bad in ((-1, 0, 1, 1), (8, 0, 1, 1), (0, 0, -1, 1), (0, 8, 1, 2), (0, -1, 1, 2)):
        out, status = np.zeros(8, np.uint8), statuses(1)
        run("copy_segments", 1, np.ones(8, np.uint8), i64([a]), out, i64([b]), i64([n]), status)
        assert status.tolist() == [bad]
        assert not out.any()


def case_byteswap(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    for unit in ("u2", "u4", "u8"):
        for tpr in scale.tprs:
            rows = Rows(rng.integers(0, scale.pick(9, 99), 4), unit)
            before = []
            for row in rows.rows():
                row[:] = Placing.numbers(rng, unit, row.shape)
                before.append(row.copy())
            status = statuses(5)
            start, items = np.append(rows.start, -1), np.append(rows.sizes, 1)
            run("byteswap", tpr, rows.data, start, items, status)
            assert status.tolist() == [0, 0, 0, 0, 1]
            rows.check_guards()
            for row, old in zip(rows.rows(), before, strict=True):
                equal(row, old.byteswap())


def case_u32(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    values = i64([0, 1, 0x12345678, 0xFFFFFFFF, -2])
    for big_endian in (0, 1):
        out, status = np.full(40, GUARD, np.uint8), statuses(7)
        at = i64([1, 5, 12, 16, 36, 37, -1])
        run("write_u32", out, at, np.append(values, [9, 9]), big_endian, status)
        assert status.tolist() == [0] * 5 + [2, 2]
        for a, value in zip(at[:5], values, strict=True):
            stored = int.from_bytes(out[a : a + 4].tobytes(), "big" if big_endian else "little")
            assert stored == int(value) & 0xFFFFFFFF
        assert (out[[0, 9, 10, 11]] == GUARD).all()
        computed = np.array([*(int(v) & 0xFFFFFFFF for v in values), 9, 9], np.uint32)
        status[:] = 0
        run("check_stored_u32", out, at, computed, big_endian, status)
        assert status.tolist() == [0] * 5 + [1, 1]
        computed[2:4] ^= 1 << 31
        status[:] = 0
        run("check_stored_u32", out, at, computed, big_endian, status)
        assert status.tolist() == [0, 0, 3, 3, 0, 1, 1]


# Blosc


def payload(rng: np.random.Generator, nbytes: int, kind: int) -> np.ndarray:
    """Bytes of four kinds: smooth numbers, noise, zeros, and all of them in turn."""
    if kind == 0:
        data = np.cumsum(rng.integers(-3, 4, nbytes // 4 + 1)).astype("i4").view(np.uint8)
    elif kind == 1:
        data = rng.integers(0, 256, nbytes, np.uint8)
    elif kind == 2:
        data = np.zeros(nbytes, np.uint8)
    else:
        parts = [payload(rng, nbytes // 3 + 1, k) for k in range(3)]
        data = np.concatenate(parts)
    return np.ascontiguousarray(data[:nbytes])


def random_frame(rng: np.random.Generator, largest: int) -> tuple[bytes, np.ndarray]:
    """A Blosc frame of numcodecs and what it holds."""
    nbytes = int(rng.choice([0, 1, 15, 16, 127, 128, 129, 1000, largest // 7, largest // 3]))
    nbytes = nbytes if rng.random() < 0.5 else int(rng.integers(0, largest))
    data = payload(rng, nbytes, int(rng.integers(0, 4)))
    typesize = int(rng.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32, 255]))
    cname = str(rng.choice(["blosclz", "lz4", "lz4hc", "zlib", "zstd"]))
    clevel = int(rng.choice([0, 1, 3, 5, 5, 9]))
    block = int(rng.choice([0, 0, 0, 128, 1000, 2048, 4096, 7777, 20000]))
    shuffle = int(rng.integers(0, 3))
    frame = numcodecs.blosc.compress(data, cname.encode(), clevel, shuffle, block, typesize)
    return frame, data


def decode_split(codec: int, data: bytes, target: np.ndarray) -> bool:
    """One stream by a library of the host: zlib or zstd."""
    if codec == 3:
        machine = zlib.decompressobj()
        try:
            out = machine.decompress(data, len(target) + 1)
        except zlib.error:
            return False
        if len(out) != len(target) or not machine.eof:
            return False
        target[:] = np.frombuffer(out, np.uint8)
        return True
    try:
        numcodecs.zstd.decompress(data, target)
    except (RuntimeError, ValueError):
        return False
    return True


def decode_frames(
    run: Run, frames: list[bytes], sizes: list[int], tpr: int, *, with_words: bool = True
) -> tuple[Rows, np.ndarray]:
    """A batch of frames through the flat lists; (decoded rows, status of each row)."""
    src = np.frombuffer(b"\0\0\0" + b"".join(frames), np.uint8).copy()
    nbytes = i64([len(f) for f in frames])
    off = starts(nbytes) + 3
    n = len(frames)
    expected = i64(sizes)
    nblocks, nsplits, codec, status = i64([9] * n), i64([9] * n), i64([9] * n), statuses(n)
    run("blosc_walk_count", src, off, nbytes, expected, nblocks, nsplits, codec, status)
    assert (nblocks[status != 0] == 0).all()
    assert (nsplits[status != 0] == 0).all()
    rows = Rows(expected, align=16)
    scratch = np.full(len(rows.data), 0x5A, np.uint8)
    first_block = np.concatenate([[0], np.cumsum(nblocks)])
    first_split = np.concatenate([[0], np.cumsum(nsplits)])
    total_b, total_s = int(first_block[-1]), int(first_split[-1])
    split = {k: np.full(total_s, -99, np.int64) for k in ("src", "csize", "dst", "len")}
    raw = np.full(total_s, 9, np.uint8)
    block = {
        k: np.full(total_b, -99, np.int64)
        for k in ("dst", "len", "split", "nsplits", "typesize", "mode")
    }
    run(
        "blosc_walk_fill",
        src,
        off,
        nbytes,
        expected,
        rows.start,
        first_block,
        first_split,
        *split.values(),
        raw,
        *block.values(),
        status,
    )
    split_row = np.repeat(np.arange(n), nsplits)
    block_row = np.repeat(np.arange(n), nblocks)
    for kind, kernel in ((0, "blosclz_decode"), (1, "lz4_decode")):
        chosen = np.flatnonzero((raw == 0) & (codec[split_row] == kind))
        bad = statuses(len(chosen))
        parts = (
            [split[k][chosen] for k in ("src", "csize")],
            [split[k][chosen] for k in ("dst", "len")],
        )
        run(kernel, src, *parts[0], scratch, *parts[1], bad)
        np.maximum.at(status, split_row[chosen], bad)
    for s in np.flatnonzero((raw == 0) & (codec[split_row] > 1)):
        a, c, b, m = (int(split[k][s]) for k in ("src", "csize", "dst", "len"))
        if not decode_split(int(codec[split_row[s]]), src[a : a + c].tobytes(), scratch[b : b + m]):
            status[split_row[s]] = 1
    bad = statuses(total_b)
    run(
        "blosc_assemble",
        tpr,
        src,
        scratch,
        *(block[k] for k in ("dst", "len", "split", "nsplits")),
        split["src"],
        raw,
        split["dst"],
        block["typesize"],
        block["mode"],
        rows.data,
        words(rows.data) if with_words else words(rows.data[:0]),
        bad,
    )
    np.maximum.at(status, block_row, bad)
    rows.check_guards()
    return rows, status


def check_frames(
    run: Run, rng: np.random.Generator, *, batches: int, each: int, largest: int, tpr: int = 1
) -> None:
    """Random frames, all of which must decode."""
    for batch in range(batches):
        made = [random_frame(rng, largest) for _ in range(each)]
        frames, wanted = zip(*made, strict=True)
        rows, status = decode_frames(
            run, list(frames), [len(w) for w in wanted], tpr, with_words=batch % 4 != 3
        )
        assert not status.any(), [f[:16].hex() for f, s in zip(frames, status, strict=True) if s]
        for frame, row, data in zip(frames, rows.rows(), wanted, strict=True):
            equal(row, data, frame[:16].hex())


def case_blosc(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    if scale.simulated:
        check_frames(run, rng, batches=4, each=16, largest=1200, tpr=3)
    else:
        for tpr in scale.tprs:
            check_frames(run, rng, batches=2, each=20, largest=100_000, tpr=tpr)


def case_blosc_headers(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    """What a header may not say."""
    check_headers(run, np.arange(1000, dtype="u2").view(np.uint8), b"zstd", 512)
    if not scale.simulated:  # splits come with large blocks only
        check_headers(run, np.arange(40_000, dtype="u2").view(np.uint8), b"lz4", 10_000)


def check_headers(run: Run, data: np.ndarray, cname: bytes, block: int) -> None:
    frame = numcodecs.blosc.compress(data, cname, 5, 1, block, 2)
    last = 4 * (-(-len(data) // int.from_bytes(frame[8:12], "little")) - 1)
    assert last > 0
    stored = numcodecs.blosc.compress(data[:40], b"lz4", 0, 1, 0, 2)
    bad: list[tuple[bytes, int]] = []

    def change(at: int, value: bytes, original: bytes = frame, size: int = len(data)) -> None:
        bad.append((original[:at] + value + original[at + len(value) :], size))

    change(0, b"\1")
    change(0, b"\3")
    change(1, b"\2")
    change(2, bytes([frame[2] | 8]))
    change(2, bytes([frame[2] | 4]))
    change(2, bytes([frame[2] & 31 | 5 << 5]))
    change(3, b"\0")
    for number in (0, -1, 1, len(data) + 1, 2**31 - 1, -(2**31)):
        word = number.to_bytes(4, "little", signed=True)
        for at in (4, 8, 12, 16, 16 + last):
            change(at, word)
        change(4, word, stored, 40)
        if number != 1:
            change(8, word, stored, 40)
        change(12, word, stored, 40)
        at = int.from_bytes(frame[16:20], "little")
        if number not in {0, 1}:
            change(at, word)  # the length of a split
    change(4, b"\x27\0\0\0" * 2, stored, 39)  # a byte more than it says
    bad += [(frame[:n], len(data)) for n in (0, 1, 15, 16, 17, len(frame) - 1)]
    bad += [(frame, len(data) - 1), (frame, 0), (frame, -1), (frame, 2**40)]
    for i in range(0, len(bad), 8):
        group = [(frame, len(data)), *bad[i : i + 8], (frame, len(data))]
        rows, status = decode_guarded(run, group)
        assert status[0] == status[-1] == 0
        assert (status[1:-1] != 0).all(), [g[0][:20].hex() for g in group]
        for row in rows:
            equal(row, data)


def decode_guarded(run: Run, group: list[tuple[bytes, int]]) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode frames of which the first and the last are good; sizes may be nonsense."""
    src = np.frombuffer(b"".join(f for f, _ in group), np.uint8).copy()
    nbytes = i64([len(f) for f, _ in group])
    off = starts(nbytes)
    expected = i64([s for _, s in group])
    n = len(group)
    counts = [i64([0] * n) for _ in range(3)]
    status = statuses(n)
    run("blosc_walk_count", src, off, nbytes, expected, *counts, status)
    sizes = [s if ok else 0 for (_, s), ok in zip(group, status == 0, strict=True)]
    rows, again = decode_frames(run, [f for f, _ in group], sizes, 2)
    found = list(rows.rows())
    return [found[0], found[-1]], np.maximum(status, again)


def case_blosc_tables(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    """Tables that do not fit: nothing is written, a status is set."""
    n = 16
    good = {
        "dst": [0],
        "len": [n],
        "split": [0],
        "nsplits": [2],
        "split_src": [0, 8],
        "raw": [1, 0],
        "split_dst": [0, 8],
        "typesize": [2],
        "mode": [1],
    }
    big = np.iinfo(np.int64)
    changes: list[tuple[str, int]] = [
        (key, value)
        for key in ("dst", "len", "split", "nsplits", "split_src", "split_dst")
        for value in (-1, n + 1, 1 << 40, big.min, big.max)
    ]
    changes += [("typesize", 0), ("typesize", -1), ("nsplits", 0), ("nsplits", 3), ("len", 17)]
    for key, value in [("", 0), *changes]:
        table = {k: i64(v) for k, v in good.items()}
        table["raw"] = table["raw"].astype(np.uint8)
        if key:
            table[key][-1 if key == "split_dst" else 0] = value
        out, status = np.zeros(n, np.uint8), statuses(1)
        comp, scratch = np.arange(1, 17, dtype=np.uint8), np.arange(101, 117, dtype=np.uint8)
        head = [table[k] for k in ("dst", "len", "split", "nsplits", "split_src", "raw")]
        tail = [table[k] for k in ("split_dst", "typesize", "mode")]
        run("blosc_assemble", 2, comp, scratch, *head, *tail, out, words(out), status)
        if key:
            assert status.all(), (key, value)
            assert not out.any()
        else:
            assert not status.any()
            equal(out, np.stack([comp[:8], scratch[8:]]).T.reshape(-1))


def case_blosc_walk_tables(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    """A walk into tables that do not fit: they stay untouched, the row gets a status."""
    data = np.arange(1000, dtype="u2").view(np.uint8)
    frame = np.frombuffer(numcodecs.blosc.compress(data, b"zstd", 5, 1, 512, 2), np.uint8).copy()
    good = {
        "off": [0],
        "nbytes": [len(frame)],
        "expected": [len(data)],
        "dst_off": [64],
        "first_block": [1, 5],
        "first_split": [2, 6],
    }
    big = np.iinfo(np.int64)
    changes = [("", 0, 0)] + [
        (key, at, value)
        for key, values in good.items()
        for at in range(len(values))
        for value in (-1, 7, 1 << 40, big.min, big.max)
        if key != "dst_off" or value < 0  # any other place may be one, as far as a walk can tell
    ]
    for key, at, value in changes:
        table = {k: i64(v) for k, v in good.items()}
        if key:
            table[key][at] = value
        splits = [np.full(7, -9, np.int64) for _ in range(4)]
        raw = np.full(7, 9, np.uint8)
        blocks = [np.full(6, -9, np.int64) for _ in range(6)]
        status = statuses(1)
        run("blosc_walk_fill", frame, *table.values(), *splits, raw, *blocks, status)
        if not key:
            assert not status.any()
            assert (splits[2][2:6] == 64 + 512 * np.arange(4)).all()
            assert (blocks[1][1:5] == [512, 512, 512, 464]).all()
            assert (splits[0][[0, 1, 6]] == -9).all()
            assert (blocks[0][[0, 5]] == -9).all()
            continue
        assert status.all(), (key, at, value)
        for column in splits[:2] + blocks[:2]:
            assert ((column == -9) | (column == 0)).all(), (key, at, value)
        if key in {"off", "nbytes", "expected"}:
            counts = [i64([9]) for _ in range(3)]
            status[:] = 0
            rows = [table[k] for k in ("off", "nbytes", "expected")]
            run("blosc_walk_count", frame, *rows, *counts, status)
            assert status.all()
            assert [int(c[0]) for c in counts] == [0, 0, -1]
    place = int.from_bytes(frame[16:20].tobytes(), "little")
    for csize in (0, -1, -(2**31), 2**31 - 1, len(frame)):
        damaged = frame.copy()
        damaged[place : place + 4] = np.frombuffer(np.int32(csize).tobytes(), np.uint8)
        splits = [np.full(7, -9, np.int64) for _ in range(4)]
        blocks = [np.full(6, -9, np.int64) for _ in range(6)]
        status = statuses(1)
        tables = [i64(v) for v in good.values()]
        run("blosc_walk_fill", damaged, *tables, *splits, raw, *blocks, status)
        assert status.tolist() == [1]
        assert (blocks[1][1:5] == 0).all()
        assert (splits[1][2:6] == 0).all()
        assert (splits[3][2:6] == 0).all()


def shuffled(data: np.ndarray, typesize: int, mode: int) -> np.ndarray:
    """By NumPy: what Blosc makes of a block."""
    items = len(data) // typesize
    main = data[: items * typesize].reshape(items, typesize)
    if mode == 1:
        head = main.T.reshape(-1)
    elif mode == 2 and items % 8 == 0:
        bits = np.unpackbits(main, axis=1, bitorder="little")
        head = np.packbits(bits.T, axis=1, bitorder="little").reshape(-1)
    else:
        head = main.reshape(-1)
    return np.concatenate([head, data[items * typesize :]])


def case_shuffle(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    """Shuffle, compare with NumPy, and take back."""
    for tpr in scale.tprs:
        for with_words in (True, False):
            n = scale.pick(6, 40)
            typesize = rng.choice([1, 2, 3, 4, 5, 8, 8, 16, 17, 255], n)
            mode = rng.integers(0, 3, n)
            items = rng.choice([0, 1, 7, 8, 16, 40, scale.pick(9, 1024)], n)
            sizes = items * typesize + rng.integers(0, 2, n) * rng.integers(0, typesize, n)
            src = rng.integers(0, 256, int(sizes.sum()) + 5, np.uint8)
            at = starts(sizes) + 5
            rows, status = Rows(sizes, align=int(rng.choice([1, 8]))), statuses(n)
            tables = i64(typesize), i64(mode)
            run("shuffle_blocks", tpr, src, at, i64(sizes), *tables, rows.data, rows.start, status)
            assert not status.any()
            rows.check_guards()
            for i, row in enumerate(rows.rows()):
                data = src[at[i] : at[i] + sizes[i]]
                equal(row, shuffled(data, int(typesize[i]), int(mode[i])), f"{typesize[i]}")
            back = Rows(sizes, align=int(rng.choice([1, 8])))
            index = np.arange(n)
            run(
                "blosc_assemble",
                tpr,
                rows.data,
                rows.data[:0],
                back.start,
                back.sizes,
                index,
                np.ones(n, np.int64),
                rows.start,
                np.ones(n, np.uint8),
                np.zeros(n, np.int64),
                *tables,
                back.data,
                words(back.data) if with_words else words(back.data[:0]),
                status,
            )
            assert not status.any()
            back.check_guards()
            for i, row in enumerate(back.rows()):
                equal(row, src[at[i] : at[i] + sizes[i]], f"{typesize[i]} {mode[i]} {items[i]}")
    for key, value in ((0, -1), (0, 9), (1, -1), (1, 9), (2, 0), (2, -1), (4, -1), (4, 9)):
        table = [i64([v]) for v in (0, 8, 2, 1, 0)]
        table[key][0] = value
        out, status = np.zeros(8, np.uint8), statuses(1)
        src = np.ones(8, np.uint8)
        run("shuffle_blocks", 2, src, *table[:4], out, table[4], status)
        assert status.all()
        assert not out.any()


# streams


def lz4_block(data: np.ndarray) -> bytes:
    return numcodecs.lz4.compress(data)[4:]


def blosclz_streams(rng: np.random.Generator, nbytes: int) -> list[tuple[bytes, int]]:
    """(stream, decoded size), out of a Blosc frame of random data."""
    data = payload(rng, nbytes, int(rng.choice([0, 3])))
    block = int(rng.choice([0, 5000]))
    return blosclz_split(numcodecs.blosc.compress(data, b"blosclz", 9, 0, block, 1))


def blosclz_split(frame: bytes) -> list[tuple[bytes, int]]:
    """The streams of a frame of elements of one byte."""
    size, block, cbytes = (int.from_bytes(frame[i : i + 4], "little") for i in (4, 8, 12))
    assert cbytes == len(frame)
    if frame[2] & 2 or not size:
        return []
    found = []
    for b in range(-(-size // block)):
        at = int.from_bytes(frame[16 + 4 * b : 20 + 4 * b], "little")
        length = min(block, size - b * block)
        csize = int.from_bytes(frame[at : at + 4], "little")
        if csize != length:
            found.append((frame[at + 4 : at + 4 + csize], length))
    return found


def blosclz_reference(stream: bytes, size: int) -> np.ndarray | None:
    """By c-blosc: the stream as the only split of a frame."""
    frame = bytes([2, 1, 16, 1])
    for number in (size, size, 24 + len(stream), 20, len(stream)):
        frame += number.to_bytes(4, "little")
    out = np.zeros(size, np.uint8)
    try:
        numcodecs.blosc.decompress(frame + stream, out)
    except RuntimeError:
        return None
    return out


def lz4_reference(stream: bytes, size: int) -> np.ndarray | None:
    """By liblz4."""
    out = np.zeros(size, np.uint8)
    try:
        numcodecs.lz4.decompress(size.to_bytes(4, "little") + stream, out)
    except (RuntimeError, ValueError):
        return None
    return out


def decode_streams(
    run: Run, name: str, streams: list[tuple[bytes, int]]
) -> tuple[Rows, np.ndarray]:
    src = np.frombuffer(b"".join(s for s, _ in streams) or b"\0", np.uint8).copy()
    nbytes = i64([len(s) for s, _ in streams])
    rows, status = Rows([n for _, n in streams]), statuses(len(streams))
    run(name, src, starts(nbytes), nbytes, rows.data, rows.start, rows.sizes, status)
    rows.check_guards()
    return rows, status


def case_lz4(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    sizes = rng.integers(1, scale.pick(60, 70_000), scale.pick(12, 60))
    data = [payload(rng, int(n), i % 4) for i, n in enumerate(sizes)]
    rows, status = decode_streams(run, "lz4_decode", [(lz4_block(d), len(d)) for d in data])
    assert not status.any()
    for row, wanted in zip(rows.rows(), data, strict=True):
        equal(row, wanted)
    # The literal "a", then a run of 19 of it, then 5 literals; and what must be refused.
    run_of_a = bytes([0x1F, ord("a"), 1, 0, 0, 0x50]) + b"bcdef"
    good = [(run_of_a, 25), (b"\0", 0), (b"\x10x", 1)]
    bad = [
        (run_of_a, 24),
        (run_of_a, 26),
        (run_of_a[:-1], 25),
        (run_of_a[:2] + b"\0" + run_of_a[3:], 25),  # distance 0
        (run_of_a[:2] + b"\2" + run_of_a[3:], 25),  # before the beginning
        (b"\xf0" + b"\xff" * 20, 10_000),  # a length without end
        (b"\x1fa\1\0" + b"\xff" * 20, 10_000),
        (b"", 0),
        (b"\x10", 1),
        (b"\0\0\0", 0),
    ]
    rows, status = decode_streams(run, "lz4_decode", [*good, *bad])
    assert (status != 0).tolist() == [False] * len(good) + [True] * len(bad)
    equal(next(rows.rows()), np.frombuffer(b"a" * 20 + b"bcdef", np.uint8))
    # Where a block may end: the last 5 bytes are literals, a match begins 12 bytes before the end.
    ends = [(bytes([0x1F, ord("a"), 1, 0, 0, n << 4]) + b"b" * n, 20 + n) for n in range(10)]
    ends += [(bytes([0x10, ord("a"), 1, 0, n << 4]) + b"b" * n, 5 + n) for n in range(4, 12)]
    rows, status = decode_streams(run, "lz4_decode", ends)
    for (block, n), row, bad in zip(ends, rows.rows(), status, strict=True):
        wanted = lz4_reference(block, n)
        assert (wanted is None) == bool(bad), block.hex()
        if wanted is not None:
            equal(row, wanted)
    assert 0 < int((status != 0).sum()) < len(ends)


def case_blosclz(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    streams = []
    for _ in range(scale.pick(6, 60)):
        streams += blosclz_streams(rng, int(rng.integers(200, scale.pick(600, 150_000))))
    # Distances of more than 8,191 bytes: literals, three matches of 3 bytes, a literal.
    noise = rng.integers(0, 256, 9600, np.uint8)
    far = b"".join(b"\x1f" + noise[i : i + 32].tobytes() for i in range(0, 9600, 32))
    for distance in (8192, 8193, 9600):
        far += b"\x3f\xff" + (distance - 8192).to_bytes(2, "big")
    streams.append((far + b"\0z", 9600 + 3 * 3 + 1))
    assert len(streams) > 2
    rows, status = decode_streams(run, "blosclz_decode", streams)
    assert not status.any()
    for row, (stream, n) in zip(rows.rows(), streams, strict=True):
        equal(row, blosclz_reference(stream, n))
    a_run = bytes([0x20, ord("a"), 0xE0, 3, 0, 0]) + b"b"
    far = bytes([0x20, ord("a"), 0x3F, 0xFF, 0, 0, 0]) + b"b"
    rows, status = decode_streams(
        run,
        "blosclz_decode",
        [
            (a_run, 14),
            (a_run, 13),
            (a_run, 15),
            (a_run[:-1], 13),
            (a_run[:-2], 1),  # ends in the middle of a match
            (far, 5),
            (b"", 0),
            (b"\0", 1),
            (b"\0a\x20\0", 1),  # the same, by one byte
        ],
    )
    assert (status != 0).tolist() == [False] + [True] * 8
    equal(next(rows.rows()), np.frombuffer(b"a" * 13 + b"b", np.uint8))


def case_streams_out_of_bounds(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    big = np.iinfo(np.int64)
    for name, stream in (("lz4_decode", b"\x40abcd"), ("blosclz_decode", b"\x03abcd")):
        for argument in range(4):
            for value in (-1, 40, 1 << 50, big.min, big.max):
                table = [i64([v]) for v in (0, 5, 8, 4)]
                table[argument][0] = value
                out, status = np.full(20, GUARD, np.uint8), statuses(1)
                src = np.frombuffer(stream, np.uint8).copy()
                run(name, src, *table[:2], out, *table[2:], status)
                assert status.tolist() == [1 if argument < 2 else 2]
                assert (out == GUARD).all()


# number filters


def numbers(rng: np.random.Generator, dtype: Any, n: int) -> np.ndarray:
    """Values over the whole range of a type, small ones, and odd floats."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        values = (rng.normal(0, 1, n) * 10.0 ** rng.integers(-3, 4, n)).astype(dtype)
        odd = [0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -0.5, 1.5, 2.5, 1e-40, 3e9, -1e19, 1e38]
        where = rng.random(n) < 0.1
        values[where] = rng.choice(np.array(odd, dtype), int(where.sum()))
        return values
    info = np.iinfo(dtype)
    if n == 1:  # the largest, and by one float32 more than halfway between two of them
        return np.array([info.max if rng.random() < 0.5 else (2**60 + 2**36 + 1) & info.max], dtype)
    wide = rng.integers(info.min, info.max, n, dtype, endpoint=True)
    narrow = rng.integers(0, 50, n).astype(dtype)
    return np.where(rng.random(n) < 0.5, wide, narrow).astype(dtype)


INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
NUMBERS = (*INTEGERS, "f4", "f8")


def pairs_of(scale: Scale, types: Any, chosen: str) -> list[tuple[Any, Any]]:
    """Pairs of data types: those named in ``chosen``, or all."""
    if scale.full or scale.simulated:
        return [(np.dtype(a), np.dtype(b)) for a in types for b in types]
    return [(np.dtype(pair[:2]), np.dtype(pair[2:])) for pair in chosen.split()]


def run_rule(
    run: Run, rule: rules.Rule, rows_in: list[np.ndarray], dtype: Any, tpr: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows through the kernel of a rule."""
    n = len(rows_in)
    sizes = i64([len(r) for r in rows_in])
    src = Rows(sizes, rows_in[0].dtype)
    for row, values in zip(src.rows(), rows_in, strict=True):
        row[:] = values
    dst = Rows(sizes[::-1].copy(), dtype)  # not where the source has its rows
    start, items = dst.start[::-1].copy(), sizes
    status = statuses(n)
    args = [src.data.view(rule.src), dst.data.view(rule.dst), src.start, start, items]
    names = registry.get(rule.kernel).arguments
    more: list[Any] = list(rule.scalars)
    if "sums" in names:
        sums = np.zeros(n * tpr if tpr > 1 else 0, np.uint64)
        if tpr > 1:
            run("delta_sums", tpr, args[0], src.start, items, rule.scalars[0], sums, status)
        more.append(sums)
    head = [tpr] if "tpr" in names else []
    run(rule.kernel, *head, *args, *more, status)
    dst.check_guards()
    return [dst.data[a : a + m] for a, m in zip(start, items, strict=True)], status


def filter_rows(rng: np.random.Generator, dtype: Any, scale: Scale) -> list[np.ndarray]:
    return [numbers(rng, dtype, n) for n in (1, 5, scale.pick(12, 700), 0, 1, 1, 1)]


def case_delta(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    pairs = pairs_of(scale, NUMBERS, "u8i8 i2i1 u4u2 i4i4 i8i4 f4f4 f8f8 f8i4 f4i2")
    done = 0
    for decoded, stored in pairs:
        codec = numcodecs.Delta(decoded, stored)
        with np.errstate(all="ignore"):
            rule = rules.delta_decode(decoded, stored)
            rows = filter_rows(rng, stored, scale)
            tpr = int(rng.choice(scale.tprs))
            if rule is not None:
                got, status = run_rule(run, rule, rows, decoded, tpr)
                assert not status.any()
                for row, out in zip(rows, got, strict=True):
                    equal_numbers(out, codec.decode(row.copy()), f"{decoded} {stored} decode")
                done += 1
            rule = rules.delta_encode(decoded, stored)
            if rule is None:
                continue
            rows = [row for row in filter_rows(rng, decoded, scale) if len(row)]
            got, status = run_rule(run, rule, rows, stored, tpr)
            for row, out, bad in zip(rows, got, status, strict=True):
                try:
                    wanted = codec.encode(row)
                except OverflowError:
                    assert bad == 1
                    continue
                assert bad == 0, (decoded, stored, row[:1])
                equal_numbers(out, wanted, f"{decoded} {stored} encode")
    assert done > len(pairs) // 2


def equal_numbers(got: np.ndarray, wanted: np.ndarray, what: str) -> None:
    """Bit by bit, but for NaN: which NaN arithmetic yields is the machine's choice."""
    assert got.dtype == wanted.dtype, (what, got.dtype, wanted.dtype)
    if got.dtype.kind == "f":
        nan = np.isnan(got)
        assert (nan == np.isnan(wanted)).all(), what
        got, wanted = np.where(nan, 0, got), np.where(nan, 0, wanted)
    equal(got, wanted, what)


def case_cast(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    for a, b in pairs_of(scale, NUMBERS, "i8f4 u8f8 f8u1 f4i4 f8u8 f4f8 f8f4 i4i2 u2i8"):
        rule = rules.cast(a, b)
        assert rule is not None
        rows = filter_rows(rng, a, scale)
        with np.errstate(all="ignore"):
            if a.kind == "f":
                rows = [np.where(defined(r, b), r, 1).astype(a) for r in rows]
            got, status = run_rule(run, rule, rows, b, int(rng.choice(scale.tprs)))
            assert not status.any()
            for row, out in zip(rows, got, strict=True):
                equal_numbers(out, row.astype(b), f"{a} to {b}")


ON_X86 = platform.machine() in {"x86_64", "AMD64"}


def defined(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Where a cast of floats can be told: in range, and on x86-64 mostly beyond it as well."""
    if dtype.kind == "f" or (ON_X86 and dtype != np.uint32):
        return np.ones(values.shape, bool)
    info = np.iinfo(dtype)
    return (values > float(info.min) - 1) & (values < float(info.max))


def case_fixedscaleoffset(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    done = [0, 0]
    factors: list[tuple[float, float]] = [(10, 1), (0.1, 1000), (3, -2.5), (1e3, 0), (7.7, 1e5)]
    pairs = pairs_of(scale, NUMBERS, "f4f4 f8f8 f4i2 f8u1 i4f8")
    for i, (decoded, stored) in enumerate(2 * pairs + pairs[:2]):
        factor, offset = factors[(i + i // len(pairs)) % len(factors)]
        codec = numcodecs.FixedScaleOffset(offset, factor, decoded, stored)
        tpr = int(rng.choice(scale.tprs))
        for way, src, dst in ((0, stored, decoded), (1, decoded, stored)):
            make = (rules.scale_decode, rules.scale_encode)[way]
            rule = make(decoded, stored, factor, offset)
            if rule is None:
                continue
            rows = filter_rows(rng, src, scale)
            with np.errstate(all="ignore"):
                got, status = run_rule(run, rule, rows, dst, tpr)
                assert not status.any()
                for row, out in zip(rows, got, strict=True):
                    wanted = codec.encode(row) if way else codec.decode(row)
                    exact = (row - offset) * factor if way else row / factor + offset
                    sure = defined(np.float64(exact), dst)
                    what = f"{decoded} {stored} {factor} {offset} {way}"
                    equal_numbers(out[sure], wanted[sure], what)
            done[way] += 1
    assert min(done) > 1


def case_filters_out_of_bounds(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    one = np.dtype("f4")
    two = np.dtype("u2")
    found = [
        rules.cast(one, two),
        rules.cast(two, two),
        rules.delta_decode(two, two),
        rules.delta_decode(one, one),
        rules.delta_encode(two, two),
        rules.delta_encode(one, one),
        rules.scale_decode(one, two, 2, 1.0),
        rules.scale_encode(one, two, 2, 1.0),
    ]
    big = np.iinfo(np.int64)
    for rule in found:
        assert rule is not None
        names = registry.get(rule.kernel).arguments
        for argument in range(3):
            for value in (-1, 9, 1 << 50, big.min, big.max):
                table = [i64([0, v]) for v in (4, 4, 4)]
                table[2][0] = 4
                table[argument][1] = value
                src, dst = np.ones(8, rule.src), np.full(8, 77, rule.dst)
                more = [*rule.scalars, *([np.zeros(0, np.uint64)] if "sums" in names else [])]
                head = [1] if "tpr" in names else []
                status = statuses(2)
                run(rule.kernel, *head, src, dst, *table, *more, status)
                assert status.tolist() == [0, 2 if argument == 1 else 1], (rule, argument, value)
                assert (dst[4:] == 77).all()
    status = statuses(1)
    row = i64([0]), i64([0]), i64([8])
    sums = np.zeros(1, np.uint64)
    run("delta_decode", 2, np.ones(8, "u2"), np.ones(8, "u2"), *row, 0, sums, status)
    assert status.all()
    status[:] = 0
    run("delta_sums", 2, np.ones(8, "u2"), row[0], row[2], 0, sums, status)
    assert status.all()


def case_packbits(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    codec = numcodecs.PackBits()
    for tpr in scale.tprs:
        rows = [rng.random(int(n)) < 0.5 for n in (0, 1, 7, 8, 9, 16, scale.pick(20, 1001))]
        wanted = [codec.encode(r) for r in rows]
        sizes = i64([len(r) for r in rows])
        flat = np.concatenate(rows).view(np.uint8) * np.uint8(3)
        enc, status = Rows([len(w) for w in wanted]), statuses(len(rows))
        run("packbits_encode", tpr, flat, starts(sizes), sizes, enc.data, enc.start, status)
        assert not status.any()
        enc.check_guards()
        for row, data in zip(enc.rows(), wanted, strict=True):
            equal(row, data)
        dec = Rows(sizes)
        args = (enc.data, enc.start, enc.sizes, dec.data, dec.start)
        run("packbits_decode", tpr, *args, sizes, status)
        assert not status.any()
        dec.check_guards()
        for row, data in zip(dec.rows(), rows, strict=True):
            equal(row, data.view(np.uint8))
    for argument, value, bad in (
        (0, -1, 1),
        (0, 2, 1),
        (1, 0, 1),
        (1, -1, 1),
        (1, 1, 1),
        (2, -1, 2),
        (2, 3, 2),
        (3, -1, 2),
        (3, 6, 1),
        (3, 8, 2),
    ):
        table = [i64([v]) for v in (0, 2, 0, 5)]
        table[argument][0] = value
        out, status = np.zeros(7, np.uint8), statuses(1)
        src = np.array([3, 255], np.uint8)
        run("packbits_decode", 1, src, *table[:2], out, *table[2:], status)
        assert status.tolist() == [bad], (argument, value)
        assert not out.any()
    for argument, value, bad in (
        (0, -1, 1),
        (0, 1, 1),
        (1, -1, 1),
        (1, 9, 1),
        (2, -1, 2),
        (2, 6, 2),
    ):
        table = [i64([v]) for v in (0, 8, 0)]
        table[argument][0] = value
        out, status = np.zeros(7, np.uint8), statuses(1)
        run("packbits_encode", 1, np.ones(8, np.uint8), *table[:2], out, table[2], status)
        assert status.tolist() == [bad], (argument, value)
        assert not out.any()


# checksums


def case_crc(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    import google_crc32c
    from zarr_gpu.kernels.checksums import crc_tables

    kinds = {
        0xEDB88320: zlib.crc32,
        0x82F63B78: lambda data: google_crc32c.value(data.tobytes()),
    }
    for polynomial, reference in kinds.items():
        table, powers = crc_tables(polynomial)
        for tpr in scale.tprs:
            sizes = i64([0, 1, 7, 8, 9, 63, scale.pick(100, 5001)])
            src = rng.integers(0, 256, int(sizes.sum()) + 3, np.uint8)
            off = starts(sizes) + 3
            n = len(sizes)
            parts, out = np.full(n * tpr, 9, np.uint32), np.zeros(n, np.uint32)
            status = statuses(n)
            full = 0xFFFFFFFF
            run("crc_rows", tpr, src, off, sizes, table, powers, full, parts, status)
            run("crc_join", tpr, parts, full, out)
            assert not status.any()
            for a, m, crc in zip(off, sizes, out, strict=True):
                assert int(crc) == reference(src[a : a + m]), (polynomial, tpr, m)
    for off0, size in ((-1, 2), (3, 2), (0, -1), (0, 5), (0, 1 << 62)):
        status = statuses(2)
        parts = np.zeros(2, np.uint32)
        row = i64([off0, 0]), i64([size, 1])
        run("crc_rows", 1, np.ones(4, np.uint8), *row, table, powers, 0, parts, status)
        assert status.tolist() == [1, 0]
    run("crc_rows", 2, src[:4], i64([0]), i64([4]), table, powers, 0, parts[:1], status)
    assert status[0] == 1


def case_adler32(run: Run, rng: np.random.Generator, scale: Scale) -> None:
    for tpr in scale.tprs:
        sizes = i64([0, 1, 2, 63, scale.pick(100, 70_000)])
        src = rng.integers(0, 256, int(sizes.sum()) + 3, np.uint8)
        if not scale.simulated:
            src[-60_000:] = 255
        off = starts(sizes) + 3
        n = len(sizes)
        parts, out, status = i64([9] * (2 * n * tpr)), np.zeros(n, np.uint32), statuses(n)
        run("adler32_rows", tpr, src, off, sizes, parts, status)
        run("adler32_join", tpr, sizes, parts, out)
        assert not status.any()
        for a, m, value in zip(off, sizes, out, strict=True):
            assert int(value) == zlib.adler32(src[a : a + m]), (tpr, m)
    for off0, size in ((-1, 2), (3, 2), (0, -1), (0, 5), (0, 1 << 62)):
        status = statuses(2)
        row = i64([off0, 0]), i64([size, 1])
        run("adler32_rows", 1, np.ones(4, np.uint8), *row, i64([0] * 4), status)
        assert status.tolist() == [1, 0]


CASES: dict[str, Callable[[Run, np.random.Generator, Scale], None]] = {
    name.removeprefix("case_"): value
    for name, value in list(globals().items())
    if name.startswith("case_")
}


def run_case(name: str, run: Run, *, simulated: bool) -> None:
    """One case, always with the same random numbers."""
    seed = zlib.crc32(name.encode())
    CASES[name](run, np.random.default_rng(seed), Scale(simulated=simulated))


def main() -> None:
    results = {}
    for name in sys.argv[1:] or CASES:
        begin = time.perf_counter()
        try:
            run_case(name, run_simulated, simulated=True)
        except Exception:
            results[name] = traceback.format_exc()
        else:
            results[name] = "ok"
        print(f"{name}: {time.perf_counter() - begin:.2f} s", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
