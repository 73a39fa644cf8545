"""What every codec must do: the suites that the tests of single codecs inherit.

A subclass names its codec's ``variants``; each inherited test runs for each of them, and for codecs
with a direct way into a C library also with that way barred.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numcodecs
import numpy as np
import pytest

from zarr_gpu.codecs import get_codec_class, native
from zarr_gpu.codecs.base import ArrayToArray, ArrayToBytes, BytesToBytes, ChunkSpec, Codec
from zarr_gpu.errors import CodecError, MetadataError

SEED = 20240607
NOT_OBJECTS: list[Any] = [[], "x", 3, True]
"""No configurations at all."""

NOT_LEVELS: list[Any] = [{"level": v} for v in (True, 1.0, "1", None, [], 10**9, -(10**9), 2**70)]
"""No levels of any compressor."""

HEADER_VALUES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]


def payloads() -> dict[str, np.ndarray]:
    """Decoded bytes: empty, single, odd lengths, more than one internal block."""
    rng = np.random.default_rng(SEED)
    ramp = (np.arange(32768, dtype="<u2") // 5).view("u1")
    return {
        "empty": np.empty(0, "u1"),
        "one": np.array([7], "u1"),
        "odd": ramp[:4099].copy(),
        "ramp": ramp,
        "zeros": np.zeros(65536, "u1"),
        "noise": rng.integers(0, 256, 65536, dtype="u1"),
    }


PAYLOADS = payloads()


def u8(data: Any) -> np.ndarray:
    return np.frombuffer(bytes(data), "u1")


def mutants(frame: np.ndarray, number: int, seed: int = SEED) -> list[np.ndarray]:
    """Damaged copies of ``frame``: flips, cuts, splices, header fields set to odd values."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(number):
        mutant = frame.copy()
        kind = i % 5
        if kind == 0:
            for at in rng.integers(0, len(mutant), rng.integers(1, 4)):
                mutant[at] ^= 1 << rng.integers(0, 8)
        elif kind == 1:
            mutant = mutant[: rng.integers(0, len(mutant))]
        elif kind == 2:
            a, b = sorted(rng.integers(0, len(mutant) + 1, 2))
            mutant = np.concatenate([mutant[:a], mutant[b:], mutant[a:b]])
        elif kind == 3:
            at = int(rng.integers(0, min(16, len(mutant))))
            word = np.array([rng.choice(HEADER_VALUES)], "<u8").view("u1")[:4]
            mutant[at : at + 4] = word[: len(mutant[at : at + 4])]
        else:
            at = int(rng.integers(0, len(mutant)))
            size = min(int(rng.integers(1, 16)), len(mutant) - at)
            mutant[at : at + size] = rng.integers(0, 256, size, dtype="u1")
        found.append(mutant)
    return found


def decode_guarded(codec: BytesToBytes, data: np.ndarray, limit: int, *, exact: bool) -> np.ndarray:
    """Decode into the middle of a larger buffer whose rest must stay untouched."""
    band = 64
    buffer = np.full(limit + 2 * band, 0xA5, "u1")
    try:
        return codec.decode(data, limit=limit, exact=exact, out=buffer[band : band + limit])
    finally:
        assert (buffer[:band] == 0xA5).all()
        assert (buffer[band + limit :] == 0xA5).all()


def forget_size(frame: np.ndarray) -> np.ndarray:
    """The zstd frame with a header that does not tell the content size."""
    raw = frame.tobytes()
    flags = raw[4]
    single, width = flags >> 5 & 1, (flags >> 5 & 1, 2, 4, 8)[flags >> 6]
    blocks = raw[5 + (1 - single) + width :]
    return u8(raw[:4] + bytes([flags & 4, 0x58]) + blocks)


