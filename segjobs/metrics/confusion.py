"""Exact semantic scores: two run partitions of an image in, pixel counts out, and scores from their sum.

Counts are int64 and added exactly, so the scores of a set are the same to the last bit for any
number of workers, any batches and any order. No mask is ever painted: the runs of truth and
prediction (``manifest.rle.label_runs``) are cut at each other's ends and their lengths counted.

    label_runs × 2 → image_confusion (sparse, one per image) → dense → sum over images → summarise
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from segjobs.errors import ManifestError
from segjobs.manifest.rle import VOID

Runs = tuple[np.ndarray, np.ndarray]
"""(ends, values) of ``label_runs``: int64 ascending up to H·W, int32 class indices or ``VOID``."""


@dataclass(frozen=True)
class SemanticScores:
    """Scores of one confusion matrix; every ratio is in [0, 1], or None where it divides by nothing.

    Of class c, with t pixels in the truth, p predicted (on labelled pixels) and tp both:

    - ``iou`` tp / (t + p - tp), ``dice`` 2 tp / (t + p): None for a class in neither; 0 where only one has it
    - ``precision`` tp / p: None where nothing was predicted as c
    - ``recall`` tp / t: None where the truth has no c

    Of the set, where T is the sum of all t:

    - ``mean_iou``: mean of the ``iou`` that are not None (torchvision's ``mean IoU`` is NaN instead where
      one is; detectron2's also leaves out classes that were predicted but are not in the truth)
    - ``pixel_accuracy``: sum of tp / T (torchvision's global correct, detectron2's pACC)
    - ``mean_accuracy``: mean of the ``recall`` that are not None (detectron2's mACC)
    - ``frequency_weighted_iou``: sum of iou · t / T (detectron2's fwIoU)

    ``truth_px``, ``predicted_px`` and ``correct_px`` are t, p and tp; labelled pixels without a
    prediction are in t only.
    """

    iou: tuple[float | None, ...]
    dice: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    truth_px: tuple[int, ...]
    predicted_px: tuple[int, ...]
    correct_px: tuple[int, ...]
    mean_iou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    frequency_weighted_iou: float | None

    def to_json(self) -> dict[str, list[float | None] | float | None]:
        """The fields by name, classes as lists in the order of their index; None is JSON's null."""
        fields: dict[str, tuple[float | None, ...] | float | None] = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def image_confusion(truth: Runs, prediction: Runs, num_classes: int) -> np.ndarray:
    """Two partitions of one image → int64 (K, 3) rows of (truth class, predicted class, pixels > 0).

    Sorted by truth, then predicted; ``VOID`` stands for unlabelled and for not predicted. Rows of
    unlabelled truth are kept: the conventions that count them need them, ``dense`` drops them.
    Raises ManifestError where the sizes differ or a class is not below ``num_classes``.
    """
    (truth_ends, truth_values), (predicted_ends, predicted_values) = truth, prediction
    sizes = [int(ends[-1]) if ends.size else 0 for ends in (truth_ends, predicted_ends)]
    if sizes[0] != sizes[1]:
        raise ManifestError(f"the truth has {sizes[0]} pixels, the prediction {sizes[1]}: both need the image's size")
    truth_classes, truth_codes = _compact(truth_values, num_classes, "truth")
    predicted_classes, predicted_codes = _compact(predicted_values, num_classes, "prediction")
    # A stable sort merges two ascending sequences in linear time; an end of both gives an empty run.
    ends = np.sort(np.concatenate([truth_ends, predicted_ends]), kind="stable")
    pairs = truth_codes[np.searchsorted(truth_ends, ends)] * predicted_classes.size
    pairs += predicted_codes[np.searchsorted(predicted_ends, ends)]
    # bincount weighs in float64, which holds whole numbers up to 2^53 exactly: more pixels than any image has.
    counts = np.bincount(pairs, np.diff(ends, prepend=0), truth_classes.size * predicted_classes.size)
    found = np.flatnonzero(counts)
    rows, columns = np.divmod(found, max(1, predicted_classes.size))
    return np.stack([truth_classes[rows], predicted_classes[columns], counts[found].astype(np.int64)], axis=1)


def missing_confusion(truth: Runs, num_classes: int) -> np.ndarray:
    """The confusion of an image that has no prediction: every pixel is predicted as ``VOID``."""
    return image_confusion(truth, (truth[0][-1:], np.full(truth[0][-1:].size, VOID, np.int32)), num_classes)


def dense(confusion: np.ndarray, num_classes: int) -> np.ndarray:
    """Rows of ``image_confusion`` (of one image or of many, one under the other) → int64 (C, C + 1).

    Rows are truth classes, columns predicted ones, and the last column is "none": labelled pixels
    without a prediction, wrong for the truth's class and for no other. Unlabelled pixels are dropped.
    """
    matrix = np.zeros((num_classes, num_classes + 1), np.int64)
    truth, predicted, pixels = confusion[confusion[:, 0] != VOID].T
    np.add.at(matrix, (truth, np.where(predicted == VOID, num_classes, predicted)), pixels)
    return matrix


def summarise(confusion: np.ndarray) -> SemanticScores:
    """A (summed) matrix of ``dense``, integer (C, C + 1) → its scores. Raises ValueError for another shape or dtype."""
    if confusion.ndim != 2 or confusion.shape[1] != confusion.shape[0] + 1 or confusion.dtype.kind not in "iu":
        raise ValueError(f"expected an integer confusion matrix (C, C + 1), got {confusion.dtype} {confusion.shape}")
    # Python's integers from here: exact sums, and each ratio rounded once.
    correct = [int(pixels) for pixels in np.diagonal(confusion)]
    truth = [int(pixels) for pixels in confusion.sum(axis=1)]
    predicted = [int(pixels) for pixels in confusion[:, :-1].sum(axis=0)]
    counts = list(zip(correct, truth, predicted, strict=True))
    iou = tuple(_ratio(tp, t + p - tp) for tp, t, p in counts)
    recall = tuple(_ratio(tp, t) for tp, t, _ in counts)
    labelled = sum(truth)
    weighted = math.fsum(score * t for score, t in zip(iou, truth, strict=True) if score is not None)
    return SemanticScores(
        iou=iou,
        dice=tuple(_ratio(2 * tp, t + p) for tp, t, p in counts),
        precision=tuple(_ratio(tp, p) for tp, _, p in counts),
        recall=recall,
        truth_px=tuple(truth),
        predicted_px=tuple(predicted),
        correct_px=tuple(correct),
        mean_iou=_mean(iou),
        pixel_accuracy=_ratio(sum(correct), labelled),
        mean_accuracy=_mean(recall),
        frequency_weighted_iou=weighted / labelled if labelled else None,
    )


def _compact(values: np.ndarray, num_classes: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Class of each run → the classes that occur, ascending with ``VOID`` last, and each run's place among them.

    The table of pairs then grows with the classes of the image, not of the data set.
    """
    wrong = values[(values < 0) | (values >= num_classes) & (values != VOID)]
    if wrong.size:
        raise ManifestError(f"{side}: class index {wrong[0]}, expected 0 to {num_classes - 1}")
    codes = np.where(values == VOID, num_classes, values)
    present = np.bincount(codes, minlength=num_classes + 1) > 0
    classes = np.flatnonzero(present)
    place = np.cumsum(present) - 1
    return np.where(classes == num_classes, VOID, classes), place[codes]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(scores: Sequence[float | None]) -> float | None:
    defined = [score for score in scores if score is not None]
    return math.fsum(defined) / len(defined) if defined else None
