"""Hypothesis strategies for arrays of every layout and for selections of every index mode.

Arrays are small, selections full of corners: zero-length axes, chunks that do not divide the array,
repeated and unsorted indices, slices that miss.  The expected items of a selection are found with
NumPy alone (:func:`expected_items`), never with the package.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from zarr_gpu import engine, jobs, shard_writes
from zarr_gpu.array import Array
from zarr_gpu.config import ArrayConfig, config
from zarr_gpu.devices import cpu
from zarr_gpu.dtypes import DType, from_user
from zarr_gpu.metadata import ArrayMetadata, v2, v3
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.memory import MemoryStore

DEVICE = os.environ.get("TEST_DEVICE", "cpu")
"""Where the arrays of these tests are decoded; results must come back as NumPy arrays."""

Shape = tuple[int, ...]

# ------------------------------------------------------------------------------------ data types

_POINT = [("x", "<i4"), ("y", ">f8"), ("tag", "S2")]
_NATIVE_POINT = [("x", "i4"), ("y", "f8"), ("tag", "S2")]

DTYPES_V2 = (
    "|u1", "<i2", ">i4", "<i8", ">u8", "|b1", "<f2", ">f4", "<f8", "<c8", ">c16",
    "|S3", "<U2", ">U2", "<M8[s]", ">m8[ms]", "|V3", "string", "bytes", _POINT,
)  # fmt: skip
DTYPES_V3 = (
    "i1", "u2", "i4", "u8", "b1", "f2", "f4", "f8", "c8", "c16",
    "S3", "U2", "M8[s]", "m8[ns]", "V3", "string", "bytes", _NATIVE_POINT,
)  # fmt: skip
STRUCTS_V2 = (
    _POINT,
    [("a", "|u1"), ("b", ">i2"), ("c", "<c8")],
    [("k", "<u2"), ("box", "<f4", (2,))],
)
STRUCTS_V3 = (_NATIVE_POINT, [("a", "u1"), ("b", "i2"), ("c", "c8")])


def random_values(dtype: np.dtype[Any], shape: Shape, seed: int) -> np.ndarray:
    """Items of every kind that ``dtype`` has: NaN, NaT, -0.0, empty and non-ASCII text."""
    rng = np.random.default_rng(seed)
    n = math.prod(shape)
    if dtype.names is not None:
        result = np.zeros(shape, dtype)
        for i, name in enumerate(dtype.names):
            field = dtype[name]
            result[name] = random_values(field.base, (*shape, *field.shape), seed + i)
        return result
    values: Any
    if dtype.kind == "T":
        values = [("", "a", "zähler", "b" * 40)[i] for i in rng.integers(0, 4, n)]
        return np.array(values, dtype).reshape(shape)
    if dtype.kind == "O":
        objects = np.empty(n, object)
        objects[:] = [(b"", b"a\x00", b"\xff\x00\x01", b"c" * 40)[i] for i in rng.integers(0, 4, n)]
        return objects.reshape(shape)
    if dtype.kind == "U":
        values = [("", "a", "ß", "xy")[i] for i in rng.integers(0, 4, n)]
        return np.array(values, dtype).reshape(shape)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    raw = np.frombuffer(rng.bytes(n * dtype.itemsize), dtype).reshape(shape).copy()
    if dtype.kind in "fc":
        with np.errstate(all="ignore"):
            raw = rng.normal(size=shape).astype(dtype)
        raw.reshape(-1)[::7] = np.nan
        raw.reshape(-1)[3::7] = -0.0
    if dtype.kind in "mM":
        raw = rng.integers(-(10**9), 10**9, shape).astype(dtype)
        raw.reshape(-1)[::5] = np.array("NaT", dtype)
    return raw


def same(one: Any, two: Any) -> bool:
    """Equal in shape, type and every bit (text and bytes objects: in value)."""
    one, two = np.asarray(one), np.asarray(two)
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if one.dtype.names is not None:
        return all(same(one[name], two[name]) for name in one.dtype.names)
    if one.dtype.kind in "OT":
        return one.tolist() == two.tolist()
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(two).tobytes()


# --------------------------------------------------------------------------------------- layouts

LAYOUTS = (
    "v2",
    "v2 F order",
    "v3",
    "v3 transposed",
    "sharded",
    "sharded, index at start",
    "sharded, transposed",
    "nested shards",
    "inline shards",
)
SHARDED = ("sharded", "sharded, index at start", "sharded, transposed", "nested shards")

_COMPRESSORS_V2: tuple[dict[str, Any] | None, ...] = (
    None,
    {"id": "zstd", "level": 1},
    {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
)
_BLOSC = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}
_COMPRESSORS_V3: tuple[list[dict[str, Any]], ...] = (
    [],
    [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
    [{"name": "blosc", "configuration": _BLOSC}, {"name": "crc32c"}],
)
_INDEX_CODECS: tuple[list[dict[str, Any]], ...] = (
    [{"name": "bytes", "configuration": {"endian": "little"}}],
    [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    [{"name": "bytes", "configuration": {"endian": "big"}}],
)


def _serializer(dtype: DType, *, big: bool = False) -> dict[str, Any]:
    if dtype.vlen is not None:
        return {"name": "vlen-utf8" if dtype.vlen == "utf8" else "vlen-bytes"}
    configuration = {"endian": "big" if big else "little"} if dtype.multibyte else {}
    return {"name": "bytes", "configuration": configuration}


def _transpose(order: Shape) -> dict[str, Any]:
    return {"name": "transpose", "configuration": {"order": list(order)}}


def _sharding(
    chunk_shape: Shape,
    codecs: list[dict[str, Any]],
    *,
    index_codecs: list[dict[str, Any]] = _INDEX_CODECS[1],
    location: str = "end",
) -> dict[str, Any]:
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(chunk_shape),
            "codecs": codecs,
            "index_codecs": index_codecs,
            "index_location": location,
        },
    }


def build_metadata(
    layout: str,
    shape: Shape,
    chunks: Shape,
    dtype: Any,
    *,
    factors: Shape | None = None,
    outer_factors: Shape | None = None,
    order: Shape | None = None,
    compressor: int = 0,
    index_codecs: int = 1,
    big: bool = False,
    fill_value: Any = None,
) -> ArrayMetadata:
    """Metadata of one layout.

    Parameters
    ----------
    chunks
        Of the chunks that are decoded (for inline shards: of the chunks inside).
    factors
        Chunks per shard along each axis; ``outer_factors`` inner shards per outer shard.
    order
        Of the axes, where the layout transposes.
    compressor, index_codecs
        Which of the choices above.
    """
    kind = dtype if isinstance(dtype, DType) else from_user(dtype)
    ndim = len(shape)
    factors = (2,) * ndim if factors is None else factors
    outer_factors = (2,) * ndim if outer_factors is None else outer_factors
    order = tuple(reversed(range(ndim))) if order is None else order
    if layout.startswith("v2"):
        return v2.build_array(
            shape=shape,
            chunks=chunks,
            dtype=kind,
            fill_value=fill_value,
            order="F" if layout == "v2 F order" else "C",
            compressor=_COMPRESSORS_V2[compressor],
        )
    inner = [_serializer(kind, big=big), *_COMPRESSORS_V3[compressor]]
    index = _INDEX_CODECS[index_codecs]
    shard = tuple(c * f for c, f in zip(chunks, factors, strict=True))
    if layout == "v3":
        stored, codecs = chunks, inner
    elif layout == "v3 transposed":
        stored, codecs = chunks, [_transpose(order), *inner]
    elif layout in {"sharded", "sharded, index at start"}:
        location = "end" if layout == "sharded" else "start"
        stored = shard
        codecs = [_sharding(chunks, inner, index_codecs=index, location=location)]
    elif layout == "sharded, transposed":
        # Axes reordered around the shard, and once more inside of it.
        turned = tuple(chunks[a] for a in order)
        stored = shard
        codecs = [
            _transpose(order),
            _sharding(turned, [_transpose(order), *inner], index_codecs=index),
        ]
    elif layout == "nested shards":
        stored = tuple(s * f for s, f in zip(shard, outer_factors, strict=True))
        nested = _sharding(chunks, inner, location="start", index_codecs=index)
        codecs = [_sharding(shard, [nested])]
    else:
        assert layout == "inline shards"
        stored = shard
        codecs = [_sharding(chunks, inner), _COMPRESSORS_V3[1][0]]
    return v3.build_array(
        shape=shape, chunk_shape=stored, dtype=kind, codecs=codecs, fill_value=fill_value
    )


def make_array(store: Store, metadata: ArrayMetadata, config: ArrayConfig | None = None) -> Array:
    """A handle of an array at the root of ``store``."""
    return Array(store, "", metadata, device=DEVICE, config=config)


@dataclass(frozen=True)
class Case:
    """One array to be filled, and how the engine is to work on it."""

    layout: str
    metadata: ArrayMetadata
    seed: int
    batch_rows: int
    threads: int
    config: ArrayConfig

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        m = self.metadata
        how = f"seed={self.seed}, batch_rows={self.batch_rows}, threads={self.threads}"
        codecs = [(c.name, c.configuration) for c in m.codecs]
        printer.text(
            f"<{self.layout}: {m.shape} in {m.chunk_shape} of {m.dtype.numpy!r}, "
            f"fill {m.fill_value!r}, {codecs}, {how}, {self.config}>"
        )

    @property
    def shape(self) -> Shape:
        return self.metadata.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.metadata.dtype.numpy

    @property
    def blocks(self) -> Shape:
        """Stored objects along each axis."""
        pairs = zip(self.shape, self.metadata.chunk_shape, strict=True)
        return tuple(-(-n // c) for n, c in pairs)

    def values(self) -> np.ndarray:
        """What the array holds: random items, and every third block of fill value."""
        values = random_values(self.dtype, self.shape, self.seed)
        fill = self.metadata.fill_value
        if fill is not None:
            for number, block in enumerate(np.ndindex(*self.blocks)):
                if (number + self.seed) % 3 == 0:
                    edges = zip(block, self.metadata.chunk_shape, strict=True)
                    values[tuple(slice(b * c, (b + 1) * c) for b, c in edges)] = fill
        return values

    def empty(self) -> Array:
        """The array in a store of its own, nothing written."""
        return make_array(MemoryStore(), self.metadata, self.config)

    def filled(self) -> tuple[Array, np.ndarray]:
        """The array with :meth:`values` written to it, and the values."""
        array, values = self.empty(), self.values()
        array.set_basic_selection(Ellipsis, values)
        return array, values

    @contextmanager
    def running(self) -> Iterator[None]:
        """The engine cut into batches and threads as this case wants it."""
        with pytest.MonkeyPatch.context() as patch, config.set(threads=self.threads):
            if self.batch_rows:
                patch.setattr(engine, "BATCH_ROWS", self.batch_rows)
                patch.setattr(cpu, "JOB_NBYTES", 16)
                patch.setattr(shard_writes, "GROUP_NBYTES", 64)
            if self.threads > 1:
                patch.setattr(jobs, "SMALL_NBYTES", 0)
            yield


_LONGEST = (0, 11, 7, 5, 4)


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    layouts: tuple[str, ...] = LAYOUTS,
    structs: bool = False,
    min_dims: int = 0,
) -> Case:
    """An array of any layout, shape and type."""
    layout = draw(st.sampled_from(layouts))
    ndim = draw(st.sampled_from([d for d in (1, 2, 3, 2, 4, 0) if d >= min_dims]))
    longest = _LONGEST[ndim]
    shape = [draw(st.integers(1, longest)) for _ in range(ndim)]
    if ndim and draw(st.integers(0, 15)) == 15:
        shape[draw(st.integers(0, ndim - 1))] = 0
    chunks = tuple(draw(st.integers(1, longest - 1)) for _ in range(ndim))
    few = st.tuples(*[st.integers(1, 3)] * ndim)
    sharded = "shards" in layout or "sharded" in layout
    if layout.startswith("v2"):
        choices: Any = STRUCTS_V2 if structs else DTYPES_V2
    else:
        choices = STRUCTS_V3 if structs else DTYPES_V3
    dtype = from_user(draw(st.sampled_from(choices)))
    fill = draw(st.sampled_from(["default", "other", "null" if layout[:2] == "v2" else "other"]))
    seed = draw(st.integers(0, 999))
    fill_value: Any = None
    if fill == "other":
        fill_value = random_values(dtype.numpy, (2,), seed)[1]
    elif fill == "default":
        fill_value = v3.default_fill(dtype)
    metadata = build_metadata(
        layout,
        tuple(shape),
        chunks,
        dtype,
        factors=draw(few) if sharded else None,
        outer_factors=draw(few) if layout == "nested shards" else None,
        order=tuple(draw(st.permutations(range(ndim)))) if "transposed" in layout else None,
        compressor=draw(st.integers(0, 2)),
        index_codecs=draw(st.integers(0, 2)) if sharded else 1,
        big=not layout.startswith("v2") and draw(st.booleans()),
        fill_value=fill_value,
    )
    batch_rows, threads = draw(st.sampled_from([(0, 1), (0, 1), (3, 1), (2, 3)]))
    return Case(
        layout=layout,
        metadata=metadata,
        seed=seed,
        batch_rows=batch_rows,
        threads=threads,
        config=ArrayConfig(
            order=draw(st.sampled_from("CF")), write_empty_chunks=draw(st.booleans())
        ),
    )


# ------------------------------------------------------------------------------------ selections


def integers(draw: st.DrawFn, n: int) -> Any:
    """An index of an axis of ``n`` items, in one of the types that count as integers."""
    i = draw(st.integers(-n, n - 1))
    kind = draw(st.sampled_from([int, int, int, np.int64, np.int8, np.array]))
    return kind(i)


def slices(draw: st.DrawFn, n: int) -> slice:
    """Any slice, also one that reaches beyond the axis or selects nothing."""
    ends = st.none() | st.integers(-n - 2, n + 2)
    steps = st.sampled_from([None, None, 1, -1, 2, -2, 3, -3, n + 1, -n - 1, 2**62, -(2**70)])
    return slice(draw(ends), draw(ends), draw(steps))


def _vector(draw: st.DrawFn, values: np.ndarray) -> Any:
    """Index values as a list or an array of some integer type."""
    kinds = ["list", "i8", "i1", "range" if values.shape == (0,) else "list"]
    if values.size and int(values.min()) >= 0:
        kinds += ["u1", "u8"]
    kind = draw(st.sampled_from(kinds))
    if kind == "range":
        return range(0)
    if kind == "list":
        return values.tolist() if values.ndim == 1 or values.size else values
    return values.astype(kind)


def _dressed(draw: st.DrawFn, items: list[Any], *, new_axes: bool = True) -> Any:
    """The items of all axes with an ellipsis for some, some left out at the end, new axes."""
    form = draw(st.sampled_from(["all", "all", "ellipsis", "fewer"]))
    if form == "ellipsis":
        lo = draw(st.integers(0, len(items)))
        hi = draw(st.integers(lo, len(items)))
        items = [*items[:lo], Ellipsis, *items[hi:]]
    elif form == "fewer" and items:
        items = items[: draw(st.integers(0, len(items)))]
    if new_axes:
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
            items.insert(draw(st.integers(0, len(items))), None)
    if len(items) == 1 and draw(st.booleans()):
        return items[0]
    return tuple(items)


@st.composite
def basic_selections(draw: st.DrawFn, shape: Shape) -> Any:
    """Integers, slices, an ellipsis, new axes."""
    items: list[Any] = []
    for n in shape:
        use_integer = n > 0 and draw(st.integers(0, 2)) == 2
        items.append(integers(draw, n) if use_integer else slices(draw, n))
    return _dressed(draw, items)


@st.composite
def orthogonal_selections(draw: st.DrawFn, shape: Shape) -> Any:
    """As basic; also lists, index arrays and boolean vectors."""
    items: list[Any] = []
    for n in shape:
        kind = draw(st.sampled_from(["points", "mask", "slice", "integer"]))
        if kind == "points":
            most = n + 2 if n else 0
            points = draw(st.lists(st.integers(-n, max(n - 1, 0)), max_size=most))
            items.append(_vector(draw, np.array(points, np.int64)))
        elif kind == "mask":
            mask = draw(st.lists(st.booleans(), min_size=n, max_size=n))
            # An empty list would be one of integers.
            items.append(mask if n and draw(st.booleans()) else np.array(mask, bool))
        elif kind == "integer" and n:
            items.append(integers(draw, n))
        else:
            items.append(slices(draw, n))
    return _dressed(draw, items)


@st.composite
def vindex_selections(draw: st.DrawFn, shape: Shape) -> Any:
    """Index arrays that broadcast, masks of one or two axes, mixed with slices and integers."""
    ndim = len(shape)
    items: list[Any] = []
    base = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 0]), min_size=1, max_size=2)))
    mask_at, mask_ndim = -1, 0
    if ndim and draw(st.integers(0, 3)) == 3:
        mask_at = draw(st.integers(0, ndim - 1))
        mask_ndim = draw(st.integers(1, min(2, ndim - mask_at)))
        size = math.prod(shape[mask_at : mask_at + mask_ndim])
        flat = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
        mask = flat.reshape(shape[mask_at : mask_at + mask_ndim])
        base = (int(mask.sum()),)
    axis = 0
    while axis < ndim:
        if axis == mask_at:
            items.append(mask)
            axis += mask_ndim
            continue
        n = shape[axis]
        kind = draw(st.sampled_from(["points", "points", "slice", "integer"]))
        if kind == "points" and n:
            own = base[draw(st.integers(0, len(base) - 1)) :]
            own = tuple(draw(st.sampled_from([m, m, 1])) for m in own)
            size = math.prod(own)
            points = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
            items.append(_vector(draw, np.array(points, np.int64).reshape(own)))
        elif kind == "integer" and n:
            items.append(integers(draw, n))
        else:
            items.append(slices(draw, n))
        axis += 1
    return _dressed(draw, items)


@st.composite
def mask_selections(draw: st.DrawFn, shape: Shape) -> Any:
    """A boolean array of the array's shape, as an array or nested lists."""
    seed, density = draw(st.integers(0, 999)), draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    mask = np.asarray(np.random.default_rng(seed).random(shape) < density)
    form = draw(st.sampled_from(["C", "F", "list"]))
    if form == "list" and mask.ndim and mask.size:
        return mask.tolist()
    return np.asarray(mask, order="F" if form == "F" else "C")


