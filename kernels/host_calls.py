"""C functions by address, and single moves of memory, for compiled loops on the host.

Addresses are arguments, not constants, so that what Numba compiles can be kept on disk.  Every
argument and result is passed as a 64-bit integer, which is how the calling conventions of 64-bit
machines pass integers and pointers; a result of type ``int`` has only 32 bits that mean anything.

Imports Numba; called by the loops of ``host_rows`` and ``host_files``.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "CLOSE",
    "CONTEXT",
    "COUNT",
    "DECODE",
    "DESCRIPTOR",
    "ERRNO",
    "FLAGS",
    "LSEEK",
    "MEMORY",
    "OPEN",
    "PART",
    "PATHS",
    "PREAD",
    "as_int",
    "call0",
    "call1",
    "call2",
    "call3",
    "call4",
    "call5",
    "call7",
    "fill",
    "load4",
    "move",
    "move1",
    "move2",
    "move4",
    "move8",
    "take",
]

# Positions in `functions`: addresses of the C library's, flags to open with, the decoder's.
# COUNT is a place for a number that a decoder returns: the array belongs to one thread.
OPEN, CLOSE, PREAD, LSEEK, ERRNO, FLAGS, DECODE, PART, CONTEXT, COUNT = range(10)

# What `files` are: a path for every key, one descriptor, or the values themselves in memory.
PATHS, DESCRIPTOR, MEMORY = 0, 1, 2

_WORD = ir.IntType(64)


@njit(nogil=True, error_model="numpy")
def as_int(result: Any) -> Any:
    """A result of C's type ``int``: the upper half of the word means nothing."""
    low = result & 0xFFFFFFFF
    return low - 0x100000000 if low >= 0x80000000 else low


def _call(count: int) -> Any:
    """A typing function and code of a call with ``count`` arguments."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_WORD, [_WORD] * count)
        function = builder.inttoptr(args[0], kind.as_pointer())
        return builder.call(function, list(args[1:]))

    return types.int64(*[types.int64] * (count + 1)), codegen


@intrinsic
def call0(typingctx: Any, address: Any) -> Any:
    """``address()``."""
    return _call(0)


@intrinsic
def call1(typingctx: Any, address: Any, a: Any) -> Any:
    """``address(a)``."""
    return _call(1)


@intrinsic
def call2(typingctx: Any, address: Any, a: Any, b: Any) -> Any:
    """``address(a, b)``."""
    return _call(2)


@intrinsic
def call3(typingctx: Any, address: Any, a: Any, b: Any, c: Any) -> Any:
    """``address(a, b, c)``."""
    return _call(3)


@intrinsic
def call4(typingctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """``address(a, b, c, d)``."""
    return _call(4)


@intrinsic
def call5(typingctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """``address(a, b, c, d, e)``."""
    return _call(5)


@intrinsic
def call7(
    typingctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any
) -> Any:
    """``address(a, b, c, d, e, f, g)``."""
    return _call(7)


@intrinsic
def move(typingctx: Any, dst: Any, src: Any, nbytes: Any) -> Any:
    """Copy ``nbytes`` from address ``src`` to address ``dst``; they do not overlap."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        to, of = (builder.inttoptr(arg, byte) for arg in args[:2])
        cgutils.raw_memcpy(builder, to, of, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def fill(typingctx: Any, dst: Any, value: Any, nbytes: Any) -> Any:
    """Set ``nbytes`` from address ``dst`` on to the byte ``value``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        byte = builder.trunc(args[1], ir.IntType(8))
        cgutils.memset(builder, to, args[2], byte)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def load4(typingctx: Any, address: Any) -> Any:
    """The 32-bit number at ``address``, sign extended."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.sext(builder.load(pointer, align=1), _WORD)

    return types.int64(types.int64), codegen


def _move(bits: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(bits).as_pointer()
        to, of = (builder.inttoptr(arg, kind) for arg in args)
        builder.store(builder.load(of, align=1), to, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def move1(typingctx: Any, dst: Any, src: Any) -> Any:
    """Copy one byte."""
    return _move(8)


@intrinsic
def move2(typingctx: Any, dst: Any, src: Any) -> Any:
    """Copy two bytes."""
    return _move(16)


@intrinsic
def move4(typingctx: Any, dst: Any, src: Any) -> Any:
    """Copy four bytes."""
    return _move(32)


@intrinsic
def move8(typingctx: Any, dst: Any, src: Any) -> Any:
    """Copy eight bytes."""
    return _move(64)


@intrinsic
def take(typingctx: Any, address: Any, count: Any) -> Any:
    """Add ``count`` to the word at ``address``, whoever else does so; what it was before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen
