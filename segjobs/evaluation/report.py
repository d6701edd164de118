"""The report of an evaluation: the counts of its images in, every figure by its place in the schema out.

scores/ of each entry → Scores → census, Aggregates → FigureTable → report_types.Report
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TypedDict, TypeVar

import numpy as np
import pyarrow as pa

from segjobs import __version__
from segjobs.config import EvaluateConfig
from segjobs.errors import ManifestError
from segjobs.evaluation.entries import Entry, Evaluation
from segjobs.evaluation.estimates import (
    Aggregates,
    FigureTable,
    all_figures,
    area_shares,
    differences_of,
    figures_of,
)
from segjobs.evaluation.notes import frames_note, notes_of
from segjobs.evaluation.report_types import (
    SCHEMA_VERSION,
    STATUSES,
    Calibration,
    ChangedImage,
    ClassDetections,
    ClassDifference,
    ClassDrift,
    ClassQuality,
    ClassScores,
    Comparison,
    Convention,
    Difference,
    Dispute,
    Failure,
    Figure,
    Histogram,
    Instance,
    Panoptic,
    Report,
    RuleVerdict,
    Segmentation,
    Semantic,
    TwoCounts,
)
from segjobs.evaluation.score_image import DisputeRow
from segjobs.evaluation.scores import Census, Scores, column_of, flatten, keep, take_census
from segjobs.manifest.schema import Category
from segjobs.metrics import gate
from segjobs.metrics.bootstrap import Resampling
from segjobs.metrics.calibration import calibrate
from segjobs.metrics.conventions import CONVENTIONS
from segjobs.metrics.names import AVERAGE_PRECISION, HEADLINE, OF_PIXELS, QUALITY, RATIOS, by_class

_Entry = TypeVar("_Entry", Figure, Difference)
CONVENTION = "dataset"
_BINS = 10
_EXAMPLES = 5  # images of each status
_CHANGED = 10  # images that got most better, and as many that got most worse
_IMAGE_COLUMNS = ("image_id", "confidence", "labelled_px", "correct_px", "mean_iou")


def make_report(evaluation: Evaluation) -> Report:
    """Add up what the entries' parts of scores hold. Raises ManifestError as ``missing`` says."""
    config, entries, categories = evaluation.config, evaluation.entries, evaluation.categories
    sides = _opened(evaluation)
    census = take_census(sides[0], _EXAMPLES)
    _check_missing(config, census)
    # What was not scored at all is not wrong either: then no image is left, and no figure defined.
    keep(sides, skip=config.missing == "skip" or not census.statuses["ok"])
    resampling = Resampling(config.bootstrap.resamples, config.bootstrap.seed)
    confidence = config.bootstrap.confidence
    images = column_of(sides[0], _IMAGE_COLUMNS)
    image_ids: list[str] = images["image_id"].to_pylist()
    groups = evaluation.slices.grouped(image_ids, config.bootstrap.group)
    sums = [all_figures(side, entry.pairing, resampling, groups) for side, entry in zip(sides, entries, strict=True)]
    table = figures_of(sums[0].estimates, confidence=confidence)
    differences = None
    if len(sums) > 1:
        differences = differences_of(sums[0].estimates, sums[1].estimates, confidence=confidence)
    drifts = None
    if config.truth is None:
        shares = differences_of(*area_shares(sums[0].counts, resampling), confidence=confidence)
        drifts = drift(shares, categories, census)
    pairing, inputs = entries[0].pairing, entries[0].inputs
    notes = list(notes_of(sides[0], pairing, census, sums[0].matches))
    if config.bootstrap.resamples and groups is None:
        notes += frames_note(image_ids)
    return Report(
        schema=SCHEMA_VERSION,
        version=__version__,
        task=pairing.task,
        convention=CONVENTION,
        missing=config.missing,
        ignored=tuple(config.ignore_classes),
        truth=inputs.truth,
        predictions=inputs.predictions,
        agreement=config.truth is None,
        images={status: census.statuses[status] for status in STATUSES},
        scored_images=images.num_rows,
        examples={status: tuple(names) for status, names in census.examples.items()},
        categories=categories,
        bootstrap=config.bootstrap if config.bootstrap.resamples else None,
        semantic=semantic(table, categories, sums[0], census, images),
        instance=instance(table, categories, census) if pairing.has_detections else None,
        panoptic=panoptic(table, categories) if pairing.has_objects else None,
        slices=tuple(evaluation.slices.rows(sides[0], pairing, sums[0].estimates, config.bootstrap)),
        drift=drifts,
        comparison=comparison(entries, differences, categories, sides) if differences else None,
        gate=verdicts(evaluation.rules, table, differences, categories),
        disputes=tuple(disputes(sides[0], config.disputes.limit)) if config.disputes.limit else (),
        identity=evaluation.identity,
        failures=tuple(failures(census)),
        notes=tuple(notes),
    )


