"""People's corrections in a collection: a run of them in, one commit of rows that no model takes the place of out.

    run of prepare ┐
                   ├→ commit_edits: rows of images of the same bytes as when the people's labels were read
    newest version ┘

A correction is of bytes, by SHA-256: a file of another time or etag is the same image. Where a night has found other
bytes meanwhile, or the image gone, the row there stays, and is counted. The same labels are of the moment when they
were first committed, however often: of two people's masks of an image those of the later command stay.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.config import digest
from segjobs.manifest.collection import Collection, Committed, as_rows, open_collection
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.parts import footer_of, read_part
from segjobs.manifest.run_info import Run
from segjobs.manifest.schema import COLLECTION_SCHEMA, Footer
from segjobs.storage import FileInfo, Storage
from segjobs.storage.uris import microseconds

_FINGERPRINT = ("image_id", "uri", "source.size", "source.mtime", "source.etag", "gone_at")
_STATE = (*_FINGERPRINT, "source.sha256", "origin", "labelled_at", "run_id")
_MASKS = (
    "image_id",
    "segments.list.element.category",
    "segments.list.element.iscrowd",
    "segments.list.element.segmentation.counts",
)
_OUTCOME = ["image_id", "uri", "source", "status", "error", "segments"]
_TAKEN = ("taken", "accepted")


@dataclass(frozen=True)
class Edited:
    """``counts``: images that were ``taken``, and how many of them had been ``accepted``: left as the model made them.

    And those whose rows stay: ``failed``; ``changed``: of other bytes, or gone; ``unaltered``, where such are left;
    ``newer``: corrected by a later command than the first with these labels; ``there``: taken by an earlier one.
    """

    committed: Committed
    counts: Counter[str]


@dataclass(frozen=True)
class Correction:
    """How a run of people's labels is taken. ``by``, ``labels``: who, and what they wrote, for the history.

    ``unaltered``: whether masks that are as the model made them become a person's.
    """

    by: str
    labels: str
    unaltered: Literal["take", "leave"] = "take"


@dataclass(frozen=True)
class _Standing:
    """A row of the table. ``masks``: a digest of a model's; None of a person's."""

    file: FileInfo
    sha256: str | None
    labelled_at: datetime
    run_id: str
    masks: str | None


@dataclass(frozen=True)
class _Taking:
    """A run before a version. ``rows``: those that the version has of its images. ``since``: when its labels were
    first committed, else when it ended; ``runs``: that were committed of the same labels."""

    rows: Mapping[str, _Standing]
    since: datetime
    runs: frozenset[str]
    unaltered: str


def image_files(collection: Collection) -> Iterator[FileInfo]:
    """The files of the images that are there, by image_id, as the collection knows them."""
    for file in collection.files:
        for row in collection.columns(file, _FINGERPRINT).to_pylist():
            if row["gone_at"] is None:
                yield _file_of(row)


def app_of(run_id: str, unaltered: str = "take") -> str:
    """What the table remembers a commit by."""
    return f"edits:{run_id}" if unaltered == "take" else f"edits:{run_id}:altered"


def commit_edits(storage: Storage, uri: str, run: Run, correction: Correction) -> Edited:
    """Bring the collection's table up to date with people's masks, once for each run."""
    labels_id = digest("edits", {key: value for key, value in run.info.identity.items() if key != "input"})[:16]
    about: dict[str, object] = {"edits": correction.labels, "by": correction.by, "run_id": run.info.run_id}
    about["labels"] = labels_id

    def changes(joint: Footer) -> Changes:
        # What the attempt meets: were a version written since, the attempt would lose to it and this be asked again.
        taking = _taking(storage, open_collection(storage, uri), run, labels_id, correction.unaltered)
        about["since"] = taking.since.isoformat()
        about["images"] = dict(_count(storage, run, taking))
        return Changes(lambda: _rows(storage, run, taking, joint, correction.by), MARK_SCHEMA.empty_table())

    app_id = app_of(run.info.run_id, correction.unaltered)
    done = open_collection(storage, uri).commit(changes, footer_of(run), app_id=app_id, about=about)
    return Edited(done, _counts_of(open_collection(storage, uri), app_id))


def _taking(storage: Storage, now: Collection, run: Run, labels_id: str, unaltered: str) -> _Taking:
    earlier = [entry for entry in now.history() if entry.get("labels") == labels_id]
    first = min((str(entry["since"]) for entry in earlier), default=run.info.finished)
    since = datetime.fromisoformat(first).astimezone(UTC)
    ids = {
        image_id
        for part in run.parts
        for image_id in read_part(storage, run, part, columns=["image_id"])["image_id"].to_pylist()
    }
    standing = _standing(now, ids)
    if not earlier:  # the later command, should the clock have gone back
        since = max([since, *(one.labelled_at for one in standing.values())])
    return _Taking(
        standing,
        since,
        frozenset(str(entry["run_id"]) for entry in earlier),
        unaltered,
    )


def _standing(now: Collection, image_ids: set[str]) -> dict[str, _Standing]:
    """The rows of these images that are there, a file at a time."""
    found: dict[str, _Standing] = {}
    wanted = pa.array(sorted(image_ids), pa.string())
    for file in now.files:
        rows = now.columns(file, _STATE)
        rows = rows.filter(pc.and_(pc.is_in(rows["image_id"], value_set=wanted), pc.is_null(rows["gone_at"])))
        if not rows.num_rows:
            continue
        masks = now.columns(file, _MASKS)
        masks = masks.filter(pc.is_in(masks["image_id"], value_set=rows["image_id"].combine_chunks()))
        for row, own in zip(rows.to_pylist(), masks.to_pylist(), strict=True):
            human = row["origin"] == "human"
            found[row["image_id"]] = _Standing(
                _file_of(row),
                row["source"]["sha256"] if row["source"] else None,
                row["labelled_at"],
                row["run_id"],
                None if human else _masks_of(own["segments"]),
            )
    return found


def _masks_of(segments: Sequence[Mapping[str, Any]] | None) -> str:
    """A digest of an image's masks with their classes, whatever their order."""
    found = [(one["category"], one["iscrowd"], one["segmentation"]["counts"]) for one in segments or ()]
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def _count(storage: Storage, run: Run, taking: _Taking) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in run.parts:
        counts.update(_outcomes(read_part(storage, run, part, columns=_OUTCOME), taking))
    if counts["accepted"]:
        counts["taken"] += counts["accepted"]
    return Counter({name: count for name, count in counts.items() if count})


