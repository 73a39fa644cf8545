"""N5 blocks: header, payload, and the decompression of the payload.

A block is, big-endian: a mode (uint16), the number of dimensions (uint16), the block's extents
(uint32 each, the fastest first) and, where the mode is 1, the number of elements (uint32); then the
compressed elements.  Blocks at the edge may be smaller than the others.

Imports ``errors``; decompressors on first use; called by ``storage/n5.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.errors import CodecError, DataError, MetadataError

__all__ = ["Dataset", "decode_block", "parse_dataset"]

TYPES = frozenset(
    f"{kind}{bits}"
    for kind, sizes in (("uint", (8, 16, 32, 64)), ("int", (8, 16, 32, 64)), ("float", (32, 64)))
    for bits in sizes
)

Decompress = Callable[[bytes, int], bytes]
"""From bytes to the given number of bytes; one more at most, if there are more."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What ``attributes.json`` says of an array, axes in NumPy's order."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: npt.DTypeLike
    compression: str
    decompress: Decompress


def parse_dataset(attributes: Mapping[str, Any], key: str) -> Dataset:
    """The dataset that the attributes describe.

    Raises
    ------
    MetadataError
        They do not, or in terms that are unknown.
    """
    try:
        shape = tuple(int(n) for n in reversed(attributes["dimensions"]))
        chunks = tuple(int(n) for n in reversed(attributes["blockSize"]))
        kind = attributes["dataType"]
        compression = attributes.get("compression", attributes.get("compressionType", "raw"))
        options = compression if isinstance(compression, dict) else {"type": compression}
        name = options["type"]
    except (KeyError, TypeError, ValueError) as cause:
        raise MetadataError(f"not the attributes of an N5 dataset: {cause!r}", key=key) from cause
    if not isinstance(kind, str) or kind not in TYPES:
        raise MetadataError(f"N5 data type {kind!r:.80} is not supported", key=key)
    if len(shape) != len(chunks) or not shape or min(chunks) < 1 or min(shape) < 0:
        raise MetadataError(
            f"N5 dimensions {shape} and block size {chunks} do not fit each other", key=key
        )
    decompress = _DECOMPRESSORS.get(name) if isinstance(name, str) else None
    if decompress is None:
        raise MetadataError(
            f"N5 compression {name!r:.80} is not supported: {', '.join(_DECOMPRESSORS)} are",
            key=key,
        )
    return Dataset(shape, chunks, np.dtype(kind), name, decompress)


def decode_block(data: bytes, dataset: Dataset, key: str) -> bytes:
    """The chunk of a block: elements of the whole chunk shape, little-endian, in C order.

    What a block at the edge lacks is 0.

    Raises
    ------
    DataError
        The block contradicts the dataset, or is damaged.
    """
    n = len(dataset.chunks)
    header = 4 + 4 * n
    if len(data) < header:
        raise DataError("the N5 block is cut short", key=key, expected=header, actual=len(data))
    mode, ndim = struct.unpack_from(">HH", data)
    if ndim != n or mode not in {0, 1}:
        raise DataError(
            f"the N5 block has mode {mode} and {ndim} dimensions; modes 0 and 1, and {n} "
            "dimensions, can be read",
            key=key,
        )
    shape = struct.unpack_from(f">{n}I", data, 4)[::-1]
    if any(have > most for have, most in zip(shape, dataset.chunks, strict=True)):
        raise DataError(f"the N5 block is {shape}, larger than {dataset.chunks}", key=key)
    kind = np.dtype(dataset.dtype).newbyteorder(">")
    expected = prod(shape) * kind.itemsize
    if mode == 1:
        (elements,) = struct.unpack_from(">I", data, header) if len(data) >= header + 4 else (-1,)
        header += 4
        if elements != prod(shape):
            raise DataError(f"the N5 block has {elements} elements for {shape}", key=key)
    try:
        raw = dataset.decompress(data[header:], expected)
    except Exception as cause:
        raise CodecError(
            f"the N5 block cannot be decompressed: {cause}", key=key, codec=dataset.compression
        ) from cause
    if len(raw) != expected:
        raise DataError(
            "the N5 block has a wrong size", key=key, expected=expected, actual=len(raw)
        )
    block = np.frombuffer(raw, kind).reshape(shape)
    if shape == dataset.chunks:
        return block.astype(kind.newbyteorder("<")).tobytes()
    chunk = np.zeros(dataset.chunks, kind.newbyteorder("<"))
    chunk[tuple(slice(n) for n in shape)] = block
    return chunk.tobytes()


# ---------------------------------------------------------------------------------- decompression


def _raw(data: bytes, nbytes: int) -> bytes:  # noqa: ARG001  as the others
    return data


def _gzip(data: bytes, nbytes: int) -> bytes:
    import zlib

    return _stream(zlib.decompressobj(zlib.MAX_WBITS | 32), data, nbytes)  # zlib's header or gzip's


def _bzip2(data: bytes, nbytes: int) -> bytes:
    import bz2

    return _stream(bz2.BZ2Decompressor(), data, nbytes)


def _xz(data: bytes, nbytes: int) -> bytes:
    import lzma

    return _stream(lzma.LZMADecompressor(), data, nbytes)


def _stream(decompressor: Any, data: bytes, nbytes: int) -> bytes:
    """No more than one byte above ``nbytes`` is made, whatever the data claim."""
    result: bytes = decompressor.decompress(data, nbytes + 1)
    if len(result) == nbytes and not decompressor.eof:
        # The last call may have ended at the last byte, before the checksum was looked at.
        rest = getattr(decompressor, "unconsumed_tail", b"")
        result += decompressor.decompress(rest, 1)
        if not decompressor.eof:
            raise ValueError("the stream is cut short")
    return result


def _blosc(data: bytes, nbytes: int) -> bytes:
    from numcodecs import blosc

    if len(data) < 16:
        raise ValueError("the Blosc frame is cut short")
    decoded, _, stored = struct.unpack_from("<III", data, 4)
    if decoded != nbytes or stored != len(data):  # the library would not notice
        raise ValueError("the Blosc frame has another size")
    return bytes(blosc.decompress(data))


def _zstd(data: bytes, nbytes: int) -> bytes:
    from numcodecs.zstd import Zstd

    out = np.empty(nbytes, np.uint8)
    Zstd().decode(data, out)
    return out.tobytes()


def _lz4(data: bytes, nbytes: int) -> bytes:
    """Blocks as Java's LZ4BlockOutputStream writes them, or one of zarr-python 2."""
    from numcodecs.lz4 import LZ4

    codec = LZ4()
    if not data.startswith(b"LZ4Block"):
        if struct.unpack_from("<I", data)[0] != nbytes:
            raise ValueError("the LZ4 block has another size")
        return bytes(codec.decode(data))
    parts: list[bytes] = []
    total = at = 0
    while True:
        magic, token, packed, size, _ = struct.unpack_from("<8sBIII", data, at)
        at += 21
        if magic != b"LZ4Block":
            raise ValueError("no LZ4 block where one should be")
        if size == 0:
            return b"".join(parts)
        total += size
        if total > nbytes or len(data) < at + packed:
            raise ValueError("the LZ4 blocks have a wrong size")
        part = data[at : at + packed]
        if token & 0xF0 == 0x20:
            part = bytes(codec.decode(struct.pack("<I", size) + part))
        if len(part) != size:
            raise ValueError("an LZ4 block has a wrong size")
        parts.append(part)
        at += packed


_DECOMPRESSORS: dict[str, Decompress] = {
    "raw": _raw,
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "lz4": _lz4,
    "blosc": _blosc,
    "zstd": _zstd,
}
