"""Arguments of creation become the documents that zarr-python writes for them."""

from __future__ import annotations

import json
import math
import random
import warnings

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zarr_gpu
from zarr_gpu.chunking import choose_chunks, choose_shards, fit_chunks, guess_chunks, parse_nbytes
from zarr_gpu.codecs.blosc import BloscCodec
from zarr_gpu.codecs.bytes import BytesCodec
from zarr_gpu.codecs.gzip import GzipCodec
from zarr_gpu.codecs.transpose import TransposeCodec
from zarr_gpu.codecs.zstd import ZstdCodec
from zarr_gpu.creation import resolve_dtype
from zarr_gpu.errors import MetadataError, UnknownCodecError, ZarrUserWarning

DOCUMENTS = {"zarr.json", ".zarray", ".zgroup", ".zattrs"}
THING = object()  # that means nothing to anyone


@pytest.fixture(scope="module")
def zarr():
    return pytest.importorskip("zarr")


def documents(data):
    return {
        key: json.loads(bytes(value) if isinstance(value, bytes) else value.to_bytes())
        for key, value in data.items()
        if key.rpartition("/")[2] in DOCUMENTS
    }


def by_us(**arguments):
    data = {}
    zarr_gpu.create_array(data, **arguments)
    return documents(data)


def by_zarr(zarr, **arguments):
    data = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of v3 types that are not in the specification
        zarr.create_array(zarr.storage.MemoryStore(data), **arguments)
    return documents(data)


