"""Damaged data through whole arrays on the batch device: our errors, and nothing that is stale.

The stand-in of nvCOMP treats damaged Zstd, Snappy, Deflate and Gzip streams as carelessly as the
library may: it fills the row with garbage and reports success half of the time.  What the format
can tell must be told all the same.

Environment:

``TEST_DEVICE_MUTANTS``  damaged chunks per chain of codecs: 12 (10 in the simulator) unless set,
                         2,000 with ``HYPOTHESIS_PROFILE=full``; from 1,000 on, all frames
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codec_suite import mutants
from device_suite import (
    BATCHED,
    CODECS,
    FEW,
    blosc,
    document_of,
    native,
    require,
    same_bits,
    to_host,
)
from hostile import LITTLE, check_error, items_of, regular, v2_document, v3_document
from step_suite import examples
from test_codecs_data import WAITING, frame_bytes

import zarr_gpu
from zarr_gpu.array import Array
from zarr_gpu.config import config
from zarr_gpu.devices.sim_runtime import POISON
from zarr_gpu.errors import ChunkDecodeError

COUNT = int(os.environ.get("TEST_DEVICE_MUTANTS") or (10 if FEW else examples(few=12)))

FULL = COUNT >= 1000

DEVICE_CODECS = [case for case in CODECS if document_of(case)[2]]
"""Chains that run on the device, all or in part."""

SUMMED = {"gzip", "crc32", "crc32c", "zlib", "adler32", "bz2", "lzma", "fletcher32", "zstd sum"}
"""Codecs with a checksum of their data."""

TRUSTED = {"zstd", "gzip", "zlib", "blosc zstd", "blosc zlib"}
"""Codecs with streams whose decoding is undefined behaviour once they are damaged."""


def codecs_of(case: str) -> set[str]:
    """Names of the codecs of a case, with what matters of their configuration."""
    document, _, _ = document_of(case)
    found = set()
    for item in (
        *document.get("codecs", ()),
        *(document.get("filters") or ()),
        document.get("compressor") or {"id": "none"},
    ):
        item = {"name": item} if isinstance(item, str) else item
        name = item.get("name", item.get("id")).removeprefix("numcodecs.")
        configuration = item.get("configuration", item)
        if name == "blosc":
            name = f"blosc {configuration['cname']}"
        if name == "zstd" and configuration.get("checksum"):
            name = "zstd sum"
        found.add(name)
    return found


@pytest.fixture(params=BATCHED)
def name(request: pytest.FixtureRequest) -> str:
    require(request.param)
    found: str = request.param
    return found


@pytest.fixture(autouse=True)
def _on_the_device() -> Any:
    """One stream, however large, would else be left to the CPU."""
    before = config.get("gpu.host_rule")
    config.set({"gpu.host_rule": "device"})
    yield
    config.set({"gpu.host_rule": before})


def outcome(array: Array, selection: Any = Ellipsis) -> np.ndarray | ChunkDecodeError:
    """Values on the host, or the error; any other error fails the test."""
    try:
        return native(to_host(array[selection]))
    except ChunkDecodeError as error:
        return error


def poisoned(values: np.ndarray, run: int = 16) -> bool:
    """Whether there is a run of bytes that nothing wrote."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return bytes([POISON]) * run in flat.tobytes()


@pytest.mark.parametrize("case", DEVICE_CODECS[:: 12 if FEW else 1])
def test_mutants(name: str, case: str) -> None:
    document, values, _ = document_of(case)
    items = items_of(document)
    zarr_gpu.open_array(items, mode="r+", device="cpu")[...] = values
    there = zarr_gpu.open_array(items, device=name)
    here = there.to("cpu")
    key = "c/1/1" if case.startswith("v3") else "1.1"
    mine = (slice(6, 12), slice(8, 16))
    good = items[key]
    summed, trusted = codecs_of(case) & SUMMED, codecs_of(case) & TRUSTED
    seed = sum(case.encode())
    refused = trusting = 0
    for number, mutant in enumerate(mutants(np.frombuffer(good, np.uint8), COUNT, seed)):
        items[key] = mutant.tobytes()
        out = there.device.upload(np.zeros_like(values))
        wanted = outcome(here)
        try:
            got: Any = native(to_host(there.get_basic_selection(..., out=out)))
        except ChunkDecodeError as error:
            got = error
        what = f"{case}, mutant {number}: {wanted!r:.150}, {got!r:.150}"
        if isinstance(got, ChunkDecodeError):
            refused += 1
            assert isinstance(wanted, ChunkDecodeError), what
            assert (got.key, bool(got.codec)) == (key, True), what
            check = native(to_host(out)).copy()
        else:
            check = got.copy()
            assert not poisoned(got), what
            if isinstance(wanted, ChunkDecodeError):
                # Undefined behaviour that nothing could tell: a checksum would have.
                assert trusted, what
                assert not summed, what
                trusting += 1
            else:
                assert same_bits(got, wanted), what
                if summed:
                    assert same_bits(got[mine], native(values)[mine]), what
        # All other chunks are right, whatever became of this one.
        check[mine] = native(values)[mine]
        assert same_bits(check, native(values)), what
    items[key] = good
    assert same_bits(there[...], values)
    assert refused > COUNT // 10 or "transpose" in case or "raw" in case or "big" in case
    assert trusting < COUNT


