"""pycocotools behind types: by hand."""

import numpy as np

from segjobs.manifest.coco_api import Rle, area, box_ious, intersection, mask_ious, polygons, union

LEFT: Rle = {"size": [1, 4], "counts": "022"}
MIDDLE: Rle = {"size": [1, 4], "counts": "121"}
"""The first two, and the two middle ones, of four pixels in a row."""


def test_unions_and_intersections() -> None:
    assert union([LEFT, MIDDLE]) == {"size": [1, 4], "counts": "031"}
    assert intersection([LEFT, MIDDLE]) == {"size": [1, 4], "counts": "112"}
    assert union([LEFT]) == LEFT
    assert (area(LEFT), area(union([LEFT, MIDDLE]))) == (2, 3)


def test_polygons() -> None:
    assert polygons([[1, 0, 3, 0, 3, 1, 1, 1]], (1, 4)) == MIDDLE


def test_ious() -> None:
    np.testing.assert_allclose(mask_ious([LEFT, MIDDLE], [MIDDLE], [False]), [[1 / 3], [1]])
    np.testing.assert_allclose(mask_ious([LEFT], [MIDDLE], [True]), [[1 / 2]])
    np.testing.assert_allclose(box_ious([(0, 0, 2, 1)], [(1, 0, 2, 1)], [False]), [[1 / 3]])
    assert mask_ious([], [LEFT], [False]).shape == (0, 1)
    assert box_ious([(0, 0, 1, 1)], [], []).shape == (1, 0)