@st.composite
def block_selections(draw: st.DrawFn, blocks: Shape) -> Any:
    """Integers and slices of step 1 over the grid of stored objects."""
    items: list[Any] = []
    for n in blocks:
        if n and draw(st.booleans()):
            items.append(integers(draw, n))
        else:
            ends = st.none() | st.integers(-n - 1, n + 1)
            items.append(slice(draw(ends), draw(ends), draw(st.sampled_from([None, 1]))))
    return _dressed(draw, items, new_axes=False)


# --------------------------------------------------------------------------------------- oracles


def expand(selection: Any, ndim: int) -> list[Any]:
    """A selection without masks of several axes, its ellipsis and missing axes as full slices."""
    items = list(selection) if isinstance(selection, tuple) else [selection]
    used = sum(item is not None and item is not Ellipsis for item in items)
    full = [slice(None)] * (ndim - used)
    for i, item in enumerate(items):
        if item is Ellipsis:
            return items[:i] + full + items[i + 1 :]
    return items + full


def orthogonal_items(array: np.ndarray, selection: Any) -> np.ndarray:
    """Every axis taken on its own, one after the other; integers drop theirs at the end."""
    axis = 0
    shape: list[int] = []
    for item in expand(selection, array.ndim):
        if item is None:
            shape.append(1)
            continue
        if isinstance(item, slice):
            indices = np.arange(array.shape[axis])[item]
        else:
            indices = np.asarray(item)
            if indices.ndim > 1:
                raise IndexError("one axis cannot be indexed by an array of several")
            if indices.dtype == bool:
                indices = np.flatnonzero(indices)
        array = np.take(array, indices.reshape(-1).astype(np.int64), axis)
        if np.ndim(item) or isinstance(item, slice):
            shape.append(array.shape[axis])
        axis += 1
    return array.reshape(shape)


