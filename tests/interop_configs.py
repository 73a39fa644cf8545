"""Random array configurations that other implementations of Zarr are held against.

``make_case(n)`` is a pure function of ``n``.  A case knows its document in the words of the
specification (made here, not by the package under test), the arguments of ``create_array`` that
mean the same, the steps that fill it, and the values that every reader must find.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from interop_values import (
    NUMBERS,
    OTHERS,
    Dice,
    Kind,
    Shape,
    fill_json,
    has_order,
    make_fill,
    make_values,
)

Box = tuple[slice, ...]
Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One write: grow the array to ``shape``, then set ``box`` (None: nothing)."""

    shape: Shape
    box: Box | None
    values: Any


@dataclass(frozen=True)
class Level:
    """One level of sharding: its shape in the array's order of axes."""

    shape: Shape
    index_codecs: list[Json]
    index_location: str


@dataclass(frozen=True)
class Case:
    """One configuration with its writes."""

    number: int
    zarr_format: int
    kind: Kind
    shape: Shape  # once everything is written
    start: Shape  # when created
    chunks: Shape  # of the leaves
    levels: list[Level]  # outermost first
    big_endian: bool
    order: str
    filters: list[Json]  # v3: before the serializer; v2: all filters
    compressors: list[Json]
    outer_filters: list[Json]  # before and behind the outermost shard
    outer_compressors: list[Json]
    fill: Any  # a scalar, or None for null
    separator: str
    key_encoding: str
    dimension_names: list[str | None] | None
    attributes: Json
    write_empty: bool
    steps: list[Step] = field(repr=False)

    def __str__(self) -> str:
        words = [f"#{self.number} v{self.zarr_format}", self.kind.name, f"shape={self.shape}"]
        words.append(f"chunks={self.chunks}")
        words += [f"shard={level.shape}@{level.index_location}" for level in self.levels]
        for label in ("outer_filters", "filters", "compressors", "outer_compressors"):
            if getattr(self, label):
                words.append(f"{label}={getattr(self, label)}")
        if self.big_endian:
            words.append("big-endian")
        words.append(f"order={self.order} fill={self.fill!r}")
        return " ".join(words)

    # ---- what is stored ------------------------------------------------------------------------

    @property
    def numpy(self) -> np.dtype[Any]:
        """dtype of results: v2 keeps the byte order."""
        if self.zarr_format == 2 and self.big_endian:
            return self.kind.numpy.newbyteorder(">")
        return self.kind.numpy

    @property
    def object_shape(self) -> Shape:
        """Shape of a stored object."""
        return self.levels[0].shape if self.levels else self.chunks

    @property
    def serializer(self) -> Json:
        """v3: how what the filters leave becomes bytes."""
        if self.kind.vlen is not None:
            return {"name": self.kind.vlen, "configuration": {}}
        stored = self.kind.numpy
        for item in self.filters:
            stored = np.dtype(item["configuration"].get("astype", stored))
        if not has_order(stored):
            return {"name": "bytes"}
        return {
            "name": "bytes",
            "configuration": {"endian": "big" if self.big_endian else "little"},
        }

    @property
    def codecs(self) -> list[Json]:
        """v3: the whole chain."""
        codecs = [*self.filters, self.serializer, *self.compressors]
        inner = self.chunks
        for level in reversed(self.levels):
            codecs = [self._sharding(level, inner, codecs)]
            inner = level.shape
        return [*self.outer_filters, *codecs, *self.outer_compressors]

    def _sharding(self, level: Level, inner: Shape, codecs: list[Json]) -> Json:
        for item in self.outer_filters:
            inner = tuple(inner[i] for i in item["configuration"]["order"])
        configuration = {
            "chunk_shape": list(inner),
            "codecs": codecs,
            "index_codecs": level.index_codecs,
            "index_location": level.index_location,
        }
        return {"name": "sharding_indexed", "configuration": configuration}

    @property
    def document(self) -> Json:
        """``.zarray`` or ``zarr.json`` of the array when it is created."""
        if self.zarr_format == 2:
            dtype = self.kind.v2
            if self.big_endian and isinstance(dtype, str):
                dtype = dtype.replace("<", ">")
            filters = list(self.filters)
            if self.kind.vlen is not None:
                filters.insert(0, {"id": self.kind.vlen})
            return {
                "zarr_format": 2,
                "shape": list(self.start),
                "chunks": list(self.chunks),
                "dtype": dtype,
                "compressor": self.compressors[0] if self.compressors else None,
                "fill_value": fill_json(self.fill, self.kind, 2),
                "order": self.order,
                "filters": filters or None,
                "dimension_separator": self.separator,
            }
        document: Json = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.start),
            "data_type": self.kind.v3,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(self.object_shape)},
            },
            "chunk_key_encoding": {
                "name": self.key_encoding,
                "configuration": {"separator": self.separator},
            },
            "fill_value": fill_json(self.fill, self.kind, 3),
            "codecs": self.codecs,
            "attributes": self.attributes,
        }
        if self.dimension_names is not None:
            document["dimension_names"] = self.dimension_names
        return document

    @property
    def arguments(self) -> Json:
        """Arguments of ``create_array`` that mean this document."""
        common: Json = {
            "shape": self.start,
            "zarr_format": self.zarr_format,
            "fill_value": self.fill,
            "attributes": self.attributes,
            "config": {"write_empty_chunks": self.write_empty},
        }
        if self.zarr_format == 2:
            return common | {
                "dtype": (
                    self.kind.vlen and {"vlen-utf8": str, "vlen-bytes": bytes}[self.kind.vlen]
                )
                or self.numpy,
                "chunks": self.chunks,
                "filters": self.filters,
                "compressors": self.compressors,
                "order": self.order,
                "chunk_key_encoding": {"name": "v2", "separator": self.separator},
            }
        common |= {
            "dtype": self.kind.v3,
            "chunk_key_encoding": {"name": self.key_encoding, "separator": self.separator},
            "dimension_names": self.dimension_names,
            "filters": self.filters,
            "serializer": self.serializer,
            "compressors": self.compressors,
            "chunks": self.chunks,
        }
        if len(self.levels) > 1 or self.outer_filters or self.outer_compressors:
            whole = self.codecs
            place = len(self.outer_filters)
            inner = whole[place]["configuration"]
            if self.outer_filters or self.outer_compressors:
                # A shard as the serializer of what is then an ordinary chunk.
                common |= {
                    "chunks": self.object_shape,
                    "filters": whole[:place],
                    "serializer": whole[place],
                    "compressors": whole[place + 1 :],
                }
                return common
            common |= {
                "chunks": tuple(inner["chunk_shape"]),
                "filters": None,
                "serializer": inner["codecs"][0],
                "compressors": None,
            }
        if self.levels:
            common["shards"] = {
                "shape": self.object_shape,
                "index_codecs": self.levels[0].index_codecs,
                "index_location": self.levels[0].index_location,
            }
        return common

    # ---- values --------------------------------------------------------------------------------

    @property
    def missing(self) -> Any:
        """What an item that was never written reads as."""
        if self.fill is not None:
            return self.fill
        if self.kind.numpy.kind in "mM":
            return self.kind.numpy.type("NaT", np.datetime_data(self.kind.numpy))
        return {"vlen-utf8": "", "vlen-bytes": b""}.get(
            self.kind.vlen or "", np.zeros((), self.kind.numpy)[()]
        )

    def expected(self) -> np.ndarray:
        """What must be read once all steps are done."""
        result = np.empty(self.start, self.kind.numpy)
        result[...] = self.missing
        for step in self.steps:
            if step.shape != result.shape:
                grown = np.empty(step.shape, self.kind.numpy)
                grown[...] = self.missing
                grown[tuple(slice(n) for n in result.shape)] = result
                result = grown
            if step.box is not None:
                result[step.box] = step.values[()]  # else a 0-d array of objects holds an array
        assert result.shape == self.shape
        return result

    def codec_names(self) -> Iterator[str]:
        """Names of all codecs but the serializer and the shards; v2 ids as they are."""
        for item in (
            *self.filters,
            *self.compressors,
            *self.outer_filters,
            *self.outer_compressors,
        ):
            yield item["name"] if self.zarr_format == 3 else item["id"]


