"""PASCAL VOC folders: class and object PNGs, and the set's own lists of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.labels.base import UnknownId
from segjobs.labels.class_tables import class_table
from segjobs.labels.voc import objects_of
from segjobs.manifest.rle import decode

TABLE = class_table(LabelsConfig(format="voc", uri="x", table="voc"))


def test_objects_take_the_class_under_them() -> None:
    objects = np.array([[1, 1, 1, 2], [0, 255, 3, 2], [4, 4, 4, 4]], np.uint8)
    classes = np.array([[8, 8, 255, 12], [0, 255, 255, 12], [0, 0, 0, 0]], np.uint8)
    masks = objects_of(objects, classes, TABLE)
    assert [(row.category, row.area, list(row.bbox)) for row in masks.segments] == [
        ("cat", 3, [0.0, 0.0, 3.0, 1.0]),
        ("dog", 2, [3.0, 0.0, 1.0, 2.0]),
    ]
    assert [(one.check, one.count) for one in masks.findings] == [("void", 2)]
    with pytest.raises(UnknownId, match=r"class ids 77 \(1 objects\)"):
        objects_of(np.ones((1, 1), np.uint8), np.full((1, 1), 77, np.uint8), TABLE)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b", "c", "photo"):
        Image.new("RGB", (2, 1)).save(tmp_path / f"JPEGImages/{name}.jpg")
    for name in ("a", "b", "gone"):
        Image.fromarray(np.array([[8, 0]], np.uint8)).save(tmp_path / f"SegmentationClass/{name}.png")
        Image.fromarray(np.array([[1, 0]], np.uint8)).save(tmp_path / f"SegmentationObject/{name}.png")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nc\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    return tmp_path


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_the_lists_of_the_set_say_which_images_belong(voc: Path, task: str, read_labels: Callable[..., Any]) -> None:
    labels, found = read_labels(voc / "JPEGImages", format="voc", uri=str(voc), task=task)
    assert (labels.task, labels.listed) == (task, {"a.jpg", "b.jpg", "c.jpg"})
    assert [(one.check, one.examples) for one in labels.leftovers] == [("labels_without_image", ("gone.png",))]
    names = {name: [row.category for row in masks.segments] if masks else None for name, masks in found.items()}
    expected = ["background", "cat"] if task == "semantic" else ["cat"]
    assert names == {"a.jpg": expected, "b.jpg": expected, "c.jpg": None, "photo.jpg": None}


def test_a_folder_without_lists_holds_what_it_holds(voc: Path, read_labels: Callable[..., Any]) -> None:
    (voc / "ImageSets").rename(voc / "elsewhere")
    assert read_labels(voc / "JPEGImages", format="voc", uri=str(voc))[0].listed is None


def test_objects_of_real_photographs(shared_data: Path, read_labels: Callable[..., Any]) -> None:
    folder = shared_data / "labelme_examples/instance_segmentation/data_dataset_voc"
    labels, found = read_labels(
        folder / "JPEGImages",
        format="voc",
        uri=str(folder),
        task="instance",
        class_file=str(folder / "class_names.txt"),
    )
    assert labels.categories[20].name == "tv/monitor"
    kinds = {name: [row.category for row in masks.segments] for name, masks in found.items()}
    assert kinds == {
        "2011_000003.jpg": ["person", "person", "bottle"],
        "2011_000006.jpg": ["person", "person", "person", "chair", "person", "sofa"],
        "2011_000025.jpg": ["bus", "bus", "car"],
    }
    for name, masks in found.items():
        with Image.open(folder / "SegmentationObject" / name.replace("jpg", "png")) as image:
            ids = np.asarray(image)
        first = masks.segments[0].segmentation
        assert np.array_equal(decode(first["counts"], ids.shape), ids == 1)
