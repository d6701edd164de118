"""A folder's tree: a path in, every file below it out; what cannot be looked at is told, and never left out in silence.

A stack instead of a call for each level: folders may be nested deeper than Python's calls.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator

from segjobs.errors import StorageError
from segjobs.storage.uris import FileInfo, local_uri, relative_text

OnTrouble = Callable[[FileInfo, OSError], None]
"""Is told what a listing cannot look at (its size is -1) and why; what it returns from is left out."""

NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Not there: a link that leads nowhere or to itself, a file that was deleted meanwhile."""


def refuse(entry: FileInfo, error: OSError) -> None:
    """Leaves out what is no file. Raises StorageError for anything else: images, or a folder of them, may be there."""
    if error.errno not in NO_FILE:
        raise StorageError(
            f"{entry.uri}: cannot be looked at: {error.strerror or error}; mend its rights, disk or mount"
        ) from error


def walk_folder(root: str, on_trouble: OnTrouble, levels: int | None) -> Iterator[FileInfo]:
    """Files below an absolute path, folder by folder in the order of names. See ``segjobs.storage.Store.walk``."""
    root = root.rstrip("/")
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while waiting:
        inside, above = waiting.pop()
        path = f"{root}/{inside}".rstrip("/") or "/"
        names: list[str] = []
        try:
            status = os.stat(path)
            folder, identity = stat.S_ISDIR(status.st_mode), (status.st_dev, status.st_ino)
            if folder and identity not in above and (levels is None or len(above) <= levels):
                names = sorted(os.listdir(path), reverse=True)
        except OSError as error:
            on_trouble(FileInfo(local_uri(path), relative_text(inside), -1, 0, ""), error)
            continue
        if stat.S_ISREG(status.st_mode):
            yield FileInfo(local_uri(path), relative_text(inside), status.st_size, status.st_mtime_ns // 1000, "")
        here = f"{inside}/" if inside else ""
        waiting += [(here + name, (*above, identity)) for name in names if not name.startswith(".")]
