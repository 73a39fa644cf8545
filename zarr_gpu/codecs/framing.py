"""Framings that several codecs share.

gzip, zlib, bz2 and lzma are streams whose decoded size nobody tells; they share one loop, in which
input and output pass in pieces, so that a stream that wants to become larger than its chunk is
stopped after one piece too many.  vlen-utf8 and vlen-bytes store items with their lengths.  Imports
checks; called by these codecs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Protocol

import numpy as np

from zarr_gpu.codecs.base import U8
from zarr_gpu.codecs.checks import DAMAGE, allocate, check_size, damaged
from zarr_gpu.errors import CodecError

__all__ = [
    "Decompressor",
    "Inflate",
    "decode_streams",
    "read_items",
    "write_items",
]

INPUT = 1 << 16  # bytes: small enough that copies of an unread rest cost nothing
OUTPUT = 1 << 18


class Decompressor(Protocol):
    """What ``bz2.BZ2Decompressor`` and ``lzma.LZMADecompressor`` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


class Inflate:
    """``zlib.decompressobj`` as a :class:`Decompressor`."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        rest = self._stream.unconsumed_tail
        part = self._stream.decompress(rest or data, max_length)
        # Output may wait inside zlib when the piece came out full.
        self.needs_input = not self._stream.unconsumed_tail and len(part) < max_length
        return part


def decode_streams(
    codec: str,
    data: U8,
    start: Callable[[], Decompressor],
    *,
    limit: int,
    exact: bool,
    out: U8 | None,
    many: bool = False,
    padding: int = 0,
    errors: type[Exception] = zlib.error,
) -> U8:
    """Decode one stream, or ``many`` that follow each other, which must fill ``data``.

    ``start`` makes the decompressor of one stream.  Zero bytes in a multiple of ``padding`` may
    stand between two streams and, where that is 1 (gzip on tape), behind the last.
    """
    source = data.data
    end = len(source)
    target = allocate(codec, limit, out) if exact else None
    parts: list[bytes] = []
    size = position = 0
    while True:
        try:
            stream = start()
            while not stream.eof:
                piece: bytes | memoryview = b""
                if stream.needs_input:
                    if position == end:
                        raise damaged(codec, "the data end within a stream", actual=end)
                    piece = source[position : position + INPUT]
                    position += len(piece)
                part = stream.decompress(piece, min(limit - size + 1, OUTPUT))
                if size + len(part) > limit:
                    raise damaged(
                        codec, "the data would decode to more than the chunk holds", expected=limit
                    )
                if target is None:
                    parts.append(part)
                else:
                    target[size : size + len(part)] = np.frombuffer(part, np.uint8)
                size += len(part)
        except (errors, *DAMAGE) as error:
            if isinstance(error, CodecError):
                raise
            raise damaged(codec, f"damaged stream: {error}", actual=end) from error
        position -= len(stream.unused_data)
        if position == end:
            break
        if padding:
            rest = bytes(source[position:])
            zeros = len(rest) - len(rest.lstrip(b"\0"))
            if padding == 1 and zeros == len(rest):
                break
            position += zeros - zeros % padding
        if not many or position == end:
            raise damaged(codec, f"{end - position} bytes follow the end of the stream", actual=end)
    check_size(codec, size, limit, exact=exact)
    if target is None:
        return np.frombuffer(b"".join(parts), np.uint8)
    return target


_U32 = Struct("<I")
_MOST = (1 << 32) - 1


def read_items(codec: str, data: U8, count: int) -> list[bytes]:
    """The ``count`` items of ``data``: a count, then length and bytes of each, all lengths u32."""
    raw = data.tobytes()
    size = len(raw)
    if size < 4 + 4 * count:
        raise damaged(codec, f"too short for {count} items", expected=4 + 4 * count, actual=size)
    unpack = _U32.unpack_from
    (stored,) = unpack(raw, 0)
    if stored != count:
        raise damaged(
            codec, f"{stored} items are stored where the chunk holds {count}", actual=size
        )
    items: list[bytes] = []
    append = items.append
    position = 4
    try:
        for _ in range(count):
            (length,) = unpack(raw, position)
            position += 4
            append(raw[position : position + length])  # cut short at the end: seen below
            position += length
    except struct_error as error:
        raise damaged(
            codec, f"the data end within item {len(items)} of {count}", actual=size
        ) from error
    if position != size:
        where = "end within the last item" if position > size else "go on behind the last item"
        raise damaged(codec, f"the data {where}", expected=position, actual=size)
    return items


def write_items(codec: str, items: Sequence[bytes]) -> U8:
    """The inverse of :func:`read_items`."""
    if len(items) > _MOST or any(len(item) > _MOST for item in items):
        raise damaged(codec, "more items, or more bytes in one, than 32 bits can count")
    pack = _U32.pack
    parts = [pack(len(items))]
    for item in items:
        parts += (pack(len(item)), item)
    return np.frombuffer(b"".join(parts), np.uint8)
