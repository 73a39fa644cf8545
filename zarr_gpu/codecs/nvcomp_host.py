"""A stand-in for nvCOMP's library that works on host memory, one stream after the other.

It takes the place of the shared library below :class:`~zarr_gpu.codecs.nvcomp.NvComp`: the same
function names, the same arguments (addresses as numbers), the same contract.  It is stricter where
nvCOMP trusts its caller: rows and scratch that are not aligned are refused.  It is as careless
where nvCOMP promises nothing: a damaged Zstd, Snappy, Deflate or Gzip stream fills its row with
garbage and, half of the time, reports success; the checksum of a Gzip stream is not looked at.
Which half, and what garbage, depends on the stream alone, so that tests repeat.

Imports nvcomp, Snappy and the CPU libraries; made by ``devices/sim_runtime.py``.
"""

from __future__ import annotations

import ctypes
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs import native
from zarr_gpu.codecs.nvcomp import Alignments, CrcOptions, NvComp, Options
from zarr_gpu.codecs.nvcomp_snappy import DamagedStreamError, snappy_compress, snappy_decode

__all__ = ["HostLibrary", "HostNvComp"]

U8 = npt.NDArray[np.uint8]

_NAME = re.compile(r"nvcompBatched(LZ4|Zstd|Snappy|Deflate|Gzip)(Decompress|Compress)(\w+)")

_CANNOT_DECOMPRESS = 12
_INVALID_VALUE = 10
_MISALIGNED = 17

# input, output, scratch: what nvCOMP 6.0 answers for its CUDA kernels
_DECOMPRESS = {
    "LZ4": (1, 1, 1),
    "Zstd": (1, 1, 8),
    "Snappy": (1, 1, 1),
    "Deflate": (4, 1, 1),
    "Gzip": (1, 1, 1),
}
_COMPRESS = {
    "LZ4": (1, 1, 2),
    "Zstd": (4, 1, 1),
    "Snappy": (1, 1, 1),
    "Deflate": (1, 8, 8),
    "Gzip": (1, 8, 8),
}