# ---------------------------------------------------------------------------- codecs


def _compressor_v3(dice: Dice, itemsize: int) -> Json:
    name = dice.pick(
        ["blosc"] * 12
        + ["zstd"] * 9
        + ["gzip"] * 6
        + ["crc32c"] * 4
        + [
            "numcodecs.blosc",
            "numcodecs.zstd",
            "numcodecs.gzip",
            "numcodecs.zlib",
            "numcodecs.lz4",
            "numcodecs.bz2",
            "numcodecs.lzma",
            "numcodecs.shuffle",
            "numcodecs.adler32",
            "numcodecs.crc32",
            "numcodecs.fletcher32",
        ]
    )
    match name:
        case "blosc":
            configuration = {
                "typesize": itemsize,
                "cname": dice.pick(["lz4", "lz4hc", "blosclz", "zlib", "zstd"]),
                "clevel": dice.number(0, 9),
                "shuffle": dice.pick(["noshuffle", "shuffle", "bitshuffle"]),
                "blocksize": dice.pick([0, 0, 0, 64]),
            }
        case "zstd":
            configuration = {"level": dice.number(-3, 9), "checksum": dice.chance(0.5)}
        case "gzip":
            configuration = {"level": dice.number(0, 9)}
        case "crc32c":
            return {"name": name}
        case _:
            configuration = _numcodecs(name.removeprefix("numcodecs."), dice, itemsize)
    return {"name": name, "configuration": configuration}


