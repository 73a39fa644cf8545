"""Damaged and hostile documents: only ZarrError may come out.

Thousands of mutants of good documents, at the level of values and of bytes; ten times as many under
the Hypothesis profile ``full``.  A failure shows the document that caused it.
"""

from __future__ import annotations

import copy
import json
import random
import time

import numpy as np
import pytest
from hypothesis import settings

from zarr_gpu.dtypes import encode_fill, from_user
from zarr_gpu.errors import ZarrError
from zarr_gpu.metadata import ArrayMetadata, NamedConfig, v2, v3
from zarr_gpu.metadata.consolidated import read_zmetadata, write_zmetadata
from zarr_gpu.metadata.documents import loads

ROUNDS = 10 if settings().max_examples >= 2000 else 1
TYPES = [
    "bool", "u1", ">i4", "f2", "<f8", "c8", "S3", "U4", "V5", "M8[ns]", "m8[25s]", str, bytes,
    [("a", ">i4"), ("n", [("x", "S2"), ("y", "f4")])],
]  # fmt: skip
HOSTILE = [
    None, True, False, 0, 1, -1, 2, 3, 2**31, 2**62, 2**63, 2**64, 2**70, 10**400, 0.5, 3.0, -0.0,
    1e308, float("inf"), float("nan"), "", "0", "/", ".", "..", "C", "F", "NaN", "0xff", "AAAA",
    "=", "\0", "\ud800", "x" * 5000, "bytes", "v2", "default", "pickle", "|O", "|V8",
    "<U1000000000", "|S2147483647", "r16", "r0", "struct", "string", "float32", "<f4", "<M8[s]",
    [], [[]], [None], [0], [1, 2], ["a"], [True], [-1], [2**63], [1] * 70, ["a", "<f4"],
    [["a", "<f4"]], [["a", "<f4", [2**40]]], {}, {"": None}, {"name": "x"}, {"name": []},
    {"id": "zlib"}, {"id": 1}, {"must_understand": False}, {"kind": "inline"},
    {"name": "regular", "configuration": {"chunk_shape": [1]}},
    {"name": "raw_bytes", "configuration": {}},
]  # fmt: skip


def corpus():
    for dtype in map(from_user, TYPES):
        array = v2.build_array(
            shape=(4, 5),
            chunks=(2, 2),
            dtype=dtype,
            fill_value=None if dtype.vlen else encode_default(dtype),
            order="F",
            filters=[{"id": "shuffle", "elementsize": 4}],
            compressor={"id": "zlib", "level": 1},
        )
        yield array.to_dict()
        array = v3.build_array(
            shape=(4, 5),
            chunk_shape=(2, 2),
            dtype=dtype,
            codecs=[NamedConfig("bytes", {"endian": "little"}), NamedConfig("crc32c")],
            attributes={"a": {"b": [1, "x"]}},
            dimension_names=["x", None],
        )
        yield array.to_dict()
    yield {"zarr_format": 2}
    group = v3.build_group({"a": 1}, {"x": {"zarr.json": array.to_dict()}})
    yield group.to_dict()
    zarray = v2.build_array(shape=2, chunks=2, dtype=from_user("i4")).to_dict()
    yield json.loads(write_zmetadata({"": {".zattrs": {"a": 1}}, "b/c": {".zarray": zarray}}))


def encode_default(dtype):
    return np.zeros((), dtype.numpy)[()]


CORPUS = list(corpus())


def places(value, path=()):
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in items:
        yield from places(child, (*path, key))


def mutate(rng, document):
    """Change, remove, move or add a value somewhere."""
    path = rng.choice(list(places(document)))
    if not path:
        return rng.choice(HOSTILE) if rng.random() < 0.1 else document
    *parents, last = path
    owner = document
    for step in parents:
        owner = owner[step]
    match rng.randrange(6):
        case 0:
            del owner[last]
        case 1 if isinstance(owner, dict):
            owner[rng.choice(["name", "id", "x", "", "shape", "must_understand"])] = owner.pop(last)
        case 2:
            owner[last] = [owner[last]] if rng.random() < 0.5 else {"name": owner[last]}
        case 3 if isinstance(owner, list):
            owner.insert(rng.randrange(len(owner) + 1), copy.deepcopy(rng.choice(HOSTILE)))
        case _:
            owner[last] = copy.deepcopy(rng.choice(HOSTILE))
    return document


def use(document):
    """All that opening and rewriting do; True where the document was accepted."""
    if not isinstance(document, dict):
        for parse in (v2.parse_array, v2.parse_group, v3.parse, read_zmetadata):
            with pytest.raises(ZarrError):
                parse(document, key="k")
        return False
    if "zarr_consolidated_format" in document:
        documents = read_zmetadata(document, key="k")
        write_zmetadata(documents)
        for node in documents.values():
            if ".zarray" in node:
                v2.parse_array(node[".zarray"], node.get(".zattrs"), key="k")
        return True
    if "node_type" in document or document.get("zarr_format") == 3:
        node = v3.parse(document, key="k")
    elif "shape" in document:
        node = v2.parse_array(document, key="k")
    else:
        node = v2.parse_group(document, key="k")
    documents = node.to_documents()
    name = {2: ".zarray", 3: "zarr.json"}[node.zarr_format]
    if isinstance(node, ArrayMetadata):
        assert node.with_shape([3] * node.ndim).shape == (3,) * node.ndim
        node.key_encoding.keys(np.zeros((2, node.ndim), np.int64))
        json.dumps(encode_fill(node.dtype, node.fill_value, node.zarr_format))
        assert loads(documents[name], key="k").keys() == document.keys()
    node.with_attributes({})
    return True


def attempt(document, shown):
    start = time.process_time()
    try:
        return use(document)
    except ZarrError as error:
        str(error)
        return False
    except Exception as error:
        error.add_note(f"document: {shown}")
        raise
    finally:
        assert time.process_time() - start < 1, shown


@pytest.mark.parametrize("seed", range(8))
def test_values_replaced(seed):
    rng = random.Random(seed)
    accepted = 0
    for _ in range(400 * ROUNDS):
        document = copy.deepcopy(rng.choice(CORPUS))
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            if isinstance(document, dict):
                document = mutate(rng, document)
        accepted += attempt(document, f"seed {seed}: {document!r}")
    assert 0 < accepted < 400 * ROUNDS  # mutants are neither all harmless nor all hopeless


def damage(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randrange(1, 30)]
            case _:
                data[at:at] = rng.choice([b"[", b"{", b'"', b"0", b"-", b"e9", b"\\ud800", b"null"])
        if not data:
            return b""
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_damaged(seed):
    rng = random.Random(seed)
    for _ in range(400 * ROUNDS):
        data = damage(rng, json.dumps(rng.choice(CORPUS)).encode())
        try:
            document = loads(data, key="k")
        except ZarrError:
            continue
        attempt(document, f"seed {seed}: {data!r}")


@pytest.mark.parametrize("document", CORPUS, ids=range(len(CORPUS)))
def test_every_field_by_every_hostile_value(document):
    for path in places(document):
        if not path:
            continue
        for value in HOSTILE:
            mutant = copy.deepcopy(document)
            owner = mutant
            for step in path[:-1]:
                owner = owner[step]
            owner[path[-1]] = copy.deepcopy(value)
            attempt(mutant, f"{mutant!r}")


def test_good_documents_are_accepted():
    for document in CORPUS:
        assert use(copy.deepcopy(document))
