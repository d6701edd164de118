"""What stands at output.uri already: a file that names what is there in, its difference from what is wanted out.

Every job publishes a file that says what its output is of before it works (``plan.parquet``, ``train.json``,
``plan.json``, ``scores.json``), or with it (``report.json``, ``report.html``). The same command finds its own there and
goes on, or has nothing to do; anything else is refused, with what differs, and left as it is.
"""

import json
from collections.abc import Mapping, Sequence

from segjobs.errors import ConflictError, ManifestError
from segjobs.narrow import is_object
from segjobs.storage import Storage


def read_standing(storage: Storage, uri: str) -> bytes | None:
    """The file at ``uri``; None where there is none."""
    try:
        return storage.read(uri)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_standing_json(storage: Storage, uri: str) -> dict[str, object] | None:
    """The JSON object at ``uri``; None where there is none. Raises ManifestError where it is damaged."""
    data = read_standing(storage, uri)
    if data is None:
        return None
    try:
        standing: object = json.loads(data)
    except ValueError as error:
        raise ManifestError(f"{uri} is damaged: {error}; choose a new output.uri") from error
    if not is_object(standing):
        raise ManifestError(f"{uri} is damaged: expected a JSON object; choose a new output.uri")
    return standing


def differing(standing: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """The keys whose values are not the same, in order; a missing one is as good as null."""
    return [key for key in sorted({*standing, *wanted}) if standing.get(key) != wanted.get(key)]


def differences(standing: Mapping[str, object], wanted: Mapping[str, object], *, deep: bool = False) -> list[str]:
    """What differs, with both values: 'model was "unet", is "fcn"'. ``deep``: down to what is no object."""
    found: list[str] = []
    for key in differing(standing, wanted):
        old, new = standing.get(key), wanted.get(key)
        if deep and is_object(old) and is_object(new):
            found += (f"{key}.{line}" for line in differences(old, new, deep=True))
        else:
            found.append(f"{key} was {json.dumps(old, ensure_ascii=False)}, is {json.dumps(new, ensure_ascii=False)}")
    return found


def unlike(found: str, lines: Sequence[str], new: str) -> ConflictError:
    """``found`` (what stands where) is not of these inputs and settings: what differs, and how to begin a ``new``."""
    return ConflictError(
        f"{found}; {'; '.join(lines)}. Choose a new output.uri to start a new {new}, "
        "or restore the old inputs and settings to finish this one"
    )


def check_names(found: str, standing: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Raise ConflictError, with the names of what differs: for values that say nothing to a person."""
    if names := differing(standing, wanted):
        raise ConflictError(f"{found} other {', '.join(names)}: choose a new output.uri")


def publish_same(storage: Storage, uri: str, data: bytes, conflict: str) -> None:
    """Put a file that every attempt makes alike. Raises ConflictError, which says why, where another one stands."""
    if not storage.put_if_absent(uri, data) and storage.read(uri) != data:
        raise ConflictError(f"{uri} {conflict}; choose a new output.uri")
