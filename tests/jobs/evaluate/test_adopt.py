"""What stands at an evaluation's output: the same is found, another is refused, or replaced file by file."""

from pathlib import Path
from typing import Any

import pytest

from segjobs.errors import ConflictError, ManifestError
from segjobs.evaluation.entries import open_evaluation
from segjobs.evaluation.report_types import Report
from segjobs.jobs.evaluate.adopt import adopt
from segjobs.storage import Storage
from tests.made import _config, manifest, scored

STORAGE = Storage()


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, str, str]:
    pictures = {"truth": ["sr"], "predicted": ["ss"], "other": ["rr"]}
    truth, predicted, other = (manifest(tmp_path / name, {"a": one}) for name, one in pictures.items())
    return truth, predicted, other


def adopted(output: Path, truth: str, predicted: str, **settings: Any) -> Report | None:
    return adopt(STORAGE, open_evaluation(_config(output, truth, predicted, settings), STORAGE))


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_another_evaluation_is_refused_with_the_ways_out(tmp_path: Path, sides: tuple[str, str, str]) -> None:
    truth, predicted, other = sides
    output = tmp_path / "scores"
    assert adopted(output, truth, predicted) is None
    assert scored(tmp_path, truth, predicted) == adopted(output, truth, predicted)
    ways = "overwrite=true replaces it, or choose a new output.uri"
    with pytest.raises(ConflictError, match=f"holds a report with other missing: {ways}$"):
        adopted(output, truth, predicted, missing="skip")
    before = names(output)
    (output / "report.json").unlink()
    assert adopted(output, truth, predicted) is None, "the same, unfinished"
    with pytest.raises(ConflictError, match=f"is of another evaluation, which is not finished: {ways}, or delete its"):
        adopted(output, truth, other)
    assert names(output) == before - {"report.json"}
    scored(tmp_path, truth, predicted)
    with pytest.raises(ConflictError, match=r"baseline\.uri is output\.uri"):
        adopted(output, truth, other, baseline={"uri": str(output)}, overwrite=True)
    assert names(output) == before


def test_it_is_replaced_and_nothing_beside_it(tmp_path: Path, sides: tuple[str, str, str]) -> None:
    truth, predicted, other = sides
    output = tmp_path / "scores"
    scored(tmp_path, truth, predicted, baseline={"uri": other})
    (output / "notes.txt").write_text("the user's")
    scores = {"scores.json", "scores/part-00000.parquet"}
    tables = {"report.json", "per_class.parquet", "per_image.parquet"}
    assert names(output) == {"notes.txt", *tables, *scores, *(f"baseline/{name}" for name in scores)}
    assert adopted(output, truth, predicted, baseline={"uri": other}, overwrite=True) is not None, "the same stays"
    assert adopted(output, truth, predicted, missing="skip", overwrite=True) is None
    assert names(output) == {"notes.txt", *scores}, "counts that stay the same are kept"
    assert adopted(output, truth, other, overwrite=True) is None
    assert names(output) == {"notes.txt"}
    report = scored(tmp_path, truth, other, overwrite=True)
    assert adopted(output, truth, other) == report, "overwrite is no part of what it is"


def test_a_damaged_report_is_replaced_too(tmp_path: Path, sides: tuple[str, str, str]) -> None:
    truth, predicted, _ = sides
    scored(tmp_path, truth, predicted)
    (tmp_path / "scores" / "report.json").write_text("{")
    with pytest.raises(ManifestError):
        adopted(tmp_path / "scores", truth, predicted)
    assert adopted(tmp_path / "scores", truth, predicted, overwrite=True) is None
    assert "report.json" not in names(tmp_path / "scores")