V3 = {
    "plain": {"shape": (1000, 1000), "dtype": "f4"},
    "int shape": {"shape": 10, "dtype": "i2"},
    "bytes": {"shape": (10,), "dtype": "u1", "dimension_names": ["x"], "attributes": {"a": 1}},
    "bool": {"shape": (10,), "dtype": bool, "fill_value": True},
    "complex": {"shape": (3,), "dtype": "c8", "fill_value": 1 + 2j},
    "nan": {"shape": (3,), "dtype": "f8", "fill_value": math.nan},
    "inf": {"shape": (3,), "dtype": "f2", "fill_value": -math.inf},
    "big": {"shape": (10, 10), "dtype": ">f4"},
    "scalar": {"shape": (), "dtype": "i4"},
    "nothing": {"shape": (0, 5), "dtype": "i4"},
    "no fill": {"shape": (3,), "dtype": "i4", "fill_value": None},
    "chunks larger than the array": {"shape": (10, 10), "dtype": "f4", "chunks": (30, 30)},
    "unnamed axis": {"shape": (2, 3), "dtype": "f4", "dimension_names": [None, "x"]},
    "shards": {"shape": (1000, 1000), "dtype": "f4", "chunks": (10, 10), "shards": (100, 100)},
    "shards at the start": {
        "shape": (100, 100),
        "dtype": "f4",
        "chunks": (10, 10),
        "shards": {"shape": (50, 50), "index_location": "start"},
    },
    "shards auto": {"shape": (1000, 1000), "dtype": "f4", "chunks": (10, 10), "shards": "auto"},
    "shards, chunks auto": {"shape": (1000, 1000), "dtype": "f4", "shards": (500, 500)},
    "shards of a large array": {"shape": (10**6, 10**5), "dtype": "f8", "shards": "auto"},
    "order F": {"shape": (10, 10), "dtype": "f4", "order": "F"},
    "key v2": {
        "shape": (10,),
        "dtype": "i4",
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "key default": {
        "shape": (10,),
        "dtype": "i4",
        "chunk_key_encoding": {"name": "default", "separator": "."},
    },
    "string": {"shape": (10, 10), "dtype": str},
    "string filled": {"shape": (10, 10), "dtype": "string", "fill_value": "ä"},
    "text": {"shape": (10,), "dtype": "U5"},
    "fixed bytes": {"shape": (10,), "dtype": "S5"},
    "bytes of any length": {"shape": (10,), "dtype": "bytes"},
    "datetime": {"shape": (10,), "dtype": "M8[10s]"},
    "timedelta": {"shape": (10,), "dtype": "m8[ns]", "fill_value": 3},
    "raw": {"shape": (10,), "dtype": "V6"},
    "no compressor": {"shape": (10,), "dtype": "i4", "compressors": None},
    "no compressors": {"shape": (10,), "dtype": "i4", "compressors": ()},
    "compressor dict": {
        "shape": (10,),
        "dtype": "i4",
        "compressors": {"name": "gzip", "configuration": {"level": 3}},
    },
    "two compressors": {
        "shape": (10,),
        "dtype": "i4",
        "compressors": [
            {"name": "zstd", "configuration": {"level": 3, "checksum": True}},
            {"name": "crc32c"},
        ],
    },
    "transpose": {
        "shape": (10, 12),
        "dtype": "i4",
        "filters": [{"name": "transpose", "configuration": {"order": [1, 0]}}],
    },
    "big endian": {
        "shape": (10,),
        "dtype": "i4",
        "serializer": {"name": "bytes", "configuration": {"endian": "big"}},
    },
    "one object per axis": {"shape": (6, 7, 8), "dtype": "u2", "chunks": (1, 7, 8)},
}

V2 = {
    "plain": {"shape": (10, 10), "dtype": "f4"},
    "order F": {
        "shape": (10, 10),
        "dtype": ">f4",
        "order": "F",
        "attributes": {"a": 1},
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "no compressor": {"shape": (10,), "dtype": "f4", "compressors": None},
    "no fill": {"shape": (10,), "dtype": "f4", "fill_value": None},
    "string": {"shape": (10,), "dtype": str},
    "text": {"shape": (10,), "dtype": "<U5"},
    "fixed bytes": {"shape": (10,), "dtype": "S5"},
    "raw": {"shape": (10,), "dtype": "V5"},
    "datetime": {"shape": (10,), "dtype": "M8[ns]"},
    "struct": {"shape": (10,), "dtype": [("a", "<i4"), ("b", ">f8")]},
    "filters": {
        "shape": (10,),
        "dtype": "f4",
        "filters": [numcodecs.Delta("f4")],
        "compressors": numcodecs.Blosc(),
    },
    "compressor dict": {"shape": (10,), "dtype": "f4", "compressors": {"id": "zlib", "level": 3}},
    "complex": {"shape": (3,), "dtype": "<c16", "fill_value": complex(math.nan, 1)},
    "scalar": {"shape": (), "dtype": "i4"},
}


@pytest.mark.parametrize("case", V3)
def test_v3_documents_are_those_of_zarr_python(zarr, case):
    assert json.dumps(by_us(**V3[case])) == json.dumps(by_zarr(zarr, **V3[case]))


@pytest.mark.parametrize("case", V2)
def test_v2_documents_are_those_of_zarr_python(zarr, case):
    arguments = {**V2[case], "zarr_format": 2}
    assert by_us(**arguments) == by_zarr(zarr, **arguments)


@pytest.mark.parametrize("case", V3)
def test_zarr_python_opens_what_we_create(zarr, case):
    data = {}
    z = zarr_gpu.create_array(data, **V3[case])
    copy = {key: zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(value)
            for key, value in data.items()}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = zarr.open_array(zarr.storage.MemoryStore(copy), mode="r")
    assert theirs.shape == z.shape
    assert theirs.chunks == z.chunks
    assert theirs.shards == z.shards
    assert np.array_equal(theirs.fill_value, z.fill_value, equal_nan=z.dtype.kind in "fc") or (
        z.dtype.kind == "M"
    )


def test_struct_v3_keeps_its_byte_order():
    document = by_us(shape=3, dtype=[("a", "i4"), ("b", "f8")])["zarr.json"]
    assert document["codecs"][0] == {"name": "bytes", "configuration": {"endian": "little"}}


# ------------------------------------------------------------------------------------- codecs


def codecs_of(**arguments):
    document = by_us(shape=(10, 10), **{"dtype": "i4", **arguments})["zarr.json"]
    return document["codecs"]


ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (GzipCodec(level=2), [{"name": "gzip", "configuration": {"level": 2}}]),
        ([ZstdCodec()], [ZSTD]),
        ("gzip", [{"name": "gzip", "configuration": {"level": 5}}]),
        ({"id": "zlib", "level": 2}, [{"name": "numcodecs.zlib", "configuration": {"level": 2}}]),
        (numcodecs.GZip(level=3), [{"name": "gzip", "configuration": {"level": 3}}]),
        (numcodecs.GZip(level=-1), [{"name": "numcodecs.gzip", "configuration": {"level": -1}}]),
        (
            numcodecs.Zstd(level=4),
            [{"name": "zstd", "configuration": {"level": 4, "checksum": False}}],
        ),
        (numcodecs.CRC32C(), [{"name": "crc32c"}]),
        (
            numcodecs.Blosc(cname="zlib", shuffle=2),
            [
                {
                    "name": "blosc",
                    "configuration": {
                        "typesize": 4,
                        "cname": "zlib",
                        "clevel": 5,
                        "shuffle": "bitshuffle",
                        "blocksize": 0,
                    },
                }
            ],
        ),
        ([], []),
        (None, []),
    ],
)
def test_compressors_in_any_words(given, stored):
    assert codecs_of(compressors=given) == [BYTES, *stored]


