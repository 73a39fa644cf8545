"""Checksums of four bytes, little-endian, before or behind the bytes that they are of.

crc32, crc32c, adler32 and fletcher32 differ in how the number is computed and in whether metadata
say where it stands.  Imports base and checks; called by these codecs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from zarr_gpu.codecs.base import U8, BytesToBytes
from zarr_gpu.codecs.checks import check_choice, check_config, check_size, damaged

__all__ = ["Checksum", "PlacedChecksum"]


class Checksum(BytesToBytes):
    """A codec that adds a checksum, and refuses bytes that do not match theirs."""

    @staticmethod
    @abstractmethod
    def checksum(data: U8) -> int:
        """The checksum of some bytes, below 2**32."""

    @property
    def place(self) -> str:
        """Where the checksum stands: "start" or "end"."""
        return "end"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        check_config(cls.name, config, None)
        return cls()

    def to_config(self) -> dict[str, Any]:
        return {}

    def encoded_size(self, nbytes: int) -> int:
        return nbytes + 4

    def encoded_bound(self, nbytes: int) -> int:
        return nbytes + 4

    def encode(self, data: U8) -> U8:
        encoded = np.empty(len(data) + 4, np.uint8)
        payload, place = self._parts(encoded)
        payload[:] = data
        place[:] = np.frombuffer(self.checksum(data).to_bytes(4, "little"), np.uint8)
        return encoded

    def decode(self, data: U8, *, limit: int, exact: bool, out: U8 | None = None) -> U8:
        """``data`` without its checksum, a view, once that agrees."""
        size = len(data)
        if size < 4:
            raise damaged(self.name, "the data are shorter than their checksum", actual=size)
        check_size(self.name, size - 4, limit, exact=exact)
        payload, place = self._parts(data)
        stored, computed = int.from_bytes(place.tobytes(), "little"), self.checksum(payload)
        if stored != computed:
            raise damaged(
                self.name,
                f"checksum mismatch: {stored:#010x} is stored, the data give {computed:#010x}",
                actual=size,
            )
        return payload

    def _parts(self, data: U8) -> tuple[U8, U8]:
        return (data[4:], data[:4]) if self.place == "start" else (data[:-4], data[-4:])


@dataclass(frozen=True)
class PlacedChecksum(Checksum):
    """A checksum of numcodecs, whose place metadata may tell.

    Parameters
    ----------
    location
        "start" or "end": where the checksum stands.
    """

    location: str = "start"

    def __post_init__(self) -> None:
        place = check_choice(self.name, "location", self.location, ("start", "end"))
        object.__setattr__(self, "location", place)

    @property
    def place(self) -> str:
        return self.location

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(check_config(cls.name, config, None).get("location", cls.location))

    def to_config(self) -> dict[str, Any]:
        return {"location": self.location}
