"""A proxy before another server that counts requests, delays them and makes some of them fail."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from servers import serving

__all__ = ["Proxy", "proxy"]


@dataclass
class Proxy:
    """A running proxy; ``fault(method, path, n)`` names a status, ``"drop"`` or ``"truncate"``."""

    target: str
    url: str = ""
    fault: Callable[[str, str, int], str | None] = lambda method, path, n: None
    delay: float = 0.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    active: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        self.requests.clear()
        self.most = 0
        self.delay = 0.0
        self.fault = lambda method, path, n: None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: Proxy

    def log_message(self, *args: Any) -> None:
        pass

    def forward(self) -> None:
        state = self.state
        with state.lock:
            state.requests.append((self.command, self.path))
            n = len(state.requests)
            state.active += 1
            state.most = max(state.most, state.active)
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if state.delay:
                time.sleep(state.delay)
            self.answer(body, state.fault(self.command, self.path, n) or "")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with state.lock:
                state.active -= 1

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815  the library's names

    def answer(self, body: bytes, fault: str) -> None:
        if fault == "drop":
            self.close_connection = True
            return
        if fault.isdigit():
            self.say(int(fault), [], b"oh dear", "")
            return
        link = http.client.HTTPConnection(urlsplit(self.state.target).netloc)
        try:
            link.request(self.command, self.path, body, dict(self.headers.items()))
            found = link.getresponse()
            data = found.read()
            self.say(found.status, found.getheaders(), data, fault)
        finally:
            link.close()

    def say(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str) -> None:
        self.send_response(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "truncate":
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """Stand before the server at ``target``."""
    state = Proxy(target)
    with serving(Handler, state=state) as state.url:
        yield state
