"""One image of an evaluation: its two rows in, its row of counts out.

What is kept are counts, from which every score, convention, slice and interval follows without another look at a mask.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypedDict

import numpy as np

from segjobs.errors import ItemError, ManifestError
from segjobs.evaluation.pairing import STATED, UNION_COUNTS, Pairing, ScoredSide
from segjobs.evaluation.report_types import Status
from segjobs.manifest.coco_api import Rle, area, intersection, mask_ious, union
from segjobs.manifest.rle import label_runs
from segjobs.manifest.rows import ErrorRow, ManifestRow, WithSegments, segments_of
from segjobs.manifest.segments import Segment, check_known
from segjobs.metrics.boundary import boundary_counts
from segjobs.metrics.confusion import VOID, dense, image_confusion, summarise
from segjobs.metrics.matching import MatchesRow, match_image
from segjobs.metrics.panoptic import QualityRow, match_segments

_DISPUTES = 3  # of one image that are kept, the largest
_MATCH_IOU = 0.5  # from which on two objects stand in the same place


class PredictedOk(WithSegments):
    """What is looked at of a prediction's row."""

    status: Literal["ok"]
    height: int
    width: int
    confidence: float | None


class PredictedForeign(PredictedOk):
    """Of another tool's masks too: the image's place among that tool's, by which it ranks equal scores."""

    number: int | None


class PredictedFailed(TypedDict):
    """What is looked at of a failed prediction's row."""

    status: Literal["failed"]
    error: ErrorRow


Predicted = PredictedOk | PredictedForeign | PredictedFailed


class ConfusionCell(TypedDict):
    """Pixels of a class of the truth (None: unlabelled) that were predicted as another (None: as none)."""

    truth: int | None
    predicted: int | None
    pixels: int


class ObjectsCell(TypedDict):
    """Segments of one class on both sides."""

    category_id: int
    truth: int
    predicted: int


class DisputeRow(TypedDict):
    """Pixels that a confident prediction gives ``other_id``, and the truth ``category_id`` (None: nothing)."""

    category_id: int | None
    other_id: int
    pixels: int
    score: float
    counts: str


class CountsRow(TypedDict, total=False):
    """The columns of ``SCORES_SCHEMA`` that hold counts: those that the evaluation has."""

    labelled_px: int
    correct_px: int
    pixel_accuracy: float | None
    mean_iou: float | None
    confusion: list[ConfusionCell]
    unions: list[dict[str, int]]
    boundary: list[dict[str, int]]
    mask_matches: MatchesRow
    box_matches: MatchesRow
    panoptic: list[QualityRow]
    stated: dict[str, int]
    objects: list[ObjectsCell]
    disputes: list[DisputeRow]


def foreign_row(text: str, truth: ManifestRow | None, pairing: Pairing) -> Predicted:
    """Another tool's masks of one image as a manifest has them."""
    if truth is None or truth["status"] != "ok" or pairing.predictions.foreign is None:
        return {"status": "ok", "height": 0, "width": 0, "segments": [], "confidence": None}  # not looked at
    size_hw = (truth["height"], truth["width"])
    try:
        found = pairing.predictions.foreign(text, size_hw)
        return {
            "status": "ok",
            "height": size_hw[0],
            "width": size_hw[1],
            "segments": [segment.to_row() for segment in found.segments],
            "confidence": None,
            "number": found.number,
        }
    except ItemError as error:
        return {"status": "failed", "error": {"code": error.code, "message": error.message}}


def score_image(
    image_id: str, truth: ManifestRow | None, predicted: Predicted | None, pairing: Pairing
) -> Mapping[str, object]:
    """The image's row of ``SCORES_SCHEMA``; a side that does not have it is None.

    Raises ManifestError where the masks of the truth make no sense; those of a prediction make it a failed one.
    """
    if truth is None:
        return {"image_id": image_id, "status": "extra", "message": "no truth for this image"}
    row = {"image_id": truth["image_id"], "uri": truth["uri"], "width": truth["width"], "height": truth["height"]}
    if truth["status"] != "ok":
        return {**row, "status": "no_truth", "message": f"{truth['error']['code']}: {truth['error']['message']}"}
    size_hw = (truth["height"], truth["width"])
    status: Status = "ok"
    if predicted is None:
        status, message = "missing", "no prediction for this image"
    elif predicted["status"] != "ok":
        status, message = "failed", f"{predicted['error']['code']}: {predicted['error']['message']}"
    elif (predicted["height"], predicted["width"]) != size_hw:
        width, height = predicted["width"], predicted["height"]
        status = "failed"
        message = f"LABEL_SHAPE: the prediction is {width}x{height}, the truth {size_hw[1]}x{size_hw[0]} pixels"
    else:
        try:
            counts = _pair_counts(truth, predicted, size_hw, pairing)
            about = {"status": "ok", "confidence": predicted["confidence"], "number": predicted.get("number")}
            return {**row, **about, **counts}
        except ManifestError as error:
            status, message = "failed", f"LABEL_VALUE: {error}"
    # Where it was the truth that made no sense, it does so again, and that stops the job.
    try:
        counts = _counts(_segments(truth, pairing.truth, size_hw, pairing), [], size_hw, pairing)
    except ManifestError as error:
        raise ManifestError(f"truth: {image_id!r}: {error}") from None
    return {**row, "status": status, "message": message, **counts}


