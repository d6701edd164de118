"""Every convention by hand, and against the published formulas written out on dense label maps.

The references keep the structure of the projects' own code (named in each), in plain numpy.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from segjobs.manifest.rle import VOID, encode_label_map, label_runs
from segjobs.metrics.confusion import image_confusion
from segjobs.metrics.conventions import CONVENTIONS, PairTally, full_matrix, ignore, per_image
from segjobs.metrics.counts import from_confusion

CLASSES = 5
Pair = tuple[np.ndarray, np.ndarray]


def confusion_of(truth: np.ndarray, prediction: np.ndarray, *, classes: int = CLASSES) -> np.ndarray:
    sides = [
        label_runs([(region.index, region.counts) for region in encode_label_map(ids.astype(np.uint16))], ids.shape)
        for ids in (truth, prediction)
    ]
    return image_confusion(sides[0], sides[1], classes)


def matrix_of(pairs: list[Pair]) -> np.ndarray:
    return sum((full_matrix(confusion_of(*pair), CLASSES) for pair in pairs), np.zeros((CLASSES + 1,) * 2, np.int64))


def per_image_mean(pairs: list[Pair]) -> float | None:
    tallies = [
        per_image(from_confusion(rows := confusion_of(*pair), np.zeros(len(rows), int), images=1, classes=CLASSES))
        for pair in pairs
    ]
    return sum(tallies, PairTally()).mean


def random_pairs(seed: int, *, void: bool = True, first: int = 0, classes: int = CLASSES) -> list[Pair]:
    """Images of random size; predictions are mostly the truth; void where ``void``, in the truth only."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(int(rng.integers(1, 5))):
        shape = rng.integers(1, 9, 2)
        some = rng.integers(first, classes, 2)
        truth = some[rng.integers(0, 2, shape)]
        prediction = np.where(rng.random(shape) < 0.3, rng.integers(first, classes, shape), truth)
        truth = np.where(rng.random(shape) < 0.2, VOID, truth) if void else truth
        pairs.append((truth, prediction))
    return pairs


SEEDS = st.integers(0, 2**32 - 1)


