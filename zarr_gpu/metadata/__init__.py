"""Metadata documents of both versions and the model that they share.

``documents`` reads and writes JSON, ``v2`` and ``v3`` translate between documents and the model of
``model``, ``consolidated`` handles whole hierarchies, ``keys`` chunk keys and ``paths`` node paths.
"""

from __future__ import annotations

from zarr_gpu.metadata.keys import KeyEncoding
from zarr_gpu.metadata.model import ArrayMetadata, GroupMetadata, NamedConfig
from zarr_gpu.metadata.paths import normalize_path

__all__ = ["ArrayMetadata", "GroupMetadata", "KeyEncoding", "NamedConfig", "normalize_path"]
