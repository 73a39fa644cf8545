"""``zstd``: Zstandard frames (RFC 8878), several allowed, content size told or not.

The C library decodes into memory of the size that the chunk must have, so a frame can never become
larger.  Where only numcodecs' functions can be called, which trust the frame, the frames are
walked here first.  Imports base, checks and native; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from zarr_gpu.codecs import native
from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import (
    DAMAGE,
    allocate,
    check_bool,
    check_config,
    check_int,
    check_size,
    damaged,
)

__all__ = ["Zstd", "ZstdCodec"]

_BLOCK = 1 << 17  # decoded bytes of one block, at most
_SLACK = 4 << 20  # for blocks that are shorter than they may be, where only their number is known


@dataclass(frozen=True, kw_only=True)
class ZstdCodec(BytesToBytes):
    """Zstandard.

    Parameters
    ----------
    level
        -131072 (fastest) to 22 (smallest); 0 is the library's default, 3.
    checksum
        Add a checksum of the decoded bytes.

    Examples
    --------
    >>> import numpy as np
    >>> codec = ZstdCodec(level=1)
    >>> codec.decode(codec.encode(np.zeros(3, "u1")), limit=3, exact=True)
    array([0, 0, 0], dtype=uint8)
    """

    name: ClassVar[str] = "zstd"
    v2_id: ClassVar[str | None] = "zstd"

    level: int = 0
    checksum: bool = False

    def __post_init__(self) -> None:
        level = check_int(self.name, "level", self.level, -131072, 22)
        object.__setattr__(self, "level", level)
        check_bool(self.name, "checksum", self.checksum)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**check_config(cls.name, config, ("level", "checksum")))

    def to_config(self) -> dict[str, Any]:
        return {"level": self.level, "checksum": self.checksum}

    def encode(self, data: U8) -> U8:
        return self._encode(data, None)

    def encode_into(self, data: U8, out: U8) -> U8:
        return self._encode(data, out)

    def _encode(self, data: U8, memory: U8 | None) -> U8:
        library = native.zstd()
        fallback: Any = native.public() if library is None else None
        try:
            if library is not None:
                return library.compress(data, memory, level=self.level, checksum=self.checksum)
            frame = fallback.zstd.compress(data, self.level, self.checksum)
            return np.frombuffer(frame, np.uint8)
        except DAMAGE as error:
            raise damaged(self.name, f"cannot compress: {error}", actual=len(data)) from error

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        library = native.zstd()
        if library is None:
            return self._decode_frames(data, limit, out, exact=exact)
        room = limit
        if not len(data):
            raise damaged(self.name, "no frame", actual=0)
        if not exact:
            bound = library.decompress_bound(data)
            if bound is None:
                raise damaged(self.name, "damaged or incomplete frame", actual=len(data))
            room = min(limit, bound)
        target = allocate(self.name, room, out)
        try:
            size = library.decompress(data, target)
        except DAMAGE as error:
            raise damaged(
                self.name, f"damaged frame: {error}", expected=limit, actual=len(data)
            ) from error
        check_size(self.name, size, limit, exact=exact)
        return target[:size]

    def encoder(self, nbytes: int) -> native.Encoder | None:
        library = native.zstd()
        return (
            None if library is None else library.encoder(level=self.level, checksum=self.checksum)
        )

    def decode_part(self, data: U8, lo: int, hi: int, out: U8) -> bool:
        """Blocks behind ``hi`` are not decoded; not of frames with a checksum, which must be."""
        library = native.zstd()
        if library is None or hi + _BLOCK > len(out):
            return False
        frames = _walk(data)
        if len(frames) > 1 or frames[0].content != len(out) or frames[0].checksum:
            return False
        try:
            return library.begin(data, hi, out) >= hi
        except ValueError:
            return False

    def decoder(self) -> native.Decoder | None:
        library = native.zstd()
        return None if library is None else library.decoder

    def _decode_frames(self, data: U8, limit: int, out: U8 | None, *, exact: bool) -> U8:
        """Decode by numcodecs, whose decoder neither stops at a size nor at truncated input."""
        decompress = native.public().zstd.decompress
        frames = [frame for frame in _walk(data) if not frame.skippable]
        known = sum(frame.content for frame in frames if frame.content is not None)
        unknown = [frame for frame in frames if frame.content is None]
        bound = known + sum(frame.bound for frame in unknown)
        if not unknown:
            check_size(self.name, known, limit, exact=exact)
        elif known > limit or (bound > 2 * limit + _SLACK and not (exact and len(unknown) == 1)):
            raise damaged(
                self.name,
                "frames that do not tell their content size could decode to more than the chunk "
                "holds",
                expected=limit,
                actual=bound,
            )
        target = allocate(self.name, limit if exact else min(limit, bound), out)
        size = 0
        for frame in frames:
            source: Any = data[frame.start : frame.end]
            if not frame.bound:
                if frame.content:
                    raise damaged(self.name, "damaged frame: no blocks", actual=len(data))
                continue
            # numcodecs refuses a content size of 0, told or not.
            if frame.content is None and exact and len(unknown) == 1 and limit > known:
                source = _tell_size(data, frame, limit - known)
            try:
                part = np.frombuffer(decompress(source), np.uint8)
            except DAMAGE as error:
                raise damaged(
                    self.name, f"damaged frame: {error}", expected=limit, actual=len(data)
                ) from error
            check_size(self.name, size + len(part), limit, exact=False)
            target[size : size + len(part)] = part
            size += len(part)
        check_size(self.name, size, limit, exact=exact)
        return target[:size]


@dataclass(frozen=True)
class Zstd(ZstdCodec):
    """``zstd`` with the configuration of numcodecs."""

    name: ClassVar[str] = "numcodecs.zstd"

    level: int = 0
    checksum: bool = False

    def __post_init__(self) -> None:
        level = check_int(self.name, "level", self.level, -(1 << 31), (1 << 31) - 1)
        object.__setattr__(self, "level", min(level, 22))  # as numcodecs does
        check_bool(self.name, "checksum", self.checksum)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, None)
        return cls(config.get("level", 0), config.get("checksum", False))


class _Frame(NamedTuple):
    start: int
    end: int
    content: int | None  # decoded bytes by the header, None where it does not tell
    bound: int  # decoded bytes by the blocks, at most
    skippable: bool
    header: int  # length of the header
    checksum: bool


def _walk(data: U8) -> list[_Frame]:
    """The frames of ``data`` by their headers and those of their blocks."""
    raw = data.data
    frames: list[_Frame] = []
    position = 0

    def number(at: int, width: int) -> int:
        if at + width > len(raw):
            raise damaged("zstd", "the data end within a frame", actual=len(raw))
        return int.from_bytes(raw[at : at + width], "little")

    while position < len(raw) or not frames:
        start = position
        magic = number(position, 4)
        if magic & 0xFFFFFFF0 == 0x184D2A50:
            position += 8 + number(position + 4, 4)
            number(position, 0)
            frames.append(_Frame(start, position, 0, 0, skippable=True, header=8, checksum=False))
            continue
        if magic != 0xFD2FB528:
            raise damaged("zstd", f"no frame starts at byte {position}", actual=len(raw))
        flags = number(position + 4, 1)
        single = flags >> 5 & 1
        window, dictionary = 1 - single, (0, 1, 2, 4)[flags & 3]
        content_width = (single, 2, 4, 8)[flags >> 6]
        if flags & 8 or number(position + 5 + window, dictionary):
            raise damaged("zstd", "the frame uses a dictionary or reserved bits", actual=len(raw))
        position += 5 + window + dictionary
        content = number(position, content_width) + (256 if content_width == 2 else 0)
        if single:
            most = content
        else:
            mantissa, exponent = number(start + 5, 1) & 7, number(start + 5, 1) >> 3
            most = (8 + mantissa) << (7 + exponent)
        most = min(most, _BLOCK)
        position += content_width
        header = position - start
        bound, last = 0, 0
        while not last:
            block = number(position, 3)
            last, kind, size = block & 1, block >> 1 & 3, block >> 3
            if kind == 3 or size > most:
                raise damaged("zstd", "damaged block header", actual=len(raw))
            bound += most if kind == 2 else size
            position += 3 + (1 if kind == 1 else size)
            number(position, 0)
        position += 4 if flags & 4 else 0
        number(position, 0)
        frames.append(
            _Frame(
                start,
                position,
                content if content_width else None,
                bound,
                skippable=False,
                header=header,
                checksum=bool(flags & 4),
            )
        )
    return frames


def _tell_size(data: U8, frame: _Frame, size: int) -> bytes:
    """The frame with a header that tells the content size, which the decoder then holds it to."""
    raw = bytes(data[frame.start : frame.end])
    return b"".join(
        (
            raw[:4],
            bytes([raw[4] | 0xC0]),
            raw[5 : frame.header],
            size.to_bytes(8, "little"),
            raw[frame.header :],
        )
    )
