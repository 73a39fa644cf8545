"""Kernels by name: plain body, CUDA kernel, CPU function, signatures.

A kernel is written once, as a plain Python body over ``(tid, nthreads, *args)``.  ``Kernel.cuda``
runs it with one ``tid`` per thread of a CUDA grid (or of Numba's simulator of one), ``Kernel.njit``
compiles it for the CPU with every index checked, where one thread does all the work.  Both take
``*args`` alone.  Numba is imported on first use of a kernel, not with this module.

Imports the kernel modules only; called by runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Kernel", "get", "names"]

_MODULES = {
    "scatter": "moves",
    "gather": "moves",
    "fill_rows": "moves",
    "copy_segments": "moves",
    "byteswap": "moves",
    "write_u32": "moves",
    "blosc_walk_count": "blosc",
    "blosc_walk_fill": "blosc",
    "blosc_assemble": "shuffles",
    "shuffle_blocks": "shuffles",
    "lz4_decode": "streams",
    "blosclz_decode": "streams",
    "delta_sums": "deltas",
    "delta_decode": "deltas",
    "delta_decode_float": "deltas",
    "delta_encode": "deltas",
    "delta_encode_float": "deltas",
    "cast": "scales",
    "cast_int": "scales",
    "fixedscaleoffset_decode": "scales",
    "fixedscaleoffset_encode": "scales",
    "packbits_decode": "packing",
    "packbits_encode": "packing",
    "crc_rows": "checksums",
    "crc_join": "checksums",
    "adler32_rows": "checksums",
    "adler32_join": "checksums",
    "check_stored_u32": "checksums",
}

# What the letters of a signature stand for; T and D are filled in by its variants.
_LETTERS = {"n": "i8", "x": "f8", "i": "i8[]", "s": "i4[]", "b": "u1[]", "q": "u8[]", "w": "u4[]"}

_made: dict[str, Kernel] = {}


def names() -> tuple[str, ...]:
    """All kernels."""
    return tuple(_MODULES)


def get(name: str) -> Kernel:
    """The kernel called ``name``; KeyError where there is none."""
    if name not in _made:
        _made[name] = Kernel(name)
    return _made[name]


class Kernel:
    """One kernel in its forms.

    Parameters
    ----------
    name
        One of ``names()``.

    Examples
    --------
    >>> from zarr_gpu.kernels import registry
    >>> registry.get("lz4_decode").name
    'lz4_decode'
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._module_name = _MODULES[name]
        self._cuda: Any = None
        self._njit: Callable[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Kernel {self.name!r}>"

    @property
    def body(self) -> Callable[..., None]:
        """The plain function of ``(tid, nthreads, *args)``; needs Numba all the same."""
        body: Callable[..., None] = getattr(self._module(), self.name)
        return body

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments."""
        code = self.body.__code__
        return tuple(code.co_varnames[2 : code.co_argcount])

    @property
    def cuda(self) -> Any:
        """The CUDA kernel: ``kernel.cuda[blocks, threads, stream](*args)``."""
        if self._cuda is None:
            from numba import config, cuda

            made = cuda.jit(cache=True)(self.entry())
            self._cuda = _Simulated(made) if config.ENABLE_CUDASIM else made
        return self._cuda

    @property
    def njit(self) -> Callable[..., None]:
        """The CPU function of ``*args``, with checked indices and without the GIL."""
        if self._njit is None:
            import numba

            make = numba.njit(boundscheck=True, nogil=True, error_model="numpy", cache=True)
            compiled = make(self.body)

            def run(*args: Any) -> None:
                compiled(0, 1, *args)

            self._njit = run
        return self._njit

    @property
    def signatures(self) -> list[Any]:
        """Numba signatures of the CUDA kernel that are worth compiling ahead of time."""
        from numba import types

        found = []
        for codes in self.argument_types():
            args = []
            for code in codes:
                scalar = getattr(types, _NUMBA_NAMES[code.removesuffix("[]")])
                args.append(types.Array(scalar, 1, "C") if code.endswith("[]") else scalar)
            found.append(types.void(*args))
        return found

    def argument_types(self) -> list[tuple[str, ...]]:
        """The same as NumPy type codes, ``[]`` behind those of arrays."""
        letters, variants = self._module().SIGNATURES[self.name]
        found = []
        for variant in variants or ("",):
            types = dict(_LETTERS)
            for letter, code in zip("TD", variant.split(), strict=False):
                types[letter] = f"{code}[]"
            found.append(tuple(types[letter] for letter in letters.split()))
        return found

    def entry(self) -> Any:
        """The Python function that becomes the CUDA kernel: finds its thread, calls the body."""
        from numba import config, cuda

        body = self.body
        code = body.__code__
        args = ", ".join(self.arguments)
        call = f"body(cuda.grid(1), cuda.gridsize(1), {args})"
        if config.ENABLE_CUDASIM:  # Python's numbers warn where those of a machine wrap around
            call = f"with errstate(all='ignore'): {call}"
        text = f"def {self.name}({args}):\n {call}\n"
        space = {
            "__name__": self._module().__name__,
            "body": cuda.jit(device=True)(body),
            "cuda": cuda,
            "errstate": np.errstate,
        }
        # The file name is that of the body: there Numba keeps its disk cache, and whether the
        # cache is still good it tells by the age of that file.
        exec(compile(text, code.co_filename, "exec"), space)  # noqa: S102
        return space[self.name]

    def _module(self) -> Any:
        # Only now, because they import Numba.
        from . import (  # noqa: TID251 (a relative name of the mapped package)
            blosc,
            checksums,
            deltas,
            moves,
            packing,
            scales,
            shuffles,
            streams,
        )

        modules = (blosc, checksums, deltas, moves, packing, scales, shuffles, streams)
        return next(m for m in modules if m.__name__.endswith("." + self._module_name))


class _Simulated:
    """A kernel of the simulator that works on the very arrays it is given.

    The simulator itself copies every array in and out, which breaks arguments that share memory.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, configuration: Any) -> Callable[..., None]:
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        def run(*args: Any) -> None:
            wrapped = [FakeCUDAArray(a) if isinstance(a, np.ndarray) else a for a in args]
            self._kernel[configuration](*wrapped)

        return run


_NUMBA_NAMES = {
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "f4": "float32",
    "f8": "float64",
}
