"""One mask of an image: pixels, counts or a manifest's row in; the value that every step speaks, and the row again.

    bool mask, Region or counts ─→ Segment ─→ to_row → an element of the manifest's ``segments`` column
                  such an element ─┘

A Segment is a COCO annotation under its class. Where masks may overlap, ``stack`` says which lies on top.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NotRequired, TypedDict

import numpy as np

from segjobs.errors import ManifestError, MaskSizeError
from segjobs.manifest.coco_api import Box, Rle
from segjobs.manifest.rle import Encoded, Region, covering_runs, decode, encode_crop, encoded
from segjobs.manifest.schema import Category
from segjobs.text import size_text


class RleRow(TypedDict):
    """``coco_api.Rle`` as Arrow gives it."""

    size: list[int]
    counts: str | None


class SegmentRow(TypedDict):
    """An element of the manifest's ``segments`` column, as Arrow takes and gives it; null where nothing is written."""

    category_id: int | None
    category: str
    score: float | None
    bbox: list[float]
    area: int | None
    iscrowd: bool
    segmentation: RleRow
    stated_bbox: NotRequired[list[float] | None]
    stated_area: NotRequired[float | None]


@dataclass(frozen=True, slots=True)
class Segment:
    """One mask with its class.

    ``score``: in [0, 1], 1 of human labels, None where another tool gave none. ``bbox``: x, y, w, h, and ``area``,
    in pixels, of the mask. ``iscrowd``: a region of uncounted objects. ``size_hw``: of the image; ``counts``: COCO's
    run-length code of the mask on it. ``stated_bbox``, ``stated_area``: what COCO's JSON or a box head says instead,
    which makes no other mask: segments are equal without.
    """

    category_id: int
    category: str
    score: float | None
    bbox: Box
    area: int
    iscrowd: bool
    size_hw: tuple[int, int]
    counts: str
    stated_bbox: Box | None = field(default=None, compare=False)
    stated_area: float | None = field(default=None, compare=False)

    @staticmethod
    def from_region(
        category: Category,
        region: Region | Encoded,
        size_hw: tuple[int, int],
        *,
        score: float | None = 1.0,
        iscrowd: bool = False,
    ) -> "Segment":
        """A mask that is encoded already, on an image of ``size_hw`` pixels."""
        bbox = _floats(region.bbox)
        return Segment(category.id, category.name, score, bbox, region.area, iscrowd, size_hw, region.counts)

    @staticmethod
    def from_mask(
        category: Category,
        mask: np.ndarray,
        *,
        corner_xy: tuple[int, int] = (0, 0),
        size_hw: tuple[int, int] | None = None,
        score: float | None = 1.0,
        iscrowd: bool = False,
    ) -> "Segment | None":
        """bool (h, w) with its top left corner at ``corner_xy`` of an image of ``size_hw`` (by default the mask's own).

        None where no pixel is set. Raises ValueError where the window leaves the image.
        """
        size_hw = size_hw or (mask.shape[0], mask.shape[1])
        code = encode_crop(mask, corner_xy, size_hw)
        return Segment.from_region(category, code, size_hw, score=score, iscrowd=iscrowd) if code.area else None

    @staticmethod
    def from_counts(
        category: Category, counts: str, size_hw: tuple[int, int], *, score: float | None = 1.0, iscrowd: bool = False
    ) -> "Segment | None":
        """COCO's counts of a mask on an image of ``size_hw`` pixels; None where no pixel is covered.

        Raises ManifestError where the counts are malformed, MaskSizeError where they do not cover the image.
        """
        code = encoded(counts, size_hw)
        return Segment.from_region(category, code, size_hw, score=score, iscrowd=iscrowd) if code.area else None

    @staticmethod
    def from_row(row: SegmentRow) -> "Segment":
        """An element of the ``segments`` column. Raises ManifestError where a field that a mask needs is missing.

        Its runs are not looked at here: whoever reads them does it by ``runs``, ``mask`` or ``rle.label_runs``,
        which check them.
        """
        try:
            (x, y, w, h), (height, width) = row["bbox"], row["segmentation"]["size"]
            category_id, area, counts = row["category_id"], row["area"], row["segmentation"]["counts"]
        except (TypeError, ValueError) as error:
            raise ManifestError(
                f"a segment without bbox (x, y, w, h) or segmentation (size h, w, and counts): {error}"
            ) from error
        if category_id is None or area is None or counts is None:
            raise ManifestError("a segment without category_id, area or counts")
        return Segment(
            category_id,
            row["category"],
            row["score"],
            (x, y, w, h),
            area,
            bool(row["iscrowd"]),
            (height, width),
            counts,
            stated_bbox=_box(row.get("stated_bbox")),
            stated_area=row.get("stated_area"),
        )

    def to_row(self) -> SegmentRow:
        """The inverse of ``from_row``."""
        row: SegmentRow = {
            "category_id": self.category_id,
            "category": self.category,
            "score": self.score,
            "bbox": list(self.bbox),
            "area": self.area,
            "iscrowd": self.iscrowd,
            "segmentation": {"size": list(self.size_hw), "counts": self.counts},
        }
        if self.stated_bbox is not None:
            row["stated_bbox"] = list(self.stated_bbox)
        if self.stated_area is not None:
            row["stated_area"] = self.stated_area
        return row

    @property
    def segmentation(self) -> Rle:
        """The mask as COCO's JSON and pycocotools have it."""
        return {"size": list(self.size_hw), "counts": self.counts}

    def with_mask(self, region: Region | Encoded, size_hw: tuple[int, int]) -> "Segment":
        """The same object with another mask, whose box and area are its own."""
        code = {"bbox": _floats(region.bbox), "area": region.area, "size_hw": size_hw, "counts": region.counts}
        return replace(self, **code, stated_bbox=None, stated_area=None)

    def seen_at(self, rows: np.ndarray, columns: np.ndarray) -> "Segment | None":
        """The same object on the pixels at these rows (h,) and columns (w,): a mask of h x w, None where none is set.

        A part of a huge image, or a smaller picture of it; the pixels are looked up in the runs. Raises as ``runs``.
        """
        places = columns[:, None] * self.size_hw[0] + rows  # in column-major pixels
        run = np.searchsorted(np.cumsum(self.runs(self.size_hw)), places, side="right")
        mask = (run % 2 == 1).T
        code = encode_crop(mask, (0, 0), (len(rows), len(columns)))
        return self.with_mask(code, (len(rows), len(columns))) if code.area else None

    def check_size(self, size_hw: tuple[int, int]) -> None:
        """Raise MaskSizeError unless the mask says that it is of an image of ``size_hw`` pixels."""
        if self.size_hw != size_hw:
            raise MaskSizeError(f"a mask of {size_text(self.size_hw)} pixels on an image of {size_text(size_hw)}")

    def runs(self, size_hw: tuple[int, int]) -> np.ndarray:
        """Alternating run lengths, background first, int64 (N,), which cover an image of ``size_hw`` pixels.

        Raises ManifestError where the counts are malformed, MaskSizeError where they are of another image.
        """
        self.check_size(size_hw)
        return covering_runs(self.counts, size_hw)

    def mask(self) -> np.ndarray:
        """bool (H, W), True where the segment is; raises as ``runs``."""
        return decode(self.counts, self.size_hw)


