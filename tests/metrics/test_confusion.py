"""Confusion counts and scores by hand, and against dense masks counted pixel by pixel."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segjobs.errors import ManifestError
from segjobs.manifest.rle import VOID, encode_label_map, label_runs
from segjobs.metrics.confusion import dense, image_confusion, missing_confusion, summarise


def runs_of(ids: np.ndarray):
    regions = encode_label_map(ids.astype(np.uint16))
    return label_runs([(region.index, region.counts) for region in regions], ids.shape)


def test_a_case_by_hand():
    truth = np.array([[0, 0, 1], [2, 1, VOID]])
    prediction = np.array([[0, 1, 1], [VOID, 0, 2]])
    confusion = image_confusion(runs_of(truth), runs_of(prediction), 4)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1], [2, VOID, 1], [VOID, 2, 1]]
    matrix = dense(confusion, 4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    scores = summarise(matrix)
    assert scores.iou == (1 / 3, 1 / 3, 0.0, None)
    assert scores.dice == (0.5, 0.5, 0.0, None)
    assert scores.precision == (0.5, 0.5, None, None)
    assert scores.recall == (0.5, 0.5, 0.0, None)
    assert scores.truth_px == (2, 2, 1, 0)
    assert scores.predicted_px == (2, 2, 0, 0)
    assert scores.correct_px == (1, 1, 0, 0)
    assert scores.mean_iou == pytest.approx(2 / 9, abs=1e-15)
    assert scores.pixel_accuracy == 2 / 5
    assert scores.mean_accuracy == 1 / 3
    assert scores.frequency_weighted_iou == pytest.approx(4 / 15, abs=1e-15)


def test_a_class_that_is_only_predicted_counts_and_has_no_recall():
    scores = summarise(np.array([[3, 1, 0], [0, 0, 0]]))
    assert scores.iou == (0.75, 0.0)
    assert scores.precision == (1.0, 0.0)
    assert scores.recall == (0.75, None)
    assert (scores.mean_iou, scores.mean_accuracy, scores.frequency_weighted_iou) == (0.375, 0.75, 0.75)


def test_nothing_labelled_has_no_score():
    scores = summarise(np.zeros((2, 3), np.int64))
    assert scores.iou == scores.dice == scores.precision == scores.recall == (None, None)
    assert (scores.mean_iou, scores.pixel_accuracy) == (None, None)
    assert (scores.mean_accuracy, scores.frequency_weighted_iou) == (None, None)


def test_a_perfect_prediction_scores_one():
    ids = np.array([[0, 1], [VOID, 1]])
    scores = summarise(dense(image_confusion(runs_of(ids), runs_of(ids), 2), 2))
    assert (scores.mean_iou, scores.pixel_accuracy, scores.mean_accuracy, scores.frequency_weighted_iou) == (1, 1, 1, 1)


def test_json():
    raw = json.loads(json.dumps(summarise(np.array([[1, 0, 1], [0, 0, 0]])).to_json()))
    assert raw["iou"] == [0.5, None]
    assert raw["truth_px"] == [2, 0]
    assert raw["mean_iou"] == 0.5


def test_a_missing_prediction_is_wrong_on_every_labelled_pixel():
    truth = runs_of(np.array([[0, 0, 1], [2, 1, VOID]]))
    confusion = missing_confusion(truth, 3)
    assert confusion.tolist() == [[0, VOID, 2], [1, VOID, 2], [2, VOID, 1], [VOID, VOID, 1]]
    scores = summarise(dense(confusion, 3))
    assert scores.iou == scores.recall == (0.0, 0.0, 0.0)
    assert scores.precision == (None, None, None)
    assert scores.pixel_accuracy == 0.0


def test_an_image_without_pixels_adds_nothing():
    empty = label_runs([], (0, 3))
    assert image_confusion(empty, empty, 3).shape == (0, 3)
    assert missing_confusion(empty, 3).shape == (0, 3)
    assert not dense(image_confusion(empty, empty, 3), 3).any()


def test_sizes_must_agree():
    with pytest.raises(ManifestError, match="6 pixels, the prediction 4"):
        image_confusion(runs_of(np.zeros((2, 3))), runs_of(np.zeros((2, 2))), 1)


@pytest.mark.parametrize("side", ["truth", "prediction"])
@pytest.mark.parametrize("index", [-1, 3, 70000])
def test_classes_must_be_in_the_table(side, index):
    good = (np.array([4]), np.array([0], np.int32))
    bad = (np.array([4]), np.array([index], np.int32))
    with pytest.raises(ManifestError, match=f"{side}: class index {index}, expected 0 to 2"):
        image_confusion(*((bad, good) if side == "truth" else (good, bad)), 3)


@pytest.mark.parametrize("matrix", [np.zeros((2, 2), int), np.zeros((2, 3)), np.zeros(6, int)])
def test_other_matrices_are_refused(matrix):
    with pytest.raises(ValueError, match="integer confusion matrix"):
        summarise(matrix)


IDS = st.sampled_from([0, 1, 2, 3, 5, VOID])
PAIRS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint16, shape, elements=IDS)] * 2)
)
CLASSES = 7


@settings(deadline=None)
@given(PAIRS)
def test_counts_are_those_of_the_pixels(pair):
    truth, prediction = pair
    expected: dict[tuple[int, int], int] = {}
    for key in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        expected[key] = expected.get(key, 0) + 1
    confusion = image_confusion(runs_of(truth), runs_of(prediction), CLASSES)
    assert confusion.tolist() == [[*key, pixels] for key, pixels in sorted(expected.items())]


def exact_mean(scores: list[Fraction]) -> float | None:
    return float(sum(scores) / len(scores)) if scores else None


@settings(deadline=None)
@given(PAIRS)
def test_scores_are_those_of_masks_in_exact_fractions(pair):
    """Another way: boolean masks of each class, sums and unions, rational arithmetic."""
    truth, prediction = pair
    scores = summarise(dense(image_confusion(runs_of(truth), runs_of(prediction), CLASSES), CLASSES))
    labelled = truth != VOID
    ious, recalls, weighted = [], [], Fraction(0)
    for index in range(CLASSES):
        real, said = (truth == index), (prediction == index) & labelled
        both, either = int((real & said).sum()), int((real | said).sum())
        if not either:
            assert scores.iou[index] is scores.dice[index] is None
            continue
        ious.append(Fraction(both, either))
        assert scores.iou[index] == float(ious[-1])
        assert scores.dice[index] == float(Fraction(2 * both, int(real.sum() + said.sum())))
        assert scores.precision[index] == (both / int(said.sum()) if said.any() else None)
        assert scores.recall[index] == (both / int(real.sum()) if real.any() else None)
        recalls += [Fraction(both, int(real.sum()))] if real.any() else []
        weighted += ious[-1] * int(real.sum())
    near = {"abs": 1e-15}
    assert scores.mean_iou == (pytest.approx(exact_mean(ious), **near) if ious else None)
    assert scores.mean_accuracy == (pytest.approx(exact_mean(recalls), **near) if recalls else None)
    if labelled.any():
        assert scores.pixel_accuracy == float(Fraction(int((truth == prediction)[labelled].sum()), int(labelled.sum())))
        assert scores.frequency_weighted_iou == pytest.approx(float(weighted / int(labelled.sum())), **near)
    else:
        assert scores.pixel_accuracy is scores.frequency_weighted_iou is None


@settings(deadline=None)
@given(PAIRS, st.integers(1, 11), st.randoms(use_true_random=False))
def test_parts_add_up_to_the_whole_in_any_order(pair, cut, random):
    truth, prediction = pair
    whole = dense(image_confusion(runs_of(truth), runs_of(prediction), CLASSES), CLASSES)
    parts = [
        image_confusion(runs_of(truth[part]), runs_of(prediction[part]), CLASSES)
        for part in (slice(cut), slice(cut, None))
    ]
    random.shuffle(parts)
    assert np.array_equal(sum(dense(part, CLASSES) for part in parts), whole)
    assert np.array_equal(dense(np.concatenate(parts), CLASSES), whole)


def test_scores_do_not_depend_on_the_size_of_the_counts():
    """2^40 pixels and one: a float32 sum would lose the one."""
    matrix = np.array([[2**40, 1, 0], [0, 0, 0]])
    scores = summarise(matrix)
    assert scores.truth_px == (2**40 + 1, 0)
    assert scores.iou[0] == 2**40 / (2**40 + 1) < 1.0


def test_scores_are_the_same_to_the_last_bit_for_any_order_of_classes():
    matrix = np.random.default_rng(3).integers(0, 10**9, (40, 41))
    order = np.random.default_rng(4).permutation(40)
    scores, shuffled = summarise(matrix), summarise(matrix[order][:, [*order, 40]])
    assert scores.mean_iou == shuffled.mean_iou
    assert scores.mean_accuracy == shuffled.mean_accuracy
    assert scores.frequency_weighted_iou == shuffled.frequency_weighted_iou
