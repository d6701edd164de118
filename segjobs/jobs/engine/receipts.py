"""Receipts of published parts, kept beside them, so that a resume need not read the parts again.

    Done ─→ Receipts.add ─→ <uri>/receipts/receipts-<digest>.json, some hundred parts each
    resume: those files + a listing of the parts ─→ recall ─→ Done of each part that is listed as it was published

A part is taken by its receipt where its size and etag (on a disk: its size and time) are those that it had when it
was published; its rows, its SHA-256 and its tallies are then the receipt's. Any other part is read whole. Bits that
turn on a disk without a new time are found by whoever reads the part, against the SHA-256 in run.json, and by
``verify=full``.

The files are named after their bytes: drivers at work on one run have each their own, and none is ever replaced.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segjobs.errors import ManifestError, StorageError
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.shards import Done, Job, Shard, done_of, row_of, shard_key
from segjobs.manifest.seal import damaged, open_json, sealed_json
from segjobs.storage import FileInfo, Storage, join

FOLDER = "receipts"
_AT_ONCE = 256
"""Parts of a file: as many are read again after a driver that was killed."""
_MEND = "its parts are read instead"


class Receipts:
    """Collects an attempt's receipts and publishes them by the hundred; the rest where the attempt ends early."""

    def __init__(self, storage: Storage, job: Job) -> None:
        self._storage = storage
        self._uri = job.uri
        self._run_id = job.run_id
        self._waiting: list[dict[str, Any]] = []

    def add(self, done: Done) -> None:
        """Raises StorageError where a full file cannot be published."""
        if done.file is not None:
            self._waiting.append(row_of(replace(done, spent={}, ours=False)))
        if len(self._waiting) >= _AT_ONCE:
            self._publish()

    def save(self) -> None:
        """Publish what waits, of an attempt that ends here; without it the next one reads a few parts more."""
        try:
            self._publish()
        except StorageError:
            return

    def _publish(self) -> None:
        if self._waiting:
            data = sealed_json({"run_id": self._run_id, "parts": self._waiting}, indent=None)
            name = f"receipts-{hashlib.sha256(data).hexdigest()[:16]}.json"
            self._storage.put_if_absent(join(self._uri, FOLDER, name), data)
            self._waiting = []


def recall(
    storage: Storage, job: Job, shards: Sequence[Shard], listed: Mapping[int, FileInfo], progress: Progress
) -> dict[int, Done]:
    """What receipts say of those of ``shards`` whose parts are ``listed`` as they were published.

    A file of receipts that is damaged is told, and counts for nothing.
    """
    known: dict[int, list[Done]] = {}
    for name in sorted(storage.list_names(join(job.uri, FOLDER))):
        for done in _read(storage, join(job.uri, FOLDER, name), job.run_id, progress):
            if as_published(done, listed.get(done.number)):
                known.setdefault(done.number, []).append(done)
    found: dict[int, Done] = {}
    for number, items in shards:
        if number in known:
            key = shard_key(items["image_id"].to_pylist())
            found |= {done.number: done for done in known[number] if done.key == key}
    return found


def as_published(done: Done, listed: FileInfo | None) -> bool:
    """Whether a part is listed with the size and etag (without etags: the time) that it had when it was published."""
    there = done.file
    if there is None or listed is None or there.size != listed.size:
        return False
    if there.etag or listed.etag:
        return there.etag == listed.etag
    return there.mtime_us == listed.mtime_us != 0


def _read(storage: Storage, uri: str, run_id: str, progress: Progress) -> list[Done]:
    try:
        raw = open_json(storage.read(uri), uri, mend=_MEND)
        return [done_of(record) for record in raw["parts"]] if raw["run_id"] == run_id else []
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        progress.note(str(damaged(uri, f"no receipts: {error!r}", mend=_MEND)))
        return []
    except ManifestError as error:
        progress.note(str(error))
        return []
