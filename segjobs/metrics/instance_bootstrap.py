"""Uncertainty of average precision: matches by image in, COCO's numbers of many resamples of the images out.

    Matches → estimate_average_precision → Estimates → bootstrap.with_intervals, bootstrap.paired

A resample gives each image a weight, how often it was drawn (``bootstrap.weights``: the very draws of every
other figure of the report), and with it each of its detections and objects. The ranking by score stays, so it
is made once, and a resample's precision and recall are weighted cumulative sums along it. Precision is best
at a right detection, so only those places are looked at.

Average precision takes the best precision from each recall on, so roughness raises it, and a resample, where
detections of one image come several at once, is rougher than the set: its figures lie too high, by more than
an interval's width for classes of few objects. They are moved so that their mean is the figure of the set.

Arrays are (detections, resamples), whose rows are added as a whole: along the other axis numpy's ``cumsum`` is
ten times slower. Weights are whole numbers below 2^24, exact in float32; precisions are rounded to 1e-7.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from segjobs.metrics.average_precision import (
    LIMITS,
    RECALLS,
    DetectionMatches,
    Ranked,
    accumulate,
    coco_figures,
    means,
    ranked_classes,
)
from segjobs.metrics.bootstrap import Estimates, NamedFigures, Resampling, divide, weights
from segjobs.metrics.counts import units_of
from segjobs.metrics.matching import BITS

_A, _T = BITS.shape
_CHUNK = 1 << 23  # weights at once, 32 MiB; some six arrays of this size live at a time
_NEAR = 1e-4  # float32 rounds a recall in percent by 1e-5; the steps between recalls are larger
_LATE = np.arange(RECALLS.size) / 100 < RECALLS
"""Recalls that ``linspace`` puts a bit above the hundredth, so that a recall of just that does not reach it."""


def estimate_average_precision(
    matches: DetectionMatches, resampling: Resampling, groups: np.ndarray | None = None
) -> Estimates:
    """COCO's numbers by name, of the set, and by class as ``class_AP``, …, with those of every resample.

    More than ``MOST_UNITS`` images are dealt round robin into as many groups, as ``counts.gather`` does.
    Time grows with detections times resamples, some 100 ns each on one core: 5,000 images of 20 detections
    and 2,000 resamples took 20–25 s; 100,000 such images would take 8 minutes, or under one with 200 resamples.
    """
    found = accumulate(matches)
    values = {name: np.array(np.nan if value is None else value) for name, value in found.figures.items()}
    for name, row in found.per_class.items():
        values[f"class_{name}"] = np.array([np.nan if value is None else value for value in row], np.float64)
    samples = resample_average_precision(matches, resampling, groups)
    return Estimates(values, {name: _centred(sample, values[name]) for name, sample in samples.items()})


def resample_average_precision(
    matches: DetectionMatches, resampling: Resampling, groups: np.ndarray | None = None
) -> NamedFigures:
    """The figures of every resample by name, (B,), and by class as ``class_AP``, …, (B, C), as they come out.

    ``groups``: images that are drawn together, as ``counts.gather`` takes them.
    """
    unit, units = units_of(matches.images, groups)
    # A weight is at most the number of units, 16384; in float64 they would take four times the memory.
    drawn = np.zeros((units, resampling.resamples), np.uint16)
    done = 0
    for chunk in weights(units, resampling):
        drawn[:, done : done + len(chunk)] = chunk.T
        done += len(chunk)
    # Resamples last, as they are written; the figures want them first.
    precision = np.full((matches.classes, _A, _T, resampling.resamples), np.nan)
    recall = np.full((matches.classes, _A + len(LIMITS), _T, resampling.resamples), np.nan)
    for number, found in enumerate(ranked_classes(matches)):
        own = matches.truth_category == number
        objects = np.zeros((units, _A))
        np.add.at(objects, unit[matches.truth_image[own]], matches.objects[own])
        step = max(1, _CHUNK // max(1, found.image.size))
        for begin in range(0, resampling.resamples, step):
            part = slice(begin, begin + step)
            totals = objects.T @ drawn[:, part].astype(np.float64)
            each = drawn[unit[found.image], part].astype(np.float32)
            precision[number, ..., part], recall[number, ..., part] = _weighted(each, found, totals)
    samples: dict[str, np.ndarray] = {}
    first = (np.moveaxis(array, -1, 0) for array in (precision, recall))
    for name, by_class in coco_figures(*first).items():
        samples[name] = means(by_class, axis=(1, 2))
        samples[f"class_{name}"] = means(by_class, axis=2)
    return samples


def _weighted(each: np.ndarray, found: Ranked, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detections' weights (N, R), objects (A, R) → precision (A, T, R) and recall (A + 2, T, R) of one class."""
    resamples: int = each.shape[1]
    precision, recall = np.full((_A, _T, resamples), np.nan), np.full((_A + len(LIMITS), _T, resamples), np.nan)
    for area in range(_A):
        if not objects[area].any():
            continue
        for t in range(_T):
            right, wrong = (np.flatnonzero(side[area, t]) for side in (found.right, found.wrong))
            hits = _running(each[right], np.add)
            errors = _running(np.concatenate([np.zeros_like(each[:1]), each[wrong]]), np.add)
            errors = errors[np.searchsorted(wrong, right)]
            precision[area, t] = _interpolated(hits, errors, objects[area])
            recall[area, t] = divide(hits[-1] if right.size else np.zeros(resamples), objects[area])
    for place, limit in enumerate(LIMITS):
        for t in range(_T):
            hits = each[found.right[0, t] & (found.rank < limit)].sum(axis=0)
            recall[_A + place, t] = divide(hits, objects[0])
    return precision, recall


def _interpolated(right: np.ndarray, wrong: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """``average_precision.interpolated`` of R rankings, for arrays (N, R) in float32."""
    if not len(right):
        return np.where(objects > 0, 0.0, np.nan)
    wrong += right
    best = np.divide(right, np.maximum(wrong, 1, out=wrong), out=wrong)
    _running(best[::-1], np.maximum)
    percent = right * (100 / np.maximum(objects, 1)).astype(np.float32)
    percent += np.float32(_NEAR)
    whole = percent.astype(np.int16)
    reached = whole + 1 - (_LATE[whole] & (percent - whole < 2 * _NEAR))
    steps = np.diff(reached, axis=0, prepend=np.int16(0))
    return np.where(objects > 0, (best * steps).sum(axis=0) / RECALLS.size, np.nan)


def _running(rows: np.ndarray, combine: Callable[..., np.ndarray]) -> np.ndarray:
    """Each row combined with all before it, in place."""
    for one, two in pairwise(rows):
        combine(one, two, out=two)
    return rows


def _centred(samples: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Samples (B, …) moved to the mean ``value``, within [0, 1]."""
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(samples)
        mean = divide(np.where(known, samples, 0.0).sum(axis=0), known.sum(axis=0))
    return (samples - mean + value).clip(0, 1)
