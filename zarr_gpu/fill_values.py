"""Fill values: between the JSON of a metadata document, user values and scalars of a data type.

A decoded fill value is a NumPy scalar of the array's dtype (``np.void`` for raw and structured
types), ``str`` or ``bytes`` for the variable-length types, or None where a v2 document says
``null``.  NaN payloads and signed zeros survive.  A value that does not fit its type is a
:class:`~zarr_gpu.errors.MetadataError`, never a wrapped or rounded-away one.

Reading is a little wider than the specifications where other writers are known to be: integral
floats for integers (``0.0``), 0 and 1 for booleans, ``"+Infinity"``, NaN and Infinity as bare
words, 0 for v2 types whose zero is empty (``|S``, ``<U``, ``|V``, structs, strings).

Imports errors only; the public names are re-exported by ``dtypes``.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np

from zarr_gpu.errors import MetadataError

if TYPE_CHECKING:
    from zarr_gpu.dtypes import DType

__all__ = ["cast_fill", "decode_fill", "default_fill", "encode_fill", "show"]

_NON_FINITE = {
    "NaN": math.nan,
    "Infinity": math.inf,
    "+Infinity": math.inf,
    "-Infinity": -math.inf,
}
_HEX = r"0[xX]([0-9a-fA-F]+)"
_NAT = np.iinfo(np.int64).min

_short = reprlib.Repr()
_short.maxlevel = 4
_short.maxstring = _short.maxother = _short.maxlong = 80


def show(value: object) -> str:
    """A short ``repr`` that is safe for values of any depth and size."""
    try:
        return _short.repr(value)
    except ValueError:  # integers of too many digits to print
        return f"<{type(value).__name__} too long to show>"


def _refuse(dtype: DType, value: object, why: str = "") -> MetadataError:
    tail = f": {why}" if why else ""
    return MetadataError(f"fill value {show(value)} does not fit data type {dtype}{tail}")


def _base64(dtype: DType, value: str) -> bytes:
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _refuse(dtype, value, "not valid base64") from error


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")


# ---------------------------------------------------------------------------------------- decoding


def decode_fill(dtype: DType, value: Any, zarr_format: int) -> Any:
    """The scalar that the JSON ``value`` stands for.

    Parameters
    ----------
    dtype
        The data type of the array.
    value
        ``fill_value`` as parsed from JSON.
    zarr_format
        2 or 3.

    Returns
    -------
    numpy.generic or str or bytes or None
        None only for a v2 ``null``.

    Raises
    ------
    MetadataError
        The value is not a legal fill value of this data type.

    Examples
    --------
    >>> from zarr_gpu.dtypes import parse_v3
    >>> decode_fill(parse_v3("float32"), "-Infinity", 3)
    np.float32(-inf)
    """
    if value is None:
        if zarr_format == 2:
            return None
        raise _refuse(dtype, value, "null is no value")
    match dtype.kind:
        case "bool":
            return _decode_bool(dtype, value)
        case "int":
            return _decode_int(dtype, value)
        case "float":
            return _decode_float(dtype, value, zarr_format)
        case "complex":
            return _decode_complex(dtype, value, zarr_format)
        case "datetime":
            return _decode_datetime(dtype, value)
        case "string" | "text":
            return _decode_text(dtype, value, zarr_format)
        case "bytes" | "fixed_bytes":
            return _decode_bytes(dtype, value, zarr_format)
        case "raw":
            return _decode_raw(dtype, value, zarr_format)
        case _:
            return _decode_struct(dtype, value, zarr_format)


def _decode_bool(dtype: DType, value: Any) -> np.bool_:
    if type(value) is bool or (type(value) is int and value in (0, 1)):
        return np.bool_(value)
    raise _refuse(dtype, value)


def _integer(dtype: DType, value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise _refuse(dtype, value, "an integer is needed")


def _decode_int(dtype: DType, value: Any) -> Any:
    number = _integer(dtype, value)
    info = np.iinfo(dtype.numpy)
    if not info.min <= number <= info.max:
        raise _refuse(dtype, value, f"the range is {info.min} to {info.max}")
    return dtype.numpy.type(number)


def _from_bits(dtype: np.dtype[Any], bits: int) -> Any:
    """The float whose bit pattern is ``bits``; never passes through another float type."""
    return np.array(bits, f"u{dtype.itemsize}").view(dtype.newbyteorder("="))[()]


def _to_bits(value: Any) -> int:
    return int(np.asarray(value).view(f"u{value.dtype.itemsize}")[()])


def _round_float(dtype: DType, value: Any) -> Any:
    """The scalar nearest to a Python or NumPy real number, refused where it overflows."""
    native = dtype.numpy.newbyteorder("=")
    try:
        number = float(value)
        with np.errstate(all="ignore"):
            scalar = native.type(number)
            back = float(scalar)
    except (OverflowError, TypeError, ValueError) as error:
        raise _refuse(dtype, value) from error
    if math.isnan(number) != math.isnan(back) or math.isinf(number) != math.isinf(back):
        raise _refuse(dtype, value, "out of range")
    return scalar


def _decode_float(dtype: DType, value: Any, zarr_format: int) -> Any:
    if type(value) in (int, float):
        return _round_float(dtype, value)
    if isinstance(value, str):
        if value in _NON_FINITE:
            return _round_float(dtype, _NON_FINITE[value])
        digits = re.fullmatch(_HEX, value)
        if zarr_format == 3 and digits is not None:
            if len(digits[1]) != 2 * dtype.itemsize:
                raise _refuse(dtype, value, f"{2 * dtype.itemsize} hexadecimal digits are needed")
            return _from_bits(dtype.numpy, int(digits[1], 16))
    raise _refuse(dtype, value)


def _decode_complex(dtype: DType, value: Any, zarr_format: int) -> Any:
    if zarr_format == 2 and type(value) in (int, float):
        value = [value, 0.0]
    if not isinstance(value, list) or len(value) != 2:
        raise _refuse(dtype, value, "a pair of numbers is needed")
    part = dtype.part()
    parts = [_decode_float(part, v, zarr_format) for v in value]
    return np.array(parts, part.numpy.newbyteorder("=")).view(dtype.numpy.newbyteorder("="))[0]


def _decode_datetime(dtype: DType, value: Any) -> Any:
    number = _NAT if value == "NaT" else _integer(dtype, value)
    if not _NAT <= number < 2**63:
        raise _refuse(dtype, value, "out of range")
    return np.array(number, np.int64).view(dtype.numpy.newbyteorder("="))[()]


def _check_text(dtype: DType, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refuse(dtype, value, "a lone surrogate is no character") from error


def _decode_text(dtype: DType, value: Any, zarr_format: int) -> Any:
    if zarr_format == 2 and type(value) is int and value == 0:
        value = ""
    if not isinstance(value, str):
        raise _refuse(dtype, value, "a string is needed")
    _check_text(dtype, value)
    if dtype.kind == "string":
        return value
    if len(value) > dtype.itemsize // 4:
        raise _refuse(dtype, value, f"longer than {dtype.itemsize // 4} characters")
    return np.str_(value)


def _octets(dtype: DType, value: list[Any]) -> bytes:
    if not all(type(v) is int and 0 <= v <= 255 for v in value):
        raise _refuse(dtype, value, "integers from 0 to 255 are needed")
    return bytes(value)


def _decode_bytes(dtype: DType, value: Any, zarr_format: int) -> Any:
    if isinstance(value, str):
        data = _base64(dtype, value)
    elif zarr_format == 2 and type(value) is int and value == 0:
        data = b""
    elif zarr_format == 3 and isinstance(value, list):
        data = _octets(dtype, value)
    else:
        raise _refuse(dtype, value, "base64 text is needed")
    if dtype.kind == "bytes":
        return data
    data = data.rstrip(b"\0")
    if len(data) > dtype.itemsize:
        raise _refuse(dtype, value, f"longer than {dtype.itemsize} bytes")
    return np.bytes_(data)


def _void(dtype: np.dtype[Any], data: bytes) -> Any:
    return np.frombuffer(data, dtype)[0].copy()


def _decode_raw(dtype: DType, value: Any, zarr_format: int) -> Any:
    if isinstance(value, str):
        data = _base64(dtype, value)
    elif zarr_format == 3 and isinstance(value, list):
        data = _octets(dtype, value)
    elif zarr_format == 2 and type(value) is int and value == 0:
        data = bytes(dtype.itemsize)
    else:
        raise _refuse(dtype, value)
    if len(data) != dtype.itemsize:
        raise _refuse(dtype, value, f"{len(data)} bytes instead of {dtype.itemsize}")
    return _void(dtype.numpy, data)


def _decode_struct(dtype: DType, value: Any, zarr_format: int) -> Any:
    if zarr_format == 2 and type(value) is int and value == 0:
        return np.zeros((), dtype.numpy)[()]
    if isinstance(value, str):
        data = _base64(dtype, value)
        if len(data) != dtype.itemsize:
            raise _refuse(dtype, value, f"{len(data)} bytes instead of {dtype.itemsize}")
        if zarr_format == 2:
            return _void(dtype.numpy, data)
        return np.frombuffer(data, _little(dtype.numpy)).astype(dtype.numpy)[0].copy()
    if zarr_format != 3 or not isinstance(value, dict):
        raise _refuse(dtype, value)
    names = [field.name for field in dtype.fields]
    if set(value) != set(names):
        raise _refuse(dtype, value, f"the fields are {show(names)}")
    result = np.zeros((), dtype.numpy)
    for field in dtype.fields:
        result[field.name] = decode_fill(field.dtype, value[field.name], 3)
    return result[()]


# ---------------------------------------------------------------------------------------- encoding


def encode_fill(dtype: DType, value: Any, zarr_format: int) -> Any:
    """The JSON form of a fill value; the inverse of :func:`decode_fill`.

    ``value`` may be anything that :func:`cast_fill` takes.  None becomes ``null``, in v2 only.  In
    v2 every NaN is written as ``"NaN"``: that version has no word for its payload.

    Raises
    ------
    MetadataError
        The value does not fit the data type, or v3 was asked to write None.

    Examples
    --------
    >>> from zarr_gpu.dtypes import parse_v3
    >>> encode_fill(parse_v3("complex64"), complex("nan"), 3)
    ['NaN', 0.0]
    """
    if value is None:
        if zarr_format == 2:
            return None
        raise _refuse(dtype, value, "v3 needs a value")
    scalar = cast_fill(dtype, value)
    match dtype.kind:
        case "bool":
            return bool(scalar)
        case "int":
            return int(scalar)
        case "float":
            return _encode_float(scalar, zarr_format)
        case "complex":
            return [_encode_float(p, zarr_format) for p in (scalar.real, scalar.imag)]
        case "datetime":
            return int(scalar.view(np.int64))
        case "string" | "text":
            return str(scalar)
        case "bytes" | "fixed_bytes":
            return base64.b64encode(bytes(scalar)).decode()
        case "raw":
            data = scalar.tobytes()
            if zarr_format == 3 and dtype.name.startswith("r") and dtype.name != "raw_bytes":
                return list(data)
            return base64.b64encode(data).decode()
        case _:
            return _encode_struct(dtype, scalar, zarr_format)


def _encode_float(value: Any, zarr_format: int) -> float | str:
    number = float(value)
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if not math.isnan(number):
        return number
    if zarr_format == 2 or _to_bits(value) == _to_bits(value.dtype.type(math.nan)):
        return "NaN"
    return f"0x{_to_bits(value):0{2 * value.dtype.itemsize}x}"


def _encode_struct(dtype: DType, scalar: Any, zarr_format: int) -> Any:
    if zarr_format == 3 and dtype.name == "struct":
        return {f.name: encode_fill(f.dtype, scalar[f.name], 3) for f in dtype.fields}
    array = np.asarray(scalar)
    if zarr_format == 3:
        array = array.astype(_little(array.dtype))
    return base64.b64encode(array.tobytes()).decode()


# ----------------------------------------------------------------------------------- user values


def default_fill(dtype: DType) -> Any:
    """The fill value of an array whose creator named none: zero, empty or NaT.

    Examples
    --------
    >>> from zarr_gpu.dtypes import parse_v3
    >>> default_fill(parse_v3("int16"))
    np.int16(0)
    """
    match dtype.kind:
        case "string":
            return ""
        case "bytes":
            return b""
        case "datetime":
            return _decode_datetime(dtype, "NaT")
        case "text":
            return np.str_("")
        case "fixed_bytes":
            return np.bytes_(b"")
        case _:
            return np.zeros((), dtype.numpy)[()]


def cast_fill(dtype: DType, value: Any) -> Any:
    """The scalar of ``dtype`` for a value given by a user.

    Takes Python and NumPy scalars, 0-d arrays, tuples and mappings for structs, dates as text, and
    0 for the zero of any type.  Raises :class:`~zarr_gpu.errors.MetadataError` where the value does
    not fit.

    Examples
    --------
    >>> from zarr_gpu.dtypes import from_user
    >>> cast_fill(from_user("uint8"), 255)
    np.uint8(255)
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    try:
        return _cast(dtype, value)
    except (TypeError, ValueError, OverflowError, KeyError, RecursionError) as error:
        if isinstance(error, MetadataError):
            raise
        raise _refuse(dtype, value, str(error)) from error


