"""Predictions to manifest segments: every step on arrays small enough to check by eye."""

import cv2
import numpy as np
import pytest

from segjobs.config import PostprocessConfig
from segjobs.manifest.rle import decode
from segjobs.manifest.schema import make_categories
from segjobs.models.base import VOID, Instances, LabelMap, PanopticMap
from segjobs.models.postprocess import drop_small_regions, fill_mask_holes, fill_void_holes, to_segments

CATEGORIES = make_categories(["sky", "tree", "road"])
V = VOID


def ids(*rows):
    return np.array(rows, np.uint16)


def label_map(rows, confidence=0.5):
    array = ids(*rows)
    return LabelMap(array, np.broadcast_to(np.float32(confidence), array.shape).astype(np.float32))


def painted(segments, shape):
    out = np.full(shape, V, np.uint16)
    for segment in segments:
        out[decode(segment.counts, shape)] = segment.category_id
    return out


def test_semantic_segments_cover_the_image():
    prediction = label_map([[0, 0, 2], [0, 2, 2]], [[1.0, 0.5, 0.25], [0.75, 0.5, 0.75]])
    segments, confidence = to_segments(prediction, CATEGORIES, PostprocessConfig())
    assert [(s.category, s.category_id, s.area, list(s.bbox), s.score) for s in segments] == [
        ("sky", 0, 3, [0, 0, 2, 2], 0.75),
        ("road", 2, 3, [1, 0, 2, 2], 0.5),
    ]
    assert segments[0].size_hw == (2, 3)
    assert segments[0].iscrowd is False
    assert confidence == pytest.approx(3.75 / 6)
    np.testing.assert_array_equal(painted(segments, (2, 3)), prediction.ids)


def test_min_confidence_leaves_pixels_unlabelled_and_the_image_confidence_alone():
    prediction = label_map([[0, 0], [1, 1]], [[0.9, 0.4], [0.5, 0.3]])
    segments, confidence = to_segments(prediction, CATEGORIES, PostprocessConfig(min_confidence=0.5))
    np.testing.assert_array_equal(painted(segments, (2, 2)), ids([0, V], [1, V]))
    assert [s.score for s in segments] == pytest.approx([0.9, 0.5])
    assert confidence == pytest.approx(2.1 / 4)


def test_small_regions_by_class_touching_at_corners_are_one():
    before = ids([1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, V])
    np.testing.assert_array_equal(drop_small_regions(before, 2), ids([1, 0, 0, V], [0, 1, 0, 0], [0, 0, 0, V]))
    np.testing.assert_array_equal(drop_small_regions(before, 3), ids([V, 0, 0, V], [0, V, 0, 0], [0, 0, 0, V]))


def test_holes_between_two_classes_or_at_the_frame_stay():
    before = ids([1, 1, 1, 2, V], [1, V, 1, V, 2], [1, 1, 1, 2, 2], [1, 1, 1, 2, 2])
    # (1, 1) lies in class 1; (1, 3) touches 1 and 2; (0, 4) is at the frame
    after = ids([1, 1, 1, 2, V], [1, 1, 1, V, 2], [1, 1, 1, 2, 2], [1, 1, 1, 2, 2])
    np.testing.assert_array_equal(fill_void_holes(before), after)
    np.testing.assert_array_equal(fill_void_holes(ids([V, V], [V, V])), ids([V, V], [V, V]))
    np.testing.assert_array_equal(fill_void_holes(ids([0, 1])), ids([0, 1]))


def test_a_small_region_becomes_a_hole_and_is_filled():
    rows = [[1] * 5, [1, 1, 1, 1, 1], [1, 1, 2, 1, 1], [1] * 5]
    config = PostprocessConfig(min_area_px=2, fill_holes=True)
    segments, _ = to_segments(label_map(rows), CATEGORIES, config)
    assert [(s.category, s.area) for s in segments] == [("tree", 20)]


def test_semantic_choice_of_segments():
    prediction = label_map([[0, 1, 2]], [[0.6, 0.9, 0.8]])

    def names(**settings):
        return [s.category for s in to_segments(prediction, CATEGORIES, PostprocessConfig(**settings))[0]]

    assert names(classes=["road", "sky"]) == ["sky", "road"]
    assert names(score_threshold=0.7) == ["tree", "road"]
    assert names(top_k=2) == ["tree", "road"]
    assert names(top_k=1, classes=["sky", "road"]) == ["road"]


def test_everything_unlabelled():
    segments, confidence = to_segments(label_map([[0, 1]], 0.25), CATEGORIES, PostprocessConfig(min_confidence=0.5))
    assert segments == []
    assert confidence == pytest.approx(0.25)


def test_mask_threshold_moves_the_border_of_two_classes():
    two = make_categories(["background", "cell"])
    prediction = label_map([[0, 0, 1, 1]], [[0.9, 0.6, 0.6, 0.9]])  # foreground: 0.1, 0.4, 0.6, 0.9

    def foreground(threshold):
        segments, confidence = to_segments(prediction, two, PostprocessConfig(mask_threshold=threshold))
        return painted(segments, (1, 4))[0].tolist(), confidence

    assert foreground(0.5) == ([0, 0, 1, 1], pytest.approx(0.75))
    assert foreground(0.3) == ([0, 1, 1, 1], pytest.approx((0.9 + 0.4 + 0.6 + 0.9) / 4))
    assert foreground(0.7) == ([0, 0, 0, 1], pytest.approx((0.9 + 0.6 + 0.4 + 0.9) / 4))
    assert foreground(0.05)[0] == [1, 1, 1, 1]


