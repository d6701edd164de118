"""Objects painted to classes: which lies on top, and what lies between them."""

import numpy as np
import pytest

from segjobs.config import LabelsConfig
from segjobs.labels.base import Labels, Masks
from segjobs.labels.paint import as_task, painted
from segjobs.manifest.rle import paint
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment

CAT, DOG = Category(3, "cat", (1, 1, 1)), Category(0, "dog", (2, 2, 2))


def row(category: Category, pixels: list[int]) -> Segment:
    segment = Segment.from_mask(category, np.array([pixels], bool))
    assert segment is not None
    return segment


SEGMENTS = [row(CAT, [1, 1, 0, 0, 0]), row(DOG, [1, 1, 1, 1, 0]), row(CAT, [0, 0, 1, 0, 0]), row(DOG, [0, 0, 1, 0, 0])]


def test_smaller_objects_lie_over_larger_ones_and_later_over_earlier() -> None:
    ids = paint([(one.category_id, one.counts) for one in painted(SEGMENTS, (1, 5), (CAT, DOG))], (1, 5), 9)
    assert ids.tolist() == [[3, 3, 0, 0, 9]]


@pytest.mark.parametrize(
    ("background", "names", "last"),
    [(None, ["cat", "dog"], 9), ("dog", ["cat", "dog"], 0), ("ground", ["ground", "cat", "dog"], 1)],
)
def test_what_no_object_covers(background: str | None, names: list[str], last: int) -> None:
    config = LabelsConfig(format="coco", uri="x", task="semantic", background=background)
    labels = as_task(Labels("instance", (CAT, DOG), ["t"], lambda text, size_hw: Masks(SEGMENTS), "d"), config)
    assert (labels.task, [one.name for one in labels.categories]) == ("semantic", names)
    pairs = [(one.category_id, one.counts) for one in labels.read("t", (1, 5)).segments]
    assert paint(pairs, (1, 5), 9).tolist() == [[3, 3, 0, 0, last]]
