"""Settings of the process and of one array.

``config`` holds the process's settings: defaults, then environment variables
(``ZARR_GPU_ARRAY__ORDER=F`` is the key ``array.order``), then what ``config.set`` says.  A plain
call of ``config.set`` changes the process; as a ``with`` block it changes the current thread (or
task) alone, and only inside the block.  :class:`ArrayConfig` holds the run-time behaviour of one
array.  Imports :mod:`zarr_gpu.errors` only; read by every layer.

The keys, all of them (anything else is an error):

============================= ======== ==========================================================
``default_zarr_format``       3        format of new nodes where none is named
``array.order``               "C"      memory order of results
``array.write_empty_chunks``  False    store chunks that hold nothing but the fill value
``array.read_missing_chunks`` True     absent chunks read as the fill value (False: an error)
``array.strict``              False    leave no codec and no type of an array to the CPU: an error
``array.verify``              False    hold what a GPU decoded against the CPU's codecs: True for
                                       chunks that it reports as damaged, "all" for every chunk
``json_indent``               2        indentation of metadata documents, None for one line
``threads``                   0        worker threads of one read or write, 0 = usable cores
``device``                    "cpu"    device of nodes opened without ``device=``; "auto" takes CUDA
                                       where it can be used
``decode.max_variable_bytes`` 2 GiB    largest decoded chunk of a variable-length type
``cpu.compiled``              "auto"   read and write by loops of Numba: "auto" once enough chunks
                                       were read that loading it pays (``warmup("cpu")`` loads it);
                                       a process in the background compiles it where need be
``cpu.recycle_bytes``         0        memory of large results that are gone, kept for those to come
``gpu.job_bytes``             128 MiB  decoded bytes that a GPU handles at a time
``gpu.slots``                 3        jobs of one read in flight: one decoded, the others fetched
``gpu.readers``               0        threads that fetch for a GPU, 0 = as many as cores, less two,
                                       but 8 at least and 16 at most
``gpu.staging``               "auto"   how files reach a GPU: "pinned" memory and a copy, "kvikio",
                                       or "auto": kvikio where GPUDirect Storage is on
``gpu.host_rule``             "auto"   few large streams are decoded on the CPU; "device": never,
                                       "host": always (see ``devices/rules.py``)
``gpu.host_below_streams``    None     how many are few; None: by codec
``gpu.host_stream_bytes``     None     how large is large (decoded bytes); None: by codec
============================= ======== ==========================================================

Memory that a read needs on a GPU beyond its result is some ``gpu.slots`` encoded jobs and, of one
job, the encoded, the decompressed and the filtered bytes with the scratch memory of nvCOMP (for
Zstandard three times the decoded bytes, at most 1 GiB).
"""

from __future__ import annotations

import contextvars
import json
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from zarr_gpu.errors import MetadataError, ZarrUserWarning

__all__ = ["ArrayConfig", "Config", "config", "usable_threads"]

_PREFIX = "ZARR_GPU_"
_NO_SETTINGS = frozenset(["ZARR_GPU_NATIVE"])  # is read by codecs.native
_ABSENT: Any = object()


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_limit(value: object) -> bool:
    return value is None or (_is_int(value) and value >= 0)  # type: ignore[operator]


# key -> (default, test of a value, what a value must be)
_SETTINGS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "default_zarr_format": (3, lambda v: _is_int(v) and v in (2, 3), "2 or 3"),
    "array.order": ("C", lambda v: v in ("C", "F"), '"C" or "F"'),
    "array.write_empty_chunks": (False, _is_bool, "true or false"),
    "array.read_missing_chunks": (True, _is_bool, "true or false"),
    "array.strict": (False, _is_bool, "true or false"),
    "array.verify": (False, lambda v: _is_bool(v) or v == "all", 'true, false or "all"'),
    "json_indent": (2, lambda v: v is None or (_is_int(v) and 0 <= v <= 64), "None or 0 to 64"),
    "threads": (0, lambda v: v is None or (_is_int(v) and v >= 0), "None or a number from 0 up"),
    # Not "auto" as long as the CUDA device has not been run on a GPU.
    "device": ("cpu", lambda v: isinstance(v, str) and v != "", "the name of a device"),
    "decode.max_variable_bytes": (2 << 30, lambda v: _is_int(v) and v > 0, "a number above 0"),
    "cpu.compiled": ("auto", lambda v: v in ("auto", True, False), '"auto", true or false'),
    "cpu.recycle_bytes": (0, lambda v: _is_int(v) and v >= 0, "a number from 0 up"),
    "gpu.job_bytes": (128 << 20, lambda v: _is_int(v) and v > 0, "a number above 0"),
    "gpu.slots": (3, lambda v: _is_int(v) and 1 <= v <= 64, "1 to 64"),
    "gpu.readers": (0, lambda v: _is_int(v) and 0 <= v <= 1024, "0 to 1024"),
    "gpu.staging": (
        "auto",
        lambda v: v in ("auto", "pinned", "kvikio"),
        '"auto", "pinned" or "kvikio"',
    ),
    "gpu.host_rule": (
        "auto",
        lambda v: v in ("auto", "device", "host"),
        '"auto", "device" or "host"',
    ),
    "gpu.host_below_streams": (None, _is_limit, "None or a number from 0 up"),
    "gpu.host_stream_bytes": (None, _is_limit, "None or a number from 0 up"),
}


