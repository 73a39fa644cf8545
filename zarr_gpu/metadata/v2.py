"""Version 2 documents: ``.zarray``, ``.zgroup`` and ``.zattrs`` to the model and back.

How a v2 array becomes one chain of codecs, in the words of v3::

    order "F", two or more axes    -> transpose with the reversed axes
    dtype                          -> bytes, endian from the dtype where it has one byte order
    |O, first filter vlen-*        -> vlen-utf8 or vlen-bytes instead of bytes
    other filters, then compressor -> numcodecs.<id>, configuration without id

Filters that could run code or make objects (pickle and its like) are refused here, wherever they
stand.  Unknown keys of ``.zarray`` are ignored and kept.

Imports the model and dtypes.  Called by creation and opening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from zarr_gpu.dtypes import DType, decode_fill, encode_fill, parse_v2, to_v2
from zarr_gpu.errors import MetadataError, UnknownCodecError
from zarr_gpu.metadata.documents import naming, plain_copy, show
from zarr_gpu.metadata.keys import KeyEncoding
from zarr_gpu.metadata.model import (
    ArrayMetadata,
    GroupMetadata,
    NamedConfig,
    check_attributes,
    check_chunks,
    check_lengths,
    user_lengths,
)

__all__ = ["build_array", "build_group", "parse_alike", "parse_array", "parse_group"]

Json = dict[str, Any]

_OBJECT_CODECS = frozenset({
    "vlen-utf8", "vlen-bytes", "vlen-array", "pickle", "json", "json2", "msgpack", "msgpack2",
    "categorize",
})  # fmt: skip
_REQUIRED = ("shape", "chunks", "dtype", "fill_value", "order")


def parse_array(zarray: Any, zattrs: Any = None, *, key: str = ".zarray") -> ArrayMetadata:
    """The model of an array.

    Parameters
    ----------
    zarray, zattrs
        Parsed documents; None for an absent ``.zattrs``.
    key
        Store key of ``.zarray``, for errors.

    Raises
    ------
    MetadataError
        A document is invalid, or asks for a data type or codec that is unknown here.
    """
    with naming(key):
        return _parse_array(zarray, _parse_attributes(zattrs))


def _parse_array(doc: Any, attributes: Json) -> ArrayMetadata:
    _check_document(doc)
    for name in _REQUIRED:
        if name not in doc:
            raise MetadataError(f"required field {name!r} is missing")
    shape = check_lengths(doc["shape"], "shape", minimum=0)
    filters = _parse_filters(doc.get("filters"))
    dtype = parse_v2(doc["dtype"], filters[0].name if filters else None)
    if dtype.vlen is not None:
        serializer, filters = NamedConfig(filters[0].name), filters[1:]
        if serializer_config := _plain_config(doc["filters"][0]):
            raise MetadataError(
                f"filter {serializer.name!r} takes no configuration: {show(serializer_config)}"
            )
    else:
        serializer = NamedConfig("bytes", _endian(dtype))
    compressor = doc.get("compressor")
    steps = [*filters, *([] if compressor is None else [_parse_codec(compressor, "compressor")])]
    for step in steps:
        if step.name in _OBJECT_CODECS:
            raise UnknownCodecError(
                f"codec {step.name!r} is refused: it makes objects, "
                "and only 'vlen-utf8' and 'vlen-bytes' are read, as first filter of '|O'",
                codec=step.name,
            )
    chunks = check_chunks(doc["chunks"], len(shape), dtype, "chunks")
    order = doc["order"]
    if not isinstance(order, str) or order not in ("C", "F"):
        raise MetadataError(f"order {show(order)} is neither 'C' nor 'F'")
    separator = doc.get("dimension_separator", ".")
    if not isinstance(separator, str) or separator not in (".", "/"):
        raise MetadataError(f"dimension_separator {show(separator)} is neither '.' nor '/'")
    codecs = [serializer, *(NamedConfig(f"numcodecs.{s.name}", s.configuration) for s in steps)]
    if order == "F" and len(shape) > 1:
        codecs.insert(0, NamedConfig("transpose", {"order": list(range(len(shape)))[::-1]}))
    return ArrayMetadata(
        zarr_format=2,
        shape=shape,
        chunk_shape=chunks,
        dtype=dtype,
        fill_value=decode_fill(dtype, doc["fill_value"], 2),
        codecs=tuple(codecs),
        key_encoding=KeyEncoding("v2", separator),  # type: ignore[arg-type]
        attributes=attributes,
        dimension_names=None,
        order=order,  # type: ignore[arg-type]
        document=doc,
    )


def parse_alike(zarray: Json, zattrs: Any, known: ArrayMetadata) -> ArrayMetadata | None:
    """The model of an array whose ``.zarray`` differs from that of ``known`` in its shape only.

    Parts are shared with ``known``.  None where ``parse_array`` is needed to tell.
    """
    shape = zarray.get("shape")
    if type(shape) is not list or len(shape) != len(known.shape) or type(zattrs) is not dict:
        return None
    for length in shape:
        if type(length) is not int or not 0 <= length < 2**63:
            return None
    return replace(known, shape=tuple(shape), attributes=zattrs, document=zarray)


def _check_document(doc: Any) -> None:
    if not isinstance(doc, dict):
        raise MetadataError(f"document {show(doc)} is no JSON object")
    if type(doc.get("zarr_format")) is not int or doc["zarr_format"] != 2:
        raise MetadataError(f"zarr_format {show(doc.get('zarr_format'))} is not 2")


def _parse_attributes(zattrs: Any) -> Json:
    if zattrs is None:
        return {}
    if not isinstance(zattrs, dict):
        raise MetadataError(f"attributes {show(zattrs)} are no JSON object")
    return zattrs


def _parse_filters(json: Any) -> list[NamedConfig]:
    if json is None:
        return []
    if not isinstance(json, list):
        raise MetadataError(f"filters {show(json)} are neither a list nor null")
    return [_parse_codec(item, "filter") for item in json]


def _plain_config(json: Json) -> Json:
    return {k: v for k, v in json.items() if k != "id"}


def _parse_codec(json: Any, what: str) -> NamedConfig:
    if not isinstance(json, dict) or not isinstance(json.get("id"), str):
        raise MetadataError(f"{what} {show(json)} is no object with an id")
    return NamedConfig(json["id"], _plain_config(json))


def _endian(dtype: DType) -> Json:
    """Configuration of the ``bytes`` codec; structs carry the byte orders of their fields."""
    if dtype.fields or not dtype.multibyte:
        return {}
    return {"endian": "big" if dtype.numpy.str[0] == ">" else "little"}


def parse_group(zgroup: Any, zattrs: Any = None, *, key: str = ".zgroup") -> GroupMetadata:
    """The model of a group; documents as for :func:`parse_array`.

    The specification forbids further keys in ``.zgroup``; zarr-python writes one into
    ``.zmetadata`` (``consolidated_metadata``), so they are ignored.
    """
    with naming(key):
        _check_document(zgroup)
        return GroupMetadata(2, _parse_attributes(zattrs), None, zgroup)


def build_array(
    *,
    shape: Sequence[int] | int,
    chunks: Sequence[int] | int,
    dtype: DType,
    fill_value: Any = None,
    order: Literal["C", "F"] = "C",
    filters: Sequence[Mapping[str, Any]] | None = None,
    compressor: Mapping[str, Any] | None = None,
    dimension_separator: Literal[".", "/"] = ".",
    attributes: Mapping[str, Any] | None = None,
) -> ArrayMetadata:
    """The model of a new array; its document is the one zarr-python would write.

    ``filters`` and ``compressor`` are numcodecs configurations.  The object codec of the
    variable-length types is put in front of ``filters`` where it is missing.  ``fill_value`` None
    is written as ``null``.

    Raises
    ------
    MetadataError
        An argument is invalid.

    Examples
    --------
    >>> from zarr_gpu.dtypes import from_user
    >>> build_array(shape=(4,), chunks=(2,), dtype=from_user("i2"), fill_value=0).dtype.name
    'int16'
    """
    steps = [dict(f) for f in filters or ()]
    if dtype.vlen is not None:
        codec = "vlen-utf8" if dtype.vlen == "utf8" else "vlen-bytes"
        if not steps or steps[0].get("id") != codec:
            steps.insert(0, {"id": codec})
    document = {
        "shape": list(user_lengths(shape, "shape")),
        "chunks": list(user_lengths(chunks, "chunks")),
        "dtype": to_v2(dtype),
        "fill_value": encode_fill(dtype, fill_value, 2),
        "order": order,
        "filters": steps or None,
        "dimension_separator": dimension_separator,
        "compressor": None if compressor is None else dict(compressor),
        "zarr_format": 2,
    }
    return parse_array(plain_copy(document, "document"), check_attributes(attributes or {}))


def build_group(attributes: Mapping[str, Any] | None = None) -> GroupMetadata:
    """The model of a new group."""
    return GroupMetadata(2, check_attributes(attributes or {}), None, {"zarr_format": 2})