def _pair_counts(truth: WithSegments, predicted: WithSegments, size_hw: tuple[int, int], pairing: Pairing) -> CountsRow:
    """The counts of an image with a good prediction, and where the two disagree most. Raises ManifestError."""
    right = _segments(truth, pairing.truth, size_hw, pairing)
    found = _segments(predicted, pairing.predictions, size_hw, pairing)
    counts = _counts(right, found, size_hw, pairing)
    if not pairing.has_masks:
        disputes = []
    elif pairing.overlapping:
        disputes = sorted(_object_disputes(right, found, pairing), key=lambda one: -one["pixels"])[:_DISPUTES]
    else:
        disputes = list(_pixel_disputes(right, found, counts.get("confusion", ()), pairing))
    return {**counts, "disputes": disputes}


def _segments(row: WithSegments, side: ScoredSide, size_hw: tuple[int, int], pairing: Pairing) -> list[Segment]:
    """The row's segments under the truth's category ids, those of a class of the evaluation. Raises ManifestError."""
    segments, ids = segments_of(row, empty=True), pairing.ids
    check_known(segments, side.index)
    for segment in segments:
        if pairing.overlapping:  # pycocotools takes whatever the runs say; label_runs looks for itself
            segment.runs(size_hw)
        else:
            segment.check_size(size_hw)
    known = [(segment, side.index[segment.category_id]) for segment in segments]
    return [replace(segment, category_id=ids[index]) for segment, index in known if index is not None]


def _counts(
    truth: Sequence[Segment], predicted: Sequence[Segment], size_hw: tuple[int, int], pairing: Pairing
) -> CountsRow:
    """All counts of one image; without a prediction, nothing is predicted anywhere. Raises ManifestError."""
    counts: CountsRow = {}
    if pairing.has_masks:
        counts = (_union_counts if pairing.overlapping else _pixel_counts)(truth, predicted, size_hw, pairing)
    numbers = [Counter(segment.category_id for segment in side) for side in (truth, predicted)]
    counts["objects"] = [
        {"category_id": category_id, "truth": numbers[0][category_id], "predicted": numbers[1][category_id]}
        for category_id in sorted({*numbers[0], *numbers[1]})
    ]
    if pairing.has_objects:
        uncovered = "background" if pairing.truth.task == "instance" else "void"
        counts["panoptic"] = match_segments(truth, predicted, size_hw, uncovered=uncovered)
    if pairing.has_detections:
        if "mask" in pairing.kinds:
            counts["mask_matches"] = match_image(truth, predicted, kind="mask")
        if "box" in pairing.kinds:
            counts["box_matches"] = match_image(truth, predicted, kind="box")
        stated = (
            sum(segment.stated_area is not None for segment in truth),
            *(sum(segment.stated_bbox is not None for segment in side) for side in (truth, predicted)),
        )
        counts["stated"] = dict(zip(STATED, stated, strict=True))
    return counts


def _pixel_counts(
    truth: Sequence[Segment], predicted: Sequence[Segment], size_hw: tuple[int, int], pairing: Pairing
) -> CountsRow:
    """Two partitions of the image's pixels → the confusion of their classes."""
    ids = pairing.ids
    truth_runs, predicted_runs = (label_runs(_pairs(side, pairing), size_hw) for side in (truth, predicted))
    confusion = image_confusion(truth_runs, predicted_runs, len(ids))
    scores = summarise(dense(confusion, len(ids)))
    counts: CountsRow = {
        "confusion": [
            {"truth": None if t == VOID else ids[t], "predicted": None if p == VOID else ids[p], "pixels": n}
            for t, p, n in confusion.tolist()
        ],
        "labelled_px": sum(scores.truth_px),
        "correct_px": sum(scores.correct_px),
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_iou": scores.mean_iou,
    }
    if pairing.boundary.enabled:
        settings = {"dilation_ratio": pairing.boundary.dilation_ratio, "tolerance_px": pairing.boundary.tolerance_px}
        found = boundary_counts(truth_runs, predicted_runs, size_hw, **settings)
        counts["boundary"] = [{"category_id": ids[row.pop("index")], **row} for row in found]
    return counts


