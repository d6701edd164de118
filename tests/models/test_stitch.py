"""Objects in two tiles: which masks are one, by hand; what is made of them."""

from typing import Any

import numpy as np
import pytest

from segjobs.config import PostprocessConfig, TilesConfig
from segjobs.manifest.schema import make_categories
from segjobs.manifest.segments import Segment
from segjobs.models.base import Instances
from segjobs.models.stitch import Stitcher
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
    stitcher = Stitcher(rows, columns, CATEGORIES, config, PostprocessConfig.model_validate(post or {}))
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
