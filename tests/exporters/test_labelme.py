"""labelme: ``prepare`` reads back the very masks, and so does labelme's own way of pasting them."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
from hypothesis import given
from PIL import Image

from segjobs.exporters.base import Loss
from segjobs.exporters.labelme import write
from segjobs.labels.labelme import Rules, masks_of, shapes_of
from segjobs.manifest.segments import Segment
from tests.exporters.samples import CAT, CATEGORIES, DOG, labelled, mask_of, overlapping, setting
from tests.manifests import segment_of


@given(overlapping())
def test_prepare_reads_the_very_masks(segments: list[Segment]) -> None:
    written = write(labelled(segments), setting("labelme"))
    shapes, size_hw = shapes_of(written.data or b"")
    kept = [replace(segment, score=1.0) for segment in segments if not segment.iscrowd]
    assert size_hw == segments[0].size_hw
    assert masks_of(shapes, size_hw, Rules(False, CATEGORIES)).segments == kept


def test_the_file_by_hand() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:4] = mask[2, 4] = True
    crowd = segment_of(mask, CAT, iscrowd=True)
    written = write(labelled([segment_of(mask, DOG, score=0.5), crowd], shares_name=True), setting("labelme"))
    content = json.loads(written.data or b"")
    assert (content["imagePath"], content["imageData"]) == ("b.jpg", None)
    assert (content["imageHeight"], content["imageWidth"]) == (5, 6)
    (shape,) = content["shapes"]
    assert (shape["label"], shape["shape_type"], shape["points"]) == (DOG.name, "mask", [[2, 1], [4, 3]])
    assert written.losses == (Loss("crowd", CAT.id, 1, 7), Loss("name", None, 1))
    # labelme's shape_to_mask, by its source.
    (x1, y1), (x2, y2) = np.asarray(shape["points"]).astype(int)
    pasted = np.zeros((5, 6), bool)
    pasted[y1 : y2 + 1, x1 : x2 + 1] = np.array(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(bool)
    np.testing.assert_array_equal(pasted, mask_of(segment_of(mask, DOG)))
    scored = write(labelled([segment_of(mask, DOG, score=0.5)]), setting("labelme", by_model=True))
    assert json.loads(scored.data or b"")["shapes"][0]["description"] == "score 0.5"
