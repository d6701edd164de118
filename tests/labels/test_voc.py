"""PASCAL VOC folders: class and object PNGs, and the set's own lists of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError
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


def test_lists_name_images_by_path_or_by_file_name(voc: Path, read_labels: Callable[..., Any]) -> None:
    (voc / "JPEGImages/sub").mkdir()
    (voc / "JPEGImages/b.jpg").rename(voc / "JPEGImages/sub/b.jpg")
    (voc / "ImageSets/Segmentation/train.txt").write_text("# lists\na.jpg\r\nx/c\n")
    (voc / "ImageSets/Segmentation/val.txt").write_text("sub/b\n")
    settings = {"format": "voc", "uri": str(voc)}
    assert read_labels(voc / "JPEGImages", **settings)[0].listed == {"a.jpg", "sub/b.jpg"}
    for name in ("train", "val"):
        (voc / f"ImageSets/Segmentation/{name}.txt").write_text("other\n")
    with pytest.raises(ConfigError, match=r"none of its 1 names, such as 'other', is an image of the input"):
        read_labels(voc / "JPEGImages", **settings)


@pytest.fixture
def cvat(tmp_path: Path) -> Path:
    """Classes and objects as colours: a cat of two pixels, a dog of one that touches it, a border, and a second dog."""
    classes = [[(48, 112, 32), (48, 112, 32), (176, 112, 32)], [(0, 0, 0), (224, 224, 192), (176, 112, 32)]]
    objects = [[(0, 128, 0), (0, 128, 0), (128, 0, 0)], [(0, 0, 0), (224, 224, 192), (9, 9, 9)]]
    for folder, colors in {"SegmentationClass": classes, "SegmentationObject": objects}.items():
        (tmp_path / folder / "sub").mkdir(parents=True)
        Image.fromarray(np.array(colors, np.uint8)).save(tmp_path / folder / "sub/a.png")
    (tmp_path / "JPEGImages/sub").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "JPEGImages/sub/a.jpg")
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nCat:48,112,32::\nDog:176,112,32::\n"
    (tmp_path / "labelmap.txt").write_text(lines)
    return tmp_path


@pytest.mark.parametrize("names", [None, ["background", "Cat", "Dog"]])
def test_colours_are_read_by_the_labelmap(cvat: Path, names: list[str] | None, read_labels: Callable[..., Any]) -> None:
    settings = {"format": "voc", "uri": str(cvat), "categories": names}
    labels, found = read_labels(cvat / "JPEGImages", **settings)
    assert [(one.id, one.name, one.color) for one in labels.categories][1] == (1, "Cat", (48, 112, 32))
    assert [(one.category, one.area) for one in found["sub/a.jpg"].segments] == [
        ("background", 1),
        ("Cat", 2),
        ("Dog", 2),
    ]
    _, found = read_labels(cvat / "JPEGImages", **settings, task="instance")
    assert [(one.category, one.area, one.bbox[:2]) for one in found["sub/a.jpg"].segments] == [
        ("Dog", 1, (2.0, 0.0)),
        ("Cat", 2, (0.0, 0.0)),
        ("Dog", 1, (2.0, 1.0)),
    ], "in the order of VOC's colour map"


def test_flaws_of_a_labelmap(cvat: Path, read_labels: Callable[..., Any]) -> None:
    settings = {"format": "voc", "uri": str(cvat)}
    with pytest.raises(ConfigError, match=r"'Cta' is not in labelmap\.txt; did you mean 'Cat'"):
        read_labels(cvat / "JPEGImages", **settings, categories=["background", "Cta"])
    _, found = read_labels(cvat / "JPEGImages", **settings, categories=["background", "Cat"])
    assert found["sub/a.jpg"].code == "LABEL_VALUE" and "(176, 112, 32) (2 px)" in found["sub/a.jpg"].message
    for text, message in {"a:1,2::": "line 1: 'a:1,2::'", "a:1,2,3\nb:1,2,3": "line 2: 'b' or its colour"}.items():
        (cvat / "labelmap.txt").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_labels(cvat / "JPEGImages", **settings)


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
