"""Data types of both versions and of users, and their fill values."""

from __future__ import annotations

import math
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zarr_gpu import dtypes
from zarr_gpu.dtypes import (
    DType,
    cast_fill,
    decode_fill,
    default_fill,
    encode_fill,
    from_user,
    parse_v2,
    parse_v3,
    to_v2,
    to_v3,
)
from zarr_gpu.errors import MetadataError, UnknownDataTypeError

NUMBERS = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip
V2 = [
    "|b1", "|i1", "<i2", ">i4", "<i8", "|u1", ">u2", "<u4", ">u8", "<f2", ">f4", "<f8", "<c8",
    ">c16", "|S1", "|S7", "<U1", ">U13", "|V3", "<M8[ns]", ">M8[25us]", "<m8[D]", "<M8",
]  # fmt: skip
CONFIGURED = [
    {"name": "fixed_length_utf32", "configuration": {"length_bytes": 12}},
    {"name": "null_terminated_bytes", "configuration": {"length_bytes": 3}},
    {"name": "raw_bytes", "configuration": {"length_bytes": 5}},
    {"name": "numpy.datetime64", "configuration": {"unit": "ns", "scale_factor": 10}},
    {"name": "numpy.timedelta64", "configuration": {"unit": "generic", "scale_factor": 1}},
    {
        "name": "struct",
        "configuration": {
            "fields": [
                {"name": "a", "data_type": "float32"},
                {
                    "name": "p",
                    "data_type": {
                        "name": "struct",
                        "configuration": {"fields": [{"name": "x", "data_type": "int16"}]},
                    },
                },
            ]
        },
    },
    {
        "name": "structured",
        "configuration": {
            "fields": [
                ["a", "int32"],
                ["b", {"name": "null_terminated_bytes", "configuration": {"length_bytes": 3}}],
            ]
        },
    },
]
PLAIN = [*NUMBERS, "r8", "r72", "string", "bytes", "variable_length_bytes", "binary"]
ML = [
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


# ------------------------------------------------------------------------------------------- v2


@pytest.mark.parametrize("name", V2)
def test_v2_names_mean_what_numpy_means(name):
    dtype = parse_v2(name)
    assert dtype.numpy == np.dtype(name)
    assert dtype.numpy.str == np.dtype(name).str
    assert to_v2(dtype) == name
    assert parse_v3(to_v3(dtype)) == dtype.native()


@pytest.mark.parametrize(
    "descr",
    [
        [["a", "<i4"], ["b", ">f8"]],
        [["r", "|u1"], ["z", "<f4", [2, 2]]],
        [["n", [["x", "|S3"], ["m", [["y", ">U2"], ["t", "<M8[s]"]]]]], ["v", "|V2"]],
        [["ä", "|b1"]],
    ],
)
def test_v2_structs(descr):
    dtype = parse_v2(descr)

    def numpy_of(items):
        return [
            (i[0], numpy_of(i[1]) if isinstance(i[1], list) else i[1], *map(tuple, i[2:]))
            for i in items
        ]

    assert dtype.numpy == np.dtype(numpy_of(descr))
    assert to_v2(dtype) == descr
    assert dtype.kind == "struct"


def test_v2_padding_without_a_name_gets_the_name_of_numpy():
    descr = [["a", "|i1"], ["", "|V3"], ["b", "<i4"]]
    assert parse_v2(descr).numpy == np.dtype([("a", "i1"), ("f1", "V3"), ("b", "<i4")])


def test_v2_objects_need_a_known_object_codec():
    assert parse_v2("|O", "vlen-utf8").numpy == np.dtypes.StringDType()
    assert parse_v2("|O", "vlen-bytes").numpy == np.dtype(object)
    for codec in (None, "pickle", "json2", "vlen-array"):
        with pytest.raises(UnknownDataTypeError, match="object"):
            parse_v2("|O", codec)


@pytest.mark.parametrize(
    "json",
    [
        "<f3",
        "<f16",
        "<c32",
        "<i3",
        "|b2",
        "f4",
        "int32",
        "<q8",
        "|O8",
        "<O",
        "",
        "|S",
        "<U",
        "|S0",
        "<U0",
        "|V0",
        "|i2",
        "|f4",
        "|U4",
        "<M4[ns]",
        "<M8[xx]",
        "<M8[0s]",
        "<M8[",
        "<M8[2147483648s]",
        "<f4[ns]",
        "|U1000000000",
        "<U1000000000",
        "|S9999999999",
        "|V999999999",
        "<f4\n",
        [["a", "\ud800"]],
        "=i4",
        None,
        4,
        1.5,
        True,
        {},
        {"name": "<f4"},
        [],
        [[]],
        [["a"]],
        [["a", "<f4", [0]]],
        [["a", "<f4", [-1]]],
        [["a", "<f4", [True]]],
        [["a", "<f4", "2"]],
        [["a", "<f4", [2], 1]],
        [[["t", "a"], "<f4"]],
        ["<f4"],
        [["a", "<f4"], ["a", "<i4"]],
        [["a", "|O"]],
        [["a", None]],
        [["a", []]],
        [["a", "<f8", [2**40]]],
        [["a", "|u1", [1] * 40]],
        [["a", "|V60000000"], ["b", "|V60000000"]],
    ],
)
def test_v2_refuses(json):
    with pytest.raises(MetadataError):
        parse_v2(json)


def test_refusing_a_giant_type_allocates_nothing():
    import tracemalloc

    tracemalloc.start()
    for json in ("<U1000000000", "<U500000000", "|S2000000000", "|V2000000000"):
        try:
            default_fill(parse_v2(json))
            decode_fill(parse_v2(json), None, 2)
        except MetadataError:
            pass
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_struct_of_many_fields():
    descr = [[f"f{i}", "<i2"] for i in range(10_000)]
    assert parse_v2(descr).itemsize == 20_000


def test_struct_nesting_is_limited():
    deep = "<i2"
    for _ in range(5000):
        deep = [["a", deep]]
    with pytest.raises(MetadataError, match="deeper"):
        parse_v2(deep)
    deep = "int16"
    for _ in range(5000):
        deep = {"name": "struct", "configuration": {"fields": [["a", deep]]}}
    with pytest.raises(MetadataError, match="deeper"):
        parse_v3(deep)
    with pytest.raises(MetadataError):
        from_user(deep)


# ------------------------------------------------------------------------------------------- v3


@pytest.mark.parametrize("name", PLAIN)
def test_v3_names(name):
    dtype = parse_v3(name)
    assert to_v3(dtype) == name
    assert parse_v3({"name": name}) == dtype
    assert parse_v3({"name": name, "configuration": {}}) == dtype
    assert parse_v3({"name": name, "must_understand": True}) == dtype
    if name in NUMBERS:
        assert dtype.numpy == np.dtype(name)
        assert dtype.numpy.isnative
    with pytest.raises(MetadataError, match="configuration"):
        parse_v3({"name": name, "configuration": {"a": 1}})


@pytest.mark.parametrize("json", CONFIGURED, ids=lambda j: j["name"])
def test_v3_configured_types(json):
    dtype = parse_v3(json)
    assert to_v3(dtype) == json
    assert dtype.name == json["name"]


@pytest.mark.parametrize("name", ML)
def test_ml_dtypes(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = parse_v3(name)
    assert dtype.numpy == np.dtype(getattr(ml_dtypes, name))
    assert to_v3(dtype) == name
    assert from_user(dtype.numpy) == from_user(name) == dtype
    assert dtype.kind == "float"
    scalar = cast_fill(dtype, 2.0)
    assert scalar == 2
    assert encode_fill(dtype, scalar, 3) == 2.0
    assert decode_fill(dtype, 2.0, 3) == scalar
    bits = "0x" + f"{int(scalar.view(f'u{dtype.itemsize}')):0{2 * dtype.itemsize}x}"
    assert decode_fill(dtype, bits, 3) == scalar
    assert isinstance(encode_fill(dtype, default_fill(dtype), 3), float)
    with pytest.raises(MetadataError):
        to_v2(dtype)


def test_ml_dtypes_refuse_what_they_cannot_hold():
    pytest.importorskip("ml_dtypes")
    with pytest.raises(MetadataError):
        decode_fill(parse_v3("float8_e4m3fn"), "Infinity", 3)
    with pytest.raises(MetadataError):
        decode_fill(parse_v3("float8_e4m3"), 1e9, 3)
    assert math.isnan(float(decode_fill(parse_v3("bfloat16"), "NaN", 3)))


def test_importing_does_not_import_ml_dtypes():
    import subprocess

    code = (
        "import sys, zarr_gpu.metadata.v3, zarr_gpu.metadata.v2; print('ml_dtypes' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_microseconds_have_three_spellings():
    units = ["us", "μs", "µs"]
    config = [
        {"name": "numpy.datetime64", "configuration": {"unit": u, "scale_factor": 1}} for u in units
    ]
    assert len({parse_v3(c).numpy for c in config}) == 1


@pytest.mark.parametrize(
    "json",
    [
        "float128", "int4", "r0", "r7", "r08", "r", "r-8", "r99999999999", "Float32", "", "<f4",
        None, 1, [], {}, {"name": 1}, {"name": None}, {"name": "int8", "configuration": None},
        {"name": "int8", "configuration": []}, {"name": "int8", "must_understand": False},
        {"name": "int8", "must_understand": 1}, {"name": "int8", "extra": 1}, "struct",
        "numpy.datetime64", "raw_bytes", "\ud800",
        *({"name": n, "configuration": c} for n in
          ("fixed_length_utf32", "null_terminated_bytes", "raw_bytes")
          for c in ({}, {"length_bytes": 0}, {"length_bytes": -4}, {"length_bytes": "4"},
                    {"length_bytes": True}, {"length_bytes": 4.0}, {"length_bytes": 4, "x": 1},
                    {"length_bytes": 2**70})),
        {"name": "fixed_length_utf32", "configuration": {"length_bytes": 6}},
        *({"name": "numpy.datetime64", "configuration": c} for c in
          ({"unit": "s"}, {"scale_factor": 1}, {"unit": "x", "scale_factor": 1},
           {"unit": "s", "scale_factor": 0}, {"unit": "s", "scale_factor": -1},
           {"unit": "s", "scale_factor": 2**31}, {"unit": "s", "scale_factor": True},
           {"unit": [], "scale_factor": 1}, {"unit": "generic", "scale_factor": 2})),
        *({"name": "struct", "configuration": {"fields": f}} for f in
          (None, [], {}, "ab", [1], [{}], [{"name": "a"}], [{"name": "", "data_type": "int8"}],
           [{"name": 1, "data_type": "int8"}], [["a", "string"]], [["a", "bytes"]], [["a"]],
           [["a", "int8"], ["a", "int8"]], [["a", "int8", 1]], [["a", "nope"]],
           [{"name": "a", "data_type": "int8", "x": 1}])),
    ],
)  # fmt: skip
def test_v3_refuses(json):
    with pytest.raises(MetadataError):
        parse_v3(json)


def test_sub_arrays_cannot_be_written_as_v3():
    with pytest.raises(MetadataError, match="sub-array"):
        to_v3(parse_v2([["a", "<f4", [2]]]))


# ---------------------------------------------------------------------------------------- users


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (float, "float64"),
        (int, "int64"),
        (bool, "bool"),
        (complex, "complex128"),
        ("f4", "float32"),
        (">f4", "float32"),
        (np.int8, "int8"),
        (np.dtype("u2"), "uint16"),
        ("M8[s]", "numpy.datetime64"),
        ("m8[ms]", "numpy.timedelta64"),
        ("S5", "null_terminated_bytes"),
        ("U5", "fixed_length_utf32"),
        ("V5", "raw_bytes"),
        ("r40", "r40"),
        (str, "string"),
        ("str", "string"),
        ("string", "string"),
        (np.dtypes.StringDType(), "string"),
        (bytes, "variable_length_bytes"),
        ("bytes", "bytes"),
        ("variable_length_bytes", "variable_length_bytes"),
        ([("a", "i4"), ("b", "S2")], "struct"),
        ([["a", "<i4"], ["b", [["c", "|u1"]]]], "struct"),
        ("i4,f8", "struct"),
        ({"name": "raw_bytes", "configuration": {"length_bytes": 3}}, "raw_bytes"),
        (parse_v3("int8"), "int8"),
    ],
)
def test_from_user(value, name):
    dtype = from_user(value)
    assert dtype.name == name
    assert parse_v3(to_v3(dtype)) == dtype.native()


def test_from_user_keeps_byte_order_and_packs_aligned_structs():
    assert from_user(">i4").numpy == np.dtype(">i4")
    aligned = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    assert from_user(aligned).numpy == np.dtype([("a", "i1"), ("b", "f8")])
    assert from_user(np.dtype([("a", ">f4", (2, 3))])).fields[0].shape == (2, 3)


@pytest.mark.parametrize(
    "value",
    [None, object, "O", "S", "U", "V", np.dtype("S0"), "nope", 3, np.longdouble, [], [("a",)], {},
     [("a", object)], [("a", str)], np.dtype(("f4", (2,))), b"\xff", [["a", ["b"]]], {"name": "x"}],
)  # fmt: skip
def test_from_user_refuses(value):
    with pytest.raises(MetadataError):
        from_user(value)


# ----------------------------------------------------------------------------------- fill values


def fill(name, json, zarr_format=3):
    return decode_fill(parse_v3(name), json, zarr_format)


def bits(value):
    return np.asarray(value).tobytes()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_float_fill_words(zarr_format):
    for name in ("float16", "float32", "float64"):
        assert np.isnan(fill(name, "NaN", zarr_format))
        assert not np.signbit(fill(name, "NaN", zarr_format))
        assert fill(name, "Infinity", zarr_format) == np.inf
        assert fill(name, "-Infinity", zarr_format) == -np.inf
        assert np.signbit(fill(name, -0.0, zarr_format))
        assert np.isnan(fill(name, math.nan, zarr_format))
        for word in ("NaN", "Infinity", "-Infinity", -0.0, 1.5):
            back = encode_fill(parse_v3(name), fill(name, word, zarr_format), zarr_format)
            assert repr(back) == repr(word)


@pytest.mark.parametrize(
    ("name", "digits"),
    [("float16", "7e01"), ("float16", "fe00"), ("float32", "7fc00001"), ("float32", "ffc00000"),
     ("float32", "7f800001"), ("float64", "7ff0000000000001"), ("float64", "fff8dead00000000")],
)  # fmt: skip
def test_nan_payloads_survive(name, digits):
    value = fill(name, "0x" + digits)
    assert bits(value)[::-1].hex() == digits
    assert encode_fill(parse_v3(name), value, 3) == "0x" + digits


def test_hex_is_a_bit_pattern():
    assert fill("float32", "0x3F800000") == 1
    assert encode_fill(parse_v3("float32"), fill("float32", "0x7fc00000"), 3) == "NaN"
    for bad in ("0x3f80000", "0x03f800000", "0x", "3f800000", "0xzz800000", "0x3f800000 "):
        with pytest.raises(MetadataError):
            fill("float32", bad)


def test_complex_fill():
    value = fill("complex64", ["-Infinity", "0x7fc00001"])
    assert bits(value) == struct.pack("<fI", -math.inf, 0x7FC00001)
    assert encode_fill(parse_v3("complex64"), value, 3) == ["-Infinity", "0x7fc00001"]
    assert encode_fill(parse_v3("complex128"), complex(-0.0, 1), 3) == [-0.0, 1.0]
    assert decode_fill(parse_v2(">c8"), 1.5, 2) == 1.5
    big = decode_fill(parse_v2(">c8"), [1.0, 2.0], 2)
    assert big == 1 + 2j


def test_integer_fill():
    assert fill("uint64", 2**64 - 1) == 2**64 - 1
    assert fill("int8", 3.0) == 3
    assert type(fill("int16", 5)) is np.int16
    assert encode_fill(parse_v3("uint64"), np.uint64(2**64 - 1), 3) == 2**64 - 1


def test_bool_fill():
    assert fill("bool", True) is np.True_
    assert fill("bool", 0) is np.False_
    assert encode_fill(parse_v3("bool"), 1, 3) is True


def test_time_fill():
    dtype = parse_v3(
        {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 10}}
    )
    assert np.isnat(decode_fill(dtype, "NaT", 3))
    assert np.isnat(decode_fill(dtype, -(2**63), 3))
    assert decode_fill(dtype, 6, 3) == np.datetime64("1970-01-01T00:01:00")
    assert np.isnat(default_fill(dtype))
    assert encode_fill(dtype, default_fill(dtype), 3) == -(2**63)
    assert encode_fill(dtype, "1970-01-01T00:01:00", 2) == 6
    assert encode_fill(dtype, np.datetime64("1970-01-01T00:01:00"), 2) == 6
    with pytest.raises(MetadataError):
        encode_fill(dtype, np.datetime64("1970-01-01T00:01:05"), 2)
    assert decode_fill(parse_v2(">m8[D]"), 3, 2) == np.timedelta64(3, "D")