def _union_counts(
    truth: Sequence[Segment], predicted: Sequence[Segment], size_hw: tuple[int, int], pairing: Pairing
) -> CountsRow:
    """Objects that may overlap → the pixels of each class's union on both sides, on labelled pixels only."""
    whole = _merged(truth) if pairing.truth.task != "instance" else None  # elsewhere the truth says nothing
    unions: list[dict[str, int]] = []
    present = {segment.category_id for segment in (*truth, *predicted)}
    for category_id in (one for one in pairing.ids if one in present):
        right, found = (_merged([s for s in side if s.category_id == category_id]) for side in (truth, predicted))
        if whole is not None and found is not None:
            found = intersection([whole, found])
        both = intersection([right, found]) if right and found else None
        areas = [area(mask) if mask else 0 for mask in (both, right, found)]
        unions.append({"category_id": category_id, **dict(zip(UNION_COUNTS, areas, strict=True))})
    ious = [u["both_px"] / total for u in unions if (total := u["truth_px"] + u["predicted_px"] - u["both_px"])]
    return {
        "unions": unions,
        "labelled_px": sum(one["truth_px"] for one in unions),
        "correct_px": sum(one["both_px"] for one in unions),
        "mean_iou": float(np.mean(ious)) if ious else None,
    }


def _pairs(segments: Sequence[Segment], pairing: Pairing) -> list[tuple[int, str]]:
    index = {category_id: number for number, category_id in enumerate(pairing.ids)}
    return [(index[segment.category_id], segment.counts) for segment in segments]


def _merged(segments: Sequence[Segment]) -> Rle | None:
    """The union of masks, None of none."""
    return union([segment.segmentation for segment in segments]) if segments else None


def _certain(predicted: Sequence[Segment], pairing: Pairing) -> list[tuple[float, Segment]]:
    """The predictions that are confident enough for a dispute, and their scores."""
    scored = [(1.0 if one.score is None else one.score, one) for one in predicted]
    return [(score, one) for score, one in scored if score >= pairing.dispute_score]


def _pixel_disputes(
    truth: Sequence[Segment],
    predicted: Sequence[Segment],
    confusion: Sequence[ConfusionCell],
    pairing: Pairing,
) -> Iterator[DisputeRow]:
    """The largest regions of one class in the truth that the prediction is confident to be another's."""
    sure = {one.category_id: score for score, one in _certain(predicted, pairing)}
    cells = [
        (t, p, cell["pixels"])
        for cell in confusion
        if (t := cell["truth"]) is not None and (p := cell["predicted"]) is not None and p in sure and t != p
    ]
    for t, p, pixels in sorted(cells, key=lambda cell: -cell[2])[:_DISPUTES]:
        if pixels >= pairing.dispute_px:
            sides = ((truth, t), (predicted, p))
            masks = [union([s.segmentation for s in side if s.category_id == wanted]) for side, wanted in sides]
            counts = intersection(masks)["counts"]
            yield {"category_id": t, "other_id": p, "pixels": pixels, "score": sure[p], "counts": counts}


def _object_disputes(truth: Sequence[Segment], predicted: Sequence[Segment], pairing: Pairing) -> Iterator[DisputeRow]:
    """Confident objects that stand where the truth has another class's object, or where it has nothing at all."""
    sure = [(score, one) for score, one in _certain(predicted, pairing) if one.area >= pairing.dispute_px]
    ours, theirs = [one.segmentation for _, one in sure], [one.segmentation for one in truth]
    ious = mask_ious(ours, theirs, [one.iscrowd for one in truth])
    for (score, one), overlaps in zip(sure, ious, strict=True):
        there = [t for t, overlap in zip(truth, overlaps, strict=True) if overlap >= _MATCH_IOU]
        agreed = any(t.category_id == one.category_id or t.iscrowd for t in there)
        if not agreed and (there or not overlaps.any()):
            stands = there[0].category_id if there else None
            about: DisputeRow = {
                "category_id": stands,
                "other_id": one.category_id,
                "pixels": one.area,
                "score": score,
                "counts": one.counts,
            }
            yield about
