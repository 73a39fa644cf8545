"""Chains of codecs, and the program that a chain compiles to.

A chain is the list of codecs of an array, in the order of encoding:
``[array -> array]* array -> bytes [bytes -> bytes]*``.  For one chunk shape and type it compiles to
a :class:`Program`: transposes that stand first become a *view* (only strides), every other codec a
step with its exact sizes, so that decoding can refuse data that want to become larger.

Works on bytes and arrays alone; knows no keys.  Imports ``codecs.base``, ``codecs.registry``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.base import ArrayToArray, ArrayToBytes, BytesToBytes, ChunkSpec, Codec
from zarr_gpu.codecs.bytes import BytesCodec
from zarr_gpu.codecs.registry import get_codec_class
from zarr_gpu.errors import CodecError, MetadataError, UnknownCodecError

__all__ = ["Chain", "Program", "Step", "compile_program", "make_chain", "make_codecs"]

Array = npt.NDArray[Any]
U8 = npt.NDArray[np.uint8]


class CodecConfig(Protocol):
    """A codec as metadata names it."""

    @property
    def name(self) -> str: ...
    @property
    def configuration(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Chain:
    """Codecs by kind, each kind in the order of encoding."""

    arrays: tuple[ArrayToArray, ...]
    serializer: ArrayToBytes
    compressors: tuple[BytesToBytes, ...]


class FlatFilter(BytesToBytes):
    """A v2 filter that works on elements (delta, say) in its place among bytes -> bytes codecs."""

    def __init__(self, codec: ArrayToArray, decoded: np.dtype[Any], encoded: np.dtype[Any]) -> None:
        self.codec = codec
        self.name = codec.name  # type: ignore[misc]
        self.decoded, self.encoded = decoded, encoded

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FlatFilter:
        raise MetadataError("a flat filter is made by a chain, not from metadata")

    def to_config(self) -> dict[str, Any]:
        return self.codec.to_config()

    def encoded_size(self, nbytes: int) -> int | None:
        return nbytes // self.decoded.itemsize * self.encoded.itemsize

    def _view(self, data: U8, dtype: np.dtype[Any]) -> Array:
        if len(data) % dtype.itemsize:
            raise CodecError(
                f"the data are no whole number of {dtype} items",
                codec=self.name,
                actual=len(data),
            )
        return data.view(dtype) if data.flags.aligned else data.copy().view(dtype)

    def encode(self, data: U8) -> U8:
        array = self._view(data, self.decoded)
        result = self.codec.encode(array, ChunkSpec(array.shape, self.decoded))
        return np.ascontiguousarray(result).view(np.uint8)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        array = self._view(data, self.encoded)
        size = len(array) * self.decoded.itemsize
        if size > limit or (exact and size != limit):
            raise CodecError("wrong decoded size", codec=self.name, expected=limit, actual=size)
        result = self.codec.decode(array, ChunkSpec(array.shape, self.decoded))
        return np.ascontiguousarray(result).view(np.uint8)


def make_codecs(configs: Iterable[CodecConfig]) -> list[Codec]:
    """Codec objects from metadata.  Raises UnknownCodecError or MetadataError."""
    codecs: list[Codec] = []
    for config in configs:
        if isinstance(config, Codec):
            codecs.append(config)
            continue
        try:
            kind = get_codec_class(config.name)
        except UnknownCodecError:
            if getattr(config, "must_understand", True):
                raise
            continue  # the document says that a reader may go on without it
        codecs.append(kind.from_config(config.configuration))
    return codecs


def make_chain(codecs: Sequence[Codec]) -> Chain:
    """Sort codecs by kind; there must be exactly one serializer, in its place.

    Element-wise codecs behind the serializer are v2 filters and run on flat bytes.
    """
    arrays: list[ArrayToArray] = []
    compressors: list[BytesToBytes] = []
    serializer: ArrayToBytes | None = None
    changed: np.dtype[Any] | None = None  # by a filter
    for codec in codecs:
        if isinstance(codec, ArrayToBytes):
            if serializer is not None:
                raise MetadataError(
                    f"codecs {serializer.name!r} and {codec.name!r} both turn arrays into bytes",
                    codec=codec.name,
                )
            serializer = codec
        elif isinstance(codec, ArrayToArray):
            if serializer is None:
                arrays.append(codec)
                continue
            own = codec.as_filter(changed)
            if own is not None:
                compressors.append(own)
                continue
            dtypes = codec.stored_dtypes()
            if dtypes is None:
                raise MetadataError(
                    f"codec {codec.name!r} works on arrays and cannot follow {serializer.name!r}",
                    codec=codec.name,
                )
            compressors.append(FlatFilter(codec, *dtypes))
            changed = dtypes[1]
        elif isinstance(codec, BytesToBytes):
            if serializer is None:
                raise MetadataError(
                    f"codec {codec.name!r} works on bytes and needs an array -> bytes codec before",
                    codec=codec.name,
                )
            compressors.append(codec)
    if serializer is None:
        raise MetadataError("the chain has no array -> bytes codec (such as 'bytes')")
    return Chain(tuple(arrays), serializer, tuple(compressors))


@dataclass(frozen=True, slots=True)
class Step:
    """One bytes -> bytes codec with the size that its decoding must yield."""

    codec: BytesToBytes
    limit: int
    exact: bool


@dataclass(frozen=True)
class Program:
    """A chain compiled for chunks of one shape and type.

    ``permutation`` is the view: axis ``i`` of the stored array is axis ``permutation[i]`` of the
    chunk (None: the same).  ``steps`` are in the order of encoding.
    """

    spec: ChunkSpec  # the chunk as the array sees it
    permutation: tuple[int, ...] | None
    arrays: tuple[tuple[ArrayToArray, ChunkSpec], ...]  # with the spec of their decoded side
    serializer: ArrayToBytes
    serial_spec: ChunkSpec
    steps: tuple[Step, ...]
    serial_nbytes: int | None  # size of the serialised chunk, None where it varies
    fixed: bool  # the encoded size does not depend on the values
    encoded_bound: int  # encoded chunks of ordinary encoders are not larger

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """Every codec in the order of encoding, without folded transposes."""
        return (*(c for c, _ in self.arrays), self.serializer, *(s.codec for s in self.steps))

    @cached_property
    def inverse(self) -> tuple[int, ...]:
        """Undoes ``permutation``."""
        return tuple(np.argsort(self.permutation or range(len(self.spec.shape))).tolist())

    @cached_property
    def plain(self) -> bool:
        """Whether a decoded chunk is its items as results hold them, in C order of some axes."""
        dtype = self.spec.dtype
        return (
            not self.arrays
            and not dtype.hasobject
            and dtype.kind != "T"
            and dtype.itemsize > 0
            and isinstance(self.serializer, BytesCodec)
            and self.serializer.stored_dtype(dtype) == dtype
        )

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one position to the next along each axis of a chunk, as it is stored."""
        shape = self.spec.shape
        strides = [0] * len(shape)
        step = self.spec.dtype.itemsize
        for axis in reversed(self.permutation or range(len(shape))):
            strides[axis] = step
            step *= shape[axis]
        return tuple(strides)

    @property
    def encoded_nbytes(self) -> int | None:
        """Size of an encoded chunk, None where it depends on the values."""
        return self.encoded_bound if self.fixed else None

    def decode_bytes(self, data: U8, out: U8 | None = None) -> U8:
        """Undo the bytes -> bytes codecs; the last one may decode into ``out``."""
        for i in range(len(self.steps) - 1, -1, -1):
            step = self.steps[i]
            target = out if i == 0 else None
            data = step.codec.decode(data, limit=step.limit, exact=step.exact, out=target)
        return data

    def decode(self, data: U8, out: U8 | None = None) -> Array:
        """A chunk of ``spec.shape``: possibly a view of ``data`` or ``out``, in stored byte order.

        ``out`` is scratch memory of ``serial_nbytes`` bytes that may be used or not.
        """
        return self._arranged(self.decode_bytes(data, out))

    def decode_part(self, data: U8, lo: int, hi: int, out: U8) -> Array | None:
        """A chunk of a plain program in ``out``, of which only bytes ``lo`` to ``hi`` are decoded.

        None where that is not much cheaper than :meth:`decode`, or cannot be done.
        """
        if len(self.steps) != 1 or not self.steps[0].codec.decode_part(data, lo, hi, out):
            return None
        return self._arranged(out)

    def _arranged(self, data: U8) -> Array:
        """The chunk that serialised bytes are."""
        array = self.serializer.decode(data, self.serial_spec)
        for codec, spec in reversed(self.arrays):
            array = codec.decode(array, spec)
        if self.permutation is not None:
            array = array.transpose(self.inverse)
        return array

    def encode(self, array: Array, out: U8 | None = None) -> U8:
        """Encode a chunk of ``spec.shape`` and ``spec.dtype``.

        ``out`` is memory of ``encoded_bound`` bytes that the last codec may use or not.
        """
        if self.permutation is not None:
            array = array.transpose(self.permutation)
        for codec, spec in self.arrays:
            array = codec.encode(array, spec)
        data = self.serializer.encode(array, self.serial_spec)
        if not self.steps:
            return data
        for step in self.steps[:-1]:
            data = step.codec.encode(data)
        last = self.steps[-1].codec
        return last.encode(data) if out is None else last.encode_into(data, out)


