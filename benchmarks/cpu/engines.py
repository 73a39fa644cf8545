"""The implementations that take part, each behind the same few calls.

An engine is used in a process of its own.  ``read`` and its like return a function without
arguments: all that is done before it is called is not timed.  What an engine cannot do raises
``Unsupported``.  The packages are imported by ``__init__``; all but ours are optional.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

Work = Callable[[], Any]


class Unsupported(Exception):  # noqa: N818  no error: the cell of the table stays empty
    """The engine has no such feature."""


@dataclass(frozen=True)
class Layout:
    """How an array is stored; ``codec`` is a key of ``CODECS``."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    codec: str | None = None
    zarr_format: int = 3
    shards: tuple[int, ...] | None = None

    def arguments(self) -> dict[str, Any]:
        """Those of ``create_array`` of zarr-python and of this package."""
        compressors = None if self.codec is None else [self.compressor()]
        made: dict[str, Any] = {
            "shape": self.shape,
            "chunks": self.chunks,
            "dtype": self.dtype,
            "zarr_format": self.zarr_format,
            "fill_value": 0,
            "compressors": compressors[0] if compressors and self.zarr_format == 2 else compressors,
        }
        return made if self.shards is None else {**made, "shards": self.shards}

    def compressor(self) -> dict[str, Any]:
        """The codec as metadata of this format have it."""
        assert self.codec is not None
        name, configuration = CODECS[self.codec]
        if self.zarr_format == 2:
            shuffle = {"shuffle": 1} if name == "blosc" else {}
            return {"id": name, **configuration, **shuffle}
        if name == "blosc":
            return {"name": name, "configuration": {**configuration, "typesize": self.itemsize}}
        return {"name": name, "configuration": dict(configuration)}

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


CODECS: dict[str, tuple[str, dict[str, Any]]] = {
    "blosc-lz4": ("blosc", {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}),
    "blosc-zstd": ("blosc", {"cname": "zstd", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}),
    "zstd": ("zstd", {"level": 3, "checksum": False}),
    "gzip": ("gzip", {"level": 5}),
}


class Engine:
    """What all engines have in common."""

    name = ""
    module = ""
    settings = "as installed"

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    def read(self, array: Any, selection: Any) -> Work:
        return lambda: np.asarray(array[selection])

    def oindex(self, array: Any, selection: Any) -> Work:
        return lambda: np.asarray(array.oindex[selection])

    def vindex(self, array: Any, selection: Any) -> Work:
        return lambda: np.asarray(array.vindex[selection])

    def list_group(self, path: str, *, consolidated: bool) -> Work:
        raise Unsupported("groups")

    def open_members(self, path: str, names: Sequence[str], *, consolidated: bool) -> Work:
        raise Unsupported("groups")


class ZarrLike(Engine):
    """What has the functions of zarr-python 3."""

    def __init__(self) -> None:
        self.zarr: Any = importlib.import_module(self.module)

    def open(self, path: str, *, writable: bool = False) -> Any:
        return self.zarr.open_array(self.store(path), mode="r+" if writable else "r")

    def store(self, path: str) -> Any:
        return path

    def create(self, path: str, layout: Layout) -> Any:
        return self.zarr.create_array(store=path, **layout.arguments())

    def write_new(self, path: str, layout: Layout, values: Any) -> Work:
        def work() -> None:
            self.create(path, layout)[...] = values

        return work

    def write(self, array: Any, selection: Any, values: Any) -> Work:
        def work() -> None:
            array[selection] = values

        return work

    def append(self, array: Any, blocks: Sequence[Any]) -> list[Work]:
        return [lambda block=block: array.append(block) for block in blocks]  # type: ignore[misc]

    def list_group(self, path: str, *, consolidated: bool) -> Work:
        def work() -> list[str]:
            root = self.zarr.open_group(path, mode="r", use_consolidated=consolidated)
            return sorted(name for name, _ in root.members(max_depth=None))

        return work

    def open_members(self, path: str, names: Sequence[str], *, consolidated: bool) -> Work:
        def work() -> list[tuple[int, ...]]:
            root = self.zarr.open_group(path, mode="r", use_consolidated=consolidated)
            return [root[name].shape for name in names]

        return work


class Ours(ZarrLike):
    name = module = "zarr_gpu"


class ZarrPython(ZarrLike):
    name = "zarr-python"
    module = "zarr"
    options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__()
        self.zarr.config.set(dict(self.options))

    def store(self, path: str) -> Any:
        if not path.endswith(".zip"):
            return path
        return importlib.import_module("zarr.storage").ZipStore(path, mode="r")


