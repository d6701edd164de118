"""Masks against earlier ones of the same pixels: by hand, and against painted pixels on random objects."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.metrics.disagreement import Overlap, class_areas, disagreement
from tests.made import CAR, ROAD, SKY
from tests.manifests import segment_of, segments_of

CLASSES = (SKY, ROAD, CAR)


def drawn(*lines: str) -> list[Segment]:
    letters = {category.name[0]: index for index, category in enumerate(CLASSES)}
    ids = np.array([[letters.get(letter, 9) for letter in line] for line in lines], np.uint16)
    return segments_of(ids, CLASSES, void=9)


def test_by_hand() -> None:
    found = class_areas(drawn("ssrr", "..rr"), drawn("srrr", "c.rr"))
    assert found.both_px == {"sky": 1, "road": 4, "car": 0} and found.either_px == {"sky": 2, "road": 5, "car": 1}
    assert disagreement(found) == 1 - 5 / 8 and disagreement(found, "sky") == 0.5
    assert disagreement(found, "car") == 1.0 and disagreement(found, "bus") is None
    found.add(class_areas(drawn("ss"), drawn("ss")))
    assert disagreement(found) == pytest.approx(1 - 7 / 10)
    assert disagreement(class_areas([], [])) is None and disagreement(Overlap()) is None
    other_size = class_areas(drawn("ss"), drawn("s", "s"))
    assert (other_size.both_px["sky"], other_size.either_px["sky"]) == (0, 4)


def test_classes_are_one_by_name() -> None:
    before = [segment_of(np.ones((2, 2), bool), Category(40, "sky", (1, 1, 1)))]
    assert disagreement(class_areas(before, drawn("ss", "ss"))) == 0.0


@given(arrays(bool, (2, 3, 4, 5)), st.lists(st.sampled_from(CLASSES), min_size=3, max_size=3))
def test_objects_that_overlap_are_counted_by_their_unions(masks: np.ndarray, classes: list[Category]) -> None:
    before, now = (
        [segment_of(mask, category) for mask, category in zip(side, classes, strict=True) if mask.any()]
        for side in masks
    )
    found = class_areas(before, now)
    for category in CLASSES:
        old, new = (
            np.any([mask for mask, one in zip(side, classes, strict=True) if one is category] or [np.zeros(1)], axis=0)
            for side in masks
        )
        assert found.both_px[category.name] == np.count_nonzero(np.logical_and(old, new))
        assert found.either_px[category.name] == np.count_nonzero(np.logical_or(old, new))