def failures(census: Census) -> Iterator[Failure]:
    """Why predictions, or truth, could not be had, the most frequent reason first."""
    for (status, code), one in sorted(census.failures.items(), key=lambda pair: (-pair[1].images, pair[0])):
        assert status in ("failed", "no_truth"), "the others have no reason"  # noqa: S101
        yield Failure(status=status, code=code, images=one.images, image_id=one.image_id, message=one.message)


def _opened(evaluation: Evaluation) -> list[Scores]:
    categories = evaluation.categories
    ignored = [n for n, category in enumerate(categories) if category.name in evaluation.config.ignore_classes]

    def opened(entry: Entry) -> Scores:
        return Scores(entry.pairing.storage, entry.uri, len(entry.spans), categories, frozenset(ignored))

    return [opened(entry) for entry in evaluation.entries]


def _check_missing(config: EvaluateConfig, census: Census) -> None:
    absent = [(status, census.examples[status][0]) for status in ("missing", "failed") if census.statuses[status]]
    if config.missing == "error" and absent:
        status, image_id = absent[0]
        count = sum(census.statuses[status] for status in ("missing", "failed"))
        raise ManifestError(
            f"{count} image(s) of the truth have no prediction, such as {image_id!r} ({status}): missing=error stops "
            "here; worst counts them as wrong, skip leaves them out"
        )


# --- scores ------------------------------------------------------------------------------------


def semantic(
    table: FigureTable[Figure], categories: Sequence[Category], sums: Aggregates, census: Census, images: pa.Table
) -> Semantic:
    """Headline, classes, conventions, confusion, calibration and histogram."""
    partition = sums.matrix is not None
    conventions: dict[str, Convention] = {}
    if sums.matrix is not None:
        conventions = {
            name: Convention.model_validate(score(sums.matrix).to_json()) for name, score in CONVENTIONS.items()
        }
    conventions["per_image"] = Convention(mean_iou=sums.tally.mean)
    names = [name for name in HEADLINE if partition or name not in OF_PIXELS]
    ratios = {name: table.by_class[by_class(name)] for name in RATIOS if by_class(name) in table.by_class}
    pixels: list[list[int]] = sums.counts.total().tolist()
    have: list[int] = census.images[:, 0].tolist()
    return Semantic(
        headline={name: table.of_set[name] for name in names if name in table.of_set},
        per_class=tuple(
            ClassScores.model_validate(
                {
                    **_head(category),
                    **{name: column[number] for name, column in ratios.items()},
                    **dict(zip(("correct_px", "truth_px", "predicted_px"), pixels[number], strict=True)),
                    "images": have[number],
                }
            )
            for number, category in enumerate(categories)
        ),
        conventions=conventions,
        confusion=None if sums.matrix is None else sums.matrix.tolist(),
        calibration=_calibration(images) if partition else None,
        per_image_histogram=_histogram(images["mean_iou"].to_pylist()),
    )


def _head(category: Category) -> dict[str, int | str]:
    return {"category_id": category.id, "category": category.name}


