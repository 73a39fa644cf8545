"""The codecs of Zarr v2, under the names that zarr-python uses.

In v2 metadata they are the compressor and the filters; in v3 metadata they are called
``numcodecs.<id>``.  A codec's file is imported when its name is first used.  Imports the registry.
"""

from __future__ import annotations

from typing import Any

from zarr_gpu.codecs.registry import load

_PUBLIC = {
    "Adler32": "adler32:Adler32",
    "AsType": "astype:AsType",
    "BZ2": "bz2:BZ2",
    "BitRound": "bitround:BitRound",
    "Blosc": "blosc:Blosc",
    "CRC32": "crc32:CRC32",
    "CRC32C": "crc32c:CRC32C",
    "Delta": "delta:Delta",
    "FixedScaleOffset": "fixedscaleoffset:FixedScaleOffset",
    "Fletcher32": "fletcher32:Fletcher32",
    "GZip": "gzip:GZip",
    "LZ4": "lz4:LZ4",
    "LZMA": "lzma:LZMA",
    "PackBits": "packbits:PackBits",
    "Quantize": "quantize:Quantize",
    "Shuffle": "shuffle:Shuffle",
    "Zlib": "zlib:Zlib",
    "Zstd": "zstd:Zstd",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    target = _PUBLIC.get(name)
    if target is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = load(target)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
