"""report.json as the page reads it: any schema in, every key of schema 2 there (null where unknown) out.

The file may come from an older release, or from somebody else: what is not as it should be is a
ManifestError that says where. Below it, what the page derives from the confusion matrix.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segjobs.errors import ManifestError
from segjobs.manifest.schema import Category, categories_from_json

FigureJson = dict[str, float | None]
"""``value``, ``low`` and ``high`` in [0, 1]; null where undefined, low and high null without a bootstrap."""

_SECTIONS: dict[str, Any] = {
    "task": "semantic",
    "convention": None,
    "missing": None,
    "version": None,
    "truth": {},
    "predictions": {},
    "images": {},
    "examples": {},
    "categories": [],
    "bootstrap": None,
    "semantic": None,
    "instance": None,
    "panoptic": None,
    "slices": [],
    "comparison": None,
    "gate": [],
    "disputes": [],
    "agreement": False,
    "drift": [],
    "identity": {},
}
_SEMANTIC: dict[str, Any] = {
    "headline": {},
    "per_class": [],
    "conventions": {},
    "confusion": None,
    "calibration": None,
    "per_image_histogram": None,
}
_LISTS = ("categories", "slices", "gate", "disputes", "drift")
_HEADLINE = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
_RATIOS = ("iou", "dice", "precision", "recall")
_PIXELS = ("truth_px", "predicted_px", "correct_px")


def read_report(data: bytes, *, where: str) -> dict[str, Any]:
    """The bytes of a report.json → schema 2 with every key. Raises ManifestError with ``where``."""
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise ManifestError(f"{where} is damaged: {error}") from error
    if not isinstance(raw, dict):
        raise ManifestError(f"{where}: expected the report of an evaluation, found a {type(raw).__name__}")
    schema = raw.get("schema", 1)
    if schema not in (1, 2):
        raise ManifestError(
            f"{where}: the report's schema is {schema!r}, this release reads 1 and 2: draw its page with segjobs "
            f"{raw.get('version')}"
        )
    try:
        report = _with_defaults(_from_schema_1(raw) if schema == 1 else raw)
        categories_from_json(report["categories"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ManifestError(f"{where}: not the report of an evaluation ({type(error).__name__}: {error})") from error
    return report


def _with_defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    report = {key: default if raw.get(key) is None else raw[key] for key, default in _SECTIONS.items()}
    for key, default in _SECTIONS.items():
        expected = list if key in _LISTS else dict if isinstance(default, dict) else None
        if expected and not isinstance(report[key], expected):
            raise TypeError(f"{key} is no {'list' if expected is list else 'object'}")
    if report["semantic"] is not None:
        report["semantic"] = {**_SEMANTIC, **{k: v for k, v in report["semantic"].items() if v is not None}}
    return report


def _from_schema_1(raw: dict[str, Any]) -> dict[str, Any]:
    """The first release's report: figures without intervals, a matrix without the row of unlabelled truth."""
    scores, categories = raw["scores"], raw["categories"]
    per_class = [
        {
            "category_id": category["id"],
            "category": category["name"],
            **{name: _figure(scores[name][number]) for name in _RATIOS},
            **{name: scores[name][number] for name in _PIXELS},
        }
        for number, category in enumerate(categories)
    ]
    matrix = [*raw["confusion"], [0] * (len(categories) + 1)]
    headline = {name: _figure(scores[name]) for name in _HEADLINE}
    return {**raw, "semantic": {"headline": headline, "per_class": per_class, "confusion": matrix}}


def _figure(value: float | None) -> FigureJson:
    return {"value": value, "low": None, "high": None}


def categories_of(report: Mapping[str, Any]) -> tuple[Category, ...]:
    """The report's classes, in the order of its matrix."""
    return categories_from_json(report["categories"])


# Confusion -------------------------------------------------------------------------------------------

OTHERS = "all others"
NOT_PREDICTED = "not predicted"
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class HeatMap:
    """Confusion for people. ``counts``: int64 (rows, columns) of pixels; ``shares``: each row divided by
    its sum, float64, NaN in a row without pixels. ``left_out``: classes summed as ``OTHERS``."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: np.ndarray
    shares: np.ndarray
    left_out: int


def heat_map(confusion: Sequence[Sequence[int]], names: Sequence[str], *, most: int = 40) -> HeatMap | None:
    """A full matrix (C+1, C+1; last row: unlabelled truth, last column: not predicted) as rows and columns to show.

    Of more than ``most`` classes those with the most pixels, of truth or prediction, stay in their
    order and the rest are one. Classes in neither are left out, and so are unlabelled truth, which
    no score counts, and "not predicted" where every labelled pixel is predicted. None without a pixel.
    """
    matrix = _checked(confusion, len(names))[:-1]
    classes = len(names)
    weight = matrix.sum(1) + matrix[:, :-1].sum(0)
    present = np.flatnonzero(weight)
    if not present.size:
        return None
    kept = np.sort(present[np.argsort(-weight[present], kind="stable")[:most]])
    groups = [np.array([index]) for index in kept]
    rest = np.setdiff1d(present, kept)
    row_names = [names[int(index)] for index in kept]
    if rest.size:
        groups.append(rest)
        row_names.append(OTHERS)
    column_names, column_groups = [*row_names], [*groups]
    if matrix[:, classes].any():
        column_names.append(NOT_PREDICTED)
        column_groups.append(np.array([classes]))
    counts = np.array([[matrix[np.ix_(rows, columns)].sum() for columns in column_groups] for rows in groups], np.int64)
    sums = counts.sum(1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, sums, out=shares, where=sums > 0)
    return HeatMap(tuple(row_names), tuple(column_names), counts, shares, int(rest.size))


def top_confusions(confusion: Sequence[Sequence[int]], names: Sequence[str], *, most: int = 15) -> list[dict[str, Any]]:
    """The largest cells off the diagonal of labelled truth: ``truth``, ``predicted``, ``pixels``, ``share``
    (of the true class's pixels), ``of_errors`` (of all wrong pixels); largest first."""
    matrix = _checked(confusion, len(names))[:-1].copy()
    sums = matrix.sum(1)
    np.fill_diagonal(matrix, 0)
    errors = matrix.sum()
    columns = [*names, NOT_PREDICTED]
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    cells = ((*divmod(int(cell), matrix.shape[1]), int(matrix.flat[cell])) for cell in order)
    return [
        {
            "truth": names[row],
            "predicted": columns[column],
            "pixels": pixels,
            "share": pixels / int(sums[row]),
            "of_errors": pixels / int(errors),
        }
        for row, column, pixels in cells
        if pixels
    ]


def _checked(confusion: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    try:
        matrix = np.array(confusion, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ManifestError(f"the report's confusion is no matrix of whole numbers: {error}") from error
    if matrix.shape != (classes + 1, classes + 1) or (matrix < 0).any():
        raise ManifestError(
            f"the report's confusion has the shape {matrix.shape}, expected {(classes + 1, classes + 1)} "
            "of numbers from 0 for its categories"
        )
    return matrix