def test_all_conventions_of_a_case_by_hand():
    # Image 1: class 0 on the left half, right; class 1 on the right, half predicted as 3. Image 2: void predicted as 2.
    truth = [np.array([[0, 0, 1, 1]]), np.array([[0, VOID, 2, 2]])]
    prediction = [np.array([[0, 0, 1, 3]]), np.array([[0, 2, 2, 2]])]
    pairs = list(zip(truth, prediction, strict=True))
    matrix = matrix_of(pairs)
    assert matrix.tolist() == [
        [3, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 0, 2, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
    ]
    scores = {name: convention(matrix) for name, convention in CONVENTIONS.items()}
    assert scores["dataset"].iou == (1.0, 0.5, 1.0, 0.0, None)
    assert scores["dataset"].mean_iou == 2.5 / 4
    assert scores["dataset"].pixel_accuracy == 6 / 7
    assert scores["dataset"].mean_accuracy == 2.5 / 3
    assert scores["dataset"].mean_dice == pytest.approx((1 + 2 / 3 + 1) / 4)
    assert scores["dataset"].frequency_weighted_iou == pytest.approx((3 + 1 + 2) / 7)
    assert scores["mmseg"].mean_iou == 0.625
    assert scores["mmseg"].pixel_accuracy == 0.8571
    assert scores["mmseg"].mean_dice == 0.6667
    assert scores["torchvision"].mean_iou is None  # class 4 is in neither
    assert scores["torchvision"].pixel_accuracy == 6 / 7
    assert scores["detectron2"].iou == (1.0, 0.5, 1.0, None, None)
    assert scores["detectron2"].mean_iou == 2.5 / 3
    assert scores["detectron2"].frequency_weighted_iou == pytest.approx(6 / 7)
    assert scores["cityscapes"].mean_iou == 2.5 / 4
    assert scores["segnet"].iou == (1.0, 0.5, 2 / 3, 0.0, None)
    assert scores["segnet"].mean_iou == pytest.approx((1 + 0.5 + 2 / 3) / 4)
    # image 1: 1, 1/2, and 0 of class 3; image 2: 1, and 1 of class 2
    assert per_image_mean(pairs) == pytest.approx((1 + 0.5 + 0 + 1 + 1) / 5)


def test_the_same_masks_differ_by_convention():
    """Sixty images of few classes each: no two conventions but the equivalent ones agree, torchvision has none."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(60):
        truth = np.repeat(rng.integers(0, 3, (4, 4)), 8, axis=1)
        prediction = np.where(rng.random(truth.shape) < 0.05, 3 if number == 0 else truth[::-1], truth)
        pairs.append((np.where(rng.random(truth.shape) < 0.1, VOID, truth), prediction))
    matrix = matrix_of(pairs)
    means = {name: convention(matrix).mean_iou for name, convention in CONVENTIONS.items()}
    means["per_image"] = per_image_mean(pairs)
    assert means["torchvision"] is None
    assert means["dataset"] == means["cityscapes"] != means["mmseg"] == pytest.approx(means["dataset"], abs=5e-5)
    values = [means[name] for name in ("segnet", "dataset", "detectron2", "per_image")]
    assert all(value is not None for value in values)
    assert len({round(value or 0, 3) for value in values}) == 4
    assert means["detectron2"] > means["dataset"] > means["segnet"]


def test_an_ignored_class_as_in_cityscapes():
    matrix = np.array([[4, 1, 2, 0], [3, 5, 0, 0], [1, 0, 6, 1], [2, 2, 2, 9]])  # classes 0, 1, 2; unlabelled, none
    ignored = ignore(matrix, [1])
    assert ignored.tolist() == [[4, 0, 2, 1], [0, 0, 0, 0], [1, 0, 6, 1], [5, 0, 2, 16]]
    scores = CONVENTIONS["cityscapes"](ignored)
    # class 0: a prediction of class 1 is a false negative; pixels of class 1 predicted as 0 are no false positives
    assert scores.iou == (4 / 8, None, 6 / 10)
    assert ignore(matrix, []).tolist() == matrix.tolist()


def test_a_missing_prediction_is_wrong_under_every_convention():
    matrix = full_matrix(np.array([[0, 0, 6], [0, VOID, 2], [1, VOID, 4], [VOID, VOID, 3]]), 2)
    for name, convention in CONVENTIONS.items():
        scores = convention(matrix)
        assert scores.iou == (0.75, 0.0), name
        assert scores.pixel_accuracy in (0.5, None), name


@pytest.mark.parametrize("name", list(CONVENTIONS))
def test_nothing_labelled_has_no_score(name):
    scores = CONVENTIONS[name](np.zeros((3, 3), np.int64))
    assert scores.iou == (None, None)
    assert {value for key, value in scores.to_json().items() if key != "iou"} == {None}


@pytest.mark.parametrize("matrix", [np.zeros((2, 3), int), np.zeros((2, 2)), np.zeros(4, int)])
def test_other_matrices_are_refused(matrix):
    with pytest.raises(ValueError, match="integer confusion matrix"):
        CONVENTIONS["dataset"](matrix)


def near(value: float | None, expected: float, *, abs: float = 1e-12) -> bool:
    return math.isnan(expected) if value is None else value == pytest.approx(expected, abs=abs)


@given(SEEDS)
def test_mmseg(seed):
    """``mmseg.evaluation.IoUMetric``: intersect_and_union by histograms, total_area_to_metrics, np.round."""
    pairs = random_pairs(seed)
    areas = np.zeros((3, CLASSES))
    for truth, prediction in pairs:
        mask = truth != VOID
        prediction, label = prediction[mask], truth[mask]
        bins = {"bins": CLASSES, "range": (0, CLASSES - 1)}
        areas[0] += np.histogram(prediction[prediction == label], **bins)[0]
        areas[1] += np.histogram(prediction, **bins)[0]
        areas[2] += np.histogram(label, **bins)[0]
    both, predicted, label = areas
    with np.errstate(all="ignore"):
        iou, accuracy, dice = both / (predicted + label - both), both / label, 2 * both / (predicted + label)
        overall = both.sum() / label.sum()
    scores = CONVENTIONS["mmseg"](matrix_of(pairs))
    for value, expected in ((scores.mean_iou, iou), (scores.mean_accuracy, accuracy), (scores.mean_dice, dice)):
        mean = np.mean(expected[~np.isnan(expected)]) if not np.isnan(expected).all() else np.nan
        # A mean that lies between two hundredths may be rounded to either.
        assert near(value, np.round(mean * 100, 2) / 100, abs=1.01e-4 if abs(mean * 1e4 % 1 - 0.5) < 1e-9 else 1e-12)
    assert near(scores.pixel_accuracy, np.round(overall * 100, 2) / 100)
    assert all(near(*each, abs=1.01e-4) for each in zip(scores.iou, iou, strict=True))


@given(SEEDS, st.booleans())
def test_torchvision(seed, full):
    """``references/segmentation/utils.py``: ConfusionMatrix.update and compute."""
    pairs = random_pairs(seed, classes=2 if full else CLASSES)
    classes = 2 if full else CLASSES
    matrix = np.zeros((classes, classes))
    for truth, prediction in pairs:
        a, b = truth.ravel(), prediction.ravel()
        k = (a >= 0) & (a < classes)
        matrix += np.bincount(classes * a[k] + b[k], minlength=classes**2).reshape(classes, classes)
    with np.errstate(all="ignore"):
        overall = np.diag(matrix).sum() / matrix.sum()
        iou = np.diag(matrix) / (matrix.sum(1) + matrix.sum(0) - np.diag(matrix))
    counted = matrix_of(pairs)
    kept = [*range(classes), CLASSES]
    scores = CONVENTIONS["torchvision"](counted[np.ix_(kept, kept)])
    assert near(scores.mean_iou, iou.mean())
    assert near(scores.pixel_accuracy, overall)
    assert all(near(*each) for each in zip(scores.iou, iou, strict=True))


@given(SEEDS)
def test_detectron2(seed):
    """``detectron2/evaluation/sem_seg_evaluation.py``: process and evaluate."""
    pairs = random_pairs(seed)
    n = CLASSES
    matrix = np.zeros((n + 1, n + 1), np.int64)
    for truth, prediction in pairs:
        label = np.where(truth == VOID, n, truth)
        matrix += np.bincount((n + 1) * prediction.ravel() + label.ravel(), minlength=(n + 1) ** 2).reshape(
            n + 1, n + 1
        )
    acc, iou = np.full(n, np.nan), np.full(n, np.nan)
    tp = matrix.diagonal()[:-1].astype(float)
    pos_gt = matrix[:-1, :-1].sum(axis=0).astype(float)
    pos_pred = matrix[:-1, :-1].sum(axis=1).astype(float)
    scores = CONVENTIONS["detectron2"](matrix_of(pairs))
    if not pos_gt.any():
        assert scores.mean_iou is scores.frequency_weighted_iou is None
        return
    weights = pos_gt / pos_gt.sum()
    valid = pos_gt > 0
    acc[valid] = tp[valid] / pos_gt[valid]
    union = pos_gt + pos_pred - tp
    valid_iou = np.logical_and(valid, union > 0)
    iou[valid_iou] = tp[valid_iou] / union[valid_iou]
    assert near(scores.mean_accuracy, acc[valid].sum() / valid.sum())
    assert near(scores.mean_iou, iou[valid_iou].sum() / valid_iou.sum())
    assert near(scores.frequency_weighted_iou, (iou[valid_iou] * weights[valid_iou]).sum())
    assert near(scores.pixel_accuracy, tp.sum() / pos_gt.sum())
    assert all(near(*each) for each in zip(scores.iou, iou, strict=True))


@given(SEEDS, st.sets(st.integers(0, CLASSES - 1)))
def test_cityscapes(seed, ignored):
    """``evalPixelLevelSemanticLabeling.py``: getIouScoreForLabel, getScoreAverage; void is one more ignored label."""
    pairs = random_pairs(seed)
    labels = range(CLASSES + 1)
    ignore_in_eval = {*ignored, CLASSES}
    matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    for truth, prediction in pairs:
        np.add.at(matrix, (np.where(truth == VOID, CLASSES, truth), prediction), 1)

    def score(label: int) -> float:
        if label in ignore_in_eval:
            return math.nan
        tp = matrix[label, label]
        fn = matrix[label, :].sum() - tp
        others = [each for each in labels if each not in ignore_in_eval and each != label]
        fp = matrix[others, label].sum()
        return tp / (tp + fp + fn) if tp + fp + fn else math.nan

    expected = np.array([score(label) for label in range(CLASSES)])
    scores = CONVENTIONS["cityscapes"](ignore(matrix_of(pairs), ignored))
    assert all(near(*each) for each in zip(scores.iou, expected, strict=True))
    defined = expected[~np.isnan(expected)]
    assert near(scores.mean_iou, defined.mean() if defined.size else math.nan)


@given(SEEDS)
def test_segnet(seed):
    """Boolean masks of each class over all pixels, unlabelled ones too."""
    pairs = random_pairs(seed)
    truth = np.concatenate([pair[0].ravel() for pair in pairs])
    prediction = np.concatenate([pair[1].ravel() for pair in pairs])
    masks = [(truth == index, prediction == index) for index in range(CLASSES)]
    expected = [(t & p).sum() / (t | p).sum() for t, p in masks if (t | p).any()]
    scores = CONVENTIONS["segnet"](matrix_of(pairs))
    assert near(scores.mean_iou, float(np.mean(expected)))
    labelled = truth != VOID
    right = (truth == prediction)[labelled]
    assert near(scores.pixel_accuracy, float(right.mean()) if right.size else math.nan)


@settings(max_examples=30)
@given(SEEDS)
def test_per_image_is_torchmetrics(seed):
    pairs = random_pairs(seed, void=False)
    metric = MeanIoU(num_classes=CLASSES, input_format="index")
    for truth, prediction in pairs:
        metric.update(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
    assert per_image_mean(pairs) == pytest.approx(float(metric.compute()), abs=1e-6)  # theirs is float32


@settings(max_examples=30)
@given(SEEDS)
def test_dataset_is_torchmetrics_jaccard_index(seed):
    pairs = random_pairs(seed)
    truth = np.concatenate([pair[0].ravel() for pair in pairs])
    prediction = np.concatenate([pair[1].ravel() for pair in pairs])
    scores = CONVENTIONS["dataset"](matrix_of(pairs))
    if (truth == VOID).all():
        assert scores.mean_iou is None
        return
    metric = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=VOID)
    expected = float(metric(torch.from_numpy(prediction), torch.from_numpy(truth.astype(np.int64))))
    assert scores.mean_iou == pytest.approx(expected, abs=1e-6)


def test_real_labels_are_counted_as_torchmetrics_counts_them(shared_data):
    """CamVid's labels, against themselves moved by some pixels: exact counts, and the mean IoU."""
    matrix = np.zeros((12, 12), np.int64)
    metric = MulticlassConfusionMatrix(11, ignore_index=VOID)
    jaccard = MulticlassJaccardIndex(11, average="macro", ignore_index=VOID)
    for path in sorted((shared_data / "camvid" / "labels" / "val").glob("*.png"))[::20]:
        ids = np.asarray(Image.open(path)).astype(np.int64)
        prediction = np.roll(np.where(ids == 11, 4, ids), 5, axis=1)
        truth = np.where(ids == 11, VOID, ids)
        matrix += full_matrix(confusion_of(truth, prediction, classes=11), 11)
        for each in (metric, jaccard):
            each.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    assert np.array_equal(matrix[:11, :11], metric.compute().numpy())
    assert CONVENTIONS["dataset"](matrix).mean_iou == pytest.approx(float(jaccard.compute()), abs=1e-6)
    assert matrix[11].sum() > 0


@settings(max_examples=20)
@given(SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter_to_the_last_bit(seed, random):
    pairs = random_pairs(seed)
    shuffled = random.sample(pairs, len(pairs))
    assert per_image_mean(pairs) == per_image_mean(shuffled)
    for name, convention in CONVENTIONS.items():
        assert convention(matrix_of(pairs)) == convention(matrix_of(shuffled)), name


def test_a_tally_of_many_pairs_is_the_exact_mean():
    rng = np.random.default_rng(5)
    values = np.zeros((40_000, 3), np.int64)
    values[:, 1:] = rng.integers(1, 10**6, (40_000, 2))
    values[:, 0] = rng.integers(0, values[:, 1:].min(axis=1) + 1)
    counts = from_confusion(np.zeros((0, 3), np.int64), np.zeros(0, int), images=1, classes=1)
    counts = type(counts)(np.arange(40_000), np.zeros(40_000, int), values, 40_000, 1)
    union = values[:, 1] + values[:, 2] - values[:, 0]
    exact = math.fsum((values[:, 0] / union).tolist()) / 40_000
    assert per_image(counts).mean == pytest.approx(exact, abs=1e-15)
    halves = [counts.select(np.arange(40_000) % 2 == part) for part in (0, 1)]
    assert per_image(halves[1]) + per_image(halves[0]) == per_image(counts)