@pytest.mark.parametrize("shuffle", [-1, 0, 1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i4", "f8"])
def test_blosc_of_numcodecs_shuffles_as_it_said(shuffle, dtype):
    (_, blosc) = codecs_of(dtype=dtype, compressors=numcodecs.Blosc(shuffle=shuffle))
    size = np.dtype(dtype).itemsize
    automatic = "bitshuffle" if size == 1 else "shuffle"
    expected = {-1: automatic, 0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}[shuffle]
    assert blosc["configuration"]["shuffle"] == expected
    assert blosc["configuration"]["typesize"] == size


def test_blosc_is_told_the_element_size_also_in_shards(zarr):
    for arguments in (
        {"compressors": zarr.codecs.BloscCodec()},
        {"compressors": zarr.codecs.BloscCodec(), "chunks": (5, 5), "shards": (10, 10)},
    ):
        for dtype in ("u1", "i2", "f8"):
            common = {"shape": (10, 10), "dtype": dtype, **arguments}
            assert by_us(**common) == by_zarr(zarr, **common)
    ours = codecs_of(compressors=BloscCodec(), dtype="f8")[1]
    assert ours["configuration"]["typesize"] == 8


def test_codec_objects_of_zarr_python(zarr):
    c = zarr.codecs
    for arguments in (
        {"filters": c.TransposeCodec(order=(1, 0)), "compressors": c.GzipCodec(level=1)},
        {"serializer": c.BytesCodec(endian="big"), "compressors": [c.ZstdCodec(level=3)]},
        {"serializer": c.ShardingCodec(chunk_shape=(5, 5)), "chunks": (10, 10)},
        {"compressors": c.Crc32cCodec()},
    ):
        common = {"shape": (10, 10), "dtype": "i4", **arguments}
        assert by_us(**common) == by_zarr(zarr, **common)


def test_codecs_of_v3_serve_as_those_of_v2():
    array = by_us(
        shape=3,
        dtype="i4",
        zarr_format=2,
        compressors=GzipCodec(level=4),
        filters=[{"name": "numcodecs.delta", "configuration": {"dtype": "<i4"}}],
    )[".zarray"]
    assert array["compressor"] == {"id": "gzip", "level": 4}
    assert array["filters"] == [{"id": "delta", "dtype": "<i4", "astype": "<i4"}]


@pytest.mark.parametrize(
    "arguments",
    [
        {"compressors": THING},
        {"compressors": 3},
        {"compressors": "nothing-of-this-name"},
        {"compressors": {"name": "gzip", "configuration": {"level": 11}}},
        {"compressors": {"name": "gzip", "configuration": 3}},
        {"compressors": {"name": "gzip", "extra": 3}},
        {"compressors": {}},
        {"compressors": {"id": 3}},
        {"compressors": {"id": "pickle"}},
        {"compressors": BytesCodec()},
        {"compressors": TransposeCodec(order=(0, 1))},
        {"filters": ZstdCodec()},
        {"filters": BytesCodec()},
        {"filters": TransposeCodec(order=(0, 1, 2))},
        {"serializer": ZstdCodec()},
        {"serializer": {"name": "vlen-utf8"}},
        {"dtype": str, "serializer": BytesCodec()},
        {"shards": (10, 10), "chunks": (3, 3)},
        {"shards": (10,), "chunks": (5, 5)},
        {"shards": "some", "chunks": (5, 5)},
        {"shards": {"index_location": "end"}, "chunks": (5, 5)},
        {"shards": {"shape": (10, 10), "what": 1}, "chunks": (5, 5)},
        {"shards": {"shape": (10, 10), "index_location": "middle"}, "chunks": (5, 5)},
        {"shards": {"shape": (10, 10), "index_codecs": [ZstdCodec()]}, "chunks": (5, 5)},
        {"chunks": (0, 5)},
        {"chunks": (-2, 5)},
        {"chunks": (5,)},
        {"chunks": (5, 5, 5)},
        {"chunks": (5.0, 5)},
        {"chunks": (True, 5)},
        {"chunks": "many"},
        {"chunks": "0MB"},
        {"chunks": THING},
        {"chunks": 2**70},
        {"chunks": (2**40, 2**40)},
        {"shape": (-1,)},
        {"shape": (1.5,)},
        {"shape": (True,)},
        {"shape": "10"},
        {"shape": (2**63,)},
        {"shape": [[1]]},
        {"shape": (1,) * 65},
        {"dtype": "no such type"},
        {"dtype": object},
        {"dtype": "M8[parsec]"},
        {"fill_value": "x"},
        {"fill_value": 2**40},
        {"fill_value": [1, 2]},
        {"order": "K"},
        {"order": 1},
        {"zarr_format": 4},
        {"zarr_format": "3"},
        {"attributes": {"a": THING}},
        {"attributes": [1]},
        {"chunk_key_encoding": "v1"},
        {"chunk_key_encoding": ("v2", "-")},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": 3}}},
        {"chunk_key_encoding": {"name": "v2", "extra": 3}},
        {"chunk_key_encoding": 3},
        {"dimension_names": ["x"]},
        {"dimension_names": [1, 2]},
        {"config": {"ordr": "C"}},
        {"config": 3},
        {"data": np.zeros((3, 3))},
        {"shape": None},
        {"dtype": None},
        {"zarr_format": 2, "shards": (10, 10)},
        {"zarr_format": 2, "dimension_names": ["x", "y"]},
        {"zarr_format": 2, "serializer": BytesCodec()},
        {"zarr_format": 2, "chunk_key_encoding": "default"},
        {"zarr_format": 2, "compressors": [ZstdCodec(), GzipCodec()]},
        {"zarr_format": 2, "compressors": TransposeCodec(order=(1, 0))},
        {"zarr_format": 2, "compressors": {"id": "zlib", "level": 99}},
        {"zarr_format": 2, "filters": [{"id": "delta", "dtype": "O"}]},
    ],
    ids=lambda arguments: str(arguments).replace(str(THING), "thing")[:60],
)
def test_invalid_arguments_write_nothing(arguments):
    data = {}
    with pytest.raises(MetadataError):
        zarr_gpu.create_array(data, **{"shape": (10, 10), "dtype": "i4", **arguments})
    assert data == {}


def test_unknown_codecs_are_named():
    with pytest.raises(UnknownCodecError, match="squash"):
        zarr_gpu.create_array({}, shape=3, dtype="u1", compressors={"name": "squash"})


# ------------------------------------------------------------------------------------- chunks


def test_chunks_are_guessed_as_zarr_python_does(zarr):
    def by_zarr(shape, size, **arguments):
        arguments = {"shape": shape, "dtype": f"S{size}", "compressors": None, **arguments}
        return zarr.create_array({}, **arguments)

    rng = random.Random(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shards are guessed by way of trial
        for _ in range(100):
            shape = tuple(int(10 ** rng.uniform(0, 6)) for _ in range(rng.randint(1, 5)))
            size = rng.choice([1, 2, 4, 8, 16, 100])
            assert choose_chunks("auto", shape, size) == by_zarr(shape, size).chunks
            theirs = by_zarr(shape, size, shards="auto")
            inner = choose_chunks("auto", shape, size, sharded=True)
            assert (inner, choose_shards("auto", shape, inner)) == (theirs.chunks, theirs.shards)
            chunks = tuple(rng.randint(1, length) for length in shape)
            theirs = by_zarr(shape, size, chunks=chunks, shards="auto")
            assert choose_shards("auto", shape, chunks) == theirs.shards


@given(st.lists(st.integers(0, 2**63 - 1), max_size=5).map(tuple), st.integers(1, 64))
def test_guesses_fit_any_array(shape, size):
    chunks = guess_chunks(shape, size)
    assert len(chunks) == len(shape)
    assert all(1 <= edge <= max(length, 1) for edge, length in zip(chunks, shape, strict=True))
    assert math.prod(chunks) * size <= 64 << 20


@given(
    st.lists(st.integers(0, 2**40), max_size=5).map(tuple),
    st.integers(1, 64),
    st.integers(1, 10**9),
)
def test_chunks_of_a_size_fit_and_fill_it(shape, size, limit):
    chunks = fit_chunks(shape, size, limit)
    whole = tuple(max(length, 1) for length in shape)
    assert all(1 <= edge <= length for edge, length in zip(chunks, whole, strict=True))
    nbytes = math.prod(chunks) * size
    assert nbytes <= limit or math.prod(chunks) == 1
    for axis, length in enumerate(whole):  # no axis could be longer
        if chunks[axis] < length:
            longer = nbytes // chunks[axis] * (chunks[axis] + 1)
            assert longer > limit


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("100MB", 100_000_000),
        ("64 MiB", 64 << 20),
        ("1.5e6", 1_500_000),
        ("10", 10),
        ("1k", 1000),
        ("3 gib", 3 << 30),
        ("512B", 512),
    ],
)
def test_sizes(text, nbytes):
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1XB", "1e400", "nan", "1 i", "9" * 50])
def test_texts_that_are_no_size(text):
    with pytest.raises(MetadataError):
        parse_nbytes(text)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ("auto", (100, 100)),
        (None, (100, 100)),
        (True, (100, 100)),
        (False, (100, 100)),
        (7, (7, 7)),
        ((7, -1), (7, 100)),
        ((None, 7), (100, 7)),
        (np.int64(7), (7, 7)),
        (np.array([7, 8]), (7, 8)),
        ("1kB", (11, 11)),
        ("80B", (3, 3)),
        ((200, 1), (200, 1)),
    ],
)
def test_chunks_in_any_words(chunks, expected):
    assert choose_chunks(chunks, (100, 100), 8) == expected


