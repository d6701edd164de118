"""A night on disk: begun, gone on with, committed once, ended."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segjobs.errors import ManifestError
from segjobs.manifest.collection import open_collection
from segjobs.manifest.nights import (
    CHANGES_SCHEMA,
    Night,
    begin,
    commit_night,
    end,
    moment_of,
    name_of,
    night_of_run,
    nights_of,
    open_night,
    read_end,
)
from segjobs.manifest.parts import read_rows
from segjobs.storage import Storage, join
from tests.collections_made import CLASSES, commit
from tests.made import manifest

NAME = "2026-02-01T02-00-00"
DAY = datetime(2026, 1, 31, tzinfo=UTC)


def change(image_id: str, change: str, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "change": change, "uri": f"/n/{image_id}", "size": 3, "mtime": DAY, "etag": "e",
            "tries": 0, **more}  # fmt: skip


def night_of(uri: str, *changes: dict[str, Any], run_id: str | None = "run") -> Night:
    table = pa.Table.from_pylist(list(changes), CHANGES_SCHEMA)
    return Night(uri, NAME, table, {"new": 1, "same": 5}, 1, run_id)


def test_a_night_is_begun_committed_once_and_ended(shared_store: tuple[Storage, str]) -> None:
    storage, uri = shared_store
    commit(storage, uri, {"a": ["sr"], "b": ["sr"], "c": ["sr"]}, app_id="one")
    night = night_of(
        uri,
        change("a", "touched", sha256="00"),
        change("b", "gone"),
        change("d", "new"),
        change("e", "held"),
        run_id=None,
    )
    assert begin(storage, night) and not begin(storage, night)
    assert nights_of(storage, uri) == ([], [NAME])
    found = open_night(storage, uri, NAME)
    assert (found.changes.equals(night.changes), found.counts, found.version) == (True, night.counts, 1)
    assert [(file.path, file.uri, file.size) for file in found.files()] == [("d", "/n/d", 3)]
    assert commit_night(storage, found).version == 2
    assert commit_night(storage, found).new is False
    rows = {row["image_id"]: row for row in read_rows(storage, uri)}
    assert rows.keys() == {"a", "c"}
    assert rows["a"]["source"] == {"size": 3, "mtime": DAY, "etag": "e", "sha256": "00"} and rows["a"]["uri"] == "/n/a"
    (newest, *_) = open_collection(storage, uri).history()
    assert (newest["night"], newest["images"]) == (NAME, {"new": 1, "same": 5})
    assert end(storage, found, {"night": NAME}) and not end(storage, found, {"night": "another"})
    assert nights_of(storage, uri) == ([NAME], [])
    assert read_end(storage, uri, NAME) == {"night": NAME}


def test_a_nights_run_joins_the_table(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    night = night_of(uri, change("d", "new"))
    assert night.run_uri == f"{uri}/runs/{NAME}-run"
    manifest(night.run_uri, {"d": ["sr"]}, CLASSES)
    begin(Storage(), night)
    assert commit_night(Storage(), open_night(Storage(), uri, NAME)).version == 1
    assert [row["image_id"] for row in read_rows(Storage(), uri)] == ["d"]


def test_names_are_hours() -> None:
    assert name_of(moment_of(NAME)) == NAME
    assert night_of_run(join("out/street/runs", f"{NAME}-0123456789abcdef/")) == NAME
    with pytest.raises(ManifestError, match="no run of a night"):
        night_of_run("out/run1")
    with pytest.raises(ManifestError, match="is no night of"):
        open_night(Storage(), "/nowhere", NAME)
