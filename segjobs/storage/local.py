"""Files of the local disk: written beside their place, made durable, and linked where nothing is."""

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from segjobs.errors import StorageError
from segjobs.storage.uris import FileInfo, is_utf8, local_path, local_uri

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# What no file is to blame for: too many open, no memory, a network disk that is gone.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN)


class LocalFiles:
    """See ``segjobs.storage.Store``."""

    def __init__(self, max_item_bytes: int) -> None:
        self._max_item_bytes = max_item_bytes

    def info(self, uri: str) -> FileInfo | None:
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

    def read(self, uri: str) -> bytes:
        try:
            return local_path(uri).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise
        except OSError as error:
            raise StorageError(f"{uri}: cannot be read: {error.strerror or error}") from error

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        path = local_path(uri)
        try:
            # Not blocking: to open a named pipe would wait for its writer for ever.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "a folder, pipe or device, no file")
                if status.st_size > self._max_item_bytes:
                    most = self._max_item_bytes
                    raise OSError(errno.EFBIG, f"{status.st_size} bytes, storage.max_item_bytes is {most}")
                data = file.read()
                status = os.fstat(file.fileno())
        except OSError as error:
            if error.errno in _OF_THE_MACHINE:
                raise StorageError(f"{uri}: cannot be read: {error.strerror}") from error
            raise
        return data, FileInfo(uri, path.name, len(data), status.st_mtime_ns // 1000, "")

    def get_file(self, uri: str, path: Path) -> None:
        shutil.copyfile(local_path(uri), path)

    def walk(self, root: str) -> Iterator[FileInfo]:
        folder = local_path(root).absolute()
        if not folder.is_dir():
            raise StorageError(f"{root}: no such folder")
        yield from _walk(str(folder), "", ())

    def list_names(self, folder: str) -> set[str]:
        path = local_path(folder)
        return {entry.name for entry in os.scandir(path) if entry.is_file()} if path.is_dir() else set()

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """A temporary file beside it, fsync, hard link, fsync of the folder."""
        try:
            return _link_new(local_path(uri).absolute(), data)
        except OSError as error:
            raise _cannot_write(uri, error) from error

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        """The new name is a hard link to ``path``, or to a copy of it where that is on another disk."""
        try:
            return _link_file(path, local_path(uri).absolute())
        except OSError as error:
            raise _cannot_write(uri, error) from error

    def delete(self, uri: str) -> None:
        try:
            local_path(uri).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{uri}: cannot be deleted: {error.strerror or error}") from error


def _relative_text(path: str) -> str:
    """A relative path as UTF-8 text: bytes that are not UTF-8 become %XX."""
    if is_utf8(path):
        return path
    return "".join(c if is_utf8(c) else "".join(f"%{b:02X}" for b in os.fsencode(c)) for c in path)


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


def _walk(root: str, inside: str, ancestors: tuple[tuple[int, int], ...]) -> Iterator[FileInfo]:
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
            yield from _walk(root, path, (*ancestors, identity))
        elif stat.S_ISREG(status.st_mode):
            uri = local_uri(f"{root}/{path}")
            yield FileInfo(uri, _relative_text(path), status.st_size, status.st_mtime_ns // 1000, "")
