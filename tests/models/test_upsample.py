"""Labels and confidence at the image's size: against torch's interpolate and argmax, on random and awkward logits."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.models.upsample import candidates, upsample_on_cpu
from segjobs.models.upsample_device import upsample_on_device

side = st.integers(1, 24)


def random_logits(seed, channels, size_hw, kind):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(channels, *size_hw)).astype(np.float32)
    if kind == "smooth":  # a few classes dominate, as in a trained network
        logits = np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in logits]) * 30
    elif kind == "ties":
        logits = np.round(logits)
    return np.ascontiguousarray(logits * generator.choice([1e-3, 1, 1e3]), np.float32)


def plain(logits, size_hw):
    return F.interpolate(torch.from_numpy(logits)[None], size_hw, mode="bilinear", align_corners=False)[0].numpy()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 30), side, side, side, side, st.sampled_from(["noise", "smooth", "ties"])
)
def test_labels_are_those_of_plain_interpolation_and_argmax(seed, channels, h, w, height, width, kind):
    logits = random_logits(seed, channels, (h, w), kind)
    for size_hw in ((height, width), (h, w), (4 * h, 4 * w), (max(h // 2, 1), max(w // 2, 1))):
        ids, confidence = upsample_on_cpu(logits, size_hw)
        truth = plain(logits, size_hw)
        # Equal wherever the runner-up is further away than two kernels' rounding.
        won = np.take_along_axis(truth, ids[None].astype(np.int64), 0)[0]
        assert (won >= truth.max(axis=0) - 1e-5 * np.abs(logits).max()).all()
        device_ids, device_confidence = upsample_on_device(torch.from_numpy(logits), size_hw)
        same = ids == device_ids
        np.testing.assert_allclose(confidence[same], device_confidence[same], atol=1e-4)
        assert ids.dtype == device_ids.dtype == np.uint16
        assert confidence.dtype == device_confidence.dtype == np.float32
        assert ids.shape == confidence.shape == size_hw


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 30), side, side, side, side, st.sampled_from(["noise", "smooth", "ties"])
)
def test_pruning_changes_no_label(seed, channels, h, w, height, width, kind):
    logits = random_logits(seed, channels, (h, w), kind)
    planes = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in logits])
    winners = np.unique(planes.argmax(axis=0))
    assert np.isin(winners, candidates(logits)).all()
    ids, _ = upsample_on_cpu(logits, (height, width))
    np.testing.assert_array_equal(ids, planes.argmax(axis=0))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), side, side, side, side, st.sampled_from(["noise", "smooth"]))
def test_two_steps_are_two_interpolations(seed, channels, h, w, height, width, kind):
    logits = random_logits(seed, channels, (h, w), kind)
    inner, size_hw = (8 * h, 8 * w - 3), (height * 5, width * 5)
    truth = plain(plain(logits, inner), size_hw)
    ids, _ = upsample_on_cpu(logits, size_hw, by_way_of=inner)
    device_ids, _ = upsample_on_device(torch.from_numpy(logits), size_hw, by_way_of=inner)
    for got in (ids, device_ids):
        won = np.take_along_axis(truth, got[None].astype(np.int64), 0)[0]
        assert (won >= truth.max(axis=0) - 1e-5 * np.abs(logits).max()).all()


def test_a_class_that_wins_between_cells_only_is_a_candidate():
    # Classes 0 and 1 win the two cells; halfway they give 0, and class 2 has 1 all over. Class 3 wins nowhere.
    logits = np.array([[[4, -4]], [[-4, 4]], [[1, 1]], [[-5, -5]]], np.float32)
    assert candidates(logits).tolist() == [0, 1, 2]
    ids, _ = upsample_on_cpu(logits, (1, 16))
    assert ids[0].tolist() == [0] * 7 + [2, 2] + [1] * 7


def test_ties_go_to_the_lowest_class():
    ids, confidence = upsample_on_cpu(np.zeros((5, 2, 2), np.float32), (9, 9))
    assert (ids == 0).all()
    np.testing.assert_allclose(confidence, 0.2, rtol=1e-6)


def test_more_than_256_classes():
    logits = np.zeros((700, 2, 2), np.float32)
    logits[699, 0] = logits[300, 1] = 10
    ids, _ = upsample_on_cpu(logits, (8, 8))
    assert np.unique(ids[:2]).tolist() == [699]
    assert np.unique(ids[-2:]).tolist() == [300]
    np.testing.assert_array_equal(ids, upsample_on_device(torch.from_numpy(logits), (8, 8))[0])


def test_confidence_is_the_winners_probability_interpolated():
    # Two cells with p(0) = 0.9 and 0.1; at the pixel quarters, 0.9, 0.7, 0.3, 0.1 are class 0's.
    logits = np.log(np.array([[[0.9, 0.1]], [[0.1, 0.9]]], np.float32))
    ids, confidence = upsample_on_cpu(logits, (1, 4))
    assert ids[0].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(confidence[0], [0.9, 0.7, 0.7, 0.9], rtol=1e-5)
