"""Cutting what is to be stored into blocks of bounded size.

Imports ``errors``, ``storage.base``, ``storage.failures`` and ``storage.keys``; called by stores
that send many values at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from zarr_gpu.errors import StoreError
from zarr_gpu.storage.base import Buffer, as_bytes_view
from zarr_gpu.storage.failures import fail
from zarr_gpu.storage.keys import check_key

__all__ = ["Item", "blocks"]

Item = tuple[str, bytes]


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
