"""The model that v2 and v3 documents share.

A model is a frozen value that keeps the parsed document it came from, so that a rewrite changes
only what was meant to change: unknown fields, short-hand names and the order of keys survive.
Models are made by ``v2`` and ``v3``; the constructors check nothing.  Two models are equal when
their documents are.

Imports consolidated, documents, keys, dtypes and errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from zarr_gpu.dtypes import DType
from zarr_gpu.errors import MetadataError
from zarr_gpu.metadata.consolidated import write_inline
from zarr_gpu.metadata.documents import dumps, plain_copy, show
from zarr_gpu.metadata.keys import KeyEncoding

__all__ = [
    "MAX_NDIM",
    "ArrayMetadata",
    "GroupMetadata",
    "NamedConfig",
    "check_attributes",
    "check_chunks",
    "check_lengths",
    "user_lengths",
]

Json = dict[str, Any]

MAX_NDIM = 64
"""Most dimensions of an array: NumPy has no more."""


@dataclass(frozen=True, slots=True)
class NamedConfig:
    """An extension: a codec, a grid, a key encoding.

    ``must_understand`` is False where the document allows a reader that does not know the name to
    go on without it.
    """

    name: str
    configuration: Json = field(default_factory=dict)
    must_understand: bool = True

    def to_dict(self) -> Json:
        """The object in a v3 document; an empty configuration is left out.

        It stays for the codecs of numcodecs, which zarr-python does not read without one.
        """
        if self.configuration or self.name.startswith("numcodecs."):
            return {"name": self.name, "configuration": self.configuration}
        return {"name": self.name}


@dataclass(frozen=True, slots=True, eq=False)
class ArrayMetadata:
    """What the documents of one array say.

    Attributes
    ----------
    shape, chunk_shape
        ``chunk_shape`` is that of a *stored object*: the shard, where the array is sharded.
    fill_value
        A scalar of ``dtype``, ``str`` or ``bytes``; None for a v2 ``null``.
    codecs
        One chain for both versions, in the words of v3 (see ``v2`` for how v2 is put into it).
    dimension_names
        None where the document has none; an element is None where an axis has none.
    order
        Order in which a v2 document stores elements; "C" for v3, where ``codecs`` tell.
    document
        The parsed ``zarr.json`` or ``.zarray``.  Not to be modified.
    """

    zarr_format: Literal[2, 3]
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: DType
    fill_value: Any
    codecs: tuple[NamedConfig, ...]
    key_encoding: KeyEncoding
    attributes: Json
    dimension_names: tuple[str | None, ...] | None
    order: Literal["C", "F"]
    document: Json

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayMetadata) and _documents(self) == _documents(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def with_shape(self, shape: Iterable[int]) -> ArrayMetadata:
        """A copy of another shape and the same number of dimensions."""
        lengths = user_lengths(shape, "shape")
        check_lengths(list(lengths), "shape", minimum=0)
        if len(lengths) != self.ndim:
            raise MetadataError(
                f"shape {show(lengths)} has {len(lengths)} dimensions instead of {self.ndim}"
            )
        return replace(self, shape=lengths, document=self.document | {"shape": list(lengths)})

    def with_attributes(self, attributes: Mapping[str, Any]) -> ArrayMetadata:
        """A copy with these attributes in place of the old ones."""
        new = check_attributes(attributes)
        if self.zarr_format == 2:
            return replace(self, attributes=new)
        return replace(self, attributes=new, document=self.document | {"attributes": new})

    def to_dict(self) -> Json:
        """The ``zarr.json`` or ``.zarray`` document."""
        return dict(self.document)

    def to_documents(self) -> dict[str, bytes]:
        """Every document of this array: key relative to the node -> JSON."""
        if self.zarr_format == 3:
            return {"zarr.json": dumps(self.document, key="zarr.json")}
        return {
            ".zarray": dumps(self.document, key=".zarray"),
            ".zattrs": dumps(self.attributes, key=".zattrs"),
        }


@dataclass(frozen=True, slots=True, eq=False)
class GroupMetadata:
    """What the documents of one group say.

    Attributes
    ----------
    consolidated
        Documents of all nodes below: path relative to the group -> key relative to that node
        (``zarr.json``, ``.zarray``, ...) -> document as parsed.  None where nothing is
        consolidated.
    document
        The parsed ``zarr.json`` or ``.zgroup``.  Not to be modified.
    memo
        For what others work out from the documents; lives as long as they do.
    """

    zarr_format: Literal[2, 3]
    attributes: Json
    consolidated: dict[str, dict[str, Json]] | None
    document: Json
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupMetadata) and _documents(self) == _documents(other)

    __hash__ = None  # type: ignore[assignment]

    def with_consolidated(
        self, documents: Mapping[str, Mapping[str, Json]] | None
    ) -> GroupMetadata:
        """A copy with these documents of all nodes below, or with none.

        They go into the document of a v3 group; those of a v2 group are written apart, by
        ``consolidated.write_zmetadata``.
        """
        found = None if documents is None else {p: dict(d) for p, d in documents.items()}
        if self.zarr_format == 2:
            return replace(self, consolidated=found)
        document: Json = {}
        for name, value in self.document.items():
            if name == "consolidated_metadata":
                continue
            if name == "node_type" and documents is not None:
                document["consolidated_metadata"] = write_inline(documents)
            document[name] = value
        return replace(self, consolidated=found, document=document)

    def with_attributes(self, attributes: Mapping[str, Any]) -> GroupMetadata:
        """A copy with these attributes in place of the old ones."""
        new = check_attributes(attributes)
        if self.zarr_format == 2:
            return replace(self, attributes=new)
        return replace(self, attributes=new, document=self.document | {"attributes": new})

    def to_dict(self) -> Json:
        """The ``zarr.json`` or ``.zgroup`` document."""
        return dict(self.document)

    def to_documents(self) -> dict[str, bytes]:
        """Every document of this group except ``.zmetadata``: key -> JSON."""
        if self.zarr_format == 3:
            return {"zarr.json": dumps(self.document, key="zarr.json")}
        return {
            ".zgroup": dumps(self.document, key=".zgroup"),
            ".zattrs": dumps(self.attributes, key=".zattrs"),
        }


def _documents(model: ArrayMetadata | GroupMetadata) -> tuple[Any, ...]:
    consolidated = model.consolidated if isinstance(model, GroupMetadata) else None
    return model.zarr_format, model.document, model.attributes, consolidated


def check_attributes(attributes: Any) -> Json:
    """A plain copy of attributes given by a user; refuses what JSON would change."""
    if not isinstance(attributes, Mapping):
        raise MetadataError(f"attributes {show(attributes)} are no mapping")
    return plain_copy(dict(attributes), "attributes")


def check_lengths(value: Any, what: str, *, minimum: int) -> tuple[int, ...]:
    """A list of axis lengths from a document."""
    if not isinstance(value, list):
        raise MetadataError(f"{what} {show(value)} is no list of integers")
    if len(value) > MAX_NDIM:
        raise MetadataError(f"{what} has {len(value)} dimensions; the limit is {MAX_NDIM}")
    for axis, length in enumerate(value):
        if type(length) is not int or not minimum <= length < 2**63:
            raise MetadataError(
                f"{what} {show(value)}: axis {axis} must be an integer from {minimum} to 2**63 - 1"
            )
    return tuple(value)


def check_chunks(value: Any, ndim: int, dtype: DType, what: str) -> tuple[int, ...]:
    """The shape of a stored object from a document: edges of 1 or more, below 2**63 bytes."""
    chunks = check_lengths(value, what, minimum=1)
    if len(chunks) != ndim:
        raise MetadataError(f"{what} has {len(chunks)} dimensions, shape has {ndim}")
    nbytes = dtype.itemsize
    for length in chunks:
        nbytes *= length
    if nbytes >= 2**63:
        raise MetadataError(f"{what} {show(list(chunks))}: a chunk would have {nbytes} bytes")
    return chunks


def user_lengths(value: Any, what: str) -> tuple[int, ...]:
    """Axis lengths given by a user: one integer or several, NumPy's included."""
    items = [value] if isinstance(value, (int, np.integer)) else value
    try:
        items = list(items)
    except TypeError as error:
        raise MetadataError(f"{what} {show(value)} is no sequence of integers") from error
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in items):
        raise MetadataError(f"{what} {show(value)} is no sequence of integers")
    return tuple(int(n) for n in items)
