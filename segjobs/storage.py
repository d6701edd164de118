"""The one door to files: list, read, put-if-absent and delete for local paths and ``s3://`` URIs.

A URI is a local path, ``file://…`` or ``s3://bucket/key``; nothing else opens. Objects are read
whole and written whole: ``put_if_absent`` publishes complete bytes or nothing, and never replaces
what is there. A ``Storage`` holds settings only, so it pickles small; each process makes its own
connections at first use.
"""

import errno
import hashlib
import os
import shutil
import stat
import uuid
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from segjobs.config import StorageConfig
from segjobs.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from s3fs import S3FileSystem

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_LARGEST_PUT = 5 * 2**30  # S3's own limit of one PUT


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One listed file. ``path`` is relative to the listed root; ``mtime_us`` is Unix time in
    microseconds; ``etag`` is empty for local files. ``size`` is -1 for a file that is not there."""

    uri: str
    path: str
    size: int
    mtime_us: int
    etag: str


def is_remote(uri: str) -> bool:
    """True for ``s3://``, False for local paths; any other scheme is a ConfigError."""
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        return False
    if scheme != "s3":
        raise ConfigError(f"{uri!r}: cannot open {scheme}:// URIs; expected a local path or s3://bucket/key")
    return True


def local_path(uri: str) -> Path:
    """The file that a local URI names; ``file://`` URIs are percent-decoded."""
    if uri.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    return Path(uri)


def local_uri(path: str | Path) -> str:
    """An absolute local path as a URI: itself, or ``file://`` and percent-encoded bytes where the
    name is not UTF-8 (Arrow strings hold UTF-8 only)."""
    text = str(path)
    return text if _is_utf8(text) else "file://" + quote(os.fsencode(text))


def join(uri: str, *parts: str) -> str:
    """``uri`` and further path parts, with single slashes between them."""
    return "/".join([uri.rstrip("/"), *parts])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _relative_text(path: str) -> str:
    """A relative path as UTF-8 text: bytes that are not UTF-8 become %XX."""
    if _is_utf8(path):
        return path
    return "".join(c if _is_utf8(c) else "".join(f"%{b:02X}" for b in os.fsencode(c)) for c in path)


