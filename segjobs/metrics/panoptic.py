"""Panoptic quality: the segments of each image in, counts per class, and PQ, SQ, RQ of their sums out.

    segments of truth and prediction → match_segments → rows of QUALITY_TYPE → quality → overall

Source: Kirillov et al., Panoptic Segmentation (CVPR 2019), by the rules of ``panopticapi/evaluation.py``:
segments of one class match where their IoU exceeds one half, which at most one can. Unlabelled pixels are
taken out of a prediction's area, a prediction that lies by more than half on unlabelled pixels or on the
crowd region of its class is not wrong, and crowd regions are never missed.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from segjobs.manifest.rle import VOID
from segjobs.manifest.segments import Segment, stack
from segjobs.metrics.bootstrap import divide, mean
from segjobs.metrics.confusion import Runs, image_confusion

QUALITY_TYPE = pa.struct(
    [
        ("category_id", pa.int32()),
        ("tp", pa.int64()),
        ("fp", pa.int64()),
        ("fn", pa.int64()),
        ("iou_sum", pa.float64()),  # of the matched segments
    ]
)
"""What one image adds to the panoptic quality of one class."""

_IOU_UNIT = 24  # bits: the bootstrap adds IoUs as whole multiples of 2^-24


def match_segments(
    truth: Sequence[Segment],
    predicted: Sequence[Segment],
    size_hw: tuple[int, int],
    *,
    uncovered: Literal["void", "background"] = "void",
) -> list[dict[str, Any]]:
    """The segments of one image on both sides → rows of ``QUALITY_TYPE``, by category.

    Both sides' ``category_id`` are the truth's. ``uncovered``: what the pixels are that no segment of the
    truth covers: unlabelled (panoptic truth), or background, where every detection is wrong (instance
    truth). Where segments of one side overlap, the pixel goes to the top one (``segments.stack``). A segment
    that is left without a pixel is dropped. Raises ManifestError where a mask is malformed or of another size.
    """
    sides = (_drawn(truth, size_hw), _drawn(predicted, size_hw))
    cells = image_confusion(*sides, max(len(truth), len(predicted)))
    true_px, found_px = (_sums(cells[:, side], cells[:, 2]) for side in (0, 1))
    overlap_px = {(t, p): pixels for t, p, pixels in cells.tolist()}
    void_px = {p: overlap_px.get((VOID, p), 0) if uncovered == "void" else 0 for p in found_px}
    tp, fp, fn, ious = (defaultdict[int, Any](kind) for kind in (int, int, int, list))
    matched_truth, matched = set(), set()
    for (t, p), pixels in overlap_px.items():
        if VOID in (t, p) or truth[t].iscrowd or truth[t].category_id != predicted[p].category_id:
            continue
        union = true_px[t] + found_px[p] - pixels - void_px[p]
        if 2 * pixels > union:
            category = truth[t].category_id
            tp[category] += 1
            ious[category].append(pixels / union)
            matched_truth.add(t)
            matched.add(p)
    # As panopticapi does: of several crowd regions of one class, the last one.
    crowds = {truth[t].category_id: t for t in sorted(true_px) if truth[t].iscrowd}
    for t in true_px.keys() - matched_truth:
        fn[truth[t].category_id] += not truth[t].iscrowd
    for p in found_px.keys() - matched:
        category = predicted[p].category_id
        excused = void_px[p] + (overlap_px.get((crowds[category], p), 0) if category in crowds else 0)
        fp[category] += 2 * excused <= found_px[p]
    return [
        {"category_id": c, "tp": tp[c], "fp": fp[c], "fn": fn[c], "iou_sum": math.fsum(ious[c])}
        for c in sorted({*tp, *fp, *fn})
        if tp[c] + fp[c] + fn[c]
    ]


def _drawn(segments: Sequence[Segment], size_hw: tuple[int, int]) -> Runs:
    """Segments → their image's column-major pixels cut into runs of one segment (its place in the list), or void."""
    total = size_hw[0] * size_hw[1]
    owner = np.full(total, VOID, np.int32)
    for number in stack(segments):
        bounds = np.cumsum(segments[number].runs(size_hw))
        for begin, end in zip(bounds[:-1:2].tolist(), bounds[1::2].tolist(), strict=True):
            owner[begin:end] = number
    ends = np.append(np.flatnonzero(owner[1:] != owner[:-1]) + 1, total) if total else np.zeros(0, np.int64)
    return ends, owner[ends - 1]


def _sums(keys: np.ndarray, pixels: np.ndarray) -> dict[int, int]:
    """Pixels by segment, void left out."""
    sums: dict[int, int] = defaultdict(int)
    for key, count in zip(keys.tolist(), pixels.tolist(), strict=True):
        if key != VOID:
            sums[key] += count
    return dict(sums)


# --- all images --------------------------------------------------------------------------------


def quality(rows: Iterable[Mapping[str, Any]], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of any number of images → per category ``pq``, ``sq``, ``rq`` in [0, 1] and ``tp``, ``fp``, ``fn``.

    With n = tp + fp / 2 + fn / 2: pq is the sum of the matches' IoUs / n, rq is tp / n, and sq their mean
    IoU (0 without matches); None for a category in neither side. Sums are exact: the order of the
    images does not matter.
    """
    counts = {category: [0, 0, 0] for category in category_ids}
    ious: dict[int, list[float]] = {category: [] for category in category_ids}
    for row in rows:
        category = row["category_id"]
        counts[category] = [sum(pair) for pair in zip(counts[category], (row["tp"], row["fp"], row["fn"]), strict=True)]
        ious[category].append(row["iou_sum"])
    found = []
    for category, (tp, fp, fn) in counts.items():
        total, whole = math.fsum(ious[category]), tp + (fp + fn) / 2
        scores: dict[str, float | None] = {"pq": None, "sq": None, "rq": None}
        if whole:
            scores = {"pq": total / whole, "sq": total / tp if tp else 0.0, "rq": tp / whole}
        found.append({"category_id": category, **scores, "tp": tp, "fp": fp, "fn": fn})
    return found


def overall(per_class: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Entries of ``quality`` → ``pq``, ``sq``, ``rq``, the means over the ``classes`` that are on either side."""
    known = [entry for entry in per_class if entry["pq"] is not None]
    means = {
        name: math.fsum(entry[name] for entry in known) / len(known) if known else None for name in ("pq", "sq", "rq")
    }
    return {**means, "classes": len(known)}


def panoptic_values(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Rows of ``QUALITY_TYPE`` → int64 (K, 4) counts for ``counts.from_rows``: tp, fp, fn, and IoUs in 2^-24."""
    found = [(row["tp"], row["fp"], row["fn"], round(row["iou_sum"] * 2**_IOU_UNIT)) for row in rows]
    return np.array(found, np.int64).reshape(-1, 4)


def panoptic_figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Sums (…, C, 4) of ``panoptic_values`` → ``class_pq``, ``class_sq``, ``class_rq`` (…, C); ``pq``, ``sq``, ``rq``.

    For ``bootstrap.estimate``; the values agree with ``quality`` to 1e-7.
    """
    tp, fp, fn, iou = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    iou, whole = np.ldexp(iou, -_IOU_UNIT), tp + (fp + fn) / 2
    sq = np.where((tp == 0) & (whole > 0), 0.0, divide(iou, tp))
    classes = {"pq": divide(iou, whole), "sq": sq, "rq": divide(tp, whole)}
    return {
        **{f"class_{name}": values for name, values in classes.items()},
        **{name: mean(values) for name, values in classes.items()},
    }
