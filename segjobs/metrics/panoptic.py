"""Panoptic quality: the segments of each image in, counts per class, and PQ, SQ, RQ of their sums out.

    segments of truth and prediction → match_segments → rows of QUALITY_TYPE → quality → overall

Source: Kirillov et al., Panoptic Segmentation (CVPR 2019), by the rules of ``panopticapi/evaluation.py``:
segments of one class match where their IoU exceeds one half, which at most one can. Unlabelled pixels are
taken out of a prediction's area, a prediction that lies by more than half on unlabelled pixels or on the
crowd region of its class is not wrong, and crowd regions are never missed.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

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


class QualityRow(TypedDict):
    """A value of ``QUALITY_TYPE``."""

    category_id: int
    tp: int
    fp: int
    fn: int
    iou_sum: float


class ClassQuality(TypedDict):
    """One class's quality in [0, 1] over all images, None where no side has it, and its counts."""

    category_id: int
    pq: float | None
    sq: float | None
    rq: float | None
    tp: int
    fp: int
    fn: int


class MeanQuality(TypedDict):
    """The means over the ``classes`` that are on either side, None where there are none."""

    pq: float | None
    sq: float | None
    rq: float | None
    classes: int


_COARSE, _FINE = 24, 53
"""Bits: IoUs add up as whole multiples of 2^-24 and, what these leave, of 2^-53, which is exact. A matched segment's
is over one half, so that its float64 is a multiple of 2^-53."""


def match_segments(
    truth: Sequence[Segment],
    predicted: Sequence[Segment],
    size_hw: tuple[int, int],
    *,
    uncovered: Literal["void", "background"] = "void",
) -> list[QualityRow]:
    """The segments of one image on both sides → rows of ``QUALITY_TYPE``, by category.

    Both sides' ``category_id`` are the truth's. ``uncovered``: what the pixels are that no segment of the
    truth covers: unlabelled (panoptic truth), or background, where every detection is wrong (instance
    truth). Where segments of one side overlap, the pixel goes to the top one (``segments.stack``). A segment
    that is left without a pixel is dropped. Raises ManifestError where a mask is malformed or of another size.
    """
    sides = (_drawn(truth, size_hw), _drawn(predicted, size_hw))
    cells = image_confusion(*sides, max(len(truth), len(predicted)))
    true_px, found_px = (_sums(cells[:, side], cells[:, 2]) for side in (0, 1))
    overlap_px: dict[tuple[int, int], int] = {(t, p): pixels for t, p, pixels in cells.tolist()}
    void_px = {p: overlap_px.get((VOID, p), 0) if uncovered == "void" else 0 for p in found_px}
    tp, fp, fn = Counter[int](), Counter[int](), Counter[int]()
    ious: dict[int, list[float]] = defaultdict(list)
    matched_truth, matched = set[int](), set[int]()
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


def quality(rows: Iterable[QualityRow], category_ids: Sequence[int]) -> list[ClassQuality]:
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
    found: list[ClassQuality] = []
    for category, (tp, fp, fn) in counts.items():
        total, whole = math.fsum(ious[category]), tp + (fp + fn) / 2
        pq, sq, rq = (total / whole, total / tp if tp else 0.0, tp / whole) if whole else (None, None, None)
        found.append({"category_id": category, "pq": pq, "sq": sq, "rq": rq, "tp": tp, "fp": fp, "fn": fn})
    return found


def overall(per_class: Iterable[ClassQuality]) -> MeanQuality:
    """Entries of ``quality`` → their means."""
    scores = [(entry["pq"], entry["sq"], entry["rq"]) for entry in per_class]
    known = [(pq, sq, rq) for pq, sq, rq in scores if pq is not None and sq is not None and rq is not None]
    if not known:
        return {"pq": None, "sq": None, "rq": None, "classes": 0}
    pq, sq, rq = (math.fsum(values) / len(known) for values in zip(*known, strict=True))
    return {"pq": pq, "sq": sq, "rq": rq, "classes": len(known)}


def panoptic_values(rows: Sequence[QualityRow]) -> np.ndarray:
    """Rows of ``QUALITY_TYPE`` → int64 (K, 5) counts for ``counts.from_rows``: tp, fp, fn, and IoUs in two units."""
    values = np.array([(row["tp"], row["fp"], row["fn"]) for row in rows], np.int64).reshape(-1, 3)
    ious = np.array([row["iou_sum"] for row in rows], np.float64)
    coarse = np.floor(np.ldexp(ious, _COARSE))
    fine = np.ldexp(ious - np.ldexp(coarse, -_COARSE), _FINE)
    return np.concatenate([values, np.stack([coarse, fine], axis=1).astype(np.int64)], axis=1)


def panoptic_figures(sums: np.ndarray, matched: np.ndarray) -> dict[str, np.ndarray]:
    """Sums (…, C, 5) of ``panoptic_values`` → ``class_pq``, ``class_sq``, ``class_rq`` (…, C); ``pq``, ``sq``, ``rq``.

    For ``bootstrap.estimate``; the values are those of ``quality``. ``matched``: bool (C,), the classes that have a
    match in the whole set. One of them that has none in a resample has no ``sq`` there, and is left out of its mean:
    with a 0 in its place, an interval could lie below its own value.
    """
    tp, fp, fn, coarse, fine = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    iou, whole = np.ldexp(coarse, -_COARSE) + np.ldexp(fine, -_FINE), tp + (fp + fn) / 2
    sq = np.where((tp == 0) & (whole > 0) & ~matched, 0.0, divide(iou, tp))
    classes = {"pq": divide(iou, whole), "sq": sq, "rq": divide(tp, whole)}
    return {
        **{f"class_{name}": values for name, values in classes.items()},
        **{name: mean(values) for name, values in classes.items()},
    }
