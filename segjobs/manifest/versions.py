"""What is in a version of a collection, what differs between two, and small files joined: versions in, counts out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from segjobs.manifest.collection import Collection
from segjobs.manifest.merge import FILE_BYTES, Replaced, cut
from segjobs.manifest.table_files import TableFile

_EXAMPLES = 5


@dataclass
class Contents:
    """Rows of a version: ``images`` that are there by status, ``gone``, ``failures`` by code; by origin, by model."""

    images: Counter[str] = field(default_factory=Counter[str])
    gone: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    origins: Counter[str] = field(default_factory=Counter[str])
    models: Counter[str] = field(default_factory=Counter[str])


def contents_of(collection: Collection) -> Contents:
    """Count the rows of a version, a file at a time."""
    found = Contents()
    for file in collection.files:
        rows = collection.columns(file, ["status", "error.code", "origin", "model", "gone_at"])
        for row in rows.to_pylist():
            if row["gone_at"] is not None:
                found.gone += 1
                continue
            found.images[row["status"]] += 1
            found.origins[row["origin"]] += 1
            found.models[row["model"] or "none"] += 1
            if row["error"] is not None:
                found.failures[row["error"]["code"]] += 1
    return found


@dataclass
class Difference:
    """Kind of difference → how many images, and some of them.

    ``added``: no row before; ``gone``, ``back``: no longer, or again, listed; ``labelled``: masks of another run;
    ``touched``: the same masks, another fingerprint.
    """

    counts: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, kind: str, image_id: str) -> None:
        self.counts[kind] += 1
        if len(some := self.examples.setdefault(kind, [])) < _EXAMPLES:
            some.append(image_id)


def difference(old: Collection, new: Collection) -> Difference:
    """What the newer version has that the older has not. Files that both have are not read."""
    shared = {file.part.name for file in old.files} & {file.part.name for file in new.files}
    found = Difference()
    rows = _rows(new, shared)
    before = next(earlier := _rows(old, shared), None)
    for row in rows:
        while before is not None and before["image_id"] < row["image_id"]:
            before = next(earlier, None)  # a restore takes rows away, which no night does
        if before is None or before["image_id"] != row["image_id"]:
            found.add("added", row["image_id"])
            continue
        if (kind := _kind(before, row)) is not None:
            found.add(kind, row["image_id"])
    return found


def _kind(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    if (old["gone_at"] is None) != (new["gone_at"] is None):
        return "back" if new["gone_at"] is None else "gone"
    if any(old[name] != new[name] for name in ("run_id", "labelled_at", "origin")):
        return "labelled"
    return "touched" if old["source"] != new["source"] or old["uri"] != new["uri"] else None


def _rows(collection: Collection, without: set[str]) -> Iterator[dict[str, Any]]:
    names = ["image_id", "uri", "source", "run_id", "labelled_at", "origin", "gone_at"]
    for file in collection.files:
        if file.part.name not in without:
            yield from collection.columns(file, names).to_pylist()


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
