"""Frames written by other libraries: the shared data of numcodecs, c-blosc, zstd and xz."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codec_suite import u8

from zarr_gpu.codecs import BloscCodec, GzipCodec, ZstdCodec, get_codec_class, native
from zarr_gpu.codecs.base import ArrayToArray, ArrayToBytes, BytesToBytes, ChunkSpec
from zarr_gpu.codecs.numcodecs import LZMA
from zarr_gpu.errors import CodecError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LARGE = 1 << 26

ABSENT = pytest.mark.skipif(
    not DATA.is_dir(), reason="shared data: no folder ../shared/data beside the repository"
)
WAITING: set[str] = set()  # ids that no codec here has yet


@cache
def numcodecs_blobs() -> list[dict[str, Any]]:
    path = DATA / "numcodecs.expected.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())["encoded"]
    return found


def frames(source: str, codec: str) -> list[Any]:
    path = DATA / f"{source}.frames.json"
    if not path.is_file():
        return []
    found = [f for f in json.loads(path.read_text())["frames"] if f["codec"] == codec]
    return [pytest.param(source, f, id=f"{source}/{f.get('member', f['path'])}") for f in found]


def frame_bytes(source: str, frame: dict[str, Any]) -> np.ndarray:
    path = DATA / source / frame["path"]
    if "member" in frame:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(frame["member"])
    else:
        data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == frame["in_sha256"]
    return u8(data)


def check_frame(codec: BytesToBytes, data: np.ndarray, frame: dict[str, Any]) -> None:
    if frame["status"] == "invalid":
        for limit, exact in ((LARGE, False), (100, True), (0, True)):
            with pytest.raises(CodecError):
                codec.decode(data, limit=limit, exact=exact)
        return
    size = frame["out_len"]
    for limit, exact in ((size, True), (size, False), (size + (1 << 18), False)):
        try:
            got = codec.decode(data, limit=limit, exact=exact)
        except CodecError:
            assert frame["status"] == "lenient"
            continue
        assert hashlib.sha256(got.tobytes()).hexdigest() == frame["out_sha256"]
    for limit, exact in ((size - 1, True), (size - 1, False), (size + 1, True)):
        if limit >= 0:
            with pytest.raises(CodecError):
                codec.decode(data, limit=limit, exact=exact)


@pytest.fixture(params=["direct", "numcodecs"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numcodecs":
        for name in ("blosc", "zstd", "lz4"):
            monkeypatch.setattr(native, name, lambda: None)


ZSTD = [f for s in ("zstd", "zstd-rs", "klauspost-compress") for f in frames(s, "zstd")]


@ABSENT
@pytest.mark.parametrize(("source", "frame"), ZSTD)
def test_zstd_frames(source: str, frame: dict[str, Any], library: None) -> None:
    check_frame(ZstdCodec(), frame_bytes(source, frame), frame)


@ABSENT
@pytest.mark.parametrize(("source", "frame"), frames("c-blosc", "blosc"))
def test_blosc_frames(source: str, frame: dict[str, Any], library: None) -> None:
    check_frame(BloscCodec(), frame_bytes(source, frame), frame)


@ABSENT
@pytest.mark.parametrize(("source", "frame"), frames("xz", "xz"))
def test_xz_frames(source: str, frame: dict[str, Any]) -> None:
    check_frame(LZMA(), frame_bytes(source, frame), frame)


@ABSENT
def test_every_blob_of_numcodecs(library: None) -> None:
    seen: Counter[str] = Counter()
    for blob in numcodecs_blobs():
        config = dict(blob["config"])
        name = config.pop("id")
        seen[name] += 1
        if name in WAITING:
            continue
        codec = get_codec_class(f"numcodecs.{name}").from_config(config)
        data = u8((DATA / "numcodecs" / blob["encoded"]).read_bytes())
        assert len(data) == blob["enc_len"]
        size = blob.get("decoded_len")
        array = np.load(DATA.parent.parent / blob["array"], allow_pickle=name == "vlen-utf8")
        if isinstance(codec, ArrayToBytes):
            spec = ChunkSpec(array.shape, np.dtype(object))
            flat = array.reshape(-1, order="A")  # as numcodecs does
            assert codec.decode(data, spec).reshape(-1).tolist() == flat.tolist()
            np.testing.assert_array_equal(codec.encode(flat, spec), data)
            continue
        if isinstance(codec, ArrayToArray):
            dtypes = codec.stored_dtypes()
            assert dtypes is not None
            encoded = data.view(dtypes[1])
            decoded = codec.decode(encoded, ChunkSpec(encoded.shape, dtypes[0])).tobytes()
        else:
            assert isinstance(codec, BytesToBytes)
            decoded = codec.decode(data, limit=size, exact=True).tobytes()
        assert len(decoded) == size
        assert hashlib.sha256(decoded).hexdigest() == blob["decoded_sha256"], blob["encoded"]
    assert sum(seen.values()) == 558
    assert len(set(seen) - WAITING) == 13


@ABSENT
def test_gzip_chunks_of_other_writers() -> None:
    """Chunks of stores written in other languages decode to what Python's gzip gives."""
    import gzip

    number = 0
    for path in sorted((DATA / "zarr-java").rglob("*")) + sorted((DATA / "zarrita.js").rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        if data[:2] == b"\x1f\x8b":
            expected = gzip.decompress(data)
            got = GzipCodec().decode(u8(data), limit=len(expected), exact=True)
            assert got.tobytes() == expected
            number += 1
    assert number