def _numcodecs(identifier: str, dice: Dice, itemsize: int) -> Json:
    """A configuration of numcodecs, without its id."""
    match identifier:
        case "blosc":
            return {
                "cname": dice.pick(["lz4", "lz4hc", "blosclz", "zlib", "zstd"]),
                "clevel": dice.number(0, 9),
                "shuffle": dice.pick([0, 1, 2, -1]),
                "blocksize": 0,
            }
        case "zstd":
            checksum = {"checksum": dice.chance(0.5)} if dice.chance(0.3) else {}
            return {"level": dice.number(-3, 9), **checksum}
        case "gzip" | "zlib" | "bz2":
            return {"level": dice.number(1, 9)}
        case "lz4":
            return {"acceleration": dice.number(1, 5)}
        case "lzma":
            return {"format": 1, "check": -1, "preset": dice.number(0, 4), "filters": None}
        case "shuffle":
            return {"elementsize": itemsize}
        case "crc32" | "adler32":
            return {"location": dice.pick(["start", "end"])}
        case "crc32c":
            return {"location": "end"}
        case _:
            return {}


def _delta(dtype: np.dtype[Any], dice: Dice) -> Json:
    stored = dtype
    if dtype.itemsize < 8 and dice.chance(0.3):
        stored = np.dtype(f"{dtype.kind}8")
    byteorder = ">" if dtype.str[0] == ">" else "<"
    return {"dtype": dtype.str, "astype": stored.newbyteorder(byteorder).str}


def _index_codecs(dice: Dice, ndim: int) -> list[Json]:
    codecs: list[Json] = [
        {"name": "bytes", "configuration": {"endian": "big" if dice.chance(0.25) else "little"}}
    ]
    if dice.chance(0.75):
        codecs.append({"name": "crc32c"})
    if dice.chance(0.08):
        order = [int(i) for i in dice.rng.permutation(ndim + 1)]
        codecs.insert(0, {"name": "transpose", "configuration": {"order": order}})
    return codecs


# ---------------------------------------------------------------------------- cases


