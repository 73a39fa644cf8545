"""Read and write Zarr v2 and v3, in batches, on CPU and GPU.

Public names only.  Nothing is imported before it is asked for: ``import zarr_gpu`` costs next to
nothing, and a command that needs one function does not pay for all of them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarr_gpu import codecs, errors, storage
    from zarr_gpu.api import (
        array,
        consolidate_metadata,
        copy,
        copy_all,
        copy_store,
        create,
        create_array,
        create_group,
        create_hierarchy,
        empty,
        empty_like,
        from_array,
        full,
        full_like,
        group,
        load,
        ones,
        ones_like,
        open,
        open_array,
        open_consolidated,
        open_group,
        open_like,
        print_debug_info,
        save,
        save_array,
        save_group,
        tree,
        zeros,
        zeros_like,
    )
    from zarr_gpu.api_device import warmup
    from zarr_gpu.array import Array
    from zarr_gpu.config import ArrayConfig, config
    from zarr_gpu.devices.cache import DeviceCache
    from zarr_gpu.devices.chunk_cache import ChunkCache
    from zarr_gpu.group import Group

__all__ = [
    "Array",
    "ArrayConfig",
    "ChunkCache",
    "DeviceCache",
    "Group",
    "__version__",
    "array",
    "codecs",
    "config",
    "consolidate_metadata",
    "copy",
    "copy_all",
    "copy_store",
    "create",
    "create_array",
    "create_group",
    "create_hierarchy",
    "empty",
    "empty_like",
    "errors",
    "from_array",
    "full",
    "full_like",
    "group",
    "load",
    "ones",
    "ones_like",
    "open",
    "open_array",
    "open_consolidated",
    "open_group",
    "open_like",
    "print_debug_info",
    "save",
    "save_array",
    "save_group",
    "storage",
    "tree",
    "warmup",
    "zeros",
    "zeros_like",
]

__version__ = "0.1.0"

_MODULES = frozenset(["codecs", "errors", "storage"])
_OPENING = ("group", "open", "open_array", "open_consolidated", "open_group", "open_like")
_ELSEWHERE = {
    **dict.fromkeys(_OPENING, "api_open"),
    "Array": "array",
    "ArrayConfig": "config",
    "ChunkCache": "devices.chunk_cache",
    "DeviceCache": "devices.cache",
    "Group": "group",
    "config": "config",
    "warmup": "api_device",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``array``, ``config`` and ``group`` what users mean by them.

    There are modules of the same names, and importing a module binds its name in its package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in __all__ and name not in _MODULES:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
