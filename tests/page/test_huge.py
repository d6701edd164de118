"""Huge images: the small picture, the place that tells most, and its window, to the pixel, without a whole mask."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjobs.errors import ManifestError
from segjobs.jobs.report.tasks import Drawing, draw_image
from segjobs.manifest.rle import paint
from segjobs.manifest.schema import make_categories
from segjobs.manifest.segments import Segment
from segjobs.page import huge
from segjobs.page.pictures import Subject
from segjobs.sources.windows import Window, open_windows, shrunk
from segjobs.storage import Storage
from tests.page.sample import segments_of

CATEGORIES = make_categories(["sky", "road"])
HIGH, WIDE = 300, 400
TRUTH = np.zeros((HIGH, WIDE), np.uint8)
TRUTH[:, 200:] = 1
GUESS = TRUTH.copy()
GUESS[240:260, 20:40] = 1
PHOTO = np.random.default_rng(0).integers(0, 256, (HIGH, WIDE, 3), np.uint8)


def tiff(photo: np.ndarray = PHOTO) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, photo, photometric="rgb", tile=(64, 64), metadata=None)
    return file.getvalue()


def subject(truth: np.ndarray | None = TRUTH, guess: np.ndarray | None = GUESS) -> Subject:
    sides = [None if ids is None else segments_of(ids, CATEGORIES) for ids in (truth, guess)]
    return Subject(None, *sides, (HIGH, WIDE), "semantic")


def ids_of(segments: Any, size_hw: tuple[int, int]) -> np.ndarray:
    return paint([(one.category_id, one.counts) for one in segments], size_hw)


def test_the_small_picture_has_what_lies_at_the_centre_of_its_pixels() -> None:
    small = huge.small(subject(), open_windows(tiff(), max_pixels=10_000), thumb_px=20)
    assert small.size_hw == (45, 60)
    rows, columns = ((np.arange(number) + 0.5) * side // number for number, side in ((45, HIGH), (60, WIDE)))
    assert small.truth is not None and small.prediction is not None
    for segments, ids in ((small.truth, TRUTH), (small.prediction, GUESS)):
        assert np.array_equal(ids_of(segments, (45, 60)), ids[rows.astype(int)[:, None], columns.astype(int)])
    flat = shrunk(open_windows(tiff(np.full_like(PHOTO, 77)), max_pixels=10_000), (45, 60))
    assert flat.shape == (45, 60, 3) and (flat == 77).all()
    halves = shrunk(open_windows(tiff(), max_pixels=10_000), (HIGH // 2, WIDE // 2)).astype(int)
    means = PHOTO.reshape(HIGH // 2, 2, WIDE // 2, 2, 3).mean(axis=(1, 3))
    assert np.abs(halves - means).max() <= 1


def test_the_window_is_where_most_is_wrong_or_classes_meet() -> None:
    whole = subject()
    place = huge.telling(huge.small(whole, None, thumb_px=20), whole.size_hw, side_px=60)
    assert (place.height, place.width) == (60, 60)
    assert place.top <= 240 and place.left <= 20 and place.top + 60 >= 260 and place.left + 60 >= 40
    right = subject(guess=TRUTH)
    place = huge.telling(huge.small(right, None, thumb_px=20), right.size_hw, side_px=60)
    assert place.left < 200 < place.left + 60
    assert huge.telling(huge.small(whole, None, thumb_px=20), whole.size_hw, side_px=1000) == Window(0, 0, HIGH, WIDE)


def test_a_window_has_the_pixels_as_they_are() -> None:
    place = Window(235, 15, 30, 41)
    seen = huge.window(subject(truth=None), open_windows(tiff(), max_pixels=10_000), place)
    assert seen.truth is None and seen.photo is not None and seen.prediction is not None
    assert np.array_equal(seen.photo, PHOTO[235:265, 15:56])
    assert np.array_equal(ids_of(seen.prediction, (30, 41)), GUESS[235:265, 15:56])


def test_no_whole_mask_is_made() -> None:
    side = 20_000
    counts = Segment.from_mask(CATEGORIES[1], np.ones((side, 10), bool), corner_xy=(50, 0), size_hw=(side, side))
    assert counts is not None
    whole = Subject(None, None, [counts], (side, side), "semantic")
    tracemalloc.start()
    try:
        small = huge.small(whole, None, thumb_px=100)
        huge.window(whole, None, huge.telling(small, whole.size_hw, side_px=100))
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20  # a mask has 400 million pixels
    finally:
        tracemalloc.stop()


def row(path: Path, ids: np.ndarray) -> Any:
    segments = [segment.to_row() for segment in segments_of(ids, CATEGORIES)]
    return {
        **{"image_id": "a", "uri": str(path), "width": WIDE, "height": HIGH, "source": None},
        **{"status": "ok", "error": None, "segments": segments},
    }


@pytest.mark.parametrize("found", [True, False])
def test_a_card_shows_thumbnails_and_one_window_at_full_size(tmp_path: Path, found: bool) -> None:
    path = tmp_path / "a.tif"
    if found:
        path.write_bytes(tiff())
    sides: Any = object()  # of a run, only whether there is one counts here
    drawing = Drawing(Storage(), sides, sides, CATEGORIES, {0: 0, 1: 1}, "semantic", 60, HIGH * WIDE - 1)
    card = draw_image("a", row(path, TRUTH), row(path, GUESS), drawing=drawing)
    names = [*(["image"] if found else []), "truth", "prediction", "difference"]
    pictures: Any = dict(card["pictures"])
    assert sorted(pictures) == sorted([*names, *(f"{name} at full size" for name in names)])
    sizes = {name: Image.open(io.BytesIO(data)).size for name, data in pictures.items()}
    assert set(sizes.values()) == {(60, 45), (60, 60)}
    assert dict(card["absent"]) == ({} if found else {"image": f"NOT_FOUND: {path}: no such file"})
    broken = row(path, TRUTH)
    broken["segments"][0]["segmentation"]["counts"] = "x"
    card = draw_image("a", broken, row(path, GUESS), drawing=drawing)
    assert [remark for remark in card["remarks"] if "cannot be drawn" in remark]


def test_a_mask_of_another_size_is_refused() -> None:
    wrong = Subject(None, segments_of(TRUTH[1:], CATEGORIES), None, (HIGH, WIDE), "semantic")
    with pytest.raises(ManifestError):
        huge.small(wrong, None, thumb_px=20)
