"""Segments made fit for a format: flaws, components and who is on top, against a plain reading."""

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from segjobs.errors import ItemError
from segjobs.exporters.base import Loss, Segment
from segjobs.exporters.flatten import (
    NOTHING,
    checked_segments,
    components,
    covering_losses,
    exported_segments,
    regions_of,
    top_segments,
)
from tests.exporters.samples import CAT, DOG, MASKS, SKY, labelled, mask_of, overlapping, setting
from tests.manifests import segment_of

SQUARE = np.array([[1, 1, 0], [1, 1, 0]], bool)


def row_of(**keys: Any) -> dict[str, Any]:
    return {"height": 2, "width": 3, "segments": [{**segment_of(SQUARE, CAT).to_row(), **keys}]}


@pytest.mark.parametrize(
    ("flaw", "code", "message"),
    [
        ({"category_id": 9}, "LABEL_VALUE", r"category ids \[9\] are not in the manifest's categories"),
        ({"area": 3}, "LABEL_VALUE", "a mask of 4 pixels, where the row says 3"),
        ({"segmentation": {"size": [2, 3], "counts": "~"}}, "LABEL_VALUE", "not a COCO run-length code"),
        ({"segmentation": {"size": [3, 2], "counts": "042"}}, "LABEL_SHAPE", "a mask of 2x3 pixels on an image of 3x2"),
        ({"segmentation": {"size": [2, 3], "counts": "041"}}, "LABEL_SHAPE", "a mask of 5 pixels on an image of 3x2"),
    ],
)
def test_a_segment_that_makes_no_sense_fails_its_image(flaw: dict[str, Any], code: str, message: str) -> None:
    assert checked_segments(row_of(), [3]) == (segment_of(SQUARE, CAT),)
    with pytest.raises(ItemError, match=message) as caught:
        checked_segments(row_of(**flaw), [3])
    assert caught.value.code == code


def test_classes_that_are_not_exported_are_counted() -> None:
    one, two = segment_of(SQUARE, CAT), segment_of(~SQUARE, DOG)
    row = {"height": 2, "width": 3, "segments": [one.to_row(), two.to_row(), one.to_row()]}
    only = setting("png")
    only = type(only)(**{**vars(only), "categories": (DOG,)})
    assert exported_segments(row, [3, 7], only) == ((two,), (Loss("excluded", 3, 2, 8),))


def parts_of(mask: np.ndarray) -> list[np.ndarray]:
    """Components of 8 neighbours, by walking."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        part, queue = np.zeros_like(mask), deque([min(left)])
        left.discard(queue[0])
        while queue:
            y, x = queue.popleft()
            part[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue.extend(near)
        found.append(part)
    return found


@given(MASKS)
def test_components_against_walking(mask: np.ndarray) -> None:
    segment = segment_of(mask, DOG, score=0.25)
    found = components(segment)
    expected = {part.tobytes(): part for part in parts_of(mask)}
    assert {mask_of(part).tobytes() for part in found} == set(expected)
    for part in found:
        assert part == segment_of(mask_of(part), DOG, score=0.25)


def test_many_regions() -> None:
    labels = np.arange(1, 66_001, dtype=np.int32).reshape(300, 220)  # more than 16 bits
    regions = regions_of(labels)
    assert len(regions) == 66_000
    assert [(r.area, r.bbox) for r in (regions[0], regions[65_999])] == [(1, (0, 0, 1, 1)), (1, (219, 299, 1, 1))]


@given(overlapping())
def test_the_top_segment_of_each_pixel(segments: list[Segment]) -> None:
    image = labelled(segments)
    top, visible = top_segments(image, setting("png"))
    # Every pixel asks every segment: no crowd before a crowd, then score, then the smaller, then the earlier.
    masks = [mask_of(segment) for segment in segments]
    expected = np.full(image.size_hw, NOTHING)
    for y, x in np.ndindex(*image.size_hw):
        over = [k for k in range(len(segments)) if masks[k][y, x]]
        order = {k: (segments[k].iscrowd, -(segments[k].score or 0), segments[k].area, k) for k in over}
        expected[y, x] = min(over, key=lambda k: order[k]) if over else NOTHING
    assert np.array_equal(top, expected)
    assert visible.tolist() == [int((expected == k).sum()) for k in range(len(segments))]
    lost = covering_losses(image, visible)
    assert sum(loss.pixels for loss in lost) == sum(mask.sum() for mask in masks) - (expected != NOTHING).sum()
    assert sum(loss.count for loss in lost if loss.kind == "hidden") == (visible == 0).sum()


@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_segments_of_a_partition_must_not_overlap(task: Any) -> None:
    image = labelled([segment_of(SQUARE, CAT), segment_of(np.ones((2, 3), bool), SKY)])
    with pytest.raises(ItemError, match=f"segments of 'sky' overlap others, which a {task} manifest forbids") as caught:
        top_segments(image, setting("png", task))
    assert caught.value.code == "LABEL_VALUE"
