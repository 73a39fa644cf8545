"""A small web server of files with ranges, that can be made to fail in many ways."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from servers import serving

__all__ = ["HttpServer", "http_server"]

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class HttpServer:
    """A running server: what it serves, how it misbehaves, what it was asked.

    ``fault(method, path, n)`` names what goes wrong with the n-th request (from 1), if anything:
    a status such as ``"503"``, ``"drop"`` (no answer at all), ``"truncate"`` (half of the body),
    ``"whole"`` (the range is ignored), ``"shift"`` (another range than asked), ``"no length"``,
    ``"no range header"``, ``"hang"``, ``"encode"``, or ``"redirect URL"``.
    """

    folder: Path
    url: str = ""
    fault: Callable[[str, str, int], str | None] = lambda method, path, n: None
    delay: float = 0.0
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    headers: list[dict[str, str]] = field(default_factory=list)
    active: int = 0
    most: int = 0  # requests in flight at once
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        self.requests.clear()
        self.headers.clear()
        self.most = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: HttpServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        path = unquote(urlsplit(self.path).path).lstrip("/")
        with state.lock:
            state.requests.append((self.command, path, self.headers.get("Range", "")))
            state.headers.append({k.lower(): v for k, v in self.headers.items()})
            n = len(state.requests)
            state.active += 1
            state.most = max(state.most, state.active)
        try:
            if state.delay:
                time.sleep(state.delay)
            self.answer(path, state.fault(self.command, path, n) or "")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with state.lock:
                state.active -= 1

    do_HEAD = do_GET  # noqa: N815  the library's name

    def answer(self, path: str, fault: str) -> None:
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "hang":
            time.sleep(3)
            self.close_connection = True
            return
        if fault.isdigit():
            self.say(int(fault), b"oh dear")
            return
        if fault.startswith("redirect "):
            self.say(302, b"", Location=fault.removeprefix("redirect "))
            return
        file = self.state.folder / path
        if not file.is_file():
            self.say(404, b"nothing here")
            return
        data = file.read_bytes()
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or fault == "whole":
            self.say(200, data, fault)
            return
        lo, hi = asked.groups()
        start = int(lo) if lo else max(len(data) - int(hi), 0)
        end = min(int(hi) + 1, len(data)) if lo and hi else len(data)
        if fault == "shift":
            start, end = start + 1, end + 1
        if start >= len(data):
            where = {} if fault == "no range header" else {"Content-Range": f"bytes */{len(data)}"}
            self.say(416, b"", **where)
            return
        where = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self.say(206, data[start:end], fault, **({} if fault == "no range header" else where))

    def say(self, status: int, body: bytes, fault: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault == "encode":
            self.send_header("Content-Encoding", "gzip")
        if fault == "no length":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "truncate":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)


@contextmanager
def http_server(folder: Path) -> Iterator[HttpServer]:
    """Serve the files of a folder."""
    state = HttpServer(folder)
    with serving(Handler, state=state) as state.url:
        yield state
