"""Stores that take many items at once, and cutting what they are to store into bounded blocks.

Imports ``errors``, ``storage.base``, ``storage.failures`` and ``storage.keys``; called by stores
that send many values at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator

from zarr_gpu.errors import StoreError
from zarr_gpu.storage.base import Buffer, Store, as_bytes_view
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.keys import check_key

__all__ = ["BatchStore", "Item", "blocks"]

Item = tuple[str, bytes]


class BatchStore(Store):
    """A store that removes many keys at once."""

    @abstractmethod
    def remove_many(self, keys: list[str]) -> None:
        """Remove keys, if there; at least one, and all of them checked."""

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove keys, in as few requests as the store can."""
        self._check_writable()
        names = [check_key(key) for key in keys]
        if not names:
            return
        try:
            self.remove_many(names)
        except Exception as cause:  # noqa: BLE001  whatever goes wrong becomes one kind of error
            fail("delete", names[0], cause)

    def remove(self, key: str) -> None:
        self.remove_many([key])

    def remove_prefix(self, prefix: str) -> None:
        keys = list(self.walk(prefix))
        if keys:
            self.remove_many(keys)


def blocks(
    items: Iterable[tuple[str, Buffer]],
    *,
    nbytes: int,
    count: int,
    check: Callable[[str, int], None] | None = None,
) -> Iterator[list[Item]]:
    """Lists of at most ``count`` items and ``nbytes`` bytes; a larger value stands alone.

    Keys and values are checked as they are drawn.  Of equal keys in a block the last counts.

    Parameters
    ----------
    check
        Called with a key and the size of its value: raises where the store would not take it.

    Raises
    ------
    InvalidKeyError, StoreError
        A key is malformed, a value is not bytes.

    Examples
    --------
    >>> list(blocks([("a", b"12"), ("b", b"3"), ("c", b"4")], nbytes=3, count=10))
    [[('a', b'12'), ('b', b'3')], [('c', b'4')]]
    """
    block: dict[str, bytes] = {}
    total = 0
    for key, data in items:
        check_key(key)
        try:
            value = data if type(data) is bytes else bytes(as_bytes_view(data))
        except StoreError as cause:
            fail("write", key, cause)
        if check is not None:
            check(key, len(value))
        if block and (total + len(value) > nbytes or len(block) >= count):
            yield list(block.items())
            block, total = {}, 0
        total += len(value) - len(block.get(key, b""))
        block[key] = value
    if block:
        yield list(block.items())
