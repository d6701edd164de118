"""Which detection found which object, as COCO decides it: the segments of one image in, compact counts out.

    segments of truth and prediction → match_image → one value of MATCHES_TYPE, without masks

Source: pycocotools' ``cocoeval.py`` (``computeIoU``, ``evaluateImg``), whose choices these are. What is
kept of a detection is its score and 40 bits twice: matched, and ignored, at 10 IoU thresholds in 4 area
ranges. ``average_precision.py`` takes it from there.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import pyarrow as pa

from segjobs.errors import ManifestError
from segjobs.manifest.coco_api import Box, box_ious, mask_ious
from segjobs.manifest.segments import Segment
from segjobs.metrics.names import MatchKind

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Area ranges in pixels, both ends included; an object outside is ignored, not wrong."""
MOST_DETECTIONS = 100
"""Detections of one class in one image that count, the highest scores first."""

MATCHES_TYPE = pa.struct(
    [
        # By category, then by falling score. Bit 10 a + t of the masks: area range a, IoU threshold t.
        (
            "detections",
            pa.list_(
                pa.struct(
                    [
                        ("category_id", pa.int32()),
                        ("score", pa.float64()),
                        ("matched", pa.int64()),  # to an object, be it an ignored one
                        ("ignored", pa.int64()),  # neither right nor wrong
                    ]
                )
            ),
        ),
        # Objects of each category that can be found, by area range; crowds and objects outside are not counted.
        ("truth", pa.list_(pa.struct([("category_id", pa.int32()), *((name, pa.int32()) for name in AREAS)]))),
    ]
)
"""What one image adds to the average precision."""


class DetectionRow(TypedDict):
    """One detection of ``MATCHES_TYPE``."""

    category_id: int
    score: float
    matched: int
    ignored: int


class MatchesRow(TypedDict):
    """A value of ``MATCHES_TYPE``; a truth's entry has its ``category_id`` and objects by the names of ``AREAS``."""

    detections: list[DetectionRow]
    truth: list[dict[str, int]]


_RANGES = np.array(list(AREAS.values()))
BITS = (np.int64(1) << np.arange(len(AREAS) * IOU_THRESHOLDS.size)).reshape(len(AREAS), IOU_THRESHOLDS.size)
"""The bit of each area range and IoU threshold, int64 (A, T)."""


def match_image(truth: Sequence[Segment], predicted: Sequence[Segment], *, kind: MatchKind) -> MatchesRow:
    """The segments of one image on both sides → what they add, one value of ``MATCHES_TYPE``.

    Both sides' ``category_id`` are the truth's. What a segment states of its area and box counts before its mask's:
    a truth's area decides its area range; a detection's is its mask's, but for boxes that it states the box's. Crowd
    regions match any number of detections, which are then ignored. Raises ManifestError where a mask is malformed or
    of another size than the first, or a score is not finite.
    """
    truth = sorted(truth, key=lambda segment: segment.category_id)
    scores, predicted = _ranked(predicted)
    true_class = np.array([segment.category_id for segment in truth], np.int64)
    predicted_class = np.array([segment.category_id for segment in predicted], np.int64)
    crowd = np.array([segment.iscrowd for segment in truth], bool)
    ignored = crowd | _outside(np.array([_true_area(segment) for segment in truth], float))
    overlaps = _overlaps(truth, predicted, kind)
    matched, excused = _greedy(np.where(predicted_class[:, None] == true_class, overlaps, -1.0), crowd, ignored)
    areas = np.array([_found_area(segment, kind) for segment in predicted], float)
    excused |= ~matched & _outside(areas).T[:, :, None]
    columns = [(bits * BITS).sum(axis=(1, 2)).tolist() for bits in (matched, excused)]
    return {
        "detections": [
            {"category_id": segment.category_id, "score": score, "matched": hit, "ignored": left}
            for segment, score, hit, left in zip(predicted, scores, *columns, strict=True)
        ],
        "truth": [
            {"category_id": category, **dict(zip(AREAS, counts, strict=True))}
            for category in np.unique(true_class).tolist()
            if any(counts := (~ignored[:, true_class == category]).sum(axis=1).tolist())
        ],
    }


