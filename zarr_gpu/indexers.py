"""``array.oindex``, ``array.vindex`` and ``array.blocks``: index modes as objects with brackets."""

from __future__ import annotations

from typing import Any, Protocol

from zarr_gpu.select import split_fields

__all__ = ["BlockIndex", "OIndex", "VIndex"]


class _Selecting(Protocol):
    def get_orthogonal_selection(self, selection: Any, *, fields: Any = None) -> Any: ...
    def set_orthogonal_selection(
        self, selection: Any, value: Any, *, fields: Any = None
    ) -> None: ...
    def get_coordinate_selection(self, selection: Any, *, fields: Any = None) -> Any: ...
    def set_coordinate_selection(
        self, selection: Any, value: Any, *, fields: Any = None
    ) -> None: ...
    def get_block_selection(self, selection: Any, *, fields: Any = None) -> Any: ...
    def set_block_selection(self, selection: Any, value: Any, *, fields: Any = None) -> None: ...


class _Index:
    __slots__ = ("array",)

    def __init__(self, array: _Selecting) -> None:
        self.array = array


class OIndex(_Index):
    """Every axis indexed on its own, as with ``numpy.ix_``: slices, lists, boolean vectors."""

    __slots__ = ()

    def __getitem__(self, selection: Any) -> Any:
        rest, fields = split_fields(selection)
        return self.array.get_orthogonal_selection(rest, fields=fields)

    def __setitem__(self, selection: Any, value: Any) -> None:
        rest, fields = split_fields(selection)
        self.array.set_orthogonal_selection(rest, value, fields=fields)


class VIndex(_Index):
    """Index arrays that broadcast against each other, mixed with slices, as in NumPy; masks."""

    __slots__ = ()

    def __getitem__(self, selection: Any) -> Any:
        rest, fields = split_fields(selection)
        return self.array.get_coordinate_selection(rest, fields=fields)

    def __setitem__(self, selection: Any, value: Any) -> None:
        rest, fields = split_fields(selection)
        self.array.set_coordinate_selection(rest, value, fields=fields)


class BlockIndex(_Index):
    """Whole stored objects by their position in the grid (shards, where the array is sharded)."""

    __slots__ = ()

    def __getitem__(self, selection: Any) -> Any:
        rest, fields = split_fields(selection)
        return self.array.get_block_selection(rest, fields=fields)

    def __setitem__(self, selection: Any, value: Any) -> None:
        rest, fields = split_fields(selection)
        self.array.set_block_selection(rest, value, fields=fields)
