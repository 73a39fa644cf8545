"""nvCOMP's batched compressors and checksums, called through ctypes.

With ``nvcomp_layouts`` the only file that knows nvCOMP.  A batch is four tables on the device
(addresses and sizes of the encoded and of the decoded side) and one call, however many rows it has;
results per row (statuses, actual sizes) stay on the device.  Alignments and scratch sizes are asked
of the library on every call, since they depend on the device: rows that stand wrongly are copied
first, and a batch whose scratch would be too large (Zstd wants three times the decoded bytes) is
cut into several calls.

nvCOMP promises a status for damaged LZ4 only; damaged Zstd, Snappy, Deflate or Gzip streams are
undefined behaviour.  Callers check what they can before, and sizes and checksums after.

Imports errors and the protocol of runtimes; called by the device steps.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.nvcomp_layouts import (
    ALGORITHMS,
    STATUS,
    Alignments,
    CrcOptions,
    CrcSpec,
    KernelConf,
    Options,
    signatures,
)
from zarr_gpu.codecs.runtime import Runtime, dense
from zarr_gpu.errors import DeviceError

__all__ = [
    "ALGORITHMS",
    "LARGEST_INPUT",
    "SCRATCH_LIMIT",
    "STATUS",
    "Alignments",
    "CrcOptions",
    "KernelConf",
    "NvComp",
    "Options",
    "load",
    "signatures",
    "sub_batches",
]

I64 = npt.NDArray[np.int64]

SCRATCH_LIMIT = 1 << 30
"""Bytes of scratch memory that one call may ask for, unless one row alone needs more."""

LARGEST_INPUT = 1 << 24
"""Bytes that one row may have to be compressed: LZ4's and Snappy's limit, kept to by all."""

# CUDA kernels, never the decompression engine of newer chips, which reports no damage at all.
_BACKEND = 2


_POLYNOMIALS = {"crc32": 0x04C11DB7, "crc32c": 0x1EDC6F41}


def _candidates() -> Iterator[str]:
    spec = find_spec("nvidia")  # a namespace: every wheel adds a folder
    for folder in (spec and spec.submodule_search_locations) or ():
        for pattern in ("lib64/libnvcomp.so.6", "lib/libnvcomp.so.6", "bin/nvcomp64_6.dll"):
            path = Path(folder, "libnvcomp", pattern)
            if path.is_file():
                yield str(path)
    yield "libnvcomp.so.6"  # where the loader finds it: conda, the system


@functools.cache
def load() -> NvComp | None:
    """The library, or None where nvCOMP 6 is not installed.  Needs no driver; never raises."""
    try:
        for path in _candidates():
            try:
                # RTLD_LOCAL, the default: libnvcomp_cpu exports names of LZ4.
                library = ctypes.CDLL(path, mode=ctypes.RTLD_LOCAL)
            except OSError:
                continue
            try:
                for name, arguments in signatures().items():
                    function = getattr(library, name)
                    function.argtypes, function.restype = arguments, ctypes.c_int32
            except AttributeError:
                continue
            return NvComp(library)
    except (ImportError, ValueError, OSError):
        pass
    return None


def sub_batches(
    sizes: I64, scratch: Callable[[int, int, int], int], limit: int
) -> list[tuple[slice, int]]:
    """Runs of rows and the scratch bytes of each, at most ``limit`` unless it is one row.

    ``scratch(rows, largest, total)`` tells the scratch bytes of a batch.
    """
    ends = np.cumsum(sizes)
    found: list[tuple[slice, int]] = []

    def cut(lo: int, hi: int) -> None:
        before = int(ends[lo - 1]) if lo else 0
        total = int(ends[hi - 1]) - before
        need = scratch(hi - lo, int(sizes[lo:hi].max()), total)
        if need <= limit or hi - lo == 1:
            found.append((slice(lo, hi), need))
            return
        # Into equal numbers of decoded bytes, as many as the excess tells.
        parts = min(hi - lo, -(-need // max(limit, 1)))
        marks = before + total * np.arange(1, parts) // parts
        cuts = np.unique(np.clip(np.searchsorted(ends, marks, "right"), lo + 1, hi - 1))
        for a, b in zip([lo, *cuts.tolist()], [*cuts.tolist(), hi], strict=True):
            cut(a, b)

    if len(sizes):
        cut(0, len(sizes))
    return found


class _Rows(NamedTuple):
    """Addresses that nvCOMP takes, and the buffer that must live until the call is queued."""

    address: I64
    moved: I64  # rows whose bytes lie in ``buffer``
    offset: I64  # of the moved rows in ``buffer``
    buffer: Any


class NvComp:
    """The functions of one library, on arrays of a runtime."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise DeviceError(f"{name} failed with status {code} ({STATUS.get(code, 'unknown')})")

    def alignments(self, algorithm: str, *, compress: bool = False) -> Alignments:
        """What input, output and scratch of a batch must be aligned to, in bytes."""
        found = Alignments()
        way = "Compress" if compress else "Decompress"
        options = _compress_options(algorithm, None) if compress else _decompress_options()
        name = f"nvcompBatched{algorithm}{way}GetRequiredAlignments"
        self._call(name, options, ctypes.pointer(found))
        return found

    def scratch_nbytes(
        self,
        algorithm: str,
        rows: int,
        largest: int,
        total: int,
        stream: int = 0,
        *,
        options: Options | None = None,
    ) -> int:
        """Bytes of scratch for a batch; with ``options`` (of an encoder) to compress it."""
        found = ctypes.c_size_t()
        way = "Decompress" if options is None else "Compress"
        self._call(
            f"nvcompBatched{algorithm}{way}GetTempSize",
            *(
                rows,
                largest,
                options or _decompress_options(),
                ctypes.pointer(found),
                total,
                stream,
            ),
        )
        return found.value

    def encoded_bound(self, algorithm: str, nbytes: int, *, level: int | None = None) -> int:
        """The most bytes that a row of ``nbytes`` bytes is compressed to."""
        found = ctypes.c_size_t()
        self._call(
            f"nvcompBatched{algorithm}CompressGetMaxOutputChunkSize",
            *(nbytes, _compress_options(algorithm, level), ctypes.pointer(found)),
        )
        return found.value

    def decompress(
        self,
        runtime: Runtime,
        algorithm: str,
        src: Any,
        src_offset: I64,
        src_nbytes: I64,
        dst: Any,
        dst_offset: I64,
        dst_nbytes: I64,
        *,
        scratch_limit: int = SCRATCH_LIMIT,
    ) -> tuple[Any, Any]:
        """Decode row ``i`` of ``src`` to ``dst[dst_offset[i]:][:dst_nbytes[i]]``.

        Returns (status int32[n], actual size uint64[n]), both on the device; -1 and 2**64 - 1 where
        the library wrote nothing.
        """
        count = len(src_offset)
        status, actual = _results(runtime, count)
        if not count:
            return status, actual
        _check_bounds(src, src_offset, src_nbytes)
        _check_bounds(dst, dst_offset, dst_nbytes)
        need = self.alignments(algorithm)
        source = _aligned(runtime, src, src_offset, src_nbytes, need.input, copy=True)
        target = _aligned(runtime, dst, dst_offset, dst_nbytes, need.output, copy=False)

        def scratch(rows: int, largest: int, total: int) -> int:
            return self.scratch_nbytes(algorithm, rows, largest, total, runtime.stream)

        parts = sub_batches(dst_nbytes, scratch, scratch_limit)
        temp_nbytes = max(nbytes for _, nbytes in parts)
        temp = runtime.empty(max(temp_nbytes, 1))
        tables = runtime.upload_tables([source.address, src_nbytes, dst_nbytes, target.address])
        for rows, _ in parts:
            source_part, size_part, room_part, target_part = (_address(t[rows]) for t in tables)
            runtime.counts["nvcomp_calls"] += 1
            self._call(
                f"nvcompBatched{algorithm}DecompressAsync",
                *(source_part, size_part, room_part, _address(actual[rows])),
                *(rows.stop - rows.start, _address(temp), temp_nbytes, target_part),
                *(_decompress_options(), _address(status[rows]), runtime.stream),
            )
        if len(target.moved):
            moved = target.moved
            _copy(
                *(runtime, target.buffer, target.offset),
                *(dst, dst_offset[moved], dst_nbytes[moved]),
            )
        return status, actual

    def compress(
        self,
        runtime: Runtime,
        algorithm: str,
        src: Any,
        src_offset: I64,
        src_nbytes: I64,
        *,
        level: int | None = None,
        room: int = 0,
        scratch_limit: int = SCRATCH_LIMIT,
    ) -> tuple[Any, I64, Any, Any]:
        """Encode rows of ``src``, none larger than ``LARGEST_INPUT``.

        Returns (buffer, offset int64[n] on the host, size uint64[n] and status int32[n] on the
        device).  ``level``: 0 (fastest) to 5 (smallest), for Deflate and Gzip.  ``room`` bytes
        before every encoded row are left to the caller.
        """
        count = len(src_offset)
        status, nbytes = _results(runtime, count)
        if not count:
            return runtime.empty(0), np.empty(0, np.int64), nbytes, status
        _check_bounds(src, src_offset, src_nbytes)
        options = _compress_options(algorithm, level)
        need = self.alignments(algorithm, compress=True)
        source = _aligned(runtime, src, src_offset, src_nbytes, need.input, copy=True)
        largest = int(src_nbytes.max())
        before, bound = dense(np.array([room, self.encoded_bound(algorithm, largest, level=level)]))
        offset = np.arange(count, dtype=np.int64) * bound + before[1]
        out = runtime.empty(count * bound)

        def scratch(rows: int, _: int, total: int) -> int:
            # With the limit that every call is told, whatever its own largest row.
            return self.scratch_nbytes(
                algorithm, rows, largest, total, runtime.stream, options=options
            )

        parts = sub_batches(src_nbytes, scratch, scratch_limit)
        temp_nbytes = max(size for _, size in parts)
        temp = runtime.empty(max(temp_nbytes, 1))
        tables = runtime.upload_tables([source.address, src_nbytes, offset + _address(out)])
        for rows, _ in parts:
            source_part, size_part, target_part = (_address(t[rows]) for t in tables)
            runtime.counts["nvcomp_calls"] += 1
            self._call(
                f"nvcompBatched{algorithm}CompressAsync",
                *(source_part, size_part, largest, rows.stop - rows.start),
                *(_address(temp), temp_nbytes, target_part, _address(nbytes[rows]), options),
                *(_address(status[rows]), runtime.stream),
            )
        return out, offset, nbytes, status

    def crc32(self, runtime: Runtime, src: Any, offset: I64, nbytes: I64, kind: str) -> Any:
        """CRC of every row, uint32[n] on the device; ``kind`` is "crc32" or "crc32c"."""
        count = len(offset)
        found = runtime.empty(4 * count).view(np.uint32)
        if not count:
            return found
        _check_bounds(src, offset, nbytes)
        options = CrcOptions()
        options.spec = CrcSpec(_POLYNOMIALS[kind], 0xFFFFFFFF, True, True, 0xFFFFFFFF)
        largest = max(int(nbytes.max()), 1)  # 0 would mean: find out on the device
        self._call(
            "nvcompBatchedCRC32GetHeuristicConf",
            *(None, count, ctypes.pointer(options.conf), largest, runtime.stream),
        )
        pointers, sizes = runtime.upload_tables([offset + _address(src), nbytes])
        runtime.counts["nvcomp_calls"] += 1
        self._call(
            "nvcompBatchedCRC32Async",
            *(_address(pointers), _address(sizes), count, _address(found), options),
            *(0, None, runtime.stream),
        )
        return found


