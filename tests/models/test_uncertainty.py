"""Margin and entropy: by hand, and against scipy's and torch's; on a grid where there are many pixels; of objects."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.errors import ItemError
from segjobs.manifest.rows import Uncertainty
from segjobs.manifest.segments import Segment
from segjobs.models.uncertainty import TILE_STEP, measured, of_logits, of_segments, pixels_of, summed_up


def test_by_hand() -> None:
    shares = torch.tensor(
        [[[0.5, 1 / 4, 1.0]], [[0.5, 1 / 4, 1e-30]], [[1e-30, 1 / 4, 1e-30]], [[1e-30, 1 / 4, 1e-30]]]
    )
    margin, entropy = pixels_of(shares.log())
    assert margin == pytest.approx([0, 0, 1], abs=1e-6) and entropy == pytest.approx([0.5, 1, 0], abs=1e-6)
    found = of_logits(shares.log())
    assert found == pytest.approx((1 / 3, 0, 0.5, 1), abs=1e-6), "the worst twentieth of three pixels is one"


@given(
    size=st.tuples(st.integers(2, 30), st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
    scale=st.sampled_from([0.1, 3, 300]),
)
@settings(max_examples=60, deadline=None)
def test_as_others_compute_it(size: tuple[int, int, int], seed: int, scale: float) -> None:
    logits = np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)
    shares = scipy.special.softmax(logits.astype(np.float64), axis=0).reshape(size[0], -1)
    entropy = scipy.stats.entropy(shares, axis=0) / np.log(size[0])
    two = torch.topk(torch.from_numpy(shares), 2, dim=0).values.numpy()
    margin = two[0] - two[1]
    count = max(1, round(0.05 * margin.size))
    expected = margin.mean(), np.sort(margin)[:count].mean(), entropy.mean(), np.sort(entropy)[::-1][:count].mean()
    found = of_logits(torch.from_numpy(logits))
    assert found == pytest.approx(expected, abs=2e-4) and all(-1e-6 <= one <= 1 + 1e-6 for one in found)


def test_many_pixels_are_looked_at_on_a_grid() -> None:
    logits = torch.randn(3, 200, 130, generator=torch.Generator().manual_seed(1))
    assert len(pixels_of(logits)[0]) == 67 * 44, "every third one of each row and column"
    assert of_logits(logits) == of_logits(logits[:, ::3, ::3])
    assert len(pixels_of(logits, TILE_STEP)[0]) == 25 * 17
    assert len(pixels_of(logits[:, :80, :80])[0]) == 6400


def test_half_precision_is_taken() -> None:
    logits = torch.randn(5, 9, 9).bfloat16()
    assert of_logits(logits) == of_logits(logits.float())


def test_objects_are_measured_by_their_scores() -> None:
    def segment(score: float | None) -> Segment:
        return Segment(0, "car", score, (0, 0, 1, 1), 1, False, (1, 1), "01")

    assert of_segments([]) is None
    found = of_segments([segment(0.5), segment(1.0), segment(None)])
    assert found == pytest.approx(Uncertainty(2 / 3, 0, 1 / 3, 1), abs=1e-6)


@pytest.mark.parametrize("given", [None, (0.1, 0.1, 0.1, 0.1), Uncertainty(0.1, float("nan"), 0.1, 0.1)])
def test_what_an_own_model_gives_is_looked_at(given: Any) -> None:
    model: Any = SimpleNamespace(card=SimpleNamespace(task="semantic"), uncertainty=lambda output, size_hw: given)
    with pytest.raises(ItemError, match="expected an Uncertainty"):
        measured(model, None, (1, 1), [])
    model.uncertainty = lambda output, size_hw: Uncertainty(0.1, 0.2, 0.3, 0.4)
    assert measured(model, None, (1, 1), []) == (0.1, 0.2, 0.3, 0.4)


def test_the_worst_twentieth() -> None:
    values = np.arange(100, dtype=np.float32) / 100
    assert summed_up(values, values) == pytest.approx((0.495, 0.02, 0.495, 0.97))
