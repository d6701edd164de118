"""``s3://`` requests of which there are millions, an image's GET and a part's PUT, by obstore: one attempt each.

    request ─▶ obstore ─▶ reply
                  └──▶ NotServed, whatever the reason ─▶ s3_client.py asks again by s3fs, and judges what comes

A GET takes 0.3 ms of CPU here and 2.5 by s3fs, more than decoding the image. But obstore tells a fault in words only,
has no botocore behind it, and drops a key's last slash: so all judgement, repetition and every other request is
s3fs's, and endpoint, region, credentials and time-outs are those of its client, one set of rules for both. What asks
for more than these (a proxy, an access point, FIPS) has no quick way, and goes by s3fs alone.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from botocore.utils import get_environ_proxies
from fsspec.asyn import sync
from obstore.exceptions import BaseError, GenericError
from obstore.store import S3Store
from s3fs import S3FileSystem

from segjobs.config import StorageConfig

if TYPE_CHECKING:
    from obstore.store import ClientConfig

LARGEST_PUT = 2**23
"""Bytes that are sent within ``storage.read_timeout_s``, which obstore counts from a request's beginning."""
_CREDENTIALS_FOR = timedelta(minutes=10)
"""obstore asks again five minutes before their end; botocore, which is asked, renews those of a role in time."""
_OBSTORES_OWN = ("AWS_SERVER_SIDE_ENCRYPTION", "AWS_CHECKSUM_ALGORITHM", "AWS_CONDITIONAL_PUT")
"""Variables of the environment that s3fs does not obey."""
_PLAIN_KEY = re.compile(r"(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+(/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+)*")
_AWS = (".amazonaws.com", ".amazonaws.com.cn")
_NEEDS_BOTOCORE = ("use_accelerate_endpoint", "use_dualstack_endpoint")


class NotServed(Exception):
    """obstore did not do it; its words. ``busy``: it may be served a moment later."""

    def __init__(self, text: str, *, busy: bool = False) -> None:
        super().__init__(text)
        self.busy = busy


@dataclass(frozen=True)
class Connection:
    """What s3fs's client goes by. ``credentials``: None of anonymous requests.

    ``virtual``: the bucket is in the host's name. ``ca``: PEM of authorities that are trusted beside the system's.
    """

    endpoint: str
    region: str
    virtual: bool
    credentials: Callable[[], dict[str, Any]] | None
    ca: bytes | None


def connection_of(filesystem: S3FileSystem) -> Connection | None:
    """How s3fs reaches its endpoint; None where obstore cannot do the same.

    Raises botocore's errors, and OSError of a CA bundle that cannot be read.
    """
    client: Any = sync(filesystem.loop, filesystem.set_session)
    config, endpoint = client.meta.config, client.meta.endpoint_url
    settings = config.s3 or {}
    session: Any = filesystem.session
    if (
        any(name in os.environ for name in _OBSTORES_OWN)
        or session.get_config_variable("use_fips_endpoint")
        or session.get_config_variable("use_dualstack_endpoint")
        or any(settings.get(name) for name in _NEEDS_BOTOCORE)
        or config.proxies
        or config.client_cert
        or get_environ_proxies(endpoint)
    ):
        return None
    host = urlsplit(endpoint).hostname or ""
    style = settings.get("addressing_style")
    virtual = style == "virtual" or (host.endswith(_AWS) and style != "path")
    found = None if filesystem.anon else sync(filesystem.loop, session.get_credentials)
    if found is None and not filesystem.anon:
        return None
    region = client.meta.region_name
    bundle = session.get_config_variable("ca_bundle") if endpoint.startswith("https:") else None
    return Connection(
        endpoint,
        "us-east-1" if region in (None, "aws-global") else region,
        virtual,
        None if found is None else _Credentials(filesystem.loop, found),
        Path(bundle).read_bytes() if bundle else None,
    )


class _Credentials:
    """botocore's, as obstore asks for them: found, and renewed, as s3fs does."""

    def __init__(self, loop: Any, found: Any) -> None:
        self._loop = loop
        self._found = found

    def __call__(self) -> dict[str, Any]:
        frozen: Any = sync(self._loop, self._found.get_frozen_credentials)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_FOR,
        }


class QuickBucket:
    """One bucket. Thread-safe."""

    def __init__(self, bucket: str, way: Connection, config: StorageConfig) -> None:
        scheme, _, host = way.endpoint.partition("://")
        virtual = way.virtual and "." not in bucket  # whose certificate would not fit
        endpoint = f"{scheme}://{bucket}.{host}" if virtual else way.endpoint
        options: ClientConfig = {
            "allow_http": scheme == "http",
            "connect_timeout": timedelta(seconds=config.connect_timeout_s),
            "read_timeout": timedelta(seconds=config.read_timeout_s),
            "timeout": timedelta(seconds=config.deadline_s),
        }
        if way.ca:
            options["root_certificate"] = way.ca
        self._most = config.max_item_bytes
        self._store = S3Store(
            bucket,
            # Each is given, lest obstore take it from a variable of the environment that botocore does not obey.
            endpoint=endpoint,
            aws_endpoint_url_s3=endpoint,
            virtual_hosted_style_request=virtual,
            region=way.region,
            skip_signature=way.credentials is None,
            unsigned_payload=False,
            request_payer=False,
            s3_express=False,
            credential_provider=way.credentials,  # pyright: ignore[reportArgumentType]
            client_options=options,
            retry_config={"max_retries": 0},
        )

    def get(self, key: str) -> tuple[bytes, dict[str, Any]]:
        """The bytes of an object of ``storage.max_item_bytes`` at most, and its header as botocore has it.

        Raises NotServed.
        """
        try:
            reply = obstore.get(self._store, key)
            about = reply.meta
            if about["size"] > self._most:
                raise NotServed("larger than storage.max_item_bytes")
            data = reply.bytes().to_bytes()
        except (BaseError, OSError, ValueError) as error:
            raise _not_served(error) from error
        if len(data) != about["size"] or not about["e_tag"]:
            raise NotServed(f"{len(data)} of {about['size']} bytes, etag {about['e_tag']!r}")
        return data, {"ContentLength": about["size"], "LastModified": about["last_modified"], "ETag": about["e_tag"]}

    def create(self, key: str, data: bytes) -> None:
        """One PUT with ``If-None-Match: *``. Raises NotServed; then it may be done all the same."""
        try:
            obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except (BaseError, OSError, ValueError) as error:
            raise _not_served(error) from error


def _not_served(error: Exception) -> NotServed:
    return NotServed(str(error), busy=isinstance(error, GenericError))


def is_plain(bucket: str, key: str) -> bool:
    """Whether obstore takes a key, and a bucket, for what they are: it normalises paths, and knows no access points."""
    return ":" not in bucket and _PLAIN_KEY.fullmatch(key) is not None
