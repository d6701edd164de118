"""What the page's tests are made of: small manifests, and a realistic report.json of any size.

write_run_of     label maps → a finished manifest
make_report      seed → report.json (schema 2) whose figures agree: the confusion is drawn, every semantic
                 figure follows from it by plain numpy; intervals and comparisons are drawn around them
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs.manifest.parts import Run, part_bytes, publish_part, receipt_of, write_run
from segjobs.manifest.rle import encode_label_map
from segjobs.manifest.rows import Author, ok_row
from segjobs.manifest.schema import MANIFEST_SCHEMA, Category, Footer, Task, make_categories
from segjobs.storage import FileInfo, Storage

STREET = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
CONVENTIONS = ("dataset", "mmseg", "torchvision", "detectron2", "cityscapes", "segnet", "per_image")
HEADLINE = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
AP = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "cat\u202egnp.exe",
    "'; DROP TABLE classes; --",
    "😀👩‍👩‍👧 𝔠𝔩𝔞𝔰𝔰",
    "</style><style>body{display:none}</style>",
    "a" * 4000,
    "nul\x00 newline\n tab\t \ud800",
    "&amp;&lt;b&gt;",
    "]]><!--",
)


def segments_of(ids: np.ndarray, categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Segments of a label map, uint8 (H, W) of indices into ``categories``; 255 is unlabelled."""
    return [
        {
            "category_id": categories[region.index].id,
            "category": categories[region.index].name,
            "score": 1.0,
            "bbox": [float(side) for side in region.bbox],
            "area": region.area,
            "iscrowd": False,
            "segmentation": {"size": list(ids.shape), "counts": region.counts},
        }
        for region in encode_label_map(ids, void=255)
    ]


def write_run_of(
    uri: Path,
    maps: Mapping[Path, np.ndarray],
    categories: Sequence[Category],
    *,
    confidence: Mapping[str, float] | None = None,
    task: Task = "semantic",
) -> str:
    """Write a finished manifest of these images and their label maps, four to a part; its URI."""
    storage, rows = Storage(), []
    label = "unet@0123456789ab"
    for path, ids in sorted(maps.items()):
        data = path.read_bytes()
        rows.append(
            ok_row(
                FileInfo(str(path), path.name, len(data), 1, ""),
                Author("0123456789abcdef", label if confidence else None),
                sha256=hashlib.sha256(data).hexdigest(),
                size_hw=ids.shape,
                segments=segments_of(ids, categories),
                confidence=(confidence or {}).get(path.name),
            )
        )
    card = {"name": "unet", "label": label, "weights": "none", "digest": "0123456789ab" * 5} if confidence else None
    footer = Footer(task, tuple(categories), "digest", card)
    parts = []
    for number, start in enumerate(range(0, len(rows), 4)):
        some = rows[start : start + 4]
        data, _ = publish_part(
            storage, str(uri), number, part_bytes(pa.Table.from_pylist(some, schema=MANIFEST_SCHEMA), footer)
        )
        parts.append(receipt_of(number, data, [row["image_id"] for row in some]).part)
    info = {
        "run_id": "0123456789abcdef",
        "verb": "label",
        "version": "0.1.0",
        "counts": {"images": len(rows), "ok": len(rows), "failed": 0},
        "failures": {},
        "examples": {},
        "footer": json.loads(footer.to_bytes()),
        "config": {"input": {"uri": "photos"}},
    }
    write_run(storage, Run(str(uri), tuple(parts), info))
    return str(uri)


def figure(value: float, rng: np.random.Generator, half: float = 0.02) -> dict[str, float]:
    spread = half * rng.uniform(0.5, 1.5)
    return {"value": value, "low": max(0.0, value - spread), "high": min(1.0, value + spread)}


def confusion(rng: np.random.Generator, classes: int) -> np.ndarray:
    """int64 (C+1, C+1): classes of very different size, mostly right, each with a favourite error."""
    size = np.exp(rng.normal(13, 2, classes))
    right = rng.beta(6, 2, classes)
    matrix = np.zeros((classes + 1, classes + 1))
    matrix[:-1, :-1] = rng.dirichlet(np.full(classes, 0.15), classes) * (size * (1 - right))[:, None]
    matrix[np.arange(classes), np.arange(classes)] += size * right
    matrix[:-1, -1] = 0.002 * size
    matrix[-1, :-1] = 0.05 * size
    return matrix.astype(np.int64)


