"""Every error that zarr_gpu raises on purpose.

    ZarrError
    |-- MetadataError (ValueError)            an invalid, hostile or unreadable document
    |   |-- UnknownCodecError
    |   |-- UnknownDataTypeError
    |   `-- UnsupportedExtensionError
    |-- NodeNotFoundError (FileNotFoundError) nothing is stored at this path
    |   |-- ArrayNotFoundError
    |   |-- GroupNotFoundError
    |   `-- MemberNotFoundError (KeyError)    a group has no member of this name
    |-- ContainsNodeError (FileExistsError, ValueError)  something is stored there already
    |   |-- ContainsArrayError
    |   |   `-- IncompatibleArrayError (TypeError)  and it is not as was required
    |   `-- ContainsGroupError
    |-- ChunkNotFoundError (KeyError)         an absent chunk, where that is an error
    |-- DataError (ValueError)                stored bytes that contradict the metadata
    |   |-- CodecError                        one codec refuses some data; carries no key yet
    |   |-- ChunkDecodeError                  the same, with the store key
    |   `-- ShardIndexError
    |-- StoreError (OSError)                  the store failed; never taken for an absent chunk
    |-- InvalidKeyError (ValueError)          a key or path that would leave the store
    |-- ReadOnlyError (PermissionError, ValueError)
    |-- SelectionError (IndexError)
    |   `-- BoundsError                       names the axis, the index and the bound
    |-- MissingDependencyError (ImportError)  names the extra to install
    `-- DeviceError (RuntimeError)            the device asked for cannot be used here

Imports nothing of ours.  Each class is also a subclass of the matching built-in, so that callers
may catch either.
"""

from __future__ import annotations

__all__ = [
    "ArrayNotFoundError",
    "BoundsError",
    "ChunkDecodeError",
    "ChunkNotFoundError",
    "CodecError",
    "ContainsArrayError",
    "ContainsGroupError",
    "ContainsNodeError",
    "DataError",
    "DeviceError",
    "GroupNotFoundError",
    "IncompatibleArrayError",
    "InvalidKeyError",
    "MemberNotFoundError",
    "MetadataError",
    "MissingDependencyError",
    "NodeNotFoundError",
    "ReadOnlyError",
    "SelectionError",
    "ShardIndexError",
    "StoreError",
    "UnknownCodecError",
    "UnknownDataTypeError",
    "UnsupportedExtensionError",
    "ZarrError",
    "ZarrUserWarning",
]


class ZarrError(Exception):
    """Root of the hierarchy.

    Parameters
    ----------
    message
        What is wrong and, where there is something to do, what to do.
    key
        Store key concerned, if known.
    codec
        Name of the codec concerned, if any.
    expected, actual
        Byte counts, where the error is about a size.
    """

    def __init__(
        self,
        message: str = "",
        *,
        key: str | None = None,
        codec: str | None = None,
        expected: int | None = None,
        actual: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.codec = codec
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        parts = [self.message]
        if self.key is not None and repr(self.key) not in self.message:
            parts.append(f"[key {self.key!r}]")
        if self.codec is not None and repr(self.codec) not in self.message:
            parts.append(f"[codec {self.codec!r}]")
        if self.expected is not None:
            parts.append(f"[expected {self.expected} bytes]")
        if self.actual is not None:
            parts.append(f"[got {self.actual} bytes]")
        return " ".join(p for p in parts if p)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (
            type(self),
            self.message,
            self.key,
            self.codec,
            self.expected,
            self.actual,
        )


def _rebuild(
    cls: type[ZarrError],
    message: str,
    key: str | None,
    codec: str | None,
    expected: int | None,
    actual: int | None,
) -> ZarrError:
    return cls(message, key=key, codec=codec, expected=expected, actual=actual)


class MetadataError(ZarrError, ValueError):
    """A metadata document, or an argument that would become one, is invalid."""


class UnknownCodecError(MetadataError):
    """No codec of this name is registered."""


class UnknownDataTypeError(MetadataError):
    """No data type of this name is known."""


class UnsupportedExtensionError(MetadataError):
    """A metadata document must not be opened without an extension that is unknown here."""


class NodeNotFoundError(ZarrError, FileNotFoundError):
    """Neither an array nor a group is stored at this path."""


class ArrayNotFoundError(NodeNotFoundError):
    """No array is stored at this path."""


class GroupNotFoundError(NodeNotFoundError):
    """No group is stored at this path."""


class MemberNotFoundError(NodeNotFoundError, KeyError):
    """A group has no member of this name."""

    __str__ = ZarrError.__str__  # KeyError would print the repr


class ContainsNodeError(ZarrError, FileExistsError, ValueError):
    """Something is stored at this path already; pass ``overwrite=True`` to replace it."""


class ContainsArrayError(ContainsNodeError):
    """An array is stored at this path already."""


class IncompatibleArrayError(ContainsArrayError, TypeError):
    """An array is stored at this path already, and its shape or data type is another."""


class ContainsGroupError(ContainsNodeError):
    """A group is stored at this path already."""


class ChunkNotFoundError(ZarrError, KeyError):
    """A chunk is absent from the store, and absent chunks were declared an error."""

    __str__ = ZarrError.__str__  # KeyError would print the repr


class DataError(ZarrError, ValueError):
    """Stored bytes contradict the metadata."""


class CodecError(DataError):
    """One codec refuses one piece of data."""


class ChunkDecodeError(DataError):
    """A stored chunk cannot be decoded; names its key and the codec that refused it."""


class ShardIndexError(DataError):
    """The index of a shard is damaged or points outside the shard."""


class StoreError(ZarrError, OSError):
    """A store operation failed for another reason than an absent key."""


class InvalidKeyError(ZarrError, ValueError):
    """A store key or node path is malformed, or would leave the store."""


class ReadOnlyError(ZarrError, PermissionError, ValueError):
    """A write was asked of something opened read-only."""


class SelectionError(ZarrError, IndexError):
    """A selection is malformed or does not fit the array."""


class BoundsError(SelectionError):
    """An index lies outside its axis."""


class MissingDependencyError(ZarrError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


class DeviceError(ZarrError, RuntimeError):
    """The device asked for is unknown or cannot be used on this machine."""


class ZarrUserWarning(UserWarning):
    """An argument or setting was accepted but has no effect, or something unusual was skipped."""