def test_a_target_is_no_prediction():
    with pytest.raises(ValueError, match="is a target"):
        to_segments(LabelMap(ids([0])), CATEGORIES, PostprocessConfig())


def instances(crops, corners, *, scores, classes, size_hw=(6, 6)):
    count = len(crops)
    return Instances(
        size_hw,
        np.array(classes, np.int64),
        np.array(scores, np.float32),
        np.zeros((count, 4), np.float32),
        [np.array(crop, np.float32) for crop in crops],
        np.array(corners, np.int32).reshape(count, 2),
    )


RING = [[0.9, 0.9, 0.9], [0.9, 0.2, 0.9], [0.9, 0.9, 0.9]]


def test_instance_segments():
    prediction = instances([[[0.5, 0.4], [0.6, 0.0]], RING], [(4, 1), (0, 0)], scores=[0.5, 0.75], classes=[2, 0])
    segments, confidence = to_segments(prediction, CATEGORIES, PostprocessConfig())
    assert [(s.category, s.score, s.area, list(s.bbox)) for s in segments] == [
        ("sky", 0.75, 8, [0, 0, 3, 3]),
        ("road", 0.5, 2, [4, 1, 1, 2]),
    ]
    expected = np.zeros((6, 6), bool)
    expected[1:3, 4] = True
    np.testing.assert_array_equal(decode(segments[1].counts, (6, 6)), expected)
    assert confidence == pytest.approx(0.625)


def test_the_box_of_a_box_head_is_kept_beside_the_masks():
    prediction = instances([RING], [(0, 0)], scores=[0.75], classes=[0])
    prediction.boxes_xyxy[0] = [0.1, 0.5, 3.3, 4.5]
    ((segment,), _) = to_segments(prediction, CATEGORIES, PostprocessConfig())
    left, right = np.float32(0.1), np.float32(3.3)
    assert (segment.bbox, segment.stated_area) == ((0.0, 0.0, 3.0, 3.0), None)
    assert segment.stated_bbox == (float(left), 0.5, float(right - left), 4.0)


def test_instance_steps():
    prediction = instances(
        [RING, [[0.6]], [[0.1]], [[0.7, 0.7]]],
        [(0, 0), (5, 5), (2, 2), (3, 0)],
        scores=[0.9, 0.8, 0.7, 0.6],
        classes=[0, 1, 2, 2],
    )

    def areas(**settings):
        return [s.area for s in to_segments(prediction, CATEGORIES, PostprocessConfig(**settings))[0]]

    assert areas() == [8, 1, 2]  # the third has no pixel: dropped
    assert areas(fill_holes=True) == [9, 1, 2]
    assert areas(mask_threshold=0.1) == [9, 1, 1, 2]
    assert areas(mask_threshold=0.65) == [8, 2]
    assert areas(min_area_px=2) == [8, 2]
    assert areas(score_threshold=0.75) == [8, 1]
    assert areas(classes=["road"]) == [2]
    assert areas(top_k=2, min_area_px=2) == [8, 2]  # top_k counts what is left
    assert areas(top_k=1) == [8]


def test_no_instance_no_confidence():
    prediction = instances([], [], scores=[], classes=[])
    assert to_segments(prediction, CATEGORIES, PostprocessConfig()) == ([], None)


def test_mask_holes_against_contours():
    generator = np.random.default_rng(0)
    for _ in range(30):
        mask = cv2.resize(generator.random((5, 6)).astype(np.float32), (24, 20)) > 0.5
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        expected = cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED)
        np.testing.assert_array_equal(fill_mask_holes(mask), expected.astype(bool))


PANOPTIC = PanopticMap(
    ids([0, 0, 0, V], [0, V, 0, 2], [0, 0, 0, 2], [1, 1, 3, 3]),
    classes=np.array([0, 2, 1, 1]),
    scores=np.array([0.9, 0.25, 0.5, 0.75], np.float32),
)


def test_panoptic_segments_are_objects_and_regions():
    segments, confidence = to_segments(PANOPTIC, CATEGORIES, PostprocessConfig())
    assert [(s.category, s.area, list(s.bbox), s.score) for s in segments] == [
        ("sky", 8, [0, 0, 3, 3], pytest.approx(0.9)),
        ("road", 2, [0, 3, 2, 1], 0.25),
        ("tree", 2, [3, 1, 1, 2], 0.5),
        ("tree", 2, [2, 3, 2, 1], 0.75),
    ]
    assert confidence == pytest.approx((0.9 + 0.25 + 0.5 + 0.75) / 4)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"score_threshold": 0.5}, [0, 2, 3]),
        ({"classes": ["tree"]}, [2, 3]),
        ({"min_area_px": 3}, [0]),
        ({"top_k": 2}, [0, 3]),
        ({"top_k": 1, "classes": ["tree", "road"]}, [3]),
        ({"score_threshold": 0.95}, []),
    ],
)
def test_panoptic_segments_that_stay(settings, kept):
    segments, confidence = to_segments(PANOPTIC, CATEGORIES, PostprocessConfig(**settings))
    assert [s.score for s in segments] == PANOPTIC.scores[kept].tolist()
    for segment, number in zip(segments, kept, strict=True):
        np.testing.assert_array_equal(decode(segment.counts, (4, 4)), PANOPTIC.ids == number)
    assert confidence == (pytest.approx(PANOPTIC.scores[kept].mean()) if kept else None)


def test_holes_of_panoptic_segments():
    segments, _ = to_segments(PANOPTIC, CATEGORIES, PostprocessConfig(fill_holes=True))
    assert [s.area for s in segments] == [9, 2, 2, 2]  # the one at the frame stays
