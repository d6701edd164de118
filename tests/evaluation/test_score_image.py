"""What one image counts up to, pixel by pixel."""

from pathlib import Path
from typing import Any

import pytest

from segjobs.config import EvaluateConfig
from segjobs.errors import ManifestError
from segjobs.evaluation.inputs import open_pairing
from segjobs.evaluation.pairing import Pairing
from segjobs.evaluation.score_image import score_image
from segjobs.manifest.schema import Task
from segjobs.storage import Storage
from tests.made import GONE, PREDICTED, TRUTH, Picture, manifest, row_of

SKY, ROAD, TREE = 3, 7, 9  # ids of the truth


def pairing_of(folder: Path, *, task: Task = "semantic", **settings: Any) -> Pairing:
    """Two empty manifests: their classes are what counts here."""
    truth = manifest(folder / "truth", {}, task=task)
    predicted = manifest(folder / "predicted", {}, PREDICTED, task=task)
    sides = {"truth": {"uri": truth}, "predictions": {"uri": predicted}, "output": {"uri": str(folder / "scores")}}
    config = EvaluateConfig.model_validate({**sides, **settings})
    return open_pairing(config, Storage(), config.predictions, truth)[0]


def scored(pairing: Pairing, truth: Picture | None, predicted: Picture | None) -> dict[str, Any]:
    rows = [
        None if side is None else {"width": None, "height": None, **row_of("a", side, classes)}
        for side, classes in ((truth, TRUTH), (predicted, PREDICTED))
    ]
    return score_image("a", rows[0], rows[1], pairing)


def test_pixels_of_two_label_maps(tmp_path: Path) -> None:
    row = scored(pairing_of(tmp_path), ["ss.", "rrt"], ["srs", "rr."])
    assert [row[name] for name in ("image_id", "status", "width", "height")] == ["a", "ok", 3, 2]
    cells = {(cell["truth"], cell["predicted"]): cell["pixels"] for cell in row["confusion"]}
    assert cells == {(SKY, SKY): 1, (SKY, ROAD): 1, (ROAD, ROAD): 2, (TREE, None): 1, (None, SKY): 1}
    assert (row["labelled_px"], row["correct_px"], row["pixel_accuracy"]) == (5, 3, 3 / 5)
    assert row["mean_iou"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert row["objects"] == [
        {"category_id": SKY, "truth": 1, "predicted": 1},
        {"category_id": ROAD, "truth": 1, "predicted": 1},
        {"category_id": TREE, "truth": 1, "predicted": 0},
    ]


@pytest.mark.parametrize(
    ("truth", "predicted", "status", "message"),
    [
        (None, ["s"], "extra", "no truth for this image"),
        (GONE, ["s"], "no_truth", "NOT_FOUND: no such file"),
        (["s"], None, "missing", "no prediction for this image"),
        (["s"], GONE, "failed", "NOT_FOUND: no such file"),
        (["s"], ["ss"], "failed", "LABEL_SHAPE: the prediction is 2x1, the truth 1x1 pixels"),
    ],
)
def test_images_that_lack_a_side(
    tmp_path: Path, truth: Picture | None, predicted: Picture | None, status: str, message: str
) -> None:
    row = scored(pairing_of(tmp_path), truth, predicted)
    assert (row["status"], row["message"]) == (status, message)
    if status in ("missing", "failed"):
        assert row["confusion"] == [{"truth": SKY, "predicted": None, "pixels": 1}], "nothing is predicted anywhere"
    else:
        assert "confusion" not in row


def test_overlapping_objects_count_by_their_union(tmp_path: Path) -> None:
    row = scored(pairing_of(tmp_path, task="instance"), ["ssrr", "ssrr"], ["ssrr", "ssss"])
    assert row["unions"] == [
        {"category_id": SKY, "both_px": 4, "truth_px": 4, "predicted_px": 6},
        {"category_id": ROAD, "both_px": 2, "truth_px": 4, "predicted_px": 2},
    ]
    assert row["mean_iou"] == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert [one["tp"] for one in row["panoptic"]] == [1, 0], "the road's IoU is 1/2, which is no match"
    assert len(row["mask_matches"]["detections"]) == len(row["box_matches"]["detections"]) == 2


def test_what_a_sure_prediction_disputes(tmp_path: Path) -> None:
    row = scored(pairing_of(tmp_path, disputes={"min_px": 2}), ["ssst"], ["rrrs"])
    (dispute,) = row["disputes"]  # the pixel of tree is too few
    assert (dispute["category_id"], dispute["other_id"], dispute["pixels"]) == (SKY, ROAD, 3)


def test_malformed_predictions_fail_and_malformed_truth_stops(tmp_path: Path) -> None:
    pairing = pairing_of(tmp_path)
    good, bad = row_of("a", ["ss"], TRUTH), row_of("a", ["rr"], TRUTH)
    bad["segments"][0] = {**bad["segments"][0], "category_id": 99}
    assert score_image("a", good, bad, pairing)["message"] == (
        "LABEL_VALUE: category ids [99] are not in the manifest's categories"
    )
    with pytest.raises(ManifestError, match=r"^truth: 'a': category ids \[99\]"):
        score_image("a", bad, row_of("a", ["rr"], PREDICTED), pairing)
