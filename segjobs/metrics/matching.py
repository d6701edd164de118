"""Which detection found which object, as COCO decides it: the segments of one image in, compact counts out.

    segments of truth and prediction → match_image → one value of MATCHES_TYPE, without masks

Source: pycocotools' ``cocoeval.py`` (``computeIoU``, ``evaluateImg``), whose choices these are. What is
kept of a detection is its score and 40 bits twice: matched, and ignored, at 10 IoU thresholds in 4 area
ranges. ``average_precision.py`` takes it from there.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from segjobs.errors import ManifestError
from segjobs.manifest.rle import runs

MatchKind = Literal["mask", "box"]
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


_RANGES = np.array(list(AREAS.values()))
BITS = (np.int64(1) << np.arange(len(AREAS) * IOU_THRESHOLDS.size)).reshape(len(AREAS), IOU_THRESHOLDS.size)
"""The bit of each area range and IoU threshold, int64 (A, T)."""


def match_image(
    truth: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], *, kind: MatchKind
) -> dict[str, Any]:
    """The segments of one image on both sides → what they add, one value of ``MATCHES_TYPE``.

    Segments are as in the manifest; both sides' ``category_id`` are the truth's. A truth's ``area``
    decides its area range; a detection's is its ``area`` for masks and width times height for boxes.
    Crowd regions match any number of detections, which are then ignored. Raises ManifestError where
    a mask is malformed or of another size than the first, or a score is not finite.
    """
    truth = sorted(truth, key=lambda segment: segment["category_id"])
    predicted = _ranked(predicted)
    true_class = np.array([segment["category_id"] for segment in truth], np.int64)
    predicted_class = np.array([segment["category_id"] for segment in predicted], np.int64)
    crowd = np.array([bool(segment["iscrowd"]) for segment in truth], bool)
    ignored = crowd | _outside(np.array([segment["area"] for segment in truth], float))
    overlaps = _overlaps(truth, predicted, kind)
    matched, excused = _greedy(np.where(predicted_class[:, None] == true_class, overlaps, -1.0), crowd, ignored)
    if kind == "mask":
        areas = np.array([segment["area"] for segment in predicted], float)
    else:
        areas = np.array([float(segment["bbox"][2]) * float(segment["bbox"][3]) for segment in predicted])
    excused |= ~matched & _outside(areas).T[:, :, None]
    columns = [(bits * BITS).sum(axis=(1, 2)).tolist() for bits in (matched, excused)]
    return {
        "detections": [
            {"category_id": segment["category_id"], "score": float(segment["score"]), "matched": hit, "ignored": left}
            for segment, hit, left in zip(predicted, *columns, strict=True)
        ],
        "truth": [
            {"category_id": category, **dict(zip(AREAS, counts, strict=True))}
            for category in np.unique(true_class).tolist()
            if any(counts := (~ignored[:, true_class == category]).sum(axis=1).tolist())
        ],
    }


def _ranked(predicted: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Detections by category, then falling score (equal ones in their order), the first 100 of each."""
    wrong = [segment["score"] for segment in predicted if not math.isfinite(segment["score"])]
    if wrong:
        raise ManifestError(f"a detection has the score {wrong[0]}: expected a finite number")
    ranked, seen = [], {}
    for segment in sorted(predicted, key=lambda segment: (segment["category_id"], -segment["score"])):
        rank = seen[segment["category_id"]] = seen.get(segment["category_id"], 0) + 1
        if rank <= MOST_DETECTIONS:
            ranked.append(segment)
    return ranked


def _outside(areas: np.ndarray) -> np.ndarray:
    """Areas (N,) in pixels → bool (A, N): outside the area range."""
    return (areas < _RANGES[:, :1]) | (areas > _RANGES[:, 1:])


def _overlaps(truth: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], kind: MatchKind) -> np.ndarray:
    """IoU of every detection and object of one category, float64 (D, G); of a crowd: its share of the detection."""
    overlaps = np.zeros((len(predicted), len(truth)))
    sides = [truth, predicted]
    if kind == "mask":
        _check_masks([segment["segmentation"] for side in sides for segment in side])
    for category in {segment["category_id"] for segment in truth} & {segment["category_id"] for segment in predicted}:
        g, d = ([n for n, segment in enumerate(side) if segment["category_id"] == category] for side in sides)
        crowd = [int(truth[n]["iscrowd"]) for n in g]
        found, real = (_shapes([side[n] for n in numbers], kind) for side, numbers in ((predicted, d), (truth, g)))
        overlaps[np.ix_(d, g)] = coco_mask.iou(found, real, crowd)
    return overlaps


def _shapes(segments: Sequence[dict[str, Any]], kind: MatchKind) -> Any:
    if kind == "mask":
        return [segment["segmentation"] for segment in segments]
    return [[float(value) for value in segment["bbox"]] for segment in segments]


def _check_masks(masks: Sequence[dict[str, Any]]) -> None:
    """pycocotools compares whatever the runs say; here they must cover one size."""
    for mask in masks:
        size, first = list(mask["size"]), list(masks[0]["size"])
        covered = int(runs(mask["counts"]).sum())
        if size != first or covered != size[0] * size[1]:
            raise ManifestError(
                f"a mask of {size[0]}x{size[1]} with {covered} pixels beside one of {first[0]}x{first[1]}: "
                "all masks of an image have its size"
            )


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
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
        free = enough[number] & (~taken | crowd)
        best = np.where(free, rank[:, None, :], -1).argmax(axis=2)
        found = free[ranges, thresholds, best]
        matched[number] = found
        excused[number] = found & ignored[ranges, best]
        taken[ranges, thresholds, best] |= found
    return matched, excused
