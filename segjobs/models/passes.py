"""One look of a network at an image: a Segmenter and a view; an image shown in it, and what it gives brought back.

    image ─→ shown (mirrored) ─→ the Segmenter's own preprocess, forward ─→ planes, or instances, of the image itself

Several passes are test-time augmentation (one network, several views), an ensemble (several networks), or both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from segjobs.config import View
from segjobs.errors import ConfigError
from segjobs.models.base import GivesLogits, GivesPlanes, Instances, LazyCrops, RawOutput, Scales, Segmenter, Views


@dataclass(frozen=True)
class Pass:
    """``weight``: its share of the mean; those of all passes sum up to 1. ``view.scale`` is the segmenter's own by now.

    ``classes``: int64 (C,), the index that each class of the whole has in the segmenter's own categories.
    """

    segmenter: Segmenter
    view: View
    weight: float
    classes: np.ndarray

    def shown(self, image: np.ndarray) -> torch.Tensor:
        """uint8 (H, W, 3) → what the segmenter prepares of it. Raises ItemError."""
        rows, columns = _steps(self.view)
        flips = self.view.hflip or self.view.vflip
        return self.segmenter.preprocess(image[rows, columns].copy() if flips else image)

    def planes(self, output: RawOutput, size_hw: tuple[int, int]) -> torch.Tensor:
        """Raw output of one image → logits, float32 (C, h, w), the image as it is and the whole's classes."""
        segmenter = self.segmenter
        if isinstance(segmenter, GivesPlanes):
            planes = segmenter.planes(output, size_hw)
        else:
            assert isinstance(segmenter, GivesLogits), "passes_of has looked"  # noqa: S101
            planes = torch.as_tensor(segmenter.logits(output, size_hw))
        axes = [axis for axis, mirrored in ((1, self.view.vflip), (2, self.view.hflip)) if mirrored]
        planes = planes.float().flip(axes) if axes else planes.float()
        if (self.classes == np.arange(len(self.classes))).all():
            return planes
        return planes[torch.from_numpy(self.classes).to(planes.device)]

    def instances(self, output: RawOutput, size_hw: tuple[int, int]) -> Instances:
        """Raw output of one image → its objects, in the image as it is and of the whole's classes. Raises ItemError."""
        found = self.segmenter.postprocess(output, size_hw)
        assert isinstance(found, Instances), "passes_of has looked"  # noqa: S101
        index = np.argsort(self.classes)  # the whole's, of the segmenter's own
        return mirrored(replace(found, classes=index[found.classes]), self.view)


def mirrored(found: Instances, view: View) -> Instances:
    """Objects of a mirrored image → of the image."""
    rows, columns = _steps(view)
    height, width = found.size_hw
    boxes, corners = found.boxes_xyxy.copy(), found.corners_xy.copy()
    if view.hflip:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    if view.vflip:
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    for place in range(len(corners)) if view.hflip or view.vflip else ():
        crop_h, crop_w = found.crops[place].shape
        left, top = corners[place].tolist()
        corners[place] = (width - left - crop_w if view.hflip else left, height - top - crop_h if view.vflip else top)
    crops = LazyCrops(len(found.crops), lambda place: found.crops[place][rows, columns])
    return replace(found, boxes_xyxy=boxes, crops=crops, corners_xy=corners)


def views_of(passes: Sequence[Pass], image: np.ndarray) -> Views:
    """uint8 (H, W, 3) RGB → what every pass prepares of it. Raises ItemError."""
    return Views(tuple(one.shown(image) for one in passes), (image.shape[0], image.shape[1]))


def passes_of(segmenter: Segmenter, views: Sequence[View], *, share: float, classes: np.ndarray) -> list[Pass]:
    """The image itself and its ``views``, as one model sees them; their weights sum up to ``share``.

    Raises ConfigError where the model's masks cannot be averaged, or it does not scale.
    """
    card = segmenter.card
    if card.task == "semantic" and not isinstance(segmenter, GivesPlanes | GivesLogits):
        raise ConfigError(
            f"model.tta, ensembles: {card.label} gives label maps alone, without probabilities to average: give it a "
            "method logits (GivesLogits in segjobs/models/base.py)"
        )
    passes = []
    for view in (View(), *views):
        seen = segmenter
        if view.scale != 1:
            if not isinstance(segmenter, Scales):
                raise ConfigError(
                    f"model.tta: {view}: {card.label} resizes images by itself, and has no method scaled (Scales in "
                    "segjobs/models/base.py): give it one, or keep to hflip and vflip"
                )
            seen = segmenter.scaled(view.scale)
        passes.append(Pass(seen, view, share / (1 + len(views)), classes))
    return passes


def _steps(view: View) -> tuple[slice, slice]:
    """Rows and columns of an image in the view's order; the same way back."""
    return slice(None, None, -1 if view.vflip else 1), slice(None, None, -1 if view.hflip else 1)
