"""Pictures: colours land on the masks' pixels, and sheets hold what they are given."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjobs.labels.coco import read_coco, segments_for
from segjobs.manifest.rle import encode_label_map
from segjobs.manifest.schema import Category, make_categories, palette_color
from segjobs.page.overlay import PALETTE, Tile, contact_sheet, display_colors, elide, label_picture, overlay, shrunk

DATA = Path(__file__).parents[3] / "shared" / "data"
RED, BLUE = (255, 0, 0), (0, 0, 255)
CATEGORIES = (Category(0, "background", (0, 0, 0)), Category(4, "cat", RED), Category(9, "dog", BLUE))


def segments_of(ids: np.ndarray) -> list[dict]:
    """Rows of the manifest for a map of category ids; 255 is void."""
    return [
        {
            "category_id": region.index,
            "area": region.area,
            "bbox": list(map(float, region.bbox)),
            "segmentation": {"size": list(ids.shape), "counts": region.counts},
        }
        for region in encode_label_map(ids, void=255)
    ]


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


def test_shrunk_keeps_masks_over_their_pixels():
    ids = np.full((40, 80), 255, np.uint8)
    ids[:20, :40], ids[39, 79] = 4, 9
    image = np.repeat((ids == 4)[..., None], 3, axis=2).astype(np.uint8) * 200
    small, segments = shrunk(image, segments_of(ids), long_px=20)
    assert small.shape == (10, 20, 3)
    assert [(s["category_id"], s["area"], s["bbox"]) for s in segments] == [(4, 50, [0.0, 0.0, 10.0, 5.0])]
    assert (small[:5, :10] == 200).all() and not small[5:].any() and not small[:, 10:].any()
    assert shrunk(image, segments_of(ids), long_px=80)[1] == segments_of(ids)


# Contact sheet -------------------------------------------------------------------------------------


def test_sheet_places_thumbnails_in_columns():
    ids = np.full((40, 80), 4, np.uint8)
    tile = Tile("a.jpg", np.full((40, 80, 3), 7, np.uint8), truth=segments_of(ids))
    sheet = contact_sheet([tile], legend=CATEGORIES, columns=("image", "truth_map"), thumb_px=60)
    assert sheet.width == 24 + 60 + 10 + 60 + 24
    found = np.asarray(sheet)
    top = 24 + 20 + 2
    assert (found[top : top + 30, 24:84] == 7).all()
    assert (found[top : top + 30, 94:154] == RED).all()
    assert (found[top + 30, 24:84] == 255).all() and (found[top : top + 30, 84:94] == 255).all()


def test_sheet_draws_captions_and_legend_of_what_occurs():
    tile = Tile(
        "a.jpg", np.full((20, 20, 3), 7, np.uint8), truth=segments_of(np.full((20, 20), 4, np.uint8)), score=0.5
    )
    plain = contact_sheet([Tile("a.jpg", tile.image)], legend=CATEGORIES, thumb_px=80)
    full = contact_sheet([tile], legend=CATEGORIES, thumb_px=80, title="Cats")
    foot = np.asarray(full)[-40:].reshape(-1, 3)
    assert (foot == RED).all(axis=1).any() and not (foot == BLUE).all(axis=1).any()
    assert full.height == plain.height + (20 + 16) + 20  # the title and the legend's line


def test_legend_wraps_and_long_names_are_elided():
    names = [f"a class of a rather long name {n}" for n in range(6)]
    categories = make_categories(names, first_id=1)
    rows = [
        Tile("x/" * 200 + "a.jpg", np.zeros((6, 6, 3), np.uint8), segments_of(np.arange(1, 7, dtype=np.uint8)[None]))
    ]
    narrow = contact_sheet(rows, legend=categories, thumb_px=60)
    wide = contact_sheet(rows, legend=categories, thumb_px=600)
    assert narrow.width == 48 + 3 * 60 + 2 * 10
    assert narrow.height > wide.height


def test_missing_pictures_are_grey_panels():
    tile = Tile("a.jpg", np.full((60, 60, 3), 7, np.uint8))
    found = np.asarray(contact_sheet([tile], legend=CATEGORIES, columns=("prediction",), thumb_px=60))
    assert found[47, 25].tolist() == [240, 242, 245]


def test_sheet_without_rows_is_its_head():
    assert contact_sheet([], legend=CATEGORIES, title="nothing").height > 0


def test_unknown_column_is_named():
    with pytest.raises(ValueError, match="column 'truht': expected image, truth"):
        contact_sheet([Tile("a", np.zeros((2, 2, 3), np.uint8))], legend=CATEGORIES, columns=("truht",))


def test_elide_keeps_beginning_and_end():
    assert elide("scene.jpg", 500, 13) == "scene.jpg"
    short = elide("a/very/long/path/to/some/scene_00012.jpg", 150, 13)
    assert short.startswith("a/very") and short.endswith("0012.jpg") and "…" in short
    assert elide("scene.jpg", 1, 13) == "…"


def test_real_coco_truth_fits_on_a_sheet():
    path = DATA / "coco_mini"
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    index = read_coco((path / "instances_train2017.json").read_bytes())
    rows = []
    for name in list(index.images)[:3]:
        with Image.open(path / "train2017" / name) as image:
            photo = image.convert("RGB")
        segments = segments_for(index, name, (photo.height, photo.width))
        rows.append(Tile(name, photo, segments, segments, task="instance"))
    sheet = contact_sheet(rows, legend=index.categories, columns=("image", "truth", "truth_map", "prediction_map"))
    assert sheet.width == 48 + 4 * 280 + 3 * 10
