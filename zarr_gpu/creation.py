"""From the arguments of ``create_array`` and its kin to the metadata of a new array.

Nothing here touches a store: whatever is wrong with the arguments is found before anything is
written.  Imports dtypes, metadata, codecs and the two modules that read arguments; called by
``group`` and ``api``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np

from zarr_gpu.attributes import plain_attributes
from zarr_gpu.chunking import choose_chunks, choose_shards, parse_shape
from zarr_gpu.codec_arguments import evolve_chain, make_codec, split_argument, to_v2
from zarr_gpu.codecs.base import ArrayToBytes, ChunkSpec, Codec
from zarr_gpu.config import config
from zarr_gpu.dtypes import DType, cast_fill, default_fill, from_user
from zarr_gpu.errors import MetadataError
from zarr_gpu.layout import compile_layout
from zarr_gpu.metadata import ArrayMetadata, GroupMetadata, KeyEncoding, documents, v2, v3

__all__ = [
    "DEFAULT_FILL",
    "KEEP_FILL",
    "as_metadata",
    "build_metadata",
    "describe",
    "parse_format",
    "parse_key_encoding",
    "resolve_dtype",
    "split_codecs",
]


class _Fill(Enum):
    """Stand for fill values where ``None`` means something else."""

    DEFAULT = "the default of the data type"
    KEEP = "that of the array which is the pattern"

    def __repr__(self) -> str:
        return f"<{self.value}>"


DEFAULT_FILL = _Fill.DEFAULT
KEEP_FILL = _Fill.KEEP

_INDEX_CODECS = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
)
_OBJECT_TYPES = {"vlen-utf8": "string", "vlen-bytes": "variable_length_bytes"}


def parse_format(zarr_format: Any, around: int | None = None) -> Literal[2, 3]:
    """2 or 3; for None that of the group around, or the configured default.

    Raises
    ------
    MetadataError
        Any other value.
    """
    if zarr_format is None:
        zarr_format = config.get("default_zarr_format") if around is None else around
    if isinstance(zarr_format, (int, np.integer)) and zarr_format in (2, 3):
        return 2 if zarr_format == 2 else 3
    raise MetadataError(f"zarr_format must be 2 or 3, got {zarr_format!r:.80}")


def resolve_dtype(dtype: Any, data: Any = None, object_codec: Any = None) -> DType:
    """The data type of a new array, from ``dtype`` or, where that is None, from ``data``.

    The name "bytes" becomes the one that zarr-python writes.  NumPy's ``object`` becomes strings or
    bytes of variable length: by the object codec, else by what ``data`` holds.

    Raises
    ------
    MetadataError
        There is neither, or objects that are neither text nor bytes.
    """
    if dtype is None and data is None:
        raise MetadataError("dtype is needed where there is no data to take it from")
    if dtype is None:
        dtype = data.dtype if hasattr(data, "dtype") else np.asarray(data).dtype
    if not (dtype is object or (isinstance(dtype, np.dtype) and dtype.kind == "O")) and not (
        isinstance(dtype, str) and dtype in ("O", "|O", "object")
    ):
        return from_user(bytes if isinstance(dtype, str) and dtype == "bytes" else dtype)
    for item in split_argument(object_codec):
        if item == "auto":
            continue
        codec = make_codec(item, "object_codec")
        if codec.name in _OBJECT_TYPES:
            return from_user(_OBJECT_TYPES[codec.name])
    kinds = set() if data is None else {type(item) for item in np.asarray(data).flat}
    if kinds and all(issubclass(kind, str) for kind in kinds):
        return from_user("string")
    if kinds and all(issubclass(kind, (bytes, bytearray, memoryview)) for kind in kinds):
        return from_user("variable_length_bytes")
    raise MetadataError('dtype object does not say what the objects are: use "string" or "bytes"')


def parse_key_encoding(value: Any, zarr_format: Literal[2, 3]) -> KeyEncoding:
    """The key encoding meant by ``chunk_key_encoding=``.

    Takes a name, ``{"name": ..., "separator": ...}`` with the separator in a ``configuration`` or
    beside the name, a pair ``(name, separator)``, an object with these as attributes, or a bare
    separator, for the format's own encoding.

    Raises
    ------
    MetadataError
        It is none of these, or format 2 was asked for another encoding than its own.
    """
    if value is None:
        return KeyEncoding("v2", ".") if zarr_format == 2 else KeyEncoding("default", "/")
    name: Any
    separator: Any = None
    if isinstance(value, str) and value in (".", "/"):
        name, separator = "v2" if zarr_format == 2 else "default", value
    elif isinstance(value, str):
        name = value
    elif isinstance(value, Mapping):
        name = value.get("name")
        inner = value.get("configuration", {})
        if not isinstance(inner, Mapping):
            raise MetadataError(f"chunk_key_encoding: {value!r:.200} has no valid configuration")
        separator = inner.get("separator", value.get("separator"))
        if set(value) - {"name", "configuration", "separator"} or set(inner) - {"separator"}:
            raise MetadataError(f"chunk_key_encoding: unknown fields in {value!r:.200}")
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        name, separator = value
    else:
        name = getattr(value, "kind", None) or getattr(value, "name", None)
        separator = getattr(value, "separator", None)
    if not isinstance(name, str) or name not in ("default", "v2"):
        raise MetadataError(f'chunk_key_encoding: "default" or "v2" is needed, got {value!r:.200}')
    if separator is None:
        separator = "/" if name == "default" else "."
    if not isinstance(separator, str) or separator not in (".", "/"):
        raise MetadataError(f'chunk_key_encoding: the separator must be "." or "/": {value!r:.200}')
    if zarr_format == 2 and name != "v2":
        raise MetadataError('chunk_key_encoding: format 2 knows "v2" only')
    return KeyEncoding(name, separator)  # type: ignore[arg-type]


def build_metadata(
    *,
    shape: Any,
    dtype: DType,
    zarr_format: Literal[2, 3],
    chunks: Any = "auto",
    shards: Any = None,
    filters: Any = "auto",
    compressors: Any = "auto",
    serializer: Any = "auto",
    fill_value: Any = DEFAULT_FILL,
    order: Any = None,
    attributes: Mapping[str, Any] | None = None,
    chunk_key_encoding: Any = None,
    dimension_names: Iterable[str | None] | None = None,
    partial_chunks: bool = False,
) -> ArrayMetadata:
    """The metadata of a new array, checked down to its codec chain.

    The arguments are those of :func:`zarr_gpu.create_array`.

    Raises
    ------
    MetadataError
        An argument is invalid, or does not go with another.
    """
    lengths = parse_shape(shape)
    itemsize = 1 if dtype.vlen is not None else dtype.itemsize
    sharded = shards is not None and shards is not False
    chunk_shape = choose_chunks(chunks, lengths, itemsize, partial=partial_chunks, sharded=sharded)
    if order not in (None, "C", "F"):
        raise MetadataError(f'order must be "C" or "F", got {order!r:.80}')
    encoding = parse_key_encoding(chunk_key_encoding, zarr_format)
    plain = plain_attributes(attributes)
    if zarr_format == 2:
        for name, value in (("shards", shards), ("dimension_names", dimension_names)):
            if value is not None:
                raise MetadataError(f"{name}: format 2 has none")
        if not (serializer is None or (isinstance(serializer, str) and serializer == "auto")):
            raise MetadataError("serializer: format 2 has none; use filters and compressors")
        metadata = v2.build_array(
            shape=lengths,
            chunks=chunk_shape,
            dtype=dtype,
            fill_value=default_fill(dtype) if fill_value is DEFAULT_FILL else fill_value,
            order=config.get("array.order") if order is None else order,
            filters=_v2_filters(filters),
            compressor=_v2_compressor(compressors),
            dimension_separator=encoding.separator,
            attributes=plain,
        )
    else:
        dtype = dtype.native()
        fill = default_fill(dtype)
        if fill_value is not None and fill_value is not DEFAULT_FILL:
            fill = cast_fill(dtype, fill_value)
        spec = ChunkSpec(chunk_shape, dtype.numpy, fill)
        codecs = _v3_codecs(filters, serializer, compressors, dtype, spec)
        if sharded:
            chunk_shape, codecs = _shard(shards, lengths, chunk_shape, codecs)
        names = None
        if dimension_names is not None:
            single = isinstance(dimension_names, str)
            names = [dimension_names] if single else list(dimension_names)
        metadata = v3.build_array(
            shape=lengths,
            chunk_shape=chunk_shape,
            dtype=dtype,
            codecs=codecs,
            fill_value=fill,
            key_encoding=encoding,
            attributes=plain,
            dimension_names=names,  # type: ignore[arg-type]
        )
    compile_layout(metadata, "")  # refuses a chain that could not be run
    return metadata


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _v2_filters(filters: Any) -> list[dict[str, Any]] | None:
    if _is_auto(filters):
        return None
    return [to_v2(item, "filters") for item in split_argument(filters)] or None


def _v2_compressor(compressors: Any) -> dict[str, Any] | None:
    if _is_auto(compressors):
        return {"id": "zstd", "level": 0}
    items = split_argument(compressors)
    if len(items) > 1:
        raise MetadataError(
            f"compressors: format 2 has one compressor, got {len(items)}; "
            "put those that come before it into filters"
        )
    return to_v2(items[0], "compressors") if items else None


def _v3_codecs(
    filters: Any, serializer: Any, compressors: Any, dtype: DType, spec: ChunkSpec
) -> list[dict[str, Any]]:
    """The chain of one chunk as v3 documents name it."""
    before = [] if _is_auto(filters) else split_argument(filters)
    behind = (
        [{"name": "zstd", "configuration": {"level": 0, "checksum": False}}]
        if _is_auto(compressors)
        else split_argument(compressors)
    )
    if serializer is None or _is_auto(serializer):
        names = {None: "bytes", "utf8": "vlen-utf8", "bytes": "vlen-bytes"}
        serializer = names[dtype.vlen]
    to_bytes = make_codec(serializer, "serializer")
    if to_bytes.to_dict() == {"name": "bytes"}:
        # v3 wants a byte order wherever there is one.  Filters may change whether there is:
        # evolving drops what is not needed.
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        to_bytes = make_codec(little, "serializer")
    chain = evolve_chain(
        [make_codec(item, "filters") for item in before],
        to_bytes,
        [make_codec(item, "compressors") for item in behind],
        spec,
    )
    return [_document(codec) for codec in chain]


def _document(codec: Codec) -> dict[str, Any]:
    """The codec's v3 object; zarr-python writes a configuration for vlen codecs and so do we."""
    document = codec.to_dict()
    if codec.name in _OBJECT_TYPES:
        document.setdefault("configuration", {})
    return document