def make_case(number: int) -> Case:
    """Configuration ``number``, the same in every run."""
    dice = Dice(number)
    zarr_format = 3 if dice.chance(0.6) else 2
    kinds = OTHERS if dice.chance(0.25) else NUMBERS
    kind = dice.pick([k for k in kinds if (k.v3 if zarr_format == 3 else k.v2) is not None])
    big_endian = dice.chance(0.3) and kind.vlen is None and kind.numpy.kind != "V"
    if zarr_format == 2 and not has_order(kind.numpy):
        big_endian = False

    shape, chunks = _shapes(dice)
    levels: list[Level] = []
    if zarr_format == 3 and dice.chance(0.5):
        edge = chunks
        for _ in range(2 if dice.chance(0.3) else 1):
            edge = tuple(n * dice.number(1, 3) for n in edge)
            levels.insert(
                0, Level(edge, _index_codecs(dice, len(shape)), dice.pick(["start", "end"]))
            )

    fixed = kind.numpy.kind == "f" and kind.numpy.itemsize >= 4 and dice.chance(0.25)
    stored = kind.numpy if not (zarr_format == 2 and big_endian) else kind.numpy.newbyteorder(">")
    before = _array_filters(dice, kind, stored, len(shape), zarr_format, fixed=fixed)
    itemsize = 1 if kind.vlen is not None else kind.numpy.itemsize
    for item in before:
        astype = item.get("configuration", item).get("astype")
        itemsize = itemsize if astype is None else np.dtype(astype).itemsize
    outer_filters: list[Json] = []
    outer_compressors: list[Json] = []
    if zarr_format == 3:
        count = dice.pick([0, 1, 1, 1, 2])
        # Behind another codec the number of bytes may be anything.
        compressors = [_compressor_v3(dice, itemsize if i == 0 else 1) for i in range(count)]
        if levels and dice.chance(0.12):
            outer_compressors = [dice.pick([{"name": "crc32c"}, _compressor_v3(dice, 1)])]
        if levels and len(shape) > 1 and dice.chance(0.12):
            outer_filters = [_transpose(dice, len(shape))]
    else:
        before += [
            {"id": i} | _numcodecs(i, dice, itemsize)
            for i in ("shuffle", "fletcher32", "crc32", "adler32", "crc32c")
            if dice.chance(0.04)
        ]
        ids = ["blosc"] * 5 + ["zstd", "zlib"] * 3 + ["gzip", "lz4", "bz2", "lzma"] * 2
        identifier = dice.pick(ids)
        compressors = [{"id": identifier} | _numcodecs(identifier, dice, itemsize)]
        if dice.chance(0.15):
            compressors = []

    fill = _fixed_values((1,), kind, dice)[0] if fixed else make_fill(kind, zarr_format, dice)
    # zarr-python takes -0.0 for 0.0 in complex chunks and would drop some that hold something.
    may_lose = kind.numpy.kind == "c" and (fill is None or 0 in (fill.real, fill.imag))
    start, steps = _steps(dice, kind, shape, levels[0].shape if levels else chunks, fill, fixed)
    names: list[str | None] | None = None
    if zarr_format == 3 and dice.chance(0.4):
        names = [dice.pick([f"axis-{i}", "xyzt"[i], None, ""]) for i in range(len(shape))]
    return Case(
        number=number,
        zarr_format=zarr_format,
        kind=kind,
        shape=shape,
        start=start,
        chunks=chunks,
        levels=levels,
        big_endian=big_endian,
        order="F" if zarr_format == 2 and dice.chance(0.3) else "C",
        filters=before,
        compressors=compressors,
        outer_filters=outer_filters,
        outer_compressors=outer_compressors,
        fill=fill,
        separator=dice.pick("./"),
        key_encoding=dice.pick(["default", "default", "v2"]) if zarr_format == 3 else "v2",
        dimension_names=names,
        attributes=dice.pick([{}, {"units": "µm"}, {"a": [1, None, {"b": 2.5}], "c": True}]),
        write_empty=dice.chance(0.3) or may_lose,
        steps=steps,
    )


PATTERNS = (
    *("whole", "whole", "boxes", "boxes", "whole-boxes", "aligned"),
    *("append", "append", "grow", "erase", "nothing"),
)
"""How a case is filled; see ``_steps``."""


