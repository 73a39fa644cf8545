"""What a codec is.

A codec is an immutable value made from its metadata configuration.  It works on plain NumPy arrays,
knows nothing of keys, stores or chunk grids, and may be called from many threads at once.  Damaged
input raises :class:`~zarr_gpu.errors.CodecError` with the codec's name and byte counts; a codec
never reads or writes outside its buffers and never allocates more than it was allowed to.

One codec, one file; no codec file imports another.  The three kinds follow the v3 specification:
array -> array, array -> bytes (exactly one in a chain) and bytes -> bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from zarr_gpu.codecs.native import Decoder, Encoder

__all__ = ["ArrayToArray", "ArrayToBytes", "BytesToBytes", "ChunkSpec", "Codec"]

Array = npt.NDArray[Any]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ChunkSpec:
    """The array that a codec sees: a chunk as the codecs before it left it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_value: Any = None

    @property
    def nbytes(self) -> int:
        """Decoded size in bytes; of no meaning for variable-length types."""
        n = self.dtype.itemsize
        for length in self.shape:
            n *= length
        return n


class Codec(ABC):
    """Common part of the three kinds."""

    name: ClassVar[str]
    """Name written to v3 metadata."""

    v2_id: ClassVar[str | None] = None
    """``id`` in v2 metadata (numcodecs), None where v2 has no such codec."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the codec from its ``configuration`` (v3; v2: the numcodecs one less ``id``).

        Raises
        ------
        MetadataError
            The configuration is invalid.
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """The v3 ``configuration``; an empty dict where there is none."""

    def to_v2_config(self) -> dict[str, Any]:
        """The numcodecs configuration without ``id``."""
        return self.to_config()

    def to_dict(self) -> dict[str, Any]:
        """The v3 metadata object of this codec."""
        config = self.to_config()
        # zarr-python reads no codec of numcodecs without a configuration, be it an empty one.
        if config or self.name.startswith("numcodecs."):
            return {"name": self.name, "configuration": config}
        return {"name": self.name}

    def evolve(self, spec: ChunkSpec) -> Self:
        """The codec with defaults that depend on the data filled in (Blosc's typesize)."""
        return self


class ArrayToArray(Codec):
    """Changes values, type or shape of a chunk before it becomes bytes."""

    @abstractmethod
    def encoded_spec(self, spec: ChunkSpec) -> ChunkSpec:
        """What the next codec sees.  Raises MetadataError where ``spec`` does not suit."""

    @abstractmethod
    def encode(self, array: Array, spec: ChunkSpec) -> Array:
        """From an array of ``spec`` to one of ``encoded_spec(spec)``."""

    @abstractmethod
    def decode(self, array: Array, spec: ChunkSpec) -> Array:
        """The inverse; ``spec`` is that of the *decoded* array."""

    def permutation(self, spec: ChunkSpec) -> tuple[int, ...] | None:
        """For a codec that only reorders axes: ``encoded.shape[i] == spec.shape[p[i]]``.

        Such a codec costs nothing: it is folded into the strides of the placing step.
        """
        return None

    def as_filter(self, dtype: np.dtype[Any] | None) -> BytesToBytes | None:
        """The codec as a v2 filter, where it has a form of its own for flat bytes.

        ``dtype`` is the element type that filters before it have left; None: that of the array.
        """
        return None

    def stored_dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]] | None:
        """(decoded, encoded) element types from the configuration alone.

        v2 filters run on flat bytes and name their types themselves; None where this codec cannot
        serve as a v2 filter.
        """
        return None


class ArrayToBytes(Codec):
    """Turns a chunk into bytes: the serializer."""

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        """Encoded size in bytes, None where it varies."""
        return None

    @abstractmethod
    def encode(self, array: Array, spec: ChunkSpec) -> U8:
        """Serialise ``array`` (any strides); the result is contiguous and may share its memory."""

    @abstractmethod
    def decode(self, data: U8, spec: ChunkSpec) -> Array:
        """An array of ``spec.shape`` with elements of ``spec.dtype`` in either byte order.

        May be a view of ``data``.
        """


class BytesToBytes(Codec):
    """Compresses, shuffles or checks a run of bytes."""

    def encoded_size(self, nbytes: int) -> int | None:
        """Size of ``nbytes`` decoded bytes once encoded, None where it varies with their values."""
        return None

    def encoded_bound(self, nbytes: int) -> int:
        """Upper bound of the encoded size: what a decoder of the codec behind may have to yield."""
        return nbytes + nbytes // 8 + 4096

    @abstractmethod
    def encode(self, data: U8) -> U8:
        """Encode 1-D contiguous uint8 ``data`` into a 1-D uint8 array."""

    def encode_into(self, data: U8, out: U8) -> U8:
        """As :meth:`encode`, where the codec can into ``out`` of ``encoded_bound`` bytes."""
        return self.encode(data)

    @abstractmethod
    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        """Decode 1-D contiguous uint8 ``data`` into a 1-D uint8 array.

        Parameters
        ----------
        data
            Encoded bytes.  May be read-only and may be overwritten after the call returns.
        limit
            The most bytes the result may have.  The decoder must stop, without having allocated
            much more than this, when the data want to become larger.
        exact
            The result must have exactly ``limit`` bytes.
        out
            Where given: a contiguous uint8 array of ``limit`` bytes to decode into; the result is
            then ``out[:n]``.  A codec may ignore it and return another buffer (a view of ``data``,
            say).

        Raises
        ------
        CodecError
            ``data`` is damaged or its size is wrong.
        """

    def decode_part(self, data: U8, lo: int, hi: int, out: U8) -> bool:
        """Decode bytes ``lo`` to ``hi`` of ``len(out)`` into their place in ``out``.

        False where that is not much cheaper than :meth:`decode`, or where the data are not as they
        should be, if it does not raise what that raises.  Other bytes of ``out`` may become
        anything.
        """
        return False

    def encoder(self, nbytes: int) -> Encoder | None:
        """The C function that encodes ``nbytes`` bytes, for compiled loops; None without one.

        Such a loop encodes as :meth:`encode` does, and leaves what fails to that.
        """
        return None

    def decoder(self) -> Decoder | None:
        """The C functions that decode this codec, for compiled loops; None where there are none.

        Such a loop refuses what :meth:`decode` would refuse, and leaves it to that to say why.
        """
        return None
