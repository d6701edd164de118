"""Colour maps: every colour to its class, unknown ones named, palettes as they look."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError
from segjobs.labels.base import UnknownId
from segjobs.labels.rgb import color_table, masks_of
from segjobs.manifest.rle import paint
from segjobs.sources.label_map import decode_color_map

RED, BLUE, GREY, WHITE = (255, 0, 0), (0, 0, 255), (9, 9, 9), (255, 255, 255)


def labels(**keys: Any) -> LabelsConfig:
    base = {"format": "rgb", "uri": "x", "categories": ["cat", "sky"], "colors": [RED, BLUE], "void_colors": [GREY]}
    return LabelsConfig.model_validate({**base, **keys})


def test_colours_become_classes_and_void() -> None:
    pixels = np.array([[RED, BLUE, GREY], [RED, RED, BLUE]], np.uint8)
    cat, sky = masks_of(pixels, color_table(labels())).segments
    assert (cat.category_id, cat.category, cat.area, list(cat.bbox)) == (0, "cat", 3, [0.0, 0.0, 2.0, 2.0])
    assert (sky.category_id, sky.category, sky.area, list(sky.bbox)) == (1, "sky", 2, [1.0, 0.0, 2.0, 2.0])


def test_unknown_colours_by_policy() -> None:
    pixels = np.array([[RED, WHITE, (0, 0, 254), WHITE]], np.uint8)
    with pytest.raises(UnknownId, match=r"ids \(0, 0, 254\) \(1 px\), \(255, 255, 255\) \(2 px\) are neither"):
        masks_of(pixels, color_table(labels()))
    masks = masks_of(pixels, color_table(labels(unknown="ignore")))
    assert [row.area for row in masks.segments] == [1]
    assert [(one.check, one.count) for one in masks.findings] == [("unknown_ids", 2)]
    masks = masks_of(pixels, color_table(labels(unknown="map", unknown_class="sky")))
    assert [(row.category, row.area) for row in masks.segments] == [("cat", 1), ("sky", 3)]


def test_random_maps_against_a_dictionary() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        colors = [tuple(color) for color in np.unique(rng.integers(0, 256, (6, 3)), axis=0).tolist()]
        table = color_table(
            labels(categories=[f"c{n}" for n in range(len(colors) - 1)], colors=colors[1:], void_colors=colors[:1])
        )
        picks = rng.integers(0, len(colors), (7, 5))
        rows = masks_of(np.array(colors, np.uint8)[picks], table).segments
        pairs = [(row.category_id, row.counts) for row in rows]
        assert np.array_equal(paint(pairs, (7, 5), 99), np.where(picks == 0, 99, picks - 1))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"colors": None}, r"labels\.colors: 0 for 2 labels\.categories"),
        ({"categories": None}, r"labels\.categories: missing; rgb labels need"),
        ({"colors": [RED, [1, 2]]}, r"\[1, 2\]: expected r, g, b"),
        ({"colors": [RED, [1, 2, 256]]}, r"256\]: expected r, g, b"),
        ({"colors": [RED, GREY]}, r"\[9, 9, 9\] is given twice"),
    ],
)
def test_contradictions_of_the_config(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        color_table(labels(**keys))


def test_cityscapes_colours_are_all_told_apart() -> None:
    table = color_table(LabelsConfig(format="rgb", uri="x", table="cityscapes_ids"))
    codes, _ = table.codes
    assert len(codes) == len(np.unique(codes)) == 19 + 10


def test_voc_palette_files_give_voc_classes(shared_data: Path, read_labels: Callable[..., Any]) -> None:
    folder = shared_data / "labelme_examples/semantic_segmentation/data_dataset_voc"
    labels, found = read_labels(folder / "JPEGImages", format="rgb", uri=str(folder / "SegmentationClass"), table="voc")
    assert labels.task == "semantic" and len(found) == 3
    for name, masks in found.items():
        with Image.open(folder / "SegmentationClass" / name.replace("jpg", "png")) as image:
            truth = np.asarray(image)
        pairs = [(row.category_id, row.counts) for row in masks.segments]
        assert np.array_equal(paint(pairs, truth.shape, 255), truth)


def test_grey_and_jpeg_are_no_colour_maps(tmp_path: Path) -> None:
    for name, mode in (("a.png", "L"), ("a.jpg", "RGB")):
        Image.new(mode, (2, 2)).save(tmp_path / name)
        with pytest.raises(Exception, match="UNSUPPORTED_MODE"):
            decode_color_map((tmp_path / name).read_bytes(), max_pixels=100)
