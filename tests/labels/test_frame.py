"""Labels of the stored frame, of the shown one, and Label Studio's mixture, on images that EXIF turns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.errors import ItemError
from segjobs.labels.base import Masks
from segjobs.labels.frame import read_in_frame
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.sources.decode import Frame
from tests.sources.test_decode import SHOWN

CAT = Category(0, "cat", (1, 1, 1))
STORED = np.array([[1, 1, 0], [1, 0, 0]], bool)


def reader(mask: np.ndarray) -> Callable[[str, tuple[int, int]], Masks]:
    def read(text: str, size_hw: tuple[int, int]) -> Masks:
        assert size_hw == mask.shape, "the reader is asked for the size of its own frame"
        segment = Segment.from_mask(CAT, mask)
        assert segment is not None
        return Masks([segment])

    return read


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_come_out_as_the_image_is_shown(orientation: int) -> None:
    shown = SHOWN[orientation](STORED)
    frame = Frame(shown.shape, orientation)
    for mask, labels_frame in ((STORED, "stored"), (shown, "shown"), (shown, "mixed")):
        masks = read_in_frame(reader(mask), "", frame, labels_frame)
        (segment,) = masks.segments
        assert (segment.mask().tolist(), segment.area) == (shown.tolist(), 3)
        assert [one.check for one in masks.findings] == ([] if orientation == 1 else ["turned"])
        rows, columns = np.nonzero(shown)
        assert segment.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_sizes_of_the_stored_frame_beside_shapes_of_the_shown_one(
    kind: str, tmp_path: Path, read_labels: Callable[..., Any]
) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    square = [1, 3, 3, 3, 3, 5, 1, 5]  # on the image as it is shown, of 4 x 6 pixels
    if kind == "coco":
        images = [{"id": 1, "file_name": "a.jpg", "width": 6, "height": 4}]
        drawn = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [square]}]
        raw = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": drawn}
    else:
        points = np.array(square).reshape(-1, 2).tolist()
        raw = {"imageWidth": 6, "imageHeight": 4, "shapes": [{"label": "cat", "points": points}]}
    (tmp_path / "a.json").write_text(json.dumps(raw))
    uri = str(tmp_path / "a.json") if kind == "coco" else str(tmp_path)
    _, found = read_labels(tmp_path, format=kind, uri=uri)
    assert isinstance(found["a.jpg"], ItemError) and "see labels.frame" in found["a.jpg"].message
    _, found = read_labels(tmp_path, format=kind, uri=uri, frame="mixed")
    assert found["a.jpg"].segments[0].bbox[:2] == (1, 3)


def test_what_says_no_size_has_no_mixture() -> None:
    with pytest.raises(ValueError, match=r"mixed has no effect with labels\.format=png"):
        LabelsConfig.model_validate({"format": "png", "uri": "x", "frame": "mixed"})
