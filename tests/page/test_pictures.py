"""Differences counted by hand, thumbnails, and the notebook's picture of a row."""

import hashlib
import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ItemError, ManifestError
from segjobs.manifest.schema import Category, make_categories
from segjobs.page import draw_row
from segjobs.page.pictures import (
    EXTRA,
    KINDS,
    MISSING,
    RIGHT,
    UNLABELLED,
    WRONG,
    Subject,
    common_categories,
    difference,
    difference_picture,
    draw_card,
    kind_swatch,
    open_picture,
    with_ids,
)
from tests.manifests import segment_of
from tests.page.sample import segments_of

CATEGORIES = make_categories(["sky", "road", "car"], first_id=1)
V = 255
TRUTH = np.array([[0, 0, 1, V], [1, 1, 2, V]], np.uint8)
GUESS = np.array([[0, 1, V, 0], [1, 1, 2, V]], np.uint8)


def test_difference_of_label_maps() -> None:
    for task in ("semantic", "panoptic"):
        found = difference(segments_of(TRUTH, CATEGORIES), segments_of(GUESS, CATEGORIES), (2, 4), task=task)
        assert found.tolist() == [[RIGHT, WRONG, MISSING, UNLABELLED], [RIGHT, RIGHT, RIGHT, UNLABELLED]]


def test_difference_of_objects() -> None:
    """Uncovered is background; a crowd is not scored; of overlapping objects the smaller one counts."""
    found = difference(segments_of(TRUTH, CATEGORIES), segments_of(GUESS, CATEGORIES), (2, 4), task="instance")
    assert found.tolist() == [[RIGHT, WRONG, MISSING, EXTRA], [RIGHT, RIGHT, RIGHT, RIGHT]]
    crowd = [replace(segment, iscrowd=segment.category == "sky") for segment in segments_of(TRUTH, CATEGORIES)]
    found = difference(crowd, segments_of(GUESS, CATEGORIES), (2, 4), task="instance")
    assert found.tolist() == [[UNLABELLED, UNLABELLED, MISSING, EXTRA], [RIGHT, RIGHT, RIGHT, RIGHT]]
    large = segments_of(np.zeros((2, 4), np.uint8), CATEGORIES)
    small = segments_of(np.array([[V, 2, V, V], [V] * 4], np.uint8), CATEGORIES)
    found = difference([*small, *large], large, (2, 4), task="instance")
    assert found.tolist() == [[RIGHT, WRONG, RIGHT, RIGHT], [RIGHT] * 4]


def test_kinds_differ_in_grey_and_to_the_colour_blind() -> None:
    """Mean lightness and hatching tell them apart; so do the colours as deuteranopes see them."""
    patches = [np.asarray(difference_picture(np.full((48, 48), kind, np.uint8)), float) for kind in range(len(KINDS))]
    to_grey = np.array([0.299, 0.587, 0.114])
    greys = [(patch @ to_grey) for patch in patches]
    # Viénot, Brettel and Mollon 1999, of linear RGB.
    deuteranopia = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    seen = [255 * ((patch.mean((0, 1)) / 255) ** 2.2 @ deuteranopia.T).clip(0, 1) ** (1 / 2.2) for patch in patches]
    for one, two in combinations(range(len(KINDS)), 2):
        apart = abs(greys[one].mean() - greys[two].mean())
        texture = np.abs(greys[one] - greys[two]).mean()
        assert apart > 12 or texture > 25, (KINDS[one], KINDS[two])
        assert np.linalg.norm(seen[one] - seen[two]) > 30, (KINDS[one], KINDS[two])
    with Image.open(io.BytesIO(kind_swatch(WRONG))) as swatch:
        assert swatch.size == (28, 16)


def test_what_is_right_shows_the_photo_in_grey() -> None:
    photo = Image.fromarray(np.tile(np.arange(0, 256, 4, np.uint8), (8, 1))).convert("RGB")
    drawn = np.asarray(difference_picture(np.zeros((8, 64), np.uint8), photo))
    assert (drawn[..., 0] == drawn[..., 2]).all()
    assert (np.diff(drawn[0, :, 0].astype(int)) >= 0).all() and drawn.min() >= 160


def pixels(webp: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(webp)) as picture:
        assert picture.format == "WEBP"
        return np.asarray(picture.convert("RGB")).astype(int)


def subject(photo: np.ndarray | None, scale: int = 1) -> Subject:
    truth, guess = (np.kron(ids, np.ones((scale, scale), np.uint8)) for ids in (TRUTH, GUESS))
    size_hw = (2 * scale, 4 * scale)
    return Subject(photo, segments_of(truth, CATEGORIES), segments_of(guess, CATEGORIES), size_hw, "semantic")


def test_cards_are_bounded_and_small_images_stay_small() -> None:
    large = draw_card(subject(np.zeros((1000, 2000, 3), np.uint8), 500), CATEGORIES, thumb_px=100)
    assert {name: pixels(webp).shape for name, webp in large.items()} == dict.fromkeys(
        ("image", "truth", "prediction", "difference"), (50, 100, 3)
    )
    small = draw_card(subject(np.zeros((20, 40, 3), np.uint8), 10), CATEGORIES, thumb_px=100)
    assert pixels(small["image"]).shape == (20, 40, 3)
    tall = Subject(np.zeros((4000, 1, 3), np.uint8), [], None, (4000, 1), "semantic")
    assert pixels(draw_card(tall, CATEGORIES, thumb_px=64)["truth"]).shape == (64, 1, 3)


