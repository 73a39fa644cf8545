"""Stores of obstore's: against a server of S3, and in memory and files."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from server_azure import CONTAINER, azure_server
from server_azure import options as azure_options
from server_s3 import BUCKET, options, s3_server
from store_arrays import StoreArraySuite
from store_suite import StoreSuite

from zarr_gpu.storage.base import Store
from zarr_gpu.storage.obstore import ObstoreStore
from zarr_gpu.storage.opening import open_store

pytest.importorskip("obstore", reason="extra cloud: obstore is not installed")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


class TestS3(StoreSuite, StoreArraySuite):
    title = "S3 (obstore, moto)"
    many_keys = 1_000
    in_order = False
    longest_key = 1024 - 37

    @pytest.fixture
    def store(self, s3: str) -> Store:
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        return open_store(url, storage_options=options(s3))[0]

    def read_only(self, store: Store) -> Store:
        assert isinstance(store, ObstoreStore)
        return ObstoreStore(store.store, read_only=True)


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    with azure_server() as endpoint:
        yield endpoint


class TestAzure(StoreSuite, StoreArraySuite):
    title = "Azure (obstore, Azurite)"
    many_keys = 1_000
    in_order = False
    longest_key = 1024 - 37

    @pytest.fixture
    def store(self, azure: str) -> Store:
        url = f"az://{CONTAINER}/{uuid.uuid4().hex}"
        return open_store(url, storage_options=azure_options(azure))[0]