def test_raw_fill():
    assert fill("r24", [1, 2, 255]).tobytes() == b"\1\2\xff"
    assert encode_fill(parse_v3("r24"), b"\1\2\xff", 3) == [1, 2, 255]
    raw = {"name": "raw_bytes", "configuration": {"length_bytes": 3}}
    assert fill(raw, "AQL/").tobytes() == b"\1\2\xff"
    assert encode_fill(parse_v3(raw), np.void(b"\1\2\xff"), 3) == "AQL/"
    assert decode_fill(parse_v2("|V3"), "AQL/", 2).tobytes() == b"\1\2\xff"
    assert encode_fill(parse_v3("r24"), 0, 3) == [0, 0, 0]


def test_bytes_fill():
    for name in ("bytes", "variable_length_bytes", "binary"):
        assert fill(name, "YWI=") == fill(name, [97, 98]) == b"ab"
        assert encode_fill(parse_v3(name), b"ab", 3) == "YWI="
    assert decode_fill(parse_v2("|S4"), "YWIA", 2) == b"ab"
    assert decode_fill(parse_v2("|S4"), 0, 2) == b""
    assert isinstance(decode_fill(parse_v2("|S4"), 0, 2), np.bytes_)
    assert encode_fill(parse_v2("|S4"), "ab", 2) == "YWI="


