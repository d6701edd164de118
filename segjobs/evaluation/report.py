"""The parts of an evaluation's report: figures and counts in, JSON values out.

Every score is in [0, 1], ``{"value", "low", "high"}`` where it has an interval, null where it is undefined.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs.evaluation.estimates import KINDS, Aggregates
from segjobs.evaluation.scores import Census, Scores, column_of, flatten
from segjobs.manifest.schema import Category
from segjobs.metrics.average_precision import FIGURES as COCO_FIGURES
from segjobs.metrics.calibration import calibrate
from segjobs.metrics.conventions import CONVENTIONS
from segjobs.metrics.names import HEADLINE, RATIOS

_RATIO_KEYS = {name: f"class_{name}" if name.startswith("boundary") else name for name in RATIOS}
_PIXELS = ("correct_px", "truth_px", "predicted_px")
_BY_CLASS = tuple(f"{kind}_{name}" for kind in KINDS for name in ("AP", "AP50"))
_BINS = 10
PER_CLASS_SCHEMA = pa.schema(
    [
        ("category_id", pa.int32()),
        ("category", pa.string()),
        *((f"{name}{end}", pa.float64()) for name in RATIOS for end in ("", "_low", "_high")),
        *((name, pa.int64()) for name in (*_PIXELS, "images")),
    ]
)

FigureTable = Mapping[str, Any]
"""Aggregates by name (``bootstrap.with_intervals``): a dict of the set, a list of dicts by class."""


def semantic(
    found: FigureTable, categories: Sequence[Category], figures: Aggregates, census: Census, images: pa.Table
) -> dict[str, Any]:
    """Headline, classes, conventions, confusion, calibration and histogram."""
    partition = figures.matrix is not None
    conventions: dict[str, Any] = {}
    if figures.matrix is not None:
        conventions = {name: score(figures.matrix).to_json() for name, score in CONVENTIONS.items()}
    conventions["per_image"] = {"mean_iou": figures.tally.mean}
    # Of overlapping masks there is no pixel that is right or wrong as a whole.
    names = [name for name in HEADLINE if partition or name not in ("pixel_accuracy", "frequency_weighted_iou")]
    return {
        "headline": {name: found[name] for name in names if name in found},
        "per_class": [
            {
                **_head(category),
                **{name: found[key][number] for name, key in _RATIO_KEYS.items() if key in found},
                **dict(zip(_PIXELS, totals, strict=True)),
                "images": have,
            }
            for number, (category, totals, have) in enumerate(
                zip(categories, figures.counts.total().tolist(), census.images[:, 0].tolist(), strict=True)
            )
        ],
        "conventions": conventions,
        "confusion": figures.matrix.tolist() if figures.matrix is not None else None,
        "calibration": _calibration(images) if partition else None,
        "per_image_histogram": _histogram(images["mean_iou"].to_pylist()),
    }


def _head(category: Category) -> dict[str, Any]:
    return {"category_id": category.id, "category": category.name}


def _calibration(images: pa.Table) -> dict[str, Any] | None:
    known = images.filter(images["confidence"].is_valid())
    confidence, correct, labelled = (np.asarray(known[name]) for name in ("confidence", "correct_px", "labelled_px"))
    return calibrate(confidence, correct, labelled, bins=_BINS) if known.num_rows else None


def _histogram(scores: Iterable[float | None]) -> dict[str, Any]:
    counts, edges = np.histogram([score for score in scores if score is not None], bins=_BINS, range=(0, 1))
    return {"edges": edges.round(3).tolist(), "counts": counts.tolist()}


def instance(found: FigureTable, categories: Sequence[Category], census: Census) -> dict[str, Any]:
    """COCO's twelve numbers for masks and boxes, and each class's."""
    per_class = [
        {
            **_head(category),
            **{name: found[f"class_{name}"][number] for name in _BY_CLASS},
            "objects": objects,
            "detections": detections,
        }
        for number, (category, (objects, detections)) in enumerate(
            zip(categories, census.objects.tolist(), strict=True)
        )
    ]
    kinds = {kind: {name: found[f"{kind}_{name}"] for name in COCO_FIGURES} for kind in KINDS}
    return {**kinds, "per_class": per_class}


def panoptic(found: FigureTable, categories: Sequence[Category]) -> dict[str, Any]:
    """Panoptic, segmentation and recognition quality, of the set and by class."""
    names = ("pq", "sq", "rq")
    return {
        "all": {name: found[name] for name in names},
        "per_class": [
            {**_head(category), **{name: found[f"class_{name}"][number] for name in names}}
            for number, category in enumerate(categories)
        ],
    }


def drift(shares: FigureTable, categories: Sequence[Category], census: Census) -> list[dict[str, Any]]:
    """By class: its share of the pixels, its objects and images, in the predictions and in the baseline."""
    return [
        {
            **_head(category),
            "area_share": share,
            "objects": {"value": objects[1], "baseline": objects[0]},
            "images": {"value": images[1], "baseline": images[0]},
        }
        for category, share, objects, images in zip(
            categories, shares["area_share"], census.objects.tolist(), census.images.tolist(), strict=True
        )
    ]


def comparison(differences: FigureTable, categories: Sequence[Category]) -> dict[str, Any]:
    """Differences to the baseline with interval and p-value, of the set and by class."""
    figure = "class_mask_AP" if "class_mask_AP" in differences else "iou"
    return {
        "metrics": {name: entry for name, entry in differences.items() if isinstance(entry, dict)},
        "figure": figure.removeprefix("class_"),
        "per_class": [
            {**_head(category), **entry} for category, entry in zip(categories, differences[figure], strict=True)
        ],
    }


def changed_images(sides: Sequence[Scores], count: int) -> dict[str, list[dict[str, Any]]]:
    """The images whose own mean IoU got most better and worse, at most ``count`` each."""
    tables = [column_of(side, ("image_id", "mean_iou")) for side in sides]
    values, baseline = (np.array(table["mean_iou"].to_pylist(), np.float64) for table in tables)
    image_ids = tables[0]["image_id"].to_pylist()
    difference = values - baseline

    def largest(gain: np.ndarray) -> list[dict[str, Any]]:
        order = np.argsort(-gain, kind="stable")
        rows = order[gain[order] > 0][:count].tolist()
        return [{"image_id": image_ids[n], "value": values[n], "baseline": baseline[n]} for n in rows]

    return {"improved": largest(difference), "worsened": largest(-difference)}


def disputes(scores: Scores, limit: int) -> list[dict[str, Any]]:
    """Disputed truth, the classes in turn and of each the largest and surest first, at most ``limit`` in all."""
    names = {category.id: category.name for category in scores.categories}
    ignored = {scores.categories[index].id for index in scores.ignored}
    best: dict[int | None, list[tuple[float, dict[str, Any]]]] = {}
    for table in scores.tables("image_id", "uri", "width", "height", "disputes"):
        rows, entries = flatten(table["disputes"])
        heads = table.select(["image_id", "uri", "width", "height"]).to_pylist()
        for row, entry in zip(rows.tolist(), entries.to_pylist(), strict=True):
            if {entry["category_id"], entry["other_id"]} & ignored:
                continue
            found = best.setdefault(entry["category_id"], [])
            found.append((-entry["pixels"] * entry["score"], {**heads[row], **entry}))
        for found in best.values():
            found.sort(key=lambda pair: (pair[0], pair[1]["image_id"], pair[1]["other_id"]))
            del found[limit:]
    ranked = [[one for _, one in best[key]] for key in sorted(best, key=lambda key: (key is None, key))]
    picked = [one for turn in zip_longest(*ranked) for one in turn if one is not None][:limit]
    return [_named(one, names) for one in picked]


def _named(one: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "image_id": one["image_id"],
        "uri": one["uri"],
        "category": None if one["category_id"] is None else names[one["category_id"]],
        "other": names[one["other_id"]],
        "pixels": one["pixels"],
        "confidence": round(float(one["score"]), 4),
        "segmentation": {"size": [one["height"], one["width"]], "counts": one["counts"]},
    }


def flat_rows(sections: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a section for a table: ``iou: {"value", "low", "high"}`` becomes iou, iou_low, iou_high."""
    for row in sections:
        flat: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, dict):
                flat |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
            else:
                flat[name] = value
        yield flat


# --- for people --------------------------------------------------------------------------------
