"""Rows of a manifest: a planned item and what became of it → one dict of ``MANIFEST_SCHEMA``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segjobs.errors import ItemError
from segjobs.manifest.schema import MANIFEST_SCHEMA
from segjobs.manifest.segments import Segment
from segjobs.storage import FileInfo


@dataclass(frozen=True)
class Author:
    """Who writes the rows: the run's id and the model's ``name@digest`` (None for human labels)."""

    run_id: str
    model: str | None = None


def planned_items(items: pa.Table) -> list[FileInfo]:
    """A shard of the plan as files; ``path`` is the image_id."""
    names = ("uri", "image_id", "size", "mtime", "etag")
    columns = [items[n].cast(pa.int64()) if n == "mtime" else items[n] for n in names]
    return [FileInfo(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]


def ok_row(
    item: FileInfo,
    author: Author,
    *,
    sha256: str,
    size_hw: tuple[int, int],
    segments: Sequence[Segment],
    confidence: float | None = None,
) -> dict[str, object]:
    """The row of an image that was labelled; ``size_hw`` in pixels after EXIF orientation."""
    row = _row(item, author, sha256)
    height, width = size_hw
    rows = [segment.to_row() for segment in segments]
    return {**row, "status": "ok", "height": height, "width": width, "segments": rows, "confidence": confidence}


def segments_of(row: Mapping[str, Any], *, empty: bool = False) -> list[Segment]:
    """The segments of the row of an image that was labelled. Raises ManifestError where one lacks what a mask needs.

    ``empty``: those too whose mask covers no pixel, objects that only a score asks for.
    """
    segments = [Segment.from_row(one) for one in row["segments"]]
    return segments if empty else [segment for segment in segments if segment.area]


def failed_row(item: FileInfo, author: Author, error: ItemError, *, sha256: str | None = None) -> dict[str, object]:
    """The row of an image that failed; ``sha256`` where its bytes were read."""
    row = _row(item, author, sha256)
    return {**row, "status": "failed", "error": {"code": error.code, "message": error.message}}


def _row(item: FileInfo, author: Author, sha256: str | None) -> dict[str, object]:
    there = item.size >= 0
    source = {
        "size": item.size if there else None,
        "mtime": item.mtime_us if there else None,
        "etag": item.etag or None,
        "sha256": sha256,
    }
    return {
        "image_id": item.path,
        "uri": item.uri,
        "source": source,
        "run_id": author.run_id,
        "model": author.model,
    }


def rows_table(rows: Iterable[Mapping[str, object]], extra: pa.Schema, items: pa.Table) -> pa.Table:
    """Rows of a shard, with ``extra`` columns of theirs, and the shard's number and key from ``items``."""
    schema = pa.unify_schemas([MANIFEST_SCHEMA, extra])
    table = pa.Table.from_pylist(list(rows), schema=schema)
    for name in ("shard", "shard_key"):
        table = table.append_column(name, items[name])
    return table