def split_s3(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` → (bucket, key); a missing bucket is a ConfigError."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r}: no bucket; expected s3://bucket/prefix")
    return bucket, key


class Storage:
    """Reads and writes by URI with one set of settings. Thread-safe."""

    def __init__(self, config: StorageConfig | None = None) -> None:
        self.config = config or StorageConfig()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    @cached_property
    def _s3(self) -> "S3FileSystem":
        from s3fs import S3FileSystem  # imported here: jobs on local files need not load botocore

        s3 = self.config.s3
        client = {"region_name": s3.region} if s3.region else {}
        return S3FileSystem(
            anon=s3.anonymous,
            profile=s3.profile,
            endpoint_url=s3.endpoint_url,
            client_kwargs=client,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def _call(self, uri: str, method: str, **arguments: Any) -> dict[str, Any]:
        """One S3 request; what stops a whole job becomes StorageError, the rest stays OSError."""
        from botocore.exceptions import BotoCoreError

        bucket, key = split_s3(uri)
        if method != "list_objects_v2":
            arguments["Key"] = key
        try:
            reply: Any = self._s3.call_s3(method, Bucket=bucket, **arguments)
            return reply
        except PermissionError as error:
            raise StorageError(f"{uri}: access denied ({error}); check credentials and bucket policy") from error
        except BotoCoreError as error:
            endpoint = self.config.s3.endpoint_url or "AWS"
            raise StorageError(f"{uri}: cannot reach {endpoint}: {' '.join(str(error).split())}") from error

    # --- reading -------------------------------------------------------------------------------

    def info(self, uri: str) -> FileInfo | None:
        """Fingerprint of one file (``path`` is its base name), or None where there is none."""
        if is_remote(uri):
            try:
                head = self._call(uri, "head_object")
            except FileNotFoundError:
                return None
            return FileInfo(
                uri,
                uri.rpartition("/")[2],
                head["ContentLength"],
                _microseconds(head["LastModified"]),
                head["ETag"].strip('"'),
            )
        path = local_path(uri)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return FileInfo(uri, path.name, status.st_size, status.st_mtime_ns // 1000, "")

    def exists(self, uri: str) -> bool:
        """Whether a file (not a folder) is there."""
        return self.info(uri) is not None

    def read(self, uri: str) -> bytes:
        """The whole file. Raises FileNotFoundError, OSError for this file alone, StorageError for all."""
        if not is_remote(uri):
            return local_path(uri).read_bytes()
        return self._read_s3(uri)[0]

    def read_with_info(self, uri: str) -> tuple[bytes, FileInfo]:
        """The whole file and the fingerprint of exactly these bytes."""
        if is_remote(uri):
            data, head = self._read_s3(uri)
            etag = head["ETag"].strip('"')
            return data, FileInfo(uri, uri.rpartition("/")[2], len(data), _microseconds(head["LastModified"]), etag)
        path = local_path(uri)
        with path.open("rb") as file:
            data = file.read()
            status = os.fstat(file.fileno())
        return data, FileInfo(uri, path.name, len(data), status.st_mtime_ns // 1000, "")

    def _read_s3(self, uri: str) -> tuple[bytes, dict[str, Any]]:
        from fsspec.asyn import sync

        reply = self._call(uri, "get_object")
        data: Any = sync(self._s3.loop, reply["Body"].read)
        if len(data) != reply["ContentLength"]:
            raise OSError(errno.EIO, f"the reply ended after {len(data)} of {reply['ContentLength']} bytes", uri)
        return data, reply

    def get_file(self, uri: str, path: Path) -> None:
        """Download to a local ``path`` without holding the file in memory."""
        if is_remote(uri):
            bucket, key = split_s3(uri)
            try:
                self._s3.get_file(f"{bucket}/{key}", str(path))
            except PermissionError as error:
                raise StorageError(f"{uri}: access denied ({error}); check credentials and bucket policy") from error
        else:
            shutil.copyfile(local_path(uri), path)

    # --- listing -------------------------------------------------------------------------------

    def walk(self, root: str) -> Iterator[FileInfo]:
        """Every file below a folder or prefix, as it is found; ``path`` is relative to ``root``.

        Names that begin with a dot are skipped, links are followed, loops of links are entered once.
        Raises StorageError where ``root`` is no folder (an empty S3 prefix yields nothing).
        """
        if is_remote(root):
            yield from self._walk_s3(root)
            return
        folder = local_path(root).absolute()
        if not folder.is_dir():
            raise StorageError(f"{root}: no such folder")
        yield from _walk_local(str(folder), "", ())

    def list_names(self, folder: str) -> set[str]:
        """Names of the files directly in a folder or prefix; empty where there is none."""
        if is_remote(folder):
            return {file.path for file in self._walk_s3(folder) if "/" not in file.path}
        path = local_path(folder)
        return {entry.name for entry in os.scandir(path) if entry.is_file()} if path.is_dir() else set()

    def _walk_s3(self, root: str) -> Iterator[FileInfo]:
        bucket, key = split_s3(root)
        prefix = key.rstrip("/") + "/" if key else ""
        page: dict[str, Any] = {}
        try:
            while True:
                page = self._call(root, "list_objects_v2", Prefix=prefix, **page)
                for entry in page.get("Contents", ()):
                    path = entry["Key"][len(prefix) :]
                    if path.endswith("/") or not path or path.startswith(".") or "/." in path:
                        continue
                    yield FileInfo(
                        f"s3://{bucket}/{entry['Key']}",
                        path,
                        entry["Size"],
                        _microseconds(entry["LastModified"]),
                        entry["ETag"].strip('"'),
                    )
                if not page.get("IsTruncated"):
                    return
                page = {"ContinuationToken": page["NextContinuationToken"]}
        except FileNotFoundError as error:
            raise StorageError(f"{root}: no bucket {bucket!r} at {self.config.s3.endpoint_url or 'AWS'}") from error

    # --- writing -------------------------------------------------------------------------------

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Publish ``data`` whole under ``uri`` unless something is there; True if this call did it.

        Local: a temporary file beside it, fsync, hard link, fsync of the folder. S3: one PUT with
        ``If-None-Match: *``. A False after a retried PUT may be this call's own lost success: the
        caller compares what is there. Raises StorageError where the store cannot take it.
        """
        if is_remote(uri):
            return self._put_s3(uri, data)
        try:
            return _link_new(local_path(uri).absolute(), data)
        except OSError as error:
            raise _cannot_write(uri, error) from error

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        """``put_if_absent`` of a local file that need not fit into memory.

        Local: the new name is a hard link to ``path``, or to a copy of it where that is on another disk. S3: one
        PUT, which takes 5 GiB at most.
        """
        if is_remote(uri):
            size = path.stat().st_size
            if size > _LARGEST_PUT:
                raise StorageError(
                    f"{uri}: {size} bytes, and S3 takes {_LARGEST_PUT} in one conditional PUT; write to a local folder"
                )
            with path.open("rb") as file:
                # The store checks it: a request that is repeated could else begin where the last one broke off.
                md5 = b64encode(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()).decode()
                file.seek(0)
                return self._put_s3(uri, file, ContentMD5=md5)
        try:
            return _link_file(path, local_path(uri).absolute())
        except OSError as error:
            raise _cannot_write(uri, error) from error

    def delete(self, uri: str) -> None:
        """Take one file away that the caller's own run made; nothing where there is none. Raises StorageError."""
        try:
            if is_remote(uri):
                self._call(uri, "delete_object")
            else:
                local_path(uri).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{uri}: cannot be deleted: {error.strerror or error}") from error

    def _put_s3(self, uri: str, body: Any, **headers: str) -> bool:
        try:
            self._call(uri, "put_object", Body=body, IfNoneMatch="*", **headers)
        except FileNotFoundError as error:
            raise StorageError(f"{uri}: no such bucket") from error
        except OSError as error:
            if _http_status(error) in (409, 412) or isinstance(error, FileExistsError):
                return False
            raise StorageError(f"{uri}: cannot write: {error}") from error
        return True


def _cannot_write(uri: str, error: OSError) -> StorageError:
    if error.errno in _FULL_DISK:
        return StorageError(f"{uri}: the disk is full; free some space and run the command again")
    return StorageError(f"{uri}: cannot write: {error.strerror or error}")


def _link_file(source: Path, path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(source, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
        try:
            shutil.copyfile(source, beside)
            return _link_file(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _link_new(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _walk_local(root: str, inside: str, ancestors: tuple[tuple[int, int], ...]) -> Iterator[FileInfo]:
    folder = f"{root}/{inside}" if inside else root
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        return
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        path = f"{inside}/{entry.name}" if inside else entry.name
        try:
            status = entry.stat()
        except OSError:  # a dangling link or a loop of links names no file
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk_local(root, path, (*ancestors, identity))
        elif stat.S_ISREG(status.st_mode):
            uri = local_uri(f"{root}/{path}")
            yield FileInfo(uri, _relative_text(path), status.st_size, status.st_mtime_ns // 1000, "")


def _microseconds(moment: Any) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def _http_status(error: OSError) -> int | None:
    """The HTTP status behind an error of s3fs, which keeps botocore's error as its cause."""
    response = getattr(error.__cause__, "response", None)
    return response["ResponseMetadata"].get("HTTPStatusCode") if response else None
