"""A row of the manifest's ``segments``, made."""

from collections.abc import Iterable
from typing import Any

from pycocotools import mask as coco_mask

from segjobs.manifest.schema import Category


def segment(
    category: Category, counts: str, size_hw: tuple[int, int], *, iscrowd: bool = False
) -> dict[str, Any] | None:
    """A row of the manifest's ``segments`` with score 1, as of any human label; None where no pixel is covered."""
    mask: Any = {"size": list(size_hw), "counts": counts}
    area = int(coco_mask.area(mask))
    return segment_row(category, mask, area=area, bbox=coco_mask.toBbox(mask), iscrowd=iscrowd) if area else None


def segment_row(
    category: Category, segmentation: Any, *, area: int, bbox: Iterable[float], iscrowd: bool = False
) -> dict[str, Any]:
    """A row whose RLE (``size`` h, w and ``counts``), ``area`` and ``bbox`` (x, y, w, h), in pixels, are known."""
    return {
        "category_id": category.id,
        "category": category.name,
        "score": 1.0,
        "bbox": [float(value) for value in bbox],
        "area": area,
        "iscrowd": iscrowd,
        "segmentation": segmentation,
    }
