"""Runs of a batch's objects as both ways find them: bit by bit what the encoder makes of their crops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segjobs.manifest.rle import encode_crop, encode_masks
from segjobs.models import paste
from segjobs.models.paste import MaskCrops, RoiMasks, runs_at

KINDS = ("blob", "noise", "all on", "all off", "not a number", "at the threshold", "steps", "checkerboard", "ring")
THRESHOLDS = (0.5, 0.3, 0.0, 1.0, 0.75, 0.05)
BY_PIXEL = (True, False)


def drawn_mask(generator, kind, threshold, side=28):
    """float32 (side, side)."""
    rows, columns = np.indices((side, side)) / max(side - 1, 1)
    level = np.float32(threshold)
    neighbours = np.nextafter(level, np.float32([0, 1]))
    return {
        "blob": lambda: 1 / (1 + np.exp(20 * (np.hypot(rows - 0.5, columns - generator.random()) - 0.4))),
        "noise": lambda: generator.random((side, side)),
        "all on": lambda: np.ones((side, side)),
        "all off": lambda: np.zeros((side, side)),
        "not a number": lambda: np.where(generator.random((side, side)) < 0.01, np.nan, rows),
        "at the threshold": lambda: generator.choice([level, level, *neighbours.clip(0, 1)], (side, side)),
        "steps": lambda: np.round(rows * 4) / 4,
        "checkerboard": lambda: np.indices((side, side)).sum(0) % 2,
        "ring": lambda: (np.abs(np.hypot(rows - 0.5, columns - 0.5) - 0.35) < 0.1) * 0.9,
    }[kind]().astype(np.float32)


def drawn_boxes(generator, count, size_hw):
    """float32 (count, 4): inside, over the frame, off the image, without width, around all of it."""
    height, width = size_hw
    kinds = [
        lambda: generator.random(4) * (width, height, width, height),
        lambda: generator.normal(0.5, 1, 4) * (width, height, width, height),
        lambda: generator.choice([-3, 2], 1) * [width, height, width, height] + [0, 0, 5, 5],
        lambda: np.add(np.tile(generator.random(2) * (width, height), 2), [0, 0, *generator.choice([0, 0.4, 1], 2)]),
        lambda: np.array([0, 0, width, height]),
        lambda: np.array([-0.3, -0.2, 1.3, 1.2]) * (width, height, width, height),
        lambda: np.array([generator.random() * width, 0, generator.random() * width, height]),
    ]
    boxes = np.array([generator.choice(kinds)() for _ in range(count)], np.float32).reshape(-1, 2, 2)
    return np.sort(boxes, axis=1).reshape(-1, 4)


def drawn(seed, count, size_hw, threshold, kinds=KINDS, side=28):
    generator = np.random.default_rng(seed)
    masks = [drawn_mask(generator, generator.choice(kinds), threshold, side) for _ in range(count)]
    stacked = torch.from_numpy(np.array(masks, np.float32).reshape(count, 1, side, side))
    return RoiMasks(stacked, drawn_boxes(generator, count, size_hw), size_hw)


def codes_of_crops(objects, threshold):
    """The way of one crop after the other."""
    crops = MaskCrops(objects)
    corners = crops.corners_xy.tolist()
    return [
        encode_crop(crop >= threshold, (left, top), objects.size_hw)
        for crop, (left, top) in zip(crops, corners, strict=True)
    ]


def codes_of_runs(images, threshold, by_pixel):
    return [
        encode_masks(*runs, [one.size_hw] * len(one.boxes_xyxy))
        for one, runs in zip(images, runs_at(threshold, images, by_pixel=by_pixel), strict=True)
    ]


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(
        st.tuples(st.integers(0, 6), st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from([1, 5, 28])),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(THRESHOLDS),
)
def test_codes_are_those_of_the_crops(seed, sizes, threshold):
    side = sizes[0][2]
    images = [drawn(seed + n, count, size_hw, threshold, side=side) for n, (count, size_hw, _) in enumerate(sizes)]
    expected = [codes_of_crops(one, threshold) for one in images]
    for by_pixel in BY_PIXEL:
        assert codes_of_runs(images, threshold, by_pixel) == expected


@pytest.mark.parametrize("size_hw", [(1, 3000), (3000, 1), (1, 1), (700, 500)])
@pytest.mark.parametrize("by_pixel", BY_PIXEL)
def test_strips_single_pixels_and_large_images(size_hw, by_pixel):
    images = [drawn(3, len(KINDS), size_hw, 0.5), drawn(4, 2, (20, 20), 0.5)]
    assert codes_of_runs(images, 0.5, by_pixel) == [codes_of_crops(one, 0.5) for one in images]


@pytest.mark.parametrize("by_pixel", BY_PIXEL)
def test_no_object_and_three_hundred(by_pixel):
    images = [drawn(1, 0, (30, 40), 0.5), drawn(2, 300, (60, 80), 0.5), drawn(1, 0, (30, 40), 0.5)]
    found = codes_of_runs(images, 0.5, by_pixel)
    assert found == [[], codes_of_crops(images[1], 0.5), []]
    assert [len(runs.starts) for runs in runs_at(0.5, images[::2], by_pixel=by_pixel)] == [0, 0]
    assert runs_at(0.5, [], by_pixel=by_pixel) == []


@pytest.mark.parametrize("by_pixel", BY_PIXEL)
def test_no_batch_nor_step_changes_a_mask(by_pixel, monkeypatch):
    """Steps of a few columns, which cut windows, give what a step for all does."""
    images = [drawn(seed, 5, size_hw, 0.5) for seed, size_hw in enumerate([(30, 40), (64, 20), (30, 40)])]
    together = codes_of_runs(images, 0.5, by_pixel)
    assert [codes_of_runs([one], 0.5, by_pixel)[0] for one in images] == together
    assert codes_of_runs(images[::-1], 0.5, by_pixel) == together[::-1]
    for pixels in (1, 100, 1000):
        monkeypatch.setattr(paste, "_STEP_BYTES", pixels * paste._BYTES_A_PIXEL)
        assert codes_of_runs(images, 0.5, by_pixel) == together


def test_a_mask_by_hand():
    """A mask of one number and its rim are three cells of seven pixels: pixel i lies at (i + 1/2)·3/7 - 1/2 of them."""
    objects = RoiMasks(torch.ones(1, 1, 1, 1), np.array([[2, 2, 4, 4]], np.float32), (8, 7))
    (crop,) = MaskCrops(objects)
    assert MaskCrops(objects).corners_xy.tolist() == [[0, 0]]
    ramp = np.array([0, 1, 4, 7, 4, 1, 0]) / 7
    np.testing.assert_allclose(crop, np.outer(ramp, ramp), atol=1e-6)


@pytest.fixture
def copies(monkeypatch):
    """How many tensors each copy to the host is made of."""
    seen = []
    to_host = paste.to_host
    monkeypatch.setattr(paste, "to_host", lambda parts: seen.append(len(parts)) or to_host(parts))
    return seen


def test_the_runs_of_a_batch_come_by_one_copy(copies, monkeypatch):
    images = [drawn(seed, 7, (90, 70), 0.5, kinds=("blob", "all on", "ring")) for seed in range(4)]
    runs_at(0.5, images, by_pixel=True)
    assert copies == [1]
    monkeypatch.setattr(paste, "_STEP_BYTES", 20_000 * paste._BYTES_A_PIXEL)
    runs_at(0.5, images, by_pixel=True)
    assert copies[1] > 1 and len(copies) == 2, "in steps too"


def test_more_runs_than_expected_take_a_second_copy(copies):
    image = RoiMasks(drawn(1, 1, (90, 90), 0.5, kinds=("checkerboard",)).masks, np.array([[0, 0, 90, 90.0]]), (90, 90))
    image = replace(image, boxes_xyxy=image.boxes_xyxy.astype(np.float32))
    assert codes_of_runs([image], 0.5, True) == [codes_of_crops(image, 0.5)]
    assert copies == [1, 1]
    assert codes_of_runs([image], 0.5, False) == [codes_of_crops(image, 0.5)]
    assert copies == [1, 1, 1], "on a CPU there is room"


def test_nothing_asks_the_device_for_a_number_before_the_copy():
    """On a device without data whoever asks for a value fails."""
    step = paste._strips([drawn(1, 5, (30, 40), 0.5)], 10**6)
    found = paste._by_pixel(torch.zeros(5, 30, 30, device="meta"), step, 0.5, room=64)
    assert (found.shape, found.dtype) == ((65,), torch.int32)


def test_pixels_are_those_of_torchvisions_paste():
    for seed, size_hw in enumerate([(30, 40), (200, 300)]):
        objects = drawn(seed, 20, size_hw, 0.5, kinds=("blob", "noise", "ring"))
        objects = replace(objects, boxes_xyxy=objects.boxes_xyxy.clip(0, (size_hw[::-1] * 2)).astype(np.float32))
        expected = paste_masks_in_image(objects.masks, torch.from_numpy(objects.boxes_xyxy), size_hw)[:, 0].numpy()
        (runs,) = runs_at(0.5, [objects])
        for number, mask in enumerate(expected):
            own = slice(runs.first[number], runs.first[number + 1])
            flat = np.zeros(mask.size, bool)
            for start, end in zip(runs.starts[own].tolist(), runs.ends[own].tolist(), strict=True):
                flat[start:end] = True
            sure = np.abs(mask - 0.5) > 4e-6
            np.testing.assert_array_equal(flat.reshape(size_hw[::-1]).T[sure], (mask >= 0.5)[sure])
