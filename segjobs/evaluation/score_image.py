"""One image of an evaluation: its two rows in, its row of counts out.

What is kept are counts, from which every score, convention, slice and interval follows without another look at a mask.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segjobs.errors import ItemError, ManifestError
from segjobs.evaluation.pairing import UNION_COUNTS, Pairing, ScoredSide
from segjobs.manifest.rle import label_runs
from segjobs.metrics.boundary import boundary_counts
from segjobs.metrics.confusion import VOID, dense, image_confusion, summarise
from segjobs.metrics.matching import match_image
from segjobs.metrics.panoptic import match_segments

_DISPUTES = 3  # of one image that are kept, the largest


_MATCH_IOU = 0.5  # from which on two objects stand in the same place


def _foreign_row(text: str, truth: dict[str, Any] | None, pairing: Pairing) -> dict[str, Any]:
    """Another tool's masks of one image as a manifest has them."""
    row: dict[str, Any] = {"status": "ok", "error": None, "segments": [], "confidence": None}
    if truth is None or truth["status"] != "ok":
        return row
    size_hw = (truth["height"], truth["width"])
    try:
        return {
            **row,
            "height": size_hw[0],
            "width": size_hw[1],
            "segments": pairing.predictions.foreign(text, size_hw),
        }
    except ItemError as error:
        return {**row, "status": "failed", "error": {"code": error.code, "message": error.message}}


def _score_image(
    image_id: str, truth: dict[str, Any] | None, predicted: dict[str, Any] | None, pairing: Pairing
) -> dict[str, Any]:
    if truth is None:
        return {"image_id": image_id, "status": "extra", "message": "no truth for this image"}
    row = {name: truth[name] for name in ("image_id", "uri", "width", "height")}
    if truth["status"] != "ok":
        return {**row, "status": "no_truth", "message": f"{truth['error']['code']}: {truth['error']['message']}"}
    size_hw = (truth["height"], truth["width"])
    status, message = "ok", None
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
            return {**row, "status": status, "confidence": predicted["confidence"], **counts}
        except ManifestError as error:
            status, message = "failed", f"LABEL_VALUE: {error}"
    # Where it was the truth that made no sense, it does so again, and that stops the job.
    try:
        counts = _counts(_segments(truth, pairing.truth, size_hw, pairing), [], size_hw, pairing)
    except ManifestError as error:
        raise ManifestError(f"truth: {image_id!r}: {error}") from None
    return {**row, "status": status, "message": message, **counts}


def _pair_counts(
    truth: dict[str, Any], predicted: dict[str, Any], size_hw: tuple[int, int], pairing: Pairing
) -> dict[str, Any]:
    """The counts of an image with a good prediction, and where the two disagree most. Raises ManifestError."""
    right = _segments(truth, pairing.truth, size_hw, pairing)
    found = _segments(predicted, pairing.predictions, size_hw, pairing)
    counts = _counts(right, found, size_hw, pairing)
    if pairing.overlapping:
        disputes = sorted(_object_disputes(right, found, pairing), key=lambda one: -one["pixels"])[:_DISPUTES]
    else:
        disputes = list(_pixel_disputes(right, found, counts["confusion"], pairing))
    return {**counts, "disputes": disputes}


def _segments(
    row: dict[str, Any], side: ScoredSide, size_hw: tuple[int, int], pairing: Pairing
) -> list[dict[str, Any]]:
    """The row's segments under their class in the evaluation: its ``index`` and id. Raises ManifestError."""
    unknown = {segment["category_id"] for segment in row["segments"]} - side.index.keys()
    if unknown:
        raise ManifestError(f"category ids {sorted(unknown)} are not in the manifest's categories")
    for segment in row["segments"]:
        if tuple(segment["segmentation"]["size"]) != size_hw:
            height, width = segment["segmentation"]["size"]
            raise ManifestError(f"a mask of {width}x{height} on an image of {size_hw[1]}x{size_hw[0]} pixels")
        if pairing.overlapping:  # pycocotools takes whatever the runs say; label_runs looks for itself
            label_runs([(0, segment["segmentation"]["counts"])], size_hw)
    ids = pairing.ids
    known = [(segment, side.index[segment["category_id"]]) for segment in row["segments"]]
    return [{**segment, "index": index, "category_id": ids[index]} for segment, index in known if index is not None]


def _counts(
    truth: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], size_hw: tuple[int, int], pairing: Pairing
) -> dict[str, Any]:
    """All counts of one image; without a prediction, nothing is predicted anywhere. Raises ManifestError."""
    counts = (_union_counts if pairing.overlapping else _pixel_counts)(truth, predicted, size_hw, pairing)
    numbers = [Counter(segment["category_id"] for segment in side) for side in (truth, predicted)]
    counts["objects"] = [
        {"category_id": category_id, "truth": numbers[0][category_id], "predicted": numbers[1][category_id]}
        for category_id in sorted({*numbers[0], *numbers[1]})
    ]
    if pairing.has_objects:
        uncovered = "background" if pairing.truth.task == "instance" else "void"
        counts["panoptic"] = match_segments(truth, predicted, size_hw, uncovered=uncovered)
    if pairing.has_detections:
        counts["mask_matches"] = match_image(truth, predicted, kind="mask")
        counts["box_matches"] = match_image(truth, predicted, kind="box")
    return counts


