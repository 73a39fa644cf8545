"""Real servers on the loopback interface, for tests of the stores that talk to them.

One file per service, ``server_<name>.py``, starts it with the helpers here.  A service that cannot
be had skips its tests with the reason; under ``FORBID_SKIPS=1`` that is a failure, as
``.ci/run`` installs them all.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

__all__ = ["find", "free_port", "running", "serving"]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at the moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find(*names: str, also: Sequence[str] = ()) -> str:
    """Path of a program, by any of its names, on the path or in one of the folders ``also``.

    Skips the test where it is not installed.
    """
    for name in names:
        found = shutil.which(name)
        if found:
            return found
        for pattern in also:
            for path in sorted(Path("/").glob(f"{pattern.lstrip('/')}/{name}"), reverse=True):
                return str(path)
    pytest.skip(f"server: {names[0]} is not installed")


def _listening(port: int) -> bool:
    try:
        with closing(socket.create_connection(("127.0.0.1", port), 0.2)):
            return True
    except OSError:
        return False


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    *,
    ready: Callable[[], bool] | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    within: float = 60,
) -> Iterator[Path]:
    """Run a server until the end of the block; yields a folder of its own, removed afterwards.

    ``ready``: whether it answers; by default whether something listens on ``port``.
    ``user``: who runs it and owns the folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="zarr_gpu-server-"))
    if user is not None:
        shutil.chown(folder, user)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command), stdout=output, stderr=output, cwd=folder, env=env, user=user
        )
    try:
        give_up = time.monotonic() + within
        while not (ready() if ready is not None else _listening(port)):
            if process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"{command[0]} does not answer: {log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield folder
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


class _Quiet(ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that goes away is no error here."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], **attributes: Any) -> Iterator[str]:
    """Answer HTTP requests in threads of this process until the end of the block; yields the URL.

    ``attributes`` are those of the handlers.
    """
    server = _Quiet(("127.0.0.1", 0), type(handler.__name__, (handler,), attributes))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
