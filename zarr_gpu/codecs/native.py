"""Compression libraries called where they lie, inside the wheels of numcodecs and deflate.

numcodecs links c-blosc, zstd and LZ4 into its extension modules, and where these export the C
functions, calling them through ctypes decodes straight into the caller's memory, without the GIL
and without importing numcodecs.  The package deflate (extra ``fast``) does the same for libdeflate,
several times faster than zlib.  That is an accident of linking and no promise, so every library
is probed at first use, by a round trip of a few bytes; :func:`blosc`, :func:`zstd`, :func:`lz4` and
:func:`deflate` return None where anything is amiss, and the codecs then call the public functions
of numcodecs and zlib.  ``ZARR_GPU_NATIVE=0`` in the environment does the same everywhere.

A :class:`Decoder` is what loops compiled by Numba need in order to call a library themselves.

Imports errors and type names; called by the codecs.  Safe in many threads and after
``fork``: contexts belong to one thread.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from zarr_gpu.codecs.base import U8
from zarr_gpu.errors import MissingDependencyError

__all__ = [
    "Blosc",
    "Decoder",
    "Deflate",
    "Encoder",
    "Lz4",
    "Zstd",
    "blosc",
    "deflate",
    "lz4",
    "public",
    "zstd",
]

_SAMPLE = (np.arange(600, dtype=np.uint16) // 7).view(np.uint8)

_Anything = ctypes.c_char * 0


def _pointer(array: U8) -> Any:
    """The address of the elements, as a ctypes argument; ``array`` must outlive the call."""
    try:
        return _Anything.from_buffer(array.data)  # far cheaper than the line below
    except (TypeError, ValueError):  # read-only
        return array.ctypes.data


@dataclass(frozen=True, slots=True)
class Decoder:
    """Addresses of C functions that decode one codec.

    ``context``: address of the context of the calling thread, None where the functions need none.
    ``parts``: functions that decode a part, none where there is no such way.
    """

    codec: str
    decode: int
    parts: tuple[int, ...] = ()
    context: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class Encoder:
    """The C function that encodes with one configuration of a codec.

    ``context``: makes the context of the calling thread ready, and tells its address; None where
    the function needs none.  ``numbers``: what else it is called with.  ``keep`` must stay alive.
    """

    codec: str
    encode: int
    numbers: tuple[int, ...] = ()
    context: Callable[[], int] | None = None
    keep: Any = None


def _open(stem: str, package: str) -> ctypes.CDLL | None:
    if os.environ.get("ZARR_GPU_NATIVE") == "0":
        return None
    try:
        spec = find_spec(package)  # finds the package without importing it
        for folder in (spec and spec.submodule_search_locations) or ():
            for suffix in EXTENSION_SUFFIXES:
                path = Path(folder, stem + suffix)
                if path.is_file():
                    return ctypes.CDLL(str(path))
    except (OSError, ImportError, ValueError):
        pass
    return None


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name)  # AttributeError: not exported
    function.restype = result
    function.argtypes = arguments
    return function  # type: ignore[no-any-return]


def _address(function: Callable[..., Any]) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


_Library = TypeVar("_Library")


def _probe(
    stem: str,
    bind: Callable[[ctypes.CDLL], _Library],
    works: Callable[[_Library], bool],
    package: str = "numcodecs",
) -> _Library | None:
    library = _open(stem, package)
    if library is None:
        return None
    try:
        found = bind(library)
        return found if works(found) else None
    except (AttributeError, ValueError, ctypes.ArgumentError):
        return None


class Blosc:
    """c-blosc; frames are checked by the caller, which knows how long they are."""

    def __init__(self, library: ctypes.CDLL) -> None:
        c_int, size_t, void_p = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
        self._decompress = _function(
            library, "blosc_decompress_ctx", c_int, void_p, void_p, size_t, c_int
        )
        self._compress = _function(
            library,
            "blosc_compress_ctx",
            c_int,
            *(c_int, c_int, size_t, size_t, void_p, void_p, size_t),
            *(ctypes.c_char_p, size_t, c_int),
        )
        self._getitem = _function(library, "blosc_getitem", c_int, void_p, c_int, c_int, void_p)
        self.decoder = Decoder("blosc", _address(self._decompress), (_address(self._getitem),))

    def decompress(self, frame: U8, out: U8) -> int:
        """Decode a frame whose header was checked; number of bytes, or a negative error code."""
        return int(self._decompress(_pointer(frame), _pointer(out), len(out), 1))

    def getitem(self, frame: U8, start: int, count: int, out: U8) -> int:
        """Decode ``count`` elements from ``start`` on; ``out`` must have room for them."""
        return int(self._getitem(_pointer(frame), start, count, _pointer(out)))

    def compress(
        self, data: U8, out: U8, *, cname: str, clevel: int, shuffle: int, typesize: int, block: int
    ) -> int:
        """Encode into ``out``; number of bytes, 0 where they do not fit, or an error code."""
        return int(
            self._compress(
                *(clevel, shuffle, typesize, len(data), _pointer(data), _pointer(out), len(out)),
                *(cname.encode(), block, 1),
            )
        )

    def encoder(
        self, *, cname: str, clevel: int, shuffle: int, typesize: int, block: int
    ) -> Encoder:
        """What :meth:`compress` calls, for compiled loops."""
        name = ctypes.create_string_buffer(cname.encode())
        numbers = clevel, shuffle, typesize, ctypes.addressof(name), block
        return Encoder("blosc", _address(self._compress), numbers, keep=name)

    def works(self) -> bool:
        """A round trip of a few bytes."""
        frame, back = np.empty(2000, np.uint8), np.empty(len(_SAMPLE), np.uint8)
        part = np.empty(20, np.uint8)
        size = self.compress(_SAMPLE, frame, cname="lz4", clevel=5, shuffle=1, typesize=2, block=0)
        return (
            16 < size < len(_SAMPLE)
            and self.decompress(frame[:size], back) == len(back)
            and bool(np.array_equal(back, _SAMPLE))
            and self.getitem(frame[:size], 100, 10, part) == len(part)
            and bool(np.array_equal(part, _SAMPLE[200:220]))
        )


class _Context:
    """A context of one thread, freed with it."""

    def __init__(self, create: Callable[[], int | None], free: Callable[[int], object]) -> None:
        self.pointer = create() or 0
        self._free = free
        if not self.pointer:
            raise MemoryError("no memory for the context of a compressor")

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self._free(self.pointer)


class _PerThread(threading.local):
    """A context of the calling thread, made when it is first asked for."""

    def __init__(self, make: Callable[[], _Context]) -> None:
        self._make = make
        self._context: _Context | None = None

    def pointer(self) -> int:
        """Its address."""
        if self._context is None:
            self._context = self._make()
        return self._context.pointer


MOST_KEPT = 12
"""Level of Zstandard up to which a thread keeps its context; higher ones take hundreds of MB."""


class Zstd:
    """libzstd."""

    def __init__(self, library: ctypes.CDLL) -> None:
        size_t, void_p, c_int = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
        self._is_error = _function(library, "ZSTD_isError", ctypes.c_uint, size_t)
        self._error_name = _function(library, "ZSTD_getErrorName", ctypes.c_char_p, size_t)
        self._bound = _function(library, "ZSTD_compressBound", size_t, size_t)
        self._create_d = _function(library, "ZSTD_createDCtx", void_p)
        self._free_d = _function(library, "ZSTD_freeDCtx", size_t, void_p)
        self._create_c = _function(library, "ZSTD_createCCtx", void_p)
        self._free_c = _function(library, "ZSTD_freeCCtx", size_t, void_p)
        self._set = _function(library, "ZSTD_CCtx_setParameter", size_t, void_p, c_int, c_int)
        buffers = (void_p, void_p, size_t, void_p, size_t)
        self._decompress = _function(library, "ZSTD_decompressDCtx", size_t, *buffers)
        self._compress = _function(library, "ZSTD_compress2", size_t, *buffers)
        self._decompress_bound = _function(
            library, "ZSTD_decompressBound", ctypes.c_ulonglong, void_p, size_t
        )
        self._local = threading.local()
        self._decoding = _PerThread(lambda: _Context(self._create_d, self._free_d))
        self._begin = _function(library, "ZSTD_decompressBegin", size_t, void_p)
        self._next = _function(library, "ZSTD_nextSrcSizeToDecompress", size_t, void_p)
        self._continue = _function(library, "ZSTD_decompressContinue", size_t, *buffers)
        self.decoder = Decoder(
            "zstd",
            _address(self._decompress),
            tuple(map(_address, (self._begin, self._next, self._continue))),
            self._decoding.pointer,
        )

    def decompress(self, data: U8, out: U8) -> int:
        """Decode all frames of ``data``; the number of bytes.

        Raises
        ------
        ValueError
            The data are damaged, or hold more than ``out``.
        """
        size = self._decompress(
            self._decoding.pointer(), _pointer(out), len(out), _pointer(data), len(data)
        )
        if size > len(out):
            raise ValueError(self._error_name(size).decode())
        return int(size)

    def begin(self, frame: U8, least: int, out: U8) -> int:
        """Decode blocks of one frame until there are ``least`` bytes; how many there are then.

        Raises
        ------
        ValueError
            The frame is damaged, or holds more than ``out``.
        """
        context = self._decoding.pointer()
        self._check(self._begin(context))
        used = got = 0
        while got < least and (size := self._next(context)):
            if used + size > len(frame):
                raise ValueError("the frame is cut off")
            made = self._continue(
                context, _pointer(out[got:]), len(out) - got, _pointer(frame[used:]), size
            )
            self._check(made)
            used, got = used + size, got + made
        return got

    def decompress_bound(self, data: U8) -> int | None:
        """The most bytes that ``data`` can decode to by its frame headers, None if damaged."""
        bound = self._decompress_bound(_pointer(data), len(data))
        return None if bound >= 1 << 63 else int(bound)

    def compress(self, data: U8, memory: U8 | None = None, *, level: int, checksum: bool) -> U8:
        """One frame that tells its content size; in ``memory`` where that is large enough."""
        context = self._encoding(level, checksum)
        pointer = context.pointer
        bound = self._bound(len(data))
        large = memory is not None and len(memory) >= bound
        out = memory if memory is not None and large else np.empty(bound, np.uint8)
        size = self._compress(pointer, _pointer(out), len(out), _pointer(data), len(data))
        self._check(size)
        return out[:size]

    def _encoding(self, level: int, checksum: bool) -> _Context:
        """The context of the calling thread, with these parameters."""
        context: _Context | None = getattr(self._local, "compress", None)
        if context is None:
            context = _Context(self._create_c, self._free_c)
            if level <= MOST_KEPT:
                self._local.compress = context
        for parameter, value in ((100, level), (201, int(checksum))):
            self._check(self._set(context.pointer, parameter, value))
        return context

    def encoder(self, *, level: int, checksum: bool) -> Encoder | None:
        """What :meth:`compress` calls, for compiled loops; None for levels that are not kept."""
        if level > MOST_KEPT:
            return None

        def context() -> int:
            return self._encoding(level, checksum).pointer

        return Encoder("zstd", _address(self._compress), context=context)

    def _check(self, code: int) -> None:
        if self._is_error(code):
            raise ValueError(self._error_name(code).decode())

    def works(self) -> bool:
        """A round trip of a few bytes."""
        frame, back = self.compress(_SAMPLE, level=1, checksum=True), np.empty_like(_SAMPLE)
        out = np.empty_like(_SAMPLE)
        return (
            len(frame) < len(_SAMPLE)
            and self.decompress_bound(frame) == len(back)
            and self.decompress(frame, back) == len(back)
            and bool(np.array_equal(back, _SAMPLE))
            and self.begin(frame, 1, out) == len(out)
            and bool(np.array_equal(out, _SAMPLE))
        )


class Lz4:
    """The block format of LZ4."""

    def __init__(self, library: ctypes.CDLL) -> None:
        c_int, void_p = ctypes.c_int, ctypes.c_void_p
        four = (void_p, void_p, c_int, c_int)
        self._decompress = _function(library, "LZ4_decompress_safe", c_int, *four)
        self._compress = _function(library, "LZ4_compress_fast", c_int, *four, c_int)
        self._bound = _function(library, "LZ4_compressBound", c_int, c_int)
        self.decoder = Decoder("lz4", _address(self._decompress))

    def decompress(self, block: U8, out: U8) -> int:
        """Decode one block; number of bytes, negative where it is damaged or too large."""
        return int(self._decompress(_pointer(block), _pointer(out), len(block), len(out)))

    def bound(self, nbytes: int) -> int:
        """The most bytes that a block of ``nbytes`` decoded bytes may have."""
        return int(self._bound(nbytes))

    def compress(self, data: U8, out: U8, acceleration: int) -> int:
        """Encode into ``out``; number of bytes, 0 where they do not fit."""
        return int(self._compress(_pointer(data), _pointer(out), len(data), len(out), acceleration))

    def encoder(self, acceleration: int) -> Encoder:
        """What :meth:`compress` calls, for compiled loops."""
        return Encoder("lz4", _address(self._compress), (acceleration,))

    def works(self) -> bool:
        """A round trip of a few bytes."""
        block, back = np.empty(self.bound(len(_SAMPLE)), np.uint8), np.empty_like(_SAMPLE)
        size = self.compress(_SAMPLE, block, 1)
        return (
            0 < size <= len(block)
            and self.decompress(block[:size], back) == len(back)
            and bool(np.array_equal(back, _SAMPLE))
        )


class Deflate:
    """libdeflate: DEFLATE streams in the containers ``zlib`` and ``gzip``."""

    def __init__(self, library: ctypes.CDLL) -> None:
        c_int, size_t, void_p = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
        self._create_d = _function(library, "libdeflate_alloc_decompressor", void_p)
        self._free_d = _function(library, "libdeflate_free_decompressor", None, void_p)
        counted = (void_p, void_p, size_t, void_p, size_t, void_p, void_p)
        self._decoding = _PerThread(lambda: _Context(self._create_d, self._free_d))
        self._decompress: dict[str, Callable[..., Any]] = {}
        self.decoders: dict[str, Decoder] = {}
        for kind in ("zlib", "gzip"):
            decompress = _function(library, f"libdeflate_{kind}_decompress_ex", c_int, *counted)
            self._decompress[kind] = decompress
            self.decoders[kind] = Decoder(
                kind, _address(decompress), context=self._decoding.pointer
            )

    def decompress(self, kind: str, data: U8, out: U8) -> int:
        """Decode one stream that is all of ``data``; number of bytes, -1 for anything else.

        That covers damaged data and data that hold more than ``out``, and also several streams in
        a row, which are legal: ask zlib.
        """
        used, made = ctypes.c_size_t(), ctypes.c_size_t()
        failed = self._decompress[kind](
            *(self._decoding.pointer(), _pointer(data), len(data), _pointer(out), len(out)),
            *(ctypes.byref(used), ctypes.byref(made)),
        )
        return -1 if failed or used.value != len(data) else made.value

    def works(self) -> bool:
        """A round trip of a few bytes."""
        back = np.empty_like(_SAMPLE)
        for kind, wbits in (("zlib", 15), ("gzip", 31)):
            encoder = zlib.compressobj(6, zlib.DEFLATED, wbits)
            stream = np.frombuffer(encoder.compress(_SAMPLE.data) + encoder.flush(), np.uint8)
            if not (
                self.decompress(kind, stream, back) == len(back)
                and np.array_equal(back, _SAMPLE)
                and self.decompress(kind, np.append(stream, np.uint8(0)), back) == -1
            ):
                return False
        return True


@functools.cache
def blosc() -> Blosc | None:
    """c-blosc, None where it cannot be called directly."""
    return _probe("blosc", Blosc, Blosc.works)


@functools.cache
def zstd() -> Zstd | None:
    """libzstd, None where it cannot be called directly."""
    return _probe("zstd", Zstd, Zstd.works)


@functools.cache
def lz4() -> Lz4 | None:
    """LZ4, None where it cannot be called directly."""
    return _probe("lz4", Lz4, Lz4.works)


@functools.cache
def deflate() -> Deflate | None:
    """libdeflate, None where the extra ``fast`` is not installed or cannot be called directly."""
    return _probe("_deflate", Deflate, Deflate.works, "deflate")


def public() -> Any:
    """The module numcodecs, for where the libraries cannot be called directly."""
    try:
        import numcodecs.blosc
        import numcodecs.lz4
        import numcodecs.zstd
    except Exception as error:  # a broken companion (an odd version of zfpy) raises ValueError
        raise MissingDependencyError(f"numcodecs cannot be imported: {error}") from error
    return numcodecs
