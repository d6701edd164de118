"""The rules of model.resize, by hand and against torchvision."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.v2.functional import resize

from segjobs.errors import ItemError
from segjobs.models.resize import (
    _SCRATCH,
    detection_size,
    resize_array,
    resize_ids,
    resize_image,
    target_size,
    to_tensor,
)


@pytest.mark.parametrize(
    ("rule", "size_hw", "expected"),
    [
        ("native", (7, 9), (7, 9)),
        ("short:520", (480, 640), (520, 693)),
        ("short:520", (640, 480), (693, 520)),
        ("short:520", (1, 1), (520, 520)),
        ("short:4", (1, 16), (4, 64)),
        ("long:100", (30_000, 10), (100, 1)),
        ("long:100", (50, 200), (25, 100)),
        ("long:100", (200, 50), (100, 25)),
        ("256x512", (30_000, 10), (256, 512)),
    ],
)
def test_target_size(rule, size_hw, expected):
    assert target_size(rule, size_hw) == expected


def test_mask_rcnns_size():
    assert detection_size("short:800", (480, 640)) == (800, 1066)
    assert detection_size("short:800", (480, 1600)) == (399, 1333)
    assert detection_size("long:100", (1, 300)) == (1, 100)
    assert detection_size("native", (4, 5)) == (4, 5)
    assert detection_size("30x20", (4, 5)) == (30, 20)


def test_a_strip_too_long_for_short_is_one_failed_item():
    with pytest.raises(ItemError, match=r"10x30000 pixels.*short:520.*use long:N") as caught:
        target_size("short:520", (30_000, 10))
    assert caught.value.code == "TOO_LARGE"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.integers(2, 40))
def test_short_is_torchvisions_resize(seed, height, width, side):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    try:
        size_hw = target_size(f"short:{side}", (height, width))
    except ItemError:
        assert max(height, width) > 16 * min(height, width)
        return
    expected = resize(torch.from_numpy(image.transpose(2, 0, 1).copy()), [side], antialias=True)
    assert torch.equal(resize_image(to_tensor(image), size_hw), expected)


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 7, 40]), st.sampled_from(["short", "long"]))
def test_mask_rcnns_size_is_torchvisions(height, width, side, rule):
    longest = round(1333 * side / 800) if rule == "short" else side
    if min(height, width) * min(side / min(height, width), longest / max(height, width)) < 1:
        return  # no pixel of the shorter side would be left
    transform = GeneralizedRCNNTransform(side, longest, [0.0] * 3, [1.0] * 3).eval()
    images, _ = transform([torch.zeros(3, height, width)])
    assert images.image_sizes == [detection_size(f"{rule}:{side}", (height, width))]


def test_a_single_pixel():
    # Not against torchvision: for planar memory, torch 2.15's kernel fails its own assertion on a 1x1 output.
    image = np.full((40, 60, 3), (10, 20, 30), np.uint8)
    assert resize_image(to_tensor(image), (1, 1)).flatten().tolist() == [10, 20, 30]


def test_read_only_and_strided_images_are_copied_without_a_warning():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    image.flags.writeable = False
    assert to_tensor(image).shape == (3, 2, 4)
    mirrored = to_tensor(image[:, ::-1])
    assert mirrored[0, 0].tolist() == [9, 6, 3, 0]


def test_ids_take_the_label_under_each_centre():
    ids = np.array([[1, 2], [3, 4]], np.uint16)
    assert resize_ids(ids, (1, 4)).tolist() == [[3, 3, 4, 4]]  # the centre of the one row is the border: lower row
    assert resize_ids(ids, (2, 2)).tolist() == ids.tolist()
    assert resize_ids(np.arange(6, dtype=np.uint16)[None], (1, 3)).tolist() == [[1, 3, 5]]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), *[st.integers(1, 200)] * 2, *[st.integers(1, 90)] * 2, st.booleans())
def test_without_torch_images_are_resized_to_the_same_bytes(seed, height, width, to_height, to_width, black_and_white):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if black_and_white:
        image = (image > 127).astype(np.uint8) * 255
    expected = resize_image(to_tensor(image), (to_height, to_width)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(resize_array(image, (to_height, to_width)), expected)


@pytest.mark.parametrize(
    ("original_hw", "size_hw"),
    [
        ((480, 640), (256, 341)),
        ((480, 640), (520, 693)),
        ((480, 640), (1024, 1365)),
        ((480, 640), (30, 40)),
        ((600, 803), (200, 200)),  # in thirds and fourths: the largest sums that a float32 holds
        ((11, 12_000), (5, 3000)),  # as many pixels as are resized in several pieces
        ((12_000, 11), (3000, 5)),
    ],
)
@pytest.mark.parametrize("white", [False, True])
def test_a_photographs_bytes_without_torch(original_hw, size_hw, white):
    image = np.random.default_rng(1).integers(254 if white else 0, 256, (*original_hw, 3), np.uint8)
    expected = resize_image(to_tensor(image), size_hw).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(resize_array(image, size_hw), expected)


def test_threads_resize_in_memory_of_their_own_that_they_keep():
    generator = np.random.default_rng(1)
    images = [generator.integers(0, 256, (*size_hw, 3), np.uint8) for size_hw in [(90, 120), (120, 90), (97, 131)]]
    expected = [resize_image(to_tensor(one), (64, 80)).permute(1, 2, 0).numpy() for one in images]

    large = np.zeros((480, 640, 3), np.uint8)

    def work(image):
        resize_array(large, (500, 700))
        kept = list(map(id, _SCRATCH._kept.values()))
        found = [resize_array(image, (64, 80)) for _ in range(20)]
        return found, kept == list(map(id, _SCRATCH._kept.values()))

    with ThreadPoolExecutor(3) as threads:
        for (found, kept), one in zip(threads.map(work, images), expected, strict=True):
            assert kept
            assert all((other == one).all() for other in found)
