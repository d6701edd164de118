"""The page's words: what each score, convention, code and group of images is called and means."""

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

_SCORES = {
    "mean_iou": ("mIoU", "mean over the classes of intersection over union"),
    "pixel_accuracy": ("Pixel accuracy", "of the labelled pixels"),
    "mean_accuracy": ("Mean class accuracy", "mean over the classes of recall"),
    "frequency_weighted_iou": ("Frequency-weighted IoU", "each class by its share of pixels"),
    "mean_dice": ("Mean Dice", "the classes' F1 of pixels"),
    "boundary_iou": ("Boundary IoU", "of the bands along the outlines"),
    "boundary_f": ("Boundary F", "F1 of the outlines within the tolerance"),
    "iou": ("IoU", "intersection over union"),
    "pq": ("PQ", "panoptic quality"),
    "sq": ("SQ", "how well matched segments fit"),
    "rq": ("RQ", "F1 of matched segments"),
}

AVERAGE_PRECISION = {
    "AP": "mean over IoU .50 to .95",
    "AP50": "at IoU .50",
    "AP75": "at IoU .75",
    "APs": "small objects, under 32² px",
    "APm": "medium objects, 32² to 96² px",
    "APl": "large objects, over 96² px",
    "AR1": "recall with 1 detection an image",
    "AR10": "recall with 10 detections an image",
    "AR100": "recall with 100 detections an image",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
}

# key of a row, heading, how it is shown (bar: a figure with its bar; figure; count)
CLASS_COLUMNS = (
    ("iou", "IoU", "bar"),
    ("dice", "Dice", "figure"),
    ("precision", "precision", "figure"),
    ("recall", "recall", "figure"),
    ("boundary_iou", "boundary IoU", "figure"),
    ("boundary_f", "boundary F", "figure"),
    ("truth_px", "truth px", "count"),
    ("predicted_px", "predicted px", "count"),
    ("images", "images", "count"),
)
OBJECT_COLUMNS = (
    ("mask_AP", "mask AP", "bar"),
    ("mask_AP50", "mask AP50", "figure"),
    ("box_AP", "box AP", "figure"),
    ("objects", "objects", "count"),
    ("detections", "detections", "count"),
)

PANOPTIC_COLUMNS = (
    ("pq", "PQ", "bar"),
    ("sq", "SQ", "figure"),
    ("rq", "RQ", "figure"),
    ("tp", "found", "count"),
    ("fp", "extra", "count"),
    ("fn", "missed", "count"),
)

CONVENTIONS = {
    "dataset": "one matrix over the set; unlabelled pixels are dropped, and classes in neither truth nor prediction.",
    "mmseg": "as dataset, rounded to two places.",
    "torchvision": "as dataset, but a class in neither makes the mean undefined.",
    "detectron2": "as dataset, but a class that the truth lacks is left out even where it was predicted.",
    "cityscapes": "as dataset; an ignored class predicted on a scored pixel counts as missed.",
    "segnet": "an unlabelled pixel predicted as a class is a false positive of that class.",
    "per_image": "mean over (image, class) pairs, not over pixels of the set.",
}

MISSING = {
    "worst": "A missing or failed prediction counts as wrong on every labelled pixel.",
    "skip": "Missing and failed predictions are left out of the scores.",
    "error": "",
}

STATUSES = {
    "missing": "no prediction",
    "failed": "the prediction failed",
    "no_truth": "the truth failed",
    "extra": "no truth for this image",
}

FAILURES = {
    "UNREADABLE": "not an image, or empty",
    "TRUNCATED": "an image that ends early",
    "TOO_LARGE": "more pixels than decode.max_pixels",
    "UNSUPPORTED_MODE": "a pixel format without a rule",
    "NOT_FOUND": "gone when it was read",
    "CHANGED": "not what was planned",
    "NON_FINITE": "the model gave NaN or infinity",
    "GPU_OOM": "does not fit on the GPU, even alone",
    "CRASHED": "its worker died on it",
    "TIMEOUT": "took too long to read",
    "LABEL_SHAPE": "the label has another size than the image",
    "LABEL_VALUE": "the label has an unknown id, or a mask that makes no sense",
}

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


def score(key: object) -> tuple[str, str]:
    """A score's name and what it means, by its key, such as ``mean_iou`` or ``mask_AP50``; unknown: the key itself."""
    kind, _, name = str(key).partition("_")
    if kind in ("mask", "box") and name in AVERAGE_PRECISION:
        return f"{kind.capitalize()} {name}", AVERAGE_PRECISION[name]
    return _SCORES.get(str(key), (str(key), ""))