def semantic(rng: np.random.Generator, names: tuple[str, ...], images: int) -> dict[str, Any]:
    matrix = confusion(rng, len(names))
    counted = matrix[:-1]
    right = counted.diagonal()
    truth, predicted = counted.sum(1), counted[:, :-1].sum(0)
    iou, dice = right / (truth + predicted - right), 2 * right / (truth + predicted)
    precision, recall = right / np.maximum(predicted, 1), right / truth
    values = dict(
        zip(
            HEADLINE,
            (iou.mean(), right.sum() / truth.sum(), recall.mean(), (iou * truth).sum() / truth.sum()),
            strict=True,
        )
    )
    headline = {name: figure(float(value), rng, 0.012) for name, value in values.items()}
    headline["mean_dice"] = figure(float(dice.mean()), rng, 0.012)
    headline["boundary_iou"] = figure(float(iou.mean() * 0.8), rng, 0.012)
    headline["boundary_f"] = figure(float(iou.mean() * 0.9), rng, 0.012)
    ratios = {"iou": iou, "dice": dice, "precision": precision, "recall": recall, "boundary_iou": 0.8 * iou}
    per_class = [
        {
            "category_id": number,
            "category": name,
            **{key: figure(float(column[number]), rng, 0.05) for key, column in ratios.items()},
            "boundary_f": figure(float(0.9 * iou[number]), rng, 0.05),
            "truth_px": int(truth[number]),
            "predicted_px": int(predicted[number]),
            "correct_px": int(right[number]),
            "images": int(rng.integers(1, images + 1)),
        }
        for number, name in enumerate(names)
    ]
    own = rng.beta(6, 3, images)
    bins = [
        {
            "low": low / 10,
            "high": (low + 1) / 10,
            "images": int(rng.integers(1, images)),
            "confidence": (low + 0.5) / 10,
            "accuracy": min(1.0, (low + 0.5) / 10 * rng.uniform(0.8, 1.1)),
        }
        for low in range(3, 10)
    ]
    return {
        "headline": headline,
        "per_class": per_class,
        "conventions": {
            name: {"iou": iou.tolist()}
            | {key: headline[key]["value"] * (1 - 0.01 * number) for key in HEADLINE[: 4 - (name == "per_image")]}
            for number, name in enumerate(CONVENTIONS)
        },
        "confusion": matrix.tolist(),
        "calibration": {"bins": bins, "ece": 0.0421},
        "per_image_histogram": {
            "edges": np.linspace(0, 1, 11).tolist(),
            "counts": np.histogram(own, bins=10, range=(0, 1))[0].tolist(),
        },
    }


def instance(rng: np.random.Generator, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        **{kind: {name: figure(float(rng.uniform(0.2, 0.6)), rng) for name in AP} for kind in ("mask", "box")},
        "per_class": [
            {
                "category_id": number,
                "category": name,
                **{key: figure(float(rng.uniform(0.1, 0.7)), rng, 0.05) for key in ("mask_AP", "mask_AP50", "box_AP")},
                "objects": int(rng.integers(1, 5000)),
                "detections": int(rng.integers(1, 9000)),
            }
            for number, name in enumerate(names)
        ],
    }


def panoptic(rng: np.random.Generator, names: tuple[str, ...]) -> dict[str, Any]:
    def quality() -> dict[str, Any]:
        sq, rq = rng.uniform(0.6, 0.9), rng.uniform(0.4, 0.8)
        return {"pq": figure(sq * rq, rng), "sq": figure(sq, rng), "rq": figure(rq, rng)}

    return {
        "all": {**quality(), "classes": len(names)},
        "per_class": [
            {"category_id": number, "category": name, **quality(), "tp": 10 * number, "fp": number, "fn": 7}
            for number, name in enumerate(names)
        ],
    }


