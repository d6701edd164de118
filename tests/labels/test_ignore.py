"""What is out of the field of view, or marked to be ignored, has no label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import LabelRequest, Labels
from segjobs.labels.ignore import without_ignored
from segjobs.labels.png import png_labels
from segjobs.manifest.rle import paint
from segjobs.storage import Storage

IDS, VIEW = np.array([[0, 1, 1], [1, 0, 1]], np.uint8), np.array([[0, 255, 255], [0, 255, 0]], np.uint8)
IMAGES = ["21_training.tif", "22_training.tif"]


def labels_of(folder: Path, **settings: Any) -> Labels:
    for name in ("labels", "mask"):
        (folder / name).mkdir(exist_ok=True)
    for number in (21, 22):
        Image.fromarray(IDS).save(folder / f"labels/{number}_manual1.gif")
    Image.fromarray(VIEW).save(folder / "mask/21_training_mask.gif")
    given = {"format": "png", "uri": str(folder / "labels"), "categories": ["a", "b"], "pattern": r"^(\d+)_"}
    config = LabelsConfig.model_validate({**given, "ignore_uri": str(folder / "mask"), **settings})
    request = LabelRequest(config, Storage(), IMAGES, 100)
    return without_ignored(png_labels(request), request)


@pytest.mark.parametrize(
    ("ignore", "expected"), [("zero", [[9, 1, 1], [9, 0, 9]]), ("nonzero", [[0, 9, 9], [1, 9, 1]])]
)
def test_pixels_become_unlabelled(tmp_path: Path, ignore: str, expected: list[list[int]]) -> None:
    labels = labels_of(tmp_path, ignore=ignore)
    segments = labels.read(str(labels.texts[0]), (2, 3)).segments
    assert paint([(one.category_id, one.counts) for one in segments], (2, 3), 9).tolist() == expected
    with pytest.raises(ItemError, match=r"no mask of labels\.ignore_uri") as caught:
        labels.read(str(labels.texts[1]), (2, 3))
    assert caught.value.code == "NOT_FOUND"


def test_flaws_of_ignore_masks(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    with pytest.raises(ItemError, match="the label has 3x2"):
        labels.read(str(labels.texts[0]), (3, 2))
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"labels\.ignore_uri: .*: no \.png"):
        labels_of(tmp_path, ignore_uri=str(tmp_path / "none"))
    config = LabelsConfig(format="instance_ids", uri="x", ignore_uri="y")
    objects = Labels("instance", (), [], labels.read, "")
    with pytest.raises(ConfigError, match="objects have no unlabelled pixels"):
        without_ignored(objects, LabelRequest(config, Storage(), [], 9))


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("a", "with a group")])
def test_a_pattern_that_shares_nothing(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelsConfig(format="png", uri="x", pattern=pattern)
