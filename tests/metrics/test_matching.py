"""Matching by hand: what a detection takes, what is ignored, what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segjobs.errors import ManifestError, MaskSizeError
from segjobs.manifest.rle import encode_crop
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.metrics.matching import AREAS, BITS, MATCHES_TYPE, match_image

SIZE_HW = (200, 200)


def segment(x: int, y: int, w: int, h: int, *, category: int = 1, score: float = 1.0, crowd: bool = False) -> Segment:
    code = encode_crop(np.ones((h, w), bool), (x, y), SIZE_HW)
    return Segment.from_region(Category(category, "", (0, 0, 0)), code, SIZE_HW, score=score, iscrowd=crowd)


def flags(row: dict[str, Any], number: int) -> tuple[list[list[bool]], list[list[bool]]]:
    """(matched, ignored) of a detection, each by area range and threshold."""
    found = row["detections"][number]
    return tuple(((np.int64(found[name]) & BITS) != 0).tolist() for name in ("matched", "ignored"))


NONE, ALL = [False] * 10, [True] * 10


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_one_object_and_two_detections_of_it(kind):
    truth = [segment(0, 0, 40, 10)]  # 400 px: small
    predicted = [segment(10, 0, 40, 10, score=0.5), segment(0, 0, 40, 8, score=0.9)]  # IoU 0.6 and 0.8
    row = match_image(truth, predicted, kind=kind)
    assert [found["score"] for found in row["detections"]] == [0.9, 0.5]
    # 0.8 reaches the thresholds .50 to .80 (the seventh); it takes the object from the other, which gets none.
    reached = [True] * 7 + [False] * 3
    matched, ignored = flags(row, 0)
    # Out of its area range the object may be taken, and the detection is then ignored; unmatched ones are ignored too.
    assert matched == [reached] * 4
    assert ignored == [NONE, NONE, ALL, ALL]
    assert flags(row, 1) == ([NONE] * 4, [NONE, NONE, ALL, ALL])
    assert row["truth"] == [{"category_id": 1, "all": 1, "small": 1, "medium": 0, "large": 0}]


def test_the_object_left_over_goes_to_the_next_detection():
    truth = [segment(0, 0, 40, 10), segment(4, 0, 40, 10)]
    predicted = [segment(4, 0, 40, 10, score=0.9), segment(4, 0, 40, 10, score=0.8)]
    row = match_image(truth, predicted, kind="mask")
    assert flags(row, 0)[0][0] == ALL  # its own
    assert flags(row, 1)[0][0] == [True] * 7 + [False] * 3  # the other, at 36 / 44 = 0.82


def test_a_crowd_takes_any_number_of_detections_and_all_are_ignored():
    truth = [segment(0, 0, 50, 50, crowd=True), segment(0, 0, 10, 10)]
    predicted = [segment(20, 20, 9, 9, score=s) for s in (0.9, 0.8)] + [segment(0, 0, 10, 10, score=0.1)]
    row = match_image(truth, predicted, kind="mask")
    for number in (0, 1):
        assert flags(row, number) == ([ALL] * 4, [ALL] * 4)
    assert flags(row, 2) == ([ALL] * 4, [NONE, NONE, ALL, ALL])  # an object that counts comes before the crowd
    assert row["truth"] == [{"category_id": 1, "all": 1, "small": 1, "medium": 0, "large": 0}]


def test_categories_do_not_meet():
    row = match_image([segment(0, 0, 9, 9)], [segment(0, 0, 9, 9, category=2)], kind="mask")
    assert row["detections"][0]["matched"] == 0
    assert row["truth"] == [{"category_id": 1, "all": 1, "small": 1, "medium": 0, "large": 0}]


def test_only_the_best_hundred_of_a_class_count():
    predicted = [segment(0, 0, 5, 5, score=n / 1000) for n in range(130)] + [segment(0, 0, 5, 5, category=2)]
    row = match_image([], predicted, kind="box")
    scores = [found["score"] for found in row["detections"] if found["category_id"] == 1]
    assert scores == [n / 1000 for n in range(129, 29, -1)]
    assert len(row["detections"]) == 101


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_empty_sides(kind):
    assert match_image([], [], kind=kind) == {"detections": [], "truth": []}
    assert match_image([segment(0, 0, 9, 9, crowd=True)], [], kind=kind) == {"detections": [], "truth": []}


@pytest.mark.parametrize(("side", "area", "names"), [(32, 1024, ["small", "medium"]), (96, 9216, ["medium", "large"])])
def test_the_ends_of_an_area_range_belong_to_both(side, area, names):
    row = match_image([segment(0, 0, side, side)], [], kind="mask")
    assert row["truth"] == [{"category_id": 1, **{name: int(name in ("all", *names)) for name in AREAS}}]


def test_rows_are_values_of_their_type():
    row = match_image([segment(0, 0, 9, 9)], [segment(0, 0, 9, 9, score=0.25)], kind="mask")
    assert pa.array([row, None], MATCHES_TYPE).to_pylist() == [row, None]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_must_be_finite(score):
    with pytest.raises(ManifestError, match=f"the score {score}"):
        match_image([], [segment(0, 0, 9, 9, score=score)], kind="mask")


def test_masks_must_have_one_size_and_fill_it():
    code = encode_crop(np.ones((9, 9), bool), (0, 0), (200, 100))
    other = segment(0, 0, 9, 9).with_mask(code, (200, 100))
    with pytest.raises(MaskSizeError, match="a mask of 100x200 pixels on an image of 200x200"):
        match_image([segment(0, 0, 9, 9)], [other], kind="mask")
    other = replace(other, size_hw=SIZE_HW)
    with pytest.raises(MaskSizeError, match="a mask of 20000 pixels on an image of 200x200"):
        match_image([segment(0, 0, 9, 9)], [other], kind="mask")
    assert match_image([segment(0, 0, 9, 9)], [other], kind="box")["detections"][0]["matched"] > 0
