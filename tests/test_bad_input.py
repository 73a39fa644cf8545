"""Documents that nobody should have written, through the functions that users call.

Whatever a document says, opening and reading end in one of our errors or in a right value.  Opening
costs memory for the document alone.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hostile import LITTLE, items_of, read_all, regular, sharding, v2_document, v3_document

import zarr_gpu
from zarr_gpu.errors import (
    ArrayNotFoundError,
    BoundsError,
    ChunkDecodeError,
    GroupNotFoundError,
    InvalidKeyError,
    MetadataError,
    NodeNotFoundError,
    UnknownCodecError,
    UnknownDataTypeError,
    UnsupportedExtensionError,
)

# ------------------------------------------------------------------------------ what is unknown


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (v3_document(codecs=[LITTLE, {"name": "brotli9"}]), "brotli9"),
        (v3_document(codecs=[LITTLE, "brotli9"]), "brotli9"),
        (v3_document(codecs=[LITTLE, {"name": "numcodecs.nothing"}]), "nothing"),
        (v3_document(codecs=[sharding([2, 2], LITTLE, {"name": "brotli9"})]), "brotli9"),
        (v3_document(codecs=[sharding([2, 2], sharding([1, 1], "brotli9"))]), "brotli9"),
        (v2_document(compressor={"id": "brotli9"}), "brotli9"),
        (v2_document(filters=[{"id": "brotli9", "level": 1}]), "brotli9"),
    ],
)
def test_unknown_codecs_are_named(document: Any, word: str) -> None:
    with pytest.raises(UnknownCodecError, match=word) as caught:
        read_all(items_of(document))
    assert isinstance(caught.value, ValueError)
    assert caught.value.key in ("zarr.json", ".zarray")


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (v3_document(data_type="int33"), "int33"),
        (v3_document(data_type={"name": "optional", "configuration": {}}), "optional"),
        (v3_document(data_type={"name": "int33"}), "int33"),
        (v2_document(dtype="<i3"), "<i3"),
        (v2_document(dtype="<x4"), "<x4"),
        (v2_document(dtype="|O", filters=[{"id": "json2"}]), "json2"),
        (v2_document(dtype="|O"), r"\|O"),
    ],
)
def test_unknown_data_types_are_named(document: Any, word: str) -> None:
    with pytest.raises(UnknownDataTypeError, match=word) as caught:
        read_all(items_of(document))
    assert isinstance(caught.value, ValueError)
    assert caught.value.key in ("zarr.json", ".zarray")


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (v3_document(chunk_grid={"name": "rectilinear", "configuration": {}}), "rectilinear"),
        (v3_document(chunk_key_encoding={"name": "hilbert"}), "hilbert"),
        (v3_document(storage_transformers=[{"name": "mirror"}]), "mirror"),
        (v3_document(compression_of_dreams={"name": "x"}), "compression_of_dreams"),
        (v3_document(compression_of_dreams={"must_understand": True}), "compression_of_dreams"),
        (v3_document(compression_of_dreams=1), "compression_of_dreams"),
    ],
)
def test_unknown_extensions_are_named(document: Any, word: str) -> None:
    with pytest.raises(UnsupportedExtensionError, match=word) as caught:
        read_all(items_of(document))
    assert isinstance(caught.value, ValueError)
    assert caught.value.key == "zarr.json"


def test_extensions_that_need_not_be_understood_are_passed_over() -> None:
    document = v3_document(
        compression_of_dreams={"must_understand": False},
        codecs=[LITTLE, {"name": "brotli9", "must_understand": False}],
        storage_transformers=[{"name": "mirror", "must_understand": False}],
        fill_value=7,
    )
    assert (read_all(items_of(document)) == 7).all()


# ---------------------------------------------------------------------------- shapes and sizes

LENGTHS: list[Any] = [
    2**63, 2**64, 2**70, 10**400, -1, -(2**63), True, False, 3.0, 1.5, "4", "", None, [4], {"a": 1},
    float("nan"), float("inf"),
]  # fmt: skip


@pytest.mark.parametrize("length", LENGTHS, ids=repr)
def test_impossible_lengths_are_refused(length: Any) -> None:
    documents = [
        v3_document(shape=[length, 6]),
        v3_document(shape=[8, length]),
        v3_document(chunk_grid=regular(length, 6)),
        v3_document(codecs=[sharding([length, 2])]),
        v2_document(shape=[length, 6]),
        v2_document(chunks=[4, length]),
    ]
    for document in documents:
        with pytest.raises(MetadataError) as caught:
            zarr_gpu.open_array(items_of(document), mode="r").layout  # noqa: B018
        assert caught.value.key in ("zarr.json", ".zarray")


@pytest.mark.parametrize(
    "shape", [None, 8, "8", "86", {"0": 8}, True, [[8, 6]], [8], [8, 6, 1], 2.0]
)
def test_shapes_that_are_no_lists_of_as_many_lengths(shape: Any) -> None:
    for document in (
        v3_document(shape=shape),
        v3_document(chunk_grid={"name": "regular", "configuration": {"chunk_shape": shape}}),
        v2_document(shape=shape),
        v2_document(chunks=shape),
    ):
        with pytest.raises(MetadataError):
            zarr_gpu.open_array(items_of(document), mode="r")


@pytest.mark.parametrize(
    "document",
    [
        v3_document(chunk_grid=regular(0, 6)),
        v3_document(chunk_grid=regular(4, 0)),
        v3_document(codecs=[sharding([0, 2])]),
        v3_document(codecs=[sharding([2, 0])]),
        v3_document(codecs=[sharding([3, 6])]),  # does not divide 4
        v3_document(codecs=[sharding([8, 6])]),
        v3_document(codecs=[sharding([4])]),
        v3_document(codecs=[sharding([2, 2], sharding([1, 0]))]),
        v2_document(chunks=[0, 6]),
        v2_document(chunks=[4, 0]),
        v3_document(shape=[1] * 65, chunk_grid=regular(*[1] * 65)),
        v3_document(shape=[2**40] * 2, chunk_grid=regular(2**32, 2**31)),  # 2**65 bytes
        v2_document(shape=[2**40] * 2, chunks=[2**31, 2**31]),
        v2_document(shape=[2**62], chunks=[2**62], dtype="<i4"),
    ],
)
def test_chunks_that_cannot_be(document: Any) -> None:
    with pytest.raises(MetadataError) as caught:
        zarr_gpu.open_array(items_of(document), mode="r").layout  # noqa: B018
    assert caught.value.key in ("zarr.json", ".zarray")


def timed_and_measured(action: Any) -> tuple[float, int]:
    """(seconds of this process, peak bytes) of an action, which is run twice."""
    start = time.process_time()
    action()
    seconds = time.process_time() - start
    tracemalloc.start()
    try:
        action()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HUGE = [
    v3_document(shape=[2**62], chunk_grid=regular(1000), data_type="uint8", fill_value=9),
    v3_document(shape=[2**63 - 1], chunk_grid=regular(1), data_type="uint8", fill_value=9),
    v3_document(shape=[2**62] * 4, chunk_grid=regular(7, 7, 7, 7), fill_value=9),
    v3_document(
        shape=[2**62, 2**62], chunk_grid=regular(2**20, 4), codecs=[sharding([1024, 4])],
        fill_value=9,
    ),
    v2_document(shape=[2**62], chunks=[1000], fill_value=9),
]  # fmt: skip


@pytest.mark.parametrize("document", HUGE)
def test_huge_arrays_open_at_once_and_read_their_ends(document: Any) -> None:
    items = items_of(document)
    ndim = len(document["shape"])

    def use() -> None:
        array = zarr_gpu.open_array(items, mode="r")
        assert array.shape == tuple(document["shape"])
        assert array.size == int(np.prod(document["shape"], dtype=object))
        assert array.nchunks > 2**50
        assert str(array.info)
        for index in ((0,) * ndim, (-1,) * ndim, tuple(n // 3 for n in array.shape)):
            assert array[index] == 9
        last = array[tuple(slice(n - 2, None) for n in array.shape[:1])] if ndim == 1 else None
        assert last is None or last.tolist() == [9, 9]

    use()  # what is imported and compiled once is not what is measured
    seconds, peak = timed_and_measured(use)
    assert seconds < 1
    assert peak < 4 << 20


def test_huge_arrays_are_written_and_read_at_their_ends() -> None:
    for document in HUGE:
        items = items_of(document)
        array = zarr_gpu.open_array(items, mode="r+")
        index = tuple(n - 1 for n in array.shape)
        array[index] = 5
        assert array[index] == 5
        assert len(items) == 2
        assert zarr_gpu.open_array(items, mode="r")[index] == 5
        with pytest.raises(BoundsError):
            array[tuple(array.shape)]


def test_a_key_that_no_store_takes_is_an_error_and_no_fill_value() -> None:
    document = v3_document(shape=[2**63 - 1] * 64, chunk_grid=regular(*[1] * 64), fill_value=9)
    array = zarr_gpu.open_array(items_of(document), mode="r+")
    assert str(array.info)
    assert array[(0,) * 64] == 9
    with pytest.raises(InvalidKeyError, match="1024"):
        array[(-1,) * 64]
    with pytest.raises(InvalidKeyError, match="1024"):
        array[(-1,) * 64] = 1


@pytest.mark.parametrize(
    ("document", "words"),
    [
        # One chunk of 2**50 bytes, of which a few are there.
        (v3_document(shape=[2**50], chunk_grid=regular(2**50), data_type="uint8"), "c/0"),
        (v2_document(shape=[2**50], chunks=[2**50], dtype="|u1"), "0"),
        (
            v2_document(shape=[2**50], chunks=[2**50], dtype="|u1", compressor={"id": "zlib"}),
            "0",
        ),
        (v3_document(shape=[2**50], chunk_grid=regular(2**50), codecs=[LITTLE, "zstd"]), "c/0"),
        (v3_document(shape=[2**50], chunk_grid=regular(2**50), codecs=[LITTLE, "crc32c"]), "c/0"),
        (
            v3_document(
                shape=[2**50], chunk_grid=regular(2**50), data_type="string", fill_value="",
                codecs=["vlen-utf8"],
            ),
            "c/0",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compiled", [False, True])
def test_chunks_larger_than_memory_are_an_error_of_data(
    document: Any, words: str, compiled: bool
) -> None:
    if compiled:
        pytest.importorskip("numba", reason="needs Numba: pip install 'zarr-gpu[fast]'")
    with zarr_gpu.config.set({"cpu.compiled": compiled}):
        check_chunks_larger_than_memory(document, words)


def check_chunks_larger_than_memory(document: Any, words: str) -> None:
    items = items_of(document)
    array = zarr_gpu.open_array(items, mode="r")
    assert array[5] == array.fill_value
    items[words] = bytes(40)
    with pytest.raises(ChunkDecodeError) as caught:
        array[5]
    assert caught.value.key == words


@pytest.mark.parametrize(
    "document",
    [
        v2_document(dtype="<U1000000000", fill_value=""),
        v2_document(dtype="|S1000000000", fill_value=""),
        v2_document(dtype="|S1000000000", fill_value=None),
        v2_document(dtype="|V1000000000", fill_value=None),
        v2_document(dtype=[[f"f{i}", "<f8"] for i in range(10_000)], fill_value=None),
        v2_document(dtype=[["a", "<f8", [1 << 20, 1 << 20]]], fill_value=None),
        v2_document(dtype=[["a", "<f8", [-1]]], fill_value=None),
        v3_document(data_type="r99999999992", fill_value=[]),
        v3_document(data_type="r7", fill_value=[0]),
        v3_document(data_type="r0", fill_value=[]),
        v3_document(data_type="r-8", fill_value=[]),
        v3_document(
            data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": 1 << 32}},
            fill_value="",
        ),
        v3_document(
            data_type={"name": "null_terminated_bytes", "configuration": {"length_bytes": 1 << 40}},
            fill_value="",
        ),
        v3_document(
            data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": 6}},
            fill_value="",
        ),
    ],
)
def test_elements_of_absurd_size_cost_nothing_at_open(document: Any) -> None:
    items = items_of(document)

    def use() -> None:
        try:
            array = zarr_gpu.open_array(items, mode="r")
        except MetadataError as error:
            assert error.key in ("zarr.json", ".zarray")
        else:
            assert array.shape == (8, 6)
            repr(array)

    use()
    seconds, peak = timed_and_measured(use)
    assert seconds < 1
    assert peak < 32 << 20


# ------------------------------------------------------------------------------------- the JSON


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"zarr.json"',
        b"\xff\xfe{}",
        b"\x00" * 100,
        b"{}",
        b'{"zarr_format": 3}',
        b'{"zarr_format": 3, "node_type": "matrix"}',
        b'{"zarr_format": 4, "node_type": "array"}',
        b'{"zarr_format": "3", "node_type": "array"}',
        b'{"zarr_format": 3.0, "node_type": "array"}',
        b'{"zarr_format": 3, "zarr_format": 3, "node_type": "group"}',
        nested(1_000_000).encode(),
        # The layout of the drafts of 2020: the root document of a store, no node.
        b'{"zarr_format": "https://purl.org/zarr/spec/protocol/core/3.0", "extensions": []}',
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_no_document_is_refused_by_key(text: bytes) -> None:
    for name in ("zarr.json", "deep/er/zarr.json"):
        start = time.process_time()
        with pytest.raises(MetadataError) as caught:
            zarr_gpu.open({name: text}, path=name.rpartition("/")[0], mode="r")
        assert caught.value.key == name
        assert time.process_time() - start < 1
    for name in (".zarray", ".zgroup"):
        with pytest.raises(MetadataError) as caught:
            zarr_gpu.open({name: text}, mode="r")
        assert caught.value.key == name


@pytest.mark.parametrize("levels", [199, 1000, 500_000])
def test_documents_that_are_too_deep(levels: int) -> None:
    """Right in everything else; lists and objects, with strings in between that look like more."""
    lists = "[" * levels + "]" * levels
    objects = '{"a[":' * levels + "1" + "}" * levels
    for attribute in (lists, objects):
        group = '{"zarr_format": 3, "node_type": "group", "attributes": {"a": ' + attribute + "}}"
        for items in (
            {"zarr.json": group.encode()},
            {".zgroup": b'{"zarr_format": 2}', ".zattrs": f'{{"a": {attribute}}}'.encode()},
        ):
            if levels == 199 and ".zattrs" in items:  # less one level: as deep as may be
                assert zarr_gpu.open_group(items, mode="r").attrs["a"] is not None
                continue
            start = time.process_time()
            with pytest.raises(MetadataError, match="nested deeper than 200 levels") as caught:
                zarr_gpu.open_group(items, mode="r")
            assert caught.value.key in items
            assert time.process_time() - start < 1


def test_documents_that_are_too_long() -> None:
    document = json.dumps(v3_document(fill_value=3)).encode()
    assert read_all({"zarr.json": document + b" " * (1 << 20)})[0, 0] == 3
    with pytest.raises(MetadataError, match="too long") as caught:
        read_all({"zarr.json": document + b" " * (64 << 20)})
    assert caught.value.actual == len(document) + (64 << 20)


def test_odd_but_readable_json() -> None:
    text = json.dumps(v3_document(attributes={"a": "\ud800", "n": float("nan")}, fill_value=3))
    array = zarr_gpu.open_array({"zarr.json": b"\xef\xbb\xbf" + text.encode()}, mode="r")
    assert array.attrs["a"] == "\ud800"
    assert np.isnan(array.attrs["n"])
    assert (array[...] == 3).all()


def test_large_attributes_come_back() -> None:
    attributes = {"long": "x" * (10 << 20), "deep": json.loads(nested(100))}
    array = zarr_gpu.open_array(items_of(v3_document(attributes=attributes)), mode="r")
    assert array.attrs.asdict() == attributes


# ------------------------------------------------------------------------- what is not there


def test_nothing_and_the_other_kind_of_node() -> None:
    group = {"zarr.json": b'{"zarr_format": 3, "node_type": "group"}'}
    with pytest.raises(ArrayNotFoundError) as caught:
        zarr_gpu.open_array({}, mode="r")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(ArrayNotFoundError):
        zarr_gpu.open_array(group, mode="r")
    with pytest.raises(ArrayNotFoundError):
        zarr_gpu.open_array(group, path="a/b", mode="r")
    with pytest.raises(GroupNotFoundError):
        zarr_gpu.open_group({}, mode="r")
    with pytest.raises(GroupNotFoundError):
        zarr_gpu.open_group(items_of(v3_document()), mode="r")
    with pytest.raises(NodeNotFoundError):
        zarr_gpu.open({}, mode="r")
    with pytest.raises(ArrayNotFoundError):
        zarr_gpu.open_array(items_of(v2_document()), mode="r", zarr_format=3)


@pytest.mark.parametrize("dtype", ["|b1", "<i4", ">f8", "<c16", "<M8[s]", "|S3", "<U2", "|V2"])
def test_fill_value_null_reads_zeros_every_time(dtype: str) -> None:
    document = v2_document(dtype=dtype, fill_value=None, shape=[40, 60], chunks=[10, 60])
    items = items_of(document)
    array = zarr_gpu.open_array(items, mode="r+")
    expected = np.zeros((40, 60), dtype)
    if dtype == "<M8[s]":
        expected[...] = "NaT"
    for _ in range(5):
        junk = np.full(40 * 60 * np.dtype(dtype).itemsize, 0xA5, np.uint8)
        del junk  # freed memory that is likely to be handed out again
        assert np.asarray(array[...]).tobytes() == expected.tobytes()
        assert np.asarray(array[3:, ::-2]).tobytes() == expected[3:, ::-2].tobytes()
    array[0, 0] = np.frombuffer(b"1" * expected.itemsize, dtype)[0] if dtype != "<U2" else "11"
    assert array[0, 0] != expected[0, 0]
    assert np.asarray(array[0, 1:]).tobytes() == expected[0, 1:].tobytes()
    assert np.asarray(array[10:]).tobytes() == expected[10:].tobytes()
