"""Values in Redis, with an index of keys, so that listing costs what is listed.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; ``redis`` on first use.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, NoReturn

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST, Memory
from zarr_gpu.storage.base import Buffer, gather
from zarr_gpu.storage.batches import BatchStore, Item, blocks
from zarr_gpu.storage.failures import (
    StoreConnectionError,
    StorePermissionError,
    StoreTimeoutError,
    fail,
)
from zarr_gpu.storage.keys import check_key
from zarr_gpu.storage.lazy import OnePerProcess
from zarr_gpu.storage.ordered import bounds, children_by_page, walk_by_page
from zarr_gpu.storage.pool import map_ahead
from zarr_gpu.storage.spans import Span
from zarr_gpu.storage.urls import Parsers, natural, options_of, seconds, split_fragment, take_query

__all__ = ["RedisStore", "open_url"]


BLOCK_NBYTES = 8 << 20
BLOCK_ITEMS = 1000
"""What is sent at once: at most two blocks of a batch are in memory."""

LARGEST = 512 << 20
"""Bytes that a Redis string may have."""

STAGED_SECONDS = 3600
"""How long what a dead writer left behind stays."""

_URL_OPTIONS: Parsers = {"prefix": str, "timeout": seconds, "concurrency": natural}
_OPTIONS: Parsers = {**_URL_OPTIONS, "username": str, "password": str, "client": dict}


def open_url(
    url: str, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
) -> tuple[RedisStore, str]:
    """The store at ``redis://host:port/database?prefix=...#node``; ``rediss`` is with TLS.

    ``prefix``, ``timeout`` and ``concurrency`` may stand in the URL or, like ``username``,
    ``password`` and ``client`` (arguments of ``redis.Redis``), in ``storage_options``.  The rest of
    the query goes to ``redis``.
    """
    bare, path = split_fragment(url)
    bare, query = take_query(bare, _URL_OPTIONS)
    options = options_of("a Redis store", _OPTIONS, query, storage_options)
    return RedisStore(bare, read_only=read_only, **options), path


class RedisStore(BatchStore):
    """Values as Redis strings ``PREFIX:KEY``, and a sorted set ``PREFIX`` of all keys.

    Parameters
    ----------
    url
        ``redis://host:port/database``, as ``redis.Redis.from_url`` takes it.
    prefix
        Begins every name in Redis, so that one database holds many stores.
    read_only
        Refuse writes.
    timeout
        Seconds to wait for a connection, or an answer.
    concurrency
        Requests in flight at once for one read of many keys.
    username, password
        Kept out of the URL.
    client
        Further arguments of ``redis.Redis``.

    ``put_many`` is all or nothing: up to 8 MiB go in one transaction; what is more is staged under
    names that expire, and then renamed in one transaction.

    What zarr-python 2's ``RedisStore`` wrote is read; as it has no index, listing goes through all
    names of the database, until the first write makes the index.  A value has at most 512 MiB.

    Raises
    ------
    MissingDependencyError
        The package ``redis`` is not installed.
    InvalidKeyError
        The URL is malformed.
    """

    concurrency = 4

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "zarr",
        read_only: bool = False,
        timeout: float = 30,
        concurrency: int | None = None,
        username: str | None = None,
        password: str | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            from redis.connection import parse_url
        except ImportError as cause:
            raise MissingDependencyError(
                "Redis needs a package: pip install 'zarr-gpu[redis]'"
            ) from cause
        try:
            parsed = parse_url(url)
        except ValueError as cause:
            raise InvalidKeyError(f"the URL of a Redis server cannot be read: {cause}") from cause
        if not prefix:
            raise InvalidKeyError("the prefix of a Redis store cannot be empty")
        self.prefix = prefix
        self.read_only = read_only
        self.timeout = timeout
        if concurrency is not None:
            self.concurrency = concurrency
        self._url = url
        place = (
            parsed.get("path") or f"{parsed.get('host', 'localhost')}:{parsed.get('port', 6379)}"
        )
        self._shown = f"redis://{place}/{parsed.get('db', 0)}"
        self._settings: dict[str, Any] = dict(client or {})
        if username is not None:
            self._settings["username"] = username
        if password is not None:
            self._settings["password"] = password
        self._start()

    def _start(self) -> None:
        self._indexed = False
        self._client: OnePerProcess[Any] = OnePerProcess(
            partial(_connect, self._url, self.timeout, self._settings), _disconnect
        )

    def _name(self, key: str) -> bytes:
        return f"{self.prefix}:{key}".encode()

    @property
    def _index(self) -> bytes:
        return self.prefix.encode()

    def _refuse(self, cause: Exception) -> NoReturn:
        """Raise the client's error as one of ours."""
        from redis import exceptions

        kind = StoreError
        denied = (
            exceptions.AuthenticationError,
            exceptions.AuthorizationError,
            exceptions.NoPermissionError,
            exceptions.ReadOnlyError,
        )
        if isinstance(cause, denied):
            kind = StorePermissionError
        elif isinstance(cause, exceptions.TimeoutError):
            kind = StoreTimeoutError
        elif isinstance(cause, exceptions.ConnectionError):
            kind = StoreConnectionError
        raise kind(f"{self!r}: {type(cause).__name__}: {cause}") from cause

    def _ask(self, *commands: tuple[Any, ...], atomic: bool = False) -> list[Any]:
        """Answers of some commands, sent at once; with ``atomic`` all are done, or none."""
        from redis.exceptions import RedisError

        try:
            with self._client.get().pipeline(transaction=atomic) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                answers: list[Any] = pipe.execute()
        except RedisError as cause:
            self._refuse(cause)
        return answers

    # ---- reading -------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        if offset == 0 and nbytes == REST:
            (data,) = self._ask(("GET", self._name(key)))
        else:
            (data,) = self._parts([(key, offset, nbytes)])
        return data  # type: ignore[no-any-return]

    def _parts(self, spans: list[Span]) -> list[bytes | None]:
        # An absent key has an empty range too, hence both are asked for at one moment.
        commands: list[tuple[Any, ...]] = []
        for key, offset, nbytes in spans:
            end = -1 if nbytes == REST else offset + nbytes - 1
            commands += (("EXISTS", self._name(key)), ("GETRANGE", self._name(key), offset, end))
        answers = self._ask(*commands, atomic=True)
        pairs = zip(answers[::2], answers[1::2], strict=True)
        return [data if there else None for there, data in pairs]

    def _whole(self, spans: list[Span]) -> list[bytes | None]:
        (values,) = self._ask(("MGET", *(self._name(key) for key, _, _ in spans)))
        return values  # type: ignore[no-any-return]

    def read_spans(self, spans: list[Span], memory: Memory) -> tuple[Any, list[int], list[int]]:
        if len(spans) == 1 and memory.kind == "host":
            return super().read_spans(spans, memory)
        # Blocks small enough that several are under way, and no answer holds up the server.
        groups: dict[str, list[int]] = {"whole": [], "part": [], "none": []}
        for i, (_, lo, n) in enumerate(spans):
            kind = "none" if n == 0 else "whole" if lo == 0 and n == REST else "part"
            groups[kind].append(i)
        parts = [
            (kind, rows[a : a + 64])
            for kind, rows in groups.items()
            for a in range(0, len(rows), 64)
        ]

        def ask(block: tuple[str, list[int]]) -> list[bytes | None]:
            kind, rows = block
            some = [spans[i] for i in rows]
            try:
                if kind == "whole":
                    return self._whole(some)
                if kind == "part":
                    return self._parts(some)
                there = self._ask(*(("EXISTS", self._name(key)) for key, _, _ in some))
            except StoreError as cause:
                fail("read", some[0][0], cause)
            return [b"" if n else None for n in there]

        values: list[memoryview | None] = [None] * len(spans)
        for (_, rows), answers in zip(parts, map_ahead(ask, parts, self.concurrency), strict=True):
            for i, data in zip(rows, answers, strict=True):
                values[i] = None if data is None else memoryview(data)
        return gather(values, memory)

    def size(self, key: str) -> int | None:
        there, nbytes = self._ask(
            ("EXISTS", self._name(key)), ("STRLEN", self._name(key)), atomic=True
        )
        return int(nbytes) if there else None

    # ---- listing -------------------------------------------------------------------------------

    def _page(self, lo: str, hi: str | None, n: int) -> list[str]:
        # The empty member is there only to keep the index alive.
        start = b"[" + lo.encode() if lo else b"("
        end = b"+" if hi is None else b"(" + hi.encode()
        (found,) = self._ask(("ZRANGEBYLEX", self._index, start, end, "LIMIT", 0, n))
        return [member.decode() for member in found]

    def _scan(self, prefix: str) -> list[str]:
        """Keys below ``prefix`` from the names of the whole database, where there is no index."""
        from redis.exceptions import RedisError

        start = f"{self.prefix}:"
        below = f"{start}{prefix}/" if prefix else start
        pattern = "".join(f"\\{c}" if c in "*?[]^\\" else c for c in below) + "*"
        found = set()
        try:
            for name in self._client.get().scan_iter(match=pattern.encode(), count=10_000):
                key = name[len(start.encode()) :].decode("utf-8", "surrogateescape")
                try:
                    found.add(check_key(key))
                except InvalidKeyError:
                    continue  # somebody else's
        except RedisError as cause:
            self._refuse(cause)
        return sorted(found)

    def _has_index(self) -> bool:
        if not self._indexed:
            (kind,) = self._ask(("TYPE", self._index))
            if kind not in {b"zset", b"none"}:
                raise StoreError(
                    f"{self!r}: there is a {kind.decode()} named {self.prefix!r} where the index "
                    "of keys should be: choose another prefix"
                )
            self._indexed = kind == b"zset"
        return self._indexed

    def _make_index(self) -> None:
        """Before the first write: note the keys of a store that has none yet."""
        if self._has_index():
            return
        keys = self._scan("")
        for a in range(0, len(keys), BLOCK_ITEMS):
            self._note(keys[a : a + BLOCK_ITEMS])
        self._ask(("ZADD", self._index, 0, b""))  # last: an index that is there is complete
        self._indexed = True

    def _note(self, keys: list[str]) -> None:
        self._ask(("ZADD", self._index, *chain.from_iterable((0, k.encode()) for k in keys)))

    def walk(self, prefix: str) -> Iterator[str]:
        return walk_by_page(self._page, prefix) if self._has_index() else iter(self._scan(prefix))

    def children(self, prefix: str) -> Iterable[str]:
        if self._has_index():
            return children_by_page(self._page, prefix, 100)
        skip = len(bounds(prefix)[0])
        return {key[skip:].partition("/")[0] for key in self._scan(prefix)}

    # ---- writing -------------------------------------------------------------------------------

    def put_many(self, items: Iterable[tuple[str, Buffer]]) -> None:
        """Store values all at once: after an error none of them is stored.

        Two blocks of 8 MiB (or one value, if larger) are in memory at a time.
        """
        self._check_writable()
        drawn = blocks(items, nbytes=BLOCK_NBYTES, count=BLOCK_ITEMS, check=_check_size)
        first = next(drawn, None)
        if first is None:
            return
        now = first
        try:
            self._make_index()
            second = next(drawn, None)
            if second is None:
                self._ask(*self._set(first), atomic=True)
                return
            staged: list[tuple[bytes, str]] = []
            token = os.urandom(12).hex()
            try:
                for now in chain([first, second], drawn):
                    self._stage(now, token, staged)
                self._publish(staged)
            except BaseException:
                self._drop([name for name, _ in staged])
                raise
        except StoreError as cause:
            fail("write", now[0][0], cause)

    def _set(self, items: list[Item]) -> list[tuple[Any, ...]]:
        keys = [key for key, _ in items]
        pairs = chain.from_iterable((self._name(key), value) for key, value in items)
        return [
            ("MSET", *pairs),
            ("ZADD", self._index, *chain.from_iterable((0, key.encode()) for key in keys)),
        ]

    def _stage(self, items: list[Item], token: str, staged: list[tuple[bytes, str]]) -> None:
        commands = []
        for key, value in items:
            # With a NUL it is no key, and not listed as one.
            name = f"{self.prefix}:\0{token}:{len(staged)}".encode()
            staged.append((name, key))
            commands.append(("SET", name, value, "EX", STAGED_SECONDS))
        self._ask(*commands)

    def _publish(self, staged: list[tuple[bytes, str]]) -> None:
        commands: list[tuple[Any, ...]] = []
        for name, key in staged:
            commands += (("PERSIST", name), ("RENAME", name, self._name(key)))
        commands.append(
            ("ZADD", self._index, *chain.from_iterable((0, key.encode()) for _, key in staged))
        )
        self._ask(*commands, atomic=True)

    def _drop(self, names: list[bytes]) -> None:
        try:
            for a in range(0, len(names), BLOCK_ITEMS):
                self._ask(("UNLINK", *names[a : a + BLOCK_ITEMS]))
        except StoreError:
            return  # they expire

    def write(self, key: str, data: memoryview) -> None:
        _check_size(key, data.nbytes)
        self._make_index()
        self._ask(*self._set([(key, bytes(data))]), atomic=True)

    def remove_many(self, keys: list[str]) -> None:
        """Remove keys, 1,000 in one transaction."""
        self._make_index()
        for a in range(0, len(keys), BLOCK_ITEMS):
            part = keys[a : a + BLOCK_ITEMS]
            self._ask(
                ("UNLINK", *map(self._name, part)),
                ("ZREM", self._index, *(key.encode() for key in part)),
                atomic=True,
            )

    def rename_prefix(self, source: str, target: str) -> None:
        """Give keys another prefix, all in one transaction."""
        self._make_index()
        keys = list(self.walk(source))
        new = [target + key[len(source) :] for key in keys]
        commands = [
            ("RENAME", self._name(a), self._name(b)) for a, b in zip(keys, new, strict=True)
        ]
        self._ask(
            *commands,
            ("ZREM", self._index, *(key.encode() for key in keys)),
            ("ZADD", self._index, *chain.from_iterable((0, key.encode()) for key in new)),
            atomic=True,
        )

    # ---- the rest ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all connections; they are made again when needed."""
        self._client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in {"_client", "_indexed"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RedisStore):
            return NotImplemented
        mine = (self._url, self.prefix, self.read_only)
        return mine == (other._url, other.prefix, other.read_only)

    def __hash__(self) -> int:
        return hash((RedisStore, self._url, self.prefix))

    def __repr__(self) -> str:
        return f"RedisStore({self._shown!r}, prefix={self.prefix!r})"


def _check_size(key: str, nbytes: int) -> None:
    if nbytes > LARGEST:
        raise StoreError(
            f"a value in Redis has at most {LARGEST} bytes: make chunks or shards smaller",
            key=key,
            expected=LARGEST,
            actual=nbytes,
        )


def _connect(url: str, timeout: float, settings: dict[str, Any]) -> Any:
    from redis import Redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    return Redis.from_url(
        url,
        **{
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
            "decode_responses": False,
            **settings,
        },
    )


def _disconnect(client: Any) -> None:
    client.close()
