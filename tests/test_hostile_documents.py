"""Wrong values anywhere in a document: opening and reading end in our errors or in values."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hostile import LITTLE, items_of, regular, sharding, v2_document, v3_document

import zarr_gpu
from zarr_gpu.errors import ZarrError

WRONG: list[Any] = [
    None, True, False, 0, 1, -1, 2**63, 2**70, 3.0, -0.5, float("nan"), "", "4", "C", "\0",
    "\ud800", "../..", "bytes", "zstd", "x" * 3000, [], [None], [[]], [0], [8, 6], ["a"], [{}], {},
    {"a": 1}, {"name": "zstd"}, {"name": 5}, {"id": "zlib"}, {"id": 5}, {"must_understand": False},
    sharding([2, 2]),
]  # fmt: skip

GOOD = [
    v3_document(
        codecs=[
            {"name": "transpose", "configuration": {"order": [1, 0]}},
            sharding(
                [3, 2],
                LITTLE,
                {
                    "name": "blosc",
                    "configuration": {
                        "typesize": 4,
                        "cname": "lz4",
                        "clevel": 5,
                        "shuffle": "shuffle",
                        "blocksize": 0,
                    },
                },
            ),
        ],
        dimension_names=["x", None],
        storage_transformers=[],
    ),
    v3_document(
        shape=[8],
        data_type={
            "name": "struct",
            "configuration": {
                "fields": [
                    {"name": "a", "data_type": "int8"},
                    {
                        "name": "t",
                        "data_type": {
                            "name": "numpy.datetime64",
                            "configuration": {"unit": "s", "scale_factor": 2},
                        },
                    },
                ]
            },
        },
        chunk_grid=regular(4),
        fill_value="AAAAAAAAAAAA",
        codecs=["bytes", {"name": "zstd", "configuration": {"level": 1, "checksum": True}}],
    ),
    v3_document(
        shape=[8],
        data_type="string",
        chunk_grid=regular(4),
        fill_value="x",
        codecs=[
            "vlen-utf8",
            {"name": "gzip", "configuration": {"level": 1}},
            "crc32c",
            {"name": "numcodecs.shuffle", "configuration": {"elementsize": 4}},
        ],
    ),
    v2_document(
        compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
        filters=[{"id": "delta", "dtype": "<i4", "astype": "<i2"}],
        dimension_separator="/",
        order="F",
    ),
    v2_document(
        dtype=[["a", "<i4"], ["b", [["c", "<f8", [2, 2]], ["d", "|S3"]]]],
        fill_value=None,
        compressor={"id": "lzma", "format": 1, "check": -1, "preset": None, "filters": None},
    ),
    v2_document(
        dtype="<f8",
        fill_value="NaN",
        filters=[
            {"id": "fixedscaleoffset", "offset": 0, "scale": 10, "dtype": "<f8", "astype": "<i4"},
            {"id": "fletcher32"},
        ],
        compressor={"id": "bz2", "level": 1},
    ),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    for key, child in children:
        yield from places(child, (*path, key))


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    owner = changed
    for step in path[:-1]:
        owner = owner[step]
    if value is ...:
        del owner[path[-1]]
    else:
        owner[path[-1]] = copy.deepcopy(value)
    return changed


@pytest.mark.parametrize("document", GOOD)
def test_any_wrong_value_anywhere_is_our_error_or_reads(document: Any) -> None:
    rng = np.random.default_rng(4)
    keys = ["c/0/0", "c/1/0", "c/0", "0.0", "0/0", "1/0", "0"]
    refused = 0
    for path in places(document):
        for value in (..., *WRONG):
            items = items_of(with_value(document, path, value))
            if rng.random() < 0.3:
                items |= {key: rng.bytes(int(rng.choice([0, 3, 96]))) for key in keys}
            before = dict(items)
            start = time.process_time()
            try:
                array = zarr_gpu.open_array(items, mode="r")
                array.info  # noqa: B018
                if array.size < 1 << 20:
                    np.asarray(array[...])
            except ZarrError as error:
                refused += 1
                assert isinstance(error, ValueError | OSError), error
            except Exception as error:
                pytest.fail(f"{type(error).__name__}: {error} for {path} = {value!r}")
            assert time.process_time() - start < 1
            assert items == before
    assert refused > 200
