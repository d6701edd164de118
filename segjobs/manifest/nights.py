"""A night of a collection on disk: what it found and is to do, its run, and how it ended; and its one commit.

    <uri>/nights/<night>/changes.parquet   every image that is not the same, and why: the night's plan    written first
    <uri>/runs/<night>-<run_id>/           what was labelled, an ordinary run
    <uri>/nights/<night>/changes.json        counts, figures, whether it was published                      written last

A night that its gate holds is in no version until it is published, or is given up (``held_nights.py``).

A night is begun when changes.parquet stands and ended when changes.json does; whoever comes between goes on with it.
Its name is the hour that it began, ``2026-01-31T02-00-00``, in UTC, and is what the table remembers: it is committed
once.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segjobs.errors import ManifestError
from segjobs.manifest.collection import Collection, Committed, as_rows, create_collection, find_collection
from segjobs.manifest.crash_points import crash_at
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.parts import footer_of, open_run, read_part
from segjobs.manifest.run_info import Run
from segjobs.manifest.schema import FOOTER_KEY, Footer
from segjobs.manifest.seal import open_json, open_table, sealed_json, sealed_table
from segjobs.storage import FileInfo, Storage, is_remote, join

LABELLED = ("new", "changed", "retry", "stale")
"""Changes for which an image is labelled."""
MARKED = ("touched", "gone")
"""Changes of a row without its masks."""
WAITING = "waiting"
"""The change of an image that a held night has labelled, and this one need not."""
CHANGES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),  # of LABELLED or MARKED, WAITING, or held: a human's
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        ("sha256", pa.string()),  # touched: of the bytes, which are the row's
        pa.field("tries", pa.int32(), nullable=False),  # retry: this one, counted from 1
    ]
)
_NAME = "%Y-%m-%dT%H-%M-%S"
_MEND = "move the night's folder away and run the command again"


@dataclass(frozen=True)
class Night:
    """A night that is begun. ``uri``: the collection's. ``counts``: change → images, those that are the same too.

    ``version``: of the table that the listing was compared with. ``run_id``: None where nothing is labelled.
    ``newest``: when the newest of that version's rows was labelled.
    """

    uri: str
    name: str
    changes: pa.Table
    counts: Mapping[str, int]
    version: int
    run_id: str | None
    newest: datetime | None = None

    @property
    def folder(self) -> str:
        return night_uri(self.uri, self.name)

    @property
    def run_uri(self) -> str | None:
        return run_of(self.uri, self.name, self.run_id) if self.run_id else None

    def of(self, *changes: str) -> pa.Table:
        """The images of these changes, by image_id."""
        return self.changes.filter(pc.is_in(self.changes["change"], value_set=pa.array(changes, pa.string())))

    def files(self) -> Iterator[FileInfo]:
        """What is labelled, as it was listed."""
        table = self.of(*LABELLED)
        times = table["mtime"].cast(pa.int64())
        columns = [table["uri"], table["image_id"], table["size"], times, table["etag"]]
        for row in zip(*(column.to_pylist() for column in columns), strict=True):
            yield FileInfo(*row)


def app_id_of_night(name: str) -> str:
    """Under what the table remembers a night's commit."""
    return f"night:{name}"


def version_with(now: Collection | None, name: str) -> int | None:
    """The version in which the night was committed, as the newest one, ``now``, knows; None where it was not."""
    return None if now is None else now.holds(app_id_of_night(name))


def night_uri(uri: str, name: str) -> str:
    return join(uri, "nights", name)


def run_of(uri: str, name: str, run_id: str) -> str:
    """Where a night's run lies."""
    return join(uri, "runs", f"{name}-{run_id}")


def name_of(moment: datetime) -> str:
    """What a night that begins then is called."""
    return moment.astimezone(UTC).strftime(_NAME)


def moment_of(name: str) -> datetime:
    """When a night of this name began."""
    return datetime.strptime(name, _NAME).replace(tzinfo=UTC)


def night_of_run(uri: str) -> str:
    """``out/street/runs/2026-01-31T02-00-00-…`` → the night's name. Raises ManifestError where it is no night's run."""
    name = uri.rstrip("/").rpartition("/")[2][: len("2026-01-31T02-00-00")]
    try:
        moment_of(name)
    except ValueError:
        raise ManifestError(f"{uri}: no run of a night; expected one of the collection's runs/") from None
    return name


def begin(storage: Storage, night: Night) -> bool:
    """Publish what a night is to do; False where another one of its name is begun."""
    about = {
        "night": night.name,
        "version": night.version,
        "run_id": night.run_id,
        "counts": dict(night.counts),
        "newest": None if night.newest is None else night.newest.isoformat(),
    }
    metadata = {FOOTER_KEY: json.dumps(about, sort_keys=True).encode()}
    crash_at("night:before")
    new = storage.put_if_absent(join(night.folder, "changes.parquet"), sealed_table(night.changes, metadata=metadata))
    crash_at("night:after")
    return new


