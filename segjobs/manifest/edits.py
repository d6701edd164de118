"""People's corrections in a collection: a run of them in, one commit of rows that no model takes the place of out.

    run of prepare ┐
                   ├→ commit_edits: rows of images that are as they were when the people's labels were read
    newest version ┘

A correction is of the bytes that the row's fingerprint says. Where a night has found other bytes meanwhile, or the
image gone, the row there stays, and is counted.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.manifest.collection import Collection, Committed, as_rows, open_collection
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.parts import footer_of, read_part
from segjobs.manifest.run_info import Run
from segjobs.manifest.schema import Footer
from segjobs.storage import FileInfo, Storage
from segjobs.storage.uris import microseconds

_FINGERPRINT = ("image_id", "uri", "source.size", "source.mtime", "source.etag", "gone_at")
_OUTCOME = ["image_id", "uri", "source", "status", "error"]


@dataclass(frozen=True)
class Edited:
    """``counts``: images that were ``taken``, that ``failed``, and that ``changed``: the rows of these two stay."""

    committed: Committed
    counts: Counter[str]


def image_files(collection: Collection) -> Iterator[FileInfo]:
    """The files of the images that are there, by image_id, as the collection knows them."""
    for file in collection.files:
        for row in collection.columns(file, _FINGERPRINT).to_pylist():
            if row["gone_at"] is None:
                yield _file_of(row)


def commit_edits(storage: Storage, uri: str, run: Run, *, by: str, labels: str) -> Edited:
    """Bring the collection's table up to date with people's masks, once for each run.

    ``by``, ``labels``: who, and what they wrote, for the history.
    """
    about: dict[str, object] = {"edits": labels, "by": by, "run_id": run.info.run_id}

    def changes(joint: Footer) -> Changes:
        # What the attempt meets: were a version written since, the attempt would lose to it and this be asked again.
        newest = open_collection(storage, uri)
        now, last = {file.path: file for file in image_files(newest)}, _last_labelled(newest)
        about["images"] = dict(_count(storage, run, now))
        return Changes(lambda: _rows(storage, run, now, joint, last), MARK_SCHEMA.empty_table())

    app_id = f"edits:{run.info.run_id}"
    done = open_collection(storage, uri).commit(changes, footer_of(run), app_id=app_id, about=about)
    return Edited(done, _counts_of(open_collection(storage, uri), app_id))


def _count(storage: Storage, run: Run, now: dict[str, FileInfo]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in run.parts:
        counts.update(_outcomes(read_part(storage, run, part, columns=_OUTCOME), now))
    return counts


def _last_labelled(collection: Collection) -> datetime | None:
    """When the newest of its rows was labelled: what is committed now is newer, should the clock have gone back."""
    moments = (pc.max(collection.columns(file, ["labelled_at"])["labelled_at"]).as_py() for file in collection.files)
    return max((one for one in moments if one is not None), default=None)


def _rows(
    storage: Storage, run: Run, now: dict[str, FileInfo], joint: Footer, last: datetime | None
) -> Iterator[pa.Table]:
    footer = footer_of(run)
    for part in run.parts:
        rows = read_part(storage, run, part)
        taken = pc.equal(pa.array(_outcomes(rows, now), pa.string()), "taken")
        yield as_rows(rows.filter(taken), run.info, footer, to=joint.categories, not_before=last)


def _outcomes(rows: pa.Table, now: dict[str, FileInfo]) -> list[str]:
    """What becomes of each row of the run."""
    outcomes: list[str] = []
    for row in rows.select(_OUTCOME).to_pylist():
        changed = row["error"] is not None and row["error"]["code"] == "CHANGED"
        if changed or now.get(row["image_id"]) != _file_of(row):
            outcomes.append("changed")
        else:
            outcomes.append("taken" if row["status"] == "ok" else "failed")
    return outcomes


def _file_of(row: dict[str, Any]) -> FileInfo:
    source: dict[str, Any] = row["source"] or {}
    if source.get("size") is None:  # listed, and not there; or of labels without photographs
        return FileInfo(row["uri"], row["image_id"], -1, 0, source.get("etag") or "")
    return FileInfo(row["uri"], row["image_id"], source["size"], microseconds(source["mtime"]), source["etag"] or "")


def _counts_of(now: Collection, app_id: str) -> Counter[str]:
    """What the commit has said of itself; nothing where the log is cleaned of it."""
    for entry in now.history():
        if entry.get("appId") == app_id:
            return Counter(entry["images"])
    return Counter()
