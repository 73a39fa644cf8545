"""The registry: names, aliases, third parties, and that names alone load nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import zarr_gpu.codecs
import zarr_gpu.codecs.numcodecs as v2_codecs
from zarr_gpu.codecs import GzipCodec, codec_names, get_codec_class, register_codec, registry
from zarr_gpu.codecs.base import ArrayToArray, ArrayToBytes, BytesToBytes, Codec
from zarr_gpu.errors import MetadataError, MissingDependencyError, UnknownCodecError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.mark.parametrize("name", registry._TABLE)
def test_every_entry_loads(name: str) -> None:
    cls = get_codec_class(name)
    assert issubclass(cls, (ArrayToArray, ArrayToBytes, BytesToBytes))
    canonical = {"endian": "bytes", "numcodecs.vlen-utf8": "vlen-utf8"}.get(name, name)
    assert cls.name in {canonical, name.removeprefix("numcodecs.")}
    if name.startswith("numcodecs."):
        assert cls.v2_id == name.removeprefix("numcodecs.")
    assert get_codec_class(name) is cls


@pytest.mark.parametrize("module", [zarr_gpu.codecs, v2_codecs], ids=["codecs", "numcodecs"])
def test_public_names(module: Any) -> None:
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError):
        _ = module.Nothing


@pytest.mark.parametrize(
    "name",
    ["", "os", "os.system", "numcodecs", "numcodecs.", "blosc:BloscCodec", "../blosc", "x" * 10**5]
    + [f"{module}.{'x' * n}" for n, module in enumerate(("antigravity", "this", "pickle") * 30)],
)
def test_unknown_names_load_nothing(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(UnknownCodecError) as caught:
        get_codec_class(name)
    assert len(str(caught.value)) < 1000
    assert not {m.partition(".")[0] for m in set(sys.modules) - before} & {"antigravity", "this"}


@pytest.mark.parametrize("name", [None, 3, [], {}, b"gzip", True])
def test_names_that_are_no_names(name: Any) -> None:
    with pytest.raises(UnknownCodecError):
        get_codec_class(name)


def test_registering() -> None:
    register_codec("example.gzip", GzipCodec)
    assert get_codec_class("example.gzip") is GzipCodec
    assert "example.gzip" in codec_names()
    assert "gzip" in codec_names()
    for name, cls in (("", GzipCodec), (3, GzipCodec), ("x", int), ("x", GzipCodec())):
        with pytest.raises(MetadataError):
            register_codec(name, cls)  # type: ignore[arg-type]


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("example.good", "zarr_gpu.codecs.gzip:GzipCodec", registry.GROUP),
        EntryPoint("example.absent", "no_such_module_here:Codec", registry.GROUP),
        EntryPoint("example.wrong", "zarr_gpu.errors:CodecError", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    assert get_codec_class("example.good") is GzipCodec
    with pytest.raises(MissingDependencyError, match="no_such_module_here"):
        get_codec_class("example.absent")
    with pytest.raises(MetadataError, match="no subclass"):
        get_codec_class("example.wrong")
    with pytest.raises(UnknownCodecError):
        get_codec_class("example.other")
    assert {"example.good", "example.absent"} <= set(codec_names())


def test_a_python_without_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr_gpu.codecs.bz2", None)
    with pytest.raises(MissingDependencyError, match="bz2"):
        get_codec_class("numcodecs.bz2")


def test_importing_the_codecs_is_cheap() -> None:
    script = (
        "import sys, zarr_gpu.codecs as c, numpy as np\n"
        "codecs = [c.GzipCodec(), c.ZstdCodec(), c.BloscCodec(), c.BytesCodec()]\n"
        "heavy = {'numcodecs', 'google_crc32c', 'asyncio', 'concurrent', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_codecs_are_codecs() -> None:
    assert all(issubclass(get_codec_class(name), Codec) for name in codec_names())
