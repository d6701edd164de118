"""Contact sheets hold what they are given, in its place, and stay small."""

import io

import numpy as np
import pytest
from PIL import Image

from segjobs.labels.coco import masks_of, read_coco
from segjobs.manifest.schema import make_categories
from segjobs.page.contact_sheet import Tile, contact_sheet, elide, evenly_spread, sheet_png, tile_of
from tests.page.test_overlay import BLUE, CATEGORIES, DATA, RED, segments_of


def test_large_images_are_shrunk_with_their_masks():
    ids = np.full((512, 2048), 255, np.uint8)
    ids[:256, :1024], ids[511, 2047] = 4, 9
    image = np.repeat((ids == 4)[..., None], 3, axis=2).astype(np.uint8) * 200
    tile = tile_of("a.jpg", image, truth=segments_of(ids), score=0.5)
    assert tile.image.shape == (256, 1024, 3)
    assert (tile.image[:128, :512] == 200).all() and not tile.image[128:].any() and not tile.image[:, 512:].any()
    assert tile.truth is not None and tile.prediction is None
    assert [(s.category_id, s.area, list(s.bbox)) for s in tile.truth] == [(4, 128 * 512, [0.0, 0.0, 512.0, 128.0])]
    assert tile.truth[0].size_hw == (256, 1024)


def test_small_images_stay_as_they_are():
    ids = np.full((4, 6), 4, np.uint8)
    image, segments = np.zeros((4, 6, 3), np.uint8), segments_of(ids)
    assert tile_of("a.jpg", image, prediction=segments) == Tile("a.jpg", image, None, segments)


def test_what_is_spread_evenly_has_both_ends():
    assert evenly_spread(9, 3) == [0, 4, 8]
    assert evenly_spread(2, 8) == [0, 1]
    assert evenly_spread(0, 8) == []


def test_the_png_is_the_sheet():
    tile = Tile("a.jpg", np.full((20, 20, 3), 7, np.uint8), segments_of(np.full((20, 20), 4, np.uint8)))
    columns = ("image", "truth")
    with Image.open(io.BytesIO(sheet_png([tile], legend=CATEGORIES, columns=columns, title="Cats"))) as picture:
        found = np.asarray(picture)
    expected = contact_sheet([tile], legend=CATEGORIES, columns=columns, title="Cats")
    np.testing.assert_array_equal(found, np.asarray(expected))


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
            photo = np.asarray(image.convert("RGB"))
        segments = masks_of(index.images[name], photo.shape[:2], index.categories).segments
        rows.append(tile_of(name, photo, truth=segments, prediction=segments, task="instance"))
    sheet = contact_sheet(rows, legend=index.categories, columns=("image", "truth", "truth_map", "prediction_map"))
    assert sheet.width == 48 + 4 * 280 + 3 * 10