def _check(key: str, value: Any, source: str) -> Any:
    """``value`` if it may be given to ``key``."""
    try:
        _, accepts, wanted = _SETTINGS[key]
    except (KeyError, TypeError):
        raise MetadataError(
            f"{source}: there is no setting {key!r}; there are {', '.join(_SETTINGS)}"
        ) from None
    if not accepts(value):
        raise MetadataError(f"{source}: {key} must be {wanted}, got {value!r}")
    return value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: ``{"array": {"order": "F"}}`` -> ``{"array.order": "F"}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{key}."))
        else:
            flat[key] = value
    return flat


def _read_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if not variable.startswith(_PREFIX) or variable in _NO_SETTINGS:
            continue
        key = variable.removeprefix(_PREFIX).lower().replace("__", ".")
        if key not in _SETTINGS:
            # A later release, or another program, may use a variable that is unknown here.
            warnings.warn(f"{variable} names no setting", ZarrUserWarning, stacklevel=4)
            continue
        spoken = {"True": "true", "False": "false", "None": "null"}.get(text, text)
        try:
            value: Any = json.loads(spoken)
        except ValueError:
            value = text
        found[key] = _check(key, value, f"environment variable {variable}")
    return found


# What `with config.set(...)` says in this context; None where nothing is said.
_local: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar(
    "zarr_gpu_config", default=None
)


class _Change:
    """The result of ``Config.set``: in force already; as a context manager, undone at the end."""

    def __init__(
        self, owner: Config, values: dict[str, Any], withdraw: Callable[[_Change], None]
    ) -> None:
        self._owner = owner
        self._values = values
        self._withdraw = withdraw
        self._tokens: list[contextvars.Token[dict[str, Any] | None]] = []

    def __enter__(self) -> Config:
        self._withdraw(self)  # from the process; from here on this context alone sees it
        self._tokens.append(_local.set({**(_local.get() or {}), **self._values}))
        return self._owner

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _local.reset(self._tokens.pop())


