"""A mask of an image: made in every way, checked, written as a row and read back, stacked."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from segjobs.errors import ManifestError, MaskSizeError
from segjobs.manifest.rle import encode_label_map
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment, check_known, stack

CAT = Category(3, "cat", (255, 0, 0))
CORNER = Segment(3, "cat", 1.0, (1.0, 0.0, 2.0, 1.0), 2, False, (2, 3), "21100")
"""The two right pixels of the first of two rows: columns of 2 pixels, runs 2, 1, 1, 1, 1."""


def test_of_pixels_of_a_region_and_of_counts() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 0]], bool)
    assert Segment.from_mask(CAT, mask) == CORNER
    assert Segment.from_mask(CAT, mask[:1, 1:], corner_xy=(1, 0), size_hw=(2, 3)) == Segment.from_mask(CAT, mask)
    (region,) = encode_label_map(mask.astype(np.uint8), void=0)
    assert Segment.from_region(CAT, region, (2, 3)) == Segment.from_mask(CAT, mask)
    assert Segment.from_counts(CAT, region.counts, (2, 3), score=0.5, iscrowd=True) == replace(
        CORNER, counts=region.counts, score=0.5, iscrowd=True
    )


def test_a_mask_without_a_pixel_is_no_segment() -> None:
    assert Segment.from_mask(CAT, np.zeros((2, 3), bool)) is None
    assert Segment.from_counts(CAT, "6", (2, 3)) is None


def test_counts_cover_the_image() -> None:
    with pytest.raises(MaskSizeError, match=r"^a mask of 5 pixels on an image of 3x2$"):
        Segment.from_counts(CAT, "221", (2, 3))
    with pytest.raises(ManifestError, match="not a COCO run-length code"):
        Segment.from_counts(CAT, "~", (2, 3))


@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any))
def test_against_pycocotools(mask: np.ndarray) -> None:
    code: Any = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    segment = Segment.from_counts(CAT, code["counts"].decode(), mask.shape)  # type: ignore[arg-type]
    assert segment is not None
    assert (segment.area, list(segment.bbox)) == (coco_mask.area(code), coco_mask.toBbox(code).tolist())
    assert segment == Segment.from_mask(CAT, mask)
    assert np.array_equal(segment.mask(), mask)


def test_a_row_of_the_manifest_and_back() -> None:
    row = CORNER.to_row()
    assert list(row.items()) == [
        ("category_id", 3),
        ("category", "cat"),
        ("score", 1.0),
        ("bbox", [1.0, 0.0, 2.0, 1.0]),
        ("area", 2),
        ("iscrowd", False),
        ("segmentation", {"size": [2, 3], "counts": "21100"}),
    ]
    assert Segment.from_row(row) == CORNER
    assert Segment.from_row({**row, "score": None}) == replace(CORNER, score=None)


@pytest.mark.parametrize(
    "flaw",
    [
        {"bbox": None},
        {"bbox": [0.0, 1.0]},
        {"segmentation": None},
        {"segmentation": {"size": [2], "counts": "6"}},
        {"segmentation": {"size": [2, 3], "counts": None}},
        {"area": None},
        {"category_id": None},
    ],
)
def test_a_row_that_lacks_what_a_mask_needs(flaw: dict[str, Any]) -> None:
    row: Any = {**CORNER.to_row(), **flaw}
    with pytest.raises(ManifestError, match="a segment without"):
        Segment.from_row(row)


def test_the_size_is_that_of_the_image() -> None:
    segment = Segment.from_mask(CAT, np.array([[0, 1, 1], [0, 0, 0]], bool))
    assert segment is not None
    segment.check_size((2, 3))
    assert segment.runs((2, 3)).tolist() == [2, 1, 1, 1, 1]
    for look in (segment.check_size, segment.runs):
        with pytest.raises(MaskSizeError, match=r"^a mask of 3x2 pixels on an image of 2x3$"):
            look((3, 2))


def test_another_mask_of_the_same_object() -> None:
    (region,) = encode_label_map(np.array([[1]], np.uint8), void=0)
    assert CORNER.with_mask(region, (1, 1)) == Segment(3, "cat", 1.0, (0.0, 0.0, 1.0, 1.0), 1, False, (1, 1), "01")


def test_the_order_by_score() -> None:
    """Crowds lowest; then by score, none being 1; of equal ones the smaller lies over the larger, then the earlier."""
    crowd = replace(CORNER, iscrowd=True, area=1)
    low, large, small = replace(CORNER, score=0.5), replace(CORNER, area=9), replace(CORNER, score=None, area=4)
    assert stack([small, low, crowd, large]) == [2, 1, 3, 0]
    assert stack([large, small, small]) == [0, 2, 1]
    assert stack([]) == []


def test_the_order_by_area() -> None:
    """The smaller over the larger, of equal ones the later, whatever their scores and kinds."""
    small, large = replace(CORNER, score=0.1, area=1, iscrowd=True), replace(CORNER, area=9)
    assert stack([small, large], "area") == [1, 0]
    assert stack([large, small, large], "area") == [0, 2, 1]


def test_classes_of_the_manifest() -> None:
    check_known([CORNER], {3: 0})
    with pytest.raises(ManifestError, match=r"^category ids \[3\] are not in the manifest's categories$"):
        check_known([CORNER, CORNER], [1, 2])
