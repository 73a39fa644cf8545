"""The part of the API that is about devices alone.

Imports what creates arrays; see ``api``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from zarr_gpu.api_create import DeviceLike, create_array
from zarr_gpu.config import config
from zarr_gpu.devices import get_device

__all__ = ["warmup"]

_BLOSC = [("lz4", "shuffle"), ("lz4", "bitshuffle"), ("zstd", "shuffle"), ("blosclz", "noshuffle")]

_CODECS: list[dict[str, Any]] = [
    {"compressors": None},
    {"compressors": [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}]},
    {"compressors": [{"name": "gzip", "configuration": {"level": 1}}]},
    {"compressors": [{"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]},
    *(
        {
            "compressors": [
                {
                    "name": "blosc",
                    "configuration": {
                        "cname": cname,
                        "clevel": 5,
                        "shuffle": shuffle,
                        "typesize": 4,
                        "blocksize": 0,
                    },
                }
            ]
        }
        for cname, shuffle in _BLOSC
    ),
    {"zarr_format": 2, "compressors": {"id": "lz4", "acceleration": 1}},
    {"zarr_format": 2, "compressors": {"id": "zlib", "level": 1}},
    {
        "zarr_format": 2,
        "filters": [{"id": "delta", "dtype": "<u4"}, {"id": "shuffle", "elementsize": 4}],
        "compressors": {"id": "zstd", "level": 1},
    },
]
"""What is decoded once: a chain for every kind of step."""


def warmup(device: DeviceLike = None) -> float:
    """Do now what would otherwise take time in the first reads of a process.

    On a GPU: compile the kernels but those of number filters, of which there are too many (what is
    compiled is kept on disk for later processes), load the libraries, take page-locked memory, and
    decode a few bytes with every codec.  On the CPU: load the codecs.

    Parameters
    ----------
    device
        As for ``open``.

    Returns
    -------
    float
        The seconds that it took.

    Raises
    ------
    DeviceError
        There is no such device.

    Examples
    --------
    >>> import zarr_gpu
    >>> zarr_gpu.warmup("cpu") > 0
    True
    """
    start = time.perf_counter()
    chosen = get_device(device)
    chosen.warm()
    values = np.arange(4096, dtype=np.uint32)
    with config.set({"gpu.host_rule": "device"}):
        for codecs in _CODECS:
            made = create_array({}, shape=4096, chunks=1024, dtype="u4", device=chosen, **codecs)
            made[:] = values
            made[:]
    return time.perf_counter() - start
