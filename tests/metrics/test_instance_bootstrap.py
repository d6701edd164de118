"""Resampled average precision against sets that really hold an image as often as it was drawn."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.metrics import counts, instance_bootstrap
from segjobs.metrics.average_precision import FIGURES, DetectionMatches, accumulate, join
from segjobs.metrics.bootstrap import Resampling, interval, paired, weights, with_intervals
from segjobs.metrics.instance_bootstrap import estimate_average_precision, resample_average_precision
from segjobs.metrics.matching import BITS, MATCHES_TYPE
from tests.metrics.coco_reference import matches_of
from tests.metrics.test_average_precision import CATEGORIES, random_images


def random_matches(seed: int) -> DetectionMatches:
    """Real matchings, with scores that differ: copies of an image are then neighbours in the ranking."""
    matches = matches_of(random_images(seed) + random_images(seed + 1), CATEGORIES, "mask")
    return replace(matches, score=np.random.default_rng(seed).permutation(matches.score.size) / 1000)


def defined(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else pytest.approx(float(value), abs=1e-5) for value in np.atleast_1d(values)]


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_a_resample_is_the_set_of_images_drawn(seed):
    matches = random_matches(seed)
    resampling = Resampling(resamples=4, seed=seed)
    samples = resample_average_precision(matches, resampling)
    drawn = np.concatenate(list(weights(matches.images, resampling))).astype(int)
    for number, row in enumerate(drawn):
        single = [matches.select(np.arange(matches.images) == image) for image in range(matches.images)]
        copies = accumulate(join([single[image] for image, times in enumerate(row) for _ in range(times)]))
        for name in FIGURES:
            assert defined(samples[name][number]) == [copies.figures[name]], name
            assert defined(samples[f"class_{name}"][number]) == list(copies.per_class[name]), name


def test_values_are_those_of_the_set_and_samples_lie_around_them():
    images = [image for seed in range(12) for image in random_images(seed)]
    matches = matches_of(images, CATEGORIES, "box")
    found, exact = estimate_average_precision(matches, Resampling(resamples=300)), accumulate(matches)
    scores = with_intervals(found)
    for name in FIGURES:
        assert scores[name]["value"] == exact.figures[name]
        if name not in ("APl", "ARl"):  # too few large objects for an interval
            assert scores[name]["low"] < exact.figures[name] < scores[name]["high"], name
        assert [entry["value"] for entry in scores[f"class_{name}"]] == list(exact.per_class[name])
    np.testing.assert_allclose(np.nanmean(found.samples["class_AP"], axis=0), found.values["class_AP"], atol=1e-3)


def test_memory_bounds_change_nothing(monkeypatch):
    matches = random_matches(5)
    whole = resample_average_precision(matches, Resampling(resamples=7))
    monkeypatch.setattr(instance_bootstrap, "_CHUNK", 2 * matches.score.size)
    parts = resample_average_precision(matches, Resampling(resamples=7))
    for name, samples in whole.items():
        np.testing.assert_allclose(parts[name], samples, rtol=0, atol=1e-6)


def test_many_images_are_dealt_into_groups(monkeypatch):
    matches = random_matches(6)
    groups = min(3, matches.images)
    monkeypatch.setattr(counts, "MOST_UNITS", groups)
    dealt = replace(matches, image=matches.image % groups, truth_image=matches.truth_image % groups, images=groups)
    for name in ("AP", "class_AP50", "ARs"):
        samples = resample_average_precision(matches, Resampling(resamples=9))[name]
        assert np.array_equal(resample_average_precision(dealt, Resampling(resamples=9))[name], samples, equal_nan=True)


def test_images_that_belong_together_are_drawn_together():
    """A group is one image that holds all of its images' detections, but for the rank in an image (AR1, AR10)."""
    matches = random_matches(8)
    groups = np.arange(matches.images) // 2
    joined = replace(
        matches, image=groups[matches.image], truth_image=groups[matches.truth_image], images=int(groups.max()) + 1
    )
    samples = resample_average_precision(matches, Resampling(resamples=9), groups)
    expected = resample_average_precision(joined, Resampling(resamples=9))
    for name in ("AP", "class_AP50", "AR100"):
        assert np.array_equal(samples[name], expected[name], equal_nan=True)


def test_nothing_to_find_has_no_figures():
    empty = DetectionMatches.from_column(pa.array([], MATCHES_TYPE), [1, 2])
    scores = with_intervals(estimate_average_precision(empty, Resampling(resamples=3)))
    assert scores["AP"] == {"value": None, "low": None, "high": None}
    assert scores["class_AP"] == [{"value": None, "low": None, "high": None}] * 2


def simulated(rng: np.random.Generator, images: int) -> DetectionMatches:
    """One class; each image has five objects and as many detections, of one quality per image."""
    quality = rng.beta(4, 3, images).repeat(5)
    right = rng.random(quality.size) < quality
    overlap = np.where(right, rng.uniform(0.5, 1, quality.size), 0)
    matched = (overlap[:, None] >= np.linspace(0.5, 0.95, 10)) @ BITS[0]
    image = np.arange(images).repeat(5)
    objects = np.tile([1, 1, 0, 0], (quality.size, 1))
    score = np.clip(0.5 * right + rng.random(quality.size), 0, None)
    zeros = np.zeros(quality.size, np.int64)
    return DetectionMatches(image, zeros, score, matched, zeros, image, zeros, objects, images, 1)


def test_intervals_hold_the_expected_figure_about_95_times_of_100():
    """The figure that sets of this size have on average, from 1,000 of them."""
    rng = np.random.default_rng(3)
    expected = np.mean([accumulate(simulated(rng, 60)).figures["AP50"] for _ in range(1000)])
    hits = 0
    for number in range(120):
        found = estimate_average_precision(simulated(rng, 60), Resampling(resamples=120, seed=number))
        low, high = interval(found.samples["AP50"])
        hits += bool(low <= expected <= high)
    assert 105 <= hits <= 119, hits  # Binomial(120, 0.95): 114 ± 2.4


def test_models_are_compared_in_pairs():
    rng = np.random.default_rng(4)
    matches = simulated(rng, 80)
    worse = replace(matches, matched=np.where(rng.random(matches.score.size) < 0.08, 0, matches.matched))
    ours, theirs = (estimate_average_precision(each, Resampling(resamples=400)) for each in (matches, worse))
    found = paired(ours, theirs)["AP"]
    assert found["difference"] == pytest.approx(found["value"] - found["baseline"])
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["p_value"] < 0.02
    alone = [with_intervals(each)["AP"] for each in (ours, theirs)]
    assert found["high"] - found["low"] < alone[0]["high"] - alone[0]["low"]
