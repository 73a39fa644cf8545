"""The registry of kernels: what it offers, what it imports, what compiles without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from zarr_gpu.kernels import registry, rules

pytest.importorskip("numba", reason="Numba is not installed: pip install 'zarr-gpu[sim]'")

TARGETS = ("sm_75", "sm_80", "sm_90", "sm_100")


def test_names_are_kernels() -> None:
    assert len(set(registry.names())) == len(registry.names()) > 20
    for name in registry.names():
        kernel = registry.get(name)
        assert kernel is registry.get(name)
        assert kernel.name == kernel.body.__name__ == name
        assert (kernel.body.__doc__ or "").strip()
        assert name in repr(kernel)
    with pytest.raises(KeyError):
        registry.get("nothing")


@pytest.mark.parametrize("name", registry.names())
def test_signatures_fit_the_arguments(name: str) -> None:
    kernel = registry.get(name)
    codes = kernel.argument_types()
    assert len(kernel.signatures) == len(codes) == len(set(codes)) > 0
    for types, signature in zip(codes, kernel.signatures, strict=True):
        assert len(types) == len(kernel.arguments) == len(signature.args)
        for argument, code in zip(kernel.arguments, types, strict=True):
            if argument == "status":
                assert code == "i4[]"
            if argument == "tpr":
                assert code == "i8"


def test_the_cuda_form_keeps_its_cache_beside_the_body() -> None:
    kernel = registry.get("lz4_decode")
    entry = kernel.entry()
    assert entry.__code__.co_filename == kernel.body.__code__.co_filename
    assert entry.__module__ == kernel.body.__module__
    assert entry.__code__.co_varnames[: entry.__code__.co_argcount] == kernel.arguments
    assert kernel.cuda is kernel.cuda


def _inner(values: np.ndarray, at: int) -> int:
    return _innermost(values, at) + 1


def _innermost(values: np.ndarray, at: int) -> int:
    return values[at]


def outer(values: np.ndarray, at: int) -> int:
    return _inner(values, at)


def test_indices_of_helpers_are_checked() -> None:
    import numba

    compiled = numba.njit(registry.bound(outer, numba.njit(boundscheck=True)))
    values = np.arange(3)
    assert compiled(values, 2) == 3
    for at in (3, -(2**31)):
        with pytest.raises(IndexError):
            compiled(values, at)
    assert outer(values, 0) == 1  # the function itself is as it was


def test_numba_is_imported_late() -> None:
    code = (
        "import sys; from zarr_gpu.kernels import registry, rules; registry.names();"
        "assert not {'numba', 'llvmlite', 'cupy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_rule_for_what_the_kernels_do_not_cover() -> None:
    half, single, double = (np.dtype(t) for t in ("f2", "f4", "f8"))
    truth, small, wide = np.dtype(bool), np.dtype("i1"), np.dtype("u8")
    assert rules.cast(half, single) is None
    assert rules.cast(truth, small) is None
    assert rules.delta_decode(half, half) is None
    assert rules.delta_decode(wide, small) is None  # NumPy adds these in float64
    assert rules.delta_decode(small, single) is None
    assert rules.delta_encode(single, small) is None
    assert rules.scale_encode(small, small, 2, 1) is None  # integers all the way, wrapping around
    assert rules.scale_encode(small, single, 1000, 200) is None  # NumPy refuses 200 as int8
    assert rules.scale_decode(double, small, 0, 0) is None
    assert rules.scale_decode(half, half, 2.0, 0.0) is None
    assert rules.scale_decode(double, small, 10**400, 0) is None


def compile_kernels(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[1] / "benchmarks" / "gpu" / "compile_kernels.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_ptx_without_a_gpu(tmp_path: Path) -> None:
    """One kernel for all targets; the script beside the benchmarks does all kernels."""
    target = tmp_path / "kernels.json"
    done = compile_kernels("--only", "lz4_decode", "--json", str(target))
    if done.returncode == 3:
        pytest.skip(f"platform: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    table = json.loads(target.read_text())["kernels"]
    assert [row["target"] for row in table] == list(TARGETS)
    for row in table:
        assert row["kernel"] == "lz4_decode"
        assert row["ptx_bytes"] > 1000


def test_results_cover_all_kernels() -> None:
    """The published table is that of the kernels there are; none of them spills registers."""
    results = Path(__file__).parents[1] / "benchmarks" / "results" / "kernels.json"
    table = json.loads(results.read_text())["kernels"]
    found = {(row["kernel"], row["target"]) for row in table}
    assert found == {(name, target) for name in registry.names() for target in TARGETS}
    for row in table:
        assert row["spill_stores"] == row["spill_loads"] == 0, row
