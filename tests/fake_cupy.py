"""As much of CuPy as the CUDA device uses, on host memory: its lines run without a GPU.

Names, arguments and refusals are CuPy's (``test_fake_cupy.py`` compares them with CuPy where that
is installed): arrays never turn into NumPy's by themselves, types that CuPy lacks are refused, the
current stream and device belong to a thread.  Streams do everything at once and note what is asked
of them; memory is filled with a pattern; addresses are those of the host, so that kernels (compiled
for the host, with checked indices) and the stand-in for nvCOMP work on them.

Nothing is said of what runs in parallel, or of how fast.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np

POISON = 0xA5
TYPES = "?bhilqBHILQefdFD"
COUNT = 1
"""Devices that there are."""

log: list[Any] = []
"""What was asked of streams, in order: (stream, what)."""

_of_thread = threading.local()


def _check_type(dtype: Any) -> np.dtype[Any]:
    found = np.dtype(dtype)
    if found.char not in TYPES or not found.isnative:
        raise ValueError(f"Unsupported dtype {found}")
    return found


# ---- memory --------------------------------------------------------------------------------------


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self.device_id, self._owner = ptr, size, max(device_id, 0), owner


class MemoryPointer:
    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id

    def copy_from_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        assert type(mem) is int
        assert self.ptr + size <= self.mem.ptr + self.mem.size
        (stream or get_current_stream())._note("copy")
        ctypes.memmove(self.ptr, mem, size)


def get_allocator() -> Any:
    return vars(_of_thread).get("allocator", "the usual one")


@contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    before = get_allocator()
    _of_thread.allocator = allocator
    try:
        yield
    finally:
        _of_thread.allocator = before


class PinnedMemoryPointer(bytearray):
    """A buffer; CuPy's is larger than what is asked for, unless that is a power of two."""


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    return PinnedMemoryPointer(b"\xa5" * (1 << max(9, (size - 1).bit_length())))


# ---- streams -------------------------------------------------------------------------------------


class Event:
    made: ClassVar[list[Event]] = []
    late: ClassVar[bool] = False  # whether new ones have not happened yet

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        assert disable_timing  # else it costs more
        self.done = not Event.late
        self.log: list[Any] = []
        Event.made.append(self)
        del Event.made[:-1000]

    def record(self, stream: Any = None) -> None:
        self.log.append(stream or get_current_stream())
        del self.log[:-100]

    def synchronize(self) -> None:
        self.log.append("synchronize")
        del self.log[:-100]


class _BaseStream:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr, self.device_id = ptr, device_id
        self.log: list[Any] = []

    def _note(self, what: Any) -> None:
        self.log.append(what)
        del self.log[:-100]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> Any:
        if self.device_id not in (-1, Device().id):
            raise RuntimeError("the stream is of another device")
        _current().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current().pop()

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr

    def synchronize(self) -> None:
        self._note("synchronize")

    def wait_event(self, event: Event) -> None:
        self._note(("wait", event))


class Stream(_BaseStream):
    null: ClassVar[Stream]
    _made = 0

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
    ) -> None:
        Stream._made += not null
        super().__init__(0 if null else 4096 * Stream._made, -1 if null else Device().id)
        self.non_blocking, self.priority = non_blocking, priority

    @classmethod
    def from_external(cls, obj: Any) -> Stream:
        version, ptr = obj.__cuda_stream__()
        assert version == 0
        made = cls.__new__(cls)
        _BaseStream.__init__(made, ptr, -1)
        return made


class ExternalStream(_BaseStream):
    def __init__(self, ptr: int, device_id: int = -1) -> None:
        raise DeprecationWarning("Use Stream.from_external() instead")


def _current() -> list[_BaseStream]:
    streams = vars(_of_thread).setdefault("streams", [])
    if not streams:
        streams.append(Stream.null)
    return streams


def get_current_stream(device_id: int = -1) -> Any:
    return _current()[-1]


class Device:
    def __init__(self, device: int | None = None) -> None:
        self.id = vars(_of_thread).get("device", 0) if device is None else device

    def __enter__(self) -> Self:
        vars(_of_thread).setdefault("devices", []).append(vars(_of_thread).get("device", 0))
        _of_thread.device = self.id
        return self

    def __exit__(self, *_: object) -> None:
        _of_thread.device = _of_thread.devices.pop()

    def synchronize(self) -> None:
        """Nothing is ever left to do."""


# ---- arrays --------------------------------------------------------------------------------------


class Flags:
    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous


def _other(value: Any) -> Any:
    """An operand, as NumPy takes it; CuPy takes arrays of its own and numbers."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, int | float | complex | np.generic):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


class ndarray:  # noqa: N801  (CuPy's name)
    """CuPy's array, on host memory."""

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: Any = None,
        strides: Any = None,
        order: str = "C",
    ) -> None:
        dtype = _check_type(dtype)
        if memptr is None:
            self._host = np.empty(shape, dtype, order=order)  # type: ignore[call-overload]
            flat = self._host.reshape(-1, order="A").view(np.uint8)
            flat[...] = POISON
        else:
            size = int(np.prod(shape)) * dtype.itemsize
            raw = (ctypes.c_char * size).from_address(memptr.ptr)
            self._host = np.ndarray(shape, dtype, raw, strides=strides)
            self._keep = memptr
        self._number = Device().id

    @classmethod
    def _of(cls, host: np.ndarray, number: int | None = None) -> ndarray:
        made = cls.__new__(cls)
        made._host = host
        made._number = Device().id if number is None else number
        return made

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    ndim = property(lambda self: self._host.ndim)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: Flags(self._host.flags))
    device = property(lambda self: Device(self._number))
    T = property(lambda self: self._of(self._host.T, self._number))

    @property
    def data(self) -> MemoryPointer:
        root = self._host
        while isinstance(root.base, np.ndarray):
            root = root.base
        memory = UnownedMemory(_address(root), root.nbytes, root, self._number)
        return MemoryPointer(memory, _address(self._host) - memory.ptr)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (_address(self._host), False),
            "strides": None if self._host.flags.c_contiguous else self.strides,
            "stream": 1,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._number

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        own = getattr(sys.modules[__name__], func.__name__, None)
        if own is None or any(not issubclass(t, ndarray) for t in types):
            return NotImplemented
        return own(*args, **kwargs)

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, index: Any) -> ndarray:
        found = self._host[index]
        # An item is an array without axes, in the same memory; NumPy would copy it.
        return self._of(
            found if isinstance(found, np.ndarray) else self._host[(*_items(index), ...)]
        )

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[index] = _other(value)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> Any:
        return self._of(np.asarray(self._host == _other(other)))

    def __ne__(self, other: object) -> Any:
        return self._of(np.asarray(self._host != _other(other)))

    __hash__ = None  # type: ignore[assignment]

    def __mul__(self, other: Any) -> Any:
        return self._of(np.asarray(self._host * _other(other)))

    def __or__(self, other: Any) -> Any:
        return self._of(np.asarray(self._host | _other(other)))

    def __int__(self) -> int:
        return int(self._host)

    def all(self, axis: Any = None) -> Any:
        return self._of(np.asarray(self._host.all(axis=axis)))

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:  # noqa: A002
        return self._of(self._host.view(_check_type(dtype)), self._number)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        return self._of(self._host.reshape(*shape, order=order), self._number)  # type: ignore[arg-type]

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None,
               copy: bool = True) -> ndarray:  # fmt: skip
        dtype = _check_type(dtype)
        return self if not copy and dtype == self.dtype else self._of(self._host.astype(dtype))

    def copy(self, order: str = "C") -> ndarray:
        return self._of(self._host.copy(order=order), Device().id)  # type: ignore[arg-type]

    def fill(self, value: Any) -> None:
        self._host.fill(value)

    def set(self, arr: Any, stream: Any = None) -> None:
        if type(arr) is not np.ndarray:
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError("Shape mismatch")
        (stream or get_current_stream())._note("copy")
        self._host[...] = arr

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> np.ndarray:
        stream = stream or get_current_stream()
        stream._note("synchronize")
        return np.array(self._host, order=order)  # type: ignore[call-overload,no-any-return]


def _items(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _address(host: np.ndarray) -> int:
    return int(host.__array_interface__["data"][0])


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    made = ndarray(shape, dtype, order=order)
    made.fill(0)
    return made


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False) -> ndarray:
    if isinstance(a, ndarray):
        return a
    described = getattr(a, "__cuda_array_interface__", None)
    if described is not None:
        memory = UnownedMemory(described["data"][0], 1 << 60, a)
        return ndarray(described["shape"], described["typestr"], MemoryPointer(memory, 0))
    host = np.asarray(a, dtype)
    _check_type(host.dtype)
    return ndarray._of(host.copy())


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    return a if a.flags.c_contiguous else a.copy()


def concatenate(tup: Any, axis: int = 0) -> ndarray:
    return ndarray._of(np.concatenate([part._host for part in tup], axis))


def broadcast_to(array: ndarray, shape: Any) -> ndarray:
    return array._of(np.broadcast_to(array._host, shape), array._number)


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    kind, _ = array.__dlpack_device__()
    if kind not in (2, 13):
        raise TypeError(f"Unsupported array type: {kind}")
    found: ndarray = array.array
    return found


