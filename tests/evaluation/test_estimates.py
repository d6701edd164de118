"""Instances through the whole job: COCO's numbers as pycocotools gives them, and a resume that changes nothing."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segjobs.config import PrepareConfig, load_config
from segjobs.errors import ExitCode
from segjobs.jobs.prepare.job import prepare
from segjobs.manifest.parts import read_rows
from segjobs.manifest.rle import decode
from segjobs.metrics.average_precision import FIGURES
from segjobs.storage import Storage
from tests.made import evaluated


def prepared(images: Path, labels: Path, output: Path) -> str:
    words = [f"input.uri={images}", "labels.format=coco", f"labels.uri={labels}", f"output.uri={output}"]
    assert prepare(load_config(PrepareConfig, None, [*words, "shard.images=30"])).exit_code == ExitCode.DONE
    return str(output)


def detections_of(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Moved, missed, repeated and misnamed objects, with scores that repeat."""
    random = np.random.default_rng(seed)
    found = []
    for number, row in enumerate(rows):
        for segment in row["segments"]:
            mask = decode(segment["segmentation"]["counts"], (row["height"], row["width"])).astype(np.uint8)
            for _ in range(random.integers(0, 3)):
                moved = np.roll(mask, random.integers(-9, 10, 2), axis=(0, 1))
                code = coco_mask.encode(np.asfortranarray(moved))
                category_id = segment["category_id"] if random.random() < 0.9 else rows[0]["segments"][0]["category_id"]
                entry = {"image_id": number, "category_id": category_id, "score": round(random.random(), 1)}
                found.append({**entry, "segmentation": {**code, "counts": code["counts"].decode()}})
    return found


def by_pycocotools(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = truth
        dataset.createIndex()
        results = dataset.loadRes(found)
        scores = COCOeval(dataset, results, kind)
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    return list(scores.stats)


def as_stated(segment: dict[str, Any]) -> dict[str, Any]:
    """Area and box of an object as COCO's JSON has them."""
    return {"area": segment["stated_area"], "bbox": segment["stated_bbox"]}


@pytest.mark.parametrize(
    ("images", "labels"),
    [("nuts_coco/images", "nuts_coco/trainval.json"), ("coco_mini/train2017", "coco_mini/instances_train2017.json")],
)
def test_coco_numbers(ray_session: None, shared_data: Path, tmp_path: Path, images: str, labels: str) -> None:
    truth = prepared(shared_data / images, shared_data / labels, tmp_path / "truth")
    rows = list(read_rows(Storage(), truth))
    categories = json.loads((shared_data / labels).read_text())["categories"]
    objects = [
        {**segment, "id": number, "image_id": image, "iscrowd": int(segment["iscrowd"]), **as_stated(segment)}
        for number, (image, segment) in enumerate(
            ((image, segment) for image, row in enumerate(rows) for segment in row["segments"]), 1
        )
    ]
    sizes = [{"height": row["height"], "width": row["width"]} for row in rows]
    names = [{"id": number, "file_name": row["image_id"], **sizes[number]} for number, row in enumerate(rows)]
    index = {"images": names, "categories": categories}
    (tmp_path / "images.json").write_text(json.dumps(index))
    found = detections_of(rows, seed=3)
    (tmp_path / "results.json").write_text(json.dumps(found))
    about = {"format": "coco_results", "images": str(tmp_path / "images.json")}
    report = evaluated(
        tmp_path,
        truth,
        str(tmp_path / "results.json"),
        predictions=about,
        bootstrap={"resamples": 20},
        slices={"size": False},
    )
    expected = by_pycocotools({**index, "annotations": objects}, found, "segm")
    values = [report["instance"]["mask"][name]["value"] for name in FIGURES]
    assert [-1.0 if value is None else value for value in values] == pytest.approx(expected, abs=1e-6)
    found = [{key: value for key, value in entry.items() if key != "bbox"} for entry in found]  # loadRes has added it
    expected = by_pycocotools({**index, "annotations": objects}, found, "bbox")
    values = [report["instance"]["box"][name]["value"] for name in FIGURES]
    assert [-1.0 if value is None else value for value in values] == pytest.approx(expected, abs=1e-6)

    # Parts and the report gone, as after a kill: the same command gives the same bytes again.
    kept = {path: path.read_bytes() for path in (tmp_path / "scores").rglob("*") if path.is_file()}
    removed = [tmp_path / "scores" / "report.json", max((tmp_path / "scores" / "scores").iterdir())]
    for path in removed:
        path.unlink()
    again = evaluated(
        tmp_path,
        truth,
        str(tmp_path / "results.json"),
        predictions=about,
        bootstrap={"resamples": 20},
        slices={"size": False},
    )
    assert again == report
    assert {path: path.read_bytes() for path in kept} == kept
