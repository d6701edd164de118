"""What is in a version of a collection, what differs between two, small files joined, old ones that nobody needs.

versions ─→ counts by kind │ steps of a compaction │ names of files for a vacuum
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.manifest.collection import Collection, open_collection
from segjobs.manifest.delta_log import paths_added
from segjobs.manifest.merge import FILE_BYTES, Replaced, cut
from segjobs.manifest.table_files import TableFile, digest_in, log_uri, masks_uri
from segjobs.storage import join

_EXAMPLES = 5
_AT_WORK = timedelta(days=1)
"""No attempt at a commit takes longer."""


@dataclass
class Contents:
    """Rows of a version: ``images`` that are there by status, ``gone``, ``failures`` by code; by origin, by model."""

    images: Counter[str] = field(default_factory=Counter[str])
    gone: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    origins: Counter[str] = field(default_factory=Counter[str])
    models: Counter[str] = field(default_factory=Counter[str])


def contents_of(collection: Collection) -> Contents:
    """Count the rows of a version; a file of which the log says that its rows are alike in all of this is not read."""
    found = Contents()
    for file in collection.files:
        alike = file.alike
        if {"origin", "model", "gone_at"} <= alike.keys() and alike.get("status") == "ok" and alike["gone_at"] is None:
            for counts, name in ((found.images, "status"), (found.origins, "origin"), (found.models, "model")):
                counts[alike[name] or "none"] += file.rows
            continue
        rows = collection.columns(file, ["status", "error.code", "origin", "model", "gone_at"])
        there = rows.filter(pc.is_null(rows["gone_at"]))
        found.gone += rows.num_rows - there.num_rows
        _count(found.images, there["status"])
        _count(found.origins, there["origin"])
        _count(found.models, there["model"])
        _count(found.failures, pc.struct_field(there["error"], "code").drop_null())
    return found


def _count(counts: Counter[str], values: pa.ChunkedArray) -> None:
    """Add up how often each of the texts is there; null is "none"."""
    for one in pc.value_counts(values).to_pylist():
        counts[one["values"] or "none"] += one["counts"]


@dataclass
class Difference:
    """Kind of difference → how many images, and some of them.

    ``added``: no row before; ``removed``: no row any more, which a restore does and no night; ``gone``, ``back``: no
    longer, or again, listed; ``labelled``: masks of another run; ``touched``: the same masks, another fingerprint.
    ``human``: those of ``added`` and ``labelled`` whose masks are a person's in the newer version.
    """

    counts: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    human: int = 0

    def add(self, kind: str, image_id: str) -> None:
        self.counts[kind] += 1
        if len(some := self.examples.setdefault(kind, [])) < _EXAMPLES:
            some.append(image_id)


def difference(old: Collection, new: Collection) -> Difference:
    """What is not the same in the newer version as in the older. Files that both have are not read."""
    shared = {file.part.name for file in old.files} & {file.part.name for file in new.files}
    found = Difference()
    both = merge(_rows(old, shared, 0), _rows(new, shared, 1), key=itemgetter(0, 1))
    for image_id, rows in groupby(both, itemgetter(0)):
        pair = {place: row for _, place, row in rows}
        kind = _kind(pair.get(0), pair.get(1))
        if kind is not None:
            found.add(kind, image_id)
        if kind in ("added", "labelled"):
            found.human += pair[1]["origin"] == "human"
    return found


def _kind(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str | None:
    if old is None or new is None:
        return "added" if old is None else "removed"
    if (old["gone_at"] is None) != (new["gone_at"] is None):
        return "back" if new["gone_at"] is None else "gone"
    if any(old[name] != new[name] for name in ("run_id", "labelled_at", "origin")):
        return "labelled"
    return "touched" if old["source"] != new["source"] or old["uri"] != new["uri"] else None


def _rows(collection: Collection, without: set[str], place: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    names = ["image_id", "uri", "source", "run_id", "labelled_at", "origin", "gone_at"]
    for file in collection.files:
        if file.part.name not in without:
            yield from ((row["image_id"], place, row) for row in collection.columns(file, names).to_pylist())


def unneeded(collection: Collection, *, keep: timedelta, at: datetime) -> list[str]:
    """Names of the table's files that no version has which was the newest at some time of the last ``keep``.

    Files that no version has are left by attempts that died; those of the last day may be an attempt's that is at work.
    """
    storage, uri = collection.storage, collection.uri
    times = {entry["version"]: _moment(entry) for entry in reversed(collection.history())}
    first = next((old for old, new in pairwise(times) if times[new] >= at - keep), collection.version)
    kept = {file.part.name for file in open_collection(storage, f"{uri}@{first}").files}
    committed = set[str]()
    for version, moment in times.items():
        if version > first or moment >= at - 2 * _AT_WORK:
            names = paths_added(storage.read(join(log_uri(uri), f"{version:020d}.json")))
            committed |= names
            kept |= names if version > first else set()
    young = (at - _AT_WORK).timestamp() * 1e6
    return sorted(
        file.path
        for file in storage.walk(masks_uri(uri), levels=0)
        if digest_in(file.path) and file.path not in kept and (file.path in committed or file.mtime_us < young)
    )


def _moment(entry: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)


def compaction(collection: Collection, *, file_bytes: int = FILE_BYTES) -> Iterator[Replaced]:
    """Neighbouring files that are small joined, a group at a time; rows stay as they are, and where they are."""
    group: list[TableFile] = []
    for file in [*collection.files, None]:
        if file is not None and sum(one.size_bytes for one in (*group, file)) <= file_bytes:
            group.append(file)
            continue
        if len(group) > 1:
            yield Replaced(group[0], cut(map(collection.read, group), file_bytes))
            yield from (Replaced(one, iter(())) for one in group[1:])
        group = [file] if file is not None else []