def test_text_fill():
    text = {"name": "fixed_length_utf32", "configuration": {"length_bytes": 8}}
    assert fill(text, "äö") == "äö"
    assert isinstance(fill(text, ""), np.str_)
    assert decode_fill(parse_v2("<U2"), 0, 2) == ""
    assert decode_fill(parse_v2("|O", "vlen-utf8"), 0, 2) == ""
    assert fill("string", "\U0001f600") == "\U0001f600"


def test_struct_fill():
    dtype = parse_v3(CONFIGURED[5])
    json = {"a": "NaN", "p": {"x": -3}}
    value = decode_fill(dtype, json, 3)
    assert np.isnan(value["a"])
    assert value["p"]["x"] == -3
    assert encode_fill(dtype, value, 3) == json
    packed = decode_fill(dtype, "AACAPwMA", 3)
    assert (packed["a"], packed["p"]["x"]) == (1, 3)
    legacy = parse_v3(CONFIGURED[6])
    assert encode_fill(legacy, (1, b"ab"), 3) == "AQAAAGFiAA=="
    big = parse_v2([["a", ">i2"], ["z", "|u1", [2]]])
    value = decode_fill(big, "AAEHCA==", 2)
    assert value["a"] == 1
    assert value["z"].tolist() == [7, 8]
    assert encode_fill(big, value, 2) == "AAEHCA=="
    assert encode_fill(big, (1, [7, 8]), 2) == "AAEHCA=="
    assert encode_fill(big, {"a": 1, "z": [7, 8]}, 2) == "AAEHCA=="
    assert encode_fill(big, 0, 2) == encode_fill(big, b"\0\0\0\0", 2) == "AAAAAA=="