def test_whole_shards_are_whole_chunks():
    assert choose_shards(-1, (10, 8, 0), (4, 4, 4)) == (12, 8, 4)
    assert choose_shards((4, None, -1), (10, 8, 3), (2, 3, 5)) == (4, 9, 5)
    with pytest.raises(MetadataError, match="axis 1"):
        choose_shards((12, 10), (10, 10), (4, 4))
    with pytest.raises(MetadataError):  # rounded up, it is no length
        zarr_gpu.create_array({}, shape=2**63 - 1, dtype="u1", chunks=2**40, shards=-1)


def test_create_cuts_only_the_axes_that_are_named():
    assert zarr_gpu.create((10, 12), chunks=(5,)).chunks == (5, 12)
    assert zarr_gpu.create((10, 12), chunks=False).chunks == (10, 12)
    assert zarr_gpu.create((10, 0), chunks=False).chunks == (10, 1)


# ------------------------------------------------------------------------------------- types


def test_objects_are_text_or_bytes():
    assert resolve_dtype(object, ["a", "b"]).vlen == "utf8"
    assert resolve_dtype(None, np.array([b"a", b""], object)).vlen == "bytes"
    assert resolve_dtype("O", None, numcodecs.VLenUTF8()).vlen == "utf8"
    assert resolve_dtype(np.dtype("O"), None, [numcodecs.VLenBytes()]).vlen == "bytes"
    for data in ([], ["a", 1], [None], [b"a", "b"]):
        with pytest.raises(MetadataError):
            resolve_dtype(object, np.array(data, object))


