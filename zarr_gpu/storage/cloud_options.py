"""From URLs and ``storage_options`` of object stores to the configuration that obstore takes.

Understood are the names that users of fsspec know (``key``, ``secret``, ``endpoint_url``, ``anon``,
``client_kwargs``, ...), obstore's own (``access_key_id``, ``region``, ``skip_signature``, ...), and
ours: ``concurrency``, ``retries``, ``timeout``, ``missing_status``.  An option that is none of
these is refused by name: a misspelt credential would otherwise show as "forbidden" much later.

Imports ``errors`` and its siblings ``failures`` and ``keys``; called by ``storage/obstore.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zarr_gpu.errors import InvalidKeyError, MissingDependencyError
from zarr_gpu.storage.failures import StoreArgumentError
from zarr_gpu.storage.keys import check_prefix

__all__ = ["CONCURRENCY", "SCHEMES", "Bucket", "parse", "positive", "statuses"]

CONCURRENCY = 32
"""Requests in flight at once, unless told otherwise."""

SCHEMES = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "azure", "abfs", "abfss", "adl", "wasb", "wasbs"), "azure"),
}
"""Kind of object store by URL scheme."""

_NAMES = {
    "s3": {
        "key": "access_key_id",
        "secret": "secret_access_key",
        "token": "session_token",
        "anon": "skip_signature",
        "endpoint_url": "endpoint",
        "region_name": "region",
        "requester_pays": "request_payer",
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
    },
    "gcs": {"anon": "skip_signature", "endpoint_url": "base_url"},
    "azure": {"anon": "skip_signature", "sas_token": "sas_key", "endpoint_url": "endpoint"},
}
"""fsspec's name of an option and obstore's."""

_CACHING = {
    "asynchronous",
    "cache_regions",
    "default_block_size",
    "default_cache_type",
    "default_fill_cache",
    "listings_expiry_time",
    "loop",
    "max_paths",
    "project",
    "skip_instance_cache",
    "use_listings_cache",
}
"""Options of fsspec about caches and event loops, which there are none of here."""


@dataclass(slots=True)
class Bucket:
    """What there is to know of a bucket or container."""

    kind: str  # "s3", "gcs", "azure"
    name: str
    prefix: str
    config: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    retry: dict[str, Any] = field(default_factory=dict)
    provider: Any = None  # obstore's credential_provider
    concurrency: int = CONCURRENCY
    missing_status: tuple[int, ...] = (404,)


def parse(url: str, options: Mapping[str, Any] | None) -> Bucket:
    """A URL with its options.

    Raises
    ------
    InvalidKeyError
        The URL names no bucket, or a path that would leave it.
    StoreArgumentError
        An option is unknown or its value makes no sense.
    MissingDependencyError
        An AWS profile without static keys needs boto3.
    """
    from datetime import timedelta

    scheme, _, rest = url.partition("://")
    name, _, path = rest.partition("/")
    bucket = Bucket(SCHEMES[scheme.lower()], name, check_prefix(path.strip("/")))
    given = dict(options or {})
    if bucket.kind == "azure" and "@" in name:  # container@account.dfs.core.windows.net
        bucket.name, _, host = name.partition("@")
        account = host.partition(".")[0]
        bucket.config["account_name"] = account
        if host not in {account, *(f"{account}.{k}.core.windows.net" for k in ("blob", "dfs"))}:
            given.setdefault("account_host", host)
    elif "@" in name:
        raise InvalidKeyError(f"{scheme}:// takes credentials as storage_options, not in the URL")
    if not bucket.name:
        raise InvalidKeyError(f"{url!r} names no bucket")

    bucket.concurrency = positive(given, "concurrency", CONCURRENCY)
    bucket.missing_status = statuses(given)
    retries = positive(given, "retries", 10, least=0)
    seconds = positive(given, "timeout", 120)
    bucket.retry = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=60),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
        **dict(given.pop("retry_config", None) or {}),
    }
    bucket.client = {
        "connect_timeout": "5s",
        "read_timeout": "30s",
        "timeout": f"{seconds}s",
        **dict(given.pop("client_options", None) or {}),
    }
    bucket.provider = given.pop("credential_provider", None)
    _MAPPERS[bucket.kind](bucket, given)
    endpoint = bucket.config.get("endpoint") or bucket.config.get("base_url") or ""
    if str(endpoint).startswith("http://"):
        bucket.client.setdefault("allow_http", True)
    return bucket


def positive(options: dict[str, Any], name: str, default: int, *, least: int = 1) -> int:
    """Take a whole number out of ``options``."""
    value = options.pop(name, None)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StoreArgumentError(
            f"the storage option {name!r} must be a whole number of at least {least}, not {value!r}"
        )
    return value


def statuses(options: dict[str, Any]) -> tuple[int, ...]:
    """Take ``missing_status`` out of ``options``: HTTP statuses that mean an absent key."""
    value = options.pop("missing_status", (404,))
    numbers: Iterable[Any] = (value,) if isinstance(value, int) else value
    try:
        found = tuple(sorted({int(number) for number in numbers}))
    except (TypeError, ValueError):
        found = (0,)
    if not all(400 <= number <= 499 for number in found):
        raise StoreArgumentError(
            f"the storage option 'missing_status' takes HTTP statuses of 4xx, not {value!r}"
        )
    return found


def _refuse(bucket: Bucket, name: str) -> StoreArgumentError:
    return StoreArgumentError(
        f"the storage option {name!r} is not known for {bucket.kind} stores; "
        "{'backend': 'fsspec'} hands all options to fsspec"
    )


def _take(bucket: Bucket, given: Mapping[str, Any], where: str = "") -> None:
    """Options that have a name of obstore's, or look like one: obstore refuses what it does not."""
    names = _NAMES[bucket.kind]
    for name, value in given.items():
        if value is None or name in _CACHING:
            continue
        target = names.get(name, name)
        if not isinstance(value, str | int | bool):
            raise _refuse(bucket, where + name)
        if target == "skip_signature" and not value:
            continue
        bucket.config[target] = value


