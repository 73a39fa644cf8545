"""Values of a web server, read-only: one GET with a range for each read.

Made for static files and for buckets that are public over HTTP.  A web server cannot list: open
nodes by their path, or groups with consolidated metadata.

What is asked and answered is checked: an answer that is cut off is tried again and then an error; a
server that ignores ranges and sends the whole value gives the right bytes all the same.  404 and
410 are absent keys, any other status is an error, unless ``missing_status`` says more.

Imports ``errors``, ``extents``, ``storage.base`` and its helpers; ``urllib3`` on first use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from zarr_gpu.errors import DataError, InvalidKeyError, MissingDependencyError, StoreError
from zarr_gpu.extents import REST
from zarr_gpu.storage.attempts import PASSING_STATUS, retrying
from zarr_gpu.storage.base import Buffer, Store
from zarr_gpu.storage.cloud_options import CONCURRENCY, positive, statuses
from zarr_gpu.storage.failures import StoreArgumentError

__all__ = ["HttpStore", "open_url"]

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_CACHING = {
    "asynchronous",
    "block_size",
    "cache_options",
    "cache_type",
    "encoded",
    "loop",
    "same_scheme",
    "simple_links",
    "skip_instance_cache",
    "use_listings_cache",
}
"""Options of fsspec about caches, links and event loops, which there are none of here."""


class _StatusError(OSError):
    """A status that is no answer."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(f"HTTP {status} {reason}".rstrip())
        self.status = status
        self.retry_after = retry_after