def _shapes(dice: Dice) -> tuple[Shape, Shape]:
    ndim = dice.pick([0, 1, 1, 2, 2, 2, 3, 3, 4])
    longest = [0, 60, 24, 12, 7][ndim]
    shape = tuple(0 if dice.chance(0.03) else dice.number(1, longest) for _ in range(ndim))
    chunks = tuple(
        dice.number(max(1, -(-n // 6)), max(1, n + 2 if dice.chance(0.15) else -(-n // 2)))
        for n in shape
    )
    return shape, chunks


def _transpose(dice: Dice, ndim: int) -> Json:
    order = [int(i) for i in dice.rng.permutation(ndim)]
    return {"name": "transpose", "configuration": {"order": order}}


def _array_filters(
    dice: Dice, kind: Kind, stored: np.dtype[Any], ndim: int, zarr_format: int, *, fixed: bool
) -> list[Json]:
    """Filters that work on numbers; ``stored`` is the dtype that they see."""
    filters: list[Json] = []

    def add(identifier: str, configuration: Json) -> None:
        if zarr_format == 2:
            filters.append({"id": identifier} | configuration)
        else:
            name = f"numcodecs.{identifier}"
            filters.append({"name": name, "configuration": configuration})

    if zarr_format == 3 and ndim and dice.chance(0.35):
        filters.append(_transpose(dice, ndim))
    if fixed:
        add(
            "fixedscaleoffset",
            {"offset": 100, "scale": 8, "dtype": stored.str, "astype": dice.pick(["<i4", "<u2"])},
        )
    elif kind.numpy.kind in "iu" and dice.chance(0.15):
        add("delta", _delta(stored, dice))
    return filters


def _fixed_values(shape: Shape, kind: Kind, dice: Dice) -> np.ndarray:
    """Values that fixedscaleoffset gives back as they were."""
    return (dice.rng.integers(0, 2**15, shape) / 8 + 100).astype(kind.numpy)


def _steps(
    dice: Dice, kind: Kind, shape: Shape, edges: Shape, fill: Any, fixed: bool
) -> tuple[Shape, list[Step]]:
    """The shape to begin with, and the writes that follow."""

    def values(box: Box) -> np.ndarray:
        extent = tuple(s.stop - s.start for s in box)
        if fixed:
            return _fixed_values(extent, kind, dice)
        return make_values(kind, extent, dice, dice.pick(["wild", "wild", "tame"]))

    def write(box: Box, to: Shape = shape) -> Step:
        return Step(to, box, values(box))

    whole = tuple(slice(0, n) for n in shape)
    pattern = dice.pick(PATTERNS)
    if 0 in shape or (not shape and pattern in ("append", "grow", "aligned")):
        pattern = "whole"
    if pattern == "nothing":
        return shape, []
    if pattern == "whole":
        return shape, [write(whole)]
    if pattern in ("boxes", "whole-boxes"):
        boxes = [_box(dice, shape) for _ in range(dice.number(1, 3))]
        first = [whole] if pattern == "whole-boxes" else []
        return shape, [write(box) for box in first + boxes]
    if pattern == "aligned":
        corner = [dice.number(0, (n - 1) // e) * e for n, e in zip(shape, edges, strict=True)]
        box = tuple(slice(c, min(c + e, n)) for c, e, n in zip(corner, edges, shape, strict=True))
        return shape, [write(box)]
    if pattern == "erase":
        first = write(whole)
        box = _box(dice, shape) if dice.chance(0.5) else whole
        erased = np.empty(tuple(s.stop - s.start for s in box), kind.numpy)
        empty = {"vlen-utf8": "", "vlen-bytes": b""}.get(kind.vlen or "")
        if empty is None:
            empty = np.zeros((), kind.numpy)[()]
        erased[...] = empty if fill is None else fill
        return shape, [first, Step(shape, box, erased)]
    # append writes all that it adds, grow leaves some of it to the fill value
    axis = dice.number(0, len(shape) - 1)
    begin = dice.number(0, shape[axis])
    start = (*shape[:axis], begin, *shape[axis + 1 :])
    steps = [write(tuple(slice(0, n) for n in start), start)]
    if begin < shape[axis]:
        added = list(whole)
        added[axis] = slice(begin, shape[axis])
        steps.append(write(tuple(added) if pattern == "append" else _box(dice, shape)))
    return start, steps


def _box(dice: Dice, shape: Shape) -> Box:
    box = []
    for n in shape:
        start = dice.number(0, n - 1)
        box.append(slice(start, dice.number(start + 1, n)))
    return tuple(box)
