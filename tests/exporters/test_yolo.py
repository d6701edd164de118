"""YOLO: the mask survives a reader of outlines, and what Ultralytics' own reader makes of it is counted."""

import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given

from segjobs.exporters.base import Loss, Segment
from segjobs.exporters.yolo import EXPORTER, write
from segjobs.labels.yolo import masks_of
from tests.exporters.samples import CATEGORIES, DOG, MASKS, labelled, mask_of, overlapping, setting
from tests.manifests import segment_of


def lines_of(written: Any) -> list[list[str]]:
    return [line.split() for line in written.data.decode().splitlines()]


def ultralytics(words: list[str], size_hw: tuple[int, int]) -> np.ndarray:
    """One line as its ``polygon2mask`` draws it at the image's own size."""
    height, width = size_hw
    points = np.array(words[1:], np.float32).reshape(-1, 2) * np.array([width, height], np.float32)
    canvas: Any = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(canvas, points.astype(np.int32).reshape(1, -1, 2), color=1)  # type: ignore[call-overload]
    return canvas.astype(bool)


@given(overlapping())
def test_prepare_reads_the_very_masks(segments: list[Segment]) -> None:
    image = labelled(segments)
    written = write(image, setting("yolo"))
    found = masks_of((written.data or b"").decode(), image.size_hw, CATEGORIES)
    kept = [replace(segment, score=1.0) for segment in segments if not segment.iscrowd]
    assert (found.segments, found.findings) == (kept, ())
    assert written.segments == len(kept)
    crowds = [segment.area for segment in segments if segment.iscrowd]
    assert sum(loss.pixels for loss in written.losses if loss.kind == "crowd") == sum(crowds)


@given(MASKS)
def test_what_ultralytics_draws_is_counted(mask: np.ndarray) -> None:
    written = write(labelled([segment_of(mask, DOG)]), setting("yolo"))
    (words,) = lines_of(written)
    drawn = ultralytics(words, mask.shape)  # type: ignore[arg-type]
    pixels = {loss.kind: loss.pixels for loss in written.losses}
    assert (pixels.get("extra", 0), pixels.get("missing", 0)) == ((drawn & ~mask).sum(), (mask & ~drawn).sum())
    background, _ = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)
    parts, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    counts = {loss.kind: loss.count for loss in written.losses}
    assert (counts.get("holes", 0), counts.get("parts", 0)) == (background - 2, parts - 2)


def test_a_line_by_hand() -> None:
    mask = np.array([[0, 1, 1, 0], [0, 1, 1, 0]], bool)
    written = write(labelled([segment_of(mask, DOG)]), setting("yolo"))
    assert written.data == b"1 0.25 0 0.75 0 0.75 1 0.25 1\n"
    assert written.losses == (Loss("extra", 7, 1, 2),), "the column to the right; the row below is outside the image"
    assert written.image == "./images/a/b.jpg"
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert Loss("holes", 7, 1, 1) in write(labelled([segment_of(ring, DOG)]), setting("yolo")).losses
    apart = np.array([[1, 0, 1, 1]], bool)
    assert Loss("parts", 7, 1, 1) in write(labelled([segment_of(apart, DOG)]), setting("yolo")).losses


def test_an_image_without_objects_has_an_empty_file() -> None:
    assert write(labelled([], (3, 4)), setting("yolo")).data == b""


@pytest.mark.parametrize("size_hw", [(480, 640), (108, 1917), (37, 4093)])
def test_every_edge_survives_the_division(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(size_hw[1])
    mask = cv2.blur(rng.random(size_hw), (9, 9)) > 0.5
    segment = segment_of(mask, DOG)
    written = write(labelled([segment]), setting("yolo"))
    (found,) = masks_of((written.data or b"").decode(), size_hw, CATEGORIES).segments
    assert found == segment
    assert max(float(word) for words in lines_of(written) for word in words[1:]) <= 1


def test_a_tolerance_makes_lines_short_and_says_what_it_costs() -> None:
    y, x = np.mgrid[:100, :100]
    segment = segment_of((y - 50) ** 2 + (x - 50) ** 2 < 1600, DOG)
    exact, short = (write(labelled([segment]), setting("yolo", yolo={"tolerance_px": t})) for t in (0.0, 2.0))
    assert len(short.data or b"") < len(exact.data or b"") / 5
    (found,) = masks_of((short.data or b"").decode(), (100, 100), CATEGORIES).segments
    both = mask_of(found) & mask_of(segment)
    assert both.sum() / (mask_of(found) | mask_of(segment)).sum() > 0.93
    dot = segment_of(np.pad(np.ones((1, 1), bool), 3), DOG)
    written = write(labelled([dot]), setting("yolo", yolo={"tolerance_px": 5.0}))
    assert masks_of((written.data or b"").decode(), (7, 7), CATEGORIES).segments == [dot]


def test_data_yaml_and_the_list_of_images() -> None:
    data, images = EXPORTER.documents(setting("yolo"))
    read = yaml.safe_load(data.text)
    assert read == {
        "train": "images.txt",
        "val": "images.txt",
        "names": {0: "cat", 1: 'dog "é"', 2: "sky"},
    }
    assert json.dumps([images.path, images.text]) == '["images.txt", ""]'
