"""How much masks differ from earlier ones of the same pixels: two sets of segments in, areas out, figures from sums.

    segments before, now → class_areas (an image) → sum over images → disagreement

The figure is the Jaccard distance, 1 - |A ∩ B| / |A ∪ B| (Jaccard 1901), of the pixels that a class covers before and
now, summed over images: 0 of the same masks, 1 of masks that share nothing. It is defined alike for label maps and for
objects that overlap. Areas are counted on run-length codes (pycocotools), exactly.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from segjobs.manifest.coco_api import Rle, area, intersection, union
from segjobs.manifest.segments import Segment


@dataclass
class Overlap:
    """By class: pixels that its masks cover both before and now, and before or now."""

    both_px: Counter[str] = field(default_factory=Counter[str])
    either_px: Counter[str] = field(default_factory=Counter[str])

    def add(self, other: "Overlap") -> None:
        self.both_px.update(other.both_px)
        self.either_px.update(other.either_px)


def class_areas(before: Sequence[Segment], now: Sequence[Segment]) -> Overlap:
    """Of one image, by the classes' names. Masks of another size than the image's others share no pixel with these."""
    found = Overlap()
    for name in sorted({segment.category for segment in (*before, *now)}):
        old, new = (_merged([one for one in side if one.category == name]) for side in (before, now))
        areas = sum(area(mask) for mask in (old, new) if mask is not None)
        both = area(intersection([old, new])) if old and new and old["size"] == new["size"] else 0
        found.both_px[name] = both
        found.either_px[name] = areas - both
    return found


def disagreement(overlap: Overlap, name: str | None = None) -> float | None:
    """Of a class, or of all classes' pixels together, in [0, 1]; None where no mask of it covers a pixel."""
    both, either = (counts.total() if name is None else counts[name] for counts in (overlap.both_px, overlap.either_px))
    return 1 - both / either if either else None


def _merged(segments: Sequence[Segment]) -> Rle | None:
    return union([segment.segmentation for segment in segments]) if segments else None