def test_a_shrunk_difference_is_that_of_the_whole() -> None:
    """2000 pixels wide or 40: each quarter of the picture has the kind it has in the small map."""
    drawn = pixels(draw_card(subject(None, 500), CATEGORIES, thumb_px=160)["difference"])
    quarter = {kind: drawn[4:36, 40 * column + 4 : 40 * column + 36] for column, kind in enumerate(KINDS[:4])}
    plain = [
        np.asarray(difference_picture(np.full((32, 32), kind, np.uint8)))
        for kind in (RIGHT, WRONG, MISSING, UNLABELLED)
    ]
    for found, expected in zip(quarter.values(), plain, strict=True):
        np.testing.assert_allclose(found.mean((0, 1)), expected.mean((0, 1)), atol=25)


def test_without_the_photo_masks_are_flat() -> None:
    card = draw_card(subject(None, 50), CATEGORIES, thumb_px=200)
    assert set(card) == {"truth", "prediction", "difference"}
    only = Subject(np.zeros((4, 4, 3), np.uint8), None, segments_of(TRUTH[:, :2], CATEGORIES), (2, 2), "semantic")
    assert set(draw_card(only, CATEGORIES, thumb_px=64)) == {"image", "prediction"}
    wrong = Subject(None, segments_of(TRUTH, CATEGORIES), None, (3, 4), "semantic")
    with pytest.raises(ManifestError, match="a mask of 4x2 pixels on an image of 4x3"):
        draw_card(wrong, CATEGORIES, thumb_px=64)


def test_classes_of_two_tables() -> None:
    truth = (Category(3, "traffic light", (1, 1, 1)), Category(7, "Road", (2, 2, 2)))
    predicted = (
        Category(0, "ROAD", (9, 9, 9)),
        Category(3, "boat", (8, 8, 8)),
        Category(5, "Traffic_Light", (7, 7, 7)),
    )
    table, mapping = common_categories(truth, predicted)
    assert [(category.id, category.name) for category in table] == [(3, "traffic light"), (7, "Road"), (8, "boat")]
    assert mapping == {0: 7, 3: 8, 5: 3}
    renamed = common_categories(truth, predicted, rename={"boat": "traffic light", "ROAD": None})
    assert renamed == (truth, {0: None, 3: 3, 5: 3})
    assert common_categories(truth, predicted, rename={"*": None}) == (truth, {0: 7, 3: None, 5: 3})
    assert common_categories((), predicted)[1] == {0: 0, 3: 1, 5: 2}
    road = segment_of(np.ones((1, 1), bool), predicted[0])
    assert with_ids([road], mapping) == [replace(road, category_id=7)]
    assert with_ids([road], renamed[1]) == [], "renamed to nothing: not predicted, and not drawn"
    with pytest.raises(ManifestError, match=r"category ids \[4\] are not"):
        with_ids([replace(road, category_id=4)], mapping)


# For notebooks ---------------------------------------------------------------------------------------


def row_of(path: Path, ids: np.ndarray, **change: Any) -> dict[str, Any]:
    return {
        "image_id": path.name,
        "uri": str(path),
        "width": ids.shape[1],
        "height": ids.shape[0],
        "source": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "status": "ok",
        "error": None,
        "segments": [segment.to_row() for segment in segments_of(ids, CATEGORIES)],
        **change,
    }


def test_a_row_is_drawn_over_its_own_image(tmp_path: Path) -> None:
    """Stored lying on its side: EXIF orientation 6 turns it, and the masks are in the turned frame."""
    stored = Image.fromarray(np.full((40, 20, 3), 200, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.jpg", exif=exif)
    ids = np.full((20, 40), V, np.uint8)
    ids[:, 20:] = 1
    drawn = draw_row(row_of(tmp_path / "a.jpg", ids), CATEGORIES)
    assert drawn.size == (40, 20)
    found = np.asarray(drawn).astype(int)
    assert (np.abs(found[:, :18] - 200) < 8).all(), "no mask there"
    assert (np.abs(found[:, 22:] - 200) > 20).any(axis=2).all()
    given = draw_row(
        row_of(tmp_path / "a.jpg", ids, uri="nowhere"), CATEGORIES, image=np.full((20, 40, 3), 200, np.uint8)
    )
    np.testing.assert_allclose(np.asarray(given).astype(int), found, atol=8)
    flat = np.asarray(draw_row(row_of(tmp_path / "a.jpg", ids, uri="nowhere"), CATEGORIES, style="map"))
    assert len(np.unique(flat[:, 20:].reshape(-1, 3), axis=0)) == 1


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(path)
    row = row_of(path, TRUTH)
    with pytest.raises(ItemError, match=r"NOT_FOUND: .*b\.png: no such file"):
        draw_row({**row, "uri": str(tmp_path / "b.png")}, CATEGORIES)
    with pytest.raises(ValueError, match="the image is 3x3 pixels, its row says 4x2"):
        draw_row(row, CATEGORIES, image=np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ManifestError, match=r"'a\.png' has no masks to draw: TRUNCATED: short"):
        draw_row({**row, "status": "failed", "error": {"code": "TRUNCATED", "message": "short"}}, CATEGORIES)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ItemError, match=r"CHANGED: .*its sha256 differs"):
        draw_row(row, CATEGORIES)
    for damaged in (b"", b"GIF89a", path.read_bytes()[:40]):
        with pytest.raises(ItemError, match="UNREADABLE: x: cannot be decoded"):
            open_picture(damaged, name="x")