def _calibration(images: pa.Table) -> Calibration | None:
    known = images.filter(images["confidence"].is_valid())
    if not known.num_rows:
        return None
    confidence, correct, labelled = (np.asarray(known[name]) for name in ("confidence", "correct_px", "labelled_px"))
    found = calibrate(confidence, correct, labelled, bins=_BINS)
    return None if found is None else Calibration.model_validate(found)


def _histogram(scores: Iterable[float | None]) -> Histogram:
    counts, edges = np.histogram([score for score in scores if score is not None], bins=_BINS, range=(0, 1))
    return Histogram(edges=edges.round(3).tolist(), counts=counts.tolist())


def instance(table: FigureTable[Figure], categories: Sequence[Category], census: Census) -> Instance:
    """COCO's twelve numbers for masks and boxes, and each class's."""
    objects: list[list[int]] = census.objects.tolist()
    names = [name for name in ClassDetections.model_fields if by_class(name) in table.by_class]
    return Instance(
        mask={name: table.of_set[f"mask_{name}"] for name in AVERAGE_PRECISION},
        box={name: table.of_set[f"box_{name}"] for name in AVERAGE_PRECISION},
        per_class=tuple(
            ClassDetections.model_validate(
                {
                    **_head(category),
                    **{name: table.by_class[by_class(name)][number] for name in names},
                    "objects": objects[number][0],
                    "detections": objects[number][1],
                }
            )
            for number, category in enumerate(categories)
        ),
    )


def panoptic(table: FigureTable[Figure], categories: Sequence[Category]) -> Panoptic:
    """Panoptic, segmentation and recognition quality, of the set and by class."""
    return Panoptic(
        all={name: table.of_set[name] for name in QUALITY},
        per_class=tuple(
            ClassQuality.model_validate(
                {**_head(category), **{name: table.by_class[by_class(name)][number] for name in QUALITY}}
            )
            for number, category in enumerate(categories)
        ),
    )


# --- against a baseline ------------------------------------------------------------------------


def drift(shares: FigureTable[Difference], categories: Sequence[Category], census: Census) -> tuple[ClassDrift, ...]:
    """By class: its share of the pixels, its objects and images, in the predictions and in the baseline."""
    objects: list[list[int]] = census.objects.tolist()
    images: list[list[int]] = census.images.tolist()
    return tuple(
        ClassDrift(
            category_id=category.id,
            category=category.name,
            area_share=shares.by_class["area_share"][number],
            objects=TwoCounts(value=objects[number][1], baseline=objects[number][0]),
            images=TwoCounts(value=images[number][1], baseline=images[number][0]),
        )
        for number, category in enumerate(categories)
    )


def comparison(
    entries: Sequence[Entry],
    differences: FigureTable[Difference],
    categories: Sequence[Category],
    sides: Sequence[Scores],
) -> Comparison:
    """Differences to the baseline with interval and p-value, of the set and by class, and the images that changed."""
    wanted = ("mask_AP", "iou") if entries[0].pairing.has_masks else ("box_AP",)
    figure = next(name for name in wanted if by_class(name) in differences.by_class)
    improved, worsened = changed_images(sides, _CHANGED)
    return Comparison(
        baseline=entries[1].inputs.predictions,
        metrics=dict(differences.of_set),
        figure=figure,
        per_class=tuple(
            ClassDifference.model_validate({**_head(category), **entry.model_dump()})
            for category, entry in zip(categories, differences.by_class[by_class(figure)], strict=True)
        ),
        improved=improved,
        worsened=worsened,
    )