class Config:
    """Nested settings; see the module's text for the keys.

    Examples
    --------
    >>> from zarr_gpu import config
    >>> config.get("array.order")
    'C'
    >>> with config.set({"array.order": "F"}):
    ...     config.get("array.order")
    'F'
    >>> config.get("array.order")
    'C'
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._values: dict[str, Any] | None = None  # in force for the process; None: to be read
        self._base: dict[str, Any] = {}
        self._changes: list[tuple[weakref.ref[_Change], dict[str, Any]]] = []
        self._array: tuple[dict[str, Any], ArrayConfig] | None = None

    def _load(self) -> dict[str, Any]:
        with self._lock:
            if self._values is None:
                self._base = {key: default for key, (default, _, _) in _SETTINGS.items()}
                self._base.update(_read_environment())
                self._changes = []
                self._values = dict(self._base)
            return self._values

    def _rebuild(self) -> None:
        """Recompute the values; changes that nobody can withdraw any more join the base."""
        while self._changes and self._changes[0][0]() is None:
            self._base.update(self._changes.pop(0)[1])
        values = dict(self._base)
        for _, changed in self._changes:
            values.update(changed)
        self._values = values

    def _withdraw(self, change: _Change) -> None:
        with self._lock:
            self._changes = [entry for entry in self._changes if entry[0]() is not change]
            if self._values is not None:
                self._rebuild()

    def get(self, key: str, default: Any = _ABSENT) -> Any:
        """The value of ``key``, or a nested dict for the first part of a dotted key.

        Raises
        ------
        MetadataError
            There is no such setting and no ``default`` was given.
        """
        values = self._values or self._load()
        local = _local.get()
        if local is not None and key in local:
            return local[key]
        if key in values:
            return values[key]
        part = {
            k.removeprefix(f"{key}."): v for k, v in self._flat().items() if k.startswith(f"{key}.")
        }
        if part:
            return part
        if default is not _ABSENT:
            return default
        return _check(key, None, "config.get")

    def set(self, values: Mapping[str, Any] | None = None, **named: Any) -> _Change:
        """Change settings, for the process or, as a ``with`` block, for the block alone.

        Parameters
        ----------
        values
            Dotted keys or nested mappings.
        **named
            The same with ``__`` for the dot: ``array__order="F"``.

        Raises
        ------
        MetadataError
            A key is unknown or a value unfit; nothing is changed then.
        """
        flat = _flatten(values or {})
        flat.update({name.replace("__", "."): value for name, value in named.items()})
        for key, value in flat.items():
            _check(key, value, "config.set")
        change = _Change(self, flat, self._withdraw)
        with self._lock:
            self._load()
            self._changes.append((weakref.ref(change), flat))
            self._rebuild()
        return change

    def reset(self) -> None:
        """Back to the defaults and the environment, read anew."""
        with self._lock:
            self._values = None
            self._changes = []

    def array_config(self) -> ArrayConfig:
        """What the settings ``array.*`` amount to; made anew only when settings have changed."""
        known = self._array
        if known is None or known[0] is not self._values or _local.get() is not None:
            values = self._values or self._load()  # replaced as a whole at every change
            known = values, ArrayConfig.from_dict({})
            if _local.get() is None:
                self._array = known
        return known[1]

    def _flat(self) -> dict[str, Any]:
        return {**(self._values or self._load()), **(_local.get() or {})}

    def to_dict(self) -> dict[str, Any]:
        """All settings in force here, nested."""
        nested: dict[str, Any] = {}
        for key, value in self._flat().items():
            *parents, name = key.split(".")
            level = nested
            for parent in parents:
                level = level.setdefault(parent, {})
            level[name] = value
        return nested

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def __repr__(self) -> str:
        return f"Config({self.to_dict()})"


config = Config()


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """How one array behaves at run time; never stored.

    Parameters
    ----------
    order
        Memory order of results, "C" or "F".
    write_empty_chunks
        Store chunks that hold nothing but the fill value.
    read_missing_chunks
        Read absent chunks as the fill value; if False they raise ``ChunkNotFoundError``.
    strict
        Raise ``DeviceError`` where the array's GPU would leave a codec to host threads, or the
        whole array to the CPU because it cannot hold such items.
    verify
        True: chunks that a GPU reports as damaged are decoded by the CPU as well, which has the
        last word on them; "all": every chunk is, and a difference is an error.  Slow.
    """

    order: Literal["C", "F"] = "C"
    write_empty_chunks: bool = False
    read_missing_chunks: bool = True
    strict: bool = False
    verify: bool | Literal["all"] = False

    def __post_init__(self) -> None:
        for name in self.__slots__:
            _check(f"array.{name}", getattr(self, name), "ArrayConfig")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Fields from ``values``, the rest from ``config``.

        Raises
        ------
        MetadataError
            A key is unknown or a value unfit.
        """
        fields = {name: config.get(f"array.{name}") for name in cls.__slots__}
        for name, value in values.items():
            if name not in fields:
                raise MetadataError(
                    f"config: an array has no setting {name!r}; it has {', '.join(fields)}"
                )
            fields[name] = value
        return cls(**fields)

    @classmethod
    def parse(cls, value: ArrayConfig | Mapping[str, Any] | None) -> ArrayConfig:
        """An ``ArrayConfig`` from whatever a ``config=`` argument was given."""
        if isinstance(value, ArrayConfig):
            return value
        if value is not None and not isinstance(value, Mapping):
            raise MetadataError(f"config: an ArrayConfig or a dict is needed, got {value!r}")
        return cls.from_dict(value) if value else config.array_config()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict."""
        return {name: getattr(self, name) for name in self.__slots__}


def usable_threads() -> int:
    """Threads to work with: the setting ``threads``, else the cores this process may use."""
    wanted = config.get("threads")
    if wanted:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
