"""Version 3 documents: ``zarr.json`` to the model and back.

Extensions (data type, chunk grid, key encoding, codecs, storage transformers) may be written as a
name, as ``{"name": ...}`` or with a configuration; all three mean the same.  An unknown field of
the document is refused unless it is an object with ``"must_understand": false``; a known extension
opens whatever its ``must_understand`` says, except that data type, grid and key encoding may not
say false.  Fields that the model does not use are kept in its document.

Imports the model, dtypes and consolidated.  Called by creation and opening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zarr_gpu.dtypes import DType, decode_fill, default_fill, encode_fill, parse_v3, to_v3
from zarr_gpu.errors import MetadataError, UnsupportedExtensionError
from zarr_gpu.metadata.consolidated import read_inline
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

__all__ = ["build_array", "build_group", "parse", "parse_alike", "parse_named"]

Json = dict[str, Any]

_REQUIRED = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
_ARRAY_FIELDS = frozenset({
    "zarr_format", "node_type", "attributes", "storage_transformers", "dimension_names", *_REQUIRED,
})  # fmt: skip
_GROUP_FIELDS = frozenset(("zarr_format", "node_type", "attributes", "consolidated_metadata"))


def parse(document: Any, *, key: str = "zarr.json") -> ArrayMetadata | GroupMetadata:
    """The model of the node that ``document`` describes.

    Parameters
    ----------
    document
        Parsed ``zarr.json``.
    key
        Its store key, for errors.

    Raises
    ------
    MetadataError
        The document is invalid.
    UnknownDataTypeError, UnsupportedExtensionError
        The document asks for something that is unknown here.
    """
    with naming(key):
        if not isinstance(document, dict):
            raise MetadataError(f"document {show(document)} is no JSON object")
        if type(document.get("zarr_format")) is not int or document["zarr_format"] != 3:
            raise MetadataError(f"zarr_format {show(document.get('zarr_format'))} is not 3")
        match document.get("node_type"):
            case "array":
                return _parse_array(document)
            case "group":
                return _parse_group(document)
            case other:
                raise MetadataError(f"node_type {show(other)} is neither 'array' nor 'group'")


def _parse_array(doc: Json) -> ArrayMetadata:
    for name in _REQUIRED:
        if name not in doc:
            raise MetadataError(f"required field {name!r} is missing")
    _check_fields(doc, _ARRAY_FIELDS, null="consolidated_metadata")
    shape = check_lengths(doc["shape"], "shape", minimum=0)
    dtype = parse_v3(doc["data_type"])
    _check_transformers(doc.get("storage_transformers", []))
    codecs = doc["codecs"]
    if not isinstance(codecs, list) or not codecs:
        raise MetadataError(f"codecs {show(codecs)} are no list with at least one codec")
    return ArrayMetadata(
        zarr_format=3,
        shape=shape,
        chunk_shape=_parse_grid(doc["chunk_grid"], len(shape), dtype),
        dtype=dtype,
        fill_value=decode_fill(dtype, doc["fill_value"], 3),
        codecs=tuple(parse_named(codec, "codec", optional=True) for codec in codecs),
        key_encoding=_parse_key_encoding(doc["chunk_key_encoding"]),
        attributes=_parse_attributes(doc),
        dimension_names=_parse_dimension_names(doc.get("dimension_names"), len(shape)),
        order="C",
        document=doc,
    )


def parse_alike(document: Json, known: ArrayMetadata) -> ArrayMetadata | None:
    """The model of an array whose document differs from that of ``known`` in three fields only.

    These are ``shape``, ``attributes`` and ``dimension_names``.  Parts are shared with ``known``.
    None where ``parse`` is needed to tell.
    """
    shape = document.get("shape")
    attributes = document.get("attributes", {})
    names = document.get("dimension_names")
    if type(shape) is not list or len(shape) != len(known.shape) or type(attributes) is not dict:
        return None
    for length in shape:
        if type(length) is not int or not 0 <= length < 2**63:
            return None
    if names is not None:
        if type(names) is not list or len(names) != len(shape):
            return None
        for name in names:
            if name is not None and type(name) is not str:
                return None
        names = tuple(names)
    return ArrayMetadata(
        3,
        tuple(shape),
        known.chunk_shape,
        known.dtype,
        known.fill_value,
        known.codecs,
        known.key_encoding,
        attributes,
        names,
        "C",
        document,
    )


def _parse_group(doc: Json) -> GroupMetadata:
    _check_fields(doc, _GROUP_FIELDS)
    consolidated = read_inline(doc.get("consolidated_metadata"))
    return GroupMetadata(3, _parse_attributes(doc), consolidated, doc)


def _check_fields(doc: Json, known: frozenset[str], null: str | None = None) -> None:
    """Refuse unknown fields; the field ``null`` may be null, as an old zarr-python wrote it."""
    for name in sorted(doc.keys() - known):
        value = doc[name]
        if isinstance(value, dict) and value.get("must_understand") is False:
            continue
        if name == null and value is None:
            continue
        raise UnsupportedExtensionError(
            f"unknown field {show(name)} = {show(value)}, which must be understood"
        )


def parse_named(json: Any, what: str, *, optional: bool = False) -> NamedConfig:
    """An extension as name or object; ``optional`` ones may carry ``must_understand: false``.

    Called for codecs inside of ``sharding_indexed`` too.

    Raises
    ------
    MetadataError
        ``json`` is no extension.

    Examples
    --------
    >>> parse_named("crc32c", "codec")
    NamedConfig(name='crc32c', configuration={}, must_understand=True)
    """
    if isinstance(json, str):
        return NamedConfig(json)
    if not isinstance(json, dict) or not isinstance(json.get("name"), str):
        raise MetadataError(f"{what} {show(json)} is neither a name nor an object with a name")
    name = json["name"]
    must = json.get("must_understand", True)
    if type(must) is not bool or not (must or optional):
        raise MetadataError(f"{what} {show(name)}: must_understand {show(must)} is not allowed")
    extra = json.keys() - {"name", "configuration", "must_understand"}
    if extra:
        raise UnsupportedExtensionError(
            f"{what} {show(name)} has unknown keys {show(sorted(extra))}"
        )
    configuration = json.get("configuration", {})
    if not isinstance(configuration, dict):
        raise MetadataError(
            f"{what} {show(name)}: configuration {show(configuration)} is no object"
        )
    return NamedConfig(name, configuration, must)


def _only(named: NamedConfig, what: str, keys: set[str]) -> None:
    extra = named.configuration.keys() - keys
    if extra:
        raise MetadataError(
            f"{what} {named.name!r} has unknown configuration {show(sorted(extra))}"
        )


def _parse_grid(json: Any, ndim: int, dtype: DType) -> tuple[int, ...]:
    grid = parse_named(json, "chunk_grid")
    if grid.name != "regular":
        raise UnsupportedExtensionError(f"unknown chunk grid {show(grid.name)}")
    _only(grid, "chunk_grid", {"chunk_shape"})
    return check_chunks(grid.configuration.get("chunk_shape"), ndim, dtype, "chunk_shape")


def _parse_key_encoding(json: Any) -> KeyEncoding:
    named = parse_named(json, "chunk_key_encoding")
    if named.name not in ("default", "v2"):
        raise UnsupportedExtensionError(f"unknown chunk key encoding {show(named.name)}")
    _only(named, "chunk_key_encoding", {"separator"})
    separator = named.configuration.get("separator", "/" if named.name == "default" else ".")
    if not isinstance(separator, str) or separator not in ("/", "."):
        raise MetadataError(f"chunk_key_encoding: separator {show(separator)} is not '/' or '.'")
    return KeyEncoding(named.name, separator)  # type: ignore[arg-type]


def _check_transformers(json: Any) -> None:
    if not isinstance(json, list):
        raise MetadataError(f"storage_transformers {show(json)} are no list")
    for item in json:
        named = parse_named(item, "storage transformer", optional=True)
        if named.must_understand:
            raise UnsupportedExtensionError(f"unknown storage transformer {show(named.name)}")


def _parse_attributes(doc: Json) -> Json:
    attributes = doc.get("attributes", {})
    if not isinstance(attributes, dict):
        raise MetadataError(f"attributes {show(attributes)} are no JSON object")
    return attributes


def _parse_dimension_names(json: Any, ndim: int) -> tuple[str | None, ...] | None:
    if json is None:
        return None
    if not isinstance(json, list) or not all(n is None or isinstance(n, str) for n in json):
        raise MetadataError(f"dimension_names {show(json)} are no list of strings and nulls")
    if len(json) != ndim:
        raise MetadataError(f"{len(json)} dimension_names for {ndim} dimensions")
    return tuple(json)


def build_array(
    *,
    shape: Sequence[int] | int,
    chunk_shape: Sequence[int] | int,
    dtype: DType,
    codecs: Sequence[NamedConfig | Mapping[str, Any]],
    fill_value: Any = None,
    key_encoding: KeyEncoding | None = None,
    attributes: Mapping[str, Any] | None = None,
    dimension_names: Sequence[str | None] | None = None,
) -> ArrayMetadata:
    """The model of a new array; its document is the one zarr-python would write.

    ``chunk_shape`` is that of the stored object.  ``codecs`` given as mappings are written as they
    are.  ``fill_value`` None stands for the default of the data type.

    Raises
    ------
    MetadataError
        An argument is invalid.

    Examples
    --------
    >>> from zarr_gpu.dtypes import from_user
    >>> codecs = [NamedConfig("bytes", {"endian": "little"})]
    >>> build_array(shape=4, chunk_shape=2, dtype=from_user("f4"), codecs=codecs).fill_value
    np.float32(0.0)
    """
    fill = default_fill(dtype) if fill_value is None else fill_value
    encoding = KeyEncoding("default", "/") if key_encoding is None else key_encoding
    grid = {"chunk_shape": list(user_lengths(chunk_shape, "chunk_shape"))}
    document: Json = {
        "shape": list(user_lengths(shape, "shape")),
        "data_type": to_v3(dtype),
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": encoding.to_dict(),
        "fill_value": encode_fill(dtype, fill, 3),
        "codecs": [c.to_dict() if isinstance(c, NamedConfig) else dict(c) for c in codecs],
        "attributes": check_attributes(attributes or {}),
    }
    if dimension_names is not None:
        document["dimension_names"] = list(dimension_names)
    document |= {"zarr_format": 3, "node_type": "array", "storage_transformers": []}
    with naming("zarr.json"):
        return _parse_array(plain_copy(document, "document"))


def build_group(
    attributes: Mapping[str, Any] | None = None,
    consolidated: Mapping[str, Mapping[str, Json]] | None = None,
) -> GroupMetadata:
    """The model of a new group, with the documents of all nodes below it where given."""
    document: Json = {
        "attributes": check_attributes(attributes or {}),
        "zarr_format": 3,
        "node_type": "group",
    }
    return _parse_group(document).with_consolidated(consolidated)
