"""Augmentation: by hand on few pixels, and image, label map and objects against each other on many."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.config import AugmentConfig
from segjobs.models.augment import augment, draw_window
from segjobs.models.base import VOID, Instances, LabelMap

STILL = {"scale": (1, 1), "horizontal_flip": 0, "brightness": 0, "contrast": 0, "saturation": 0}
"""Nothing is drawn but the place of the crop."""


def still(**settings):
    return AugmentConfig(**{**STILL, "crop_px": None, **settings})


def ramp(height=40, width=60):
    """Red is the column, green the row, and so are the ids of two label maps."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2), columns.astype(np.uint16), rows.astype(np.uint16)


def objects_of(ids):
    """Each id of a label map but VOID as an object, its class the id, its score tied to it."""
    kept = [number for number in np.unique(ids).tolist() if number != VOID]
    crops, corners = [], []
    for number in kept:
        rows, columns = np.nonzero(ids == number)
        top, left = rows.min(), columns.min()
        crops.append((ids == number)[top : rows.max() + 1, left : columns.max() + 1].astype(np.float32))
        corners.append((left, top))
    corners = np.array(corners, np.int32).reshape(-1, 2)
    sizes = np.array([crop.shape[::-1] for crop in crops]).reshape(-1, 2)
    boxes = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
    scores = np.array(kept, np.float32) / 100
    return Instances(ids.shape, np.array(kept, np.int64), scores, boxes, crops, corners)


def painted(target):
    ids = np.full(target.size_hw, VOID, np.uint16)
    for number, crop, (left, top) in zip(target.classes, target.crops, target.corners_xy, strict=True):
        ids[top : top + crop.shape[0], left : left + crop.shape[1]][crop == 1] = number
    return ids


def test_crops_and_mirrors_by_hand():
    image, columns, _ = ramp(4, 6)
    ids = columns.copy()
    ids[0] = VOID
    for config, expected in (
        (still(), ids),
        (still(horizontal_flip=1), ids[:, ::-1]),
        (still(vertical_flip=1), ids[::-1]),
        (still(horizontal_flip=1, vertical_flip=1), ids[::-1, ::-1]),
    ):
        changed, target = augment(image, LabelMap(ids), config, seed=0)
        np.testing.assert_array_equal(target.ids, expected)
        np.testing.assert_array_equal(changed[..., 0][expected != VOID], expected[expected != VOID])
    changed, target = augment(image, LabelMap(columns), still(crop_px=[2, 3]), seed=3)
    left, top = changed[0, 0, :2].tolist()
    np.testing.assert_array_equal(changed, image[top : top + 2, left : left + 3])
    np.testing.assert_array_equal(target.ids, columns[top : top + 2, left : left + 3])
    assert len({augment(image, LabelMap(columns), still(crop_px=1), seed=n)[0].tobytes() for n in range(200)}) == 24
    doubled, target = augment(image, LabelMap(ids), still(scale=(2, 2)), seed=0)
    assert doubled.shape == (8, 12, 3)
    np.testing.assert_array_equal(target.ids, ids.repeat(2, axis=0).repeat(2, axis=1))


def test_objects_are_cut_dropped_and_boxed_anew():
    ids = np.full((4, 8), VOID, np.uint16)
    ids[1:3, 1:5] = 7
    ids[0, 7] = 8
    image = ramp(4, 8)[0]
    for seed in range(20):
        cut, target = augment(image, objects_of(ids), still(crop_px=[4, 3]), seed=seed)
        left = int(cut[0, 0, 0])
        np.testing.assert_array_equal(painted(target), ids[:, left : left + 3])
        assert target.size_hw == (4, 3)
        expected = [(7, [max(1 - left, 0), 1, min(5 - left, 3), 3])] if left < 5 else []
        expected += [(8, [7 - left, 0, 8 - left, 1])] if left == 5 else []
        assert list(zip(target.classes.tolist(), target.boxes_xyxy.tolist(), strict=True)) == expected
        np.testing.assert_allclose(target.scores, target.classes / 100)
    assert (target.boxes_xyxy.dtype, target.corners_xy.dtype) == (np.float32, np.int32)
    nothing = objects_of(np.full((4, 8), VOID, np.uint16))
    _, target = augment(image, nothing, AugmentConfig(), seed=0)
    assert (len(target.classes), target.boxes_xyxy.shape, target.corners_xy.shape) == (0, (0, 4), (0, 2))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**48), scale=st.floats(0.3, 3), void=st.booleans())