def _decompress_options() -> Options:
    options = Options()
    options.word[0] = _BACKEND
    return options


def _compress_options(algorithm: str, level: int | None) -> Options:
    options = Options()
    if algorithm in ("Deflate", "Gzip"):
        options.word[0] = 1 if level is None else level
    return options


def _address(array: Any) -> int:
    """Where the elements of an array of either library lie."""
    pointer = getattr(array.data, "ptr", None)  # CuPy
    return int(array.ctypes.data if pointer is None else pointer)


def _results(runtime: Runtime, count: int) -> tuple[Any, Any]:
    """(status int32[n], size uint64[n]) that tell when nothing is written to them."""
    raw = runtime.empty(12 * count)
    raw.fill(255)
    return raw[8 * count :].view(np.int32), raw[: 8 * count].view(np.uint64)


def _check_bounds(buffer: Any, offset: I64, nbytes: I64) -> None:
    """The library sees addresses only: nothing else would notice a row outside of its buffer."""
    end = len(buffer)
    if ((offset < 0) | (nbytes < 0) | (nbytes > end) | (offset > end - nbytes)).any():
        raise DeviceError("a row of a batch lies outside of its buffer")


def _aligned(
    runtime: Runtime, buffer: Any, offset: I64, nbytes: I64, alignment: int, *, copy: bool
) -> _Rows:
    """Addresses of rows; those that are not aligned get a place in another buffer."""
    address = offset + _address(buffer)
    moved = np.flatnonzero(address % alignment)
    if not len(moved):
        return _Rows(address, moved, moved, buffer)
    places, total = dense(nbytes[moved])
    other = runtime.empty(total)
    if copy:
        _copy(runtime, buffer, offset[moved], other, places, nbytes[moved])
    address[moved] = places + _address(other)
    return _Rows(address, moved, places, other)


def _copy(
    runtime: Runtime, src: Any, src_offset: I64, dst: Any, dst_offset: I64, nbytes: I64
) -> None:
    """Copy rows; their bounds were checked, so that the kernel's status tells nothing new."""
    tables = runtime.upload_tables([src_offset, dst_offset, nbytes])
    status = runtime.empty(4 * len(nbytes)).view(np.int32)
    source, target, size = tables
    runtime.launch_rows("copy_segments", len(nbytes), src, source, dst, target, size, status)
