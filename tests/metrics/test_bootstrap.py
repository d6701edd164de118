"""The bootstrap against resamples drawn one by one, and against what its intervals promise."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.metrics import bootstrap
from segjobs.metrics.bootstrap import (
    Estimates,
    Resampling,
    estimate,
    interval,
    p_value,
    paired,
    quantiles,
    resample,
    semantic_figures,
    weights,
    with_intervals,
)
from segjobs.metrics.confusion import summarise
from segjobs.metrics.counts import ClassCounts, from_rows

SET = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
CLASS = ("iou", "dice", "precision", "recall")


def random_matrices(rng: np.random.Generator, images: int, classes: int) -> np.ndarray:
    """int64 (N, C, C + 1) confusions as ``confusion.dense`` gives them; many classes absent from many images."""
    matrices = rng.integers(0, 50, (images, classes, classes + 1))
    matrices *= (rng.random((images, classes)) < 0.5)[:, :, None]
    return matrices * (rng.random((images, classes + 1)) < 0.7)[:, None, :]


def counts_of(matrices: np.ndarray) -> ClassCounts:
    images, classes, _ = matrices.shape
    correct = np.diagonal(matrices, axis1=1, axis2=2)
    values = np.stack([correct, matrices.sum(axis=2), matrices[:, :, :-1].sum(axis=1)], axis=-1)
    unit, category = (index.ravel() for index in np.indices((images, classes)))
    return from_rows(unit, category, values.reshape(-1, 3), units=images, classes=classes)


def values_of(array: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in np.atleast_1d(array)]


@given(st.integers(0, 2**32 - 1))
def test_figures_are_those_of_summarise(seed):
    rng = np.random.default_rng(seed)
    matrix = random_matrices(rng, int(rng.integers(1, 4)), int(rng.integers(1, 6)))
    scores, figures = summarise(matrix.sum(axis=0)), semantic_figures(counts_of(matrix).total())
    for name in CLASS:
        assert values_of(figures[name]) == list(getattr(scores, name)), name
    for name in SET:
        assert values_of(figures[name]) == [pytest.approx(getattr(scores, name), abs=1e-14)], name
    dice = [value for value in scores.dice if value is not None]
    assert values_of(figures["mean_dice"]) == [pytest.approx(np.mean(dice)) if dice else None]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_resamples_are_sums_of_the_images_drawn(seed):
    rng = np.random.default_rng(seed)
    matrices = random_matrices(rng, int(rng.integers(1, 9)), 3)
    resampling = Resampling(resamples=5, seed=seed)
    sums = resample(counts_of(matrices), resampling)
    drawn = np.concatenate(list(weights(len(matrices), resampling)))
    assert (drawn.sum(axis=1) == len(matrices)).all()
    figures = semantic_figures(sums)
    for number, row in enumerate(drawn.astype(int)):
        scores = summarise(np.concatenate([matrices[[i] * n] for i, n in enumerate(row)]).sum(axis=0))
        assert values_of(figures["iou"][number]) == list(scores.iou)
        assert values_of(figures["mean_iou"][number]) == [pytest.approx(scores.mean_iou, abs=1e-14)]


def test_every_image_is_drawn_once_on_average():
    drawn = np.concatenate(list(weights(50, Resampling(resamples=4000, seed=1))))
    assert np.abs(drawn.mean(axis=0) - 1).max() < 0.07  # standard error 0.016
    assert np.abs(drawn.var(axis=0) - 49 / 50).max() < 0.15


def test_seeds_differ_and_repeat():
    one, same, other = (np.concatenate(list(weights(9, Resampling(20, seed)))) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_memory_bounds_change_nothing(monkeypatch):
    counts = counts_of(random_matrices(np.random.default_rng(3), 20, 7))
    whole = resample(counts, Resampling(resamples=30))
    # 20 units: 4 resamples and 1 class at a time
    monkeypatch.setattr(bootstrap, "_CHUNK_BYTES", 8 * 20 * 4)
    assert [len(chunk) for chunk in weights(20, Resampling(resamples=6))] == [4, 2]
    assert np.array_equal(resample(counts, Resampling(resamples=30)), whole)


SCRIPT = """
import hashlib, numpy as np
from segjobs.metrics.bootstrap import Resampling, resample, semantic_figures
from segjobs.metrics.counts import from_rows
rng = np.random.default_rng(0)
values = rng.integers(0, 10**9, (6000, 3))
counts = from_rows(np.repeat(np.arange(1500), 4), np.tile(np.arange(4), 1500), values, units=1500, classes=4)
figures = semantic_figures(resample(counts, Resampling(resamples=64, seed=5)))
print(hashlib.sha256(b"".join(figures[name].tobytes() for name in sorted(figures))).hexdigest())
"""


def test_bits_are_the_same_for_any_number_of_threads():
    digests = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "8")
    ]
    assert len(set(digests)) == 1
    assert len(digests[0].strip()) == len(hashlib.sha256().hexdigest())


def test_sums_that_would_be_rounded_are_refused():
    counts = from_rows(np.arange(4), np.zeros(4, int), np.full((4, 1), 2**51), units=4, classes=1)
    with pytest.raises(OverflowError, match="may pass 2\\^53"):
        resample(counts, Resampling(resamples=1))


def test_no_images_have_no_intervals():
    counts = from_rows(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3), int), units=0, classes=2)
    found = with_intervals(estimate(counts, Resampling(resamples=3), semantic_figures))
    assert found["mean_iou"] == {"value": None, "low": None, "high": None}
    assert found["iou"] == [{"value": None, "low": None, "high": None}] * 2


def test_no_resamples_give_values_alone():
    counts = counts_of(random_matrices(np.random.default_rng(1), 9, 2) + 1)
    found = with_intervals(estimate(counts, Resampling(resamples=0), semantic_figures))
    assert found["mean_iou"]["value"] > 0
    assert found["mean_iou"]["low"] is found["mean_iou"]["high"] is found["iou"][1]["low"] is None


# --- intervals ---------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_quantiles_are_numpys(seed):
    rng = np.random.default_rng(seed)
    samples = rng.random((int(rng.integers(1, 60)), 3))
    samples[0, 1] = np.nan if len(samples) > 20 else samples[0, 1]
    low, high = interval(samples, confidence=0.9)
    np.testing.assert_allclose(low, np.nanquantile(samples, 0.05, axis=0), rtol=1e-12)
    np.testing.assert_allclose(high, np.nanquantile(samples, 0.95, axis=0), rtol=1e-12)
    np.testing.assert_allclose(quantiles(samples, (0.5,))[0], np.nanmedian(samples, axis=0), rtol=1e-12)


def test_a_figure_that_many_resamples_lack_has_no_interval():
    samples = np.linspace(0, 1, 100)[:, None].repeat(2, axis=1)
    samples[:5, 0], samples[:6, 1] = np.nan, np.nan
    low, high = interval(samples)
    assert np.isnan([low[1], high[1], p_value(samples)[1]]).all()
    assert not np.isnan([low[0], high[0], p_value(samples)[0]]).any()


def test_a_class_of_two_images_has_a_value_and_no_interval():
    values = np.array([[5, 10, 10]] * 40 + [[3, 9, 9]] * 2)
    unit, category = np.array([*range(40), 0, 1]), np.array([0] * 40 + [1] * 2)
    counts = from_rows(unit, category, values, units=40, classes=2)
    found = with_intervals(estimate(counts, Resampling(resamples=500), semantic_figures))
    assert found["iou"][0] == {"value": 1 / 3, "low": 1 / 3, "high": 1 / 3}
    assert found["iou"][1] == {"value": 0.2, "low": None, "high": None}


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0] * 99, 2 / 100),  # never below the resolution
        ([1.0] * 97 + [-1.0] * 2, 6 / 100),
        ([0.0] * 99, 1.0),
        ([1.0] * 49 + [-1.0] * 50, 1.0),
    ],
)
def test_p_values_by_hand(differences, expected):
    assert p_value(np.array(differences)) == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1), st.floats(-4, 4))
def test_p_values_agree_with_the_interval(seed, shift):
    differences = np.random.default_rng(seed).normal(shift, 1, 999)
    low, high = interval(differences)
    assert abs(p_value(differences) - 0.05) < 0.005 or (p_value(differences) > 0.05) == (low <= 0 <= high)


def test_pairs_by_hand():
    ours = Estimates(
        {"mean_iou": np.array(0.5), "iou": np.array([0.5, np.nan])},
        {"mean_iou": np.linspace(0.4, 0.6, 101), "iou": np.full((101, 2), 0.5)},
    )
    theirs = Estimates(
        {"mean_iou": np.array(0.25), "iou": np.array([0.25, 0.5])},
        {"mean_iou": np.linspace(0.4, 0.6, 101) - 0.25, "iou": np.full((101, 2), np.nan)},
    )
    found = paired(ours, theirs)
    same = {"value": 0.5, "baseline": 0.25, "difference": 0.25}
    assert found["mean_iou"] == {**same, "low": pytest.approx(0.25), "high": pytest.approx(0.25), "p_value": 2 / 102}
    assert found["iou"] == [
        {**same, "low": None, "high": None, "p_value": None},
        {"value": None, "baseline": 0.5, "difference": None, "low": None, "high": None, "p_value": None},
    ]


# --- what the intervals promise ----------------------------------------------------------------

IMAGES = 80


def scenes(rng: np.random.Generator, images: int, *, models: int = 1) -> list[np.ndarray]:
    """(correct, truth, predicted) pixels, (N, 2, 3), of models that share the images' difficulty."""
    truth = rng.integers(200, 2000, (images, 2))
    ease = rng.beta(8, 3, (images, 1))
    found = []
    for _ in range(models):
        correct = rng.binomial(truth, np.clip(ease + rng.normal(0, 0.05, (images, 2)), 0, 1))
        extra = rng.binomial(truth, 0.15)
        found.append(np.stack([correct, truth, correct + extra], axis=-1))
    return found


