"""The bytes of one file of many, checked against what is known of it; what is wrong with them, as an item's error.

a planned file          → read_item     → its bytes, of the planned size, time and etag
a huge planned file     → opened_item   → the same, a slice at a time
an image's uri, sha256  → read_original → its bytes, those that were labelled; opened_original: a slice at a time
a label's or mask's uri → read_file     → its bytes
"""

import errno
import hashlib
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from segjobs.errors import ItemError
from segjobs.sources.tiff import FileSlices, Slices
from segjobs.storage import FileInfo, Storage, is_remote, local_path

NO_PHOTOGRAPH = ""
"""The uri of an image whose labels were prepared without it (``input.uri=null``)."""


_HASHED_AT_ONCE = 2**24  # bytes
LARGE_BYTES = 2**26
"""Larger files are read slice by slice, where what they hold can be."""


class Reads(Protocol):
    """A ``Storage``, or the ``Blame`` that asks it twice before it blames a file."""

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]: ...


def read_item(storage: Reads, planned: FileInfo) -> bytes:
    """The bytes of a planned file, checked against its fingerprint.

    Raises ItemError: NOT_FOUND where it is gone, CHANGED where size, time or etag are not the
    plan's, TIMEOUT, TOO_LARGE and UNREADABLE where this file alone cannot be read. StorageError stops the job.
    """
    try:
        data, found = storage.read_item(planned.uri)
    except OSError as error:
        raise item_error(error, planned.uri) from error
    _check_unchanged(planned, found)
    return data


@contextmanager
def opened_item(storage: Storage, planned: FileInfo) -> Generator[Slices]:
    """A planned file that is read slice by slice, and is not held in memory; a remote one is copied to this disk.

    Raises ItemError as ``read_item`` does, at the end too: CHANGED where it changed meanwhile.
    """
    _check_unchanged(planned, _looked_up(storage, planned.uri))
    with _opened(storage, planned.uri) as data:
        yield data
    _check_unchanged(planned, _looked_up(storage, planned.uri))


@contextmanager
def opened_file(storage: Storage, uri: str, *, what: str | None = None) -> Generator[Slices]:
    """Any file, read slice by slice. Raises as ``read_file``."""
    try:
        _looked_up(storage, uri)
        with _opened(storage, uri) as data:
            yield data
    except OSError as error:
        raise item_error(error, uri, what=what) from error


@contextmanager
def opened_original(storage: Storage, uri: str, *, sha256: str | None) -> Generator[Slices]:
    """The file of an image that a manifest has masks of, read slice by slice. Raises as ``read_original``."""
    _check_photograph(uri)
    _looked_up(storage, uri)
    with _opened(storage, uri) as data:
        if sha256 and digest_of(data) != sha256:
            raise _other_content(uri)
        yield data


def digest_of(data: Slices) -> str:
    """SHA-256 of a file that is not held in memory."""
    digest = hashlib.sha256()
    for start in range(0, len(data), _HASHED_AT_ONCE):
        digest.update(data[start : start + _HASHED_AT_ONCE])
    return digest.hexdigest()


@contextmanager
def _opened(storage: Storage, uri: str) -> Generator[Slices]:
    with ExitStack() as opened:
        if is_remote(uri):
            path = Path(opened.enter_context(TemporaryDirectory(prefix="segjobs-"))) / "image"
            try:
                storage.get_file(uri, path)
            except (FileNotFoundError, TimeoutError) as error:
                raise item_error(error, uri) from error
        else:
            path = local_path(uri)
        try:
            file = opened.enter_context(path.open("rb"))
        except OSError as error:
            raise item_error(error, uri) from error
        yield FileSlices(file.fileno())


def _looked_up(storage: Storage, uri: str) -> FileInfo:
    found, most = storage.info(uri), storage.config.max_item_bytes
    if found is None:
        raise item_error(FileNotFoundError(), uri)
    if found.size > most:
        error = OSError(errno.EFBIG, f"{found.size} bytes, storage.max_item_bytes is {most}")
        raise item_error(error, uri)
    return found


def _check_unchanged(planned: FileInfo, found: FileInfo) -> None:
    before = (planned.size, planned.mtime_us, planned.etag)
    after = (found.size, found.mtime_us, found.etag)
    if before != after and planned.size >= 0:
        raise ItemError(
            "CHANGED",
            f"{planned.uri}: changed since the run was planned ({planned.size} bytes then, {found.size} now); "
            "label it with a new run",
        )


def read_original(storage: Storage, uri: str, *, sha256: str | None) -> bytes:
    """The bytes of an image that a manifest has masks of.

    Compared by content, not by time: a data set that was copied is still the one that was labelled. ``sha256``: its
    row's; None compares nothing. Raises ItemError as ``read_item`` does, CHANGED where the bytes are others, NOT_FOUND
    where the manifest has no image.
    """
    _check_photograph(uri)
    data = read_file(storage, uri)
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise _other_content(uri)
    return data


def _check_photograph(uri: str) -> None:
    if uri == NO_PHOTOGRAPH:
        raise ItemError(
            "NOT_FOUND", "the labels were prepared without photographs (input.uri=null); prepare them with input.uri"
        )


def _other_content(uri: str) -> ItemError:
    return ItemError("CHANGED", f"{uri}: not the file that was labelled (its sha256 differs); prepare or label it anew")


def read_file(storage: Reads, uri: str, *, what: str | None = None) -> bytes:
    """The bytes of a file. ``what``: see ``item_error``. Raises ItemError NOT_FOUND, TIMEOUT, TOO_LARGE, UNREADABLE."""
    try:
        return storage.read_item(uri)[0]
    except OSError as error:
        raise item_error(error, uri, what=what) from error


def item_error(error: OSError, uri: str, *, what: str | None = None) -> ItemError:
    """What ``Storage.read_item`` raised for one file → the item's error. The one place that decides its code.

    ``what``: what the file is, such as "the label", where it is not the image itself.
    """
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ItemError("NOT_FOUND", f"{uri}: {what} is gone" if what else f"{uri}: no such file")
    if isinstance(error, TimeoutError):
        return ItemError("TIMEOUT", f"{uri}: {error.strerror}; see storage.deadline_s")
    if error.errno == errno.EFBIG:
        return ItemError("TOO_LARGE", f"{uri}: {error.strerror}")
    return ItemError("UNREADABLE", f"{uri}: {what + ' ' if what else ''}cannot be read: {error.strerror or error}")