def test_object_codec_and_filters_say_what_objects_are():
    for older in ({"object_codec": numcodecs.VLenUTF8()}, {"filters": [numcodecs.VLenUTF8()]}):
        z = zarr_gpu.create((2,), dtype=object, zarr_format=2, **older)
        z[:] = ["a", "bc"]
        assert list(z[:]) == ["a", "bc"]
        assert z.metadata.document["filters"] == [{"id": "vlen-utf8"}]


# ------------------------------------------------------------------------------------- create


def created(**arguments):
    data = {}
    zarr_gpu.create(store=data, **arguments)
    return documents(data)


OLDER = [
    {"shape": (10, 10)},
    {"shape": (10, 10), "zarr_format": 2},
    {
        "shape": (10, 10),
        "zarr_format": 2,
        "compressor": None,
        "chunks": 5,
        "order": "F",
        "dimension_separator": "/",
    },
    {"shape": (10, 10), "zarr_format": 2, "compressor": numcodecs.Zlib(level=2)},
    {"shape": (10, 10), "zarr_format": 2, "filters": [numcodecs.Delta("f8")], "fill_value": None},
    {"shape": (10, 10), "chunk_shape": (5, 5), "dtype": "u1"},
    {
        "shape": (10, 10),
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "gzip", "configuration": {"level": 5}},
        ],
    },
    {"shape": (10, 10), "chunks": (5, -1)},
    {"shape": 10, "chunk_key_encoding": ("v2", "."), "dimension_names": ["x"]},
    {"shape": 10, "attributes": {"a": 1}, "path": "a/b"},
    {"shape": 10, "path": "a", "zarr_format": 2},
]


