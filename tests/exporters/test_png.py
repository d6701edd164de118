"""Label maps: what a decoder of PNG and ``prepare`` read in them."""

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segjobs.exporters.base import Loss, Setting
from segjobs.exporters.png import EXPORTER, Values, values_of, write
from segjobs.manifest.schema import Category
from segjobs.sources.label_map import decode_label_png
from tests.exporters.samples import CATEGORIES, DOG, LABEL_MAPS, SKY, labelled, segments_of_map, setting
from tests.manifests import segment_of


def with_ids(ids: list[int], **png: Any) -> Setting:
    base = setting("png", "semantic", png=png)
    return Setting(**{**vars(base), "categories": tuple(Category(i, f"c{i}", (i % 256, 1, 2)) for i in ids)})


@pytest.mark.parametrize(
    ("ids", "png", "values"),
    [
        ([0, 1, 254], {}, Values(255, 255, 8)),
        ([0, 255], {}, Values(65535, 65535, 16)),
        ([0, 255], {"void_id": 7}, Values(7, 7, 8)),
        ([1, 256], {}, Values(65535, 65535, 16)),
        ([1, 256], {"void_id": 0}, Values(0, 0, 16)),
        ([1], {"void_id": 300}, Values(300, 300, 16)),
    ],
)
def test_bits_and_void_follow_the_largest_id(ids: list[int], png: dict[str, int], values: Values) -> None:
    assert values_of(with_ids(ids, **png)) == values
    assert EXPORTER.check(with_ids(ids, **png)) == []


def test_ids_that_clash_are_named() -> None:
    assert EXPORTER.check(with_ids([1, 70000], void_id=1, background_id=1)) == [
        "class 'c70000' has the id 70000: a PNG holds 0 to 65535; leave it out by naming the others in `categories`",
        "png.void_id: 1 is the id of class 'c1' too; give one that no class has",
        "png.background_id: 1 is the id of class 'c1' too; give one that no class has",
        "png.background_id: a semantic manifest has no background of its own: what no segment covers is unlabelled; "
        "expected null",
    ]


@given(LABEL_MAPS, st.sampled_from(["semantic", "panoptic"]), st.sampled_from([None, 0, 255, 1000]))
def test_semantic_pixels_survive(ids: np.ndarray, task: Any, void: int | None) -> None:
    image = labelled(segments_of_map(ids), ids.shape)  # type: ignore[arg-type]
    written = write(image, setting("png", task, png={"void_id": void}))
    expected = np.append([category.id for category in CATEGORIES], 255 if void is None else void)[ids]
    with Image.open(io.BytesIO(written.data or b"")) as picture:
        assert picture.mode == ("I;16" if void == 1000 else "P")
        assert np.array_equal(np.array(picture), expected)
    assert np.array_equal(decode_label_png(written.data or b"", max_pixels=1000), expected)
    assert (written.segments, written.losses) == (len(image.segments), ())


def test_the_palette_shows_the_classes() -> None:
    written = write(labelled(segments_of_map(np.array([[0, 1, 2, -1]]))), setting("png", "semantic"))
    with Image.open(io.BytesIO(written.data or b"")) as picture:
        shown = np.array(picture.convert("RGB"))[0].tolist()
    assert shown == [[255, 0, 0], [0, 128, 0], [0, 0, 255], [224, 224, 192]]


def test_objects_are_merged_and_counted() -> None:
    wide, left = np.array([[1, 1, 1, 0]], bool), np.array([[1, 1, 0, 0]], bool)
    two = [segment_of(wide, DOG, score=0.5), segment_of(left, SKY, score=0.75), segment_of(wide & ~left, DOG)]
    for background, last in ((None, 255), (0, 0)):
        written = write(labelled(two), setting("png", png={"background_id": background}))
        assert decode_label_png(written.data or b"", max_pixels=9).tolist() == [[1, 1, 7, last]]
        assert written.losses == (Loss("hidden", 7, 1, 3),)
    written = write(labelled([two[0], two[2], two[1]]), setting("png"))
    apart = [segment_of(left, DOG), segment_of(~left, DOG)]
    assert write(labelled(apart), setting("png")).losses == (Loss("merged", 7, 2),)
    assert write(labelled([two[0], two[1]]), setting("png")).losses == (Loss("covered", 7, 1, 2),)


def test_classes_json_says_what_the_values_mean() -> None:
    (document,) = EXPORTER.documents(setting("png", png={"background_id": 0}))
    about = json.loads(document.text)
    assert document.path == "classes.json"
    assert (about["void_id"], about["background_id"], about["bits"]) == (255, 0, 8)
    assert about["categories"][1] == {"id": 7, "name": 'dog "é"', "color": [0, 128, 0]}