def _cast(dtype: DType, value: Any) -> Any:
    if type(value) is dtype.numpy.type and dtype.kind in ("bool", "int", "float", "complex"):
        return value
    zero = isinstance(value, (int, np.integer, np.bool_)) and not value
    match dtype.kind:
        case "bool":
            if isinstance(value, (bool, np.bool_)) or value in (0, 1):
                return np.bool_(value)
            raise _refuse(dtype, value)
        case "int":
            plain = value.item() if isinstance(value, np.generic) else value
            return _decode_int(dtype, int(plain) if isinstance(plain, bool) else plain)
        case "float":
            if isinstance(value, str):
                return _decode_float(dtype, value, 3)
            return _round_float(dtype, value)
        case "complex":
            return _cast_complex(dtype, value)
        case "datetime":
            return _cast_datetime(dtype, value)
        case "string" | "text":
            if zero:
                value = ""
            if isinstance(value, (bytes, np.bytes_)):
                value = value.decode("ascii")
            return _decode_text(dtype, str(value) if isinstance(value, str) else value, 3)
        case "bytes" | "fixed_bytes":
            return _cast_bytes(dtype, b"" if zero else value)
        case "raw":
            if zero:
                return default_fill(dtype)
            if isinstance(value, (list, tuple)):
                return _decode_raw(dtype, list(value), 3)
            data = value.tobytes() if isinstance(value, np.void) else bytes(memoryview(value))
            return _decode_raw(dtype, list(data), 3)
        case _:
            return default_fill(dtype) if zero else _cast_struct(dtype, value)