class HostLibrary:
    """The C functions of nvCOMP as Python callables.

    Parameters
    ----------
    alignments
        What decoding asks for, by algorithm, in place of what nvCOMP 6.0 answered.
    """

    def __init__(self, alignments: dict[str, tuple[int, int, int]] | None = None) -> None:
        self._alignments = {**_DECOMPRESS, **(alignments or {})}

    def __getattr__(self, name: str) -> Callable[..., int]:
        match = _NAME.fullmatch(name)
        if match is None:
            raise AttributeError(name)
        algorithm, way, what = match.groups()
        table: dict[str, Callable[..., int]] = {
            "DecompressGetRequiredAlignments": self._decompress_alignments,
            "DecompressGetTempSize": self._decompress_temp,
            "DecompressAsync": self._decompress,
            "CompressGetRequiredAlignments": self._compress_alignments,
            "CompressGetTempSize": self._compress_temp,
            "CompressGetMaxOutputChunkSize": self._compress_bound,
            "CompressAsync": self._compress,
        }
        return partial(table[way + what], algorithm)

    def _decompress_alignments(self, algorithm: str, opts: Options, found: Any) -> int:
        _fill_in(found, self._alignments[algorithm])
        return 0

    def _compress_alignments(self, algorithm: str, opts: Options, found: Any) -> int:
        _fill_in(found, _COMPRESS[algorithm])
        return 0

    def _decompress_temp(
        self,
        algorithm: str,
        count: int,
        largest: int,
        opts: Options,
        found: Any,
        total: int,
        st: int,
    ) -> int:
        found.contents.value = _temp(algorithm, count, total)
        return 0

    def _compress_temp(
        self,
        algorithm: str,
        count: int,
        largest: int,
        opts: Options,
        found: Any,
        total: int,
        st: int,
    ) -> int:
        found.contents.value = _compress_temp(algorithm, count, largest, total)
        return 0

    def _compress_bound(self, algorithm: str, largest: int, opts: Options, found: Any) -> int:
        found.contents.value = largest + largest // 6 + 512
        return 0

    def _decompress(
        self,
        algorithm: str,
        comp_ptrs: int,
        comp_bytes: int,
        buffer_bytes: int,
        actual_bytes: int,
        count: int,
        temp: int,
        temp_bytes: int,
        out_ptrs: int,
        opts: Options,
        statuses: int,
        stream: int,
    ) -> int:
        need = self._alignments[algorithm]
        sources, targets = _read(comp_ptrs, "u8", count), _read(out_ptrs, "u8", count)
        sizes, rooms = _read(comp_bytes, "u8", count), _read(buffer_bytes, "u8", count)
        if (sources % need[0]).any() or (targets % need[1]).any() or temp % need[2]:
            return _MISALIGNED
        if temp_bytes < _temp(algorithm, count, int(rooms.sum())):
            return _INVALID_VALUE
        actual, status = np.zeros(count, np.uint64), np.zeros(count, np.int32)
        rows = zip(sources.tolist(), sizes.tolist(), targets.tolist(), rooms.tolist(), strict=True)
        for i, (source, size, target, room) in enumerate(rows):
            data = _read(source, "u1", size)
            try:
                result = _DECODERS[algorithm](data, room)
            except DamagedStreamError:
                result = np.empty(0, np.uint8)
                status[i], actual[i] = _CANNOT_DECOMPRESS, room if size % 2 else 0
                if algorithm != "LZ4":
                    result, status[i], actual[i] = _garbage(data, room)
            else:
                actual[i] = len(result)
            _write(target, result)
        _write(actual_bytes, actual)
        _write(statuses, status)
        return 0

    def _compress(
        self,
        algorithm: str,
        in_ptrs: int,
        in_bytes: int,
        largest: int,
        count: int,
        temp: int,
        temp_bytes: int,
        out_ptrs: int,
        out_bytes: int,
        opts: Options,
        statuses: int,
        stream: int,
    ) -> int:
        sources, targets = _read(in_ptrs, "u8", count), _read(out_ptrs, "u8", count)
        sizes = _read(in_bytes, "u8", count)
        need = _COMPRESS[algorithm]
        if (sources % need[0]).any() or (targets % need[1]).any() or temp % need[2]:
            return _MISALIGNED
        if sizes.max() > largest or largest > 1 << 24:
            return _INVALID_VALUE
        if temp_bytes < _compress_temp(algorithm, count, largest, int(sizes.sum())):
            return _INVALID_VALUE
        encoded = np.zeros(count, np.uint64)
        rows = zip(sources.tolist(), sizes.tolist(), targets.tolist(), strict=True)
        for i, (source, size, target) in enumerate(rows):
            result = _encode(algorithm, _read(source, "u1", size), opts.word[0])
            _write(target, result)
            encoded[i] = len(result)
        _write(out_bytes, encoded)
        _write(statuses, np.zeros(count, np.int32))
        return 0

    def nvcompBatchedCRC32GetHeuristicConf(  # noqa: N802
        self, chunk_bytes: int | None, count: int, conf: Any, largest: int, stream: int
    ) -> int:
        """Fill in how to share the work among threads."""
        if chunk_bytes is not None or largest < 1:
            return _INVALID_VALUE
        conf.contents.bytes_per_read = 4
        return 0

    def nvcompBatchedCRC32Async(  # noqa: N802
        self,
        ptrs: int,
        nbytes: int,
        count: int,
        out: int,
        opts: CrcOptions,
        segment: int,
        statuses: int | None,
        stream: int,
    ) -> int:
        """CRC of every row, by the polynomial of ``opts``."""
        spec = opts.spec
        model = (spec.init, spec.xorout, spec.ref_in, spec.ref_out)
        crc = _CRC.get(spec.poly)
        if crc is None or model != (0xFFFFFFFF, 0xFFFFFFFF, True, True) or segment:
            return _INVALID_VALUE
        if not opts.conf.bytes_per_read:
            return _INVALID_VALUE
        sources, sizes = _read(ptrs, "u8", count).tolist(), _read(nbytes, "u8", count).tolist()
        found = [crc(_read(a, "u1", n)) for a, n in zip(sources, sizes, strict=True)]
        _write(out, np.array(found, np.uint32))
        return 0


class HostNvComp(NvComp):
    """:class:`NvComp` on the stand-in.  ``alignments``: see :class:`HostLibrary`."""

    def __init__(self, alignments: dict[str, tuple[int, int, int]] | None = None) -> None:
        super().__init__(HostLibrary(alignments))


def _fill_in(found: Any, values: tuple[int, int, int]) -> None:
    alignments: Alignments = found.contents
    alignments.input, alignments.output, alignments.temp = values


def _compress_temp(algorithm: str, count: int, largest: int, total: int) -> int:
    return count << 15 if algorithm == "LZ4" else 6 * total + largest


