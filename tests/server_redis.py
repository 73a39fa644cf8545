"""A Redis server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import find, free_port, running

__all__ = ["redis_server"]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """``redis://`` URL of a server that all tests share, without a database's number."""
    pytest.importorskip("redis")
    port = free_port()
    command = [find("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    with running([*command, "--appendonly", "no"], port):
        yield f"redis://127.0.0.1:{port}"
