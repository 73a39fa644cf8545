"""blosc through the shared suite; its header and what depends on the data type."""

from __future__ import annotations

from typing import ClassVar

import numcodecs
import numpy as np
import pytest
from codec_suite import NOT_OBJECTS, PAYLOADS, BytesToBytesSuite, decode_guarded, mutants, u8

from zarr_gpu.codecs import BloscCname, BloscCodec, BloscShuffle, native
from zarr_gpu.codecs.base import ChunkSpec
from zarr_gpu.codecs.numcodecs import Blosc
from zarr_gpu.errors import CodecError


class TestBlosc(BytesToBytesSuite):
    variants: ClassVar = {
        "zstd": BloscCodec(typesize=1, cname="zstd", shuffle="bitshuffle"),
        "lz4": BloscCodec(typesize=2, cname="lz4", shuffle="shuffle"),
        "lz4hc": BloscCodec(typesize=4, cname="lz4hc", shuffle="noshuffle", clevel=9),
        "blosclz": BloscCodec(typesize=8, cname="blosclz", shuffle="bitshuffle"),
        "zlib": BloscCodec(typesize=3, cname="zlib", shuffle="shuffle", clevel=1),
        "blocks": BloscCodec(typesize=2, cname="zstd", shuffle="shuffle", blocksize=1000),
        "store": BloscCodec(typesize=2, cname="lz4", shuffle="shuffle", clevel=0),
    }
    numcodecs_id: ClassVar = "blosc"
    native_library: ClassVar = "blosc"
    fuzz: ClassVar = 100
    bad_configs: ClassVar = [
        *NOT_OBJECTS,
        *({"typesize": v} for v in (0, -1, True, 2.0, "4", [], 2**40)),
        *({"clevel": v} for v in (10, -1, True, None, "5")),
        *({"shuffle": v} for v in (3, -2, "bits", True, 1.0, [])),
        *({"cname": v} for v in ("lz5", 1, None, "")),
        *({"blocksize": v} for v in (-1, 2**31, None, "auto")),
        {"nthreads": 4},
    ]

    def test_both_ways_write_the_same(
        self, codec: BloscCodec, payload: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        direct = codec.encode(payload)
        # Threads of c-blosc store blocks in the order in which they happen to finish.
        monkeypatch.setattr(native.public().blosc, "use_threads", False)
        monkeypatch.setattr(native, "blosc", lambda: None)
        np.testing.assert_array_equal(codec.encode(payload), direct)

    def test_what_depends_on_the_data_is_filled_in(self) -> None:
        for dtype, typesize, shuffle in (("u1", 1, "bitshuffle"), ("f8", 8, "shuffle")):
            evolved = BloscCodec().evolve(ChunkSpec((3,), np.dtype(dtype)))
            assert (evolved.typesize, evolved.shuffle) == (typesize, shuffle)
        fixed = BloscCodec(typesize=4, shuffle="noshuffle")
        assert fixed.evolve(ChunkSpec((3,), np.dtype("u1"))) == fixed
        text = BloscCodec().evolve(ChunkSpec((3,), np.dtypes.StringDType()))
        assert text.typesize == 1
        auto = Blosc(shuffle=-1)
        assert auto.shuffle is None
        assert auto.to_v2_config()["shuffle"] == -1
        assert auto.evolve(ChunkSpec((3,), np.dtype("u1"))).to_v2_config()["shuffle"] == 2

    def test_frames_equal_those_of_numcodecs(self) -> None:
        array = np.arange(5000, dtype="<u4")
        for shuffle in (-1, 0, 1, 2):
            config = {"cname": "lz4", "clevel": 5, "shuffle": shuffle, "blocksize": 0}
            theirs = numcodecs.get_codec({"id": "blosc", **config}).encode(array)
            ours = Blosc.from_config(config).evolve(ChunkSpec(array.shape, array.dtype))
            np.testing.assert_array_equal(ours.encode(array.view("u1")), u8(theirs))

    def test_names_of_both_versions(self) -> None:
        assert BloscCodec(shuffle=BloscShuffle.bitshuffle, cname=BloscCname.lz4).to_config() == {
            "typesize": 1,
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        assert BloscCodec.from_config({"shuffle": 1}).shuffle == "shuffle"
        assert type(BloscCodec(cname=BloscCname.lz4).cname) is str
        assert Blosc().to_config() == {"cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
        assert Blosc.from_config({"cname": "zstd", "unknown": 1}).cname == "zstd"

    def test_every_header_field_is_checked(self, library: str) -> None:
        payload = PAYLOADS["ramp"]
        frame = BloscCodec(typesize=2, cname="lz4", shuffle="shuffle").encode(payload)
        kind_of_frame, damaged, length = "no frame of c-blosc 1", "header is damaged", "length"
        size = "decoded size"
        fields = {
            "version": (0, "u1", kind_of_frame, (0, 3, 5, 255)),
            "flags": (2, "u1", kind_of_frame, (0x08, 0xA0, 0xE0, 0x05)),
            "memcpyed": (2, "u1", damaged, (0x02, 0x22)),
            "typesize": (3, "u1", damaged, (0,)),
            "nbytes": (4, "<u4", damaged, (1, 2**30, 2**31, 2**32 - 1)),
            "other nbytes": (4, "<u4", size, (len(payload) + 1, len(payload) + 9999)),
            "blocksize": (8, "<u4", damaged, (0, 1, 3, len(payload) + 1, 2**31 - 1, 2**32 - 1)),
            "cbytes": (12, "<u4", length, (0, 15, 16, len(frame) - 1, len(frame) + 1, 2**32 - 1)),
        }
        for at, kind, message, values in fields.values():
            for value in values:
                mutant = frame.copy()
                mutant[at : at + np.dtype(kind).itemsize] = np.array([value], kind).view("u1")
                for exact in (True, False):
                    with pytest.raises(CodecError, match=message):
                        BloscCodec().decode(mutant, limit=len(payload), exact=exact)

    def test_a_frame_of_no_bytes_has_no_blocks_to_check(self, library: str) -> None:
        frame = (
            BloscCodec(typesize=2, cname="lz4", shuffle="shuffle").encode(PAYLOADS["ramp"]).copy()
        )
        frame[4:8] = 0
        assert not len(BloscCodec().decode(frame, limit=9, exact=False))
        with pytest.raises(CodecError, match="decoded size"):
            BloscCodec().decode(frame, limit=9, exact=True)

    def test_a_cut_frame_with_an_honest_header(self, library: str) -> None:
        for name in ("noise", "ramp"):
            payload = PAYLOADS[name]
            frame = BloscCodec(typesize=4, cname="lz4", shuffle="shuffle").encode(payload)
            for cut in range(17, len(frame) - 1, len(frame) // 50):
                mutant = frame[:cut].copy()
                mutant[12:16] = np.array([cut], "<u4").view("u1")
                with pytest.raises(CodecError, match="damaged"):
                    BloscCodec().decode(mutant, limit=len(payload), exact=True)

    def test_a_compressor_that_the_library_lacks(self, library: str) -> None:
        codec = BloscCodec(typesize=1, cname="snappy")
        with pytest.raises(CodecError):
            codec.encode(PAYLOADS["odd"])

    def test_part_of_a_frame(self) -> None:
        library = native.blosc()
        if library is None:
            pytest.skip("platform: the wheel of numcodecs exports no C functions here")
        values = np.arange(32768, dtype="<u2")
        frame = BloscCodec(typesize=2, cname="lz4", shuffle="shuffle").encode(values.view("u1"))
        out = np.empty(200, "u1")
        assert library.getitem(frame, 12345, 100, out) == 200
        np.testing.assert_array_equal(out.view("<u2"), values[12345:12445])

    def test_damage_behind_an_honest_header(self, codec: BloscCodec, library: str) -> None:
        """Most mutants of the suite end at the header; these reach the C code."""
        payload = PAYLOADS["ramp"][:9000]
        frame = codec.encode(payload)
        reached = 0
        for mutant in mutants(frame, 150):
            if len(mutant) < 17:
                continue
            mutant[:12] = frame[:12]
            mutant[12:16] = np.array([len(mutant)], "<u4").view("u1")
            try:
                reached += len(decode_guarded(codec, mutant, len(payload), exact=True))
            except CodecError:
                reached += 1
        assert reached
