"""A PouchDB server, which speaks CouchDB's protocol, with its data in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from servers import find, free_port, running

__all__ = ["pouchdb"]


@pytest.fixture(scope="session")
def pouchdb() -> Iterator[str]:
    """``couchdb+http://`` URL of a server that all tests share, without a database's name.

    ``POUCHDB_SERVER`` names the program where it is not on the path.
    """
    program = os.environ.get("POUCHDB_SERVER") or find("pouchdb-server")
    port = free_port()
    command = [program, "-o", "127.0.0.1", "-p", str(port), "--in-memory"]
    with running([*command, "--no-stdout-logs", "--no-color"], port):
        yield f"couchdb+http://127.0.0.1:{port}"
