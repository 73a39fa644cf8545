"""What all codecs check the same way: configurations and sizes.

A configuration comes from a file that anybody may have written, so every value is checked for type
and range here and becomes a :class:`~zarr_gpu.errors.MetadataError` that names codec and field.
Decoded sizes are held against what the chunk may have before memory is allocated.  Imports errors
and :mod:`zarr_gpu.codecs.base` only; called by the codecs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from zarr_gpu.codecs.base import U8, Array, ChunkSpec
from zarr_gpu.errors import CodecError, MetadataError

__all__ = [
    "DAMAGE",
    "allocate",
    "check_bool",
    "check_choice",
    "check_config",
    "check_dtype",
    "check_int",
    "check_number",
    "check_size",
    "damaged",
    "flatten_as",
    "recast",
    "unflatten_as",
]

DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)
"""What the libraries raise on damaged data; zlib.error and LZMAError come where they occur."""


def check_config(codec: str, config: object, known: Collection[str] | None) -> Mapping[str, Any]:
    """``config`` as a mapping; with ``known`` keys given, any other key is an error."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise MetadataError(
            f"configuration of codec {codec!r} must be an object, not {config!r:.80}", codec=codec
        )
    if known is not None:
        unknown = [key for key in config if key not in known]
        if unknown:
            allowed = ", ".join(known) or "none"
            raise MetadataError(
                f"codec {codec!r} has no parameter {str(unknown[0])[:80]!r} (it has: {allowed})",
                codec=codec,
            )
    return config


def check_int(codec: str, field: str, value: object, low: int, high: int) -> int:
    """``value`` as an int within ``low`` to ``high``; booleans and floats are none."""
    if isinstance(value, np.integer):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise MetadataError(
            f"{field} of codec {codec!r} must be an integer from {low} to {high}, "
            f"not {value!r:.80}",
            codec=codec,
        )
    return value


def check_bool(codec: str, field: str, value: object) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise MetadataError(
            f"{field} of codec {codec!r} must be true or false, not {value!r:.80}", codec=codec
        )
    return value


def check_choice(codec: str, field: str, value: object, choices: Collection[str]) -> str:
    """``value`` as a plain string if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise MetadataError(
            f"{field} of codec {codec!r} must be one of {', '.join(map(repr, choices))}, "
            f"not {value!r:.80}",
            codec=codec,
        )
    return str(value)


def check_number(codec: str, field: str, value: object) -> int | float:
    """``value`` as a Python number; booleans are none."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise MetadataError(
            f"{field} of codec {codec!r} must be a number, not {value!r:.80}", codec=codec
        )
    return value


def check_dtype(codec: str, field: str, value: object, kinds: str) -> np.dtype[Any]:
    """The NumPy type that ``value`` names, if its kind is one of ``kinds``."""
    dtype: np.dtype[Any] | None = None
    if isinstance(value, (np.dtype, type)) or (isinstance(value, str) and 0 < len(value) <= 32):
        try:
            dtype = np.dtype(value)
        except (TypeError, ValueError, SyntaxError):
            dtype = None
    if dtype is None:
        raise MetadataError(
            f"{field} of codec {codec!r} is no NumPy type: {value!r:.80}", codec=codec
        )
    if dtype.kind not in kinds or dtype.names is not None or dtype.subdtype is not None:
        raise MetadataError(
            f"{field} of codec {codec!r} cannot be the data type {str(dtype)!r:.80}", codec=codec
        )
    return dtype


def damaged(
    codec: str, what: str, *, expected: int | None = None, actual: int | None = None
) -> CodecError:
    """The error of a decoder that refuses its input."""
    return CodecError(what, codec=codec, expected=expected, actual=actual)


def check_size(codec: str, nbytes: int, limit: int, *, exact: bool) -> None:
    """Refuse a decoded size that the chunk cannot have."""
    if nbytes > limit or (exact and nbytes != limit):
        relation = "must be" if exact else "may be at most"
        raise damaged(
            codec, f"decoded size {relation} {limit} bytes", expected=limit, actual=nbytes
        )


def allocate(codec: str, nbytes: int, out: U8 | None) -> U8:
    """The first ``nbytes`` of ``out`` where given and large enough, otherwise fresh memory."""
    if out is not None and len(out) >= nbytes:
        return out[:nbytes]
    try:
        return np.empty(nbytes, np.uint8)
    except (MemoryError, ValueError, OverflowError) as error:
        raise damaged(codec, f"no memory for {nbytes} decoded bytes") from error


def flatten_as(array: Array, dtype: np.dtype[Any]) -> Array:
    """The elements in C order as ``dtype``: byte orders are converted, other types viewed."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == dtype:
        return flat
    if flat.dtype.kind == dtype.kind and flat.dtype.itemsize == dtype.itemsize:
        return flat.astype(dtype)
    return flat.view(dtype)


def unflatten_as(flat: Array, spec: ChunkSpec) -> Array:
    """The inverse of :func:`flatten_as`: the shape and type of ``spec``."""
    return flatten_as(flat, spec.dtype).reshape(spec.shape)


def recast(spec: ChunkSpec, dtype: np.dtype[Any]) -> ChunkSpec:
    """``spec`` with another type; the fill value is cast, as zarr-python does."""
    fill = spec.fill_value
    if fill is not None:
        try:
            with np.errstate(all="ignore"):
                fill = np.asarray(fill).astype(dtype)[()]
        except (TypeError, ValueError, OverflowError):
            fill = None
    return ChunkSpec(spec.shape, dtype, fill)