class HttpStore(Store):
    """Values below a URL.

    Parameters
    ----------
    url
        ``http://`` or ``https://``; a query (a signature) is sent with every request.
    headers
        Sent with every request.
    concurrency
        Requests in flight at once.
    retries
        How often a request is tried again after 5xx, 408, 429, a broken connection or a timeout.
    timeout
        Seconds without any byte from the server.
    missing_status
        HTTP statuses that mean an absent key; some servers say 403.
    verify
        False accepts any certificate; a path names a file of certificates to trust.

    Redirects are followed, at most five; ``headers`` are not sent on to another host.

    Examples
    --------
    >>> HttpStore("https://example.org/data/a.zarr?token=1")
    HttpStore('https://example.org/data/a.zarr')
    """

    read_only = True
    supports_writes = False
    supports_listing = False
    max_gap = 1 << 20

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        concurrency: int = CONCURRENCY,
        retries: int = 6,
        timeout: float = 30,
        missing_status: tuple[int, ...] = (404, 410),
        verify: bool | str = True,
    ) -> None:
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(url)
        if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
            raise InvalidKeyError(f"{url!r} is no http:// or https:// URL with a host")
        host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme.lower()}://{host}{parts.path.rstrip('/')}"
        self._query = f"?{parts.query}" if parts.query else ""
        self._headers = {"accept-encoding": "identity", **dict(headers or {})}
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            self._headers["authorization"] = _basic(user, password)
        self.concurrency = concurrency
        self.retries = retries
        self.timeout = timeout
        self.missing_status = missing_status
        self.verify = verify
        self._pool: Any = None
        self._pid = 0

    @classmethod
    def from_url(cls, url: str, *, storage_options: Mapping[str, Any] | None = None) -> HttpStore:
        """The store at a URL, with options in fsspec's words or ours.

        Understood are ``headers``, ``auth`` (user and password), ``client_kwargs`` with these,
        ``timeout``, ``retries``, ``concurrency``, ``missing_status`` and ``verify``.

        Raises
        ------
        StoreArgumentError
            An option is unknown.
        """
        given = {k: v for k, v in dict(storage_options or {}).items() if k not in _CACHING}
        nested = dict(given.pop("client_kwargs", None) or {})
        headers = {**dict(nested.pop("headers", {})), **dict(given.pop("headers", None) or {})}
        auth = given.pop("auth", None) or nested.pop("auth", None)
        if auth is not None:
            headers["authorization"] = _basic(*tuple(auth)[:2])
        nested.pop("trust_env", None)
        store = cls(
            url,
            headers=headers,
            concurrency=positive(given, "concurrency", CONCURRENCY),
            retries=positive(given, "retries", 6, least=0),
            timeout=positive(given, "timeout", 30),
            missing_status=statuses(given) if "missing_status" in given else (404, 410),
            verify=given.pop("verify", given.pop("ssl", True)),
        )
        for name in [*given, *(f"client_kwargs/{name}" for name in nested)]:
            raise StoreArgumentError(
                f"the storage option {name!r} is not known for HTTP; "
                "{'backend': 'fsspec'} hands all options to fsspec"
            )
        _urllib3()
        return store

    # ---- requests ------------------------------------------------------------------------------

    def read(self, key: str, offset: int, nbytes: int) -> Buffer | None:
        headers = {}
        if offset or nbytes != REST:
            last = "" if nbytes == REST else str(offset + nbytes - 1)
            headers["range"] = f"bytes={offset}" if offset < 0 else f"bytes={offset}-{last}"

        def ask() -> Buffer | None:
            answer = self._request("GET", key, headers)
            try:
                return self._body(answer, key, offset, nbytes)
            finally:
                answer.release_conn()

        return retrying(ask, retries=self.retries, passing=_passing)

    def size(self, key: str) -> int | None:
        def ask(method: str, headers: dict[str, str]) -> int | None:
            answer = self._request(method, key, headers)
            try:
                if answer.status in self.missing_status:
                    answer.drain_conn()
                    return None
                where = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
                if answer.status in {206, 416} and where and where[3] != "*":
                    return int(where[3])
                if answer.status == 200 and "content-length" in answer.headers:
                    return int(answer.headers["content-length"])
                if answer.status == 200 and method == "GET":
                    return sum(map(len, answer.stream(1 << 20)))
                raise _failure(answer)
            finally:
                answer.close() if method == "GET" else answer.release_conn()

        try:
            return retrying(lambda: ask("HEAD", {}), retries=self.retries, passing=_passing)
        except _StatusError as error:
            if error.status not in {200, 405, 501}:
                raise
        first = {"range": "bytes=0-0"}  # a server that does not answer HEAD, or without a length
        return retrying(lambda: ask("GET", first), retries=self.retries, passing=_passing)

    def _request(self, method: str, key: str, headers: dict[str, str]) -> Any:
        from urllib.parse import quote

        urllib3 = _urllib3()
        try:
            return self._connections().request(
                method,
                f"{self.url}/{quote(key)}{self._query}",
                headers={**self._headers, **headers},
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=min(10, self.timeout), read=self.timeout),
                retries=urllib3.Retry(
                    connect=0,
                    read=0,
                    redirect=5,
                    status=0,
                    other=0,
                    # What the user sends may be a secret: another host does not get it.
                    remove_headers_on_redirect=[n for n in self._headers if n != "accept-encoding"],
                ),
            )
        except urllib3.exceptions.HTTPError as error:
            raise _translated(error) from error

    def _body(self, answer: Any, key: str, offset: int, nbytes: int) -> Buffer | None:
        status = answer.status
        if status in self.missing_status:
            answer.drain_conn()  # else the connection is of no further use
            return None
        whole = offset == 0 and nbytes == REST
        where = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if status == 416 and not whole:
            total = int(where[3]) if where and where[3] != "*" else self.size(key)
            if total is None or offset >= total or total == 0:
                return None if total is None else b""
        if status not in {200, 206} or (whole and status == 206):
            raise _failure(answer)
        if answer.headers.get("content-encoding", "identity") not in {"", "identity"}:
            raise DataError("the server compresses what it sends, unasked", key=key)
        if status == 200:
            return _cut(answer, offset, nbytes)
        data = _received(answer, None)
        if where is None or where[1] is None:
            raise DataError("the server does not say which range it sent", key=key)
        first, last = int(where[1]), int(where[2])
        total = None if where[3] == "*" else int(where[3])
        if last - first + 1 != len(data):
            raise ConnectionError(f"{len(data)} of {last - first + 1} bytes arrived")
        start = offset
        if offset < 0:
            start = first if total is None else max(total + offset, 0)
        if first != start:
            raise DataError(f"the server sent bytes from {first}, not from {start}", key=key)
        return data

    def _connections(self) -> Any:
        """The pool of connections; one of its own in a forked child."""
        if self._pool is None or self._pid != os.getpid():
            from urllib.request import getproxies, proxy_bypass

            urllib3 = _urllib3()
            arguments: dict[str, Any] = {"maxsize": self.concurrency, "num_pools": 4}
            if self.verify is False:
                arguments["cert_reqs"] = "CERT_NONE"
            elif isinstance(self.verify, str):
                arguments["ca_certs"] = self.verify
            scheme, _, rest = self.url.partition("://")
            proxy = getproxies().get(scheme)
            if proxy and not proxy_bypass(rest.partition("/")[0]):
                self._pool = urllib3.ProxyManager(proxy, **arguments)
            else:
                self._pool = urllib3.PoolManager(**arguments)
            self._pid = os.getpid()
        return self._pool

    # ---- the rest ------------------------------------------------------------------------------

    def walk(self, prefix: str) -> Iterator[str]:
        raise StoreError(f"{self!r} cannot list its keys")

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.clear()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HttpStore):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash((HttpStore, self.url))

    def __repr__(self) -> str:
        return f"HttpStore({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in {"_pool", "_pid"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pool, self._pid = None, 0


