"""Codecs by name.

A table tells in which file of this package a codec lives; the file is imported when the codec is
first asked for.  Names that are not in the table are looked up among the entry points of group
``zarr_gpu.codecs`` of installed packages and among those registered by :func:`register_codec`.  A
name is only ever compared, never imported, so metadata cannot make anything be loaded that was not
installed for this purpose.

v2 identifiers are asked for as ``numcodecs.<id>``, the names of v3 for the same codecs.  Imports
:mod:`zarr_gpu.codecs.base` and errors; called by the chain.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from zarr_gpu.codecs.base import Codec
from zarr_gpu.errors import MetadataError, MissingDependencyError, UnknownCodecError

__all__ = ["codec_names", "get_codec_class", "load", "register_codec", "registrations"]

GROUP = "zarr_gpu.codecs"
"""Entry points of other packages: name of the codec -> its class."""

_TABLE = {
    # Zarr v3 and its extensions
    "blosc": "blosc:BloscCodec",
    "bytes": "bytes:BytesCodec",
    "crc32c": "crc32c:Crc32cCodec",
    "endian": "bytes:BytesCodec",  # the name of early drafts
    "gzip": "gzip:GzipCodec",
    "sharding_indexed": "sharding:ShardingCodec",
    "transpose": "transpose:TransposeCodec",
    "vlen-bytes": "vlen_bytes:VLenBytesCodec",
    "vlen-utf8": "vlen_utf8:VLenUTF8Codec",
    "zstd": "zstd:ZstdCodec",
    # numcodecs: v2, and v3 under these names
    "numcodecs.adler32": "adler32:Adler32",
    "numcodecs.astype": "astype:AsType",
    "numcodecs.bitround": "bitround:BitRound",
    "numcodecs.blosc": "blosc:Blosc",
    "numcodecs.bz2": "bz2:BZ2",
    "numcodecs.crc32": "crc32:CRC32",
    "numcodecs.crc32c": "crc32c:CRC32C",
    "numcodecs.delta": "delta:Delta",
    "numcodecs.fixedscaleoffset": "fixedscaleoffset:FixedScaleOffset",
    "numcodecs.fletcher32": "fletcher32:Fletcher32",
    "numcodecs.gzip": "gzip:GZip",
    "numcodecs.lz4": "lz4:LZ4",
    "numcodecs.lzma": "lzma:LZMA",
    "numcodecs.packbits": "packbits:PackBits",
    "numcodecs.quantize": "quantize:Quantize",
    "numcodecs.shuffle": "shuffle:Shuffle",
    "numcodecs.vlen-bytes": "vlen_bytes:VLenBytesCodec",
    "numcodecs.vlen-utf8": "vlen_utf8:VLenUTF8Codec",
    "numcodecs.zlib": "zlib:Zlib",
    "numcodecs.zstd": "zstd:Zstd",
}

_loaded: dict[str, type[Codec]] = {}
_registered = 0


def get_codec_class(name: str) -> type[Codec]:
    """The class of the codec called ``name`` in v3 metadata.

    Raises
    ------
    UnknownCodecError
        No codec of this name is known.
    MissingDependencyError
        The codec is known, but a library that it needs cannot be imported.

    Examples
    --------
    >>> get_codec_class("gzip").__name__
    'GzipCodec'
    """
    found = _loaded.get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    if not isinstance(name, str):
        raise UnknownCodecError(f"a codec's name must be a string, not {name!r:.80}")
    target = _TABLE.get(name)
    cls = _from_entry_points(name) if target is None else load(target)
    _loaded[name] = cls
    return cls


def load(target: str) -> Any:
    """``"module:attribute"`` of this package, where ``module`` lies in ``zarr_gpu/codecs``."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(f"zarr_gpu.codecs.{module}"), attribute)
    except ImportError as error:  # a Python that was built without bz2 or lzma
        raise MissingDependencyError(
            f"codec {module!r} needs a module that is missing: {error}", codec=module
        ) from error


def register_codec(name: str, cls: type[Codec]) -> None:
    """Make ``cls`` the codec called ``name``, in place of the one known so far if there is one.

    Examples
    --------
    >>> register_codec("example.gzip", get_codec_class("gzip"))
    >>> get_codec_class("example.gzip").name
    'gzip'
    """
    if not isinstance(name, str) or not name:
        raise MetadataError(f"a codec's name must be a non-empty string, not {name!r:.80}")
    if not (isinstance(cls, type) and issubclass(cls, Codec)):
        raise MetadataError(f"{cls!r:.80} is no subclass of zarr_gpu.codecs.base.Codec", codec=name)
    global _registered
    _loaded[name] = cls
    _registered += 1


def registrations() -> int:
    """How often codecs have been registered: what was made of names before may be out of date."""
    return _registered


def codec_names() -> tuple[str, ...]:
    """Names of all codecs known, sorted; entry points are listed without being loaded."""
    return tuple(sorted({*_TABLE, *_loaded, *(point.name for point in _entry_points())}))


def _entry_points() -> Any:
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def _from_entry_points(name: str) -> type[Codec]:
    for point in _entry_points():
        if point.name != name:
            continue
        try:
            cls = point.load()
        except Exception as error:
            raise MissingDependencyError(
                f"codec {name!r} is provided by {point.value!r}, which cannot be loaded: {error}",
                codec=name,
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, Codec)):
            raise MetadataError(
                f"codec {name!r} is provided by {point.value!r}, which is no subclass of Codec",
                codec=name,
            )
        return cls
    raise UnknownCodecError(
        f"no codec is called {name[:200]!r}; a package that provides it must be installed, "
        "or zarr_gpu.codecs.register_codec called",
        codec=name[:200],
    )
