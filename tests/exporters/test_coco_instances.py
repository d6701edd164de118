"""COCO instances: a mask as pycocotools reads it, however it is written."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from pycocotools import mask as coco_mask

from segjobs.exporters.base import Loss
from segjobs.exporters.coco_instances import write
from segjobs.manifest.segments import Segment
from tests.exporters.samples import DOG, labelled, mask_of, overlapping, setting
from tests.manifests import segment_of


def pycocotools(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """As its ``COCO.annToMask`` does."""
    height, width = size_hw
    if isinstance(segmentation, list):
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))).astype(bool)
    code = segmentation
    if isinstance(code["counts"], list):
        code = coco_mask.frPyObjects(code, height, width)
    return coco_mask.decode(code).astype(bool)


def annotations(segments: list[Segment], kind: str) -> list[dict[str, Any]]:
    written = write(labelled(segments), setting("coco_instances", coco={"segmentation": kind}))
    return [json.loads("{" + record) for record in written.records]


@pytest.mark.parametrize("kind", ["rle", "counts", "polygons"])
@given(segments=overlapping())
def test_pycocotools_reads_the_very_masks(kind: str, segments: list[Segment]) -> None:
    for one, segment in zip(annotations(segments, kind), segments, strict=True):
        np.testing.assert_array_equal(pycocotools(one["segmentation"], segment.size_hw), mask_of(segment))
        assert one["area"] == segment.area
        if kind == "polygons":
            assert isinstance(one["segmentation"], dict) == segment.iscrowd, "crowds are run lengths, as COCO's own"


def test_each_kind_by_hand() -> None:
    mask = np.array([[1, 1, 0, 1], [1, 1, 0, 0]], bool)
    kinds = [annotations([segment_of(mask, DOG)], kind)[0]["segmentation"] for kind in ("rle", "counts", "polygons")]
    assert kinds[0]["size"] == [2, 4] and isinstance(kinds[0]["counts"], str)
    assert kinds[1] == {"size": [2, 4], "counts": [0, 4, 2, 1, 1]}
    assert kinds[2] == [[0, 0, 2, 0, 2, 2, 0, 2], [3, 0, 4, 0, 4, 1, 3, 1]]


def test_holes_are_bridged_and_counted() -> None:
    mask = np.ones((5, 7), bool)
    mask[1, 1] = mask[3, 3:6] = False
    given_ = setting("coco_instances", coco={"segmentation": "polygons"})
    written = write(labelled([segment_of(mask, DOG)]), given_)
    assert written.losses == (Loss("holes", DOG.id, 2, 4),)
    (polygon,) = json.loads("{" + written.records[0])["segmentation"]
    np.testing.assert_array_equal(pycocotools([polygon], (5, 7)), mask)
    assert write(labelled([segment_of(mask, DOG)]), setting("coco_instances")).losses == ()
