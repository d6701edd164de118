"""A file that cannot be read, or its store: which is to blame. URIs in; bytes, the file's error or the store's out.

    read ── fails ─→ a pause ─→ another file of the shard is read ── fails too ─→ StorageError: the job stops
                                        │ is read
                                        └─→ the file once more ── fails again ─→ its own error, if not several in a row

What is not there is the file's own error where its surroundings are: a folder that is empty may be a disk that is gone.
"""

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

from segjobs.errors import StorageError
from segjobs.storage import FileInfo, Storage

_GONE = (errno.ENOENT, errno.ENOTDIR)
# What one file alone can be: too large, no file, a name that cannot be, archived.
_OWN = (errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODATA)
_RIGHTS = (errno.EACCES, errno.EPERM)
_PAUSE_S = 5.0  # in which a disk or a network comes back
_WITNESSES = 3  # other files that are read before the store is said to fail
_IN_A_ROW = 4  # files that fail one after the other, though the store answers for others

Holding = Callable[[Sequence[str]], AbstractContextManager[None]]
"""Entered while a file is read, with its name: a watchdog's."""


class Blame:
    """Reads files of one store. ``items``: the shard's, of which others are asked for where one fails. Thread-safe."""

    def __init__(
        self,
        storage: Storage,
        items: Sequence[FileInfo] = (),
        *,
        holding: Holding = lambda _: nullcontext(),
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._storage = storage
        self._names = {item.uri: item.path for item in items}
        self._there = [item.uri for item in items if item.size >= 0]
        self._holding = holding
        self._pause_s = pause_s
        self._last_read: str | None = None
        self._blamed = 0
        self._lock = Lock()

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        """As ``Storage.read_item``; StorageError where the store is to blame for what the file would be blamed for."""
        try:
            return self._read(uri)
        except OSError as error:
            if uri.startswith(("http://", "https://")) or error.errno in _OWN:  # each page may be another host's
                raise
            if error.errno in _GONE:
                self._storage.check_around(uri)
                raise
            self._ask_others(uri, error)
        try:
            return self._read(uri)
        except OSError as error:
            if error.errno not in (*_GONE, *_OWN, *_RIGHTS):
                self._count(uri, error)
            raise

    def _read(self, uri: str) -> tuple[bytes, FileInfo]:
        with self._holding([self._names.get(uri, uri)]):
            read = self._storage.read_item(uri)
        with self._lock:
            self._last_read, self._blamed = uri, 0
        return read

    def _ask_others(self, uri: str, error: OSError) -> None:
        """Raise StorageError unless another file is read, or there is none to ask."""
        if error.errno not in _RIGHTS:
            time.sleep(self._pause_s)
        failed: list[str] = []
        for other in self._others(uri):
            try:
                with self._holding([self._names.get(uri, uri)]):
                    self._storage.read_item(other)
            except OSError as another:
                failed.append(f"{other}: {another.strerror or another}")
            else:
                return
        if failed:
            raise StorageError(
                f"{uri}: cannot be read ({error.strerror or error}), and neither can others ({failed[0]}): that is not "
                "the images' fault but their store's; run the command again when it is well"
            ) from error

    def _others(self, uri: str) -> Iterator[str]:
        """The file that was read last, and some of those around this one."""
        place = self._there.index(uri) if uri in self._there else 0
        around = [*self._there[place + 1 :], *self._there[:place]]
        first = [self._last_read] if self._last_read else []
        yield from [one for one in dict.fromkeys([*first, *around]) if one != uri][:_WITNESSES]

    def _count(self, uri: str, error: OSError) -> None:
        with self._lock:
            self._blamed += 1
            too_many = self._blamed >= _IN_A_ROW
        if too_many:
            raise StorageError(
                f"{uri}: cannot be read ({error.strerror or error}), the {_IN_A_ROW}th file in a row: a store or disk "
                "that fails; run the command again when it is well, or leave these files out by input.exclude"
            ) from error
