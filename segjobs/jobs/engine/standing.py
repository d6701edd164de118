"""What stands at output.uri already: a file that names what is there in, its difference from what is wanted out.

Every job publishes a file that says what its output is of before it works (``plan.parquet``, ``train.json``,
``plan.json``, ``scores.json``), or with it (``report.json``, ``report.html``). The same command finds its own there and
goes on, or has nothing to do; anything else is refused, with what differs, and left as it is.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence

from segjobs.errors import ConflictError, StorageError
from segjobs.manifest.seal import open_json
from segjobs.narrow import is_object
from segjobs.storage import Storage, is_remote, local_path
from segjobs.text import shorten

_VALUE_CHARS = 120


def read_standing(storage: Storage, uri: str) -> bytes | None:
    """The file at ``uri``; None where there is none."""
    try:
        return storage.read(uri)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_standing_json(storage: Storage, uri: str) -> dict[str, object] | None:
    """The JSON object at ``uri``; None where there is none. Raises ManifestError where it is damaged."""
    data = read_standing(storage, uri)
    return None if data is None else open_json(data, uri, mend="choose a new output.uri")


def differing(standing: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """The keys whose values are not the same, in order; a missing one is as good as null."""
    return [key for key in sorted({*standing, *wanted}) if standing.get(key) != wanted.get(key)]


def differences(
    standing: Mapping[str, object],
    wanted: Mapping[str, object],
    *,
    deep: bool = False,
    words: Mapping[str, str] | None = None,
) -> list[str]:
    """What differs, with both values: 'model was "unet", is "fcn"'. ``deep``: down to what is no object.

    ``words``: by name, what is said of values that say nothing to a person.
    """
    return [
        (words or {}).get(name) or f"{name} was {_shown(old)}, is {_shown(new)}"
        for name, old, new in _unlike(standing, wanted, deep=deep)
    ]


def _unlike(
    standing: Mapping[str, object], wanted: Mapping[str, object], *, deep: bool
) -> Iterator[tuple[str, object, object]]:
    """The name and both values of what differs."""
    for key in differing(standing, wanted):
        old, new = standing.get(key), wanted.get(key)
        if deep and is_object(old) and is_object(new):
            for name, one, other in _unlike(old, new, deep=True):
                yield f"{key}.{name}", one, other
        else:
            yield key, old, new


def _shown(value: object) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _VALUE_CHARS)


def unlike(found: str, lines: Sequence[str], new: str, *, finished: bool) -> ConflictError:
    """``found`` (what stands where) is not of these inputs and settings: what differs, and how to begin a ``new``."""
    ways = "" if finished else ", restore the old settings to finish this one, or delete its folder: it is not finished"
    return ConflictError(f"{found}; {'; '.join(lines)}. Choose a new output.uri to start a new {new}{ways}")


def check_names(
    found: str, standing: Mapping[str, object], wanted: Mapping[str, object], *, way: str = "choose a new output.uri"
) -> None:
    """Raise ConflictError, with the names of what differs, down to what is no object, and the ``way`` out.

    For values that say nothing to a person.
    """
    if names := [name for name, _, _ in _unlike(standing, wanted, deep=True)]:
        raise ConflictError(f"{found} other {', '.join(names)}: {way}")


def check_writable(uri: str, *, key: str = "output.uri") -> None:
    """Raise StorageError where a local output.uri (or another ``key``'s) can be no folder, or none that may be written.

    For before a Ray is started; what a store allows is known when it is written.
    """
    if is_remote(uri):
        return
    path = local_path(uri)
    there = next(one for one in (path, *path.parents) if os.path.exists(one))
    if not there.is_dir():
        raise StorageError(f"{key}: {uri}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{key}: {uri}: {there} may not be written; give another folder")


def publish_same(storage: Storage, uri: str, data: bytes, conflict: str) -> None:
    """Put a file that every attempt makes alike. Raises ConflictError, which says why, where another one stands."""
    if not storage.put_if_absent(uri, data) and storage.read(uri) != data:
        raise ConflictError(f"{uri} {conflict}; choose a new output.uri")
