"""The same photographs labelled in labelme JSON, VOC PNG and COCO JSON: the same masks, within what the formats lose.

What they lose: labelme and VOC hold the same pixels (labelme wrote the PNGs; one pixel of 544,000 is drawn otherwise by
the Pillow of today). VOC cuts objects where later ones lie over them. COCO keeps the polygons, whose raster lacks the
outline that labelme draws: about half a pixel along each edge, so that small and thin objects lose most.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segjobs.labels.base import Masks
from segjobs.manifest.rle import decode, paint

PHOTOS = ("2011_000003.jpg", "2011_000006.jpg", "2011_000025.jpg")
UNLABELLED = 255


def map_of(masks: Masks, size_hw: tuple[int, int]) -> np.ndarray:
    return paint([(row.category_id, row.counts) for row in masks.segments], size_hw, UNLABELLED)


def objects_of(masks: Masks) -> list[tuple[str, np.ndarray]]:
    found = []
    for row in masks.segments:
        height, width = row.size_hw
        found.append((row.category, decode(row.counts, (height, width))))
    return found


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / (one | two).sum())


@pytest.fixture
def folder(shared_data: Path) -> Path:
    return shared_data / "labelme_examples"


def test_classes_of_labelme_and_voc_agree_in_all_pixels_but_one(folder: Path, read_labels: Callable[..., Any]) -> None:
    folder = folder / "semantic_segmentation"
    voc = folder / "data_dataset_voc"
    _, drawn = read_labels(
        voc / "JPEGImages", format="labelme", uri=str(folder / "data_annotated"), task="semantic",
        class_file=str(folder / "labels.txt"), background="_background_",
    )  # fmt: skip
    _, stored = read_labels(voc / "JPEGImages", format="voc", uri=str(voc), class_file=str(voc / "class_names.txt"))
    differing = total = 0
    for name in PHOTOS:
        size = tuple(drawn[name].segments[0].size_hw)
        one, two = map_of(drawn[name], size), map_of(stored[name], size)
        differing, total = differing + int((one != two).sum()), total + one.size
    assert total == 544_000
    assert differing <= 1


def test_objects_of_labelme_voc_and_coco_agree(folder: Path, read_labels: Callable[..., Any]) -> None:
    folder = folder / "instance_segmentation"
    voc, coco = folder / "data_dataset_voc", folder / "data_dataset_coco"
    names = str(folder / "labels.txt")
    _, drawn = read_labels(voc / "JPEGImages", format="labelme", uri=str(folder / "data_annotated"), class_file=names)
    _, cut = read_labels(
        voc / "JPEGImages", format="voc", uri=str(voc), task="instance", class_file=str(voc / "class_names.txt")
    )
    _, polygons = read_labels(coco / "JPEGImages", format="coco", uri=str(coco / "annotations.json"))
    uncut, with_voc, with_coco = [], [], []
    for name in PHOTOS:
        shapes, pieces, outlines = (objects_of(found[name]) for found in (drawn, cut, polygons))
        assert [kind for kind, _ in shapes] == [kind for kind, _ in pieces] == [kind for kind, _ in outlines]
        for place, ((_, mask), (_, piece)) in enumerate(zip(shapes, pieces, strict=True)):
            later = np.any([mask for _, mask in shapes[place + 1 :]] or [np.zeros_like(mask)], axis=0)
            with_voc.append(iou(mask & ~later, piece))
            uncut.append(iou(mask, piece))
        with_coco += [(int(a.sum()), iou(a, b)) for (_, a), (_, b) in zip(shapes, outlines, strict=True)]
    assert len(with_voc) == len(with_coco) == 12
    assert min(with_voc) > 0.99, "where nothing lies over it, an object is the same in VOC"
    assert min(uncut) > 0.9
    assert min(score for _, score in with_coco) > 0.93
    assert min(score for area, score in with_coco if area > 10_000) > 0.97
    assert np.mean([score for _, score in with_coco]) > 0.97
