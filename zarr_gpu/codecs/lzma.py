"""``lzma``: the formats of liblzma (xz, alone, raw).

Imports base, checks and framing; called through the chain.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import DAMAGE, check_config, check_int, damaged
from zarr_gpu.codecs.framing import decode_streams
from zarr_gpu.errors import MetadataError

__all__ = ["LZMA"]

_FIELDS = ("format", "check", "preset", "filters")
_MEMORY = 256 << 20  # for a decoder besides the chunk: the largest preset needs 65 MiB
_DICTIONARY = 1536 << 20


@dataclass(frozen=True)
class LZMA(BytesToBytes):
    """LZMA in one of liblzma's formats.

    Parameters
    ----------
    format, check, preset, filters
        As for :func:`lzma.compress` of the standard library.

    Examples
    --------
    >>> import numpy as np
    >>> codec = LZMA(preset=1)
    >>> codec.decode(codec.encode(np.zeros(3, "u1")), limit=3, exact=True)
    array([0, 0, 0], dtype=uint8)
    """

    name: ClassVar[str] = "numcodecs.lzma"
    v2_id: ClassVar[str | None] = "lzma"

    format: int = lzma.FORMAT_XZ
    check: int = -1
    preset: int | None = None
    filters: tuple[Mapping[str, Any], ...] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check_int(self.name, "format", self.format, lzma.FORMAT_AUTO, lzma.FORMAT_RAW)
        check_int(self.name, "check", self.check, -1, lzma.CHECK_ID_MAX)
        if self.preset is not None:
            preset = check_int(self.name, "preset", self.preset, 0, 9 | lzma.PRESET_EXTREME)
            check_int(self.name, "preset", preset & ~lzma.PRESET_EXTREME, 0, 9)
        if self.filters is not None:
            object.__setattr__(self, "filters", self._parse_filters(self.filters))
        if self.format != lzma.FORMAT_RAW:
            return
        try:
            lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=self._raw_filters())
        except (lzma.LZMAError, *DAMAGE) as error:
            raise self._invalid(f"filters are needed for format 3 (raw): {error}") from error

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = check_config(cls.name, config, None)
        return cls(**{name: config[name] for name in _FIELDS if name in config})

    def to_config(self) -> dict[str, Any]:
        filters = None if self.filters is None else [dict(item) for item in self.filters]
        return {
            "format": self.format,
            "check": self.check,
            "preset": self.preset,
            "filters": filters,
        }

    def encode(self, data: U8) -> U8:
        filters = self._raw_filters()
        try:
            encoded = lzma.compress(
                data.data, self.format, self.check, self.preset, filters=filters
            )
        except (lzma.LZMAError, *DAMAGE) as error:
            raise damaged(self.name, f"cannot compress: {error}", actual=len(data)) from error
        return np.frombuffer(encoded, np.uint8)

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        return decode_streams(
            self.name,
            data,
            lambda: self._start(limit),
            limit=limit,
            exact=exact,
            out=out,
            many=self.format != lzma.FORMAT_RAW,
            padding=4 if self.format == lzma.FORMAT_XZ else 0,
            errors=lzma.LZMAError,
        )

    def _start(self, limit: int) -> lzma.LZMADecompressor:
        if self.format == lzma.FORMAT_RAW:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=self._raw_filters())
        # The header names a dictionary of up to 4 GiB, which would be allocated.
        return lzma.LZMADecompressor(self.format, memlimit=_MEMORY + min(limit, _DICTIONARY))

    def _raw_filters(self) -> list[Any] | None:
        return None if self.filters is None else [dict(item) for item in self.filters]

    def _parse_filters(self, filters: Any) -> tuple[Mapping[str, Any], ...]:
        if isinstance(filters, (str, bytes, Mapping)) or not hasattr(filters, "__iter__"):
            raise self._invalid(f"filters must be a list, not {filters!r:.80}")
        if self.preset is not None:
            raise self._invalid("preset and filters exclude each other")
        found = tuple(filters)
        if not 1 <= len(found) <= 4:
            raise self._invalid(f"there can be 1 to 4 filters, not {len(found)}")
        for item in found:
            if not isinstance(item, Mapping):
                raise self._invalid(f"a filter must be an object, not {item!r:.80}")
            for key, value in item.items():
                highest = _DICTIONARY if key == "dict_size" else (1 << 63) - 1
                check_int(self.name, f"filter option {str(key)[:40]!r}", value, 0, highest)
        return found

    def _invalid(self, what: str) -> MetadataError:
        return MetadataError(f"codec {self.name!r}: {what}", codec=self.name)
