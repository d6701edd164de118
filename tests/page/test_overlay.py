"""Pictures: colours land on the masks' pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.manifest.schema import Category, make_categories, palette_color
from segjobs.manifest.segments import Segment
from segjobs.page.overlay import PALETTE, display_colors, label_picture, overlay
from tests import manifests

DATA = Path(__file__).parents[3] / "shared" / "data"
RED, BLUE = (255, 0, 0), (0, 0, 255)
CATEGORIES = (Category(0, "background", (0, 0, 0)), Category(4, "cat", RED), Category(9, "dog", BLUE))


def segments_of(ids: np.ndarray) -> list[Segment]:
    """Segments of a map of category ids; 255 is void."""
    categories = {number: Category(number, f"class {number}", RED) for number in np.unique(ids).tolist()}
    return manifests.segments_of(ids, categories, void=255)


def pixels(picture: Image.Image) -> list[list[tuple[int, int, int]]]:
    return [[tuple(pixel) for pixel in row] for row in np.asarray(picture).tolist()]


# Colours -------------------------------------------------------------------------------------------


def test_chosen_colours_are_kept():
    assert display_colors(CATEGORIES) == {0: (0, 0, 0), 4: RED, 9: BLUE}


@pytest.mark.parametrize(
    "categories",
    [
        make_categories(["background", "cat", "dog"]),
        (CATEGORIES[0], Category(1, "cat", RED), Category(2, "dog", (250, 10, 0))),
        (CATEGORIES[0], Category(1, "cat", RED), Category(2, "night", (0, 0, 0))),
    ],
    ids=["defaults", "nearly the same", "black object"],
)
def test_colours_that_nobody_chose_or_nobody_can_tell_apart_give_way(categories):
    assert display_colors(categories) == {0: (0, 0, 0), 1: PALETTE[0], 2: PALETTE[1]}


def test_many_classes_get_as_many_colours():
    colors = display_colors(make_categories([f"class {n}" for n in range(80)], first_id=1))
    assert list(colors) == list(range(1, 81))
    assert len(set(colors.values())) == 80
    assert all(0 <= channel <= 255 for color in colors.values() for channel in color)


def test_default_colours_of_instances_give_way_too():
    categories = tuple(Category(n, str(n), palette_color(n + 1)) for n in range(3))
    assert display_colors(categories) == dict(enumerate(PALETTE[:3]))


# Overlay -------------------------------------------------------------------------------------------


def test_overlay_blends_masks_and_leaves_background_and_void():
    image = np.full((2, 3, 3), 100, np.uint8)
    picture = overlay(image, segments_of(np.array([[0, 4, 9], [255, 4, 9]], np.uint8)), CATEGORIES, outline=False)
    grey, red, blue = (100, 100, 100), (178, 50, 50), (50, 50, 178)  # 177.5 rounds to the even 178
    assert pixels(picture) == [[grey, red, blue], [grey, red, blue]]
    assert image.min() == image.max() == 100


def test_outline_is_the_masks_edge_in_full_colour_but_not_the_pictures():
    ids = np.zeros((5, 6), np.uint8)
    ids[:4, :4] = 4
    found = np.asarray(overlay(np.zeros((5, 6, 3), np.uint8), segments_of(ids), CATEGORIES))
    red = np.zeros((5, 6), int)
    red[:4, :4] = 128
    red[3, :4] = red[:4, 3] = 255
    assert found[..., 0].tolist() == red.tolist()
    assert not found[..., 1:].any()


def test_small_masks_lie_over_large_ones_in_any_order():
    large, small = np.full((3, 3), 4, np.uint8), np.full((3, 3), 255, np.uint8)
    small[1, 1] = 9
    rows = [*segments_of(small), *segments_of(large)]
    for order in (rows, rows[::-1]):
        picture = overlay(np.zeros((3, 3, 3), np.uint8), order, CATEGORIES, alpha=1, outline=False)
        assert pixels(picture)[1] == [RED, BLUE, RED]


def test_objects_of_one_class_differ_in_shade():
    rows = []
    for column in range(8):
        ids = np.full((1, 8), 255, np.uint8)
        ids[0, column] = 4
        rows += segments_of(ids)
    row = pixels(overlay(np.zeros((1, 8, 3), np.uint8), rows, CATEGORIES, alpha=1))[0]
    assert row[0] == RED and len(set(row)) == 7


def test_overlay_takes_grey_pil_images():
    picture = overlay(Image.new("L", (2, 1), 100), [], CATEGORIES)
    assert pixels(picture) == [[(100, 100, 100), (100, 100, 100)]]


# Label picture -------------------------------------------------------------------------------------


def test_label_picture_is_flat_and_hatches_what_is_unlabelled():
    ids = np.full((12, 12), 255, np.uint8)
    ids[:, :4], ids[:, 4:6] = 0, 4
    found = np.asarray(label_picture(segments_of(ids), (12, 12), CATEGORIES))
    assert np.unique(found[:, :4]).tolist() == [0]
    assert (found[:, 4:6] == RED).all()
    assert np.unique(found[:, 6:]).tolist() == [205, 235]


def test_label_picture_of_instances_has_a_dark_background():
    assert np.unique(np.asarray(label_picture([], (4, 4), CATEGORIES, task="instance"))).tolist() == [24]


def test_label_picture_of_panoptic_segments_hatches_what_is_unlabelled():
    found = np.asarray(label_picture([], (12, 12), CATEGORIES, task="panoptic"))
    assert np.unique(found).tolist() == [205, 235]