class CodecSuite:
    """Configuration and identity; ``variants`` maps a label to a codec."""

    variants: ClassVar[dict[str, Codec]]
    numcodecs_id: ClassVar[str | None] = None
    """Where set, numcodecs is an oracle for every variant."""

    bad_configs: ClassVar[list[Any]] = []
    native_library: ClassVar[str | None] = None
    other_names: ClassVar[tuple[str, ...]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        cls = metafunc.cls
        if "codec" in metafunc.fixturenames:
            metafunc.parametrize("codec", cls.variants.values(), ids=cls.variants.keys())
        if "payload" in metafunc.fixturenames:
            metafunc.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
        if "bad_config" in metafunc.fixturenames:
            metafunc.parametrize("bad_config", cls.bad_configs, ids=repr)
        if "library" in metafunc.fixturenames:
            paths = ["direct", "numcodecs"] if cls.native_library else ["plain"]
            metafunc.parametrize("library", paths, indirect=True)

    @pytest.fixture
    def library(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """Which way into the library the test takes."""
        if request.param == "numcodecs":
            monkeypatch.setattr(native, type(self).native_library, lambda: None)
        elif request.param == "direct" and getattr(native, type(self).native_library)() is None:
            pytest.skip("platform: the wheel of numcodecs exports no C functions here")
        return request.param

    def test_configuration_makes_the_same_codec(self, codec: Codec) -> None:
        assert type(codec).from_config(codec.to_config()) == codec
        assert get_codec_class(codec.name) is type(codec)
        for name in self.other_names:
            assert issubclass(type(codec), get_codec_class(name))
        assert codec.to_dict()["name"] == codec.name
        assert codec.to_dict().get("configuration", {}) == codec.to_config()

    def test_v2_configuration_makes_the_same_codec(self, codec: Codec) -> None:
        if codec.v2_id is not None:
            cls = get_codec_class(f"numcodecs.{codec.v2_id}")
            again = cls.from_config(codec.to_v2_config())
            assert again.to_v2_config() == codec.to_v2_config()

    def test_is_an_immutable_value(self, codec: Codec) -> None:
        assert pickle.loads(pickle.dumps(codec)) == codec
        assert hash(pickle.loads(pickle.dumps(codec))) == hash(codec)
        with pytest.raises(AttributeError):
            codec.level = 3  # type: ignore[attr-defined]

    def test_bad_configuration(self, bad_config: Any) -> None:
        cls = type(next(iter(self.variants.values())))
        with pytest.raises(MetadataError) as caught:
            cls.from_config(bad_config)
        assert caught.value.codec is not None


class BytesToBytesSuite(CodecSuite):
    """Suite of bytes -> bytes codecs."""

    variants: ClassVar[dict[str, BytesToBytes]]  # type: ignore[misc]
    fuzz: ClassVar[int] = 200
    notices_cuts: ClassVar[bool] = True
    """A cut frame is refused although the decoded size may vary."""

    checksummed: ClassVar[bool] = False
    """No mutant decodes to other bytes."""

    element: ClassVar[int] = 1
    """The decoded length must be a multiple of this."""

    def fit(self, payload: np.ndarray) -> np.ndarray:
        return payload[: len(payload) // self.element * self.element]

    def test_round_trip(self, codec: BytesToBytes, payload: np.ndarray, library: str) -> None:
        payload = self.fit(payload)
        before = payload.copy()
        frame = codec.encode(payload)
        n = len(payload)
        assert (payload == before).all()
        assert frame.dtype == np.uint8
        assert frame.ndim == 1
        assert len(frame) <= codec.encoded_bound(n)
        assert codec.encoded_size(n) in (None, len(frame))
        read_only = frame.copy()
        read_only.flags.writeable = False
        shifted = np.concatenate([[0], frame]).astype("u1")[1:]
        for source in (frame, read_only, shifted):
            for limit, exact in ((n, True), (n, False), (n + 1000, False)):
                for out in (None, np.empty(limit, "u1")):
                    got = codec.decode(source, limit=limit, exact=exact, out=out)
                    assert got.dtype == np.uint8
                    assert got.ndim == 1
                    np.testing.assert_array_equal(got, payload)

    def test_encodes_read_only_and_unaligned(self, codec: BytesToBytes, library: str) -> None:
        payload = self.fit(PAYLOADS["odd"])
        shifted = np.concatenate([[0], payload]).astype("u1")[1:]
        shifted.flags.writeable = False
        np.testing.assert_array_equal(codec.encode(shifted), codec.encode(payload))

    def test_wrong_size_is_refused(self, codec: BytesToBytes, library: str) -> None:
        payload = self.fit(PAYLOADS["odd"])
        frame = codec.encode(payload)
        n = len(payload)
        for limit, exact in ((n - 1, True), (n - 1, False), (n + 1, True), (0, True), (0, False)):
            with pytest.raises(CodecError) as caught:
                decode_guarded(codec, frame, limit, exact=exact)
            assert caught.value.codec is not None
            assert caught.value.expected is not None or caught.value.actual is not None

    def test_cut_frames_are_refused(self, codec: BytesToBytes, library: str) -> None:
        payload = self.fit(PAYLOADS["odd"])
        frame = codec.encode(payload)
        cuts = np.unique(np.linspace(0, len(frame) - 1, 150).astype(int))
        for cut in cuts:
            for exact in (True, False) if self.notices_cuts else (True,):
                with pytest.raises(CodecError):
                    decode_guarded(codec, frame[:cut], len(payload), exact=exact)

    def test_trailing_bytes_are_refused(self, codec: BytesToBytes, library: str) -> None:
        payload = self.fit(PAYLOADS["odd"])
        frame = np.append(codec.encode(payload), u8(b"\x01\x02\x03\x04"))
        with pytest.raises(CodecError):
            decode_guarded(codec, frame, len(payload), exact=True)

    def test_damage_is_an_error_or_other_bytes(self, codec: BytesToBytes, library: str) -> None:
        for name in ("odd", "ramp"):
            payload = self.fit(PAYLOADS[name][:9000])
            frame = codec.encode(payload)
            limit = len(payload)
            refused = 0
            for mutant in mutants(frame, self.fuzz):
                for exact in (True, False):
                    try:
                        got = decode_guarded(codec, mutant, limit, exact=exact)
                    except CodecError:
                        refused += 1
                        continue
                    assert len(got) == limit if exact else len(got) <= limit
                    if self.checksummed:
                        np.testing.assert_array_equal(got, payload)
            assert refused

    def test_errors_name_codec_and_cause(self, codec: BytesToBytes, library: str) -> None:
        with pytest.raises(CodecError) as caught:
            codec.decode(np.full(11, 255, "u1"), limit=5, exact=True)
        assert caught.value.codec == codec.name

    def test_many_threads(self, codec: BytesToBytes, library: str) -> None:
        payload = self.fit(PAYLOADS["ramp"])

        def work(shift: int) -> bool:
            mine = np.roll(payload, shift)
            frame = codec.encode(mine)
            return bool((codec.decode(frame, limit=len(mine), exact=True) == mine).all())

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(12)))

    def test_numcodecs_reads_what_we_write(
        self, codec: BytesToBytes, payload: np.ndarray, library: str
    ) -> None:
        payload = self.fit(payload)
        if self.numcodecs_id is None or not len(payload):
            return
        theirs = numcodecs.get_codec({"id": self.numcodecs_id, **codec.to_v2_config()})
        got = theirs.decode(codec.encode(payload).tobytes())
        np.testing.assert_array_equal(u8(got), payload)

    def test_we_read_what_numcodecs_writes(
        self, codec: BytesToBytes, payload: np.ndarray, library: str
    ) -> None:
        payload = self.fit(payload)
        if self.numcodecs_id is None or not len(payload):
            return
        theirs = numcodecs.get_codec({"id": self.numcodecs_id, **codec.to_v2_config()})
        frame = u8(theirs.encode(payload))
        got = codec.decode(frame, limit=len(payload), exact=True)
        np.testing.assert_array_equal(got, payload)


class ArrayToBytesSuite(CodecSuite):
    """Suite of serializers; ``arrays`` maps a label to an array that must survive."""

    variants: ClassVar[dict[str, ArrayToBytes]]  # type: ignore[misc]
    arrays: ClassVar[dict[str, np.ndarray]]
    fuzz: ClassVar[int] = 300

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        super().pytest_generate_tests(metafunc)
        if "array" in metafunc.fixturenames:
            arrays = metafunc.cls.arrays
            metafunc.parametrize("array", arrays.values(), ids=arrays.keys())

    def test_round_trip(self, codec: ArrayToBytes, array: np.ndarray) -> None:
        for given in (array, np.asfortranarray(array), array.T.copy().T):
            spec = ChunkSpec(array.shape, array.dtype)
            data = codec.evolve(spec).encode(given, spec)
            assert data.dtype == np.uint8
            assert data.ndim == 1
            assert data.flags.c_contiguous
            assert codec.encoded_size(spec) in (None, len(data))
            got = codec.evolve(spec).decode(data, spec)
            assert got.shape == array.shape
            assert got.dtype == array.dtype or got.dtype.newbyteorder() == array.dtype
            np.testing.assert_array_equal(got, array)

    def test_wrong_shape_is_refused(self, codec: ArrayToBytes, array: np.ndarray) -> None:
        spec = ChunkSpec(array.shape, array.dtype)
        data = codec.encode(array, spec)
        for shape in ((array.size + 1,), (2 * array.size + 3, 1), (2**40, 2**20)):
            with pytest.raises(CodecError) as caught:
                codec.decode(data, ChunkSpec(shape, array.dtype))
            assert caught.value.codec == codec.name

    def test_cut_or_longer_data_are_refused(self, codec: ArrayToBytes, array: np.ndarray) -> None:
        spec = ChunkSpec(array.shape, array.dtype)
        data = codec.encode(array, spec)
        for cut in range(min(len(data), 200)):
            with pytest.raises(CodecError):
                codec.decode(data[:cut], spec)
        with pytest.raises(CodecError):
            codec.decode(np.append(data, np.uint8(0)), spec)

    def test_damage_is_an_error_or_other_values(
        self, codec: ArrayToBytes, array: np.ndarray
    ) -> None:
        spec = ChunkSpec(array.shape, array.dtype)
        data = codec.encode(array, spec)
        if not len(data):
            return
        for mutant in mutants(data, self.fuzz):
            try:
                got = codec.decode(mutant, spec)
            except CodecError:
                continue
            assert got.shape == array.shape


class ArrayToArraySuite(CodecSuite):
    """Suite of codecs between arrays; a codec may be lossy."""

    variants: ClassVar[dict[str, ArrayToArray]]  # type: ignore[misc]
    specs: ClassVar[list[ChunkSpec]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        super().pytest_generate_tests(metafunc)
        if "spec" in metafunc.fixturenames:
            metafunc.parametrize("spec", metafunc.cls.specs, ids=str)

    def sample(self, spec: ChunkSpec) -> np.ndarray:
        n = int(np.prod(spec.shape))
        return (np.arange(n) % 100).astype(spec.dtype).reshape(spec.shape)

    def test_shapes_and_types(self, codec: ArrayToArray, spec: ChunkSpec) -> None:
        array = self.sample(spec)
        before = array.copy()
        encoded = codec.encode(array, spec)
        expected = codec.encoded_spec(spec)
        assert encoded.shape == expected.shape
        assert encoded.dtype == expected.dtype
        decoded = codec.decode(encoded, spec)
        assert decoded.shape == spec.shape
        assert decoded.dtype == spec.dtype
        np.testing.assert_array_equal(array, before)
        again = codec.decode(np.asfortranarray(encoded), spec)
        np.testing.assert_array_equal(again, decoded)
