"""Panoptic quality by hand, by panopticapi's rules on dense maps, and deeplab2's published figures."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segjobs.errors import ManifestError
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.metrics.bootstrap import Resampling, estimate, with_intervals
from segjobs.metrics.counts import from_rows
from segjobs.metrics.panoptic import (
    QUALITY_TYPE,
    match_segments,
    overall,
    panoptic_figures,
    panoptic_values,
    quality,
)
from tests import manifests


def segments_of(ids: np.ndarray, category_of: dict[int, int], crowds: tuple[int, ...] = ()) -> list[Segment]:
    """A map of segment ids, 0 being void → one segment per id."""
    categories = {number: Category(category_id, "", (0, 0, 0)) for number, category_id in category_of.items()}
    return manifests.segments_of(ids.astype(np.uint16), categories, void=0, crowds=crowds)


def test_a_case_by_hand():
    truth = np.array([[1, 1, 1, 1, 2, 2, 0, 0]])
    found = np.array([[1, 1, 1, 2, 2, 2, 3, 3]])
    category = {1: 5, 2: 6, 3: 5}
    rows = match_segments(segments_of(truth, category), segments_of(found, category), (1, 8))
    # 5: IoU 3 / 4. 6: IoU 2 / 3. The third lies on unlabelled pixels.
    assert rows == [
        {"category_id": 5, "tp": 1, "fp": 0, "fn": 0, "iou_sum": 0.75},
        {"category_id": 6, "tp": 1, "fp": 0, "fn": 0, "iou_sum": 2 / 3},
    ]
    rows = match_segments(segments_of(truth, category), segments_of(found, category), (1, 8), uncovered="background")
    assert rows[0] == {"category_id": 5, "tp": 1, "fp": 1, "fn": 0, "iou_sum": 0.75}
    per_class = quality(rows, [6, 7, 5])
    assert [entry["category_id"] for entry in per_class] == [6, 7, 5]
    assert per_class[2] == {"category_id": 5, "pq": 0.5, "sq": 0.75, "rq": 1 / 1.5, "tp": 1, "fp": 1, "fn": 0}
    assert per_class[1] == {"category_id": 7, "pq": None, "sq": None, "rq": None, "tp": 0, "fp": 0, "fn": 0}
    assert overall(per_class) == {
        "pq": pytest.approx((2 / 3 + 0.5) / 2),
        "sq": pytest.approx((2 / 3 + 0.75) / 2),
        "rq": pytest.approx((1 + 1 / 1.5) / 2),
        "classes": 2,
    }
    assert pa.array(rows, QUALITY_TYPE).to_pylist() == rows


def test_an_iou_of_one_half_is_no_match():
    truth, found = np.array([[1, 1, 1, 1, 2, 2]]), np.array([[1, 1, 3, 3, 2, 2]])
    rows = match_segments(segments_of(truth, {1: 1, 2: 2}), segments_of(found, {1: 1, 2: 2, 3: 3}), (1, 6))
    assert rows[0] == {"category_id": 1, "tp": 0, "fp": 1, "fn": 1, "iou_sum": 0.0}
    (entry,) = quality(rows[:1], [1])
    assert (entry["pq"], entry["sq"], entry["rq"]) == (0.0, 0.0, 0.0)


def test_a_crowd_is_neither_missed_nor_a_match_and_excuses_its_class():
    truth, found = np.array([[1, 1, 1, 1, 2, 2]]), np.array([[1, 1, 1, 3, 3, 3]])
    crowd = segments_of(truth, {1: 1, 2: 2}, crowds=(1,))
    assert match_segments(crowd, segments_of(found, {1: 1, 3: 2}), (1, 6)) == [
        {"category_id": 2, "tp": 1, "fp": 0, "fn": 0, "iou_sum": 2 / 3}
    ]
    other = match_segments(crowd, segments_of(found, {1: 9, 3: 2}), (1, 6))
    assert other[1] == {"category_id": 9, "tp": 0, "fp": 1, "fn": 0, "iou_sum": 0.0}


def test_overlapping_objects_are_drawn_by_score_then_size():
    def row(pixels: list[int], **more: Any) -> Segment:
        (segment,) = segments_of(np.array([pixels]), {1: 1})
        return replace(segment, **more)

    truth = segments_of(np.array([[1, 1, 1, 2, 2, 2, 2, 2]]), {1: 1, 2: 1})
    low, high = row([1, 1, 1, 1, 1, 0, 0, 0], score=0.5), row([0, 0, 0, 1, 1, 1, 1, 1], score=0.9)
    hidden = row([0, 0, 0, 0, 0, 0, 1, 1], score=0.1)
    rows = match_segments(truth, [low, high, hidden], (1, 8))
    assert rows == [{"category_id": 1, "tp": 2, "fp": 0, "fn": 0, "iou_sum": 2.0}]
    small, large = row([1, 1, 1, 0, 0, 0, 0, 0]), row([1, 1, 1, 1, 1, 1, 1, 1])
    assert match_segments(truth, [large, small], (1, 8))[0]["iou_sum"] == 2.0


def test_empty_sides():
    some = segments_of(np.array([[1, 0]]), {1: 4})
    assert match_segments([], [], (1, 2)) == match_segments([], [], (0, 3)) == []
    assert match_segments([], some, (1, 2)) == []  # nothing is labelled
    assert match_segments([], some, (1, 2), uncovered="background")[0]["fp"] == 1
    assert match_segments(some, [], (1, 2))[0]["fn"] == 1


def test_masks_of_another_size_are_refused():
    with pytest.raises(ManifestError, match="a mask of 2x1 pixels on an image of 3x1"):
        match_segments([], segments_of(np.array([[1, 0]]), {1: 4}), (1, 3))


# --- panopticapi -------------------------------------------------------------------------------

OFFSET = 256**3


def panopticapi(truth: np.ndarray, found: np.ndarray, truth_info: dict, found_info: dict) -> dict[int, list[float]]:
    """``pq_compute_single_core`` on maps of segment ids: category → tp, fp, fn, sum of IoUs."""
    scores: dict[int, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    areas = [Counter(side.ravel().tolist()) for side in (truth, found)]
    keys = truth.astype(np.uint64) * OFFSET + found.astype(np.uint64)
    pairs = {(key // OFFSET, key % OFFSET): n for key, n in Counter(keys.ravel().tolist()).items()}
    matched_truth, matched_found = set(), set()
    for (t, p), pixels in pairs.items():
        if t not in truth_info or p not in found_info or truth_info[t]["iscrowd"]:
            continue
        if truth_info[t]["category_id"] != found_info[p]["category_id"]:
            continue
        iou = pixels / (areas[1][p] + areas[0][t] - pixels - pairs.get((0, p), 0))
        if iou > 0.5:
            scores[truth_info[t]["category_id"]][0] += 1
            scores[truth_info[t]["category_id"]][3] += iou
            matched_truth.add(t)
            matched_found.add(p)
    crowd_labels = {}
    for t, info in truth_info.items():
        if t in matched_truth:
            continue
        if info["iscrowd"]:
            crowd_labels[info["category_id"]] = t
            continue
        scores[info["category_id"]][2] += 1
    for p, info in found_info.items():
        if p in matched_found:
            continue
        excused = pairs.get((0, p), 0)
        if info["category_id"] in crowd_labels:
            excused += pairs.get((crowd_labels[info["category_id"]], p), 0)
        if excused / areas[1][p] > 0.5:
            continue
        scores[info["category_id"]][1] += 1
    return scores


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_random_maps(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 2))
    truth = rng.integers(0, 5, shape).repeat(3, axis=0)
    found = np.where(rng.random(truth.shape) < 0.25, rng.integers(0, 6, truth.shape), truth)
    category = [{n: int(rng.integers(1, 4)) for n in range(1, 6)} for _ in range(2)]
    category[1] = {n: category[0][n] if rng.random() < 0.8 else category[1][n] for n in range(1, 6)}
    crowds = tuple(n for n in range(1, 6) if rng.random() < 0.2)
    infos = [
        {int(n): {"category_id": kinds[int(n)], "iscrowd": side == 0 and n in crowds} for n in np.unique(ids) if n}
        for side, (ids, kinds) in enumerate(zip((truth, found), category, strict=True))
    ]
    expected = panopticapi(truth, found, *infos)
    rows = match_segments(segments_of(truth, category[0], crowds), segments_of(found, category[1]), truth.shape)
    mine = {row["category_id"]: [row["tp"], row["fp"], row["fn"], pytest.approx(row["iou_sum"])] for row in rows}
    assert {c: scores for c, scores in expected.items() if any(scores)} == mine


def test_panoptic_sample_against_itself(shared_data):
    folder = shared_data / "panoptic_sample"
    entries = json.loads((folder / "panoptic_examples.json").read_text())["annotations"]
    rows, objects = [], 0
    for entry in entries:
        rgb = np.asarray(Image.open(folder / "panoptic_examples" / entry["file_name"])).astype(np.uint32)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2]
        place = {info["id"]: number + 1 for number, info in enumerate(entry["segments_info"])}
        small = np.vectorize(lambda value: place.get(value, 0))(ids)  # noqa: B023
        infos = {place[info["id"]]: info for info in entry["segments_info"]}
        crowds = tuple(number for number, info in infos.items() if info["iscrowd"])
        side = segments_of(small, {number: info["category_id"] for number, info in infos.items()}, crowds)
        objects += len(side) - len(crowds)
        rows += match_segments(side, side, ids.shape)
    found = quality(rows, sorted({row["category_id"] for row in rows}))
    assert overall(found) == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "classes": len(found)}
    assert sum(entry["tp"] for entry in found) == objects > 10


CLASS_COLOURS = {
    (0, 0, 0): 0,
    (0, 0, 255): 1,  # person
    (255, 0, 0): 2,  # bear
    (0, 255, 0): 3,  # tree
    (255, 0, 255): 4,  # bird
    (0, 255, 255): 5,  # sky
    (255, 255, 0): 6,  # cat
}
PERSON, BEAR = 1, 2
INSTANCE_CLASSES = {
    "bird": {92: 5, 176: 3, 255: 4},
    "cat": {0: 0, 255: 6},
    "team": {0: 0, **dict.fromkeys((47, 97, 133, 150, 174, 215, 244, 255), PERSON), 198: BEAR},
}
"""deeplab2's ``panoptic_quality_test.py``: which class a grey value of the truth has. Class 0 is ignored."""