def _temp(algorithm: str, count: int, total: int) -> int:
    return 3 * total + 6936 * max(count, -(-total >> 17)) if algorithm == "Zstd" else 0


def _read(address: int, dtype: str, count: int) -> npt.NDArray[Any]:
    """A copy of ``count`` items at an address."""
    items = np.empty(count, dtype)
    ctypes.memmove(items.ctypes.data, address, items.nbytes)
    return items


def _write(address: int, items: npt.NDArray[Any]) -> None:
    ctypes.memmove(address, np.ascontiguousarray(items).ctypes.data, items.nbytes)


def _garbage(data: U8, room: int) -> tuple[U8, int, int]:
    """What undefined behaviour leaves: (bytes of the row, status, size told)."""
    seed = zlib.crc32(data.data) ^ len(data)
    rng = np.random.default_rng(seed)
    bytes_ = rng.integers(0, 256, room, dtype=np.uint8)
    if rng.integers(2):
        return bytes_, 0, room if rng.integers(2) else int(rng.integers(room + 1))
    return bytes_, _CANNOT_DECOMPRESS, room if rng.integers(2) else 0


def _crc32(data: U8) -> int:
    return zlib.crc32(data.data)


def _crc32c(data: U8) -> int:
    from google_crc32c import value

    return int(value(data))


def _decode_lz4(data: U8, room: int) -> U8:
    library = native.lz4()
    out = np.empty(room, np.uint8)
    if library is not None:
        size = library.decompress(data, out)
        if size < 0:
            raise DamagedStreamError(f"code {size}")
        return out[:size]
    prefix = np.frombuffer(room.to_bytes(4, "little"), np.uint8)
    try:
        native.public().lz4.decompress(np.concatenate([prefix, data]), out)
    except RuntimeError as error:
        raise DamagedStreamError(str(error)) from error
    return out


def _decode_zstd(data: U8, room: int) -> U8:
    library = native.zstd()
    out = np.empty(room, np.uint8)
    try:
        if library is not None:
            return out[: library.decompress(data, out)] if len(data) else _empty_stream()
        found = np.frombuffer(native.public().zstd.decompress(data), np.uint8)
    except (ValueError, RuntimeError) as error:
        raise DamagedStreamError(str(error)) from error
    if len(found) > room:
        raise DamagedStreamError("too large")
    return found


def _empty_stream() -> U8:
    raise DamagedStreamError("no bytes")


def _decode_deflate(data: U8, room: int) -> U8:
    stream = zlib.decompressobj(-15)
    try:
        found = stream.decompress(data.data, room + 1)
    except zlib.error as error:
        raise DamagedStreamError(str(error)) from error
    if len(found) > room or not stream.eof:
        raise DamagedStreamError("too large or cut")
    return np.frombuffer(found, np.uint8)


def _decode_gzip(data: U8, room: int) -> U8:
    if data[:4].tobytes() != b"\x1f\x8b\x08\0":
        raise DamagedStreamError("no plain header")
    return _decode_deflate(data[10:], room)


def _encode_lz4(data: U8) -> U8:
    library = native.lz4()
    if library is None:
        return np.frombuffer(native.public().lz4.compress(data), np.uint8)[4:]
    out = np.empty(library.bound(len(data)), np.uint8)
    return out[: library.compress(data, out, 1)]


def _encode_zstd(data: U8) -> U8:
    library = native.zstd()
    if library is None:
        return np.frombuffer(native.public().zstd.compress(data, 1), np.uint8)
    return library.compress(data, level=1, checksum=False)


def _encode(algorithm: str, data: U8, level: int) -> U8:
    if algorithm == "LZ4":
        return _encode_lz4(data)
    if algorithm == "Zstd":
        return _encode_zstd(data)
    if algorithm == "Snappy":
        return snappy_compress(data)
    return _encode_deflate(data, level, 31 if algorithm == "Gzip" else -15)


def _encode_deflate(data: U8, level: int, wbits: int) -> U8:
    stream = zlib.compressobj(max(level, 1), zlib.DEFLATED, wbits)
    return np.frombuffer(stream.compress(data.data) + stream.flush(), np.uint8)


_CRC: dict[int, Callable[[U8], int]] = {0x04C11DB7: _crc32, 0x1EDC6F41: _crc32c}
_DECODERS = {
    "LZ4": _decode_lz4,
    "Zstd": _decode_zstd,
    "Snappy": snappy_decode,
    "Deflate": _decode_deflate,
    "Gzip": _decode_gzip,
}