# ----------------------------------------------------------------------------------- S3


def _s3(bucket: Bucket, given: dict[str, Any]) -> None:
    client_kwargs = dict(given.pop("client_kwargs", None) or {})
    _verify(bucket, client_kwargs.pop("verify", None))
    if given.pop("use_ssl", True) is False:
        bucket.client["allow_http"] = True
    _s3_config_kwargs(bucket, dict(given.pop("config_kwargs", None) or {}))
    profile = given.pop("profile", None)
    _take(bucket, client_kwargs, "client_kwargs/")
    _take(bucket, given)
    config = bucket.config
    if "endpoint" not in config:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            if os.environ.get(name):
                config["endpoint"] = os.environ[name]
                break
    if not (config.get("skip_signature") or config.get("access_key_id") or bucket.provider):
        _s3_credentials(bucket, profile)


def _verify(bucket: Bucket, verify: Any) -> None:
    if verify is False:
        bucket.client["allow_invalid_certificates"] = True
    elif isinstance(verify, str):
        try:
            with open(verify, "rb") as file:  # noqa: PTH123
                bucket.client["root_certificate"] = file.read()
        except OSError as cause:
            raise StoreArgumentError(f"cannot read the certificates {verify!r}: {cause}") from cause


def _s3_config_kwargs(bucket: Bucket, kwargs: dict[str, Any]) -> None:
    s3 = dict(kwargs.pop("s3", None) or {})
    style = s3.pop("addressing_style", "auto")
    if style != "auto":
        bucket.config["virtual_hosted_style_request"] = style == "virtual"
    for name in ("connect_timeout", "read_timeout"):
        if name in kwargs:
            bucket.client[name] = f"{round(float(kwargs.pop(name)) * 1000)}ms"
    kwargs.pop("max_pool_connections", None)
    for name in [*s3, *kwargs]:
        raise _refuse(bucket, f"config_kwargs/{name}")


