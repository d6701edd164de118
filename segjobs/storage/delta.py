"""Where deltalake finds a table: a URI and the storage's settings in, its place and options, or an open file, out."""

import re

import pyarrow as pa
import pyarrow.fs as pa_fs

from segjobs.errors import ConfigError, StorageError
from segjobs.storage import Storage, local_path
from segjobs.storage.uris import scheme_of

_MISREAD = re.compile(r"[#?\\\x00-\x1f]|%[0-9A-Fa-f]{2}")  # delta-kernel makes URLs of paths, and of their parts


def delta_place(storage: Storage, uri: str) -> tuple[str, dict[str, str]]:
    """What ``DeltaTable`` takes for the table at ``uri``, with the credentials of the other stores.

    Raises ConfigError where Delta Lake could open none there.
    """
    scheme = scheme_of(uri)
    if scheme not in ("file", "s3"):
        raise ConfigError(f"{uri}: a collection lies on the local disk or in S3; keep it there")
    place = str(local_path(uri).absolute()) if scheme == "file" else uri
    if found := _MISREAD.search(place):
        raise ConfigError(
            f"{uri}: Delta Lake opens no table below a name with {found[0]!r} in it; take a place without # ? \\ or %"
        )
    return place, {} if scheme == "file" else _s3_options(storage)


def open_delta_file(storage: Storage, uri: str, name: str) -> pa.NativeFile:
    """A file of the table at ``uri``, of which the ranges are read that are asked for. Raises OSError."""
    from deltalake.fs import DeltaStorageHandler

    return pa_fs.PyFileSystem(DeltaStorageHandler(*delta_place(storage, uri))).open_input_file(name)


def _s3_options(storage: Storage) -> dict[str, str]:
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    settings = storage.config.s3
    options = {"AWS_CONDITIONAL_PUT": "etag", "timeout": f"{storage.config.read_timeout_s:g}s"}
    if settings.endpoint_url:
        options["AWS_ENDPOINT_URL"] = settings.endpoint_url
        options["AWS_ALLOW_HTTP"] = "true"
    if settings.anonymous:
        return {**options, "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": settings.region or "us-east-1"}
    try:
        session = Session(profile=settings.profile)
        region = settings.region or session.get_config_variable("region")
        found = session.get_credentials()
    except BotoCoreError as error:
        raise StorageError(f"storage.s3: {error}") from error
    if region:
        options["AWS_REGION"] = region
    if found is not None:
        keys = found.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
        if keys.token:
            options["AWS_SESSION_TOKEN"] = keys.token
    return options