def changed_images(sides: Sequence[Scores], count: int) -> tuple[tuple[ChangedImage, ...], tuple[ChangedImage, ...]]:
    """The images whose own mean IoU got most better, and most worse, at most ``count`` each."""
    tables = [column_of(side, ("image_id", "mean_iou")) for side in sides]
    values, baseline = (np.array(table["mean_iou"].to_pylist(), np.float64) for table in tables)
    image_ids: list[str] = tables[0]["image_id"].to_pylist()
    difference = values - baseline

    def largest(gain: np.ndarray) -> tuple[ChangedImage, ...]:
        order = np.argsort(-gain, kind="stable")
        rows: list[int] = order[gain[order] > 0][:count].tolist()
        return tuple(
            ChangedImage(image_id=image_ids[n], value=float(values[n]), baseline=float(baseline[n])) for n in rows
        )

    return largest(difference), largest(-difference)


def verdicts(
    rules: Sequence[gate.Rule],
    table: FigureTable[Figure],
    differences: FigureTable[Difference] | None,
    categories: Sequence[Category],
) -> tuple[RuleVerdict, ...]:
    """Each rule of the gate held against the figures and, where it speaks of a drop, against the differences."""
    figures = _by_key(table, categories, lambda figure: gate.Figure(figure.value, figure.low, figure.high))
    drops: dict[tuple[str, str | None], gate.Figure] = {}
    if differences:
        drops = _by_key(differences, categories, lambda one: gate.Figure(one.difference, one.low, one.high))
    judged = [gate.judge(rule, figures, drops) for rule in rules]
    return tuple(RuleVerdict(rule=v.rule, passed=v.passed, value=v.value, message=v.message) for v in judged)


def _by_key(
    table: FigureTable[_Entry], categories: Sequence[Category], figure: Callable[[_Entry], gate.Figure]
) -> dict[tuple[str, str | None], gate.Figure]:
    """Figures as the gate asks for them, by name and class."""
    found: dict[tuple[str, str | None], gate.Figure] = {}
    for name, entry in table.of_set.items():
        found[name, None] = figure(entry)
    for name, entries in table.by_class.items():
        for category, entry in zip(categories, entries, strict=True):
            found[name, category.name] = figure(entry)
    return found


# --- labels to check ---------------------------------------------------------------------------


class _Image(TypedDict):
    image_id: str
    uri: str
    width: int
    height: int


class _DisputedImage(_Image, DisputeRow):
    """A dispute with the image that it is on."""


def disputes(scores: Scores, limit: int) -> list[Dispute]:
    """Disputed truth, the classes in turn and of each the largest and surest first, at most ``limit`` in all."""
    names = {category.id: category.name for category in scores.categories}
    ignored = {scores.categories[index].id for index in scores.ignored}
    best: dict[int | None, list[tuple[float, _DisputedImage]]] = {}
    for table in scores.tables("image_id", "uri", "width", "height", "disputes"):
        rows, entries = flatten(table["disputes"])
        heads: list[_Image] = table.select(["image_id", "uri", "width", "height"]).to_pylist()
        places: list[int] = rows.tolist()
        cells: list[DisputeRow] = entries.to_pylist()
        for row, entry in zip(places, cells, strict=True):
            if {entry["category_id"], entry["other_id"]} & ignored:
                continue
            found = best.setdefault(entry["category_id"], [])
            one: _DisputedImage = {**heads[row], **entry}
            found.append((-entry["pixels"] * entry["score"], one))
        for found in best.values():
            found.sort(key=lambda pair: (pair[0], pair[1]["image_id"], pair[1]["other_id"]))
            del found[limit:]
    ranked = [[one for _, one in best[key]] for key in sorted(best, key=lambda key: (key is None, key))]
    picked = [one for turn in zip_longest(*ranked) for one in turn if one is not None][:limit]
    return [_named(one, names) for one in picked]


def _named(one: _DisputedImage, names: Mapping[int, str]) -> Dispute:
    return Dispute(
        image_id=one["image_id"],
        uri=one["uri"],
        category=None if one["category_id"] is None else names[one["category_id"]],
        other=names[one["other_id"]],
        pixels=one["pixels"],
        confidence=round(float(one["score"]), 4),
        segmentation=Segmentation(size=(one["height"], one["width"]), counts=one["counts"]),
    )
