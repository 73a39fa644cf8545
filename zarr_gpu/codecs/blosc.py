"""``blosc``: frames of c-blosc 1, several compressors behind one header.

The header is held against the length of the data and the size of the chunk before C code sees the
frame.  Imports base, checks and native; called through the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from struct import Struct
from typing import Any, ClassVar, Self, TypedDict

import numpy as np

from zarr_gpu.codecs import native
from zarr_gpu.codecs.base import U8, BytesToBytes, ChunkSpec
from zarr_gpu.codecs.checks import (
    DAMAGE,
    allocate,
    check_choice,
    check_config,
    check_int,
    check_size,
    damaged,
)

__all__ = ["Blosc", "BloscCname", "BloscCodec", "BloscShuffle"]

_HEADER = Struct("<4B3I")  # version, compressor's version, flags, typesize, nbytes, block, cbytes
_OVERHEAD = 16
_MEMCPYED = 2
_LARGEST = (1 << 31) - 1 - _OVERHEAD
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_CNAMES = ("lz4", "lz4hc", "blosclz", "snappy", "zlib", "zstd")
_FIELDS = ("typesize", "cname", "clevel", "shuffle", "blocksize")


class BloscShuffle(StrEnum):
    """Values of ``shuffle``; plain strings serve as well."""

    noshuffle = "noshuffle"
    shuffle = "shuffle"
    bitshuffle = "bitshuffle"


class BloscCname(StrEnum):
    """Values of ``cname``; plain strings serve as well."""

    lz4 = "lz4"
    lz4hc = "lz4hc"
    blosclz = "blosclz"
    zstd = "zstd"
    snappy = "snappy"
    zlib = "zlib"


class _Parameters(TypedDict):
    """What the library is called with."""

    cname: str
    clevel: int
    shuffle: int
    typesize: int
    block: int


@dataclass(frozen=True, kw_only=True)
class BloscCodec(BytesToBytes):
    """Blocks of shuffled and compressed bytes.

    Parameters
    ----------
    typesize
        Bytes of one element, by which bytes are shuffled; None: taken from the data type.
    cname
        Compressor: lz4, lz4hc, blosclz, zlib, zstd (snappy where the library has it).
    clevel
        0 (store) to 9 (smallest).
    shuffle
        "noshuffle", "shuffle", "bitshuffle"; None: "bitshuffle" for elements of one byte,
        "shuffle" for larger ones.
    blocksize
        Bytes of one block, 0 to let c-blosc choose.

    Examples
    --------
    >>> import numpy as np
    >>> codec = BloscCodec(typesize=2, cname="lz4", shuffle="shuffle")
    >>> codec.decode(codec.encode(np.zeros(4, "u1")), limit=4, exact=True)
    array([0, 0, 0, 0], dtype=uint8)
    """

    name: ClassVar[str] = "blosc"
    v2_id: ClassVar[str | None] = "blosc"

    typesize: int | None = None
    cname: str = "zstd"
    clevel: int = 5
    shuffle: str | None = None
    blocksize: int = 0

    def __post_init__(self) -> None:
        values: dict[str, Any] = {
            "typesize": self.typesize,
            "shuffle": self.shuffle,
            "cname": check_choice(self.name, "cname", self.cname, _CNAMES),
            "clevel": check_int(self.name, "clevel", self.clevel, 0, 9),
            "blocksize": check_int(self.name, "blocksize", self.blocksize, 0, _LARGEST),
        }
        if self.typesize is not None:
            values["typesize"] = check_int(self.name, "typesize", self.typesize, 1, _LARGEST)
        shuffle: Any = self.shuffle
        if isinstance(shuffle, (int, np.integer)):  # numcodecs: -1 chooses by the element size
            number = check_int(self.name, "shuffle", shuffle, -1, 2)
            values["shuffle"] = _SHUFFLES[number] if number >= 0 else None
        elif shuffle is not None:
            values["shuffle"] = check_choice(self.name, "shuffle", shuffle, _SHUFFLES)
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**check_config(cls.name, config, _FIELDS))

    def to_config(self) -> dict[str, Any]:
        return {
            "typesize": 1 if self.typesize is None else self.typesize,
            "cname": self.cname,
            "clevel": self.clevel,
            "shuffle": self.shuffle or "bitshuffle",
            "blocksize": self.blocksize,
        }

    def to_v2_config(self) -> dict[str, Any]:
        return {
            "cname": self.cname,
            "clevel": self.clevel,
            "shuffle": -1 if self.shuffle is None else _SHUFFLES.index(self.shuffle),
            "blocksize": self.blocksize,
        }

    def evolve(self, spec: ChunkSpec) -> Self:
        itemsize = 1 if spec.dtype.hasobject or spec.dtype.kind == "T" else spec.dtype.itemsize
        codec = self
        if codec.typesize is None:
            codec = replace(codec, typesize=max(itemsize, 1))
        if codec.shuffle is None:
            codec = replace(codec, shuffle="bitshuffle" if itemsize == 1 else "shuffle")
        return codec

    def encoded_bound(self, nbytes: int) -> int:
        return nbytes + _OVERHEAD

    def encode(self, data: U8) -> U8:
        return self._encode(data, None)

    def encode_into(self, data: U8, out: U8) -> U8:
        return self._encode(data, out)

    def _encode(self, data: U8, memory: U8 | None) -> U8:
        if len(data) > _LARGEST:
            raise damaged(
                self.name, f"Blosc takes at most {_LARGEST} bytes at once", actual=len(data)
            )
        parameters = self._parameters()
        library = native.blosc()
        if library is None:
            shuffle, typesize = parameters["shuffle"], parameters["typesize"]
            return self._encode_by_numcodecs(data, shuffle, typesize)
        out = allocate(self.name, len(data) + _OVERHEAD, memory)
        size = library.compress(data, out, **parameters)
        if size <= 0:
            raise damaged(
                self.name,
                f"c-blosc cannot compress with {self.cname!r} (code {size})",
                actual=len(data),
            )
        return out[:size]

    def _parameters(self) -> _Parameters:
        typesize = self.typesize or 1
        return {
            "cname": self.cname,
            "clevel": self.clevel,
            "shuffle": _SHUFFLES.index(
                self.shuffle or ("shuffle" if typesize > 1 else "bitshuffle")
            ),
            "typesize": typesize,
            "block": self.blocksize,
        }

    def encoder(self, nbytes: int) -> native.Encoder | None:
        library = native.blosc()
        if library is None or nbytes > _LARGEST:
            return None
        return library.encoder(**self._parameters())

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        nbytes = self._check_frame(data)
        check_size(self.name, nbytes, limit, exact=exact)
        target = allocate(self.name, nbytes, out)
        if not nbytes:
            return target
        library = native.blosc()
        if library is None:
            size = self._decode_by_numcodecs(data, target)
        else:
            size = library.decompress(data, target)
        if size != nbytes:
            raise damaged(
                self.name, f"damaged frame (code {size})", expected=nbytes, actual=len(data)
            )
        return target

    def decode_part(self, data: U8, lo: int, hi: int, out: U8) -> bool:
        library = native.blosc()
        if library is None or self._check_frame(data) != len(out):
            return False
        _, _, flags, typesize, nbytes, block, _ = _HEADER.unpack_from(data.data)
        if flags & _MEMCPYED:
            return False
        needed = ((hi - 1) // block - lo // block + 1) * block
        if 2 * needed > nbytes:  # a part is decoded elsewhere, and copied
            return False
        first = lo // typesize
        count = -(-hi // typesize) - first
        target = out[first * typesize : (first + count) * typesize]
        return library.getitem(data, first, count, target) == len(target)

    def decoder(self) -> native.Decoder | None:
        library = native.blosc()
        return None if library is None else library.decoder

    def _check_frame(self, data: U8) -> int:
        """The decoded size, once the header agrees with the data."""
        length = len(data)
        if length < _OVERHEAD:
            raise damaged(self.name, "the frame's header is incomplete", actual=length)
        version, _, flags, typesize, nbytes, block, cbytes = _HEADER.unpack_from(data.data)
        if cbytes != length:
            raise damaged(
                self.name,
                "the frame's length differs from its header",
                expected=cbytes,
                actual=length,
            )
        if not 1 <= version <= 2 or flags & 8 or flags >> 5 > 4 or flags & 5 == 5:
            raise damaged(
                self.name,
                f"no frame of c-blosc 1 (format {version}, flags {flags:#04x})",
                actual=length,
            )
        if not nbytes:
            sane = True
        elif flags & _MEMCPYED:
            sane = cbytes == nbytes + _OVERHEAD
        else:
            blocks = -(-nbytes // block) if block else 0
            sane = 0 < block <= nbytes and _OVERHEAD + 4 * blocks <= length
        if not sane or not typesize or nbytes > _LARGEST:
            raise damaged(
                self.name,
                f"the frame's header is damaged ({nbytes} bytes in blocks of {block}, "
                f"typesize {typesize})",
                actual=length,
            )
        return int(nbytes)

    def _decode_by_numcodecs(self, data: U8, target: U8) -> int:
        decompress = native.public().blosc.decompress
        try:
            decompress(data, target)
        except DAMAGE as error:
            raise damaged(self.name, f"damaged frame: {error}", actual=len(data)) from error
        return len(target)

    def _encode_by_numcodecs(self, data: U8, shuffle: int, typesize: int) -> U8:
        compress = native.public().blosc.compress
        try:
            frame = compress(
                data, self.cname.encode(), self.clevel, shuffle, self.blocksize, typesize
            )
        except DAMAGE as error:
            raise damaged(self.name, f"cannot compress: {error}", actual=len(data)) from error
        return np.frombuffer(frame, np.uint8)


@dataclass(frozen=True)
class Blosc(BloscCodec):
    """``blosc`` with the configuration and the defaults of numcodecs: ``shuffle`` is a number."""

    name: ClassVar[str] = "numcodecs.blosc"

    cname: str = "lz4"
    clevel: int = 5
    shuffle: str | None = "shuffle"
    blocksize: int = 0
    typesize: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, None)
        return cls(**{field: config[field] for field in _FIELDS if field in config})

    def to_config(self) -> dict[str, Any]:
        config = self.to_v2_config()
        return config if self.typesize is None else {**config, "typesize": self.typesize}
