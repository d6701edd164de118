"""Instance-id maps of 8, 16 and 32 bits: one object per value, whatever values they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ConfigError, ItemError
from segjobs.labels.instance_ids import masks_of
from segjobs.manifest.rle import decode
from segjobs.manifest.schema import Category

CELL = Category(0, "cell", (128, 0, 0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_each_value_is_an_object(dtype: type) -> None:
    ids = np.array([[0, 200, 3], [3, 200, 0], [3, 0, 3]], dtype)
    one, two = masks_of(ids, CELL).segments
    assert (one.area, list(one.bbox), two.area, list(two.bbox)) == (4, [0.0, 0.0, 3.0, 3.0], 2, [1.0, 0.0, 1.0, 2.0])
    assert decode(one.counts, (3, 3)).tolist() == (ids == 3).tolist()
    assert [row.area for row in masks_of(ids, CELL, (3,)).segments] == [2]


def test_values_at_the_ends_of_their_types() -> None:
    assert [row.area for row in masks_of(np.array([[255, 0]], np.uint8), CELL).segments] == [1]
    assert [row.area for row in masks_of(np.array([[65535, 65534, 65534]], np.uint16), CELL).segments] == [2, 1]
    assert [row.area for row in masks_of(np.array([[2**31 - 1, 0, 70000]], np.int32), CELL).segments] == [1, 1]
    with pytest.raises(ItemError, match="2 ids from -1: expected 0"):
        masks_of(np.array([[-1, 0]], np.int32), CELL)


def test_random_maps_against_a_loop_over_ids() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        ids = rng.integers(0, 6, (9, 7)).astype(np.uint16) * 13107
        rows = masks_of(ids, CELL).segments
        expected = [value for value in np.unique(ids) if value]
        assert [row.area for row in rows] == [int((ids == value).sum()) for value in expected]
        for row, value in zip(rows, expected, strict=True):
            assert np.array_equal(decode(row.counts, ids.shape), ids == value)


def test_nuclei_of_16_bits(shared_data: Path, tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    folder = shared_data / "stardist_nuclei"
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "images/nuclei.tif").symlink_to(folder / "img2d.tif")
    (tmp_path / "masks/nuclei.tif").symlink_to(folder / "mask2d.tif")
    labels, found = read_labels(
        tmp_path / "images", format="instance_ids", uri=str(tmp_path / "masks"), categories=["nucleus"]
    )
    with Image.open(folder / "mask2d.tif") as image:
        ids = np.asarray(image)
    rows = found["nuclei.tif"].segments
    values, counts = np.unique(ids[ids > 0], return_counts=True)
    assert (labels.task, [category.name for category in labels.categories]) == ("instance", ["nucleus"])
    assert [row.area for row in rows] == counts.tolist()
    assert len(rows) == 125
    assert np.array_equal(decode(rows[-1].counts, ids.shape), ids == values[-1])


CITY = [[7, 23, 26001, 26001], [24000, 26, 26002, 26002], [29001, 0, 4, 26002]]


def test_ids_of_cityscapes_say_their_class(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    for folder, name, image in (
        ("images/x", "a_leftImg8bit", Image.new("RGB", (4, 3))),
        ("gt/x", "a_gtFine_instanceIds", Image.fromarray(np.array(CITY, np.uint16))),
    ):
        (tmp_path / folder).mkdir(parents=True)
        image.save(tmp_path / folder / f"{name}.png")
    settings = {"format": "instance_ids", "uri": str(tmp_path / "gt"), "suffix": "_gtFine_instanceIds"}
    for more in ({}, {"table": "cityscapes_ids"}):
        labels, found = read_labels(tmp_path / "images", **settings, **more)
        (masks,) = found.values()
        assert [(row.category, row.category_id, row.area, row.iscrowd) for row in masks.segments] == [
            ("car", 13, 1, True),  # 26: a group of cars
            ("person", 11, 1, False),
            ("car", 13, 2, False),
            ("car", 13, 3, False),
        ]
        assert [category.name for category in labels.categories][:3] == ["person", "rider", "car"]


def test_ids_of_any_divisor(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg")
    Image.fromarray(np.array([[1001, 2003, 10000], [1, 0, 2003]], np.uint16)).save(tmp_path / "a.png")
    settings = {"format": "instance_ids", "uri": str(tmp_path), "divisor": 1000, "void_ids": [10000]}
    _, found = read_labels(tmp_path / "a.jpg", **settings, categories=["car", "pedestrian"])
    rows = found["a.jpg"].segments
    assert [(row.category, row.area, row.iscrowd) for row in rows] == [
        ("car", 1, True),
        ("car", 1, False),
        ("pedestrian", 2, False),
    ]
    _, found = read_labels(tmp_path / "a.jpg", **settings, categories=["car"])
    assert isinstance(found["a.jpg"], ItemError) and "class ids 2 (1 annotations)" in found["a.jpg"].message
    with pytest.raises(ConfigError, match="0 is background"):
        read_labels(tmp_path / "a.jpg", **settings, categories=["car"], ids=[0])


def test_one_class_only(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="2 names; an id map tells objects apart"):
        read_labels(tmp_path, format="instance_ids", uri=str(tmp_path), categories=["a", "b"])