def _shard(
    shards: Any,
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    codecs: list[dict[str, Any]],
) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    """Put ``codecs`` into a shard; ``shards`` is its shape or a mapping with ``shape``."""
    options: dict[str, Any] = {}
    if isinstance(shards, Mapping):
        options = dict(shards)
        shards = options.pop("shape", None)
        unknown = set(options) - {"index_codecs", "index_location"}
        if shards is None or unknown:
            raise MetadataError(
                "shards: as a mapping it has shape and may have index_codecs and index_location"
            )
    shard_shape = choose_shards(shards, shape, chunk_shape)
    index_codecs = options.get("index_codecs")
    location = options.get("index_location", "end")
    location = getattr(location, "value", location)  # an enum of zarr-python
    if location not in ("start", "end"):
        raise MetadataError(f'shards: index_location must be "start" or "end", got {location!r}')
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(chunk_shape),
            "codecs": codecs,
            "index_codecs": [
                make_codec(item, "index_codecs").to_dict()
                for item in (
                    _INDEX_CODECS if index_codecs is None else split_argument(index_codecs)
                )
            ],
            "index_location": location,
        },
    }
    return shard_shape, [sharding]


@dataclass(frozen=True, slots=True)
class Description:
    """An existing array in the words of ``create_array``: what "keep" keeps."""

    chunks: tuple[int, ...]
    shards: dict[str, Any] | None
    filters: list[Any]
    serializer: Any
    compressors: list[Any]


