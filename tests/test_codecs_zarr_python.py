"""Filters of numcodecs that zarr-python wrote, read by us, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

import zarr_gpu

zarr = pytest.importorskip("zarr", minversion="3.1", reason="zarr-python is not installed")

RNG = np.random.default_rng(0)
FLOATS = RNG.standard_normal((20, 12))
CASES: dict[str, tuple[np.ndarray, dict[str, Any], str]] = {
    "astype": (FLOATS, {"encode_dtype": "<f4", "decode_dtype": "<f8"}, "AsType"),
    "quantize": (FLOATS, {"digits": 2, "dtype": "<f8"}, "Quantize"),
    "bitround": (FLOATS, {"keepbits": 5}, "BitRound"),
    "packbits": (RNG.random((20, 12)) < 0.5, {}, "PackBits"),
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_both_ways(tmp_path: Path, name: str, zarr_format: int) -> None:
    values, configuration, class_name = CASES[name]
    common: dict[str, Any] = {"shape": values.shape, "chunks": (7, 5), "dtype": values.dtype}
    common |= {"zarr_format": zarr_format, "compressors": None}
    if zarr_format == 2:
        theirs = getattr(numcodecs, class_name)(**configuration)
        ours = {"id": name, **configuration}
    else:
        from zarr.codecs import numcodecs as wrapped

        theirs = getattr(wrapped, class_name)(**configuration)
        ours = {"name": f"numcodecs.{name}", "configuration": configuration}
    written = zarr.create_array(tmp_path / "theirs", filters=[theirs], **common)
    written[:] = values
    expected = np.asarray(written[:])
    got = np.asarray(zarr_gpu.open_array(tmp_path / "theirs", device="cpu")[...])
    assert got.tobytes() == expected.tobytes()
    made = zarr_gpu.create_array(tmp_path / "ours", filters=[ours], device="cpu", **common)
    made[...] = values
    assert np.asarray(made[...]).tobytes() == expected.tobytes()
    assert np.asarray(zarr.open_array(tmp_path / "ours")[:]).tobytes() == expected.tobytes()
