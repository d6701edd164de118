"""Predictions of other tools: scored as the same masks in a manifest are, and as pycocotools scores the same files."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segjobs.config import EvaluateConfig
from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.evaluation.inputs import open_pairing
from segjobs.evaluation.report_types import Report
from segjobs.manifest.schema import Category
from segjobs.metrics.names import KINDS, MatchKind
from segjobs.storage import Storage
from tests.made import TRUTH, coco_truth, manifest, scored

NO_INTERVALS = {"bootstrap": {"resamples": 0}}


def values(report: Report, name: str) -> list[float | None]:
    return [getattr(row, name).value for row in report.semantic.per_class]


# --- label PNGs --------------------------------------------------------------------------------


def test_label_pngs_of_another_tool(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"d/a.jpg": ["ssrr"], "d/b.jpg": ["tt"], "d/c.jpg": ["ss"]}, cut=[1])
    folder = tmp_path / "masks" / "d"
    folder.mkdir(parents=True)
    # 1 sky, 2 road, 4 tree, 8 car; 0 is not predicted.
    for name, pixels in (("a_seg", [[1, 2, 2, 0]]), ("b_seg", [[4, 4, 4]]), ("z_seg", [[1, 1]])):
        Image.fromarray(np.array(pixels, np.uint8)).save(folder / f"{name}.png")
    about = {"format": "png", "ids": [1, 2, 4, 8], "void_ids": [0], "suffix": "_seg"}
    report = scored(tmp_path, truth, str(tmp_path / "masks"), predictions=about, **NO_INTERVALS)
    assert report.images == {"ok": 1, "missing": 1, "failed": 1, "no_truth": 0, "extra": 1}
    assert report.examples == {"failed": ("d/b.jpg",), "missing": ("d/c.jpg",), "extra": ("d/z_seg.png",)}
    # Sky: 1 of 4 right, none too many; road: 1 of 2, one too many.
    assert values(report, "iou") == [1 / 4, 1 / 3, 0.0, None]
    (failure,) = report.failures
    assert (failure.status, failure.code, failure.images, failure.image_id) == ("failed", "LABEL_SHAPE", 1, "d/b.jpg")
    with pytest.raises(ConfigError, match=r"predictions\.ids: 2 ids for 4 classes"):
        scored(tmp_path, truth, str(tmp_path / "masks"), "wrong", predictions={**about, "ids": [1, 2]})
    with pytest.raises(ConfigError, match=r"no \.png below it"):
        scored(tmp_path, truth, str(tmp_path / "truth"), "none", predictions=about)
    with pytest.raises(
        ConfigError, match=r"^predictions\.uri: no mask matches an image: 3 images such as 'd/a\.jpg', 3"
    ):
        scored(tmp_path, truth, str(tmp_path / "masks"), "apart", predictions={**about, "suffix": ""})
    with pytest.raises(ConfigError, match=r"^predictions\.suffix: none of 3 files, such as 'd/a_seg\.png', ends with"):
        scored(tmp_path, truth, str(tmp_path / "masks"), "other", predictions={**about, "suffix": "_mask"})


def test_a_label_png_that_cannot_be_had_fails_its_image_alone(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a.jpg": ["ssrr"]})
    path = tmp_path / "masks" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.array([[3, 3, 7, 7]], np.uint8)).save(path)
    sides = {"predictions": {"uri": str(path.parent), "format": "png"}, "truth": {"uri": truth}}
    config = EvaluateConfig.model_validate(
        {**sides, "output": {"uri": str(tmp_path / "scores")}, "storage": {"max_item_bytes": 200}}
    )
    pairing, (span,), _ = open_pairing(config, Storage(config.storage), config.predictions, truth)
    assert pairing.predictions.foreign is not None and span.foreign is not None
    read, uri = pairing.predictions.foreign, span.foreign["a.jpg"]
    assert [segment.category for segment in read(uri, (1, 4)).segments] == ["sky", "road"]
    path.write_bytes(path.read_bytes() + bytes(200))
    with pytest.raises(ItemError, match=r"TOO_LARGE: .*a\.png: \d+ bytes, storage\.max_item_bytes is 200"):
        read(uri, (1, 4))
    path.unlink()
    with pytest.raises(ItemError, match=r"NOT_FOUND: .*a\.png: the mask is gone"):
        read(uri, (1, 4))


# --- COCO results ------------------------------------------------------------------------------


def files(folder: Path, document: Any, results: Any) -> dict[str, Any]:
    """The two files, and what evaluate is told of the predictions."""
    (folder / "instances.json").write_text(json.dumps(document))
    (folder / "results.json").write_text(json.dumps(results))
    return {"format": "coco_results", "images": str(folder / "instances.json")}


def test_coco_results_of_another_tool(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a.jpg": ["ssrr", "ssrr"], "b.jpg": ["tt"]}, task="instance")
    images = [{"id": 7, "file_name": "b.jpg"}, {"id": 8, "file_name": "a.jpg"}]
    names = [{"id": number, "name": category.name} for number, category in enumerate(TRUTH)]
    detections: list[dict[str, Any]] = [
        {"image_id": 8, "category_id": 0, "score": 0.9, "segmentation": {"size": [2, 4], "counts": [0, 4, 4]}},
        {"image_id": 8, "category_id": 1, "score": 0.8, "segmentation": {"size": [2, 4], "counts": [4, 2, 2]}},
    ]
    about = files(tmp_path, {"images": images, "categories": names}, detections)
    uri = str(tmp_path / "results.json")
    report = scored(tmp_path, truth, uri, predictions=about, **NO_INTERVALS)
    # Sky is found exactly; road at IoU 1/2, which counts at the lowest of ten thresholds; the tree is missed.
    assert report.instance is not None and report.panoptic is not None
    precision = [row.mask_AP.value for row in report.instance.per_class]
    assert precision[:3] == pytest.approx([1.0, 0.1, 0.0]) and precision[3] is None
    assert values(report, "iou") == [1.0, 1 / 2, 0.0, None], "the union of a class's objects"
    assert report.semantic.confusion is None
    assert report.panoptic.per_class[0].pq.value == 1.0
    boxes = [{**one, "segmentation": None, "bbox": [0, 0, 1, 1]} for one in detections]
    wrong: dict[str, Any] = {
        "entry 0 lacks category_id, score": [{"image_id": 8}],
        "entry 0 lacks segmentation or bbox": [{**detections[0], "segmentation": []}],
        r"image_id 9 is not in .*images\.json": [{**detections[0], "image_id": 9}],
        "entry 1 has no segmentation, others have: masks are all or none": [detections[0], boxes[1]],
        "expected a JSON list of detections": {"annotations": []},
    }
    for number, (message, results) in enumerate(wrong.items()):
        files(tmp_path, {"images": images, "categories": names}, results)
        with pytest.raises(ManifestError, match=message.replace("images", "instances")):
            scored(tmp_path, truth, uri, f"wrong{number}", predictions=about)
    files(tmp_path, {"images": images, "categories": names}, boxes)
    semantic = manifest(tmp_path / "semantic", {"a.jpg": ["ssrr", "ssrr"]})
    with pytest.raises(ConfigError, match="boxes alone, which can only be scored against objects"):
        scored(tmp_path, semantic, uri, "flat", predictions=about)


def made_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO set and detections: sizes of all classes, areas and boxes that are not the masks', crowds, an object
    thinner than the raster, equal scores, names in another order than the ids."""
    random = np.random.default_rng(seed)
    images = [
        {"id": int(n), "file_name": f"{9 - k}.png", "height": 150, "width": 160} for k, n in enumerate((3, 20, 7))
    ]
    annotations, results = [], []

    def quad(x: float, y: float, w: float, h: float) -> list[list[float]]:
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]

    for image in images:
        for _ in range(8):
            x, y = random.uniform(0, 50, 2)
            w, h = random.choice([8, 30, 60, 100]) * random.uniform(0.8, 1.0, 2)
            place = {"image_id": image["id"], "category_id": int(random.integers(1, 3))}
            moved = random.uniform(-4, 4, 2)
            annotations.append(
                {
                    **place,
                    "iscrowd": int(random.random() < 0.1),
                    "segmentation": quad(x, y, w, h),
                    "bbox": [x + moved[0], y, w, h + moved[1]],
                    "area": w * h * random.uniform(0.5, 1.2),
                }
            )
            for _ in range(int(random.integers(0, 3))):
                dx, dy, dw, dh = random.uniform(-5, 5, 4)
                own = [x + dx, y + dy, max(1, w + dw), max(1, h + dh)]
                results.append(
                    {**place, "score": float(random.choice([0.5, 0.75, 1.0])), "segmentation": own, "bbox": own}
                )
        thin = [[5, 5, 60, 5, 60, 5.1, 5, 5.1]]
        thin_box = {"bbox": [5, 3, 55, 4], "area": 220.0}
        annotations.append({"image_id": image["id"], "category_id": 2, "iscrowd": 0, "segmentation": thin, **thin_box})
        results.append({"image_id": image["id"], "category_id": 2, "score": 0.6, "segmentation": thin_box["bbox"]})
        results[-1]["bbox"] = thin_box["bbox"]
    for number, one in enumerate(annotations):
        one["id"] = number + 1
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    coco = COCO()
    coco.dataset = document
    for one in results:
        x, y, w, h = one["segmentation"]
        coco.imgs = {image["id"]: image for image in images}
        rle = coco.annToRLE({"image_id": one["image_id"], "segmentation": quad(x + 1, y, max(1, w - 2), h)})
        one["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    return document, results


def by_pycocotools(document: dict[str, Any], results: list[dict[str, Any]], kind: MatchKind) -> list[float | None]:
    """The twelve numbers; None for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(document))
        truth.createIndex()
        scoring = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "segm" if kind == "mask" else "bbox")
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    return [None if value == -1 else float(value) for value in scoring.stats]


def twelve(report: Report, kind: MatchKind) -> list[Any]:
    assert report.instance is not None
    return [None if f.value is None else pytest.approx(f.value, abs=1e-9) for f in report.instance.of(kind).values()]


@pytest.mark.parametrize("seed", range(3))
def test_the_twelve_numbers_are_pycocotools_on_the_same_two_files(tmp_path: Path, seed: int) -> None:
    document, results = made_set(seed)
    truth = coco_truth(tmp_path / "truth", document)
    about = files(tmp_path, document, results)
    report = scored(tmp_path, truth, str(tmp_path / "results.json"), predictions=about, **NO_INTERVALS)
    masks = [{key: value for key, value in one.items() if key != "bbox"} for one in results]
    assert by_pycocotools(document, masks, "mask") == twelve(report, "mask"), "the area of a mask is its own"
    assert by_pycocotools(document, results, "box") == twelve(report, "box")
    assert any("their own; boxes of the predictions: their own" in note for note in report.notes)

    about = files(tmp_path, document, masks)
    report = scored(tmp_path, truth, str(tmp_path / "results.json"), "masks", predictions=about, **NO_INTERVALS)
    for kind in KINDS:
        assert by_pycocotools(document, masks, kind) == twelve(report, kind)

    boxes = [{key: value for key, value in one.items() if key != "segmentation"} for one in results]
    about = files(tmp_path, document, boxes)
    report = scored(tmp_path, truth, str(tmp_path / "results.json"), "boxes", predictions=about, **NO_INTERVALS)
    assert by_pycocotools(document, boxes, "box") == twelve(report, "box")
    assert twelve(report, "mask") == [None] * 12 and report.panoptic is None
    assert report.semantic.headline["mean_iou"].value is None, "no pixel was predicted, none is wrong"


@pytest.mark.parametrize("stated", [True, False])
def test_a_truth_of_boxes_alone_is_scored_by_boxes_as_pycocotools_does(tmp_path: Path, stated: bool) -> None:
    """With the areas that the JSON states, or those of the boxes; against masks, and against boxes."""
    document, results = made_set(3)
    dropped = ("segmentation",) if stated else ("segmentation", "area")
    annotations = document["annotations"]
    document["annotations"] = [{key: one[key] for key in one if key not in dropped} for one in annotations]
    truth = coco_truth(tmp_path / "truth", document)
    areas = [{"area": one["bbox"][2] * one["bbox"][3], **one} for one in document["annotations"]]
    expected = by_pycocotools({**document, "annotations": areas}, results, "box")
    for name, left_out in (("masks", ""), ("boxes", "segmentation")):
        about = files(tmp_path, document, [{key: one[key] for key in one if key != left_out} for one in results])
        report = scored(tmp_path, truth, str(tmp_path / "results.json"), name, predictions=about, **NO_INTERVALS)
        assert expected == twelve(report, "box")
        assert twelve(report, "mask") == [None] * 12 and report.panoptic is None
        assert report.semantic.headline["mean_iou"].value is None
        assert report.notes[0].endswith("boxes alone: objects are scored by boxes, and no pixel is")
    with pytest.raises(ManifestError, match=r"truth has boxes alone, .*; the predictions are semantic"):
        flat = manifest(
            tmp_path / "flat", {"9.png": ["ab"]}, [Category(1, "a", (1, 1, 1)), Category(2, "b", (2, 2, 2))]
        )
        scored(tmp_path, truth, flat, "flat")


def test_a_hundred_detections_bound_the_recall(tmp_path: Path) -> None:
    """150 cells of one image, all found: COCO counts a hundred."""
    places = [[13 * (n % 15), 13 * (n // 15), 9, 9] for n in range(150)]
    quads = [[[x, y, x + w, y, x + w, y + h, x, y + h]] for x, y, w, h in places]
    shared = {"image_id": 1, "category_id": 1}
    objects = [{**shared, "id": n + 1, "iscrowd": 0, "segmentation": quad} for n, quad in enumerate(quads)]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 200, "width": 200}],
        "annotations": objects,
        "categories": [{"id": 1, "name": "cell"}],
    }
    found = [{**shared, "score": 0.5 + n / 1000, "segmentation": quad} for n, quad in enumerate(quads)]
    about = files(tmp_path, document, found)
    truth = coco_truth(tmp_path / "truth", document)
    report = scored(tmp_path, truth, str(tmp_path / "results.json"), predictions=about, **NO_INTERVALS)
    assert report.instance is not None and report.instance.mask["AR100"].value == pytest.approx(100 / 150)
    assert report.notes[0].startswith("1 image(s) have more than 100 objects or detections of a class")
    assert report.notes[0].endswith("AR100 cannot exceed 0.667")


def test_a_truth_of_crowds_alone_is_told_and_can_be_taken_as_objects(tmp_path: Path) -> None:
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    shared = {"image_id": 1, "category_id": 1, "segmentation": square}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
        "annotations": [{**shared, "id": 1, "iscrowd": 1}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    about = files(tmp_path, document, [{**shared, "score": 0.9}])
    uri, reports = str(tmp_path / "results.json"), {}
    for crowds in ("as_regions", "as_objects"):
        truth = coco_truth(tmp_path / crowds, document, crowds=crowds)
        reports[crowds] = scored(tmp_path, truth, uri, f"scores_{crowds}", predictions=about, **NO_INTERVALS)
    precision = {crowds: report.instance and report.instance.mask["AP"].value for crowds, report in reports.items()}
    assert precision == {"as_regions": None, "as_objects": pytest.approx(1.0)}
    assert "every object of the truth is a crowd region (1)" in reports["as_regions"].notes[0]
    assert not any("crowd" in note for note in reports["as_objects"].notes)
