"""Calibration by hand and against torchmetrics' calibration error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import BinaryCalibrationError

from segjobs.metrics.calibration import calibrate


def test_a_case_by_hand():
    found = calibrate(
        np.array([0.5, 0.3, 0.9, 1.0, np.nan, 0.7]),
        np.array([2, 10, 8, 9, 1, 0]),
        np.array([10, 10, 10, 10, 1, 0]),
        bins=2,
    )
    assert found is not None
    low, high = found["bins"]
    assert low == {"low": 0.0, "high": 0.5, "images": 2, "confidence": 0.4, "accuracy": pytest.approx(0.6)}
    assert high == {"low": 0.5, "high": 1.0, "images": 2, "confidence": 0.95, "accuracy": pytest.approx(0.85)}
    assert found["ece"] == pytest.approx((2 * 0.2 + 2 * 0.1) / 4)


def test_an_empty_bin_has_no_means():
    found = calibrate(np.array([0.0, 1.0]), np.array([0, 3]), np.array([3, 3]), bins=3)
    assert found is not None
    assert [entry["images"] for entry in found["bins"]] == [1, 0, 1]
    assert found["bins"][1]["confidence"] is found["bins"][1]["accuracy"] is None
    assert found["ece"] == 0.0


def test_nothing_to_calibrate():
    assert calibrate(np.array([]), np.array([]), np.array([])) is None
    assert calibrate(np.array([np.nan, 0.5]), np.array([1, 0]), np.array([1, 0])) is None


@pytest.mark.parametrize("confidence", [-0.1, 1.1])
def test_confidences_are_shares(confidence):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        calibrate(np.array([confidence]), np.array([1]), np.array([1]))


def test_a_mean_a_little_above_one_is_one():
    found = calibrate(np.array([1.0000001]), np.array([1]), np.array([1]))
    assert found is not None
    assert (found["bins"][-1]["confidence"], found["ece"]) == (1.0, 0.0)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_it_is_torchmetrics_for_images_of_one_pixel(seed, bins):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 200))
    # Values between the edges, where float32 and float64 put them in the same bin.
    confidence = (rng.integers(0, bins, images) + rng.uniform(0.1, 0.9, images)) / bins
    correct = rng.integers(0, 2, images)
    metric = BinaryCalibrationError(n_bins=bins, norm="l1")
    expected = float(metric(torch.from_numpy(confidence), torch.from_numpy(correct)))
    found = calibrate(confidence, correct, np.ones(images, int), bins=bins)
    assert found is not None
    assert found["ece"] == pytest.approx(expected, abs=1e-5)


def test_the_order_of_images_does_not_matter_to_the_last_bit():
    rng = np.random.default_rng(1)
    columns = rng.random(1000).astype(np.float32), rng.integers(0, 50, 1000), np.full(1000, 50)
    order = rng.permutation(1000)
    assert calibrate(*columns) == calibrate(*(column[order] for column in columns))