def open_night(storage: Storage, uri: str, name: str) -> Night:
    """A night that is begun. Raises ManifestError where it is not, or its file is damaged."""
    where = join(night_uri(uri, name), "changes.parquet")
    try:
        data = storage.read(where)
    except (FileNotFoundError, NotADirectoryError):
        raise ManifestError(f"{where}: not there; {name} is no night of {uri}") from None
    table = open_table(data, where, mend=_MEND)
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    about: dict[str, Any] = json.loads(metadata[FOOTER_KEY])
    changes = table.replace_schema_metadata().cast(CHANGES_SCHEMA)
    newest = datetime.fromisoformat(about["newest"]) if about.get("newest") else None
    return Night(uri, name, changes, about["counts"], about["version"], about["run_id"], newest)


def nights_of(storage: Storage, uri: str) -> tuple[list[str], list[str]]:
    """The names of the collection's nights, the oldest first: those that are ended, and those that are begun only."""
    root = join(uri, "nights")
    found = {"changes.json": set[str](), "changes.parquet": set[str]()}
    for file in storage.walk(root) if storage.is_folder(root) or is_remote(root) else ():
        name, _, rest = file.path.partition("/")
        if rest in found:
            found[rest].add(name)
    ended = found["changes.json"]
    return sorted(ended), sorted(found["changes.parquet"] - ended)


def end(storage: Storage, night: Night, record: Mapping[str, object]) -> bool:
    """Publish how a night ended; False where that stands."""
    crash_at("ended:before")
    new = storage.put_if_absent(join(night.folder, "changes.json"), sealed_json(record))
    crash_at("ended:after")
    return new


def read_end(storage: Storage, uri: str, name: str) -> dict[str, Any]:
    """How an ended night ended."""
    where = join(night_uri(uri, name), "changes.json")
    return open_json(storage.read(where), where, mend="delete it: the night's page and figures are lost, no more")


def commit_night(storage: Storage, night: Night) -> Committed:
    """Bring the collection's table up to date with the night's run and marks, once however often it is asked for.

    Where a later night is in the table by then, a held one's marks are no news: that night has compared all that was
    listed with the table as it was without them. Its rows join the table, marked as later nights have marked them.
    """
    run = open_run(storage, night.run_uri) if night.run_uri else None

    def changes(joint: Footer) -> Changes:
        later = _published_after(storage, night)
        marks = _last_words(later, set(night.of(*LABELLED)["image_id"].to_pylist())) if later else _marks(night)
        return Changes(lambda: _rows(storage, run, joint, night.newest) if run else (), marks)

    about = {"night": night.name, **({"run_id": night.run_id} if night.run_id else {}), "images": dict(night.counts)}
    collection = create_collection(storage, night.uri)
    return collection.commit(changes, footer_of(run) if run else None, app_id=app_id_of_night(night.name), about=about)


def _published_after(storage: Storage, night: Night) -> list[Night]:
    """The nights that began after this one and are in the table, the oldest first."""
    later = sorted(name for names in nights_of(storage, night.uri) for name in names if name > night.name)
    now = find_collection(storage, night.uri) if later else None
    return [open_night(storage, night.uri, name) for name in later if version_with(now, name) is not None]


def _last_words(nights: Sequence[Night], image_ids: Container[str]) -> pa.Table:
    """The marks of those of these images that are gone by what the nights, the oldest first, have found at last."""
    gone: dict[str, datetime] = {}
    for night in nights:
        changes = zip(night.changes["image_id"].to_pylist(), night.changes["change"].to_pylist(), strict=True)
        for image_id, change in changes:
            if change == "gone" and image_id in image_ids:
                gone[image_id] = moment_of(night.name)
            else:
                gone.pop(image_id, None)
    rows = [{"image_id": image_id, "gone_at": moment} for image_id, moment in sorted(gone.items())]
    return pa.Table.from_pylist(rows, MARK_SCHEMA)


def _rows(storage: Storage, run: Run, joint: Footer, not_before: datetime | None = None) -> Iterator[pa.Table]:
    for part in run.parts:
        rows = read_part(storage, run, part)
        yield as_rows(rows, run.info, footer_of(run), to=joint.categories, not_before=not_before)


def _marks(night: Night) -> pa.Table:
    """What the night says of rows without their masks (``MARK_SCHEMA``)."""
    table = night.of(*MARKED)
    count = table.num_rows
    gone = np.array(table["change"].to_pylist(), object) == "gone"
    went = pa.array([moment_of(night.name)] * count, MARK_SCHEMA.field("gone_at").type)
    etag = pa.array([text or None for text in table["etag"].to_pylist()], pa.string())
    source = pa.StructArray.from_arrays(
        [table[name].combine_chunks() for name in ("size", "mtime")] + [etag, table["sha256"].combine_chunks()],
        fields=list(MARK_SCHEMA.field("source").type),
        mask=pa.array(gone),
    )
    uri = pc.if_else(pa.array(gone), pa.scalar(None, pa.string()), table["uri"])
    gone_at = pc.if_else(pa.array(gone), went, pa.scalar(None, went.type))
    return pa.table({"image_id": table["image_id"], "uri": uri, "source": source, "gone_at": gone_at}).cast(MARK_SCHEMA)