@pytest.mark.parametrize("arguments", OLDER, ids=str)
def test_create_writes_what_zarr_python_writes(zarr, arguments):
    data = {}
    zarr.create(store=zarr.storage.MemoryStore(data), **arguments)
    theirs = documents(data)
    if arguments.get("zarr_format") == 2 and "path" in arguments:
        # 3.1 leaves the groups above without .zgroup where the path is one name only
        theirs.setdefault(".zgroup", {"zarr_format": 2})
        theirs.setdefault(".zattrs", {})
    assert created(**arguments) == theirs


def test_older_words_work_for_v3_too():
    data = created(shape=10, compressor={"id": "zlib", "level": 1}, dimension_separator=".")
    document = data["zarr.json"]
    assert [codec["name"] for codec in document["codecs"]] == ["bytes", "numcodecs.zlib"]
    assert document["chunk_key_encoding"]["configuration"] == {"separator": "."}


def test_arguments_without_effect_warn():
    for name in ("synchronizer", "cache_attrs", "cache_metadata", "chunk_store", "meta_array"):
        with pytest.warns(ZarrUserWarning, match=name):
            zarr_gpu.create(3, **{name: 1})
    zarr_gpu.create(3, synchronizer=None)


def test_contradictions_and_unknown_arguments():
    for arguments in (
        {"chunks": 2, "chunk_shape": 3},
        {"compressor": None, "compressors": "gzip"},
        {"dimension_separator": ".", "chunk_key_encoding": "v2"},
        {"codecs": ["bytes"], "compressor": None},
        {"codecs": ["gzip"]},
        {"zarr_format": 2, "codecs": ["bytes"]},
    ):
        data = {}
        with pytest.raises(MetadataError):
            zarr_gpu.create(4, store=data, dtype="u1", **arguments)
        assert data == {}
    with pytest.raises(TypeError, match="foo"):
        zarr_gpu.create(3, foo=1)


def test_write_empty_chunks():
    data = {}
    zarr_gpu.create(4, chunks=2, store=data, write_empty_chunks=True)[:] = 0
    assert {"c/0", "c/1"} <= set(data)
    data = {}
    zarr_gpu.create(4, chunks=2, store=data)[:] = 0
    assert "c/0" not in data


def test_order_is_a_matter_of_run_time_in_v3():
    z = zarr_gpu.create_array({}, shape=(3, 4), dtype="i4", order="F")
    assert z.order == "F"
    assert z[:].flags.f_contiguous
    z = zarr_gpu.create_array({}, shape=(3, 4), dtype="i4", zarr_format=2, order="F")
    assert z.metadata.document["order"] == "F"
    with zarr_gpu.config.set({"array.order": "F"}):
        z = zarr_gpu.create_array({}, shape=(3, 4), dtype="i4", zarr_format=2)
    assert z.metadata.document["order"] == "F"


def test_the_configured_format():
    with zarr_gpu.config.set({"default_zarr_format": 2}):
        assert zarr_gpu.create(3).zarr_format == 2
        assert zarr_gpu.create_group({}).zarr_format == 2
        assert zarr_gpu.create_array({}, shape=3, dtype="u1").zarr_format == 3
        assert zarr_gpu.create_array({}, shape=3, dtype="u1", zarr_format=None).zarr_format == 2


def test_json_indent():
    with zarr_gpu.config.set({"json_indent": None}):
        data = {}
        zarr_gpu.create(3, store=data)
    assert b"\n" not in data["zarr.json"]