def test_image_label_map_and_objects_stay_together(seed, scale, void):
    image, columns, rows = ramp()
    config = AugmentConfig(
        **{**STILL, "scale": (scale, scale), "aspect": 1.3, "horizontal_flip": 0.5}, vertical_flip=0.5, crop_px="30x50"
    )
    shown, by_column = augment(image, LabelMap(columns), config, seed=seed)
    _, by_row = augment(image, LabelMap(rows), config, seed=seed)
    # Antialiasing shifts a ramp at the frame alone, and rounding by half a grey level.
    inner = np.s_[3:-3, 3:-3]
    for plane, target in ((shown[..., 0], by_column), (shown[..., 1], by_row)):
        error = (plane.astype(float) - target.ids)[inner]
        if error.size:
            assert np.abs(error).max() <= 1.5
            assert abs(error.mean()) < 0.6
    blocks = (rows // 9 * 8 + columns // 9).astype(np.uint16)
    if void:
        blocks[5:20, 5:20] = VOID
    _, label_map = augment(image, LabelMap(blocks), config, seed=seed)
    _, objects = augment(image, objects_of(blocks), config, seed=seed)
    np.testing.assert_array_equal(painted(objects), label_map.ids)
    assert sorted(objects.classes.tolist()) == [n for n in np.unique(label_map.ids).tolist() if n != VOID]
    assert objects.size_hw == label_map.ids.shape == shown.shape[:2]


@given(seed=st.integers(0, 2**48), side=st.integers(1, 50), low=st.floats(0.1, 1), crop=st.integers(1, 60) | st.none())
def test_windows_lie_within_the_image(seed, side, low, crop):
    config = AugmentConfig(scale=(low, 2), aspect=2, crop_px=crop)
    window = draw_window((side, 20), config, np.random.default_rng(seed))
    assert 0 <= window.top <= window.top + window.height <= side
    assert 0 <= window.left <= window.left + window.width <= 20
    assert min(*window.to_hw, window.height, window.width) >= 1
    if crop:
        assert max(window.to_hw) <= crop


def test_ids_of_more_than_a_byte():
    image, columns, _ = ramp()
    ids = columns + 240
    ids[:, :4] = VOID
    for most in (254, 255, 299):
        some = np.where(ids <= most, ids, VOID).astype(np.uint16)
        _, target = augment(image, LabelMap(some), still(horizontal_flip=1), seed=0)
        np.testing.assert_array_equal(target.ids, some[:, ::-1])
        _, target = augment(image, LabelMap(some), still(scale=(2, 2)), seed=0)
        np.testing.assert_array_equal(target.ids[::2, ::2], some)


def test_the_seed_decides_alone_and_no_generator_notices():
    image, columns, _ = ramp()
    before = image.copy()
    image.flags.writeable = False
    states = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    config = AugmentConfig(hue=0.1, vertical_flip=0.5)
    first, target = augment(image, LabelMap(columns), config, seed=11)
    torch.rand(3), np.random.random()  # elsewhere in the process
    torch.random.set_rng_state(states[2])
    again, same = augment(image, LabelMap(columns), config, seed=11)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(target.ids, same.ids)
    np.testing.assert_array_equal(image, before)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert len({augment(image, LabelMap(columns), config, seed=n)[0].tobytes() for n in range(20)}) == 20
    kept, _ = augment(image, LabelMap(columns), AugmentConfig(enabled=False), seed=0)
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours(name):
    rng = np.random.default_rng(0)
    image = rng.integers(60, 180, (16, 16, 3), np.uint8)
    ids = np.zeros((16, 16), np.uint16)
    changed = [augment(image, LabelMap(ids), still(**{name: 0.1}), seed=n)[0].astype(float) for n in range(30)]
    assert len({one.tobytes() for one in changed}) > 20
    ratios = np.array([one.mean() / image.mean() for one in changed])
    spread = np.array([one.std() / image.std() for one in changed])
    grey = np.array([np.ptp(one, axis=2).mean() / np.ptp(image.astype(float), axis=2).mean() for one in changed])
    moves = {"brightness": ratios, "contrast": spread, "saturation": grey, "hue": ratios}[name]
    if name == "hue":
        assert np.abs(moves - 1).max() < 0.05, "a turn of the colours keeps their brightness"
        return
    assert 0.88 < moves.min() < 0.95, "brightness, contrast and saturation fall and rise by the tenth"
    assert 1.05 < moves.max() < 1.12


def test_a_pixel_takes_the_label_under_its_centre():
    image, columns, _ = ramp(39, 60)
    for target in (LabelMap(columns), objects_of(columns)):
        small, scaled = augment(image, target, still(scale=(1 / 3, 1 / 3)), seed=0)
        assert small.shape == (13, 20, 3)
        ids = scaled.ids if isinstance(scaled, LabelMap) else painted(scaled)
        np.testing.assert_array_equal(ids, columns[1::3, 1::3])
