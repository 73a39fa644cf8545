"""Copies between hierarchies and stores.

Arrays whose stored form stays the same are copied as they are stored, chunk by chunk, without being
decoded.  Imports ``group``, ``building``, ``node_changes`` and below; called by ``api``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np

from zarr_gpu.array import Array
from zarr_gpu.building import build_like
from zarr_gpu.errors import (
    ContainsArrayError,
    ContainsNodeError,
    InvalidKeyError,
    MetadataError,
)
from zarr_gpu.group import Group
from zarr_gpu.metadata import normalize_path
from zarr_gpu.node_changes import create_node, delete_node
from zarr_gpu.nodes import DOCUMENTS, join
from zarr_gpu.older_arguments import translate_arguments
from zarr_gpu.storage.base import Store
from zarr_gpu.storage.memory import MemoryStore
from zarr_gpu.storage.pool import map_ahead
from zarr_gpu.storage.wrappers import ReadOnlyStore

__all__ = ["copy_keys", "copy_members", "copy_node"]

Log = str | Callable[[str], object] | TextIO | None
Counts = tuple[int, int, int]
Progress = Callable[[int, int, int], object] | None

COPY_NBYTES = 16 << 20
COPY_KEYS = 500
"""How much of a copy between stores is written at once."""

_IF_EXISTS = ("raise", "replace", "skip", "skip_initialized")


class _Log:
    """Where a copy tells what it does: a function, a stream, the name of a file, or nowhere."""

    def __init__(self, log: Log, *, dry_run: bool) -> None:
        self._prefix = "dry run: " if dry_run else ""
        self._file: TextIO | None = None
        if log is None:
            self._write: Callable[[str], object] | None = None
        elif isinstance(log, str):
            self._file = Path(log).open("w", encoding="utf-8")  # noqa: SIM115  see __exit__
            self._write = self._print
        elif callable(log):
            self._write = log
        elif hasattr(log, "write"):
            self._write = lambda line: log.write(line + "\n")
        else:
            raise MetadataError(f"log: a function, a stream or a file name is needed, got {log!r}")

    def _print(self, line: str) -> None:
        print(line, file=self._file)

    def __call__(self, line: str) -> None:
        if self._write is not None:
            self._write(self._prefix + line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _check_if_exists(if_exists: str, allowed: tuple[str, ...] = _IF_EXISTS) -> None:
    if if_exists not in allowed:
        raise MetadataError(f"if_exists must be one of {', '.join(allowed)}, got {if_exists!r:.80}")


class _Copier:
    """One run of ``copy`` or ``copy_all``: its options and what it has counted."""

    def __init__(
        self,
        tell: _Log,
        *,
        shallow: bool,
        without_attrs: bool,
        if_exists: str,
        dry_run: bool,
        arguments: Mapping[str, Any],
    ) -> None:
        _check_if_exists(if_exists)
        self.tell = tell
        self.shallow = shallow
        self.without_attrs = without_attrs
        self.if_exists = if_exists
        self.dry_run = dry_run
        self.arguments = translate_arguments({}, arguments)
        self.copied = self.skipped = self.nbytes = 0

    @property
    def counts(self) -> Counts:
        return self.copied, self.skipped, self.nbytes

    def copy(self, source: Any, dest: Group | None, name: str, *, children: bool = True) -> None:
        """Copy one node; ``dest`` is None where a dry run has not created it."""
        if _is_array(source):
            self._copy_array(source, dest, name)
            return
        if not hasattr(source, "keys"):
            raise MetadataError(f"an array or a group is needed, got {source!r:.80}")
        existing = self._find(dest, name)
        if isinstance(existing, Array) and self._is_kept(existing):
            return
        group = self._make_group(source, dest, name, existing)
        if children:
            for below in list(source.keys()):
                self.copy(source[below], group, below, children=not self.shallow)

    def _find(self, dest: Group | None, name: str) -> Array | Group | None:
        found: Array | Group | None = None if dest is None else dest.get(name)
        return found

    def _is_kept(self, existing: Array | Group | None) -> bool:
        """Whether what is there already stays; raises where it must not be there."""
        if existing is None or self.if_exists == "replace":
            return False
        if self.if_exists == "raise":
            raise ContainsArrayError(
                f"there is something at {existing.name!r} already; see if_exists", key=existing.path
            )
        if self.if_exists == "skip_initialized" and isinstance(existing, Array):
            complete = existing.nchunks_initialized == existing.nchunks
            if not complete:
                return False
        self.skipped += 1
        self.tell(f"skip {existing.name}")
        return True

    def _copy_array(self, source: Any, dest: Group | None, name: str) -> None:
        existing = self._find(dest, name)
        if self._is_kept(existing):
            return
        nbytes = math.prod(source.shape) * np.dtype(source.dtype).itemsize
        self.tell(f"copy {getattr(source, 'name', name)} {tuple(source.shape)} {source.dtype}")
        self.copied += 1
        self.nbytes += nbytes
        if self.dry_run or dest is None:
            return
        attributes = {} if self.without_attrs else _attributes(source)
        same = isinstance(source, Array) and source.zarr_format == dest.zarr_format
        if same and not self.arguments:
            _copy_stored(source, dest, name, attributes)
        else:
            path = join(dest.path, name)
            arguments = {"attributes": attributes, **self.arguments, "overwrite": True}
            arguments.setdefault("config", dest.config)
            build_like(dest.store, path, source, zarr_format=dest.metadata.zarr_format, **arguments)
        dest.forget()

    def _make_group(
        self, source: Any, dest: Group | None, name: str, existing: Array | Group | None
    ) -> Group | None:
        self.tell(f"copy {getattr(source, 'name', name)}")
        self.copied += 1
        if self.dry_run or dest is None:
            return existing if isinstance(existing, Group) else None
        if isinstance(existing, Group):
            group = existing
        else:
            group = dest.create_group(name, overwrite=existing is not None)
        if not self.without_attrs and (attributes := _attributes(source)):
            group.attrs.update(attributes)
        return group


def _is_array(node: Any) -> bool:
    return isinstance(node, Array) or (hasattr(node, "shape") and hasattr(node, "dtype"))


def _attributes(node: Any) -> dict[str, Any]:
    found = getattr(node, "attrs", None)
    return {} if found is None else dict(found)


def _copy_stored(source: Array, dest: Group, name: str, attributes: Mapping[str, Any]) -> None:
    """Copy chunks as they are, and behind them the documents that make them an array."""
    path = join(dest.path, name)
    delete_node(dest.store, path)
    start = f"{source.path}/" if source.path else ""
    keys = (key[len(start) :] for key in source.store.list_prefix(source.path))
    chunks = [key for key in keys if key not in DOCUMENTS]
    dest.store.put_many(_values(source.store, start, chunks, f"{path}/"))
    create_node(dest.store, path, source.metadata.with_attributes(attributes))


def _values(
    store: Store, start: str, keys: Iterable[str], new_start: str
) -> Iterator[tuple[str, bytes]]:
    for key in keys:
        value = store.get(start + key)
        if value is not None:  # else deleted meanwhile
            yield new_start + key, value


def _same_place(one: Store, two: Store) -> bool:
    """Whether two stores hold the same values; memory stores are equal by contents alone."""
    while isinstance(one, ReadOnlyStore):
        one = one.store
    while isinstance(two, ReadOnlyStore):
        two = two.store
    if isinstance(one, MemoryStore) and isinstance(two, MemoryStore):
        return one.items is two.items
    return one == two


def _refuse_inside(source: Any, dest: Group, path: str) -> None:
    if isinstance(source, Group) and _same_place(source.store, dest.store):
        inside = not source.path or f"{path}/".startswith(f"{source.path}/")
        if inside:
            raise InvalidKeyError(f"cannot copy {source.name!r} into itself, to {path!r}")


def copy_node(
    source: Any,
    dest: Group,
    name: str | None = None,
    *,
    shallow: bool = False,
    without_attrs: bool = False,
    log: Log = None,
    if_exists: str = "raise",
    dry_run: bool = False,
    **create_arguments: Any,
) -> Counts:
    """Copy an array or a group; see :func:`zarr_gpu.copy`."""
    if not isinstance(dest, Group):
        raise MetadataError(f"dest must be a group, got {dest!r:.80}")
    if name is None:
        whole = str(getattr(source, "name", None) or "")
        name = whole.rstrip("/").rpartition("/")[2]
        if not name:
            raise MetadataError("name is needed: the source is the root of its store")
    name = normalize_path(name, creating=True, zarr_format=dest.zarr_format)
    _refuse_inside(source, dest, join(dest.path, name))
    options = {
        "without_attrs": without_attrs,
        "if_exists": if_exists,
        "shallow": shallow,
        "arguments": create_arguments,
    }
    return _run(lambda copier: copier.copy(source, dest, name), log, dry_run, options)


def copy_members(
    source: Any,
    dest: Group,
    *,
    shallow: bool = False,
    without_attrs: bool = False,
    log: Log = None,
    if_exists: str = "raise",
    dry_run: bool = False,
    **create_arguments: Any,
) -> Counts:
    """Copy all members of a group into another; see :func:`zarr_gpu.copy_all`."""
    if not isinstance(dest, Group):
        raise MetadataError(f"dest must be a group, got {dest!r:.80}")
    _refuse_inside(source, dest, dest.path)

    def work(copier: _Copier) -> None:
        for name in list(source.keys()):
            copier.copy(source[name], dest, name, children=not shallow)
        if not (without_attrs or copier.dry_run) and (attributes := _attributes(source)):
            dest.attrs.update(attributes)

    options = {
        "without_attrs": without_attrs,
        "if_exists": if_exists,
        "shallow": shallow,
        "arguments": create_arguments,
    }
    return _run(work, log, dry_run, options)


def _run(
    work: Callable[[_Copier], None], log: Log, dry_run: bool, options: Mapping[str, Any]
) -> Counts:
    if options["if_exists"] == "raise" and not dry_run:
        # What must not be there is found before anything is written.
        work(_Copier(_Log(None, dry_run=True), dry_run=True, **options))
    with _Log(log, dry_run=dry_run) as tell:
        copier = _Copier(tell, dry_run=dry_run, **options)
        work(copier)
        tell(f"done: {copier.copied} copied, {copier.skipped} skipped, {copier.nbytes} bytes")
    return copier.counts


def copy_keys(
    source: Store,
    dest: Store,
    source_path: str = "",
    dest_path: str = "",
    *,
    excludes: str | Iterable[str] = (),
    includes: str | Iterable[str] = (),
    if_exists: str = "raise",
    dry_run: bool = False,
    log: Log = None,
    progress: Progress = None,
) -> Counts:
    """Copy keys between stores; see :func:`zarr_gpu.copy_store`."""
    _check_if_exists(if_exists, _IF_EXISTS[:3])
    leave, take = _patterns(excludes), _patterns(includes)
    start = f"{source_path}/" if source_path else ""
    new_start = f"{dest_path}/" if dest_path else ""
    keys = [key[len(start) :] for key in source.list_prefix(source_path)]
    if _same_place(source, dest) and (new_start.startswith(start) or start.startswith(new_start)):
        raise InvalidKeyError(f"cannot copy {source_path!r} to {dest_path!r} in the same store")
    wanted = [
        key
        for key in keys
        if not any(p.search(start + key) for p in leave)
        and (not take or any(p.search(start + key) for p in take))
    ]
    # A document makes what lies beside it a node, so documents come last.
    wanted.sort(key=lambda key: key.rpartition("/")[2] in DOCUMENTS)
    there = _there(dest, dest_path, [new_start + key for key in wanted])
    if if_exists == "raise" and there:
        first = min(there)
        raise ContainsNodeError(f"{first!r} exists; see if_exists", key=first)
    copied = skipped = nbytes = 0

    with _Log(log, dry_run=dry_run) as tell:

        def values() -> Iterator[tuple[str, bytes]]:
            nonlocal copied, skipped, nbytes
            new = [key for key in wanted if if_exists != "skip" or new_start + key not in there]
            skipped = len(wanted) - len(new)
            for key in sorted(there if if_exists == "skip" else ()):
                tell(f"skip {key}")
            done = skipped
            read = map_ahead(lambda key: source.get(start + key), new, source.concurrency)
            for key, value in zip(new, read, strict=True):
                done += 1
                if value is None:
                    continue  # deleted meanwhile
                tell(f"copy {new_start + key}")
                yield new_start + key, value
                copied += 1
                nbytes += len(value)
                if progress is not None:
                    progress(done, len(wanted), nbytes)

        for block in _blocks(values()):
            if not dry_run:
                dest.put_many(block)
        if progress is not None:
            progress(len(wanted), len(wanted), nbytes)
        tell(f"done: {copied} copied, {skipped} skipped, {nbytes} bytes")
    return copied, skipped, nbytes


def _there(store: Store, prefix: str, keys: list[str]) -> set[str]:
    """Those of ``keys``, all below ``prefix``, that the store holds."""
    if store.supports_listing and len(keys) > 1:
        return set(keys).intersection(store.list_prefix(prefix))
    return {key for key in keys if store.exists(key)}


def _blocks(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Some values at a time: what is one batch, in a store one transaction, stays short."""
    block: list[tuple[str, bytes]] = []
    nbytes = 0
    for key, value in items:
        block.append((key, value))
        nbytes += len(value)
        if nbytes >= COPY_NBYTES or len(block) >= COPY_KEYS:
            yield block
            block, nbytes = [], 0
    if block:
        yield block


def _patterns(given: str | Iterable[str]) -> list[re.Pattern[str]]:
    try:
        return [re.compile(p) for p in ([given] if isinstance(given, str) else given or ())]
    except (re.error, TypeError) as error:
        raise MetadataError(
            f"a regular expression is needed, got {given!r:.80}: {error}"
        ) from error
