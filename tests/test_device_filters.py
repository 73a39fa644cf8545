"""Delta and fixedscaleoffset on the stand-in device against NumPy, bit for bit."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="platform: Numba is not installed")

from step_suite import FULL, codec, cpu_decode, decode, encode, program

from zarr_gpu.errors import CodecError, MetadataError

NUMBERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
PAIRS = [
    *((a, a) for a in NUMBERS),
    *(("i4", "i1"), ("i2", "i4"), ("u8", "u2"), ("i8", "u4"), ("f4", "f8"), ("f8", "f4")),
    *(("f4", "i2"), ("f8", "i4"), ("f8", "u1"), ("i8", "f8"), ("i1", "u8"), ("f2", "f4")),
]
if FULL:
    PAIRS = list(product((*NUMBERS, "f2"), repeat=2))


def numbers(rng: np.random.Generator, dtype: np.dtype[Any], count: int) -> np.ndarray:
    """Values of every size; for floats, those that integers of 16 bits hold, and a few others."""
    if dtype.kind != "f":
        return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype.newbyteorder("="))
    values = rng.integers(-9000, 9000, count) / 8
    values[rng.integers(0, count, 3)] = (-0.0, 0.0, 0.25)
    return values.astype(dtype.newbyteorder("="))


def filters(decoded: str, stored: str, order: str) -> list[Any]:
    """Programs with a filter of these types in either place, for elements of either byte order."""
    types = {"dtype": order + decoded, "astype": order + stored}
    made = [codec("numcodecs.delta", **types)]
    for scale, offset in ((10, 0), (0.5, 1.5), (0.1, 1000)):
        made.append(codec("numcodecs.fixedscaleoffset", **types, scale=scale, offset=offset))
    found = []
    for each, endian in product(made, ("little", "big")):
        serializer = codec("bytes", endian=endian)
        for chain in ([each, serializer], [serializer, each]):
            if serializer is chain[0] and (endian == "big") != (order == ">"):
                continue  # bytes behind the serializer are in its byte order
            try:
                found.append(program(chain, (321,), decoded))
            except (MetadataError, CodecError):
                continue
    return found


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("decoded", "stored"), PAIRS)
def test_filters(decoded: str, stored: str, order: str) -> None:
    """Bit for bit what NumPy does, on the device or not."""
    rng = np.random.default_rng(8)
    for prog in filters(decoded, stored, order):
        count = prog.spec.shape[0]
        values = [numbers(rng, prog.spec.dtype, count) for _ in range(3)]
        try:
            encoded = [prog.encode(value) for value in values]
        except CodecError:
            with pytest.raises(CodecError):
                encode(prog, given(prog, values))
            continue
        kept = [row for row in encoded if not wild(prog, row)]
        outcome = decode(prog, kept)
        assert not outcome.bad
        expected = [cpu_decode(prog, row) for row in kept]
        assert all((a == b).all() for a, b in zip(outcome.rows, expected, strict=True)), prog.codecs
        if not any(wild_encode(prog, value) for value in values):
            found, _ = encode(prog, given(prog, values))
            assert all((a == b).all() for a, b in zip(found, encoded, strict=True)), prog.codecs


def given(prog: Any, values: list[np.ndarray]) -> list[np.ndarray]:
    """Rows that the first step to encode takes."""
    if prog.arrays:
        return [value.view("u1") for value in values]
    return [prog.serializer.encode(value, prog.serial_spec) for value in values]


def scaling(prog: Any) -> Any | None:
    """The fixedscaleoffset of a program, in either place."""
    codecs = [c for c, _ in prog.arrays] + [getattr(s.codec, "codec", None) for s in prog.steps]
    return next((c for c in codecs if hasattr(c, "scale")), None)


def wild(prog: Any, row: np.ndarray) -> bool:
    """Whether a float must become an integer that cannot hold it: C leaves open what happens."""
    found = scaling(prog)
    if found is None or prog.spec.dtype.kind == "f":
        return False
    stored = prog.serializer.stored_dtype(prog.serial_spec.dtype) if prog.arrays else found.astype
    with np.errstate(all="ignore"):
        return beyond(row.view(stored) / found.scale + found.offset, found.dtype)


def wild_encode(prog: Any, value: np.ndarray) -> bool:
    found = scaling(prog)
    if found is None or found.astype.kind == "f":
        return False
    with np.errstate(all="ignore"):
        exact = np.around((value - found.offset) * found.scale)
    return exact.dtype.kind == "f" and beyond(exact, found.astype)


def beyond(exact: np.ndarray, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    wide = exact.astype("f8")
    return not ((wide >= limits.min) & (wide <= limits.max)).all()


def test_rows_of_wrong_sizes() -> None:
    prog = program(
        [codec("bytes", endian="little"), codec("numcodecs.delta", dtype="<i4", astype="<i2")],
        (100,),
        "<i4",
    )
    good = np.arange(100, dtype="<i4")
    rows = [prog.encode(good), np.zeros(199, "u1"), np.zeros(202, "u1"), np.zeros(0, "u1")]
    outcome = decode(prog, rows)
    assert outcome.bad == {1, 2, 3}
    assert (outcome.rows[0].view("<i4") == good).all()


def test_a_first_element_that_cannot_be_stored() -> None:
    prog = program(
        [codec("bytes", endian="little"), codec("numcodecs.delta", dtype="<i4", astype="i1")],
        (4,),
        "<i4",
    )
    with pytest.raises(CodecError, match="int8"):
        encode(prog, [np.array([1000, 1001, 1002, 1003], "<i4").view("u1")])


def test_filters_in_front_of_compressors() -> None:
    rng = np.random.default_rng(0)
    chain = [
        codec("numcodecs.delta", dtype="<i4"),
        codec("numcodecs.fixedscaleoffset", scale=2, offset=0, dtype="<i4", astype="<f8"),
        codec("bytes", endian="big"),
        codec("numcodecs.shuffle", elementsize=8),
        codec("blosc", typesize=8, cname="zstd"),
        codec("crc32c"),
    ]
    prog = program(chain, (50, 30), "<i4")
    values = [rng.integers(-1000, 1000, (50, 30)).astype("<i4") for _ in range(9)]
    encoded = [prog.encode(value) for value in values]
    outcome = decode(prog, encoded)
    assert not outcome.bad
    for row, value in zip(outcome.rows, values, strict=True):
        assert (row.view("<i4") == value.reshape(-1)).all()
    found, _ = encode(prog, [value.reshape(-1).view("u1") for value in values])
    for row, value in zip(found, values, strict=True):
        assert (prog.decode(row) == value).all()