class ZarrPythonTuned(ZarrPython):
    name = "zarr-python (tuned)"
    settings = "async.concurrency 4, one thread per core"

    def __init__(self) -> None:
        self.options = {"async.concurrency": 4, "threading.max_workers": os.cpu_count()}
        super().__init__()


class Zarrs(ZarrPython):
    name = "zarrs"
    settings = "codec pipeline of zarrs in zarr-python, one thread per core"

    @classmethod
    def available(cls) -> bool:
        return super().available() and importlib.util.find_spec("zarrs") is not None

    def __init__(self) -> None:
        self.options = {
            "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
            "threading.max_workers": os.cpu_count(),
        }
        super().__init__()


class TensorStore(Engine):
    name = "tensorstore"
    module = "tensorstore"
    context: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self.ts: Any = importlib.import_module("tensorstore")
        self.shared = self.ts.Context(dict(self.context))

    def open(self, path: str, *, writable: bool = False) -> Any:
        if path.endswith(".zip"):
            base = {"driver": "file", "path": path}
            spec = {"driver": "zarr3", "kvstore": {"driver": "zip", "base": base}}
        else:
            driver = "zarr" if os.path.exists(f"{path}/.zarray") else "zarr3"  # noqa: PTH110
            spec = {"driver": driver, "kvstore": {"driver": "file", "path": path}}
        return self.ts.open(spec, read=True, write=writable, context=self.shared).result()

    def create(self, path: str, layout: Layout) -> Any:
        if layout.zarr_format == 2:
            metadata: dict[str, Any] = {
                "shape": layout.shape,
                "chunks": layout.chunks,
                "dtype": np.dtype(layout.dtype).str,
                "compressor": None if layout.codec is None else layout.compressor(),
                "fill_value": 0,
            }
        else:
            codecs: list[dict[str, Any]] = [
                {"name": "bytes", "configuration": {"endian": "little"}}
            ]
            if layout.codec is not None:
                made = layout.compressor()
                made["configuration"].pop("checksum", None)  # is always off there
                codecs.append(made)
            grid = {"name": "regular", "configuration": {"chunk_shape": layout.chunks}}
            metadata = {
                "shape": layout.shape,
                "chunk_grid": grid,
                "data_type": np.dtype(layout.dtype).name,
                "fill_value": 0,
                "codecs": codecs,
            }
        spec = {
            "driver": "zarr" if layout.zarr_format == 2 else "zarr3",
            "kvstore": {"driver": "file", "path": path},
            "metadata": metadata,
        }
        return self.ts.open(spec, create=True, context=self.shared).result()

    def read(self, array: Any, selection: Any) -> Work:
        return lambda: array[selection].read().result()

    def oindex(self, array: Any, selection: Any) -> Work:
        return lambda: array.oindex[selection].read().result()

    def vindex(self, array: Any, selection: Any) -> Work:
        return lambda: array.vindex[selection].read().result()

    def write_new(self, path: str, layout: Layout, values: Any) -> Work:
        return lambda: self.create(path, layout).write(values).result()

    def write(self, array: Any, selection: Any, values: Any) -> Work:
        return lambda: array[selection].write(values).result()

    def append(self, array: Any, blocks: Sequence[Any]) -> list[Work]:
        state = [array, 0]  # a new length is known only to the handle that resizing returns

        def work(block: Any) -> None:
            start, stop = state[1], state[1] + len(block)
            state[:] = state[0].resize(exclusive_max=[stop]).result(), stop
            state[0][start:stop].write(block).result()

        return [lambda block=block: work(block) for block in blocks]  # type: ignore[misc]


class TensorStoreTuned(TensorStore):
    name = "tensorstore (tuned)"
    settings = "one copying thread per core, 4 for files, no fsync, no locks, no cache"

    def __init__(self) -> None:
        self.context = {
            "data_copy_concurrency": {"limit": os.cpu_count()},
            "file_io_concurrency": {"limit": 4},
            "file_io_sync": False,
            "file_io_locking": {"mode": "none"},
            "cache_pool": {"total_bytes_limit": 0},
        }
        super().__init__()


ENGINES: dict[str, type[Any]] = {
    engine.name: engine
    for engine in (Ours, ZarrPython, ZarrPythonTuned, Zarrs, TensorStore, TensorStoreTuned)
}
OURS = Ours.name
