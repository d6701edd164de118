"""1 - mIoU of two rows' masks: by hand, and against numpy's on random label maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjobs.jobs.review.disagree import disagreement
from segjobs.manifest.schema import make_categories
from segjobs.manifest.segments import Segment

CLASSES = make_categories(["sky", "road", "car"])
PIXELS = hnp.arrays(np.int8, (5, 6), elements=st.integers(-1, 2))


def rows(pixels: np.ndarray) -> list:
    return [Segment.from_mask(one, pixels == one.id).to_row() for one in CLASSES if (pixels == one.id).any()]


@given(one=PIXELS, other=PIXELS)
@settings(max_examples=60, deadline=None)
def test_it_is_one_less_the_mean_iou_of_the_classes_shown(one: np.ndarray, other: np.ndarray) -> None:
    shown = [c for c in range(3) if (one == c).any() or (other == c).any()]
    ious = [((one == c) & (other == c)).sum() / ((one == c) | (other == c)).sum() for c in shown]
    expected = 1 - np.mean(ious) if ious else 0.0
    assert disagreement(rows(one), rows(other)) == pytest.approx(expected)


def test_objects_of_a_class_are_united() -> None:
    left, right = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    left[:, :2], right[:, 2:] = True, True
    one = [Segment.from_mask(CLASSES[2], mask).to_row() for mask in (left, right)]
    other = [Segment.from_mask(CLASSES[2], left | right).to_row()]
    assert disagreement(one, other) == 0.0 and disagreement(one[:1], other) == 0.5


def test_another_size_is_no_disagreement() -> None:
    small, large = np.ones((2, 2), bool), np.ones((3, 3), bool)
    sides = [[Segment.from_mask(CLASSES[0], mask).to_row()] for mask in (small, large)]
    assert disagreement(*sides) is None
