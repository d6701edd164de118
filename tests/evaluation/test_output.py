"""What an evaluation leaves: its report, and tables with the same figures."""

import io
from pathlib import Path

import pyarrow.parquet as pq

from segjobs.evaluation.output import per_class_table
from segjobs.evaluation.report_types import ClassScores, Figure, Report
from tests.made import manifest, scored


def test_a_figure_is_three_columns() -> None:
    known, bare = Figure(value=0.5, low=0.25, high=0.75), Figure(value=None, low=None, high=None)
    row = ClassScores(
        category_id=3, category="sky", iou=known, dice=bare, precision=bare, recall=bare, boundary_iou=known,
        correct_px=1, truth_px=2, predicted_px=3, images=4,
    )  # fmt: skip
    (found,) = pq.read_table(io.BytesIO(per_class_table([row]))).to_pylist()
    expected = {"category_id": 3, "category": "sky", "correct_px": 1, "truth_px": 2, "predicted_px": 3, "images": 4}
    for name in ("iou", "boundary_iou"):
        expected |= {name: 0.5, f"{name}_low": 0.25, f"{name}_high": 0.75}
    assert {name: value for name, value in found.items() if value is not None} == expected
    assert found.keys() > {"boundary_f", "dice_low"}, "columns of what is not known are there, and empty"


def test_files_of_an_evaluation(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["sr"], "b": ["tt"]})
    predicted = manifest(tmp_path / "predicted", {"a": ["ss"]})
    report = scored(tmp_path, truth, predicted)
    names = {path.name for path in (tmp_path / "scores").iterdir()}
    assert names == {"scores", "scores.json", "per_image.parquet", "per_class.parquet", "report.json"}
    images = pq.read_table(tmp_path / "scores" / "per_image.parquet").to_pylist()
    assert [(row["image_id"], row["status"], row["mean_iou"]) for row in images] == [
        ("a", "ok", (1 / 2 + 0) / 2),
        ("b", "missing", 0.0),
    ]
    classes = pq.read_table(tmp_path / "scores" / "per_class.parquet").to_pylist()
    assert [row["iou"] for row in classes] == [one.iou.value for one in report.semantic.per_class]
    where = tmp_path / "scores" / "report.json"
    assert Report.from_json(where.read_bytes(), where=str(where)) == report
    assert scored(tmp_path, truth, predicted) == report, "again is the same"


def test_without_an_image_there_is_a_report_all_the_same(tmp_path: Path) -> None:
    nothing = manifest(tmp_path / "nothing", {})
    report = scored(tmp_path, nothing, nothing)
    assert report.images == {"ok": 0, "missing": 0, "failed": 0, "no_truth": 0, "extra": 0}
    assert report.semantic.headline["mean_iou"].value is None
