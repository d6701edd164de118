"""YOLO segmentation text: lines to masks as COCO rasterises their polygons, and every flaw named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import Masks, Policy, UnknownId
from segjobs.labels.yolo import masks_of
from segjobs.manifest.rle import decode
from segjobs.manifest.schema import Category

CATEGORIES = (Category(0, "cat", (1, 0, 0)), Category(1, "dog", (0, 1, 0)))
SQUARE = "1 0.2 0.25 0.6 0.25 0.6 0.75 0.2 0.75"  # on 4 x 5: x 1 to 3, y 1 to 3


def test_shares_become_pixels() -> None:
    masks = masks_of(f"{SQUARE}\n\n", (4, 5), CATEGORIES)
    (row,) = masks.segments
    assert (row.category, row.category_id, row.area, list(row.bbox)) == ("dog", 1, 4, [1.0, 1.0, 2.0, 2.0])
    assert np.argwhere(decode(row.counts, (4, 5))).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert masks.findings == ()


def test_a_class_may_be_written_as_a_decimal() -> None:
    assert masks_of(SQUARE.replace("1 ", "1.000000 ", 1), (4, 5), CATEGORIES) == masks_of(SQUARE, (4, 5), CATEGORIES)


def test_each_split_has_its_own_folder_of_labels(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    for split in ("train", "valid"):
        for folder in ("images", "labels"):
            (tmp_path / split / folder).mkdir(parents=True)
        Image.new("RGB", (5, 4)).save(tmp_path / split / "images/1.jpg")
        (tmp_path / split / "labels/1.txt").write_text(SQUARE if split == "train" else "")
    _, found = read_labels(tmp_path, format="yolo", uri=str(tmp_path), categories=["cat", "dog"])
    assert {name: len(masks.segments) for name, masks in found.items()} == {
        "train/images/1.jpg": 1,
        "valid/images/1.jpg": 0,
    }


def test_an_empty_file_holds_no_object() -> None:
    assert masks_of("\n", (4, 5), CATEGORIES) == Masks([])


def test_random_polygons_equal_pycocotools() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        height, width = (int(edge) for edge in rng.integers(5, 60, 2))
        points = rng.random(2 * int(rng.integers(3, 9)))
        line = "0 " + " ".join(f"{value:.9f}" for value in points)
        shares = np.array([float(word) for word in line.split()[1:]])
        shares[0::2] *= width
        shares[1::2] *= height
        expected = coco_mask.decode(coco_mask.frPyObjects([shares.tolist()], height, width))[..., 0].astype(bool)
        rows = masks_of(line, (height, width), CATEGORIES).segments
        if expected.any():
            assert np.array_equal(decode(rows[0].counts, (height, width)), expected)
        else:
            assert rows == []


def test_what_is_no_area_is_left_out_and_counted() -> None:
    text = f"0 0.5 0.5 0.2 0.2\n{SQUARE}\n0 0.1 0.1 0.1 0.1 0.1 0.1\n0 -0.5 0 0.5 0 0.5 0.5"
    masks = masks_of(text, (40, 50), CATEGORIES)
    assert [row.category for row in masks.segments] == ["dog", "cat"]
    assert {(one.check, one.count, one.detail) for one in masks.findings} == {
        ("without_mask", 1, "line 1"),
        ("empty_masks", 1, "line 3"),
        ("outside_frame", 1, "line 4"),
    }
    assert masks.segments[1].bbox[:2] == (0.0, 0.0), "cut off at the frame"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("2 0 0 1 0 1 1", UnknownId, r"classes 2 \(1 annotations\) are not in the class table"),
        ("0.5 0 0 1 0 1 1", ItemError, "line 1: '0.5 0 0 1 0 1 1': expected a class number"),
        ("inf 0 0 1 0 1 1", ItemError, "expected a class number"),
        ("cat 0 0 1 0 1 1", ItemError, "line 1: 'cat 0 0 1 0 1 1': expected a class number"),
        ("0 0 0 1 0 1 1 0.5", ItemError, "line 1: 7 coordinates; expected pairs"),
        ("0 0 0 1 0 1 nan", ItemError, "line 1: polygon"),
        ("0 0 0 1 0 640 480", ItemError, "line 1: polygon .* far outside"),
    ],
)
def test_flaws_of_a_line(text: str, kind: type[ItemError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        masks_of(text, (4, 5), CATEGORIES)
    assert caught.value.code == "LABEL_VALUE"


def test_unknown_classes_may_be_left_out() -> None:
    masks = masks_of(f"7 0 0 1 0 1 1\n{SQUARE}", (4, 5), CATEGORIES, Policy("ignore"))
    assert [row.category for row in masks.segments] == ["dog"]


def test_files_are_matched_and_names_come_from_data_yaml(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (5, 4)).save(tmp_path / f"images/train/{name}.jpg")
    (tmp_path / "labels/train/a.txt").write_text(SQUARE)
    (tmp_path / "labels/train/c.txt").write_text("")
    (tmp_path / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    settings = {"format": "yolo", "uri": str(tmp_path / "labels")}
    labels, found = read_labels(tmp_path / "images", **settings, class_file=str(tmp_path / "data.yaml"))
    assert [category.name for category in labels.categories] == ["cat", "dog"]
    assert isinstance(found["train/a.jpg"], Masks) and found["train/b.jpg"] is None
    assert labels.leftovers[0].examples == ("train/c.txt",)
    with pytest.raises(ConfigError, match=r"labels\.categories: missing; yolo labels need class names"):
        read_labels(tmp_path / "images", **settings)