def deeplab2_rows(folder, name: str) -> list[dict[str, Any]]:
    def grey(file: str) -> np.ndarray:
        return np.asarray(Image.open(folder / file).convert("L")).astype(np.int64)

    instances = grey(f"{name}_gt{'_instance' if name == 'team' else ''}.png")
    classes = np.vectorize(INSTANCE_CLASSES[name].__getitem__)(instances)
    rgb = np.asarray(Image.open(folder / f"{name}_pred_class.png").convert("RGB"))
    predicted = np.full(rgb.shape[:2], -1)
    for colour, index in CLASS_COLOURS.items():
        predicted[(rgb == colour).all(axis=-1)] = index
    assert predicted.min() >= 0
    sides = []
    for kinds, objects in ((classes, instances), (predicted, grey(f"{name}_pred_instance.png"))):
        keys = np.unique(np.where(kinds > 0, kinds * 256 + objects, 0))
        ids = np.searchsorted(keys, np.where(kinds > 0, kinds * 256 + objects, 0)) + int(keys[0] != 0)
        category_of = {number + int(keys[0] != 0): int(key) // 256 for number, key in enumerate(keys)}
        sides.append(segments_of(ids, category_of))
    return match_segments(sides[0], sides[1], classes.shape)


def test_deeplab2(shared_data):
    folder = shared_data / "deeplab2_eval"
    team = deeplab2_rows(folder, "team")
    found = quality(team, [PERSON, BEAR])
    assert overall(found)["pq"] == pytest.approx(0.62156287, abs=5e-9)
    assert [entry["pq"] for entry in found] == pytest.approx([0.702436, 0.54069], abs=5e-7)
    assert [(entry["tp"], entry["fn"], entry["fp"]) for entry in found] == [(7, 1, 0), (1, 0, 0)]
    rows = team + deeplab2_rows(folder, "bird") + deeplab2_rows(folder, "cat")
    assert overall(quality(rows, [1, 2, 3, 4, 5, 6]))["pq"] == pytest.approx(
        0.76855, abs=1e-5
    )  # they check four places


# --- the bootstrap's figures -------------------------------------------------------------------

MISSED = {"category_id": 1, "tp": 0, "fp": 0, "fn": 1, "iou_sum": 0.0}


def test_figures_are_those_of_quality():
    rng = np.random.default_rng(2)
    rows, units = [], []
    for unit in range(12):
        for category in rng.permutation(5)[:3].tolist():
            tp, fp, fn = rng.integers(0, 3, 3).tolist()
            rows.append({"category_id": category, "tp": tp, "fp": fp, "fn": fn, "iou_sum": tp * rng.uniform(0.5, 1)})
            units.append(unit)
    category = np.array([row["category_id"] for row in rows])
    counts = from_rows(np.array(units), category, panoptic_values(rows), units=12, classes=6)
    figures = partial(panoptic_figures, matched=counts.total()[:, 0] > 0)
    found = with_intervals(estimate(counts, Resampling(resamples=200), figures))
    per_class = quality(rows, range(6))
    for name in ("pq", "sq", "rq"):
        assert found[name]["value"] == pytest.approx(overall(per_class)[name], rel=1e-15)
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
        mine, exact = (
            [entry[key] for entry in side] for side, key in ((found[f"class_{name}"], "value"), (per_class, name))
        )
        assert mine == [None if value is None else pytest.approx(value, rel=1e-15) for value in exact]


def test_sums_are_exact_in_any_order():
    """IoUs whose float64 sums depend on the order of the images, and thousands of them."""
    random = np.random.default_rng(4)
    ious = random.uniform(0.5, 1, 3000)
    rows = [{"category_id": 1, "tp": 1, "fp": 0, "fn": 0, "iou_sum": float(iou)} for iou in ious]
    total = panoptic_values(rows).sum(axis=0)
    assert panoptic_figures(total[None], np.array([True]))["pq"] == quality(rows, [1])[0]["pq"]
    assert Fraction(int(total[3]), 2**24) + Fraction(int(total[4]), 2**53) == sum(map(Fraction, ious.tolist()))


def test_an_interval_of_sq_holds_its_own_value():
    """Two classes, one of which a third of the resamples have no match of; and one that is never matched."""
    rows = [{"category_id": 0, "tp": 1, "fp": 0, "fn": 0, "iou_sum": 0.9} for _ in range(20)]
    rows += [{"category_id": 1, "tp": 1, "fp": 0, "fn": 0, "iou_sum": 0.8}, *[{**MISSED, "category_id": 1}] * 3]
    rows += [{**MISSED, "category_id": 2}] * 10
    units = np.array([*range(20), 0, 1, 2, 3, *range(10)])
    category = np.array([row["category_id"] for row in rows])
    counts = from_rows(units, category, panoptic_values(rows), units=20, classes=3)
    matched = counts.total()[:, 0] > 0
    samples = estimate(counts, Resampling(resamples=400), partial(panoptic_figures, matched=matched)).samples
    lacks = np.isnan(samples["class_sq"])
    assert 0.2 < lacks[:, 1].mean() < 0.5 and not lacks[:, 0].any()
    assert set(np.unique(samples["class_sq"][:, 2][~lacks[:, 2]])) == {0.0}, "as in the set, panopticapi's rule"
    found = with_intervals(estimate(counts, Resampling(resamples=400), partial(panoptic_figures, matched=matched)))
    assert found["sq"]["value"] == pytest.approx((0.9 + 0.8 + 0) / 3)
    assert found["sq"]["low"] <= found["sq"]["value"] <= found["sq"]["high"]
