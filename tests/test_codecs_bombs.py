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
import pickle, resource, sys
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
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for codec, small, bomb, exact in cases:
    try:
        codec.decode(bomb, limit=limit, exact=exact)
    except CodecError as error:
        assert error.codec == codec.name
        continue
    raise SystemExit(f"{codec} accepted a bomb")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="platform: no resource module")
@pytest.mark.parametrize("direct", ["1", "0"])
def test_bombs_are_refused_within_the_memory_of_the_chunk(tmp_path: Path, direct: str) -> None:
    small, large = np.zeros(100, "u1"), np.zeros(1 << 26, "u1")
    cases = []
    for codec in CODECS:
        bomb = codec.encode(large)
        cases += [(codec, codec.encode(small), bomb, exact) for exact in (True, False)]
    zstd = ZstdCodec()
    unknown = forget_size(zstd.encode(large))
    cases += [(zstd, zstd.encode(small), unknown, exact) for exact in (True, False)]
    many = np.tile(zstd.encode(large[: 1 << 16]), 1 << 10)
    cases += [(zstd, zstd.encode(small), many, exact) for exact in (True, False)]
    path = tmp_path / "cases.pickle"
    path.write_bytes(pickle.dumps(cases))
    grown = int(
        subprocess.run(
            [sys.executable, "-c", MEASURE, str(path)],
            env={**os.environ, "ZARR_GPU_NATIVE": direct, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
    )
    assert grown < 2 * (1 << 16) + (16 << 20)