def _s3_credentials(bucket: Bucket, profile: str | None) -> None:
    """Keys of a profile; the environment and what machines are given is left to obstore.

    A server that is not Amazon's and for which there are no keys is asked without signature.
    """
    config, environ = bucket.config, os.environ
    if environ.get("AWS_ACCESS_KEY_ID") and profile is None:
        return
    wanted = profile or environ.get("AWS_PROFILE")
    found = _aws_profile(wanted or "default")
    if wanted and not found:
        raise StoreArgumentError(f"there is no AWS profile {wanted!r}")
    if "region" in found and not (
        environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "region" in config
    ):
        config["region"] = found["region"]
    if "endpoint_url" in found:
        config.setdefault("endpoint", found["endpoint_url"])
    if "aws_access_key_id" in found and "aws_secret_access_key" in found:
        config["access_key_id"] = found["aws_access_key_id"]
        config["secret_access_key"] = found["aws_secret_access_key"]
        if "aws_session_token" in found:
            config["session_token"] = found["aws_session_token"]
    elif any(n.startswith(("sso_", "role_arn", "credential_process")) for n in found):
        bucket.provider = _boto3_provider(wanted)
    else:
        given = any(
            environ.get(name)
            for name in (
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            )
        )
        endpoint = str(config.get("endpoint") or "https://amazonaws.com")
        host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
        if not given and not host.endswith(("amazonaws.com", "amazonaws.com.cn")):
            config["skip_signature"] = True


def _aws_profile(profile: str) -> dict[str, str]:
    """What the files in ``~/.aws`` say of a profile."""
    home = os.path.join(os.path.expanduser("~"), ".aws")  # noqa: PTH111, PTH118
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or f"{home}/credentials"
    settings = os.environ.get("AWS_CONFIG_FILE") or f"{home}/config"
    if not any(map(os.path.exists, (credentials, settings))):
        return {}
    from configparser import Error, RawConfigParser

    found: dict[str, str] = {}
    of_settings = profile if profile == "default" else f"profile {profile}"
    for file, section in ((settings, of_settings), (credentials, profile)):
        parser = RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (Error, UnicodeDecodeError) as cause:
            raise StoreArgumentError(f"cannot read {file!r}: {cause}") from cause
        if parser.has_section(section):
            found.update(parser.items(section))
    return found


def _boto3_provider(profile: str | None) -> Any:
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as cause:
        raise MissingDependencyError(
            "AWS profiles that sign in or take on a role need boto3: pip install boto3"
        ) from cause
    return Boto3CredentialProvider(boto3.Session(profile_name=profile))


# --------------------------------------------------------------------------- GCS, Azure


def _gcs(bucket: Bucket, given: dict[str, Any]) -> None:
    import json

    token = given.pop("token", None)
    if token == "anon":  # noqa: S105  gcsfs' word
        bucket.config["skip_signature"] = True
    elif isinstance(token, Mapping):
        bucket.config["service_account_key"] = json.dumps(dict(token))
    elif isinstance(token, str) and token.endswith(".json"):
        bucket.config["service_account"] = token
    elif token not in {None, "google_default"}:
        raise StoreArgumentError(
            "the storage option 'token' is 'anon', 'google_default', a *.json file or its content"
        )
    _take(bucket, given)


def _azure(bucket: Bucket, given: dict[str, Any]) -> None:
    config = bucket.config
    text = given.pop("connection_string", None) or os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if text:
        _connection_string(config, text)
    credential = given.pop("credential", None)
    if isinstance(credential, str):
        config["sas_key" if "sig=" in credential else "account_key"] = credential
    elif credential is not None:
        raise _refuse(bucket, "credential")
    host = given.pop("account_host", None)
    if host:
        config["endpoint"] = host if "://" in host else f"https://{host}"
    _take(bucket, given)


_CONNECTION = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "blobendpoint": "endpoint",
    "sharedaccesssignature": "sas_key",
}


def _connection_string(config: dict[str, Any], text: str) -> None:
    parts = {}
    for part in filter(None, text.strip().split(";")):
        name, _, value = part.partition("=")
        parts[name.strip().lower()] = value.strip()
    for name, target in _CONNECTION.items():
        if parts.get(name):
            config[target] = parts[name]
    suffix = parts.get("endpointsuffix", "core.windows.net")
    if "endpoint" not in config and suffix != "core.windows.net" and "account_name" in config:
        protocol = parts.get("defaultendpointsprotocol", "https")
        config["endpoint"] = f"{protocol}://{config['account_name']}.blob.{suffix}"


_MAPPERS: dict[str, Callable[[Bucket, dict[str, Any]], None]] = {
    "s3": _s3,
    "gcs": _gcs,
    "azure": _azure,
}
