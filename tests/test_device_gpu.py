"""What a GPU alone can show: streams, allocators, arrays of other libraries, kvikio, the cache.

Behaviour that all devices share is in ``device_suite``.  With ``--fake-cuda`` what does not need
the real CuPy runs anywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_suite import require, same_bits

import zarr_gpu
from zarr_gpu import config
from zarr_gpu.array import Array
from zarr_gpu.devices import get_device
from zarr_gpu.errors import ChunkDecodeError

pytestmark = pytest.mark.gpu

BLOSC = {
    "name": "blosc",
    "configuration": {
        "cname": "lz4",
        "clevel": 5,
        "shuffle": "shuffle",
        "typesize": 4,
        "blocksize": 0,
    },
}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
SUM = {"name": "crc32c"}
CODECS: dict[str, Any] = {"raw": None, "blosc": [BLOSC], "zstd": [ZSTD], "sums": [ZSTD, SUM]}


@pytest.fixture(autouse=True)
def _usable(_pretended_gpu: None) -> None:
    require("cuda")


@pytest.fixture
def xp() -> Any:
    """CuPy, or what pretends to be it."""
    return get_device("cuda").xp  # type: ignore[attr-defined]


@pytest.fixture
def cupy(xp: Any) -> Any:
    if xp.__name__ != "cupy":
        pytest.skip("platform: CuPy is pretended")
    return xp


def made(store: Any = None, codecs: str = "blosc", **given: Any) -> tuple[Array, np.ndarray]:
    """(an array on the GPU, its values)."""
    given = {"shape": (60, 50, 20), "chunks": (16, 16, 20), "dtype": "f4", **given}
    there = zarr_gpu.create_array(
        {} if store is None else store, device="cpu", compressors=CODECS[codecs], **given
    )
    values = (np.arange(there.size) % 1009).reshape(there.shape).astype(there.dtype)
    there[...] = values
    return there.to("cuda"), values


# ---- streams -----------------------------------------------------------------------------------


def stream_makers(xp: Any) -> dict[str, Callable[[], Any]]:
    return {
        "of its own": lambda: xp.cuda.Stream(non_blocking=True),
        "that blocks": xp.cuda.Stream,
        "the default": lambda: xp.cuda.Stream.null,
    }


@pytest.mark.parametrize("codecs", CODECS)
@pytest.mark.parametrize("which", ["of its own", "that blocks", "the default"])
def test_work_goes_to_the_current_stream(xp: Any, which: str, codecs: str) -> None:
    z, values = made(codecs=codecs)
    stream = stream_makers(xp)[which]()
    before = xp.cuda.get_current_stream()
    with stream, config.set({"gpu.job_bytes": 1 << 17}):
        got = [z[...] for _ in range(3)]
        z[3:40] = got[0][20:57]
    for result in got:
        assert same_bits(result.get(stream=stream), values)
    values[3:40] = values[20:57].copy()
    assert same_bits(z[...], values)
    assert xp.cuda.get_current_stream() == before


def test_a_stream_is_named(xp: Any) -> None:
    z, values = made()
    stream = xp.cuda.Stream(non_blocking=True)
    for given in (stream, stream.ptr):
        got = z.get_basic_selection(slice(5, 50), stream=given)
        assert same_bits(got.get(stream=stream), values[5:50])
    with pytest.raises(TypeError, match="no CUDA stream"):
        z.get_basic_selection(0, stream="fast")


def test_threads_with_streams_of_their_own(xp: Any) -> None:
    z, values = made()
    cached = z.with_cache(zarr_gpu.DeviceCache(1 << 20))
    wrong: list[Any] = []

    def read(n: int) -> None:
        try:
            with xp.cuda.Stream(non_blocking=True) as stream:
                for i in range(4):
                    part = slice((n + i) % 7, 60 - i, 1 + n % 3)
                    results = [source[part].get(stream=stream) for source in (z, cached)]
                    bad = [got for got in results if not same_bits(got, values[part])]
                    wrong.extend((n, i, got) for got in bad)
        except Exception as error:
            wrong.append(error)

    with config.set({"gpu.job_bytes": 1 << 16}):
        threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_other_streams_are_not_waited_for(cupy: Any) -> None:
    z, values = made()
    assert same_bits(z[...], values)  # all is compiled then
    spin = cupy.RawKernel(
        'extern "C" __global__ void spin(long long n)'
        "{ long long start = clock64(); while (clock64() - start < n) {} }",
        "spin",
    )
    busy, own = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    with busy:
        spin((1,), (1,), (np.int64(1),))
        busy.synchronize()
        spin((1,), (1,), (np.int64(4_000_000_000),))  # two seconds
    with own:
        got = z[...].get(stream=own)
    assert not busy.done
    assert same_bits(got, values)
    busy.synchronize()


# ---- memory ------------------------------------------------------------------------------------


def test_memory_comes_from_the_callers_allocator(cupy: Any) -> None:
    z, values = made()
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        got = z[...]
        assert pool.used_bytes() >= values.nbytes
    assert same_bits(got, values)


def test_memory_is_bounded(cupy: Any, tmp_path: Path) -> None:
    z, values = made(tmp_path, "zstd", shape=(256, 256, 64), chunks=(16, 64, 64), dtype="u2")
    pool = cupy.cuda.MemoryPool()
    with (
        config.set({"gpu.job_bytes": 1 << 20, "gpu.slots": 2}),
        cupy.cuda.using_allocator(pool.malloc),
    ):
        for _ in range(3):
            assert same_bits(z[...], values)
        # The result, two slabs, and for a job its output and three times that of scratch.
        assert pool.total_bytes() <= values.nbytes + (2 << 20) + (12 << 20)


# ---- other libraries -----------------------------------------------------------------------------


def test_tensors_of_pytorch(cupy: Any) -> None:
    torch = pytest.importorskip("torch", reason="platform: PyTorch is not installed")
    z, values = made()
    out = torch.empty(z.shape, dtype=torch.float32, device="cuda")
    assert z.get_basic_selection(..., out=out) is out
    cupy.cuda.get_current_stream().synchronize()
    assert same_bits(out.cpu().numpy(), values)
    z[...] = 0
    z[...] = out
    assert same_bits(z[...], values)
    z[:, :, 3] = out[:, :, 4]
    z[1] = out.to("cpu")[2]
    values[:, :, 3], values[1] = values[:, :, 4], values[2]
    assert same_bits(z[...], values)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        more = z.get_basic_selection(slice(0, 9), stream=stream)
    stream.synchronize()
    assert same_bits(more, values[:9])


def test_arrays_of_jax(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # it takes most memory else
    jax = pytest.importorskip("jax", reason="platform: JAX is not installed")
    if jax.default_backend() != "gpu":
        pytest.skip("platform: JAX has no GPU")
    z, values = made()
    z[...] = jax.numpy.asarray(values) + 1
    assert same_bits(z[...], values + 1)
    with pytest.raises(TypeError):
        z.get_basic_selection(..., out=jax.numpy.zeros(z.shape, "float32"))
    assert same_bits(jax.numpy.from_dlpack(z[3:5]), values[3:5] + 1)


def test_arrays_of_the_device_itself(xp: Any) -> None:
    z, values = made()
    out = xp.empty((60, 50, 20), "f4")
    assert z.get_basic_selection(..., out=out) is out
    assert same_bits(out, values)
    wide = xp.empty((60, 50, 20), "f8")
    z.get_basic_selection(..., out=wide)
    assert same_bits(wide, values.astype("f8"))
    with pytest.raises(TypeError, match="must be an array on device 0"):
        z.get_basic_selection(..., out=np.empty((60, 50, 20), "f4"))


@pytest.mark.parametrize("dtype", ["M8[s]", "longdouble"])
def test_values_that_no_gpu_holds_are_cast_first(dtype: str) -> None:
    z, values = made(dtype="i8", codecs="zstd")
    z[7] = np.full((50, 20), 40, "i8").astype(dtype)
    values[7] = 40
    assert same_bits(z[...], values)


# ---- where bytes come from -----------------------------------------------------------------------


@pytest.mark.parametrize("codecs", CODECS)
@pytest.mark.parametrize("shards", [None, (32, 32, 20)])
@pytest.mark.parametrize("staging", ["pinned", "kvikio"])
def test_files(staging: str, shards: Any, codecs: str, tmp_path: Path, request: Any) -> None:
    if staging == "kvikio":
        request.getfixturevalue("cupy")
        pytest.importorskip("kvikio", reason="platform: kvikio is not installed")
    z, values = made(tmp_path, codecs, shape=(64, 64, 20), chunks=(16, 16, 20), shards=shards)
    z[:16, :16] = values[:16, :16] = 0  # a chunk that is not there
    with config.set({"gpu.staging": staging, "gpu.job_bytes": 1 << 17}):
        for box in (np.s_[...], np.s_[3:61:2, ::-1], np.s_[[1, 60, 2], 5:47]):
            assert same_bits(z[box], values[box])


@pytest.mark.parametrize("codecs", CODECS)
def test_the_cache(codecs: str, tmp_path: Path) -> None:
    z, values = made(tmp_path, codecs)
    cache = zarr_gpu.DeviceCache(2 << 20)
    cached = z.with_cache(cache)
    for _ in range(3):
        assert same_bits(cached[...], values)
        assert same_bits(cached[50:2:-3, ::2], values[50:2:-3, ::2])
    assert cache.misses == 16
    for path in (tmp_path / "c").rglob("*"):
        if path.is_file():
            path.unlink()
    assert same_bits(cached[...], values)
    cache.clear()
    assert not cached[...].get().any()


# ---- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", [True, "all"])
@pytest.mark.parametrize("codecs", CODECS)
def test_verified_reads(codecs: str, verify: Any) -> None:
    z, values = made(codecs=codecs)
    assert same_bits(z.with_config({"verify": verify})[...], values)
    key = "c/1/1/0"
    good = z.store.items[key]  # type: ignore[attr-defined]
    z.store.items[key] = good[: len(good) // 2]  # type: ignore[attr-defined]
    with pytest.raises(ChunkDecodeError) as caught:
        z.with_config({"verify": verify})[...]
    assert caught.value.key == key
    z.store.items[key] = good  # type: ignore[attr-defined]
    assert same_bits(z[...], values)


def test_strict_reads_and_writes() -> None:
    z, values = made()
    strict = z.with_config({"strict": True})
    strict[3] = values[3] = 7
    assert same_bits(strict[...], values)
    assert all(step.where in ("cuda", "view") for step in strict.explain().steps)


def test_warmup() -> None:
    assert zarr_gpu.warmup("cuda") > 0


def test_auto_is_the_gpu() -> None:
    assert get_device("auto") is get_device("cuda")
