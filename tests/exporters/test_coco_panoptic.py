"""COCO panoptic: ids and segments as ``prepare`` and panopticapi's rule read them back."""

import io
import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segjobs.exporters.base import Loss, Segment, Setting
from segjobs.exporters.coco_panoptic import EXPORTER, write
from segjobs.labels.coco_panoptic import masks_of, read_panoptic
from tests.exporters.samples import CAT, CATEGORIES, DOG, LABEL_MAPS, labelled, mask_of, overlapping, setting
from tests.manifests import segment_of


def read_back(written: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """panopticapi's ``rgb2id`` of the PNG, and the annotation."""
    with Image.open(io.BytesIO(written.data)) as picture:
        assert picture.mode == "RGB"
        colors = np.array(picture).astype(int)
    return colors[..., 0] + 256 * colors[..., 1] + 256 * 256 * colors[..., 2], json.loads(written.records[0])


@given(LABEL_MAPS, st.sampled_from(["semantic", "panoptic"]))
def test_partitions_survive(ids: np.ndarray, task: Any) -> None:
    segments = [segment_of(ids == k, CATEGORIES[k], iscrowd=k == 2) for k in range(3) if (ids == k).any()]
    written = write(labelled(segments, ids.shape), setting("coco_panoptic", task))  # type: ignore[arg-type]
    numbers, annotation = read_back(written)
    info = annotation["segments_info"]
    assert {entry["id"] for entry in info} == set(np.unique(numbers).tolist()) - {0}
    with Image.open(io.BytesIO(written.data or b"")) as picture:
        found = masks_of(np.array(picture), info, CATEGORIES)
    assert found.segments == segments
    assert (found.findings, written.losses) == ((), ())
    assert [(entry["area"], entry["bbox"]) for entry in info] == [(s.area, list(s.bbox)) for s in segments]


@given(overlapping())
def test_overlapping_objects_give_way_and_are_counted(segments: list[Segment]) -> None:
    written = write(labelled(segments), setting("coco_panoptic"))
    numbers, annotation = read_back(written)
    union = np.logical_or.reduce([mask_of(segment) for segment in segments])
    assert np.array_equal(numbers > 0, union)
    for entry in annotation["segments_info"]:
        rows, columns = np.nonzero(numbers == entry["id"])
        width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
        assert (entry["area"], entry["bbox"]) == (rows.size, [columns.min(), rows.min(), width, height])
    lost = sum(segment.area for segment in segments) - union.sum()
    assert sum(loss.pixels for loss in written.losses) == lost
    hidden = sum(loss.count for loss in written.losses if loss.kind == "hidden")
    assert len(annotation["segments_info"]) == written.segments == len(segments) - hidden


def test_an_annotation_by_hand() -> None:
    wide, left = np.array([[1, 1, 1, 0]], bool), np.array([[1, 0, 0, 0]], bool)
    segments = [segment_of(wide, CAT, score=0.25), segment_of(left, DOG, score=0.5), segment_of(left, CAT, score=0.0)]
    written = write(labelled(segments), setting("coco_panoptic"))
    numbers, annotation = read_back(written)
    assert numbers.tolist() == [[2, 1, 1, 0]]
    assert annotation == {
        "image_id": 4,
        "file_name": "a/b.png",
        "segments_info": [
            {"id": 1, "category_id": 3, "iscrowd": 0, "area": 2, "bbox": [1, 0, 2, 1]},
            {"id": 2, "category_id": 7, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]},
        ],
    }
    assert written.losses == (Loss("hidden", 3, 1, 1), Loss("covered", 3, 1, 1))
    assert json.loads(written.image or "") == {"id": 4, "file_name": "a/b.jpg", "width": 4, "height": 1}


def test_categories_say_whether_they_are_things() -> None:
    def things(base: Setting) -> list[int]:
        (document,) = EXPORTER.documents(base)
        ends = [series.before + series.after for series in document.series]
        categories, _ = read_panoptic((document.text + "".join(ends)).encode())
        return [int(category.isthing or False) for category in categories]

    assert things(setting("coco_panoptic", "instance")) == [1, 1, 1]
    assert things(setting("coco_panoptic", "semantic")) == [0, 0, 0]
    known = setting("coco_panoptic", "panoptic")
    assert EXPORTER.notes(known) == ["3 classes, such as 'cat', do not say whether they are things: written as things"]
    told = tuple(type(c)(c.id, c.name, c.color, c is DOG) for c in CATEGORIES)
    known = Setting(**{**vars(known), "categories": told})
    assert (things(known), EXPORTER.notes(known)) == ([0, 1, 0], [])
