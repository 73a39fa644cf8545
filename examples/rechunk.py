"""Copy an array into other chunks, shards and compression, a slab at a time.

python examples/rechunk.py old.zarr new.zarr --chunks 32 64 64 --shards 128 256 256
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import zarr_gpu


def rechunk(
    source: zarr_gpu.Array,
    path: str,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    level: int = 3,
) -> zarr_gpu.Array:
    """Write ``source`` to ``path`` as Zarr v3 with zstd; attributes and names come along."""
    target = zarr_gpu.create_array(
        path,
        shape=source.shape,
        chunks=chunks,
        shards=shards,
        dtype=source.dtype,
        fill_value=source.fill_value,
        compressors={"name": "zstd", "configuration": {"level": level, "checksum": True}},
        dimension_names=source.metadata.dimension_names,
        attributes=dict(source.attrs),
    )
    # Slabs as thick as what is written as a whole: nothing is read back or written twice.
    thickness = (shards or chunks)[0]
    for start in range(0, source.shape[0], thickness):
        rows = slice(start, min(start + thickness, source.shape[0]))
        target[rows] = source[rows]
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--chunks", nargs="+", type=int, required=True)
    parser.add_argument("--shards", nargs="+", type=int)
    parser.add_argument("--level", type=int, default=3, help="of zstd")
    chosen = parser.parse_args(arguments)
    source = zarr_gpu.open_array(chosen.source, mode="r")
    target = rechunk(
        source,
        chosen.target,
        tuple(chosen.chunks),
        tuple(chosen.shards) if chosen.shards else None,
        chosen.level,
    )
    print(f"{source.nbytes_stored()} bytes became {target.nbytes_stored()}")


if __name__ == "__main__":
    main()