def _rows(storage: Storage, run: Run, taking: _Taking, joint: Footer, by: str) -> Iterator[pa.Table]:
    footer = footer_of(run)
    for part in run.parts:
        rows = read_part(storage, run, part)
        taken = pc.is_in(pa.array(_outcomes(rows, taking), pa.string()), value_set=pa.array(_TAKEN))
        rows = as_rows(rows.filter(taken), run.info, footer, to=joint.categories)
        moment = pa.array([taking.since] * rows.num_rows, COLLECTION_SCHEMA.field("labelled_at").type)
        for name, column in (("labelled_at", moment), ("annotated_by", pc.fill_null(rows["annotated_by"], by))):
            rows = rows.set_column(rows.schema.get_field_index(name), COLLECTION_SCHEMA.field(name), column)
        yield rows


def _outcomes(rows: pa.Table, taking: _Taking) -> list[str]:
    """What becomes of each row of the run, as ``Edited.counts`` names it; ``taken`` without those ``accepted``."""
    return [_outcome(row, taking) for row in rows.select(_OUTCOME).to_pylist()]


def _outcome(row: Mapping[str, Any], taking: _Taking) -> str:
    standing = taking.rows.get(row["image_id"])
    if standing is None or (row["error"] is not None and row["error"]["code"] == "CHANGED"):
        return "changed"
    sha256 = row["source"]["sha256"] if row["source"] else None
    known = sha256 is not None and standing.sha256 is not None
    if not (sha256 == standing.sha256 if known else _file_of(row) == standing.file):
        return "changed"
    if row["status"] != "ok":
        return "failed"
    if standing.masks is None:
        if standing.run_id in taking.runs:
            return "there"
        # Of the same moment as the first commit of these labels, it came after that: it would not stand there else.
        later = standing.labelled_at > taking.since or (standing.labelled_at == taking.since and taking.runs)
        return "newer" if later else "taken"
    if _masks_of(row["segments"]) == standing.masks:
        return "accepted" if taking.unaltered == "take" else "unaltered"
    return "taken"


def _file_of(row: Mapping[str, Any]) -> FileInfo:
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
