"""Every figure of one evaluation, of all images and of each resample: scores in, one vocabulary of names out.

    Scores → counts of images → bootstrap.Estimates: mean_iou, iou, mask_AP, pq, … by name → FigureTable

Semantic, instance and panoptic figures lie side by side, so that tables, gates and comparisons ask alike.
Names are those of ``metrics/names.py``; COCO's numbers are ``mask_AP``, ``box_AP50`` …, and ``class_mask_AP`` by class.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from segjobs.evaluation.pairing import Pairing
from segjobs.evaluation.report_types import Difference, Figure
from segjobs.evaluation.scores import (
    Scores,
    all_matches,
    boundary_blocks,
    class_counts,
    confusion_matrix,
    panoptic_blocks,
)
from segjobs.metrics.average_precision import DetectionMatches
from segjobs.metrics.bootstrap import (
    Entries,
    Estimates,
    Resampling,
    divide,
    estimate,
    paired,
    semantic_figures,
    with_intervals,
)
from segjobs.metrics.boundary import boundary_figures
from segjobs.metrics.conventions import PairTally, ignore, per_image
from segjobs.metrics.counts import ClassCounts, gather
from segjobs.metrics.instance_bootstrap import estimate_average_precision
from segjobs.metrics.names import KINDS, MatchKind
from segjobs.metrics.panoptic import panoptic_figures

_LEAST_RESAMPLES = 200
_RESAMPLED_IMAGES = 10_000_000  # images times resamples


_Entry = TypeVar("_Entry", Figure, Difference)


@dataclass(frozen=True)
class FigureTable(Generic[_Entry]):
    """Figures, or differences, by name: of the whole set, and by class in the classes' order."""

    of_set: Mapping[str, _Entry]
    by_class: Mapping[str, Sequence[_Entry]]


def figures_of(estimates: Estimates, *, confidence: float) -> FigureTable[Figure]:
    """Every figure with its interval."""
    return _table(with_intervals(estimates, confidence=confidence), Figure)


def differences_of(ours: Estimates, baseline: Estimates, *, confidence: float) -> FigureTable[Difference]:
    """Every figure that both have, and how they differ on the same images."""
    return _table(paired(ours, baseline, confidence=confidence), Difference)


def _table(found: Entries, kind: type[_Entry]) -> FigureTable[_Entry]:
    of_set = {name: kind.model_validate(entry) for name, entry in found.items() if isinstance(entry, dict)}
    by_class = {
        name: [kind.model_validate(one) for one in entries]
        for name, entries in found.items()
        if isinstance(entries, list)
    }
    return FigureTable(of_set, by_class)


@dataclass(frozen=True)
class Aggregates:
    """What the images that take part add up to.

    ``counts``: (correct, truth, predicted) pixels by image and class; ``matrix``: the full confusion
    (``conventions.full_matrix``), None where objects may overlap; ``tally``: the mean by image and class;
    ``matches``: of the boxes, where objects are ranked.
    """

    estimates: Estimates
    counts: ClassCounts
    matrix: np.ndarray | None
    tally: PairTally
    matches: DetectionMatches | None = None


def all_figures(
    scores: Scores, pairing: Pairing, resampling: Resampling, groups: np.ndarray | None = None
) -> Aggregates:
    """Every figure that the two sides allow. ``groups``: images that are drawn together, see ``counts.gather``."""
    tally = PairTally()
    matches: dict[MatchKind, DetectionMatches] = {}

    def counted(blocks: Iterable[ClassCounts]) -> Iterator[ClassCounts]:
        nonlocal tally
        for block in blocks:
            tally += per_image(block)
            yield block

    counts = gather(counted(class_counts(scores, overlapping=pairing.overlapping)), groups=groups)
    found = [estimate(counts, resampling, semantic_figures)]
    if pairing.boundary.enabled and not pairing.overlapping:
        found.append(estimate(gather(boundary_blocks(scores), groups=groups), resampling, boundary_figures))
    if pairing.has_objects:
        quality = gather(panoptic_blocks(scores), groups=groups)
        matched = quality.total()[:, 0] > 0
        found.append(estimate(quality, resampling, partial(panoptic_figures, matched=matched)))
    if pairing.has_detections:
        resampling = replace(resampling, resamples=min(resampling.resamples, instance_resamples(scores)))
        matches = {kind: all_matches(scores, f"{kind}_matches") for kind in KINDS}
        found += [_average_precision(matches[kind], resampling, kind, groups) for kind in KINDS]
    matrix = None if pairing.overlapping else ignore(confusion_matrix(scores), scores.ignored)
    return Aggregates(_merge(found), counts, matrix, tally, matches.get("box"))


def instance_resamples(scores: Scores) -> int:
    """At most so many resamples of average precision: each walks along every detection.

    2,000 for 5,000 images and 200 from 50,000 on, where intervals are narrow: half a minute each.
    """
    images = sum(int(kept.sum()) for kept in scores.kept)
    return max(_LEAST_RESAMPLES, _RESAMPLED_IMAGES // max(1, images))


def area_shares(counts: ClassCounts, resampling: Resampling) -> tuple[Estimates, Estimates]:
    """Each class's share of all pixels, ``area_share``: of the predictions, and of the truth."""

    def share(column: int) -> Estimates:
        def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
            pixels = np.asarray(sums, np.float64)[..., column]
            return {"area_share": divide(pixels, pixels.sum(axis=-1, keepdims=True) + np.zeros_like(pixels))}

        return estimate(counts, resampling, figures)

    return share(2), share(1)


def _merge(estimates: Sequence[Estimates]) -> Estimates:
    """Estimates on the same resamples, side by side."""
    return Estimates(
        {name: values for one in estimates for name, values in one.values.items()},
        {name: samples for one in estimates for name, samples in one.samples.items()},
    )


def _average_precision(
    matches: DetectionMatches, resampling: Resampling, kind: MatchKind, groups: np.ndarray | None
) -> Estimates:
    """COCO's numbers under the kind's name: AP → mask_AP, class_AP → class_mask_AP."""
    found = estimate_average_precision(matches, resampling, groups)

    def renamed(figures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        heads = {name: "class_" if name.startswith("class_") else "" for name in figures}
        return {f"{heads[name]}{kind}_{name.removeprefix('class_')}": value for name, value in figures.items()}

    return Estimates(renamed(found.values), renamed(found.samples))
