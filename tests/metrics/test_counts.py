"""Counts by image and class: by hand, and against dense sums for any cut into blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjobs.manifest.rle import VOID
from segjobs.metrics.counts import ClassCounts, from_confusion, from_rows, gather


def dense(counts: ClassCounts) -> np.ndarray:
    table = np.zeros((counts.units, counts.classes, counts.values.shape[1]), np.int64)
    table[counts.unit, counts.category] = counts.values
    return table


def test_a_confusion_by_hand():
    confusion = np.array([[0, 0, 5], [0, 1, 2], [0, VOID, 1], [VOID, 1, 9], [1, 1, 4]])
    counts = from_confusion(confusion, np.array([0, 0, 0, 0, 2]), images=3, classes=2)
    assert counts.unit.tolist() == [0, 0, 2]
    assert counts.category.tolist() == [0, 1, 1]
    assert counts.values.tolist() == [[5, 8, 5], [0, 0, 2], [4, 4, 4]]  # correct, truth, predicted
    assert counts.total().tolist() == [[5, 8, 5], [4, 4, 6]]


def test_selection_numbers_anew():
    counts = from_rows(np.array([3, 1, 0]), np.array([1, 0, 1]), np.array([[7], [8], [9]]), units=4, classes=2)
    kept = counts.select(np.array([False, True, False, True]))
    assert (kept.unit.tolist(), kept.category.tolist(), kept.values.tolist()) == ([0, 1], [0, 1], [[8], [7]])
    assert kept.units == 2


@pytest.mark.parametrize(
    ("unit", "category", "values", "message"),
    [
        ([2], [0], [[1]], "unit 2 to 2: expected 0 to 1"),
        ([0], [-1], [[1]], "class -1 to -1: expected 0 to 2"),
        ([0, 1], [0, 1], [[1]], "integer counts of 2 rows"),
        ([0], [0], [[0.5]], "integer counts of 1 rows, got float64"),
    ],
)
def test_rows_that_make_no_sense(unit, category, values, message):
    with pytest.raises(ValueError, match=message):
        from_rows(np.array(unit), np.array(category), np.array(values), units=2, classes=3)


def test_blocks_must_be_alike():
    one, two = (from_rows(np.zeros(1, int), np.zeros(1, int), np.ones((1, f), int), units=1, classes=1) for f in (1, 2))
    with pytest.raises(ValueError, match="one number of classes and fields"):
        gather([one, two])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_gathering_deals_images_round_robin_and_loses_nothing(seed, most, sizes):
    rng = np.random.default_rng(seed)
    blocks = []
    for size in sizes:
        rows = int(rng.integers(0, 12)) if size else 0
        picked = rng.integers(0, size, rows) if size else np.zeros(0, int)
        values = rng.integers(0, 100, (rows, 2))
        blocks.append(from_rows(picked, rng.integers(0, 3, rows), values, units=size, classes=3))
    images = np.concatenate([dense(block) for block in blocks])
    gathered = gather(blocks, most_units=most)
    assert gathered.units == min(most, len(images))
    expected = np.stack([images[start::most].sum(axis=0) for start in range(gathered.units)]) if len(images) else images
    assert np.array_equal(dense(gathered), expected)
    assert np.array_equal(gathered.total(), images.sum(axis=0))


def test_gathering_folds_as_it_goes(monkeypatch):
    monkeypatch.setattr("segjobs.metrics.counts._FOLD_ROWS", 3)
    blocks = [
        from_rows(np.array([0, 1]), np.array([0, 1]), np.full((2, 1), n), units=2, classes=2) for n in range(1, 8)
    ]
    gathered = gather(blocks, most_units=4)
    assert dense(gathered)[..., 0].tolist() == [[1 + 3 + 5 + 7, 0], [0, 1 + 3 + 5 + 7], [2 + 4 + 6, 0], [0, 2 + 4 + 6]]


def test_counts_are_exact_beyond_float32_and_float64():
    large = np.array([[2**60], [1]])
    assert from_rows(np.zeros(2, int), np.zeros(2, int), large, units=1, classes=1).values.tolist() == [[2**60 + 1]]
