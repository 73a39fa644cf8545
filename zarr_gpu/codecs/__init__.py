"""The codecs, under the names that zarr-python uses.

A codec's file is imported when its name is first used.  ``zarr_gpu.codecs.numcodecs`` holds those
that are known from Zarr v2.  Third parties add theirs by :func:`register_codec` or by an entry
point of group ``zarr_gpu.codecs``.  Imports base and registry.
"""

from __future__ import annotations

from typing import Any

from zarr_gpu.codecs.registry import codec_names, get_codec_class, load, register_codec

_PUBLIC = {
    "BloscCname": "blosc:BloscCname",
    "BloscCodec": "blosc:BloscCodec",
    "BloscShuffle": "blosc:BloscShuffle",
    "BytesCodec": "bytes:BytesCodec",
    "Crc32cCodec": "crc32c:Crc32cCodec",
    "Endian": "bytes:Endian",
    "GzipCodec": "gzip:GzipCodec",
    "ShardingCodec": "sharding:ShardingCodec",
    "ShardingCodecIndexLocation": "sharding:ShardingCodecIndexLocation",
    "TransposeCodec": "transpose:TransposeCodec",
    "VLenBytesCodec": "vlen_bytes:VLenBytesCodec",
    "VLenUTF8Codec": "vlen_utf8:VLenUTF8Codec",
    "ZstdCodec": "zstd:ZstdCodec",
}

__all__ = [*_PUBLIC, "codec_names", "get_codec_class", "register_codec"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    target = _PUBLIC.get(name)
    if target is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = load(target)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
