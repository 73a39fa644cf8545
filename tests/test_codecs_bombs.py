"""Small frames that want to become large are refused within the memory of a chunk."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from codec_suite import forget_size

from zarr_gpu.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr_gpu.codecs.base import BytesToBytes
from zarr_gpu.codecs.numcodecs import BZ2, LZ4, LZMA, Zlib

CODECS: list[BytesToBytes] = [
    GzipCodec(),
    Zlib(),
    BZ2(),
    LZMA(preset=0),
    LZ4(),
    ZstdCodec(),
    BloscCodec(typesize=1, cname="zstd", shuffle="noshuffle"),
    BloscCodec(typesize=1, cname="lz4", shuffle="noshuffle"),
]


MEASURE = """
import pickle, re, resource, sys
import numpy as np
from zarr_gpu.errors import CodecError
cases = pickle.load(open(sys.argv[1], "rb"))
limit = 1 << 16
for codec, small, bomb, exact in cases:
    codec.decode(small, limit=100, exact=True)
    try:  # warm up what an error needs
        codec.decode(small[:5], limit=100, exact=True)
    except CodecError:
        pass

def peak():
    try:  # getrusage counts the parent's memory before exec
        status = open("/proc/self/status").read()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024)
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024

before = peak()
for codec, small, bomb, exact in cases:
    try:
        codec.decode(bomb, limit=limit, exact=exact)
    except CodecError as error:
        assert error.codec == codec.name
        continue
    raise SystemExit(f"{codec} accepted a bomb")
print(peak() - before)
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(codec, honest frame, bomb, exact), a pickle: the measured process makes no bombs."""
    small, large = np.zeros(100, "u1"), np.zeros(1 << 26, "u1")
    zstd = ZstdCodec()
    bombs = [(codec, codec.encode(large)) for codec in CODECS]
    bombs.append((zstd, forget_size(zstd.encode(large))))
    bombs.append((zstd, np.tile(zstd.encode(large[: 1 << 16]), 1 << 10)))
    found = [(c, c.encode(small), bomb, exact) for c, bomb in bombs for exact in (True, False)]
    path = tmp_path_factory.mktemp("bombs") / "cases.pickle"
    path.write_bytes(pickle.dumps(found))
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="platform: no resource module")
@pytest.mark.parametrize("direct", ["1", "0"])
def test_bombs_are_refused_within_the_memory_of_the_chunk(cases: Path, direct: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(cases)],
        env={**os.environ, "ZARR_GPU_NATIVE": direct, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert int(done.stdout) < 2 * (1 << 16) + (16 << 20)