def _ranked(predicted: Sequence[Segment]) -> tuple[list[float], list[Segment]]:
    """Detections by category, then falling score (equal ones in their order), the first 100 of each; their scores."""
    order: list[tuple[int, float, Segment]] = []
    for segment in predicted:
        if segment.score is None or not math.isfinite(segment.score):
            raise ManifestError(f"a detection has the score {segment.score}: expected a finite number")
        order.append((segment.category_id, -segment.score, segment))
    scores: list[float] = []
    ranked: list[Segment] = []
    seen = Counter[int]()
    for category_id, below, segment in sorted(order, key=lambda one: one[:2]):
        seen[category_id] += 1
        if seen[category_id] <= MOST_DETECTIONS:
            scores.append(-below)
            ranked.append(segment)
    return scores, ranked


def _true_area(segment: Segment) -> float:
    return segment.area if segment.stated_area is None else segment.stated_area


def _found_area(segment: Segment, kind: MatchKind) -> float:
    """As pycocotools' ``loadRes`` has it, of masks without boxes and of boxes without masks."""
    if kind == "mask" or segment.stated_bbox is None:
        return segment.area
    return segment.stated_bbox[2] * segment.stated_bbox[3]


def _box(segment: Segment) -> Box:
    return segment.bbox if segment.stated_bbox is None else segment.stated_bbox


def _outside(areas: np.ndarray) -> np.ndarray:
    """Areas (N,) in pixels → bool (A, N): outside the area range."""
    return (areas < _RANGES[:, :1]) | (areas > _RANGES[:, 1:])


def _overlaps(truth: Sequence[Segment], predicted: Sequence[Segment], kind: MatchKind) -> np.ndarray:
    """IoU of every detection and object of one category, float64 (D, G); of a crowd: its share of the detection."""
    overlaps = np.zeros((len(predicted), len(truth)))
    sides = (truth, predicted)
    if kind == "mask":
        every = [*truth, *predicted]
        for segment in every:
            segment.runs(every[0].size_hw)  # pycocotools compares whatever the runs say
    for category in {segment.category_id for segment in truth} & {segment.category_id for segment in predicted}:
        g, d = ([n for n, segment in enumerate(side) if segment.category_id == category] for side in sides)
        crowd, found, real = [truth[n].iscrowd for n in g], [predicted[n] for n in d], [truth[n] for n in g]
        if kind == "mask":
            ious = mask_ious([one.segmentation for one in found], [one.segmentation for one in real], crowd)
        else:
            ious = box_ious([_box(one) for one in found], [_box(one) for one in real], crowd)
        overlaps[np.ix_(d, g)] = ious
    return overlaps


def _greedy(overlaps: np.ndarray, crowd: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Overlaps (D, G), -1 across categories, and ``ignored`` (A, G) → (matched, to an ignored object), bool (D, A, T).

    Each detection in turn takes the object that overlaps most among those left with enough overlap:
    one that counts before an ignored one, the later of equals. Crowds are never used up.
    """
    shape = (len(overlaps), *BITS.shape)
    matched, excused = np.zeros(shape, bool), np.zeros(shape, bool)
    enough = overlaps[:, None, :] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    taken = np.zeros((*BITS.shape, overlaps.shape[1]), bool)
    ranges, thresholds = np.ogrid[: BITS.shape[0], : BITS.shape[1]]
    for number in np.flatnonzero(enough.any(axis=(1, 2))):
        # Preference as a rank, so that one argmax decides: counts, then overlap, then position.
        order = np.lexsort((np.broadcast_to(overlaps[number], ignored.shape), ~ignored), axis=-1)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(int(order.shape[1]))[None], axis=1)
        free = enough[number] & (~taken | crowd)
        best = np.where(free, rank[:, None, :], -1).argmax(axis=2)
        found = free[ranges, thresholds, best]
        matched[number] = found
        excused[number] = found & ignored[ranges, best]
        taken[ranges, thresholds, best] |= found
    return matched, excused
