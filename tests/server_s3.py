"""An S3 server: moto's, on the loopback interface.

Install ``moto[server]`` and s3fs in separate steps: together their pins send pip round in circles.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
from servers import free_port, running

__all__ = ["BUCKET", "options", "s3_server"]

BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint's URL; there is a bucket ``BUCKET``."""
    if find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip("server: moto[server] is not installed")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port):
        endpoint = f"http://127.0.0.1:{port}"
        make_bucket(endpoint, BUCKET)
        yield endpoint


def make_bucket(endpoint: str, name: str) -> None:
    signed = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request"
    request = urllib.request.Request(
        f"{endpoint}/{name}", method="PUT", headers={"Authorization": signed}
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()


def options(endpoint: str, **more: Any) -> dict[str, Any]:
    """Storage options in the words of fsspec's users."""
    return {
        "key": "test",
        "secret": "test",
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": "us-east-1"},
        **more,
    }
