"""pycocotools' mask functions with types, the one place that calls them: run-length codes in, codes and numbers out.

pycocotools checks neither that runs cover the size nor that sizes agree; ``segments.Segment`` does, before.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from pycocotools import mask as _mask

Box = tuple[float, float, float, float]
"""x, y, w, h in pixels."""


class Rle(TypedDict):
    """A mask as COCO's JSON has it: ``size`` h, w in pixels, and ``counts``."""

    size: list[int]
    counts: str


_Side = list[Rle] | list[list[float]]


def union(masks: Sequence[Rle]) -> Rle:
    """The pixels of any of the masks, one or more, of one size."""
    return _merged(masks, intersect=False)


def intersection(masks: Sequence[Rle]) -> Rle:
    """The pixels of all of the masks, one or more, of one size."""
    return _merged(masks, intersect=True)


def area(mask: Rle) -> int:
    """Pixels of the mask."""
    return int(_mask.area(mask))


def polygons(parts: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Rle:
    """The union of polygons (each x, y, x, y, … in pixels), rasterised on an image of ``size_hw`` pixels."""
    shapes = [list(map(float, part)) for part in parts]
    return _text(_mask.merge(_mask.frPyObjects(shapes, *size_hw)))


def mask_ious(found: Sequence[Rle], truth: Sequence[Rle], crowd: Sequence[bool]) -> np.ndarray:
    """IoU of every pair, float64 (F, T); with a crowd, its share of the one that was found."""
    return _ious(list(found), list(truth), crowd)


def box_ious(found: Sequence[Box], truth: Sequence[Box], crowd: Sequence[bool]) -> np.ndarray:
    """As ``mask_ious``, of boxes."""
    return _ious([list(box) for box in found], [list(box) for box in truth], crowd)


def _ious(found: _Side, truth: _Side, crowd: Sequence[bool]) -> np.ndarray:
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    return np.asarray(_mask.iou(found, truth, [int(one) for one in crowd]), np.float64)


def _merged(masks: Sequence[Rle], *, intersect: bool) -> Rle:
    return _text(_mask.merge(list(masks), intersect=intersect))


def _text(mask: "_mask.EncodedRle") -> Rle:
    height, width = mask["size"]
    return {"size": [int(height), int(width)], "counts": mask["counts"].decode("ascii")}
