"""The page's words: what each score, convention, code and group of images is called and means."""

from segjobs.evaluation.report_types import Status
from segjobs.metrics.names import DETECTIONS, QUALITY, RATIOS, WORDS

EYEBROWS = {
    "truth": "segjobs · evaluation",
    "agreement": "segjobs · agreement of two models",
    "manifest": "segjobs · manifest",
}
SECTIONS = {
    "scores": "Scores",
    "comparison": "Baseline",
    "drift": "Drift",
    "classes": "Classes",
    "confusion": "Confusion",
    "instance": "Objects",
    "panoptic": "Panoptic",
    "slices": "Slices",
    "images": "Images",
    "disputes": "Labels to check",
    "failures": "Failures",
    "provenance": "Provenance",
}

_OBJECT_SCORES = (("mask_AP", "bar"), ("mask_AP50", "figure"), ("box_AP", "figure"))
# key of a row, heading, how it is shown (bar: a figure with its bar; figure; count)
CLASS_COLUMNS = (
    *((name, words.name, "bar" if name == "iou" else "figure") for name, words in RATIOS.items()),
    ("truth_px", "truth px", "count"),
    ("predicted_px", "predicted px", "count"),
    ("images", "images", "count"),
)


def class_columns(*, agreement: bool) -> tuple[tuple[str, str, str], ...]:
    """``CLASS_COLUMNS``; without truth the baseline's pixels are called so."""
    return tuple(
        (key, words.replace("truth", "baseline") if agreement else words, kind) for key, words, kind in CLASS_COLUMNS
    )


OBJECT_COLUMNS = (
    *((name, DETECTIONS[name].name, kind) for name, kind in _OBJECT_SCORES),
    ("objects", "objects", "count"),
    ("detections", "detections", "count"),
)
PANOPTIC_COLUMNS = tuple((name, words.name, "bar" if name == "pq" else "figure") for name, words in QUALITY.items())

MISSING = {
    "worst": "A missing or failed prediction counts as wrong on every labelled pixel.",
    "skip": "Missing and failed predictions are left out of the scores.",
    "error": "",
}

STATUSES: dict[Status, str] = {
    "missing": "no prediction",
    "failed": "the prediction failed",
    "no_truth": "the truth failed",
    "extra": "no truth for this image",
}


def statuses(*, agreement: bool) -> dict[Status, str]:
    """``STATUSES``; without truth the baseline is called so."""
    return {key: words.replace("truth", "baseline") if agreement else words for key, words in STATUSES.items()}


# (key, with scores) → title, caption
GROUPS = {
    ("worst", True): ("Worst", "Lowest mIoU of their own first."),
    ("best", True): ("Best", "Highest mIoU of their own first."),
    ("random", True): ("Random", "Drawn by a seed, so that neither end misleads."),
    ("disputes", True): ("Disputed labels", "Images of the labels to check, most disputed pixels first."),
    ("worst", False): ("Least confident", "For review: where the model was least sure."),
    ("best", False): ("Most confident", "Where the model was surest."),
    ("random", False): ("Random", "Drawn by a seed: what the run looks like."),
}
PICTURES = {
    True: "Masks lie over the photo in their class's colour. The difference is coloured, and hatched, where the "
    "prediction is not right.",
    False: "Masks lie over the photo in their class's colour.",
}
LEFT_OUT = "left out: max_bytes"


def score(key: str) -> tuple[str, str]:
    """A score's name, as a heading, and what it means, by its key, such as ``mean_iou`` or ``mask_AP50``."""
    words = WORDS[key]
    first = words.name.split()[0]
    return words.name if first != first.lower() else words.name[0].upper() + words.name[1:], words.meaning