@pytest.mark.parametrize("case", ["v3 zstd", "v3 gzip", "v3 blosc lz4 shuffle", "v3 crc32c"])
def test_many_damaged_chunks_among_good_ones(name: str, case: str) -> None:
    """Any share of damage: the first damaged chunk is named, all good ones are right."""
    document, values, _ = document_of(case)
    items = items_of(document)
    zarr_gpu.open_array(items, mode="r+", device="cpu")[...] = values
    array = zarr_gpu.open_array(items, device=name)
    rng = np.random.default_rng(5)
    keys = [f"c/{i}/{j}" for i in range(4) for j in range(3)]
    good = dict(items)
    for share in (0.1, 0.5, 1.0):
        chosen = [key for key in keys if rng.random() < share] or keys[5:6]
        for key in chosen:
            items[key] = good[key][:-5]
        out = array.device.upload(np.zeros_like(values))
        with pytest.raises(ChunkDecodeError) as caught:
            array.get_basic_selection(..., out=out)
        assert caught.value.key == chosen[0]
        got = to_host(out)
        for key in keys:
            i, j = map(int, key.split("/")[1:])
            box = (slice(6 * i, 6 * i + 6), slice(8 * j, 8 * j + 8))
            if key not in chosen:
                assert same_bits(got[box], values[box])
        items.update(good)
        assert same_bits(array[...], values)


# ---- frames of other libraries -------------------------------------------------------------------

FILTERS = {"astype", "delta", "fixedscaleoffset", "quantize", "shuffle"}

SOURCES = {"c-blosc": 13, "zstd": 4, "zstd-rs": 48, "klauspost-compress": 14}
"""Zstandard and Blosc frames by source."""


def chunk_of(codec: str, data: bytes, size: int) -> dict[str, bytes]:
    """An array whose only chunk is a frame."""
    item = blosc("lz4", "noshuffle") if codec == "blosc" else codec
    document = v3_document(
        shape=[size], chunk_grid=regular(max(size, 1)), data_type="uint8", codecs=[LITTLE, item]
    )
    return items_of(document, **{"c/0": data})


@pytest.mark.parametrize("source", SOURCES)
def test_frames_and_damaged_frames(name: str, source: str, shared_data: Path) -> None:
    listed = json.loads((shared_data / f"{source}.frames.json").read_text())["frames"]
    listed = [frame for frame in listed if frame["codec"] in ("zstd", "blosc")]
    assert len(listed) == SOURCES[source]
    for number, frame in enumerate(listed):
        data = frame_bytes(source, frame)
        size = frame.get("out_len", 100)
        if not size:
            continue  # no chunk holds nothing
        if FEW and (size > 1 << 13 or len(data) > 1 << 13):
            continue
        items = chunk_of(frame["codec"], data.tobytes(), size)
        array = zarr_gpu.open_array(items, device=name)
        got = outcome(array)
        what = frame.get("member", frame["path"])
        if frame["status"] == "invalid":
            assert isinstance(got, ChunkDecodeError), what
            continue
        if frame["status"] == "valid" or not isinstance(got, ChunkDecodeError):
            assert not isinstance(got, ChunkDecodeError), (what, got)
            assert hashlib.sha256(got.tobytes()).hexdigest() == frame["out_sha256"], what
        few = 8 if FULL else 0 if size > 1 << 20 and number % 4 else 2
        for mutant in mutants(data, few, seed=len(data)):
            items["c/0"] = mutant.tobytes()
            got, wanted = outcome(array), outcome(array.to("cpu"))
            if isinstance(got, ChunkDecodeError):
                check_error(got, key="c/0") if got.actual is not None else None
                assert isinstance(wanted, ChunkDecodeError), (what, str(got))
            elif not isinstance(wanted, ChunkDecodeError):
                assert same_bits(got, wanted), what
            else:
                assert (
                    frame["codec"] == "zstd"
                    or "zstd" in what
                    or "zlib" in what
                    or ("snappy" in what)
                ), (what, str(wanted))


def test_blobs_of_numcodecs(name: str, shared_data: Path) -> None:
    """Each as the chunk of an array, whole and damaged."""
    listed = json.loads((shared_data / "numcodecs.expected.json").read_text())["encoded"]
    seen = 0
    for blob in listed[:: 9 if FEW else 1 if FULL else 4]:
        config_ = blob["config"]
        if config_["id"] in WAITING or config_["id"].startswith("vlen"):
            continue
        size = blob["decoded_len"]
        if FEW and size > 1 << 11:
            continue
        data = np.fromfile(shared_data / "numcodecs" / blob["encoded"], np.uint8)
        dtype = config_.get("dtype") or config_.get("decode_dtype") or "|u1"
        width = np.dtype(dtype).itemsize
        is_filter = config_["id"] in FILTERS
        document = v2_document(
            shape=[size // width],
            chunks=[max(size // width, 1)],
            dtype=np.dtype(dtype).str,
            filters=[config_] if is_filter else None,
            compressor=None if is_filter else config_,
        )
        items = items_of(document, **{"0": data.tobytes()})
        array = zarr_gpu.open_array(items, device=name)
        assert array.worker is array.device
        got = outcome(array)
        assert not isinstance(got, ChunkDecodeError), (blob["encoded"], str(got))
        stored = got.astype(array.dtype)
        assert hashlib.sha256(stored.tobytes()).hexdigest() == blob["decoded_sha256"]
        seen += 1
        for mutant in mutants(data, 3, seed=seen):
            items["0"] = mutant.tobytes()
            got, wanted = outcome(array), outcome(array.to("cpu"))
            if isinstance(got, ChunkDecodeError):
                assert isinstance(wanted, ChunkDecodeError), (blob["encoded"], str(got))
                assert got.key == "0"
            elif isinstance(wanted, ChunkDecodeError):
                cname = config_.get("cname", config_["id"])
                assert cname in ("zstd", "zlib"), (blob["encoded"], str(wanted))
            else:
                assert same_bits(got, wanted), blob["encoded"]
    assert seen > (2 if FEW else 400 if FULL else 100)
