"""Small chunks that want to become large: refused within the memory of a chunk.

Every store is read in one fresh process, whose peak memory is what counts; the bombs are made here,
so that the process never holds one decoded.  Chunks are of 4 KiB.
"""

from __future__ import annotations

import bz2
import json
import lzma
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import LITTLE, Json, regular, sharding, v2_document, v3_document

from zarr_gpu.codecs import get_codec_class

CHUNK = 4096
LARGE = 64 << 20
GIB = 1 << 30
ALLOWED = 2 * CHUNK + (16 << 20)


def zstd_bomb(*, told: bool, nbytes: int = GIB) -> bytes:
    """A zstd frame of runs of zeros: 33 kB for 1 GiB.  ``told``: its header tells the size."""
    window = 7 << 3  # 2**17 bytes
    header = struct.pack("<IBB", 0xFD2FB528, 0x80 if told else 0, window)
    header += struct.pack("<I", nbytes) if told else b""
    blocks = nbytes >> 17
    run = ((1 << 17) << 3) | 2
    return (
        header
        + struct.pack("<I", run)[:3].ljust(4, b"\0") * (blocks - 1)
        + struct.pack("<I", run | 1)[:3].ljust(4, b"\0")
    )


def deflate_bomb(wbits: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join([stream.compress(bytes(1 << 20)) for _ in range(64)] + [stream.flush()])


def blosc_bomb(cname: str) -> bytes:
    codec = get_codec_class("blosc")(typesize=1, cname=cname, shuffle="noshuffle")
    return bytes(codec.encode(np.zeros(LARGE, np.uint8)))  # type: ignore[attr-defined]


def blosc_claim() -> bytes:
    """A header that claims 2 GiB above data that are not there."""
    return struct.pack("<4B3I", 2, 1, 1, 1, (1 << 31) - 17, 1 << 20, 8240) + bytes(8224)


def lz4_bomb() -> bytes:
    return bytes(get_codec_class("numcodecs.lz4")().encode(np.zeros(LARGE, np.uint8)))  # type: ignore[attr-defined]


@cache
def bombs() -> dict[str, tuple[Any, bytes]]:
    """Name -> (v3 codec, encoded chunk)."""

    def blosc(cname: str) -> Json:
        configuration = {
            "typesize": 1, "cname": cname, "clevel": 5, "shuffle": "noshuffle", "blocksize": 0,
        }  # fmt: skip
        return {"name": "blosc", "configuration": configuration}

    return {
        "zstd that tells its size": ("zstd", zstd_bomb(told=True)),
        "zstd that does not": ("zstd", zstd_bomb(told=False)),
        "zstd of many frames": ("zstd", zstd_bomb(told=True, nbytes=1 << 20) * 500),
        "gzip": ("gzip", deflate_bomb(31)),
        "gzip of many members": ("gzip", zlib_member() * 5000),
        "zlib": ("numcodecs.zlib", deflate_bomb(15)),
        "bz2": ("numcodecs.bz2", bz2.compress(bytes(LARGE), 9)),
        "lzma": ("numcodecs.lzma", lzma.compress(bytes(LARGE), preset=0)),
        "lz4": ("numcodecs.lz4", lz4_bomb()),
        "lz4 that claims 2 GiB": ("numcodecs.lz4", b"\0\0\0\x7e" + bytes(20)),
        "blosc lz4": (blosc("lz4"), blosc_bomb("lz4")),
        "blosc zstd": (blosc("zstd"), blosc_bomb("zstd")),
        "blosc that claims 2 GiB": (blosc("lz4"), blosc_claim()),
    }


def zlib_member() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    return stream.compress(bytes(CHUNK)) + stream.flush()


def pack_shard(chunk: bytes) -> bytes:
    """A shard with one chunk, the second of two, and an index without checksum behind it."""
    return chunk + struct.pack("<4Q", 2**64 - 1, 2**64 - 1, 0, len(chunk))


def plain(codec: Any) -> tuple[Json, Callable[[bytes], bytes]]:
    document = v3_document(shape=[4 * CHUNK], chunk_grid=regular(CHUNK), data_type="uint8")
    return {**document, "codecs": [LITTLE, codec]}, lambda chunk: chunk


def sharded(codec: Any) -> tuple[Json, Callable[[bytes], bytes]]:
    document = v3_document(shape=[8 * CHUNK], chunk_grid=regular(2 * CHUNK), data_type="uint8")
    codecs = [sharding([CHUNK], LITTLE, codec, checksum=False)]
    return {**document, "codecs": codecs}, pack_shard


def nested(codec: Any) -> tuple[Json, Callable[[bytes], bytes]]:
    document = v3_document(shape=[16 * CHUNK], chunk_grid=regular(4 * CHUNK), data_type="uint8")
    inner = sharding([CHUNK], LITTLE, codec, checksum=False)
    codecs = [sharding([2 * CHUNK], inner, checksum=False)]
    return {**document, "codecs": codecs}, lambda chunk: pack_shard(pack_shard(chunk))


def inline(codec: Any) -> tuple[Json, Callable[[bytes], bytes]]:
    """A compressor around the shard: it is decoded as a whole."""
    document = v3_document(shape=[8 * CHUNK], chunk_grid=regular(2 * CHUNK), data_type="uint8")
    codecs = [sharding([CHUNK], LITTLE, codec, checksum=False), "crc32c", "crc32c"]

    def pack(chunk: bytes) -> bytes:
        crc = get_codec_class("crc32c")()
        data = np.frombuffer(pack_shard(chunk), np.uint8)
        return bytes(crc.encode(crc.encode(data)))  # type: ignore[attr-defined]

    return {**document, "codecs": codecs}, pack


def claims() -> Iterator[tuple[str, Json, bytes]]:
    """Shards of 100 bytes whose index claims chunks of up to 2**40 bytes."""
    for power in (31, 33, 36, 40, 61):
        index = struct.pack("<4Q", 2**64 - 1, 2**64 - 1, 0, 1 << power)
        document, _ = sharded("zstd")
        yield f"claims 2**{power}", document, bytes(68) + index
        document, _ = nested("zstd")
        yield f"claims nested 2**{power}", document, pack_shard(bytes(68) + index)
        yield f"claims a shard of 2**{power}", document, bytes(68) + index


def v2(codec: Any) -> tuple[Json, Callable[[bytes], bytes]]:
    name = codec if isinstance(codec, str) else codec["name"]
    compressor = {"id": name.removeprefix("numcodecs.")}
    document = v2_document(shape=[4 * CHUNK], chunks=[CHUNK], dtype="|u1", compressor=compressor)
    return document, lambda chunk: chunk


def write_store(place: Path, document: Json, chunk: bytes, last: int) -> None:
    """One array: objects 0 and ``last`` are the bomb, the others are absent."""
    is_v2 = document["zarr_format"] == 2
    place.mkdir()
    (place / (".zarray" if is_v2 else "zarr.json")).write_text(json.dumps(document))
    (place if is_v2 else place / "c").mkdir(exist_ok=True)
    for number in (0, last):
        (place / str(number) if is_v2 else place / f"c/{number}").write_bytes(chunk)


PEAK = """
import resource, sys
from pathlib import Path

def peak():
    # getrusage would do, but on Linux it begins with the peak of the process that started this one.
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
"""

READ = """
import numpy as np
import zarr_gpu
from zarr_gpu.errors import ChunkDecodeError, DataError

names = sys.argv[1:]

def read(name, act):
    array = zarr_gpu.open_array(name, mode="r+")
    try:
        act(array)
    except DataError as error:
        assert error.key and error.key[-1].isdigit(), error
        return
    raise SystemExit(f"{name}: a bomb was accepted")

def whole(array):
    array[...]

def one(array):
    item = array.metadata.chunk_shape[0] - 1
    array[item]

def write(array):
    array[array.metadata.chunk_shape[0] - 1] = 1

# A good chunk of every codec first, and an error of every kind: libraries are not what is measured.
good = zarr_gpu.create_array({}, shape=64, chunks=8, dtype="u1", compressors=["zstd", "gzip"])
good[...] = np.arange(64)
good[...]
for name in names:
    array = zarr_gpu.open_array(name, mode="r")
    for codec in array.compressors:
        data = codec.encode(np.zeros(100, "u1"))
        codec.decode(data, limit=100, exact=True)
        try:
            codec.decode(data[:5], limit=100, exact=True)
        except DataError:
            pass
before = peak()
grown = {}
for name in names:
    for act in (whole, one, write):
        read(name, act)
    grown[Path(name).name] = peak() - before
print(grown)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="platform: no resource module")
@pytest.mark.parametrize("direct", ["1", "0"])  # calling the C libraries, and through numcodecs
def test_bombs_are_refused_within_the_memory_of_a_chunk(tmp_path: Path, direct: str) -> None:
    names = []
    for layout in (plain, sharded, nested, inline, v2):
        for name, (codec, chunk) in bombs().items():
            document, pack = layout(codec)
            place = tmp_path / f"{layout.__name__} {name}"
            write_store(place, document, pack(chunk), last=3)
            names.append(str(place))
    for name, document, shard in claims():
        write_store(tmp_path / name, document, shard, last=3)
        names.append(str(tmp_path / name))
    assert len(zstd_bomb(told=True)) < 33_000
    before = snapshot(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PEAK + READ, *names],
        env={**os.environ, "ZARR_GPU_NATIVE": direct, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    grown = eval(done.stdout)  # a dict of numbers, printed above
    assert len(grown) == len(names)
    # Peaks only ever rise: the first above the bound is the culprit.
    culprit = next((f"{name}: {n}" for name, n in grown.items() if n >= ALLOWED), None)
    assert culprit is None
    assert snapshot(tmp_path) == before


def snapshot(root: Path) -> dict[str, int]:
    return {
        path.relative_to(root).as_posix(): zlib.crc32(path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.skipif(sys.platform == "win32", reason="platform: no resource module")
def test_the_peak_is_seen() -> None:
    """Even behind a parent that was larger."""
    parent = np.ones(256 << 20, np.uint8)
    code = PEAK + "before = peak(); data = bytearray(b'x' * (32 << 20)); print(peak() - before)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 31 << 20
    del parent


def test_the_bomb_is_one() -> None:
    """Decoders that are not told a limit do make it large."""
    small = zstd_bomb(told=True, nbytes=1 << 20)
    codec = get_codec_class("zstd")()
    data = codec.decode(np.frombuffer(small, np.uint8), limit=1 << 20, exact=True)  # type: ignore[attr-defined]
    assert not data.any()
    small = zstd_bomb(told=False, nbytes=1 << 20)
    data = codec.decode(np.frombuffer(small, np.uint8), limit=1 << 20, exact=True)  # type: ignore[attr-defined]
    assert len(data) == 1 << 20


VLEN = """
import zarr_gpu
from zarr_gpu.errors import DataError
for warm in (True, False):
    before = peak()
    for name in sys.argv[2:]:
        with zarr_gpu.config.set({"decode.max_variable_bytes": int(sys.argv[1])}):
            array = zarr_gpu.open_array(name, mode="r", path="small" if warm else "bomb")
            try:
                array[...]
            except DataError as error:
                assert warm or error.key == "bomb/c/0", error
                continue
            assert warm, f"{name}: a bomb was accepted"
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="platform: no resource module")
def test_chunks_of_variable_length_keep_to_the_limit_that_is_set(tmp_path: Path) -> None:
    names = []
    claims = [
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 4) + struct.pack("<I", 2**32 - 1) * 4,
        struct.pack("<II", 4, 2**31) + bytes(100),
    ]
    chunks = [("zstd", zstd_bomb(told=told)) for told in (True, False)]
    chunks += [("gzip", deflate_bomb(31)), (None, claims[0]), (None, claims[1]), (None, claims[2])]
    for number, (codec, chunk) in enumerate(chunks):
        for kind in ("string", "variable_length_bytes"):
            serializer = "vlen-utf8" if kind == "string" else "vlen-bytes"
            document = v3_document(
                shape=[4],
                chunk_grid=regular(4),
                data_type=kind,
                fill_value="",
                codecs=[serializer, codec] if codec else [serializer],
            )
            place = tmp_path / f"{kind} {number}"
            place.mkdir()
            write_store(place / "bomb", document, chunk, last=0)
            write_store(place / "small", document, chunk[:10], last=0)
            names.append(str(place))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PEAK + VLEN, str(1 << 20), *names],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 16 << 20
