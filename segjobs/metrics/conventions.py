"""The same masks as other evaluators would score them: one full confusion matrix in, their figures out.

Every row of README.md's table of conventions follows from the sparse confusion of each image (``confusion.py``):

    full_matrix, added over images → ignore → CONVENTIONS[name] → ConventionScores
    counts.from_confusion of a block of images → per_image, added over blocks → its mean

All sums are exact integers, so a figure is the same to the last bit for any order of the images.
The formulas are those of the projects named below, with exact counts where theirs lose some: mmseg
adds float32 areas, torchvision turns its matrix into float32.

No evaluator but this one knows a labelled pixel without a prediction (a missing or failed image).
Under every convention it is wrong for its truth's class and for no other.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from segjobs.manifest.rle import VOID
from segjobs.metrics.confusion import SemanticScores, summarise
from segjobs.metrics.counts import ClassCounts

_UNIT = 53  # a float64 from 0.5 to 1 is a multiple of 2^-53, a smaller one is rounded to it
_LOW = 22


@dataclass(frozen=True)
class ConventionScores:
    """Figures of one convention in [0, 1], ``iou`` by class; None is undefined, or not reported by that tool."""

    iou: tuple[float | None, ...] = ()
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    frequency_weighted_iou: float | None = None
    mean_dice: float | None = None

    def to_json(self) -> dict[str, list[float | None] | float | None]:
        fields: dict[str, tuple[float | None, ...] | float | None] = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def full_matrix(confusion: np.ndarray, num_classes: int) -> np.ndarray:
    """Rows (truth, predicted, pixels) of ``image_confusion``, of any number of images → int64 (C + 1, C + 1).

    Rows are truth classes and last the unlabelled pixels, columns predicted classes and last "none".
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    truth, predicted, pixels = confusion.T
    rows, columns = (np.where(side == VOID, num_classes, side) for side in (truth, predicted))
    np.add.at(matrix, (rows, columns), pixels)
    return matrix


def ignore(matrix: np.ndarray, indices: Iterable[int]) -> np.ndarray:
    """A full matrix without the classes ``indices``: cityscapes' ``ignoreInEval``, for any convention.

    Pixels of such a class in the truth become unlabelled. A prediction of one becomes "none": on a
    valid pixel it is a false negative of the truth's class and a false positive of no class. The shape
    stays; an ignored class is then in neither truth nor prediction.
    """
    indices = sorted(set(indices))
    matrix = matrix.copy()
    matrix[-1] += matrix[indices].sum(axis=0)
    matrix[indices] = 0
    matrix[:, -1] += matrix[:, indices].sum(axis=1)
    matrix[:, indices] = 0
    return matrix


def dataset(matrix: np.ndarray) -> ConventionScores:
    """The headline: unlabelled pixels dropped, mean over the classes that are in truth or prediction."""
    return _scores(summarise(_labelled(matrix)))


def mmseg(matrix: np.ndarray) -> ConventionScores:
    """mmsegmentation's ``IoUMetric``: as ``dataset``, in percent with two places (aAcc, mIoU, mAcc, mDice)."""
    scores = dataset(matrix)
    return ConventionScores(
        iou=tuple(_percent(iou) for iou in scores.iou),
        mean_iou=_percent(scores.mean_iou),
        pixel_accuracy=_percent(scores.pixel_accuracy),
        mean_accuracy=_percent(scores.mean_accuracy),
        mean_dice=_percent(scores.mean_dice),
    )


def torchvision(matrix: np.ndarray) -> ConventionScores:
    """torchvision's ``references/segmentation`` (``ConfusionMatrix``): a class in neither truth nor prediction
    makes the mean NaN, which is None here; ``pixel_accuracy`` is its "global correct".
    """
    scores = dataset(matrix)
    return ConventionScores(
        iou=scores.iou,
        mean_iou=None if None in scores.iou else scores.mean_iou,
        pixel_accuracy=scores.pixel_accuracy,
    )


