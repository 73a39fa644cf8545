"""What holds for reading from every store."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_suite_base import (
    MANY,
    PinnedMemory,
    RecordingMemory,
    StoreChecks,
    ask,
    blob,
    fetch,
    needs,
    parts,
)

from zarr_gpu.extents import MISSING, REST, ByteRequest, HostMemory
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.wrappers import CountingStore

UNUSUAL_KEYS = [
    "é/ü",
    "数据/块/0",
    "emoji/🙂",
    "with space/ x",
    "a.b.c/.hidden",
    "..a/a../...",
    "a:b/c%d",
    "~",
    "c/0/1/2",
    "-1",
    "a+b&c=d;e,f!",
    "a*b?[c]/{d}",
    "a/" + "n" * 200,
    "/".join(["x" * 128] * 7),
    "50%/2%2g",
]


class ReadChecks(StoreChecks):
    """Values and ranges of values."""

    def test_an_absent_key_is_none(self, store: Store) -> None:
        assert store.get("a/b") is None
        assert store.nbytes("a/b") is None
        assert not store.exists("a/b")
        assert fetch(store, ("a/b", 0, REST)) == [None]

    @pytest.mark.parametrize("n", [0, 1, 100, 70_000, 5_000_000])
    def test_a_value_comes_back(self, store: Store, n: int) -> None:
        value = blob(n)
        self.fill(store, [("a/b/c", value)])
        got = store.get("a/b/c")
        assert type(got) is bytes
        assert got == value
        assert store.nbytes("a/b/c") == n
        assert store.exists("a/b/c")

    def test_an_empty_value_is_not_absent(self, store: Store) -> None:
        self.fill(store, [("x", b"")])
        assert store.get("x") == b""
        assert store.exists("x")
        assert store.nbytes("x") == 0
        assert fetch(store, ("x", 0, REST)) == [b""]
        assert fetch(store, ("x", 0, REST), ("y", 0, REST), ("x", 0, 0)) == [b"", None, b""]

    def test_unusual_keys(self, store: Store) -> None:
        self.fill(store, [(key, key.encode()) for key in UNUSUAL_KEYS])
        for key in UNUSUAL_KEYS:
            assert store.get(key) == key.encode()
            assert fetch(store, (key, 0, 1), ("other", 0, REST)) == [key.encode()[:1], None]
        self.check_keys(store, UNUSUAL_KEYS)
        for key in UNUSUAL_KEYS if self.writable else ():
            store.delete_many([key])
            assert store.get(key) is None
        if self.writable:
            self.check_keys(store, [])

    def test_keys_are_case_sensitive_values_apart(self, store: Store) -> None:
        self.fill(store, [("a/B", b"1")])
        assert store.get("a/B") == b"1"
        assert store.get("a/Bx") is None

    def test_one_range(self, store: Store) -> None:
        value = blob(1000)
        self.fill(store, [("a/x", value), ("a/y", b"other")])
        for offset, nbytes, lo, hi in (
            (0, REST, 0, 1000),
            (0, 1000, 0, 1000),
            (0, 1, 0, 1),
            (10, 20, 10, 30),
            (999, 1, 999, 1000),
            (10, REST, 10, 1000),
            (1000, REST, 1000, 1000),
            (1500, REST, 1000, 1000),
            (1000, 0, 0, 0),
            (5, 0, 0, 0),
            (-1, 1, 999, 1000),
            (-16, 16, 984, 1000),
            (-16, REST, 984, 1000),
            (-16, 4, 984, 988),
            (-1000, 1000, 0, 1000),
            (-1000, REST, 0, 1000),
        ):
            wanted = value[lo:hi]
            one = ("a/x", offset, nbytes)
            assert fetch(store, one) == [wanted], one
            # as one of several keys, and as one of several ranges of a key
            assert fetch(store, one, ("a/y", 1, 3)) == [wanted, b"the"], one
            assert fetch(store, ("a/x", 3, 4), one) == [value[3:7], wanted], one
            assert fetch(store, one, ("a/x", 0, REST)) == [wanted, value], one

    def test_ranges_come_back_in_the_order_asked(self, store: Store) -> None:
        one, two = blob(500, 1), blob(500, 2)
        self.fill(store, [("1", one), ("2", two)])
        assert fetch(
            store,
            ("2", 400, 100),
            ("1", 7, 3),
            ("2", 0, 10),
            ("absent", 5, 5),
            ("1", -5, 5),
            ("1", 0, 10),
            ("2", 395, 10),
        ) == [two[400:], one[7:10], two[:10], None, one[-5:], one[:10], two[395:405]]

    def test_overlapping_and_repeated_ranges(self, store: Store) -> None:
        value = blob(1000)
        self.fill(store, [("x", value)])
        ranges = [(0, 100), (50, 100), (50, 100), (0, 1000), (10, 5), (149, 2), (999, 1)]
        assert fetch(store, *(("x", lo, n) for lo, n in ranges)) == [
            value[lo : lo + n] for lo, n in ranges
        ]

    def test_equal_keys_under_two_numbers(self, store: Store) -> None:
        self.fill(store, [("x", b"abcdef")])
        request = ByteRequest(
            ["x", "y", "x"], np.array([2, 1, 0]), np.array([0, 0, 3]), np.array([3, 1, REST])
        )
        assert parts(store.fetch(request, HostMemory())) == [b"abc", None, b"def"]

    def test_part_of_a_request(self, store: Store) -> None:
        self.fill(store, [(f"{i}", bytes([i] * i)) for i in range(10)])
        request = ByteRequest.whole([f"{i}" for i in range(12)])
        assert parts(store.fetch(request.take(3, 6), HostMemory())) == [
            b"\3\3\3",
            b"\4\4\4\4",
            b"\5\5\5\5\5",
        ]
        assert parts(store.fetch(request.take(9, 12), HostMemory())) == [b"\t" * 9, None, None]

    def test_narrow_key_numbers(self, store: Store) -> None:
        self.fill(store, [("a", b"1"), ("b", b"2")])
        request = ByteRequest(
            ["a", "b"],
            np.array([1, 0], np.int32),  # type: ignore[arg-type]
            np.zeros(2, np.int64),
            np.full(2, REST),
        )
        assert parts(store.fetch(request, HostMemory())) == [b"2", b"1"]

    def test_ranges_known_to_be_missing_are_not_asked_for(self, store: Store) -> None:
        self.fill(store, [("x", b"abc")])
        counting = CountingStore(store)
        assert fetch(counting, ("no", 0, MISSING)) == [None]
        assert fetch(counting, ("no", 0, MISSING), ("nor", 5, MISSING)) == [None, None]
        assert counting.calls == []
        wanted = [None, b"c", None, b"a"]
        ranges = (("no", 0, MISSING), ("x", 2, 1), ("x", 0, MISSING), ("x", 0, 1))
        assert fetch(counting, *ranges) == wanted
        assert counting.keys_read == ["x"]

    def test_a_request_for_nothing(self, store: Store) -> None:
        extents = store.fetch(ByteRequest.whole([]), HostMemory())
        assert len(extents) == 0
        assert extents.base.dtype == np.uint8

    def test_many_keys(self, store: Store) -> None:
        values = {f"c/{i // 16}/{i % 16}": blob(50 + i, i) for i in range(MANY)}
        self.fill(store, values.items())
        keys = [*values, "c/absent", *reversed(values)]
        request = ByteRequest.whole([*values, "c/absent"])
        assert parts(store.fetch(request, HostMemory())) == [*values.values(), None]
        ranges = [(key, i % 40, 10) for i, key in enumerate(keys)]
        assert fetch(store, *ranges) == [
            values[key][lo : lo + n] if key in values else None for key, lo, n in ranges
        ]

    @pytest.mark.parametrize("kind", [RecordingMemory, PinnedMemory])
    def test_everything_lands_in_one_buffer_of_the_memory(
        self, store: Store, kind: type[RecordingMemory]
    ) -> None:
        self.fill(store, [("a", b"x" * 1000), ("b", b"y" * 10)])
        memory = kind()
        extents = store.fetch(ask(("a", 0, REST), ("no", 0, 1), ("b", 0, REST)), memory)
        assert len(memory.asked) == 1
        assert len(extents.base) == memory.asked[0] + 100
        assert parts(extents) == [b"x" * 1000, None, b"y" * 10]
        assert extents.offset[2] % 64 == 0

    def test_one_value_lands_in_memory_that_is_not_plain(self, store: Store) -> None:
        self.fill(store, [("a", b"x" * 1000)])
        memory = PinnedMemory()
        extents = store.fetch(ask(("a", 0, REST)), memory)
        assert len(memory.asked) == 1
        assert len(extents.base) == memory.asked[0] + 100
        assert parts(extents) == [b"x" * 1000]

    def test_any_request_against_slices(self, store: Store) -> None:
        values = {f"k/{i}": blob(n, i) for i, n in enumerate((0, 1, 64, 300, 5000))}
        self.fill(store, values.items())

        @settings(max_examples=settings().max_examples // 2)  # on every store
        @given(st.data())
        def check(data: st.DataObject) -> None:
            ranges = []
            for _ in range(data.draw(st.integers(0, 12))):
                key = data.draw(st.sampled_from([*values, "absent"]))
                size = len(values.get(key, b"12345678"))
                kind = data.draw(st.sampled_from(["range", "rest", "suffix", "missing"]))
                lo = data.draw(st.integers(0, size))
                n = data.draw(st.integers(0, size - lo))
                if kind == "range":
                    ranges.append((key, lo, n))
                elif kind == "rest":
                    ranges.append((key, lo, REST))
                elif kind == "missing":
                    ranges.append((key, lo, MISSING))
                elif size:
                    back = data.draw(st.integers(1, size))
                    most = data.draw(st.sampled_from([REST, back, max(back - 3, 0)]))
                    ranges.append((key, -back, most))
            gap, most = data.draw(st.sampled_from([(0, 50), (16, 1000), (10_000, 1 << 20)]))
            wrapped = CountingStore(store)
            wrapped.max_gap, wrapped.max_coalesced = gap, most
            expected = []
            for key, lo, n in ranges:
                value = values.get(key)
                if value is None or n == MISSING:
                    expected.append(None)
                elif lo < 0:
                    tail = value[lo:]
                    expected.append(tail if n == REST else tail[:n])
                else:
                    expected.append(value[lo:] if n == REST else value[lo : lo + n])
            assert fetch(wrapped, *ranges) == expected
            assert fetch(store, *ranges) == expected
            plain = [c for c in wrapped.of("read") if c.offset >= 0]
            for key in values:  # no byte twice
                seen = sorted(
                    (c.offset, c.offset + (c.answered or 0)) for c in plain if c.key == key
                )
                assert all(a[1] <= b[0] for a, b in pairwise(seen))

        check()

    def test_absent_keys_among_others(self, store: Store) -> None:
        self.fill(store, [(f"c/{i}", bytes([i])) for i in range(0, 60, 3)])
        keys = [f"c/{i}" for i in range(60)]
        answer = parts(store.fetch(ByteRequest.whole(keys), HostMemory()))
        assert answer == [bytes([i]) if i % 3 == 0 else None for i in range(60)]
        ranges = [(key, -1, 1) for key in keys[:6]] + [("c", 0, REST), ("d/0", 0, 1)]
        assert fetch(store, *ranges) == [b"\0", None, None, b"\3", None, None, None, None]

    def test_a_part_of_a_key_is_no_key(self, store: Store) -> None:
        self.fill(store, [("a/b/c", b"1")])
        for key in ("a", "a/b", "a/b/c/d", "a/b/cc", "b/c", "c"):
            assert store.get(key) is None
            assert store.nbytes(key) is None
            assert fetch(store, (key, 0, REST), ("a/b/c", 0, 1)) == [None, b"1"]

    def test_every_byte_is_kept(self, store: Store) -> None:
        values = {
            "all": bytes(range(256)),
            "nul": bytes(1000),
            "lines": b"\r\n\n\r\n" * 50,
            "surrogates": "\ud800".encode("utf-8", "surrogatepass") * 9,
            "json": b'{"zarr_format": 3, "n": 1e400, "a": NaN}',
            "quotes": b"';\"\\`--%s$1?:x\0",
            "base64": b"AAAA====",
            "gzip": b"\x1f\x8b\x08" + bytes(20),
        }
        self.fill(store, values.items())
        for key, value in values.items():
            assert store.get(key) == value
        assert fetch(store, *((key, 0, REST) for key in values)) == list(values.values())

    @pytest.mark.parametrize("n", [255, 256, 65_535, 65_536, 65_537, 1 << 20])
    def test_sizes_at_which_databases_change_their_mind(self, store: Store, n: int) -> None:
        value = blob(n, n)
        self.fill(store, [("x", value), ("y", b"1")])
        assert store.get("x") == value
        assert store.nbytes("x") == n
        assert fetch(store, ("x", n - 2, 2), ("x", -1, 1), ("x", 0, 2), ("y", 0, 1)) == [
            value[-2:],
            value[-1:],
            value[:2],
            b"1",
        ]

    def test_a_large_value(self, store: Store) -> None:
        n = self.large_nbytes
        value = blob(n)
        self.fill(store, [("a/large", value), ("a/small", b"1")])
        assert store.nbytes("a/large") == n
        assert store.get("a/large") == value
        ranges = (("a/large", n // 2, 1000), ("a/large", -16, 16), ("a/small", 0, REST))
        assert fetch(store, *ranges) == [value[n // 2 :][:1000], value[-16:], b"1"]
        extents = store.fetch(ask(("a/large", 5, REST), ("a/small", 0, 1)), PinnedMemory())
        assert parts(extents) == [value[5:], b"1"]

    def test_suffixes(self, store: Store) -> None:
        value = blob(5000)
        self.fill(store, [("x", value), ("y", value[:7])])
        for n in (1, 7, 16, 4999, 5000):
            assert fetch(store, ("x", -n, n)) == [value[-n:]]
            assert fetch(store, ("x", -n, REST), ("y", -7, 7)) == [value[-n:], value[:7]]
        assert fetch(store, ("x", -20, 4), ("no", -4, 4), ("x", -4, 4)) == [
            value[-20:-16],
            None,
            value[-4:],
        ]

    def test_ranges_of_no_bytes(self, store: Store) -> None:
        self.fill(store, [("x", b"abc"), ("empty", b"")])
        assert fetch(store, ("x", 0, 0)) == fetch(store, ("x", 3, 0)) == [b""]
        assert fetch(store, ("empty", 0, 0)) == fetch(store, ("empty", 0, REST)) == [b""]
        assert fetch(store, ("no", 0, 0)) == [None]
        assert fetch(store, ("x", 1, 0), ("no", 0, 0), ("empty", 0, 0), ("x", 2, 1)) == [
            b"",
            None,
            b"",
            b"c",
        ]

    def test_a_thousand_ranges_of_one_value(self, store: Store) -> None:
        value = blob(300_000)
        self.fill(store, [("x", value)])
        rng = np.random.default_rng(1)
        ranges = [("x", int(lo), int(n)) for lo, n in rng.integers(0, [299_000, 1000], (1000, 2))]
        assert fetch(store, *ranges) == [value[lo : lo + n] for _, lo, n in ranges]

    def test_asking_again_answers_the_same(self, store: Store) -> None:
        self.fill(store, [("x", b"0123456789")])
        for _ in range(3):
            assert store.get("x") == b"0123456789"
            assert store.get("no") is None
            assert fetch(store, ("x", 2, 3), ("no", 0, 1)) == [b"234", None]
            assert fetch(store, ("x", -2, 2)) == [b"89"]
            assert store.nbytes("x") == 10

    def test_keys_as_long_as_they_may_be(self, store: Store) -> None:
        n = self.longest_key
        plain = "/".join(["x" * 127] * 8)[:n].rstrip("/")
        wide = ("é" * 60 + "/") * 9
        while len(wide.encode()) > n:
            wide = wide[:-1]
        keys = [plain + "y" * (n - len(plain)), wide.rstrip("/")]
        self.fill(store, [(key, b"%d" % i) for i, key in enumerate(keys)])
        assert fetch(store, *((key, 0, REST) for key in keys)) == [b"0", b"1"]
        self.check_keys(store, keys)

    @needs("exact_keys")
    def test_keys_that_look_alike(self, store: Store) -> None:
        keys = ["a", "A", "a ", "\u00e9", "e\u0301", "\u00df", "ss", "I", "\u0131", "i", "1", "01"]
        keys = [f"k/{key}" for key in keys]
        self.fill(store, [(key, b"%d" % i) for i, key in enumerate(keys)])
        assert [store.get(key) for key in keys] == [b"%d" % i for i in range(len(keys))]
        assert fetch(store, *((key, 0, REST) for key in keys)) == [
            b"%d" % i for i in range(len(keys))
        ]
        self.check_keys(store, keys)
