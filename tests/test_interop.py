"""Exchange with zarr-python, zarrs and TensorStore: what one writes the other reads, bit by bit.

Cases are random configurations (``interop_configs``) that are written in several steps: boxes on
and off the chunk grid, overwrites, appended and grown axes, chunks of nothing but fill value.

Environment:

``ZARR_GPU_INTEROP``       number of cases, 60 unless set; 500 for a release
``ZARR_GPU_INTEROP_SEED``  other cases than those of every run
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from interop_configs import Case, make_case
from interop_peers import DOCUMENTS, MAKERS, Peer, refusal
from interop_values import canonical

import zarr_gpu

COUNT = int(os.environ.get("ZARR_GPU_INTEROP", "60"))

# What the peers warn of is their business: names that are not in the specification and the like.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@cache
def case_of(number: int) -> Case:
    return make_case(number)


@cache
def peer_of(name: str) -> Peer:
    return MAKERS[name]()


def exchanges(*, writing: bool) -> list[Any]:
    """Every (peer, case) that the peer takes part in."""
    return [
        pytest.param(peer, number, id=f"{peer}-{number}")
        for peer in MAKERS
        for number in range(COUNT)
        if refusal(peer, case_of(number), writing=writing) is None
    ]


def write(path: Path, case: Case) -> zarr_gpu.Array:
    array = zarr_gpu.create_array(path, **case.arguments)
    for step in case.steps:
        if step.shape != array.shape:
            array.resize(step.shape)
        if step.box is not None:
            array[step.box] = step.values
    return array


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``written(number)``: the folder where the case was written by this package, once."""
    folder = tmp_path_factory.mktemp("written")

    @cache
    def path_of(number: int) -> Path:
        path = folder / str(number)
        write(path, case_of(number))
        return path

    return path_of


def meaning(document: Any) -> Any:
    """A document without what may be left out: empty configurations, defaults that are spelled."""
    if isinstance(document, list):
        return [meaning(item) for item in document]
    if not isinstance(document, dict):
        return document
    result = {key: meaning(value) for key, value in document.items()}
    for key, default in (("configuration", {}), ("storage_transformers", [])):
        if key in result and result[key] == default:
            del result[key]
    match result.get("name"):
        case "numcodecs.zstd":
            result["configuration"].setdefault("checksum", False)
        case "numcodecs.blosc":  # the size of the elements, and what follows from it
            for key in ("typesize", "shuffle"):
                result["configuration"].pop(key, None)
    return result


@pytest.mark.parametrize("number", range(COUNT))
def test_written_as_specified_and_read_back(number: int, written: Any) -> None:
    case, path = case_of(number), written(number)
    document = json.loads((path / DOCUMENTS[case.zarr_format]).read_text())
    assert meaning(document) == meaning({**case.document, "shape": list(case.shape)})
    array = zarr_gpu.open_array(path, mode="r")
    assert array.dtype == case.numpy
    assert dict(array.attrs) == case.attributes
    assert canonical(array[...], case.kind) == canonical(case.expected(), case.kind), str(case)


@pytest.mark.parametrize(("peer", "number"), exchanges(writing=False))
def test_peer_reads_what_we_write(peer: str, number: int, written: Any) -> None:
    case = case_of(number)
    values = peer_of(peer).read(written(number), case)
    assert canonical(values, case.kind) == canonical(case.expected(), case.kind), str(case)
    assert peer_of(peer).attributes(written(number), case) == case.attributes


@pytest.mark.parametrize(("peer", "number"), exchanges(writing=True))
def test_we_read_what_peer_writes(peer: str, number: int, tmp_path: Path) -> None:
    case, path = case_of(number), tmp_path / "array"
    peer_of(peer).write(path, case)
    array = zarr_gpu.open_array(path, mode="r")
    assert (array.shape, array.dtype) == (case.shape, case.numpy)
    assert canonical(array[...], case.kind) == canonical(case.expected(), case.kind), str(case)
    if peer != "tensorstore" or case.zarr_format == 3:  # it leaves .zattrs alone
        assert dict(array.attrs) == case.attributes


