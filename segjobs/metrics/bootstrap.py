"""Uncertainty: integer counts by image in, figures of many resamples of the images out, and their intervals.

    ClassCounts → resample → sums of each resample → semantic_figures (or another) → interval, paired

The nonparametric bootstrap (Efron 1979), with percentile intervals: draw as many images as there are,
with replacement, add their counts, and compute the figure from the sums; 2.5% of the figures lie below
the interval and 2.5% above. Images stand for the set's variation, so images that belong together (frames
of one video) make the intervals too narrow; give such groups as one unit (``ClassCounts.unit``).

The draws of resample b follow from the seed, b and the number of units alone: the same for two models
(that is what pairs them) and for every figure of a report. Sums are whole numbers below 2^53 in float64,
exact in any order, so the results are the same to the last bit for any number of BLAS threads.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from segjobs.metrics.counts import ClassCounts

NamedFigures = Mapping[str, np.ndarray]
"""NamedFigures by name: float64, NaN where undefined; (…,) of the set, (…, C) by class."""

Entry = dict[str, float | None]
"""One figure's numbers by what they are (``value``, ``low``, …), None where undefined."""
Entries = dict[str, Entry | list[Entry]]
"""Figures by name: an entry of the set, or a list of them by class."""

_CHUNK_BYTES = 1 << 25
_EXACT = 2**53
_LEAST_DEFINED = 0.95
"""A class that only one or two images have is missing from 37% or 14% of the resamples: its figures there are
no sample of the whole, and an interval of the others would claim to know."""


@dataclass(frozen=True)
class Resampling:
    """How often the images are drawn anew, and from which seed."""

    resamples: int = 2000
    seed: int = 0


