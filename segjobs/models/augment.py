"""Random changes of an image that leave its meaning as it is; the masks follow.

    image, target → cut a window, scale it to the crop (random scale, place, ratio of sides) → mirror → change colours

All numbers are drawn from the seed, so that the same seed gives the same example in any process. A crop that the
scaled image does not fill is smaller than ``crop_px``: a batch is padded with VOID (see ``Segmenter.loss``).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from segjobs.config import AugmentConfig
from segjobs.models.base import VOID, Instances, LabelMap, Target
from segjobs.models.resize import to_tensor

_VOID_BYTE = 255  # of label maps with at most 255 classes, which torch resizes as bytes


@dataclass(frozen=True)
class CropWindow:
    """A part of the image, in whole pixels, and the size that it is scaled to."""

    top: int
    left: int
    height: int
    width: int
    to_hw: tuple[int, int]


def augment(image: np.ndarray, target: Target, config: AugmentConfig, *, seed: int) -> tuple[np.ndarray, Target]:
    """uint8 (H, W, 3) RGB and its target → another one and its target; equal seeds give equal ones.

    Objects of which no pixel is left are dropped, and boxes are drawn around what is left of the others. Instances
    must be within the image. Neither the inputs nor the process's random generators change.
    """
    if not config.enabled:
        return image, target
    rng = np.random.default_rng(seed)
    window = draw_window((image.shape[0], image.shape[1]), config, rng)
    pixels, masks = cut_out(image, target, window)
    for share, mirror in ((config.horizontal_flip, v2.horizontal_flip), (config.vertical_flip, v2.vertical_flip)):
        if rng.random() < share:
            pixels, masks = mirror(pixels), mirror(masks)
    pixels = change_colors(pixels, config, rng)
    return _as_image(pixels), _as_target(masks, target)


def draw_window(size_hw: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> CropWindow:
    """Scale (uniform in its logarithm) and place of a crop; every place within the image is as likely."""
    low, high = config.scale
    scale = math.exp(rng.uniform(math.log(low), math.log(high)))
    stretch = math.exp(rng.uniform(-1, 1) * math.log(config.aspect) / 2)
    starts, lengths, to = [], [], []
    for side, factor, crop in zip(size_hw, (scale / stretch, scale * stretch), config.crop_px or size_hw, strict=True):
        scaled = max(1, round(side * factor))
        shown = scaled if config.crop_px is None else min(crop, scaled)
        length = min(side, max(1, round(side * shown / scaled)))
        starts.append(int(rng.integers(0, side - length + 1)))
        lengths.append(length)
        to.append(shown)
    return CropWindow(starts[0], starts[1], lengths[0], lengths[1], (to[0], to[1]))


def cut_out(image: np.ndarray, target: Target, window: CropWindow) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """The window's pixels, uint8 (3, h, w), and its masks: label map (1, h, w), or an object each (N, h, w)."""
    place = window.top, window.left, window.height, window.width
    pixels = v2.resize(v2.crop(tv_tensors.Image(to_tensor(image)), *place), list(window.to_hw), antialias=True)
    masks = _label_map(target, window) if isinstance(target, LabelMap) else _object_masks(target, window)
    # A pixel takes the label under its centre: torchvision scales a Mask by NEAREST, which shifts it.
    scaled = v2.resize(masks, list(window.to_hw), InterpolationMode.NEAREST_EXACT)
    return tv_tensors.Image(pixels), tv_tensors.Mask(scaled)


def change_colors(pixels: torch.Tensor, config: AugmentConfig, rng: np.random.Generator) -> torch.Tensor:
    """uint8 (3, h, w): brightness, contrast, saturation and hue change in random order, as in v2.ColorJitter."""
    changes = (
        (v2.adjust_brightness, 1, config.brightness),
        (v2.adjust_contrast, 1, config.contrast),
        (v2.adjust_saturation, 1, config.saturation),
        (v2.adjust_hue, 0, config.hue),
    )
    for number in rng.permutation(len(changes)).tolist():
        change, neutral, strength = changes[number]
        if strength:
            pixels = change(pixels, neutral + rng.uniform(-strength, strength))
    return pixels


def _label_map(target: LabelMap, window: CropWindow) -> torch.Tensor:
    """(1, h, w): uint8 with VOID as 255 where that is no class, else float32, which holds any id."""
    ids = target.ids[window.top : window.top + window.height, window.left : window.left + window.width]
    known = ids[ids != VOID]
    if known.size and known.max() >= _VOID_BYTE:
        return torch.from_numpy(ids.astype(np.float32))[None]
    return torch.from_numpy(np.minimum(ids, _VOID_BYTE).astype(np.uint8))[None]


def _object_masks(target: Instances, window: CropWindow) -> torch.Tensor:
    """uint8 (N, h, w), 1 where the object is."""
    masks = np.zeros((len(target.classes), window.height, window.width), np.uint8)
    for mask, crop, (left, top) in zip(masks, target.crops, target.corners_xy.tolist(), strict=True):
        y, x = top - window.top, left - window.left
        part = crop[max(-y, 0) : max(window.height - y, 0), max(-x, 0) : max(window.width - x, 0)]
        y, x = max(y, 0), max(x, 0)
        mask[y : y + part.shape[0], x : x + part.shape[1]] = part >= 0.5
    return torch.from_numpy(masks)


def _as_image(pixels: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def _as_target(masks: torch.Tensor, target: Target) -> Target:
    arrays = masks.numpy()
    if isinstance(target, LabelMap):
        ids = arrays[0].astype(np.uint16)
        if arrays.dtype == np.uint8:
            ids[arrays[0] == _VOID_BYTE] = VOID
        return LabelMap(ids)
    kept, boxes, crops = [], [], []
    for number, mask in enumerate(arrays):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size == 0:
            continue
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        kept.append(number)
        boxes.append((left, top, right, bottom))
        crops.append(mask[top:bottom, left:right].astype(np.float32))
    corners = np.array(boxes, np.int32).reshape(-1, 4)
    return Instances(
        size_hw=(arrays.shape[1], arrays.shape[2]),
        classes=target.classes[kept],
        scores=target.scores[kept],
        boxes_xyxy=corners.astype(np.float32),
        crops=crops,
        corners_xy=corners[:, :2],
    )
