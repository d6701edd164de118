"""Parts and run.json: written once, read back, tallied, and what damage is called."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.errors import ItemError, ManifestError
from segjobs.manifest.parts import (
    Run,
    find_run,
    footer_of,
    list_parts,
    open_run,
    part_bytes,
    part_uri,
    publish_part,
    read_part,
    read_rows,
    receipt_of,
    write_run,
)
from segjobs.manifest.rows import Author, failed_row, ok_row, segments_of
from segjobs.manifest.run_info import RunCounts
from segjobs.manifest.schema import FOOTER_KEY, MANIFEST_SCHEMA, Footer, make_categories
from segjobs.manifest.seal import open_table
from segjobs.manifest.segments import Segment
from segjobs.storage import FileInfo, Storage
from tests.manifests import info_of

Store = tuple[Storage, str]
FOOTER = Footer("semantic", make_categories(["sky", "Straße"]), "digest", {"label": "unet@123"})
AUTHOR = Author("run", "unet@123")
SEGMENT = Segment(1, "Straße", 0.5, (0.0, 0.0, 2.0, 1.0), 2, False, (1, 2), "02")


INFO = info_of(FOOTER, RunCounts(images=2, ok=1, failed=1, segments=1))


def rows() -> list[dict[str, Any]]:
    item = FileInfo("/d/a.jpg", "a.jpg", 3, 1_700_000_000_123_456, "")
    gone = FileInfo("/d/b.jpg", "b.jpg", -1, 0, "")
    return [
        ok_row(item, AUTHOR, sha256="00", size_hw=(1, 2), segments=[SEGMENT], confidence=0.75),
        failed_row(gone, AUTHOR, ItemError("NOT_FOUND", "no such file")),
    ]


def table() -> pa.Table:
    return pa.Table.from_pylist(rows(), schema=MANIFEST_SCHEMA)


def test_a_part_is_plain_parquet_with_the_schema_and_the_footer() -> None:
    read = pq.read_table(pa.BufferReader(part_bytes(table(), FOOTER)))
    assert read.schema.equals(MANIFEST_SCHEMA)
    assert Footer.from_bytes(read.schema.metadata[FOOTER_KEY]) == FOOTER
    first, second = read.to_pylist()
    assert first["segments"] == [{**SEGMENT.to_row(), "stated_bbox": None, "stated_area": None}]
    assert (first["width"], first["height"], first["status"], first["error"]) == (2, 1, "ok", None)
    assert first["source"]["mtime"].isoformat() == "2023-11-14T22:13:20.123456+00:00"
    assert second["error"] == {"code": "NOT_FOUND", "message": "no such file"}
    assert second["segments"] is None
    assert second["source"] == {"size": None, "mtime": None, "etag": None, "sha256": None}


def test_equal_rows_give_equal_bytes() -> None:
    assert part_bytes(table(), FOOTER) == part_bytes(table(), FOOTER)


def test_the_first_writer_of_a_part_stays(store: Store) -> None:
    storage, uri = store
    data = part_bytes(table(), FOOTER)
    assert publish_part(storage, uri, 12, data) == (data, True)
    assert publish_part(storage, uri, 12, data) == (data, True), "a lost reply is found to be one's own"
    assert publish_part(storage, uri, 12, b"other") == (data, False)
    assert list_parts(storage, uri) == {12}
    assert part_uri(uri, 12).endswith("/parts/part-00012.parquet")


def test_a_receipt_tallies_and_checks_the_ids() -> None:
    data = part_bytes(table(), FOOTER)
    receipt = receipt_of("/d/part-00003.parquet", data, ["a.jpg", "b.jpg"], run_id="run")
    assert (receipt.ok, receipt.segments, receipt.failures) == (1, 1, {"NOT_FOUND": 1})
    assert receipt.examples == {"NOT_FOUND": ("b.jpg", "no such file")}
    assert (receipt.part.rows, receipt.part.first_id, receipt.part.last_id) == (2, "a.jpg", "b.jpg")
    with pytest.raises(
        ManifestError, match=r"part-00003\.parquet was written by run run, and this is run other: .*; choose"
    ):
        receipt_of("/d/part-00003.parquet", data, ["a.jpg", "b.jpg"], run_id="other")
    with pytest.raises(ManifestError, match="belongs to another run"):
        receipt_of("/d/part-00003.parquet", data, ["a.jpg"], run_id="run")
    with pytest.raises(ManifestError, match="damaged"):
        receipt_of("/d/part-00003.parquet", data[:-20], ["a.jpg", "b.jpg"], run_id="run")


def test_a_manifest_exists_when_run_json_does(store: Store) -> None:
    storage, uri = store
    with pytest.raises(ManifestError, match="no manifest here"):
        open_run(storage, uri)
    data, _ = publish_part(storage, uri, 0, part_bytes(table(), FOOTER))
    assert find_run(storage, uri) is None
    with pytest.raises(ManifestError, match="not finished"):
        open_run(storage, uri)
    run = Run(uri, (receipt_of(part_uri(uri, 0), data, ["a.jpg", "b.jpg"], run_id="run").part,), INFO)
    assert write_run(storage, run)
    assert not write_run(storage, run)
    assert open_run(storage, uri) == run
    assert [row["image_id"] for row in read_rows(storage, uri)] == ["a.jpg", "b.jpg"]
    assert list(read_rows(storage, uri, columns=["width"])) == [{"width": 2}, {"width": None}]


def test_a_damaged_part_is_refused(tmp_path) -> None:
    storage, uri = Storage(), str(tmp_path)
    data, _ = publish_part(storage, uri, 0, part_bytes(table(), FOOTER))
    part = receipt_of(part_uri(uri, 0), data, ["a.jpg", "b.jpg"], run_id="run").part
    run = Run(uri, (part,), INFO)
    (tmp_path / "parts" / part.name).write_bytes(data[:100] + b"x" + data[101:])
    with pytest.raises(ManifestError, match="sha256"):
        read_part(storage, run, part)
    (tmp_path / "parts" / part.name).unlink()
    with pytest.raises(ManifestError, match="not there"):
        read_part(storage, run, part)
    for text, message in (
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "damaged"),
        ('{"parts": []}', "damaged: no key 'run_id'"),
    ):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ManifestError, match=message):
            find_run(storage, uri)


def test_the_footer_of_a_run() -> None:
    assert footer_of(Run("x", (), INFO)) == FOOTER
    with pytest.raises(ManifestError, match="schema version is 99"):
        Footer.from_bytes(b'{"schema_version": 99, "version": "9"}')


def test_a_run_of_release_0_1_is_read_as_it_was_written() -> None:
    """Written by the code of November 2026, when segments were dicts: ``tests/manifest/finished_run``."""
    storage, uri = Storage(), str(Path(__file__).parent / "finished_run")
    run = open_run(storage, uri)
    high, low = float(np.float32(0.9)), float(np.float32(0.1))
    dog = Segment(4, "dog é", high, (2.0, 2.0, 5.0, 3.0), 15, False, (6, 8), ">3300000004")
    cat = Segment(3, "cat", low, (1.0, 1.0, 3.0, 3.0), 7, False, (6, 8), "733NN031f0")
    crowd = Segment(3, "cat", 1.0, (0.0, 4.0, 8.0, 2.0), 16, True, (6, 8), "4240000000000000")
    unscored = Segment(4, "dog é", None, (0.0, 0.0, 2.0, 1.0), 2, False, (1, 2), "02")
    rows = {row["image_id"]: row for row in read_rows(storage, uri)}
    segments = {name: segments_of(row) for name, row in rows.items() if row["status"] == "ok"}
    assert segments == {"a.jpg": [dog, cat, crowd], "b/ü.jpg": [], "d.jpg": [unscored]}
    assert rows["c.jpg"]["error"] == {"code": "TRUNCATED", "message": "ends early"}
    assert (run.info.run_id, run.info.counts) == ("0123456789abcdef", RunCounts(images=4, ok=3, failed=1, segments=4))
    assert run.info.footer.categories == make_categories(["cat", "dog é"], first_id=3)


def test_a_run_of_release_0_1_is_written_as_it_was(tmp_path: Path) -> None:
    """But for the seals: the same run.json, and the part as far as it is of one pyarrow, its rows and footer."""
    storage, old = Storage(), Path(__file__).parent / "finished_run"
    run = open_run(storage, str(old))
    assert write_run(storage, replace(run, uri=str(tmp_path)))
    lines = (tmp_path / "run.json").read_text().splitlines()
    seal = next(number for number, line in enumerate(lines) if "segjobs_seal" in line)
    assert (
        "\n".join([*lines[: seal - 1], lines[seal - 1].removesuffix(","), *lines[seal + 1 :]])
        == (old / "run.json").read_text()
    )
    table = read_part(storage, run, run.parts[0])
    rows = [
        row if row["status"] == "failed" else {**row, "segments": [segment.to_row() for segment in segments_of(row)]}
        for row in table.to_pylist()
    ]
    data = part_bytes(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), footer_of(run))
    again = open_table(data, "part-00000.parquet", mend="")
    assert again.equals(table, check_metadata=True)
