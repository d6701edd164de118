"""report.json: what is written is read back as it was, and anything else is one line that names the field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segjobs.errors import ManifestError
from segjobs.evaluation.report_types import ClassScores, Convention, Inputs, Report
from segjobs.metrics.names import HEADLINE, RATIOS
from tests.made import manifest, scored
from tests.page.sample import Kind, make_report


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("evaluation")
    truth, predicted = manifest(folder / "truth", {"a": ["ssrr"]}), manifest(folder / "predicted", {"a": ["srrr"]})
    return scored(folder, truth, predicted).to_json()


@pytest.mark.parametrize("kind", ["semantic", "objects", "agreement"])
def test_what_is_written_is_read_back(kind: Kind) -> None:
    report = make_report(kind=kind)
    again = Report.from_json(report.to_json(), where="report.json")
    assert again == report
    assert again.to_json() == report.to_json()


def test_the_bytes_are_plain_json_in_their_order(data: bytes) -> None:
    raw = json.loads(data)
    assert json.dumps(raw, ensure_ascii=False).encode() == data
    assert list(raw) == [
        "schema", "version", "task", "convention", "missing", "ignored", "truth", "predictions", "agreement", "images",
        "scored_images", "examples", "categories", "bootstrap", "semantic", "instance", "panoptic", "slices", "drift",
        "comparison", "gate", "disputes", "identity", "failures", "notes",
    ]  # fmt: skip
    sky = raw["semantic"]["per_class"][0]
    assert list(sky) == [
        "category_id", "category", "iou", "dice", "precision", "recall", "correct_px", "truth_px", "predicted_px",
        "images",
    ]  # fmt: skip  # no boundary_iou: it was not measured
    assert raw["semantic"]["conventions"]["per_image"] == {"mean_iou": pytest.approx((1 / 2 + 2 / 3) / 2)}


def test_the_fields_of_a_class_are_the_names_of_its_scores() -> None:
    assert list(ClassScores.model_fields)[2:] == [*RATIOS, "correct_px", "truth_px", "predicted_px", "images"]
    assert set(Convention.model_fields) <= {"iou", *HEADLINE}


def renamed(raw: dict[str, Any], old: str, new: str) -> None:
    raw[new] = raw.pop(old)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda raw: renamed(raw, "slices", "cuts"), "slices: missing"),
        (lambda raw: raw.update(colour="red"), "colour: unknown field"),
        (lambda raw: renamed(raw["semantic"]["headline"], "mean_iou", "miou"), "semantic.headline: lacks mean_iou"),
        (lambda raw: raw["semantic"]["headline"].update(miou=None), "semantic.headline.miou: Input should be"),
        (lambda raw: renamed(raw["semantic"]["per_class"][1], "iou", "IoU"), "semantic.per_class.1.iou: missing"),
        (lambda raw: renamed(raw["categories"][0], "isthing", "thing"), "categories.0.thing: unknown field"),
        (lambda raw: raw["images"].pop("extra"), "images: lacks extra"),
        (lambda raw: raw["truth"].update(uri=3), "truth.uri: Input should be a valid string"),
        (lambda raw: raw["semantic"].update(per_image_histogram=None), "semantic.per_image_histogram: "),
        (lambda raw: raw["semantic"]["per_class"][0]["iou"].update(value="0.5"), "semantic.per_class.0.iou.value: "),
        (lambda raw: raw["semantic"]["per_class"][0]["iou"].update(value=float("nan")), "should be a finite number"),
        (lambda raw: raw["identity"]["bootstrap"].update(resample=1), "identity.bootstrap.resample: unknown field"),
    ],
)
def test_another_field_is_an_error_that_names_it(
    data: bytes, damage: Callable[[dict[str, Any]], None], problem: str
) -> None:
    raw = json.loads(data)
    damage(raw)
    with pytest.raises(ManifestError) as caught:
        Report.from_json(json.dumps(raw).encode(), where="out/report.json")
    said = str(caught.value)
    assert said.startswith("out/report.json: ") and problem in said and "\n" not in said


def test_an_unknown_score_is_an_error(data: bytes) -> None:
    raw = json.loads(data)
    raw["semantic"]["headline"]["miou"] = raw["semantic"]["headline"]["mean_iou"]
    with pytest.raises(ManifestError, match=r"^r: semantic\.headline: unknown field miou"):
        Report.from_json(json.dumps(raw).encode(), where="r")


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        (b'{"schema": 2', "^r is damaged: Invalid JSON"),
        (b"[]", "^r: the whole: Input should be an object"),
        (b"{}", "^r: schema: missing"),
        (b'{"schema": 3, "version": "9.1"}', "^r: the report's schema is 3, this release reads 2: evaluate again"),
    ],
)
def test_what_is_no_report_is_told(damaged: bytes, problem: str) -> None:
    with pytest.raises(ManifestError, match=problem):
        Report.from_json(damaged, where="r")


def test_inputs_are_read_back(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["ssrr"]})
    report = scored(tmp_path, truth, truth, boundary={"enabled": True}, rename={"car": None})
    data = (tmp_path / "scores" / "scores.json").read_bytes()
    inputs = Inputs.from_json(data, where="scores.json")
    raw = json.loads(inputs.to_json())
    assert {**raw, "segjobs_seal": json.loads(data)["segjobs_seal"]} == json.loads(data)
    assert (inputs.truth, inputs.parts, inputs.counts.rename) == (report.truth, 1, {"car": None})
    assert inputs.counts == report.identity.counts
    del raw["counts"]
    with pytest.raises(ManifestError, match=r"^scores\.json: counts: missing"):
        Inputs.from_json(json.dumps(raw).encode(), where="scores.json")