def weights(units: int, resampling: Resampling) -> Iterator[np.ndarray]:
    """How often each unit is drawn: chunks of rows, float64 (≤ B, units), whole numbers that sum to units in a row."""
    rows = max(1, _CHUNK_BYTES // (8 * max(1, units)))
    for begin in range(0, resampling.resamples, rows):
        end = min(begin + rows, resampling.resamples)
        yield np.stack([_draw(units, resampling.seed, number) for number in range(begin, end)])


def _draw(units: int, seed: int, number: int) -> np.ndarray:
    random = np.random.default_rng([seed, number])
    return np.bincount(random.integers(0, max(1, units), units), minlength=units).astype(np.float64)


def resample(counts: ClassCounts, resampling: Resampling) -> np.ndarray:
    """The sums of every resample, float64 (B, C, F) of whole numbers.

    In memory are one chunk of weights (32 MiB), the units' counts of some classes (32 MiB) and the result.
    Raises OverflowError where a resample's sum could pass 2^53 and be rounded.
    """
    fields = counts.values.shape[1]
    largest = int(np.abs(counts.values).max(initial=0))
    if largest * counts.units >= _EXACT:
        raise OverflowError(f"counts up to {largest} in {counts.units} units: a resample's sum may pass 2^53")
    sums = np.zeros((resampling.resamples, counts.classes, fields))
    columns = sums.reshape(resampling.resamples, counts.classes * fields)
    small = 8 * counts.units * columns.shape[1] <= _CHUNK_BYTES
    kept = list(_dense(counts)) if small else None
    done = 0
    for drawn in weights(counts.units, resampling):
        for begin, table in kept or _dense(counts):
            columns[done : done + len(drawn), begin : begin + table.shape[1]] = drawn @ table
        done += len(drawn)
    return sums


def _dense(counts: ClassCounts) -> Iterator[tuple[int, np.ndarray]]:
    """The counts as float64 (units, columns) tables of at most a chunk's size, and each one's first column."""
    fields = counts.values.shape[1]
    width = max(1, _CHUNK_BYTES // (8 * max(1, counts.units * fields)))
    order = np.argsort(counts.category, kind="stable")
    cuts = np.searchsorted(counts.category[order], np.arange(counts.classes + 1))
    for first in range(0, counts.classes, width):
        last = min(first + width, counts.classes)
        rows = order[cuts[first] : cuts[last]]
        table = np.zeros((counts.units, last - first, fields))
        table[counts.unit[rows], counts.category[rows] - first] = counts.values[rows]
        yield first * fields, table.reshape(counts.units, (last - first) * fields)


# --- figures -----------------------------------------------------------------------------------


def semantic_figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Sums (…, C, 3) of correct, truth and predicted pixels → ``confusion.SemanticScores``' figures, and mean Dice.

    ``iou``, ``dice``, ``precision``, ``recall``: (…, C); ``mean_iou``, ``mean_dice``, ``pixel_accuracy``,
    ``mean_accuracy``, ``frequency_weighted_iou``: (…,).
    """
    correct, truth, predicted = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    labelled = truth.sum(axis=-1)
    iou, dice = divide(correct, truth + predicted - correct), divide(2 * correct, truth + predicted)
    recall = divide(correct, truth)
    return {
        "iou": iou,
        "dice": dice,
        "precision": divide(correct, predicted),
        "recall": recall,
        "mean_iou": mean(iou),
        "mean_dice": mean(dice),
        "pixel_accuracy": divide(correct.sum(axis=-1), labelled),
        "mean_accuracy": mean(recall),
        "frequency_weighted_iou": divide(np.nansum(iou * truth, axis=-1), labelled),
    }


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN of nothing."""
    return divide(np.nansum(values, axis=-1), (~np.isnan(values)).sum(axis=-1))


# --- intervals ---------------------------------------------------------------------------------


def interval(samples: np.ndarray, *, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """NamedFigures of the resamples, (B, …) → the ends of their percentile interval, each (…,).

    NaN where the figure is undefined in more than one resample of twenty: it rests on too few images.
    """
    tail = (1 - confidence) / 2
    low, high = quantiles(samples, (tail, 1 - tail))
    return low, high


def quantiles(samples: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(B, …) → (levels, …), linear between neighbours, of what is not NaN; NaN as ``interval`` says, or for B = 0."""
    if not len(samples):
        return np.full((len(levels), *samples.shape[1:]), np.nan)
    known = (~np.isnan(samples)).sum(axis=0)
    enough = (known > 0) & (known >= _LEAST_DEFINED * len(samples))
    # NaN sorts last, so that the first `known` are the samples.
    ordered = np.sort(samples, axis=0)
    found: list[np.ndarray] = []
    for level in levels:
        place = level * np.maximum(known - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        one, two = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (below, above))
        found.append(np.where(enough, one + (two - one) * (place - below), np.nan))
    return np.stack(found)


def p_value(differences: np.ndarray) -> np.ndarray:
    """Differences of the resamples, (B, …) → two-sided p-value that there is none, (…,).

    Twice the smaller share of resamples on either side of 0, 0 counting for both, never below 2 / (B + 1)
    nor above 1: below 0.05 where the 95% interval leaves 0 out. NaN as ``interval`` says.
    """
    known = (~np.isnan(differences)).sum(axis=0)
    enough = (known > 0) & (known >= _LEAST_DEFINED * len(differences))
    side = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.where(enough, np.minimum(1.0, 2 * (side + 1) / (known + 1)), np.nan)


@dataclass(frozen=True)
class Estimates:
    """NamedFigures of one evaluation: of all images, and of each resample (one more axis in front)."""

    values: NamedFigures
    samples: NamedFigures


def estimate(
    counts: ClassCounts, resampling: Resampling, figures: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> Estimates:
    """The figures of ``counts`` and of its resamples; ``figures`` maps sums (…, C, F) to figures."""
    return Estimates(figures(counts.total()), figures(resample(counts, resampling)))


def with_intervals(estimates: Estimates, *, confidence: float = 0.95) -> Entries:
    """Every figure as ``{"value", "low", "high"}``, None where undefined; those by class as lists of these."""
    found: Entries = {}
    for name, values in estimates.values.items():
        low, high = interval(estimates.samples[name], confidence=confidence)
        found[name] = _entries({"value": values, "low": low, "high": high})
    return found


def paired(ours: Estimates, baseline: Estimates, *, confidence: float = 0.95) -> Entries:
    """NamedFigures of two models on the same images → by name (as lists where by class) ``value``, ``baseline``,
    ``difference`` (ours minus the baseline's), its interval ``low``, ``high``, and ``p_value``; None where undefined.

    Both must come from the same images in the same order and one ``Resampling``: a resample then draws the
    same images for both, and what the images have in common cancels out.
    """
    found: Entries = {}
    for name, values in ours.values.items():
        differences = ours.samples[name] - baseline.samples[name]
        low, high = interval(differences, confidence=confidence)
        found[name] = _entries(
            {
                "value": values,
                "baseline": baseline.values[name],
                "difference": values - baseline.values[name],
                "low": low,
                "high": high,
                "p_value": p_value(differences),
            }
        )
    return found


def _entries(columns: Mapping[str, np.ndarray]) -> Entry | list[Entry]:
    """Arrays of one shape, () or (C,) → one dict of numbers, or a list of them."""
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    if next(iter(arrays.values())).ndim == 0:
        return _entry(arrays)
    rows = zip(*arrays.values(), strict=True)
    return [_entry(dict(zip(arrays, row, strict=True))) for row in rows]


def _entry(numbers: Mapping[str, np.ndarray]) -> Entry:
    return {name: None if math.isnan(value) else float(value) for name, value in numbers.items()}
