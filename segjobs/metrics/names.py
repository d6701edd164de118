"""What scores are called: their keys in tables and reports, in that order, and the words for people.

Keys of the whole set and by class lie side by side in ``bootstrap.Estimates``: where a class's figure has the
name of one of the set, its key there is ``by_class(name)``.
"""

from dataclasses import dataclass
from typing import Literal, get_args

MatchKind = Literal["mask", "box"]
KINDS: tuple[MatchKind, ...] = get_args(MatchKind)
"""By what two objects are compared: their masks or their boxes."""


@dataclass(frozen=True)
class ScoreWords:
    """A score's printed ``name`` and, in a few words, what it is."""

    name: str
    meaning: str = ""


HEADLINE = {
    "mean_iou": ScoreWords("mIoU", "mean over the classes of intersection over union"),
    "pixel_accuracy": ScoreWords("pixel accuracy", "of the labelled pixels"),
    "mean_accuracy": ScoreWords("mean class accuracy", "mean over the classes of recall"),
    "frequency_weighted_iou": ScoreWords("frequency-weighted IoU", "each class by its share of pixels"),
    "mean_dice": ScoreWords("mean Dice", "the classes' F1 of pixels"),
    "boundary_iou": ScoreWords("boundary IoU", "of the bands along the outlines"),
    "boundary_f": ScoreWords("boundary F", "F1 of the outlines within the tolerance"),
}
"""Semantic figures of the whole set."""
OF_PIXELS = ("pixel_accuracy", "frequency_weighted_iou")
"""Those of ``HEADLINE`` that masks which overlap do not have: no pixel of theirs is right or wrong as a whole."""
BOUNDARY = ("boundary_iou", "boundary_f")
"""Those that are measured where ``boundary.enabled`` asks for them."""

RATIOS = {
    "iou": ScoreWords("IoU", "intersection over union"),
    "dice": ScoreWords("Dice"),
    "precision": ScoreWords("precision"),
    "recall": ScoreWords("recall"),
    **{name: HEADLINE[name] for name in BOUNDARY},
}
"""Semantic figures of one class."""

AVERAGE_PRECISION = {
    "AP": ScoreWords("AP", "mean over IoU .50 to .95"),
    "AP50": ScoreWords("AP50", "at IoU .50"),
    "AP75": ScoreWords("AP75", "at IoU .75"),
    "APs": ScoreWords("APs", "small objects, under 32² px"),
    "APm": ScoreWords("APm", "medium objects, 32² to 96² px"),
    "APl": ScoreWords("APl", "large objects, over 96² px"),
    "AR1": ScoreWords("AR1", "recall with 1 detection an image"),
    "AR10": ScoreWords("AR10", "recall with 10 detections an image"),
    "AR100": ScoreWords("AR100", "recall with 100 detections an image"),
    "ARs": ScoreWords("ARs", "recall of small objects"),
    "ARm": ScoreWords("ARm", "recall of medium objects"),
    "ARl": ScoreWords("ARl", "recall of large objects"),
}
"""COCO's twelve numbers in pycocotools' order; in tables under their kind's name, ``mask_AP``."""
DETECTIONS = {
    f"{kind}_{name}": ScoreWords(f"{kind} {words.name}", words.meaning)
    for kind in KINDS
    for name, words in AVERAGE_PRECISION.items()
}

QUALITY = {
    "pq": ScoreWords("PQ", "panoptic quality"),
    "sq": ScoreWords("SQ", "how well matched segments fit"),
    "rq": ScoreWords("RQ", "F1 of matched segments"),
}
"""Panoptic quality and its two factors, of the set and by class."""

CONVENTION_WORDS = {
    "dataset": "one matrix over the set; unlabelled pixels are dropped, and classes in neither truth nor prediction.",
    "mmseg": "as dataset, rounded to two places.",
    "torchvision": "as dataset, but a class in neither makes the mean undefined.",
    "detectron2": "as dataset, but a class that the truth lacks is left out even where it was predicted.",
    "cityscapes": "as dataset; an ignored class predicted on a scored pixel counts as missed.",
    "segnet": "an unlabelled pixel predicted as a class is a false positive of that class.",
    "per_image": "mean over (image, class) pairs, not over pixels of the set.",
}
"""How each convention counts (``conventions.py``); ``per_image`` needs each image, the others one matrix."""

OF_SET = {**HEADLINE, **DETECTIONS, **QUALITY}
"""Every figure of the whole set."""
WORDS = {**OF_SET, **RATIOS}


def by_class(name: str) -> str:
    """The key of a class's figure: ``iou``, but ``class_pq`` where the set has a figure of that name too."""
    return f"class_{name}" if name in OF_SET else name
