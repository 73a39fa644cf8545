"""Other implementations of Zarr behind two calls: ``read`` a stored case, ``write`` a case.

Each is imported when it is made; none is ever imported by the package itself.  A peer writes its
own metadata documents, so that their spelling is tested as well as the chunks.  ``refusal`` says
why a peer sits out a case.

Run as a program it prints how many of the first cases each peer takes part in::

    python tests/interop_peers.py 500
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interop_configs import Case, make_case

DOCUMENTS = {2: ".zarray", 3: "zarr.json"}


class Peer(ABC):
    """One implementation."""

    @abstractmethod
    def read(self, path: Path, case: Case) -> Any:
        """All values of the array stored at ``path``."""

    @abstractmethod
    def write(self, path: Path, case: Case) -> None:
        """Create the array of ``case`` at ``path`` and take all of its steps."""

    def attributes(self, path: Path, case: Case) -> Any:
        """Attributes as this implementation reads them."""
        return case.attributes


def write_document(path: Path, case: Case) -> None:
    """Store the metadata that a case has in the words of the specification."""
    path.mkdir()
    (path / DOCUMENTS[case.zarr_format]).write_text(json.dumps(case.document))
    if case.zarr_format == 2:
        (path / ".zattrs").write_text(json.dumps(case.attributes))


class ZarrPython(Peer):
    """zarr-python with the pipeline that it comes with."""

    pipeline: dict[str, Any] = {}

    def __init__(self) -> None:
        self.zarr = pytest.importorskip("zarr")

    @contextmanager
    def _open(self, path: Path, case: Case, mode: str) -> Iterator[Any]:
        with self.zarr.config.set({"array.write_empty_chunks": case.write_empty, **self.pipeline}):
            yield self.zarr.open_array(path, mode=mode, zarr_format=case.zarr_format)

    def read(self, path: Path, case: Case) -> Any:
        with self._open(path, case, "r") as array:
            return array[...]

    def attributes(self, path: Path, case: Case) -> Any:
        with self._open(path, case, "r") as array:
            return dict(array.attrs)

    def write(self, path: Path, case: Case) -> None:
        write_document(path, case)
        with self._open(path, case, "r+") as array:
            array.update_attributes(case.attributes)  # writes the document anew
            for step in case.steps:
                if step.shape != array.shape:
                    array.resize(step.shape)
                if step.box is not None:
                    array[step.box or ...] = step.values


class Zarrs(ZarrPython):
    """zarrs under zarr-python, which may not step in for it."""

    pipeline = {
        "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
        "codec_pipeline.strict": True,
    }

    def __init__(self) -> None:
        super().__init__()
        pytest.importorskip("zarrs")
        self.buffers = pytest.importorskip("zarr.buffer.cpu")

    def read(self, path: Path, case: Case) -> Any:
        # Results of order F or foreign byte order are refused, so another one is handed in.
        result = np.empty(case.shape, case.kind.numpy)
        with self._open(path, case, "r") as array:
            out = self.buffers.NDBuffer.from_numpy_array(result)
            array.get_basic_selection(..., out=out)
        return result


class TensorStore(Peer):
    """TensorStore, structured types one field at a time."""

    def __init__(self) -> None:
        self.tensorstore = pytest.importorskip("tensorstore")

    def _open(self, path: Path, case: Case, **options: Any) -> Any:
        spec = {
            "driver": "zarr" if case.zarr_format == 2 else "zarr3",
            "kvstore": {"driver": "file", "path": str(path)},
            "store_data_equal_to_fill_value": case.write_empty,
            **options,
        }
        return self.tensorstore.open(spec).result()

    def _fields(self, case: Case) -> list[dict[str, Any]]:
        names = case.kind.numpy.names
        return [{}] if names is None else [{"field": name} for name in names]

    def read(self, path: Path, case: Case) -> Any:
        result = np.empty(case.shape, case.kind.numpy)
        for options in self._fields(case):
            array = self._open(path, case, open=True, **options)
            values = array.read().result()
            if options:
                part = result[options["field"]]
                part[...] = _joined(values, part.dtype, part.shape)
            else:
                result[...] = _joined(values, result.dtype, result.shape)
        return result

    def write(self, path: Path, case: Case) -> None:
        for position, options in enumerate(self._fields(case)):
            if position == 0:
                options = {**options, "create": True, "metadata": case.document}
            array = self._open(path, case, open=True, **options)
            for step in case.steps:
                # Fields share their shape: the first one has made room for all.
                if position == 0 and step.shape != array.shape[: len(step.shape)]:
                    inner = [None] * (array.rank - len(step.shape))  # axes within an item
                    array = array.resize(
                        exclusive_max=[*step.shape, *inner],
                        resize_tied_bounds=bool(options.get("field")),
                    ).result()
                if step.box is None:
                    continue
                values = step.values
                if "field" in options:
                    values = values[options["field"]]
                array[step.box].write(_split(np.asarray(values))).result()


@dataclass(frozen=True)
class _Memory:
    """The memory of ``owner`` under another description."""

    __array_interface__: dict[str, Any]
    owner: Any


def _split(values: np.ndarray) -> np.ndarray:
    """Bytes of fixed length as TensorStore has them: one more axis."""
    if values.dtype.kind not in "SV":
        return values
    code = f"{values.dtype.kind}1"
    return np.frombuffer(values.tobytes(), code).reshape(*values.shape, values.dtype.itemsize)


def _joined(values: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """What ``_split`` was given."""
    if dtype.kind not in "SV":
        return values
    # The items of what TensorStore returns have one byte each but claim to have none.
    seen = _Memory({**values.__array_interface__, "typestr": "|u1"}, values)
    return np.frombuffer(np.asarray(seen).tobytes(), dtype).reshape(shape)


MAKERS = {"zarr-python": ZarrPython, "zarrs": Zarrs, "tensorstore": TensorStore}
"""zarr-python; its pipeline of zarrs, which may not fall back to zarr-python; TensorStore."""

REASONS = {
    # zarr-python 3.1
    "zarr-python:struct": "no nested and no sub-array fields in structured types",
    "zarr-python:void": "TypeError (unhashable void) in shards of structured and raw types",
    "zarr-python:0-d": "IndexError on writing a shard without axes",
    "zarr-python:outer": "a transposition before a shard is refused or gives wrong values",
    "zarr-python:flatten": "numcodecs writes transposed chunks in the order of memory",
    "zarr-python:view": "reads big-endian numbers as little-endian ones before numcodecs' filters",
    "zarr-python:endian": "ValueError (endianness None) where a filter widens elements of one byte",
    # zarrs 0.2 as the pipeline of zarr-python
    "zarrs:type": "the pipeline takes bool and numbers only",
    "zarrs:order": "v2's fixedscaleoffset stores its integers in the byte order of the array",
    "zarrs:complex": "big-endian complex numbers come back with real and imaginary part swapped",
    "zarrs:codec": "UnsupportedMetadataError: no codec of this name",
    "zarrs:metadata": "UnsupportedMetadataError: v2's zstd with checksums, order F without axes, "
    "fill value null of complex numbers",
    "zarrs:outer": "a transposition before a shard is refused or gives wrong values",
    # TensorStore 0.1
    "tensorstore:type": "no such data type",
    "tensorstore:abort": "writing v3 arrays of raw bytes aborts the process",
    "tensorstore:index": "a transposed index of shards of raw bytes is refused",
    "tensorstore:codec": "no such codec",
    "tensorstore:filters": "no filters in v2 arrays",
    "tensorstore:checksum": "v2's zstd with a checksum key is refused",
    "tensorstore:axes": "does not create arrays of order F with fewer than two axes",
    "tensorstore:padding": "v2 fill values of fixed bytes must have their full length",
    "tensorstore:outer": "codecs behind a shard are refused",
}
"""Why a peer sits out a case, each established by running it: "peer:what" -> what happens."""


def refusal(peer: str, case: Case, *, writing: bool) -> str | None:
    """Key of ``REASONS`` why ``peer`` cannot read or write ``case``, None where it can."""
    reason = _REFUSALS[peer](case, writing)
    return None if reason is None else f"{peer}:{reason}"


def _is_mixed(filters: list[dict[str, Any]]) -> bool:
    """Whether a transposition among them moves an axis."""
    orders = [c["configuration"]["order"] for c in filters if c.get("name") == "transpose"]
    return any(order != sorted(order) for order in orders)


def _zarr_python(case: Case, writing: bool) -> str | None:
    names = set(case.codec_names())
    if case.kind.name in ("struct-nested", "struct-subarray"):
        return "struct"
    if case.levels:
        if case.kind.numpy.kind == "V":
            return "void"
        if not case.shape and writing:
            return "0-d"
        if _is_mixed(case.outer_filters):
            return "outer"
    filtered = bool(names & {"numcodecs.delta", "numcodecs.fixedscaleoffset"})
    if writing and _is_mixed(case.filters) and (filtered or case.kind.vlen is not None):
        return "flatten"
    if filtered and case.big_endian:
        return "view"
    if filtered and case.kind.numpy.itemsize == 1 and case.serializer != {"name": "bytes"}:
        return "endian"
    return None


def _zarrs(case: Case, writing: bool) -> str | None:
    if not case.kind.is_number:
        return "type"
    if case.kind.numpy.kind == "c" and case.big_endian:
        return "complex"
    if case.zarr_format == 2 and (
        any(item.get("checksum") for item in case.compressors)
        or (case.order == "F" and not case.shape)
        or (case.fill is None and case.kind.numpy.kind == "c")
    ):
        return "metadata"
    if case.zarr_format == 2 and case.big_endian and "fixedscaleoffset" in case.codec_names():
        return "order"
    if not set(case.codec_names()) <= _ZARRS_CODECS[case.zarr_format]:
        return "codec"
    if _is_mixed(case.outer_filters):
        return "outer"
    return None


_ZARRS_CODECS = {
    2: {"blosc", "bz2", "fixedscaleoffset", "gzip", "shuffle", "zlib", "zstd"},
    3: {"blosc", "crc32c", "gzip", "transpose", "zstd"}
    | {f"numcodecs.{name}" for name in ("bz2", "fixedscaleoffset", "shuffle", "zlib")},
}


def _tensorstore(case: Case, writing: bool) -> str | None:
    dtype = case.kind.numpy
    if case.kind.vlen is not None or dtype.kind in "mMU":
        return "type"
    if case.zarr_format == 3 and dtype.kind == "S":
        return "type"
    if case.zarr_format == 3 and case.kind.name == "raw":
        if writing:
            return "abort"
        if any(level.index_codecs[0]["name"] == "transpose" for level in case.levels):
            return "index"
    if case.zarr_format == 2:
        if case.filters:
            return "filters"
        if case.kind.name == "struct-nested":
            return "type"
        if any("checksum" in item for item in case.compressors):
            return "checksum"
        if case.order == "F" and len(case.shape) < 2 and writing:
            return "axes"
        if dtype.kind == "S" and case.fill is not None and len(case.fill) < dtype.itemsize:
            return "padding"
    if not set(case.codec_names()) <= _TENSORSTORE_CODECS[case.zarr_format]:
        return "codec"
    if case.outer_compressors:
        return "outer"
    return None


_TENSORSTORE_CODECS = {
    2: {"blosc", "bz2", "gzip", "zlib", "zstd"},
    3: {"blosc", "crc32c", "gzip", "transpose", "zstd"},
}

_REFUSALS = {"zarr-python": _zarr_python, "zarrs": _zarrs, "tensorstore": _tensorstore}


def main() -> None:
    """Print the numbers of cases and the reasons for those left out."""
    import sys

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    cases = [make_case(number) for number in range(count)]
    for peer in MAKERS:
        for writing in (False, True):
            reasons = Counter(refusal(peer, case, writing=writing) for case in cases)
            print(f"{peer} {'writes' if writing else 'reads'} {reasons.pop(None, 0)} of {count}")
            for reason, number in reasons.most_common():
                print(f"    {number:4} {REASONS[reason]}")


if __name__ == "__main__":
    main()
