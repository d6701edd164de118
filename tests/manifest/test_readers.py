"""The table of a collection, read by other libraries with no code of ours: the guide's examples, on disk and on S3."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from segjobs.errors import ItemError
from segjobs.manifest.collection import create_collection
from segjobs.manifest.merge import Changes
from segjobs.manifest.schema import Category, Footer
from segjobs.storage import Storage
from segjobs.storage.delta import delta_place
from tests.collections_made import GONE_AT, footer_of_run, marks_of, rows_of
from tests.made import GREY
from tests.pages import GUIDE, blocks

CLASSES = (Category(0, "sky", GREY), Category(1, "car", GREY))
CONFIDENCES = {"low-car": 0.3, "sure-car": 0.9, "low-sky": 0.2, "gone-car": 0.1, "broken": None}
EXAMPLES = [body for body in blocks(GUIDE.read_text("utf-8"), "python") if '"out/street/masks"' in body]
Table = tuple[str, dict[str, str]]


@pytest.fixture
def masks(shared_store: tuple[Storage, str]) -> Table:
    """The place of a table, and its options. In version 1 the car that is gone is there."""
    storage, uri = shared_store
    pictures: dict[str, Any] = {name: ["sc" if name.endswith("car") else "ss"] for name in CONFIDENCES}
    pictures["broken"] = ItemError("TRUNCATED", "ends early")
    rows = rows_of(pictures, categories=CLASSES)
    known = pa.array([CONFIDENCES[name] for name in rows["image_id"].to_pylist()], pa.float32())
    rows = rows.set_column(rows.schema.get_field_index("confidence"), rows.schema.field("confidence"), known)
    marks = marks_of(("gone-car", GONE_AT))

    def changes(number: int) -> Any:
        def make(joint: Footer) -> Changes:
            return Changes(lambda: [rows] if number == 1 else [], marks.slice(0, number - 1))

        return make

    for number in (1, 2):
        footer = footer_of_run(CLASSES) if number == 1 else None
        create_collection(storage, uri).commit(changes(number), footer, app_id=str(number))
    return delta_place(storage, f"{uri}/masks")


def shown(example: str, masks: Table, capsys: pytest.CaptureFixture[str]) -> str:
    """What the guide's example prints of the table."""
    names: dict[str, Any] = {"place": masks[0], "options": masks[1]}
    body = example.replace('"out/street/masks"', "place, storage_options=options")
    assert body != example
    exec(compile(body, "flows/README.md", "exec"), names)  # noqa: S102
    return capsys.readouterr().out


@pytest.mark.parametrize("library", ["polars", "duckdb", "pandas"])
def test_the_guides_examples(masks: Table, library: str, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (body for body in EXAMPLES if (f"import {library}" in body or f"to_{library}" in body))
    found = shown(example, masks, capsys)
    assert {name for name in CONFIDENCES if name in found} == {"low-car"}
    assert "0.3" in found or library == "duckdb"


def test_the_guides_example_of_ray_data(ray_session: None, masks: Table, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (body for body in EXAMPLES if "ray.data" in body)
    found = shown(example, masks, capsys)
    assert {name for name in CONFIDENCES if name in found} == {"low-car"} and "'counts'" in found


def test_deltalake_reads_every_version(masks: Table) -> None:
    place, options = masks
    versions = (DeltaTable(place, version=number, storage_options=options) for number in (1, 2))
    before, now = (one.to_pandas(columns=["image_id", "gone_at"]) for one in versions)
    assert sorted(before[before.gone_at.isna()].image_id) == sorted(CONFIDENCES)
    assert sorted(now[now.gone_at.isna()].image_id) == sorted(CONFIDENCES.keys() - {"gone-car"})


def test_duckdb_with_its_own_extension(tmp_path: Path, masks: Table) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET autoinstall_known_extensions = false")
        try:
            connection.load_extension("delta")
        except duckdb.Error as error:
            pytest.skip(f"DuckDB's extension delta is not installed: {error}")
        cars = "SELECT image_id FROM delta_scan(?), unnest(segments) AS u(s)"
        rows = connection.execute(
            f"{cars} WHERE gone_at IS NULL AND confidence < 0.6 AND s.category = 'car'", [masks[0]]
        )
        assert rows.fetchall() == [("low-car",)]
