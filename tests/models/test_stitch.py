"""Objects in two tiles: which masks are one, by hand; what is made of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segjobs.config import PostprocessConfig, TilesConfig
from segjobs.manifest.schema import make_categories
from segjobs.manifest.segments import Segment
from segjobs.models.base import VOID, Instances, PanopticMap
from segjobs.models.postprocess import to_segments
from segjobs.models.stitch import PanopticStitcher, Stitcher, TiledImage
from segjobs.models.tiling import cut

CATEGORIES = make_categories(["road", "house"], first_id=1)
SIZE, WIDTH = 16, 24  # two tiles that share columns 8 to 15


def found(*objects: tuple[int, float, tuple[int, int, int, int]]) -> Instances:
    """Rectangles of a tile: class, score, x, y, w, h."""
    boxes = [box for _, _, box in objects]
    return Instances(
        size_hw=(SIZE, SIZE),
        classes=np.array([index for index, _, _ in objects], np.int64),
        scores=np.array([score for _, score, _ in objects], np.float32),
        boxes_xyxy=np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(-1, 4),
        crops=[np.ones((h, w), np.float32) for _, _, w, h in boxes],
        corners_xy=np.array([(x, y) for x, y, _, _ in boxes], np.int32).reshape(-1, 2),
    )


def stitched(left: Instances, right: Instances, post: dict[str, Any] | None = None, **tiles: Any) -> list[Segment]:
    config = TilesConfig.model_validate({"size": SIZE, "overlap": 0.5, **tiles})
    rows, columns = cut(SIZE, config), cut(WIDTH, config)
    assert columns.starts == (0, 8)
    stitcher = Stitcher(TiledImage(rows, columns, CATEGORIES, config, PostprocessConfig.model_validate(post or {})))
    stitcher.add(0, 0, left)
    stitcher.add(0, 1, right)
    return stitcher.finish()[0]


def boxes(segments: list[Segment]) -> list[tuple[float, ...]]:
    return [segment.bbox for segment in segments]


def test_a_road_through_both_tiles_is_one_with_the_better_score() -> None:
    """They share a third of its length: of the whole masks, the intersection over the union would be 8 / 24."""
    (road,) = stitched(found((0, 0.8, (0, 4, 16, 1))), found((0, 0.9, (0, 4, 16, 1))), merge="union", merge_at=1.0)
    assert (road.bbox, road.area, road.score, road.stated_bbox) == (
        (0, 4, 24, 1),
        24,
        pytest.approx(0.9),
        (0, 4, 24, 1),
    )


def test_another_class_another_place_and_no_common_pixel_are_other_objects() -> None:
    left = found((0, 0.9, (0, 4, 16, 2)))
    assert len(stitched(left, found((1, 0.8, (0, 4, 16, 2))))) == 2
    assert len(stitched(left, found((0, 0.8, (0, 9, 16, 2))))) == 2
    assert len(stitched(found((0, 0.9, (0, 4, 8, 2))), found((0, 0.8, (8, 4, 8, 2))))) == 2


def test_the_share_is_of_the_smaller_or_of_the_union_of_what_both_see() -> None:
    """Of 8 shared columns, the left tile sees rows 4 to 7, the right one 6 to 7: 16 of 16, or 16 of 32 pixels."""
    left, right = found((0, 0.9, (0, 4, 16, 4))), found((0, 0.8, (0, 6, 16, 2)))
    assert boxes(stitched(left, right, merge_at=1.0)) == [(0, 4, 24, 4)]
    assert boxes(stitched(left, right, merge="union", merge_at=0.5)) == [(0, 4, 24, 4)]
    assert boxes(stitched(left, right, merge="union", merge_at=0.51)) == [(0, 4, 16, 4), (8, 6, 16, 2)]


def test_area_and_number_are_of_whole_objects() -> None:
    left, right = found((0, 0.9, (0, 4, 16, 1)), (1, 0.3, (2, 9, 3, 3))), found((0, 0.8, (0, 4, 16, 1)))
    assert boxes(stitched(left, right, {"min_area_px": 20})) == [(0, 4, 24, 1)]
    assert boxes(stitched(left, right, {"top_k": 1})) == [(0, 4, 24, 1)]
    assert boxes(stitched(left, right, {"classes": ["house"]})) == [(2, 9, 3, 3)]
    assert boxes(stitched(found(), found())) == []


# --- panoptic ----------------------------------------------------------------------------------

SKY, CAR = 0, 1
PANOPTIC = tuple(
    replace(one, isthing=thing)
    for one, thing in zip(make_categories(["sky", "car"], first_id=1), (False, True), strict=True)
)


def panoptic(*segments: tuple[int, float, np.ndarray], size_hw: tuple[int, int] = (SIZE, SIZE)) -> PanopticMap:
    """Class, score and mask of each; a later one lies above."""
    ids = np.full(size_hw, VOID, np.uint16)
    for number, (_, _, mask) in enumerate(segments):
        ids[mask] = number
    classes = np.array([index for index, _, _ in segments], np.int64)
    return PanopticMap(ids, classes, np.array([score for _, score, _ in segments], np.float32))


def rectangle(x: int, y: int, w: int, h: int, size_hw: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[y : y + h, x : x + w] = True
    return mask


def panoptic_stitched(
    maps: dict[tuple[int, int], PanopticMap], size_hw: tuple[int, int], post: dict[str, Any] | None = None
) -> tuple[list[Segment], float | None]:
    config = TilesConfig.model_validate({"size": SIZE, "overlap": 0.5, "blend": "none"})
    rows, columns = (cut(side, config) for side in size_hw)
    stitcher = PanopticStitcher(
        TiledImage(rows, columns, PANOPTIC, config, PostprocessConfig.model_validate(post or {}))
    )
    for place, one in maps.items():
        stitcher.add(*place, one)
    return stitcher.finish()


def test_a_thing_in_two_tiles_is_one_and_stuff_is_one_region_a_class() -> None:
    left = panoptic((SKY, 0.5, rectangle(0, 0, 16, 2)), (CAR, 0.7, rectangle(9, 4, 7, 3)))
    right = panoptic((SKY, 1.0, rectangle(0, 0, 16, 3)), (CAR, 0.9, rectangle(1, 4, 9, 3)))
    (car, sky), confidence = panoptic_stitched({(0, 0): left, (0, 1): right}, (SIZE, WIDTH))
    # Columns to 12 are of the left tile, the others of the right one.
    assert (car.category, car.bbox, car.area, car.score) == ("car", (9, 4, 9, 3), 27, pytest.approx(0.9))
    assert (sky.category, sky.area, sky.score) == ("sky", 12 * 2 + 12 * 3, pytest.approx((24 * 0.5 + 36 * 1.0) / 60))
    assert confidence == pytest.approx((0.9 + 0.8) / 2)


def test_two_cars_that_tiles_see_otherwise_stay_two_and_do_not_overlap() -> None:
    """The left tile's car reaches into what is the right tile's, who sees another one there."""
    left = panoptic((CAR, 0.8, rectangle(2, 4, 12, 3)))
    right = panoptic((CAR, 0.6, rectangle(4, 6, 10, 6)))
    segments, _ = panoptic_stitched({(0, 0): left, (0, 1): right}, (SIZE, WIDTH))
    assert boxes(segments) == [(2, 4, 10, 3), (12, 6, 10, 6)]


def test_what_no_tile_has_as_its_own_is_no_segment() -> None:
    """A car at the far edge of one tile, which the tile whose place that is does not see."""
    left, right = panoptic((CAR, 0.8, rectangle(13, 4, 3, 3))), panoptic()
    assert panoptic_stitched({(0, 0): left, (0, 1): right}, (SIZE, WIDTH)) == ([], None)


def test_small_ones_are_left_out_when_they_are_whole() -> None:
    left = panoptic((CAR, 0.8, rectangle(9, 4, 7, 1)), (CAR, 0.9, rectangle(1, 1, 2, 2)))
    right = panoptic((CAR, 0.7, rectangle(1, 4, 7, 1)))
    maps = {(0, 0): left, (0, 1): right}
    assert boxes(panoptic_stitched(maps, (SIZE, WIDTH), {"min_area_px": 5})[0]) == [(9, 4, 7, 1)]
    assert boxes(panoptic_stitched(maps, (SIZE, WIDTH), {"top_k": 1})[0]) == [(1, 1, 2, 2)]
    assert boxes(panoptic_stitched(maps, (SIZE, WIDTH), {"score_threshold": 0.85})[0]) == [(1, 1, 2, 2)]
    assert panoptic_stitched(maps, (SIZE, WIDTH), {"classes": ["sky"]}) == ([], None)


@pytest.mark.parametrize("seed", range(5))
def test_tiles_that_see_the_same_give_the_whole_map(seed: int) -> None:
    """Things of convex shape, so that each tile sees one piece of it, in 5 by 4 tiles, which come in any order."""
    random = np.random.default_rng(seed)
    size_hw, config = (56, 48), TilesConfig.model_validate({"size": SIZE, "overlap": 0.5, "blend": "none"})
    things = [
        (CAR, 0.5 + number / 100, rectangle(*random.integers((0, 0, 2, 2), (40, 40, 30, 30)).tolist(), size_hw=size_hw))
        for number in range(4)
    ]
    kept = [one for n, one in enumerate(things) if not any((one[2] & other[2]).any() for _, _, other in things[:n])]
    whole = panoptic((SKY, 0.9, np.ones(size_hw, bool)), *kept, size_hw=size_hw)
    rows, columns = (cut(side, config) for side in size_hw)
    maps = {
        (row, column): replace(whole, ids=whole.ids[top : top + SIZE, left : left + SIZE])
        for row, top in enumerate(rows.starts)
        for column, left in enumerate(columns.starts)
    }
    shuffled = {place: maps[place] for place in map(tuple, random.permutation(list(maps)).tolist())}
    found, _ = panoptic_stitched(shuffled, size_hw)
    expected, _ = to_segments(whole, PANOPTIC, PostprocessConfig())
    assert sorted((one.category, one.counts) for one in found) == sorted((one.category, one.counts) for one in expected)
    assert sorted(one.score or 0 for one in found) == pytest.approx(sorted(one.score or 0 for one in expected))
