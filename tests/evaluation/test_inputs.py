"""Predictions of other tools and other spellings: scored as the same masks in a manifest are."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.config import EvaluateConfig
from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.evaluation.inputs import match_categories, open_pairing
from segjobs.manifest.schema import Category
from segjobs.storage import Storage
from tests.made import GREY, TRUTH, class_values, evaluated, manifest


def classes(*names: str) -> tuple[Category, ...]:
    return tuple(Category(10 + number, name, GREY) for number, name in enumerate(names))


def test_classes_are_matched_by_name_whatever_the_spelling() -> None:
    truth = classes("traffic light", "Sky", "road")
    assert match_categories(classes("sky", "Traffic_Light", "road"), truth, {}) == {10: 1, 11: 0, 12: 2}
    # The exact name goes first where two differ by spelling only.
    assert match_categories(classes("Car", "car"), classes("car", "Car"), {}) == {10: 1, 11: 0}
    assert match_categories(classes("street", "dog"), truth, {"street": "road", "dog": None}) == {10: 2, 11: None}
    with pytest.raises(ConfigError) as caught:
        match_categories(classes("rode", "CAR"), classes("road", "Car", "car"), {"skies": "sky"})
    skies, rode, car = caught.value.problems
    assert skies.startswith("rename: 'skies' is no class of the predictions")
    assert rode.startswith("predictions: class 'rode' is not in the truth; did you mean 'road'?")
    assert car.startswith("predictions: class 'CAR' is not in the truth"), "two classes are spelled like it"


def test_label_pngs_of_another_tool(ray_session: None, tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"d/a.jpg": ["ssrr"], "d/b.jpg": ["tt"], "d/c.jpg": ["ss"]}, cut=[1])
    folder = tmp_path / "masks" / "d"
    folder.mkdir(parents=True)
    # 1 sky, 2 road, 4 tree, 8 car; 0 is not predicted.
    for name, pixels in (("a_seg", [[1, 2, 2, 0]]), ("b_seg", [[4, 4, 4]]), ("z_seg", [[1, 1]])):
        Image.fromarray(np.array(pixels, np.uint8)).save(folder / f"{name}.png")
    about = {"format": "png", "ids": [1, 2, 4, 8], "void_ids": [0], "suffix": "_seg"}
    report = evaluated(tmp_path, truth, str(tmp_path / "masks"), predictions=about)
    assert report["images"] == {"ok": 1, "missing": 1, "failed": 1, "no_truth": 0, "extra": 1}
    assert report["examples"] == {"failed": ["d/b.jpg"], "missing": ["d/c.jpg"], "extra": ["d/z_seg.png"]}
    # Sky: 1 of 4 right, none too many; road: 1 of 2, one too many.
    assert class_values(report, "iou") == [1 / 4, 1 / 3, 0.0, None]
    with pytest.raises(ConfigError, match=r"predictions\.ids: 2 ids for 4 classes"):
        evaluated(tmp_path, truth, str(tmp_path / "masks"), "wrong", predictions={**about, "ids": [1, 2]})
    with pytest.raises(ConfigError, match=r"no \.png below it"):
        evaluated(tmp_path, truth, str(tmp_path / "truth"), "none", predictions=about)


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
    read, uri = pairing.predictions.foreign, span.foreign["a.jpg"]
    assert read is not None
    assert [segment["category"] for segment in read(uri, (1, 4))] == ["sky", "road"]
    path.write_bytes(path.read_bytes() + bytes(200))
    with pytest.raises(ItemError, match=r"TOO_LARGE: .*a\.png: \d+ bytes, storage\.max_item_bytes is 200"):
        read(uri, (1, 4))
    path.unlink()
    with pytest.raises(ItemError, match=r"NOT_FOUND: .*a\.png: the mask is gone"):
        read(uri, (1, 4))


def test_coco_results_of_another_tool(ray_session: None, tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a.jpg": ["ssrr", "ssrr"], "b.jpg": ["tt"]}, task="instance")
    images = [{"id": 7, "file_name": "b.jpg"}, {"id": 8, "file_name": "a.jpg"}]
    names = [{"id": number, "name": category.name} for number, category in enumerate(TRUTH)]
    (tmp_path / "images.json").write_text(json.dumps({"images": images, "categories": names}))
    detections = [
        {"image_id": 8, "category_id": 0, "score": 0.9, "segmentation": {"size": [2, 4], "counts": [0, 4, 4]}},
        {"image_id": 8, "category_id": 1, "score": 0.8, "segmentation": {"size": [2, 4], "counts": [4, 2, 2]}},
    ]
    (tmp_path / "results.json").write_text(json.dumps(detections))
    about = {"format": "coco_results", "images": str(tmp_path / "images.json")}
    report = evaluated(tmp_path, truth, str(tmp_path / "results.json"), predictions=about)
    # Sky is found exactly; road at IoU 1/2, which counts at the lowest of ten thresholds; the tree is missed.
    precision = [row["mask_AP"]["value"] for row in report["instance"]["per_class"]]
    assert precision[:3] == pytest.approx([1.0, 0.1, 0.0]) and precision[3] is None
    assert class_values(report, "iou") == [1.0, 1 / 2, 0.0, None], "the union of a class's objects"
    assert report["semantic"]["confusion"] is None
    assert report["panoptic"]["per_class"][0]["pq"]["value"] == 1.0
    (tmp_path / "results.json").write_text(json.dumps([{"image_id": 8}]))
    with pytest.raises(ManifestError, match="entry 0 lacks category_id, score, segmentation"):
        evaluated(tmp_path, truth, str(tmp_path / "results.json"), "bad", predictions=about)
    (tmp_path / "results.json").write_text(json.dumps([{**detections[0], "image_id": 9}]))
    with pytest.raises(ManifestError, match=r"image_id 9 is not in .*images\.json"):
        evaluated(tmp_path, truth, str(tmp_path / "results.json"), "stranger", predictions=about)