def open_url(
    url: str, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
) -> Store:
    """Open ``http://`` and ``https://``, which are never written to."""
    del read_only
    return HttpStore.from_url(url, storage_options=storage_options)


def _urllib3() -> Any:
    try:
        import urllib3
    except ImportError as cause:
        raise MissingDependencyError(
            "http:// and https:// need urllib3: pip install 'zarr-gpu[http]'"
        ) from cause
    return urllib3


def _basic(user: str, password: str) -> str:
    from base64 import b64encode

    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _received(answer: Any, most: int | None) -> bytes:
    """The body, or its first ``most`` bytes; an answer that was cut off is an error."""
    urllib3 = _urllib3()
    try:
        if most is None:
            return bytes(answer.read())
        parts, have = [], 0
        while have < most and (part := answer.read(min(most - have, 1 << 20))):
            parts.append(part)
            have += len(part)
        return b"".join(parts)
    except urllib3.exceptions.HTTPError as error:
        raise _translated(error) from error


def _cut(answer: Any, offset: int, nbytes: int) -> bytes:
    """A range out of a whole value: the server did not heed what was asked."""
    if offset < 0 or nbytes == REST:
        return _received(answer, None)[offset:]
    data = _received(answer, offset + nbytes)[offset:]
    answer.close()  # the rest is not waited for
    return data


def _failure(answer: Any) -> OSError:
    after = str(answer.headers.get("retry-after", ""))
    error = _StatusError(
        answer.status, answer.reason or "", float(after) if after.isdigit() else None
    )
    if answer.status in {401, 403}:
        return PermissionError(str(error))
    if answer.status in {408, 504}:
        return TimeoutError(str(error))
    return error


def _translated(error: Exception) -> OSError:
    """What an error of urllib3's means."""
    kinds = _urllib3().exceptions
    text = str(error)
    if isinstance(error, kinds.MaxRetryError):
        if "redirect" in text:
            return OSError("too many redirects")
        error = error.reason or error
    if isinstance(error, kinds.SSLError):
        return PermissionError(f"no trust in the server: {error}")
    if isinstance(error, kinds.TimeoutError) and not isinstance(error, kinds.NewConnectionError):
        return TimeoutError(str(error))
    return ConnectionError(str(error))


def _passing(error: Exception) -> bool:
    if isinstance(error, _StatusError):
        return error.status in PASSING_STATUS
    return isinstance(error, ConnectionError | TimeoutError)
