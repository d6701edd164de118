"""One commit of a Delta table as the text that its log holds: files that come and go in, lines of JSON out.

Source: the Delta transaction log protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md (reader version 1,
writer version 2). What reads it is deltalake, Spark, DuckDB and the like. A commit is written here and not by
deltalake, which rewrites what a merge touches in memory at once, repeats a commit of a run that is in the table
already, and cannot replace chosen files by chosen others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segjobs import __version__

_ENGINE = f"segjobs {__version__}"
_BOUNDED = ("image_id", "width", "height", "status", "confidence", "run_id", "model", "origin", "processing")
"""Columns of which a file's least and greatest value are stated, so that readers skip files."""


@dataclass(frozen=True)
class Added:
    """A file that joins the table. ``stats``: as ``stats_of`` gives them."""

    path: str
    size_bytes: int
    stats: Mapping[str, object]


@dataclass(frozen=True)
class Removed:
    """A file that leaves it; it stays on the disk until a vacuum."""

    path: str
    size_bytes: int


@dataclass(frozen=True)
class Commit:
    """``app_id``: who commits, once. ``about``: what ``history`` shows of it.

    ``metadata``: the table's, where it changes. ``same_rows``: the files are others, and their rows the same.
    """

    operation: str
    about: Mapping[str, object]
    added: Sequence[Added]
    removed: Sequence[Removed]
    app_id: str | None = None
    app_version: int = 1
    metadata: Mapping[str, object] | None = None
    same_rows: bool = False


def commit_info(text: bytes) -> dict[str, Any]:
    """What a commit says of itself: ``timestamp`` (Unix time, ms), ``operation`` and more."""
    said: dict[str, Any] = {"timestamp": 0, "operation": "UNKNOWN"}
    for line in text.splitlines():
        if line.startswith(b'{"commitInfo"'):
            said |= json.loads(line)["commitInfo"]
    return said


def paths_added(text: bytes) -> set[str]:
    """The files that join the table by a commit, of the text that the log holds of it."""
    actions = (json.loads(line) for line in text.splitlines() if line)
    return {action["add"]["path"] for action in actions if "add" in action}


def stats_of(rows: pa.Table) -> dict[str, object]:
    """Number of rows, bounds and nulls of a file, as Delta states them."""
    least: dict[str, object] = {}
    greatest: dict[str, object] = {}
    for name in _BOUNDED:
        bounds: dict[str, Any] = pc.min_max(rows[name]).as_py()
        if bounds["min"] is not None:
            least[name], greatest[name] = bounds["min"], bounds["max"]
    nulls = {name: rows[name].null_count for name in (*_BOUNDED, "labelled_at", "gone_at")}
    return {"numRecords": rows.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}


def metadata_of(table_id: str, name: str, schema: str, created_ms: int) -> dict[str, object]:
    """A table's metadata. ``schema``: as Delta's JSON; ``created_ms``: Unix time."""
    return {
        "id": table_id,
        "name": name,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema,
        "partitionColumns": [],
        "configuration": {},
        "createdTime": created_ms,
    }


def first_text(metadata: Mapping[str, object], *, at_ms: int) -> bytes:
    """The first version of a table, which has no files."""
    actions: list[dict[str, object]] = [
        {
            "commitInfo": {
                "timestamp": at_ms,
                "operation": "CREATE TABLE",
                "operationParameters": {},
                "engineInfo": _ENGINE,
            }
        },
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": metadata},
    ]
    return _lines(actions)


def log_text(commit: Commit, *, read_version: int, at_ms: int) -> bytes:
    """The commit that follows ``read_version``, as lines of JSON. ``at_ms``: Unix time."""
    actions: list[dict[str, object]] = [
        {
            "commitInfo": {
                "timestamp": at_ms,
                "operation": commit.operation,
                "operationParameters": {},
                "readVersion": read_version,
                "isBlindAppend": False,
                "engineInfo": _ENGINE,
                **commit.about,
            }
        }
    ]
    if commit.app_id is not None:
        actions.append({"txn": {"appId": commit.app_id, "version": commit.app_version, "lastUpdated": at_ms}})
    if commit.metadata is not None:
        actions.append({"metaData": commit.metadata})
    changes = {"dataChange": not commit.same_rows}
    for gone in commit.removed:
        about = {"path": gone.path, "deletionTimestamp": at_ms, **changes}
        actions.append(
            {"remove": {**about, "extendedFileMetadata": True, "partitionValues": {}, "size": gone.size_bytes}}
        )
    for new in commit.added:
        sizes = {"size": new.size_bytes, "modificationTime": at_ms, **changes}
        stats = json.dumps(new.stats, ensure_ascii=False)
        actions.append({"add": {"path": new.path, "partitionValues": {}, **sizes, "stats": stats}})
    return _lines(actions)


def _lines(actions: Sequence[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(action, ensure_ascii=False) + "\n" for action in actions).encode()
