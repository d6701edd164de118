"""What a report tells besides scores: comparison, drift and disputes, on pictures of a few pixels."""

from pathlib import Path

import pytest

from segjobs.errors import ConfigError, ExitCode, ItemError
from segjobs.manifest.rle import decode
from tests.made import evaluated, manifest, scored

PICTURES = {name: ["ssss", "rrrr"] for name in "abcdefgh"}
BETTER = {**PICTURES, "a": ["sssr", "rrrr"]}
WORSE = {**PICTURES, "a": ["srrr", "rrrr"], "b": ["ssrr", "rrrr"], "c": ["ssss", "rrss"]}


def test_a_baseline_is_compared_image_by_image(ray_session: None, tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", PICTURES, cut=[3])
    better, worse = manifest(tmp_path / "better", BETTER), manifest(tmp_path / "worse", WORSE, cut=[1])
    rules = ["miou drop <= 0 with 95% confidence", "iou[sky] >= 0.9"]
    report = evaluated(tmp_path, truth, better, baseline={"uri": worse}, gate=rules)
    change = report["comparison"]["metrics"]["mean_iou"]
    # 32 pixels each of sky and road: 31/32 and 32/33; in the baseline 27/34 (29 of 32, two wrong) and 30/37.
    assert change["value"] == pytest.approx((31 / 32 + 32 / 33) / 2)
    assert change["baseline"] == pytest.approx((27 / 34 + 30 / 37) / 2)
    assert change["difference"] == pytest.approx(change["value"] - change["baseline"])
    assert 0 <= change["low"] < change["difference"] < change["high"] and change["p_value"] < 0.5
    assert [(row["image_id"], round(row["value"], 3)) for row in report["comparison"]["improved"]] == [
        ("b", 1.0),  # from 7/12, as c
        ("c", 1.0),
        ("a", 0.775),  # from 0.339
    ]
    assert report["comparison"]["worsened"] == []
    assert [verdict["passed"] for verdict in report["gate"]] == [True, True]

    evaluated(tmp_path, truth, worse, "earlier")
    turned = evaluated(
        tmp_path, truth, worse, "turned", baseline={"uri": better}, gate=rules, ends=ExitCode.GATE_MISSED
    )
    assert [verdict["passed"] for verdict in turned["gate"]] == [False, False]
    # An earlier evaluation gives the same comparison as its manifest scored again.
    again = evaluated(tmp_path, truth, better, "again", baseline={"uri": str(tmp_path / "earlier")}, gate=rules)
    assert again["comparison"] == {**report["comparison"], "baseline": again["comparison"]["baseline"]}
    other = manifest(tmp_path / "other", {"a": ["s"]})
    with pytest.raises(ConfigError, match="scored another truth"):
        evaluated(tmp_path, other, other, "wrong", baseline={"uri": str(tmp_path / "earlier")})


def test_two_models_without_truth(ray_session: None, tmp_path: Path) -> None:
    old = manifest(tmp_path / "old", {"a": ["ssrr"], "b": ["tttt"]})
    new = manifest(tmp_path / "new", {"a": ["srrr"], "b": ["tttt"]})
    report = evaluated(tmp_path, None, new, baseline={"uri": old})
    assert report["agreement"] and report["semantic"]["headline"]["pixel_accuracy"]["value"] == 7 / 8
    sky, road, *_ = report["drift"]
    assert [sky["area_share"][name] for name in ("value", "baseline", "difference")] == [1 / 8, 2 / 8, -1 / 8]
    assert [road["area_share"][name] for name in ("value", "baseline")] == [3 / 8, 2 / 8]
    assert sky["images"] == {"value": 1, "baseline": 1}
    with pytest.raises(ConfigError, match=r"gate: without truth"):
        evaluated(tmp_path, None, new, "gated", baseline={"uri": old}, gate=["miou >= 0.1"])


def test_confident_predictions_dispute_the_truth(ray_session: None, tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["sssr"], "b": ["ttts"], "c": ["srsr"]})
    predicted = manifest(tmp_path / "predicted", {"a": ["rrrr"], "b": ["tsss"], "c": ["srss"]})
    limits = {"min_px": 2, "min_score": 0.5, "limit": 5}
    disputes = evaluated(tmp_path, truth, predicted, disputes=limits)["disputes"]
    assert [(d["image_id"], d["category"], d["other"], d["pixels"]) for d in disputes] == [
        ("a", "sky", "road", 3),
        ("b", "tree", "sky", 2),
    ]
    region = decode(disputes[1]["segmentation"]["counts"], tuple(disputes[1]["segmentation"]["size"]))
    assert region.tolist() == [[False, True, True, False]]
    assert evaluated(tmp_path, truth, predicted, "none", disputes={**limits, "limit": 0})["disputes"] == []


def test_ignored_classes_are_not_scored(ray_session: None, tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["ssrt"]})
    predicted = manifest(tmp_path / "predicted", {"a": ["srrt"]})
    report = evaluated(tmp_path, truth, predicted, ignore_classes=["road"])
    # Two pixels of sky and one of tree are left; the road predicted on sky is a miss and no false positive.
    assert [row["iou"]["value"] for row in report["semantic"]["per_class"]] == [1 / 2, None, 1.0, None]
    assert report["semantic"]["headline"]["mean_iou"]["value"] == 3 / 4
    with pytest.raises(ConfigError, match="ignore_classes: 'rode' is no class of the truth; did you mean 'road'"):
        evaluated(tmp_path, truth, predicted, "wrong", ignore_classes=["rode"])


def test_nothing_scored_is_no_zero(tmp_path: Path) -> None:
    """Every prediction failed: no figure, and the reasons with their counts."""
    truth = manifest(tmp_path / "truth", {name: ["sr"] for name in "abc"})
    failed = {"a": ItemError("TRUNCATED", "ends early"), "b": ItemError("UNREADABLE", "x"), "c": ["s."]}
    predicted = manifest(tmp_path / "predicted", {**failed, "c": ItemError("UNREADABLE", "y")})
    report = scored(tmp_path, truth, predicted, gate=["miou >= 0"])
    assert report.scored_images == 0 and [rule.passed for rule in report.gate] == [False]
    assert {figure.value for figure in report.semantic.headline.values()} == {None}
    assert [row.iou.value for row in report.semantic.per_class] == [None] * 4
    assert [(one.code, one.images, one.image_id, one.message) for one in report.failures] == [
        ("UNREADABLE", 2, "b", "x"),
        ("TRUNCATED", 1, "a", "ends early"),
    ]
    assert report.notes[0].startswith("nothing was scored")
    some = manifest(tmp_path / "some", failed)
    assert scored(tmp_path, truth, some, "some").semantic.headline["mean_iou"].value == pytest.approx((1 / 3 + 0) / 2)
