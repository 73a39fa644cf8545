"""The facts of an array as a table: ``Array.info`` and its HTML form.

Imports nothing of ours; called by ``array``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ArrayInfo", "describe_array", "format_bytes"]


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """Facts of an array: (label, value) in reading order."""

    facts: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        width = max(len(label) for label, _ in self.facts)
        return "\n".join(f"{label:<{width}} : {value}" for label, value in self.facts)

    def to_html(self) -> str:
        """The facts as an HTML table."""
        import html  # its table of entities is large

        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(label)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for label, value in self.facts
        )
        return f"<table><tbody>{rows}</tbody></table>"

    _repr_html_ = to_html


def format_bytes(n: int) -> str:
    """A count of bytes for people: ``"1048576 (1.0M)"``."""
    if n < 1024 or n >= 1 << 1000:  # the latter are more than a float can hold
        return str(n)
    size = float(n)
    for unit in "KMGTPE":
        size /= 1024
        if size < 1024 or unit == "E":
            break
    return f"{n} ({size:.1f}{unit})"


def describe_array(array: Any, *, complete: bool = False) -> ArrayInfo:
    """What ``Array.info`` shows; with ``complete`` also what is stored."""
    facts: list[tuple[str, object]] = [
        ("Type", "Array"),
        ("Zarr format", array.zarr_format),
        ("Name", array.name),
        ("Data type", array.dtype),
        ("Fill value", array.fill_value),
        ("Shape", array.shape),
    ]
    if array.shards is not None:
        facts.append(("Shard shape", array.shards))
    facts += [
        ("Chunk shape", array.chunks),
        ("Order", array.order),
        ("Read-only", array.read_only),
        ("Store", array.store),
        ("Device", array.device.name),
        ("Filters", array.filters),
    ]
    if array.serializer is not None:
        facts.append(("Serializer", array.serializer))
    facts += [("Compressors", array.compressors), ("No. bytes", format_bytes(array.nbytes))]
    if complete:
        stored = array.nbytes_stored()
        facts.append(("No. bytes stored", format_bytes(stored)))
        if stored:
            facts.append(("Storage ratio", f"{array.nbytes / stored:.1f}"))
        facts.append(("Chunks initialized", f"{array.nchunks_initialized}/{array.nchunks}"))
    return ArrayInfo(tuple((label, str(value)) for label, value in facts))