def block_items(array: np.ndarray, selection: Any, edges: Shape) -> np.ndarray:
    """The items of whole blocks."""
    result = []
    for item, n, edge in zip(expand(selection, array.ndim), array.shape, edges, strict=True):
        blocks = list(range(-(-n // edge)))
        chosen = blocks[item] if isinstance(item, slice) else [blocks[int(item)]]
        result.append(slice(chosen[0] * edge, (chosen[-1] + 1) * edge) if chosen else slice(0))
    return array[tuple(result)]


@dataclass(frozen=True)
class Mode:
    """One index mode: how to draw a selection, what it means, and how it is asked for."""

    name: str
    draw: Callable[[Case], st.SearchStrategy[Any]]
    items: Callable[[np.ndarray, Any, Case], np.ndarray]

    def get(self, array: Array, selection: Any, **kwargs: Any) -> Any:
        return getattr(array, f"get_{self.name}_selection")(selection, **kwargs)

    def set(self, array: Array, selection: Any, value: Any, **kwargs: Any) -> None:
        getattr(array, f"set_{self.name}_selection")(selection, value, **kwargs)


MODES = {
    mode.name: mode
    for mode in (
        Mode("basic", lambda c: basic_selections(c.shape), lambda a, s, c: a[s]),
        Mode(
            "orthogonal",
            lambda c: orthogonal_selections(c.shape),
            lambda a, s, c: orthogonal_items(a, s),
        ),
        Mode("coordinate", lambda c: vindex_selections(c.shape), lambda a, s, c: a[s]),
        Mode("mask", lambda c: mask_selections(c.shape), lambda a, s, c: a[np.asarray(s)]),
        Mode(
            "block",
            lambda c: block_selections(c.blocks),
            lambda a, s, c: block_items(a, s, c.metadata.chunk_shape),
        ),
    )
}


def expected_items(mode: Mode, case: Case, selection: Any) -> np.ndarray:
    """The numbers, in C order of the array, of the items that a selection selects."""
    numbers = np.arange(math.prod(case.shape)).reshape(case.shape)
    return np.asarray(mode.items(numbers, selection, case))


def picked(values: np.ndarray, items: np.ndarray, item_shape: Shape = ()) -> np.ndarray:
    """The values of ``items``; each has axes of its own where it is a field of several elements."""
    return values.reshape(-1, *item_shape)[items, ...]  # an array even of one object


def assigned(
    before: np.ndarray, items: np.ndarray, values: np.ndarray, item_shape: Shape = ()
) -> np.ndarray:
    """``before`` with ``values`` at ``items``; of repeated items the last counts."""
    after = before.copy()
    backwards = items.reshape(-1)[::-1]
    distinct, last = np.unique(backwards, return_index=True)
    full = np.broadcast_to(values, (*items.shape, *item_shape)).reshape(-1, *item_shape)
    after.reshape(-1, *item_shape)[distinct] = full[::-1][last]
    return after


@st.composite
def new_values(draw: st.DrawFn, dtype: np.dtype[Any], shape: Shape) -> tuple[Any, np.ndarray]:
    """(what is assigned to a selection of ``shape``, the same as an array of ``dtype``)."""
    shape, dtype = (*shape, *dtype.shape), dtype.base
    seed = draw(st.integers(1000, 1999))
    form = draw(st.sampled_from(["full", "full", "scalar", "broadcast", "other type", "list"]))
    if form == "scalar":
        value = random_values(dtype, (1,), seed)[0]
        array = np.empty((), dtype)
        array[()] = value
        return value, array
    own = list(shape)
    if form == "broadcast":
        own = [draw(st.sampled_from([n, 1])) for n in shape]
        if draw(st.booleans()):
            own = own[draw(st.integers(0, len(own))) :]
        elif draw(st.booleans()):
            own = [1, *own]
    if form in {"other type", "list"} and dtype.kind in "iufcb" and dtype.names is None:
        small = np.random.default_rng(seed).integers(0, 100, own)
        other = small.astype(draw(st.sampled_from(["i1", "i8", "f4", "u2"])))
        # Nested lists cannot say the lengths of axes below one of length 0.
        listed = form == "list" and other.size > 0
        return (other.tolist() if listed else other), other.astype(dtype)
    values = random_values(dtype, tuple(own), seed)
    order = draw(st.sampled_from(["C", "F", "reversed"]))
    if order == "F":
        values = np.asfortranarray(values) if values.ndim else values
    elif order == "reversed" and values.ndim:
        values = values[::-1]
    plain = values
    while plain.ndim > len(shape):
        plain = plain[0, ...]
    return values, plain