def _check_endian(serializer: ArrayToBytes, dtype: np.dtype[Any]) -> None:
    """Numbers of several bytes need a byte order; structured types of v2 carry their own."""
    if not isinstance(serializer, BytesCodec) or serializer.endian is not None:
        return
    if dtype.names is None and dtype.newbyteorder("<") != dtype.newbyteorder(">"):
        raise MetadataError(
            f"codec 'bytes' needs `endian` for items of {dtype}", codec=serializer.name
        )


def compile_program(
    chain: Chain,
    spec: ChunkSpec,
    *,
    variable_limit: int,
    permutation: tuple[int, ...] | None = None,
) -> Program:
    """Compile ``chain`` for chunks of ``spec``.

    Parameters
    ----------
    chain
        Codecs by kind.
    spec
        Shape and type of a chunk as the first codec of the chain sees it.
    variable_limit
        The most bytes that a serialised chunk of a variable-length type may have.
    permutation
        Axes reordered before the chain (by a transpose around a shard): ``spec.shape[i]`` is the
        length of axis ``permutation[i]`` of the array.
    """
    order = list(permutation or range(len(spec.shape)))
    shape = [0] * len(order)
    for i, axis in enumerate(order):
        shape[axis] = spec.shape[i]
    outer = ChunkSpec(tuple(shape), spec.dtype, spec.fill_value)
    arrays: list[tuple[ArrayToArray, ChunkSpec]] = []
    for codec in chain.arrays:
        p = codec.permutation(spec)
        encoded = codec.encoded_spec(spec)
        if p is not None and not arrays:
            order = [order[i] for i in p]
        else:
            arrays.append((codec, spec))
        spec = encoded
    serializer = chain.serializer.evolve(spec)
    _check_endian(serializer, spec.dtype)
    size = serializer.encoded_size(spec)
    steps: list[Step] = []
    exact, limit = size is not None, variable_limit if size is None else size
    for raw in chain.compressors:
        compressor = raw.evolve(spec)
        steps.append(Step(compressor, limit, exact))
        fixed = compressor.encoded_size(limit)
        exact = exact and fixed is not None
        limit = fixed if fixed is not None else compressor.encoded_bound(limit)
    return Program(
        spec=outer,
        permutation=tuple(order) if order != list(range(len(order))) else None,
        arrays=tuple(arrays),
        serializer=serializer,
        serial_spec=spec,
        steps=tuple(steps),
        serial_nbytes=size,
        fixed=exact,
        encoded_bound=limit,
    )
