"""Corrections committed: once, and only of images that are as they were when the corrections were read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from segjobs.errors import ItemError
from segjobs.manifest.collection import open_collection
from segjobs.manifest.edits import Correction, commit_edits, image_files
from segjobs.manifest.parts import open_run
from segjobs.storage import Storage
from tests.collections_made import CLASSES, GONE_AT, commit, marks_of
from tests.made import manifest

ANN = Correction("ann", "tasks.json")


def origins(uri: Path) -> dict[str, tuple[str, int]]:
    now = open_collection(Storage(), str(uri))
    rows = [row for file in now.files for row in now.read(file).to_pylist()]
    return {row["image_id"]: (row["origin"], len(row["segments"])) for row in rows}


def test_rows_that_moved_on_meanwhile_stay(tmp_path: Path) -> None:
    uri, storage = tmp_path / "street", Storage()
    commit(storage, uri, {name: ["sr"] for name in "abcd"}, app_id="one")

    def moved(rows: list[dict[str, Any]]) -> None:
        rows[0]["source"]["etag"] = "another"  # a file of another time, and the same bytes
        rows[1]["source"]["sha256"] = "77"

    pictures: dict[str, Any] = {**{name: ["ss"] for name in "abd"}, "c": ItemError("LABEL_VALUE", "no")}
    run = open_run(storage, manifest(tmp_path / "edits", pictures, CLASSES, change=moved))
    commit(storage, uri, {}, app_id="two", marks=marks_of(("d", GONE_AT)))
    assert [file.path for file in image_files(open_collection(storage, str(uri)))] == ["a", "b", "c"]
    done = commit_edits(storage, str(uri), run, ANN)
    assert done.counts == {"taken": 1, "changed": 2, "failed": 1} and done.committed.version == 3
    assert [segments for _, segments in origins(uri).values()] == [1, 2, 2, 2]
    again = commit_edits(storage, str(uri), run, ANN)
    assert (again.committed.new, again.committed.version, again.counts) == (False, 3, done.counts)


def test_the_later_command_stays_where_a_clock_went_back(tmp_path: Path) -> None:
    uri, storage = tmp_path / "street", Storage()
    commit(storage, uri, {"a": ["sr"]}, app_id="one", day=9, human=True)
    run = open_run(storage, manifest(tmp_path / "edits", {"a": ["ss"]}, CLASSES))
    before = replace(run.info, finished="2020-01-01T00:00:00+00:00", footer=replace(run.info.footer, model=None))
    done = commit_edits(storage, str(uri), replace(run, info=before), ANN)
    assert done.counts == {"taken": 1} and origins(uri) == {"a": ("human", 1)}
