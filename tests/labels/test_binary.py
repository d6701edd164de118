"""Binary masks: 0 and 255 in all the ways that they are stored, one an image or one an object."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ConfigError, ItemError
from segjobs.labels.binary import binary_mask, match_objects
from segjobs.manifest.rle import decode, paint

MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(MASK),
        Image.fromarray(MASK.astype(np.uint8)),
        Image.fromarray(MASK.astype(np.uint8) * 255),
        Image.fromarray(MASK.astype(np.uint16) * 65535),
        Image.fromarray(MASK.astype(np.uint16)),
        Image.fromarray(np.repeat(MASK[..., None], 3, axis=2).astype(np.uint8) * 255),
        Image.fromarray(np.dstack([*[MASK * 255] * 3, np.full(MASK.shape, 9)]).astype(np.uint8), "RGBA"),
    ],
)
def test_every_way_to_store_a_mask(image: Image.Image) -> None:
    assert binary_mask(file_of(image), threshold=None, max_pixels=100).tolist() == MASK.tolist()


@pytest.mark.parametrize("fill", [0, 255])
def test_masks_of_one_value(fill: int) -> None:
    data = file_of(Image.new("L", (3, 2), fill))
    assert (binary_mask(data, threshold=None, max_pixels=100) == bool(fill)).all()


def test_other_values_need_a_threshold() -> None:
    data = file_of(Image.fromarray(np.array([[0, 7, 128, 255]], np.uint8)))
    with pytest.raises(
        ItemError, match=r"the values 0, 7, 128, 255; expected 0 and 255; see labels\.threshold"
    ) as caught:
        binary_mask(data, threshold=None, max_pixels=100)
    assert caught.value.code == "LABEL_VALUE"
    assert binary_mask(data, threshold=128, max_pixels=100).tolist() == [[False, False, True, True]]
    with pytest.raises(ItemError, match="the values 1, 255"):
        binary_mask(file_of(Image.fromarray(np.array([[1, 255]], np.uint8))), threshold=None, max_pixels=100)
    large = np.kron(MASK, np.full((16, 16), 255)).astype(np.uint8)
    jpeg = file_of(Image.fromarray(np.repeat(large[..., None], 3, axis=2)), "JPEG")
    assert binary_mask(jpeg, threshold=128, max_pixels=10**4)[8::16, 8::16].tolist() == MASK.tolist()


def test_colours_are_no_mask() -> None:
    data = file_of(Image.new("RGB", (2, 2), (255, 0, 0)))
    with pytest.raises(ItemError, match="a mask in colours"):
        binary_mask(data, threshold=None, max_pixels=100)


def test_masks_belong_to_the_longest_image_that_fits() -> None:
    images = ["c/7.png", "c/7_1.png", "d/8.tif"]
    masks = ["c/7_0.png", "c/7_1_0.png", "c/7/masks/a.png", "c/70.png", "d/8.png", "d/8-b_m.png"]
    assert match_objects(images, masks, "") == {
        "c/7.png": ["c/7_0.png", "c/7/masks/a.png"],
        "c/7_1.png": ["c/7_1_0.png"],
        "d/8.tif": ["d/8.png", "d/8-b_m.png"],
    }
    assert match_objects(["images/7.png"], ["7/a.png", "8/a.png"], "") == {"images/7.png": ["7/a.png"]}
    assert match_objects(["7.png"], ["8.png"], "") == {}


def test_several_masks_an_image_are_its_objects(tmp_path: Path, read_labels: Callable[..., Any]) -> None:
    for folder in ("images", "masks/a", "masks/b"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.new("RGB", (3, 2)).save(tmp_path / f"images/{name}.jpg")
    for name, mask in {"a/1": MASK, "a/2": ~MASK, "a/3": MASK & ~MASK, "b/1": MASK.T}.items():
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"masks/{name}.png")
    Image.new("L", (3, 2)).save(tmp_path / "masks/d.png")
    settings = {"format": "binary", "uri": str(tmp_path / "masks")}
    labels, found = read_labels(tmp_path / "images", **settings, task="instance", categories=["cell"])
    assert [decode(row.counts, (2, 3)).tolist() for row in found["a.jpg"].segments] == [
        MASK.tolist(),
        (~MASK).tolist(),
    ]
    assert [(one.check, one.count, one.detail) for one in found["a.jpg"].findings] == [("empty_masks", 1, "3.png")]
    assert (found["b.jpg"].code, found["c.jpg"]) == ("LABEL_SHAPE", None)
    assert labels.leftovers[0].examples == ("d.png",)
    with pytest.raises(ConfigError, match=r"3 names; binary semantic masks need \['background', 'foreground'\]"):
        read_labels(tmp_path / "images", **settings, categories=["a", "b", "c"])
    with pytest.raises(ConfigError, match=r"no mask's path begins with an image's, such as 'a/1\.png'"):
        read_labels(tmp_path / "masks", **{**settings, "uri": str(tmp_path / "images")}, task="instance")


def test_membrane(shared_data: Path, read_labels: Callable[..., Any]) -> None:
    folder = shared_data / "membrane"
    labels, found = read_labels(
        folder / "image", format="binary", uri=str(folder / "label"), categories=["membrane", "cell"]
    )
    assert (labels.task, len(found), labels.leftovers) == ("semantic", 30, ())
    for name, masks in list(found.items())[::10]:
        with Image.open(folder / "label" / name) as image:
            truth = np.asarray(image)
        pairs = [(row.category_id, row.counts) for row in masks.segments]
        assert np.array_equal(paint(pairs, truth.shape), truth // 255)
