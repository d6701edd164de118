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

from segjobs.config import StorageConfig, check_uri
from segjobs.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from segjobs.s3 import S3

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# What no file is to blame for: too many open, no memory, a network disk that is gone.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN)
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
    """True for ``s3://``, False for local paths and ``file:///``; any other scheme is a ConfigError."""
    try:
        return check_uri(uri).startswith("s3://")
    except ValueError as error:
        raise ConfigError(f"{uri!r}: {error}") from None


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
    """``s3://bucket/key`` → (bucket, key)."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class Storage:
    """Reads and writes by URI with one set of settings. Thread-safe."""

    def __init__(self, config: StorageConfig | None = None) -> None:
        self.config = config or StorageConfig()
        self._reached = False

    def __getstate__(self) -> dict[str, Any]:
        made = self.__dict__.get("_s3")
        return {"config": self.config, "_reached": made.reached if made else self._reached}

    @cached_property
    def _s3(self) -> "S3":
        from segjobs.s3 import S3  # imported here: jobs on local files need not load botocore

        return S3(self.config, reached=self._reached)

    # --- reading -------------------------------------------------------------------------------

    def info(self, uri: str) -> FileInfo | None:
        """Fingerprint of one file (``path`` is its base name), or None where there is none."""
        if is_remote(uri):
            try:
                head = self._s3.head(*split_s3(uri))
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
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):  # what no file can be called, or a loop of links
                return None
            raise StorageError(f"{uri}: cannot be looked up: {error.strerror or error}") from error
        if not stat.S_ISREG(status.st_mode):
            return None
        return FileInfo(uri, path.name, status.st_size, status.st_mtime_ns // 1000, "")

    def exists(self, uri: str) -> bool:
        """Whether a file (not a folder) is there."""
        return self.info(uri) is not None

    def read(self, uri: str) -> bytes:
        """The whole file. Raises FileNotFoundError (or that it is no file), else StorageError."""
        if is_remote(uri):
            return self._s3.get(*split_s3(uri))[0]
        try:
            return local_path(uri).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise
        except OSError as error:
            raise StorageError(f"{uri}: cannot be read: {error.strerror or error}") from error

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        """One file of many, whole, and the fingerprint of exactly these bytes.

        Raises FileNotFoundError, TimeoutError or another OSError for what is wrong with this file alone;
        StorageError where the others cannot be read either.
        """
        if is_remote(uri):
            data, head = self._s3.get(*split_s3(uri), item=True)
            etag = head["ETag"].strip('"')
            return data, FileInfo(uri, uri.rpartition("/")[2], len(data), _microseconds(head["LastModified"]), etag)
        path = local_path(uri)
        try:
            # Not blocking: to open a named pipe would wait for its writer for ever.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "a folder, pipe or device, no file")
                if status.st_size > self.config.max_item_bytes:
                    most = self.config.max_item_bytes
                    raise OSError(errno.EFBIG, f"{status.st_size} bytes, storage.max_item_bytes is {most}")
                data = file.read()
                status = os.fstat(file.fileno())
        except OSError as error:
            if error.errno in _OF_THE_MACHINE:
                raise StorageError(f"{uri}: cannot be read: {error.strerror}") from error
            raise
        return data, FileInfo(uri, path.name, len(data), status.st_mtime_ns // 1000, "")

    def get_file(self, uri: str, path: Path) -> None:
        """Download to a local ``path`` without holding the file in memory."""
        if is_remote(uri):
            self._s3.download(*split_s3(uri), path)
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
        token = None
        while True:
            page = self._s3.list_page(bucket, prefix, token)
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
            token = page["NextContinuationToken"]

    # --- writing -------------------------------------------------------------------------------

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Publish ``data`` whole under ``uri`` unless something is there; True if this call did it.

        Local: a temporary file beside it, fsync, hard link, fsync of the folder. S3: one PUT with
        ``If-None-Match: *``. A False after a repeated PUT may be this call's own lost success: the
        caller compares what is there. Raises StorageError where the store cannot take it.
        """
        if is_remote(uri):
            return self._s3.put_if_absent(*split_s3(uri), lambda: data, size=len(data))
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

                def from_start() -> Any:
                    file.seek(0)
                    return file

                return self._s3.put_if_absent(*split_s3(uri), from_start, size=size, ContentMD5=md5)
        try:
            return _link_file(path, local_path(uri).absolute())
        except OSError as error:
            raise _cannot_write(uri, error) from error

    def delete(self, uri: str) -> None:
        """Take one file away that the caller's own run made; nothing where there is none. Raises StorageError."""
        if is_remote(uri):
            self._s3.delete(*split_s3(uri))
            return
        try:
            local_path(uri).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{uri}: cannot be deleted: {error.strerror or error}") from error


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