def comparison(rng: np.random.Generator, scores: dict[str, Any], image_ids: list[str]) -> dict[str, Any]:
    def against(value: float) -> dict[str, float]:
        change = float(rng.normal(0.01, 0.02))
        spread = float(rng.uniform(0.005, 0.03))
        return {
            "value": value,
            "baseline": value - change,
            "difference": change,
            "low": change - spread,
            "high": change + spread,
            "p_value": float(np.exp(-3 * abs(change) / spread)),
        }

    def moved(sign: int) -> list[dict[str, Any]]:
        return [{"image_id": one, "value": 0.5 + sign * 0.2, "baseline": 0.5} for one in image_ids[:5]]

    return {
        "baseline": {"uri": "out/run0", "model": "fcn_resnet50@0f3c88aa1b2c"},
        "metrics": {key: against(scores["headline"][key]["value"]) for key in HEADLINE},
        "per_class": [
            {"category_id": row["category_id"], "category": row["category"], **against(row["iou"]["value"])}
            for row in scores["per_class"]
        ],
        "improved": moved(1),
        "worsened": moved(-1),
    }


def make_report(
    *, seed: int = 0, names: tuple[str, ...] = STREET, images: int = 500, image_ids: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The whole report. ``image_ids``: names to use where images are named."""
    rng = np.random.default_rng(seed)
    ids = list(image_ids) or [f"val/frankfurt/{number:06d}.png" for number in range(12)]
    scores = semantic(rng, names, images)
    return {
        "schema": 2,
        "version": "0.1.0",
        "task": "semantic",
        "convention": "dataset",
        "missing": "worst",
        "truth": {"uri": "out/truth", "run_id": "4b1d0aa0c3f5e812", "model": None, "parts_digest": "5e" * 32},
        "predictions": {
            "uri": "s3://bucket/out/run1",
            "run_id": "9c7a1b2c3d4e5f60",
            "model": "deeplabv3_resnet50@cd0a2569a1b2",
            "parts_digest": "ab" * 32,
            "model_card": {
                "name": "deeplabv3_resnet50",
                "weights": "torchvision:COCO_WITH_VOC_LABELS_V1",
                "digest": "cd" * 32,
            },
            "failures": {"TRUNCATED": 3, "TOO_LARGE": 1},
        },
        "images": {"ok": images - 5, "missing": 1, "failed": 4, "no_truth": 2, "extra": 3},
        "examples": {"missing": ids[:1], "failed": ids[1:5], "no_truth": ids[5:7], "extra": ids[7:10]},
        "categories": [
            {"id": category.id, "name": category.name, "color": list(category.color)}
            for category in make_categories(names)
        ],
        "bootstrap": {"resamples": 2000, "seed": 0, "confidence": 0.95},
        "semantic": scores,
        "instance": instance(rng, names),
        "panoptic": panoptic(rng, names),
        "slices": [
            {
                "column": column,
                "value": value,
                "images": int(rng.integers(1, images + 1)),
                "scores": {key: figure(float(rng.uniform(0.5, 0.9)), rng) for key in HEADLINE},
            }
            for column, values in (("city", ("Frankfurt", "Lindau", "Münster")), ("hour", ("day", "dusk", "night")))
            for value in values
        ],
        "comparison": comparison(rng, scores, ids),
        "agreement": False,
        "drift": [
            {
                "category_id": number,
                "category": name,
                "area_share": {
                    "value": 0.1,
                    "baseline": 0.08,
                    "difference": 0.02,
                    "low": 0.01 * (number % 2),
                    "high": 0.03,
                    "p_value": 0.04,
                },
                "objects": {"value": 1200 + number, "baseline": 1100},
                "images": {"value": 40, "baseline": 38},
            }
            for number, name in enumerate(names)
        ],
        "gate": [
            {"rule": "miou >= 0.6", "passed": True, "value": 0.67, "message": "67.2 % is at least 60 %"},
            {"rule": "iou[person] >= 0.9", "passed": False, "value": 0.71, "message": "71.0 % is below 90 %"},
        ],
        "disputes": [
            {
                "image_id": image_id,
                "uri": f"out/{image_id}",
                "category": names[number % len(names)],
                "other": names[(number + 1) % len(names)],
                "pixels": 40_000 - 1000 * number,
                "confidence": 0.98 - 0.01 * number,
            }
            for number, image_id in enumerate(ids)
        ],
    }
