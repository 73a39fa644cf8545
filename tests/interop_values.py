"""Data types for the exchange with other implementations, and values of them.

Every type is known by its names in both formats; values and fill values are random but seeded, and
hold what is easily lost: NaN, infinities, -0.0, subnormals, NaT, empty and long text.  Documents'
fill values are spelled here after the specification, not by the package under test.
"""

from __future__ import annotations

import base64
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]

SEED = int(os.environ.get("ZARR_GPU_INTEROP_SEED", "6"))
"""Of all cases; another one gives other cases."""


@dataclass(frozen=True)
class Kind:
    """A data type under its names in both formats."""

    name: str
    numpy: np.dtype[Any]  # of values, in native byte order
    v3: Any = None  # data_type; None where v3 has no such type
    v2: Any = None  # dtype of a little-endian array; None as above
    vlen: str | None = None  # object codec

    @property
    def is_number(self) -> bool:
        return self.numpy.kind in "biufc"


def _number(name: str) -> Kind:
    numpy = np.dtype(name)
    return Kind(name, numpy, name, numpy.newbyteorder("<").str)


def _sized(name: str, code: str, v3: str) -> Kind:
    numpy = np.dtype(code)
    v3_type = {"name": v3, "configuration": {"length_bytes": numpy.itemsize}}
    return Kind(name, numpy, v3_type, numpy.newbyteorder("<").str)


def _time(name: str, code: str, v3: str) -> Kind:
    numpy = np.dtype(code)
    unit, scale = np.datetime_data(numpy)
    v3_type = {"name": v3, "configuration": {"unit": unit, "scale_factor": scale}}
    return Kind(name, numpy, v3_type, numpy.newbyteorder("<").str)


def _descr(fields: list[Any]) -> list[Any]:
    return [(n, _descr(t) if isinstance(t, list) else t, *map(tuple, s)) for n, t, *s in fields]


def _struct(name: str, v2: list[Any], v3: list[Any] | None = None) -> Kind:
    v3_type = None if v3 is None else {"name": "structured", "configuration": {"fields": v3}}
    return Kind(name, np.dtype(_descr(v2)), v3_type, v2)


NUMBERS = [
    *map(_number, ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]),
    *map(_number, ["uint64", "float16", "float32", "float64", "complex64", "complex128"]),
]
OTHERS = [
    _time("datetime", "<M8[ns]", "numpy.datetime64"),
    _time("datetime-10s", "<M8[10s]", "numpy.datetime64"),
    _time("timedelta", "<m8[us]", "numpy.timedelta64"),
    _sized("fixed-bytes", "S5", "null_terminated_bytes"),
    _sized("text", "<U4", "fixed_length_utf32"),
    _sized("raw", "V7", "raw_bytes"),
    _struct(
        "struct",
        [["a", "<i4"], ["b", "<f8"], ["c", "|b1"]],
        [["a", "int32"], ["b", "float64"], ["c", "bool"]],
    ),
    _struct("struct-mixed", [["x", ">i2"], ["y", "<f4"], ["z", "|S3"]]),
    _struct("struct-nested", [["p", [["q", "<u2"], ["r", ">f8"]]], ["s", "|u1"]]),
    _struct("struct-subarray", [["m", "<f4", [2, 3]], ["n", "<i8"]]),
    Kind("string", np.dtypes.StringDType(), "string", "|O", "vlen-utf8"),
    Kind("vlen-bytes", np.dtype(object), "variable_length_bytes", "|O", "vlen-bytes"),
]


def has_order(dtype: np.dtype[Any]) -> bool:
    if dtype.names is not None:
        return any(has_order(dtype[name]) for name in dtype.names)
    return dtype.itemsize > 1 and dtype.kind in "iufcmMU"


class Dice:
    """Random choices of one case."""

    def __init__(self, number: int) -> None:
        self.rng = np.random.default_rng([SEED, number])

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def number(self, low: int, high: int) -> int:
        """``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))


def make_values(kind: Kind, shape: Shape, dice: Dice, style: str) -> np.ndarray:
    """Values of ``kind``: "wild" ones use every bit pattern, "tame" ones compress well."""
    rng, dtype = dice.rng, kind.numpy
    count = math.prod(shape)
    if kind.vlen is not None:
        texts = ["", "a", "zarr", "ünïcode", "日本", "x" * 40, "\U0001f9ca ice", "a\x00b"]
        items: list[Any] = [texts[i] for i in rng.integers(len(texts), size=count)]
        if kind.vlen == "vlen-bytes":
            items = [item.encode() + bytes(rng.integers(0, 256, 2, "u1")) for item in items]
        flat = np.empty(count, dtype)
        for i, item in enumerate(items):
            flat[i] = item
        return flat.reshape(shape)
    if dtype.names is not None:
        result = np.empty(shape, dtype)
        for name in dtype.names:
            inner = dtype[name]
            base, sub = inner.subdtype if inner.subdtype is not None else (inner, ())
            part = Kind(name, base.newbyteorder("="))
            result[name] = make_values(part, shape + sub, dice, style)
        return result
    match dtype.kind:
        case "b":
            return rng.random(shape) < 0.4
        case "S" | "U":
            letters = np.array(list("abcXYZ" if dtype.kind == "S" else "aü日\U0001f9ca"))
            width = dtype.itemsize // (1 if dtype.kind == "S" else 4)
            words = [
                "".join(letters[rng.integers(len(letters), size=rng.integers(0, width + 1))])
                for _ in range(count)
            ]
            return np.array(words, dtype).reshape(shape)
        case "V":
            raw = rng.integers(0, 256, (count, dtype.itemsize), "u1")
            return raw.view(dtype).reshape(shape)
        case "m" | "M":
            ticks = rng.integers(-(2**40), 2**40, shape)
            ticks[rng.random(shape) < 0.1] = np.iinfo("i8").min
            return ticks.astype("<i8").view(dtype)
    if style == "tame":
        return (
            rng.integers(0, 3, shape)
            .cumsum(axis=-1 if shape else None)
            .reshape(shape)
            .astype(dtype)
        )
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    if dtype.kind == "c":
        part = Kind("part", np.dtype(f"f{dtype.itemsize // 2}"))
        result = np.empty(shape, dtype)
        result.real = make_values(part, shape, dice, style)
        result.imag = make_values(part, shape, dice, style)
        return result
    values = rng.normal(size=shape).astype(dtype)
    special = [np.nan, np.inf, -np.inf, -0.0, float(np.finfo(dtype).smallest_subnormal)]
    odd = rng.random(shape) < 0.2
    values[odd] = np.array(special, dtype)[rng.integers(len(special), size=int(odd.sum()))]
    return values


def make_fill(kind: Kind, zarr_format: int, dice: Dice) -> Any:
    """A fill value; zero or its like in half of the cases."""
    dtype = kind.numpy
    if zarr_format == 2 and dice.chance(0.12):
        return None
    if kind.vlen is not None:
        text = dice.pick(["", "", "none", "日本"])
        return text if kind.vlen == "vlen-utf8" else text.encode()
    if dice.chance(0.4):
        return np.zeros((), dtype)[()]
    if dtype.kind == "f":
        return dtype.type(dice.pick([1.5, -2.0, np.nan, np.inf, -np.inf, -0.0, 1e-7]))
    if dtype.kind == "c":
        parts = [1.5, -0.0, 0.0, np.nan, np.inf, -np.inf]
        return dtype.type(complex(dice.pick(parts), dice.pick(parts)))
    if dtype.kind == "b":
        return np.True_
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return dtype.type(dice.pick([1, 7, info.max, info.min]))
    if dtype.kind in "mM" and dice.chance(0.4):
        return dtype.type("NaT", np.datetime_data(dtype))
    return make_values(kind, (1,), dice, "wild")[0]


def fill_json(fill: Any, kind: Kind, zarr_format: int) -> Any:
    """A fill value as the specification wants it in a document."""
    if fill is None or kind.vlen == "vlen-utf8":
        return fill
    if kind.vlen == "vlen-bytes":
        return base64.b64encode(fill).decode()
    match kind.numpy.kind:
        case "b":
            return bool(fill)
        case "i" | "u":
            return int(fill)
        case "f":
            return _float_json(fill, zarr_format)
        case "c":
            return [_float_json(part, zarr_format) for part in (fill.real, fill.imag)]
        case "m" | "M":
            return int(fill.view("i8"))
        case "U":
            return str(fill)
        case "S":
            raw = bytes(fill)
            return base64.b64encode(raw).decode()
        case _:
            return base64.b64encode(np.asarray(fill, kind.numpy).tobytes()).decode()


def _float_json(value: Any, zarr_format: int) -> float | str:
    if np.isfinite(value):
        return float(value)
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    bits = int(np.asarray(value).view(f"u{value.itemsize}"))
    if zarr_format == 2 or bits == int(np.array(np.nan, value.dtype).view(f"u{value.itemsize}")):
        return "NaN"
    return f"0x{bits:0{2 * value.itemsize}x}"


def canonical(values: Any, kind: Kind) -> tuple[Shape, Any]:
    """Shape and contents to compare bit by bit, whatever the byte order."""
    array = np.asarray(values, object if kind.vlen is not None else None)
    if kind.vlen == "vlen-utf8":
        return array.shape, [str(item) for item in array.reshape(-1).tolist()]
    if kind.vlen == "vlen-bytes":
        return array.shape, [bytes(item) for item in array.reshape(-1).tolist()]
    array = np.ascontiguousarray(array.astype(kind.numpy, copy=False)).reshape(array.shape)
    return array.shape, array.tobytes()
