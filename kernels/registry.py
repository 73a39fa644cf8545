"""Kernels by name: plain body, CUDA kernel, CPU function, signatures.

A kernel is written once, as a plain Python body over ``(tid, nthreads, *args)``.  ``Kernel.cuda``
runs it with one ``tid`` per thread of a CUDA grid (or of Numba's simulator of one), ``Kernel.njit``
compiles it for the CPU with every index checked, where one thread does all the work.  Both take
``*args`` alone.  Numba is imported on first use of these forms, by nothing else here.

Imports the modules of the kernels; called by runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

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

__all__ = ["Kernel", "get", "names"]

_MODULES = (moves, blosc, shuffles, streams, deltas, scales, packing, checksums)
_OF_FILTERS = (deltas, scales)
_HOMES = {name: module for module in _MODULES for name in module.SIGNATURES}

# What the letters of a signature stand for; T and D are filled in by its variants.
_LETTERS = {"n": "i8", "x": "f8", "i": "i8[]", "s": "i4[]", "b": "u1[]", "q": "u8[]", "w": "u4[]"}

_FUNCTION: Any = type(lambda: None)

_made: dict[str, Kernel] = {}


def names(*, usual: bool = False) -> tuple[str, ...]:
    """All kernels; or those that are worth compiling ahead of time.

    Number filters have a variant for every pair of types, which take minutes all together.
    """
    return tuple(name for name, home in _HOMES.items() if not (usual and home in _OF_FILTERS))


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
        self._home: Any = _HOMES[name]
        self._cuda: Any = None
        self._njit: Callable[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Kernel {self.name!r}>"

    @property
    def body(self) -> Any:
        """The plain function of ``(tid, nthreads, *args)``."""
        return getattr(self._home, self.name)

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

            options = {"boundscheck": True, "nogil": True, "error_model": "numpy"}
            body = bound(self.body, numba.njit(**options))
            compiled = numba.njit(cache=True, **options)(body)

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
        letters, variants = self._home.SIGNATURES[self.name]
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
        else:
            body = cuda.jit(device=True)(bound(body, cuda.jit(device=True)))
        text = f"def {self.name}({args}):\n {call}\n"
        space = {
            "__name__": self._home.__name__,
            "body": body,
            "cuda": cuda,
            "errstate": np.errstate,
        }
        # The file name is that of the body: there Numba keeps its disk cache, and whether the
        # cache is still good it tells by the age of that file.
        exec(compile(text, code.co_filename, "exec"), space)  # noqa: S102
        return space[self.name]


def bound(function: Any, wrap: Callable[[Any], Any]) -> Any:
    """The same function, with ``wrap`` around the functions of its module that it calls.

    Helpers are compiled with the options of the kernel that way; Numba would otherwise compile
    them with options of their own, without checks of indices among others.
    """
    made: dict[str, Any] = {}

    def remake(function: Any) -> Any:
        space = dict(function.__globals__)
        for name in function.__code__.co_names:
            helper = space.get(name)
            if isinstance(helper, _FUNCTION) and helper.__module__ == function.__module__:
                if name not in made:
                    made[name] = wrap(remake(helper))
                space[name] = made[name]
        copy = _FUNCTION(function.__code__, space, function.__name__, function.__defaults__)
        copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
        return copy

    return remake(function)


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
