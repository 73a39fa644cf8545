"""Direct calls of the C libraries: probed, switched off, in threads and after fork."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from codec_suite import PAYLOADS

from zarr_gpu.codecs import BloscCodec, ZstdCodec, native
from zarr_gpu.codecs.numcodecs import LZ4
from zarr_gpu.errors import MissingDependencyError


@pytest.fixture(autouse=True)
def fresh() -> Any:
    probes = native.blosc, native.zstd, native.lz4, native.deflate  # tests may put others there
    for probe in probes:
        probe.cache_clear()
    yield
    for probe in probes:
        probe.cache_clear()


PROBES = {"blosc": native.Blosc, "zstd": native.Zstd, "lz4": native.Lz4, "deflate": native.Deflate}


@pytest.mark.parametrize("stem", PROBES)
def test_switched_off(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZARR_GPU_NATIVE", "0")
    assert getattr(native, stem)() is None


@pytest.mark.parametrize("stem", PROBES)
def test_absent(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_spec", lambda name: None)
    assert getattr(native, stem)() is None


def no_package(name: str) -> Any:
    raise ValueError(name)


@pytest.mark.parametrize("stem", PROBES)
def test_broken_package(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_spec", no_package)
    assert getattr(native, stem)() is None


@pytest.mark.parametrize("stem", PROBES)
def test_library_without_the_functions(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_open", lambda stem, package: ctypes.pythonapi)
    assert getattr(native, stem)() is None


@pytest.mark.parametrize(("stem", "cls"), PROBES.items())
def test_library_that_gives_other_bytes(
    stem: str, cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if getattr(native, stem)() is None:
        pytest.skip("platform: the wheel exports no C functions here")
    getattr(native, stem).cache_clear()
    right = cls.decompress

    def wrong(self: Any, *args: Any) -> int:
        size: int = right(self, *args)
        args[-1][-1] ^= 1
        return size

    monkeypatch.setattr(cls, "decompress", wrong)
    assert getattr(native, stem)() is None


def test_threads_have_contexts_of_their_own() -> None:
    codec, payload = ZstdCodec(), PAYLOADS["ramp"]
    frame = codec.encode(payload)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            got = codec.decode(frame, limit=len(payload), exact=True)
            if not (got == payload).all() or not (codec.encode(payload) == frame).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


FORK = """
import os, threading
import numpy as np
from zarr_gpu.codecs import BloscCodec, ZstdCodec
payload = np.arange(10000, dtype="<u4").view("u1")
codecs = [ZstdCodec(), BloscCodec(typesize=4, shuffle="shuffle")]
frames = [codec.encode(payload) for codec in codecs]
def check():
    for codec, frame in zip(codecs, frames):
        assert (codec.decode(frame, limit=len(payload), exact=True) == payload).all()
        assert (codec.encode(payload) == frame).all()
check()
for _ in range(5):
    child = os.fork()
    if not child:
        check()
        thread = threading.Thread(target=check)
        thread.start()
        thread.join()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
check()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="platform: no fork")
def test_fork_after_use() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.parametrize("codec", [ZstdCodec(), BloscCodec(typesize=1), LZ4()], ids=repr)
def test_neither_way_into_the_library(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = codec.encode(PAYLOADS["odd"])
    monkeypatch.setattr(native, codec.v2_id, lambda: None)
    for name in ("numcodecs", "numcodecs.blosc"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="numcodecs"):
        codec.encode(PAYLOADS["odd"])
    with pytest.raises(MissingDependencyError, match="numcodecs"):
        codec.decode(frame, limit=len(PAYLOADS["odd"]), exact=True)


def test_errors_of_zstd_have_their_text() -> None:
    library = native.zstd()
    if library is None:
        pytest.skip("platform: the wheel of numcodecs exports no C functions here")
    with pytest.raises(ValueError, match="frame descriptor"):
        library.decompress(np.ones(20, "u1"), np.empty(20, "u1"))
    assert library.decompress_bound(np.ones(20, "u1")) is None


def test_read_only_memory_is_accepted() -> None:
    library = native.lz4()
    if library is None:
        pytest.skip("platform: the wheel of numcodecs exports no C functions here")
    block = np.empty(library.bound(100), "u1")
    data = np.zeros(100, "u1")
    data.flags.writeable = False
    block = block[: library.compress(data, block, 1)]
    block.flags.writeable = False
    out = np.ones(100, "u1")
    assert library.decompress(block, out) == 100
    assert not out.any()