def test_null_is_a_v2_fill_only():
    for dtype in (parse_v2("<f4"), parse_v2("|O", "vlen-utf8"), parse_v2([["a", "|u1"]])):
        assert decode_fill(dtype, None, 2) is None
        assert encode_fill(dtype, None, 2) is None
        with pytest.raises(MetadataError):
            decode_fill(dtype, None, 3)
        with pytest.raises(MetadataError):
            encode_fill(dtype, None, 3)


JUNK = [
    None,
    "x",
    "0x",
    [],
    {},
    [1],
    [[]],
    {"a": 1},
    "\ud800",
    "!!",
    [256],
    [-1],
    [True, True],
    1.5,
]


@pytest.mark.parametrize(
    ("json", "values"),
    [
        ("bool", [2, 1.0, "true", "NaN"]),
        ("int8", [128, -129, True, "1", "NaN", math.inf, math.nan]),
        ("uint8", [-1, 256, 10**30]),
        ("uint64", [2**64, -1]),
        ("int64", [2**63, 1e19]),
        ("float16", [1e6, "1", True, "nan", "inf", "-NaN"]),
        ("float32", [1e39, 10**400]),
        ("float64", [10**400, "0x7fc00000"]),
        ("complex64", [0, [0], [0, 0, 0], [0, None], [1e39, 0]]),
        ("r16", [[1], [1, 2, 3], "AQ==", 0]),
        ("bytes", [0, "a"]),
        ("string", [0, b"", 1]),
        (CONFIGURED[0], ["abcd", 0, ["a"]]),
        (CONFIGURED[1], ["YWJjZA==", 0, "abc"]),
        (CONFIGURED[2], ["AQ==", [1], 0]),
        (CONFIGURED[3], ["nat", 2**63, 1.5, True, -(2**63) - 1]),
        (CONFIGURED[5], [0, "AAAA", {"a": 1}, {"a": 1, "p": 2}, {"a": 1, "p": {"x": 1}, "q": 1}]),
    ],
    ids=str,
)
def test_fill_that_does_not_fit(json, values):
    dtype = parse_v3(json)
    for value in values:
        with pytest.raises(MetadataError):
            decode_fill(dtype, value, 3)
    for value in JUNK:
        try:
            decode_fill(dtype, value, 3)
        except MetadataError:
            continue


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("u1", 256),
        ("u1", -1),
        ("u1", 1.5),
        ("u1", "1"),
        ("u1", object()),
        ("f4", "x"),
        ("f4", [1]),
        ("bool", 2),
        ("bool", "yes"),
        ("S2", "abc"),
        ("S2", "ä"),
        ("U2", "abc"),
        ("U2", 5),
        ("V2", b"a"),
        ("M8[s]", 1.5),
        ("M8[s]", "yesterday"),
        ("M8[s]", None),
        ("m8[s]", np.datetime64(1, "s")),
        (str, 5),
        (bytes, 5),
        ([("a", "i4")], (1, 2)),
        ([("a", "i4")], ("x",)),
        ([("a", "i4")], {"b": 1}),
        ("c8", "x"),
        ("u1", np.zeros(3)),
        ("f4", np.zeros((2, 2))),
    ],
)
def test_cast_refuses(dtype, value):
    with pytest.raises(MetadataError):
        cast_fill(from_user(dtype), value)


