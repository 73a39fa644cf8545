"""Random configurations and selections: the batch device against the CPU and against NumPy.

The configurations are those of the exchange with other implementations (``interop_configs``), of
types that a device can hold.  Each is written twice, on the CPU and on the device, in the same
steps; each of the two is read on both, whole and by random selections.

Environment:

``TEST_DEVICE_CASES``  number of configurations; unless set 40 (8 in the simulator), and 500 with
                       ``HYPOTHESIS_PROFILE=full``
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import pytest
from device_suite import BATCHED, FEW, require, same_bits, small_jobs
from index_strategies import orthogonal_items
from interop_configs import Case, make_case
from step_suite import examples

import zarr_gpu
from zarr_gpu.array import Array
from zarr_gpu.devices import get_device
from zarr_gpu.storage.memory import MemoryStore

COUNT = int(os.environ.get("TEST_DEVICE_CASES") or (8 if FEW else examples(40, 500)))
SELECTIONS = 6


@cache
def numbers() -> list[int]:
    """The first configurations of types that a device can hold."""
    found: list[int] = []
    number = 0
    while len(found) < COUNT:
        if make_case(number).kind.is_number:
            found.append(number)
        number += 1
    return found


def written(case: Case, device: str) -> Array:
    store = MemoryStore()
    array = zarr_gpu.create_array(store, device=device, **case.arguments)
    for step in case.steps:
        if step.shape != array.shape:
            array.resize(step.shape)
        if step.box is not None:
            array[step.box] = step.values
    return array


def random_slice(rng: np.random.Generator, n: int) -> slice:
    step = int(rng.choice([1, 1, 1, 2, 3, -1, -2]))
    a, b = sorted(rng.integers(0, n + 1, 2).tolist())
    if step > 0:
        return slice(a, b, step)
    return slice(b - 1 if b else -n - 1, a - 1 if a else None, step)


def selections(rng: np.random.Generator, shape: tuple[int, ...]) -> list[tuple[str, Any]]:
    """(index mode, selection) of every kind, in corners and across chunks."""
    found: list[tuple[str, Any]] = [("basic", Ellipsis)]
    for number in range(SELECTIONS - 1):
        mode = ("basic", "orthogonal", "coordinate", "mask", "basic")[number % 5]
        if mode == "mask":
            found.append((mode, rng.random(shape) < rng.choice([0.1, 0.5, 0.9])))
            continue
        items: list[Any] = []
        together = int(rng.integers(1, 7))
        for n in shape:
            if mode != "basic" and n and rng.random() < 0.6:
                count = together if mode == "coordinate" else int(rng.integers(0, n + 3))
                items.append(rng.integers(-n, n, count))
            elif n and rng.random() < 0.3:
                items.append(int(rng.integers(-n, n)))
            else:
                items.append(random_slice(rng, n))
        found.append((mode, tuple(items)))
    return found


def chosen(values: np.ndarray, mode: str, selection: Any) -> np.ndarray:
    return orthogonal_items(values, selection) if mode == "orthogonal" else values[selection]


@pytest.mark.parametrize("name", BATCHED)
def test_random_configurations(name: str) -> None:
    require(name)
    by_host = 0
    for number in numbers():
        case = make_case(number)
        expected = case.expected().astype(case.kind.numpy)
        rng = np.random.default_rng([number, 77])
        with small_jobs(int(rng.choice([1, 200, 1 << 20]))):
            one, other = written(case, "cpu"), written(case, name)
            assert set(one.store.list_prefix("")) == set(other.store.list_prefix("")), str(case)
            by_host += other.worker is get_device("cpu")
            for mode, selection in selections(rng, case.shape):
                wanted = chosen(expected, mode, selection)
                for array in (one, other):
                    for device in ("cpu", name):
                        got = getattr(array.to(device), f"get_{mode}_selection")(selection)
                        what = f"{case} {mode} {selection} on {device}"
                        assert same_bits(got, wanted), what
    assert by_host < COUNT / 4  # else this is no test of the device
