"""ADE20K's full release: classes in R and G, objects in B."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ConfigError, ItemError


@pytest.fixture
def full_release(tmp_path: Path) -> Path:
    """One image: two objects of class 1, one of class 2 * 256 + 44 = 556, one pixel of no class."""
    Image.new("RGB", (4, 1)).save(tmp_path / "ADE_1.jpg")
    pixels = np.array([[[0, 1, 1], [9, 1, 2], [20, 44, 3], [0, 0, 4]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "ADE_1_seg.png")
    Image.new("RGB", (4, 1)).save(tmp_path / "ADE_1_parts_1.png")
    return tmp_path


def read(folder: Path, read_labels: Callable[..., Any], **settings: Any) -> tuple[Any, Any]:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images/ADE_1.jpg").write_bytes((folder / "ADE_1.jpg").read_bytes())
    labels, found = read_labels(folder / "images", format="ade20k", uri=str(folder), **settings)
    return labels, found["ADE_1.jpg"]


def test_classes_and_objects(full_release: Path, read_labels: Callable[..., Any]) -> None:
    classes = {"categories": ["wall", "lamp"], "ids": [1, 556]}
    labels, found = read(full_release, read_labels, **classes)
    assert labels.task == "semantic"
    assert [(one.category, one.mask().astype(int).tolist()) for one in found.segments] == [
        ("wall", [[1, 1, 0, 0]]),
        ("lamp", [[0, 0, 1, 0]]),
    ]
    labels, found = read(full_release, read_labels, **classes, task="instance")
    assert labels.task == "instance"
    assert [(one.category, one.iscrowd, one.mask().astype(int).tolist()) for one in found.segments] == [
        ("wall", False, [[1, 0, 0, 0]]),
        ("wall", False, [[0, 1, 0, 0]]),
        ("lamp", False, [[0, 0, 1, 0]]),
    ]


def test_unknown_classes_and_the_numbering(full_release: Path, read_labels: Callable[..., Any]) -> None:
    for task in ("semantic", "instance"):
        _, found = read(full_release, read_labels, categories=["wall"], task=task)
        assert isinstance(found, ItemError) and found.code == "LABEL_VALUE" and "556" in found.message
        _, found = read(full_release, read_labels, categories=["wall"], task=task, unknown="ignore")
        assert sum(one.area for one in found.segments) == 2, "the first name has the id 1"
    with pytest.raises(ConfigError, match="0 is no class of ADE20K"):
        read(full_release, read_labels, categories=["wall"], ids=[0])


def test_scene_parsing_is_an_id_map(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    Image.new("RGB", (3, 1)).save(tmp_path / "a.jpg")
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / "labels/a.png")
    names = {"categories": ["wall", "building"], "ids": [1, 2], "void_ids": [0]}
    _, found = read_labels(tmp_path / "a.jpg", format="png", uri=str(tmp_path / "labels"), **names)
    assert [(one.category, one.area) for one in found["a.jpg"].segments] == [("wall", 1), ("building", 1)]
