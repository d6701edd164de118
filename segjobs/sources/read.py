"""A planned file's bytes, checked against its fingerprint; what is wrong with them, as an item's error."""

import errno

from segjobs.errors import ItemError
from segjobs.storage import FileInfo, Storage


def read_item(storage: Storage, planned: FileInfo) -> bytes:
    """The bytes of a planned file, checked against its fingerprint.

    Raises ItemError: NOT_FOUND where it is gone, CHANGED where size, time or etag are not the
    plan's, TIMEOUT, TOO_LARGE and UNREADABLE where this file alone cannot be read. StorageError stops the job.
    """
    try:
        data, found = storage.read_item(planned.uri)
    except (FileNotFoundError, NotADirectoryError):
        raise ItemError("NOT_FOUND", f"{planned.uri}: no such file") from None
    except TimeoutError as error:
        raise ItemError("TIMEOUT", f"{planned.uri}: {error.strerror}; see storage.deadline_s") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ItemError("TOO_LARGE", f"{planned.uri}: {error.strerror}") from error
        raise ItemError("UNREADABLE", f"{planned.uri}: cannot be read: {error.strerror or error}") from error
    before = (planned.size, planned.mtime_us, planned.etag)
    after = (found.size, found.mtime_us, found.etag)
    if before != after and planned.size >= 0:
        raise ItemError(
            "CHANGED",
            f"{planned.uri}: changed since the run was planned ({planned.size} bytes then, {found.size} now); "
            "label it with a new run",
        )
    return data
