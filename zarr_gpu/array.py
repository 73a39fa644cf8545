"""Arrays: the handle a user holds.

An array knows where it is (store and path), its metadata, and the device that decodes it; it holds
no data.  Reading and writing turn a selection into a plan and hand it to the engine.  Handles are
cheap, can be pickled and used from many threads.

Imports everything below; made by ``group`` and ``api``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from zarr_gpu.array_info import ArrayInfo, describe_array
from zarr_gpu.attributes import Attributes
from zarr_gpu.codecs.base import ArrayToArray, ArrayToBytes, BytesToBytes, Codec
from zarr_gpu.codecs.chain import make_codecs
from zarr_gpu.codecs.sharding import ShardingCodec
from zarr_gpu.config import ArrayConfig
from zarr_gpu.devices import Device, check_cache, get_device
from zarr_gpu.devices.helpers import begin
from zarr_gpu.errors import MetadataError, ReadOnlyError, SelectionError
from zarr_gpu.layout import Layout, compile_layout
from zarr_gpu.metadata import ArrayMetadata, v2, v3
from zarr_gpu.nodes import (
    change_attributes,
    encode_documents,
    put_documents,
    read_array_metadata,
    write_documents,
)
from zarr_gpu.select import select_basic
from zarr_gpu.selecting import Selectable, as_values
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.opening import StoreLike, open_store

if TYPE_CHECKING:
    from zarr_gpu.devices import Cache

__all__ = ["Array"]

Shape = tuple[int, ...]


class Array(Selectable):
    """An N-dimensional array in chunks.

    Parameters
    ----------
    store
        Where the array is stored.
    path
        Its node path in the store, "" for the root.
    metadata
        Its parsed metadata.
    device
        Where chunks are decoded and results live: a name or a device.
    config
        Run-time behaviour; the defaults of ``zarr_gpu.config`` where None.
    cache
        Keeps encoded chunks in the memory of a GPU, so that they are read from the store once.

    Raises
    ------
    DeviceError
        A cache was given, but the device is the CPU.

    Examples
    --------
    >>> import zarr_gpu
    >>> z = zarr_gpu.create_array({}, shape=(4, 6), chunks=(2, 3), dtype="i4")
    >>> z[1:3, ::-1] = [0, 1, 2, 3, 4, 5]
    >>> z[2, 3:]
    array([2, 1, 0], dtype=int32)
    """

    def __init__(
        self,
        store: Store,
        path: str,
        metadata: ArrayMetadata,
        *,
        device: str | Device | None = None,
        config: ArrayConfig | Mapping[str, Any] | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.store = store
        self.path = path
        self.metadata = metadata
        self.device = get_device(device)
        self.config = ArrayConfig.parse(config)
        if cache is not None:
            check_cache(self.device, cache)
        self.cache = cache

    @classmethod
    def open(
        cls,
        store: StoreLike,
        *,
        device: str | Device | None = None,
        config: ArrayConfig | Mapping[str, Any] | None = None,
    ) -> Self:
        """Open the array at a path, URL or store.

        Raises
        ------
        ArrayNotFoundError
            There is none.
        """
        opened, path = open_store(store)
        return cls(opened, path, read_array_metadata(opened, path), device=device, config=config)

    @classmethod
    def from_dict(cls, store: StoreLike, data: Mapping[str, Any]) -> Self:
        """An array from its metadata document (``zarr.json`` or ``.zarray``); nothing is stored."""
        opened, path = open_store(store)
        parse = v2.parse_array if data.get("zarr_format") == 2 else v3.parse
        metadata = parse(dict(data))
        if not isinstance(metadata, ArrayMetadata):
            raise MetadataError(f"the document describes a {data.get('node_type')}, not an array")
        return cls(opened, path, metadata)

    @cached_property
    def layout(self) -> Layout:
        """The metadata compiled: grid, shard levels, codec program."""
        return compile_layout(self.metadata, self.path)

    # ---- what it is ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Absolute node path: "/" for the root, else "/" and the path."""
        return f"/{self.path}"

    @property
    def basename(self) -> str:
        """Last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def store_path(self) -> str:
        """Store and path in one string, for messages."""
        return f"{self.store!r}/{self.path}" if self.path else repr(self.store)

    @property
    def zarr_format(self) -> int:
        """2 or 3."""
        return self.metadata.zarr_format

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self.store.read_only

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.metadata.shape)

    @property
    def shape(self) -> Shape:
        """Length of each axis; assigning resizes the array."""
        return self.metadata.shape

    @shape.setter
    def shape(self, value: int | Shape) -> None:
        self.resize(value)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the items of results."""
        return self.metadata.dtype.numpy

    @property
    def fill_value(self) -> Any:
        """What absent chunks hold; None where v2 metadata leave it undefined (reads as zero)."""
        return self.metadata.fill_value

    @property
    def dimension_names(self) -> tuple[str | None, ...] | None:
        """Names of the axes; None where there are none."""
        return self.metadata.dimension_names

    @property
    def order(self) -> str:
        """Memory order of results ("C" or "F")."""
        return self.metadata.order if self.zarr_format == 2 else self.config.order

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array decoded (of references, for variable-length types)."""
        return self.size * self.dtype.itemsize

    @property
    def attrs(self) -> Attributes:
        """The user's attributes; every change is stored at once."""
        return Attributes(lambda: self.metadata.attributes, self._change_attributes)

    # ---- chunks and codecs ---------------------------------------------------------------------

    @property
    def chunks(self) -> Shape:
        """Shape of a chunk, the unit that is decoded."""
        if not self._is_sharded:
            return self.metadata.chunk_shape
        return self.layout.grid.chunk_shape if self.layout.levels else self._inner_shape

    @property
    def shards(self) -> Shape | None:
        """Shape of a shard, the unit that is stored; None where the array is not sharded."""
        return self.metadata.chunk_shape if self._is_sharded else None

    @property
    def _is_sharded(self) -> bool:
        return any(c.name == ShardingCodec.name for c in self.metadata.codecs)

    @property
    def _inner_shape(self) -> Shape:
        sharding = next(c for c in self.layout.codecs if isinstance(c, ShardingCodec))
        return tuple(sharding.chunk_shape)

    @property
    def read_chunk_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Items per chunk along each axis, the last one cut off at the array's edge."""
        return _chunk_sizes(self.shape, self.chunks)

    @property
    def write_chunk_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Items per stored object along each axis."""
        return _chunk_sizes(self.shape, self.metadata.chunk_shape)

    @property
    def cdata_shape(self) -> Shape:
        """Number of chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    @property
    def nchunks(self) -> int:
        """Number of chunks."""
        return math.prod(self.cdata_shape)

    @property
    def _codecs(self) -> tuple[Codec, ...]:
        """The codecs of a chunk: those inside the innermost shard."""
        codecs = self.layout.codecs
        while sharding := [c for c in codecs if isinstance(c, ShardingCodec)]:
            codecs = tuple(make_codecs(sharding[0].codecs))
        return codecs

    @property
    def filters(self) -> tuple[Codec, ...]:
        """Codecs before the bytes codec; for v2 all ``filters``."""
        if self.zarr_format == 2:
            count = len(self.metadata.document.get("filters") or ())
            after = _after_serializer(self._codecs)
            serializer = next(c for c in self._codecs if isinstance(c, ArrayToBytes))
            if serializer.name != "bytes":  # an object codec is the first filter
                return (serializer, *after[: count - 1])
            return after[:count]
        return tuple(c for c in self._codecs if isinstance(c, ArrayToArray))

    @property
    def serializer(self) -> Codec | None:
        """The codec that turns a chunk into bytes; None for v2."""
        if self.zarr_format == 2:
            return None
        return next(c for c in self._codecs if isinstance(c, ArrayToBytes))

    @property
    def compressors(self) -> tuple[Codec, ...]:
        """Codecs behind the bytes codec; for v2 the compressor."""
        if self.zarr_format == 2:
            has_one = self.metadata.document.get("compressor") is not None
            return _after_serializer(self._codecs)[-1:] if has_one else ()
        return tuple(c for c in self._codecs if isinstance(c, BytesToBytes))

    @property
    def compressor(self) -> Codec | None:
        """The compressor of a v2 array.  Raises TypeError for v3: use ``compressors``."""
        if self.zarr_format == 3:
            raise TypeError("a v3 array has several compressors: use `compressors`")
        return next(iter(self.compressors), None)

    # ---- changing it ---------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise ReadOnlyError where writing is refused."""
        if self.read_only:
            raise ReadOnlyError(f"array {self.name!r} was opened read-only", key=self.path)

    def resize(self, new_shape: int | Shape) -> None:
        """Change the shape; chunks that lie outside of it are deleted.

        New items hold the fill value.  Items cut off within a chunk that stays are not erased: they
        come back when the array grows again.

        Raises
        ------
        MetadataError
            The number of axes differs, or a length is negative or too large.
        """
        self.check_writable()
        shape = _as_shape(new_shape)
        old = self.shape
        metadata = self.metadata.with_shape(shape)
        write_documents(self.store, self.path, metadata)
        self._use(metadata)
        if any(n < o for n, o in zip(shape, old, strict=True)):
            self._delete_outside()

    def _delete_outside(self) -> None:
        counts = self.layout.object_grid.shape
        outside = [
            key
            for key, coords in self._stored_objects()
            if any(c >= n for c, n in zip(coords, counts, strict=True))
        ]
        self.store.delete_many(outside)
        if self._cached is not None:
            self._cached.drop()

    def append(self, data: Any, axis: int = 0) -> Shape:
        """Add ``data`` at the end of an axis; returns the new shape.

        Parameters
        ----------
        data
            Array whose other axes are as long as this array's.
        axis
            Where to append.

        Raises
        ------
        ValueError
            The shapes do not match; nothing is changed.
        """
        self.check_writable()
        values = as_values(data, self.dtype)
        axis = operator.index(axis)
        if not -self.ndim <= axis < self.ndim:
            raise SelectionError(f"axis {axis} is out of bounds for {self.ndim} axes")
        axis %= self.ndim
        others = [i for i in range(self.ndim) if i != axis]
        if values.ndim != self.ndim or any(values.shape[i] != self.shape[i] for i in others):
            raise ValueError(
                f"cannot append an array of shape {values.shape} to {self.shape} along axis {axis}"
            )
        start = self.shape[axis]
        shape = list(self.shape)
        shape[axis] += values.shape[axis]
        place: list[slice] = [slice(None)] * self.ndim
        place[axis] = slice(start, shape[axis])
        before = self.metadata
        metadata = before.with_shape(tuple(shape))
        self._use(metadata)
        # The documents are stored before the first chunk, but beside the encoding of it.
        documents = encode_documents(metadata)
        grown = begin(lambda: put_documents(self.store, self.path, documents))
        try:
            self._write(select_basic(tuple(place), self.shape), values, ready=grown)
        finally:
            try:
                grown()
            except BaseException:
                self._use(before)
                raise
        return self.shape

    def update_attributes(self, new_attributes: Mapping[str, Any]) -> Self:
        """Add or replace attributes; returns this array."""
        self.attrs.update(new_attributes)
        return self

    def _change_attributes(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.check_writable()
        metadata = change_attributes(self.store, self.path, self.metadata, change)
        if isinstance(metadata, ArrayMetadata):  # as the one it came from
            self._use(metadata)

    def _use(self, metadata: ArrayMetadata) -> None:
        self.metadata = metadata
        self.__dict__.pop("layout", None)
        self.__dict__.pop("_fallbacks", None)

    def refresh(self) -> Self:
        """Read the metadata again, as another handle may have changed them; returns this array."""
        self._use(read_array_metadata(self.store, self.path, self.metadata.zarr_format))
        if self._cached is not None:
            self._cached.drop()  # whoever changed the metadata may have changed chunks
        return self

    def with_config(self, config: ArrayConfig | Mapping[str, Any]) -> Array:
        """The same array with another run-time behaviour."""
        return self._again(config=config)

    def with_cache(self, cache: Cache | None) -> Array:
        """The same array with its chunks kept in a cache; None: without one.

        Raises
        ------
        DeviceError
            The device cannot use a cache of this kind.
        """
        return self._again(cache=cache)

    def to(self, device: str | Device) -> Array:
        """The same array, decoded on another device; without a cache that this cannot use."""
        device = get_device(device)
        return self._again(device=device, cache=self.cache if device.uses(self.cache) else None)

    def _again(self, **changes: Any) -> Array:
        kept = {"device": self.device, "config": self.config, "cache": self.cache}
        return Array(self.store, self.path, self.metadata, **{**kept, **changes})

    # ---- what is stored ------------------------------------------------------------------------

    def _stored_objects(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(key, coordinates) of the chunks or shards that are there, inside the grid or not."""
        skip = len(self.layout.prefix)
        for key in self.store.list_prefix(self.path):
            coords = self.metadata.key_encoding.parse(key[skip:], self.ndim)
            if coords is not None:
                yield key, coords

    @property
    def nchunks_initialized(self) -> int:
        """Chunks that are stored; every chunk of a shard that is there counts."""
        counts = self.layout.object_grid.shape
        stored = sum(
            all(c < n for c, n in zip(coords, counts, strict=True))
            for _, coords in self._stored_objects()
        )
        return stored * math.prod(self.layout.chunks_per_object)

    def nbytes_stored(self) -> int:
        """Bytes of everything stored for this array, its metadata included."""
        return sum(self.store.nbytes(key) or 0 for key in self.store.list_prefix(self.path))

    @property
    def info(self) -> ArrayInfo:
        """A table of facts; reads nothing."""
        return describe_array(self)

    def info_complete(self) -> ArrayInfo:
        """As ``info``, with what is stored: lists the store."""
        return describe_array(self, complete=True)

    # ---- Python --------------------------------------------------------------------------------

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("an array in chunks cannot become a NumPy array without a copy")
        with self.device.active():
            got = self.device.download(self._read(select_basic(Ellipsis, self.shape)))
        result = np.asarray(got, dtype=self.dtype)
        return result if dtype is None else result.astype(dtype, copy=False)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over an array without axes")
        step = self.chunks[0]
        for start in range(0, self.shape[0], step):
            yield from self[start : start + step]  # every chunk is decoded once

    def __bool__(self) -> bool:
        if self.size == 1:
            return bool(np.asarray(self)[(0,) * self.ndim])
        if self.size == 0:
            return False
        raise ValueError("the truth value of an array with more than one item is ambiguous")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        return (self.store, self.path, self.metadata.to_documents()) == (
            other.store,
            other.path,
            other.metadata.to_documents(),
        )

    def __hash__(self) -> int:
        return hash((type(self), self.path))

    def __repr__(self) -> str:
        return f"<Array {self.store_path} shape={self.shape} dtype={self.dtype}>"

    def _repr_html_(self) -> str:
        return self.info.to_html()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.store, self.path, self.metadata, self.device.name, self.config)


def _rebuild(
    store: Store, path: str, metadata: ArrayMetadata, device: str, config: ArrayConfig
) -> Array:
    return Array(store, path, metadata, device=device, config=config)


def _after_serializer(codecs: tuple[Codec, ...]) -> tuple[Codec, ...]:
    at = next(i for i, c in enumerate(codecs) if isinstance(c, ArrayToBytes))
    return codecs[at + 1 :]


def _chunk_sizes(shape: Shape, edges: Shape) -> tuple[tuple[int, ...], ...]:
    sizes = []
    for length, edge in zip(shape, edges, strict=True):
        full, rest = divmod(length, edge)
        sizes.append((edge,) * full + ((rest,) if rest else ()))
    return tuple(sizes)


def _as_shape(value: int | Shape) -> Shape:
    return (value,) if isinstance(value, int) else tuple(value)
