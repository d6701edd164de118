"""Label sets of panoptic networks that are known by their names: class names in; which are things, or nothing, out.

A repository's config.json names its classes and does not say which are one region an image (stuff) and which are
countable (things). Of the sets that published networks are trained on, their makers do:

    COCO panoptic   panopticapi's panoptic_coco_categories.json: 80 things, then 53 of stuff
    ADE20K          its panoptic split of SceneParsing's 150 classes, as Mask2Former and OneFormer have it: 50 of stuff
    Cityscapes      the 19 classes that are scored; cityscapesScripts' ``hasInstances``: 8 things
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ALIKE = 0.8  # of the names, each at its place: spellings differ (window, windowpane), and sets do more
_NUMBER = re.compile(r" \(\d+\)$")  # which a name that stands twice gets, see hf.py
_ENDS = re.compile(r"-(merged|other-merged|other|stuff)$")


@dataclass(frozen=True)
class LabelSet:
    """``names``: by channel. ``stuff``: those of them that are one region an image."""

    names: tuple[str, ...]
    stuff: frozenset[str]


def things_of(names: Sequence[str]) -> list[bool] | None:
    """For each of a network's class names, by channel, whether it is a thing; None of a label set that is not known."""
    for known in LABEL_SETS:
        if len(names) == len(known.names):
            same = sum(_plain(one) == _plain(other) for one, other in zip(names, known.names, strict=True))
            if same >= _ALIKE * len(names):
                return [name not in known.stuff for name in known.names]
    return None


def _plain(name: str) -> str:
    """Of several words for a class the first, without what tells it from others of its kind."""
    return _ENDS.sub("", _NUMBER.sub("", name).partition(",")[0].strip().casefold())


# fmt: off
_COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
    # stuff
    "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood", "flower", "fruit",
    "gravel", "house", "light", "mirror-stuff", "net", "pillow", "platform", "playingfield", "railroad", "river",
    "road", "roof", "sand", "sea", "shelf", "snow", "stairs", "tent", "towel", "wall-brick", "wall-stone",
    "wall-tile", "wall-wood", "water-other", "window-blind", "window-other", "tree-merged", "fence-merged",
    "ceiling-merged", "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged",
    "mountain-merged", "grass-merged", "dirt-merged", "paper-merged", "food-other-merged", "building-other-merged",
    "rock-merged", "wall-other-merged", "rug-merged",
)
_ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "window", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe",
    "lamp", "tub", "rail", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case",
    "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table",
    "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer",
    "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower",
    "chandelier", "awning", "street lamp", "booth", "tv", "plane", "dirt track", "clothes", "pole", "land",
    "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain",
    "conveyer belt", "canopy", "washer", "plaything", "pool", "stool", "barrel", "basket", "falls", "tent", "bag",
    "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal",
    "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light",
    "tray", "trash can", "fan", "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator",
    "glass", "clock", "flag",
)
_ADE20K_STUFF = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "grass", "sidewalk", "earth", "mountain", "plant",
    "water", "house", "sea", "rug", "field", "rock", "base", "sand", "skyscraper", "grandstand", "path", "runway",
    "stairway", "river", "bridge", "blind", "hill", "bar", "hovel", "tower", "dirt track", "land", "escalator",
    "buffet", "poster", "stage", "conveyer belt", "canopy", "pool", "falls", "tent", "cradle", "tank", "lake",
    "blanket", "pier", "crt screen", "shower",
)
_CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)
# fmt: on
LABEL_SETS = (
    LabelSet(_COCO, frozenset(_COCO[80:])),
    LabelSet(_ADE20K, frozenset(_ADE20K_STUFF)),
    LabelSet(_CITYSCAPES, frozenset(_CITYSCAPES[:11])),
)
