"""Layouts and argument orders of nvCOMP's C interface, version 6.

Every options structure of a compressor has 64 bytes and is passed by value.  Imports ctypes only;
used by ``nvcomp`` and its stand-in.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = [
    "ALGORITHMS",
    "STATUS",
    "Alignments",
    "CrcOptions",
    "CrcSpec",
    "KernelConf",
    "Options",
    "signatures",
]

ALGORITHMS = ("LZ4", "Zstd", "Snappy", "Deflate", "Gzip")

STATUS = {
    0: "Success",
    10: "InvalidValue",
    11: "NotSupported",
    12: "CannotDecompress",
    13: "BadChecksum",
    14: "CannotVerifyChecksums",
    15: "OutputBufferTooSmall",
    16: "WrongHeaderLength",
    17: "Alignment",
    18: "ChunkSizeTooLarge",
    19: "CannotCompress",
    20: "WrongInputLength",
    21: "BatchSizeTooLarge",
    22: "SubChunkCountTooLarge",
    23: "SubChunkCountTooSmall",
    24: "OutputBufferAlignmentTooSmall",
    1000: "CudaError",
    10000: "Internal",
}


class Options(ctypes.Structure):
    """Options of any algorithm: 64 bytes, passed by value, zero where nothing is chosen."""

    _fields_ = (("word", ctypes.c_int32 * 16),)


class Alignments(ctypes.Structure):
    """What the addresses of a batch must be multiples of."""

    _fields_ = (("input", ctypes.c_size_t), ("output", ctypes.c_size_t), ("temp", ctypes.c_size_t))


class CrcSpec(ctypes.Structure):
    """Model of a CRC, 32 bytes."""

    _fields_ = (
        ("poly", ctypes.c_uint32),
        ("init", ctypes.c_uint32),
        ("ref_in", ctypes.c_bool),
        ("ref_out", ctypes.c_bool),
        ("xorout", ctypes.c_uint32),
        ("reserved", ctypes.c_char * 16),
    )


class KernelConf(ctypes.Structure):
    """How the CRC kernel shares the work, 32 bytes; filled in by the library."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("bytes_per_read", ctypes.c_int32),
        ("blocks_per_message", ctypes.c_int32),
        ("reserved", ctypes.c_char * 20),
    )


class CrcOptions(ctypes.Structure):
    """Options of CRC32, 128 bytes, passed by value."""

    _fields_ = (("spec", CrcSpec), ("conf", KernelConf), ("reserved", ctypes.c_char * 64))


def signatures() -> dict[str, tuple[Any, ...]]:
    """Argument types of every function that is called; all return a status, int32."""
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    out_size, out_alignments = ctypes.POINTER(size), ctypes.POINTER(Alignments)
    stream = ctypes.c_void_p
    temp_size = (size, size, Options, out_size, size, stream)
    found: dict[str, tuple[Any, ...]] = {}
    for name in ALGORITHMS:
        batched = f"nvcompBatched{name}"
        for way in ("Decompress", "Compress"):
            found[f"{batched}{way}GetRequiredAlignments"] = (Options, out_alignments)
            found[f"{batched}{way}GetTempSize"] = temp_size
        found[f"{batched}DecompressAsync"] = (
            *(pointer, pointer, pointer, pointer, size, pointer, size, pointer, Options),
            *(pointer, stream),
        )
        found[f"{batched}CompressGetMaxOutputChunkSize"] = (size, Options, out_size)
        found[f"{batched}CompressAsync"] = (
            *(pointer, pointer, size, size, pointer, size, pointer, pointer, Options),
            *(pointer, stream),
        )
    found["nvcompBatchedCRC32Async"] = (
        *(pointer, pointer, size, pointer, CrcOptions, ctypes.c_int, pointer, stream),
    )
    found["nvcompBatchedCRC32GetHeuristicConf"] = (
        *(pointer, size, ctypes.POINTER(KernelConf), size, stream),
    )
    return found