def detectron2(matrix: np.ndarray) -> ConventionScores:
    """detectron2's ``SemSegEvaluator`` (mIoU, fwIoU, mACC, pACC): a class that the truth does not have is left
    out of the mean even where it was predicted; it still takes pixels from the others.
    """
    scores = summarise(_labelled(matrix))
    iou = tuple(score if truth else None for score, truth in zip(scores.iou, scores.truth_px, strict=True))
    return ConventionScores(
        iou=iou,
        mean_iou=_mean(iou),
        pixel_accuracy=scores.pixel_accuracy,
        mean_accuracy=scores.mean_accuracy,
        frequency_weighted_iou=scores.frequency_weighted_iou,
    )


def cityscapes(matrix: np.ndarray) -> ConventionScores:
    """cityscapesScripts' ``evalPixelLevelSemanticLabeling``, on a matrix that ``ignore`` took its ignored labels
    from: without such labels the mean is ``dataset``'s. It reports no accuracy.
    """
    scores = dataset(matrix)
    return ConventionScores(iou=scores.iou, mean_iou=scores.mean_iou)


def segnet(matrix: np.ndarray) -> ConventionScores:
    """CamVid's 11-class figures as they are often computed: an unlabelled pixel predicted as c is a false
    positive of c. Accuracies are over labelled pixels.
    """
    scores = summarise(_labelled(matrix))
    predicted = matrix[:, :-1].sum(axis=0).tolist()
    iou = tuple(
        tp / union if (union := t + p - tp) else None
        for tp, t, p in zip(scores.correct_px, scores.truth_px, predicted, strict=True)
    )
    return ConventionScores(
        iou=iou, mean_iou=_mean(iou), pixel_accuracy=scores.pixel_accuracy, mean_accuracy=scores.mean_accuracy
    )


CONVENTIONS: Mapping[str, Callable[[np.ndarray], ConventionScores]] = {
    "dataset": dataset,
    "mmseg": mmseg,
    "torchvision": torchvision,
    "detectron2": detectron2,
    "cityscapes": cityscapes,
    "segnet": segnet,
}
"""Full matrix → figures, by the convention's name. ``per_image`` needs each image and is a ``PairTally``."""


@dataclass(frozen=True)
class PairTally:
    """The sum of IoUs over (image, class) pairs, in units of 2^-53, and how many they are; tallies add up.

    An integer sum has no order, so the mean is the same for any cut into blocks; an IoU is rounded by
    2^-54 at most.
    """

    total: int = 0
    pairs: int = 0

    def __add__(self, other: "PairTally") -> "PairTally":
        return PairTally(self.total + other.total, self.pairs + other.pairs)

    @property
    def mean(self) -> float | None:
        return self.total / (self.pairs << _UNIT) if self.pairs else None


def per_image(counts: ClassCounts) -> PairTally:
    """IoUs of every class in every image that it is in (truth or prediction): ``per_image``'s mean.

    torchmetrics' ``MeanIoU``, smp's imagewise scores without their value for empty pairs.
    ``counts``: (correct, truth, predicted) pixels by image (``counts.from_confusion``), not gathered.
    """
    correct, truth, predicted = counts.values.T
    union = truth + predicted - correct
    iou = correct[union > 0] / union[union > 0]
    parts = np.rint(np.ldexp(iou, _UNIT)).astype(np.int64)
    # In two halves, each far from overflow: a sum of 2^32 such numbers fits.
    high, low = int((parts >> _LOW).sum()), int((parts & ((1 << _LOW) - 1)).sum())
    return PairTally((high << _LOW) + low, iou.size)


def _labelled(matrix: np.ndarray) -> np.ndarray:
    """Full matrix → its rows of labelled truth, (C, C + 1)."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "iu":
        raise ValueError(f"expected an integer confusion matrix (C + 1, C + 1), got {matrix.dtype} {matrix.shape}")
    return matrix[:-1]


def _scores(scores: SemanticScores) -> ConventionScores:
    return ConventionScores(
        iou=scores.iou,
        mean_iou=scores.mean_iou,
        pixel_accuracy=scores.pixel_accuracy,
        mean_accuracy=scores.mean_accuracy,
        frequency_weighted_iou=scores.frequency_weighted_iou,
        mean_dice=_mean(scores.dice),
    )


def _percent(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _mean(scores: Iterable[float | None]) -> float | None:
    defined = [score for score in scores if score is not None]
    return math.fsum(defined) / len(defined) if defined else None
