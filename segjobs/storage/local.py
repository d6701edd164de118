"""Files of the local disk: written beside their place, made durable, and linked (else renamed) where nothing is."""

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from segjobs.errors import StorageError
from segjobs.storage.local_walk import NO_FILE, OnTrouble, refuse, walk_folder
from segjobs.storage.rename import rename_new
from segjobs.storage.uris import FileInfo, local_path

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHTS = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # what file systems without them say
# What no file is to blame for: too many open, no memory, a network disk that is gone.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN)


class LocalFiles:
    """See ``segjobs.storage.Store``."""

    def __init__(self, max_item_bytes: int) -> None:
        self._max_item_bytes = max_item_bytes

    def info(self, uri: str) -> FileInfo | None:
        status = _status(uri)
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        return FileInfo(uri, local_path(uri).name, status.st_size, status.st_mtime_ns // 1000, "")

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

    def check_around(self, uri: str) -> None:
        folder = next(path for path in local_path(uri).absolute().parents if self.is_folder(str(path)))
        try:
            empty = not os.listdir(folder)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be listed: {error.strerror or error}") from error
        if empty:
            raise StorageError(
                f"{uri}: is gone, and {folder} is empty: mount its disk, or delete that folder if its files are no more"
            )

    def get_file(self, uri: str, path: Path) -> None:
        with writing(str(path)):
            shutil.copyfile(local_path(uri), path)

    def is_folder(self, uri: str) -> bool:
        status = _status(uri)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def walk(self, root: str, *, on_trouble: OnTrouble = refuse, levels: int | None = None) -> Iterator[FileInfo]:
        if not self.is_folder(root):
            raise StorageError(f"{root}: no such folder")
        yield from walk_folder(str(local_path(root).absolute()), on_trouble, levels)

    def list_names(self, folder: str) -> set[str]:
        if not self.is_folder(folder):
            return set()
        return {file.path for file in self.walk(folder, levels=0)}

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """A temporary file beside it, fsync, hard link, fsync of the folder."""
        with writing(uri):
            return _link_new(local_path(uri).absolute(), data)

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        """The new name is a hard link to ``path``, or to a copy of it where that is on another disk."""
        with writing(uri):
            return _link_file(path, local_path(uri).absolute())

    def delete(self, uri: str) -> None:
        try:
            local_path(uri).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{uri}: cannot be deleted: {error.strerror or error}") from error


def _status(uri: str) -> os.stat_result | None:
    """What stands under a name; None where there is nothing. Raises StorageError where that cannot be told."""
    try:
        return os.stat(local_path(uri))
    except OSError as error:
        if error.errno in (*NO_FILE, errno.ENAMETOOLONG):  # what no file can be called
            return None
        raise StorageError(f"{uri}: cannot be looked up: {error.strerror or error}") from error


@contextmanager
def writing(uri: str) -> Generator[None]:
    """While something is written for ``uri``. Raises StorageError for what the disk says: it is full, or no place."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(uri, error) from error


def _cannot_write(uri: str, error: OSError) -> StorageError:
    """The one line about a disk that takes no more."""
    if error.errno in _FULL_DISK:
        return StorageError(f"{uri}: the disk is full; free some space and run the command again")
    said = error.strerror or str(error)
    if error.errno in _NO_RIGHTS:
        return StorageError(f"{uri}: cannot write: {said}; mend its rights or mount, or take another place")
    return StorageError(f"{uri}: cannot write: {said}")


def _link_file(source: Path, path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(source, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EXDEV, *_NO_LINKS):
            raise
        beside = _beside(path)
        try:
            shutil.copyfile(source, beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            return _take_name(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _link_new(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _take_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"


def _take_name(temporary: Path, path: Path) -> bool:
    """Give a whole file its name, unless somebody has it. It may keep its temporary one."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            rename_new(temporary, path)
        except FileExistsError:
            return False
        except OSError as second:
            raise OSError(
                f"its file system has no hard links ({error.strerror}), nor names that are taken only where they are "
                f"free ({second.strerror}); take a place on another disk or in a bucket"
            ) from error
    _sync_folder(path.parent)
    return True


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