@pytest.mark.parametrize("peer", ["zarr-python", "tensorstore"])
def test_we_go_on_where_peer_stopped(peer: str, tmp_path: Path) -> None:
    """Steps taken by turns: partial writes to chunks and shards that another one stored."""
    taken = 0
    for number in range(COUNT):
        case = case_of(number)
        if len(case.steps) < 2 or refusal(peer, case, writing=True) is not None:
            continue
        taken += 1
        path = tmp_path / str(number)
        first = replace(case, steps=case.steps[:1], shape=case.steps[0].shape)
        peer_of(peer).write(path, first)
        array = zarr_gpu.open_array(path, mode="r+", config={"write_empty_chunks": False})
        for step in case.steps[1:]:
            if step.shape != array.shape:
                array.resize(step.shape)
            if step.box is not None:
                array[step.box] = step.values
        expected = canonical(case.expected(), case.kind)
        assert canonical(array[...], case.kind) == expected, str(case)
        if refusal(peer, case, writing=False) is None:
            assert canonical(peer_of(peer).read(path, case), case.kind) == expected, str(case)
    assert taken >= COUNT // 12


@pytest.mark.parametrize("writing", [False, True], ids=["reads", "writes"])
@pytest.mark.parametrize(
    ("peer", "share"), [("zarr-python", 0.85), ("zarrs", 0.35), ("tensorstore", 0.35)]
)
def test_refusals_do_not_swallow_the_cases(peer: str, share: float, writing: bool) -> None:
    taken = [n for n in range(COUNT) if refusal(peer, case_of(n), writing=writing) is None]
    assert len(taken) >= share * COUNT


def test_cases_hold_what_they_are_for() -> None:
    """Every feature occurs in the cases of a full run."""
    cases = [case_of(number) for number in range(500)]
    sharded = [case for case in cases if case.levels]
    found = {
        "both formats": {case.zarr_format for case in cases} == {2, 3},
        "0-d to 4-d": {len(case.shape) for case in cases} == {0, 1, 2, 3, 4},
        "axes of length 0": any(0 in case.shape for case in cases),
        "nested shards": any(len(case.levels) == 2 for case in sharded),
        "index first": any(case.levels[0].index_location == "start" for case in sharded),
        "codecs behind a shard": any(case.outer_compressors for case in sharded),
        "order F": any(case.order == "F" for case in cases),
        "big-endian": {case.zarr_format for case in cases if case.big_endian} == {2, 3},
        "fill value null": any(case.fill is None for case in cases),
        "nothing written": any(not case.steps for case in cases),
        "grown": any(case.start != case.shape for case in cases),
    }
    assert [name for name, is_there in found.items() if not is_there] == []
    assert len({case.kind.name for case in cases}) >= 26
    assert len({name for case in cases for name in case.codec_names()}) >= 27


@pytest.mark.parametrize(
    ("dtype", "filters", "endian"),
    [
        ("f4", None, "little"),
        ("u1", None, None),
        ("u1", [{"id": "delta", "dtype": "|u1", "astype": "<i8"}], "little"),
        ("f4", [{"id": "fixedscaleoffset", "offset": 0, "scale": 1, "dtype": "<f4",
          "astype": "|u1"}], None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("serializer", ["auto", "bytes", {"name": "bytes"}])
def test_byte_order_is_named_where_there_is_one(
    dtype: str, filters: Any, endian: str | None, serializer: Any
) -> None:
    """It is that of what the filters leave, not that of the array."""
    array = zarr_gpu.create_array(
        {}, shape=4, chunks=2, dtype=dtype, filters=filters, serializer=serializer
    )
    codecs = {item["name"]: item for item in array.metadata.document["codecs"]}
    assert codecs["bytes"].get("configuration", {}) == ({"endian": endian} if endian else {})
    array[:] = [1, 2, 3, 4]
    assert array[:].tolist() == [1, 2, 3, 4]


def test_codecs_of_numcodecs_keep_an_empty_configuration() -> None:
    """zarr-python reads none without one."""
    codecs = ["numcodecs.fletcher32", {"name": "numcodecs.fletcher32", "configuration": {}}]
    for shards in (None, 4):
        array = zarr_gpu.create_array(
            {}, shape=4, chunks=2, dtype="u1", shards=shards, compressors=codecs
        )
        chain = array.metadata.document["codecs"]
        chain = chain[0]["configuration"]["codecs"] if shards else chain
        assert chain[1:] == [{"name": "numcodecs.fletcher32", "configuration": {}}] * 2
