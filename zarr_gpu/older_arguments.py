"""The older words for the arguments of creation, made into today's.

zarr-python 2 spoke of ``compressor``, ``dimension_separator`` and ``chunk_shape``; ``create``,
``open_array`` and the methods of groups still take these.  Imports ``creation``, config and errors;
called by ``group`` and ``api``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zarr_gpu.codec_arguments import split_argument
from zarr_gpu.config import ArrayConfig
from zarr_gpu.creation import split_codecs
from zarr_gpu.errors import MetadataError, ZarrUserWarning

__all__ = ["translate_arguments", "warn_of_ignored"]

_WITHOUT_EFFECT = frozenset(
    ("synchronizer", "chunk_store", "cache_metadata", "cache_attrs", "meta_array", "read_only")
)
"""Arguments that zarr-python accepts, warns of and ignores."""


def warn_of_ignored(arguments: Mapping[str, Any], *, stacklevel: int = 3) -> dict[str, Any]:
    """``arguments`` without those that have no effect; warns of each that was given."""
    for name in _WITHOUT_EFFECT & set(arguments):
        if arguments[name] is not None:
            warnings.warn(
                f"{name} has no effect and is ignored", ZarrUserWarning, stacklevel=stacklevel
            )
    return {name: value for name, value in arguments.items() if name not in _WITHOUT_EFFECT}


def _is_default(value: Any, *defaults: str) -> bool:
    """Whether ``value`` is one of ``defaults``, by default None, "auto" and "keep"."""
    if not defaults and value is None:
        return True
    return isinstance(value, str) and value in (defaults or ("auto", "keep"))


def translate_arguments(arguments: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``create_array`` that those of the older ``create`` amount to.

    Parameters
    ----------
    arguments
        In the words of ``create_array``.
    older
        Whatever else was given: arguments of ``create``, or of ``create_array`` again.

    Raises
    ------
    MetadataError
        Two arguments say the same thing.
    TypeError
        There is no such argument.
    """
    merged = dict(arguments)
    rest = warn_of_ignored(older, stacklevel=5)

    said: dict[str, str] = {name: name for name in rest}
    said |= {name: name for name, value in merged.items() if not _is_default(value)}

    def put(name: str, value: Any, old: str) -> None:
        if name in said:
            raise MetadataError(f"{old} and {said[name]} were both given")
        merged[name] = value
        said[name] = old

    compressor = rest.pop("compressor", "auto")
    if not _is_default(compressor, "auto"):
        put("compressors", compressor, "compressor")
    for old, name in (
        ("chunk_shape", "chunks"),
        ("dimension_separator", "chunk_key_encoding"),
    ):
        value = rest.pop(old, None)
        if value is not None:
            put(name, value, old)
    codecs = rest.pop("codecs", None)
    if codecs is not None:
        filters, serializer, compressors = split_codecs(split_argument(codecs))
        put("filters", filters, "codecs")
        put("serializer", serializer, "codecs")
        put("compressors", compressors, "codecs")
    write_empty = rest.pop("write_empty_chunks", None)
    if write_empty is not None:
        run_time = ArrayConfig.parse(merged.get("config"))
        merged["config"] = replace(run_time, write_empty_chunks=write_empty)
    options = rest.pop("storage_options", None)
    if options:
        raise MetadataError("storage_options are for opening a store by its URL")
    unknown = set(rest) - _ARGUMENTS
    if unknown:
        raise TypeError(f"unknown arguments: {', '.join(sorted(unknown))}")
    return merged | rest


_ARGUMENTS = frozenset(
    [
        *("shape", "dtype", "data", "chunks", "shards", "filters", "compressors", "serializer"),
        *("fill_value", "order", "attributes", "chunk_key_encoding", "dimension_names"),
        *("overwrite", "config", "write_data", "object_codec", "partial_chunks", "device"),
    ]
)
