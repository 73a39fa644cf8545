"""An Azure Blob server: Azurite, on the loopback interface.

Found on the path: ``npm install --prefix FOLDER azurite@3.35.0`` puts it into
``FOLDER/node_modules/.bin``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

from servers import find, free_port, running

__all__ = ["CONTAINER", "azure_server", "options"]

CONTAINER = "container"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def azure_server() -> Iterator[str]:
    """The account's URL; there is a container ``CONTAINER``."""
    port = free_port()
    command = [find("azurite-blob"), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--disableTelemetry"]
    with running(command, port):
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        make_container(endpoint)
        yield endpoint


def make_container(endpoint: str) -> None:
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    lines += [f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}", "restype:container"]
    digest = hmac.new(base64.b64decode(KEY), "\n".join(lines).encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(
        f"{endpoint}/{CONTAINER}?restype=container", method="PUT", headers=headers
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()


def options(endpoint: str, **more: Any) -> dict[str, Any]:
    """Storage options in the words of fsspec's users."""
    parts = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
    return {"connection_string": f"DefaultEndpointsProtocol=http;{parts}", **more}
