"""The lane of a device that works on batches: one job is one batch.

The encoded bytes of a job cross to the device in one copy, every codec runs once over all its rows,
one kernel places all its items.  Nothing is known per chunk but numbers in tables, and the host
never waits for the device within a job; what the steps found wrong is read back once, at the end,
and becomes an error that names the key.

Imports the steps, staging and tables; made by the CUDA device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.codecs.device_steps import make_steps
from zarr_gpu.codecs.runtime import DeviceBatch, DeviceStep, Runtime, Verdicts, dense
from zarr_gpu.devices.base import Job, Lane, Options
from zarr_gpu.devices.rules import HostRule
from zarr_gpu.devices.staging import Staged, present_rows
from zarr_gpu.devices.tables import WIDE, ItemFormat, PlacementTables, item_format
from zarr_gpu.devices.verify import Verifier
from zarr_gpu.errors import ChunkDecodeError, DeviceError
from zarr_gpu.extents import Extents
from zarr_gpu.plan import Plan
from zarr_gpu.stages import stage

__all__ = ["BatchLane", "require_format"]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

MAX_PENDING = 64
"""Jobs whose statuses wait to be read back: they take memory, and bad news should not take long."""

STATUS = {
    1: "the data are damaged",
    2: "the data want to become larger",
    3: "the checksum differs",
}


class BatchLane(Lane):
    """Decodes and encodes the jobs of one read or write, one after the other."""

    def __init__(
        self,
        runtime: Runtime,
        program: Program,
        plan: Plan,
        fill_value: Any,
        keep_fill_chunks: bool,
        options: Options,
    ) -> None:
        self.runtime = runtime
        self.program = program
        self.plan = plan
        self.keep_fill_chunks = keep_fill_chunks
        self.options = options
        self.format = require_format(program)
        self.steps: list[DeviceStep] = make_steps(program)
        self.rule = HostRule.from_config()
        if options.strict:
            self.rule = _strict(self.rule, program)
        self._ruled: dict[frozenset[str], list[DeviceStep]] = {frozenset(): self.steps}
        verify = options.verify
        self._verifier = Verifier(program, every=verify == "all") if verify else None
        # Decoded sizes of the steps, in the order of encoding.
        self.sizes = [spec.nbytes for _, spec in program.arrays]
        self.sizes += [step.limit for step in program.steps]
        self.nbytes = program.spec.nbytes
        self._fill_value = fill_value
        self._fill: dict[tuple[bool, int], Any] = {}
        self._tables: dict[int, tuple[PlacementTables, Any, Any]] = {}  # by items to a unit
        self._wide: ItemFormat | None = None
        self._seen = False  # the result, on which it depends whether there is a wide format
        self._pending: list[tuple[Job, I64, Verdicts]] = []

    # ---- reading -------------------------------------------------------------------------------

    def decode(self, job: Job, extents: Extents, out: Any) -> None:
        present = present_rows(extents)
        verdicts = Verdicts()
        base = np.full(job.hi - job.lo, -1, np.int64)
        rows = None
        if len(present):
            with stage("decode"):
                rows = self._decode_rows(extents, present, verdicts)
            self._tell_of_host(job, present, verdicts)
        form = self._format_for(out, rows)
        if rows is not None:
            base[present] = rows.offset // form.unit.itemsize
            base[present[list(verdicts.on_host)]] = -1
        chunks = _units(self.runtime.empty(16) if rows is None else rows.base, form)
        if form.run not in self._tables:
            strides = self._strides(out)
            self._tables[form.run] = self._upload_tables(strides, last_only=False, run=form.run)
        with stage("place"):
            status = self._place("scatter", job, base, chunks, _flat(out, form), form)
        verdicts.watch("placing", status, np.arange(len(base)))
        self._pending.append((job, present, verdicts))
        if len(self._pending) >= MAX_PENDING:
            self.finish()

    def _format_for(self, out: Any, rows: DeviceBatch | None) -> ItemFormat:
        """The format for one job: in large units, if the read and where the rows lie allow it."""
        runtime = self.runtime
        if not self._seen:
            self._seen = True
            size = out.size * self.format.units
            if runtime.address(out) % WIDE.itemsize == 0:
                strides = self._strides(out)
                self._wide = self.format.widened(self.plan, self.program, strides, size)
        if self._wide is None or rows is None:
            return self._wide or self.format
        lies_well = not (rows.offset % WIDE.itemsize).any()
        return self._wide if lies_well and _starts_at_unit(runtime, rows.base) else self.format

    def _strides(self, out: Any) -> tuple[int, ...]:
        return tuple(s // self.format.unit.itemsize for s in out.strides)

    def _decode_rows(self, extents: Extents, rows: I64, verdicts: Verdicts) -> DeviceBatch:
        """Rows of the serialised chunks, aligned to units."""
        staged: Staged = extents.base
        offset, nbytes = extents.offset[rows], extents.nbytes[rows]
        batch = DeviceBatch(staged.device, offset, nbytes, host=staged.host, since=staged.since)
        steps = self._steps_for(len(rows), at_hand=staged.host is not None)
        for number in range(len(steps) - 1, -1, -1):
            before, seen, size = batch, len(verdicts.on_device), self.sizes[number]
            batch = steps[number].decode(self.runtime, batch, size, verdicts)
            if self._verifier is not None:
                self._verifier.check(self.runtime, number, before, batch, size, verdicts, seen)
        if not steps:
            for row in np.flatnonzero(batch.nbytes != self.nbytes).tolist():
                verdicts.refuse(
                    row,
                    self.program.serializer.name,
                    "wrong size",
                    expected=self.nbytes,
                    actual=int(batch.nbytes[row]),
                )
        return self._aligned(batch)

    def _steps_for(self, rows: int, *, at_hand: bool) -> list[DeviceStep]:
        """The steps for a job of so many rows, some of them on the host if the rule says so.

        Bytes that are on the device alone stay there.
        """
        if not at_hand and self.rule.mode == "auto":
            return self.steps
        reasons = self.rule.reasons(self.program, rows)
        names = frozenset(reasons)
        if names not in self._ruled:
            self._ruled[names] = make_steps(self.program, on_host=names)
        return self._ruled[names]

    def _tell_of_host(self, job: Job, present: I64, verdicts: Verdicts) -> None:
        """Say which chunks a device step left to the CPU's codec; an error where that is strict."""
        for codec, rows in verdicts.by_host:
            line = f"{codec!r} of {len(rows)} chunks, as the device has no decoder for such streams"
            if self.options.strict:
                key = job.key(job.lo + int(present[rows[0]]))
                raise DeviceError(f"strict: the CPU would do {line}", key=key, codec=codec)
            if self.options.tell is not None:
                self.options.tell(line)

    def _aligned(self, batch: DeviceBatch) -> DeviceBatch:
        if not (batch.offset % self.format.unit.itemsize).any():
            return batch
        offset, total = dense(batch.nbytes)
        base = self.runtime.empty(total)
        self._copy(batch, base, offset)
        return DeviceBatch(base, offset, batch.nbytes)

    def _copy(self, batch: DeviceBatch, target: Any, offset: I64) -> None:
        runtime = self.runtime
        src, dst, size = runtime.upload_tables([batch.offset, offset, batch.nbytes])
        status = self._status(len(batch))
        runtime.launch_rows("copy_segments", len(batch), batch.base, src, target, dst, size, status)

    def _place(
        self, kernel: str, job: Job, base: I64, chunks: Any, flat: Any, form: ItemFormat
    ) -> Any:
        """Launch ``scatter`` or ``gather`` for the rows of a job; their statuses."""
        tables, src_tab, dst_tab = self._tables[form.run]
        start, count = tables.placements(job.batch.index[job.lo : job.hi])
        runtime = self.runtime
        base_, start_, count_ = runtime.upload_tables([base, start, count])
        status = self._status(len(base))
        args = [chunks, base_, start_, count_, tables.nsets, src_tab, dst_tab]
        args += [form.units, int(form.swap)]
        if kernel == "scatter":
            args.append(self._fill_units(form, stored=False))
        runtime.launch_rows(kernel, len(base), *args, flat, status)
        return status

    def _upload_tables(
        self, strides: tuple[int, ...], *, last_only: bool, run: int = 1
    ) -> tuple[PlacementTables, Any, Any]:
        tables = PlacementTables(
            self.plan, self.program, self.format.units, strides, run=run, last_only=last_only
        )
        src, dst = self.runtime.upload_tables([tables.src, tables.dst])
        return tables, src, dst

    def _fill_units(self, form: ItemFormat, *, stored: bool) -> Any:
        if (stored, form.run) not in self._fill:
            bits = form.fill_units(self._fill_value, stored=stored)
            self._fill[stored, form.run] = self.runtime.upload(bits)
        return self._fill[stored, form.run]

    def _status(self, rows: int) -> Any:
        return self.runtime.xp.zeros(rows, np.int32)

    def finish(self) -> None:
        """Read back what went wrong, once; raise for the first damaged chunk."""
        pending, self._pending = self._pending, []
        for job, present, verdicts in pending:
            if verdicts.on_host:
                row = min(verdicts.on_host)
                codec, message, expected, actual = verdicts.on_host[row]
                raise _damaged(job, int(present[row]), codec, message, expected, actual)
        watched = [
            (job, present, codec, status, rows)
            for job, present, verdicts in pending
            for codec, status, rows in verdicts.on_device
        ]
        if not watched:
            return
        joined = self.runtime.download(self.runtime.xp.concatenate([w[3] for w in watched]))
        at = 0
        for job, present, codec, _, rows in watched:
            bad = np.flatnonzero(joined[at : at + len(rows)])
            if len(bad):
                row = int(rows[bad[0]])
                code = int(joined[at + bad[0]])
                where = row if codec == "placing" else int(present[row])
                message = STATUS.get(code, f"status {code}")
                raise _damaged(job, where, codec, message, None, None)
            at += len(rows)

    # ---- writing -------------------------------------------------------------------------------

    def encode(self, job: Job, existing: Extents | None, values: Any) -> list[U8 | None]:
        rows = job.hi - job.lo
        sizes = np.full(rows, self.nbytes, np.int64)
        offset, total = dense(sizes)
        chunks = self.runtime.empty(total)
        self._start_chunks(job, existing, chunks, offset)
        flat, strides = self._values(values)
        form = self.format
        if not self._tables:
            self._tables[form.run] = self._upload_tables(strides, last_only=True)
        base = offset // form.unit.itemsize
        self._place("gather", job, base, _units(chunks, form), flat, form)
        kept = np.arange(rows)
        if not self.keep_fill_chunks:
            kept = np.flatnonzero(~self._all_fill(chunks, offset))
        result: list[U8 | None] = [None] * rows
        if len(kept):
            batch = DeviceBatch(chunks, offset[kept], sizes[kept])
            with stage("encode"):
                for step in self.steps:
                    batch = step.encode(self.runtime, batch)
            for row, data in zip(kept.tolist(), self._bring_home(batch), strict=True):
                result[row] = data
        return result

    def _start_chunks(self, job: Job, existing: Extents | None, chunks: Any, offset: I64) -> None:
        """Fill value, and over it what is stored of chunks that are written only in part."""
        runtime, unit = self.runtime, self.format.unit.itemsize
        count = np.full(len(offset), self.nbytes // unit, np.int64)
        base, count_ = runtime.upload_tables([offset // unit, count])
        pattern = self._fill_units(self.format, stored=True)
        status = self._status(len(offset))
        runtime.launch_rows(
            "fill_rows",
            len(offset),
            _units(chunks, self.format),
            base,
            count_,
            pattern,
            self.format.units,
            status,
        )
        if existing is None:
            return
        present = present_rows(existing)
        if not len(present):
            return
        verdicts = Verdicts()
        old = self._decode_rows(existing, present, verdicts)
        self._pending.append((job, present, verdicts))
        self.finish()  # nothing may be written over a chunk that could not be read
        self._copy(old, chunks, offset[present])

    def _values(self, values: Any) -> tuple[Any, tuple[int, ...]]:
        """(flat memory in units, strides in units) of values in the type of results."""
        xp, form = self.runtime.xp, self.format
        if values.size and not any(values.strides):  # one value for all
            one = values[(slice(0, 1),) * values.ndim].reshape(-1).astype(form.result)
            return one.view(form.unit), (0,) * values.ndim
        values = xp.ascontiguousarray(values.astype(form.result, copy=False))
        if self.runtime.address(values) % form.unit.itemsize:
            values = values.copy()  # memory of another library may start anywhere
        strides = tuple(s // form.unit.itemsize for s in values.strides)
        return values.reshape(-1).view(form.unit), strides

    def _all_fill(self, chunks: Any, offset: I64) -> npt.NDArray[np.bool_]:
        """(rows,) which chunks hold nothing but fill value, bit by bit."""
        form, rows = self.format, len(offset)
        items = self.nbytes // form.unit.itemsize
        stride = (int(offset[1]) if rows > 1 else len(chunks)) // form.unit.itemsize
        grid = _units(chunks, form)[: rows * stride].reshape(rows, stride)[:, :items]
        pattern = self._fill_units(self.format, stored=True)
        same = grid.reshape(rows, items // form.units, form.units) == pattern
        flags: npt.NDArray[np.bool_] = self.runtime.download(same.all(axis=(1, 2)))
        return flags

    def _bring_home(self, batch: DeviceBatch) -> list[U8]:
        """Encoded rows on the host, in one copy."""
        offset, total = dense(batch.nbytes)
        packed = self.runtime.empty(total)
        self._copy(batch, packed, offset)
        host = self.runtime.download(packed)
        pairs = zip(offset.tolist(), batch.nbytes.tolist(), strict=True)
        return [host[start : start + size] for start, size in pairs]


def _units(raw: Any, form: ItemFormat) -> Any:
    """A byte buffer in units; a tail shorter than one is left out."""
    size = form.unit.itemsize
    return raw[: len(raw) // size * size].view(form.unit)


def _flat(array: Any, form: ItemFormat) -> Any:
    """The memory of a contiguous array in units."""
    order = array if array.flags.c_contiguous else array.T
    return order.reshape(-1).view(form.unit)


def _starts_at_unit(runtime: Runtime, raw: Any) -> bool:
    return runtime.address(raw) % WIDE.itemsize == 0


def _damaged(
    job: Job, row: int, codec: str, message: str, expected: int | None, actual: int | None
) -> ChunkDecodeError:
    key = job.key(job.lo + row)
    return ChunkDecodeError(
        f"chunk {key!r} cannot be decoded by {codec!r}: {message}",
        key=key,
        codec=codec,
        expected=expected,
        actual=actual,
    )


def _strict(rule: HostRule, program: Program) -> HostRule:
    """The rule for reads that leave nothing to the host."""
    if rule.mode == "host" and (reasons := rule.reasons(program, 1)):
        codec, reason = next(iter(reasons.items()))
        raise DeviceError(f"strict: {codec!r} would be decoded by the CPU: {reason}", codec=codec)
    return HostRule("device")


def require_format(program: Program) -> ItemFormat:
    """How items are moved.  Raises DeviceError for types that a device cannot hold."""
    form = item_format(program)
    if form is None:
        raise DeviceError(f"items of {program.spec.dtype} cannot be held by a device")
    return form
