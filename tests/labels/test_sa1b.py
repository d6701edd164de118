"""SA-1B: a JSON an image, whose objects have run-length codes and no class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from segjobs.errors import ConfigError, ItemError


def test_each_annotation_is_an_object(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], np.uint8)
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    for name in ("sa_1", "other", "odd", "none"):
        Image.new("RGB", (3, 2)).save(tmp_path / f"{name}.jpg")

    def write(name: str, size_hw: list[int], *annotations: Any) -> None:
        image = {"image_id": 1, "height": size_hw[0], "width": size_hw[1], "file_name": f"{name}.jpg"}
        (tmp_path / f"{name}.json").write_text(json.dumps({"image": image, "annotations": annotations}))

    one = {"id": 5, "segmentation": {"size": [2, 3], "counts": counts}, "bbox": [1, 0, 1, 1], "area": 3}
    write("sa_1", [2, 3], {**one, "predicted_iou": 0.9}, {**one, "id": 6})
    write("other", [3, 2], one)
    write("odd", [2, 3], {**one, "segmentation": [[0, 0, 1, 1]]})
    labels, found = read_labels(tmp_path, format="sa1b", uri=str(tmp_path))
    assert (labels.task, [category.name for category in labels.categories]) == ("instance", ["object"])
    first, second = found["sa_1.jpg"].segments
    assert first.mask().astype(int).tolist() == mask.tolist() == second.mask().astype(int).tolist()
    assert (first.stated_bbox, first.stated_area) == ((1, 0, 1, 1), 3)
    codes = {name: one.code for name, one in found.items() if isinstance(one, ItemError)}
    assert codes == {"other.jpg": "LABEL_SHAPE", "odd.jpg": "LABEL_VALUE"} and found["none.jpg"] is None
    with pytest.raises(ConfigError, match="2 names; objects of SA-1B have no class"):
        read_labels(tmp_path, format="sa1b", uri=str(tmp_path), categories=["a", "b"])