def test_cast_takes_what_users_write():
    assert cast_fill(from_user("u1"), True) == 1
    assert cast_fill(from_user("u1"), np.float32(3)) == 3
    assert cast_fill(from_user("f4"), "-Infinity") == -np.inf
    assert cast_fill(from_user("f4"), np.array(2)) == 2
    assert cast_fill(from_user("c8"), (1, 2)) == 1 + 2j
    assert cast_fill(from_user("S3"), "ab") == b"ab"
    assert cast_fill(from_user("U3"), b"ab") == "ab"
    assert cast_fill(from_user(str), 0) == ""
    assert cast_fill(from_user(bytes), 0) == b""
    assert cast_fill(from_user(bytes), bytearray(b"x")) == b"x"
    assert cast_fill(from_user("V2"), [1, 2]).tobytes() == b"\1\2"
    record = np.array((1, 2.5), [("a", "i4"), ("b", "f8")])[()]
    assert cast_fill(from_user(record.dtype), record) == record


EVERY = [parse_v3(j) for j in [*PLAIN, *CONFIGURED]]


@pytest.mark.parametrize("dtype", EVERY, ids=str)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_default_fill_round_trips(dtype, zarr_format):
    value = default_fill(dtype)
    json = encode_fill(dtype, value, zarr_format)
    assert bits(decode_fill(dtype, json, zarr_format)) == bits(value)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([d for d in EVERY if d.vlen is None]), st.data())
