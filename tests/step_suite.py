"""What the tests of the device steps share: batches of encoded rows and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from zarr_gpu.codecs.base import ChunkSpec, Codec
from zarr_gpu.codecs.chain import Program, compile_program, make_chain
from zarr_gpu.codecs.device_steps import make_steps
from zarr_gpu.codecs.registry import get_codec_class
from zarr_gpu.codecs.runtime import DeviceBatch, Runtime, Verdicts
from zarr_gpu.devices.sim_runtime import SimRuntime
from zarr_gpu.errors import CodecError

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"


def examples(few: int, many: int = 2000) -> int:
    """How many random cases to run: ``many`` with ``HYPOTHESIS_PROFILE=full``."""
    return many if FULL else few


def codec(name: str, **config: Any) -> Codec:
    return get_codec_class(name).from_config(config)


def program(codecs: Sequence[Codec], shape: tuple[int, ...], dtype: Any) -> Program:
    if not any(c.name == "bytes" for c in codecs):
        codecs = [codec("bytes", endian="little"), *codecs]
    spec = ChunkSpec(shape, np.dtype(dtype))
    return compile_program(make_chain(codecs), spec, variable_limit=1 << 31)


def as_batch(runtime: Runtime, rows: Sequence[np.ndarray], *, at_hand: bool = True) -> DeviceBatch:
    """Rows at odd places of one buffer, whose gaps hold what no decoder should read."""
    nbytes = np.array([len(row) for row in rows], np.int64)
    offset = np.cumsum(nbytes + 5) - nbytes
    host = np.full(int(nbytes.sum()) + 5 * len(rows) + 11, 0xEE, np.uint8)
    for at, row in zip(offset.tolist(), rows, strict=True):
        host[at : at + len(row)] = row
    device = runtime.upload(host)
    runtime.counts.clear()
    return DeviceBatch(device, offset, nbytes, host if at_hand else None)


def rows_of(batch: DeviceBatch) -> list[np.ndarray]:
    assert batch.base is not None
    pairs = list(zip(batch.offset.tolist(), batch.nbytes.tolist(), strict=True))
    assert all(0 <= at <= at + size <= len(batch.base) for at, size in pairs)
    parts = [batch.base[at : at + size] for at, size in pairs]
    return [part.copy() if isinstance(part, np.ndarray) else part.get() for part in parts]


class Outcome:
    """What decoding a batch came to."""

    def __init__(self, batch: DeviceBatch, verdicts: Verdicts, runtime: Runtime) -> None:
        self.rows = rows_of(batch)
        self.verdicts = verdicts
        self.counts = dict(runtime.counts)
        self.bad = set(verdicts.on_host)
        for _, status, rows in verdicts.on_device:
            assert status.dtype == np.int32
            assert len(status) == len(rows)
            self.bad |= set(rows[status != 0].tolist())


def decode_sizes(prog: Program) -> list[int]:
    return [spec.nbytes for _, spec in prog.arrays] + [step.limit for step in prog.steps]


def decode(
    prog: Program,
    rows: Sequence[np.ndarray],
    *,
    nvcomp: bool = True,
    at_hand: bool = True,
    runtime: SimRuntime | None = None,
) -> Outcome:
    """All steps of a program over rows of encoded bytes."""
    runtime = runtime or SimRuntime()
    if not nvcomp:
        runtime.nvcomp = None
    batch = as_batch(runtime, rows, at_hand=at_hand)
    encoded, before, verdicts = batch.base, batch.base.copy(), Verdicts()
    for step, size in zip(reversed(make_steps(prog)), reversed(decode_sizes(prog)), strict=True):
        batch = step.decode(runtime, batch, size, verdicts)
        assert len(batch) == len(rows)
    assert (encoded == before).all()  # encoded bytes are nobody's to change
    return Outcome(batch, verdicts, runtime)


def encode(
    prog: Program, rows: Sequence[np.ndarray], *, nvcomp: bool = True
) -> tuple[list[np.ndarray], dict[str, int]]:
    """(encoded rows, counts)."""
    runtime = SimRuntime()
    if not nvcomp:
        runtime.nvcomp = None
    batch = as_batch(runtime, rows, at_hand=False)
    given, before = batch.base, batch.base.copy()
    for step in make_steps(prog):
        batch = step.encode(runtime, batch)
        assert len(batch) == len(rows)
    assert (given == before).all()
    return rows_of(batch), dict(runtime.counts)


def cpu_decode(prog: Program, data: np.ndarray) -> np.ndarray | None:
    """Decoded bytes by the CPU codecs, None where they refuse."""
    try:
        if prog.arrays:
            return np.ascontiguousarray(prog.decode(data)).reshape(-1).view(np.uint8)
        return prog.decode_bytes(data)
    except CodecError:
        return None


def payload(rng: np.random.Generator, nbytes: int, kind: int | None = None) -> np.ndarray:
    """Bytes of several characters: smooth, random, constant, mixed."""
    kind = int(rng.integers(4)) if kind is None else kind
    if kind == 0:
        steps = rng.integers(0, 4, -(-nbytes // 4))
        return (np.cumsum(steps) // 2).astype("<i4").view("u1")[:nbytes]
    if kind == 1:
        return rng.integers(0, 256, nbytes, "u1")
    if kind == 2:
        return np.full(nbytes, rng.integers(256), "u1")
    data = np.repeat(rng.integers(0, 256, nbytes // 9 + 1, "u1"), 9)[:nbytes].copy()
    data[nbytes // 2 :] = 0
    return data
