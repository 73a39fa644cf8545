"""A PostgreSQL server with a database ``postgres``, a user ``zarr`` and the password ``secret``."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import find, free_port, running

__all__ = ["postgresql"]

FOLDERS = ["/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin"]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """``postgresql://`` URL of a server that all tests share.

    Its default collation is not that of bytes, so that keys show whether theirs is.
    """
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg")
    initdb, postgres, ready = (
        find(name, also=FOLDERS) for name in ("initdb", "postgres", "pg_isready")
    )
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="zarr_gpu-server-"))
    port = free_port()
    try:
        secret = folder / "secret"
        secret.write_text("secret")
        if user is not None:
            shutil.chown(folder, user)
            shutil.chown(secret, user)
        data = str(folder / "data")
        made = subprocess.run(
            [
                *[initdb, "-D", data, "-U", "zarr", "-A", "scram-sha-256", f"--pwfile={secret}"],
                *["-N", "-E", "UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=en-US"],
            ],
            check=False,
            capture_output=True,
            text=True,
            user=user,
            cwd="/",
        )
        assert made.returncode == 0, made.stderr
        options = ["listen_addresses=127.0.0.1", "fsync=off", "unix_socket_directories="]
        command = [postgres, "-D", data, "-p", str(port)]
        for option in options:
            command += ["-c", option]

        def answers() -> bool:
            asked = [ready, "-q", "-h", "127.0.0.1", "-p", str(port)]
            return subprocess.run(asked, check=False).returncode == 0

        with running(command, port, ready=answers, user=user):
            yield f"postgresql://zarr:secret@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
