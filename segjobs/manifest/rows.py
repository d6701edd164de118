"""Rows of a manifest: a planned item and what became of it → one dict of ``MANIFEST_SCHEMA``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypedDict

import pyarrow as pa

from segjobs.errors import ItemError
from segjobs.manifest.schema import MANIFEST_SCHEMA
from segjobs.manifest.segments import Segment, SegmentRow
from segjobs.storage import FileInfo


class ErrorRow(TypedDict):
    """Why an image has no masks: ``code`` is an ``errors.ItemCode``."""

    code: str
    message: str


class SourceRow(TypedDict):
    """The file of an image when it was planned, and the digest of its bytes where they were read."""

    size: int | None
    mtime: datetime | None
    etag: str | None
    sha256: str | None


class WithSegments(TypedDict):
    """The column that holds an image's masks."""

    segments: list[SegmentRow]


class Uncertainty(NamedTuple):
    """How unsure a model is of an image, each in [0, 1]: see ``models/uncertainty.py``."""

    margin: float
    margin_worst: float
    entropy: float
    entropy_worst: float


class Annotation(NamedTuple):
    """Who drew an image's labels, and when; None where their file does not say it."""

    by: str | None = None
    at: datetime | None = None


class OkRow(WithSegments):
    """An image with its masks, of those columns that were asked for. ``height`` and ``width``: pixels after EXIF."""

    image_id: str
    uri: str
    width: int
    height: int
    source: SourceRow | None
    status: Literal["ok"]
    error: None
    confidence: float | None
    run_id: str
    model: str | None
    margin: float | None
    margin_worst: float | None
    entropy: float | None
    entropy_worst: float | None
    annotated_by: str | None
    annotated_at: datetime | None


class FailedRow(TypedDict):
    """An image that failed, of those columns that were asked for."""

    image_id: str
    uri: str
    width: None
    height: None
    source: SourceRow | None
    status: Literal["failed"]
    error: ErrorRow
    segments: None
    confidence: None
    run_id: str
    model: str | None


ManifestRow = OkRow | FailedRow
"""A row of ``MANIFEST_SCHEMA`` as Arrow gives it; ``status`` tells which."""


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
    sha256: str | None,
    size_hw: tuple[int, int],
    segments: Sequence[Segment],
    confidence: float | None = None,
    uncertainty: Uncertainty | None = None,
    annotation: Annotation | None = None,
) -> dict[str, object]:
    """The row of an image that was labelled; ``size_hw`` in pixels after EXIF orientation. ``sha256``: None unread."""
    height, width = size_hw
    return {
        **_row(item, author, sha256),
        "status": "ok",
        "height": height,
        "width": width,
        "segments": [segment.to_row() for segment in segments],
        "confidence": confidence,
        **(uncertainty._asdict() if uncertainty else {}),
        **({"annotated_by": annotation.by, "annotated_at": annotation.at} if annotation else {}),
    }


def segments_of(row: WithSegments | Mapping[str, Any], *, empty: bool = False) -> list[Segment]:
    """The segments of the row of an image that was labelled. Raises ManifestError where one lacks what a mask needs.

    ``empty``: those too whose mask covers no pixel, objects that only a score asks for.
    """
    segments = [Segment.from_row(one) for one in row["segments"]]
    return segments if empty else [segment for segment in segments if segment.area]


def sha256_of(row: ManifestRow) -> str | None:
    """The digest of the image's bytes; None where they were not read."""
    return row["source"]["sha256"] if row["source"] else None


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