def describe(metadata: ArrayMetadata) -> Description:
    """The arguments that would create the codecs and chunks of an existing array again."""
    if metadata.zarr_format == 2:
        document = metadata.document
        compressor = document.get("compressor")
        return Description(
            chunks=metadata.chunk_shape,
            shards=None,
            filters=list(document.get("filters") or ()),
            serializer="auto",
            compressors=[] if compressor is None else [compressor],
        )
    chunks = metadata.chunk_shape
    shards = None
    codecs: list[Any] = [item.to_dict() for item in metadata.codecs]
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        inner = codecs[0]["configuration"]
        shards = {"shape": chunks, "index_codecs": inner["index_codecs"]}
        shards["index_location"] = inner.get("index_location", "end")
        chunks = tuple(inner["chunk_shape"])
        codecs = list(inner["codecs"])
    return Description(chunks, shards, *split_codecs(codecs))


def split_codecs(codecs: list[Any]) -> tuple[list[Any], Any, list[Any]]:
    """A chain as (filters, serializer, compressors).

    Raises
    ------
    MetadataError
        There is no codec that turns arrays into bytes.
    """
    made = [make_codec(item, "codecs") for item in codecs]
    for at, codec in enumerate(made):
        if isinstance(codec, ArrayToBytes):
            return codecs[:at], codecs[at], codecs[at + 1 :]
    raise MetadataError("codecs: none of them turns arrays into bytes (such as 'bytes')")


def as_metadata(node: Any) -> ArrayMetadata | GroupMetadata:
    """Metadata from metadata, an array or group, a document, or an object with ``to_dict``.

    Raises
    ------
    MetadataError
        It is none of these, or invalid.
    """
    node = getattr(node, "metadata", node)
    if isinstance(node, (ArrayMetadata, GroupMetadata)):
        return node
    if not isinstance(node, Mapping) and callable(getattr(node, "to_dict", None)):
        node = node.to_dict()
    if not isinstance(node, Mapping):
        raise MetadataError(f"metadata of an array or a group is needed, got {node!r:.80}")
    document = documents.loads(documents.dumps(node, key="document"), key="document")
    if document.get("consolidated_metadata", 0) is None:
        del document["consolidated_metadata"]
    if document.get("zarr_format") == 3:
        return v3.parse(document, key="document")
    attributes = document.pop("attributes", None)
    if "shape" in document:
        return v2.parse_array(document, attributes, key="document")
    return v2.parse_group({"zarr_format": document.get("zarr_format")}, attributes, key="document")
