"""Collections made by hand: runs of letters in, rows of a collection and tables of them out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from segjobs.errors import ItemError
from segjobs.manifest.collection import Committed, as_rows, create_collection
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.run_info import RunCounts
from segjobs.manifest.schema import MANIFEST_SCHEMA, Category, Footer
from segjobs.storage import Storage
from tests.made import GREY, row_of
from tests.manifests import info_of

CLASSES = (Category(0, "sky", GREY), Category(1, "road", GREY))
GONE_AT = datetime(2026, 2, 1, tzinfo=UTC)
MODEL: Any = {"label": "unet@1", "digest": "1", "weights": "none", "options": {}, "preprocessing": {}, "licence": None}


def footer_of_run(categories: Sequence[Category] = CLASSES, *, human: bool = False) -> Footer:
    return Footer("semantic", tuple(categories), "0" * 64, None if human else MODEL)


def rows_of(
    pictures: Mapping[str, Sequence[str] | ItemError],
    *,
    day: int = 1,
    categories: Sequence[Category] = CLASSES,
    to: Sequence[Category] | None = None,
    human: bool = False,
    sha256: str = "00",
) -> pa.Table:
    """Rows of a run that finished on that day of January 2026."""
    rows: list[dict[str, Any]] = [row_of(name, picture, categories) for name, picture in sorted(pictures.items())]
    for row in rows:
        row["source"]["sha256"] = sha256
        row["run_id"] = f"run{day}"
    footer = footer_of_run(categories, human=human)
    info = replace(info_of(footer, RunCounts(0, 0, 0, 0)), finished=f"2026-01-{day:02}T12:00:00+00:00")
    table = pa.Table.from_pylist(rows, MANIFEST_SCHEMA)
    return as_rows(table, info, footer, to=categories if to is None else to)


def marks_of(*marks: tuple[str, Any]) -> pa.Table:
    """(image_id, when it went) or (image_id, its new source)."""
    rows = [
        {"image_id": name, "gone_at": what} if isinstance(what, datetime) else {"image_id": name, "source": what}
        for name, what in marks
    ]
    return pa.Table.from_pylist(rows, MARK_SCHEMA)


NO_MARKS = marks_of()


def commit(
    storage: Storage,
    uri: str | Path,
    pictures: Mapping[str, Sequence[str] | ItemError],
    *,
    app_id: str,
    day: int = 1,
    categories: Sequence[Category] = CLASSES,
    human: bool = False,
    marks: pa.Table = NO_MARKS,
) -> Committed:
    """Commit a run of letters as the collection's next version."""

    def changes(joint: Footer) -> Changes:
        rows = rows_of(pictures, day=day, categories=categories, to=joint.categories, human=human)
        return Changes(lambda: [rows], marks)

    return create_collection(storage, str(uri)).commit(
        changes, footer_of_run(categories, human=human), app_id=app_id, about={"run_id": f"run{day}"}
    )