def _cast_complex(dtype: DType, value: Any) -> Any:
    part = dtype.part()
    if isinstance(value, (list, tuple)) and len(value) == 2:
        parts = [_cast(part, v) for v in value]
    else:
        number = complex(value)
        parts = [_round_float(part, number.real), _round_float(part, number.imag)]
    return np.array(parts, part.numpy.newbyteorder("=")).view(dtype.numpy.newbyteorder("="))[0]


def _cast_datetime(dtype: DType, value: Any) -> Any:
    native = dtype.numpy.newbyteorder("=")
    scalar = np.asarray(value)
    if scalar.ndim or value is None or scalar.dtype.kind not in (native.kind, "i", "u", "U", "O"):
        raise _refuse(dtype, value)
    if scalar.dtype.kind in "iu":
        return _decode_datetime(dtype, int(value))
    result = scalar.astype(native)
    if scalar.dtype.kind == native.kind and not np.isnat(scalar) and result != scalar:
        raise _refuse(dtype, value, "it is no multiple of the unit, or out of range")
    return result[()]


def _cast_bytes(dtype: DType, value: Any) -> Any:
    if isinstance(value, str):
        value = value.encode("ascii")
    data = bytes(memoryview(value))
    if dtype.kind == "bytes":
        return data
    if len(data.rstrip(b"\0")) > dtype.itemsize:
        raise _refuse(dtype, value, f"longer than {dtype.itemsize} bytes")
    return np.bytes_(data.rstrip(b"\0"))


def _cast_struct(dtype: DType, value: Any) -> Any:
    result = np.zeros((), dtype.numpy)
    names = [field.name for field in dtype.fields]
    if isinstance(value, np.void) and value.dtype.names is not None:
        if list(value.dtype.names) != names:
            raise _refuse(dtype, value, f"the fields are {show(names)}")
        values = [value[name] for name in names]
    elif isinstance(value, (np.void, bytes)):
        data = value.tobytes() if isinstance(value, np.void) else value
        if len(data) != dtype.itemsize:
            raise _refuse(dtype, value, f"{len(data)} bytes instead of {dtype.itemsize}")
        return _void(dtype.numpy, data)
    elif isinstance(value, dict):
        if set(value) != set(names):
            raise _refuse(dtype, value, f"the fields are {show(names)}")
        values = [value[name] for name in names]
    else:
        values = list(value)
        if len(values) != len(names):
            raise _refuse(dtype, value, f"{len(values)} values for {len(names)} fields")
    for field, item in zip(dtype.fields, values, strict=True):
        if field.shape:
            result[field.name] = np.asarray(item).astype(field.dtype.numpy)
        else:
            result[field.name] = cast_fill(field.dtype, item)
    return result[()]