def table_of(values: np.ndarray) -> ClassCounts:
    unit, category = (index.ravel() for index in np.indices(values.shape[:2]))
    return from_rows(unit, category, values.reshape(-1, 3), units=len(values), classes=2)


def test_intervals_hold_the_truth_about_95_times_of_100():
    """250 seeded sets of 80 images from a population whose figures are known from 400,000 images."""
    rng = np.random.default_rng(7)
    population = semantic_figures(scenes(rng, 400_000)[0].sum(axis=0))
    names = ("mean_iou", "pixel_accuracy", "mean_dice", "iou")
    hits = dict.fromkeys(names, 0)
    for number in range(250):
        found = estimate(table_of(scenes(rng, IMAGES)[0]), Resampling(resamples=200, seed=number), semantic_figures)
        for name in names:
            low, high = (np.ravel(end)[0] for end in interval(found.samples[name]))
            hits[name] += bool(low <= np.ravel(population[name])[0] <= high)
    # Binomial(250, 0.95): 237.5 ± 3.4; percentile intervals of 80 images are a little narrow.
    assert all(224 <= count <= 247 for count in hits.values()), hits


def test_equal_models_differ_significantly_about_5_times_of_100():
    rng = np.random.default_rng(8)
    significant = 0
    for number in range(200):
        ours, theirs = (
            estimate(table_of(values), Resampling(resamples=200, seed=number), semantic_figures)
            for values in scenes(rng, IMAGES, models=2)
        )
        significant += paired(ours, theirs)["mean_iou"]["p_value"] < 0.05
    assert 3 <= significant <= 20, significant  # Binomial(200, 0.05): 10 ± 3.1


def test_pairing_finds_what_two_separate_intervals_hide():
    rng = np.random.default_rng(9)
    ours, theirs = scenes(rng, IMAGES, models=2)
    theirs[:, :, 0] -= theirs[:, :, 0] // 50  # 2% of the right pixels lost
    first, second = (estimate(table_of(values), Resampling(seed=3), semantic_figures) for values in (ours, theirs))
    apart = [with_intervals(each)["mean_iou"] for each in (first, second)]
    assert apart[1]["high"] > apart[0]["low"]
    assert paired(first, second)["mean_iou"]["p_value"] < 0.05
