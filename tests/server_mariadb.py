"""A MariaDB server with a database ``test``, a user ``zarr`` and the password ``secret``."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import find, free_port, running

__all__ = ["mariadb"]

START = """
CREATE DATABASE test;
CREATE USER 'zarr'@'127.0.0.1' IDENTIFIED BY 'secret';
GRANT ALL ON test.* TO 'zarr'@'127.0.0.1';
"""


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """``mariadb://`` URL of a server that all tests share."""
    pytest.importorskip("sqlalchemy")
    pymysql = pytest.importorskip("pymysql")
    install = find("mariadb-install-db", "mysql_install_db")
    server = find("mariadbd", "mysqld", also=["/usr/sbin"])
    folder = Path(tempfile.mkdtemp(prefix="zarr_gpu-server-"))
    port = free_port()
    try:
        first = folder / "start.sql"
        first.write_text(START)
        common = ["--no-defaults", f"--datadir={folder}/data", f"--user={getpass.getuser()}"]
        made = subprocess.run(
            [install, *common, "--skip-test-db", "--skip-name-resolve"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        command = [server, *common, "--bind-address=127.0.0.1", f"--port={port}"]
        command += [f"--socket={folder}/socket", f"--init-file={first}", "--skip-name-resolve"]
        command += ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]
        command += ["--innodb-flush-method=nosync", "--skip-log-bin", "--innodb-stats-persistent=0"]
        account = {"host": "127.0.0.1", "port": port, "user": "zarr", "password": "secret"}

        def answers() -> bool:
            try:
                pymysql.connect(**account).close()
            except pymysql.err.OperationalError:
                return False
            return True

        with running(command, port, ready=answers):
            yield f"mariadb://zarr:secret@127.0.0.1:{port}/test"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
