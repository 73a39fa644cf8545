"""From many byte ranges to few reads: grouping by key and coalescing.

A *span* is one read of one value, ``(key, offset, nbytes)``, with the conventions of
:class:`~zarr_gpu.extents.ByteRequest`: ``nbytes`` is a length or ``REST``; a negative ``offset`` is
a suffix, and then ``nbytes`` is ``REST``.

Pure NumPy, no input or output; imports ``errors`` and ``extents``; called by ``storage/base.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zarr_gpu.errors import DataError
from zarr_gpu.extents import REST

__all__ = ["Span", "Spans", "coalesce", "place"]

I64 = npt.NDArray[np.int64]
Span = tuple[str, int, int]

_END = 1 << 61
"""Stands for the unknown end of a value; no real offset comes near."""


@dataclass(frozen=True, slots=True)
class Spans:
    """The reads for ``n`` ranges, and where in them each range lies."""

    spans: list[Span]
    span: I64  # (n,) position in spans
    within: I64  # (n,) offset from the start of the span; from its end where negative
    nbytes: I64  # (n,) length or REST


def coalesce(
    names: list[str], offset: I64, nbytes: I64, *, max_gap: int, max_coalesced: int
) -> Spans:
    """Merge overlapping and neighbouring ranges of the same key.

    Ranges at most ``max_gap`` bytes apart share a span as long as it stays within ``max_coalesced``
    bytes; ranges that overlap always share one, so that no byte is read twice.  Where a suffix lies
    is not known before the value is read: suffixes of a key share a span of their own, unless the
    whole value is read anyway.

    Parameters
    ----------
    names
        Key of each of the ``n`` ranges.
    offset, nbytes
        int64, shape (n,); none MISSING.

    Raises
    ------
    DataError
        A range is larger than any value can be.
    """
    n = len(names)
    rank: dict[str, int] = {}
    key = np.fromiter((rank.setdefault(name, len(rank)) for name in names), np.int64, n)
    keys = list(rank)

    suffix = offset < 0
    plain = np.flatnonzero(~suffix)
    start = offset[plain]
    length = nbytes[plain]
    absurd = np.flatnonzero((start >= _END // 2) | (length >= _END // 2))
    if absurd.size:
        row = int(absurd[0])
        raise DataError(
            f"byte range {int(start[row])}+{int(length[row])} cannot lie inside a value",
            key=names[int(plain[row])],
        )
    end = np.where(length == REST, _END, start + length)
    order = np.lexsort((end, start, key[plain]))
    group = key[plain][order]
    lo, hi = start[order], end[order]
    reach = _running_max(hi, group)

    m = len(order)
    first = np.ones(m, np.bool_)
    if m > 1:
        first[1:] = (group[1:] != group[:-1]) | (lo[1:] > reach[:-1] + max_gap)
    _split_long(first, lo, reach, max_coalesced)
    heads = np.flatnonzero(first)
    tails = np.append(heads[1:], m) - 1 if m else heads
    span_key = group[heads]
    span_lo = lo[heads]
    span_hi = reach[tails]
    span_nbytes = np.where(span_hi >= _END, REST, span_hi - span_lo)
    spans = [
        (keys[k], a, b)
        for k, a, b in zip(span_key.tolist(), span_lo.tolist(), span_nbytes.tolist(), strict=True)
    ]

    span = np.empty(n, np.int64)
    within = np.empty(n, np.int64)
    rows = plain[order]
    of_row = np.cumsum(first) - 1
    span[rows] = of_row
    within[rows] = lo - span_lo[of_row] if m else lo
    want = nbytes.copy()
    if suffix.any():
        _add_suffixes(np.flatnonzero(suffix), names, offset, want, spans, span, within)
    return Spans(spans, span, within, want)


def _running_max(values: I64, group: I64) -> I64:
    """Running maximum that starts afresh at every group; ``group`` is sorted."""
    if len(values) < 2:
        return values
    # A constant per group larger than any value keeps the groups apart, where it fits.
    finite = np.where(values >= _END, -1, values)
    step = int(finite.max()) + 2
    if (int(group[-1]) + 2) * step < _END:
        capped = np.where(values >= _END, step - 1, values)
        result = np.maximum.accumulate(capped + group * step) - group * step
        return np.where(result == step - 1, _END, result)
    result = values.copy()
    for i in range(1, len(result)):
        if group[i] == group[i - 1] and result[i] < result[i - 1]:
            result[i] = result[i - 1]
    return result


def _split_long(first: npt.NDArray[np.bool_], lo: I64, reach: I64, max_coalesced: int) -> None:
    """Cut spans longer than ``max_coalesced`` at boundaries that no range crosses."""
    if not len(first):
        return
    heads = np.flatnonzero(first)
    tails = np.append(heads[1:], len(first))
    for a, b in zip(heads.tolist(), tails.tolist(), strict=True):
        if b - a < 2 or reach[b - 1] - lo[a] <= max_coalesced:
            continue
        begin = int(lo[a])
        for i in range(a + 1, b):
            end = lo[i] if reach[i] >= _END else reach[i]  # a rest has no length to speak of
            if end - begin > max_coalesced and lo[i] >= reach[i - 1]:
                first[i] = True
                begin = int(lo[i])


def _add_suffixes(
    rows: I64,
    names: list[str],
    offset: I64,
    want: I64,
    spans: list[Span],
    span: I64,
    within: I64,
) -> None:
    whole = {key: i for i, (key, lo, nbytes) in enumerate(spans) if lo == 0 and nbytes == REST}
    longest: dict[str, int] = {}
    for row in rows.tolist():
        name = names[row]
        if name not in whole:
            longest[name] = min(longest.get(name, 0), int(offset[row]))
    for name, lo in longest.items():
        whole[name] = len(spans)
        spans.append((name, lo, REST))
    for row in rows.tolist():
        span[row] = whole[names[row]]
        within[row] = offset[row]
        if want[row] == REST:
            want[row] = -offset[row]


def place(plan: Spans, names: list[str], start: I64, got: I64) -> tuple[I64, I64]:
    """Offset and length of every range in the buffer.

    Parameters
    ----------
    start, got
        Where each span begins in the buffer, and how many bytes of it there are; MISSING where the
        key is absent.

    Returns
    -------
    offset, nbytes
        int64, shape (n,); MISSING where the key is absent.

    Raises
    ------
    DataError
        A range is not wholly inside its value.
    """
    have = got[plan.span]
    absent = have < 0
    within = np.where(plan.within < 0, have + plan.within, plan.within)
    within = np.where(plan.nbytes == REST, np.minimum(within, have), within)
    nbytes = np.where(plan.nbytes == REST, np.maximum(have - within, 0), plan.nbytes)
    bad = np.flatnonzero(
        ~absent & ((within < 0) | (within + nbytes > have) & (plan.nbytes != REST))
    )
    if bad.size:
        row = int(bad[0])
        there = max(int(have[row]) - max(int(within[row]), 0), 0)
        if within[row] < 0:
            there = int(have[row])
        raise DataError(
            "the value is too short for the byte range asked of it",
            key=names[row],
            expected=int(nbytes[row]),
            actual=there,
        )
    offset = np.where(absent, 0, start[plan.span] + within)
    return offset, np.where(absent, -1, nbytes)