def _pixel_counts(
    truth: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], size_hw: tuple[int, int], pairing: Pairing
) -> dict[str, Any]:
    """Two partitions of the image's pixels → the confusion of their classes."""
    ids = pairing.ids
    truth_runs, predicted_runs = (label_runs(_pairs(side), size_hw) for side in (truth, predicted))
    confusion = image_confusion(truth_runs, predicted_runs, len(ids))
    scores = summarise(dense(confusion, len(ids)))
    counts: dict[str, Any] = {
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
    truth: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], size_hw: tuple[int, int], pairing: Pairing
) -> dict[str, Any]:
    """Objects that may overlap → the pixels of each class's union on both sides, on labelled pixels only."""
    whole = _merged(truth) if pairing.truth.task != "instance" else None  # elsewhere the truth says nothing
    unions = []
    for index in sorted({segment["index"] for segment in (*truth, *predicted)}):
        right, found = (_merged([s for s in side if s["index"] == index]) for side in (truth, predicted))
        if whole is not None and found is not None:
            found = coco_mask.merge([whole, found], intersect=True)
        both = coco_mask.merge([right, found], intersect=True) if right and found else None
        areas = [int(coco_mask.area(union)) if union else 0 for union in (both, right, found)]
        unions.append({"category_id": pairing.ids[index], **dict(zip(UNION_COUNTS, areas, strict=True))})
    ious = [u["both_px"] / total for u in unions if (total := u["truth_px"] + u["predicted_px"] - u["both_px"])]
    return {
        "unions": unions,
        "labelled_px": sum(union["truth_px"] for union in unions),
        "correct_px": sum(union["both_px"] for union in unions),
        "mean_iou": float(np.mean(ious)) if ious else None,
    }


def _pairs(segments: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(segment["index"], segment["segmentation"]["counts"]) for segment in segments]


def _merged(segments: Sequence[dict[str, Any]]) -> Any:
    """The union of masks as COCO RLE, None of none."""
    return coco_mask.merge([segment["segmentation"] for segment in segments]) if segments else None


def _pixel_disputes(
    truth: Sequence[dict[str, Any]],
    predicted: Sequence[dict[str, Any]],
    confusion: Sequence[dict[str, Any]],
    pairing: Pairing,
) -> Iterator[dict[str, Any]]:
    """The largest regions of one class in the truth that the prediction is confident to be another's."""
    sure = {p["category_id"]: p["score"] for p in predicted if p["score"] >= pairing.dispute_score}
    cells = [cell for cell in confusion if cell["truth"] not in (None, cell["predicted"]) and cell["predicted"] in sure]
    for cell in sorted(cells, key=lambda cell: -cell["pixels"])[:_DISPUTES]:
        if cell["pixels"] >= pairing.dispute_px:
            sides = ((truth, cell["truth"]), (predicted, cell["predicted"]))
            masks = [_merged([s for s in side if s["category_id"] == category_id]) for side, category_id in sides]
            region: Any = coco_mask.merge(masks, intersect=True)
            about = {"category_id": cell["truth"], "other_id": cell["predicted"], "pixels": cell["pixels"]}
            yield {**about, "score": sure[cell["predicted"]], "counts": region["counts"].decode("ascii")}


def _object_disputes(
    truth: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], pairing: Pairing
) -> Iterator[dict[str, Any]]:
    """Confident objects that stand where the truth has another class's object, or where it has nothing at all."""
    sure = [p for p in predicted if p["score"] >= pairing.dispute_score and p["area"] >= pairing.dispute_px]
    iou = np.zeros((len(sure), len(truth)))
    if sure and truth:
        ours, theirs = ([segment["segmentation"] for segment in side] for side in (sure, truth))
        iou = np.asarray(coco_mask.iou(ours, theirs, [int(segment["iscrowd"]) for segment in truth]))
    for one, overlaps in zip(sure, iou, strict=True):
        there = [t for t, overlap in zip(truth, overlaps, strict=True) if overlap >= _MATCH_IOU]
        agreed = any(t["index"] == one["index"] or t["iscrowd"] for t in there)
        if not agreed and (there or not overlaps.any()):
            about = {"category_id": there[0]["category_id"] if there else None, "other_id": one["category_id"]}
            yield {**about, "pixels": one["area"], "score": one["score"], "counts": one["segmentation"]["counts"]}
