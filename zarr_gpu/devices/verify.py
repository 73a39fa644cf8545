"""Holding what a device decoded against what the CPU's codecs make of the same bytes.

Step by step, so that a difference names the codec that made it: the CPU decodes what the device
had before the step, and the outcome is compared with what the device has behind it.  Costs
downloads and the CPU's time; for arrays that are opened with ``verify``.

Imports the device steps; used by the lanes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zarr_gpu.codecs.chain import Program
from zarr_gpu.codecs.device_host import HostStep
from zarr_gpu.codecs.device_rows import live_rows, read_rows
from zarr_gpu.codecs.device_steps import make_steps
from zarr_gpu.codecs.runtime import DeviceBatch, Runtime, Verdicts

__all__ = ["Verifier"]

I64 = npt.NDArray[np.int64]


class Verifier:
    """Checks the steps of one program.

    Parameters
    ----------
    program
        What the device runs.
    every
        Check every row; else only those that the device reports as damaged.
    """

    def __init__(self, program: Program, *, every: bool) -> None:
        self._every = every
        self._steps = []
        for step in make_steps(program, on_host={codec.name for codec in program.codecs}):
            if isinstance(step, HostStep):
                step.decoded_stay = True
            self._steps.append(step)

    def check(
        self,
        runtime: Runtime,
        number: int,
        before: DeviceBatch,
        after: DeviceBatch,
        size: int,
        verdicts: Verdicts,
        seen: int,
    ) -> None:
        """Settle what step ``number`` left in ``verdicts.on_device`` from position ``seen`` on.

        Rows that the CPU refuses, or of which it makes something else, are refused; all others are
        right, whatever the device said of them.
        """
        suspects = _suspects(runtime, verdicts, seen)
        del verdicts.on_device[seen:]
        rows = live_rows(before, verdicts)
        if not self._every:
            rows = rows[np.isin(rows, suspects)]
        if not len(rows):
            return
        part = DeviceBatch(before.base, before.offset[rows], before.nbytes[rows], before.host)
        found = Verdicts()
        step = self._steps[number]
        wanted = read_rows(runtime, step.decode(runtime, part, size, found), np.arange(len(rows)))
        got = read_rows(runtime, after, rows)
        for i, row in enumerate(rows.tolist()):
            if i in found.on_host:
                codec, message, expected, actual = found.on_host[i]
                verdicts.refuse(row, codec, message, expected=expected, actual=actual)
            elif not np.array_equal(got[i], wanted[i]):
                verdicts.refuse(
                    row, step.codec, "the device and the CPU make different bytes of it"
                )


def _suspects(runtime: Runtime, verdicts: Verdicts, seen: int) -> I64:
    """Rows whose status is not 0; one download."""
    watched = verdicts.on_device[seen:]
    if not watched:
        return np.empty(0, np.int64)
    status = runtime.download(runtime.xp.concatenate([status for _, status, _ in watched]))
    return np.unique(np.concatenate([rows for _, _, rows in watched])[status != 0])
