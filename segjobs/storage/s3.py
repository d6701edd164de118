"""``s3://bucket/key`` files, at AWS or any other endpoint."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from segjobs.config import StorageConfig
from segjobs.errors import StorageError
from segjobs.storage.local_walk import OnTrouble, refuse
from segjobs.storage.s3_client import S3, S3Reply
from segjobs.storage.uris import FileInfo, microseconds

_LARGEST_PUT = 5 * 2**30  # S3's own limit of one PUT


class S3Files:
    """See ``segjobs.storage.Store``. ``reached``: another process has had an answer from the endpoint."""

    def __init__(self, config: StorageConfig, *, reached: bool = False) -> None:
        self._s3 = S3(config, reached=reached)

    @property
    def reached(self) -> bool:
        return self._s3.reached

    def info(self, uri: str) -> FileInfo | None:
        try:
            head = self._s3.head(*_split(uri))
        except FileNotFoundError:
            return None
        return _file_info(uri, head["ContentLength"], head)

    def read(self, uri: str) -> bytes:
        return self._s3.get(*_split(uri))[0]

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        data, head = self._s3.get(*_split(uri), item=True)
        return data, _file_info(uri, len(data), head)

    def check_around(self, uri: str) -> None:
        """Nothing more to ask: ``read_item`` has asked for the bucket."""

    def get_file(self, uri: str, path: Path) -> None:
        self._s3.download(*_split(uri), path)

    def is_folder(self, uri: str) -> bool:
        return uri.endswith("/")

    def walk(self, root: str, *, on_trouble: OnTrouble = refuse, levels: int | None = None) -> Iterator[FileInfo]:
        bucket, key = _split(root)
        prefix = key.rstrip("/") + "/" if key else ""
        token = None
        while True:
            page = self._s3.list_page(bucket, prefix, token)
            for entry in page.get("Contents", ()):
                path = entry["Key"][len(prefix) :]
                if path.endswith("/") or not path or path.startswith(".") or "/." in path:
                    continue
                yield _file_info(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry, path)
            if not page.get("IsTruncated"):
                return
            token = page["NextContinuationToken"]

    def list_names(self, folder: str) -> set[str]:
        return {file.path for file in self.walk(folder) if "/" not in file.path}

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """One PUT with ``If-None-Match: *``."""
        return self._s3.put_if_absent(*_split(uri), lambda: data, size=len(data))

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        """One PUT, which takes 5 GiB at most."""
        size = path.stat().st_size
        if size > _LARGEST_PUT:
            raise StorageError(
                f"{uri}: {size} bytes, and S3 takes {_LARGEST_PUT} in one conditional PUT; write to a local folder"
            )
        with path.open("rb") as file:
            # The store checks it: a request that is repeated could else begin where the last one broke off.
            md5 = b64encode(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()).decode()

            def from_start() -> BinaryIO:
                file.seek(0)
                return file

            return self._s3.put_if_absent(*_split(uri), from_start, size=size, ContentMD5=md5)

    def delete(self, uri: str) -> None:
        self._s3.delete(*_split(uri))


def _split(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` → (bucket, key)."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _file_info(uri: str, size: int, head: S3Reply, path: str = "") -> FileInfo:
    return FileInfo(
        uri, path or uri.rpartition("/")[2], size, microseconds(head["LastModified"]), head["ETag"].strip('"')
    )