def test_any_bit_pattern_round_trips(dtype, data):
    if dtype.kind in ("bool", "text", "fixed_bytes") or dtype.fields:
        raw = bytes(dtype.itemsize)
    else:
        raw = data.draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
    value = np.frombuffer(raw, dtype.numpy)[0]
    json = encode_fill(dtype, value, 3)
    back = decode_fill(dtype, json, 3)
    assert bits(np.asarray(back, dtype.numpy)) == raw
    assert encode_fill(dtype, back, 3) == json


def test_dtype_is_a_value():
    import pickle

    for dtype in EVERY:
        assert pickle.loads(pickle.dumps(dtype)) == dtype
        assert {dtype: 1}[dtype] == 1
    assert isinstance(from_user("f4"), DType)
    assert from_user(">f4") != from_user("<f4")
    assert from_user(">f4").native() == from_user("<f4").native()


def test_multibyte_says_whether_there_is_a_byte_order():
    single = ["bool", "int8", "uint8", "r64", CONFIGURED[1], CONFIGURED[2]]
    assert not any(parse_v3(j).multibyte for j in single)
    many = ["int16", "complex64", CONFIGURED[0], CONFIGURED[3], CONFIGURED[5], CONFIGURED[6]]
    assert all(parse_v3(j).multibyte for j in many)


def test_show_survives_anything():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert len(dtypes.show(deep)) < 200
    assert len(dtypes.show("x" * 10**6)) < 200
    assert len(dtypes.show(10**5000)) < 200
    while deep:
        deep = deep.pop()
