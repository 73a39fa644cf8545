"""Data types: one value for what v2, v3 and users call by different names.

A :class:`DType` says which NumPy dtype results have, how the type is called in v3 metadata, and
whether elements are of variable length.  No class per type: everything else follows from
``kind``.  The v2 and v3 readers take parsed JSON of any shape and raise
:class:`~zarr_gpu.errors.MetadataError` (or its ``UnknownDataTypeError``) for what they cannot
accept; nothing is allocated that is larger than the document itself.

Imports errors and fill_values only; ml_dtypes is imported when a document names one of its types.
Called by metadata, layout and creation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zarr_gpu.errors import MetadataError, UnknownDataTypeError
from zarr_gpu.fill_values import cast_fill, decode_fill, default_fill, encode_fill, show

__all__ = [
    "MAX_ITEMSIZE",
    "DType",
    "Field",
    "cast_fill",
    "decode_fill",
    "default_fill",
    "encode_fill",
    "from_user",
    "parse_v2",
    "parse_v3",
    "show",
    "to_v2",
    "to_v3",
]

MAX_ITEMSIZE = 1 << 26
"""Largest element of a raw or structured type in bytes: its scalars hold all of their bytes."""

MAX_DEPTH = 32
"""Deepest nesting of structured types."""

Kind = Literal[
    "bool", "int", "float", "complex", "datetime", "text", "fixed_bytes", "raw", "struct",
    "string", "bytes",
]  # fmt: skip

_KINDS: dict[str, Kind] = {
    "b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex", "M": "datetime",
    "m": "datetime", "U": "text", "S": "fixed_bytes", "V": "raw",
}  # fmt: skip

_NUMBERS = frozenset(
    ["bool", "float16", "float32", "float64", "complex64", "complex128"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
_ML_FLOATS = frozenset({
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
})  # fmt: skip
_VLEN_BYTES = frozenset(["variable_length_bytes", "bytes", "binary"])
_STRUCTS = ("struct", "structured")
_TIMES = {"numpy.datetime64": "M8", "numpy.timedelta64": "m8"}
_UNITS = frozenset({
    "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic",
})  # fmt: skip
# Compiled on first use: importing the package must stay cheap.
_RAW_BITS = r"r([0-9]{1,12})"
_V2_NAME = r"([<>|])([biufcmMSUV])([0-9]{1,12})(?:\[([0-9]{0,10})([a-z]+|[YMWD])\])?"
_V2_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}


@dataclass(frozen=True, slots=True)
class DType:
    """A data type of either format version.

    Attributes
    ----------
    numpy
        dtype of results: native byte order for v3, as declared for v2, ``StringDType()`` for
        variable-length strings and ``object`` for variable-length bytes.
    name
        Name in v3 metadata, without configuration.
    vlen
        How elements of variable length are stored, None for fixed sizes.
    fields
        Fields of a structured type in order.
    """

    numpy: np.dtype[Any]
    name: str
    vlen: Literal["utf8", "bytes"] | None = None
    fields: tuple[Field, ...] = ()

    @property
    def itemsize(self) -> int:
        """Bytes per element in memory."""
        return self.numpy.itemsize

    @property
    def kind(self) -> Kind:
        """Family of the type."""
        if self.vlen is not None:
            return "string" if self.vlen == "utf8" else "bytes"
        if self.fields:
            return "struct"
        if self.name in _ML_FLOATS:
            return "float"
        return _KINDS[self.numpy.kind]

    @property
    def multibyte(self) -> bool:
        """Whether the elements, or fields of them, have a byte order."""
        if self.fields:
            return any(field.dtype.multibyte for field in self.fields)
        return self.itemsize > 1 and self.kind not in ("raw", "fixed_bytes", "string", "bytes")

    def part(self) -> DType:
        """The real type of a complex one."""
        half = self.itemsize // 2
        return DType(np.dtype(f"f{half}").newbyteorder(self.numpy.byteorder), f"float{8 * half}")

    def native(self) -> DType:
        """The same type in this machine's byte order."""
        if self.vlen is not None or self.name in _ML_FLOATS:
            return self
        if not self.fields:
            return DType(self.numpy.newbyteorder("="), self.name)
        fields = tuple(Field(f.name, f.dtype.native(), f.shape) for f in self.fields)
        return _struct(self.name, fields)

    def __str__(self) -> str:
        return self.name if not self.fields else f"{self.name} of {len(self.fields)} fields"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a structured type; ``shape`` is that of a sub-array field (v2 only)."""

    name: str
    dtype: DType
    shape: tuple[int, ...] = ()


STRING = DType(np.dtypes.StringDType(), "string", "utf8")


def _vlen_bytes(name: str) -> DType:
    return DType(np.dtype(object), name, "bytes")


def _struct(name: str, fields: tuple[Field, ...]) -> DType:
    """A packed structured type; checks names and size."""
    if not fields:
        raise MetadataError("a structured data type needs at least one field")
    if len({f.name for f in fields}) != len(fields):
        raise MetadataError(f"field names of {show([f.name for f in fields])} are not unique")
    size = 0
    for field in fields:
        if field.dtype.vlen is not None:
            raise UnknownDataTypeError(f"field {field.name!r} has variable length")
        size += field.dtype.itemsize * math.prod(field.shape)
    if not 0 < size <= MAX_ITEMSIZE:
        raise MetadataError(f"structured elements of {size} bytes; the limit is {MAX_ITEMSIZE}")
    try:
        numpy = np.dtype([(f.name, f.dtype.numpy, f.shape) for f in fields])
    except (TypeError, ValueError, UnicodeError) as error:
        raise MetadataError(f"fields {show([f.name for f in fields])}: {error}") from error
    return DType(numpy, name, None, fields)


# ------------------------------------------------------------------------------------------- v2


def parse_v2(json: Any, object_codec_id: str | None = None) -> DType:
    """The data type of a v2 document.

    Parameters
    ----------
    json
        ``dtype`` of the document: ``"<f4"`` or a list of fields.
    object_codec_id
        ``id`` of the first filter, which decides what ``"|O"`` means.

    Raises
    ------
    UnknownDataTypeError, MetadataError
        The type is unknown, or known and malformed.

    Examples
    --------
    >>> parse_v2(">i2").numpy
    dtype('>i2')
    """
    if json == "|O":
        if object_codec_id == "vlen-utf8":
            return STRING
        if object_codec_id == "vlen-bytes":
            return _vlen_bytes("variable_length_bytes")
        what = "no object codec" if object_codec_id is None else f"codec {show(object_codec_id)}"
        raise UnknownDataTypeError(
            f"data type '|O' with {what}: objects are read only through 'vlen-utf8' or 'vlen-bytes'"
        )
    return _parse_v2(json, 0)


def _parse_v2(json: Any, depth: int) -> DType:
    if isinstance(json, list):
        if depth >= MAX_DEPTH:
            raise MetadataError(f"structured data type nested deeper than {MAX_DEPTH}")
        fields = tuple(_v2_field(item, i, depth) for i, item in enumerate(json))
        return _struct("struct", fields)
    if not isinstance(json, str):
        raise MetadataError(f"dtype {show(json)} is neither a string nor a list of fields")
    match = re.fullmatch(_V2_NAME, json)
    if match is None:
        raise UnknownDataTypeError(f"unknown data type {show(json)}")
    order, char, digits, scale, unit = match.groups()
    size = int(digits)
    if (unit is not None) and char not in "mM":
        raise UnknownDataTypeError(f"unknown data type {show(json)}")
    if char in "mM":
        if size != 8:
            raise UnknownDataTypeError(f"unknown data type {show(json)}")
        name = "numpy.datetime64" if char == "M" else "numpy.timedelta64"
        if unit is not None and unit not in _UNITS:
            raise UnknownDataTypeError(f"unknown unit in data type {show(json)}")
        numpy = _time(char + "8", unit or "generic", int(scale) if scale else 1, json)
        dtype = DType(numpy, name)
    else:
        if char in _V2_SIZES and size not in _V2_SIZES[char]:
            raise UnknownDataTypeError(f"unknown data type {show(json)}")
        dtype = _plain(char, size, json)
    if order == "|" and dtype.multibyte:
        raise MetadataError(f"data type {show(json)} needs a byte order, '<' or '>'")
    if order != "|" and dtype.multibyte:
        return DType(dtype.numpy.newbyteorder("<" if order == "<" else ">"), dtype.name)
    return dtype


def _plain(char: str, size: int, json: object) -> DType:
    """A native type from its NumPy character and size (characters for ``U``)."""
    limit = MAX_ITEMSIZE if char == "V" else 2**31 - 1
    if size < 1 or size * (4 if char == "U" else 1) > limit:
        raise MetadataError(f"data type {show(json)}: length {size} is out of range")
    numpy = np.dtype(f"{char}{size}")
    match char:
        case "S":
            return DType(numpy, "null_terminated_bytes")
        case "U":
            return DType(numpy, "fixed_length_utf32")
        case "V":
            return DType(numpy, "raw_bytes")
        case _:
            return DType(numpy, numpy.name)


def _v2_field(json: Any, index: int, depth: int) -> Field:
    if not isinstance(json, list) or len(json) not in (2, 3) or not isinstance(json[0], str):
        raise MetadataError(f"field {show(json)} is not [name, type] or [name, type, shape]")
    shape = json[2] if len(json) == 3 else []
    if type(shape) is int:
        shape = [shape]
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise MetadataError(f"shape {show(shape)} of field {show(json[0])} is invalid")
    if len(shape) > 32 or math.prod(shape) > MAX_ITEMSIZE:
        raise MetadataError(f"shape {show(shape)} of field {show(json[0])} is too large")
    # Writers give unnamed padding the name "", for which NumPy makes up f0, f1, ...
    return Field(json[0] or f"f{index}", _parse_v2(json[1], depth + 1), tuple(shape))


def to_v2(dtype: DType) -> Any:
    """``dtype`` of a v2 document.

    Examples
    --------
    >>> to_v2(parse_v3("float32"))
    '<f4'
    """
    if dtype.vlen is not None:
        return "|O"
    if dtype.name in _ML_FLOATS:
        raise MetadataError(f"data type {dtype} cannot be written as v2")
    if not dtype.fields:
        return dtype.numpy.str
    return [
        [f.name, to_v2(f.dtype), list(f.shape)] if f.shape else [f.name, to_v2(f.dtype)]
        for f in dtype.fields
    ]


# ------------------------------------------------------------------------------------------- v3


def parse_v3(json: Any) -> DType:
    """The data type of a v3 document.

    Parameters
    ----------
    json
        ``data_type`` of the document: a name or an object with ``name`` and ``configuration``.

    Raises
    ------
    UnknownDataTypeError, MetadataError
        The type is unknown, or known and malformed.

    Examples
    --------
    >>> parse_v3({"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 1}})
    DType(numpy=dtype('<M8[s]'), name='numpy.datetime64', vlen=None, fields=())
    """
    return _parse_v3(json, 0)


def _parse_v3(json: Any, depth: int) -> DType:
    name, configuration = _named(json)
    if name in _CONFIGURED:
        return _CONFIGURED[name](name, configuration)
    if name in _STRUCTS:
        return _parse_struct(name, configuration, depth)
    bits = re.fullmatch(_RAW_BITS, name)
    plain = name in _NUMBERS or name in _ML_FLOATS or name in _VLEN_BYTES or name == "string"
    if not plain and bits is None:
        raise UnknownDataTypeError(f"unknown data type {show(name)}")
    if configuration:
        raise MetadataError(f"data type {name!r} takes no configuration: {show(configuration)}")
    if bits is not None:
        count = int(bits[1])
        if count == 0 or count % 8 or count // 8 > MAX_ITEMSIZE or bits[1][0] == "0":
            raise MetadataError(f"data type {name!r}: the number of bits must be a multiple of 8")
        return DType(np.dtype(f"V{count // 8}"), name)
    if name in _NUMBERS:
        return DType(np.dtype(name), name)
    if name in _ML_FLOATS:
        return _ml_float(name)
    return STRING if name == "string" else _vlen_bytes(name)


def _named(json: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(json, str):
        return json, {}
    if not isinstance(json, dict) or not isinstance(json.get("name"), str):
        raise MetadataError(f"data type {show(json)} is neither a name nor an object with a name")
    if json.get("must_understand", True) is not True:
        raise MetadataError(f"data type {show(json)} must be understood")
    extra = json.keys() - {"name", "configuration", "must_understand"}
    if extra:
        raise MetadataError(
            f"data type {show(json['name'])} has unknown keys {show(sorted(extra))}"
        )
    configuration = json.get("configuration", {})
    if not isinstance(configuration, dict):
        raise MetadataError(f"configuration {show(configuration)} of a data type is no object")
    return json["name"], configuration


def _ml_float(name: str) -> DType:
    import ml_dtypes

    return DType(np.dtype(getattr(ml_dtypes, name)), name)


def _check_keys(name: str, configuration: Mapping[str, Any], keys: set[str]) -> None:
    if configuration.keys() != keys:
        raise MetadataError(
            f"configuration {show(dict(configuration))} of data type {name!r} "
            f"must have the keys {sorted(keys)}"
        )


def _parse_length(name: str, configuration: Mapping[str, Any]) -> DType:
    _check_keys(name, configuration, {"length_bytes"})
    length = configuration["length_bytes"]
    unit = 4 if name == "fixed_length_utf32" else 1
    if type(length) is not int or length < 1 or length % unit:
        raise MetadataError(f"length_bytes {show(length)} of data type {name!r} is invalid")
    char = {"fixed_length_utf32": "U", "null_terminated_bytes": "S", "raw_bytes": "V"}[name]
    return _plain(char, length // unit, name)


def _parse_time(name: str, configuration: Mapping[str, Any]) -> DType:
    _check_keys(name, configuration, {"unit", "scale_factor"})
    unit, scale = configuration["unit"], configuration["scale_factor"]
    if unit in ("\u03bcs", "\u00b5s"):
        unit = "us"
    if not isinstance(unit, str) or unit not in _UNITS:
        raise MetadataError(f"unit {show(unit)} of data type {name!r} is unknown")
    if type(scale) is not int:
        raise MetadataError(f"scale_factor {show(scale)} of data type {name!r} is no integer")
    return DType(_time(_TIMES[name], unit, scale, name), name)


def _time(code: str, unit: str, scale: int, what: object) -> np.dtype[Any]:
    if not 1 <= scale < 2**31 or (unit == "generic" and scale != 1):
        raise MetadataError(f"data type {show(what)}: factor {scale} is out of range")
    return np.dtype(code if unit == "generic" else f"{code}[{scale}{unit}]")


def _parse_struct(name: str, configuration: Mapping[str, Any], depth: int) -> DType:
    _check_keys(name, configuration, {"fields"})
    if depth >= MAX_DEPTH:
        raise MetadataError(f"structured data type nested deeper than {MAX_DEPTH}")
    items = configuration["fields"]
    if not isinstance(items, list):
        raise MetadataError(f"fields {show(items)} of data type {name!r} are no list")
    return _struct(name, tuple(_v3_field(item, depth) for item in items))


def _v3_field(json: Any, depth: int) -> Field:
    if isinstance(json, dict) and json.keys() == {"name", "data_type"}:
        name, data_type = json["name"], json["data_type"]
    elif isinstance(json, list) and len(json) == 2:
        name, data_type = json
    else:
        raise MetadataError(f"field {show(json)} is not an object with name and data_type")
    if not isinstance(name, str) or not name:
        raise MetadataError(f"field name {show(name)} is no non-empty string")
    return Field(name, _parse_v3(data_type, depth + 1))


_CONFIGURED: dict[str, Callable[[str, Mapping[str, Any]], DType]] = {
    "fixed_length_utf32": _parse_length,
    "null_terminated_bytes": _parse_length,
    "raw_bytes": _parse_length,
    "numpy.datetime64": _parse_time,
    "numpy.timedelta64": _parse_time,
}


def to_v3(dtype: DType) -> Any:
    """``data_type`` of a v3 document, in the form that zarr-python writes.

    Raises
    ------
    MetadataError
        v3 has no such type (sub-array fields).

    Examples
    --------
    >>> to_v3(parse_v2("<U3"))
    {'name': 'fixed_length_utf32', 'configuration': {'length_bytes': 12}}
    """
    if dtype.name not in _CONFIGURED and not dtype.fields:
        return dtype.name
    return {"name": dtype.name, "configuration": _configuration(dtype)}


def _configuration(dtype: DType) -> dict[str, Any]:
    if dtype.kind == "datetime":
        unit, scale = np.datetime_data(dtype.numpy)
        return {"unit": unit, "scale_factor": scale}
    if not dtype.fields:
        return {"length_bytes": dtype.itemsize}
    for field in dtype.fields:
        if field.shape:
            raise MetadataError(f"field {field.name!r} is a sub-array, which only v2 can describe")
    if dtype.name == "structured":
        return {"fields": [[f.name, to_v3(f.dtype)] for f in dtype.fields]}
    return {"fields": [{"name": f.name, "data_type": to_v3(f.dtype)} for f in dtype.fields]}


# ---------------------------------------------------------------------------------------- users


def from_user(value: Any) -> DType:
    """The data type meant by an argument ``dtype=``.

    Takes everything ``np.dtype`` takes, v3 names (``"r16"``, ``"string"``, ``"bfloat16"``) and
    objects, lists of fields, and ``str`` and ``bytes`` for the variable-length types.  Aligned
    structured dtypes are packed.

    Raises
    ------
    UnknownDataTypeError, MetadataError
        There is no such type.

    Examples
    --------
    >>> from_user("f4").name
    'float32'
    >>> from_user(str).numpy
    StringDType()
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, dict):
        return parse_v3(value)
    if value is str or (isinstance(value, str) and value in ("str", "string", "T")):
        return STRING
    if value is bytes:
        return _vlen_bytes("variable_length_bytes")
    if isinstance(value, str) and (value in _VLEN_BYTES or _is_v3_only(value)):
        return parse_v3(value)
    if value is None:
        raise MetadataError("a data type is needed")
    try:
        numpy = np.dtype(_tuples(value, 0) if isinstance(value, list) else value)
    except (TypeError, ValueError, RecursionError, SyntaxError, OverflowError) as error:
        raise UnknownDataTypeError(f"unknown data type {show(value)}") from error
    return _from_numpy(numpy, 0)


def _is_v3_only(name: str) -> bool:
    return name in _ML_FLOATS or re.fullmatch(_RAW_BITS, name) is not None


def _tuples(descr: list[Any], depth: int) -> list[Any]:
    """A list of fields as JSON has it, made into the tuples that NumPy wants."""
    if depth > MAX_DEPTH:
        raise MetadataError(f"structured data type nested deeper than {MAX_DEPTH}")
    fields = []
    for item in descr:
        if not isinstance(item, (list, tuple)) or not 2 <= len(item) <= 3:
            raise MetadataError(f"field {show(item)} is not (name, type) or (name, type, shape)")
        kind = _tuples(item[1], depth + 1) if isinstance(item[1], list) else item[1]
        shape = [tuple(item[2]) if isinstance(item[2], list) else item[2]] if item[2:] else []
        fields.append((item[0], kind, *shape))
    return fields


def _from_numpy(numpy: np.dtype[Any], depth: int) -> DType:
    if depth > MAX_DEPTH:
        raise MetadataError(f"structured data type nested deeper than {MAX_DEPTH}")
    if isinstance(numpy, np.dtypes.StringDType):
        return STRING
    if numpy.names is not None:
        fields = []
        for name in numpy.names:
            inner = numpy[name]
            base, shape = inner.subdtype if inner.subdtype is not None else (inner, ())
            fields.append(Field(name, _from_numpy(base, depth + 1), shape))
        return _struct("struct", tuple(fields))
    if numpy.subdtype is not None:
        raise UnknownDataTypeError(f"data type {numpy}: sub-arrays are for fields of structs only")
    if numpy.name in _ML_FLOATS:
        return DType(numpy, numpy.name)
    if numpy.kind == "O":
        raise UnknownDataTypeError("data type object: use str or bytes, or fields of fixed size")
    if numpy.kind in "SUV":
        if numpy.type not in (np.bytes_, np.str_, np.void) or numpy.itemsize == 0:
            raise UnknownDataTypeError(
                f"data type {numpy} has no length: name one ('S8'), or use str or bytes"
            )
        size = numpy.itemsize // (4 if numpy.kind == "U" else 1)
        plain = _plain(numpy.kind, size, numpy)
        return DType(numpy, plain.name)
    if numpy.kind in "mM":
        return DType(numpy, "numpy.datetime64" if numpy.kind == "M" else "numpy.timedelta64")
    if numpy.name not in _NUMBERS:
        raise UnknownDataTypeError(f"unknown data type {numpy}")
    return DType(numpy, numpy.name)