def stack(segments: Sequence[Segment], order: Literal["score", "area"] = "score") -> list[int]:
    """The positions of an image's segments from the bottom to the top, for where they overlap.

    score   Crowds lie lowest; then the higher score lies over the lower (None counts as 1), of equal ones the
            smaller over the larger, then the earlier over the later. So scores and exports see an image.
    area    The smaller lies over the larger whatever their scores, of equal ones the later over the earlier. So
            people see an image: in a picture, a small mask under a large one would be lost.
    """
    if order == "area":
        return sorted(range(len(segments)), key=lambda place: -segments[place].area)

    def height(place: int) -> tuple[bool, float, int, int]:
        one = segments[place]
        return not one.iscrowd, 1.0 if one.score is None else one.score, -one.area, -place

    return sorted(range(len(segments)), key=height)


def check_known(segments: Sequence[Segment], category_ids: Container[int]) -> None:
    """Raise ManifestError where a segment's class is none of the manifest's."""
    unknown = {segment.category_id for segment in segments if segment.category_id not in category_ids}
    if unknown:
        raise ManifestError(f"category ids {sorted(unknown)} are not in the manifest's categories")


def _box(values: Sequence[float] | None) -> Box | None:
    if values is None:
        return None
    if len(values) != 4:
        raise ManifestError(f"a segment whose stated_bbox has {len(values)} numbers, expected x, y, w, h")
    x, y, w, h = values
    return x, y, w, h


def _floats(box: tuple[int, int, int, int]) -> Box:
    x, y, w, h = box
    return float(x), float(y), float(w), float(h)
