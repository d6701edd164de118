"""A collection's files brought up to date: against a plain dict, and which files are touched at all."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from segjobs.manifest.merge import MARK_SCHEMA, Changes, cut, merge
from segjobs.manifest.run_info import PartInfo
from segjobs.manifest.schema import COLLECTION_SCHEMA
from segjobs.manifest.table_files import TableFile
from tests.collections_made import GONE_AT, NO_MARKS, marks_of, rows_of

Rows = dict[str, dict[str, Any]]
SMALL = 4000  # bytes of a file: some five rows
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def row(image_id: str, *, day: int = 1, origin: str = "model", sha256: str = "00") -> dict[str, Any]:
    source = {"size": 1, "mtime": DAY, "etag": None, "sha256": sha256}
    return {
        "image_id": image_id,
        "uri": f"/d/{image_id}",
        "source": source,
        "status": "ok",
        "segments": [],
        "run_id": f"run{day}",
        "origin": origin,
        "labelled_at": DAY + timedelta(days=day),
        "model": "x" * 300,
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), COLLECTION_SCHEMA)


class Table:
    """Files in memory, as a version of a collection names them."""

    def __init__(self) -> None:
        self.tables: dict[str, pa.Table] = {}
        self.files: list[TableFile] = []
        self.count = 0

    def apply(self, changes: Changes, *, size_bytes: int = 1) -> set[str]:
        """Commit; the names of the files that went."""
        gone = set()
        for step in merge(self.files, lambda file: self.tables[file.part.name], changes, file_bytes=SMALL):
            new = [self._add(rows, size_bytes) for rows in step.tables]
            if step.old is not None:
                gone.add(step.old.part.name)
                self.files = [file for file in self.files if file != step.old]
            self.files += new
        self.files.sort(key=lambda file: file.part.first_id)
        return gone

    def _add(self, rows: pa.Table, size_bytes: int) -> TableFile:
        self.count += 1
        ids = rows["image_id"].to_pylist()
        assert ids == sorted(set(ids))
        self.tables[str(self.count)] = rows
        part = PartInfo(str(self.count), rows["gone_at"].null_count, "", ids[0], ids[-1])
        return TableFile(part, rows.num_rows, size_bytes)

    def rows(self) -> Rows:
        for one, two in zip(self.files, self.files[1:], strict=False):
            assert one.part.last_id < two.part.first_id
        return {row["image_id"]: row for file in self.files for row in self.tables[file.part.name].to_pylist()}


@pytest.mark.parametrize("seed", range(12))
def test_many_nights_give_what_a_dict_gives(seed: int) -> None:
    chance, table, expected = random.Random(seed), Table(), {}
    for day in range(1, 9):
        new = {name: row(name, day=day + chance.choice((0, -3)), origin=chance.choice(("model", "model", "human")))
               for name in {f"{chance.randrange(60):02}" for _ in range(chance.randrange(20))}}  # fmt: skip
        ordered = [new[name] for name in sorted(new)]
        cuts = sorted(chance.randrange(len(ordered) + 1) for _ in range(3))
        pieces = [table_of(ordered[a:b]) for a, b in zip([0, *cuts], [*cuts, len(ordered)], strict=True)]
        marked = sorted({f"{chance.randrange(60):02}" for _ in range(chance.randrange(6))} - new.keys())
        marks = marks_of(*((name, GONE_AT if chance.random() < 0.5 else source("00", day)) for name in marked))
        for name, one in new.items():
            old = expected.get(name)
            whole = table_of([one]).to_pylist()[0]
            if (
                old is None
                or (one["origin"] == old["origin"] and one["labelled_at"] >= old["labelled_at"])
                or (one["origin"] == "human" != old["origin"])
            ):
                expected[name] = whole
        for mark in marks.to_pylist():
            if (old := expected.get(mark["image_id"])) is not None:
                expected[mark["image_id"]] = {**old, "gone_at": mark["gone_at"],
                                              "source": mark["source"] or old["source"]}  # fmt: skip
        table.apply(Changes(lambda pieces=pieces: pieces, marks))
        assert table.rows() == expected


def source(sha256: str, day: int) -> dict[str, Any]:
    return {"size": 1, "mtime": DAY + timedelta(days=day), "etag": "new", "sha256": sha256}


def test_only_files_that_something_falls_into_are_rewritten() -> None:
    table = Table()
    table.apply(Changes(lambda: [table_of([row(f"{number:03}") for number in range(40)])], NO_MARKS))
    assert len(table.files) == 4
    second = table.files[1].part
    assert table.apply(Changes(lambda: [table_of([row(second.first_id, day=2)])], NO_MARKS)) == {second.name}
    last = table.files[-1].part
    gone = marks_of((last.last_id, GONE_AT))
    assert table.apply(Changes(lambda: [], gone), size_bytes=SMALL) == {last.name}
    assert table.files[-1].part.rows == table.files[-1].rows - 1, "rows of images that are there"
    # Behind all there is, where the last file is large: a new file, and nothing is rewritten.
    assert table.apply(Changes(lambda: [table_of([row("999")])], NO_MARKS)) == set()
    (newest,) = {table.files[-1].part.name}
    assert table.apply(Changes(lambda: [], marks_of(("zzz", GONE_AT)))) == {newest}, "no such row"
    assert table.apply(Changes(lambda: [], NO_MARKS)) == set()


def test_a_fingerprint_is_renewed_for_the_same_bytes_alone() -> None:
    table = Table()
    table.apply(Changes(lambda: [rows_of({"a": ["s"], "b": ["s"]})], marks_of()))
    marks = pa.Table.from_pylist(
        [{"image_id": "a", "uri": "/new/a", "source": source("00", 3)}, {"image_id": "b", "source": source("11", 3)}],
        MARK_SCHEMA,
    )
    table.apply(Changes(lambda: [], marks))
    rows = table.rows()
    assert (rows["a"]["source"]["etag"], rows["a"]["uri"]) == ("new", "/new/a")
    assert (rows["b"]["source"]["etag"], rows["b"]["uri"]) == (None, "/d/b"), "it was labelled anew meanwhile"


def test_files_are_of_about_one_size() -> None:
    rows = table_of([row(f"{number:03}") for number in range(200)])
    files = list(cut([rows.slice(start, 7) for start in range(0, 200, 7)], SMALL))
    assert pa.concat_tables(files).equals(rows)
    assert all(SMALL // 2 <= file.nbytes <= 2 * SMALL for file in files)
    assert list(cut([], SMALL)) == []