class ElementwiseKernel:
    """The one that copies."""

    def __init__(
        self, in_params: str, out_params: str, operation: str, name: str = "kernel"
    ) -> None:
        assert operation == "y = x"
        self.source, self.target = in_params.split(), out_params.split()
        assert self.source[0] == self.target[0]

    def __call__(self, x: ndarray, y: ndarray, stream: Any = None) -> ndarray:
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        (stream or get_current_stream())._note("kernel")
        y._host[...] = x._host
        return y


def get_default_memory_pool() -> Any:
    return SimpleNamespace(free_all_blocks=lambda: None)


Stream.null = Stream(null=True)

cuda = SimpleNamespace(
    Device=Device,
    Event=Event,
    ExternalStream=ExternalStream,
    MemoryPointer=MemoryPointer,
    Stream=Stream,
    UnownedMemory=UnownedMemory,
    alloc_pinned_memory=alloc_pinned_memory,
    get_allocator=get_allocator,
    get_current_stream=get_current_stream,
    is_available=lambda: True,
    nvtx=SimpleNamespace(available=False),
    runtime=SimpleNamespace(getDeviceCount=lambda: COUNT, memGetInfo=lambda: (1 << 30, 1 << 31)),
    using_allocator=using_allocator,
)


# ---- in the place of CuPy, of Numba's launches and of nvCOMP -------------------------------------


class Launcher:
    """A kernel whose launches run on the host, on what the addresses point to."""

    shapes: ClassVar[list[Any]] = []

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, shape: tuple[int, int, Any]) -> Any:
        blocks, block, stream = shape
        assert blocks >= 128
        assert block % 32 == 0
        assert stream == ("external", get_current_stream().ptr)

        def run(*args: Any) -> None:
            Launcher.shapes.append(shape)
            del Launcher.shapes[:-1000]
            given = [_argument(arg) for arg in args]
            # One of the variants that are known; for others Numba would compile one more.
            assert tuple(map(_code, given)) in self.kernel.argument_types(), self.kernel.name
            self.kernel.njit(*given)

        return run

    def compile(self, signature: Any) -> None:
        Launcher.shapes.append(signature)


def _code(arg: Any) -> str:
    if isinstance(arg, np.ndarray):
        return f"{arg.dtype.str[1:]}[]"
    return {int: "i8", float: "f8"}[type(arg)]


def _argument(arg: Any) -> Any:
    described = getattr(arg, "__cuda_array_interface__", None)
    if described is None:
        assert type(arg) in (int, float), type(arg)
        return arg
    from numba import from_dtype, types

    dtype = np.dtype(described["typestr"])
    assert arg._numba_type_ == types.Array(from_dtype(dtype), 1, "C")
    assert described["strides"] is None
    assert described["stream"] is None
    address, (length,) = described["data"][0], described["shape"]
    assert address
    assert address % dtype.itemsize == 0
    raw = (ctypes.c_char * (length * dtype.itemsize)).from_address(address)
    return np.frombuffer(raw, dtype)


def install(monkeypatch: Any) -> None:
    """Let the CUDA device work on this module, as if there were one GPU."""
    import device_suite
    from numba import cuda as numba_cuda
    from zarr_gpu.kernels import registry

    from zarr_gpu import devices
    from zarr_gpu.codecs import nvcomp
    from zarr_gpu.codecs.nvcomp_host import HostNvComp
    from zarr_gpu.devices import cuda_runtime

    kernels = registry.get
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            kernel = kernels(name)
            made[name] = SimpleNamespace(
                cuda=Launcher(kernel), njit=kernel.njit, signatures=kernel.signatures
            )
        return made[name]

    library = HostNvComp()
    monkeypatch.setattr(registry, "get", get)
    monkeypatch.setattr(numba_cuda, "external_stream", lambda ptr: ("external", ptr))
    monkeypatch.setattr(nvcomp, "load", lambda: library)
    for module in (cuda_runtime, device_suite):
        monkeypatch.setattr(module, "cuda_problem", lambda: None)
    monkeypatch.setattr(cuda_runtime, "_cupy", lambda: sys.modules[__name__])
    monkeypatch.setattr(cuda_runtime, "_of_thread", threading.local())
    monkeypatch.setattr(cuda_runtime, "_upload_kernels", {})
    monkeypatch.setattr(
        cuda_runtime.CudaRuntime, "_staged", type(cuda_runtime.CudaRuntime._staged)()
    )
    monkeypatch.setattr(devices, "_devices", {})
    monkeypatch.setattr(sys.modules[__name__], "_of_thread", threading.local())
    Event.made.clear()
    Launcher.shapes.clear()
