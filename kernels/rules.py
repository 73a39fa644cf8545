"""Which kernel does a number filter for two data types, and with which arguments.

NumPy's promotion decides in which type numcodecs computes; where the kernels do not cover it (half
precision, complex numbers, booleans, sums of integers in floats) there is no rule and the filter
belongs on the host.  Data types are given in native byte order.

Imports NumPy only, and no Numba; called by whoever plans device steps, and by tests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Rule", "cast", "delta_decode", "delta_encode", "scale_decode", "scale_encode"]


class Rule(NamedTuple):
    """How to run a filter.

    The kernel's arguments are: ``tpr`` if it has one, source and target viewed as ``src`` and
    ``dst``, the tables of rows, ``scalars``, and what else it asks for.
    """

    kernel: str
    src: np.dtype[Any]
    dst: np.dtype[Any]
    scalars: tuple[int | float, ...]


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" and dtype.itemsize in {4, 8}


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" or _is_float(dtype)


def _kind(dtype: np.dtype[Any]) -> int:
    return {"f": 0, "i": 1, "u": 2}[dtype.kind]


def _target(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """How the kernels that compute in floats take a target."""
    return dtype if dtype.kind == "f" else _unsigned(dtype)


def cast(src: np.dtype[Any], dst: np.dtype[Any]) -> Rule | None:
    """``values.astype(dst)``."""
    if not (_is_number(src) and _is_number(dst)):
        return None
    if src.kind in "iu" and dst.kind in "iu":
        return Rule("cast_int", _unsigned(src), _unsigned(dst), (int(src.kind == "i"),))
    return Rule("cast", src, _target(dst), (_kind(dst),))


def delta_decode(decoded: np.dtype[Any], stored: np.dtype[Any]) -> Rule | None:
    """``np.cumsum(values, out=...)``: NumPy adds in the common type of the two."""
    if not (_is_number(decoded) and _is_number(stored)):
        return None
    common = np.result_type(decoded, stored)
    if common.kind in "iu":
        signed = int(stored.kind == "i")
        return Rule("delta_decode", _unsigned(stored), _unsigned(decoded), (signed,))
    if _is_float(decoded):
        return Rule("delta_decode_float", stored, decoded, (int(common == np.float32),))
    return None


def delta_encode(decoded: np.dtype[Any], stored: np.dtype[Any]) -> Rule | None:
    """The first item, then ``np.diff(values)``, cast to ``stored``."""
    if decoded.kind in "iu" and stored.kind in "iu":
        flags = (int(decoded.kind == "i"), int(stored.kind == "i"))
        return Rule("delta_encode", _unsigned(decoded), _unsigned(stored), flags)
    if _is_float(decoded) and _is_float(stored):
        return Rule("delta_encode_float", decoded, stored, (int(decoded == np.float32),))
    return None


def scale_decode(
    decoded: np.dtype[Any], stored: np.dtype[Any], scale: float, offset: float
) -> Rule | None:
    """``(values / scale + offset).astype(decoded)`` of ``fixedscaleoffset``."""
    return _scaled("fixedscaleoffset_decode", stored, decoded, scale, offset)


def scale_encode(
    decoded: np.dtype[Any], stored: np.dtype[Any], scale: float, offset: float
) -> Rule | None:
    """``np.around((values - offset) * scale).astype(stored)`` of ``fixedscaleoffset``."""
    return _scaled("fixedscaleoffset_encode", decoded, stored, scale, offset)


def _scaled(
    kernel: str, src: np.dtype[Any], dst: np.dtype[Any], scale: float, offset: float
) -> Rule | None:
    """The rule, if both steps are computed in the same float type."""
    if not (_is_number(src) and _is_number(dst)) or not scale:
        return None
    sample: Any = np.empty(0, src)
    try:
        with np.errstate(all="ignore"):
            if kernel == "fixedscaleoffset_decode":
                first = sample / scale
                second = first + offset
            else:
                first = sample - offset
                second = first * scale
            work = first.dtype
            if second.dtype != work or not _is_float(work):
                return None
            numbers = (float(work.type(scale)), float(work.type(offset)))
    except (OverflowError, TypeError, ValueError):
        return None  # NumPy refuses, and on the host it says why
    return Rule(kernel, src, _target(dst), (*numbers, int(work == np.float32), _kind(dst)))
